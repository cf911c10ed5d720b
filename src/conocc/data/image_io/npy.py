"""NPY: NumPy's own format. Pickles are never loaded."""

from __future__ import annotations

import math
from io import BytesIO
from typing import IO, Any, NamedTuple

import numpy as np

from conocc.data.image_io.pixels import ReadError, Remarked, check_shape, check_type, decoding

CHANNELS_FIRST = "three planes that stand first read as the channels of colour"


class Head(NamedTuple):
    """What an array's head says before any of its values is read."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def read_head(file: IO[bytes]) -> Head:
    """Read the head of an NPY file, of any version of the format."""
    version, _ = np.lib.format.read_magic(file)
    head = Head(*getattr(np.lib.format, f"read_array_header_{min(version, 2)}_0")(file))
    if min(head.shape, default=0) < 0:
        raise ValueError(f"a shape of {head.shape}")
    return head


def read_npy(data: bytes) -> Remarked:
    """Read an NPY file of numbers: (h, w), (h, w, 1), (1, h, w), (h, w, 3) or (3, h, w)."""
    stream = BytesIO(data)
    with decoding("its NPY header is"):
        shape, fortran, dtype = head = read_head(stream)
    check_type(dtype)
    if shape[2:] == (1,):
        shape = shape[:2]
    elif len(shape) == 3 and shape[0] == 1 and shape[2] != 3:
        shape = shape[1:]
    is_moved = len(shape) == 3 and shape[0] == 3 and shape[2] != 3
    check_shape(sides := (*shape[1:], 3) if is_moved else shape)
    end = stream.tell() + head.nbytes
    if len(data) != end:
        raise ReadError(
            f"header says {sides[1]}x{sides[0]} {dtype.name} in {end} bytes, file has {len(data)}"
        )
    values = np.ndarray(shape, dtype, data, stream.tell(), order="F" if fortran else "C")
    if is_moved:
        return Remarked(np.moveaxis(values, 0, -1), (CHANNELS_FIRST,))
    return Remarked(values)
