"""Where patches lie: squares around boxes, and others in the tissue beside them.

Letters: h and w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from conocc.data.image_io.pixels import Pixels

Bools = npt.NDArray[np.bool_]


class Box(NamedTuple):
    """A rectangle of whole pixels: its left upper one, counted from 0, and its sides."""

    x: int
    y: int
    width: int
    height: int


def square_around(box: Box, shape: tuple[int, int], margin: int = 0) -> Box:
    """Return the square of a patch: inside an image of `shape`, (h, w), and around all of `box`.

    Raises
    ------
    ValueError
        If the box is empty or leaves the image, or the square is larger than the image.

    Examples
    --------
    >>> square_around(Box(x=2, y=50, width=10, height=4), (100, 60), margin=3)
    Box(x=0, y=44, width=16, height=16)
    """
    h, w = shape
    said = f"the box {box.x},{box.y} of {box.width}x{box.height} pixels"
    if box.width < 1 or box.height < 1:
        raise ValueError(f"{said} is empty")
    if box.x < 0 or box.y < 0 or box.x + box.width > w or box.y + box.height > h:
        raise ValueError(f"{said} leaves the image, which has {w}x{h}")
    side = max(box.width, box.height) + 2 * margin
    if side > min(h, w):
        raise ValueError(
            f"the square of {side} pixels around {said} is larger than the image, which has {w}x{h}"
        )
    x = min(max(box.x + (box.width - side) // 2, 0), w - side)
    y = min(max(box.y + (box.height - side) // 2, 0), h - side)
    return Box(x, y, side, side)


def boxes_of_mask(mask: Pixels, min_area: int = 1) -> list[Box]:
    """Return the box of each part of a mask, (h, w), of at least `min_area` pixels.

    What is not zero belongs to a part; pixels that meet at a corner belong to the same.

    >>> mask = np.zeros((5, 6), bool)
    >>> mask[1, 1] = mask[2, 2] = mask[4, 5] = True
    >>> boxes_of_mask(mask)
    [Box(x=1, y=1, width=2, height=2), Box(x=5, y=4, width=1, height=1)]
    """
    from scipy import ndimage

    parts, _ = ndimage.label(mask != 0, structure=np.ones((3, 3)))
    areas = np.bincount(parts.ravel())
    boxes = []
    for part, where in enumerate(ndimage.find_objects(parts), start=1):
        if areas[part] >= min_area:
            rows, columns = where
            width, height = columns.stop - columns.start, rows.stop - rows.start
            boxes.append(Box(columns.start, rows.start, width, height))
    return boxes


# Places outside


def otsu_threshold(image: Pixels) -> float:
    """Return the value that best parts an image in two, after Otsu (1979), of 255 in its range.

    Which is the one with the highest variance between the parts. Of an image of one value it is
    that value.

    >>> image = np.array([[0, 1, 2, 50, 51, 52]])
    >>> bool(2 < otsu_threshold(image) < 50)
    True
    """
    counts, edges = np.histogram(image, 256)
    if image.min() == image.max():
        return float(image.max())
    share = np.cumsum(counts)[:-1] / image.size
    centres = (edges[:-1] + edges[1:]) / 2
    moment = np.cumsum(counts * centres) / image.size
    between = (moment[-1] * share - moment[:-1]) ** 2 / (share * (1 - share))
    # Between two groups that lie apart, all edges part them alike.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1 + best[len(best) // 2]])


def window_sums(chosen: Bools, side: int) -> npt.NDArray[np.int64]:
    """Count the chosen pixels in each square; (h, w) -> (h - side + 1, w - side + 1).

    >>> window_sums(np.array([[1, 0, 1], [0, 0, 1]], bool), 2)
    array([[1, 2]])
    """
    sums = np.pad(chosen.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    found: npt.NDArray[np.int64] = (
        sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    )
    return found


def squares_outside(
    tissue: Bools,
    sides: Sequence[int],
    boxes: Sequence[Box],
    *,
    margin: int,
    least_tissue: float,
    random_state: np.random.Generator,
) -> list[Box | None]:
    """Draw a square of each of `sides` that meets no box; None where there is no place for it.

    Each place that is left has the same chance.

    Parameters
    ----------
    tissue : array of bool, shape (h, w)
    sides : sequence of int
    boxes : sequence of Box
        Which are kept clear by `margin` pixels on each side.
    least_tissue : float in [0, 1]
        The least share of tissue in a square.
    """
    taken = np.zeros_like(tissue)
    for box in boxes:
        top, left = max(box.y - margin, 0), max(box.x - margin, 0)
        taken[top : box.y + box.height + margin, left : box.x + box.width + margin] = True
    found: list[Box | None] = []
    for side in sides:
        enough = window_sums(tissue, side) >= least_tissue * side**2
        places = np.argwhere(enough & (window_sums(taken, side) == 0))
        if not len(places):
            found.append(None)
            continue
        y, x = map(int, places[random_state.integers(len(places))])
        taken[y : y + side, x : x + side] = True
        found.append(Box(x, y, side, side))
    return found
