"""Compressed pixels, of DICOM above all: what a stream says of itself, before a header is believed.

Pillow decodes JPEG of 8 bits and imagecodecs the other kinds; they are handed nothing of a file
but its pixels, and not before their size was checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import uid

from conocc.data.image_io.pixels import Pixels

# But for the second part of JPEG 2000, of which components may be transformed as no one here knows.
_KINDS = {
    "JPEG": uid.JPEGTransferSyntaxes,
    "JPEG-LS": uid.JPEGLSTransferSyntaxes,
    "JPEG 2000": [syntax for syntax in uid.JPEG2000TransferSyntaxes if "Part 2" not in syntax.name],
    "RLE": [uid.RLELossless],
}
KIND_OF = {syntax: kind for kind, syntaxes in _KINDS.items() for syntax in syntaxes}
_BEGIN_JPEG, _BEGIN_2000, _BOX_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP"
BEGINNINGS = (_BEGIN_JPEG, _BEGIN_2000, _BOX_2000)
_END = b"\xff\xd9"
_LOSSLESS, _LS = 0xC3, 0xF7  # kinds of JPEG, by the markers of their frames


class Stream(NamedTuple):
    """What a frame of compressed pixels says of itself.

    `size` is its width, height and channels; None for RLE, which does not say. `colours` is "RGB",
    "YBR_FULL" or, where it does not say, "". `signed` is None where it cannot say. `becomes_rgb`
    says whether decoding makes RGB of it.
    """

    kind: str
    data: bytes
    size: tuple[int, int, int] | None = None
    bits: int = 0
    colours: str = ""
    signed: bool | None = None
    lossy: bool = False
    becomes_rgb: bool = False

    def decode(self) -> Pixels:
        """Decode it; (h, w) or (h, w, channels). RLE is by `decode_runs`."""
        if self.kind == "JPEG 2000":
            return imagecodecs.jpeg2k_decode(self.data)
        if self.kind == "JPEG-LS":
            return imagecodecs.jpegls_decode(self.data)
        if self.bits > 8 or not self.lossy:
            return imagecodecs.jpeg_decode(self.data)
        image = Image.open(BytesIO(self.data), formats=("JPEG",))
        if not self.becomes_rgb:  # as it is, not as Pillow would guess
            image.draft("YCbCr", image.size)
        return np.asarray(image)


def stream_of(frame: bytes, named: str | None) -> Stream | None:
    """Look into a frame of compressed pixels; None where it is of no kind that is read.

    What it begins with counts before the kind that is `named`. Decoders without an end make up
    the rest: EOFError is raised instead.
    """
    if frame.startswith(_BOX_2000) or (named == "JPEG 2000" and not frame.startswith(_BEGIN_2000)):
        # Boxes around JPEG 2000, which do not belong into DICOM, can hold decoders up for ever.
        frame = frame[max(0, frame.find(_BEGIN_2000)) :]
    if frame.startswith(_BEGIN_JPEG):
        return _of_jpeg(frame)
    if frame.startswith(_BEGIN_2000):
        return _of_2000(frame)
    count, first = struct.unpack_from("<2I", frame)
    if named == "RLE" or (1 <= count <= 15 and first == 64):
        return Stream("RLE", frame)
    if named is not None:
        raise EOFError
    return None


def _of_jpeg(frame: bytes) -> Stream:
    """By its markers. Colours are what Adobe's marker or that of JFIF says, or the channels' names.

    Where these say nothing, channels that have tables or a resolution of their own are YBR.
    """
    found, jfif, adobe, at = None, False, None, 0
    for marker, at in _markers(frame):
        body = frame[at + 4 : min(at + 16, at + 2 + int.from_bytes(frame[at + 2 : at + 4]))]
        jfif |= marker == 0xE0 and body.startswith(b"JFIF")
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) == 12:
            adobe = body[11]
        if marker == _LS or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            found = marker, at
    if found is None or _END not in frame[at:]:
        raise EOFError
    near = frame[at + 5 + 2 * frame[at + 4]]  # of JPEG-LS, how far numbers may be off
    marker, at = found
    bits, height, width, channels = struct.unpack_from(">BHHB", frame, at + 4)
    names, sampling, tables = (frame[at + 10 + i : at + 10 + 3 * channels : 3] for i in range(3))
    own = tables[1:2] == tables[2:] != tables[:1] or len({*sampling}) > 1
    if adobe == 0 or (adobe is None and not jfif and names == b"RGB"):
        colours = "RGB"
    else:
        colours = "YBR_FULL" if adobe == 1 or jfif or own else ""
    return Stream(
        "JPEG-LS" if marker == _LS else "JPEG",
        frame,
        (width, height, channels),
        bits,
        colours if channels == 3 and marker not in (_LOSSLESS, _LS) else "",
        lossy=near > 0 if marker == _LS else marker != _LOSSLESS,
        becomes_rgb=channels == 3 and (adobe is not None or colours == "RGB"),
    )


def _markers(frame: bytes) -> Iterator[tuple[int, int]]:
    """Give each marker of a JPEG and where it stands, up to the first scan."""
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker != 0xFF:
            yield marker, at
        if marker == 0xDA:
            return
        at += 1 if marker == 0xFF else 2 + max(2, int.from_bytes(frame[at + 2 : at + 4]))
    raise EOFError


def _of_2000(frame: bytes) -> Stream:
    """By the segments of its size and of its coding, whose transform says that it was RGB."""
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    channels, bits = struct.unpack_from(">HB", frame, 40)
    if _END not in frame[frame.find(b"\xff\x90") :]:
        raise EOFError
    coding = frame.find(b"\xff\x52")
    transformed, wavelet = frame[coding + 8], frame[coding + 13]
    size, colours = (right - left, bottom - top, channels), "RGB" if transformed else ""
    about = ((bits & 127) + 1, colours, bool(bits >> 7), wavelet == 0, bool(transformed))
    return Stream("JPEG 2000", frame, size, *about)


def decode_runs(frame: bytes, pixels: int, channels: int, width: int) -> bytes:
    """Decode the runs of each byte of each channel, the highest byte first (PS3.5, annex G).

    Gives the numbers, `width` bytes each, channel after channel.
    """
    count, *starts = struct.unpack_from("<16I", frame)
    ends = [*starts[1:count], len(frame)]
    spans = zip(starts[:count], ends, strict=True)
    planes = [imagecodecs.packbits_decode(frame[start:end])[:pixels] for start, end in spans]
    values = np.frombuffer(b"".join(planes), np.uint8).reshape(channels, width, pixels)
    return values[:, ::-1].transpose(0, 2, 1).tobytes()
