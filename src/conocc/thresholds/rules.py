"""From scores to decisions: which rule flags an image, and what that rule promises.

Calibration scores (`conocc.thresholds.conformal`) give a threshold at a rate of false alarms, or a
choice from a whole batch at a rate of false discoveries. Where nobody asks for a rate, it is the
smallest usual one that can be promised (`Calibration.usual_rate`). Without calibration, or on too
few patients, nothing is promised, and nothing is decided.

No rule ever sees the score of a test image before it is set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conocc.io.words import count, percent
from conocc.metrics.confidence_intervals import share_interval
from conocc.metrics.ranking import Bools, Floats
from conocc.thresholds.batch import check_batch
from conocc.thresholds.conformal import (
    ROUNDING,
    USUAL_RATES,
    Calibration,
    benjamini_hochberg,
    needed,
    one_image_a_patient,
    p_values,
    patient_maxima,
)
from conocc.thresholds.rule import Rule

Strings = NDArray[np.str_]


@dataclass(frozen=True)
class Decisions:
    """A rule as it holds for one detector; `decisions` makes it.

    Attributes
    ----------
    rule : Rule
    threshold : float or None
        The anomaly score above which, strictly, an image is flagged. None under a rate
        of false discoveries, for which each batch has its own (see `with_batch_threshold`), and
        where nothing is promised.
    calibration : Calibration or None
    """

    rule: Rule
    threshold: float | None
    calibration: Calibration | None

    def with_batch_threshold(
        self, anomaly_score: Floats, patient: Strings | None = None
    ) -> Decisions:
        """Set the threshold for these images as one batch, where it hangs on one and has none yet.

        By patient the batch is one of patients, of each the highest score. Benjamini and Hochberg
        flag all that has so small a p-value, that is, all that scores above one of the calibration
        scores. The threshold is infinite where nothing is flagged.

        Raises
        ------
        ValueError
            By patient, if these are not known.
        """
        if self.rule.fdr is None or self.threshold is not None:
            return self
        assert self.calibration is not None  # by `decisions`
        batch = anomaly_score
        if self.rule.unit == "patient":
            if patient is None:
                raise ValueError(
                    "A rate of false discoveries by patient needs to know whose images these "
                    "are. Use the unit 'image', or a rate of false alarms."
                )
            batch = patient_maxima(patient, anomaly_score)[1]
        kept = self.calibration.of(self.rule.unit)
        flagged = batch[benjamini_hochberg(p_values(kept, batch), rate=self.rule.fdr)]
        # No rate allows a p-value of 1, so that a calibration score is lower than what is flagged.
        threshold = kept[kept < flagged.min()].max() if flagged.size else np.inf
        return replace(self, threshold=float(threshold))

    def flagged(self, anomaly_score: Floats) -> Bools | None:
        """Tell which images are flagged, as one batch; (n,) -> (n,) bool, or None: undecided."""
        threshold = self.with_batch_threshold(anomaly_score).threshold
        return None if threshold is None else anomaly_score > threshold

    def columns(self, anomaly_score: Floats) -> tuple[list[float | str], list[str]]:
        """Give the columns ``p_value`` and ``predicted``, empty where there is no calibration."""
        p: list[float | str] = [""] * len(anomaly_score)
        if self.calibration is not None:
            p = self.calibration.p_values(anomaly_score, unit=self.rule.unit).tolist()
        flagged = self.flagged(anomaly_score)
        if flagged is None:
            return p, [""] * len(anomaly_score)
        return p, np.where(flagged, "minority", "majority").tolist()

    def of_volumes(self, highest: Iterable[float]) -> list[str]:
        """Decide on volumes by their highest scores; "" where no promise holds for a volume.

        One holds by patient alone, who is flagged if any image is: an image's threshold would
        flag most volumes of many slices.
        """
        promised = self.rule.unit == "patient" and self.rule.false_alarms is not None
        if not promised:
            return ["" for _ in highest]
        assert self.threshold is not None
        return ["minority" if score > self.threshold else "majority" for score in highest]

    def words(self) -> str:
        """Say which rule made the decisions, and what it promises, in what unit."""
        rule, calibration = self.rule, self.calibration
        if rule.false_alarms is not None:
            promise = (
                f"At most {percent(rule.false_alarms)} of new majority {rule.unit}s are flagged "
                f"({percent(rule.confidence)} certainty)."
            )
        elif rule.fdr is not None:
            promise = (
                f"At most {percent(rule.fdr)} of the {rule.unit}s flagged in a batch are expected "
                "to be of the majority class."
            )
        else:
            has, each = (calibration.patients, calibration.each) if calibration else (0, "patient")
            least, highest = needed(USUAL_RATES[-1], rule.confidence), percent(USUAL_RATES[-1])
            how = f"calibrated on {count(has, each)}" if calibration else "not calibrated"
            return (
                f"No image is flagged, since nothing can be promised: the model is {how}. It takes "
                f"{count(least - has, f'more {each}')} ('conocc calibrate') to promise at most "
                f"{highest} false alarms ({percent(rule.confidence)} certainty)."
            )
        assert calibration is not None  # by `decisions`
        n, each = calibration.patients, calibration.each
        if calibration.patient is None:
            learned = (
                f"{count(n, 'image')} whose patients are not known, so that each counts as one"
            )
            holds = "new images like these"
        elif rule.unit == "patient":
            learned = f"the highest score of each of {count(n, each)}"
            holds = f"new {each}s like these with as many images, flagged if any image is"
        else:
            learned = f"one image, drawn at random, of each of {count(n, each)}"
            holds = f"an image drawn at random from a new {each} like these"
        return f"{promise} It was calibrated on {learned}, never trained on, and holds for {holds}."

    def about_batch(self, anomaly_score: Floats, patient: ArrayLike, **how: Any) -> dict[str, Any]:
        """Give plain values on whether a batch is like the calibration (`check_batch`).

        Of each patient one image is taken, drawn as those of the calibration were. `how` is that
        of `BatchCheck.words`. Without calibration nothing but ``words`` is there, and empty.
        """
        drawn = anomaly_score[one_image_a_patient(patient)]
        if self.calibration is None or not len(drawn):
            return {"words": []}
        return check_batch(self.calibration.of("image"), drawn).as_json(**how)

    def as_json(self) -> dict[str, Any]:
        """Plain values: the rule, the threshold, the number of calibration patients, the words.

        An infinite threshold, above which nothing is flagged, is None.
        """
        known = self.calibration
        return {
            **asdict(self.rule),
            "threshold": None if self.threshold == np.inf else self.threshold,
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
    if rule.false_alarms is None and rule.fdr is None and calibration is not None:
        rule = replace(rule, false_alarms=calibration.usual_rate(rule.confidence))
    if rule.false_alarms is None and rule.fdr is None:
        return Decisions(rule, None, calibration)
    if calibration is None:
        raise ValueError(
            f"This {type(detector).__name__} is not calibrated, so that its threshold can "
            "promise nothing: fit it with --calibrate SHARE, or calibrate it with "
            "'conocc calibrate' on majority images that it was not trained on"
            f"{', by the same --score' if hasattr(detector, 'scored_by') else ''}."
        )
    if rule.false_alarms is None:
        assert rule.fdr is not None
        least = math.ceil(1 / rule.fdr - 1 - ROUNDING)  # or no p-value is as small as the rate
        if calibration.patients < least:
            raise ValueError(
                f"At a rate of {percent(rule.fdr)} false discoveries nothing could ever be "
                f"flagged: calibrate on at least {count(least, calibration.each)}. "
                f"Got {calibration.patients}."
            )
        return Decisions(rule, None, calibration)
    threshold = calibration.threshold(
        false_alarms=rule.false_alarms, confidence=rule.confidence, unit=rule.unit
    )
    return Decisions(rule, threshold, calibration)


def observed_rates(
    minority: Bools, flagged: Bools | None, *, patient: Strings | None, unit: str
) -> dict[str, dict[str, Any] | None]:
    """Count how the decisions turned out on labelled images, in the unit of the promise.

    By image, each image counts, and intervals go by patient where patients are known. By
    patient, each patient counts once in each class that there are images of: as flagged, if any
    image of the class is. A false discovery is then a patient who is flagged and has no minority
    image.

    Returns
    -------
    dict
        ``false_alarms`` (share of the majority that is flagged), ``sensitivity`` (of the
        minority), ``false_discoveries`` (share of the flagged that is majority; None if
        none is flagged, or there is no minority): each with value, low, high of its 95 %
        interval, and of how many. None where nothing was decided.

    Raises
    ------
    ValueError
        If the unit is "patient" and patients are not known.
    """
    if unit == "patient" and patient is None:
        raise ValueError(
            "False alarms by patient can be counted only where patients are known. "
            "Those of the test images are not: use the unit 'image'."
        )
    if flagged is None:
        return dict.fromkeys(COUNTED)
    by_patient = patient if unit == "patient" else None

    def share(hits: Bools, of: Bools) -> dict[str, Any] | None:
        if not of.any():
            return None
        hits, whose = hits[of], None if patient is None else patient[of]
        if by_patient is not None:
            hits, whose = patient_maxima(by_patient[of], hits)[1] > 0, None
        return {**share_interval(hits, patient=whose)._asdict(), "of": len(hits)}

    has_minority = minority
    if by_patient is not None:
        has_minority = np.isin(by_patient, by_patient[minority])
    return {
        "false_alarms": share(flagged, ~minority),
        "sensitivity": share(flagged, minority),
        "false_discoveries": share(~has_minority, flagged) if minority.any() else None,
    }


NO_DECISION = (
    "Volumes are decided on under --false-alarms with --unit patient alone: other thresholds "
    "promise nothing of a volume, which has many images."
)

# What was counted, and of whom, in `observed_rates`.
COUNTED = {
    "false_alarms": ("majority {}s", "flagged"),
    "sensitivity": ("minority {}s", "flagged"),
    "false_discoveries": ("flagged {}s", "of the majority class"),
}
