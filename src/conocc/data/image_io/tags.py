"""The tags of TIFF, in which EXIF too is written."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The tags on which pixels depend, in the order of their numbers, as a directory has them.
TAGS = {
    "ImageWidth": 256,
    "ImageLength": 257,
    "BitsPerSample": 258,
    "Compression": 259,
    "PhotometricInterpretation": 262,
    "FillOrder": 266,
    "StripOffsets": 273,
    "Orientation": 274,
    "SamplesPerPixel": 277,
    "RowsPerStrip": 278,
    "StripByteCounts": 279,
    "PlanarConfiguration": 284,
    "T4Options": 292,
    "T6Options": 293,
    "Predictor": 317,
    "ColorMap": 320,
    "TileWidth": 322,
    "TileLength": 323,
    "TileOffsets": 324,
    "TileByteCounts": 325,
    "ExtraSamples": 338,
    "SampleFormat": 339,
    "JPEGTables": 347,
    "YCbCrSubSampling": 530,
}
_VALUE_BYTES = {3: 2, 4: 4, 7: 1, 16: 8}  # SHORT, LONG, UNDEFINED, LONG8


@dataclass(frozen=True)
class Directory:
    """One image file directory, at byte `at`, whose `entries` start where these say."""

    data: bytes
    order: str
    big: bool
    at: int
    entries: range
    following: int

    @cached_property
    def where(self) -> dict[int, int]:
        """The entry of each tag; of several with one tag, the first, as Pillow does."""
        first: dict[int, int] = {}
        for at in self.entries:
            (number,) = struct.unpack_from(self.order + "H", self.data, at)
            first.setdefault(number, at)
        return first

    def __contains__(self, tag: str) -> bool:
        return TAGS[tag] in self.where

    def entry(self, tag: str) -> bytes:
        at = self.where[TAGS[tag]]
        return self.data[at : at + self.entries.step]

    def values(self, tag: str) -> NDArray[np.unsignedinteger[Any]]:
        """All values of `tag`; none where there is no such tag."""
        if tag not in self:
            return np.empty(0, np.uint8)
        at = self.where[TAGS[tag]]
        form, inline = ("HQ", 8) if self.big else ("HI", 4)
        kind, count = struct.unpack_from(self.order + form, self.data, at + 2)
        if kind not in _VALUE_BYTES:
            raise ValueError(f"the values of its TIFF tag {tag} are of type {kind}")
        start = at + (12 if self.big else 8)
        if count * _VALUE_BYTES[kind] > inline:
            (start,) = struct.unpack_from(self.order + form[1], self.data, start)
        if (end := start + count * _VALUE_BYTES[kind]) > len(self.data):
            raise ValueError(
                f"it is cut short: its TIFF tag {tag} ends at byte {end}, "
                f"file has {len(self.data)} bytes"
            )
        return np.frombuffer(self.data, f"{self.order}u{_VALUE_BYTES[kind]}", count, start)

    def value(self, tag: str, default: int | None = None) -> int:
        """Give the only value of `tag`; where there is no such tag, the default if there is one."""
        if default is not None and tag not in self:
            return default
        values = self.values(tag)
        if len(values) != 1:
            raise ValueError(f"its TIFF tag {tag} must have one value, not {len(values)}")
        return int(values[0])

    def common_value(self, tag: str) -> int:
        """Give the value of `tag`, which all channels must share; 1 where there is no such tag."""
        if tag not in self:
            return 1
        values = self.values(tag)
        if len(values) == 0 or (values != values[0]).any():
            raise ValueError(f"its TIFF tag {tag} must be the same for all channels")
        return int(values[0])


def read_directory(data: bytes, at: int | None = None) -> Directory:
    """Read the directory at byte `at` of a TIFF file, or the first one."""
    order, big = "<" if data[:2] == b"II" else ">", 43 in data[2:4]
    count_form, offset_form, entry_bytes = ("Q", "Q", 20) if big else ("H", "I", 12)
    try:
        if at is None:
            (at,) = struct.unpack_from(order + offset_form, data, 8 if big else 4)
        (count,) = struct.unpack_from(order + count_form, data, at)
        start = at + struct.calcsize(count_form)
        end = start + count * entry_bytes
        (following,) = struct.unpack_from(order + offset_form, data, end)
    except (struct.error, OverflowError):
        raise ValueError(
            f"it is cut short: file has {len(data)} bytes, and its TIFF directory lies beyond"
        ) from None
    return Directory(data, order, big, at, range(start, end, entry_bytes), following)


def exif_orientation(exif: bytes) -> int:
    """How an image lies, by its EXIF; 1, which is upright, where that does not say."""
    try:
        return read_directory(exif).value("Orientation", 1)
    except ValueError:
        # Of a damaged note on the image, not of the image.
        return 1
