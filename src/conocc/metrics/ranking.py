"""How well anomaly scores tell the minority class from the majority class.

Letters: ``n`` images. ``minority`` is a bool array (n,), ``anomaly_score`` a float array (n,) in
which higher means less like the majority class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

# Of the sensitivity that a benchmark reports: one majority image in twenty may be flagged.
SPECIFICITY = 0.95
MISSING = ("nan", "None", "<NA>", "NaT", "")  # as NumPy, Python and pandas write it


def auc(minority: ArrayLike, anomaly_score: ArrayLike) -> float:
    """Area under the ROC curve: how often a minority image outscores a majority one.

    Parameters
    ----------
    minority : array of bool, shape (n,)
    anomaly_score : array of float, shape (n,)

    Returns
    -------
    float
        In [0, 1]; a tie counts one half, so a constant score gives 0.5.

    Raises
    ------
    ValueError
        If lengths differ, a score is NaN or infinite, or only one class is there.

    Examples
    --------
    >>> auc([False, False, True, True], [0.1, 0.3, 0.2, 0.9])
    0.75
    """
    minority, anomaly_score = checked(minority, anomaly_score)
    return float(roc_auc_score(minority, anomaly_score))


def aupr_maj(minority: ArrayLike, anomaly_score: ArrayLike) -> float:
    """Average precision of finding the majority class by a low score.

    The chance level is the share of majority images. Parameters and errors as in `auc`.

    Examples
    --------
    >>> aupr_maj([False, False, False, True], [0.5, 0.5, 0.5, 0.5])
    0.75
    """
    minority, anomaly_score = checked(minority, anomaly_score)
    return float(average_precision_score(~minority, -anomaly_score))


def aupr_min(minority: ArrayLike, anomaly_score: ArrayLike) -> float:
    """Average precision of finding the minority class by a high score.

    The chance level is the share of minority images. Parameters and errors as in `auc`.

    Examples
    --------
    >>> aupr_min([False, False, False, True], [0.5, 0.5, 0.5, 0.5])
    0.25
    """
    minority, anomaly_score = checked(minority, anomaly_score)
    return float(average_precision_score(minority, anomaly_score))


def sensitivity_at(
    minority: ArrayLike, anomaly_score: ArrayLike, *, specificity: float = SPECIFICITY
) -> float:
    """Share of minority images found where at least `specificity` of the majority images pass.

    The threshold is the smallest majority score that at least `specificity` of the majority
    scores do not exceed; found is what lies strictly above it. A minority image tied with
    the threshold is therefore missed, and the observed specificity is never below the one
    asked for. It is a point of the ROC curve of these very images: its threshold is set by the
    majority images that it is then judged on. It compares methods; what a threshold set
    beforehand does to these images is told by `conocc.thresholds.rules.observed_rates`.

    Parameters
    ----------
    minority : array of bool, shape (n,)
    anomaly_score : array of float, shape (n,)
    specificity : float, default 0.95
        In [0, 1].

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        As `auc`; or if `specificity` is outside its range.

    Examples
    --------
    >>> sensitivity_at([False, False, True, True], [0.1, 0.2, 0.2, 0.9], specificity=1.0)
    0.5
    >>> minority, score = [False] * 20 + [True] * 2, [*range(20), 18.5, 17.5]
    >>> sensitivity_at(minority, score)
    0.5
    """
    minority, anomaly_score = checked(minority, anomaly_score)
    if not 0 <= specificity <= 1:
        raise ValueError(
            f"The 'specificity' parameter must be in the range [0, 1]. Got {specificity!r} instead."
        )
    majority_score = np.sort(anomaly_score[~minority])
    passing = int(must_pass(majority_score.size, specificity))
    threshold = majority_score[passing - 1] if passing else -np.inf
    return float((anomaly_score[minority] > threshold).mean())


def must_pass(majority: ArrayLike, specificity: float) -> Ints:
    """Give how many of `majority` images must pass for the specificity asked for.

    >>> int(must_pass(100, 0.07))  # though 0.07 * 100 is 7.000000000000001 in floating point
    7
    """
    return np.ceil(specificity * np.asarray(majority) - 1e-9).astype(np.intp)


def checked(minority: ArrayLike, anomaly_score: ArrayLike) -> tuple[Bools, Floats]:
    """Return both as arrays of one length with both classes in them, or refuse them."""
    classes, score = np.asarray(minority), finite_row("anomaly_score", anomaly_score)
    if classes.shape != score.shape:
        raise ValueError(
            "The 'minority' and 'anomaly_score' parameters must be of one length, with one "
            f"value an image. Got shapes {classes.shape} and {score.shape} instead."
        )
    if not np.isin(classes, (0, 1)).all():
        raise ValueError(
            "The 'minority' parameter must be True for minority and False for majority images. "
            f"Got {next(v for v in classes.tolist() if v not in (0, 1))!r} instead."
        )
    classes = classes.astype(bool)
    if classes.all() or not classes.any():
        raise ValueError(
            "The 'minority' parameter must hold both classes. "
            f"Got {classes.sum()} minority and {(~classes).sum()} majority images instead."
        )
    return classes, score


def finite_row(name: str, values: ArrayLike) -> Floats:
    """Return one row of finite numbers, or refuse it by its parameter's name; -> (n,)."""
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1:
        raise ValueError(f"The {name!r} parameter must be one row. Got shape {row.shape} instead.")
    if not np.isfinite(row).all():
        bad = int(np.flatnonzero(~np.isfinite(row))[0])
        raise ValueError(
            f"The {name!r} parameter must be finite. Got {row[bad]} at position {bad} instead."
        )
    return row


def column(name: str, values: ArrayLike, n: int | None = None) -> NDArray[Any]:
    """Return a value of each of `n` images, or refuse it by its parameter's name; -> (n,)."""
    row = np.asarray(values)
    row = row[:, 0] if row.ndim == 2 and row.shape[1] == 1 else row
    if row.ndim != 1 or (n is not None and row.size != n):
        raise ValueError(
            f"The {name!r} parameter must have one value an image. "
            f"Got shape {row.shape}{'' if n is None else f' for {n} images'} instead."
        )
    missing = [i for i, one in enumerate(row.tolist()) if str(one) in MISSING]
    if missing:
        raise ValueError(
            f"The {name!r} parameter has no value for {len(missing)} of {row.size} images, the "
            f"first of row {missing[0]}. Leave these images out, or say which class or patient "
            "it is."
        )
    return row


def marked(y: NDArray[Any]) -> Bools:
    """Tell which rows are marked as minority, -1, as a number or as text; (n,) -> (n,) bool."""
    return np.asarray((y == -1) | (y.astype(str) == "-1"))


def group_names(groups: Iterable[Any]) -> list[str]:
    """Name groups (patients): 1.0, of a column that had gaps, is patient 1; (n,) -> (n,)."""

    def name(group: Any) -> str:
        if isinstance(group, (float, np.floating)) and group.is_integer():
            return f"{group:.0f}"
        return group.decode() if isinstance(group, bytes) else str(group)  # as h5py has text

    return [name(group) for group in groups]


def patient_names(patient: ArrayLike, n: int | None = None) -> NDArray[np.generic]:
    """Return the patient of each of `n` images, or refuse what does not name them; -> (n,)."""
    names = column("patient", patient, n)
    return np.array(group_names(names)) if names.dtype == object else names  # 1 and "a" are named


# What a benchmark reports. `bootstrap_interval` gives each an interval, whatever is added here.
METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "AUC": auc,
    "AUPR-maj": aupr_maj,
    "AUPR-min": aupr_min,
    "sens@5%": sensitivity_at,
}
