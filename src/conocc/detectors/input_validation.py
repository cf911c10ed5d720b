"""What a detector takes in: images and vectors, checked, recognised and normalised.

Letters: n images, c channels, h and w pixels, d features of a vector.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conocc.data.image_io.pixels import LARGEST_VALUE
from conocc.io.words import count
from conocc.metrics.ranking import column, group_names, marked

logger = logging.getLogger("conocc")

SMALLEST_SIDE = 16
IMAGE_CHANNELS = (1, 3)
OFFSET_SHARE = 1e-3  # of the largest value: what varies less loses digits as float32
CHECK_ROWS = 256  # how many images are validated at once


# --- intensities -------------------------------------------------------------------------------


def minmax(x: Tensor) -> Tensor:
    """Scale each image to [0, 1]; a constant one becomes zero; (n, c, h, w) -> the same."""
    low = x.amin((1, 2, 3), keepdim=True)
    return (x - low) / nonzero(x.amax((1, 2, 3), keepdim=True) - low)


def zscore(x: Tensor) -> Tensor:
    """Give each image mean 0 and deviation 1; a constant one becomes zero; (n, c, h, w).

    Taken on [0, 1], so that neither a large offset nor denormal pixels leave rounding noise
    that the division would blow up.
    """
    x = centered(minmax(x))
    return x / nonzero(x.square().mean((1, 2, 3), keepdim=True).sqrt())


def centered(x: Tensor) -> Tensor:
    """Take its mean from each image; (n, c, h, w) -> the same."""
    return x - x.mean((1, 2, 3), keepdim=True)


def nonzero(scale: Tensor) -> Tensor:
    """Put 1 where there is nothing to divide by."""
    return torch.where(scale > 0, scale, 1.0)


def unchanged(x: Tensor) -> Tensor:
    """Leave intensities as they are."""
    return x


NORMALIZE = {"zscore": zscore, "minmax": minmax, "none": unchanged}


def feature_scale(X: np.ndarray, normalize: str) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale of each feature of the training vectors; (n, d) -> (d,), (d,).

    Vectors are standardised by feature, not each by itself: their entries have units of their own.
    """
    if normalize == "none":
        return np.zeros(X.shape[1:]), np.ones(X.shape[1:])
    if normalize == "zscore":
        offset, scale = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
    else:
        offset = X.min(0).astype(np.float64)
        scale = X.max(0) - offset
    return offset, np.where(scale > 0, scale, 1.0)


# --- validation --------------------------------------------------------------------------------


def as_array(X: Any) -> np.ndarray:
    """Make an array of what a user has: also tensors, of any device, with or without gradients."""
    try:
        if isinstance(X, Tensor):
            X = X.detach().cpu()
            X = X.float() if X.dtype == torch.bfloat16 else X
        is_column = isinstance(getattr(X, "dtype", None), np.dtype) and X.dtype == object
        array: np.ndarray = np.asanyarray(X.tolist() if is_column else X)  # of images, maybe
    except (TypeError, ValueError, RuntimeError) as error:  # of several sizes, or no numbers
        raise ValueError(f"X is no array of images of one size, or of vectors: {error}") from None
    if array.ndim < 2 and array.dtype.kind in "OUS":
        raise ValueError(
            "X must be numbers, (n, h, w) or (n, c, h, w) of images or (n, d) of vectors. Got "
            f"{type(X).__name__} instead. 'score_files' takes paths of files."
        )
    if array.ndim > 4:
        raise ValueError(
            f"X has shape {array.shape}; it must be (n, h, w) or (n, c, h, w) of images, or (n, d) "
            "of vectors. Slices of volumes are images."
        )
    return array


def checked_images(X: np.ndarray) -> np.ndarray:
    """Validate images and view them as (n, c, h, w), without a copy.

    Raises
    ------
    ValueError
        For a shape that is not (n, h, w) or (n, c, h, w) with 1 or 3 channels and sides from 16,
        for a type that is not real, for NaN, infinite or absurd pixels.
    """
    X = X[:, None] if X.ndim == 3 else X
    n, c, h, w = X.shape
    if c not in IMAGE_CHANNELS and w in IMAGE_CHANNELS:
        raise ValueError(
            f"X has shape {X.shape}, which looks like channels last. "
            "Pass X.transpose(0, 3, 1, 2): channels come before rows and columns."
        )
    if c not in IMAGE_CHANNELS:
        raise ValueError(f"Images have 1 or 3 channels; X has shape {X.shape}, {c} channels.")
    if min(h, w) < SMALLEST_SIDE:
        raise ValueError(f"Images must be at least {SMALLEST_SIDE} pixels a side; got {h}x{w}.")
    if n == 0:
        raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}): there is no image.")
    refuse_unusable(X)
    return X


def refuse_unusable(X: np.ndarray) -> None:
    """Refuse NaN, infinite values, and what float32, squared and summed, cannot hold; (n, ...)."""
    if X.dtype.kind not in "buif":
        raise ValueError(f"X must hold real numbers; got an array of {X.dtype}.")
    if X.dtype.kind != "f":
        return
    largest = min(LARGEST_VALUE, float(np.finfo(X.dtype).max))  # no float16 is as large
    for start in range(0, len(X), CHECK_ROWS):
        rows = X[start : start + CHECK_ROWS]
        # One pass when all is well: NaN fails the comparison too.
        usable = np.abs(rows) <= largest
        if not usable.all():
            i = int(np.flatnonzero(~usable.reshape(len(rows), -1).all(1))[0])
            raise ValueError(
                f"Row {start + i} of X has a value of {rows[i][~usable[i]][0]}; "
                f"values must be finite, and at most {LARGEST_VALUE:g} in size."
            )


def warn_of_constant(X: np.ndarray) -> None:
    """Say how many images have one value in all pixels; vectors may; (n, ...)."""
    constant = sum(image.min() == image.max() for image in X) if X.ndim == 4 else 0
    if constant:
        logger.warning(
            f"{constant} of {len(X)} images have one value in all pixels: they are no evidence, "
            "and their scores tell nothing. Leave them out."
        )


def refuse_masked(X: Any) -> None:
    """Refuse masked arrays, whose mask nothing here would heed."""
    if any(isinstance(x, np.ma.MaskedArray) for x in (X, *(X if isinstance(X, list) else ()))):
        raise ValueError(
            "X is a masked array, and its mask would be lost. Pass X.filled(value) with the value "
            "that masked pixels are to have, or X.data."
        )


def majority_only(
    X: np.ndarray, y: Any, groups: Any, *, refuse: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Leave out images that `y` marks as minority, −1, or refuse them; say so of other labels.

    True and False are refused, since which of them is the minority nobody knows.

    (n, ...), (n,) or None, (n,) or None -> (m, ...), (m,) or None
    """
    patients = None if groups is None else column("groups", groups, len(X))
    if y is None:
        return X, patients
    if {str(one).lower() for one in np.asarray(y, object).flat} & {"true", "false"}:
        raise ValueError(
            "y holds True or False, which do not say which class is meant. Mark images of the "
            "minority by -1 and others by 1: np.where(is_minority, -1, 1)."
        )
    y = column("y", y, len(X))
    minority = marked(y)
    said = f"y marks {minority.sum()} of {count(len(X), 'image')} as minority (-1)"
    if minority.any() and refuse:
        raise ValueError(f"{said}; only images of the majority class are taken.")
    if minority.any():
        logger.warning(f"{said}; they are left out.")
        return X[~minority], None if patients is None else patients[~minority]
    if len(values := sorted(set(y.tolist()), key=str)) == 2:
        logger.warning(
            f"y has the values {values[0]!r} and {values[1]!r}, of which neither is -1, the mark "
            "of the minority: all images are taken as majority."
        )
    return X, patients


# --- identity ----------------------------------------------------------------------------------


def _hashes(texts: Iterable[bytes]) -> np.ndarray:
    joined = b"".join(hashlib.sha256(text).digest()[:16] for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, 16)


def digests(X: np.ndarray) -> np.ndarray:
    """Hash the values of each image, whatever their type, and its shape; (n, ...) -> (n, 16) uint8.

    As float32, to which images are often cast; where little varies on a large offset, as float64.
    """
    about = f"{X.shape[1:]}".encode()

    def values(row: np.ndarray) -> bytes:
        low, high = float(row.min()), float(row.max())
        kept = np.float32 if high - low > OFFSET_SHARE * max(-low, high) else np.float64
        return (row.astype(kept, order="C") + 0).tobytes()  # -0.0 is 0.0

    return _hashes(about + values(row) for row in X)


def group_digests(groups: Iterable[Any]) -> np.ndarray:
    """Hash the names of groups (patients); (n,) -> (n, 16) uint8."""
    return _hashes(name.encode() for name in group_names(groups))


def patients_of(groups: Any) -> np.ndarray:
    """Hash each of the groups (patients) once; (n,) or None -> (p, 16) uint8."""
    return group_digests(sorted(set(group_names(() if groups is None else groups))))


def among(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Tell which hashes are among the known ones; (n, 16), (m, 16) -> (n,) bool."""
    return np.isin(rows.view("V16")[:, 0], known.view("V16")[:, 0])
