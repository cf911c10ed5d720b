"""DICOM: one grey or RGB image of one frame, whose elements pydicom reads.

Done to values, in this order: the modality's rescale or table; the window or table of values of
interest, if `voi` asks for one; the inversion of MONOCHROME1. Palettes and YBR become RGB, to
which no window applies. Several frames are refused, as several pages of a TIFF are.

No value of the header is quoted but sizes, numbers and names that stand here.

Letters: h and w pixels.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from conocc.data.image_io.dicom_header import damaged, items, number, numbers, read_header, text
from conocc.data.image_io.dicom_kind import PIXEL_KEYWORDS, kind_of
from conocc.data.image_io.dicom_pixels import stored_pixels
from conocc.data.image_io.pixels import Pixels

SUFFIXES = (".dcm", ".dicom", ".ima")

# With the preamble that the standard asks for, or without it: then the first element must be of
# the groups 0002 or 0008, with the kind of its value or with a length that such have.
PREAMBLE = re.compile(rb".{128}DICM", re.DOTALL)
_BARE = (
    rb"[\x02\x08]\0.\0(?:AE|AS|CS|DA|DS|DT|IS|LO|OB|PN|SH|TM|UI|UL)",
    rb"\0[\x02\x08]\0.(?:AE|AS|CS|DA|DS|DT|IS|LO|OB|PN|SH|TM|UI|UL)",
    rb"\x08\0[\0-\x18]\0[\0-\x40]\0\0\0",
)
SIGNATURE = re.compile(rb".{128}DICM|" + rb"|".join(_BARE), re.DOTALL)

# What decides how pixels are read, and all that is read of a file for its pixels.
_KEYWORDS = """
SOPClassUID Modality SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames
Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation WindowCenter WindowWidth
RescaleIntercept RescaleSlope VOILUTFunction RedPaletteColorLookupTableDescriptor
GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
ModalityLUTSequence VOILUTSequence SharedFunctionalGroupsSequence
PerFrameFunctionalGroupsSequence PixelData
"""
_TAGS = [Tag(keyword) for keyword in _KEYWORDS.split()]


def read_dicom(data: bytes, voi: str = "none") -> Pixels:
    """Read a DICOM file.

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
    ds = read_header(data, _TAGS)
    _check_is_image(ds)
    stored = stored_pixels(ds)
    if text(ds, "PhotometricInterpretation") == "PALETTE COLOR":
        return _palette_colours(ds, stored)
    return stored if stored.ndim == 3 else _grey_values(ds, stored, voi)


def _check_is_image(ds: Dataset) -> None:
    if kind := kind_of(ds):
        raise ValueError(f"it is of DICOM's kind {kind!r}, not an image")
    if not any(keyword in ds for keyword in PIXEL_KEYWORDS):
        raise ValueError("it is a DICOM object without an image, or damaged or cut short before it")


# --- what stored numbers mean ----------------------------------------------------------------


def _grey_values(ds: Dataset, stored: Pixels, voi: str) -> Pixels:
    """Rescale, take the window, invert MONOCHROME1: in this order; (h, w) -> (h, w)."""
    values, limits = _rescaled(ds, stored)
    if voi != "none":
        values, limits = _windowed(ds, values, voi), (0, 1)
    if text(ds, "PhotometricInterpretation") == "MONOCHROME1":
        # Around what can be stored, not what is, so that images stay comparable.
        values = values.dtype.type(sum(limits)) - values
    if values.dtype == np.float64 and stored.dtype.itemsize <= 2:
        with np.errstate(over="ignore"):  # infinite, and refused as that
            return values.astype(np.float32)
    return values


def _rescaled(ds: Dataset, stored: Pixels) -> tuple[Pixels, tuple[float, float]]:
    """Give the values that the scanner meant, and the limits that they can reach."""
    signed = stored.dtype.kind == "i"
    if tables := items(ds, "ModalityLUTSequence"):
        values, highest = _looked_up(stored, tables[0], signed=signed)
        return values, (0, highest)
    group = _group(ds, "RescaleSlope", "PixelValueTransformationSequence")
    slope, intercept = number(group, "RescaleSlope", 1), number(group, "RescaleIntercept", 0)
    if slope == 0:
        raise ValueError("its DICOM RescaleSlope is 0, which leaves no image")
    half = 2 ** (ds.BitsStored - 1)
    low, high = (-half, half - 1) if signed else (0, 2 * half - 1)
    if (slope, intercept) == (1, 0):
        return stored, (low, high)
    with np.errstate(over="ignore"):
        values = stored.astype(np.float64) * slope + intercept
    return values, (low * slope + intercept, high * slope + intercept)


def _windowed(ds: Dataset, values: Pixels, voi: str) -> Pixels:
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
        group = _group(ds, "WindowCenter", "FrameVOILUTSequence")
        centers, widths = numbers(group, "WindowCenter"), numbers(group, "WindowWidth")
        if not centers or not widths:
            raise ValueError(
                "it has no window of its own; read it with voi='none' or 'CENTER,WIDTH' (--voi)"
            )
        center, width, function = centers[0], widths[0], text(group, "VOILUTFunction") or function
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError("its DICOM VOILUTFunction is none that is read")
    if not np.isfinite([center, width]).all() or width <= 0 or (function == "LINEAR" and width < 1):
        raise ValueError(f"its DICOM window is {center:g},{width:g}, where a width is above 0")
    x = values.astype(np.float64)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (x - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    return np.clip((x - center) / width + 0.5, 0, 1) if width else (x > center).astype(np.float64)


def _group(ds: Dataset, keyword: str, sequence: str) -> Dataset:
    """Find where an element stands: in the header, or, of enhanced objects, in `sequence`."""
    if keyword not in ds:
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            for group in items(ds, groups)[:1]:
                for item in items(group, sequence)[:1]:
                    return item
    return ds


def _palette_colours(ds: Dataset, stored: Pixels) -> Pixels:
    """Look the numbers of a palette up; (h, w) -> (h, w, 3)."""
    if "RedPaletteColorLookupTableData" not in ds:
        raise ValueError("its palette is missing or in segments, which are not read")
    signed = stored.dtype.kind == "i"
    planes, highest = zip(
        *(
            _looked_up(stored, ds, f"{colour}PaletteColorLookupTable", signed=signed)
            for colour in ("Red", "Green", "Blue")
        ),
        strict=True,
    )
    return np.stack(planes, axis=-1).astype(np.uint8 if max(highest) < 256 else np.uint16)


def _looked_up(
    values: Pixels, item: Dataset, table: str = "LUT", *, signed: bool
) -> tuple[Pixels, int]:
    """Look numbers up in a table; those beyond an end take the value there. And its highest value.

    pydicom 3.0 refuses modality tables of 12 bits, and has wrong colours for palettes of
    big-endian files and for those of 8 bits where pixels have 16.
    """
    with damaged(f"the numbers of its DICOM {table}"):
        descriptor: Any = item.get_item(f"{table}Descriptor")
        packed: Any = item.get_item(f"{table}Data")
        order = "<" if packed.is_little_endian else ">"
        entries, first, bits = struct.unpack(f"{order}H{'h' if signed else 'H'}H", descriptor.value)
        entries = entries or 2**16
        # Some pack 8 bits into words of 16, and some do not.
        kind = f"{order}u2" if len(packed.value) >= 2 * entries else "u1"
        numbers = np.frombuffer(packed.value, kind, entries).astype(np.uint16)
        if not 1 <= bits <= 16:
            raise ValueError
    at = np.clip(np.rint(values.astype(np.float64)) - first, 0, entries - 1).astype(np.intp)
    return numbers[at], max(2**bits - 1, int(numbers.max()))
