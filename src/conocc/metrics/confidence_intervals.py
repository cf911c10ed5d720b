"""How sure a metric is: the interval of each, and the paired test of two methods.

Images of one patient are alike, so that everything here
that says how sure a figure is takes the `patient` of each image.

Letters: ``n`` images, ``k`` fits. ``minority`` is a bool array (n,), ``anomaly_score`` a float
array (n,), or (k, n) for several fits of one method, in which higher means less like the majority
class, ``patient`` an array (n,) of any hashable names.
The figure of several fits is the mean of theirs; scores of different fits are never mixed.
All intervals and tests take the fits as given: they say what other test patients would have
changed, not what another seed would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as student

from conocc.metrics.auc_variance import (
    auc_covariance,
    checked_fits,
    patient_codes,
    patients_of_each_class,
    unbiased,
)
from conocc.metrics.bootstrap import resampled
from conocc.metrics.ranking import METRICS, Bools, Floats, in_unit_interval

# What is left below this when structural components cancel, or resamples agree, is rounding.
NO_VARIANCE = 1e-15
# Resamples of a bootstrap.
REPEATS = 2000


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


def metric_interval(
    name: str,
    minority: ArrayLike,
    anomaly_score: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    repeats: int = REPEATS,
    level: float = 0.95,
) -> Interval:
    """Interval of a metric of `METRICS`, by the way that covers best what it is for.

    AUC has `auc_interval`, both AUPR have `logit_bootstrap_interval`, and any other
    metric has `bootstrap_interval`. All need two patients of each class.

    Raises
    ------
    KeyError
        If there is no such metric.
    ValueError
        As these; or if every resample gives the same figure, as under perfect separation, which
        is no certainty: the bootstrap cannot tell.

    Examples
    --------
    >>> minority, score = [False, False, True, True], [0.1, 0.3, 0.2, 0.9]
    >>> metric_interval("AUC", minority, score).value
    0.75
    """
    if name == "AUC":
        return auc_interval(minority, anomaly_score, patient=patient, level=level)
    bootstrap = BOOTSTRAPS.get(name, bootstrap_interval)
    told, _ = _fits(minority, anomaly_score)
    patients_of_each_class(told, patient_codes(patient, told.size))
    found = bootstrap(
        METRICS[name], minority, anomaly_score, patient=patient, repeats=repeats, level=level
    )
    if found.high - found.low < NO_VARIANCE:
        raise ValueError(
            f"Every resample of patients gives the same {name}, {found.value:.3g}: the bootstrap "
            "cannot say how sure that is."
        )
    return found


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
    anomaly_score : array of float, shape (n,) or (k, n)
        Of one fit, or of several fits whose mean is asked for.
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
    told, scores = _fits(minority, anomaly_score)
    areas, covariance = auc_covariance(told, scores, patient=patient)
    area, variance = float(areas.mean()), float(covariance.mean())
    if variance > NO_VARIANCE:
        half = z * math.sqrt(variance) / (area * (1 - area))
        return Interval(area, float(expit(logit(area) - half)), float(expit(logit(area) + half)))
    counts = patients_of_each_class(told, patient_codes(patient, told.size))
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
    score_a, score_b : array of float, shape (n,) or (k, n)
        Anomaly scores of two methods for the same images in the same order; of several fits,
        of which the two need not have the same number, the mean AUC is compared.
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
    told, a = _fits(minority, score_a)
    told, b = _fits(minority, score_b)
    areas, covariance = auc_covariance(told, np.concatenate([a, b]), patient=patient)
    weights = np.repeat([1 / len(a), -1 / len(b)], [len(a), len(b)])
    return difference_test(
        float(weights @ areas), float(weights @ covariance @ weights), level=level
    )


def difference_test(difference: float, variance: float, *, level: float = 0.95) -> Comparison:
    """Test a difference of AUCs against none, by its variance; as `compare_auc` returns it.

    >>> comparison = difference_test(0.1, 0.05**2)
    >>> print(f"{comparison.low:.3f} to {comparison.high:.3f}, p = {comparison.p:.4f}")
    0.002 to 0.198, p = 0.0455
    """
    quantile = _quantile(level)
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
    repeats: int = REPEATS,
    level: float = 0.95,
    random_state: int = 0,
) -> Interval:
    """Any metric with its percentile interval over resampled patients (`resampled`).

    Parameters
    ----------
    metric : callable
        ``(minority, anomaly_score) -> float``, such as `sensitivity_at_5_percent`, or
        ``functools.partial(sensitivity_at, specificity=0.9)``. Those of `METRICS` are
        computed for many resamples at once; any other takes its own time, `repeats` times.
    minority : array of bool, shape (n,)
    anomaly_score : array of float, shape (n,) or (k, n)
        Of one fit, or of several fits whose mean is asked for.
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
    >>> from conocc.metrics.ranking import aupr_min
    >>> minority = [False, False, False, True, True, True]
    >>> score = [0.1, 0.2, 0.6, 0.5, 0.7, 0.9]
    >>> interval = bootstrap_interval(aupr_min, minority, score, repeats=100)
    >>> interval.low <= interval.value <= interval.high
    True
    """
    tail = (1 - in_unit_interval("level", level)) / 2
    value, values = _resampled(metric, minority, anomaly_score, patient, repeats, random_state)
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def logit_bootstrap_interval(
    metric: Callable[[Bools, Floats], float],
    minority: ArrayLike,
    anomaly_score: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    repeats: int = REPEATS,
    level: float = 0.95,
    random_state: int = 0,
) -> Interval:
    r"""Metric in [0, 1] with an interval of Student's, on the logit scale, by resampled patients.

    .. math:: \operatorname{logit}^{-1}\Bigl(\operatorname{logit} v
        \pm t_{g - 1} \sqrt{g / (g - 1)} \, s\Bigr)

    s is the standard deviation of the logits of the resampled figures, and g the number of
    patients with images of the rarer class. The percentiles of an AUPR lie too high and too close
    together, since a resample repeats images, which are then found together; and with few
    patients any bootstrap's spread is too small, by the factor above on average, and itself
    unsure, which is what Student's quantile is for. Figures of 0 or 1 are moved half as far
    inside as the nearest other one, where the logit is finite.

    K. Boyd, K. H. Eng and C. D. Page, *Area under the precision-recall curve: point estimates
    and confidence intervals*, ECML PKDD 2013, 451-466, found the logit scale to serve AUPR best.

    Parameters, errors and what is returned are as in `bootstrap_interval`; besides, two patients
    of each class are needed.

    Examples
    --------
    >>> from conocc.metrics.ranking import aupr_min
    >>> minority = [False, False, False, True, True, True]
    >>> score = [0.1, 0.2, 0.6, 0.5, 0.7, 0.9]
    >>> interval = logit_bootstrap_interval(aupr_min, minority, score, repeats=100)
    >>> 0 <= interval.low <= interval.value <= interval.high <= 1
    True
    """
    tail = (1 - in_unit_interval("level", level)) / 2
    value, values = _resampled(metric, minority, anomaly_score, patient, repeats, random_state)
    if np.ptp(values) < NO_VARIANCE:
        return Interval(value, value, value)
    told = np.asarray(minority, dtype=bool)
    groups = min(patients_of_each_class(told, patient_codes(patient, told.size)))
    middle, *logits = _logits(np.append(value, values))
    half = student.isf(tail, groups - 1) * unbiased(groups) ** 0.5 * np.std(logits, ddof=1)
    low, high = expit([middle - half, middle + half])
    return Interval(value, min(value, float(low)), max(value, float(high)))


def _logits(figures: Floats) -> Floats:
    """Take logits; 0 and 1 are moved half as far inside as the nearest figure that is neither."""
    inside = np.minimum(figures, 1 - figures)
    edge = inside[inside > 0].min(initial=1) / 2
    logits: Floats = logit(np.clip(figures, edge, 1 - edge))
    return logits


BOOTSTRAPS: dict[str, Callable[..., Interval]] = {
    "AUPR-maj": logit_bootstrap_interval,
    "AUPR-min": logit_bootstrap_interval,
}


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


def _fits(minority: ArrayLike, anomaly_score: ArrayLike) -> tuple[Bools, Floats]:
    return checked_fits(minority, np.atleast_2d(np.asarray(anomaly_score, dtype=np.float64)))


def _resampled(
    metric: Callable[[Bools, Floats], float],
    minority: ArrayLike,
    anomaly_score: ArrayLike,
    patient: ArrayLike | None,
    repeats: int,
    random_state: int,
) -> tuple[float, Floats]:
    """Return a metric, and the same of each resample; of several fits, the means."""
    if repeats < 1:
        raise ValueError(f"The 'repeats' parameter must be at least 1. Got {repeats!r} instead.")
    told, scores = _fits(minority, anomaly_score)
    code = patient_codes(patient, told.size)
    values = [
        resampled(metric, told, score, code, repeats=repeats, random_state=random_state)
        for score in scores
    ]
    value = float(np.mean([metric(told, score) for score in scores]))
    return value, np.mean(values, axis=0)


def _quantile(level: float) -> float:
    return float(norm.isf((1 - in_unit_interval("level", level)) / 2))
