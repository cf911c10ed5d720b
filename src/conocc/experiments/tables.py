"""Rows of a study into tables in the paper's layout.

One table a protocol: a line for each cohort and metric, a column for each method. A sweep has a
line for each combination of values and a column for each metric.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path, PurePath
from statistics import fmean, stdev
from typing import Any

from conocc.experiments.table_formats import FORMATS, Cell, Line, Table
from conocc.io.files import write_csv, write_text
from conocc.metrics.ranking import METRICS

RESULT_FORMAT = 1
# Which cohorts are the paper's own, by their name here and in its tables.
PAPER_COHORTS = {"chest_xray": "ChestX"}
# The order of the columns: the floor, the paper's, the successor.
ORDER = ("profile", "ocsvm", "cocsvm", "dagmm", "dsvdd", "anogan", "sae", "cae", "conocc", "lrt")

SENSITIVITY = (
    "sens@5%: sensitivity where at most 5 % of these majority images alarm, a point of their ROC "
    "curve and not of a threshold set beforehand."
)

Row = Mapping[str, Any]


# --- rows --------------------------------------------------------------------------------------


def read_row(path: Path) -> dict[str, Any]:
    """Read one row of a study."""
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["format"] > RESULT_FORMAT:
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
    values: dict[str, dict[str, set[str]]] = {}
    for method, params in fits:
        for name, value in params.items():
            values.setdefault(method, {}).setdefault(name, set()).add(repr(value))
    labels = []
    for method, params in fits:
        differing = [
            f"{name}={value}"
            for name, value in params.items()
            if name != "random_state" and len(values[method][name]) > 1
        ]
        labels.append(" ".join([method, *differing]))
    return labels


# --- tables ------------------------------------------------------------------------------------


def make_tables(rows: Iterable[Row]) -> list[Table]:
    """Make a table of each protocol, and of each rule of cross-validation, there are rows of."""
    made = []
    for name, group in grouped(rows).items():
        make = _sweep_table if group[0]["protocol"] == "sweep" else _methods_table
        made.append(make(name, group))
    return made


def grouped(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """Divide rows into those of one table each, by its name; cohorts and columns are named anew.

    In a group a row's `cohort` and `label` are what its table calls them, and `own_name` is the
    cohort's.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["protocol"], row["rule"], row["group"]), []).append(row)
    return {_table_name(*key): _labelled(groups[key]) for key in sorted(groups, key=str)}


def _table_name(protocol: str, rule: str | int | None, group: str | None) -> str:
    parts = (protocol, rule, None if rule == "paper" else group)
    return "-".join(str(part) for part in parts if part is not None)


def _labelled(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Name each row's cohort and column anew, since the study may have grown since.

    Columns are told apart within a cohort: another number of epochs on another cohort is no
    other method, and is said in the caption.
    """
    cohorts = _cohort_names(rows)
    by_cohort: dict[str, list[dict[str, Any]]] = {}
    for row, cohort in zip(rows, cohorts, strict=True):
        by_cohort.setdefault(cohort, []).append(
            {**row, "cohort": cohort, "own_name": row["cohort"]}
        )
    made = []
    for cohort in sorted(by_cohort):
        its = by_cohort[cohort]
        labels = column_labels([(row["method"], row["params"]) for row in its])
        made += [{**row, "label": label} for row, label in zip(its, labels, strict=True)]
    return made


def _cohort_names(rows: Sequence[Row]) -> list[str]:
    """Name each row's cohort, with size and content where one name stands for several."""
    sizes: dict[str, set[Any]] = {}
    contents: dict[tuple[str, Any], set[str]] = {}
    for row in rows:
        size = row["preprocessing"]["size"]
        sizes.setdefault(row["cohort"], set()).add(size)
        contents.setdefault((row["cohort"], size), set()).add(row["images"])
    names = []
    for row in rows:
        name, size = row["cohort"], row["preprocessing"]["size"]
        parts = [f"size={size}"] if len(sizes[name]) > 1 else []
        parts += [row["images"][:6]] if len(contents[name, size]) > 1 else []
        names.append(" ".join([name, *parts]))
    return names


def _contents(rows: Iterable[Row]) -> Iterable[list[str]]:
    """List what a table calls the contents of each cohort that has several, of one size."""
    names: dict[tuple[str, Any], list[str]] = {}
    for row in rows:
        known = names.setdefault((row["own_name"], row["preprocessing"]["size"]), [])
        known += [row["cohort"]] if row["cohort"] not in known else []
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
    columns = columns_of(rows)
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for metric, measured in _metrics(row).items():
            found.setdefault((row["cohort"], metric, row["label"]), []).append(measured["value"])
    lines = []
    for cohort, own_name in dict.fromkeys((row["cohort"], row["own_name"]) for row in rows):
        published = paper_figures(3 if folds else 2).get(PAPER_COHORTS.get(own_name, ""), {})
        for metric in _measured_of(rows, cohort):
            cells = [_cell(found.get((cohort, metric, label)), folds) for _, label in columns]
            lines.append(Line((cohort, metric), _ranked(cells)))
            theirs = tuple(published.get((metric, method)) for method, _ in columns)
            if any(theirs):
                lines.append(Line((cohort, f"{metric} (paper)"), theirs))
    return Table(
        name,
        tuple(_caption(rows, folds)),
        ("cohort", "metric"),
        tuple(label for _, label in columns),
        tuple(lines),
    )


def _sweep_table(name: str, rows: list[dict[str, Any]]) -> Table:
    # No cell is called best: that would choose a parameter by its test images.
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in sorted(rows, key=_sweep_order):
        cells = found.setdefault((row["cohort"], row["label"]), {})
        for metric, measured in _metrics(row).items():
            cells.setdefault(metric, []).append(measured["value"])
    lines = [
        Line(head, tuple(_cell(cells.get(metric), False) for metric in METRICS))
        for head, cells in found.items()
    ]
    return Table(
        name, tuple(_caption(rows, False)), ("cohort", "fit"), tuple(METRICS), tuple(lines)
    )


def _metrics(row: Row) -> Mapping[str, Mapping[str, Any]]:
    """Give the metrics of a row by their names; a failed fit has none."""
    return row["metrics"] or {}


def _measured_of(rows: Iterable[Row], cohort: str) -> list[str]:
    """Name the metrics that any row of a cohort has; rows of earlier versions have fewer."""
    of_cohort = [row for row in rows if row["cohort"] == cohort]
    there = {name for row in of_cohort for name in _metrics(row)}
    return [name for name in METRICS if name in there or not there]


def columns_of(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """List the methods of rows with their labels, in the order of the paper's columns."""
    return sorted({(row["method"], row["label"]) for row in rows}, key=_column_order)


def _column_order(column: tuple[str, str]) -> tuple[int, str, str]:
    method, label = column
    place = ORDER.index(method) if method in ORDER else len(ORDER)
    return place, method, label


def _sweep_order(row: Row) -> tuple[Any, ...]:
    numbers = [v for v in row["params"].values() if isinstance(v, int | float)]
    return row["cohort"], row["method"], numbers


def _cell(values: list[float] | None, folds: bool) -> Cell | None:
    if not values:
        return None
    deviation = stdev(values) if folds and len(values) > 1 else None
    return Cell(fmean(values), deviation, len(values))


def _ranked(cells: list[Cell | None]) -> tuple[Cell | None, ...]:
    """Mark the best and the second best, as printed: what looks equal shares its rank."""
    printed = sorted({round(cell.value, 3) for cell in cells if cell}, reverse=True)
    if len(printed) < 2:
        return tuple(cells)
    rank = {value: i + 1 for i, value in enumerate(printed[:2])}
    return tuple(
        cell and Cell(cell.value, cell.deviation, cell.n, rank.get(round(cell.value, 3)))
        for cell in cells
    )


def paper_figures(number: int) -> dict[str, dict[tuple[str, str], Cell]]:
    """Give the paper's Table 2 or 3: data set to (metric, method) to figure."""
    text = files("conocc").joinpath(f"paper/table{number}.csv").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    figures: dict[str, dict[tuple[str, str], Cell]] = {}
    for row in csv.DictReader(lines):
        cell = Cell(float(row["value"]), float(row["std"]) if row["std"] else None)
        figures.setdefault(row["dataset"], {})[row["metric"], row["method"]] = cell
    return figures


# --- captions ----------------------------------------------------------------------------------


def _caption(rows: Sequence[Row], folds: bool) -> Iterable[str]:
    first = rows[0]
    if first["protocol"] == "sweep":
        yield "One fit a line, all with the same seed, on the cohort's own split."
    elif not folds:
        runs = _range(Counter(_per_cell(rows).values()))
        yield f"Mean of {runs} on the cohort's own split."
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
    yield from explained({name for row in rows for name in _metrics(row)})
    yield from _epochs(rows)
    yield from _missing(rows)
    if any(row["own_name"] in PAPER_COHORTS for row in rows) and first["protocol"] != "sweep":
        yield (
            "Lines marked (paper) are Gao et al.'s, who give for each method its best setting "
            "(CAE and SAE the better of two learning rates)."
        )


def tested_on(rows: Sequence[Row]) -> Iterable[str]:
    """Count each cohort's test images by class, with the prevalence; over folds, the range."""
    of_cohort: dict[str, list[Row]] = {}
    for row in rows:
        if row["counts"] is not None:
            of_cohort.setdefault(row["cohort"], []).append(row)
    for cohort, its in of_cohort.items():
        majority, minority = (
            _span([row["counts"][name] for row in its]) for name in ("majority", "minority")
        )
        patients = {row["counts"].get("patients") for row in its} - {None}
        known = f" of {_span(sorted(patients))} patients" if patients else ""
        chance = _span([row["prevalence"] for row in its], "{:.3f}")
        yield (
            f"Tested on {cohort}: {majority} majority and {minority} minority images{known}; "
            f"prevalence of the minority {chance}, the chance level of AUPR-min."
        )


def explained(metrics: Iterable[str]) -> Iterable[str]:
    """Say of a metric what its name does not."""
    if "sens@5%" in metrics:
        yield SENSITIVITY


def _span(values: Sequence[float], form: str = "{}") -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def _per_cell(rows: Sequence[Row]) -> Counter[tuple[str, str]]:
    return Counter((row["cohort"], row["label"]) for row in rows)


def _range(counts: Iterable[int]) -> str:
    numbers = list(counts)
    return f"{_span(numbers)} run{'s' if max(numbers) > 1 else ''} (seeds)"


def _epochs(rows: Sequence[Row]) -> Iterable[str]:
    """Say for each cohort the epochs of most methods, and those of the others by name."""
    by_cohort: dict[str, dict[str, int]] = {}
    for row in rows:
        if "epochs" in row["params"]:
            by_cohort.setdefault(row["cohort"], {})[row["label"]] = row["params"]["epochs"]
    said: dict[str, list[str]] = {}
    for cohort, epochs in by_cohort.items():
        usual = Counter(epochs.values()).most_common(1)[0][0]
        others = [f"{label} {n}" for label, n in epochs.items() if n != usual]
        said.setdefault(", ".join([f"{usual}", *others]), []).append(cohort)
    for text, cohorts in said.items():
        where = "" if len(said) == 1 else f" on {', '.join(cohorts)}"
        yield f"Epochs{where}: {text}."


def _missing(rows: Sequence[Row]) -> Iterable[str]:
    failed = Counter((row["cohort"], row["label"]) for row in rows if row["status"] != "done")
    asked = _per_cell(rows)
    for (cohort, label), n in failed.items():
        yield f"{label} on {cohort}: {n} of {asked[cohort, label]} fits failed."


# --- files ---------------------------------------------------------------------------------------


def write_tables(study: str | Path) -> list[Table]:
    """Write ``tables/`` of a study, and ``rows.csv``, from its rows; return the tables."""
    study = Path(study)
    rows = read_rows(study)
    tables = make_tables(rows)
    for table in tables:
        for ending, text in FORMATS.items():
            write_text(study / "tables" / f"{table.name}.{ending}", text(table))
    write_csv(study / "tables" / "rows.csv", ROW_COLUMNS, _long(rows))
    return tables


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
