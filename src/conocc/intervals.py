"""How sure a metric is: the interval of each, and the paired test of two methods.

Images of one patient are alike, so that everything here
that says how sure a figure is takes the `patient` of each image.

Letters: ``n`` images, ``k`` scores an image (one a method), ``m`` minority images.
``minority`` is a bool array (n,), ``anomaly_score`` a float array (n,) in which higher means
less like the majority class, ``patient`` an array (n,) of any hashable names.

References
----------
E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, *Comparing the areas under two or more
correlated receiver operating characteristic curves: a nonparametric approach*, Biometrics
44 (1988) 837-845.
X. Sun and W. Xu, *Fast implementation of DeLong's algorithm for comparing the areas under
correlated receiver operating characteristic curves*, IEEE Signal Processing Letters 21
(2014) 1389-1393.
N. A. Obuchowski, *Nonparametric analysis of clustered ROC curve data*, Biometrics 53 (1997)
567-578.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from conocc.metrics import Bools, Floats, checked, in_unit_interval

Ints = NDArray[np.intp]

# What is left below this when structural components cancel is rounding.
NO_VARIANCE = 1e-15


class Interval(NamedTuple):
    """A figure and the ends of its confidence interval, ``low <= high``."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """The AUC of one method minus that of another, its interval, and the test of no difference.

    ``p`` is two-sided, from the standard normal law of ``z``.
    """

    difference: float
    low: float
    high: float
    z: float
    p: float


def structural_components(minority: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """How often each minority image outscores the majority, and each majority image is outscored.

    The V10 and V01 of DeLong et al. (1988), by the midranks of Sun and Xu (2014): ``O(n log n)``
    instead of every pair.

    Parameters
    ----------
    minority : array of bool, shape (n,)
        Both classes.
    scores : array of float, shape (k, n)

    Returns
    -------
    over_majority : array, shape (k, m)
        For each minority image, the share of majority scores below its own, ties one half.
    under_minority : array, shape (k, n - m)
        For each majority image, the share of minority scores above its own, ties one half.

    Examples
    --------
    >>> structural_components(np.array([False, False, True]), np.array([[0.1, 0.4, 0.3]]))
    (array([[0.5]]), array([[1., 0.]]))
    """
    m = int(minority.sum())
    rank = rankdata(scores, axis=1)
    # An image's midrank among all, less that in its own class, counts the other class below it.
    over_majority = (rank[:, minority] - rankdata(scores[:, minority], axis=1)) / (
        minority.size - m
    )
    under_minority = 1 - (rank[:, ~minority] - rankdata(scores[:, ~minority], axis=1)) / m
    return over_majority, under_minority


def auc_covariance(
    minority: ArrayLike, scores: ArrayLike, *, patient: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    r"""AUCs of `k` methods on the same images, and the covariance of these AUCs.

    Obuchowski (1997): with the structural components of patient i, less their mean, summed
    over the patient's m_i minority images to :math:`x_i` and over the n_i majority images to
    :math:`y_i` (vectors of length k), M minority and N majority images in all, and
    :math:`I_{10}, I_{01}, I` patients with minority, with majority, with any images,

    .. math:: \frac{I_{10}}{I_{10} - 1} \sum_i \frac{x_i x_i^T}{M^2}
        + \frac{I_{01}}{I_{01} - 1} \sum_i \frac{y_i y_i^T}{N^2}
        + \frac{I}{I - 1} \sum_i \frac{x_i y_i^T + y_i x_i^T}{M N}.

    With one image a patient the last sum vanishes and the first two are exactly those of
    DeLong et al. (1988), whose divisors are M - 1 and N - 1: without `patient` each
    image is taken as a patient of its own.

    Parameters
    ----------
    minority : array of bool, shape (n,)
    scores : array of float, shape (k, n)
        One row a method.
    patient : array, shape (n,), optional
        Whose image it is; without it, images are taken as independent.

    Returns
    -------
    areas : array, shape (k,)
    covariance : array, shape (k, k)
        The factors differ between the sums, so that with a handful of patients a variance
        can come out below zero; the callers here treat that as no variance.

    Raises
    ------
    ValueError
        As `auc`; or if fewer than two patients have images of a class.

    Examples
    --------
    >>> areas, covariance = auc_covariance([0, 0, 1, 1], [[0.1, 0.3, 0.2, 0.9]])
    >>> areas, covariance
    (array([0.75]), array([[0.125]]))
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not len(scores):
        raise ValueError(
            "The 'scores' parameter must have one row a method, shape (k, n). "
            f"Got shape {scores.shape} instead."
        )
    for score in scores:
        told, _ = checked(minority, score)
    return _covariance(told, scores, _patient_codes(patient, told.size))


def auc_interval(
    minority: ArrayLike,
    anomaly_score: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """AUC with its confidence interval: DeLong's, or Obuchowski's where patients are given.

    The interval is symmetric on the logit scale, so that it stays within [0, 1] and keeps
    its coverage near the ends, where the plain one does not (M. Pohar Perme and D. Manevski,
    *Confidence intervals for the Mann-Whitney test*, Statistical Methods in Medical Research
    28 (2019), doi:10.1177/0962280218814556).

    Where the estimated variance is not above zero, as when every minority image outscores
    every majority one, that formula would claim certainty. The ends are then the areas that
    lie the normal quantile times their own standard error from the observed one, with Hanley
    and McNeil's variance for as many images as there are patients (R. G. Newcombe,
    *Confidence intervals for an effect size measure based on the Mann-Whitney statistic.
    Part 2*, Statistics in Medicine 25 (2006) 559-573, method 5).

    Parameters
    ----------
    minority : array of bool, shape (n,)
    anomaly_score : array of float, shape (n,)
    patient : array, shape (n,), optional
        Whose image it is; without it, images are taken as independent.
    level : float, default 0.95
        In (0, 1).

    Returns
    -------
    Interval
        Within [0, 1].

    Raises
    ------
    ValueError
        As `auc`; or if fewer than two patients (images, without `patient`) have images of a
        class.

    Examples
    --------
    >>> minority = [False, False, False, True, True, True]
    >>> interval = auc_interval(minority, [0.1, 0.2, 0.6, 0.5, 0.7, 0.9])
    >>> print(f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})")
    0.889 (0.261 to 0.995)
    """
    z = _quantile(level)
    told, score = checked(minority, anomaly_score)
    code = _patient_codes(patient, told.size)
    areas, covariance = _covariance(told, score[None], code)
    area, variance = float(areas[0]), float(covariance[0, 0])
    if variance > NO_VARIANCE:
        half = z * math.sqrt(variance) / (area * (1 - area))
        return Interval(area, float(expit(logit(area) - half)), float(expit(logit(area) + half)))
    counts = _patients_of_each_class(told, code)
    return Interval(area, _lower_area(area, *counts, z), 1 - _lower_area(1 - area, *counts, z))


def compare_auc(
    minority: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    level: float = 0.95,
) -> Comparison:
    """AUC of `score_a` minus AUC of `score_b` on the same images, with interval and paired test.

    The variance of the difference is DeLong's, or Obuchowski's where patients are given; the
    interval is the plain one, cut at -1 and 1.

    Parameters
    ----------
    minority : array of bool, shape (n,)
    score_a, score_b : array of float, shape (n,)
        Anomaly scores of two methods for the same images in the same order.
    patient : array, shape (n,), optional
        Whose image it is; without it, images are taken as independent.
    level : float, default 0.95
        In (0, 1), of the interval.

    Returns
    -------
    Comparison
        Two methods that rank alike give ``z`` 0 and ``p`` 1. Where areas differ although the
        variance of their difference is not above zero (a perfect method and a constant one),
        the data do not say how sure that is: the ends, ``z`` and ``p`` are NaN.

    Raises
    ------
    ValueError
        As `auc_interval`.

    Examples
    --------
    >>> minority = [False, False, False, True, True, True]
    >>> better, worse = [0.1, 0.2, 0.6, 0.5, 0.7, 0.9], [0.1, 0.8, 0.6, 0.5, 0.7, 0.9]
    >>> comparison = compare_auc(minority, better, worse)
    >>> print(f"{comparison.difference:.3f}, p = {comparison.p:.2f}")
    0.222, p = 0.37
    """
    quantile = _quantile(level)
    told, a = checked(minority, score_a)
    told, b = checked(minority, score_b)
    areas, covariance = _covariance(told, np.stack([a, b]), _patient_codes(patient, told.size))
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance > NO_VARIANCE:
        error = math.sqrt(variance)
        z = difference / error
        low, high = difference - quantile * error, difference + quantile * error
        return Comparison(difference, max(low, -1.0), min(high, 1.0), z, 2 * float(norm.sf(abs(z))))
    if abs(difference) < NO_VARIANCE:
        return Comparison(0.0, 0.0, 0.0, 0.0, 1.0)
    return Comparison(difference, math.nan, math.nan, math.nan, math.nan)


def bootstrap_interval(
    metric: Callable[[Bools, Floats], float],
    minority: ArrayLike,
    anomaly_score: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    repeats: int = 2000,
    level: float = 0.95,
    random_state: int = 0,
) -> Interval:
    """Any metric with its percentile interval over resampled patients.

    Patients are drawn with replacement, each with all of its images, as many as there are.
    They are drawn within three groups, those with majority images only, with minority images
    only, and with both: every resample then has both classes in about the proportion of the
    cohort, which is what the chance level of AUPR depends on (C. M. Rutter, *Bootstrap
    estimation of diagnostic accuracy with patient-clustered data*, Academic Radiology 7 (2000)
    413-419, for resampling patients).

    Parameters
    ----------
    metric : callable
        ``(minority, anomaly_score) -> float``, such as `aupr_min`, or
        ``functools.partial(sensitivity_at, specificity=0.95)``.
    minority : array of bool, shape (n,)
    anomaly_score : array of float, shape (n,)
    patient : array, shape (n,), optional
        Whose image it is; without it, images are taken as independent.
    repeats : int, default 2000
        Resamples, at least 1.
    level : float, default 0.95
        In (0, 1).
    random_state : int, default 0
        Seed of the resampling; the same seed gives the same interval.

    Returns
    -------
    Interval
        A metric that every resample leaves as it is (perfect separation) has an interval of
        no width, which is not certainty; for AUC, `auc_interval` does better.

    Raises
    ------
    ValueError
        As `auc`; or if `repeats` or `level` is outside its range.

    Examples
    --------
    >>> from conocc.metrics import aupr_min
    >>> minority = [False, False, False, True, True, True]
    >>> score = [0.1, 0.2, 0.6, 0.5, 0.7, 0.9]
    >>> interval = bootstrap_interval(aupr_min, minority, score, repeats=100)
    >>> interval.low <= interval.value <= interval.high
    True
    """
    tail = (1 - in_unit_interval("level", level)) / 2
    if repeats < 1:
        raise ValueError(f"The 'repeats' parameter must be at least 1. Got {repeats!r} instead.")
    told, score = checked(minority, anomaly_score)
    groups = _images_by_patient(told, _patient_codes(patient, told.size))
    rng = np.random.default_rng(random_state)
    values = np.empty(repeats)
    for repeat in range(repeats):
        image = _resample(groups, rng)
        values[repeat] = metric(told[image], score[image])
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(metric(told, score)), float(low), float(high))


def holm(p_values: ArrayLike) -> Floats:
    """Holm's p-values for a family of tests, in the order given.

    Rejecting those at most alpha keeps the chance of any false rejection at alpha, whatever
    the dependence (S. Holm, *A simple sequentially rejective multiple test procedure*,
    Scandinavian Journal of Statistics 6 (1979) 65-70). SciPy has no such correction.

    Parameters
    ----------
    p_values : array of float, shape (t,)
        In [0, 1]; a NaN, a test that could not be made, counts in the family and stays NaN.

    Returns
    -------
    array of float, shape (t,)

    Raises
    ------
    ValueError
        If a p-value is outside its range.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=np.float64)
    outside = p[(p < 0) | (p > 1)]
    if p.ndim != 1 or outside.size:
        raise ValueError(
            "The 'p_values' parameter must be one row of numbers in the range [0, 1]. "
            f"Got {outside[0] if outside.size else f'shape {p.shape}'} instead."
        )
    order = np.argsort(p)  # NaN last
    steps = np.arange(p.size, 0, -1) * np.where(np.isnan(p), 1, p)[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return np.where(np.isnan(p), np.nan, adjusted)


def _covariance(minority: Bools, scores: Floats, code: Ints) -> tuple[Floats, Floats]:
    over_majority, under_minority = structural_components(minority, scores)
    areas = over_majority.mean(axis=1)
    x = _patient_sums(over_majority - areas[:, None], code[minority], code.max() + 1)
    y = _patient_sums(under_minority - areas[:, None], code[~minority], code.max() + 1)
    with_minority, with_majority = _patients_of_each_class(minority, code)
    m, n = minority.sum(), (~minority).sum()
    covariance = (
        _unbiased(with_minority) * (x @ x.T) / m**2
        + _unbiased(with_majority) * (y @ y.T) / n**2
        + _unbiased(x.shape[1]) * (x @ y.T + y @ x.T) / (m * n)
    )
    return areas, covariance


def _lower_area(area: float, minority: int, majority: int, z: float) -> float:
    """Find the area below `area` from which it lies `z` of Newcombe's standard errors away."""
    if area <= 0:
        return 0.0

    def excess(theta: float) -> float:
        extra = (minority + majority) / 2 - 1
        spread = 1 + extra * (1 - theta) / (2 - theta) + extra * theta / (1 + theta)
        return area - theta - z * math.sqrt(theta * (1 - theta) * spread / (minority * majority))

    # At an area of 1 there is a second root, of no variance, at theta = 1.
    return float(brentq(excess, 0.0, min(area, 1 - 1e-12)))


def _resample(groups: list[list[Ints]], rng: np.random.Generator) -> Ints:
    drawn = [
        patients[i] for patients in groups for i in rng.integers(len(patients), size=len(patients))
    ]
    return np.concatenate(drawn)


def _images_by_patient(minority: Bools, code: Ints) -> list[list[Ints]]:
    """Group patients by the classes they have images of; of each patient, the images' indices."""
    images = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    groups: dict[tuple[bool, bool], list[Ints]] = {}
    for image in images:
        told = minority[image]
        groups.setdefault((bool(told.any()), bool(told.all())), []).append(image)
    return [groups[classes] for classes in sorted(groups)]


def _patient_sums(values: Floats, code: Ints, patients: int) -> Floats:
    return np.stack([np.bincount(code, weights=row, minlength=patients) for row in values])


def _patients_of_each_class(minority: Bools, code: Ints) -> tuple[int, int]:
    with_minority, with_majority = np.unique(code[minority]).size, np.unique(code[~minority]).size
    if min(with_minority, with_majority) < 2:
        raise ValueError(
            "The variance of an AUC needs images of each class from at least two patients (two "
            f"images of each class where patients are unknown). Got {with_minority} with minority "
            f"and {with_majority} with majority images instead."
        )
    return with_minority, with_majority


def _unbiased(count: int) -> float:
    return count / (count - 1)


def _patient_codes(patient: ArrayLike | None, n: int) -> Ints:
    if patient is None:
        return np.arange(n)
    names = np.asarray(patient)
    if names.shape != (n,):
        raise ValueError(
            "The 'patient' parameter must have one value an image. "
            f"Got shape {names.shape} for {n} images instead."
        )
    unknown = [i for i, name in enumerate(names.tolist()) if name is None or name != name]
    if unknown:
        raise ValueError(
            "The 'patient' parameter must name the patient of every image. "
            f"Got {names[unknown[0]]!r} for image {unknown[0]} instead."
        )
    return np.unique(names, return_inverse=True)[1]


def _quantile(level: float) -> float:
    return float(norm.isf((1 - in_unit_interval("level", level)) / 2))
