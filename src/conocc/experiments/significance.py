"""How sure a study's figures are, and which methods differ: from its rows and scores alone.

Two tables of each protocol: every method's metrics with their intervals, and every pair of
methods with the difference of their AUCs and its paired test. Cross-validation has the second
alone, a sweep neither, since no parameter is to be chosen by its test images.

The fits of several seeds test the same images, and so may folds. What is averaged are their
metrics, never their scores, which have no scale in common. The fits are taken as given: intervals
and tests say what other test patients would have changed, not what other seeds would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from conocc.experiments.table_formats import (
    FORMATS,
    Cell,
    Difference,
    Estimate,
    Line,
    PValue,
    Table,
)
from conocc.experiments.tables import columns_of, explained, grouped, read_rows, tested_on
from conocc.io.files import read_csv, write_text
from conocc.metrics.auc_variance import Fold, mean_auc_covariance
from conocc.metrics.confidence_intervals import Comparison, difference_test, holm, metric_interval
from conocc.metrics.ranking import METRICS, Bools, Floats

Rows = Sequence[Mapping[str, Any]]

INTERVALS = (
    "Mean over the runs (seeds) of each method with its 95 % interval: by DeLong's variance for "
    "AUC, clustered by patient after Obuchowski, and by a bootstrap of patients for the others.",
    "Images are taken as independent where patients are not known.",
    "The runs are taken as given: what other seeds would have changed is no part of it.",
)
COMPARISONS = (
    "AUC of method A less that of B on the same test images, with its 95 % interval and "
    "two-sided paired test: DeLong's, clustered by patient after Obuchowski.",
    "Images are taken as independent where patients are not known.",
)
OF_SEEDS = (
    "AUCs are averaged over runs (seeds), which are taken as given: what other seeds would have "
    "changed is no part of it."
)
OF_FOLDS = (
    "AUCs are averaged over folds; a patient or image that several folds test counts once. The "
    "fits are taken as given: that they train on images of one another is no part of it."
)
CORRECTED = "Holm's p is corrected for all comparisons on one cohort; the intervals are not."


def write_comparisons(study: str | Path) -> list[Table]:
    """Write the tables of `compared` beside those of the paper's layout, and return them."""
    study = Path(study)
    made = compared(study, read_rows(study))
    for table in made:
        for ending, text in FORMATS.items():
            write_text(study / "tables" / f"{table.name}.{ending}", text(table))
    return made


def compared(study: Path, rows: Rows) -> list[Table]:
    """Make the tables of intervals and of comparisons that rows and their scores allow.

    A method whose scores are gone, or are not of the images of the others, is left out, and the
    caption says so.

    Raises
    ------
    ValueError
        If a scores file is damaged.
    """
    made = []
    for name, group in grouped(rows).items():
        done = [row for row in group if row["status"] == "done"]
        if not done or done[0]["protocol"] == "sweep":
            continue
        cohorts = [_tested(study, its) for its in _by(done, "cohort").values()]
        if done[0]["protocol"] == "benchmark":
            made.append(_intervals(f"{name}-intervals", cohorts))
        if any(len(columns_of(cohort.rows)) > 1 for cohort in cohorts):
            made.append(_comparisons(f"{name}-comparisons", cohorts))
    return made


# --- the scores of a cohort --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Split:
    """The images that some fits have tested, and their scores by the label of the method."""

    path: np.ndarray
    minority: Bools
    patient: np.ndarray
    scores: dict[str, list[Floats]]


@dataclass(frozen=True, eq=False)
class _Cohort:
    """What was tested on one cohort.

    Attributes
    ----------
    name
    rows
        Of all fits that are done.
    splits
        One, or one a fold.
    labels
        Of the methods with scores of every split, in the order of the paper's columns.
    """

    name: str
    rows: Rows
    splits: list[_Split]
    labels: list[str]

    @property
    def missing(self) -> list[str]:
        return [label for _, label in columns_of(self.rows) if label not in self.labels]


def _tested(study: Path, rows: Rows) -> _Cohort:
    splits = [_split(study, its) for its in _by(rows, "fold").values()]
    fits = {
        label: [len(split.scores.get(label, ())) for split in splits]
        for _, label in columns_of(rows)
    }
    # As many fits in each split, or the mean over all of them would be of other splits.
    labels = [label for label, counts in fits.items() if min(counts) and len(set(counts)) == 1]
    return _Cohort(rows[0]["cohort"], rows, splits, labels)


def _split(study: Path, rows: Rows) -> _Split:
    """Read the scores of the fits that tested the images that the first of them did."""
    first: _Split | None = None
    unfit = set()
    for row in rows:
        found = _read_scores(study / row["run"] / "scores.csv")
        if found is None:
            unfit.add(row["label"])
            continue
        if first is None:
            path, minority, patient = (
                found[name].to_numpy() for name in ("path", "minority", "patient")
            )
            first = _Split(path, minority, patient, {})
        same = np.array_equal(found["path"], first.path)
        if not same or not np.array_equal(found["minority"], first.minority):
            unfit.add(row["label"])
            continue
        scores = found["anomaly_score"].to_numpy(float)
        first.scores.setdefault(row["label"], []).append(scores)
    if first is None:
        nothing = np.array([])
        return _Split(nothing, nothing, nothing, {})
    for label in unfit:
        first.scores.pop(label, None)
    return first


def _read_scores(path: Path) -> pd.DataFrame | None:
    columns = ["path", "minority", "patient", "anomaly_score"]
    types = {"minority": bool, "anomaly_score": float}
    try:
        return read_csv(path, usecols=columns, dtype=types)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"Cannot read '{path}': {error}.") from error


def _by(rows: Rows, name: str) -> dict[Any, list[Mapping[str, Any]]]:
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[name], []).append(row)
    return found


# --- intervals ---------------------------------------------------------------------------------


def _intervals(name: str, cohorts: Iterable[_Cohort]) -> Table:
    lines: list[Line] = []
    caption = [*INTERVALS]
    for cohort in cohorts:
        caption += tested_on(cohort.rows)
        for _, label in columns_of(cohort.rows):
            cells = tuple(_estimate(cohort, label, metric) for metric in METRICS)
            lines.append(Line((cohort.name, label), cells))
    caption += explained(METRICS)
    return Table(name, tuple(caption), ("cohort", "method"), tuple(METRICS), tuple(lines))


def _estimate(cohort: _Cohort, label: str, metric: str) -> Cell | None:
    """Take the interval of a single fit from its row, and that of a mean from the scores."""
    found = [row["metrics"].get(metric) for row in cohort.rows if row["label"] == label]
    if None in found:  # of an earlier version, which did not measure it
        return None
    if len(found) == 1:
        return Estimate(found[0]["value"], n=1, low=found[0]["low"], high=found[0]["high"])
    mean = Estimate(fmean(one["value"] for one in found), n=len(found))
    if label not in cohort.labels:
        return mean
    (split,) = cohort.splits
    try:
        interval = metric_interval(
            metric, split.minority, split.scores[label], patient=split.patient
        )
    except ValueError:  # too few patients: each row of the study has the sentence
        return mean
    return Estimate(interval.value, n=len(found), low=interval.low, high=interval.high)


# --- comparisons -------------------------------------------------------------------------------


def _comparisons(name: str, cohorts: Iterable[_Cohort]) -> Table:
    lines: list[Line] = []
    caption = [*COMPARISONS]
    said: list[str] = []
    for cohort in cohorts:
        folds = len(cohort.splits) > 1
        said += [OF_FOLDS if folds else OF_SEEDS]
        if cohort.missing:
            said.append(
                f"Left out on {cohort.name}, since scores are missing or not of the same images: "
                f"{', '.join(cohort.missing)}."
            )
        try:
            lines += _pairs(cohort) if len(cohort.labels) > 1 else ()
        except ValueError as error:
            said.append(f"No tests on {cohort.name}: {error}")
    caption += [*dict.fromkeys(said), CORRECTED]
    head = ("cohort", "A", "B")
    columns = ("AUC of A − B", "p", "Holm's p")
    return Table(name, tuple(caption), head, columns, tuple(lines))


def _pairs(cohort: _Cohort) -> Iterator[Line]:
    """Compare each method with each, from the last column of the paper's on."""
    areas, covariance = _areas(cohort)
    pairs = list(combinations(reversed(range(len(areas))), 2))
    tests = []
    for i, j in pairs:
        variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        tests.append(difference_test(float(areas[i] - areas[j]), float(variance)))
    corrected = holm([test.p for test in tests]).tolist()
    for (i, j), test, p in zip(pairs, tests, corrected, strict=True):
        head = (cohort.name, cohort.labels[i], cohort.labels[j])
        yield Line(head, _cells(test, p))


def _cells(test: Comparison, corrected: float) -> tuple[Cell, ...]:
    ends = (None, None) if math.isnan(test.p) else (test.low, test.high)
    difference = Difference(test.difference, low=ends[0], high=ends[1])
    return difference, PValue(test.p), PValue(corrected)


def _areas(cohort: _Cohort) -> tuple[Floats, Floats]:
    """Give each method's mean AUC over fits and splits, and the covariance of these means."""
    folds = [
        Fold(
            split.minority,
            np.concatenate([split.scores[label] for label in cohort.labels]),
            split.patient,
        )
        for split in cohort.splits
    ]
    areas, covariance = mean_auc_covariance(folds)
    fits = [len(cohort.splits[0].scores[label]) for label in cohort.labels]
    weights = np.repeat(np.diag(1 / np.array(fits)), fits, axis=1)
    return weights @ areas, weights @ covariance @ weights.T
