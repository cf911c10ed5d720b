"""What the pixels of every format must keep to, and what becomes of a library's errors and words.

Letters: h and w pixels.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from conocc.data.image_io.dicom_person import Person

Pixels = NDArray[Any]


class Remarked(NamedTuple):
    """Pixels, (h, w) or (h, w, 3), and what was done to get them that someone may ask about.

    A remark is a short sentence without names and numbers, so that images of one can be counted:
    "transparent pixels laid on black". `person` is who is on the image, by a header of DICOM that
    the pixels have left behind; `size` how many pixels the file has, where fewer were decoded.
    """

    pixels: Pixels
    remarks: tuple[str, ...] = ()
    person: Person | None = None
    size: int | None = None


def remarked(read: Pixels | Remarked) -> Remarked:
    """Give pixels of which nothing was remarked the same form."""
    return read if isinstance(read, Remarked) else Remarked(read)


GZIP = b"\x1f\x8b"  # how what it compresses begins
# Four times the largest mammogram.
MAX_PIXELS = 2**26
# A square of it, summed over an image, still fits in float64.
LARGEST_VALUE = 1e30

ON_BLACK = "transparent pixels laid on black"
SEVERAL = "it holds {}, each an image of its own; name one, as in 'FILE[0]'"

# What libraries say of metadata is of no concern here, and may quote them. For the whole process,
# since readers run in threads, in which `warnings.catch_warnings` is not safe. NumPy evaluates the
# head of an NPY file as a literal, of which Python warns if it is odd, and NumPy if it is old.
warnings.filterwarnings("ignore", module=r"PIL\.|<unknown>")
warnings.filterwarnings("ignore", message=r"Reading `\.npy`")
for _library in ("PIL", "tifffile", "imagecodecs"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


class ReadError(ValueError):
    """Why a file is not read: said by a reader, not by a library that stumbled over the file."""


@contextmanager
def decoding(what: str = "its pixels are") -> Iterator[None]:
    """Around a decoder: whatever a library raises says what is damaged.

    Libraries raise OSError, SyntaxError, struct.error, zlib.error, MemoryError and more. Their
    words are left out, since they may quote what a file says of its patient.
    """
    try:
        yield
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(
            f"{what} damaged, cut short or not supported ({type(error).__name__})"
        ) from None


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Around what reads an image: say which one cannot be read, where that is not said yet."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith("Cannot read"):
            raise
        raise ValueError(f"Cannot read '{name}': {error}.") from error


def check_size(width: int, height: int) -> None:
    """Refuse what holds no pixels or too many, before any memory is taken for them."""
    if width < 1 or height < 1:
        raise ReadError(f"header says {width}x{height}, which holds no pixels")
    if width * height > MAX_PIXELS:
        raise ReadError(
            f"header says {width}x{height}, {width * height} pixels; at most {MAX_PIXELS} are read"
        )


def check_type(dtype: np.dtype[Any]) -> None:
    """Refuse numbers that are neither bool, integer nor real, of up to 64 bits."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        kind = "of several fields" if dtype.names else dtype.name
        raise ReadError(f"its values are {kind}, not bool, integer or real of up to 64 bits")


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse what is neither a grey image nor an RGB one, of a size that is read."""
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ReadError(f"its shape is {shape}, not (h, w) or (h, w, 3)")
    check_size(shape[1], shape[0])


def opaque(dtype: np.dtype[Any]) -> int:
    """Give the alpha of an opaque pixel: 1, or the largest integer."""
    return 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)


def on_black(image: Pixels, *, premultiplied: bool = False) -> tuple[Pixels, tuple[str, ...]]:
    """Lay an image whose last channel of 2 or 4 is alpha on black; (h, w, c) -> (h, w[, 3]).

    `premultiplied` colours lie on black already.
    """
    if image.ndim == 2 or image.shape[2] not in (2, 4):
        return image, ()
    colours, alpha = image[..., :-1], image[..., -1]
    top = opaque(image.dtype)
    transparent = alpha != top
    is_seen = bool(transparent.any())
    if is_seen and not premultiplied:
        share = alpha[transparent].astype(float)[:, None] / top
        colours = colours.copy()
        laid = colours[transparent] * share
        colours[transparent] = laid if image.dtype.kind == "f" else np.rint(laid)
    return (colours[..., 0] if image.shape[2] == 2 else colours), (ON_BLACK,) * is_seen


def upright(image: Pixels, orientation: int) -> Pixels:
    """Turn and mirror as TIFF's and EXIF's orientation says; what is not 1 to 8 says nothing."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return image[rows, columns]


def native(image: Pixels) -> Pixels:
    """Give the same values in native byte order, C-contiguous."""
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))
