"""Pixels of DICOM that hold no image: padding by the header, and the outside of a CT's circle.

They take the value that looks most as the same image without padding would: in CT that of air;
else the darkest that is real, or the brightest, if what lies beside them is. Declared numbers are
compared bit by bit, since some headers write them with a sign where pixels have none, or the other
way round.

Letters: h and w pixels.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from conocc.data.image_io.dicom_header import number, text
from conocc.data.image_io.dicom_pixels import Stored
from conocc.data.image_io.pixels import Pixels

KEYWORDS = """
PixelPaddingValue PixelPaddingRangeLimit FloatPixelPaddingValue FloatPixelPaddingRangeLimit
DoubleFloatPixelPaddingValue DoubleFloatPixelPaddingRangeLimit LossyImageCompression RescaleType
"""
PADDED = "padding, which holds no image, read as air in CT and as background elsewhere"
_LEAST_HU, _AIR = -1024, -1000
# Numbers are sorted into bins by how far they are from padding; a bin with less than this share of
# the pixels is empty. Loss strays over a few bins, measured: JPEG of quality 75 over one.
_BINS, _EMPTY, _STRAYING = 64, 0.001, 4
_BLOCK = 8  # pixels that loss reaches
_NEAR = 1 / 8  # what lies beside padding is the brightest, if it is so much nearer than the darkest


def without_padding(
    ds: Dataset, stored: Stored, values: Pixels, *, brightest_is_low: bool
) -> Pixels | None:
    """Fill the padding of what is `stored` in its rescaled `values`, (h, w); None without any.

    Raises
    ------
    ValueError
        If all is padding.
    """
    padded = _declared(ds, stored)
    is_ct = text(ds, "Modality") == "CT" or "CT Image" in UID(text(ds, "SOPClassUID")).name
    if is_ct := is_ct and text(ds, "RescaleType") in ("", "HU", "US"):
        padded = padded | (values < _LEAST_HU)
    if not padded.any():
        return None
    if padded.all():
        raise ValueError("all of its pixels are padding, which holds no image")
    real = values[~padded]
    if is_ct:
        return np.where(padded, max(real.min(), _AIR), values).astype(values.dtype)
    dark, bright = (real.max(), real.min()) if brightest_is_low else (real.min(), real.max())
    beside = float(np.median(values[_grown(padded, 1) & ~padded]))
    if abs(beside - bright) < _NEAR * abs(beside - dark):
        dark = bright
    return np.where(padded, dark, values)


def _declared(ds: Dataset, stored: Stored) -> Pixels:
    """Find the pixels that are padding by the header, (h, w) of bool.

    Where padding is apart from the image, all that has a declared number is; after compression with
    loss, also what is nearer to it than to the image and reaches the border. Where the numbers go
    on beside it, pixels of the image may have it by chance, and only what reaches the border is.
    """
    image, ends = stored.pixels, _ends(ds, stored.pixels.dtype, stored.limits)
    if not ends:
        image, ends = stored.whole, _ends(ds, stored.whole.dtype, None)
    if not ends:
        return np.zeros(image.shape, bool)
    low, high = min(ends), max(ends)
    if image.dtype.kind == "f":
        padded: Pixels = (image >= low) & (image <= high)
        return padded
    distance = np.maximum(low - image.astype(np.float64), image.astype(np.float64) - high).clip(0)
    padded = distance == 0
    reach = float(np.percentile(distance, 99.5))
    if not reach:
        return padded
    bins = (distance * (_BINS / reach)).astype(np.int64).clip(0, _BINS - 1)
    share = np.bincount(bins.ravel(), minlength=_BINS) / bins.size
    share[0] -= padded.mean()
    empty = int(np.argmin(share[1:] >= _EMPTY)) + 1
    image_from = empty + int(np.argmax(share[empty:] >= _EMPTY))
    if stored.lossy or text(ds, "LossyImageCompression") == "01":
        if empty <= _STRAYING:
            # Not the air beside it, which is as near in some images.
            close = _grown(4 * _BINS * distance <= reach, _BLOCK)
            return _at_border(close & (2 * bins < empty + image_from))
    elif empty == 1 and share[0] < _EMPTY:
        return padded
    return _at_border(padded)


def _ends(ds: Dataset, dtype: np.dtype[Any], limits: tuple[float, float] | None) -> list[float]:
    """Give the one or two declared numbers as pixels of `dtype` have them, within `limits`.

    None where one is missing, or no such pixel can be.
    """
    kind = "" if dtype.kind in "iu" else "Float" if dtype.itemsize == 4 else "DoubleFloat"
    least, most = limits or ((0, 0) if kind else (np.iinfo(dtype).min, np.iinfo(dtype).max))
    found: list[float] = []
    for word in ("Value", "RangeLimit"):
        keyword = f"{kind}PixelPadding{word}"
        value = _number(ds, keyword) if keyword in ds else None
        if kind and value is not None:
            found.append(value)
        elif value is not None:
            bits = int(value) % 2 ** (8 * dtype.itemsize)
            # As it is, with a sign that its bits have in all that are stored, or in those kept.
            ways = (bits, bits - 2 ** (8 * dtype.itemsize), bits - int(most - least + 1))
            fitting = [way for way in ways if least <= way <= most]
            if not fitting:
                return []
            found.append(fitting[0])
        elif word == "Value":
            return []
    return found


def _number(ds: Dataset, keyword: str) -> float | None:
    """Read a declared number, of whole numbers the bits; None where it is damaged."""
    element: Any = ds.get_item(keyword)
    with suppress(Exception):
        if not keyword.startswith("Pixel") or element.VR in ("IS", "DS"):
            return number(ds, keyword)
        return int.from_bytes(element.value, "little" if element.is_little_endian else "big")
    return None


def _grown(mask: Pixels, by: int) -> Pixels:
    """Grow a mask, (h, w) of bool, by so many pixels."""
    from scipy.ndimage import maximum_filter

    grown: Pixels = maximum_filter(mask, 2 * by + 1)
    return grown


def _at_border(mask: Pixels) -> Pixels:
    """Keep the regions of a mask, (h, w) of bool, that reach its border."""
    from skimage.measure import label

    regions = label(mask, connectivity=2)
    edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    kept: Pixels = np.isin(regions, edge[edge > 0])
    return kept
