"""A table in each format: figures with their spread, and nothing cut or garbled."""

import csv
import math
import re
from io import StringIO

import pytest

from conocc.experiments.table_formats import (
    Line,
    Table,
    as_csv,
    as_latex,
    as_markdown,
    as_text,
    difference,
    estimate,
    mean,
    p_value,
    share,
)


def columns(line: str) -> list[str]:
    """The cells of a line in Markdown, without the spaces that align them."""
    return [text.strip() for text in re.split(r"(?<!\\)\|", line)[1:-1]]


def table(*cells, columns=None) -> Table:
    names = columns or tuple("xyz"[: len(cells)])
    return Table("t", "Said.", ("cohort",), names, (Line(("made",), cells),))


@pytest.mark.parametrize(
    ("cell", "printed"),
    [
        (mean(0.5), "0.500"),
        (mean(0.5, 0.25), "0.500 ± 0.250"),
        (estimate(0.5, low=0.25, high=0.75), "0.500 (0.250–0.750)"),
        (estimate(0.5), "0.500"),
        (difference(0.5, low=-0.25, high=0.75), "+0.500 (−0.250 to +0.750)"),
        (difference(-0.5), "−0.500"),
        (p_value(0.0456), "0.046"),
        (p_value(0.0009), "< 0.001"),
        (p_value(math.nan), "–"),
        (share({"value": 0.25, "low": 0.1, "high": 0.5, "of": 4}), "1 of 4, 25.0 % (10.0–50.0)"),
    ],
)
def test_a_cell_prints_its_figure_and_its_spread(cell, printed):
    assert columns(as_markdown(table(cell)).splitlines()[2]) == ["made", printed]


def test_latex_has_a_character_for_each_sign():
    """Text fonts have no minus, and print a less-than sign as another character."""
    cells = (difference(-0.5, low=-0.75, high=0.25), p_value(0.0001), None)
    line = as_latex(table(*cells)).splitlines()[7]
    expected = r"made & $-$0.500 ($-$0.750 to +0.250) & \ensuremath{<} 0.001 & -- \\"
    assert line == expected


def test_csv_has_all_parts_of_each_columns_cells():
    cells = (mean(0.5, 0.25, 3), estimate(0.5, n=2, low=0.25, high=0.75), p_value(0.125))
    (line,) = csv.DictReader(StringIO(as_csv(table(*cells))))
    assert line == {
        "cohort": "made",
        **{"x": "0.5", "x sd": "0.25", "x n": "3"},
        **{"y": "0.5", "y low": "0.25", "y high": "0.75", "y n": "2"},
        "z": "0.125",
    }


def test_an_empty_cell_of_a_csv_is_of_no_fits():
    lines = (Line(("a",), (mean(0.5),)), Line(("b",), (None,)))
    text = as_csv(Table("t", "", ("cohort",), ("x",), lines))
    assert text.splitlines() == ["cohort,x,x sd,x n", "a,0.5,,1", "b,,,0"]


def test_a_table_without_lines_has_its_head():
    assert as_csv(Table("t", "", ("cohort",), ("x",), ())).startswith("cohort,x")


def test_intervals_stand_below_their_figures_so_that_four_fit_on_a_terminal():
    """None is folded, also where output is a file or the terminal is narrow."""
    cells = (estimate(0.5, low=0.25, high=0.75),) * 4
    names = ("AUC", "AUPR-maj", "AUPR-min", "sens@5%")
    made = Table("t", "", ("cohort", "method"), names, (Line(("phantom-mri", "conocc"), cells),))
    text = as_text(made)
    assert max(map(len, text.splitlines())) <= 82
    assert text.count("(0.250–0.750)") == 4


def test_names_break_no_line_and_are_as_they_are_in_a_csv():
    line = Line(("=HYPERLINK(1)\r\n\u2028x",), (mean(-0.5),))
    made = Table("t", "Said.", ("cohort",), ("-odd",), (line,))
    first, second = csv.reader(StringIO(as_csv(made), newline=""))
    assert first == ["cohort", "-odd", "-odd sd", "-odd n"]
    assert second == ["=HYPERLINK(1)  x", "-0.5", "", "1"]
    assert len(as_markdown(made).splitlines()) == 5
    assert "=HYPERLINK(1)  x & -0.500" in as_latex(made)


def test_names_are_no_markdown():
    line = Line(("<b>a</b> ~~b~~ &lt; $x$",), (mean(0.5),))
    made = as_markdown(Table("t", "Said.", ("cohort",), ("x",), (line,)))
    assert r"| \<b\>a\</b\> \~\~b\~\~ \&lt; \$x\$ |" in made
    (line,) = (Line(("a|b\\|c",), (mean(0.5),)),)
    made = as_markdown(Table("t", "Said.", ("cohort",), ("x",), (line,)))
    assert columns(made.splitlines()[2]) == [r"a\|b\\\|c", "0.500"]
