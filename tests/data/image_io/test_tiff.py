"""TIFF: every layout comes back, and a header that is not true is refused."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conocc.data.image_io.read import decode, decode_remarked, open_stack
from conocc.data.image_io.stack import StackOptions
from conocc.data.image_io.tiff import ASIDE, CUT_OFF, LEFT_ASIDE, UNEXPLAINED
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
    assert got.dtype == image.dtype
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


def test_a_tiff_whose_pages_go_round_in_a_circle_has_one():
    data = bytearray(tiff(GREY, byteorder="<"))
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * entries, at)
    assert_read(bytes(data), GREY)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({273: 100_000}, "it ends at byte 100713, file has "),
        ({279: 712}, "header says 713 bytes of pixels, its strips have 712"),
        ({278: 10}, "not all of its 3 strips or tiles are there"),
        ({257: 24, 278: 24}, "header says 744 bytes of pixels, its strips have 713"),
        ({277: 5}, "its 5 channels are TIFF colours MINISBLACK"),
        ({256: 0}, "header says 0x23, which holds no pixels"),
        ({259: 7777}, "its compression 7777 is not read"),
    ],
)
def test_tiff_whose_header_is_not_true(tags, reason):
    assert reason in refusal(patched_tiff(tiff(GREY, byteorder="<"), tags))


def test_channels_that_are_no_colours_are_refused():
    for image in (COLOUR, DEEP[..., None] * np.ones(3, np.uint16)):
        data = tiff(image, photometric="minisblack", planarconfig="contig")
        assert "its 3 channels are TIFF colours MINISBLACK" in refusal(data)


def test_a_sample_is_alpha_only_if_a_tag_says_so():
    """Colour keeps its three channels; two planes of grey are no image with alpha."""
    data = tiff(np.dstack([COLOUR, GREY]), extrasamples=["unspecified"])
    assert decode_remarked(data, "a").remarks == (UNEXPLAINED,)
    assert_read(data, COLOUR)
    for kind in ({}, {"extrasamples": ["unspecified"]}):
        two = np.stack([DEEP, DEEP[::-1]])
        data = tiff(two, photometric="minisblack", planarconfig="separate", **kind)
        assert "it holds 2 planes of grey in one page, of which its tags call none" in refusal(data)
    half = np.dstack([np.full((5, 6, 3), 0.5), np.full((5, 6), 0.5)]).astype(np.float32)
    assert_read(tiff(half, extrasamples=["unassalpha"]), half[..., :3] / 2)
    assert_read(tiff(half, extrasamples=["assocalpha"]), half[..., :3])


def pages(*images, byteorder="<", **options) -> bytes:
    """A TIFF of several pages, each an image and what it is written with."""
    file = BytesIO()
    plain = {"metadata": None, "photometric": "minisblack"}
    with tifffile.TiffWriter(file, byteorder=byteorder) as writer:
        for image, more in images:
            writer.write(image, **{**plain, **options, **more})
    return file.getvalue()


def stack_of(data: bytes):
    return open_stack(BytesIO(data), "a.tif", StackOptions())


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_are_images_but_for_thumbnails_and_masks(compression):
    """Of sizes and types of their own; if one is left, the file is that image."""
    thumbnail, mask = (GREY[::4, ::4], {"subfiletype": 1}), (GREY > 9, {"subfiletype": 4})
    data = pages(thumbnail, (GREY, {}), mask, (DEEP[3:], {}), compression=compression)
    stack = stack_of(data)
    assert (stack.kind, stack.numbers, stack.left_aside) == ("page", (0, 1), {ASIDE: 2})
    np.testing.assert_array_equal(stack.image(0).pixels, GREY)
    np.testing.assert_array_equal(stack.image(1).pixels, DEEP[3:])
    assert "it holds 2 pages, each an image of its own; name one, as in" in refusal(data)
    data = pages(thumbnail, (GREY, {}), mask)
    assert stack_of(data) is None
    assert_read(data, GREY)
    assert decode_remarked(data, "a").remarks == (LEFT_ASIDE,)


def test_each_page_is_checked_as_a_file_of_one_is():
    stack = stack_of(pages((GREY, {}), (GREY + 1j, {})))
    with pytest.raises(ValueError, match="values are complex128"):
        stack.image(1)
    data = pages((GREY, {}), (GREY, {}))
    with pytest.raises(ValueError, match="it is cut short: it ends at byte|damaged"):
        [stack_of(data[:-9]).image(k) for k in (0, 1)]


def test_pages_that_break_off_are_told_of():
    """The third page is behind the end: two are images, and say that there was more."""
    data = pages((GREY, {}), (GREY, {}), (DEEP, {}))
    with tifffile.TiffFile(BytesIO(data)) as file:
        (at,) = (file.pages[1].offset,)
        (entries,) = struct.unpack_from("<H", data, at)
    broken = bytearray(data)
    struct.pack_into("<I", broken, at + 2 + 12 * entries, len(data) + 2)
    stack = stack_of(bytes(broken))
    assert stack.total == 2
    assert stack.image(1).remarks == (CUT_OFF,)


def test_planes_of_one_page_are_images():
    """A stack of ImageJ, whose description alone tells of them, and a volume."""
    planes = np.stack([DEEP, DEEP[::-1], DEEP + 9])
    note = "ImageJ=1.53t\nimages=3\nslices=3\n"
    data = pages((DEEP, {"description": note}), byteorder=">")
    more = planes[1:].astype(">u2").tobytes()
    stack = stack_of(data + more)
    assert stack.total == 3
    for k in range(3):
        np.testing.assert_array_equal(stack.image(k).pixels, planes[k])
    note = '{"shape": [3, 23, 31], "truncate": true}'
    truncated = pages((DEEP, {"description": note})) + planes[1:].tobytes()
    np.testing.assert_array_equal(stack_of(truncated).image(2).pixels, planes[2])
    note = "ImageJ=1.53t\nimages=3\n"
    colours = pages((COLOUR, {"description": note, "photometric": "rgb"}))
    colours = stack_of(colours + COLOUR[::-1].tobytes() + COLOUR.tobytes())
    np.testing.assert_array_equal(colours.image(1).pixels, COLOUR[::-1])
    with pytest.raises(ValueError, match="header says 3 planes of 1426 bytes from byte"):
        stack_of(data + more[:-1]).image(0)
    volume = np.zeros((2, 32, 48), np.uint8)
    volume[1, 3] = 7
    for options in ({}, {"compression": "zlib"}):
        data = tiff(volume, volumetric=True, tile=(1, 16, 16), photometric="minisblack", **options)
        stack = stack_of(data)
        assert stack.total == 2
        np.testing.assert_array_equal(stack.image(1).pixels, volume[1])


def test_a_big_endian_bigtiff_of_bits_is_read():
    bits = GREY > 9
    assert_read(tiff(bits, bigtiff=True, byteorder=">"), bits * np.uint8(255))


def test_white_is_zero_of_twelve_bits_is_inverted_by_what_twelve_bits_hold():
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    assert_read(tiff(ramp, photometric="miniswhite", bitspersample=12), 4095 - ramp)


def test_a_tiff_that_does_not_say_its_colours_is_refused():
    data = tiff(GREY, byteorder="<")
    at = data.index(struct.pack("<HHI", 262, 3, 1))
    assert "save as grey or RGB" in refusal(data[:at] + b"\xff\xff" + data[at + 2 :])


def test_no_memory_is_taken_for_a_jpeg_larger_than_its_strip():
    """A strip of 23x31 that says 60000x60000, for which 3.6 GB would be taken."""
    data = bytearray(tiff(GREY, compression="jpeg"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, 60000, 60000)
    assert "a JPEG of 60000x60000" in refusal(bytes(data))


def test_compressions_that_could_unpack_to_anything_are_refused():
    assert "compression 34712 is not read" in refusal(tiff(GREY, compression="jpeg2000"))


def test_nothing_that_a_tiff_says_of_its_patient_is_repeated(caplog):
    """However it is damaged, by an error or by tifffile's log."""
    data = tiff(GREY, description="Doe^Jane", software="Doe^Jane", metadata=None, byteorder="<")
    rng = np.random.default_rng(0)
    for _ in range(400):
        bad = np.frombuffer(data, np.uint8).copy()
        spots = rng.integers(0, len(data) - GREY.size, rng.integers(1, 5))
        bad[spots] = rng.integers(256)
        try:
            decode(bad.tobytes(), "a.tif")
        except ValueError as error:
            assert "Doe" not in str(error)  # noqa: PT017
    assert not caplog.records
