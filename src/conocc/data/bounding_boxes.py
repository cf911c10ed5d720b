"""Where patches lie: squares around boxes, and others in the tissue outside them.

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
    named = f"the box {box.x},{box.y} of {box.width}x{box.height} pixels"
    if box.width < 1 or box.height < 1:
        raise ValueError(f"{named} is empty")
    if box.x < 0 or box.y < 0 or box.x + box.width > w or box.y + box.height > h:
        raise ValueError(f"{named} leaves the image, which has {w}x{h}")
    side = max(box.width, box.height) + 2 * margin
    if side > min(h, w):
        raise ValueError(
            f"the square of {side} pixels around {named} is larger than the image, {w}x{h}"
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
    from skimage.measure import label, regionprops

    parts = regionprops(label(mask != 0, connectivity=2))
    corners = [part.bbox for part in parts if part.area >= min_area]
    return [Box(left, top, right - left, low - top) for top, left, low, right in corners]


# Places outside


def window_sums(chosen: Bools, side: int) -> npt.NDArray[np.int64]:
    """Count the chosen pixels in each square; (h, w) -> (h - side + 1, w - side + 1).

    >>> window_sums(np.array([[1, 0, 1], [0, 0, 1]], bool), 2)
    array([[1, 2]])
    """
    sums = np.pad(chosen.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows: npt.NDArray[np.int64] = sums[side:] - sums[:-side]
    return rows[:, side:] - rows[:, :-side]


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
