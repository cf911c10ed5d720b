"""TIFF and BigTIFF: tags are checked here; Pillow, or tifffile, decodes the pixels.

Letters: w and h pixels of one strip or tile.
"""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from conocc.data.image_io.pixels import (
    Pixels,
    check_size,
    decode_with,
    decoding,
    extra_decoder,
    native,
    upright,
    without_alpha,
)
from conocc.data.image_io.tags import TAGS, Directory, read_directory

_MAX_PAGES = 1000
# The others must have one value; Pillow warns where they have more.
_LISTS = (
    "BitsPerSample",
    "StripOffsets",
    "StripByteCounts",
    "ColorMap",
    "TileOffsets",
    "TileByteCounts",
    "ExtraSamples",
    "SampleFormat",
    "JPEGTables",
    "YCbCrSubSampling",
)
_COLOURS_REFUSED = {5: "CMYK", 6: "YCbCr without JPEG", 8: "CIE L*a*b*"}

# By photometric interpretation: white or black is zero, RGB, palette, YCbCr. The last of two and
# of four is taken for alpha.
_CHANNELS = {0: (1, 2), 1: (1, 2), 2: (3, 4), 3: (1,), 6: (3,)}

# What Pillow decodes at its own depth: compression; sample format (1 unsigned, 2 signed, 3 float)
# and bits.
_PILLOW_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000)
_PILLOW_DEPTHS = ((1, 8), (1, 16), (2, 16), (2, 32), (3, 32))


def read_tiff(data: bytes) -> Pixels:
    """Read a TIFF or BigTIFF file of one page; what Pillow cannot carry needs tifffile."""
    tags = read_directory(data)
    _check_one_page(tags)
    width, height = tags.value("ImageWidth"), tags.value("ImageLength")
    check_size(width, height)
    photometric = _photometric(tags)
    _check_segments(tags, width, height)
    if _pillow_carries(tags, photometric):
        image = decode_with(TiffImageFile, _plain_tiff(tags, photometric))
    else:
        image = _deep_tiff(data)
    if image.shape[:2] != (height, width):
        raise ValueError(f"header says {width}x{height}, its pixels are of shape {image.shape}")
    image = without_alpha(image)
    if photometric == 0:
        image = _inverted(image, tags)
    return upright(image, tags.value("Orientation", 1))


def _check_one_page(tags: Directory) -> None:
    seen = {tags.at}
    following = tags.following
    while following and following not in seen and len(seen) < _MAX_PAGES:
        seen.add(following)
        following = read_directory(tags.data, following).following
    if len(seen) > 1:
        least = "at least " if len(seen) == _MAX_PAGES else ""
        raise ValueError(f"it holds {least}{len(seen)} pages; save each as a file of its own")


def _photometric(tags: Directory) -> int:
    """Give the colours; refuse those that are not read, or with other channels than theirs."""
    photometric = tags.value("PhotometricInterpretation")
    compression = tags.value("Compression", 1)
    if photometric not in _CHANNELS or (photometric == 6 and compression != 7):
        named = _COLOURS_REFUSED.get(photometric, f"photometric interpretation {photometric}")
        raise ValueError(f"its colours are {named}; save it as grey or RGB")
    channels = tags.value("SamplesPerPixel", 1)
    if channels not in _CHANNELS[photometric]:
        raise ValueError(
            f"header says {channels} channels where there must be "
            f"{' or '.join(map(str, _CHANNELS[photometric]))}; save it as grey or RGB"
        )
    return photometric


def _pillow_carries(tags: Directory, photometric: int) -> bool:
    """Whether Pillow gives the pixels at their own depth, and right."""
    sample_format, bits = tags.common_value("SampleFormat"), tags.common_value("BitsPerSample")
    unreadable = tags.big and tags.order == ">"
    if bits < 8 or photometric in (3, 6):
        if unreadable:
            raise ValueError(
                "it is a big-endian BigTIFF with a palette, with JPEG's colours or of fewer than "
                "8 bits; save it as a plain TIFF"
            )
        return True
    compression = tags.value("Compression", 1)
    plain = tags.value("SamplesPerPixel", 1) == tags.value("FillOrder", 1) == 1
    # What is compressed, big-endian and not unsigned has its bytes swapped once too often.
    garbled = tags.order == ">" and compression != 1 and sample_format != 1
    return (
        compression in _PILLOW_COMPRESSIONS
        and (sample_format, bits) in _PILLOW_DEPTHS
        and (plain or bits == 8)
        and not (garbled or unreadable)
    )


def _check_segments(tags: Directory, width: int, height: int) -> None:
    """Refuse a file that does not hold each of its strips or tiles, whole.

    Decoders leave black what is not there.
    """
    kind = "Tile" if "TileOffsets" in tags else "Strip"
    if kind == "Tile":
        w, h = tags.value("TileWidth"), tags.value("TileLength")
    else:
        w, h = width, min(tags.value("RowsPerStrip", height), height)
    check_size(w, h)
    across, down = -(-width // w), -(-height // h)
    # Decoders decode the margins of tiles too.
    check_size(across * w, down * h)
    samples, planes = tags.value("SamplesPerPixel", 1), 1
    if tags.value("PlanarConfiguration", 1) == 2:
        samples, planes = 1, samples
    offsets, lengths = tags.values(f"{kind}Offsets"), tags.values(f"{kind}ByteCounts")
    expected = across * down * planes
    if not len(offsets) == len(lengths) == expected:
        raise ValueError(
            f"header says {width}x{height} in {expected} {kind.lower()}s, "
            f"file has {len(offsets)} offsets and {len(lengths)} lengths of them"
        )
    # As floats, where no sum can overflow.
    end = (offsets.astype(np.float64) + lengths).max()
    if end > len(tags.data):
        raise ValueError(
            f"it is cut short: its last {kind.lower()} ends at byte {end:.0f}, "
            f"file has {len(tags.data)} bytes"
        )
    if tags.value("Compression", 1) == 1:
        rows = np.full(expected, h)
        if kind == "Strip":
            rows[down - 1 :: down] = height - (down - 1) * h
        least = rows * -(-w * samples * tags.common_value("BitsPerSample") // 8)
    else:
        least = np.ones(expected)
    if (lengths < least).any():
        first = int(np.argmax(lengths < least))
        raise ValueError(
            f"its {kind.lower()} {first} has {lengths[first]} bytes, not {least[first]:.0f}"
        )


def _plain_tiff(tags: Directory, photometric: int) -> bytes:
    """Leave in the directory only what pixels need, white-is-zero and kinds of alpha made one."""
    plain = {
        "PhotometricInterpretation": max(photometric, 1),
        # Fully opaque, which is checked, all kinds of alpha are the same.
        "ExtraSamples": 2,
    }
    entries = []
    for tag, number in TAGS.items():
        if tag not in tags or tag == "Orientation":
            continue
        values = tags.values(tag) if tag in _LISTS else [tags.value(tag)]
        if tag in plain and len(values) == 1:
            form = "HHQH6x" if tags.big else "HHIH2x"
            entries.append(struct.pack(tags.order + form, number, 3, 1, plain[tag]))
        else:
            entries.append(tags.entry(tag))
    count = struct.pack(tags.order + ("Q" if tags.big else "H"), len(entries))
    none_follows = bytes(8 if tags.big else 4)
    directory = b"".join([count, *entries, none_follows])
    return tags.data[: tags.at] + directory + tags.data[tags.at + len(directory) :]


def _inverted(image: Pixels, tags: Directory) -> Pixels:
    if tags.common_value("SampleFormat") != 1:
        raise ValueError("its zero is white, and its numbers have no black; save it black-is-zero")
    # Fewer bits than 8 were spread over 8.
    white = 2 ** max(tags.common_value("BitsPerSample"), 8) - 1
    inverted: Pixels = np.subtract(white, image, dtype=image.dtype)
    return inverted


def _deep_tiff(data: bytes) -> Pixels:
    tifffile = extra_decoder("tifffile", "this kind of TIFF")
    with decoding(), tifffile.TiffFile(BytesIO(data)) as file:
        page = file.pages[0]
        image: Pixels = page.asarray(maxworkers=1)
        axes = page.axes
    if axes == "SYX":
        image = np.moveaxis(image, 0, -1)
    return native(image)
