"""TIFF: every layout comes back, and a header that is not true is refused."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conocc.data.image_io.read import decode
from made_images import (
    COLOUR,
    DEEP,
    GREY,
    SHAPES,
    assert_read,
    patched_tiff,
    readable,
    refusal,
    tiff,
)


@settings(deadline=None)
@given(st.data())
def test_tiff_comes_back_at_its_own_depth_however_it_is_laid_out(data):
    """Both byte orders, BigTIFF, strips and tiles, compressed with and without a predictor."""
    dtype = data.draw(st.sampled_from(["u1", "u2", "u4", "i2", "i4", "f4", "f8"]))
    image = data.draw(arrays(dtype, SHAPES, elements=readable(dtype)))
    compression = data.draw(st.sampled_from([None, "lzw", "zlib", "packbits", "zstd", "lzma"]))
    predictor = compression in ("lzw", "zlib") and data.draw(st.booleans())
    got = decode(
        tiff(
            image,
            byteorder=data.draw(st.sampled_from("<>")),
            bigtiff=data.draw(st.booleans()),
            compression=compression,
            predictor=predictor or None,
            **data.draw(st.sampled_from([{}, {"tile": (16, 32)}, {"rowsperstrip": 2}])),
        ),
        "a.tif",
    )
    # Pillow widens int16, and no value is changed by it.
    assert got.dtype == (image.dtype if dtype != "i2" or got.dtype == "i2" else np.int32)
    np.testing.assert_array_equal(got, image)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_colour_tiff_comes_back_from_one_plane_or_three(planar, dtype, compression):
    image = COLOUR.astype(dtype) * dtype(np.iinfo(dtype).max // 255)
    written = np.moveaxis(image, -1, 0) if planar == "separate" else image
    assert_read(tiff(written, planarconfig=planar, compression=compression), image)


@pytest.mark.parametrize("image", [GREY, DEEP], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_white_is_zero_is_inverted_at_every_depth(image, byteorder, compression):
    """Pillow inverts 8 bits only."""
    data = tiff(image, photometric="miniswhite", byteorder=byteorder, compression=compression)
    assert_read(data, np.iinfo(image.dtype).max - image)


def test_white_is_zero_without_a_black_is_refused():
    image = GREY.astype(np.float32)
    assert "its zero is white" in refusal(tiff(image, photometric="miniswhite"))


@pytest.mark.parametrize("image", [GREY, DEEP, COLOUR, GREY.astype(np.float32)])
def test_common_tiff_needs_no_extra(image, monkeypatch):
    data = tiff(image)
    packed = tiff(image, byteorder="<", compression="zlib", predictor=True)
    for module in ("tifffile", "imagecodecs"):
        monkeypatch.setitem(sys.modules, module, None)
    assert_read(data, image)
    assert_read(packed, image)


def test_a_tiff_whose_pages_go_round_in_a_circle_has_one():
    data = bytearray(tiff(GREY, byteorder="<"))
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * entries, at)
    assert_read(bytes(data), GREY)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({273: 100_000}, "its last strip ends at byte 100713, file has "),
        ({279: 712}, "its strip 0 has 712 bytes, not 713"),
        ({278: 10}, "header says 31x23 in 3 strips, file has 1 offsets and 1 lengths"),
        ({257: 24, 278: 24}, "its strip 0 has 713 bytes, not 744"),
        ({277: 5}, "header says 5 channels where there must be 1 or 2"),
        ({256: 0}, "header says 0x23, which holds no pixels"),
        ({259: 7777}, "its pixels are damaged, cut short or not supported"),
    ],
)
def test_tiff_whose_header_is_not_true(tags, reason):
    assert reason in refusal(patched_tiff(tiff(GREY, byteorder="<"), tags))


def test_channels_that_are_no_colours_are_refused():
    for image in (COLOUR, DEEP[..., None] * np.ones(3, np.uint16)):
        data = tiff(image, photometric="minisblack", planarconfig="contig")
        assert "header says 3 channels where there must be 1 or 2" in refusal(data)
    alpha = np.ones((5, 6, 4), np.float32)
    assert "its shape is (5, 6, 4)" in refusal(tiff(alpha, extrasamples=["unassalpha"]))


def test_a_big_endian_bigtiff_that_no_decoder_takes_is_refused():
    bits = tiff(GREY > 9, bigtiff=True, byteorder=">")
    assert "big-endian BigTIFF" in refusal(bits)
