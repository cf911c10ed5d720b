"""PGM and PPM: a header in words, and numbers."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from conocc.data.image_io.pixels import Pixels, check_size, native

_HEADER = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\r\n]*[\r\n])++(\d{1,10})" + rb"\s")


def read_pnm(data: bytes) -> Pixels:
    """Read a PGM or PPM file (P2, P3, P5, P6) as its numbers are, whatever its maximum."""
    header = _HEADER.match(data)
    if header is None:
        raise ValueError("its PNM header is damaged or cut short")
    kind, width, height, maximum = map(int, header.groups())
    check_size(width, height)
    if not 1 <= maximum <= 65535:
        raise ValueError(f"header says a maximum of {maximum}, which must be from 1 to 65535")
    colour, binary = kind in (3, 6), kind in (5, 6)
    dtype = np.dtype(np.uint8 if maximum < 256 else np.uint16)
    shape = (height, width, 3) if colour else (height, width)
    count, start = math.prod(shape), header.end()
    stated = f"{width}x{height} {8 * dtype.itemsize}-bit{' colour' if colour else ''}"
    if binary:
        end = start + count * dtype.itemsize
        if len(data) < end:
            raise ValueError(f"header says {stated}, file has {len(data)} bytes")
        if data[end:].lstrip().startswith(data[:2]):
            raise ValueError("it holds more than 1 image; save each as a file of its own")
        values = native(np.frombuffer(data, dtype.newbyteorder(">"), count, start))
    else:
        values = _ascii_numbers(data[start:])
        if len(values) != count:
            raise ValueError(f"header says {stated}, file has {len(values)} numbers")
    if (largest := int(values.max())) > maximum:
        raise ValueError(f"header says a maximum of {maximum}, file has the value {largest}")
    return values.astype(dtype, copy=False).reshape(shape)


def _ascii_numbers(text: bytes) -> NDArray[np.int64]:
    if not text[-1:].isspace():
        raise ValueError("it ends in a number without a line break, which may be cut short")
    # NumPy warns where it meets anything else.
    if foreign := text.translate(None, b"0123456789 \t\r\n\v\f"):
        raise ValueError(f"its PNM numbers hold {foreign[:1]!r}")
    return np.fromstring(text, np.int64, sep=" ")
