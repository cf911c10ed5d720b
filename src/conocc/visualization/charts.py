"""Charts over scores, epochs and parameters, and maps of features, from what a fit left.

Each function takes plain values and returns a matplotlib `Figure`, without pyplot's state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from sklearn.manifold import TSNE
from sklearn.metrics import precision_recall_curve, roc_curve

from conocc.experiments.artifacts import Embedding, subsample
from conocc.metrics.ranking import auc, aupr_maj, aupr_min
from conocc.visualization.drawing import FAINT, MAJORITY, MINORITY, blank, line_style, styled

BINS = 40
# How the scores of a class look: filled or hatched, for those who do not see the colours.
LOOKS: dict[str, dict[str, Any]] = {
    "majority": {"color": MAJORITY, "alpha": 0.45, "fill": True},
    "minority": {"edgecolor": MINORITY, "hatch": "////", "linewidth": 1.2},
    "calibration": {"color": "black", "linewidth": 0.8},
}
# Of each kind of curves: the name of their area, the area, and what they show.
CURVES = {
    "roc": ("AUC", auc, "ROC curves of"),
    "minority": ("AUPR-min", aupr_min, "Precision–recall curves of finding the minority class:"),
    "majority": ("AUPR-maj", aupr_maj, "Precision–recall curves of finding the majority class:"),
}

# The paper's names.
SYMBOLS = {"lr": "λ", "gamma": "γ", "interval": "T"}
CHANCE = 0.5
# Of a legend's letters and lines, in inches.
LETTER_IN, LINE_IN = 0.065, 0.17

MAPS_IN_A_ROW = 4
PERPLEXITY = 30
# Of more images than this a map takes long, and shows no more.
MAPPED = 500
FEWEST_IMAGES = 4
CENTER: dict[str, Any] = {"marker": "*", "markersize": 15, "color": MINORITY, "label": "μ"}
MEAN: dict[str, Any] = {"marker": "P", "markersize": 11, "color": "white", "label": "mean (no μ)"}

Params = Mapping[str, Any]


class Scored(NamedTuple):
    """The test images' scores by one fit: a label, the class and score of n images.

    `calibration` holds the scores of the calibration images, if there are any.
    """

    label: str
    minority: np.ndarray
    anomaly_score: np.ndarray
    threshold: float | None = None
    calibration: np.ndarray | None = None


@styled
def curves(scored: Sequence[Scored], kind: str) -> Figure:
    """Draw a curve of each fit, of a kind of `CURVES`.

    ``"roc"``: finding a minority image is the success. ``"minority"``, ``"majority"``: precision
    and recall of finding this class, the majority by a low score.
    """
    figure = blank(height=4.1)
    draw_curves(figure.add_subplot(), scored, kind)
    _legend_below(figure, CURVES[kind][0])
    return figure


def draw_curves(axes: Axes, scored: Sequence[Scored], kind: str) -> None:
    """Draw what `curves` does; the line of chance is the last one."""
    x_label, y_label = f"recall of the {kind}", f"precision of the {kind}"
    if kind == "roc":
        x_label, y_label = "1 − specificity (majority flagged)", "sensitivity (minority found)"
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    for i, (name, minority, score, *_) in enumerate(scored):
        look = {"label": f"{name} ({CURVES[kind][1](minority, score):.3f})", **line_style(i)}
        if kind == "roc":
            axes.plot(*roc_curve(minority, score)[:2], **look)
            continue
        wanted = (minority, score) if kind == "minority" else (~minority, -score)
        precision, recall, _ = precision_recall_curve(*wanted)
        axes.plot(recall, precision, drawstyle="steps-post", **look)
    share = float((scored[0].minority == (kind == "minority")).mean())
    chance, ends = (CHANCE, [0, 1]) if kind == "roc" else (share, [share, share])
    axes.plot([0, 1], ends, color=FAINT, linewidth=0.8, label=f"chance ({chance:.3f})")


def _legend_below(figure: Figure, title: str = "") -> None:
    """Add a legend of all axes below them, with room for as many columns as its words leave."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    found = {label: handle for each in pairs for handle, label in each}
    width = LETTER_IN * max(map(len, found)) + 0.5
    columns = min(6, len(found), max(1, int(figure.get_figwidth() / width)))
    figure.set_figheight(figure.get_figheight() + LINE_IN * math.ceil(len(found) / columns))
    words = [*found.values()], [*found]
    figure.legend(*words, title=title, loc="outside lower center", ncols=columns)


@styled
def score_histogram(scored: Scored) -> Figure:
    """Draw the scores of both classes, each class's bars summing to one, and the threshold.

    Calibration images, which are of the majority, are an outline of their own.
    Scores beyond the 1st and 99th percentile are counted in the outermost bars.
    """
    figure = blank(height=2.8)
    draw_scores(figure.add_subplot(), scored)
    return figure


def draw_scores(axes: Axes, scored: Scored) -> None:
    """Draw what `score_histogram` does."""
    label, minority, score, threshold, calibration = scored
    low, high = np.percentile(score, [1, 99])
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    groups = {"majority": score[~minority]}
    if minority.any():
        groups["minority"] = score[minority]
    if calibration is not None:
        groups["calibration"] = calibration
    for name, values in groups.items():
        share = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(len(values), 1)
        axes.stairs(share, edges, label=f"{name} ({len(values)})", **LOOKS[name])
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", label="threshold")
    axes.set(title=label, xlabel="anomaly score", ylabel="share of the class")
    axes.locator_params(axis="x", nbins=5)  # or numbers of many digits stand on one another
    axes.legend(loc="best")


@styled
def abstention_curves(label: str, points: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw false alarms and sensitivity over the share that is left to a reader, with intervals.

    `points` are those of `conocc.experiments.groups.left_to_a_reader`.
    """
    figure = blank(height=2.8)
    axes = figure.add_subplot()
    looks = {"sensitivity": (MINORITY, "--"), "false_alarms": (MAJORITY, "-")}
    for name, (colour, dashes) in looks.items():
        known = [(one["share"], one[name]) for one in points if one[name] is not None]
        x = [100 * share for share, _ in known]
        y, low, high = ([100 * r[key] for _, r in known] for key in ("value", "low", "high"))
        axes.plot(x, y, marker=".", color=colour, linestyle=dashes, label=name.replace("_", " "))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(title=label, xlabel="nearest the threshold, left to a reader (%)")
    axes.set(ylabel="flagged of the others (%)", ylim=(-2, 102))
    axes.legend(loc="best")
    return figure


@styled
def training_curves(history: pd.DataFrame, title: str = "") -> Figure | None:
    """Draw each term of the loss over the epochs, a panel for each stage of the training.

    Losses are on a logarithmic scale where a linear one would hide the small.
    Returns None for a method without epochs.
    """
    if history.empty:
        return None
    stages = list(history.groupby("stage", sort=False))
    figure = blank(height=0.4 + 2.4 * len(stages))
    panels = figure.subplots(len(stages), 1, squeeze=False)[:, 0]
    for axes, (stage, rows) in zip(panels, stages, strict=True):
        terms = rows.drop(columns="stage").set_index("epoch").dropna(axis="columns", how="all")
        for i, (name, term) in enumerate(terms.items()):
            known = term.dropna()
            marker = "o" if len(known) < 30 else None
            axes.plot(known, marker=marker, markersize=3, label=name, **line_style(i))
        low, high = float(terms.min().min()), float(terms.max().max())
        if low > 0 and high / low >= 5:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel="loss, mean over images")
        axes.set_title(" · ".join([title, str(stage)][: len(stages)]).strip(" ·"))
        axes.legend(loc="best")
    return figure


# --- Fig. 5: a metric over up to three parameters ----------------------------------------------


@styled
def parameter_bars(
    cells: Sequence[tuple[Params, float]],
    names: Sequence[str],
    *,
    levels: Sequence[tuple[Params, float]] = (),
    level_name: str = "CAE",
) -> Figure:
    """Draw the AUC over parameters as grouped bars that stand on chance, 0.5.

    Parameters
    ----------
    cells
        The parameters of each fit and its AUC; a fit that failed is left out, and its place
        stays empty.
    names
        One to three parameters: the last makes the bars of a group, the one before the groups,
        the first of three the panels.
    levels, level_name
        The parameters of fits of another method and their AUC, each drawn as a line into the
        panel of its value.
    """
    panel, group, bar = keys = [*[""] * (3 - len(names)), *names]
    found = {tuple(_value(params, key) for key in keys): y for params, y in cells}
    panels, groups, bars = (_ascending(values) for values in zip(*found, strict=True))
    bars_in_all = len(panels) * len(groups) * (len(bars) + 1.5)
    figure = blank(width=max(4.2, 1.2 + 0.17 * bars_in_all), height=3.0)
    rows = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    width, colours = 0.8 / len(bars), colormaps["cividis"](np.linspace(0.05, 0.95, len(bars)))
    for axes, at in zip(rows, panels, strict=True):
        for i, value in enumerate(bars):
            heights = [found.get((at, g, value), np.nan) - CHANCE for g in groups]
            x = np.arange(len(groups)) + (i - (len(bars) - 1) / 2) * width
            look = {"label": _named(bar, value), "color": colours[i], "edgecolor": "black"}
            axes.bar(x, heights, width, bottom=CHANCE, linewidth=0.5, **look)
        mine = [(params, y) for params, y in levels if _value(params, panel) == at]
        for i, (params, level) in enumerate(mine):
            rate = f", {_named('lr', params['lr'])}" if "lr" in params else ""
            look = {**line_style(i + 1), "color": MINORITY}
            axes.axhline(level, **look, label=f"{level_name} {level:.3f}{rate}")
        axes.axhline(CHANCE, color="black", linewidth=0.8)
        axes.set_xticks(range(len(groups)), [_named(group, g) for g in groups])
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.grid(visible=False, axis="x")
        axes.set_title(_named(panel, at))
    rows[0].set_ylabel("AUC (bars stand on chance)")
    _legend_below(figure)
    return figure


def _value(params: Params, name: str) -> float | str:
    """Give a number as it is, and any other value, such as a list of widths, as its text."""
    value = params.get(name, "")
    return value if type(value) in (int, float) else str(value)


def _ascending(values: Sequence[Any]) -> list[Any]:
    """List values once, ascending; words, which have no order, after them by the alphabet."""
    return sorted(set(values), key=lambda v: (1, 0, v) if isinstance(v, str) else (0, v, ""))


def _named(name: str, value: float | str) -> str:
    text = value if isinstance(value, str) else f"{value:g}"
    return f"{SYMBOLS.get(name, name)} = {text}" if name else ""


# --- Fig. 6: the training images' bottleneck features as a map, one a model --------------------


@styled
def feature_maps(embeddings: Sequence[tuple[str, Embedding]]) -> Figure:
    """Draw a t-SNE map of the training features of each model, side by side.

    The center μ is embedded along with the images and marked; where a method has none, the mean
    feature stands in its place. At most `MAPPED` images, drawn with a seed, are shown. Colour is
    the rank of an image's distance to the center, measured among the features and not on the map.
    Distances and sizes of different maps do not compare; the compactness beside each
    (`Embedding.compactness`) does.
    """
    columns = min(MAPS_IN_A_ROW, len(embeddings))
    rows = math.ceil(len(embeddings) / columns)
    figure = blank(width=max(4.2, 2.7 * columns + 0.6), height=3.1 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    points = None
    for axes, (label, embedding) in zip(grid.flat, embeddings, strict=False):
        compactness = embedding.compactness()
        below = "" if compactness is None else f"\ncompactness {compactness:.3f}"
        axes.set_title(label + below)
        points = _map(axes, embedding) or points
    if points is not None:
        bar = figure.colorbar(points, ax=grid, shrink=0.7, aspect=30, pad=0.01)
        bar.set_label("distance to the center, rank")
        bar.set_ticks([0, 1], labels=["nearest", "farthest"])
    return figure


def _map(axes: Axes, embedding: Embedding) -> PathCollection | None:
    """Draw one map; return its points, or None where there is nothing to map."""
    shown = subsample(np.arange(len(embedding.train)), MAPPED)
    train = embedding.train[shown].astype(np.float64)
    few = len(train) < FEWEST_IMAGES
    if few or not np.ptp(train, axis=0).any():
        why = "no training images at hand" if few else "all features are equal"
        axes.text(0.5, 0.5, why, ha="center", transform=axes.transAxes)
        return None
    middle = embedding.middle()
    rank = np.linalg.norm(train - middle, axis=1).argsort().argsort() / (len(train) - 1)
    tsne = TSNE(perplexity=min(PERPLEXITY, len(train) / 3), init="pca", random_state=0)
    *points, center = tsne.fit_transform(np.concatenate([train, middle[None]]))
    x, y = np.transpose(points)
    scatter = axes.scatter(x, y, c=rank, cmap="cividis", s=10, linewidths=0, rasterized=True)
    look = CENTER if len(embedding.center) else MEAN
    axes.plot(*center, markeredgecolor="black", linestyle="", **look)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="lower right", handletextpad=0.1)
    return scatter
