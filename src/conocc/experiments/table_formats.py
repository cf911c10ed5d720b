"""A table as text, Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conocc.io.files import csv_lines

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A figure: the mean over `n` fits and, over folds, their deviation."""

    value: float
    deviation: float | None = None
    n: int = 1
    rank: int | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.figure, self.beside)))

    @property
    def figure(self) -> str:
        return f"{self.value:.3f}"

    @property
    def beside(self) -> str:
        """What stands beside the figure, in smaller print where there is any."""
        return "" if self.deviation is None else f"± {self.deviation:.3f}"

    @property
    def parts(self) -> dict[str, float | int | None]:
        """The numbers in full, by what their column's name ends in."""
        return {"": self.value, " sd": self.deviation, " n": self.n}


@dataclass(frozen=True)
class Estimate(Cell):
    """The mean over `n` fits with its interval; without ends there is none."""

    low: float | None = None
    high: float | None = None

    @property
    def beside(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"({self.low:.3f}–{self.high:.3f})"

    @property
    def parts(self) -> dict[str, float | int | None]:
        return {"": self.value, " low": self.low, " high": self.high, " n": self.n}


@dataclass(frozen=True)
class Difference(Estimate):
    """One figure less another, with its sign."""

    @property
    def figure(self) -> str:
        return _signed(self.value)

    @property
    def beside(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"({_signed(self.low)} to {_signed(self.high)})"

    @property
    def parts(self) -> dict[str, float | int | None]:
        return {"": self.value, " low": self.low, " high": self.high}


@dataclass(frozen=True)
class PValue(Cell):
    """A p-value, or NaN; one too small to print is not printed as none."""

    @property
    def figure(self) -> str:
        if math.isnan(self.value):
            return NOTHING
        return "< 0.001" if self.value < 0.001 else f"{self.value:.3f}"

    @property
    def parts(self) -> dict[str, float | int | None]:
        return {"": None if math.isnan(self.value) else self.value}


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


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


# --- printing ----------------------------------------------------------------------------------

EXPLAINED = "Of each line the best is marked {best}, the second best {second}."


def as_text(table: Table) -> RichTable:
    """Lay the table out for a terminal; the marks are ¹ and ², which survive without colour."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table as RichTable

    caption = _with_marks(table, best="¹", second="²")
    made = RichTable(
        caption=escape(caption),
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in table.head:
        made.add_column(escape(name), no_wrap=True)
    for name in table.columns:
        made.add_column(escape(name), justify="right", overflow="fold")  # never cut a figure
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
        lines.append(_latex_row([*map(_latex, head), *_marked(line, marks, escape=_latex)]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    caption = _latex(_with_marks(table, best="bold", second="underlined"))
    body = "\n".join(lines)
    return f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{body}\n\\end{{table}}\n"


def as_csv(table: Table) -> str:
    """Write the figures in full, without marks: of each column all the parts of its cells."""
    columns = ([line.cells[i] for line in table.lines] for i in range(len(table.columns)))
    parts = [next(filter(None, cells), Cell(0)).parts for cells in columns]
    names = (name + part for name, of in zip(table.columns, parts, strict=True) for part in of)
    rows: list[list[Any]] = [[*table.head, *names]]
    for line in table.lines:
        printable = zip(line.cells, parts, strict=True)
        cells = (cell.parts if cell else _empty(of) for cell, of in printable)
        rows.append([*line.head, *(value for cell in cells for value in cell.values())])
    return "".join(csv_lines(rows))


def _empty(parts: Mapping[str, object]) -> dict[str, int | None]:
    return {part: 0 if part == " n" else None for part in parts}


FORMATS: dict[str, Callable[[Table], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "tex": as_latex,
}


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


def _marked(line: Line, marks: Mapping[int, str], escape: Callable[[str], str] = str) -> list[str]:
    return [
        escape(NOTHING)
        if cell is None
        else marks.get(cell.rank or 0, "{}").format(escape(str(cell)))
        for cell in line.cells
    ]


def _with_marks(table: Table, *, best: str, second: str) -> str:
    ranked = any(cell and cell.rank for line in table.lines for cell in line.cells)
    said = [EXPLAINED.format(best=best, second=second)] if ranked else []
    return " ".join([*table.caption, *said])


def _markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|&~$" else c for c in _on_one_line(text))


def _on_one_line(text: str) -> str:
    return " ".join(text.splitlines())


LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # Of these the usual text fonts have none, or another character in the place.
    "±": r"$\pm$",
    "−": r"$-$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
}


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in _on_one_line(text))


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
