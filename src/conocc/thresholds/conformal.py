r"""What an anomaly score promises, from scores of the majority class alone.

`n` calibration scores of majority images that were never trained on give each new score a
p-value, and give thresholds that keep a promised false-alarm rate at a promised certainty
(`promised_threshold`). A false alarm is a majority image, or a majority patient, that is flagged.

The promises need calibration scores and new majority scores that are independent draws from
one law. Images of one patient are not independent, so that there is one calibration score a
patient, and the promise has a *unit*:

``"image"``
    one image of each patient, drawn by a seed; the promise is about an image drawn likewise
    from a new patient.
``"patient"``
    the largest score of each patient; the promise is about the largest score of a new
    patient, so about flagging a patient if any of the images is. It needs patients
    with as many images as those of the calibration had.

References
----------
S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia, *Testing for outliers with conformal
p-values*, Annals of Statistics 51 (2023) 149-178.
Y. Benjamini and Y. Hochberg, *Controlling the false discovery rate*, Journal of the Royal
Statistical Society B 57 (1995) 289-300.
V. Vovk, *Conditional validity of inductive conformal predictors*, Machine Learning 92 (2013)
349-376, for the Beta law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, false_discovery_control

from conocc.io.words import count, percent
from conocc.metrics.checks import in_unit_interval
from conocc.metrics.ranking import Bools, Floats, Ints, finite_row, patient_names
from conocc.thresholds.rule import known_unit

# A certainty or a p-value that equals its bound by hand may miss it in the last bit.
ROUNDING = 1e-12
# Where nobody asks for a rate of false alarms, it is the smallest of these that can be promised.
USUAL_RATES = (0.05, 0.1, 0.2)


def p_values(calibration_scores: ArrayLike, scores: ArrayLike) -> Floats:
    r"""Conformal p-values: how rare so high a score is among majority images.

    Bates et al. (2023): :math:`(1 + \#\{i : s_i^{cal} \ge s\}) / (n + 1)`. For a new
    majority image, :math:`P(p \le \alpha) \le \alpha` for every alpha, over calibration and
    image together; without ties p is uniform on {1/(n+1), ..., 1}.

    Parameters
    ----------
    calibration_scores : array of float, shape (n,)
        Anomaly scores of majority images, in any order.
    scores : array of float, shape (t,)
        Anomaly scores to judge.

    Returns
    -------
    array of float, shape (t,)
        In [1 / (n + 1), 1].

    Raises
    ------
    ValueError
        If a score is NaN or infinite, an array is not one row, or there is no calibration
        score.

    Examples
    --------
    >>> p_values([1.0, 2.0, 3.0, 4.0], [0.5, 3.0, 9.0])
    array([1. , 0.6, 0.2])
    """
    calibration_scores = _calibration_scores(calibration_scores)
    scores = finite_row("scores", scores)
    below = np.searchsorted(np.sort(calibration_scores), scores, side="left")
    n = calibration_scores.size
    return (1 + n - below) / (n + 1)


def promised_threshold(
    calibration_scores: ArrayLike,
    *,
    false_alarms: float,
    confidence: float = 0.95,
    each: str = "patient",
) -> float:
    r"""Score above which, strictly, an image is flagged, and seldom wrongly.

    The false-alarm rate on new majority images is at most `false_alarms` with a certainty of
    `confidence`, over the draw of the calibration scores.

    The threshold is a calibration score, the k-th smallest of n, :math:`s_{(k)}`. With F the
    law of majority scores, and F continuous, :math:`F(s_i)` are independent and uniform on
    [0, 1], and the k-th smallest of n such has the law Beta(k, n + 1 - k). The false-alarm
    rate is the chance of a new score above the threshold, :math:`1 - F(s_{(k)})`, whose law
    is the mirrored one, Beta(n + 1 - k, k), with mean (n + 1 - k) / (n + 1). Its chance of
    being at most `false_alarms` grows with k; the smallest k that reaches `confidence` is
    taken, which misses the fewest minority images. Ties only lower the rate, since an image
    at the threshold passes.

    Parameters
    ----------
    calibration_scores : array of float, shape (n,)
        Anomaly scores of majority images, in any order.
    false_alarms, confidence : float
        In (0, 1).
    each : str
        What has one score, as it is called in a refusal.

    Returns
    -------
    float
        One of the calibration scores.

    Raises
    ------
    ValueError
        If there are fewer calibration scores than `needed`, a score is NaN or infinite, or a
        parameter is outside its range.

    Examples
    --------
    >>> promised_threshold(range(1, 60), false_alarms=0.05, confidence=0.95)
    59.0
    >>> promised_threshold(range(1, 101), false_alarms=0.10, confidence=0.95)
    96.0
    """
    scores = np.sort(_calibration_scores(calibration_scores))
    least = needed(false_alarms, confidence)
    if scores.size < least:
        raise ValueError(
            f"To promise at most {percent(false_alarms)} false alarms with {percent(confidence)} "
            f"certainty, calibrate on at least {count(least, each)}. Got {scores.size}."
        )
    k = np.arange(1, scores.size + 1)
    certainty = beta.cdf(false_alarms, scores.size + 1 - k, k)
    return float(scores[certainty >= confidence - ROUNDING][0])


def needed(false_alarms: float, confidence: float = 0.95) -> int:
    """Smallest number of calibration scores from which `promised_threshold` can be had.

    The largest of n scores has the most certain threshold: its false-alarm rate follows
    Beta(1, n), which is at most a with probability 1 - (1 - a)^n.

    Parameters
    ----------
    false_alarms, confidence : float
        In (0, 1).

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If a parameter is outside its range.

    Examples
    --------
    >>> [needed(rate, 0.95) for rate in (0.10, 0.05, 0.01)]
    [29, 59, 299]
    """
    in_unit_interval("false_alarms", false_alarms)
    in_unit_interval("confidence", confidence)
    return math.ceil(math.log(1 - confidence + ROUNDING) / math.log1p(-false_alarms))


def benjamini_hochberg(p: ArrayLike, *, rate: float) -> Bools:
    """Which of a batch to flag, so that few of those flagged are majority images.

    The expected share of majority images among those flagged, the false-discovery rate, is at
    most `rate` (times the share of majority images in the batch), for conformal p-values from
    one calibration too (Bates et al. 2023): they are dependent, but positively so.

    Parameters
    ----------
    p : array of float, shape (t,)
        In [0, 1].
    rate : float
        In (0, 1).

    Returns
    -------
    array of bool, shape (t,)

    Raises
    ------
    ValueError
        If a p-value or `rate` is outside its range.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.20, 0.02, 0.90], rate=0.05)
    array([ True, False,  True, False])
    """
    # A multiple of 1 / (n + 1) often meets its bound exactly.
    bound = in_unit_interval("rate", rate) * (1 + ROUNDING)
    return np.asarray(false_discovery_control(finite_row("p", p)) <= bound)


def one_image_a_patient(patient: ArrayLike, random_state: int = 0) -> Ints:
    """Draw one image of each patient, all images of a patient being equally likely.

    Parameters
    ----------
    patient : array, shape (n,)
        Whose image it is.
    random_state : int, default 0
        Seed of the draw; the same seed and order give the same images.

    Returns
    -------
    array of int, shape (number of patients,)
        Indices of the images, ascending.

    Examples
    --------
    >>> one_image_a_patient(["a", "b", "a", "b", "c"]).size
    3
    """
    patient = patient_names(patient)
    shuffled = np.random.default_rng(random_state).permutation(patient.size)
    first = np.unique(patient[shuffled], return_index=True)[1]
    return np.sort(shuffled[first])


def patient_maxima(patient: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], Floats]:
    """Largest score of each patient.

    Parameters
    ----------
    patient : array, shape (n,)
        Whose image it is.
    scores : array of float, shape (n,)

    Returns
    -------
    patients : array, shape (number of patients,)
        Each patient once, sorted.
    maxima : array of float, shape (number of patients,)

    Raises
    ------
    ValueError
        If lengths differ, or a score is NaN or infinite.

    Examples
    --------
    >>> patients, maxima = patient_maxima(["b", "a", "b"], [1.0, 2.0, 3.0])
    >>> patients.tolist(), maxima.tolist()
    (['a', 'b'], [2.0, 3.0])
    """
    scores = finite_row("scores", scores)
    patient = patient_names(patient, scores.size)
    patients, code = np.unique(patient, return_inverse=True)
    maxima = np.full(patients.size, -np.inf)
    np.maximum.at(maxima, code, scores)
    return patients, maxima


@dataclass(frozen=True)
class Calibration:
    """Scores of majority images that were never trained on, in plain values.

    Both units can be had of it, and any threshold, at any time.

    Parameters
    ----------
    scores : tuple of float, length n
        The anomaly score of each calibration image. Finite, at least one.
    patient : tuple of int, length n, or None
        A number for each image's patient, which says no more than who is the same; None where
        patients are not known.
    seed : int
        Of the draw of one image a patient.
    whose : str
        What `patient` numbers; "file" where images of one file stay together.

    Raises
    ------
    ValueError
        If there is no score, one is NaN or infinite, or lengths differ.

    Examples
    --------
    >>> calibration = calibrate([1.0, 3.0, 2.0], patient=["a", "a", "b"])
    >>> calibration
    Calibration(scores=(1.0, 3.0, 2.0), patient=(0, 0, 1), seed=0)
    >>> calibration.of("patient")
    array([2., 3.])
    >>> calibration == Calibration.from_json(calibration.as_json())
    True
    """

    scores: tuple[float, ...]
    patient: tuple[int, ...] | None = None
    seed: int = 0
    whose: str = field(default="patient", repr=False)

    def __post_init__(self) -> None:
        scores = _calibration_scores(self.scores)
        if self.patient is not None:
            patient_names(self.patient, scores.size)

    @property
    def patients(self) -> int:
        """How many patients there are; of images, where patients are not known."""
        return len(self.scores if self.patient is None else set(self.patient))

    @property
    def each(self) -> str:
        """What counts as one: a patient; where these are not known, an image, or a file of many."""
        return "image" if self.patient is None else self.whose

    def of(self, unit: str) -> Floats:
        """Calibration scores of a unit, one a patient, ascending.

        Where patients are not known, each image is taken as a patient of its own, and nothing
        can be said by patient.

        Raises
        ------
        ValueError
            If the unit is unknown, or is "patient" and patients are not known.
        """
        scores = np.asarray(self.scores)
        if known_unit(unit) == "patient":
            if self.patient is None:
                raise ValueError(
                    "The unit 'patient' needs calibration images whose patients are known. "
                    "Theirs are not: use the unit 'image', or calibrate with patients."
                )
            return np.sort(patient_maxima(self.patient, scores)[1])
        if self.patient is not None:
            scores = scores[one_image_a_patient(self.patient, self.seed)]
        return np.sort(scores)

    def usual_rate(self, confidence: float = 0.95) -> float | None:
        """Give the smallest of `USUAL_RATES` that so many patients can promise; None for none.

        >>> [calibrate(range(n)).usual_rate() for n in (13, 14, 28, 29, 58, 59)]
        [None, 0.2, 0.2, 0.1, 0.1, 0.05]
        """
        promised = (r for r in USUAL_RATES if needed(r, confidence) <= self.patients)
        return next(promised, None)

    def p_values(self, scores: ArrayLike, *, unit: str = "image") -> Floats:
        """See `p_values`; by patient, a patient's is the smallest of the images'."""
        return p_values(self.of(unit), scores)

    def threshold(
        self, *, false_alarms: float, confidence: float = 0.95, unit: str = "image"
    ) -> float:
        """See `promised_threshold`."""
        how = {"false_alarms": false_alarms, "confidence": confidence}
        return promised_threshold(self.of(unit), **how, each=self.each)

    def as_json(self) -> dict[str, Any]:
        """Plain values that JSON keeps to the last bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Read what `as_json` wrote."""
        patient = None if values["patient"] is None else tuple(values["patient"])
        return cls(tuple(values["scores"]), patient, values["seed"], values["whose"])


def calibrate(
    scores: ArrayLike, *, patient: ArrayLike | None = None, random_state: int = 0
) -> Calibration:
    """Keep scores of majority images that were never trained on, and numbers for patients.

    Parameters
    ----------
    scores : array of float, shape (n,)
        Anomaly scores of majority images.
    patient : array, shape (n,), optional
        Whose image it is; names are not kept.
    random_state : int, default 0
        Seed of the draw of one image a patient.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        As `Calibration`.

    Examples
    --------
    >>> calibrate([0.1, 0.2, 0.3]).patients
    3
    """
    scores = _calibration_scores(scores)
    codes = None
    if patient is not None:
        names = patient_names(patient, scores.size)
        codes = tuple(np.unique(names, return_inverse=True)[1].tolist())
    return Calibration(tuple(scores.tolist()), codes, random_state)


def _calibration_scores(scores: ArrayLike) -> Floats:
    row = finite_row("calibration_scores", scores)
    if not row.size:
        raise ValueError("Calibration needs at least one score of a majority image. Got none.")
    return row
