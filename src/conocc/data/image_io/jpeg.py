"""JPEG: its segments are read here, and Pillow decodes its pixels."""

from __future__ import annotations

import re

from PIL.JpegImagePlugin import JpegImageFile

from conocc.data.image_io.pixels import Pixels, decode_with, upright
from conocc.data.image_io.tags import exif_orientation

# Markers with a length; of these, comments and applications' data. Application 14 stays: it
# tells RGB and CMYK from YCbCr.
_SEGMENT = re.compile(rb"\xff([^\x00\x01\xd0-\xd9\xff])", re.DOTALL)
_DROPPED = re.compile(rb"[\xe1-\xed\xef\xfe]")
_APPLICATION_1, _SCAN = b"\xe1", b"\xda"


def read_jpeg(data: bytes, side: int | None = None) -> Pixels:
    """Read a JPEG file; of the several that a camera may chain together, the first.

    With a `side`, it is decoded at the smallest of 1/8, 1/4, 1/2 and 1/1 of its size of which
    both sides still have as many pixels. JPEG's own transform does that, at a fraction of the
    cost of all pixels.
    """
    plain, orientation = _plain_jpeg(data)
    return upright(decode_with(JpegImageFile, plain, side), orientation)


def _plain_jpeg(data: bytes) -> tuple[bytes, int]:
    """Leave out texts, profiles and EXIF; give what is left, and EXIF's orientation."""
    kept: list[bytes | memoryview] = [data[:2]]
    orientation = None
    at = 2
    while (segment := _SEGMENT.search(data, at)) is not None:
        start, marker = segment.start(), segment[1]
        if marker == _SCAN:
            return b"".join([*kept, memoryview(data)[start:]]), orientation or 1
        at = start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4]))
        exif = marker == _APPLICATION_1 and data.startswith(b"Exif\0\0", start + 4)
        if exif and orientation is None:
            orientation = exif_orientation(data[start + 10 : at])
        if not _DROPPED.match(marker):
            kept.append(data[start:at])
    raise ValueError(f"it is cut short: file has {len(data)} bytes and no pixels")
