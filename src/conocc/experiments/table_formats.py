"""A table as text, Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from tabulate import LATEX_ESCAPE_RULES

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A figure as it is printed; `mean`, `estimate`, `difference` and `p_value` make them.

    Attributes
    ----------
    figure
    spread
        Printed after the figure, in smaller print where there is any: its deviation or interval.
    parts
        The numbers in full, by what their column's name ends in.
    rank
        1 for the best of its line, 2 for the second best.
    """

    figure: str
    spread: str
    parts: Mapping[str, float | int | None]
    rank: int | None = None


def mean(value: float, deviation: float | None = None, n: int = 1) -> Cell:
    """Print the mean over `n` fits and, over folds, their deviation."""
    spread = "" if deviation is None else f"± {deviation:.3f}"
    return Cell(f"{value:.3f}", spread, {"": value, " sd": deviation, " n": n})


def estimate(value: float, low: float | None = None, high: float | None = None, n: int = 1) -> Cell:
    """Print the mean over `n` fits and its interval, if it has one."""
    spread = "" if low is None or high is None else f"({low:.3f}–{high:.3f})"
    return Cell(f"{value:.3f}", spread, {"": value, " low": low, " high": high, " n": n})


def difference(value: float, low: float | None = None, high: float | None = None) -> Cell:
    """Print one figure less another, and the interval of this, with their signs."""
    spread = "" if low is None or high is None else f"({_signed(low)} to {_signed(high)})"
    return Cell(_signed(value), spread, {"": value, " low": low, " high": high})


def p_value(value: float) -> Cell:
    """Print a p-value, or NaN; one too small to print is not printed as none."""
    if math.isnan(value):
        return Cell(NOTHING, "", {"": None})
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", "", {"": value})


def share(rate: Mapping[str, Any] | None) -> Cell | None:
    """Print of how many images something is true, of how many, and the share with its interval."""
    if rate is None:
        return None
    value, low, high, of = (rate[key] for key in ("value", "low", "high", "of"))
    spread = f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
    parts = {"": value, " low": low, " high": high, " of": of}
    return Cell(f"{round(value * of):,} of {of:,}", spread, parts)


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
        What was averaged over what, and what is missing.
    head
        The names of the columns that name a line.
    columns
        The names of the others.
    """

    name: str
    caption: str
    head: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def ranked(self) -> bool:
        """Whether the best cells of any line are marked."""
        return any(cell and cell.rank for line in self.lines for cell in line.cells)


# --- printing ----------------------------------------------------------------------------------


def as_text(table: Table) -> str:
    """Write the table for a terminal; the marks are ¹ and ², which survive without colour."""
    text = _tabulated(table, _texts(table, {1: "{}¹", 2: "{}²"}, _on_one_line, "\n"), "simple")
    return f"{text}\n\n{_caption(table, best='¹', second='²')}\n"


def as_markdown(table: Table) -> str:
    """Write the table in GitHub's Markdown: the best bold, the second best in italics."""
    text = _tabulated(table, _texts(table, {1: "**{}**", 2: "*{}*"}, markdown_escaped), "pipe")
    return f"{text}\n\n{markdown_escaped(_caption(table, best='bold', second='in italics'))}\n"


def as_latex(table: Table) -> str:
    """Write the table in LaTeX, for booktabs: the best bold, the second best underlined."""
    texts = _texts(table, {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}, _latex)
    return texts.style.hide(axis="index").to_latex(
        column_format="l" * len(table.head) + "r" * len(table.columns),
        caption=_latex(_caption(table, best="bold", second="underlined")),
        position_float="centering",
        hrules=True,
    )


def as_csv(table: Table) -> str:
    """Write the figures in full, without marks: of each column all the parts of its cells."""
    columns = ([line.cells[i] for line in table.lines] for i in range(len(table.columns)))
    parts = [next((cell.parts for cell in cells if cell), {"": None}) for cells in columns]
    names = [name + part for name, of in zip(table.columns, parts, strict=True) for part in of]
    rows: list[list[Any]] = []
    for line in table.lines:
        rows.append([_on_one_line(name) for name in line.head])
        for cell, of in zip(line.cells, parts, strict=True):
            nothing = [0 if part == " n" else None for part in of]
            rows[-1] += cell.parts.values() if cell else nothing
    frame = pd.DataFrame(rows, columns=[*table.head, *names], dtype=object)
    return frame.to_csv(index=False, lineterminator="\n")


FORMATS: dict[str, Callable[[Table], str]] = {"md": as_markdown, "csv": as_csv, "tex": as_latex}


def _texts(
    table: Table, marks: Mapping[int, str], escape: Callable[[str], str], separator: str = " "
) -> pd.DataFrame:
    """Lay the table out as texts; a cohort is named in its first line only, as in the paper."""
    rows, before = [], ""
    for line in table.lines:
        cohort, *rest = line.head
        head = ["" if cohort == before else cohort, *rest]
        before = cohort
        rows.append([*map(escape, head)])
        for cell in line.cells:
            parts = filter(None, (cell.figure, cell.spread)) if cell else (NOTHING,)
            mark = marks.get(cell.rank, "{}") if cell and cell.rank else "{}"
            is_share = cell and cell.spread[:1].isdigit() and separator == " "
            between = ", " if is_share else separator  # 3 of 174, 1.7 %
            rows[-1].append(mark.format(between.join(map(escape, parts))))
    return pd.DataFrame(rows, columns=[*map(escape, (*table.head, *table.columns))], dtype=object)


def _tabulated(table: Table, texts: pd.DataFrame, form: str) -> str:
    align = ["left"] * len(table.head) + ["right"] * len(table.columns)
    return texts.to_markdown(index=False, tablefmt=form, disable_numparse=True, colalign=align)


def _caption(table: Table, *, best: str, second: str) -> str:
    marks = f" Of each line the best is marked {best}, the second best {second}."
    return table.caption + (marks if table.ranked else "")


def _on_one_line(text: str) -> str:
    return " ".join(text.splitlines())


def markdown_escaped(text: str) -> str:
    """Give a text on one line, of which nothing is taken for Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]>#|&~$]|<(?! ))", r"\\\1", _on_one_line(text))


# Of these the usual text fonts have none, or another character in the place.
SIGNS = {"±": r"$\pm$", "−": "$-$", "–": "--", "|": r"\textbar{}"}
LATEX = str.maketrans({**LATEX_ESCAPE_RULES, **SIGNS})


def _latex(text: str) -> str:
    return _on_one_line(text).translate(LATEX)
