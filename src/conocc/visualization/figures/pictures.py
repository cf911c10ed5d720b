"""Images themselves: a cohort's montage, and the images on which a method erred most.

Letters: n images, k chosen ones, c channels, h and w pixels.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from conocc.data.cohort import Cohort
from conocc.data.index import printable
from conocc.experiments.artifacts import Gallery
from conocc.visualization.figures.drawing import blank, rgb, styled
from conocc.visualization.figures.residual_maps import overlay

GAP = 2


@styled
def montage(cohort: Cohort, *, columns: int = 8, rows: int = 3, seed: int = 0) -> Figure:
    """Show some images of each class, drawn with a seed; each on its own grey scale."""
    generator = np.random.default_rng(seed)
    figure = blank(columns, 2 * rows + 1.2)
    figure.suptitle(cohort.name)
    halves = np.ravel(np.asarray(figure.subfigures(2, 1)))
    for half, minority, name in zip(halves, (False, True), ("majority", "minority"), strict=True):
        chosen = cohort.rows(minority=minority)
        labels = ", ".join(map(printable, sorted(set(cohort.label[chosen].tolist()))))
        half.suptitle(f"{name}: {labels} ({len(chosen)} images)", fontsize="medium")
        some = generator.permutation(chosen)[: rows * columns]
        axes = half.add_subplot()
        axes.set_axis_off()
        if len(some):
            axes.imshow(sheet(np.stack([cohort.images[row] for row in some]), columns))
    return figure


def case_strip(kept: Gallery, case: int) -> np.ndarray:
    """Put input, reconstruction and residual of one image side by side; -> (h, 3 w + gaps, 3).

    The reconstruction is shown on the grey scale of its input, the residual as an `overlay` on
    one scale for the whole gallery.
    """
    given = kept.input[case]
    low, high = float(given.min()), float(given.max())
    parts = [rgb(given)]
    if len(kept.reconstruction):
        parts.append(rgb(kept.reconstruction[case], low, high))
        parts.append(overlay(given, kept.residual[case], kept.scale()))
    gap = np.full((given.shape[1], GAP, 3), 255, np.uint8)
    return np.concatenate([piece for part in parts for piece in (part, gap)][:-1], axis=1)


def sheet(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """Put images into rows and columns, each on its own grey scale; (n, c, h, w) -> uint8 RGB."""
    n, _, h, w = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    paper = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + GAP), (i % columns) * (w + GAP)
        paper[top : top + h, left : left + w] = rgb(image)
    return paper


def png(pixels: np.ndarray) -> bytes:
    """Give a picture as a PNG of at most 256 colours, which makes it small."""
    file = io.BytesIO()
    image = Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
