"""scikit-learn's cross-validation and searches for one-class learning: folds and scorers.

``y`` is +1 for the majority and -1 for the minority, as scikit-learn's outlier detectors have it.
Letters: n rows of X.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseCrossValidator, StratifiedGroupKFold
from sklearn.utils import check_consistent_length

from conocc.metrics.checks import in_unit_interval
from conocc.metrics.ranking import METRICS, Bools, column, marked, patient_names, sensitivity_at

Rows = NDArray[np.intp]


class OneClassKFold(BaseCrossValidator):  # type: ignore[misc]  # scikit-learn has no types
    """Folds of patients: trains on majority rows alone, tests on the held-out rows of both classes.

    Folds are those of `StratifiedGroupKFold`, shuffled.

    Parameters
    ----------
    n_splits : int
        At least 2.
    all_minority : bool
        Whether each fold tests the minority rows of all patients whom it does not train on, and
        not those of its own patients alone.
    random_state : int
        Seed of the shuffle.

    Examples
    --------
    >>> y = np.repeat([1, -1], [6, 2])
    >>> [(a.tolist(), b.tolist()) for a, b in OneClassKFold(2).split(y, y, groups=[*range(4)] * 2)]
    [([0, 3, 4], [1, 2, 5, 6]), ([1, 2, 5], [0, 3, 4, 7])]
    """

    def __init__(self, n_splits: int = 5, *, all_minority: bool = False, random_state: int = 0):
        self.n_splits = n_splits
        self.all_minority = all_minority
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Give how many folds there are."""
        return self.n_splits

    def split(self, X: Any, y: ArrayLike, groups: Any = None) -> Iterator[tuple[Rows, Rows]]:
        """Yield the rows to train on and those to test, for each fold.

        Without `groups`, (n,), each row is a patient of its own.

        Raises
        ------
        ValueError
            If `y` does not mark the minority by -1, or a fold would test rows of one class only.
        """
        check_consistent_length(X, y, groups)
        minority = minority_of(y)
        rows = np.arange(len(minority))
        patient = rows if groups is None else patient_names(groups, len(rows))
        folds = StratifiedGroupKFold(self.n_splits, shuffle=True, random_state=self.random_state)
        for i, (others, tested) in enumerate(folds.split(rows, minority, patient), 1):
            train = others[~minority[others]]
            if self.all_minority:
                is_new = minority & ~np.isin(patient, patient[train])
                tested = np.union1d(tested, rows[is_new])
            if len(found := np.unique(minority[tested])) < 2:
                raise ValueError(
                    f"Fold {i} of {self.n_splits} would test "
                    f"{'minority' if found[0] else 'majority'} images only. "
                    "Ask for fewer folds, or another seed."
                )
            yield train, tested


def one_class_scorer(
    metric: str = "AUC", *, false_alarms: float | None = None
) -> Callable[[Any, Any, Any], float]:
    """Make what scikit-learn's `scoring` takes: a function of an outlier detector, X and y.

    Parameters
    ----------
    metric : str
        "AUC", "AUPR-maj", "AUPR-min", "sens@5%", or "sensitivity" at a rate of false alarms.
    false_alarms : float in (0, 1), optional
        That rate, as `conocc.metrics.ranking.sensitivity_at` takes it.

    Raises
    ------
    ValueError
        If there is no such metric, or a rate is missing or too many.
    """
    if metric == "sensitivity" and false_alarms is not None:
        passing = 1 - in_unit_interval("false_alarms", false_alarms)
        return partial(_scored, partial(sensitivity_at, specificity=passing))
    if metric not in METRICS or false_alarms is not None:
        raise ValueError(
            f"The 'metric' parameter must be one of {', '.join(METRICS)}, or 'sensitivity' with a "
            f"rate of false_alarms. Got {metric!r} and {false_alarms} instead."
        )
    return partial(_scored, METRICS[metric])


def _scored(metric: Callable[..., float], detector: Any, X: Any, y: ArrayLike) -> float:
    return metric(minority_of(y), -detector.score_samples(X))


def minority_of(y: ArrayLike) -> Bools:
    """Tell which rows are -1, as scikit-learn marks outliers; both kinds must be there."""
    y = column("y", y)
    minority = marked(y)
    if not minority.any() or minority.all():
        raise ValueError(
            "The 'y' parameter must be -1 for minority rows and something else for majority rows. "
            f"Got {np.unique(y).tolist()[:5]} instead."
        )
    return minority


SCORERS = {name: one_class_scorer(name) for name in METRICS}
