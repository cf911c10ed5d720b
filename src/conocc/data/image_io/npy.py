"""NPY: NumPy's own format, read without NumPy's loader."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from conocc.data.image_io.pixels import Pixels, check_shape

_NUMBER = re.compile(r"([<>|=]?(b1|[iu][1248]|f[248]))")
_BECOMES: dict[str, np.dtype[Any]] = {"b1": np.dtype(np.uint8), "f2": np.dtype(np.float32)}


def read_npy(data: bytes) -> Pixels:
    """Read an NPY file of numbers; its header is never evaluated, pickles are never loaded."""
    length_bytes = 2 if data[6] == 1 else 4
    start = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    header = data[8 + length_bytes : min(start, 10_000)].decode("latin-1")
    descr = re.search(r"'descr'\s*:\s*(?:'([^']{0,40})'|\[)", header)
    order = re.search(r"'fortran_order'\s*:\s*(True|False)", header)
    # Python 2 wrote 12L.
    sides = re.search(r"'shape'\s*:\s*\(([\d\s,L]{0,200})\)", header)
    if descr is None or order is None or sides is None:
        raise ValueError("its NPY header is damaged or cut short")
    described = descr[1] or "structured"
    if (number := _NUMBER.fullmatch(described)) is None:
        raise ValueError(
            f"its dtype is {described!r}, not a bool, integer or float of up to 8 bytes "
            "(Python objects are never loaded)"
        )
    shape = tuple(int(side) for side in re.findall(r"\d+", sides[1]))
    check_shape(shape)
    dtype = np.dtype(number[1])
    end = start + math.prod(shape) * dtype.itemsize
    if len(data) != end:
        raise ValueError(
            f"header says {shape[1]}x{shape[0]} {dtype.name} in {end} bytes, "
            f"file has {len(data)} bytes"
        )
    values = np.frombuffer(data, dtype, offset=start)
    image = values.reshape(shape, order="F" if order[1] == "True" else "C")
    becomes: np.dtype[Any] = _BECOMES.get(number[2], dtype.newbyteorder("="))
    return np.ascontiguousarray(image, becomes)
