"""The elements of a DICOM file, read by pydicom and never quoted.

What pydicom says of a file may quote values, and is not let out. Its checks of values, its log and
its warnings are switched off once for the process, also where that process calls pydicom itself:
this is safe in threads, as `warnings.catch_warnings` is not.
"""

from __future__ import annotations

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Collection
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import config, uid
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_sequence
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from conocc.data.image_io.pixels import decoding

config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom\b")

_CHARACTER_SET = Tag("SpecificCharacterSet")
_CHARACTER_SETS = {name.encode() for name in python_encoding}
PIXELS = {Tag("PixelData"), Tag("FloatPixelData"), Tag("DoubleFloatPixelData")}
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 2**32 - 1
_MOST_BYTES = 2**30
_MOST_READS = 200_000  # a header of one image has a few thousand elements, each of two or three
_MOST_LOST = 2**16  # bytes after a damaged element, in which the next is looked for
_ENDLESS = range(2**23, UNDEFINED)  # bytes of a sequence, which may be all items
_KINDS = {kind.encode() for kind in VR}
_LONG = {kind.encode() for kind in EXPLICIT_VR_LENGTH_32}
_Ends = Callable[[int], bool]
_ANY_KIND = re.compile(b"|".join(_KINDS))


class _File(BytesIO):
    """A file that is given up after so many reads: endless elements would take all memory."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MOST_READS:
            raise ValueError
        return super().read(size)


def read_header(data: bytes, tags: Collection[int] = ()) -> Dataset:
    """Read the elements of a file up to its pixels; if it is damaged, those that can be told.

    Parameters
    ----------
    data : bytes
    tags : collection of int
        The elements to read, the pixels among them; all but the pixels if it is empty.

    Returns
    -------
    Dataset
        Its `is_whole` says whether it was read to the pixels or the end of `data`.

    Raises
    ------
    ValueError
        If it is deflated and damaged, or unpacks to more than 2**30 bytes.
    """
    start = 132 if data[128:132] == b"DICM" else 0
    meta, start, _ = _elements(data, start, False, True, lambda tag: tag >> 16 != 2)
    syntax = text(meta, "TransferSyntaxUID").partition("\\")[0]
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        data, start = _inflated(data[start:]), 0
    # What the elements look like is believed before what the header says of them.
    first = data[start : start + 6]
    implicit = not first[4:].isalpha()
    little = first[:1] != b"\0" if b"\0" in first[:2] else syntax != uid.ExplicitVRBigEndian
    ends_at = (lambda _: False) if tags else PIXELS.__contains__
    ds, _, is_whole = _elements(data, start, implicit, little, ends_at, tags)
    ds.is_whole = is_whole
    ds.set_original_encoding(implicit, little)
    ds.file_meta = FileMetaDataset()
    usual = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    plain = not syntax or syntax in uid.UncompressedTransferSyntaxes
    ds.file_meta.TransferSyntaxUID = usual if plain else uid.UID(syntax)
    kind = text(meta, "MediaStorageSOPClassUID").partition("\\")[0]
    ds.file_meta.MediaStorageSOPClassUID = uid.UID(kind)
    return ds


def _elements(
    data: bytes, at: int, implicit: bool, little: bool, ends_at: _Ends, tags: Collection[int] = ()
) -> tuple[Dataset, int, bool]:
    """Walk through the elements of the top level; pydicom reads what they hold.

    Skipped are items and their ends that stand outside of a sequence, and what is damaged: up to
    the next element or, of a sequence without length, to an end of a sequence that one follows.

    Gives where it ends as well, and whether that is the end of `data`, the pixels or `ends_at`.
    """
    found: dict[BaseTag, Any] = {}
    file = _File(data)
    order = "<" if little else ">"
    inside = 0  # stray items without length, which end somewhere
    while at + 8 <= len(data) and file.reads < _MOST_READS:
        file.reads += 1
        tag, kind, start, length = _head(data, at, order, implicit)
        if ends_at(tag):
            return Dataset(found), at, True
        if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            stray = length == UNDEFINED
            inside = max(0, inside + (stray if tag == _ITEM else -1))
            at = start + (length if tag == _ITEM and not stray else 0)
            continue
        element: Any
        if length != UNDEFINED or tag in PIXELS:
            at = start + length if length != UNDEFINED else _end_of_items(data, start, order)
            value = data[start:at] if not tags or tag in tags else b""
            if tag == _CHARACTER_SET:  # pydicom quotes what it does not know
                is_known = {*map(bytes.strip, value.split(b"\\"))} <= _CHARACTER_SETS
                value = value if is_known else b" " * len(value)
            element = RawDataElement(BaseTag(tag), kind, length, value, start, kind is None, little)
            if not implicit and tag not in PIXELS and not _begins(data, at, order, tag):
                at = _next(data, start, order, tag) or at
        else:
            file.seek(start)
            try:
                inner = read_sequence(file, kind is None, little, length, "latin-1")
                element, at = DataElement(tag, "SQ", inner), file.tell()
            except Exception:
                element = None
                at = _after_a_sequence(data, start, order, tag) or len(data) + 1
        if element is not None and not inside and (not tags or tag in tags):
            found.setdefault(BaseTag(tag), element)
        if tag in PIXELS:
            return Dataset(found), at, True
    return Dataset(found), at, at <= len(data)


def _head(data: bytes, at: int, order: str, implicit: bool) -> tuple[int, str | None, int, int]:
    """Read an element's tag, its kind if it is known, where its value begins, and its length.

    What is not explicit as the standard has it is read in the way that leads to another element.
    """
    group, number, kind, short = struct.unpack_from(order + "HH2sH", data, at)
    tag = group << 16 | number
    (length,) = struct.unpack_from(order + "I", data, at + 4)
    if implicit or group == _ITEM >> 16:
        return tag, None, at + 8, length
    name = kind.decode() if kind in _KINDS else None
    ways = [(name, at + 8, short), (None, at + 8, length)]
    if (kind in _LONG or short == 0) and len(data) >= at + 12:
        longer = (name, at + 12, struct.unpack_from(order + "I", data, at + 8)[0])
        ways.insert(1 if name and kind not in _LONG else 0, longer)
    if tag not in PIXELS or not name:
        for way in ways:
            end = way[1] + (0 if way[2] == UNDEFINED else way[2])
            if _begins(data, end, order, tag):
                return tag, *way
    return tag, *ways[0]


def _begins(data: bytes, at: int, order: str, after: int) -> bool:
    """Say whether an explicit element can begin at `at`, or an item, or nothing more."""
    if at + 8 > len(data):
        return at <= len(data)
    group, number, kind = struct.unpack_from(order + "HH2s", data, at)
    tag = group << 16 | number
    if kind in _KINDS or kind == b"??" or tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
        return True
    (length,) = struct.unpack_from(order + "I", data, at + 4)
    return tag > after and (kind.isupper() or at + 8 + length <= len(data))


def _next(data: bytes, start: int, order: str, after: int) -> int | None:
    """Find where the next element begins that one follows, near `start`."""
    for found in _ANY_KIND.finditer(data, start + 4, min(start + _MOST_LOST, len(data) - 2)):
        at = found.start() - 4
        tag, _, value, length = _head(data, at, order, False)
        if tag > after and length != UNDEFINED and _begins(data, value + length, order, tag):
            return at
    return None


def _after_a_sequence(data: bytes, start: int, order: str, after: int) -> int | None:
    """Find an end of a sequence that an element of a later tag follows."""
    at = data.find(mark := _mark(order), start)
    while 0 <= at < len(data) - 16:
        group, number = struct.unpack_from(order + "HH", data, at + 8)
        if after < group << 16 | number < _ITEM and _begins(data, at + 8, order, after):
            return at + 8
        at = data.find(mark, at + 8)
    return None


def _end_of_items(data: bytes, start: int, order: str) -> int:
    """Find where the items of compressed pixels end, whatever follows; before their end mark."""
    at, mark = start, _mark(order)
    while data[at : at + 4] == _mark(order, _ITEM)[:4] and at + 8 <= len(data):
        at += 8 + int(struct.unpack_from(order + "I", data, at + 4)[0])
    marked = data.find(mark, start) if data[at : at + 4] != mark[:4] else -1
    return at if marked < 0 else min(at, marked)


def _mark(order: str, tag: int = _SEQUENCE_END) -> bytes:
    return struct.pack(order + "HHI", tag >> 16, tag & 0xFFFF, 0)


def _inflated(data: bytes) -> bytes:
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    with decoding("its deflated DICOM elements are"):
        unpacked = unpacking.decompress(data, _MOST_BYTES)
    if unpacking.unconsumed_tail:
        raise ValueError(f"its DICOM elements unpack to more than {_MOST_BYTES} bytes")
    return unpacked


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Give the items of a sequence; none where there is none."""
    with decoding("its DICOM sequences are"):
        if keyword in ds and getattr(ds.get_item(keyword), "length", 0) in _ENDLESS:
            raise ValueError
        return [item for item in ds.get(keyword) or [] if isinstance(item, Dataset)]


def text(ds: Dataset, keyword: str) -> str:
    """Give an element's text, which must not be shown; empty where there is none."""
    with suppress(Exception):
        return str(ds.get(keyword) or "").strip(" \0")
    return ""


def numbers(ds: Dataset, keyword: str) -> list[float]:
    """Give an element's numbers; none where it is missing or empty."""
    try:
        value = ds.get(keyword)
        if isinstance(value, bytes):  # of a kind that has no numbers
            value = int.from_bytes(value, "little" if ds.original_encoding[1] else "big")
        values = value if isinstance(value, MultiValue) else [value]
        return [float(number) for number in values if number not in (None, "")]
    except Exception:
        raise ValueError(f"its DICOM {keyword} is not a number") from None


def number(ds: Dataset, keyword: str, default: float | None = None) -> float:
    """Give an element's only number, which must be finite."""
    values = numbers(ds, keyword)
    if not values and default is not None:
        return default
    if len(values) != 1 or not np.isfinite(values[0]):
        raise ValueError(f"its DICOM {keyword} is {'not a finite number' if values else 'missing'}")
    return values[0]
