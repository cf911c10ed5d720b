"""NIfTI-1 and NIfTI-2: a grey volume, turned upright and cut into slices; nibabel reads them.

What is read: the first volume of a file, whose voxels are integers or floats of up to 64 bits,
plain or compressed by gzip. Of a series (time points, weightings) the others are left aside.
Done to values: the header's slope and intercept. A voxel that is NaN, which NIfTI files have where
nothing was measured, takes the lowest value of its volume; an infinite one is refused.

How slices lie: the volume is turned to the nearest of the axes left to right, posterior to
anterior, inferior to superior, by the header's affine; voxel sizes are not looked at. Slices are
counted from 0, from the inferior end (axial), the posterior (coronal) or the left (sagittal). They
are shown as radiologists do, and as DICOM files lie: anterior or superior is up, the patient's
right is on the left, and anterior is on the left of a sagittal slice.

No text of the header is quoted.

Letters: x, y, z voxels from left to right, posterior to anterior, inferior to superior; h and w
pixels; k the number of a slice.
"""

from __future__ import annotations

import gzip
import math
import re
from io import BufferedIOBase, BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from conocc.data.image_io.pixels import (
    LARGEST_VALUE,
    Pixels,
    UnreadableError,
    check_size,
    decoding,
)

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

SUFFIXES = (".nii", ".nii.gz")

# By gzip alone, or by the size of the header, in either byte order, and the magic word.
_GZIP = b"\x1f\x8b"
SIGNATURE = re.compile(
    rb"\x1f\x8b"
    rb"|(?:\x5c\x01\0\0|\0\0\x01\x5c).{340}n[+i]1\0"
    rb"|(?:\x1c\x02\0\0|\0\0\x02\x1c)n[+i]2\0",
    re.DOTALL,
)

# Room for 512x512x2048 voxels of 32 bits.
MOST_BYTES = 2**31
# Extensions, such as protocols, may stand between the header and the voxels.
LATEST_START = 2**26
# What an image may be meant as, in nibabel's words; not statistics, labels, vectors, surfaces.
IMAGE_INTENTS = ("none", "estimate", "dimensionless", "time series")

# A slice with less than this share of voxels above the background is empty.
LEAST_FOREGROUND = 0.05
# The background ends this share of the way from the lowest value to the 99th percentile.
BACKGROUND = 0.1
_SAMPLE = 2**20  # voxels that the percentile is taken of, evenly spaced


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


def read_whole(data: bytes) -> NoReturn:
    """Refuse to take a volume for one image."""
    if not data.startswith(_GZIP):
        raise ValueError("it is a NIfTI volume, whose name must end in .nii or .nii.gz")
    raise ValueError("it is compressed by gzip; a NIfTI volume's name must end in .nii.gz")


def read_nifti(data: bytes) -> Volume:
    """Read the first volume of a NIfTI file, turned to right, anterior, superior.

    Parameters
    ----------
    data : bytes
        The whole file. Of a compressed one no more is unpacked than its header asks for.

    Raises
    ------
    ValueError
        If it is damaged, cut short or too large; is no image (statistics, labels, surfaces,
        CIFTI); or has colours, complex or infinite voxels, or several values a voxel.
    """
    from nibabel.arrayproxy import ArrayProxy  # takes a third of a second, for volumes alone
    from nibabel.orientations import apply_orientation, io_orientation

    compressed = data.startswith(_GZIP)
    stream: BufferedIOBase = gzip.GzipFile(fileobj=BytesIO(data)) if compressed else BytesIO(data)
    with decoding("its NIfTI header is"):
        header = _header(stream)
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


def _header(stream: BufferedIOBase) -> Nifti1Header:
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
    if (intent := header.get_intent()[0]) not in IMAGE_INTENTS:
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
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        kind = "colours" if dtype.names else dtype.name
        raise UnreadableError(f"its voxels are {kind}, not integers or floats of up to 64 bits")
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


# Slices

# The axis of the volume along which slices lie, and how one is shown: (h, w).
AXES: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


def cut(voxels: Pixels, axis: str, k: int) -> Pixels:
    """Cut slice `k` out of a volume, C-contiguous; (x, y, z) -> (h, w).

    >>> volume = np.arange(8).reshape(2, 2, 2)  # x, y, z from the binary digits
    >>> cut(volume, "axial", 1)  # above: anterior; on the left: right
    array([[7, 3],
           [5, 1]])
    """
    lying = np.moveaxis(voxels, AXES[axis], 0)[k]
    return np.ascontiguousarray(lying.T[::-1, ::-1])


def slices_with_content(voxels: Pixels, axis: str) -> list[int]:
    """Return the numbers of the slices that are not empty.

    One is empty where less than a share of `LEAST_FOREGROUND` of its voxels is above the
    background, which ends a share of `BACKGROUND` of the way from the volume's lowest value to
    its 99th percentile.

    >>> voxels = np.zeros((4, 4, 3))
    >>> voxels[..., 1] = 7
    >>> slices_with_content(voxels, "axial")
    [1]
    """
    low = voxels.min()
    step = math.ceil((voxels.size / _SAMPLE) ** (1 / 3))
    high = np.percentile(voxels[::step, ::step, ::step], 99)
    edge = float(low) + BACKGROUND * (float(high) - float(low))
    others = tuple(other for other in range(3) if other != AXES[axis])
    foreground = (voxels > edge).mean(axis=others)
    return np.flatnonzero(foreground >= LEAST_FOREGROUND).tolist()


# Names

_NAMED = re.compile(r"(.+\.nii(?:\.gz)?)\[(\d{1,9})\]", re.IGNORECASE | re.DOTALL)


def is_volume_name(path: str) -> bool:
    """Say whether a path ends as NIfTI files do."""
    return path.lower().endswith(SUFFIXES)


def is_slice_name(path: str) -> bool:
    """Say whether a path is that of one slice of a volume."""
    return _NAMED.fullmatch(path) is not None


def slice_name(path: str, k: int) -> str:
    """Name slice `k` of the volume at `path`.

    >>> slice_name("brains/sub-01.nii.gz", 12)
    'brains/sub-01.nii.gz[12]'
    """
    return f"{path}[{k}]"


def volume_and_slice(name: str) -> tuple[str, int | None]:
    """Take a name apart again; None where it is not that of a slice.

    >>> volume_and_slice("brains/sub-01.nii.gz[12]")
    ('brains/sub-01.nii.gz', 12)
    >>> volume_and_slice("film[2].png")
    ('film[2].png', None)
    """
    found = _NAMED.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)
