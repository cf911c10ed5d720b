"""PNG, JPEG, GIF, WebP, AVIF, JPEG 2000, BMP and PNM: at their own depth.

Palettes become RGB, JPEG's YCbCr becomes RGB, grey levels of less than 8 bits in PNG, PBM and BMP
are spread over 0 to 255. Pixels that are transparent are laid on black. The orientation of EXIF
and XMP is applied; gamma, colour profiles and the maximum that a PNM header states are not. CMYK
and other colours are refused. The frames of an animation are images of their own.

Letters: h and w pixels, c channels.
"""

from __future__ import annotations

import math
import re
import struct
from contextlib import suppress
from io import BytesIO
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile

from conocc.data.image_io import pixels
from conocc.data.image_io.codestream import stream_of
from conocc.data.image_io.pixels import Pixels, ReadError, Remarked
from conocc.data.image_io.stack import Stack, StackOptions

_ORIENTATION = 274  # EXIF's tag
# Of all frames of an animation, which is decoded at once.
_MOST_FRAME_PIXELS = 4 * pixels.MAX_PIXELS
_LONGEST_XMP = 2**20


def read_png(data: bytes) -> Remarked:
    """Read a PNG file of one frame; one without an end chunk, if all its pixels are there."""
    with pixels.decoding():
        file = _opened(PngImageFile, BytesIO(data))
        _check_single(file)
        # What stands before the pixels is known now, and what stands behind once it was decoded.
        if any(word in data[-_LONGEST_XMP:] for word in (b"eXIf", b"XML:com.adobe.xmp")):
            with suppress(OSError):  # of a file without an end
                file.load()
        return _finished(imagecodecs.png_decode(data), file)


def open_png(file: BinaryIO, options: StackOptions) -> Stack | None:
    """Open an animated PNG file, which says so before its pixels; None of others."""
    head = file.read(_LONGEST_XMP >> 4)
    if b"acTL" not in head[: head.find(b"IDAT")]:
        return None
    if head[24:25] == b"\x10":
        raise ReadError("it is animated and of 16 bits; save each frame as its own file")
    file.seek(0)
    return open_frames(PngImageFile, file)


_DEEP_AVIF = re.compile(rb"av1C..(.)", re.DOTALL)  # of which Pillow makes 8 bits
_JP2_SIZE = re.compile(rb"\xff\x4f\xff\x51.{4}(.{16})", re.DOTALL)


def read_jp2(data: bytes) -> Remarked:
    """Read a JPEG 2000 file, in its boxes or bare; without an end, a decoder makes up the rest."""
    if (size := _JP2_SIZE.search(data)) is None or data.find(b"\xff\xd9", size.end()) < 0:
        raise ReadError("its JPEG 2000 stream is damaged or cut short")
    right, bottom, left, top = struct.unpack(">4I", size[1])
    pixels.check_size(right - left, bottom - top)
    with pixels.decoding():
        return Remarked(*pixels.on_black(imagecodecs.jpeg2k_decode(data)))


def _opened(plugin: type[ImageFile.ImageFile], file: BinaryIO) -> ImageFile.ImageFile:
    """Open with one of Pillow's plugins: itself, since ``Image.open`` has a limit of its own."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ReadError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process, which fills damaged "
            "images with grey; set it to False"
        )
    head = file.read(_LONGEST_XMP >> 8)
    file.seek(0)
    if plugin is AvifImageFile and (deep := _DEEP_AVIF.search(head)) and deep[1][0] & 0x40:
        raise ReadError("it is an AVIF of more than 8 bits; save it as PNG")
    opened = plugin(file)
    pixels.check_size(*opened.size)
    return opened


def _check_single(file: ImageFile.ImageFile) -> None:
    if (frames := getattr(file, "n_frames", 1)) > 1:
        raise ReadError(pixels.SEVERAL.format(f"{frames} frames"))


def read_frame(plugin: type[ImageFile.ImageFile], data: bytes, side: int | None = None) -> Remarked:
    """Read a file of one frame by a plugin of Pillow's: JPEG, GIF, WebP, AVIF, PBM or BMP.

    Of the several JPEG files that a camera may chain together, the first is read. With a `side`, it
    is decoded at the smallest of 1/8, 1/4, 1/2 and 1/1 of its size of which both sides still have
    as many pixels. JPEG's own transform does that, at a fraction of the cost of all pixels.
    """
    with pixels.decoding():
        file = _opened(plugin, BytesIO(data))
        _check_single(file)
        size = file.width * file.height
        if side is not None:
            file.draft(None, (side, side))
        return _converted(file)._replace(size=size)


def read_jpeg(data: bytes, side: int | None = None) -> Remarked:
    """Read a JPEG file as `read_frame` does; of 9 to 16 bits, or JPEG-LS, by imagecodecs."""
    try:
        return read_frame(JpegImageFile, data, side)
    except ReadError:
        stream = None
        with suppress(Exception):  # damaged, as was said
            stream = stream_of(data, "JPEG")
        if stream is None or stream.size is None or (stream.kind == "JPEG" and stream.bits == 8):
            raise
    pixels.check_size(*stream.size[:2])
    with pixels.decoding():
        return Remarked(stream.decode())


def _converted(file: ImageFile.ImageFile) -> Remarked:
    """Decode the frame that `file` stands at."""
    becomes = {"P": "RGB", "1": "L"}.get(file.mode, file.mode)
    if "transparency" in file.info and becomes in ("L", "RGB"):
        becomes = {"L": "LA", "RGB": "RGBA"}[becomes]
    image = file.convert(becomes) if becomes != file.mode else file
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ReadError(f"its colours are {image.mode}; save it as grey or RGB")
    return _finished(np.asarray(image), file)


def open_frames(
    plugin: type[ImageFile.ImageFile], file: BinaryIO, options: StackOptions | None = None
) -> Stack | None:
    """Decode all frames of an animation, which build on each other; None of one frame."""
    with pixels.decoding():
        opened = _opened(plugin, file)
        number = getattr(opened, "n_frames", 1)
        if number < 2:
            return None
        if (total := number * math.prod(opened.size)) > _MOST_FRAME_PIXELS:
            raise ReadError(
                f"header says {number} frames, {total} pixels; at most {_MOST_FRAME_PIXELS} fit"
            )
        frames = []
        for k in range(number):
            opened.seek(k)
            pixels.check_size(*opened.size)  # which a frame of a GIF may enlarge
            frames.append(_converted(opened))
    return Stack("frame", number, tuple(range(number)), frames.__getitem__)


def _finished(image: Pixels, file: ImageFile.ImageFile) -> Remarked:
    """Lay pixels on black, and turn them as EXIF or XMP of `file` say, as Pillow does."""
    laid, remarks = pixels.on_black(image)
    orientation = 1
    with suppress(Exception):  # damaged: says nothing
        # A PNG's own would decode it first.
        orientation = int(Image.Image.getexif(file).get(_ORIENTATION, 1))
    return Remarked(pixels.upright(laid, orientation), remarks)


# The head of PGM and PPM: kind, width, height, maximum, with comments.
_PNM = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\r\n]*[\r\n])++(\d{1,10})" + rb"\s")


def read_pnm(data: bytes) -> Pixels | Remarked:
    """Read a PGM or PPM file (P2, P3, P5, P6) as its numbers are, whatever its maximum; or PBM.

    Pillow spreads them over 8 or 16 bits.
    """
    if data[1:2] in b"14":
        return read_frame(PpmImageFile, data)
    if (header := _PNM.match(data)) is None:
        raise ReadError("its PNM header is damaged or cut short")
    kind, width, height, maximum = map(int, header.groups())
    pixels.check_size(width, height)
    if not 1 <= maximum <= 65535:
        raise ReadError(f"header says a maximum of {maximum}, which must be from 1 to 65535")
    dtype = np.dtype(np.uint8 if maximum < 256 else ">u2")
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    count, body = math.prod(shape), data[header.end() :]
    if kind in (5, 6):
        if body[count * dtype.itemsize :].lstrip().startswith(data[:2]):
            raise ReadError("it holds more than 1 image; save each as a file of its own")
        values = np.frombuffer(body, dtype, min(count, len(body) // dtype.itemsize))
    else:
        # A last number without a line break may be cut short.
        if body.translate(None, b"0123456789 \t\r\n\v\f") or not body[-1:].isspace():
            raise ReadError("its PNM numbers are damaged or cut short")
        values = np.fromstring(body, np.int64, sep=" ")
    if len(values) != count:
        raise ReadError(f"header says {width}x{height}, {count} numbers; file has {len(values)}")
    if (largest := int(values.max())) > maximum:
        raise ReadError(f"header says a maximum of {maximum}, file has the value {largest}")
    return values.astype(dtype, copy=False).reshape(shape)
