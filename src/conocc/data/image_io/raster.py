"""PNG by libpng, JPEG and BMP by Pillow, TIFF by tifffile, PNM by NumPy: at their own depth.

Palettes become RGB, JPEG's YCbCr becomes RGB, grey levels of less than 8 bits in PNG, TIFF and BMP
are spread over 0 to 255, and TIFF's white-is-zero is inverted. EXIF orientation is applied; gamma,
colour profiles and the maximum that a PNM header states are not. CMYK and other colours are
refused, and so are several pages or frames, and pixels that are transparent.

Letters: h and w pixels, c channels.
"""

from __future__ import annotations

import math
import re
import struct
from io import BytesIO

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile

from conocc.data.image_io.pixels import Pixels, UnreadableError, check_size, decoding

# EXIF's and TIFF's tags
_PHOTOMETRIC, _ORIENTATION = 262, 274


def read_png(data: bytes) -> Pixels:
    """Read a PNG file."""
    chunks = _png_chunks(data)
    if b"IEND" not in chunks:
        raise UnreadableError(f"it is cut short: file has {len(data)} bytes and no end chunk")
    if b"acTL" in chunks:
        raise UnreadableError("it is animated; save one frame as a file of its own")
    with decoding():
        check_size(*struct.unpack_from(">II", data, 16))
        return _upright(_opaque(imagecodecs.png_decode(data)), _orientation(chunks.get(b"eXIf")))


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Bytes of each kind of chunk that stands whole before the end, but of those of pixels."""
    chunks: dict[bytes, bytes] = {}
    at = 8
    while b"IEND" not in chunks and at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind != b"IDAT" and at <= len(data):
            chunks[kind] = data[at - length - 4 : at - 4]
    return chunks


def read_jpeg(data: bytes, side: int | None = None) -> Pixels:
    """Read a JPEG file; of the several that a camera may chain together, the first.

    With a `side`, it is decoded at the smallest of 1/8, 1/4, 1/2 and 1/1 of its size of which
    both sides still have as many pixels. JPEG's own transform does that, at a fraction of the
    cost of all pixels.
    """
    return _by_pillow(JpegImageFile, data, side)


def read_bmp(data: bytes) -> Pixels:
    """Read a BMP file."""
    return _by_pillow(BmpImageFile, data)


def _by_pillow(plugin: type[ImageFile.ImageFile], data: bytes, side: int | None = None) -> Pixels:
    """Decode with one of Pillow's plugins: itself, since ``Image.open`` has a limit of its own."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UnreadableError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process, which fills damaged "
            "images with grey; set it to False"
        )
    with decoding():
        file = plugin(BytesIO(data))
        check_size(*file.size)
        if side is not None:
            file.draft(None, (side, side))
        becomes = {"P": "RGB", "1": "L"}.get(file.mode)
        image = file.convert(becomes) if becomes else file
        if image.mode not in ("L", "RGB", "RGBA"):
            raise UnreadableError(f"its colours are {image.mode}; save it as grey or RGB")
        return _upright(_opaque(np.asarray(image)), _orientation(file.info.get("exif")))


# What TIFF is read: channels by photometric interpretation, of which the last of two and of four
# is alpha (white or black is zero, RGB, palette, YCbCr), and compressions that unpack no more than
# they are asked for: none, fax, LZW, JPEG, Deflate, PackBits, LZMA, Zstandard.
_TIFF_CHANNELS = {0: (1, 2), 1: (1, 2), 2: (3, 4), 3: (1,), 6: (3,)}
_TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000}


def read_tiff(data: bytes) -> Pixels:
    """Read a TIFF or BigTIFF file of one page."""
    with decoding(), tifffile.TiffFile(BytesIO(data)) as file:
        page = file.pages.first
        _check_tiff(file, page, data)
        image: Pixels = page.asarray(maxworkers=1)
        if page.axes == "SYX":
            image = np.moveaxis(image, 0, -1)
        if page.photometric == 3:
            palette = np.asarray(page.colormap)
            image = (palette[:, image] >> 8).astype(np.uint8).transpose(1, 2, 0)
        elif page.bitspersample < 8:
            image = (image.astype(np.uint16) * 255 // (2**page.bitspersample - 1)).astype(np.uint8)
        image = _opaque(image)
        if page.photometric == 0:
            if image.dtype.kind != "u":
                raise UnreadableError(
                    "its zero is white, and its numbers have no black; save it black-is-zero"
                )
            white = 2 ** max(page.bitspersample, 8) - 1
            image = np.subtract(white, image, dtype=image.dtype)
        return _upright(image, page.tags.valueof(_ORIENTATION))


def _check_tiff(file: tifffile.TiffFile, page: tifffile.TiffPage, data: bytes) -> None:
    """Refuse what is not read, what would take too much memory, and strips that are not there."""
    if (pages := len(file.pages)) > 1:
        raise UnreadableError(f"it holds {pages} pages; save each as a file of its own")
    check_size(page.imagewidth, page.imagelength)
    check_size(*page.chunks[1::-1])
    channels = _TIFF_CHANNELS.get(page.tags.valueof(_PHOTOMETRIC), ())
    if page.samplesperpixel not in channels or (page.photometric == 6 and page.compression != 7):
        colours = getattr(page.photometric, "name", page.photometric)
        raise UnreadableError(
            f"its {page.samplesperpixel} channels are of the TIFF colours {colours}; "
            "save it as grey or RGB"
        )
    if page.axes not in ("YX", "YXS", "SYX"):
        raise UnreadableError(f"it is a volume, of the axes {page.axes}; save it as NIfTI")
    if page.compression not in _TIFF_COMPRESSIONS:
        raise UnreadableError(
            f"its compression {page.compression} is not read; save it uncompressed"
        )
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(segments) != math.prod(page.chunked) or not all(page.databytecounts):
        raise UnreadableError(f"not all of its {math.prod(page.chunked)} strips or tiles are there")
    if (end := max(map(sum, segments))) > len(data):
        raise UnreadableError(f"it is cut short: it ends at byte {end}, file has {len(data)} bytes")
    if page.is_contiguous and (have := sum(page.databytecounts)) < page.nbytes:
        raise UnreadableError(f"header says {page.nbytes} bytes of pixels, its strips have {have}")
    if page.compression == 7:
        for start, length in segments:
            _, h, w, _ = tifffile.tifffile.jpeg_shape(data[start : start + length])
            if h * w > math.prod(page.chunks[:2]):
                raise UnreadableError(f"a strip or tile of {page.chunks} holds a JPEG of {h}x{w}")


# The head of PGM and PPM: kind, width, height and maximum, with comments between them.
_PNM = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\r\n]*[\r\n])++(\d{1,10})" + rb"\s")


def read_pnm(data: bytes) -> Pixels:
    """Read a PGM or PPM file (P2, P3, P5, P6) as its numbers are, whatever its maximum.

    Pillow spreads them over 8 or 16 bits.
    """
    if (header := _PNM.match(data)) is None:
        raise UnreadableError("its PNM header is damaged or cut short")
    kind, width, height, maximum = map(int, header.groups())
    check_size(width, height)
    if not 1 <= maximum <= 65535:
        raise UnreadableError(f"header says a maximum of {maximum}, which must be from 1 to 65535")
    dtype = np.dtype(np.uint8 if maximum < 256 else ">u2")
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    count, body = math.prod(shape), data[header.end() :]
    if kind in (5, 6):
        if body[count * dtype.itemsize :].lstrip().startswith(data[:2]):
            raise UnreadableError("it holds more than 1 image; save each as a file of its own")
        values = np.frombuffer(body, dtype, min(count, len(body) // dtype.itemsize))
    else:
        # A last number without a line break may be cut short.
        if body.translate(None, b"0123456789 \t\r\n\v\f") or not body[-1:].isspace():
            raise UnreadableError("its PNM numbers are damaged or cut short")
        values = np.fromstring(body, np.int64, sep=" ")
    if len(values) != count:
        raise UnreadableError(
            f"header says {width}x{height}, {count} numbers; file has {len(values)}"
        )
    if (largest := int(values.max())) > maximum:
        raise UnreadableError(f"header says a maximum of {maximum}, file has the value {largest}")
    return values.astype(dtype, copy=False).reshape(shape)


# What is done to decoded pixels


def _opaque(image: Pixels) -> Pixels:
    """Drop the last of 2 or 4 channels, which must be fully opaque: the largest integer."""
    if image.ndim == 2 or image.shape[2] == 3 or image.dtype.kind == "f":
        return image
    transparent = image[..., -1] != np.iinfo(image.dtype).max
    if transparent.any():
        # There is no telling what lies under them.
        raise UnreadableError(
            f"{np.count_nonzero(transparent)} of its {transparent.size} pixels are transparent; "
            "save it without an alpha channel"
        )
    return image[..., 0] if image.shape[2] == 2 else image[..., :3]


def _orientation(exif: bytes | None) -> int:
    """How an image lies by its EXIF; 1, which is upright, where that is damaged or missing."""
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        return int(tags.get(_ORIENTATION, 1))
    except Exception:
        return 1


def _upright(image: Pixels, orientation: int) -> Pixels:
    """Turn and mirror as TIFF's and EXIF's orientation says; what is not 1 to 8 says nothing."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return image[rows, columns]
