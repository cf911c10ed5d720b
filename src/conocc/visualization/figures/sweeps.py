"""Fig. 5: a metric over up to three parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from conocc.visualization.figures.drawing import blank, styled

# The paper's names.
SYMBOLS = {"lr": "λ", "gamma": "γ", "interval": "T"}
CHANCE = 0.5

Params = Mapping[str, Any]


@styled
def parameter_bars(
    cells: Sequence[tuple[Params, float]],
    names: Sequence[str],
    *,
    levels: Sequence[tuple[Params, float]] = (),
    level_name: str = "CAE",
    metric: str = "AUC",
) -> Figure:
    """Draw a metric over parameters as grouped bars that stand on chance, 0.5.

    Parameters
    ----------
    cells
        The parameters of each fit and its metric; a fit that failed is left out, and its place
        stays empty.
    names
        One to three parameters: the last makes the bars of a group, the one before the groups,
        the first of three the panels.
    levels, level_name
        The parameters of fits of another method and their metric, each drawn as a line into the
        panel of its value.
    """
    panel, group, bar = (None,) * (3 - len(names)) + tuple(names)
    panels, groups, bars = (_values(cells, name) for name in (panel, group, bar))
    bars_in_all = len(panels) * len(groups) * (len(bars) + 1.5)
    figure = blank(width=max(4.2, 1.2 + 0.17 * bars_in_all), height=3.2)
    level_of = {_value(params, panel): y for params, y in levels}
    found = {tuple(_value(params, n) for n in (panel, group, bar)): y for params, y in cells}
    rows = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, at in zip(rows, panels, strict=True):
        for i, value in enumerate(bars):
            heights = np.array([found.get((at, g, value), np.nan) for g in groups])
            x = np.arange(len(groups)) + (i - (len(bars) - 1) / 2) * 0.8 / len(bars)
            axes.bar(
                x,
                heights - CHANCE,
                0.8 / len(bars),
                bottom=CHANCE,
                label=_named(bar, value),
                color=colormaps["cividis"](0.05 + 0.9 * i / max(len(bars) - 1, 1)),
                edgecolor="black",
                linewidth=0.5,
            )
        level = level_of.get(at)
        if level is not None:
            axes.axhline(level, color="#D55E00", linestyle="--", linewidth=1.8, label=level_name)
        axes.axhline(CHANCE, color="black", linewidth=0.8)
        axes.set_xticks(range(len(groups)), [_named(group, g) for g in groups])
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.grid(visible=False, axis="x")
        title = [_named(panel, at), "" if level is None else f"{level_name} {level:.3f}"]
        axes.set_title(" · ".join(filter(None, title)))
    rows[0].set_ylabel(f"{metric} (bars stand on chance)")
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return figure


def _values(cells: Sequence[tuple[Params, float]], name: str | None) -> list[Any]:
    """List what a parameter was, ascending; words, which have no order, by the alphabet."""
    values = {_value(params, name) for params, _ in cells}
    return sorted(values, key=lambda v: (isinstance(v, str), v if _is_number(v) else 0, str(v)))


def _value(params: Params, name: str | None) -> Any:
    """Give a value that can be looked up: a list of widths becomes its text."""
    value = params.get(name) if name else None
    return value if _is_number(value) or value is None else str(value)


def _is_number(value: Any) -> bool:
    # Python takes truth values for numbers.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _named(name: str | None, value: Any) -> str:
    if name is None:
        return ""
    text = f"{value:g}" if _is_number(value) else str(value)
    return f"{SYMBOLS.get(name, name)} = {text}"
