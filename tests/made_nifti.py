"""NIfTI files made by hand, byte for byte, so that what they hold is known."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

# Of the header: NIFTI_TYPE_….
CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768}
CODES |= {"i8": 1024, "u8": 1280}
# Rows of the affine of voxels that lie as they are read: right, anterior, superior.
RAS = np.eye(3, 4)


def nifti(
    voxels: np.ndarray,
    *,
    affine: np.ndarray = RAS,
    slope: float = 0.0,
    intercept: float = 0.0,
    intent: int = 0,
    order: str = "<",
    version: int = 1,
    dim: tuple[int, ...] | None = None,
    code: int | None = None,
    start: float | None = None,
    magic: bytes = b"",
    sform: bool = True,
    compressed: bool = False,
) -> bytes:
    """A NIfTI file of `voxels`, (x, y, z) or more, in Fortran's order as the standard has it."""
    kind = voxels.dtype.str[1:]
    sides = [voxels.ndim, *voxels.shape] if dim is None else list(dim)
    sides += [1] * (8 - len(sides))
    code = CODES[kind] if code is None else code
    bits = 8 * voxels.dtype.itemsize
    header = bytearray(348 if version == 1 else 540)
    start = start if start is not None else len(header) + 4
    if version == 1:
        struct.pack_into(order + "i", header, 0, 348)
        struct.pack_into(order + "8h", header, 40, *sides)
        struct.pack_into(order + "3h", header, 68, intent, code, bits)
        struct.pack_into(order + "3f", header, 108, start, slope, intercept)
        struct.pack_into(order + "h", header, 254, int(sform))
        struct.pack_into(order + "12f", header, 280, *np.asarray(affine).ravel())
        header[344:348] = (magic or b"n+1").ljust(4, b"\0")
    else:
        struct.pack_into(order + "i", header, 0, 540)
        header[4:12] = (magic or b"n+2\0\r\n\x1a\n").ljust(8, b"\0")
        struct.pack_into(order + "2h", header, 12, code, bits)
        struct.pack_into(order + "8q", header, 16, *sides)
        struct.pack_into(order + "q", header, 168, int(start))
        struct.pack_into(order + "2d", header, 176, slope, intercept)
        struct.pack_into(order + "i", header, 348, int(sform))
        struct.pack_into(order + "12d", header, 400, *np.asarray(affine).ravel())
        struct.pack_into(order + "i", header, 504, intent)
    raw = voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    data = bytes(header) + bytes(4) + raw
    return gzip.compress(data, mtime=0) if compressed else data


def write_volume(path: Path, *, seed: int = 0, shape: tuple[int, int, int] = (18, 20, 6)) -> Path:
    """Write a volume of 16-bit noise, whose first and last axial slices are empty."""
    voxels = np.random.default_rng(seed).integers(500, 4000, shape).astype(np.int16)
    voxels[..., [0, -1]] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(nifti(voxels, compressed=path.suffix == ".gz"))
    return path
