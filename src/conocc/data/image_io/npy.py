"""NPY: NumPy's own format. Pickles are never loaded."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np

from conocc.data.image_io.pixels import Pixels, UnreadableError, check_shape, decoding


def read_npy(data: bytes) -> Pixels:
    """Read an NPY file of numbers."""
    stream = BytesIO(data)
    with decoding("its NPY header is"):
        version = np.lib.format.read_magic(stream)
        read_header = getattr(np.lib.format, f"read_array_header_{min(version[0], 2)}_0")
        shape, fortran_order, dtype = read_header(stream)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UnreadableError(
            f"its dtype is {dtype.str!r}, not a bool, integer or float of up to 8 bytes "
            "(Python objects are never loaded)"
        )
    check_shape(shape)
    end = stream.tell() + math.prod(shape) * dtype.itemsize
    if len(data) != end:
        raise UnreadableError(
            f"header says {shape[1]}x{shape[0]} {dtype.name} in {end} bytes, "
            f"file has {len(data)} bytes"
        )
    values = np.frombuffer(data, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if fortran_order else "C")
