"""NIfTI-1 and NIfTI-2: a grey volume, turned upright and cut into slices; nibabel reads them.

What is read: the first volume of a file, whose voxels are integers or floats of up to 64 bits,
plain or compressed by gzip. Of a series (time points, weightings) the others are left aside.
Done to values: the header's slope and intercept. A voxel that is NaN, which NIfTI files have where
nothing was measured, takes the lowest value of its volume; an infinite one is refused.

How slices lie, and which are empty, `conocc.data.image_io.stack` says.

No text of the header is quoted.

Letters: x, y, z voxels from left to right, posterior to anterior, inferior to superior.
"""

from __future__ import annotations

import gzip
import math
import re
import threading
from io import BufferedIOBase, BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from conocc.data.image_io.pixels import (
    GZIP,
    LARGEST_VALUE,
    Pixels,
    UnreadableError,
    check_size,
    check_type,
    decoding,
)
from conocc.data.image_io.stack import Stack, StackOptions, stack_of_slices

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

SUFFIXES = (".nii", ".nii.gz")

# Threads that import nibabel at the same time meet it half made.
_IMPORTING = threading.Lock()

# By the size of the header, in either byte order, and the magic word.
SIGNATURE = re.compile(
    rb"(?:\x5c\x01\0\0|\0\0\x01\x5c).{340}n[+i]1\0"
    rb"|(?:\x1c\x02\0\0|\0\0\x02\x1c)n[+i]2\0",
    re.DOTALL,
)

# Room for 512x512x2048 voxels of 32 bits.
MOST_BYTES = 2**31
# Extensions, such as protocols, may stand between the header and the voxels.
LATEST_START = 2**26
# What an image may be meant as, in nibabel's words; not statistics, labels, vectors, surfaces.
IMAGE_INTENTS = ("none", "estimate", "dimensionless", "time series")

LATER_VOLUMES = "volumes after the first, such as time points"
NAN_FILLED = "NaN voxels read as the lowest value of the volume"


class Volume(NamedTuple):
    """A volume, and what was met on the way to it.

    Attributes
    ----------
    voxels : array, shape (x, y, z)
        At the file's own depth where its header rescales nothing, else float32.
    series : int
        How many volumes the file holds; the first is here.
    nan : int
        How many of its voxels were NaN.
    """

    voxels: Pixels
    series: int
    nan: int


def open_nifti(file: BinaryIO, options: StackOptions) -> Stack:
    """Open a NIfTI file as a stack of its slices."""
    volume = read_nifti(file.read(), labels=options.labels)
    left_aside = {LATER_VOLUMES: volume.series - 1} if volume.series > 1 else {}
    remarks = (NAN_FILLED,) if volume.nan else ()
    return stack_of_slices(volume.voxels, options.axis, remarks, left_aside)


def read_nifti(data: bytes, *, labels: bool = False) -> Volume:
    """Read the first volume of a NIfTI file, turned to right, anterior, superior.

    Parameters
    ----------
    data : bytes
        The whole file. Of a compressed one no more is unpacked than its header asks for.
    labels : bool
        Whether it may be meant as labels.

    Raises
    ------
    ValueError
        If it is damaged, cut short or too large; is no image (statistics, labels, surfaces,
        CIFTI); or has colours, complex or infinite voxels, or several values a voxel.
    """
    with _IMPORTING:  # takes a third of a second, for volumes alone
        from nibabel.arrayproxy import ArrayProxy
        from nibabel.orientations import apply_orientation, io_orientation

    compressed = data.startswith(GZIP)
    stream: BufferedIOBase = gzip.GzipFile(fileobj=BytesIO(data)) if compressed else BytesIO(data)
    with decoding("its NIfTI header is"):
        header = _header(stream, labels=labels)
        shape, series = _shape([int(side) for side in header["dim"]])
        dtype, start = header.get_data_dtype(), header.get_data_offset()
        slope, intercept = header.get_slope_inter()
    _check_voxels(shape, dtype)
    after_header = header.sizeof_hdr + 4  # four bytes say whether extensions follow
    if start and not after_header <= start <= LATEST_START:
        raise UnreadableError(f"header says that voxels begin at byte {start}")
    rescaled = slope is not None and (slope, intercept) != (1, 0)
    scaling = (slope, intercept) if rescaled else ()
    with decoding("its voxels are"), np.errstate(all="ignore"):  # what overflows is infinite
        stored = ArrayProxy(stream, (shape, dtype, start or after_header, *scaling))
        # Memory is only claimed; it is taken slice by slice, as bytes come.
        voxels = np.empty(shape, np.float32 if rescaled else dtype.newbyteorder("="), order="F")
        for k in range(shape[2]):
            voxels[..., k] = stored[..., k]
        if compressed:
            stream.read(1)  # at the end of a stream, its checksum is looked at
    voxels, nan = _without_nan(voxels)
    with decoding("the directions of its axes are"), np.errstate(all="ignore"):
        voxels = apply_orientation(voxels, io_orientation(header.get_best_affine()))
    return Volume(voxels, series, nan)


def _header(stream: BufferedIOBase, *, labels: bool) -> Nifti1Header:
    """Read a header, unchecked: nibabel's own checks log, and mend what they find."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    begin = stream.read(4)
    is_second = 540 in (int.from_bytes(begin, "little"), int.from_bytes(begin, "big"))
    kind: Any = Nifti2Header if is_second else Nifti1Header
    block = begin + stream.read(kind.sizeof_hdr - 4)
    header: Nifti1Header = kind(block, check=False)
    magic = bytes(header["magic"])[:3]
    if magic in (b"ni1", b"ni2"):
        raise UnreadableError("its voxels are in another file (.img); save both as one .nii file")
    if magic not in (b"n+1", b"n+2"):
        raise UnreadableError("it is not a NIfTI file: its header has no magic word n+1 or n+2")
    intent = header.get_intent()[0]
    if intent not in IMAGE_INTENTS and not (labels and intent == "label"):
        raise UnreadableError(f"it is meant as {intent!r} (NIfTI's intent), not as an image")
    return header


def _shape(dim: list[int]) -> tuple[tuple[int, int, int], int]:
    """Give the sides of one volume, and how many there are."""
    count = dim[0]
    if not 1 <= count <= 7 or min(dim[1 : count + 1]) < 1:
        raise UnreadableError(f"header says {dim}, which are no sides of a volume")
    x, y, z, series, *values = (*dim[1 : count + 1], *[1] * (7 - count))
    if (several := math.prod(values)) != 1:
        raise UnreadableError(f"it holds {several} values a voxel, where an image has one")
    for width, height in ((x, y), (x, z), (y, z)):
        check_size(width, height)
    return (x, y, z), series


def _check_voxels(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
    check_type(dtype)
    if (voxels := math.prod(shape)) * max(dtype.itemsize, 4) > MOST_BYTES:
        raise UnreadableError(
            f"header says {voxels} voxels of {8 * dtype.itemsize} bits, where at most "
            f"{MOST_BYTES} bytes are read"
        )


def _without_nan(voxels: Pixels) -> tuple[Pixels, int]:
    """Give NaN the lowest value; return how many there were."""
    if voxels.dtype.kind != "f":
        return voxels, 0
    if infinite := int(np.isinf(voxels).sum()):
        raise UnreadableError(f"{infinite} of {voxels.size} voxels are infinite")
    missing = np.isnan(voxels)
    nan = int(missing.sum())
    if nan == voxels.size:
        raise UnreadableError(f"all of its {nan} voxels are NaN")
    if nan:
        voxels = np.where(missing, np.nanmin(voxels), voxels)
    if (highest := float(np.abs(voxels).max())) > LARGEST_VALUE:
        raise UnreadableError(f"its values reach {highest:g}, beyond ±{LARGEST_VALUE:g}")
    return voxels, nan
