"""DICOM files made by hand, byte for byte, so that what they hold is known."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
STORAGE = "1.2.840.10008.5.1.4.1.1."
LONG = ("OB", "OW", "SQ", "UC", "UN", "UR", "UT")


def element(tag: int, kind: str, value: object, order: str = "<", implicit: bool = False) -> bytes:
    """One data element; text is padded to an even length, numbers are of 16 bits."""
    if isinstance(value, str):
        value = value.encode("latin-1")
    if isinstance(value, int):
        value = struct.pack(order + "H", value)
    elif isinstance(value, tuple):
        value = b"".join(struct.pack(order + ("h" if n < 0 else "H"), n) for n in value)
    assert isinstance(value, bytes)
    value += (b"\0" if kind in ("UI", "OB") else b" ") * (len(value) % 2)
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack(order + "I", len(value)) + value
    if kind in LONG:
        return head + kind.encode() + bytes(2) + struct.pack(order + "I", len(value)) + value
    return head + kind.encode() + struct.pack(order + "H", len(value)) + value


def sequence(tag: int, *items: bytes, undefined: bool = False) -> bytes:
    """A sequence, of lengths that are given or not."""
    if not undefined:
        body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(i)) + i for i in items)
        return element(tag, "SQ", body)
    begin, end = (
        struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1),
        struct.pack("<HHI", 0xFFFE, 0xE00D, 0),
    )
    body = b"".join(begin + i + end for i in items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return element(tag, "SQ", b"")[:8] + struct.pack("<I", 2**32 - 1) + body


def items(*values: bytes) -> bytes:
    """Fragments of compressed pixels, after an empty table of offsets."""
    parts = [b"", *(value + b"\0" * (len(value) % 2) for value in values)]
    body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(p)) + p for p in parts)
    head = struct.pack("<HH", 0x7FE0, 0x0010) + b"OB\0\0" + struct.pack("<I", 2**32 - 1)
    return head + body + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def dicom(
    image: np.ndarray,
    *more: bytes,
    photometric: str = "MONOCHROME2",
    stored: int | None = None,
    sop: str = STORAGE + "7",
    syntax: str = EXPLICIT,
    pixels: bytes | None = None,
    preamble: bool = True,
    **changed: object,
) -> bytes:
    """A DICOM file of `image`, with `more` elements; `changed` are others of its numbers."""
    order, implicit = ">" if syntax == BIG_ENDIAN else "<", syntax == IMPLICIT
    bits = 8 * image.dtype.itemsize
    known = {
        "samples": (0x00280002, "US", 3 if image.ndim == 3 else 1),
        "photometric": (0x00280004, "CS", photometric),
        "planar": (0x00280006, "US", 0),
        "rows": (0x00280010, "US", image.shape[0]),
        "columns": (0x00280011, "US", image.shape[1]),
        "bits": (0x00280100, "US", bits),
        "stored": (0x00280101, "US", stored or bits),
        "high": (0x00280102, "US", (stored or bits) - 1),
        "signed": (0x00280103, "US", int(image.dtype.kind == "i")),
    }
    parts = [element(0x00080016, "UI", sop, order, implicit), *filter(None, more)]
    for name, (tag, kind, value) in known.items():
        value = changed.get(name, value)
        if value is not None:
            parts.append(element(tag, kind, value, order, implicit))
    raw = image.astype(image.dtype.newbyteorder(order)).tobytes()
    kind = "OB" if bits == 8 else "OW"
    parts.append(pixels or element(0x7FE00010, kind, raw, order, implicit))
    # In the order of their tags, as files have them.
    parts.sort(key=lambda part: struct.unpack(order + "HH", part[:4]))
    body = b"".join(parts)
    if syntax == DEFLATED:
        import zlib

        packing = zlib.compressobj(wbits=-15)
        body = packing.compress(body) + packing.flush()
    return (meta(syntax) if preamble else b"") + body


def meta(syntax: str) -> bytes:
    inside = element(0x00020010, "UI", syntax)
    length = struct.pack("<HH", 2, 0) + b"UL" + struct.pack("<HI", 4, len(inside))
    return bytes(128) + b"DICM" + length + inside


def rescale(slope: str, intercept: str) -> bytes:
    """The rescale of the modality."""
    return element(0x00281052, "DS", intercept) + element(0x00281053, "DS", slope)


def window(center: str, width: str, function: str = "") -> bytes:
    """A window of values of interest."""
    said = element(0x00281056, "CS", function) if function else b""
    return element(0x00281050, "DS", center) + element(0x00281051, "DS", width) + said


def table(tag: int, descriptor: tuple[int, int, int], values: bytes, **kwargs) -> bytes:
    """A table that values are looked up in."""
    inside = element(0x00283002, "US", descriptor) + element(0x00283006, "OW", values)
    return sequence(tag, inside, **kwargs)


def rle(image: np.ndarray, spare: bytes = b"") -> bytes:
    """Each byte of each channel by itself, the highest first; of even lengths."""
    channels = np.moveaxis(image, -1, 0) if image.ndim == 3 else image[None]
    segments = []
    for channel in channels:
        split = channel.astype(image.dtype.newbyteorder(">")).view(np.uint8)
        split = split.reshape(*channel.shape, image.itemsize)
        for byte in range(image.itemsize):
            packed = imagecodecs.packbits_encode(split[..., byte].tobytes() + spare)
            segments.append(packed + b"\0" * (len(packed) % 2))
    starts = [64 + sum(map(len, segments[:i])) for i in range(len(segments))]
    head = struct.pack("<16I", *[len(segments), *starts, *[0] * 15][:16])
    return head + b"".join(segments)


def compressed(
    syntax: str, image: np.ndarray, stream: bytes, more: bytes = b"", **changed
) -> bytes:
    """A file whose only frame is `stream`, by the end of its transfer syntax."""
    photometric = "RGB" if image.ndim == 3 else "MONOCHROME2"
    options = {"photometric": photometric, "syntax": f"1.2.840.10008.1.2.{syntax}", **changed}
    return dicom(image, more, pixels=items(stream), **options)
