"""JPEG: as Pillow reads it, whatever notes it carries."""

from __future__ import annotations

import struct
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from conocc.data.image_io.read import decode
from made_images import COLOUR, DEEP, GREY, assert_read, exif_of, pillow, refusal


def test_jpeg_is_what_pillow_makes_of_it():
    """Grey, colour (YCbCr to RGB) and progressive."""
    for image, options in ((GREY, {}), (COLOUR, {}), (COLOUR, {"progressive": True})):
        data = pillow(image, "JPEG", **options)
        assert_read(data, np.asarray(Image.open(BytesIO(data))))


def test_jpeg_in_rgb_is_not_taken_for_ycbcr():
    """The segment that tells the two apart stays when the others are left out."""
    data = pillow(COLOUR, "JPEG", keep_rgb=True, exif=exif_of(1), comment=b"one")
    assert_read(data, np.asarray(Image.open(BytesIO(data))))


def test_jpeg_of_more_than_eight_bits_keeps_them():
    """As films were once digitised: without loss to the bit, else to a few levels of 4096."""
    twelve = DEEP // 16
    assert_read(imagecodecs.jpeg_encode(twelve, bitspersample=12, lossless=True), twelve)
    assert_read(imagecodecs.ljpeg_encode(twelve, bitspersample=12), twelve)
    assert_read(imagecodecs.jpeg_encode(DEEP, bitspersample=16, lossless=True), DEEP)
    for image in (GREY, DEEP, COLOUR):
        assert_read(imagecodecs.jpegls_encode(image), image)
    smooth = np.add.outer(np.arange(64), 40 * np.arange(96)).astype(np.uint16)
    lossy = decode(imagecodecs.jpeg_encode(smooth, 98, bitspersample=12), "a.jpg", side=8)
    assert (lossy.dtype, lossy.shape) == (np.uint16, (64, 96))
    np.testing.assert_allclose(lossy.astype(int), smooth, atol=12)


def test_the_size_of_a_deep_jpeg_is_checked_before_memory_is_taken():
    data = bytearray(imagecodecs.jpegls_encode(DEEP))
    struct.pack_into(">HH", data, data.index(b"\xff\xf7") + 5, 65535, 65535)
    assert "header says 65535x65535, 4294836225 pixels; at most" in refusal(bytes(data))


# 64 by 96 pixels: eighths, quarters and halves of them are whole.
LARGE = np.add.outer(np.arange(64), 2 * np.arange(96)).astype(np.uint8)


@pytest.mark.parametrize(
    ("side", "shape"),
    [(8, (8, 12)), (9, (16, 24)), (16, (16, 24)), (17, (32, 48)), (32, (32, 48)), (33, (64, 96))],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_keeps_the_side(side, shape):
    data = pillow(LARGE, "JPEG", quality=95)
    assert decode(data, "a.jpg", side=side).shape == shape


def test_a_jpeg_that_is_not_several_times_as_large_comes_as_without_a_side():
    data = pillow(LARGE, "JPEG")
    np.testing.assert_array_equal(decode(data, "a.jpg", side=33), decode(data, "a.jpg"))


@pytest.mark.parametrize("progressive", [False, True])
def test_an_eighth_of_a_jpeg_is_the_mean_of_its_blocks(progressive):
    """To a grey level: its transform keeps the mean of 8x8 pixels as one number."""
    data = pillow(LARGE, "JPEG", quality=95, progressive=progressive)
    blocks = decode(data, "a.jpg").reshape(8, 8, 12, 8).mean((1, 3))
    assert np.abs(decode(data, "a.jpg", side=8) - blocks).max() <= 1


def test_a_scaled_jpeg_is_turned_and_keeps_its_colours():
    data = pillow(np.stack([LARGE, LARGE // 2, 255 - LARGE], -1), "JPEG", exif=exif_of(6))
    small, large = decode(data, "a.jpg", side=16), decode(data, "a.jpg")
    assert (small.shape, large.shape) == ((24, 16, 3), (96, 64, 3))
    assert np.abs(small - large.reshape(24, 4, 16, 4, 3).mean((1, 3))).mean() < 4


def test_a_damaged_jpeg_is_refused_at_any_scale():
    data = pillow(LARGE, "JPEG", quality=95)
    for cut in (data[: len(data) // 2], data[:-8]):
        with pytest.raises(ValueError, match="damaged, cut short"):
            decode(cut, "a.jpg", side=8)


def test_what_is_too_large_is_so_before_it_is_scaled():
    """A head that says 8193x8193, one more a side than is read; an eighth of it would be small."""
    data = bytearray(pillow(LARGE, "JPEG"))
    sof = data.index(b"\xff\xc0")
    data[sof + 5 : sof + 9] = b"\x20\x01" * 2
    with pytest.raises(ValueError, match="8193x8193, 67125249 pixels; at most"):
        decode(bytes(data), "a.jpg", side=8)


def jpeg_with(segment: bytes, image=GREY) -> bytes:
    """A JPEG with a segment of one's own after its first two bytes."""
    data = pillow(image, "JPEG")
    return data[:2] + segment + data[2:]


def test_a_damaged_note_on_a_jpeg_leaves_the_image_alone():
    """EXIF that is cut short, on which Pillow warns."""
    for exif in (b"", b"II*\0", b"II*\0\x08\0\0\0\x05\0", b"MM\0*\0\0\0\x08\0\x02" + b"\xff" * 20):
        body = b"Exif\0\0" + exif
        data = jpeg_with(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body)
        assert_read(data, decode(pillow(GREY, "JPEG"), "whole"))
