"""Rows of a study into tables in the paper's layout.

One table a protocol: a line for each cohort and metric, a column for each method. A sweep has a
line for each combination of values and a column for each metric.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path, PurePath
from statistics import fmean, mode, stdev
from typing import Any

import pandas as pd
from jinja2 import StrictUndefined, Template

from conocc.experiments.table_formats import FORMATS, Cell, Line, Table, mean
from conocc.io.files import write_text
from conocc.io.tables import write_csv
from conocc.io.words import reason
from conocc.metrics.ranking import METRICS

RESULT_FORMAT = 1
# Which cohorts are the paper's own, by their name here and in its tables.
PAPER_COHORTS = {"chest_xray": "ChestX"}
# The order of the columns: the baseline, the paper's, the successor.
ORDER = (
    *("gabor_mahalanobis", "profile", "ocsvm", "cocsvm", "dagmm"),  # "profile" of older rows
    *("dsvdd", "anogan", "sae", "cae", "conocc", "lrt"),
)

SENSITIVITY = (
    "sens@5% is the sensitivity where at most 5 % of these majority images are flagged: a point of "
    "their ROC curve, and not of a threshold set beforehand."
)

Row = Mapping[str, Any]


# --- rows --------------------------------------------------------------------------------------


def read_row(path: Path) -> dict[str, Any]:
    """Read one row of a study."""
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["format"] != RESULT_FORMAT:
            raise ValueError(f"its format is {row['format']}, this version reads {RESULT_FORMAT}")
        run = PurePath(row.get("run") or "")
        if run.anchor or ".." in run.parts:
            raise ValueError(f"its run '{run}' lies outside the study")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Cannot read row '{path}': {reason(error)}.") from error
    return row


def read_rows(study: str | Path) -> list[dict[str, Any]]:
    """Read all rows of a study, in the order of their keys."""
    folder = Path(study) / "rows"
    if not folder.is_dir():
        raise FileNotFoundError(f"'{study}' is not a study: it has no folder 'rows'.")
    return [read_row(path) for path in sorted(folder.glob("*.json"))]


def column_labels(fits: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Name fits by their method, and by what differs between the fits of one method.

    >>> column_labels([("cae", {"lr": 0.001}), ("cae", {"lr": 0.0001}), ("ocsvm", {})])
    ['cae lr=0.001', 'cae lr=0.0001', 'ocsvm']
    """
    values = defaultdict(set)
    for method, params in fits:
        for name, value in params.items():
            values[method, name].add(repr(value))

    def differs(method: str, name: str) -> bool:
        # Only a score that is not the method's own is among the parameters of a row.
        return name != "random_state" and (name == "scored_by" or len(values[method, name]) > 1)

    return [
        " ".join([method, *(f"{name}={v}" for name, v in params.items() if differs(method, name))])
        for method, params in fits
    ]


# --- tables ------------------------------------------------------------------------------------


def make_tables(rows: Iterable[Row]) -> list[Table]:
    """Make a table of each protocol, and of each rule of cross-validation, there are rows of."""
    return [
        (_sweep_table if group[0]["protocol"] == "sweep" else _methods_table)(name, group)
        for name, group in grouped(rows).items()
    ]


def grouped(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """Divide rows into those of one table each, by its name; cohorts and columns are named anew.

    In a group a row's `cohort` and `label` are what its table calls them, and `own_name` is the
    cohort's.
    """
    groups, named = rows_by(rows, "protocol", "rule", "group"), {}
    for protocol, rule, kind in sorted(groups, key=str):
        parts = (protocol, rule, None if rule == "paper" else kind)
        name = "-".join(str(part) for part in parts if part is not None)
        named[name] = _labelled(groups[protocol, rule, kind])
    return named


def rows_by(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Divide rows by what they have under these names."""
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return dict(found)


def _labelled(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Name each row's cohort and column anew, since the study may have grown since.

    Columns are told apart within a cohort: another number of epochs on another cohort is no
    other method, and is said in the caption.
    """
    named = [
        {**row, "cohort": cohort, "own_name": row["cohort"]}
        for row, cohort in zip(rows, _cohort_names(rows), strict=True)
    ]
    made = []
    for _, of_cohort in sorted(rows_by(named, "cohort").items()):
        labels = column_labels([(row["method"], row["params"]) for row in of_cohort])
        made += [{**row, "label": label} for row, label in zip(of_cohort, labels, strict=True)]
    return made


def _cohort_names(rows: Sequence[Row]) -> list[str]:
    """Name each row's cohort, with size and content where one name stands for several."""
    about = pd.DataFrame(
        [(row["cohort"], str(row["preprocessing"]["size"]), row["images"]) for row in rows],
        columns=["cohort", "size", "images"],
    )
    sizes = about.groupby("cohort")["size"].transform("nunique") > 1
    contents = about.groupby(["cohort", "size"])["images"].transform("nunique") > 1
    size, content = " size=" + about["size"], " " + about["images"].str[:6]
    names = about["cohort"] + size.where(sizes, "") + content.where(contents, "")
    return names.tolist()


def _of_one_name(rows: Iterable[Row]) -> dict[str, str]:
    """List what a table calls cohorts that only their content tells apart, and their own names."""
    return {
        row["cohort"]: row["own_name"]
        for row in rows
        if row["cohort"].endswith(f" {row['images'][:6]}")
    }


def other_contents(rows: Iterable[Row], done: Collection[str]) -> Iterable[str]:
    """Say which lines of a study's tables are of a content that the rows `done` are not of.

    `done` are keys of rows, as one command's: its cohort may have been other files at an earlier
    time, whose rows the study holds still.
    """
    for name, group in grouped(rows).items():
        mine = {row["cohort"]: row["own_name"] for row in group if row["key"] in done}
        others = [
            cohort
            for cohort, own_name in _of_one_name(group).items()
            if cohort not in mine and own_name in mine.values()
        ]
        if others:
            yield (
                f"Table {name} also holds rows of {', '.join(others)}, of other images, patients, "
                "reading or split than this command's. To leave them out, delete rows/KEY.json of "
                "each key that rows.csv gives such 'images', and repeat the command."
            )


def _methods_table(name: str, rows: list[dict[str, Any]]) -> Table:
    folds = rows[0]["protocol"] == "crossval"
    columns, found, lines = columns_of(rows), _values(rows), []
    published = paper_figures(3 if folds else 2)
    for cohort, own_name in dict.fromkeys((row["cohort"], row["own_name"]) for row in rows):
        data_set = PAPER_COHORTS.get(own_name, "")
        for metric in METRICS:
            cells = [_cell(found[cohort, label, metric], folds) for _, label in columns]
            lines.append(Line((cohort, metric), _ranked(cells)))
            theirs = tuple(published.get((data_set, metric, method)) for method, _ in columns)
            if any(theirs):
                lines.append(Line((cohort, f"{metric} (paper)"), theirs))
    labels = tuple(label for _, label in columns)
    said = study_caption(rows[0]["protocol"], rows)
    return Table(name, said, ("cohort", "metric"), labels, tuple(lines))


def _sweep_table(name: str, rows: list[dict[str, Any]]) -> Table:
    # No cell is called best: that would choose a parameter by its test images.
    found = _values(rows)
    fits = dict.fromkeys((row["cohort"], row["label"]) for row in sorted(rows, key=_sweep_order))
    lines = [
        Line(fit, tuple(_cell(found[*fit, metric], folds=False) for metric in METRICS))
        for fit in fits
    ]
    said = study_caption("sweep", rows)
    return Table(name, said, ("cohort", "fit"), tuple(METRICS), tuple(lines))


def _values(rows: Iterable[Row]) -> Mapping[tuple[str, ...], list[float]]:
    """Collect the values by cohort, label and metric; a failed fit has none."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in rows:
        for metric, measured in (row["metrics"] or {}).items():
            found[row["cohort"], row["label"], metric].append(measured["value"])
    return found


def columns_of(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """List the methods of rows with their labels, in the order of the paper's columns."""
    places = {method: place for place, method in enumerate(ORDER)}
    columns = {(row["method"], row["label"]) for row in rows}
    return sorted(columns, key=lambda column: (places.get(column[0], len(ORDER)), column))


def _sweep_order(row: Row) -> tuple[Any, ...]:
    numbers = [v for v in row["params"].values() if isinstance(v, int | float)]
    return row["cohort"], row["method"], numbers


def _cell(values: list[float], folds: bool) -> Cell | None:
    if not values:
        return None
    deviation = stdev(values) if folds and len(values) > 1 else None
    return mean(fmean(values), deviation, len(values))


def _ranked(cells: list[Cell | None]) -> tuple[Cell | None, ...]:
    """Mark the best and the second best, as printed: what looks equal shares its rank."""
    printed = sorted({cell.figure for cell in cells if cell}, reverse=True)
    if len(printed) < 2:
        return tuple(cells)
    ranks = {figure: rank for rank, figure in enumerate(printed[:2], 1)}
    return tuple(cell and replace(cell, rank=ranks.get(cell.figure)) for cell in cells)


def paper_figures(number: int) -> dict[tuple[str, str, str], Cell]:
    """Give the figures of the paper's Table 2 or 3 by data set, metric and method."""
    with files("conocc").joinpath(f"paper/table{number}.csv").open(encoding="utf-8") as file:
        published = pd.read_csv(file, comment="#", index_col=["dataset", "metric", "method"])
    return {
        key: mean(value, None if math.isnan(std) else std)
        for key, value, std in published[["value", "std"]].itertuples()
    }


# --- captions ----------------------------------------------------------------------------------


def caption(kind: str, rows: Sequence[Row], **more: Any) -> str:
    """Say what was averaged over what, tested on what, and what is missing; see captions.txt."""
    text = files("conocc").joinpath("experiments/captions.txt").read_text(encoding="utf-8")
    template = Template(text, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return " ".join(template.render(kind=kind, rows=rows, sensitivity=SENSITIVITY, **more).split())


def study_caption(protocol: str, rows: Sequence[Row]) -> str:
    """Give the caption of a table of the paper's layout."""
    fits, failed = (
        Counter((row["cohort"], row["label"]) for row in some)
        for some in (rows, [row for row in rows if row["status"] != "done"])
    )
    more = {"fits": fits, "failed": failed, "of_one_name": sorted(_of_one_name(rows))}
    papers = any(row["own_name"] in PAPER_COHORTS for row in rows)
    return caption(protocol, rows, epochs=_epochs(rows), papers=papers, **more)


def _epochs(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Say the epochs of most methods, and by name of the others; list the cohorts of each."""
    said = defaultdict(list)
    for (cohort,), its in rows_by(rows, "cohort").items():
        epochs = {row["label"]: row["params"]["epochs"] for row in its if "epochs" in row["params"]}
        if epochs:
            usual = mode(epochs.values())
            others = [f"{label} {n}" for label, n in epochs.items() if n != usual]
            said[", ".join([str(usual), *others])].append(cohort)
    return said


# --- files ---------------------------------------------------------------------------------------


def write_tables(study: str | Path) -> list[Table]:
    """Write ``tables/`` of a study, and ``rows.csv``, from its rows; return the tables."""
    rows = read_rows(study)
    tables = make_tables(rows)
    write_formats(study, tables)
    write_csv(Path(study) / "tables" / "rows.csv", ROW_COLUMNS, _long(rows))
    return tables


def write_formats(study: str | Path, tables: Iterable[Table]) -> None:
    """Write tables into ``tables/`` of a study in every format."""
    for table in tables:
        for ending, text in FORMATS.items():
            write_text(Path(study) / "tables" / f"{table.name}.{ending}", text(table))


KEPT = (
    *("key", "status", "cohort", "images", "protocol", "rule", "group", "fold", "seed", "method"),
    *("label", "prevalence", "seconds", "threads", "error", "run", "command"),
)
ROW_COLUMNS = (*KEPT, "params", "majority", "minority", "metric", "value", "low", "high")


def _long(rows: Iterable[Row]) -> Iterable[list[Any]]:
    """One line a row and metric; a failed fit has one, without a metric."""
    for row in rows:
        counts = row["counts"] or {}
        about = [*(row[name] for name in KEPT), json.dumps(row["params"])]
        about += [counts.get("majority"), counts.get("minority")]
        for name, metric in (row["metrics"] or {"": {}}).items():
            yield [*about, name, *(metric.get(key) for key in ("value", "low", "high"))]
