"""From scores to decisions: which rule calls an image minority, and what that rule promises.

There are three rules. Without calibration there is one, the detector's own `offset_`, which
`contamination` of its training images set, and which promises nothing. Calibration scores
(`conocc.thresholds.conformal`) give a threshold at a rate of false alarms, or a choice from a whole batch
at a rate of false discoveries.

No rule ever sees the score of a test image before it is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conocc.metrics.confidence_intervals import share_interval
from conocc.metrics.ranking import in_unit_interval
from conocc.thresholds.conformal import (
    Calibration,
    benjamini_hochberg,
    known_unit,
    p_values,
    patient_maxima,
)

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Strings = NDArray[np.str_]


@dataclass(frozen=True)
class Rule:
    """What is asked of the decisions; without a rate, the detector's own threshold.

    Parameters
    ----------
    false_alarms : float in (0, 1), optional
        Rate of new majority images, or patients, that may be called minority.
    confidence : float in (0, 1), default=0.95
        With what certainty that rate is kept.
    unit : str, default="image"
        ``"image"`` or ``"patient"``, as in `conocc.thresholds.conformal`; p-values are of this unit.
    fdr : float in (0, 1), optional
        Rate of majority images, or patients, among those of a batch that are called minority.

    Raises
    ------
    ValueError
        If both rates are given, or a value is outside its range.

    Examples
    --------
    >>> Rule(false_alarms=0.05).unit
    'image'
    """

    false_alarms: float | None = None
    confidence: float = 0.95
    unit: str = "image"
    fdr: float | None = None

    def __post_init__(self) -> None:
        known_unit(self.unit)
        for name in ("false_alarms", "confidence", "fdr"):
            if (value := getattr(self, name)) is not None:
                in_unit_interval(name, value)
        if self.false_alarms is not None and self.fdr is not None:
            raise ValueError(
                "A threshold has one promise: give a rate of false alarms or of false "
                f"discoveries (fdr). Got {self.false_alarms} and {self.fdr}."
            )


# What nobody asked for: the detector's own threshold.
RULE = Rule()


@dataclass(frozen=True)
class Decisions:
    """A rule as it holds for one detector; `decisions` makes it.

    Attributes
    ----------
    rule : Rule
    threshold : float or None
        The anomaly score above which, strictly, an image is called minority. None under a rate
        of false discoveries, for which each batch has its own: see `with_batch_threshold`.
    contamination : float
        Of the detector.
    calibration : Calibration or None
    """

    rule: Rule
    threshold: float | None
    contamination: float
    calibration: Calibration | None

    def with_batch_threshold(
        self, anomaly_score: Floats, patient: Strings | None = None
    ) -> Decisions:
        """Set the threshold for these images as one batch, where it hangs on the batch.

        By patient the batch is one of patients, of each the highest score. What Benjamini and
        Hochberg call is all that has a p-value of at most some m / (n + 1): that is, all that
        scores above the m-th largest of n calibration scores. The threshold is infinite where
        nothing is called.

        Raises
        ------
        ValueError
            By patient, if these are not known.
        """
        if self.threshold is not None:
            return self
        assert self.calibration is not None  # by `decisions`, as is the rate
        assert self.rule.fdr is not None
        batch = anomaly_score
        if self.rule.unit == "patient":
            if patient is None:
                raise ValueError(
                    "A rate of false discoveries by patient needs to know whose images these "
                    "are. Use the unit 'image', or a rate of false alarms."
                )
            batch = patient_maxima(patient, anomaly_score)[1]
        kept = self.calibration.of(self.rule.unit)
        p = p_values(kept, batch)
        m = round(p[benjamini_hochberg(p, rate=self.rule.fdr)].max(initial=0) * (kept.size + 1))
        thresholds = [np.inf, *kept[::-1], -np.inf]
        return replace(self, threshold=float(thresholds[m]))

    def flagged(self, anomaly_score: Floats, patient: Strings | None = None) -> Bools:
        """Tell which images are called minority, as one batch; (n,) -> (n,) bool."""
        threshold = self.with_batch_threshold(anomaly_score, patient).threshold
        assert threshold is not None  # it is settled
        return anomaly_score > threshold

    def columns(
        self, anomaly_score: Floats, patient: Strings | None = None
    ) -> tuple[list[float | str], list[str]]:
        """Give the columns ``p_value`` (empty without calibration) and ``predicted``."""
        flagged = self.flagged(anomaly_score, patient)
        if self.calibration is None:
            p: list[float | str] = [""] * len(flagged)
        else:
            p = self.calibration.p_values(anomaly_score, unit=self.rule.unit).tolist()
        return (
            p,
            ["minority" if minority else "majority" for minority in flagged],
        )

    def rows(
        self, blocks: Iterable[tuple[Sequence[str], Floats]]
    ) -> Iterator[tuple[str, float, float | str, str]]:
        """Give (path, anomaly_score, p_value, predicted) of images that come in blocks.

        Under a rate of false discoveries the first row comes after the last block.
        """
        with_batch_threshold = self
        if self.threshold is None:
            blocks = list(blocks)
            with_batch_threshold = self.with_batch_threshold(
                np.concatenate([np.empty(0), *(scores for _, scores in blocks)])
            )
        for paths, scores in blocks:
            yield from zip(
                paths, scores.tolist(), *with_batch_threshold.columns(scores), strict=True
            )

    def words(self) -> str:
        """Say which rule made the decisions, and what it promises, in what unit."""
        rule = self.rule
        if self.calibration is None or (rule.false_alarms is None and rule.fdr is None):
            return (
                f"The threshold is the detector's own: {self.contamination:.4g} of its training "
                "images lie above it (contamination). It promises nothing of new images."
            )
        if rule.false_alarms is not None:
            promise = (
                f"Of new majority {rule.unit}s, at most {rule.false_alarms:.4g} are called "
                f"minority, with a certainty of {rule.confidence:.4g}."
            )
        else:
            promise = (
                f"Of the {rule.unit}s of a batch that are called minority, at most {rule.fdr:.4g} "
                "are expected to be of the majority class."
            )
        return f"{promise} Unit: {rule.unit}, {self._calibrated_on()}"

    def _calibrated_on(self) -> str:
        assert self.calibration is not None  # by `words`
        n = self.calibration.patients
        if self.calibration.patient is None:
            return (
                f"calibrated on {n} images never trained on. Whose they are is not known: each "
                "counts as a patient of its own. It holds for new images like these."
            )
        if self.rule.unit == "patient":
            return (
                f"calibrated on the largest score of each of {n} patients never trained on; a "
                "patient is called minority if any image is. It holds for new patients like "
                "these, with as many images."
            )
        return (
            f"calibrated on one image, drawn by a seed, of each of {n} patients never trained on. "
            "It holds for an image drawn likewise from a new patient like these."
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values: the rule, the threshold, the number of calibration patients, the words.

        An infinite threshold, under which nothing is called, is None.
        """
        known, threshold = self.calibration, self.threshold
        return {
            **asdict(self.rule),
            "threshold": threshold if threshold is not None and np.isfinite(threshold) else None,
            "calibration_patients": None if known is None else known.patients,
            "words": self.words(),
        }


def decisions(detector: Any, rule: Rule) -> Decisions:
    """Set a detector's threshold as a rule asks.

    Raises
    ------
    ValueError
        If the rule needs calibration and the detector has none, or on too few patients.
    """
    calibration: Calibration | None = detector.calibration_
    threshold: float | None = -detector.offset_
    if rule.false_alarms is not None or rule.fdr is not None:
        if calibration is None:
            raise ValueError(
                f"This {type(detector).__name__} is not calibrated, so that its threshold can "
                "promise nothing: fit it with --calibrate SHARE, or calibrate it with "
                "'conocc calibrate' on majority images that it was not trained on."
            )
        threshold = None
        if rule.false_alarms is not None:
            threshold = calibration.threshold(
                false_alarms=rule.false_alarms, confidence=rule.confidence, unit=rule.unit
            )
    return Decisions(rule, threshold, float(detector.contamination), calibration)


def observed_rates(
    minority: Bools, flagged: Bools, *, patient: Strings | None, unit: str
) -> dict[str, dict[str, Any] | None]:
    """Say how the decisions turned out on labelled images, in the unit of the promise.

    By image, each image counts, and intervals go by patient where patients are known. By
    patient, each patient counts once in each class that there are images of: as called, if any
    image of the class is. A false discovery is then a patient who is called and has no minority
    image.

    Returns
    -------
    dict
        ``false_alarms`` (share of the majority that is called minority), ``sensitivity`` (of
        the minority), ``false_discoveries`` (share of the called that is majority; None if
        none is called): each with value, low, high of its 95 % interval, and of how many.

    Raises
    ------
    ValueError
        If the unit is "patient" and patients are not known.
    """
    if unit == "patient" and patient is None:
        raise ValueError(
            "What a promise by patient comes to can be told only where patients are known. "
            "Those of the test images are not: use the unit 'image'."
        )
    person = patient if unit == "patient" else None

    def share(hits: Bools, among: Bools) -> dict[str, Any] | None:
        if not among.any():
            return None
        hits, whose = hits[among], None if patient is None else patient[among]
        if person is not None:
            hits, whose = patient_maxima(person[among], hits)[1] > 0, None
        return {**share_interval(hits, patient=whose)._asdict(), "of": len(hits)}

    has_minority = minority if person is None else np.isin(person, person[minority])
    return {
        "false_alarms": share(flagged, ~minority),
        "sensitivity": share(flagged, minority),
        "false_discoveries": share(~has_minority, flagged),
    }


# Of whom the shares of `observed_rates` are.
AMONG = {
    "false_alarms": "majority {}s",
    "sensitivity": "minority {}s",
    "false_discoveries": "{}s called minority",
}


def summary(measured: Mapping[str, Any]) -> list[str]:
    """Say what an evaluation (``metrics.json``) noted of its decisions, a sentence each.

    Nothing, where an earlier version evaluated.
    """
    if "decision" not in measured:
        return []
    decision = measured["decision"]
    said = [decision["words"]]
    if decision["threshold"] is None:
        said.append("Nothing is called minority.")
    else:
        said.append(f"Threshold of the anomaly score: {decision['threshold']:.4g}.")
    for name, found in measured["realised"].items():
        if found is not None:
            among = AMONG[name].format(decision["unit"])
            said.append(
                f"{name.replace('_', ' ').capitalize()} on the test split: {found['value']:.3f} "
                f"({found['low']:.3f}–{found['high']:.3f}) of {found['of']} {among}."
            )
    promised, found = decision["false_alarms"], measured["realised"]["false_alarms"]
    if promised is not None and found["low"] > promised:
        said.append(
            f"These are more false alarms than the {promised:.4g} promised: the majority images "
            "of the test split are not like those of the calibration."
        )
    return said
