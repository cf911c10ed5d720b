"""JPEG: as Pillow reads it, whatever notes it carries."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image

from conocc.readers import decode
from made_images import COLOUR, GREY, assert_read, exif_of, pillow


def test_jpeg_is_what_pillow_makes_of_it():
    """Grey, colour (YCbCr to RGB) and progressive."""
    for image, options in ((GREY, {}), (COLOUR, {}), (COLOUR, {"progressive": True})):
        data = pillow(image, "JPEG", **options)
        assert_read(data, np.asarray(Image.open(BytesIO(data))))


def test_jpeg_in_rgb_is_not_taken_for_ycbcr():
    """The segment that tells the two apart stays when the others are left out."""
    data = pillow(COLOUR, "JPEG", keep_rgb=True, exif=exif_of(1), comment=b"one")
    assert_read(data, np.asarray(Image.open(BytesIO(data))))


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
