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
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from conocc.data.image_io.stack import volume_and_slice
from conocc.experiments.artifacts import read_results
from conocc.experiments.table_formats import Cell, Line, Table, difference, estimate, p_value
from conocc.experiments.tables import (
    caption,
    columns_of,
    grouped,
    read_rows,
    rows_by,
    write_formats,
)
from conocc.io.files import read_json
from conocc.io.tables import read_csv
from conocc.metrics.auc_variance import Fold, mean_auc_covariance
from conocc.metrics.confidence_intervals import difference_test, holm, metric_interval
from conocc.metrics.ranking import METRICS, Floats

Rows = Sequence[Mapping[str, Any]]

# Columns of a fit's scores.csv.
SCORES = ["path", "digest", "minority", "patient", "anomaly_score"]
# What an evaluation leaves.
EVALUATED = ("metrics.json", "scores.csv")


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
            made.append(_intervals(f"{name}-intervals", done, cohorts))
        if any(len(cohort.methods) > 1 for cohort in cohorts):
            made.append(_comparisons(f"{name}-comparisons", done, cohorts))
    return made


def compare_runs(runs: Sequence[str | Path]) -> tuple[dict[str, dict[str, Any]], Table]:
    """Compare the AUCs of evaluated runs on the same test images, each with each, by their scores.

    Returns
    -------
    results : dict
        What ``metrics.json`` holds of each run, by its method and folder.
    table : Table
        As of a study.

    Raises
    ------
    ValueError
        If there are fewer than two runs, one is named twice or was not evaluated, or they were
        evaluated on other images or take them for other patients'.
    """
    folders = [Path(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < max(len(runs), 2):
        raise ValueError("Name at least two runs, each once.")
    for folder in folders:
        if not all((folder / name).exists() for name in ("run.json", *EVALUATED)):
            raise ValueError(f"'{folder}' is no evaluated run: 'conocc evaluate {folder} COHORT'.")
    found = [read_results(folder / EVALUATED[0]) for folder in folders]
    labels = [f"{read_json(folder / 'run.json')['method']} ({folder})" for folder in folders]
    tables = [_scores_of(folder).sort_values(["digest", "minority"]) for folder in folders]
    for folder, result, table in zip(folders, found, tables, strict=True):
        whose, there = (pd.factorize(one["patient"])[0] for one in (table, tables[0]))
        if result["tested"] != found[0]["tested"] or not np.array_equal(whose, there):
            raise ValueError(
                f"'{folder}' was evaluated on other images than '{folders[0]}', or on images of "
                "other patients. Evaluate both on the same cohort ('conocc evaluate', with --out "
                "where a run holds other results)."
            )
    scores = [[table["anomaly_score"].to_numpy()] for table in tables]
    split = _Split(tables[0], dict(zip(labels, scores, strict=True)))
    last_first = labels[::-1]  # as `_pairs` takes them
    cohort = _Cohort(found[0]["cohort"], [], [split], last_first, last_first)
    results = dict(zip(labels, found, strict=True))
    return results, _comparisons("comparisons", [{"protocol": "runs"}], [cohort])


# --- the scores of a cohort --------------------------------------------------------------------


class _Split(NamedTuple):
    """The images that some fits have tested, and their scores by the label of the method."""

    images: pd.DataFrame
    scores: dict[str, list[Floats]]


class _Cohort(NamedTuple):
    """What was tested on one cohort, in one split or one a fold.

    `methods` are the labels of all, and `complete` of those with scores of every split, in the
    order of the paper's columns.
    """

    name: str
    rows: Rows
    splits: list[_Split]
    methods: list[str]
    complete: list[str]


def _tested(study: Path, rows: Rows) -> _Cohort:
    splits = [_split(study, its) for its in rows_by(rows, "fold").values()]
    methods = [label for _, label in columns_of(rows)]
    # As many fits in each split, or the mean over all of them would be of other splits.
    fits = {label: {len(split.scores.get(label, ())) for split in splits} for label in methods}
    complete = [label for label in methods if len(fits[label]) == 1 and 0 not in fits[label]]
    return _Cohort(rows[0]["cohort"], rows, splits, methods, complete)


def _split(study: Path, rows: Rows) -> _Split:
    """Read the scores of the fits that tested the images that the first of them did."""
    images = pd.DataFrame()
    fits, unfit = defaultdict(list), set()
    for row in rows:
        path = study / row["run"] / "scores.csv"
        if not path.exists():
            unfit.add(row["label"])
            continue
        table = _scores_of(path.parent)
        images = table if images.empty else images
        if not table[["path", "minority"]].equals(images[["path", "minority"]]):
            unfit.add(row["label"])
        fits[row["label"]].append(table["anomaly_score"].to_numpy())
    return _Split(images, {label: its for label, its in fits.items() if label not in unfit})


def _scores_of(run: Path) -> pd.DataFrame:
    """Read scores; slices of one volume are of one patient, where patients are not known."""
    kinds = {"minority": bool, "anomaly_score": float}
    table = read_csv(run / EVALUATED[1], usecols=SCORES, dtype=kinds)
    volumes = [volume_and_slice(path)[0] for path in table["path"]]
    table["patient"] = table["patient"].where(table["patient"] != table["path"], volumes)
    return table


# --- intervals ---------------------------------------------------------------------------------


def _intervals(name: str, rows: Rows, cohorts: Iterable[_Cohort]) -> Table:
    lines = [
        Line((cohort.name, label), tuple(_estimate(cohort, label, metric) for metric in METRICS))
        for cohort in cohorts
        for label in cohort.methods
    ]
    said = caption("intervals", rows)
    return Table(name, said, ("cohort", "method"), tuple(METRICS), tuple(lines))


def _estimate(cohort: _Cohort, label: str, metric: str) -> Cell:
    """Take the interval of a single fit from its row, and that of a mean from the scores."""
    found = [row["metrics"][metric] for row in cohort.rows if row["label"] == label]
    if len(found) == 1:
        return estimate(found[0]["value"], found[0]["low"], found[0]["high"])
    if label in cohort.complete:
        images, scores = cohort.splits[0]
        minority, patient = images["minority"].to_numpy(), images["patient"].to_numpy()
        try:
            interval = metric_interval(metric, minority, scores[label], patient=patient)
            return estimate(*interval, n=len(found))
        except ValueError:  # too few patients: each row of the study has the sentence
            pass
    return estimate(fmean(one["value"] for one in found), n=len(found))


# --- comparisons -------------------------------------------------------------------------------


def _comparisons(name: str, rows: Rows, cohorts: Iterable[_Cohort]) -> Table:
    lines: list[Line] = []
    left_out, untested = {}, {}
    for cohort in cohorts:
        if missing := [label for label in cohort.methods if label not in cohort.complete]:
            left_out[cohort.name] = missing
        try:
            lines += _pairs(cohort) if len(cohort.complete) > 1 else ()
        except ValueError as error:
            untested[cohort.name] = error
    folds = rows[0]["protocol"] == "crossval"
    said = caption("comparisons", rows, folds=folds, left_out=left_out, untested=untested)
    columns = ("AUC of A − B", "p", "Holm's p")
    return Table(name, said, ("cohort", "A", "B"), columns, tuple(lines))


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
        yield Line((cohort.name, cohort.complete[i], cohort.complete[j]), cells)


def _areas(cohort: _Cohort) -> tuple[Floats, Floats]:
    """Give each method's mean AUC over fits and splits, and the covariance of these means."""
    folds = []
    for images, scores in cohort.splits:
        of_all = np.concatenate([scores[label] for label in cohort.complete])
        folds.append(Fold(images["minority"].to_numpy(), of_all, images["patient"].to_numpy()))
    areas, covariance = mean_auc_covariance(folds)
    fits = [len(cohort.splits[0].scores[label]) for label in cohort.complete]
    weights = np.repeat(np.diag(1 / np.array(fits)), fits, axis=1)
    return weights @ areas, weights @ covariance @ weights.T
