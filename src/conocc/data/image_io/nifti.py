"""NIfTI-1 and NIfTI-2: a grey volume, turned upright and cut into slices; nibabel reads headers.

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
import importlib
import math
import re
import zlib
from io import BufferedIOBase, BytesIO
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from conocc.data.image_io.pixels import LARGEST_VALUE, Pixels, check_size

SUFFIXES = (".nii", ".nii.gz")

# By gzip alone, or by the size of the header, in either byte order, and the magic word.
_GZIP = b"\x1f\x8b"
SIGNATURE = re.compile(
    rb"\x1f\x8b"
    rb"|(?:\x5c\x01\0\0|\0\0\x01\x5c).{340}n[+i]1\0"
    rb"|(?:\x1c\x02\0\0|\0\0\x02\x1c)n[+i]2\0",
    re.DOTALL,
)
# How nibabel calls a header of so many bytes.
_HEADERS = {348: "Nifti1Header", 540: "Nifti2Header"}

# Room for 512x512x2048 voxels of 32 bits.
MOST_BYTES = 2**31
# Extensions, such as protocols, may stand between the header and the voxels.
_LATEST_START = 2**26
_CHUNK = 2**24

# The intents (NIFTI_INTENT_…) that images have: none, an estimate, a number without a unit, time.
_IMAGES = {0, 1001, 1011, 2001}
_NO_IMAGES = {
    range(2, 25): "a map of a statistic",
    range(1002, 1004): "a map of labels",
    range(1004, 1008): "a field of matrices or vectors",
    range(1008, 1011): "a surface",
    range(2002, 2006): "a surface or a colour of each of its nodes",
    range(2006, 2020): "a field of displacements",
    range(3000, 3100): "a CIFTI file of connectivity",
}

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
        CIFTI); has colours, complex or infinite voxels, or several values a voxel; or if nibabel
        is missing.
    """
    compressed = data.startswith(_GZIP)
    stream: BufferedIOBase = gzip.GzipFile(fileobj=BytesIO(data)) if compressed else BytesIO(data)
    header = _read_header(stream)
    size = math.prod(header.shape) * header.dtype.itemsize
    packed = _read(stream, size)
    if len(packed) < size:
        have = "file" if not compressed else "unpacked file"
        sides = "x".join(map(str, header.shape))
        raise ValueError(
            f"header says {sides} {8 * header.dtype.itemsize}-bit, {size} bytes of voxels, "
            f"{have} has {len(packed)}"
        )
    if compressed:
        _read(stream, 1)  # at the end of a stream, its checksum is looked at
    stored = np.frombuffer(packed, header.dtype).reshape(header.shape, order="F")
    voxels, nan = _without_nan(_rescaled(stored, header.slope, header.intercept))
    return Volume(_turned(voxels, header.affine), header.series, nan)


# The header

_NO_DIRECTIONS = "its header does not say which way its axes lead"


class _Header(NamedTuple):
    shape: tuple[int, int, int]
    series: int
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    affine: NDArray[np.float64]


def _read_header(stream: BufferedIOBase) -> _Header:
    """Read and check all that is needed before memory is taken; leave `stream` at the voxels."""
    begin = _read(stream, 4)
    sizes = {int.from_bytes(begin, order): order for order in ("little", "big")}
    length = next((size for size in sizes if size in _HEADERS), None)
    if length is None or len(begin) < 4:
        raise ValueError("it is not a NIfTI file: its header is of neither 348 nor 540 bytes")
    block = bytes(begin + _read(stream, length - 4))
    if len(block) < length:
        raise ValueError(f"its header is cut short, at {len(block)} of {length} bytes")
    header = _parsed(block, length, sizes[length])
    magic = bytes(header["magic"])[:3]
    if magic in (b"ni1", b"ni2"):
        raise ValueError("its voxels are in another file (.img); save both as one .nii file")
    if magic not in (b"n+1", b"n+2"):
        raise ValueError("it is not a NIfTI file: its header has no magic word n+1 or n+2")
    _check_is_image(int(header["intent_code"]))
    shape, series = _shape([int(side) for side in header["dim"]])
    dtype = _dtype(header)
    if (voxels := math.prod(shape)) * max(dtype.itemsize, 4) > MOST_BYTES:
        raise ValueError(
            f"header says {voxels} voxels of {8 * dtype.itemsize} bits, where at most "
            f"{MOST_BYTES} bytes are read"
        )
    _skip(stream, float(header["vox_offset"]), length)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        slope, intercept = 1.0, 0.0  # which is how NIfTI says that nothing is rescaled
    if not math.isfinite(intercept):
        raise ValueError("its scl_inter is not a finite number")
    return _Header(shape, series, dtype, slope, intercept, _affine(header))


def _parsed(block: bytes, length: int, order: str) -> Any:
    # Unchecked: nibabel's own checks log, and mend what they find.
    return getattr(_nibabel(), _HEADERS[length])(block, endianness=order, check=False)


def _nibabel() -> Any:
    try:
        return importlib.import_module("nibabel")
    except ModuleNotFoundError:
        raise ValueError("a NIfTI volume needs pip install 'conocc[nifti]'") from None


def _check_is_image(intent: int) -> None:
    if intent in _IMAGES:
        return
    kind = next((name for codes, name in _NO_IMAGES.items() if intent in codes), None)
    said = kind or f"of an intent, {intent}, that images do not have,"
    raise ValueError(f"it is {said} (NIfTI), not an image")


def _shape(dim: list[int]) -> tuple[tuple[int, int, int], int]:
    """Give the sides of one volume, and how many there are."""
    count = dim[0]
    if not 1 <= count <= 7 or min(dim[1 : count + 1]) < 1:
        raise ValueError(f"header says {dim}, which are no sides of a volume")
    x, y, z, series, *values = (*dim[1 : count + 1], *[1] * (7 - count))
    if (several := math.prod(values)) != 1:
        raise ValueError(f"it holds {several} values a voxel, where an image has one")
    for width, height in ((x, y), (x, z), (y, z)):
        check_size(width, height)
    return (x, y, z), series


def _dtype(header: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except Exception:
        raise ValueError(f"its voxels are of an unknown kind, {int(header['datatype'])}") from None
    if dtype.names:
        raise ValueError("its voxels are colours; save it in grey")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ValueError(f"its voxels are {dtype.name}, not integers or floats of up to 64 bits")
    return dtype


def _affine(header: Any) -> NDArray[np.float64]:
    try:
        with np.errstate(all="ignore"):
            affine = np.asarray(header.get_best_affine(), np.float64)
    except Exception:  # of a quaternion that is none
        affine = np.full((4, 4), np.nan)
    if not np.isfinite(affine).all():
        raise ValueError(_NO_DIRECTIONS)
    return affine


def _skip(stream: BufferedIOBase, start: float, length: int) -> None:
    """Go from the end of the header to the voxels."""
    first = length + 4  # after four bytes that say whether extensions follow
    start = start or first
    if not first <= start <= _LATEST_START or start % 1:
        raise ValueError(f"header says that voxels begin at byte {start:g}")
    _read(stream, int(start) - length)


def _read(stream: BufferedIOBase, size: int) -> bytearray:
    """Read up to `size` bytes, taking memory only as they come."""
    found = bytearray()
    try:
        while piece := stream.read(min(_CHUNK, size - len(found))):
            found += piece
    except (OSError, EOFError, zlib.error):
        raise ValueError("its compressed bytes are damaged or cut short") from None
    return found


# Voxels


def _rescaled(stored: Pixels, slope: float, intercept: float) -> Pixels:
    if (slope, intercept) == (1, 0):
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    voxels = np.empty(stored.shape, np.float32, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # infinite, and refused as that
        for k in range(stored.shape[2]):
            voxels[..., k] = stored[..., k].astype(np.float64) * slope + intercept
    return voxels


def _without_nan(voxels: Pixels) -> tuple[Pixels, int]:
    """Give NaN the lowest value; return how many there were."""
    if voxels.dtype.kind != "f":
        return voxels, 0
    if infinite := int(np.isinf(voxels).sum()):
        raise ValueError(f"{infinite} of {voxels.size} voxels are infinite")
    missing = np.isnan(voxels)
    nan = int(missing.sum())
    if nan == voxels.size:
        raise ValueError(f"all of its {nan} voxels are NaN")
    if nan:
        voxels = np.where(missing, np.nanmin(voxels), voxels)
    if (highest := max(-float(voxels.min()), float(voxels.max()))) > LARGEST_VALUE:
        raise ValueError(f"its values reach {highest:g}, beyond ±{LARGEST_VALUE:g}")
    return voxels, nan


def _turned(voxels: Pixels, affine: NDArray[np.float64]) -> Pixels:
    """Turn a volume to right, anterior, superior: a view."""
    turning = _nibabel().orientations
    try:
        with np.errstate(all="ignore"):
            turned: Pixels = turning.apply_orientation(voxels, turning.io_orientation(affine))
    except Exception:  # of an affine that leads nowhere
        raise ValueError(_NO_DIRECTIONS) from None
    return turned


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
