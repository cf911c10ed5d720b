"""One file to one array, at the file's own depth.

Each format has a reader in a file of its own, and a line in `READERS`: a new one needs no more.
Libraries decode; sizes are checked before memory is taken. What is done to values is said where
it is done, in `conocc.data.image_io.raster`, `npy` and `dicom`. NIfTI files are volumes, which
`conocc.data.volumes` has cut into slices before anything here sees them.

Letters: h and w pixels.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conocc.data.image_io import dicom, nifti
from conocc.data.image_io.npy import read_npy
from conocc.data.image_io.pixels import LARGEST_VALUE, Pixels, UnreadableError, check_shape
from conocc.data.image_io.raster import read_bmp, read_jpeg, read_png, read_pnm, read_tiff

# A file to an array


def read_image(path: str | os.PathLike[str], voi: str = "none") -> Pixels:
    """Read the image at `path`; see `decode`.

    Raises
    ------
    OSError
        If there is no such file, or it may not be read.
    ValueError
        As in `decode`, or if it is a pipe or a device.
    """
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        # A pipe would be waited for in vain, and a device may have no end.
        raise _unreadable(os.fspath(path), "it is not a regular file")
    return decode(Path(path).read_bytes(), os.fspath(path), voi)


def decode(data: bytes, name: str, voi: str = "none", side: int | None = None) -> Pixels:
    r"""Turn the bytes of an image file into its pixels, whatever its name ends in.

    Parameters
    ----------
    data : bytes
        The whole file: DICOM, PNG, JPEG, TIFF, PGM, PPM, BMP or NPY.
    name : str
        What to call it in an error.
    voi : {"none", "file", "CENTER,WIDTH"}
        The window of DICOM; see `conocc.data.preprocessing`. Other formats have none.
    side : int, optional
        What both sides of a JPEG should keep; it is decoded at a half, a quarter or an eighth of
        its size where they do. Other formats come whole.

    Returns
    -------
    array, shape (h, w) or (h, w, 3)
        At the file's own depth and range, in native byte order: bool becomes uint8, float16
        becomes float32. May be read-only.

    Raises
    ------
    ValueError
        If the file is empty, of no known format, damaged, cut short or too large, holds several
        images, transparent pixels or pixels that are not finite or beyond `LARGEST_VALUE`; or if
        it is a DICOM object that is no image, or a NIfTI volume.

    Examples
    --------
    >>> decode(b"P5 3 1 4095 " + b"\x00\x01\x0a\xbc\x0f\xff", "ramp.pgm")
    array([[   1, 2748, 4095]], dtype=uint16)
    >>> decode(b"P5 1024 1024 255\n", "mdb005.pgm")
    Traceback (most recent call last):
    ValueError: Cannot read 'mdb005.pgm': header says 1024x1024, 1048576 numbers; file has 0.
    """
    try:
        known = next((known for known in READERS.values() if known.signature.match(data)), None)
        if known is None:
            raise UnreadableError(
                f"its content ({len(data)} bytes) is none of {', '.join(READERS)}"
                if data
                else "is empty (0 bytes)"
            )
        options = ([voi] if known.has_windows else []) + ([side] if known.has_scales else [])
        return _checked(known.read(data, *options))
    except ValueError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, reason: object) -> ValueError:
    return ValueError(f"Cannot read {name!r}: {reason}.")


def _checked(image: Pixels) -> Pixels:
    check_shape(image.shape)
    becomes: Any = {"?": np.uint8, "e": np.float32}.get(image.dtype.char)
    image = np.ascontiguousarray(image, becomes or image.dtype.newbyteorder("="))
    if image.dtype.kind == "f" and (wrong := ~(np.abs(image) <= LARGEST_VALUE)).any():
        row, column, *_ = first = tuple(np.argwhere(wrong)[0])
        raise UnreadableError(
            f"{np.count_nonzero(wrong)} of {image.size} values are NaN, infinite or beyond "
            f"±{LARGEST_VALUE:g}, the first, {image[first]:g}, at row {row}, column {column}"
        )
    return image


def is_colour(image: Pixels) -> bool:
    """Tell whether `image`, (h, w) or (h, w, 3), has three channels that differ anywhere."""
    if image.ndim == 2:
        return False
    red, green, blue = np.moveaxis(image, -1, 0)
    return not (np.array_equal(red, green) and np.array_equal(green, blue))


# The formats


class Format(NamedTuple):
    """How a format's files begin, what their names end in, and the function that reads them.

    Where images have windows, the function takes the one asked for as well; where they can be
    decoded at a fraction of their size, the side to keep.
    """

    signature: re.Pattern[bytes]
    suffixes: tuple[str, ...]
    read: Callable[..., Pixels]
    has_windows: bool = False
    has_scales: bool = False


# The first signature that matches decides; the weakest, with which a text may begin, is last.
# What precedes DICOM's may be anything, another format's beginning too.
READERS: dict[str, Format] = {
    "DICOM": Format(dicom.SIGNATURE, dicom.SUFFIXES, dicom.read_dicom, has_windows=True),
    "NIfTI": Format(nifti.SIGNATURE, nifti.SUFFIXES, nifti.read_whole),
    "PNG": Format(re.compile(rb"\x89PNG\r\n\x1a\n"), (".png",), read_png),
    "JPEG": Format(re.compile(rb"\xff\xd8\xff"), (".jpg", ".jpeg"), read_jpeg, has_scales=True),
    "TIFF": Format(re.compile(rb"II[*+]\0|MM\0[*+]"), (".tif", ".tiff"), read_tiff),
    "PNM": Format(re.compile(rb"P[2356][\s#]"), (".pgm", ".ppm", ".pnm"), read_pnm),
    "NPY": Format(re.compile(rb"\x93NUMPY[\1\2\3]\0"), (".npy",), read_npy),
    "BMP": Format(re.compile(rb"BM"), (".bmp",), read_bmp),
}
SUFFIXES = frozenset(suffix for known in READERS.values() for suffix in known.suffixes)
