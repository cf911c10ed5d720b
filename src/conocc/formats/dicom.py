"""DICOM: one grey or RGB image of one frame; pydicom and imagecodecs decode compressed pixels.

Done to values, in this order: the modality's rescale or table; the window or table of values of
interest, if `voi` asks for one; the inversion of MONOCHROME1. Palettes and YBR become RGB, to
which no window applies. Several frames are refused, as several pages of a TIFF are.

No value of the header is quoted but sizes, numbers and names that stand here.

Letters: h and w pixels.
"""

from __future__ import annotations

import importlib
import re
import struct
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conocc.formats.elements import Elements, read_elements
from conocc.formats.pixels import Pixels, check_size, native

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
_DIRECTORY = "1.2.840.10008.1.3.10"

_NATIVE = {"", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"}
_NATIVE |= {"1.2.840.10008.1.2.2"}
_COMPRESSED = {
    "1.2.840.10008.1.2.4.50": "JPEG",
    "1.2.840.10008.1.2.4.51": "JPEG",
    "1.2.840.10008.1.2.4.57": "lossless JPEG",
    "1.2.840.10008.1.2.4.70": "lossless JPEG",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.90": "JPEG 2000",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K",
    "1.2.840.10008.1.2.4.202": "HTJ2K",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE",
}
# One of pydicom's plugins for each, so that the same file is the same image everywhere. The other
# kinds, for which its plugins print to the terminal or panic, are decoded by imagecodecs.
_PLUGINS = {
    "JPEG": "pillow",
    "JPEG-LS": "pyjpegls",
    "JPEG 2000": "pylibjpeg",
    "HTJ2K": "pylibjpeg",
}
_CHANNELS = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_RCT": 3,
    "YBR_ICT": 3,
}

# What a message may not tell of, nor a path repeat.
_PATIENT_GROUP, _PATIENT_NAME, _PATIENT_ID = 0x0010, 0x00100010, 0x00100020
_OTHER_IDS = 0x00101002


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
    layout = _layout(header)
    stored = (_compressed if header.syntax in _COMPRESSED else _native)(header, layout)
    if layout.photometric == "PALETTE COLOR":
        return _from_palette(header, stored)
    return stored if layout.channels == 3 else _grey(header, layout, stored, voi)


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


# How pixels lie


class _Layout(NamedTuple):
    """How many pixels there are, and of what kind."""

    h: int
    w: int
    channels: int
    photometric: str
    bytes: int
    stored: int
    high: int
    signed: bool
    planes: bool

    def said(self) -> str:
        colour = " colour" if self.channels == 3 else ""
        return f"header says {self.w}x{self.h} {8 * self.bytes}-bit{colour}"

    def limits(self) -> tuple[int, int]:
        """Give the lowest and the highest number that can be stored."""
        half = 2 ** (self.stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


def _layout(header: Elements) -> _Layout:
    """Read and check all that is needed before memory is taken for pixels."""
    h, w = header.number("Rows"), header.number("Columns")
    check_size(w, h)
    if (frames := _frames(header)) != 1:
        raise ValueError(f"it holds {frames} frames; save each as a file of its own")
    photometric = header.text("PhotometricInterpretation")
    if photometric not in _CHANNELS:
        raise ValueError(f"its DICOM colours are none of {', '.join(_CHANNELS)}")
    channels = header.number("SamplesPerPixel", 1)
    if channels != _CHANNELS[photometric]:
        raise ValueError(
            f"header says {channels} channels, where {photometric} has {_CHANNELS[photometric]}"
        )
    bits = header.number("BitsAllocated")
    if bits not in (8, 16, 32) or (bits > 8 and photometric.startswith("YBR")):
        raise ValueError(f"its pixels are of {bits} bits in {photometric}, which is not read")
    stored = header.number("BitsStored", bits)
    high = header.number("HighBit", stored - 1)
    if stored < 1 or not stored <= high + 1 <= bits:
        raise ValueError(f"header says {stored} bits up to bit {high}, of {bits}")
    signed, planes = (
        header.number("PixelRepresentation", 0),
        header.number("PlanarConfiguration", 0),
    )
    if signed > 1 or planes > 1:
        raise ValueError("its DICOM PixelRepresentation or PlanarConfiguration is not 0 or 1")
    return _Layout(h, w, channels, photometric, bits // 8, stored, high, bool(signed), bool(planes))


def _frames(header: Elements) -> int:
    frames = header.decimals("NumberOfFrames") or (1.0,)
    if len(frames) != 1 or not 0 <= frames[0] < 2**31 or frames[0] % 1:
        raise ValueError("its DICOM NumberOfFrames is not a number of frames")
    # Some write 0 where they mean the only one.
    return int(frames[0]) or 1


# Stored values


def _native(header: Elements, layout: _Layout) -> Pixels:
    """Read pixels that are not compressed; (h, w), or RGB, (h, w, 3)."""
    if header.syntax not in _NATIVE or header.pixels_in_items:
        raise ValueError("its DICOM transfer syntax is none that is read; save it uncompressed")
    h, w, channels = layout.h, layout.w, layout.channels
    halved = layout.photometric == "YBR_FULL_422"
    if layout.photometric in ("YBR_RCT", "YBR_ICT") or (halved and w % 2):
        raise ValueError(f"its colours are {layout.photometric}, which its pixels cannot be")
    count = h * w * (2 if halved else channels)
    values = header.value("PixelData")
    if len(values) < count * layout.bytes:
        raise ValueError(f"{layout.said()}, file has {len(values)} bytes of pixels")
    if header.order == ">" and layout.bytes == 1 and header.pixels_in_words:
        values = np.frombuffer(values[: len(values) // 2 * 2], ">u2").astype("<u2").tobytes()
    kind = f"{header.order}{'i' if layout.signed else 'u'}{layout.bytes}"
    stored = np.frombuffer(values, kind, count).astype(kind[1:])
    if halved:
        return _rgb(_unhalved(stored.reshape(h, w // 2, 4)))
    if channels == 1:
        return _without_unused_bits(stored.reshape(h, w), layout)
    image = np.moveaxis(stored.reshape(3, h, w), 0, -1) if layout.planes else stored
    image = np.ascontiguousarray(image.reshape(h, w, 3))
    return _rgb(image) if layout.photometric == "YBR_FULL" else image


def _without_unused_bits(stored: Pixels, layout: _Layout) -> Pixels:
    """Drop the bits that hold no pixel, in which older files keep overlays."""
    bits = 8 * layout.bytes
    if layout.stored == bits:
        return stored
    kept: Pixels = (stored << (bits - 1 - layout.high)) >> (bits - layout.stored)
    return kept


def _unhalved(pairs: Pixels) -> Pixels:
    """Give each of two pixels, Y Y Cb Cr, the colour that they share; (h, w/2, 4) -> (h, w, 3)."""
    h, half, _ = pairs.shape
    luma = pairs[..., :2].reshape(h, 2 * half)
    blue, red = (pairs[..., channel].repeat(2, axis=1) for channel in (2, 3))
    return np.stack([luma, blue, red], axis=-1)


def _rgb(image: Pixels) -> Pixels:
    """Turn 8-bit YCbCr into RGB (ITU-R BT.601, full range); (h, w, 3) -> (h, w, 3)."""
    luma, blue, red = np.moveaxis(image.astype(np.float32), -1, 0)
    blue, red = blue - 128, red - 128
    rgb = np.stack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1
    )
    whole: Pixels = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return whole


def _compressed(header: Elements, layout: _Layout) -> Pixels:
    """Decode with a library that is handed nothing of the file but its pixels."""
    kind = _COMPRESSED[header.syntax]
    frame = _frame(header)
    found = _checked_stream(frame, kind, layout)
    try:
        if kind == "RLE":
            image = _decoded_rle(frame, layout)
        elif kind == "lossless JPEG" or (kind == "JPEG" and found.bits > 8):
            image = _decoded_deep_jpeg(frame, layout)
        else:
            image = _decoded_by_pydicom(frame, header.syntax, layout, found)
    except ModuleNotFoundError:
        raise ValueError(f"DICOM compressed as {kind} needs pip install 'conocc[dicom]'") from None
    except Exception:
        # Decoders raise anything, and say anything.
        image = np.empty(())
    shape = (layout.h, layout.w, 3) if layout.channels == 3 else (layout.h, layout.w)
    if image.shape != shape:
        raise ValueError(f"its {kind} pixels are damaged, cut short or not supported")
    return native(image)


def _decoded_by_pydicom(frame: bytes, syntax: str, layout: _Layout, found: _Stream) -> Pixels:
    pixels = importlib.import_module("pydicom.pixels")
    decoder = pixels.get_decoder(syntax)
    plugin = _PLUGINS[_COMPRESSED[syntax]]
    if plugin not in decoder.available_plugins:
        raise ModuleNotFoundError
    image: Pixels
    image, _ = decoder.as_array(
        _in_one_item(frame),
        decoding_plugin=plugin,
        # What pydicom checks here, it warns of.
        validate=False,
        rows=layout.h,
        columns=layout.w,
        number_of_frames=1,
        samples_per_pixel=layout.channels,
        bits_allocated=8 * layout.bytes,
        bits_stored=layout.stored,
        pixel_representation=int(layout.signed),
        photometric_interpretation=found.photometric,
        planar_configuration=0,
    )
    return image


def _decoded_deep_jpeg(frame: bytes, layout: _Layout) -> Pixels:
    """Decode JPEG of more than 8 bits, or without loss; its numbers know no sign."""
    if layout.photometric.startswith("YBR"):
        raise ValueError(layout.photometric)
    decoded = importlib.import_module("imagecodecs").jpeg_decode(frame)
    kind = "i" if layout.signed else "u"
    return _without_unused_bits(
        decoded.astype(f"u{layout.bytes}").view(f"{kind}{layout.bytes}"), layout
    )


def _decoded_rle(frame: bytes, layout: _Layout) -> Pixels:
    """Decode the runs of each byte of each channel, the highest byte first (PS3.5, annex G)."""
    imagecodecs = importlib.import_module("imagecodecs")
    count, *starts = struct.unpack_from("<16I", frame)
    starts = [*starts[:count], len(frame)]
    area = layout.h * layout.w
    planes = [
        np.frombuffer(imagecodecs.packbits_decode(frame[start:end]), np.uint8)[:area]
        for start, end in pairwise(starts)
    ]
    values = np.stack(planes).reshape(layout.channels, layout.bytes, layout.h, layout.w)
    kind = f">{'i' if layout.signed else 'u'}{layout.bytes}"
    image = np.ascontiguousarray(np.moveaxis(values, (2, 3, 0, 1), (0, 1, 2, 3))).view(kind)[..., 0]
    if layout.channels == 3:
        return _rgb(image) if layout.photometric == "YBR_FULL" else image
    return _without_unused_bits(native(image[..., 0]), layout)


def _frame(header: Elements) -> bytes:
    """Join the fragments of the only frame; the first item is a table of offsets."""
    if not header.pixels_in_items:
        raise ValueError("its compressed DICOM pixels do not lie in items")
    data, fragments = header.value("PixelData"), []
    at = 0
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if (group, element) != (0xFFFE, 0xE000):
            break
        if at + length > len(data):
            raise ValueError(
                f"it is cut short: its pixels end at byte {at + length} of {len(data)}"
            )
        fragments.append(data[at : at + length])
        at += length
    if len(fragments) < 2:
        raise ValueError("its compressed DICOM pixels are missing or cut short")
    frame = b"".join(fragments[1:])
    # Boxes around JPEG 2000, which do not belong into DICOM, can hold pydicom up for ever.
    is_2000 = _COMPRESSED[header.syntax] in ("JPEG 2000", "HTJ2K")
    return frame[max(0, frame.find(_BEGIN_2000)) :] if is_2000 else frame


def _in_one_item(frame: bytes) -> bytes:
    table = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    padded = frame + b"\0" * (len(frame) % 2)
    return table + struct.pack("<HHI", 0xFFFE, 0xE000, len(padded)) + padded


class _Stream(NamedTuple):
    """What compressed pixels say of themselves; `photometric` as the header or they have it."""

    h: int
    w: int
    bits: int
    components: bytes
    jfif: bool
    photometric: str = ""


def _checked_stream(frame: bytes, kind: str, layout: _Layout) -> _Stream:
    """Hold the compressed pixels' own size against the header's.

    Decoders take memory for the size that they find, and warn of colours that differ.
    """
    if kind == "RLE":
        (segments,) = struct.unpack("<I", frame[:4].ljust(4, b"\0"))
        if segments != layout.channels * layout.bytes:
            raise ValueError(f"{layout.said()}, its RLE pixels have {segments} segments")
        return _Stream(layout.h, layout.w, 8 * layout.bytes, b"", False, layout.photometric)
    found = _stream_2000(frame) if kind in ("JPEG 2000", "HTJ2K") else _stream_jpeg(frame)
    # Without its end, decoders make up the rest of an image.
    if found is None or _END not in frame[-16:]:
        raise ValueError(f"its {kind} pixels are damaged or cut short")
    if (found.h, found.w, len(found.components)) != (layout.h, layout.w, layout.channels):
        raise ValueError(
            f"{layout.said()}, its {kind} pixels are {found.w}x{found.h} "
            f"in {len(found.components)} channels"
        )
    if found.bits > 8 * layout.bytes:
        raise ValueError(f"{layout.said()}, its {kind} pixels are of {found.bits} bits")
    photometric = layout.photometric
    if layout.channels == 3 and found.components in (b"RGB", b"rgb"):
        photometric = "RGB"
    elif layout.channels == 3 and found.jfif and "YBR" not in photometric:
        photometric = "YBR_FULL_422" if kind == "JPEG" else "YBR_FULL"
    return found._replace(photometric=photometric)


def _stream_jpeg(frame: bytes) -> _Stream | None:
    at, jfif = 2, False
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        length = int.from_bytes(frame[at + 2 : at + 4])
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            bits, h, w, count = struct.unpack_from(">BHHB", frame, at + 4)
            return _Stream(h, w, bits, frame[at + 10 : at + 10 + 3 * count : 3], jfif)
        jfif |= marker in range(0xE0, 0xF0) and frame.startswith(b"JFIF", at + 4)
        at += 2 + max(2, length)
    return None


_BEGIN_2000, _END = b"\xff\x4f\xff\x51", b"\xff\xd9"


def _stream_2000(frame: bytes) -> _Stream | None:
    if not frame.startswith(_BEGIN_2000) or len(frame) < 43:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, 8)
    (count,) = struct.unpack_from(">H", frame, 40)
    return _Stream(bottom - top, right - left, (frame[42] & 127) + 1, bytes(count), False)


# From stored values to what they mean


def _grey(header: Elements, layout: _Layout, stored: Pixels, voi: str) -> Pixels:
    """Rescale, take the window, invert MONOCHROME1: in this order; (h, w) -> (h, w)."""
    values, (low, high) = _rescaled(header, layout, stored)
    if voi != "none":
        values, (low, high) = _of_interest(header, layout, values, voi), (0, 1)
    if layout.photometric == "MONOCHROME1":
        # Around what can be stored, not what is, so that images stay comparable.
        values = _inverted(values, low, high)
    if values.dtype == np.float64 and stored.dtype.itemsize <= 2:
        with np.errstate(over="ignore"):  # infinite, and refused as that
            return values.astype(np.float32)
    return values


def _inverted(values: Pixels, low: float, high: float) -> Pixels:
    if values.dtype.kind == "f":
        inverted: Pixels = (low + high) - values
    else:
        # Which for integers, of all bits that there are or fewer, cannot overflow.
        inverted = (values.dtype.type(high) - values) + values.dtype.type(low)
    return inverted


def _rescaled(
    header: Elements, layout: _Layout, stored: Pixels
) -> tuple[Pixels, tuple[float, float]]:
    """Give the values that the scanner meant, and the limits that they can reach."""
    low, high = layout.limits()
    if tables := header.items("ModalityLUTSequence"):
        table = _table(tables[0], signed=layout.signed)
        return table.of(stored), (0, table.highest)
    group = _group(header, "RescaleSlope", "PixelValueTransformationSequence")
    slope = _only(group, "RescaleSlope", 1.0)
    intercept = _only(group, "RescaleIntercept", 0.0)
    if slope == 0:
        raise ValueError("its DICOM RescaleSlope is 0, which leaves no image")
    if (slope, intercept) == (1, 0):
        return stored, (low, high)
    with np.errstate(over="ignore"):
        values = stored.astype(np.float64) * slope + intercept
    return values, (low * slope + intercept, high * slope + intercept)


def _group(header: Elements, tag: str, sequence: str) -> Elements:
    """Find where `tag` stands: in the header itself, or, of enhanced objects, in `sequence`."""
    if tag in header:
        return header
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in header.items(groups)[:1]:
            for item in group.items(sequence)[:1]:
                return item
    return header


def _only(group: Elements, tag: str, default: float) -> float:
    values = group.decimals(tag) or (default,)
    if len(values) != 1 or not np.isfinite(values[0]):
        raise ValueError(f"its DICOM {tag} is not one finite number")
    return values[0]


@dataclass(frozen=True)
class _Table:
    """A look-up table: the value of `first` and of each number after it."""

    first: int
    values: NDArray[np.uint16]
    highest: int

    def of(self, numbers: Pixels) -> Pixels:
        """Look numbers up; those beyond an end of the table take the value there."""
        offset = np.rint(numbers.astype(np.float64)) - self.first
        found: Pixels = self.values[np.clip(offset, 0, len(self.values) - 1).astype(np.intp)]
        return found


def _table(
    item: Elements, descriptor: str = "LUTDescriptor", data: str = "LUTData", *, signed: bool
) -> _Table:
    described, values = item.value(descriptor), item.value(data)
    if len(described) != 6:
        raise ValueError(f"its DICOM {descriptor} is missing or damaged")
    entries, first, bits = struct.unpack(f"{item.order}H{'h' if signed else 'H'}H", described)
    entries = entries or 2**16
    # Some pack 8 bits into words of 16, and some do not.
    words = len(values) >= 2 * entries
    if len(values) < entries or not 1 <= bits <= 16:
        raise ValueError(f"its DICOM {data} has {len(values)} bytes for {entries} entries")
    table = np.frombuffer(values, f"{item.order}u2" if words else "u1", entries).astype(np.uint16)
    return _Table(first, table, max(2**bits - 1, int(table.max())))


def _of_interest(header: Elements, layout: _Layout, values: Pixels, voi: str) -> Pixels:
    """Spread the values of interest over 0 to 1; (h, w) -> (h, w) of float64."""
    if voi != "file":
        center, width = map(float, voi.split(","))
        return _windowed(values, center, width, "LINEAR")
    if tables := header.items("VOILUTSequence"):
        # The first number is of the rescaled values, which may be below zero.
        signed = layout.signed or float(values.min()) < 0
        table = _table(tables[0], signed=signed)
        looked_up: Pixels = table.of(values) / table.highest
        return looked_up
    group = _group(header, "WindowCenter", "FrameVOILUTSequence")
    centers, widths = group.decimals("WindowCenter"), group.decimals("WindowWidth")
    if not centers or not widths:
        raise ValueError(
            "it has no window of its own; read it with voi='none' or 'CENTER,WIDTH' (--voi)"
        )
    return _windowed(values, centers[0], widths[0], group.text("VOILUTFunction") or "LINEAR")


def _windowed(values: Pixels, center: float, width: float, function: str) -> Pixels:
    """Apply PS3.3 C.11.2.1.2.1 or C.11.2.1.3, from 0 to 1."""
    least = 1 if function == "LINEAR" else 0
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError("its DICOM VOILUTFunction is none that is read")
    if not (np.isfinite([center, width]).all() and width >= least and width > 0):
        raise ValueError(f"its DICOM window is {center:g},{width:g}, where a width is above 0")
    x = values.astype(np.float64)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            spread: Pixels = 1 / (1 + np.exp(-4 * (x - center) / width))
    elif function == "LINEAR_EXACT":
        spread = np.clip((x - center) / width + 0.5, 0, 1)
    elif width == 1:
        spread = (x > center - 0.5).astype(np.float64)
    else:
        spread = np.clip((x - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    return spread


def _from_palette(header: Elements, stored: Pixels) -> Pixels:
    if "RedPaletteColorLookupTableData" not in header:
        raise ValueError("its palette is missing or in segments, which are not read")
    tables = [
        _table(
            header,
            f"{colour}PaletteColorLookupTableDescriptor",
            f"{colour}PaletteColorLookupTableData",
            signed=stored.dtype.kind == "i",
        )
        for colour in ("Red", "Green", "Blue")
    ]
    image = np.stack([table.of(stored) for table in tables], axis=-1)
    return image.astype(np.uint8) if max(table.highest for table in tables) < 256 else image


# Who is on it

# Beside all of the patient's own group: numbers of the study and its images, and who made it.
_TELLING = (
    0x00080018,  # SOP instance
    0x00080050,  # accession number
    0x00080090,  # referring physician
    0x00081048,
    0x00081050,
    0x00081060,
    0x00081070,  # operators
    0x0020000D,  # study instance
    0x0020000E,  # series instance
    0x00200010,  # study
    0x00200052,  # frame of reference
    0x00321032,  # requesting physician
    0x00380010,  # admission
    0x00402016,
    0x00402017,
)
# Sex, age, size and weight, which many share, and which a path holds by chance.
_SHARED = (0x00100040, 0x00101010, 0x00101020, 0x00101030)
_LONGEST = 1024
_CODECS = (
    "utf-8",
    "latin-1",
    "iso8859-2",
    "iso8859-5",
    "iso8859-7",
    "iso2022_jp_2",
    "shift_jis",
    "euc_kr",
    "gb18030",
)
_SUBSTRING = 4


@dataclass(frozen=True)
class Person:
    """Who is on a DICOM image. Never to be shown.

    Attributes
    ----------
    patient : str
        The PatientID; empty where there is none.
    values : frozenset of str
        What the header says of the patient, the study and their doctors, in plain letters.
    names : frozenset of str
        The PatientID and the whole name, in plain letters.
    """

    patient: str
    values: frozenset[str]
    names: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return "Person()"

    def is_told_by(self, name: str) -> bool:
        """Tell whether a name, of a file or folder, repeats any of these values.

        Those of at least four letters are found anywhere, shorter ones as one word or as up to
        three that follow each other.
        """
        plain = plain_letters(name)
        parts = [plain_letters(word) for word in re.split(r"[\W_]+", name)]
        words = {"".join(parts[i : i + n]) for i in range(len(parts)) for n in (1, 2, 3)}
        return any(
            value in plain if len(value) >= _SUBSTRING else value in words for value in self.values
        )

    def is_named_by(self, name: str) -> bool:
        """Tell whether `name` holds the PatientID or the whole name, of four letters or more."""
        plain = plain_letters(name)
        return any(len(value) >= _SUBSTRING and value in plain for value in self.names)


def person_of(data: bytes) -> Person | None:
    """Read who is on an image; None where `data` is not DICOM. A damaged file says what it can."""
    if not SIGNATURE.match(data):
        return None
    header = read_elements(data)
    patient = " ".join(_decoded(header.value(_PATIENT_ID))[:1])
    values = {plain_letters(patient)}
    own = [tag for tag in header.where if tag >> 16 == _PATIENT_GROUP and tag not in _SHARED]
    texts = [header.value(tag) for tag in (*own, *_TELLING)]
    with suppress(ValueError):  # of damage, which is told when the pixels are read
        texts += [item.value(_PATIENT_ID) for item in header.items(_OTHER_IDS)]
    for text in texts:
        if 0 < len(text) <= _LONGEST:
            values |= {part for decoded in _decoded(text) for part in _parts(decoded)}
    names = [*_decoded(header.value(_PATIENT_ID)), *_decoded(header.value(_PATIENT_NAME))]
    return Person(patient, frozenset(values - {""}), frozenset(map(plain_letters, names)))


def _decoded(value: bytes) -> list[str]:
    """Read text in each way that it may have been written, which its header need not tell."""
    value = value.strip(b" \0")
    if value.isascii() and b"\x1b" not in value:
        return [value.decode("ascii")] if value else []
    texts = []
    for codec in _CODECS:
        try:
            texts.append(value.decode(codec))
        except UnicodeDecodeError:
            continue
    return texts


def _parts(text: str) -> Iterator[str]:
    for part in [text, *re.split(r"[\\^=\s]+", text)]:
        if len(plain := plain_letters(part)) > 1:
            yield plain


def plain_letters(text: str) -> str:
    """Give the letters and digits alone, without accents and case.

    >>> plain_letters("Müller^Ånn 1950-01-02")
    'mullerann19500102'
    """
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if c.isalnum()).casefold()
