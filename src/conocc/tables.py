"""Rows of a study into tables in the paper's layout, as text, Markdown, CSV and LaTeX.

One table a protocol: a line for each cohort and metric, a column for each method. A sweep has a
line for each combination of values and a column for each metric.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from conocc.files import write_csv, write_text
from conocc.metrics import METRICS

if TYPE_CHECKING:
    from rich.table import Table as RichTable

RESULT_FORMAT = 1
# Which cohorts are the paper's own, by their name here and in its tables.
PAPER_COHORTS = {"chest_xray": "ChestX"}
# The order of the columns: the floor, the paper's, the successor.
ORDER = ("profile", "ocsvm", "cocsvm", "dagmm", "dsvdd", "anogan", "sae", "cae", "conocc", "lrt")
NOTHING = "–"

Row = Mapping[str, Any]


# --- rows --------------------------------------------------------------------------------------


def read_row(path: Path) -> dict[str, Any]:
    """Read one row of a study."""
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["format"] > RESULT_FORMAT:
            raise ValueError(f"its format is {row['format']}, this version reads {RESULT_FORMAT}")
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


@dataclass(frozen=True)
class Cell:
    """A figure: the mean over `n` fits and, over folds, their deviation."""

    value: float
    deviation: float | None = None
    n: int = 1
    rank: int | None = None

    def __str__(self) -> str:
        if self.deviation is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ± {self.deviation:.3f}"


@dataclass(frozen=True)
class Line:
    """One line of a table; an empty cell is None."""

    head: tuple[str, ...]
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Table:
    """A table as it will be printed.

    Attributes
    ----------
    name
        Of its files.
    caption
        Sentences: what was averaged over what, and what is missing.
    head
        The names of the columns that name a line.
    columns
        The names of the others.
    """

    name: str
    caption: tuple[str, ...]
    head: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def make_tables(rows: Iterable[Row]) -> list[Table]:
    """Make a table of each protocol, and of each rule of cross-validation, there are rows of."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["protocol"], row["rule"], row["group"]), []).append(row)
    made = []
    for key in sorted(groups, key=str):
        protocol, rule, group = key
        make = _sweep_table if protocol == "sweep" else _methods_table
        made.append(make(_table_name(protocol, rule, group), _labelled(groups[key])))
    return made


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
        size = row["reading"]["size"]
        sizes.setdefault(row["cohort"], set()).add(size)
        contents.setdefault((row["cohort"], size), set()).add(row["images"])
    names = []
    for row in rows:
        name, size = row["cohort"], row["reading"]["size"]
        parts = [f"size={size}"] if len(sizes[name]) > 1 else []
        parts += [row["images"][:6]] if len(contents[name, size]) > 1 else []
        names.append(" ".join([name, *parts]))
    return names


def _methods_table(name: str, rows: list[dict[str, Any]]) -> Table:
    folds = rows[0]["protocol"] == "crossval"
    columns = sorted({(row["method"], row["label"]) for row in rows}, key=_column_order)
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for metric in METRICS if row["status"] == "done" else ():
            value = row["metrics"][metric]["value"]
            found.setdefault((row["cohort"], metric, row["label"]), []).append(value)
    lines = []
    for cohort, own_name in dict.fromkeys((row["cohort"], row["own_name"]) for row in rows):
        published = paper_figures(3 if folds else 2).get(PAPER_COHORTS.get(own_name, ""))
        for metric in METRICS:
            cells = [_cell(found.get((cohort, metric, label)), folds) for _, label in columns]
            lines.append(Line((cohort, metric), _ranked(cells)))
            if published is not None:
                theirs = tuple(published.get((metric, method)) for method, _ in columns)
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
        for metric in METRICS if row["status"] == "done" else ():
            cells.setdefault(metric, []).append(row["metrics"][metric]["value"])
    lines = [
        Line(head, tuple(_cell(cells.get(metric), False) for metric in METRICS))
        for head, cells in found.items()
    ]
    return Table(
        name, tuple(_caption(rows, False)), ("cohort", "fit"), tuple(METRICS), tuple(lines)
    )


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
    yield from _epochs(rows)
    yield from _missing(rows)
    if any(row["own_name"] in PAPER_COHORTS for row in rows) and first["protocol"] != "sweep":
        yield (
            "Lines marked (paper) are Gao et al.'s, who give for each method its best setting "
            "(CAE and SAE the better of two learning rates)."
        )


def _per_cell(rows: Sequence[Row]) -> Counter[tuple[str, str]]:
    return Counter((row["cohort"], row["label"]) for row in rows)


def _range(counts: Iterable[int]) -> str:
    low, high = min(counts), max(counts)
    number = str(low) if low == high else f"{low} to {high}"
    return f"{number} run{'s' if high > 1 else ''} (seeds)"


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


# --- printing ----------------------------------------------------------------------------------

EXPLAINED = "Of each line the best is marked {best}, the second best {second}."


def as_text(table: Table) -> RichTable:
    """Lay the table out for a terminal; the marks are ¹ and ², which survive without colour."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    caption = _with_marks(table, best="¹", second="²")
    made = RichTable(caption=escape(caption), caption_justify="left")
    for name in table.head:
        made.add_column(escape(name), no_wrap=True)
    for name in table.columns:
        made.add_column(escape(name), justify="right")
    marks = {1: "¹", 2: "²"}
    for line, head in zip(table.lines, _heads(table), strict=True):
        cells = (NOTHING if c is None else f"{c}{marks.get(c.rank or 0, '')}" for c in line.cells)
        made.add_row(*map(escape, head), *cells)
    return made


def as_markdown(table: Table) -> str:
    """Write the table in GitHub's Markdown: the best bold, the second best in italics."""
    marks = {1: "**{}**", 2: "*{}*"}
    rows = [
        [*table.head, *table.columns],
        ["---"] * len(table.head) + ["---:"] * len(table.columns),
    ]
    body = [[*head, *_marked(line, marks)] for line, head in _with_heads(table)]
    escaped = [[_markdown(t) for t in rows[0]], rows[1]]
    escaped += [[*map(_markdown, row[: len(table.head)]), *row[len(table.head) :]] for row in body]
    text = "".join(f"| {' | '.join(row)} |\n" for row in escaped)
    caption = _with_marks(table, best="bold", second="in italics")
    return f"{text}\n{_markdown(caption)}\n"


def as_latex(table: Table) -> str:
    """Write the table in LaTeX, for booktabs: the best bold, the second best underlined."""
    marks = {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
    lines = [r"\begin{tabular}{" + "l" * len(table.head) + "r" * len(table.columns) + "}"]
    lines += [r"\toprule", _latex_row(map(_latex, (*table.head, *table.columns))), r"\midrule"]
    for line, head in _with_heads(table):
        cells = (cell.replace("±", r"$\pm$") for cell in _marked(line, marks))
        lines.append(_latex_row([*map(_latex, head), *cells]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    caption = _latex(_with_marks(table, best="bold", second="underlined"))
    body = "\n".join(lines)
    return f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{body}\n\\end{{table}}\n"


def as_csv(table: Table) -> str:
    """Write the figures in full, without marks: mean, deviation and number of fits a column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("", " sd", " n")
    writer.writerow([*table.head, *(name + part for name in table.columns for part in parts)])
    for line in table.lines:
        cells = ((c.value, c.deviation, c.n) if c else (None, None, 0) for c in line.cells)
        writer.writerow([*line.head, *(value for cell in cells for value in cell)])
    return text.getvalue()


FORMATS: dict[str, Callable[[Table], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "tex": as_latex,
}


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


def _with_heads(table: Table) -> Iterable[tuple[Line, tuple[str, ...]]]:
    return zip(table.lines, _heads(table), strict=True)


def _heads(table: Table) -> list[tuple[str, ...]]:
    """Name a cohort in its first line only, as the paper does."""
    heads: list[tuple[str, ...]] = []
    before = ""
    for line in table.lines:
        cohort, *rest = line.head
        heads.append(("" if cohort == before else cohort, *rest))
        before = cohort
    return heads


def _marked(line: Line, marks: Mapping[int, str]) -> list[str]:
    return [
        NOTHING if cell is None else marks.get(cell.rank or 0, "{}").format(cell)
        for cell in line.cells
    ]


def _with_marks(table: Table, *, best: str, second: str) -> str:
    ranked = any(cell and cell.rank for line in table.lines for cell in line.cells)
    said = [EXPLAINED.format(best=best, second=second)] if ranked else []
    return " ".join([*table.caption, *said])


def _markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c for c in text.replace("\n", " "))


LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "\n": " ",
}


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
