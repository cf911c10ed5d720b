"""Plain facts of how images were acquired, by which a batch can be held against training images.

Letters: n images, m images of a batch, c channels, h and w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from conocc.data.image_io.pixels import Remarked

Floats = npt.NDArray[np.float64]

# What is known of each image, in this order, and what people call it. Size and depth are those of
# the file; the others are of the image that a detector sees.
FACTS = {
    "size": "Size in pixels",
    "depth": "Bits a pixel",
    "mean": "Mean brightness",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "border": "Dark border",
}
OF_FILES = ("size", "depth")
DEPTH, CONTRAST = (list(FACTS).index(one) for one in ("depth", "contrast"))
# Which quantiles of the training images a model keeps, in per cent.
LEVELS = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
# A fact has moved where the middle image lies above, or below, so many per cent of these.
MOVED = 95
FEWEST = 10  # images: the middle one of fewer may lie anywhere by chance
_PIXELS = 2**18  # measured at once: calls for each image cost more than small images, memory too
DARK = 0.02  # of the range of an image: what its border is at most


def of_file(read: Remarked) -> tuple[float, float]:
    """Give the facts of a file, `OF_FILES`: the root of how many pixels it has, and its depth."""
    size = math.sqrt(read.size or math.prod(read.pixels.shape[:2]))
    return size, 8.0 * read.pixels.dtype.itemsize


def acquired(
    files: Sequence[tuple[float, ...]],
    images: Sequence[npt.NDArray[np.float32]] | npt.NDArray[np.float32],
) -> list[tuple[float, ...]]:
    """Measure the `FACTS` of n images as they were read and as a detector sees them, (n, c, h, w).

    Contrast is the standard deviation, and 0 only where all pixels are equal; sharpness is the
    mean step from pixel to pixel in units of it; the border is the share of the image outside the
    smallest rectangle with all that is not dark. Six digits are kept. Features, (n, d), have none.
    """
    if not len(images) or images[0].ndim == 1:
        return [()] * len(images)
    some = max(1, _PIXELS // math.prod(images[0].shape))
    blocks = [np.asarray(images[k : k + some]) for k in range(0, len(images), some)]
    seen = [row for block in blocks for row in zip(*_of_images(block), strict=True)]
    facts = [(*file, *row) for file, row in zip(files, seen, strict=True)]
    return [tuple(float(f"{fact:.6g}") for fact in row) for row in facts]


def _of_images(images: npt.NDArray[np.float32]) -> tuple[Floats, Floats, Floats, Floats]:
    """Give mean, contrast, sharpness and border of images, (m, c, h, w)."""
    m, _, *shape = images.shape
    flat = images.reshape(m, -1)
    low, high = (extreme.astype(float) for extreme in (flat.min(axis=1), flat.max(axis=1)))
    contrast = np.where(low < high, flat.std(axis=1, dtype=np.float64), 0.0)
    steps = [
        np.abs(np.diff(images, axis=axis)).reshape(m, -1).mean(axis=1, dtype=np.float64)
        for axis in (2, 3)
        if images.shape[axis] > 1
    ]
    step = np.mean(steps, axis=0) if steps else contrast
    sharpness = np.divide(step, contrast, out=np.zeros(m), where=contrast > 0)
    dark = (low + DARK * (high - low)).astype(np.float32)
    bright = (images >= dark[:, None, None, None]).any(axis=1)
    sides = [bright.any(axis=axis) for axis in (1, 2)]
    inside = math.prod(
        side.shape[1] - side.argmax(axis=1) - side[:, ::-1].argmax(axis=1) for side in sides
    )
    return flat.mean(axis=1, dtype=np.float64), contrast, sharpness, 1 - inside / math.prod(shape)


def quantiles(facts: Floats | None) -> dict[str, list[float]]:
    """Give the `LEVELS` of each fact of the training images, (n, 6); {} where none are known."""
    if facts is None or not len(facts):
        return {}
    found = np.percentile(facts, LEVELS, axis=0).T
    return {
        name: [float(f"{value:.6g}") for value in row]
        for name, row in zip(FACTS, found, strict=True)
    }


def moved(known: Mapping[str, Sequence[float]], facts: Floats | None) -> dict[str, str]:
    """Say which facts of a batch, (m, 6), moved most against the `quantiles` of training images.

    >>> known = quantiles(np.arange(600.0).reshape(100, 6))
    >>> moved(known, np.full((10, 6), [300, 601, 302, 303, 29, 305]))["depth"]
    'Bits a pixel: the middle batch image lies above all training images.'
    """
    if facts is None or not facts.size or len(facts) < FEWEST:
        return {}
    found: dict[str, tuple[int, str]] = {}
    for (name, label), middle in zip(FACTS.items(), np.median(facts, axis=0), strict=True):
        pairs = [*zip(LEVELS, known.get(name, ()), strict=False)]
        above = max((level for level, at in pairs if at < middle), default=0)
        below = 100 - min((level for level, at in pairs if at > middle), default=100)
        share, side = max((above, "above"), (below, "below"))
        if share >= MOVED:
            whom = "all" if share == 100 else f"{share} % of the"
            said = f"{label}: the middle batch image lies {side} {whom} training images."
            found[name] = share, said
    return {name: found[name][1] for name in sorted(found, key=lambda name: -found[name][0])}
