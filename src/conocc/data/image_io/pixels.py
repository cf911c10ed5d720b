"""What pixels of every format go through: the limits, Pillow, transparency and orientation.

Letters: h and w pixels.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

Pixels = NDArray[Any]

# Four times the largest mammogram. Also below the size at which Pillow starts to warn.
MAX_PIXELS = 2**26
# A square of it, summed over an image, still fits in float64.
LARGEST_VALUE = 1e30


def check_size(width: int, height: int) -> None:
    """Refuse what holds no pixels or too many, before any memory is taken for them."""
    if width < 1 or height < 1:
        raise ValueError(f"header says {width}x{height}, which holds no pixels")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"header says {width}x{height}, {width * height} pixels; at most {MAX_PIXELS} are read"
        )


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse what is neither a grey image nor an RGB one, of a size that is read."""
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ValueError(f"its shape is {shape}, not (h, w) or (h, w, 3)")
    check_size(shape[1], shape[0])


# Decoders


@contextmanager
def decoding() -> Iterator[None]:
    """Around a decoder alone: whatever it raises says that the pixels are damaged."""
    try:
        yield
    except Exception as error:
        # Decoders raise OSError, SyntaxError, struct.error, zlib.error, MemoryError and more.
        reason = " ".join(str(error).split()).rstrip(".")
        said = f": {reason}" if reason else ""
        raise ValueError(
            f"its pixels are damaged, cut short or not supported ({type(error).__name__}{said})"
        ) from error


def decode_with(
    plugin: Callable[[BytesIO], ImageFile.ImageFile], data: bytes, side: int | None = None
) -> Pixels:
    """Decode with one of Pillow's plugins; (h, w), or (h, w, 2 to 4) with colour and alpha.

    With a `side`, a format that can be decoded at a fraction of its size is, as long as h and w
    do not fall below it.
    The plugin itself is called, since ``Image.open`` warns of large images.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process, which fills damaged "
            "images with grey; set it to False"
        )
    with decoding():
        image = plugin(BytesIO(data))
    check_size(*image.size)
    with decoding():
        if side is not None:
            image.draft(None, (side, side))
        image.load()
        if image.mode == "P":
            transparent = "transparency" in image.info
            return np.asarray(image.convert("RGBA" if transparent else "RGB"))
        if image.mode == "1":
            return np.asarray(image.convert("L"))
        if image.mode in ("L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16B"):
            return native(np.asarray(image))
    raise ValueError(f"its colours are {image.mode}; save it as grey or RGB")


def extra_decoder(module: str, what: str) -> Any:
    """Import a module of the extra ``deep``, without which `what` cannot be decoded."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{what} needs {module}: pip install 'conocc[deep]'") from error


# What is done to decoded pixels


def native(image: Pixels) -> Pixels:
    """Give the same values in native byte order, C-contiguous."""
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))


def without_alpha(image: Pixels) -> Pixels:
    """Drop the last of 2 or 4 channels, which must be fully opaque: the largest integer."""
    if image.ndim == 2 or image.shape[2] == 3 or image.dtype.kind == "f":
        return image
    check_opaque(image[..., -1] == np.iinfo(image.dtype).max)
    return np.ascontiguousarray(image[..., 0] if image.shape[2] == 2 else image[..., :3])


def check_opaque(opaque: NDArray[np.bool_]) -> None:
    """Refuse an image with transparent pixels: there is no telling what lies under them."""
    if not opaque.all():
        raise ValueError(
            f"{np.count_nonzero(~opaque)} of its {opaque.size} pixels are transparent; "
            "save it without an alpha channel"
        )


def upright(image: Pixels, orientation: int) -> Pixels:
    """Turn and mirror as TIFF's and EXIF's orientation says; what is not 1 to 8 says nothing."""
    turn = _TURNS.get(orientation)
    return image if turn is None else np.ascontiguousarray(turn(image))


_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}
