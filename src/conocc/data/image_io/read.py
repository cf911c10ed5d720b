"""One file to one array, at the file's own depth.

Each format has a reader in a file of its own, and a line in `READERS`: a new one needs no more.
Libraries decode; sizes are checked before memory is taken. What is done to values is said where
it is done, in `conocc.data.image_io.raster`, `npy` and `dicom`. What holds several images, as a
volume holds slices, is opened as a stack of them (`conocc.data.image_io.stack`).

Letters: h and w pixels.
"""

from __future__ import annotations

import os
import posixpath
import re
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, BinaryIO

import numpy as np
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from conocc.data.image_io import dicom, itk, nifti, npy, pixels, raster, tiff
from conocc.data.image_io.pixels import GZIP, Pixels, ReadError, Remarked, remarked
from conocc.data.image_io.stack import Stack, StackOptions, chosen
from conocc.io.files import PICTURE_MARK
from conocc.io.words import count


def decode(data: bytes, name: str, voi: str = "none", side: int | None = None) -> Pixels:
    r"""Turn the bytes of an image file into its pixels, whatever its name ends in.

    Parameters
    ----------
    data : bytes
        The whole file, of a format of `READERS`, compressed by gzip only if it is a volume.
    name : str
        What to call it in an error.
    voi : {"none", "file", "CENTER,WIDTH"}
        The window of DICOM; see `conocc.data.preprocessing`. Other formats have none.
    side : int, optional
        What both sides of a JPEG should keep; it is decoded at a half, a quarter or an eighth of
        its size where they do. Other formats come whole.

    Returns
    -------
    array, shape (h, w) or (h, w, 3)
        At the file's own depth and range, in native byte order: bool becomes uint8, float16
        becomes float32. May be read-only.

    Raises
    ------
    ValueError
        If the file is empty, of no known format, damaged, cut short or too large, holds several
        images, or pixels that are not finite or beyond `pixels.LARGEST_VALUE`; or if it is a DICOM
        object that is no image, or a volume.

    Examples
    --------
    >>> decode(b"P5 3 1 4095 " + b"\x00\x01\x0a\xbc\x0f\xff", "ramp.pgm")
    array([[   1, 2748, 4095]], dtype=uint16)
    >>> decode(b"P5 1024 1024 255\n", "mdb005.pgm")
    Traceback (most recent call last):
    ValueError: Cannot read 'mdb005.pgm': header says 1024x1024, 1048576 numbers; file has 0.
    """
    return decode_remarked(data, name, voi, side).pixels


def decode_remarked(data: bytes, name: str, voi: str = "none", side: int | None = None) -> Remarked:
    """Decode as `decode` does, and say what was done that someone may ask about."""
    with pixels.naming(name):
        if PICTURE_MARK in data[:HEAD_BYTES] + data[-HEAD_BYTES:]:
            raise ReadError("it is a picture that conocc drew, not an image of a patient")
        known = READERS.get(kind := format_of(data) or "")
        if known is None:
            raise ReadError(_unknown(data, name))
        if known.read is None:
            raise ReadError("it is a volume, whose slices are images: name one, as in 'FILE[0]'")
        if data.startswith(GZIP):
            raise ReadError(f"it is a {kind} file compressed by gzip; unpack it")
        options = {"voi": voi, "side": side}
        return checked(remarked(known.read(data, *(options[one] for one in known.options))))


def _unknown(data: bytes, name: str) -> str:
    """Say what a file is that is of no format that is read."""
    if name.lower().endswith(".tga"):
        return "a TGA file cannot be told by its content; save it as PNG"
    for signature, what in _OTHERS.items():
        if re.match(signature, data, re.DOTALL):
            return what
    packed = "what gzip compresses in it" if data.startswith(GZIP) else "its content"
    return f"{packed} ({count(len(data), 'byte')}) is none of {', '.join(READERS)}"


def open_stack(file: BinaryIO, name: str, options: StackOptions) -> Stack | None:
    """Open a file that may hold several images, of any name; None where it holds one or none.

    Parameters
    ----------
    file : binary file
        Open, at its beginning, and on disk where its voxels may lie in another.
    name : str
        What to call it in an error.
    options : StackOptions
        Images that ``options.frames`` does not ask for are left aside.

    Raises
    ------
    ValueError
        As in `decode`; images themselves are decoded, and may be refused, when they are asked for.
    """
    known = READERS.get(format_of(file.read(HEAD_BYTES)) or "")
    if known is None or known.open is None:
        return None
    file.seek(0)
    with pixels.naming(name):
        stack = known.open(file, options)
    if stack is None:
        return None
    numbers = chosen(stack.numbers, options.frames)
    left_aside = dict(stack.left_aside)
    if others := len(stack.numbers) - len(numbers):
        left_aside[f"not asked for by frames={options.frames!r} (--frames)"] = others
    return replace(stack, numbers=numbers, left_aside=left_aside)


def checked(read: Remarked) -> Remarked:
    """Refuse what no detector takes; give the rest in native byte order."""
    image = read.pixels
    pixels.check_type(image.dtype)
    pixels.check_shape(image.shape)
    becomes: Any = {"?": np.uint8, "e": np.float32}.get(image.dtype.char)
    image = np.ascontiguousarray(image, becomes or image.dtype.newbyteorder("="))
    if image.dtype.kind == "f" and (wrong := ~(np.abs(image) <= pixels.LARGEST_VALUE)).any():
        row, column, *_ = first = tuple(np.argwhere(wrong)[0])
        raise ReadError(
            f"{np.count_nonzero(wrong)} of {image.size} values are NaN, infinite or beyond "
            f"±{pixels.LARGEST_VALUE:g}, the first, {image[first]:g}, at row {row}, column {column}"
        )
    return read._replace(pixels=image)


def is_colour(image: Pixels) -> bool:
    """Tell whether `image`, (h, w) or (h, w, 3), has three channels that differ anywhere."""
    if image.ndim < 3:
        return False
    red, *others = np.moveaxis(image, -1, 0)  # one at a time: ten times as fast as at once
    return any(bool((red != other).any()) for other in others)


# The formats


@dataclass(frozen=True)
class Format:
    """How a format's files begin, what their names end in, and the functions that read them.

    `read` takes the bytes of one image, and the `options` that it names: "voi", the window asked
    for, or "side", what to keep where an image can be decoded at a fraction of its size. None for
    volumes, which are opened alone, and may be compressed by gzip.
    `open` is for files that may hold several images: it gives None where there is one, which
    `read` is then for.
    """

    signature: bytes | re.Pattern[bytes]
    suffixes: str
    read: Callable[..., Pixels | Remarked] | None = None
    open: Callable[[BinaryIO, StackOptions], Stack | None] | None = None
    options: tuple[str, ...] = ()

    @cached_property
    def begins(self) -> Callable[[bytes], object]:
        """Tell whether a file of this beginning is of the format."""
        return re.compile(self.signature).match


def _by_pillow(signature: bytes, suffixes: str, plugin: type[ImageFile]) -> Format:
    read, open = partial(raster.read_frame, plugin), partial(raster.open_frames, plugin)
    return Format(signature, suffixes, read, open)


# The first signature that matches decides; the weakest, with which a text may begin, is last.
# What precedes DICOM's may be anything, another format's beginning too.
READERS = {
    "DICOM": Format(
        dicom.SIGNATURE, ".dcm .dicom .ima", dicom.read_dicom, dicom.open_dicom, options=("voi",)
    ),
    "NIfTI": Format(nifti.SIGNATURE, ".nii .nii.gz", open=nifti.open_nifti),
    "Analyze": Format(nifti.ANALYZE_SIGNATURE, ".hdr .hdr.gz", open=nifti.open_nifti),
    "MGH": Format(nifti.MGH_SIGNATURE, ".mgh .mgz", open=nifti.open_nifti),
    "MetaImage": Format(itk.META_SIGNATURE, ".mha .mhd", open=itk.open_itk),
    "NRRD": Format(itk.NRRD_SIGNATURE, ".nrrd .nhdr", open=itk.open_itk),
    "PNG": Format(rb"\x89PNG\r\n\x1a\n", ".png", raster.read_png, raster.open_png),
    "JPEG": Format(
        rb"\xff\xd8\xff", ".jpg .jpeg .jpe .jfif .jls", raster.read_jpeg, options=("side",)
    ),
    "TIFF": Format(rb"II[*+]\0|MM\0[*+]", ".tif .tiff", tiff.read_tiff, tiff.open_tiff),
    "GIF": _by_pillow(rb"GIF8[79]a", ".gif", GifImageFile),
    "WebP": _by_pillow(rb"(?s)RIFF....WEBP", ".webp", WebPImageFile),
    "AVIF": _by_pillow(rb"(?s)....ftypavi[fs]", ".avif", AvifImageFile),
    "JPEG 2000": Format(
        rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", ".jp2 .j2k", raster.read_jp2
    ),
    "PNM": Format(rb"P[1-6][\s#]", ".pgm .ppm .pnm .pbm", raster.read_pnm),
    "NPY": Format(rb"\x93NUMPY[\1\2\3]\0", ".npy", npy.read_npy),
    "BMP": _by_pillow(rb"BM", ".bmp", BmpImageFile),
}
SUFFIXES = frozenset(" ".join(known.suffixes for known in READERS.values()).split())
# What else may lie among images, and what to do about it.
_OTHERS = {
    rb"\Z": "it is empty (0 bytes)",
    rb"\s*<(?i:!doctype html|html)": "it is a web page, as of a download that needs a password",
    rb"PK\x03\x04.{26}[^/]{1,99}\.npy": "it is an archive of NumPy arrays; save its image as NPY",
    rb"PK\x03\x04": "it is a ZIP archive; unpack it",
    rb"BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd|\x1f\x9d|Rar!": "it is an archive; unpack it",
    rb"version https://git-lfs": "it is a pointer of Git LFS; 'git lfs pull' brings the file",
    rb"bplist00": "it is a placeholder of iCloud for a file that is not here yet; download that",
    rb"%PDF-": "it is a PDF file; save its pictures as PNG",
    rb"\x89HDF": "it is an HDF5 file; save its images as NPY or PNG",
    rb"MATLAB 5": "it is a MATLAB file; save its images as NPY or PNG",
    rb"....ftyp(?:hei|mif)": "it is a HEIC file; save it as PNG",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "it is a JPEG XL file; save it as PNG",
    rb"....ftyp|....moov|\x1aE\xdf\xa3|RIFF....AVI": "it is a video; save its frames as PNG",
}

# Of a file, as many bytes as `format_of` looks at.
HEAD_BYTES = 4096


def format_of(head: bytes) -> str | None:
    """Tell the format of a file by how it begins: a key of `READERS`, or None.

    Parameters
    ----------
    head : bytes
        The first `HEAD_BYTES` or more; of what gzip compresses, the format of that is told.

    Examples
    --------
    >>> format_of(b"P5 3 1 4095 "), format_of(b"path,label")
    ('PNM', None)
    """
    if head.startswith(GZIP):
        unpacked = b""
        with suppress(zlib.error):
            unpacked = zlib.decompressobj(31).decompress(head[:HEAD_BYTES], HEAD_BYTES)
        head = unpacked
    return next((kind for kind, known in READERS.items() if known.begins(head)), None)


def companions(folder: str | os.PathLike[str], names: Iterable[str]) -> dict[str, str]:
    """Tell which files are no images, but hold the voxels of a header among them.

    Parameters
    ----------
    folder : path
    names : iterable of str
        Paths of files below `folder`, with forward slashes.

    Returns
    -------
    dict of str to str
        From the file of the voxels to its header, ``{"a/x.raw": "a/x.mhd"}``.
    """
    known, found = set(names), dict[str, str]()
    for name in sorted(known):
        beside: Iterable[str] = ()
        if name.lower().endswith((".hdr", ".hdr.gz")):
            beside = [other for other in nifti.voxel_files(name) if other in known][:1]
        elif name.lower().endswith((".mhd", ".nhdr", ".mha", ".nrrd")):
            with suppress(OSError, ValueError), open(os.path.join(folder, name), "rb") as file:
                inside = posixpath.dirname(name)
                own = (one.replace("\\", "/") for one in itk.named_files(file.read(2**16)))
                beside = [posixpath.normpath(posixpath.join(inside, one)) for one in own]
        found.update((other, name) for other in beside if other in known - {name})
    return found
