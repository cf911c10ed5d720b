"""Pictures, made from what a fit left in its folder or from a cohort, never from a model.

Each function takes plain values and returns a matplotlib `Figure`, without pyplot's state.
"""

from conocc.visualization.figures.curves import (
    Scored,
    precision_recall_curves,
    roc_curves,
    score_histogram,
    training_curves,
)
from conocc.visualization.figures.drawing import save_figure, svg
from conocc.visualization.figures.features import feature_maps
from conocc.visualization.figures.pictures import case_strip, gallery, montage, png, sheet
from conocc.visualization.figures.residual_maps import explanation, overlay
from conocc.visualization.figures.sweeps import parameter_bars

__all__ = [
    "Scored",
    "case_strip",
    "explanation",
    "feature_maps",
    "gallery",
    "montage",
    "overlay",
    "parameter_bars",
    "png",
    "precision_recall_curves",
    "roc_curves",
    "save_figure",
    "score_histogram",
    "sheet",
    "svg",
    "training_curves",
]
