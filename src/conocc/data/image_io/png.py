"""PNG: its chunks are read here; Pillow, or imagecodecs for 16-bit colour, decodes its pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from conocc.data.image_io.pixels import (
    Pixels,
    check_opaque,
    check_size,
    decode_with,
    decoding,
    extra_decoder,
    upright,
    without_alpha,
)
from conocc.data.image_io.tags import exif_orientation

# Texts, profiles and times are left out.
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def read_png(data: bytes) -> Pixels:
    """Read a PNG file; 16-bit colour needs imagecodecs, since Pillow makes 8 bits of it."""
    kept, orientation = [data[:8]], 1
    header = key = b""
    for kind, chunk in _chunks(data):
        body = chunk[8:-4]
        if kind == b"acTL":
            raise ValueError(f"it is animated, with {int.from_bytes(body[:4])} frames")
        if kind == b"IHDR":
            header = body
        elif kind == b"tRNS":
            key = body
        elif kind == b"eXIf":
            orientation = exif_orientation(body)
        if kind in _KEPT:
            kept.append(chunk)
    if len(header) != 13:
        raise ValueError("its PNG header is damaged")
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    check_size(width, height)
    plain = b"".join(kept)
    if depth == 16 and colour in (2, 4, 6):
        imagecodecs = extra_decoder("imagecodecs", "16-bit colour")
        with decoding():
            image: Pixels = imagecodecs.png_decode(plain)
    else:
        image = decode_with(PngImageFile, plain)
        if key and colour in (0, 2):
            _check_colour_key(image, key, depth)
    return upright(without_alpha(image), orientation)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk's kind and all its bytes, up to the last; the ones that hold pixels are whole."""
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        chunk = data[at : at + length + 12]
        kind = chunk[4:8]
        if len(chunk) < length + 12:
            break
        # Pillow skips the sum of the chunks with pixels.
        if kind in _KEPT and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise ValueError(f"its {kind.decode()} chunk at byte {at} is damaged (wrong checksum)")
        yield kind, chunk
        if kind == b"IEND":
            return
        at += length + 12
    raise ValueError(f"it is cut short: file has {len(data)} bytes and no end chunk")


def _check_colour_key(image: Pixels, key: bytes, depth: int) -> None:
    """Refuse an image in which the one colour that is called transparent occurs."""
    channels = image[0, 0].size
    colour = np.frombuffer(key, ">u2", channels).astype(np.int64)
    if depth < 8:
        # As Pillow spreads the pixels.
        colour = colour * 255 // (2**depth - 1)
    transparent = image.reshape(*image.shape[:2], channels) == colour
    check_opaque(~transparent.all(axis=-1))
