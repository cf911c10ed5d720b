"""Curves over scores and over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from conocc.metrics.ranking import auc, aupr_maj, aupr_min
from conocc.visualization.figures.drawing import (
    FAINT,
    MAJORITY,
    MINORITY,
    blank,
    line_style,
    styled,
)

BINS = 40
# Minority, its name, and how it looks: filled or hatched, for those who do not see the colours.
CLASSES: tuple[tuple[bool, str, dict[str, Any]], ...] = (
    (False, "majority", {"color": MAJORITY, "alpha": 0.45, "fill": True}),
    (True, "minority", {"edgecolor": MINORITY, "hatch": "////", "linewidth": 1.2}),
)


@dataclass(frozen=True, eq=False)
class Scored:
    """The test images' scores by one fit: a label, the class and score of n images.

    `calibration` holds the scores of the calibration images, if there are any.
    """

    label: str
    minority: np.ndarray
    anomaly_score: np.ndarray
    threshold: float | None = None
    calibration: np.ndarray | None = None


@styled
def roc_curves(scored: Sequence[Scored]) -> Figure:
    """Draw the ROC curve of each fit; finding a minority image is the success."""
    labels = "1 − specificity (majority flagged)", "sensitivity (minority found)"
    figure, axes = _unit_square(len(scored), *labels)
    for i, one in enumerate(scored):
        false_alarms, sensitivity, _ = roc_curve(one.minority, one.anomaly_score)
        label = f"{one.label} ({auc(one.minority, one.anomaly_score):.3f})"
        axes.plot(false_alarms, sensitivity, label=label, **line_style(i))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, label="chance (0.500)")
    figure.legend(title="AUC", loc="outside lower center", ncols=2)
    return figure


@styled
def precision_recall_curves(scored: Sequence[Scored], *, minority: bool = True) -> Figure:
    """Draw the precision–recall curve of each fit, of finding the minority or the majority.

    The majority is found by a low score.
    """
    found = "minority" if minority else "majority"
    figure, axes = _unit_square(len(scored), f"recall of the {found}", f"precision of the {found}")
    measure = aupr_min if minority else aupr_maj
    for i, one in enumerate(scored):
        wanted, score = (
            (one.minority, one.anomaly_score) if minority else (~one.minority, -one.anomaly_score)
        )
        precision, recall, _ = precision_recall_curve(wanted, score)
        label = f"{one.label} ({measure(one.minority, one.anomaly_score):.3f})"
        axes.plot(recall, precision, drawstyle="steps-post", label=label, **line_style(i))
    share = float((scored[0].minority == minority).mean())
    axes.axhline(share, color=FAINT, linewidth=0.8, label=f"chance ({share:.3f})")
    title = "AUPR-min" if minority else "AUPR-maj"
    figure.legend(title=title, loc="outside lower center", ncols=2)
    return figure


def _unit_square(curves: int, x: str, y: str) -> tuple[Figure, Axes]:
    """Make an empty unit square, with room below it for a legend of so many curves."""
    figure = blank(height=4.3 + 0.09 * curves)
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return figure, axes


@styled
def score_histogram(scored: Scored) -> Figure:
    """Draw the scores of both classes, each class's bars summing to one, and the threshold.

    Calibration images, which are of the majority, are an outline of their own.
    Scores beyond the 1st and 99th percentile are counted in the outermost bars.
    """
    figure = blank(height=2.8)
    axes = figure.add_subplot()
    score = scored.anomaly_score
    low, high = np.percentile(score, [1, 99])
    if scored.threshold is not None:
        low, high = min(low, scored.threshold), max(high, scored.threshold)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    for minority, name, look in CLASSES:
        of_class = np.clip(score[scored.minority == minority], edges[0], edges[-1])
        share = np.histogram(of_class, edges)[0] / max(len(of_class), 1)
        axes.stairs(share, edges, label=f"{name} ({len(of_class)})", **look)
    if scored.calibration is not None:
        share = np.histogram(np.clip(scored.calibration, edges[0], edges[-1]), edges)[0]
        label = f"calibration ({len(scored.calibration)})"
        axes.stairs(share / share.sum(), edges, label=label, color="black", linewidth=0.8)
    if scored.threshold is not None:
        axes.axvline(scored.threshold, color="black", linestyle="--", label="threshold")
    axes.set(title=scored.label, xlabel="anomaly score", ylabel="share of the class")
    axes.legend(loc="best")
    return figure


@styled
def training_curves(history: pd.DataFrame, title: str = "") -> Figure | None:
    """Draw each term of the loss over the epochs, a panel for each stage of the training.

    Returns None for a method without epochs.
    """
    if history.empty:
        return None
    stages = list(dict.fromkeys(history["stage"]))
    figure = blank(height=0.4 + 2.4 * len(stages))
    panels = figure.subplots(len(stages), 1, squeeze=False)[:, 0]
    for axes, stage in zip(panels, stages, strict=True):
        rows = history[history["stage"] == stage]
        terms = rows.drop(columns=["stage", "epoch"]).dropna(axis="columns", how="all")
        for i, name in enumerate(terms):
            known = terms[name].notna()
            marker = "o" if known.sum() < 30 else None
            x, y = rows["epoch"][known], terms[name][known]
            axes.plot(x, y, marker=marker, markersize=3, label=name, **line_style(i))
        _log_where_wide(axes, float(terms.min().min()), float(terms.max().max()))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel="loss, mean over images")
        axes.set_title(" · ".join([title, stage][: len(stages)]).strip(" ·"))
        axes.legend(loc="best")
    return figure


def _log_where_wide(axes: Axes, low: float, high: float) -> None:
    """Scale the losses by logarithm where linear ones would hide the small."""
    if low <= 0 or high / low < 5:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
