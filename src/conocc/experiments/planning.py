"""How many patients a study takes, before it is made: for a promise, and for an AUC."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any

from scipy.stats import beta, norm

from conocc.io.words import percent
from conocc.metrics.auc_variance import typical_variance
from conocc.metrics.checks import in_unit_interval
from conocc.metrics.confidence_intervals import Interval, area_interval
from conocc.thresholds.conformal import ROUNDING

MOST_PATIENTS = 10**12
# Which of the highest calibration scores may be the threshold, in the sentences.
RANKS = (1, 2, 5, 10)


def for_calibration(false_alarms: float, confidence: float = 0.95, rank: int = 1) -> int:
    """Give the least patients of whom the `rank`-th highest score may be the threshold.

    The rate of false alarms above it follows Beta(rank, n + 1 - rank), and is rank / (n + 1) on
    average (`conocc.thresholds.conformal.promised_threshold`); for the highest score it is
    `conocc.thresholds.conformal.needed`.

    >>> [for_calibration(0.05, rank=rank) for rank in (1, 2, 5)]
    [59, 93, 181]
    """
    in_unit_interval("false_alarms", false_alarms)
    least = in_unit_interval("confidence", confidence) - ROUNDING
    sizes = range(rank, MOST_PATIENTS)
    return rank + bisect_left(
        sizes, least, key=lambda n: beta.cdf(false_alarms, rank, n + 1 - rank)
    )


def for_test(
    auc: float, width: float, prevalence: float, *, images: int = 1, likeness: float = 0.5
) -> tuple[int, int, Interval]:
    """Give the minority and majority patients from whom an AUC has a 95 % interval so narrow.

    That is the mean width over such studies; one may be wider.

    Parameters
    ----------
    auc : float in (0, 1)
        What is expected.
    width : float in (0, 1)
        Of the interval, from end to end.
    prevalence : float in (0, 1)
        Share of the patients who are of the minority.
    images, likeness
        See `conocc.metrics.auc_variance.expected_variance`.

    Raises
    ------
    ValueError
        If a value is outside its range.
    """
    named = {"auc": auc, "width": width, "prevalence": prevalence, "likeness": likeness}
    for name, value in named.items():
        in_unit_interval(name, value)
    if images < 1:
        raise ValueError(f"The 'images' parameter must be at least 1. Got {images} instead.")

    def interval(n: int) -> Interval:
        classes = n * images * prevalence, n * images * (1 - prevalence)
        variance = typical_variance(auc, *classes, images=images, likeness=likeness)
        return area_interval(auc, variance, float(norm.isf(0.025)))

    least = math.ceil(2 / min(prevalence, 1 - prevalence))  # two of each class
    sizes = range(least, MOST_PATIENTS)
    n = least + bisect_left(sizes, -width, key=lambda n: interval(n).low - interval(n).high)
    return math.ceil(n * prevalence), math.ceil(n * (1 - prevalence)), interval(n)


def plan_words(
    false_alarms: float, confidence: float, auc: float, width: float, prevalence: float, **of: Any
) -> list[str]:
    """Say how many patients a promise and an AUC's interval take; see the functions above."""
    sizes = {rank: for_calibration(false_alarms, confidence, rank) for rank in RANKS}
    means = [f"{percent(round(r / (n + 1), 4))} with {n:,}" for r, n in sizes.items()]
    minority, majority, (_, low, high) = for_test(auc, width, prevalence, **of)
    return [
        f"Calibration: {sizes[1]:,} patient{'s' * (sizes[1] != 1)} of the majority, never trained "
        f"on, can promise at most "
        f"{percent(false_alarms)} false alarms ({percent(confidence)} certainty).",
        "With more, the threshold is lower and finds more of the minority, under the same promise. "
        f"New majority images flagged, on average: {', '.join(means)}.",
        f"Test: {minority:,} minority and {majority:,} majority patients{_images(**of)} give an "
        f"AUC of {auc:g} a 95 % interval of about {low:.3f}–{high:.3f}.",
    ]


def _images(*, images: int, likeness: float) -> str:
    if images == 1:
        return " with one image each"
    return (
        f" with {images:,} images each (of one class, whose scores correlate by {likeness:g}: "
        "--likeness)"
    )
