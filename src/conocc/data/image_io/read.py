"""One file to one array, at the file's own depth.

Headers are read by `conocc.data.image_io` and pixels are decoded by Pillow, which is handed a file of
nothing but its pixels (a BMP as it is): sizes are checked before anything is allocated, text and
colour profiles are never unpacked, and none of Pillow's warnings on metadata can escape (they
cannot be silenced safely in a thread). What Pillow would squeeze or garble is read by NumPy or,
with the extra ``deep``, by tifffile and imagecodecs.

What is done to values: palettes become RGB, JPEG's YCbCr becomes RGB, grey levels of 1, 2 and 4
bits in PNG, TIFF and BMP are spread over 0 to 255, booleans become 0 and 1, and TIFF's
white-is-zero is inverted. EXIF orientation is applied; gamma, colour profiles and the maximum
that a PNM header states are not. CMYK and other colours are refused. What is done to DICOM is told
in `conocc.data.image_io.dicom`, to NIfTI in `conocc.data.image_io.nifti`: its files are volumes, which
`conocc.data.volumes` has cut into slices before anything here sees them.

Letters: h and w pixels, c channels.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile

from conocc.data.image_io import dicom, nifti
from conocc.data.image_io.dicom_person import Person, person_of
from conocc.data.image_io.jpeg import read_jpeg
from conocc.data.image_io.npy import read_npy
from conocc.data.image_io.pixels import (
    LARGEST_VALUE,
    MAX_PIXELS,
    Pixels,
    check_shape,
    decode_with,
    without_alpha,
)
from conocc.data.image_io.png import read_png
from conocc.data.image_io.pnm import read_pnm
from conocc.data.image_io.tiff import read_tiff

__all__ = [
    "LARGEST_VALUE",
    "MAX_PIXELS",
    "READERS",
    "SMALLEST_SIZE",
    "SPARE",
    "SUFFIXES",
    "Format",
    "Person",
    "Preprocessing",
    "decode",
    "is_colour",
    "person_of",
    "prepare",
    "read_image",
]

Floats = NDArray[np.float32]

SMALLEST_SIZE = 16
# How many times the size asked for a JPEG must keep when it is decoded at a fraction of its own.
SPARE = 2


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
        The window of DICOM; see `Preprocessing`. Other formats have none.
    side : int, optional
        What both sides of a JPEG should keep; it is decoded at a half, a quarter or an eighth of
        its size where they do. Other formats come whole.

    Returns
    -------
    array, shape (h, w) or (h, w, 3)
        At the file's own depth and range, in native byte order: bool becomes uint8, float16
        becomes float32, and 16-bit integers with a sign may come as int32. May be read-only.

    Raises
    ------
    ValueError
        If the file is empty, of no known format, damaged, cut short or too large, holds several
        images, transparent pixels or pixels that are not finite or beyond `LARGEST_VALUE`, or
        needs the extra ``deep`` or ``dicom``; or if it is a DICOM object that is no image, or a
        NIfTI volume.

    Examples
    --------
    >>> decode(b"P5 3 1 4095 " + b"\x00\x01\x0a\xbc\x0f\xff", "ramp.pgm")
    array([[   1, 2748, 4095]], dtype=uint16)
    >>> decode(b"P5 1024 1024 255\n", "mdb005.pgm")
    Traceback (most recent call last):
    ValueError: Cannot read 'mdb005.pgm': header says 1024x1024 8-bit, file has 17 bytes.
    """
    try:
        known = _format(data)
        options = ([voi] if known.has_windows else []) + ([side] if known.has_scales else [])
        return _checked(known.read(data, *options))
    except ValueError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, reason: object) -> ValueError:
    return ValueError(f"Cannot read {name!r}: {reason}.")


def _format(data: bytes) -> Format:
    if not data:
        raise ValueError("is empty (0 bytes)")
    for known in READERS.values():
        if known.signature.match(data):
            return known
    raise ValueError(f"its content ({len(data)} bytes) is none of {', '.join(READERS)}")


def _checked(image: Pixels) -> Pixels:
    check_shape(image.shape)
    if image.dtype.kind != "f":
        return image
    if (wrong := ~np.isfinite(image)).any():
        raise ValueError(
            f"{np.count_nonzero(wrong)} of {image.size} values are NaN or infinite, "
            f"the first at {_first(wrong)}"
        )
    if (wrong := np.abs(image) > LARGEST_VALUE).any():
        raise ValueError(
            f"the value {image[wrong][0]:g} at {_first(wrong)} is beyond ±{LARGEST_VALUE:g}"
        )
    return image


def _first(wrong: NDArray[np.bool_]) -> str:
    row, column = np.argwhere(wrong)[0][:2]
    return f"row {row}, column {column}"


def is_colour(image: Pixels) -> bool:
    """Tell whether `image`, (h, w) or (h, w, 3), has three channels that differ anywhere."""
    if image.ndim == 2:
        return False
    red, green, blue = np.moveaxis(image, -1, 0)
    return not (np.array_equal(red, green) and np.array_equal(green, blue))


# An array to what a detector sees


@dataclass(frozen=True)
class Preprocessing:
    """How files become arrays; travels with a saved model.

    Parameters
    ----------
    size : int or None
        Side in pixels, at least 16. None leaves images as they are.
    colour : {"grey", "rgb"}
        One channel (ITU-R 601 luma) or three (a grey image is repeated).
    fit : {"stretch", "pad", "crop"}
        How an image that is not square becomes one. Stretching is what the paper did. Padding
        adds, on both of the shorter sides, the lowest value of each channel; cropping keeps the
        square in the middle.
    voi : {"none", "file", "CENTER,WIDTH"}
        The window of grey DICOM images, which spreads the values of interest over 0 to 1: none,
        so that all values stay; the one in each file, without which it is refused; or this one,
        such as "40,400", for all.
    axis : {"axial", "coronal", "sagittal"}
        How NIfTI volumes are cut into slices, which are the images.
    scaled : bool
        Whether a JPEG at least `SPARE` times 2, 4 or 8 as large as `size` on both sides is decoded
        at a half, a quarter or an eighth of its size, before it is resized.

    Raises
    ------
    ValueError
        If a parameter is none of these.

    Examples
    --------
    >>> Preprocessing.from_dict(Preprocessing(size=64).to_dict())
    Preprocessing(size=64, colour='grey', fit='stretch', voi='none', axis='axial', scaled=False)
    """

    size: int | None
    colour: str = "grey"
    fit: str = "stretch"
    voi: str = "none"
    axis: str = "axial"
    scaled: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and (type(self.size) is not int or self.size < SMALLEST_SIZE):
            raise ValueError(
                f"The 'size' parameter of Preprocessing must be an integer of at least {SMALLEST_SIZE}, "
                f"or None. Got {self.size!r} instead."
            )
        for parameter, known in (("colour", COLOURS), ("fit", FITS), ("axis", nifti.AXES)):
            if (value := getattr(self, parameter)) not in tuple(known):
                raise ValueError(
                    f"The '{parameter}' parameter of Preprocessing must be one of "
                    f"{', '.join(map(repr, known))}. Got {value!r} instead."
                )

        if self.voi not in ("none", "file") and not _is_window(self.voi):
            raise ValueError(
                "The 'voi' parameter of Preprocessing must be 'none', 'file' or a window "
                f"'CENTER,WIDTH' of a width of at least 1, such as '40,400'. "
                f"Got {self.voi!r} instead."
            )
        if type(self.scaled) is not bool:
            raise ValueError(
                f"The 'scaled' parameter of Preprocessing must be True or False. "
                f"Got {self.scaled!r} instead."
            )

    @property
    def least_side(self) -> int | None:
        """What both sides of a JPEG should keep when it is decoded; None for all they have."""
        return SPARE * self.size if self.scaled and self.size is not None else None

    def to_dict(self) -> dict[str, int | str | None]:
        """Give plain values, for JSON.

        A window, an axis and scaled decoding that are not asked for are left out: what was saved,
        cached or begun before there were any was read in the same way.
        """
        values = dataclasses.asdict(self)
        return {
            k: v for k, v in values.items() if k not in _LATER or v != getattr(Preprocessing, k)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_dict` gave; what is not there takes its default.

        Raises
        ------
        ValueError
            If a key or a value is not known, or there is no size.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(
                    f"A Preprocessing has {', '.join(map(repr, known))}. Got {key!r} too."
                )
        if "size" not in values:
            raise ValueError(f"A Preprocessing must have a 'size'. Got {dict(values)!r} instead.")
        return cls(**values)


# What came when models had been saved already; they were read as by its defaults.
_LATER = ("voi", "axis", "scaled")


def _is_window(voi: object) -> bool:
    number = r"[+-]?\d{1,9}(?:\.\d{1,9})?"
    found = re.fullmatch(rf"{number},({number})", voi) if isinstance(voi, str) else None
    return found is not None and float(found[1]) >= 1


def prepare(image: Pixels, preprocessing: Preprocessing) -> Floats:
    """Give an image the channels and the size that `preprocessing` asks for; values keep their range.

    Parameters
    ----------
    image : array, shape (h, w) or (h, w, 3)
        As `decode` gives it: finite, and within `LARGEST_VALUE`.
    reading : Preprocessing

    Returns
    -------
    array of float32, shape (c, size, size)
        New and C-contiguous; c is 1 or 3. (c, h, w) where the reading has no size.

    Examples
    --------
    >>> prepare(np.full((20, 30), 4095, np.uint16), Preprocessing(size=16)).shape
    (1, 16, 16)
    """
    channels, planes_of = COLOURS[preprocessing.colour]
    planes = planes_of(image)
    if preprocessing.size is not None:
        planes = [FITS[preprocessing.fit](plane, preprocessing.size) for plane in planes]
    return np.array(planes * (channels // len(planes)))


def _grey(image: Pixels) -> list[Floats]:
    return [_luma(image) if image.ndim == 3 else image.astype(np.float32)]


def _rgb(image: Pixels) -> list[Floats]:
    planes = np.moveaxis(image, -1, 0) if image.ndim == 3 else [image]
    return [plane.astype(np.float32, order="C") for plane in planes]


def _luma(image: Pixels) -> Floats:
    """ITU-R 601 luma, 0.299 R + 0.587 G + 0.114 B; (h, w, 3) -> (h, w).

    Written around green, so that three equal channels give exactly that channel.
    """
    # Beyond 16 bits a difference of two channels can leave float32.
    kind = np.float32 if image.dtype.itemsize <= 2 else np.float64
    red, green, blue = np.moveaxis(image, -1, 0).astype(kind, order="C")
    luma: Pixels = green + 0.299 * (red - green) + 0.114 * (blue - green)
    return luma.astype(np.float32, copy=False)


def _stretch(plane: Floats, size: int) -> Floats:
    """Resample to (size, size) in float32: Pillow's bilinear filter, antialiased when shrinking.

    A plane of that size already is not resampled.
    """
    return _resized(plane, size, size)


def _resized(plane: Floats, h: int, w: int) -> Floats:
    if plane.shape == (h, w):
        return plane
    return np.asarray(Image.fromarray(plane).resize((w, h), Image.Resampling.BILINEAR))


def _pad(plane: Floats, size: int) -> Floats:
    """Bring the longer side to `size`, and fill beside the shorter one with the lowest value.

    Of an odd number of lines to fill, the one more is below, or on the right.
    """
    longest = max(plane.shape)
    h, w = (max(1, round(side * size / longest)) for side in plane.shape)
    # Resampled first: filled up first, a single line of pixels could take all memory.
    square = np.full((size, size), plane.min(), np.float32)
    top, left = (size - h) // 2, (size - w) // 2
    square[top : top + h, left : left + w] = _resized(plane, h, w)
    return square


def _crop(plane: Floats, size: int) -> Floats:
    """Bring the largest square in the middle to (size, size)."""
    side = min(plane.shape)
    top, left = ((length - side) // 2 for length in plane.shape)
    middle = plane[top : top + side, left : left + side]
    return _stretch(np.ascontiguousarray(middle), size)


# Channels, and the planes they are made from: one plane is repeated.
COLOURS: dict[str, tuple[int, Callable[[Pixels], list[Floats]]]] = {
    "grey": (1, _grey),
    "rgb": (3, _rgb),
}
FITS: dict[str, Callable[[Floats, int], Floats]] = {
    "stretch": _stretch,
    "pad": _pad,
    "crop": _crop,
}


# The formats


def read_bmp(data: bytes) -> Pixels:
    """Read a BMP file."""
    return without_alpha(decode_with(BmpImageFile, data))


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
