"""Metrics of many resamples of patients at once.

A resample says how often each image is drawn, so that images need not be copied or sorted anew:
they are sorted once, and each resample is a row of counts above each threshold.

Letters: ``n`` images, ``b`` resamples, ``t`` distinct scores, from the highest down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from conocc.metrics.ranking import (
    SPECIFICITY,
    Bools,
    Floats,
    auc,
    aupr_maj,
    aupr_min,
    must_pass,
    sensitivity_at_5_percent,
)

Ints = NDArray[np.intp]
Metric = Callable[[Bools, Floats], float]
# So many counts are held at a time.
BLOCK = 1_000_000


def resampled(
    metric: Metric,
    minority: Bools,
    score: Floats,
    code: Ints,
    *,
    repeats: int,
    random_state: int,
) -> Floats:
    """Compute a metric of each of `repeats` resamples of patients.

    Patients are drawn with replacement, each with all of its images, as many as there are.
    They are drawn within three groups, those with majority images only, with minority images
    only, and with both: every resample then has both classes in about the proportion of the
    cohort, which is what the chance level of AUPR depends on (C. M. Rutter, *Bootstrap
    estimation of diagnostic accuracy with patient-clustered data*, Academic Radiology 7 (2000)
    413-419, for resampling patients).

    Parameters
    ----------
    metric : callable
        ``(minority, anomaly_score) -> float``. Those of `FROM_COUNTS` are computed for a
        block of resamples at once, any other for one at a time.
    minority : array of bool, shape (n,)
    score : array of float, shape (n,)
    code : array of int, shape (n,)
        Number of the patient, from 0.
    repeats : int
    random_state : int
        The same seed, classes and patients draw the same patients, whatever the scores.

    Returns
    -------
    array of float, shape (repeats,)

    Examples
    --------
    >>> minority, score = np.array([False, False, True, True]), np.array([0.1, 0.4, 0.3, 0.9])
    >>> values = resampled(auc, minority, score, np.arange(4), repeats=3, random_state=0)
    >>> values.shape
    (3,)
    """
    drawn = _drawn(minority, code, repeats, np.random.default_rng(random_state))
    from_counts = FROM_COUNTS.get(metric)
    if from_counts is None:
        each = (np.repeat(np.arange(score.size), row) for block in drawn for row in block)
        return np.array([metric(minority[image], score[image]) for image in each])
    order = np.argsort(-score)
    last = np.append(np.diff(score[order]) != 0, True)  # of the images with one score
    told = minority[order]
    values = []
    for block in drawn:
        copies = block[:, order]
        found = np.cumsum(copies * told, axis=1)[:, last]
        alarms = np.cumsum(copies * ~told, axis=1)[:, last]
        values.append(from_counts(found, alarms))
    return np.concatenate(values)


def _drawn(
    minority: Bools, code: Ints, repeats: int, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Say block by block how often each image is drawn; each (b, n)."""
    patients = int(code.max()) + 1
    kind = 2 * (np.bincount(code, minority, patients) > 0) + (
        np.bincount(code, ~minority, patients) > 0
    )
    groups = [np.flatnonzero(kind == k) for k in np.unique(kind)]
    size = max(1, BLOCK // code.size)
    for start in range(0, repeats, size):
        b = min(size, repeats - start)
        copies = np.empty((b, patients), dtype=np.intp)
        for group in groups:
            chosen = rng.integers(group.size, size=(b, group.size))
            cell = chosen + group.size * np.arange(b)[:, None]
            counted = np.bincount(cell.ravel(), minlength=b * group.size)
            copies[:, group] = counted.reshape(b, group.size)
        yield copies[:, code]


# --- metrics from counts -----------------------------------------------------------------------
# `found` and `alarms` (b, t) count the minority and the majority images at or above each score.


def _auc(found: Ints, alarms: Ints) -> Floats:
    """Sum the trapezoids below the ROC curve."""
    steps = np.diff(alarms, axis=1, prepend=0)
    before = np.concatenate([np.zeros_like(found[:, :1]), found[:, :-1]], axis=1)
    doubled: Ints = (steps * (before + found)).sum(axis=1)
    return doubled / (2 * found[:, -1] * alarms[:, -1])


def _aupr_min(found: Ints, alarms: Ints) -> Floats:
    """Sum the precision at each score, times the recall gained there."""
    precision = found / np.maximum(found + alarms, 1)  # above the highest that was drawn: 0 of 0
    gained = np.diff(found, axis=1, prepend=0)
    total: Floats = (gained * precision).sum(axis=1)
    return total / found[:, -1]


def _aupr_maj(found: Ints, alarms: Ints) -> Floats:
    """Take the classes and the scores the other way round."""
    return _aupr_min(_at_or_below(alarms), _at_or_below(found))


def _at_or_below(above: Ints) -> Ints:
    higher = np.concatenate([np.zeros_like(above[:, :1]), above[:, :-1]], axis=1)
    below: Ints = (above[:, -1:] - higher)[:, ::-1]
    return below


def _sensitivity_at_5_percent(found: Ints, alarms: Ints) -> Floats:
    """Take the lowest threshold below which enough of the majority pass."""
    majority = alarms[:, -1:]
    enough = alarms <= majority - must_pass(majority, SPECIFICITY)
    kept: Ints = np.where(enough, found, 0).max(axis=1)
    return kept / found[:, -1]


FROM_COUNTS: dict[Callable[..., float], Callable[[Ints, Ints], Floats]] = {
    auc: _auc,
    aupr_maj: _aupr_maj,
    aupr_min: _aupr_min,
    sensitivity_at_5_percent: _sensitivity_at_5_percent,
}
