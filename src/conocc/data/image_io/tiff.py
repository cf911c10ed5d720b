"""TIFF by tifffile: pages at their own depth, each an image, but for thumbnails and masks.

Palettes become RGB, grey levels of less than 8 bits are spread over 0 to 255, white-is-zero is
inverted, and the orientation is applied. CMYK and other colours are refused. Planes that stand
behind each other in one page, ImageJ's stacks and volumes, are images too.

Letters: h and w pixels, c channels.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from io import BytesIO
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile

from conocc.data.image_io import pixels
from conocc.data.image_io.pixels import Pixels, ReadError, Remarked
from conocc.data.image_io.stack import Stack, StackOptions

_PHOTOMETRIC, _ORIENTATION, _OLD_SUBFILE = 262, 274, 255

# What is read: channels by photometric interpretation (white or black is zero, RGB, palette,
# YCbCr), and compressions that unpack no more than they are asked for: none, fax, LZW, JPEG,
# Deflate, PackBits, LZMA, Zstandard.
_CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 6: 3}
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000}
_MOST_PAGES = 2**16

ASIDE = "pages that their tags call thumbnails or masks"
LEFT_ASIDE = f"{ASIDE} left aside"
CUT_OFF = "pages after the last one that was read are damaged or missing"
UNEXPLAINED = "a further sample of each pixel, which is not said to be alpha, left aside"


class _Pages(NamedTuple):
    """The pages of a file that are images, of the first the planes, and what was met."""

    images: list[tifffile.TiffPage]
    planes: int
    aside: int
    remarks: tuple[str, ...]

    @property
    def total(self) -> int:
        return self.planes if self.planes > 1 else len(self.images)


def read_tiff(data: bytes) -> Remarked:
    """Read a TIFF or BigTIFF file of one image."""
    with pixels.decoding(), tifffile.TiffFile(BytesIO(data)) as file:
        pages = _pages(file)
        if pages.total > 1:
            raise ReadError(pixels.SEVERAL.format(f"{pages.total} pages"))
        aside = (LEFT_ASIDE,) if pages.aside else ()
        return _image(pages.images[0], data, (*pages.remarks, *aside))


def open_tiff(file: BinaryIO, options: StackOptions) -> Stack | None:
    """Open a TIFF file of several images; None where it has one."""
    with pixels.decoding(), tifffile.TiffFile(file) as opened:
        if _pages(opened).total < 2:
            return None
        file.seek(0)
        data = file.read()
    with pixels.decoding():
        opened = tifffile.TiffFile(BytesIO(data))
        opened.filehandle.set_lock(True)  # several threads read from it
        pages = _pages(opened)
    planes = lru_cache(maxsize=1)(lambda: _planes(pages.images[0], data, pages.planes))

    def image(k: int) -> Remarked:
        with pixels.decoding():
            if pages.planes < 2:
                return _image(pages.images[k], data, pages.remarks)
            return _finished(pages.images[0], planes()[k], pages.remarks)

    aside = {ASIDE: pages.aside} if pages.aside else {}
    return Stack("page", pages.total, tuple(range(pages.total)), image, aside)


def _pages(file: tifffile.TiffFile) -> _Pages:
    """Tell the pages that are images from the others."""
    number = len(file.pages)
    if number > _MOST_PAGES:
        raise ReadError(f"it holds {number} pages; at most {_MOST_PAGES} are read")
    found = (file.pages[k] for k in range(number))
    pages = [page for page in found if isinstance(page, tifffile.TiffPage)]
    images = [
        page for page in pages if not page.subfiletype & 5 and page.tags.valueof(_OLD_SUBFILE) != 2
    ] or pages[:1]
    first, planes = images[0], 1
    if "Z" in first.axes:
        planes = first.shape[first.axes.index("Z")]
    elif number == 1 and first.axes in ("YX", "YXS"):
        planes = _said_planes(file)
    if planes > 1 and len(images) > 1:
        raise ReadError("it holds several volumes; save each as a file of its own")
    end = file.pages.next_page_offset
    file.filehandle.seek(end or 0)
    following = file.filehandle.read(file.tiff.offsetsize)
    is_cut = bool(end) and (len(following) < file.tiff.offsetsize or any(following))
    return _Pages(images, planes, number - len(images), (CUT_OFF,) if is_cut else ())


def _said_planes(file: tifffile.TiffFile) -> int:
    """Give the number of planes that ImageJ, MetaMorph or tifffile wrote behind each other."""
    if file.is_imagej:
        return int((file.imagej_metadata or {}).get("images", 1))
    if '"truncate": true' in (page := file.pages.first).description:
        return math.prod(json.loads(page.description)["shape"]) // max(1, math.prod(page.shape))
    return int((file.stk_metadata or {}).get("NumberPlanes", 1)) if file.is_stk else 1


def _planes(page: tifffile.TiffPage, data: bytes, planes: int) -> Pixels:
    """Decode all planes of one page; (planes, h, w) or (planes, h, w, c)."""
    _check(page, data)
    if "Z" in page.axes:
        if math.prod(page.shape) > 16 * pixels.MAX_PIXELS:
            raise ReadError(f"header says {page.shape} voxels, more than are read")
        return page.asarray(maxworkers=1)
    (start, length), *_ = zip(page.dataoffsets, page.databytecounts, strict=True)
    if not page.is_contiguous or page.bitspersample % 8 or start + planes * length > len(data):
        raise ReadError(
            f"header says {planes} planes of {length} bytes from byte {start}, file has {len(data)}"
        )
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    values = np.frombuffer(data, dtype, planes * math.prod(page.shape), start)
    return values.reshape(planes, *page.shape)


def _image(page: tifffile.TiffPage, data: bytes, remarks: tuple[str, ...]) -> Remarked:
    _check(page, data)
    image: Pixels = page.asarray(maxworkers=1)
    return _finished(page, np.moveaxis(image, 0, -1) if page.axes == "SYX" else image, remarks)


def _finished(page: tifffile.TiffPage, image: Pixels, remarks: tuple[str, ...]) -> Remarked:
    """Give decoded pixels their colours, lay them on black, and turn them upright."""
    if page.photometric == 3:
        palette = np.asarray(page.colormap)
        image = (palette[:, image] >> 8).astype(np.uint8).transpose(1, 2, 0)
    elif page.bitspersample < 8:
        image = (image.astype(np.uint16) * 255 // (2**page.bitspersample - 1)).astype(np.uint8)
    channels = _CHANNELS[page.photometric]
    transparent: tuple[str, ...] = ()
    if image.ndim == 3 and image.shape[2] > channels and page.photometric != 3:
        if page.extrasamples[:1] in ((1,), (2,)):
            image, transparent = pixels.on_black(
                image[..., : channels + 1], premultiplied=page.extrasamples[0] == 1
            )
        else:
            if channels == 1 and (image[..., 1:] != pixels.opaque(image.dtype)).any():
                raise ReadError(
                    f"it holds {image.shape[2]} planes of grey in one page, of which its tags call "
                    "none alpha; save each as a file of its own"
                )
            image, transparent = image[..., :channels], (UNEXPLAINED,)
            image = image[..., 0] if channels == 1 else image
    if page.photometric == 0:
        if image.dtype.kind != "u":
            raise ReadError("its zero is white, and its numbers have no black; save black-is-zero")
        white = 2 ** max(page.bitspersample, 8) - 1
        image = np.subtract(white, image, dtype=image.dtype)
    turned = pixels.upright(image, page.tags.valueof(_ORIENTATION))
    return Remarked(turned, (*remarks, *transparent))


def _check(page: tifffile.TiffPage, data: bytes) -> None:
    """Refuse what is not read, what would take too much memory, and strips that are not there."""
    if page.axes not in ("YX", "YXS", "SYX", "ZYX", "ZYXS"):
        raise ReadError(f"it is a volume, of the axes {page.axes}; save it as NIfTI")
    pixels.check_size(page.imagewidth, page.imagelength)
    sides = page.chunks[-3:-1] if "Z" in page.axes and "S" in page.axes else page.chunks
    sides = sides[-2:] if "Z" in page.axes else sides[:2]
    pixels.check_size(*sides[::-1])
    photometric = page.tags.valueof(_PHOTOMETRIC)
    channels, samples = _CHANNELS.get(photometric, 0), page.samplesperpixel
    known = samples == channels or (photometric in (0, 1, 2) and samples == channels + 1)
    if not (channels and known) or (photometric == 6 and page.compression != 7):
        colours = getattr(page.photometric, "name", page.photometric)
        raise ReadError(f"its {samples} channels are TIFF colours {colours}; save as grey or RGB")
    if page.dtype is None:
        raise ReadError(f"its {page.bitspersample} bits a sample are of no type that is read")
    pixels.check_type(page.dtype)
    if page.compression not in _COMPRESSIONS:
        raise ReadError(f"its compression {page.compression} is not read; save it uncompressed")
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(segments) != math.prod(page.chunked) or not all(page.databytecounts):
        raise ReadError(f"not all of its {math.prod(page.chunked)} strips or tiles are there")
    if (end := max(map(sum, segments))) > len(data):
        raise ReadError(f"it is cut short: it ends at byte {end}, file has {len(data)} bytes")
    if page.is_contiguous and (have := sum(page.databytecounts)) < page.nbytes:
        raise ReadError(f"header says {page.nbytes} bytes of pixels, its strips have {have}")
    if page.compression == 7:
        for start, length in segments:
            _, h, w, _ = tifffile.tifffile.jpeg_shape(data[start : start + length])
            if h * w > math.prod(page.chunks[:2]):
                raise ReadError(f"a strip or tile of {page.chunks} holds a JPEG of {h}x{w}")
