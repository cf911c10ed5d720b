"""PNG: its depths, its chunks, its one transparent colour."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from conocc.data.image_io.read import open_stack
from conocc.data.image_io.stack import StackOptions
from made_images import (
    COLOUR,
    DEEP,
    GREY,
    SHAPES,
    assert_read,
    chunk,
    pillow,
    png,
    png_grey,
    refusal,
)


@given(arrays(np.uint8, SHAPES))
def test_8_bit_grey_png_comes_back(image):
    assert_read(pillow(image, "PNG"), image)


@given(arrays(np.uint16, SHAPES))
def test_16_bit_grey_png_comes_back(image):
    assert_read(imagecodecs.png_encode(image), image)


def test_four_bits_are_spread_over_eight():
    # Two pixels, 0 and 10 of 15: 10 * 255 / 15 = 170.
    assert_read(png(2, 1, 4, 0, b"\0\x0a"), np.array([[0, 170]], np.uint8))


def test_text_that_would_unpack_to_a_gigabyte_is_refused():
    bomb = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(50_000_000), 9))
    assert "damaged, cut short or not supported" in refusal(png_grey(GREY, bomb))


def test_a_transparent_colour_matters_only_where_it_occurs():
    for image, key in ((GREY, 254), (DEEP, 3), (COLOUR, (1, 2, 3))):
        assert_read(pillow(image, "PNG", transparency=key), image)
    image = np.array([[7, 7, 9]], np.uint8)
    assert_read(pillow(image, "PNG", transparency=7), np.array([[0, 0, 9]], np.uint8))
    image = np.array([[[7, 7, 9], [7, 7, 7]]], np.uint16)
    data = imagecodecs.png_encode(image)
    at = data.index(b"IDAT") - 4
    data = data[:at] + chunk(b"tRNS", struct.pack(">3H", 7, 7, 7)) + data[at:]
    assert_read(data, image * np.array([[[1], [0]]], np.uint16))
    key = chunk(b"tRNS", b"\0\x0a")
    assert_read(png(2, 1, 4, 0, b"\0\x0a", key), np.zeros((1, 2), np.uint8))


def itxt(xmp: bytes, *, packed: bool = False) -> bytes:
    text = zlib.compress(xmp) if packed else xmp
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0" + bytes([packed]) + b"\0\0\0" + text)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("packed", [False, True])
def test_the_orientation_of_xmp_is_applied_as_pillow_does(orientation, packed):
    data = png_grey(GREY, itxt(b'<rdf tiff:Orientation="%d"/>' % orientation, packed=packed))
    with Image.open(BytesIO(data)) as image:
        image.load()
        assert_read(data, np.asarray(ImageOps.exif_transpose(image)))


def test_xmp_that_would_unpack_to_a_gigabyte_is_refused():
    bomb = b"x" * 50_000_000 + b'tiff:Orientation="3"'
    assert "not supported" in refusal(png_grey(GREY, itxt(bomb, packed=True)))


def test_bytes_behind_the_end_and_a_missing_end_are_no_damage():
    """Whole pixels are read; a byte of them less is refused."""
    data = png_grey(GREY)
    assert_read(data + b"\n<!-- served by a proxy -->", GREY)
    assert_read(data[: data.index(b"IEND") - 4], GREY)
    assert_read(data[:-3], GREY)
    assert "its pixels are damaged, cut short" in refusal(data[: data.index(b"IEND") - 9])


def test_an_animation_of_one_frame_is_an_image_and_deep_ones_are_refused():
    control = chunk(b"acTL", struct.pack(">2I", 1, 0))
    h, w = GREY.shape
    frame = chunk(b"fcTL", struct.pack(">5I2H2B", 0, w, h, 0, 0, 1, 1, 0, 0))
    assert_read(png_grey(GREY, control + frame), GREY)
    two = chunk(b"acTL", struct.pack(">2I", 2, 0))
    deep = png(2, 1, 16, 0, b"\0\0\1\0\2", two)
    with pytest.raises(ValueError, match="'a': it is animated and of 16 bits"):
        open_stack(BytesIO(deep), "a", StackOptions())


def test_damaged_pixels_of_a_png_are_noticed():
    data = bytearray(png_grey(GREY))
    data[-30] ^= 1
    assert "its pixels are damaged, cut short or not supported (PngError)" in refusal(bytes(data))
