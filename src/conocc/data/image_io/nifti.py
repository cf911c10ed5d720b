"""NIfTI, Analyze and MGH: a grey volume, turned upright and cut into slices; nibabel reads them.

What is read: the first volume of a file, whose voxels are integers or floats of up to 64 bits,
plain or compressed by gzip. Of a series (time points, weightings) the others are left aside. The
voxels of Analyze, and of a NIfTI pair, are in a file beside the header, ``x.img`` beside ``x.hdr``.
Done to values: the header's slope and intercept. A voxel that is NaN, which NIfTI files have where
nothing was measured, takes the lowest value of its volume; an infinite one is refused.

How slices lie, and which are empty, `conocc.data.image_io.stack` says.

No text of the header is quoted.

Letters: x, y, z voxels from left to right, posterior to anterior, inferior to superior.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import threading
from collections.abc import Callable
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from conocc.data.image_io import pixels
from conocc.data.image_io.pixels import Pixels, ReadError
from conocc.data.image_io.stack import Stack, StackOptions, stack_of_slices

# Threads that import nibabel at the same time meet it half made.
_IMPORTING = threading.Lock()

# By the size of the header, in either byte order, and the magic word.
SIGNATURE = re.compile(
    rb"(?:\x5c\x01\0\0|\0\0\x01\x5c).{340}n[+i]1\0"
    rb"|(?:\x1c\x02\0\0|\0\0\x02\x1c)n[+i]2\0",
    re.DOTALL,
)
# Without a magic word, but as many dimensions as it may have; and version, sides, kind of MGH.
ANALYZE_SIGNATURE = re.compile(rb"\x5c\x01\0\0.{36}[\1-\7]\0|\0\0\x01\x5c.{36}\0[\1-\7]", re.DOTALL)
MGH_SIGNATURE = re.compile(rb"\0\0\0\x01(?:\0...){4}\0\0\0[\0\1\3\4\x0a]", re.DOTALL)
_MGH_START = 284

# Room for 512x512x2048 voxels of 32 bits.
MOST_BYTES = 2**31
# Extensions, such as protocols, may stand between the header and the voxels.
LATEST_START = 2**26
# What an image may be meant as, in nibabel's words; not statistics, labels, vectors, surfaces.
IMAGE_INTENTS = ("none", "estimate", "dimensionless", "time series")

LATER_VOLUMES = "volumes after the first, such as time points"
NO_DIRECTIONS = "no directions in an Analyze header: taken as left, anterior, superior"
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
    remarks : tuple of str
        What else of its slices someone may ask about.
    """

    voxels: Pixels
    series: int
    nan: int
    remarks: tuple[str, ...] = ()


def open_nifti(file: BinaryIO, options: StackOptions) -> Stack:
    """Open a NIfTI, Analyze or MGH file as a stack of its slices."""
    path = getattr(file, "name", "")
    volume = read_nifti(file.read(), labels=options.labels, voxels_of=lambda: _beside(path))
    return stack_of_volume(volume, options.axis)


def stack_of_volume(volume: Volume, axis: str) -> Stack:
    """Make a stack of the slices of a volume."""
    left_aside = {LATER_VOLUMES: volume.series - 1} if volume.series > 1 else {}
    remarks = ((NAN_FILLED,) if volume.nan else ()) + volume.remarks
    return stack_of_slices(volume.voxels, axis, remarks, left_aside)


def voxel_files(header: str) -> list[str]:
    """Name the files, of which the first that is there has the voxels of the header at `header`."""
    whole = re.sub(r"\.hdr(\.gz)?$", "", header, flags=re.IGNORECASE)
    return [whole + suffix for suffix in (".img", ".img.gz", ".IMG", ".IMG.GZ")]


def _beside(header: str) -> bytes:
    for name in voxel_files(header):
        if os.path.isfile(name):
            if os.path.getsize(name) > MOST_BYTES:
                raise ReadError(f"the file of its voxels has more than {MOST_BYTES} bytes")
            return Path(name).read_bytes()
    name = os.path.basename(voxel_files(header)[0])
    raise ReadError(f"the file of its voxels, {name!r}, is not beside it")


def read_nifti(
    data: bytes, *, labels: bool = False, voxels_of: Callable[[], bytes] | None = None
) -> Volume:
    """Read the first volume of a NIfTI, Analyze or MGH file, turned to right, anterior, superior.

    Parameters
    ----------
    data : bytes
        The whole file. Of a compressed one no more is unpacked than its header asks for.
    labels : bool
        Whether it may be meant as labels.
    voxels_of : callable, optional
        Reads the file of voxels that lies beside a header which has none.

    Raises
    ------
    ValueError
        If it is damaged, cut short or too large; is no image (statistics, labels, surfaces,
        CIFTI); or has colours, complex or infinite voxels, or several values a voxel.
    """
    nibabel = _nibabel()

    stream = _stream(data)
    with pixels.decoding("its header is"):
        header, after_header, remarks = _header(stream, labels=labels)
        shape, series = _shape(header)
        dtype, start = header.get_data_dtype(), header.get_data_offset()
        slope, intercept = header.get_slope_inter()
    check_voxels(shape, dtype)
    if not after_header:
        if voxels_of is None:
            raise ReadError("its voxels are in a file beside it")
        stream = _stream(voxels_of())
    if start and not after_header <= start <= LATEST_START:
        raise ReadError(f"header says that voxels begin at byte {start}")
    rescaled = slope is not None and (slope, intercept) != (1, 0)
    scaling = (slope, intercept) if rescaled else ()
    with pixels.decoding("its voxels are"), np.errstate(all="ignore"):  # what overflows is infinite
        about = (shape, dtype, start or after_header, *scaling)
        stored = nibabel.arrayproxy.ArrayProxy(stream, about)
        # Memory is only claimed; it is taken slice by slice, as bytes come.
        voxels = np.empty(shape, np.float32 if rescaled else dtype.newbyteorder("="), order="F")
        for k in range(shape[2]):
            voxels[..., k] = stored[..., k]
        if isinstance(stream, gzip.GzipFile):
            # At the end of a stream its checksum is looked at; behind MGH's voxels there are notes.
            stream.read(2**16 if after_header == _MGH_START else 1)
    with pixels.decoding("the directions of its axes are"), np.errstate(all="ignore"):
        affine = header.get_affine() if after_header == _MGH_START else header.get_best_affine()
    return turned(voxels, affine, series)._replace(remarks=remarks)


def turned(voxels: Pixels, affine: Pixels, series: int = 1) -> Volume:
    """Turn voxels to right, anterior, superior by their affine, (4, 4), without NaN."""
    orientations = _nibabel().orientations
    voxels, nan = _without_nan(voxels)
    with pixels.decoding("the directions of its axes are"), np.errstate(all="ignore"):
        voxels = orientations.apply_orientation(voxels, orientations.io_orientation(affine))
    return Volume(voxels, series, nan)


def _nibabel() -> Any:
    with _IMPORTING:  # takes a third of a second, for volumes alone
        import nibabel

        return nibabel


def _stream(data: bytes) -> BufferedIOBase:
    return gzip.GzipFile(fileobj=BytesIO(data)) if data.startswith(pixels.GZIP) else BytesIO(data)


def _header(stream: BufferedIOBase, *, labels: bool) -> tuple[Any, int, tuple[str, ...]]:
    """Read a header, unchecked: nibabel's own checks log, and mend what they find.

    And where voxels can begin behind it, 0 if they are in a file of their own; and remarks.
    """
    nibabel = _nibabel()
    begin = stream.read(4)
    if begin == b"\0\0\0\1":
        kind: Any = nibabel.MGHImage.header_class
        whole = kind.template_dtype.itemsize
        block = begin + stream.read(_MGH_START - 4)
        if len(block) < _MGH_START:
            raise EOFError
        return kind(block[:whole].ljust(whole, b"\0"), check=False), _MGH_START, ()
    is_second = 540 in (int.from_bytes(begin, "little"), int.from_bytes(begin, "big"))
    kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
    block = begin + stream.read(kind.sizeof_hdr - 4)
    header = kind(block, check=False)
    magic = bytes(header["magic"])[:3]
    if magic not in (b"n+1", b"n+2", b"ni1", b"ni2"):
        if is_second:
            raise ReadError("its header has no magic word n+2 or ni2")
        return nibabel.Spm2AnalyzeImage.header_class(block, check=False), 0, (NO_DIRECTIONS,)
    # Four bytes say whether extensions follow.
    after_header = 0 if magic in (b"ni1", b"ni2") else header.sizeof_hdr + 4
    intent = header.get_intent()[0]
    if intent not in IMAGE_INTENTS and not (labels and intent == "label"):
        raise ReadError(f"it is meant as {intent!r} (NIfTI's intent), not as an image")
    return header, after_header, ()


def _shape(header: Any) -> tuple[tuple[int, int, int], int]:
    """Give the sides of one volume, and how many there are."""
    dim = [4, *map(int, header["dims"])] if "dims" in header else [*map(int, header["dim"])]
    count = dim[0]
    if not 1 <= count <= 7 or min(dim[1 : count + 1]) < 1:
        raise ReadError(f"header says {dim}, which are no sides of a volume")
    x, y, z, series, *values = (*dim[1 : count + 1], *[1] * (7 - count))
    if (several := math.prod(values)) != 1:
        raise ReadError(f"it holds {several} values a voxel, where an image has one")
    return (x, y, z), series


def check_voxels(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
    """Refuse a volume of slices or voxels that are not read, before memory is taken."""
    pixels.check_type(dtype)
    x, y, z = shape
    for width, height in ((x, y), (x, z), (y, z)):
        pixels.check_size(width, height)
    if (voxels := math.prod(shape)) * max(dtype.itemsize, 4) > MOST_BYTES:
        raise ReadError(
            f"header says {voxels} voxels of {8 * dtype.itemsize} bits, where at most "
            f"{MOST_BYTES} bytes are read"
        )


def _without_nan(voxels: Pixels) -> tuple[Pixels, int]:
    """Give NaN the lowest value; return how many there were."""
    if voxels.dtype.kind != "f":
        return voxels, 0
    if infinite := int(np.isinf(voxels).sum()):
        raise ReadError(f"{infinite} of {voxels.size} voxels are infinite")
    missing = np.isnan(voxels)
    nan = int(missing.sum())
    if nan == voxels.size:
        raise ReadError(f"all of its {nan} voxels are NaN")
    if nan:
        voxels = np.where(missing, np.nanmin(voxels), voxels)
    if (highest := float(np.abs(voxels).max())) > pixels.LARGEST_VALUE:
        raise ReadError(f"its values reach {highest:g}, beyond ±{pixels.LARGEST_VALUE:g}")
    return voxels, nan
