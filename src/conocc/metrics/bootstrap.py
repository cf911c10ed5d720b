"""Metrics of many resamples of patients.

Any metric can be computed of the images that a resample draws. Those of `FROM_COUNTS` are faster:
the images are sorted once, and a resample is counts of images above each score.

Letters: ``n`` images, ``t`` distinct scores, from the highest down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from conocc.metrics.ranking import (
    SPECIFICITY,
    Bools,
    Floats,
    Ints,
    aupr_maj,
    aupr_min,
    must_pass,
    sensitivity_at,
)

Metric = Callable[[Bools, Floats], float | Floats]
# Rates of false alarms at which `roc_band` gives the sensitivity.
RATES = np.linspace(0, 1, 101)
TAILS = 0.025, 0.975


def resampled(
    metric: Metric,
    minority: Bools,
    score: Floats,
    code: Ints,
    *,
    n_resamples: int,
    random_state: int,
) -> Floats:
    """Compute a metric of each of `n_resamples` resamples of patients.

    Patients are drawn with replacement, each with all of its images, as many as there are.
    They are drawn within three groups, those with majority images only, with minority images
    only, and with both: every resample then has both classes in about the proportion of the
    cohort, which is what the chance level of AUPR depends on (C. M. Rutter, *Bootstrap
    estimation of diagnostic accuracy with patient-clustered data*, Academic Radiology 7 (2000)
    413-419, for resampling patients).

    Parameters
    ----------
    metric : callable
        ``(minority, anomaly_score) -> float``.
    minority : array of bool, shape (n,)
    score : array of float, shape (n,)
    code : array of int, shape (n,)
        Number of the patient, from 0.
    n_resamples : int
    random_state : int
        The same seed, classes and patients draw the same patients, whatever the scores.

    Returns
    -------
    array of float, shape (n_resamples,)

    Examples
    --------
    >>> minority, score = np.array([False, False, True, True]), np.array([0.1, 0.4, 0.3, 0.9])
    >>> values = resampled(aupr_min, minority, score, np.arange(4), n_resamples=3, random_state=0)
    >>> values.shape
    (3,)
    """
    patients = int(code.max()) + 1
    with_minority, with_majority = (
        np.bincount(code, of_class, patients) > 0 for of_class in (minority, ~minority)
    )
    group = 2 * with_minority + with_majority
    groups = [np.flatnonzero(group == number) for number in np.unique(group)]
    order = np.argsort(-score)
    last = np.append(np.diff(score[order]) != 0, True)  # of the images with one score
    from_counts = FROM_COUNTS.get(metric)
    rng = np.random.default_rng(random_state)
    figures = []
    for _ in range(n_resamples):
        drawn = np.concatenate(
            [members[rng.integers(len(members), size=len(members))] for members in groups]
        )
        copies = np.bincount(drawn, minlength=patients)[code]
        if from_counts is None:
            image = np.repeat(np.arange(code.size), copies)
            figures.append(metric(minority[image], score[image]))
        else:
            found = np.cumsum((copies * minority)[order])[last]
            alarms = np.cumsum((copies * ~minority)[order])[last]
            figures.append(from_counts(found, alarms))
    return np.array(figures)


def roc_band(minority: Bools, score: Floats, code: Ints, *, n_resamples: int) -> Floats:
    """95 % interval of the sensitivity at each of `RATES`, each on its own; -> (2, 101).

    Patients are drawn as by `resampled`, whose parameters these are.

    >>> minority, score = np.array([False, False, True, True]), np.array([0.1, 0.4, 0.3, 0.9])
    >>> low, high = roc_band(minority, score, np.arange(4), n_resamples=50)
    >>> bool((low <= high).all()), float(high[-1])
    (True, 1.0)
    """
    how = {"n_resamples": n_resamples, "random_state": 0}
    return np.quantile(resampled(sensitivities, minority, score, code, **how), TAILS, axis=0)


def sensitivities(minority: Bools, score: Floats) -> Floats:
    """Read the ROC curve at each of `RATES`, on the line between two of its points; -> (101,)."""
    return np.interp(RATES, *roc_curve(minority, score)[:2])


# --- metrics from counts -----------------------------------------------------------------------
# `found` and `alarms` (t,) count the minority and the majority images at or above each score.


def _aupr_min(found: Ints, alarms: Ints) -> float:
    """Sum the precision at each score, times the recall gained there."""
    precision = found / np.maximum(found + alarms, 1)  # above the highest that was drawn: 0 of 0
    return float(np.diff(found, prepend=0) @ precision / found[-1])


def _aupr_maj(found: Ints, alarms: Ints) -> float:
    """Take the classes and the scores the other way round: count from the lowest score up."""
    majority, minority = (np.cumsum(np.diff(above, prepend=0)[::-1]) for above in (alarms, found))
    return _aupr_min(majority, minority)


def _sensitivity_at(found: Ints, alarms: Ints) -> float:
    """Take the lowest threshold below which enough of the majority pass."""
    allowed = alarms <= alarms[-1] - must_pass(alarms[-1], SPECIFICITY)
    return float(found[allowed].max(initial=0) / found[-1])


def _sensitivities(found: Ints, alarms: Ints) -> Floats:
    x, y = (np.append(0, counts) / counts[-1] for counts in (alarms, found))
    return np.asarray(np.interp(RATES, x, y))


FROM_COUNTS: dict[Callable[..., Any], Callable[[Ints, Ints], Any]] = {
    sensitivities: _sensitivities,
    aupr_maj: _aupr_maj,
    aupr_min: _aupr_min,
    sensitivity_at: _sensitivity_at,
}
