"""What a detector takes in: images and vectors, checked, recognised and normalised.

Letters: n images, c channels, h and w pixels, d features of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_consistent_length
from torch import Tensor

from conocc.data.image_io.pixels import LARGEST_VALUE

SMALLEST_SIDE = 16
IMAGE_CHANNELS = (1, 3)
CHECK_ROWS = 256  # how many images are validated at once


# --- intensities -------------------------------------------------------------------------------


def minmax(x: Tensor) -> Tensor:
    """Scale each image to [0, 1]; a constant one becomes zero; (n, c, h, w) -> the same."""
    low = x.amin((1, 2, 3), keepdim=True)
    spread = x.amax((1, 2, 3), keepdim=True) - low
    return (x - low) / torch.where(spread > 0, spread, 1.0)


def zscore(x: Tensor) -> Tensor:
    """Give each image mean 0 and deviation 1; a constant one becomes zero; (n, c, h, w).

    Taken on [0, 1], so that neither a large offset nor denormal pixels leave rounding noise
    that the division would blow up.
    """
    x = minmax(x)
    x = x - x.mean((1, 2, 3), keepdim=True)
    deviation = x.square().mean((1, 2, 3), keepdim=True).sqrt()
    return x / torch.where(deviation > 0, deviation, 1.0)


def unchanged(x: Tensor) -> Tensor:
    """Leave intensities as they are."""
    return x


NORMALIZE: dict[str, Callable[[Tensor], Tensor]] = {
    "zscore": zscore,
    "minmax": minmax,
    "none": unchanged,
}


def feature_scale(X: np.ndarray, normalize: str) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale of each feature of the training vectors; (n, d) -> (d,), (d,).

    Vectors are standardised by feature, not each by itself: their entries have units of their own.
    """
    d = X.shape[1]
    if normalize == "zscore":
        offset, scale = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
    elif normalize == "minmax":
        offset = X.min(0).astype(np.float64)
        scale = X.max(0) - offset
    else:
        offset, scale = np.zeros(d), np.ones(d)
    return offset, np.where(scale > 0, scale, 1.0)


# --- validation --------------------------------------------------------------------------------


def checked_images(X: np.ndarray) -> np.ndarray:
    """Validate images and view them as (n, c, h, w), without a copy.

    Raises
    ------
    ValueError
        For a shape that is not (n, h, w) or (n, c, h, w) with 1 or 3 channels and sides from 16,
        for a type that is not real, for NaN, infinite or absurd pixels.
    """
    if X.dtype.kind not in "buif":
        raise ValueError(f"Images must be real numbers; got an array of {X.dtype}.")
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
    if X.dtype.kind == "f":
        for start in range(0, n, CHECK_ROWS):
            _refuse_unusable(X[start : start + CHECK_ROWS], start)
    return X


def _refuse_unusable(block: np.ndarray, start: int) -> None:
    # One pass when all is well: NaN fails the comparison too.
    usable = np.abs(block) <= _largest(block.dtype)
    if not usable.all():
        i = int(np.flatnonzero(~usable.all(axis=(1, 2, 3)))[0])
        value = block[i][~usable[i]][0]
        raise ValueError(
            f"Image {start + i} of X has a pixel of {value}; "
            f"pixels must be finite, and at most {LARGEST_VALUE:g} in size."
        )


def refuse_huge(array: np.ndarray) -> None:
    """Refuse vectors with a value that float32, squared and summed, cannot hold; (n, d)."""
    if array.dtype.kind == "f" and np.abs(array).max(initial=0) > _largest(array.dtype):
        raise ValueError(f"X has a value beyond {LARGEST_VALUE:g}, too large for float32.")


def _largest(dtype: np.dtype[Any]) -> float:
    # As a float16, `LARGEST_VALUE` would be infinite.
    return min(LARGEST_VALUE, float(np.finfo(dtype).max))


def refuse_masked(X: Any) -> None:
    """Refuse masked arrays, whose mask nothing here would heed."""
    if any(isinstance(x, np.ma.MaskedArray) for x in (X, *(X if isinstance(X, list) else ()))):
        raise ValueError(
            "X is a masked array, and its mask would be lost. Pass X.filled(value) with the value "
            "that masked pixels are to have, or X.data."
        )


def refuse_minority(X: np.ndarray, y: Any) -> None:
    """Refuse images that `y` marks as minority, −1; (n, ...), (n,) or None."""
    if y is None:
        return
    check_consistent_length(X, y)
    count = int(np.sum(np.asarray(y) == -1))
    if count:
        raise ValueError(
            f"y marks {count} of {len(X)} images as minority (-1); "
            "only images of the majority class are taken."
        )


# --- identity ----------------------------------------------------------------------------------


def _hashes(texts: Iterable[bytes]) -> np.ndarray:
    joined = b"".join(hashlib.sha256(text).digest()[:16] for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, 16)


def digests(X: np.ndarray) -> np.ndarray:
    """Hash each image with its type and shape; (n, ...) -> (n, 16) uint8."""
    about = f"{X.dtype.str} {X.shape[1:]}".encode()
    return _hashes(about + np.ascontiguousarray(row).tobytes() for row in X)


def group_digests(groups: Iterable[Any]) -> np.ndarray:
    """Hash the names of groups (patients); (n,) -> (n, 16) uint8."""
    return _hashes(str(group).encode() for group in groups)


def patients_of(X: np.ndarray, groups: Any) -> np.ndarray:
    """Hash each of the groups (patients) of `X` once; (n,) or None -> (p, 16) uint8."""
    if groups is None:
        return group_digests(())
    check_consistent_length(X, groups)
    return group_digests(sorted({str(group) for group in groups}))


def among(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Tell which hashes are among the known ones; (n, 16), (m, 16) -> (n,) bool."""
    known_hashes = {row.tobytes() for row in known}
    return np.array([row.tobytes() in known_hashes for row in rows], dtype=bool)
