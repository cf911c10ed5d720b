"""MetaImage (MHA, MHD) and NRRD (NRRD, NHDR), with the voxels inside or in a file beside.

What is read: one grey volume, or one grey or RGB image, of the numbers that NIfTI is read of; raw,
or compressed by zlib, gzip or bzip2, of which no more is unpacked than the header asks for. Of a
series the first volume is read. Directions are ITK's, of left, posterior, superior, unless NRRD's
space is another; a volume is then turned and cut as NIfTI's are.

Values and directions are SimpleITK's, by tests, but not its reader: that gives other voxels for a
damaged compressed file without an error, and prints what it finds.

Letters: x, y, z voxels as NIfTI has them, c channels.
"""

from __future__ import annotations

import bz2
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from conocc.data.image_io import pixels
from conocc.data.image_io.nifti import MOST_BYTES, check_voxels, stack_of_volume, turned
from conocc.data.image_io.pixels import Pixels, ReadError, Remarked
from conocc.data.image_io.stack import Stack, StackOptions

META_SIGNATURE = re.compile(
    rb"(?:Comment *=[^\n]*\n)*(?:ObjectType *= *Image|NDims *= *\d)", re.IGNORECASE
)
NRRD_SIGNATURE = re.compile(rb"NRRD000\d\r?\n")
_LONGEST_HEADER, _MOST_FILES = 2**20, 2**16

_SIZES = {"char": 1, "short": 2, "int": 4, "long": 4, "longlong": 8, "float": 4, "double": 8}
_TYPE = re.compile(  # without MET_
    r"(?P<un>u(?:nsigned(?: |$))?)?(?:signed )?(?:int(?P<bits>8|16|32|64)(?:_t)?|"
    r"(?P<c>char|short|int|long ?long|long|float|double|)(?: int)?)"
)
_UNPACK: dict[str, Callable[[], Any] | None] = {
    "raw": None,
    "bzip2": bz2.BZ2Decompressor,
    "zlib": lambda: zlib.decompressobj(47),  # or gzip
}
_ENCODINGS = {"gz": "zlib", "gzip": "zlib", "bz2": "bzip2"}
# Which way a space's axes lead, to the right, to the front, up; and along which of those.
_WAYS = {"r": (0, 1), "l": (0, -1), "a": (1, 1), "p": (1, -1), "s": (2, 1), "i": (2, -1)}


class _Header(NamedTuple):
    """What a header says: sides with the fastest first, of which `channels` is no side."""

    sides: tuple[int, ...]
    channels: int
    dtype: np.dtype[Any]
    encoding: str
    files: tuple[str, ...]
    start: int
    skipped_lines: int
    directions: Pixels
    is_mask: bool = False


def open_itk(file: BinaryIO, options: StackOptions) -> Stack:
    """Open a volume as a stack of its slices, or a single image, of any direction, as one."""
    data = file.read(_LONGEST_HEADER)
    with pixels.decoding("its header is"):
        header = _header(data)
    if header.is_mask and not options.labels:
        raise ReadError("it is a segmentation of 3D Slicer, not an image")
    sides, channels = header.sides, header.channels
    if not 2 <= len(sides) <= 4 or min(sides) < 1 or channels < 1:
        raise ReadError(f"header says {sides}, which are no sides of an image or volume")
    if len(sides) == 2:
        pixels.check_size(*sides)
        pixels.check_shape((sides[1], sides[0], *[channels] * (channels > 1)))
    elif channels > 1:
        raise ReadError(f"it holds {channels} values a voxel, where an image has one")
    x, y, z, series = (*sides, 1, 1)[:4]
    check_voxels((x, y, z), header.dtype)
    values = _values(file, header, x * y * z * channels, last=series == 1)
    if len(sides) == 2:
        image = values.reshape(y, x, channels)
        image = image[..., 0] if channels == 1 else image
        return Stack("image", 1, (0,), lambda k: Remarked(image), single=True)
    affine = np.eye(4)
    affine[:3, :3] = header.directions
    volume = turned(values.reshape((x, y, z), order="F"), affine, series)
    return stack_of_volume(volume, options.axis)


def named_files(head: bytes) -> tuple[str, ...]:
    """Name the files beside a header that have its voxels, as the header does; none inside."""
    with pixels.decoding("its header is"):
        return _header(head).files


def _files(name: str, header: bytes) -> tuple[str, ...]:
    """Name one file, those that are listed at the end, or those of a range of numbers."""
    if name.upper().startswith("LIST"):
        return tuple(header.partition(name.encode())[2].decode("latin-1").split()) or (name,)
    if found := re.fullmatch(r"([^%]*%0?\d?d[^%]*?) +(\d+) +(\d+)(?: +(\d+))?(?: +\d)?", name):
        numbers = range(int(found[2]), int(found[3]) + 1, int(found[4] or 1))[:_MOST_FILES]
        return tuple(found[1] % number for number in numbers)
    return (name,)


def _header(data: bytes) -> _Header:
    return (_nrrd if data.startswith(b"NRRD") else _meta)(data)


def _fields(text: bytes, sign: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in text.decode("latin-1").splitlines():
        key, found, value = line.partition(sign)
        key = "".join(key.split()).lower()
        if not found or key.startswith(("#", "comment")) or value.startswith("="):
            continue
        if fields.setdefault(key, value.strip()) != value.strip():
            raise ReadError(f"its header says {key[:40]!r} twice")
    return fields


def _meta(data: bytes) -> _Header:
    end = re.search(rb"^ *ElementDataFile *= *[^\r\n]*\r?\n?", data, re.MULTILINE | re.IGNORECASE)
    if end is None:
        raise ReadError("its MetaImage header is damaged or cut short")
    fields = _fields(data[: end.end()], "=")
    n = int(fields["ndims"])
    sides = tuple(map(int, fields["dimsize"].split()))
    if len(sides) != n:
        raise ReadError(f"header says {n} dimensions of {len(sides)} sides")
    given = [fields[key] for key in ("transformmatrix", "rotation", "orientation") if key in fields]
    matrix = np.array(given[0].split(), float).reshape(n, n).T if given else np.eye(n)
    directions = np.diag([-1.0, -1, 1]) @ matrix[:3, :3] if n > 2 else np.eye(3)
    true = {key for key, value in fields.items() if value.lower() in ("true", "t", "1")}
    encoding = "zlib" if "compresseddata" in true else "raw"
    if fields.get("binarydata", "true").lower() in ("false", "f", "0"):
        encoding = "text"  # which is not read
    big = not true.isdisjoint(("binarydatabyteordermsb", "elementbyteordermsb"))
    name = fields["elementdatafile"]
    is_inside = name.upper() == "LOCAL"
    start = int(fields.get("headersize", 0))
    return _Header(
        sides=sides,
        channels=int(fields.get("elementnumberofchannels", 1)),
        dtype=_dtype(fields["elementtype"].lower().removeprefix("met_").replace("_", " "), big=big),
        encoding=encoding,
        files=() if is_inside else _files(name, data),
        start=start + end.end() if is_inside and start >= 0 else start,
        skipped_lines=0,
        directions=directions,
    )


def _nrrd(data: bytes) -> _Header:
    end = re.search(rb"\r?\n\r?\n", data)
    fields = _fields(data[: end.start() if end else len(data)].partition(b"\n")[2], ":")
    sizes = list(map(int, fields["sizes"].split()))
    if len(sizes) != int(fields["dimension"]):
        raise ReadError(f"its {len(sizes)} sides are not of as many dimensions as it says")
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * len(sizes)
    vectors = re.findall(r"none|\([^)]*\)", fields.get("spacedirections", ""))
    has_channels = len(sizes) > 2 and (
        vectors[:1] == ["none"] or kinds[0] not in ("domain", "space", "???", "none")
    )
    space = fields.get("space", "").lower()
    letters = [word[0] for word in (space.split("-") if "-" in space else space)[:3]]
    world = np.zeros((3, 3))
    for row, letter in enumerate(letters if len({*letters} & {*_WAYS}) == 3 else "lps"):
        way, sign = _WAYS[letter]
        world[way, row] = sign
    spatial = [vector.strip("()").split(",") for vector in vectors if vector != "none"][:3]
    own = np.array(spatial, float).T[:3] if len(spatial) == 3 else np.eye(3)
    name = fields.get("datafile")
    if name is None and end is None:
        raise ReadError("its NRRD header is cut short")
    encoding = fields.get("encoding", "").lower()
    skip = int(fields.get("byteskip", 0))
    return _Header(
        sides=tuple(sizes[has_channels:]),
        channels=sizes[0] if has_channels else 1,
        dtype=_dtype(fields["type"].lower(), big=fields.get("endian", "").lower() == "big"),
        encoding=_ENCODINGS.get(encoding, encoding),
        files=() if name is None else _files(name, data),
        start=skip + end.end() if name is None and skip >= 0 and end else skip,
        skipped_lines=int(fields.get("lineskip", 0)),
        directions=world @ own,
        is_mask=b"\nSegment0_" in data,
    )


def _dtype(name: str, *, big: bool) -> np.dtype[Any]:
    found = _TYPE.fullmatch(name)
    if found is None or not name:
        raise ReadError(f"its values are {name[:40]!r}, not integers or reals of up to 64 bits")
    word = (found["c"] or "int").replace(" ", "")
    size = int(found["bits"]) // 8 if found["bits"] else _SIZES[word]
    kind = "f" if word in ("float", "double") else "u" if found["un"] else "i"
    return np.dtype(f"{'>' if big else '<'}{kind}{size}")


def _values(file: BinaryIO, header: _Header, number: int, *, last: bool) -> Pixels:
    """Read the first `number` values, which are all if it is the `last` volume."""
    if header.encoding not in _UNPACK:
        raise ReadError(f"its encoding {header.encoding[:20]!r} is not read; save it as raw")
    if not header.files:
        return _unpacked(file, header, number, last=last)
    each, rest = divmod(number, len(header.files))
    if rest:
        raise ReadError(f"header says {number} voxels in {len(header.files)} files")
    folder, parts = Path(getattr(file, "name", "")).parent, list[Pixels]()
    for name in header.files:
        inside = PureWindowsPath(name)  # in which / separates, too
        if inside.drive or inside.root or ".." in inside.parts:
            raise ReadError("the file of voxels that its header names lies outside its folder")
        voxels = folder.joinpath(*inside.parts)
        if not voxels.is_file():
            raise ReadError(f"the file of its voxels, {name!r}, is not beside it")
        with voxels.open("rb") as other:
            parts.append(_unpacked(other, header, each, last=last))
    return np.concatenate(parts)


def _unpacked(file: BinaryIO, header: _Header, number: int, *, last: bool) -> Pixels:
    size = os.fstat(file.fileno()).st_size if hasattr(file, "name") else file.seek(0, 2)
    if size > MOST_BYTES:
        raise ReadError(f"the file of its voxels has more than {MOST_BYTES} bytes")
    nbytes = number * header.dtype.itemsize
    file.seek(max(0, header.start if header.start >= 0 else size - nbytes))
    for _ in range(min(header.skipped_lines, _LONGEST_HEADER)):
        file.readline(_LONGEST_HEADER)
    if (maker := _UNPACK[header.encoding]) is None:
        raw = file.read(nbytes)
    else:
        with pixels.decoding("its compressed voxels are"):
            unpack = maker()
            raw = unpack.decompress(file.read(size), nbytes)
            # At the end of a stream, its checksum is looked at.
            if last and not unpack.eof:
                more = unpack.decompress(getattr(unpack, "unconsumed_tail", b""), 1)
                if more or not unpack.eof:
                    raise EOFError
    values = np.frombuffer(raw, header.dtype, len(raw) // header.dtype.itemsize)
    if len(values) != number:
        raise ReadError(f"header says {number} voxels, its file has {len(values)}")
    return np.asarray(values, header.dtype.newbyteorder("="))
