"""How sure a study's figures are, and which methods differ: from its rows and scores alone.

Two tables of each protocol: every method's metrics with their intervals, and every pair of
methods with the difference of their AUCs and its paired test. Cross-validation has the second
alone, a sweep neither, since no parameter is to be chosen by its test images.

The fits of several seeds test the same images, and so may folds. What is averaged are their
metrics, never their scores, which have no scale in common. The fits are taken as given: intervals
and tests say what other test patients would have changed, not what other seeds would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from conocc.experiments.table_formats import Cell, Line, Table, difference, estimate, p_value
from conocc.experiments.tables import (
    SENSITIVITY,
    columns_of,
    grouped,
    read_rows,
    rows_by,
    tested_on,
    write_formats,
)
from conocc.io.tables import read_csv
from conocc.metrics.auc_variance import Fold, mean_auc_covariance
from conocc.metrics.confidence_intervals import difference_test, holm, metric_interval
from conocc.metrics.ranking import METRICS, Bools, Floats

Rows = Sequence[Mapping[str, Any]]

# Columns of a fit's scores.csv.
SCORES = ["path", "minority", "patient", "anomaly_score"]

INDEPENDENT = "Images are taken as independent where patients are not known."
INTERVALS = (
    "Mean over the runs (seeds) of each method with its 95 % interval: by DeLong's variance for "
    "AUC, clustered by patient after Obuchowski, and by a bootstrap of patients for the others.",
    INDEPENDENT,
    "The runs are taken as given: what other seeds would have changed is no part of it.",
)
COMPARISONS = (
    "AUC of method A less that of B on the same test images, with its 95 % interval and "
    "two-sided paired test: DeLong's, clustered by patient after Obuchowski.",
    INDEPENDENT,
)
OF_SEEDS = (
    "AUCs are averaged over runs (seeds), which are taken as given: what other seeds would have "
    "changed is no part of it."
)
OF_FOLDS = (
    "AUCs are averaged over folds; a patient or image that several folds test counts once. The "
    "fits are taken as given: that they train on images of one another is no part of it."
)
CORRECTED = (
    "Holm's p is corrected for all comparisons on one cohort: below 0.05, the method with the "
    "larger AUC is significantly better. The intervals are not corrected."
)


def write_comparisons(study: str | Path) -> list[Table]:
    """Write the tables of `compared` beside those of the paper's layout, and return them."""
    made = compared(Path(study), read_rows(study))
    write_formats(study, made)
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
        cohorts = [_tested(study, its) for its in rows_by(done, "cohort").values()]
        if done[0]["protocol"] == "benchmark":
            made.append(_intervals(f"{name}-intervals", cohorts))
        if any(len(columns_of(cohort.rows)) > 1 for cohort in cohorts):
            made.append(_comparisons(f"{name}-comparisons", cohorts))
    return made


# --- the scores of a cohort --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Split:
    """The images that some fits have tested, and their scores by the label of the method."""

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


def _tested(study: Path, rows: Rows) -> _Cohort:
    splits = [_split(study, its) for its in rows_by(rows, "fold").values()]
    labels = []
    for _, label in columns_of(rows):
        fits = {len(split.scores.get(label, ())) for split in splits}
        # As many fits in each split, or the mean over all of them would be of other splits.
        if len(fits) == 1 and 0 not in fits:
            labels.append(label)
    return _Cohort(rows[0]["cohort"], rows, splits, labels)


def _split(study: Path, rows: Rows) -> _Split:
    """Read the scores of the fits that tested the images that the first of them did."""
    read = [(row["label"], _read_scores(study / row["run"] / "scores.csv")) for row in rows]
    tables = [table for _, table in read if table is not None]
    first = tables[0] if tables else pd.DataFrame(columns=SCORES)
    images = first[["path", "minority"]]
    fits, unfit = defaultdict(list), set()
    for label, table in read:
        if table is None or not table[["path", "minority"]].equals(images):
            unfit.add(label)
        else:
            fits[label].append(table["anomaly_score"].to_numpy())
    scores = {label: its for label, its in fits.items() if label not in unfit}
    return _Split(first["minority"].to_numpy(), first["patient"].to_numpy(), scores)


def _read_scores(path: Path) -> pd.DataFrame | None:
    try:
        return read_csv(path, usecols=SCORES, dtype={"minority": bool, "anomaly_score": float})
    except FileNotFoundError:
        return None


# --- intervals ---------------------------------------------------------------------------------


def _intervals(name: str, cohorts: Iterable[_Cohort]) -> Table:
    lines: list[Line] = []
    caption = [*INTERVALS]
    for cohort in cohorts:
        caption += tested_on(cohort.rows)
        for _, label in columns_of(cohort.rows):
            cells = tuple(_estimate(cohort, label, metric) for metric in METRICS)
            lines.append(Line((cohort.name, label), cells))
    caption.append(SENSITIVITY)
    return Table(name, tuple(caption), ("cohort", "method"), tuple(METRICS), tuple(lines))


def _estimate(cohort: _Cohort, label: str, metric: str) -> Cell:
    """Take the interval of a single fit from its row, and that of a mean from the scores."""
    found = [row["metrics"][metric] for row in cohort.rows if row["label"] == label]
    if len(found) == 1:
        return estimate(found[0]["value"], found[0]["low"], found[0]["high"])
    value = fmean(one["value"] for one in found)
    if label not in cohort.labels:
        return estimate(value, n=len(found))
    (split,) = cohort.splits
    try:
        interval = metric_interval(
            metric, split.minority, split.scores[label], patient=split.patient
        )
    except ValueError:  # too few patients: each row of the study has the sentence
        return estimate(value, n=len(found))
    return estimate(*interval, n=len(found))


# --- comparisons -------------------------------------------------------------------------------


def _comparisons(name: str, cohorts: Iterable[_Cohort]) -> Table:
    lines: list[Line] = []
    notes: list[str] = []
    for cohort in cohorts:
        notes.append(OF_FOLDS if len(cohort.splits) > 1 else OF_SEEDS)
        missing = [label for _, label in columns_of(cohort.rows) if label not in cohort.labels]
        if missing:
            notes.append(
                f"Left out on {cohort.name}, since scores are missing or not of the same images: "
                f"{', '.join(missing)}."
            )
        try:
            lines += _pairs(cohort) if len(cohort.labels) > 1 else ()
        except ValueError as error:
            notes.append(f"No tests on {cohort.name}: {error}")
    caption = (*COMPARISONS, *dict.fromkeys(notes), CORRECTED)
    columns = ("AUC of A − B", "p", "Holm's p")
    return Table(name, caption, ("cohort", "A", "B"), columns, tuple(lines))


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
        ends = (None, None) if np.isnan(test.p) else (test.low, test.high)
        cells = (difference(test.difference, *ends), p_value(test.p), p_value(p))
        yield Line((cohort.name, cohort.labels[i], cohort.labels[j]), cells)


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
