"""The elements of a DICOM file, read by pydicom and never quoted.

What pydicom says of a file may quote values, and is not let out. Its checks of values, its log and
its warnings are switched off once for the process, also where that process calls pydicom itself:
this is safe in threads, as `warnings.catch_warnings` is not.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import config, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import data_element_generator
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom\b")

_PIXELS, _CHARACTER_SET = Tag("PixelData"), Tag("SpecificCharacterSet")
_MOST_BYTES = 2**30
_MOST_READS = 200_000  # a header of one image has a few thousand elements, each of two or three
_ENDLESS = range(2**21, 2**32 - 1)  # bytes of a sequence, which may be all items
_LAST_ITEM = b"\xfe\xff\xdd\xe0" + bytes(4)


class _File(BytesIO):
    """A file that is given up after so many reads: endless elements would take all memory."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MOST_READS:
            raise ValueError
        return super().read(size)


def read_header(data: bytes, tags: Collection[int] = ()) -> Dataset:
    """Read the elements of a file up to its pixels; if it is damaged, those before the damage.

    Parameters
    ----------
    data : bytes
    tags : collection of int
        The elements to read, the pixels among them; all but the pixels if it is empty.

    Raises
    ------
    ValueError
        If it is deflated and damaged, or unpacks to more than 2**30 bytes.
    """
    file = _File(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = _elements(file, False, True, lambda tag: tag >> 16 != 2)
    syntax = text(meta, "TransferSyntaxUID")
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        file = _File(_inflated(file.read()))
    start = file.tell()
    first = file.read(6)
    file.seek(start)
    # What the elements look like is believed before what the header says of them.
    implicit = not first[4:].isalpha()
    little = syntax != uid.ExplicitVRBigEndian if syntax else first[:1] != b"\0"
    ds = _elements(file, implicit, little, lambda tag: not tags and tag == _PIXELS, tags)
    if tags and _PIXELS not in ds and not data.endswith(_LAST_ITEM):
        # Some leave out the end of compressed pixels.
        return read_header(data + _LAST_ITEM, tags)
    ds.set_original_encoding(implicit, little)
    ds.file_meta = FileMetaDataset()
    usual = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax or usual)
    return ds


def _elements(
    file: BytesIO,
    implicit: bool,
    little: bool,
    ends_at: Callable[[int], bool],
    tags: Collection[int] = (),
) -> Dataset:
    def stops(tag: int, kind: str | None, length: int) -> bool:
        if tag == _CHARACTER_SET:  # blanked, since pydicom quotes one that it does not know
            start = file.tell()
            blank = b" " * len(file.read(length))
            file.seek(start)
            file.write(blank)
            file.seek(start)
        return ends_at(tag)

    found: dict[BaseTag, Any] = {}
    with suppress(Exception):
        for element in data_element_generator(
            file, implicit, little, stops, specific_tags=list(tags)
        ):
            found.setdefault(element.tag, element)
            if element.tag == _PIXELS:
                break
    return Dataset(found)


def _inflated(data: bytes) -> bytes:
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    with damaged("its deflated DICOM elements"):
        unpacked = unpacking.decompress(data, _MOST_BYTES)
    if unpacking.unconsumed_tail:
        raise ValueError(f"its DICOM elements unpack to more than {_MOST_BYTES} bytes")
    return unpacked


@contextmanager
def damaged(what: str) -> Iterator[None]:
    """Around a library alone, whose reason may quote the file: says what is damaged, not how."""
    try:
        yield
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{what} are damaged, cut short or not supported ({kind})") from None


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Give the items of a sequence; none where there is none."""
    with damaged("its DICOM sequences"):
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
        raise ValueError(
            f"its DICOM {keyword} is {'not one finite number' if values else 'missing'}"
        )
    return values[0]
