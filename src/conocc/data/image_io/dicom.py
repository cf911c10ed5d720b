"""DICOM: one grey or RGB image of one frame.

Done to values, in this order: the modality's rescale or table; the window or table of values of
interest, if `voi` asks for one; the inversion of MONOCHROME1. Palettes and YBR become RGB, to
which no window applies. Several frames are refused, as several pages of a TIFF are.

No value of the header is quoted but sizes, numbers and names that stand here.
"""

from __future__ import annotations

import re

from conocc.data.image_io.dicom_pixels import layout_of, stored_pixels
from conocc.data.image_io.dicom_values import grey_values, palette_colours
from conocc.data.image_io.elements import Elements, read_elements
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

_TABLES = "1.2.840.10008.5.1.4.1.1."
# By how the number of their class goes on; the first that fits.
_NO_IMAGES = {
    "4.2": "a spectroscopy object",
    "9.": "a waveform",
    "11.": "a presentation state",
    "30": "a parametric map",
    "66.4": "a segmentation",
    "66.5": "a surface segmentation",
    "66.6": "a tractography result",
    "66.7": "a label map segmentation",
    "66": "raw data, a registration or fiducials",
    "67": "a real world value mapping",
    "68": "a surface scan",
    "78": "a measurement of the eye",
    "79": "a report on the eye",
    "88.": "a structured report",
    "104.": "an encapsulated document",
    "200.": "an implant or a procedure's result",
    "481.2": "a radiotherapy dose",
    "481.3": "a radiotherapy structure set",
    "481.": "a radiotherapy object",
}
_NO_IMAGE_MODALITIES = {
    "SEG": "a segmentation",
    "SR": "a structured report",
    "KO": "a selection of key objects",
    "PR": "a presentation state",
    "REG": "a registration",
    "RTDOSE": "a radiotherapy dose",
    "RTSTRUCT": "a radiotherapy structure set",
    "RTPLAN": "a radiotherapy plan",
    "RTRECORD": "a radiotherapy record",
    "RTIMAGE": "a radiotherapy object",
    "ECG": "a waveform",
    "DOC": "an encapsulated document",
}


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
    header = read_elements(data)
    _check_is_image(header)
    layout = layout_of(header)
    stored = stored_pixels(header, layout)
    if layout.photometric == "PALETTE COLOR":
        return palette_colours(header, stored)
    return stored if layout.channels == 3 else grey_values(header, layout, stored, voi)


def _check_is_image(header: Elements) -> None:
    number = header.text("SOPClassUID").removeprefix(_TABLES)
    named = [
        name
        for key, name in _NO_IMAGES.items()
        if f"{number}.".startswith(key if key.endswith(".") else f"{key}.")
    ]
    if not named and (kind := _NO_IMAGE_MODALITIES.get(header.text("Modality"))):
        named = [kind]
    if named:
        raise ValueError(f"it is {named[0]} (DICOM), not an image")
    if header.damage:
        raise ValueError(header.damage)
    if "PixelData" not in header:
        raise ValueError("it is a DICOM object without an image: its header has no PixelData")
