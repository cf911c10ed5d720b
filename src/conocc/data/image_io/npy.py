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
        shape, fortran_order, dtype = head = read_head(stream)
    check_type(dtype)
    # One channel, or three that stand first, are brought to the end.
    channels = 2 if shape[2:] == (1,) else 0
    is_moved = len(shape) == 3 and shape[2] != 3 and shape[channels] in (1, 3)
    if is_moved:
        sides = shape[:channels] + shape[channels + 1 :]
        check_shape(sides if shape[channels] == 1 else (*sides, 3))
    else:
        check_shape(shape)
    end = stream.tell() + head.nbytes
    if len(data) != end:
        raise ReadError(
            f"header says {shape[1]}x{shape[0]} {dtype.name} in {end} bytes, file has {len(data)}"
        )
    values = np.frombuffer(data, dtype, offset=stream.tell())
    values = values.reshape(shape, order="F" if fortran_order else "C")
    if not is_moved:
        return Remarked(values)
    if shape[channels] == 1:
        return Remarked(values.reshape(sides, order="F" if fortran_order else "C"))
    return Remarked(np.moveaxis(values, 0, -1), (CHANNELS_FIRST,))
