"""Fig. 6: the training images' bottleneck features as a map, one a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from conocc.experiments.artifacts import Embedding, subsample
from conocc.visualization.figures.drawing import blank, styled

COLUMNS = 4
PERPLEXITY = 30
# Of more images than this a map takes long, and shows no more.
MAPPED = 500
FEWEST_IMAGES = 4


@styled
def feature_maps(embeddings: Sequence[tuple[str, Embedding]], *, seed: int = 0) -> Figure:
    """Draw a t-SNE map of the training features of each model, side by side.

    The center μ is embedded along with the images and marked; where a method has none, the mean
    feature stands in its place. At most `MAPPED` images, drawn with a seed, are shown. Colour is
    the rank of an image's distance to the center, measured among the features and not on the map.
    Distances and sizes of different maps do not compare; the compactness beside each
    (`Embedding.compactness`) does.
    """
    columns = min(COLUMNS, len(embeddings))
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
        points = _map(axes, embedding, seed) or points
    if points is not None:
        bar = figure.colorbar(points, ax=grid, shrink=0.7, aspect=30, pad=0.01)
        bar.set_label("distance to the center, rank")
        bar.set_ticks([0, 1], labels=["nearest", "farthest"])
    return figure


def _map(axes: Axes, embedding: Embedding, seed: int) -> PathCollection | None:
    """Draw one map; return its points, or None where there is nothing to map."""
    shown = subsample(np.arange(len(embedding.train)), MAPPED)
    train = embedding.train[shown].astype(np.float64)
    if len(train) < FEWEST_IMAGES or not np.ptp(train, axis=0).any():
        why = (
            "all features are equal"
            if len(train) >= FEWEST_IMAGES
            else "no training images at hand"
        )
        axes.text(0.5, 0.5, why, ha="center", transform=axes.transAxes)
        return None
    middle = embedding.middle()
    distance = np.linalg.norm(train - middle, axis=1)
    rank = distance.argsort().argsort() / (len(train) - 1)
    points = TSNE(
        perplexity=min(PERPLEXITY, len(train) / 3), init="pca", random_state=seed
    ).fit_transform(np.concatenate([train, middle[None]]))
    x, y = points[:-1].T
    scatter = axes.scatter(x, y, c=rank, cmap="cividis", s=10, linewidths=0, rasterized=True)
    own = len(embedding.center) > 0
    axes.plot(
        *points[-1],
        marker="*" if own else "P",
        markersize=15 if own else 11,
        color="#D55E00" if own else "white",
        markeredgecolor="black",
        linestyle="",
        label="μ" if own else "mean (no μ)",
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="lower right", handletextpad=0.1)
    return scatter
