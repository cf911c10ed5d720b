"""The stored pixels of a DICOM image, in the open or compressed.

What pixels show by themselves is believed before the header, and remarked.

Letters: h and w pixels; k the number of a frame.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space

from conocc.data.image_io.codestream import BEGINNINGS, KIND_OF, Stream, decode_runs, stream_of
from conocc.data.image_io.dicom_header import UNDEFINED, number, text
from conocc.data.image_io.dicom_kind import PIXEL_KEYWORDS
from conocc.data.image_io.pixels import Pixels, check_size, decoding, native

_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_ITEM = b"\xfe\xff\x00\xe0"
_MOST_FRAGMENTS = 2**20
_GE_PIXELS = "1.2.840.113619.5.2"  # GE's own: all is implicit and little-endian, pixels are not
_NOT_READ = "its DICOM transfer syntax is none that is read; save it uncompressed"

NO_PHOTOMETRIC = "read as grey or RGB by its channels, since its header does not say which"
OTHER_COLOURS = "colours read as its pixels have them, not as its header says"
OTHER_SYNTAX = "read by how its pixels are compressed, or not, which its header does not say"
OTHER_FRAMES = "more frames than its header says, all of which are read"
OTHER_BITS = "numbers read with bits that its header leaves out, or without some that it has"
OTHER_SIGN = "numbers read with or without a sign as its pixels have them, not as its header says"


class Layout(NamedTuple):
    """How pixels lie, by the header and what can be checked of it.

    `pieces` are where the parts of each compressed frame lie; None in the open.
    """

    pixel_keyword: str
    photometric: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    pixel_representation: int
    planar_configuration: int
    bits_stored: int
    high_bit: int
    frames: int = 1
    pieces: list[list[slice]] | None = None
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        colour = " colour" if self.samples == 3 else ""
        several = f"{self.frames} frames of " if self.frames > 1 else ""
        return f"header says {several}{self.columns}x{self.rows} {self.bits_allocated}-bit{colour}"


class Stored(NamedTuple):
    """The numbers of one frame.

    Attributes
    ----------
    pixels : array
        Numbers, (h, w), without the bits that hold no pixel; or RGB, (h, w, 3).
    whole : array
        Those numbers with all their bits.
    limits : tuple of float
        The least and the most that can be stored.
    lossy : bool
    remarks : tuple of str
    """

    pixels: Pixels
    whole: Pixels
    limits: tuple[float, float] = (0, 0)
    lossy: bool = False
    remarks: tuple[str, ...] = ()


def layout_of(ds: Dataset, *, is_head: bool = False) -> Layout:
    """Check all that is needed before memory is taken for pixels.

    Parameters
    ----------
    ds : Dataset
    is_head : bool
        Whether pixels may be cut off, as in the beginning of a file.

    Raises
    ------
    ValueError
        If they are damaged, cut short or too many, or of a kind that is not read.
    """
    layout = _stated(ds)
    element: Any = ds.get_item(layout.pixel_keyword)
    value: bytes = element.value or b""
    syntax = ds.file_meta.TransferSyntaxUID
    found = element.length if is_head else len(value)
    samples = 2 if layout.photometric == "YBR_FULL_422" else layout.samples
    bits = layout.rows * layout.columns * samples * layout.bits_allocated
    least = math.ceil(layout.frames * bits / 8)
    several = int(8 * found // bits)
    if found < least and value.startswith(BEGINNINGS):
        layout = layout._replace(pieces=[[slice(0, None)]])
    elif element.length == UNDEFINED or (value[:4] == _ITEM and found - least not in (0, 1)):
        with decoding(_called(syntax)):
            pieces = _pieces(value, layout.frames, _extended(ds), is_head)
        layout = layout._replace(pieces=pieces)
        several = len(pieces)
        if several < layout.frames:
            raise ValueError(f"{layout}, file has {several}" if syntax in KIND_OF else _NOT_READ)
    elif found < least:
        raise ValueError(f"{layout}, which takes {least} bytes, file has {found}")
    elif samples == 2 and found * 2 in range(3 * least, 3 * least + 3):
        layout = _noted(layout._replace(photometric="YBR_FULL"), OTHER_COLOURS)
        several = layout.frames
    exact = layout.pieces is not None or found - several * bits / 8 < 2 <= found - least
    if several > layout.frames and exact and layout.pixel_keyword == "PixelData":
        layout = _noted(layout._replace(frames=several), OTHER_FRAMES)
    if (layout.pieces is None) != (syntax in uid.UncompressedTransferSyntaxes):
        layout = _noted(layout, OTHER_SYNTAX)
    return layout


def _called(syntax: uid.UID) -> str:
    """Call compressed pixels by a name of the standard's, not by one that a header made up."""
    return f"its {syntax.name if syntax in KIND_OF else 'compressed'} pixels are"


def _noted(layout: Layout, remark: str) -> Layout:
    return layout._replace(remarks=tuple(dict.fromkeys((*layout.remarks, remark))))


def _stated(ds: Dataset) -> Layout:
    """Read what the header says, with what it leaves out."""
    check_size(int(number(ds, "Columns")), int(number(ds, "Rows")))
    keyword = next(keyword for keyword in PIXEL_KEYWORDS if keyword in ds)
    photometric = text(ds, "PhotometricInterpretation").upper()
    remarks = () if photometric else (NO_PHOTOMETRIC,)
    if not photometric:
        photometric = "RGB" if number(ds, "SamplesPerPixel", 1) == 3 else "MONOCHROME2"
    if photometric not in _GREY + _COLOURS:
        raise ValueError(f"its DICOM colours are none of {', '.join(_GREY + _COLOURS)}")
    samples = 1 if photometric in _GREY else 3
    floats = {"FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
    bits = (8,) if photometric.startswith("YBR") else (8, 16, 32)
    bits = (1, *bits) if samples == 1 else bits
    values = list[int]()
    for name, default, known in (
        ("SamplesPerPixel", samples, (samples,)),
        ("BitsAllocated", None, floats.get(keyword, bits)),
        ("PixelRepresentation", 0, (0, 1)),
        ("PlanarConfiguration", 0, (0, 1)),
    ):
        if (value := number(ds, name, default)) not in known:
            allowed = " or ".join(map(str, known))
            raise ValueError(f"its DICOM {name} is {value:g}, where {photometric} has {allowed}")
        values.append(int(value))
    allocated = values[1]
    stored = int(number(ds, "BitsStored", allocated))
    high = int(number(ds, "HighBit", stored - 1))
    if not 1 <= stored <= allocated:
        raise ValueError(f"header says {stored} bits, of {allocated}")
    if not stored <= high + 1 <= allocated:
        high, remarks = stored - 1, (*remarks, OTHER_BITS)
    size = int(number(ds, "Rows")), int(number(ds, "Columns"))
    frames = max(1, int(number(ds, "NumberOfFrames", 1)))  # some write 0 where they mean one
    if frames >= 2**31:
        raise ValueError(f"header says {frames:.9g} frames, more than any file holds")
    stated = (keyword, photometric, *size, *values, stored, high, frames, None, remarks)
    return Layout._make(stated)


def _extended(ds: Dataset) -> list[int]:
    """Read the table of offsets that stands before the pixels."""
    element: Any = ds.get_item("ExtendedOffsetTable") if "ExtendedOffsetTable" in ds else None
    value = (element and element.value) or b""
    offsets: list[int] = np.frombuffer(value[: len(value) // 8 * 8], "<u8").tolist()
    return offsets


def _pieces(value: bytes, frames: int, offsets: list[int], is_head: bool) -> list[list[slice]]:
    """Find the fragments of each frame: by a table of offsets that fits, or by how they begin."""
    at, fragments = 0, list[slice]()
    while value[at : at + 4] == _ITEM and at + 8 <= len(value):
        (length,) = struct.unpack_from("<I", value, at + 4)
        fragments.append(slice(at + 8, at + 8 + length))
        at += 8 + length
        if len(fragments) > _MOST_FRAGMENTS:
            raise ValueError
    # What has lost bytes within may decode all the same, to another image.
    if not fragments[1:] or (at > len(value) and not is_head):
        raise EOFError
    table, *fragments = fragments
    if not offsets and len(value[table]) % 4 == 0:
        offsets = np.frombuffer(value[table], "<u4").tolist()
    starts = [piece.start - 8 - table.stop for piece in fragments]
    begins = [at for at in starts if value.startswith(BEGINNINGS, at + 8 + table.stop)]
    if offsets[:1] == [0] and len(offsets) >= frames and {*offsets} <= {*starts}:
        begins = offsets
    elif begins[:1] != [0] or len(starts) == frames:
        begins = [0] if frames == 1 else starts
    first, grouped = {*begins}, list[list[slice]]()
    for start, piece in zip(starts, fragments, strict=True):
        if start in first:
            grouped.append([])
        grouped[-1].append(piece)
    return grouped


# Frames


def stored_pixels(ds: Dataset, layout: Layout, k: int = 0) -> Stored:
    """Read the numbers of frame `k`, or its colours.

    Raises
    ------
    ValueError
        If they are damaged, cut short or too many, or of a kind that is not read.
    """
    element: Any = ds.get_item(layout.pixel_keyword)
    syntax = ds.file_meta.TransferSyntaxUID
    if layout.pieces is None:
        image = _in_the_open(element, layout, k, big=syntax == _GE_PIXELS)
        stream = None
    else:
        frame = b"".join(element.value[piece] for piece in layout.pieces[k])
        with decoding(what := _called(syntax)):
            stream = stream_of(frame, KIND_OF.get(syntax))
        if stream is None:
            raise ValueError(_NOT_READ)
        if KIND_OF.get(syntax) != stream.kind:
            layout = _noted(layout, OTHER_SYNTAX)
        image = _decoded(stream, layout, what)
        if stream.size is not None and stream.size[2] != layout.samples:
            layout = _noted(layout._replace(photometric="RGB"), OTHER_COLOURS)
    if image.ndim == 3:
        return _coloured(image, stream, layout)
    return _numbers(image, stream, layout)


def _in_the_open(element: Any, layout: Layout, k: int, *, big: bool) -> Pixels:
    if layout.photometric in ("YBR_RCT", "YBR_ICT"):
        raise ValueError(f"its colours are {layout.photometric}, which its pixels cannot be")
    little = element.is_little_endian and not (big and layout.bits_allocated > 8)
    order = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    options: Any = layout._replace(pieces=None)._asdict()  # typed wrongly
    options |= {"validate": False, "correct_unused_bits": False, "pixel_vr": element.VR or "OW"}
    options["photometric_interpretation"] = layout.photometric
    options |= {"samples_per_pixel": layout.samples, "number_of_frames": layout.frames}
    with decoding("its pixels are"):
        image, _ = get_decoder(order).as_array(element.value, index=k, **options)
    return native(image)


def _decoded(stream: Stream, layout: Layout, what: str) -> Pixels:
    """Decode a frame whose size is the header's: decoders take memory for the size they find."""
    bytes_each = max(1, layout.bits_allocated // 8)
    if stream.size is not None and stream.size[:2] != (layout.columns, layout.rows):
        w, h, channels = stream.size
        raise ValueError(f"{layout}, {what} {w}x{h} {stream.bits}-bit in {channels} channels")
    if stream.size is not None and stream.size[2] not in (1, 3):
        raise ValueError(f"{what} of {stream.size[2]} channels, which are neither grey nor RGB")
    with decoding(what):
        if stream.size is not None:
            return stream.decode()
        runs = decode_runs(stream.data, layout.rows * layout.columns, layout.samples, bytes_each)
        planes = np.frombuffer(runs, f"<u{bytes_each}").reshape(-1, layout.rows, layout.columns)
        return planes[0] if layout.samples == 1 else np.moveaxis(planes, 0, -1)


def _coloured(image: Pixels, stream: Stream | None, layout: Layout) -> Stored:
    """Make RGB of what a stream has; pydicom has made it of what is in the open."""
    if stream is not None:
        says = "YBR_FULL" if layout.photometric in ("YBR_FULL", "YBR_FULL_422") else "RGB"
        colours = stream.colours or says
        transformed = stream.kind != "JPEG 2000" or stream.becomes_rgb
        if colours != says or (layout.photometric in ("YBR_RCT", "YBR_ICT") and not transformed):
            layout = _noted(layout, OTHER_COLOURS)
        image = image.astype(f"u{max(layout.bits_allocated // 8, image.itemsize)}")
        if colours != "RGB" and not stream.becomes_rgb:
            if image.itemsize > 1 or (stream.kind == "JPEG" and not stream.lossy):
                raise ValueError(f"its colours are {colours}, which is not read in {stream.kind}")
            image = convert_color_space(image, colours, "RGB")
    return Stored(image, image, lossy=stream is not None and stream.lossy, remarks=layout.remarks)


def _numbers(image: Pixels, stream: Stream | None, layout: Layout) -> Stored:
    """Take away the bits that hold no pixel: older files keep overlays in them, codecs no sign.

    Bits that the header leaves out, or a sign against the header, are believed where the image is
    smoother with them: without, its numbers would jump from one end to the other.
    """
    lossy, remarks = stream is not None and stream.lossy, layout.remarks
    if image.dtype.kind == "f":
        return Stored(image, image, (image.min(), image.max()), lossy, remarks)
    width = max(layout.bits_allocated // 8, image.itemsize)
    bare = image.astype(f"u{width}")
    bits, high, signed = layout.bits_stored, layout.high_bit, layout.pixel_representation
    if high >= bits and (bare & (2 ** (high + 1 - bits) - 1)).any() and int(bare.max()) < 2**bits:
        high, remarks = bits - 1, (*remarks, OTHER_BITS)  # they lie lower
    ways, remark = [(bits, high, signed)], OTHER_BITS
    if stream is not None and stream.kind in ("JPEG 2000", "JPEG-LS"):
        ways, remark = [(stream.bits, stream.bits - 1, signed)], OTHER_SIGN
        if stream.signed not in (None, bool(signed)):
            ways.append((stream.bits, stream.bits - 1, 1 - signed))
    elif high < 8 * width - 1 and (bare >> (high + 1)).any():
        ways.append((bits + 8 * width - 1 - high, 8 * width - 1, signed))
    found = [_kept(bare, *way) for way in ways]
    if len(found) == 2 and _jumps(found[1][0]) < _jumps(found[0][0]):
        remarks = (*remarks, remark)
        found, (bits, _, signed) = found[1:], ways[1]
    kept, whole = found[0]
    half = 2 ** (bits - 1)
    return Stored(kept, whole, (-half, half - 1) if signed else (0, 2 * half - 1), lossy, remarks)


def _kept(bare: Pixels, bits: int, high: int, signed: int) -> tuple[Pixels, Pixels]:
    """Keep so many bits, up to the bit `high`; and give all of them as numbers of that sign."""
    width = 8 * bare.itemsize
    whole = bare.view(f"{'ui'[signed]}{bare.itemsize}")
    return (whole << (width - 1 - high)) >> (width - bits), whole


def _jumps(image: Pixels) -> float:
    """Sum up how far each pixel is from its neighbours."""
    values = image.astype(np.float64)
    return float(np.abs(np.diff(values, axis=0)).sum() + np.abs(np.diff(values, axis=1)).sum())
