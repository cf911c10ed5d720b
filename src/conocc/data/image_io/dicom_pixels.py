"""How the pixels of a DICOM image lie, and as what they are stored: in the open or compressed.

pydicom and imagecodecs decode compressed pixels. YBR becomes RGB.

Letters: h and w pixels.
"""

from __future__ import annotations

import importlib
import struct
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from conocc.data.image_io.elements import Elements
from conocc.data.image_io.pixels import Pixels, check_size, native

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


def stored_pixels(header: Elements, layout: Layout) -> Pixels:
    """Read the numbers that are stored; (h, w), or RGB, (h, w, 3).

    Raises
    ------
    ValueError
        If they are damaged or cut short, or of a kind that is not read.
    """
    return (_compressed if header.syntax in _COMPRESSED else _native)(header, layout)


# --- how pixels lie ------------------------------------------------------------------------------


class Layout(NamedTuple):
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


def layout_of(header: Elements) -> Layout:
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
    return Layout(h, w, channels, photometric, bits // 8, stored, high, bool(signed), bool(planes))


def _frames(header: Elements) -> int:
    frames = header.decimals("NumberOfFrames") or (1.0,)
    if len(frames) != 1 or not 0 <= frames[0] < 2**31 or frames[0] % 1:
        raise ValueError("its DICOM NumberOfFrames is not a number of frames")
    # Some write 0 where they mean the only one.
    return int(frames[0]) or 1


# --- pixels in the open --------------------------------------------------------------------------


def _native(header: Elements, layout: Layout) -> Pixels:
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


def _without_unused_bits(stored: Pixels, layout: Layout) -> Pixels:
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


# --- compressed pixels ---------------------------------------------------------------------------


def _compressed(header: Elements, layout: Layout) -> Pixels:
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


def _decoded_by_pydicom(frame: bytes, syntax: str, layout: Layout, found: _Stream) -> Pixels:
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


def _decoded_deep_jpeg(frame: bytes, layout: Layout) -> Pixels:
    """Decode JPEG of more than 8 bits, or without loss; its numbers know no sign."""
    if layout.photometric.startswith("YBR"):
        raise ValueError(layout.photometric)
    decoded = importlib.import_module("imagecodecs").jpeg_decode(frame)
    kind = "i" if layout.signed else "u"
    return _without_unused_bits(
        decoded.astype(f"u{layout.bytes}").view(f"{kind}{layout.bytes}"), layout
    )


def _decoded_rle(frame: bytes, layout: Layout) -> Pixels:
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


def _checked_stream(frame: bytes, kind: str, layout: Layout) -> _Stream:
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
