"""DICOM: grey or RGB images, one or, as frames, several in a file, whose elements pydicom reads.

Done to values, in this order: the modality's rescale or table; padding, which holds no image, is
filled (`conocc.data.image_io.dicom_padding`); the window or table of values of interest, if `voi`
asks for one; the inversion of MONOCHROME1. Palettes and YBR become RGB, to which no window applies.
A frame has the values of its own functional group, then those of the shared one.

No value of the header is quoted but sizes, numbers and names that stand here.

Letters: h and w pixels; k the number of a frame.
"""

from __future__ import annotations

import math
import re
import struct
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from conocc.data.image_io.dicom_header import items, number, read_header, text
from conocc.data.image_io.dicom_kind import PIXEL_KEYWORDS, kind_of
from conocc.data.image_io.dicom_padding import KEYWORDS, PADDED, without_padding
from conocc.data.image_io.dicom_pixels import Layout, Stored, layout_of, stored_pixels
from conocc.data.image_io.pixels import SEVERAL, Pixels, ReadError, Remarked, decoding
from conocc.data.image_io.stack import Stack, StackOptions

# With the preamble that the standard asks for, or without it: then the first element must be of
# the groups 0002 or 0008, with the kind of its value or with a length that such have.
_BARE = (
    rb"[\x02\x08]\0.\0(?:AE|AS|CS|DA|DS|DT|IS|LO|OB|PN|SH|TM|UI|UL)",
    rb"\0[\x02\x08]\0.(?:AE|AS|CS|DA|DS|DT|IS|LO|OB|PN|SH|TM|UI|UL)",
    rb"\x08\0[\0-\x18]\0[\0-\x40]\0\0\0",
)
SIGNATURE = re.compile(rb".{128}DICM|" + rb"|".join(_BARE), re.DOTALL)

# What decides how pixels are read, and all that is read of a file for its pixels.
_KEYWORDS = f"""
{KEYWORDS} {" ".join(PIXEL_KEYWORDS)} ExtendedOffsetTable
SOPClassUID Manufacturer Modality SamplesPerPixel PhotometricInterpretation PlanarConfiguration
ImageType NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
WindowCenter WindowWidth
RescaleIntercept RescaleSlope VOILUTFunction ModalityLUTSequence VOILUTSequence
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
"""
_SEGMENTED, _RGB = "Segmented", ("Red", "Green", "Blue")
_PALETTE = [
    f"{word}PaletteColorLookupTable{part}"
    for colour in _RGB
    for word, part in ((colour, "Descriptor"), (colour, "Data"), (_SEGMENTED + colour, "Data"))
]
_TAGS = [Tag(keyword) for keyword in (*_KEYWORDS.split(), *_PALETTE)]


# The beginning of a file, which nearly always tells whether it holds one image.
_HEAD = 2**16

LOCALIZER = "a localizer, by DICOM's ImageType"
NO_SLOPE = "a rescale slope of 0, read as 1"


def read_dicom(data: bytes, voi: str = "none") -> Remarked:
    """Read a DICOM file of one image.

    Parameters
    ----------
    data : bytes
    voi : {"none", "file", "CENTER,WIDTH"}
        What brings out the values of interest, as 0 to 1: nothing, so that values stay as the
        scanner meant them; the file's own table or window; or this window for every file.
        Colours have none.

    Raises
    ------
    ValueError
        If it is not one image, is damaged, or is of a kind that is not read; or has no window
        where its own is asked for.
    """
    ds, layout = _opened(data)
    if layout.frames > 1:
        raise ReadError(SEVERAL.format(f"{layout.frames} frames"))
    return _frame(ds, layout, voi, 0)


def open_dicom(file: BinaryIO, options: StackOptions) -> Stack | None:
    """Open a DICOM file of several frames; None where it holds one image, or none that is read.

    Raises
    ------
    ValueError
        Never: `read_dicom` says why a file is not read.
    """
    from conocc.data.image_io.dicom_person import person_of

    head = file.read(_HEAD)
    with suppress(ValueError):  # of what lies further behind, or of damage
        if _opened(head, is_head=True)[1].frames == 1:
            return None
    try:
        ds, layout = _opened(data := head + file.read())
    except ValueError:
        return None
    if layout.frames == 1:
        return None
    image = partial(_frame, ds, layout, options.voi)
    numbers = tuple(range(layout.frames))
    return Stack("frame", layout.frames, numbers, image, person=person_of(data))


def _opened(data: bytes, *, is_head: bool = False) -> tuple[Dataset, Layout]:
    ds = read_header(data, _TAGS)
    if kind := kind_of(ds):
        raise ValueError(f"it is of DICOM's kind {kind!r}, not an image")
    if not any(keyword in ds for keyword in PIXEL_KEYWORDS):
        raise ValueError("it is a DICOM object without an image, or damaged or cut short before it")
    return ds, layout_of(ds, is_head=is_head)


def _frame(ds: Dataset, layout: Layout, voi: str, k: int) -> Remarked:
    """Read frame `k`."""
    stored = stored_pixels(ds, layout, k)
    if "LOCALIZER" in ds.get("ImageType", ()):
        stored = stored._replace(remarks=(*stored.remarks, LOCALIZER))
    if stored.pixels.ndim == 3:
        return Remarked(stored.pixels, stored.remarks)
    if layout.photometric == "PALETTE COLOR":
        return Remarked(_palette_colours(ds, stored.pixels), stored.remarks)
    return _grey_values(ds, layout, stored, voi, k)


# --- what stored numbers mean ----------------------------------------------------------------


def _grey_values(ds: Dataset, layout: Layout, stored: Stored, voi: str, k: int) -> Remarked:
    """Rescale, fill padding, take the window, invert MONOCHROME1: in this order."""
    values, limits, remarks = _rescaled(ds, stored, k)
    inverted = layout.photometric == "MONOCHROME1"
    if (filled := without_padding(ds, stored, values, brightest_is_low=inverted)) is not None:
        values, remarks = filled, (*remarks, PADDED)
    if voi != "none":
        values, limits = _windowed(ds, values, voi, k), (0, 1)
    if inverted:
        # Around what can be stored, not what is, so that images stay comparable.
        values = values.dtype.type(sum(limits)) - values
    if values.dtype == np.float64 and stored.pixels.dtype.itemsize <= 2:
        with np.errstate(over="ignore"):  # infinite, and refused as that
            values = values.astype(np.float32)
    return Remarked(values, remarks)


def _rescaled(
    ds: Dataset, stored: Stored, k: int
) -> tuple[Pixels, tuple[float, float], tuple[str, ...]]:
    """Give the values that the scanner meant, the limits that they can reach, and remarks."""
    pixels, (low, high), remarks = stored.pixels, stored.limits, stored.remarks
    if tables := items(ds, "ModalityLUTSequence"):
        values, highest = _looked_up(pixels, tables[0], signed=pixels.dtype.kind == "i")
        return values, (0, highest), remarks
    group = group_of(ds, "RescaleSlope", "PixelValueTransformationSequence", k)
    slope, intercept = number(group, "RescaleSlope", 1), number(group, "RescaleIntercept", 0)
    if slope == 0:  # as others read it: 0 would leave no image
        slope, remarks = 1, (*remarks, NO_SLOPE)
    if (slope, intercept) == (1, 0):
        return pixels, (low, high), remarks
    with np.errstate(over="ignore"):
        values = pixels.astype(np.float64) * slope + intercept
    return values, (low * slope + intercept, high * slope + intercept), remarks


def _windowed(ds: Dataset, values: Pixels, voi: str, k: int) -> Pixels:
    """Spread the values of interest over 0 to 1 (PS3.3 C.11.2.1); (h, w) -> (h, w) of float64."""
    function = "LINEAR"
    if voi != "file":
        center, width = map(float, voi.split(","))
    elif tables := items(ds, "VOILUTSequence"):
        # The first number is of the rescaled values, which may be below zero.
        signed = values.dtype.kind == "i" or float(values.min()) < 0
        found, highest = _looked_up(values, tables[0], signed=signed)
        return found / highest
    else:
        center, width, function = _own_window(
            group_of(ds, "WindowCenter", "FrameVOILUTSequence", k)
        )
    with np.errstate(invalid="ignore"):  # NaN, refused as that
        x = values.astype(np.float64)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (x - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    return np.clip((x - center) / width + 0.5, 0, 1) if width else (x > center).astype(np.float64)


def _own_window(group: Dataset) -> tuple[float, float, str]:
    """Read the first window of a file that is one: its center, width and function."""
    function = text(group, "VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError("its DICOM VOILUTFunction is none that is read")
    centers, widths = (_each_number(group, f"Window{part}") for part in ("Center", "Width"))
    windows = list(zip(centers, widths, strict=False))
    for center, width in windows:
        if np.isfinite([center, width]).all() and width >= (function == "LINEAR") and width > 0:
            return center, width, function
    if not windows:
        raise ValueError("it has no window; read it with voi='none' or 'CENTER,WIDTH' (--voi)")
    center, width = windows[0]
    if not np.isfinite([center, width]).all():
        raise ValueError("its DICOM WindowCenter or WindowWidth is not a number")
    raise ValueError(f"its DICOM window is {center:g},{width:g}, where a width is above 0")


def _each_number(group: Dataset, keyword: str) -> list[float]:
    """Read numbers one by one, as pydicom does not: NaN for what is none."""
    element: Any = group.get_item(keyword) if keyword in group else None
    found = list[float]()
    for word in element.value.split(b"\\") if element and element.value else ():
        try:
            found.append(float(word))
        except ValueError:
            found.append(math.nan)
    return found


def group_of(ds: Dataset, keyword: str, sequence: str, k: int) -> Dataset:
    """Find where an element of frame `k` stands: in its own group, the shared one or the header."""
    for groups, at in (("PerFrame", k), ("Shared", 0)):
        for group in items(ds, f"{groups}FunctionalGroupsSequence")[at : at + 1]:
            for item in items(group, sequence)[:1]:
                if keyword in item:
                    return item
    return ds


def _palette_colours(ds: Dataset, stored: Pixels) -> Pixels:
    """Look the numbers of a palette up; (h, w) -> (h, w, 3)."""
    if not any(
        f"{segmented}RedPaletteColorLookupTableData" in ds for segmented in ("", _SEGMENTED)
    ):
        raise ValueError("its palette is missing")
    signed = stored.dtype.kind == "i"
    names = [f"{colour}PaletteColorLookupTable" for colour in _RGB]
    tables = [_looked_up(stored, ds, name, signed=signed) for name in names]
    planes, highest = zip(*tables, strict=True)
    return np.stack(planes, axis=-1).astype(np.uint8 if max(highest) < 256 else np.uint16)


def _looked_up(
    values: Pixels, item: Dataset, table: str = "LUT", *, signed: bool
) -> tuple[Pixels, int]:
    """Look numbers up in a table; those beyond an end take the value there. And its highest value.

    pydicom 3.0 refuses modality tables of 12 bits, and has wrong colours for palettes of
    big-endian files and for those of 8 bits where pixels have 16.
    """
    with decoding(f"the numbers of its DICOM {table} are"):
        descriptor: Any = item.get_item(f"{table}Descriptor")
        is_segmented = f"{table}Data" not in item
        packed: Any = item.get_item(f"{_SEGMENTED * is_segmented}{table}Data")
        order = "<" if packed.is_little_endian else ">"
        entries, first, bits = struct.unpack(f"{order}H{'h' if signed else 'H'}H", descriptor.value)
        entries = entries or 2**16
        if is_segmented:
            numbers = _expanded(np.frombuffer(packed.value, f"{order}u{bits // 8}"), entries)
        else:  # some pack 8 bits into words of 16, and some do not
            kind = f"{order}u2" if len(packed.value) >= 2 * entries else "u1"
            numbers = np.frombuffer(packed.value, kind, entries).astype(np.uint16)
        if not 1 <= bits <= 16:
            raise ValueError
    at = np.clip(np.rint(values.astype(np.float64)) - first, 0, entries - 1).astype(np.intp)
    return numbers[at], max(2**bits - 1, int(numbers.max()))


def _expanded(words: Pixels, entries: int) -> Pixels:
    """Expand the discrete and linear segments of a table (PS3.3 C.7.9.2) to so many entries."""
    found, at = list[int](), 0
    while len(found) < entries:
        kind, n = map(int, words[at : at + 2])
        if kind == 0:
            found += words[at + 2 : at + 2 + n].tolist()
        elif kind == 1:
            found += np.rint(np.linspace(found[-1], words[at + 2], n + 1)[1:]).astype(int).tolist()
        else:
            raise ValueError
        at += 3 if kind else 2 + n
    return np.array(found[:entries], np.uint16)
