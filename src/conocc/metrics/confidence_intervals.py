"""How sure a figure is: intervals of metrics and of shares, and the paired test of two methods.

Images of one patient are alike, so that everything here takes the `patient` of each image.

Letters: ``n`` images, ``k`` fits. ``minority`` is a bool array (n,), ``anomaly_score`` a float
array (n,), or (k, n) for several fits of one method, in which higher means less like the majority
class, ``patient`` an array (n,) of any hashable names.
The figure of several fits is the mean of theirs; scores of different fits are never mixed.
All intervals and tests take the fits as given: they say what other test patients would have
changed, not what another seed would have.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import beta, norm
from scipy.stats import t as student

from conocc.metrics.auc_variance import (
    auc_covariance,
    checked_fits,
    patient_codes,
    patients_of_each_class,
    unbiased,
)
from conocc.metrics.bootstrap import Metric, resampled
from conocc.metrics.checks import in_unit_interval
from conocc.metrics.ranking import METRICS, Bools, Floats, Ints

# What is left below this when structural components cancel, or resamples agree, is rounding.
NO_VARIANCE = 1e-15
N_RESAMPLES = 2000
# Whose bootstrap intervals are taken on the logit scale.
ON_LOGIT_SCALE = {"AUPR-maj", "AUPR-min"}


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
    n_resamples: int = N_RESAMPLES,
) -> Interval:
    """95 % interval of a metric of `METRICS`, by the way that covers best what it is for.

    AUC has `auc_interval`, any other metric `bootstrap_interval`: both AUPR on the logit scale.
    All need two patients of each class.

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
        return auc_interval(minority, anomaly_score, patient=patient)
    classes, _ = checked_fits(minority, anomaly_score)
    patients_of_each_class(classes, patient_codes(patient, classes.size))
    found = bootstrap_interval(
        METRICS[name],
        minority,
        anomaly_score,
        patient=patient,
        on_logit_scale=name in ON_LOGIT_SCALE,
        n_resamples=n_resamples,
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
    confidence_level: float = 0.95,
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
    confidence_level : float, default 0.95
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
    z = _quantile(confidence_level)
    classes, scores = checked_fits(minority, anomaly_score)
    areas, covariance = auc_covariance(classes, scores, patient=patient)
    area, variance = float(areas.mean()), float(covariance.mean())
    if variance > NO_VARIANCE:
        return area_interval(area, variance, z)
    counts = patients_of_each_class(classes, patient_codes(patient, classes.size))
    return Interval(area, _lower_area(area, *counts, z), 1 - _lower_area(1 - area, *counts, z))


def area_interval(area: float, variance: float, z: float) -> Interval:
    """Give the interval of an area of this variance, symmetric on the logit scale."""
    half = z * math.sqrt(variance) / (area * (1 - area))
    return Interval(area, float(expit(logit(area) - half)), float(expit(logit(area) + half)))


def compare_auc(
    minority: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    confidence_level: float = 0.95,
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
    confidence_level : float, default 0.95
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
    (_, a), (_, b) = checked_fits(minority, score_a), checked_fits(minority, score_b)
    areas, covariance = auc_covariance(minority, np.concatenate([a, b]), patient=patient)
    weights = np.repeat([1 / len(a), -1 / len(b)], [len(a), len(b)])
    difference, variance = weights @ areas, weights @ covariance @ weights
    return difference_test(float(difference), float(variance), confidence_level=confidence_level)


def difference_test(
    difference: float, variance: float, *, confidence_level: float = 0.95
) -> Comparison:
    """Test a difference of AUCs against none, by its variance; as `compare_auc` returns it.

    >>> comparison = difference_test(0.1, 0.05**2)
    >>> print(f"{comparison.low:.3f} to {comparison.high:.3f}, p = {comparison.p:.4f}")
    0.002 to 0.198, p = 0.0455
    """
    quantile = _quantile(confidence_level)
    if variance > NO_VARIANCE:
        error = math.sqrt(variance)
        z = difference / error
        low, high = difference - quantile * error, difference + quantile * error
        return Comparison(difference, max(low, -1.0), min(high, 1.0), z, 2 * float(norm.sf(abs(z))))
    if abs(difference) < NO_VARIANCE:
        return Comparison(0.0, 0.0, 0.0, 0.0, 1.0)
    return Comparison(difference, math.nan, math.nan, math.nan, math.nan)


def bootstrap_interval(
    metric: Metric,
    minority: ArrayLike,
    anomaly_score: ArrayLike,
    *,
    patient: ArrayLike | None = None,
    on_logit_scale: bool = False,
    n_resamples: int = N_RESAMPLES,
    confidence_level: float = 0.95,
    random_state: int = 0,
) -> Interval:
    r"""Any metric with its interval over resampled patients (`conocc.metrics.bootstrap`).

    The ends are the percentiles of the resampled figures; or, `on_logit_scale`, of Student's law,

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

    Parameters
    ----------
    metric : callable
        ``(minority, anomaly_score) -> float``, such as `aupr_min`, or
        ``functools.partial(sensitivity_at, specificity=0.9)``.
    minority : array of bool, shape (n,)
    anomaly_score : array of float, shape (n,) or (k, n)
        Of one fit, or of several fits whose mean is asked for.
    patient : array, shape (n,), optional
        Whose image it is; without it, images are taken as independent.
    on_logit_scale : bool, default False
        For a metric in [0, 1]; needs two patients of each class.
    n_resamples : int, default 2000
        At least 1.
    confidence_level : float, default 0.95
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
        As `auc`; or if `n_resamples` or `confidence_level` is outside its range.

    Examples
    --------
    >>> from conocc.metrics.ranking import aupr_min
    >>> minority = [False, False, False, True, True, True]
    >>> score = [0.1, 0.2, 0.6, 0.5, 0.7, 0.9]
    >>> interval = bootstrap_interval(aupr_min, minority, score, n_resamples=100)
    >>> interval.low <= interval.value <= interval.high
    True
    """
    tail = (1 - in_unit_interval("confidence_level", confidence_level)) / 2
    if n_resamples < 1:
        raise ValueError(
            f"The 'n_resamples' parameter must be at least 1. Got {n_resamples!r} instead."
        )
    classes, scores = checked_fits(minority, anomaly_score)
    code = patient_codes(patient, classes.size)
    how = {"n_resamples": n_resamples, "random_state": random_state}
    values = np.mean([resampled(metric, classes, s, code, **how) for s in scores], axis=0)
    value = float(np.mean([metric(classes, score) for score in scores]))
    if not on_logit_scale:
        low, high = np.quantile(values, [tail, 1 - tail])
        return Interval(value, float(low), float(high))
    if np.ptp(values) < NO_VARIANCE:
        return Interval(value, value, value)
    patients = min(patients_of_each_class(classes, code))
    middle, *logits = _logits(np.append(value, values))
    half = student.isf(tail, patients - 1) * unbiased(patients) ** 0.5 * np.std(logits, ddof=1)
    low, high = expit([middle - half, middle + half])
    return Interval(value, min(value, float(low)), max(value, float(high)))


def share_interval(
    hits: ArrayLike, *, patient: ArrayLike | None = None, confidence_level: float = 0.95
) -> Interval:
    r"""Share of images of which something is true, with Clopper and Pearson's interval.

    Where patients have several images, these count as fewer: as the effective number of
    independent images, :math:`p (1 - p) / v`, with v the variance of the share over patients,
    corrected for how well few patients tell v, and never more than there are images (E. L. Korn
    and B. I. Graubard, *Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data*, Survey Methodology 24 (1998) 193-201). At a
    share of 0 or 1, where v says nothing, they count as many as there are patients; a bootstrap
    would give an interval of no width there.

    Parameters
    ----------
    hits : array of bool, shape (n,)
        At least one.
    patient : array, shape (n,), optional
        Whose image it is; without it, images are taken as independent.
    confidence_level : float, default 0.95
        In (0, 1).

    Returns
    -------
    Interval
        Within [0, 1].

    Raises
    ------
    ValueError
        If there is no image, lengths differ, or `confidence_level` is outside its range.

    Examples
    --------
    >>> none_of_30 = share_interval([False] * 30)
    >>> print(f"{none_of_30.value} ({none_of_30.low:.3f} to {none_of_30.high:.3f})")
    0.0 (0.000 to 0.116)
    """
    tail = (1 - in_unit_interval("confidence_level", confidence_level)) / 2
    hit = np.asarray(hits, dtype=bool)
    if hit.ndim != 1 or not hit.size:
        raise ValueError(
            "The 'hits' parameter must be one row of truth values, at least one. "
            f"Got shape {hit.shape} instead."
        )
    share = float(hit.mean())
    n = _independent_images(hit, patient_codes(patient, hit.size), tail)
    x = share * n
    low = float(beta.ppf(tail, x, n - x + 1)) if share > 0 else 0.0
    high = float(beta.ppf(1 - tail, x + 1, n - x)) if share < 1 else 1.0
    return Interval(share, low, high)


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

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)  # NaN last
    steps = np.arange(p.size, 0, -1) * np.nan_to_num(p, nan=1.0)[order]
    adjusted = np.full_like(p, np.nan)
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


def _logits(figures: Floats) -> Floats:
    """Take logits; 0 and 1 are moved half as far inside as the nearest figure that is neither."""
    inside = np.minimum(figures, 1 - figures)
    edge = inside[inside > 0].min(initial=1) / 2
    return logit(np.clip(figures, edge, 1 - edge))


def _independent_images(hit: Bools, code: Ints, tail: float) -> float:
    """How many independent images tell as much of a share."""
    n, patients = hit.size, int(code.max()) + 1
    share = hit.mean()
    if patients in (1, n) or share in (0, 1):
        return patients
    deviation = np.bincount(code, weights=hit - share)
    variance = patients / (patients - 1) * (deviation**2).sum() / n**2
    if variance < NO_VARIANCE:
        return n
    fewer = student.ppf(tail, n - 1) / student.ppf(tail, patients - 1)
    return float(min(n, share * (1 - share) / variance * fewer**2))


def _quantile(confidence_level: float) -> float:
    return float(norm.isf((1 - in_unit_interval("confidence_level", confidence_level)) / 2))
