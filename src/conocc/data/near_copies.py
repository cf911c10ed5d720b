"""Images that are the same picture but for a mark, an exposure or a codec.

They tell, where patients are not known, that one is on both sides of a split.

Letters: n images, c channels, h and w pixels, p pixels of a small image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
SIDE = 32  # pixels at which images are compared
WINDOW = 2  # pixels on each side of one, whose mean is taken off it
FLATTEST = 1e-4  # details of an image beside its brightest pixel; less is rounding
# Of 391, 972, 624 and 624 images of four public sets, so many were above: 45, 0, 0 and 0, and none
# of the phantoms. The 45, of ultrasound, are of lesions that have trained too.
ALIKE = 0.9
MOST_IMAGES = 2000  # of a side that are looked at


def near_copies(
    images: Floats, new: npt.NDArray[np.intp], learned: npt.NDArray[np.intp]
) -> dict[int, int]:
    """Give the rows of `new` that have a near copy among the rows of `learned`, with its row.

    That is where the details of the two correlate by more than `ALIKE`, once what is common to
    those that were learned, such as a frame, is taken off. No more than `MOST_IMAGES` on each side
    are looked at, evenly spaced.
    """
    if images.ndim != 4 or not len(new) or not len(learned):
        return {}
    new, learned = (rows[:: -(-len(rows) // MOST_IMAGES)] for rows in (new, learned))
    others, seen = (np.concatenate([details(images[[i]]) for i in rows]) for rows in (new, learned))
    mean = seen.mean(0)
    likeness = (
        unit((others - mean) * others.any(1, keepdims=True))
        @ unit((seen - mean) * seen.any(1, keepdims=True)).T
    )
    best = likeness.argmax(1)
    found = np.flatnonzero(likeness.max(1) > ALIKE)
    return {int(new[i]): int(learned[best[i]]) for i in found}


def details(images: Floats) -> Floats:
    """Describe images by what is brighter than its surroundings; (n, c, h, w) -> (n, p).

    A row has length 1; that of an image without details is of zeros.
    """
    down, across = (
        averaging(np.arange(k) * s // k, np.arange(1, k + 1) * s // k)
        for s, k in ((s, min(SIDE, s)) for s in images.shape[2:])
    )
    small = down @ images.mean(1) @ across.T
    around = [
        averaging(np.maximum(place - WINDOW, 0), np.minimum(place + WINDOW + 1, len(place)))
        for place in map(np.arange, small.shape[1:])
    ]
    rows = (small - around[0] @ small @ around[1].T).reshape(len(small), -1)
    return unit(rows, FLATTEST * np.abs(small).max((1, 2)))


def averaging(first: npt.NDArray[np.intp], end: npt.NDArray[np.intp]) -> Floats:
    """Make the matrix that averages the places from `first` up to `end`.

    >>> averaging(np.array([0, 2]), np.array([2, 4]))
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    place = np.arange(end[-1])
    within = (place >= first[:, None]) & (place < end[:, None])
    return np.asarray(within / within.sum(1, keepdims=True))


def unit(rows: Floats, least: Floats | float = 0.0) -> Floats:
    """Give rows length 1, and zeros where they are no longer than `least`; (n, p) -> the same."""
    length = np.linalg.norm(rows, axis=1)
    return np.asarray(rows / np.where(length > least, length, np.inf)[:, None])
