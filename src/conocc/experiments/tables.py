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
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from conocc.experiments.table_formats import FORMATS, Cell, Line, Table, mean
from conocc.io.files import write_text
from conocc.io.tables import write_csv
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
        raise ValueError(f"Cannot read row '{path}': {error}.") from error
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
    labels = []
    for method, params in fits:
        differing = [
            f"{name}={value}"
            for name, value in params.items()
            if name != "random_state" and len(values[method, name]) > 1
        ]
        labels.append(" ".join([method, *differing]))
    return labels


# --- tables ------------------------------------------------------------------------------------


def make_tables(rows: Iterable[Row]) -> list[Table]:
    """Make a table of each protocol, and of each rule of cross-validation, there are rows of."""
    return [
        _sweep_table(name, group)
        if group[0]["protocol"] == "sweep"
        else _methods_table(name, group)
        for name, group in grouped(rows).items()
    ]


def grouped(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """Divide rows into those of one table each, by its name; cohorts and columns are named anew.

    In a group a row's `cohort` and `label` are what its table calls them, and `own_name` is the
    cohort's.
    """
    groups = sorted(
        rows_by(rows, "protocol", "rule", "group").items(), key=lambda item: str(item[0])
    )
    return {_table_name(*key): _labelled(group) for key, group in groups}


def rows_by(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Divide rows by what they have under these names."""
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return dict(found)


def _table_name(protocol: str, rule: str | int | None, group: str | None) -> str:
    parts = (protocol, rule, None if rule == "paper" else group)
    return "-".join(str(part) for part in parts if part is not None)


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


def _contents(rows: Iterable[Row]) -> Iterable[list[str]]:
    """List what a table calls the contents of each cohort that has several, of one size."""
    names = defaultdict(set)
    for row in rows:
        names[row["own_name"], row["preprocessing"]["size"]].add(row["cohort"])
    return [sorted(known) for known in names.values() if len(known) > 1]


def other_contents(rows: Iterable[Row], done: Collection[str]) -> Iterable[str]:
    """Say which lines of a study's tables are of a content that the rows `done` are not of.

    `done` are keys of rows, as one command's: its cohort may have been other files at an earlier
    time, whose rows the study holds still.
    """
    for name, group in grouped(rows).items():
        mine = {row["cohort"] for row in group if row["key"] in done}
        for contents in _contents(group):
            now = [content for content in contents if content in mine]
            others = [content for content in contents if content not in mine]
            if now and others:
                yield (
                    f"Table {name}: this command's lines are those of {', '.join(now)}. The study "
                    f"also holds rows of {', '.join(others)}, of other images, patients, reading "
                    "or split. To leave them out, delete rows/KEY.json of each key that rows.csv "
                    "gives such 'images', and repeat the command."
                )


def _methods_table(name: str, rows: list[dict[str, Any]]) -> Table:
    folds = rows[0]["protocol"] == "crossval"
    columns, found, lines = columns_of(rows), _values(rows), []
    for cohort, own_name in dict.fromkeys((row["cohort"], row["own_name"]) for row in rows):
        published = paper_figures(3 if folds else 2).get(PAPER_COHORTS.get(own_name, ""), {})
        for metric in METRICS:
            cells = [_cell(found[cohort, label, metric], folds) for _, label in columns]
            lines.append(Line((cohort, metric), _ranked(cells)))
            theirs = tuple(published.get((metric, method)) for method, _ in columns)
            if any(theirs):
                lines.append(Line((cohort, f"{metric} (paper)"), theirs))
    labels = tuple(label for _, label in columns)
    return Table(name, tuple(_caption(rows)), ("cohort", "metric"), labels, tuple(lines))


def _sweep_table(name: str, rows: list[dict[str, Any]]) -> Table:
    # No cell is called best: that would choose a parameter by its test images.
    found = _values(rows)
    fits = dict.fromkeys((row["cohort"], row["label"]) for row in sorted(rows, key=_sweep_order))
    lines = [
        Line(fit, tuple(_cell(found[*fit, metric], folds=False) for metric in METRICS))
        for fit in fits
    ]
    return Table(name, tuple(_caption(rows)), ("cohort", "fit"), tuple(METRICS), tuple(lines))


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


def paper_figures(number: int) -> dict[str, dict[tuple[str, str], Cell]]:
    """Give the paper's Table 2 or 3: data set to (metric, method) to figure."""
    with files("conocc").joinpath(f"paper/table{number}.csv").open(encoding="utf-8") as file:
        published = pd.read_csv(file, comment="#").to_dict("records")
    figures: dict[str, dict[tuple[str, str], Cell]] = {}
    for row in published:
        cell = mean(row["value"], None if math.isnan(row["std"]) else row["std"])
        figures.setdefault(row["dataset"], {})[row["metric"], row["method"]] = cell
    return figures


# --- captions ----------------------------------------------------------------------------------


def _caption(rows: Sequence[Row]) -> Iterable[str]:
    first = rows[0]
    folds = first["protocol"] == "crossval"
    if first["protocol"] == "sweep":
        yield "One fit a line, all with the same seed, on the cohort's own split."
    elif not folds:
        runs = list(_fits(rows).values())
        seeds = "run (seed)" if max(runs) == 1 else "runs (seeds)"
        yield f"Mean of {_span(runs)} {seeds} on the cohort's own split."
    elif first["rule"] == "paper":
        yield (
            "Cross-validation by the paper's rule, on single images: each fold tests as many "
            "majority images as there are minority images, the minority images the same in each."
        )
    else:
        unit = "single images" if first["group"] == "none" else "patients, where they are known"
        yield (
            f"Cross-validation in {first['rule']} folds of {unit}: each tests all its images, of "
            "both classes, and trains on the majority images of the others."
        )
    if folds:
        yield "One run a fold; mean ± deviation (ddof = 1) over folds."
    for contents in _contents(rows):
        yield (
            f"{', '.join(contents)}: one name for different images, patients, reading or split, "
            "told apart by a piece of their hash."
        )
    yield from tested_on(rows)
    yield SENSITIVITY
    yield from _epochs(rows)
    yield from _missing(rows)
    if any(row["own_name"] in PAPER_COHORTS for row in rows) and first["protocol"] != "sweep":
        yield (
            "Lines marked (paper) are Gao et al.'s, who give for each method its best setting "
            "(CAE and SAE the better of two learning rates)."
        )


def tested_on(rows: Sequence[Row]) -> Iterable[str]:
    """Count each cohort's test images by class, with the prevalence; over folds, the range."""
    counted = rows_by((row for row in rows if row["counts"] is not None), "cohort")
    for (cohort,), its in counted.items():
        majority, minority = (
            _span([row["counts"][name] for row in its]) for name in ("majority", "minority")
        )
        patients = {row["counts"]["patients"] for row in its} - {None}
        known = f" of {_span(patients)} patients" if patients else ""
        chance = _span([row["prevalence"] for row in its], "{:.3f}")
        yield (
            f"Tested on {cohort}: {majority} majority and {minority} minority images{known}; "
            f"prevalence of the minority {chance}, the chance level of AUPR-min."
        )


def _span(values: Collection[float], form: str = "{}") -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def _fits(rows: Iterable[Row]) -> Counter[tuple[str, str]]:
    return Counter((row["cohort"], row["label"]) for row in rows)


def _epochs(rows: Sequence[Row]) -> Iterable[str]:
    """Say for each cohort the epochs of most methods, and those of the others by name."""
    by_cohort: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        if "epochs" in row["params"]:
            by_cohort[row["cohort"]][row["label"]] = row["params"]["epochs"]
    cohorts_of = defaultdict(list)
    for cohort, epochs in by_cohort.items():
        usual = Counter(epochs.values()).most_common(1)[0][0]
        others = [f"{label} {n}" for label, n in epochs.items() if n != usual]
        cohorts_of[", ".join([str(usual), *others])].append(cohort)
    for text, cohorts in cohorts_of.items():
        where = "" if len(cohorts_of) == 1 else f" on {', '.join(cohorts)}"
        yield f"Epochs{where}: {text}."


def _missing(rows: Sequence[Row]) -> Iterable[str]:
    asked = _fits(rows)
    for (cohort, label), n in _fits(row for row in rows if row["status"] != "done").items():
        yield f"{label} on {cohort}: {n} of {asked[cohort, label]} fits failed."


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
