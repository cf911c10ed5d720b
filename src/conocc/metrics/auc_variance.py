"""The variance of an AUC, from where each image lies among the images of the other class.

Letters: ``n`` images, ``k`` scores an image (one a fit), ``m`` minority images, ``p`` patients.
``minority`` is a bool array (n,), ``scores`` a float array (k, n) in which higher means less like
the majority class, ``patient`` an array (n,) of any hashable names.

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
E. LeDell, M. Petersen and M. van der Laan, *Computationally efficient confidence intervals for
cross-validated area under the ROC curve estimates*, Electronic Journal of Statistics 9 (2015)
1583-1607.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, owens_t, poch
from scipy.stats import rankdata

from conocc.metrics.ranking import Bools, Floats, Ints, checked, patient_names


class Fold(NamedTuple):
    """What was tested together: the images of one test split, scored by the same fits.

    ``scores`` has a row a fit, (k, n), or is one row, (n,).
    """

    minority: ArrayLike
    scores: ArrayLike
    patient: ArrayLike


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
    r"""AUCs of `k` fits on the same images, and the covariance of these AUCs.

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

    The covariance is over test patients, the fits as given: how much another seed would have
    changed a fit is no part of it. It is bilinear, so that the mean of the AUCs of several
    fits, ``weights @ areas``, has the variance ``weights @ covariance @ weights``.

    Parameters
    ----------
    minority : array of bool, shape (n,)
    scores : array of float, shape (k, n) or (n,)
        One row a fit.
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
    patient = np.arange(np.size(minority)) if patient is None else patient
    return mean_auc_covariance([Fold(minority, scores, patient)])


def mean_auc_covariance(folds: Sequence[Fold]) -> tuple[Floats, Floats]:
    r"""Mean over folds of the AUCs of `k` methods, and the covariance of these means.

    The means are taken of the AUCs, never of scores pooled from several fits, which have no
    scale in common. Each image's part in its fold's AUC is known from the structural
    components, so that the parts of a patient are summed over folds and classes as
    `auc_covariance` sums them over classes. Folds may therefore share test images, as the
    paper's do: a patient is one cluster in all of them. Folds with no patient in common give the
    mean of independent AUCs, :math:`\sum_f V_f / F^2`, which is the estimator of LeDell et al.
    (2015). Each fold's own small-sample factors are kept.

    The fits are taken as given, likewise: that folds train on images of one another is no
    part of the variance.

    Parameters
    ----------
    folds : sequence of Fold
        Each with `k` rows of scores, those of the same methods in the same order. Images of
        unknown patients are told apart, and found again in another fold, by their paths in
        place of the `patient`.

    Returns
    -------
    areas : array, shape (k,)
    covariance : array, shape (k, k)

    Raises
    ------
    ValueError
        As `auc_covariance`, for any fold.

    Examples
    --------
    >>> minority, scores = [0, 0, 1, 1], [[0.1, 0.3, 0.2, 0.9]]
    >>> folds = [Fold(minority, scores, list(patients)) for patients in ("abcd", "efgh")]
    >>> areas, covariance = mean_auc_covariance(folds)
    >>> areas, covariance
    (array([0.75]), array([[0.0625]]))
    """
    each = [(*checked_fits(f.minority, f.scores), np.asarray(f.patient)) for f in folds]
    names = [patient_names(patient, minority.size) for minority, _, patient in each]
    code = np.unique(np.concatenate(names), return_inverse=True)[1]
    codes = np.split(code, np.cumsum([len(n) for n in names])[:-1])
    k, p = len(each[0][1]), int(code.max()) + 1
    areas = np.zeros(k)
    # Each patient's part in the mean, by minority and by majority images. Both stand here
    # twice, since the products of the two have a factor of their own.
    x, y, x_mixed, y_mixed = np.zeros((4, k, p))
    for (minority, scores, _), code in zip(each, codes, strict=True):
        over_majority, under_minority = structural_components(minority, scores)
        area = over_majority.mean(axis=1)
        areas += area
        by_minority = _sums(over_majority - area[:, None], code[minority], p) / minority.sum()
        by_majority = _sums(under_minority - area[:, None], code[~minority], p) / (~minority).sum()
        with_minority, with_majority = patients_of_each_class(minority, code)
        x += unbiased(with_minority) ** 0.5 * by_minority
        y += unbiased(with_majority) ** 0.5 * by_majority
        factor = unbiased(np.unique(code).size) ** 0.5
        x_mixed += factor * by_minority
        y_mixed += factor * by_majority
    covariance = x @ x.T + y @ y.T + x_mixed @ y_mixed.T + y_mixed @ x_mixed.T
    return areas / len(folds), covariance / len(folds) ** 2


def expected_variance(
    area: float, minority: float, majority: float, *, images: int = 1, likeness: float = 0.0
) -> float:
    r"""Variance of the AUC of a study that is planned, if scores are normal in both classes.

    The AUC is the mean over pairs of a minority and a majority image of whether they are in
    order. Two pairs whose differences of scores correlate by r are both in order with the chance
    :math:`\Phi_2(h, h; r)`, :math:`h = \Phi^{-1}(A)`, so that the variance is a mean of
    :math:`\Phi_2(h, h; r) - A^2` over all pairs of pairs. It is that of Hanley and McNeil
    (Radiology 143 (1982) 29-36), but for their law, the exponential one, which makes studies with
    few minority images too large (by 13 % of the interval at an AUC of 0.8, 30 of 130 images).
    :math:`\Phi_2` is by Owen's T.

    Parameters
    ----------
    area : float in (0, 1)
        The AUC that is expected.
    minority, majority : float
        Images of each class.
    images : int, default 1
        Of each patient, all of one class.
    likeness : float in [0, 1], default 0
        Correlation of the scores of two images of one patient.

    Examples
    --------
    >>> [round(expected_variance(0.5, m, 20), 4) for m in (20, 200)]  # (m + n + 1) / 12mn
    [0.0085, 0.0046]
    """
    h = ndtri(area)

    def both_in_order(r: float) -> float:
        return float(area - area**2 - 2 * owens_t(h, ((1 - r) / (1 + r)) ** 0.5))

    def others(n: float) -> tuple[tuple[float, float], ...]:
        """Of n images: the image itself, those of its patient, and all else; how like each is."""
        return (1, 1), (images - 1, likeness), (n - images, 0)

    pairs = product(others(minority), others(majority))
    total = sum(a * b * both_in_order((r + s) / 2) for (a, r), (b, s) in pairs)
    return total / (minority * majority)


def typical_variance(
    area: float, minority: float, majority: float, *, images: int = 1, likeness: float = 0.0
) -> float:
    r"""Variance whose root is, on average, that of DeLong's estimate in a study as planned.

    That is what an interval is made of. DeLong's estimate is the sum of the variances of how often
    an image outscores the other class, V, each by the number of its class: it exceeds
    `expected_variance` by :math:`(A (1 - A) - 2 \mathrm{Var}\,V) / mn`, and itself varies with the
    fourth moment of V. It is taken to follow a gamma law, whose mean root is below the root of its
    mean: by 9 % at an AUC of 0.95 and 21 of 207 images. Images of a patient count as many as
    would, independent, give the same variance.

    Parameters
    ----------
    area, minority, majority, images, likeness
        See `expected_variance`.
    """
    variance = expected_variance(area, minority, majority, images=images, likeness=likeness)
    share = expected_variance(area, minority, majority) / variance
    m, n = minority * share, majority * share
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    over = ndtr(2**0.5 * ndtri(area) + nodes) - area
    second, fourth = (float(np.average(over**k, weights=weights)) for k in (2, 4))
    # Half, since the logit scale narrows intervals about as much (by simulation).
    mean = variance + (area - area**2 - 2 * second) / (2 * m * n)
    # Below 1, where most estimates are next to nothing, the law says too little.
    shape = max(1.0, variance**2 / ((fourth - second**2) * (m**-3 + n**-3)))
    return float(mean * poch(shape, 0.5) ** 2 / shape)


def patient_codes(patient: ArrayLike | None, n: int) -> Ints:
    """Give n images the numbers of their patients; without any, each image is its own patient."""
    if patient is None:
        return np.arange(n)
    return np.unique(patient_names(patient, n), return_inverse=True)[1]


def patients_of_each_class(minority: Bools, code: Ints) -> tuple[int, int]:
    """Count the patients with minority and with majority images, or refuse fewer than two."""
    with_minority, with_majority = np.unique(code[minority]).size, np.unique(code[~minority]).size
    if min(with_minority, with_majority) < 2:
        raise ValueError(
            "The variance of an AUC needs images of each class from at least two patients (two "
            f"images of each class where patients are unknown). Got {with_minority} with minority "
            f"and {with_majority} with majority images instead."
        )
    return with_minority, with_majority


def checked_fits(minority: ArrayLike, scores: ArrayLike) -> tuple[Bools, Floats]:
    """Return classes (n,) and the scores of all fits (k, n), or refuse them as `checked` does."""
    rows = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if rows.ndim != 2 or not len(rows):
        raise ValueError(
            f"The scores must have one row a fit, shape (k, n). Got shape {rows.shape} instead."
        )
    for row in rows:
        classes, _ = checked(minority, row)
    return classes, rows


def _sums(values: Floats, code: Ints, patients: int) -> Floats:
    return np.stack([np.bincount(code, weights=row, minlength=patients) for row in values])


def unbiased(count: int) -> float:
    """Give the factor that makes a mean of squares about their own mean a variance."""
    return count / (count - 1)
