"""The stored pixels of a DICOM image, in the open or compressed.

Pillow decodes JPEG of 8 bits and imagecodecs the other kinds, which are handed nothing of a file
but its pixels; pydicom reads what is in the open, and turns YBR into RGB.

Letters: h and w pixels.
"""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames, parse_fragments
from pydicom.pixels.decoders.base import get_decoder

from conocc.data.image_io.dicom_header import damaged, number, text
from conocc.data.image_io.pixels import Pixels, check_size, native

_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
# But for its second part, of which components may be transformed as no one here knows.
_JPEG_2000 = [syntax for syntax in uid.JPEG2000TransferSyntaxes if "Part 2" not in syntax.name]
_DECODERS = {
    **dict.fromkeys(uid.JPEGTransferSyntaxes, imagecodecs.jpeg_decode),
    **dict.fromkeys(uid.JPEGLSTransferSyntaxes, imagecodecs.jpegls_decode),
    **dict.fromkeys(_JPEG_2000, imagecodecs.jpeg2k_decode),
}
_BEGIN_2000, _END = b"\xff\x4f\xff\x51", b"\xff\xd9"


def stored_pixels(ds: Dataset) -> Pixels:
    """Read the numbers that are stored; (h, w), or RGB, (h, w, 3). What `ds` leaves out is set.

    Raises
    ------
    ValueError
        If they are damaged, cut short or too many, or of a kind that is not read.
    """
    _check_layout(ds)
    samples = 2 if ds.PhotometricInterpretation == "YBR_FULL_422" else ds.SamplesPerPixel
    least = ds.Rows * ds.Columns * samples * ds.BitsAllocated // 8
    with damaged("its pixels"):
        found = len(ds.PixelData)
    bits, high = ds.BitsStored, ds.HighBit
    if ds.file_meta.TransferSyntaxUID not in uid.UncompressedTransferSyntaxes:
        bits, high = _decompress(ds, bits, high)
    elif found < least:
        raise ValueError(f"{_said(ds)}, which takes {least} bytes, file has {found}")
    if (photometric := ds.PhotometricInterpretation) in ("YBR_RCT", "YBR_ICT"):
        raise ValueError(f"its colours are {photometric}, which its pixels cannot be")
    with damaged("its pixels"):
        decoder = get_decoder(ds.file_meta.TransferSyntaxUID)
        options: Any = {"validate": False, "correct_unused_bits": False}  # typed wrongly
        plugin = "pillow" if decoder.is_encapsulated else ""
        image, _ = decoder.as_array(ds, index=0, decoding_plugin=plugin, **options)
        image = native(image)
    if image.ndim == 3:
        return image
    # Bits that hold no pixel go: older files keep overlays in them, and codecs no sign.
    unused = 8 * image.itemsize
    kept: Pixels = (image << (unused - 1 - high)) >> (unused - bits)
    return kept


def _said(ds: Dataset) -> str:
    colour = " colour" if ds.SamplesPerPixel == 3 else ""
    return f"header says {ds.Columns}x{ds.Rows} {ds.BitsAllocated}-bit{colour}"


def _check_layout(ds: Dataset) -> None:
    """Check all that is needed before memory is taken for pixels, as whole numbers in `ds`."""
    check_size(int(number(ds, "Columns")), int(number(ds, "Rows")))
    if (frames := number(ds, "NumberOfFrames", 1)) > 1:  # some write 0 where they mean one
        raise ValueError(f"it holds {frames:.9g} frames; save each as a file of its own")
    photometric = text(ds, "PhotometricInterpretation")
    if photometric not in _GREY + _COLOURS:
        raise ValueError(f"its DICOM colours are none of {', '.join(_GREY + _COLOURS)}")
    for keyword, default, known in (
        ("SamplesPerPixel", 1, (1 if photometric in _GREY else 3,)),
        ("BitsAllocated", None, (8,) if photometric.startswith("YBR") else (8, 16, 32)),
        ("PixelRepresentation", 0, (0, 1)),
        ("PlanarConfiguration", 0, (0, 1)),
    ):
        if (value := number(ds, keyword, default)) not in known:
            allowed = " or ".join(map(str, known))
            raise ValueError(f"its DICOM {keyword} is {value:g}, where {photometric} has {allowed}")
        setattr(ds, keyword, int(value))
    bits = ds.BitsAllocated
    stored = int(number(ds, "BitsStored", bits))
    high = int(number(ds, "HighBit", stored - 1))
    if stored < 1 or not stored <= high + 1 <= bits:
        raise ValueError(f"header says {stored} bits up to bit {high}, of {bits}")
    ds.BitsStored, ds.HighBit, ds.NumberOfFrames = stored, high, 1
    ds.PhotometricInterpretation = photometric


def _decompress(ds: Dataset, bits: int, high: int) -> tuple[int, int]:
    """Replace compressed pixels by decoded ones, or by JPEG of 8 bits that has been checked.

    Gives how many bits hold a pixel, and the highest of them.
    """
    syntax, photometric = ds.file_meta.TransferSyntaxUID, ds.PhotometricInterpretation
    if syntax not in _DECODERS and syntax != uid.RLELossless:
        raise ValueError("its DICOM transfer syntax is none that is read; save it uncompressed")
    what = f"its {syntax.name} pixels"
    with damaged(what):
        # The last item must end with the value: pydicom makes one that is too long end there, and
        # what has lost bytes within may decode all the same, to another image.
        last = parse_fragments(ds.PixelData)[1][-1]
        if last + 8 + struct.unpack_from("<I", ds.PixelData, last + 4)[0] > len(ds.PixelData):
            raise EOFError
        frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    kind = f"<u{ds.BitsAllocated // 8}"
    if syntax == uid.RLELossless:
        with damaged(what):
            ds.PixelData = _runs(frame, ds)
        ds.PlanarConfiguration = 1
    else:
        # Boxes around JPEG 2000, which do not belong into DICOM, can hold pydicom up for ever.
        frame = frame[max(0, frame.find(_BEGIN_2000)) if syntax in _JPEG_2000 else 0 :]
        precision = _checked_stream(frame, ds, what)
        if syntax in uid.JPEGTransferSyntaxes and precision == 8 and "Lossless" not in syntax.name:
            ds.PixelData = encapsulate([frame])
            return bits, high
        if syntax in uid.JPEGTransferSyntaxes and photometric.startswith("YBR"):
            raise ValueError(f"its colours are {photometric}, which is not read in {what}")
        with damaged(what):
            ds.PixelData = _DECODERS[syntax](frame).astype(kind).tobytes()
        ds.PlanarConfiguration = 0
        if syntax not in uid.JPEGTransferSyntaxes:
            bits, high = precision, precision - 1
    if syntax in _JPEG_2000 and photometric in ("YBR_RCT", "YBR_ICT"):
        ds.PhotometricInterpretation = "RGB"
    elif photometric == "YBR_FULL_422":  # of which the decoder has made all
        ds.PhotometricInterpretation = "YBR_FULL"
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return bits, high


def _runs(frame: bytes, ds: Dataset) -> bytes:
    """Decode the runs of each byte of each channel, the highest byte first (PS3.5, annex G)."""
    count, *starts = struct.unpack_from("<16I", frame)
    ends = [*starts[1:count], len(frame)]
    planes = [
        imagecodecs.packbits_decode(frame[start:end])[: ds.Rows * ds.Columns]
        for start, end in zip(starts[:count], ends, strict=True)
    ]
    values = np.frombuffer(b"".join(planes), np.uint8)
    values = values.reshape(ds.SamplesPerPixel, ds.BitsAllocated // 8, ds.Rows * ds.Columns)
    return values[:, ::-1].transpose(0, 2, 1).tobytes()


def _checked_stream(frame: bytes, ds: Dataset, what: str) -> int:
    """Hold the size that compressed pixels say of themselves against the header's; give the bits.

    Decoders take memory for the size that they find, and without an end make up the rest.
    """
    with damaged(what):
        w, h, channels, bits = (_size_2000 if frame.startswith(_BEGIN_2000) else _size_jpeg)(frame)
        if _END not in frame[-16:]:
            raise EOFError
    if (w, h, channels) != (ds.Columns, ds.Rows, ds.SamplesPerPixel) or bits > ds.BitsAllocated:
        raise ValueError(f"{_said(ds)}, {what} are {w}x{h} {bits}-bit in {channels} channels")
    return bits


def _size_jpeg(frame: bytes) -> tuple[int, int, int, int]:
    """Width, height, channels and bits by the first frame header of a JPEG or JPEG-LS."""
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, h, w, channels = struct.unpack_from(">BHHB", frame, at + 4)
            return w, h, channels, bits
        at += 1 if marker == 0xFF else 2 + max(2, int.from_bytes(frame[at + 2 : at + 4]))
    raise EOFError


def _size_2000(frame: bytes) -> tuple[int, int, int, int]:
    """Width, height, channels and bits by the size segment of a JPEG 2000."""
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    channels, bits = struct.unpack_from(">HB", frame, 40)
    return right - left, bottom - top, channels, (bits & 127) + 1
