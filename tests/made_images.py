"""Images, and the bytes of their files, made for the tests of everything that reads them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis.extra.numpy import array_shapes
from PIL import Image

from conocc.data.image_io.read import decode

RNG = np.random.default_rng(0)
GREY = (np.add.outer(np.arange(23) * 3, np.arange(31) * 4) + RNG.integers(0, 20, (23, 31))).astype(
    np.uint8
)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
DEEP = GREY.astype(np.uint16) * 200 + 7
SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=9)
FLOATS = ["f2", "f4", "f8"]


def readable(kind: str) -> dict[str, float]:
    """What hypothesis may draw of this kind: finite, and no larger than is read."""
    if kind not in FLOATS:
        return {}
    bounds = {} if kind == "f2" else {"min_value": -(2.0**99), "max_value": 2.0**99}
    return {"allow_nan": False, "allow_infinity": False, **bounds}


def pillow(image, file_format, **options) -> bytes:
    file = BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, file_format, **options)
    return file.getvalue()


def tiff(image, **options) -> bytes:
    file = BytesIO()
    options.setdefault("photometric", "rgb" if image.ndim == 3 else "minisblack")
    tifffile.imwrite(file, image, **options)
    return file.getvalue()


def npy(image, **options) -> bytes:
    file = BytesIO()
    np.save(file, image, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, raster: bytes, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *more,
            chunk(b"IDAT", zlib.compress(raster)),
            chunk(b"IEND", b""),
        ]
    )


def png_grey(image, *more: bytes) -> bytes:
    """An 8-bit grey PNG with chunks of one's own before the pixels."""
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    return png(image.shape[1], image.shape[0], 8, 0, rows, *more)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def patched_tiff(data: bytes, values: dict[int, int]) -> bytes:
    """A little-endian TIFF whose tags have other values, as LONG."""
    patched = bytearray(data)
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        (tag,) = struct.unpack_from("<H", data, entry)
        if tag in values:
            struct.pack_into("<HHII", patched, entry, tag, 4, 1, values[tag])
    return bytes(patched)


def read_image(path: Path) -> np.ndarray:
    return decode(path.read_bytes(), path.name)


def refusal(data: bytes, name: str = "a.file") -> str:
    with pytest.raises(ValueError, match=r"^Cannot read ") as caught:
        decode(data, name)
    sentence = str(caught.value)
    assert sentence.startswith(f"Cannot read {name!r}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def assert_read(data: bytes, image) -> None:
    got = decode(data, "a.file")
    assert got.dtype == image.dtype
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, image)
