"""The data elements of DICOM: where each lies, without its value being looked at.

The header is read here and not by pydicom, whose warnings and log tell values of the patient,
and cannot be silenced safely in a thread. Nothing here quotes a value.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field

# What decides how pixels are read, and all of a file that a message may tell of.
TAGS = {
    "TransferSyntaxUID": 0x00020010,
    "SOPClassUID": 0x00080016,
    "Modality": 0x00080060,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "PlanarConfiguration": 0x00280006,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "WindowCenter": 0x00281050,
    "WindowWidth": 0x00281051,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "VOILUTFunction": 0x00281056,
    "RedPaletteColorLookupTableDescriptor": 0x00281101,
    "GreenPaletteColorLookupTableDescriptor": 0x00281102,
    "BluePaletteColorLookupTableDescriptor": 0x00281103,
    "RedPaletteColorLookupTableData": 0x00281201,
    "GreenPaletteColorLookupTableData": 0x00281202,
    "BluePaletteColorLookupTableData": 0x00281203,
    "ModalityLUTSequence": 0x00283000,
    "LUTDescriptor": 0x00283002,
    "LUTData": 0x00283006,
    "VOILUTSequence": 0x00283010,
    "FrameVOILUTSequence": 0x00289132,
    "PixelValueTransformationSequence": 0x00289145,
    "SharedFunctionalGroupsSequence": 0x52009229,
    "PerFrameFunctionalGroupsSequence": 0x52009230,
    "PixelData": 0x7FE00010,
}
_DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

# Kinds of values whose length takes 4 bytes, and those for which it takes 2.
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_META = 0x0002
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF

_DEEPEST = 24
_MOST_ELEMENTS = 200_000
_MOST_BYTES = 2**30
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")


@dataclass
class Elements:
    """Where the values of one data set lie in `data`.

    Attributes
    ----------
    data : bytes
    order : {"<", ">"}
    explicit : bool
        Whether each element says of what kind its value is.
    where : dict of int to slice
        The value of each element, by its tag.
    pixels_in_items : bool
        As compressed ones lie; their value then is all that follows.
    pixels_in_words : bool
        Whether pixels of 8 bits come in pairs, in the order of bytes of the file.
    syntax : str
        The transfer syntax; empty where the file names none.
    damage : str
        Why the rest could not be read; empty where all of it was.
    """

    data: bytes
    order: str = "<"
    explicit: bool = True
    where: dict[int, slice] = field(default_factory=dict)
    pixels_in_items: bool = False
    pixels_in_words: bool = False
    syntax: str = ""
    damage: str = ""

    def __contains__(self, tag: str) -> bool:
        return TAGS[tag] in self.where

    def value(self, tag: str | int) -> bytes:
        """Give the bytes of a value; none where there is no such element."""
        at = self.where.get(TAGS[tag] if isinstance(tag, str) else tag)
        return b"" if at is None else self.data[at]

    def text(self, tag: str) -> str:
        return self.value(tag).decode("latin-1").strip(" \0")

    def number(self, tag: str, default: int | None = None) -> int:
        """Read a number of 16 bits; the default where there is none."""
        value = self.value(tag)
        if not value and default is not None:
            return default
        if len(value) != 2:
            raise ValueError(f"its DICOM header has {'a damaged' if value else 'no'} {tag}")
        (number,) = struct.unpack(self.order + "H", value)
        return int(number)

    def decimals(self, tag: str) -> tuple[float, ...]:
        """Read numbers written as text; none where there are none."""
        value = self.value(tag).strip(b" \0")
        parts = [part.strip(b" \0") for part in value.split(b"\\")] if value else []
        if not all(_NUMBER.fullmatch(part) for part in parts):
            # What stands there instead may be anything, a name too.
            raise ValueError(f"its DICOM {tag} is not a number")
        return tuple(float(part) for part in parts)

    def items(self, tag: str | int) -> list[Elements]:
        """Read the data sets of a sequence; none where there is none."""
        at = self.where.get(TAGS[tag] if isinstance(tag, str) else tag)
        if at is None:
            return []
        try:
            return _Walker(self).items(at.start, at.stop, 0)[1]
        except struct.error:
            raise ValueError("a sequence of its DICOM header is cut short") from None


def read_elements(data: bytes) -> Elements:
    """Find the elements of a DICOM file up to its pixels; damage is noted, not raised."""
    start = 132 if data[128:132] == b"DICM" else 0
    meta = Elements(data)
    at = _walked(meta, start, only_meta=True)
    if meta.damage:
        return meta
    syntax = meta.text("TransferSyntaxUID")
    if syntax == _DEFLATED:
        data, meta.damage = _inflated(data[at:])
        if meta.damage:
            return meta
        at = 0
    order = ">" if syntax == _BIG_ENDIAN or (not syntax and data[at : at + 1] == b"\0") else "<"
    # What the elements look like is believed before what the header says of them.
    explicit = data[at + 4 : at + 6] in _LONG | _SHORT
    found = Elements(data, order, explicit, syntax=syntax)
    _walked(found, at)
    return found


def _walked(found: Elements, at: int, *, only_meta: bool = False) -> int:
    try:
        return _Walker(found).elements(found, at, len(found.data), 0, only_meta=only_meta)
    except struct.error:
        found.damage = f"it is cut short: file has {len(found.data)} bytes, its header more"
    except ValueError as error:
        found.damage = str(error)
    return at


def _inflated(data: bytes) -> tuple[bytes, str]:
    """Unpack deflated elements; with a reason where they cannot be."""
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = unpacking.decompress(data, _MOST_BYTES)
    except zlib.error:
        return b"", "its deflated DICOM elements are damaged"
    if unpacking.unconsumed_tail:
        return b"", f"its DICOM elements unpack to more than {_MOST_BYTES} bytes"
    return unpacked, ""


class _Walker:
    """Walks through the elements of one file, so many and so deep at most."""

    def __init__(self, found: Elements) -> None:
        self.data, self.order, self.explicit = found.data, found.order, found.explicit
        self.left = _MOST_ELEMENTS

    def elements(
        self, found: Elements, at: int, end: int, depth: int, *, only_meta: bool = False
    ) -> int:
        """Note where each element lies, up to `end`, the end of an item or pixels; give where."""
        while at + 8 <= end:
            self.left -= 1
            if self.left < 0 or depth > _DEEPEST:
                raise ValueError("its DICOM header holds more elements than any image has")
            tag = self._tag(at)
            if only_meta and tag >> 16 != _META:
                return at
            if tag == _ITEM_END:
                return at + 8
            kind, start, length = self._head(at)
            if tag == TAGS["PixelData"] and length == _UNDEFINED:
                found.where[tag], found.pixels_in_items = slice(start, end), True
                return end
            at = self._stop(kind, start, length, end, depth)
            found.where[tag] = slice(start, at)
            if tag == TAGS["PixelData"] and depth == 0:
                found.pixels_in_words = kind == b"OW"
                return at
        return at

    def _tag(self, at: int) -> int:
        group, element = struct.unpack_from(self.order + "HH", self.data, at)
        return int(group) << 16 | int(element)

    def _head(self, at: int) -> tuple[bytes, int, int]:
        """Kind, start and length of the value of the element at byte `at`."""
        if not self.explicit:
            (length,) = struct.unpack_from(self.order + "I", self.data, at + 4)
            return b"", at + 8, length
        kind = self.data[at + 4 : at + 6]
        if kind in _SHORT:
            (length,) = struct.unpack_from(self.order + "H", self.data, at + 6)
            return kind, at + 8, length
        if kind not in _LONG:
            raise ValueError(f"its DICOM header is damaged at byte {at}")
        (length,) = struct.unpack_from(self.order + "I", self.data, at + 8)
        return kind, at + 12, length

    def _stop(self, kind: bytes, start: int, length: int, end: int, depth: int) -> int:
        """Give the byte at which a value ends."""
        if length != _UNDEFINED:
            if start + length > end:
                raise ValueError(
                    f"it is cut short: a DICOM element ends at byte {start + length}, "
                    f"where there are {end} bytes"
                )
            return start + length
        # A sequence whose kind was unknown to who wrote it, written as the oldest syntax has it.
        unknown = kind == b"UN"
        before = self.explicit, self.order
        self.explicit, self.order = (False, "<") if unknown else before
        stop, _ = self.items(start, end, depth + 1)
        self.explicit, self.order = before
        return stop

    def items(self, at: int, end: int, depth: int) -> tuple[int, list[Elements]]:
        """Read the items of a sequence; give where it ends, and the items."""
        found: list[Elements] = []
        while at + 8 <= end:
            self.left -= 1
            tag = self._tag(at)
            (length,) = struct.unpack_from(self.order + "I", self.data, at + 4)
            at += 8
            if tag == _SEQUENCE_END:
                return at, found
            if tag != _ITEM or (length != _UNDEFINED and at + length > end):
                raise ValueError(f"a sequence of its DICOM header is damaged at byte {at - 8}")
            item = Elements(self.data, self.order, self.explicit)
            stop = self.elements(item, at, end if length == _UNDEFINED else at + length, depth + 1)
            at = stop if length == _UNDEFINED else at + length
            found.append(item)
        return at, found
