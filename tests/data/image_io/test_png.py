"""PNG: its depths, its chunks, its one transparent colour."""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np
from hypothesis import given
from hypothesis.extra.numpy import arrays

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


def test_text_that_would_unpack_to_a_gigabyte_is_left_packed():
    bomb = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(50_000_000), 9))
    assert_read(png_grey(GREY, bomb), GREY)


def test_a_transparent_colour_matters_only_where_it_occurs():
    for image, key in ((GREY, 254), (DEEP, 3), (COLOUR, (1, 2, 3))):
        assert_read(pillow(image, "PNG", transparency=key), image)
    image = np.array([[7, 7, 9]], np.uint8)
    assert "2 of its 3 pixels are transparent" in refusal(pillow(image, "PNG", transparency=7))
    image = np.array([[[7, 7, 9], [7, 7, 7]]], np.uint16)
    data = imagecodecs.png_encode(image)
    at = data.index(b"IDAT") - 4
    data = data[:at] + chunk(b"tRNS", struct.pack(">3H", 7, 7, 7)) + data[at:]
    assert "1 of its 2 pixels are transparent" in refusal(data)
    key = chunk(b"tRNS", b"\0\x0a")
    assert "1 of its 2 pixels are transparent" in refusal(png(2, 1, 4, 0, b"\0\x0a", key))


def test_damaged_pixels_of_a_png_are_noticed():
    data = bytearray(png_grey(GREY))
    data[-30] ^= 1
    assert "its pixels are damaged, cut short or not supported (PngError)" in refusal(bytes(data))
