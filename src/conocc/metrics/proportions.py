"""How sure a share of images is, such as that of false alarms; by patient."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta
from scipy.stats import t as student

from conocc.metrics.confidence_intervals import NO_VARIANCE, Interval
from conocc.metrics.ranking import Bools, in_unit_interval

Ints = NDArray[np.intp]


def share_interval(
    hits: ArrayLike, *, patient: ArrayLike | None = None, level: float = 0.95
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
    level : float, default 0.95
        In (0, 1).

    Returns
    -------
    Interval
        Within [0, 1].

    Raises
    ------
    ValueError
        If there is no image, lengths differ, or `level` is outside its range.

    Examples
    --------
    >>> none_of_30 = share_interval([False] * 30)
    >>> print(f"{none_of_30.value} ({none_of_30.low:.3f} to {none_of_30.high:.3f})")
    0.0 (0.000 to 0.116)
    """
    tail = (1 - in_unit_interval("level", level)) / 2
    hit = np.asarray(hits, dtype=bool)
    if hit.ndim != 1 or not hit.size:
        raise ValueError(
            "The 'hits' parameter must be one row of truth values, at least one. "
            f"Got shape {hit.shape} instead."
        )
    share = float(hit.mean())
    n = _effective(hit, _codes(patient, hit.size), tail)
    x = share * n
    low = float(beta.ppf(tail, x, n - x + 1)) if share > 0 else 0.0
    high = float(beta.ppf(1 - tail, x + 1, n - x)) if share < 1 else 1.0
    return Interval(share, low, high)


def _codes(patient: ArrayLike | None, n: int) -> Ints:
    if patient is None:
        return np.arange(n)
    names = np.asarray(patient)
    if names.shape != (n,):
        raise ValueError(
            "The 'patient' parameter must have one value an image. "
            f"Got shape {names.shape} for {n} images instead."
        )
    return np.unique(names, return_inverse=True)[1]


def _effective(hit: Bools, code: Ints, tail: float) -> float:
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
