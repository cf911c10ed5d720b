"""Files written by other routes and read back, and a sentence for every file that is not read."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFile, ImageOps

from conocc.data.image_io.read import (
    MAX_PIXELS,
    READERS,
    SPARE,
    SUFFIXES,
    Format,
    Preprocessing,
    decode,
    is_colour,
    prepare,
    read_image,
)
from made_images import (
    COLOUR,
    DEEP,
    GREY,
    RNG,
    SHAPES,
    assert_read,
    chunk,
    exif_of,
    npy,
    patched_tiff,
    pillow,
    png,
    png_grey,
    refusal,
    tiff,
)

# Files that are read


@given(arrays(np.uint16, SHAPES.map(lambda shape: (*shape, 3))))
def test_16_bit_colour_png_and_tiff_come_back(image):
    assert_read(imagecodecs.png_encode(image), image)
    assert_read(tiff(image), image)


@given(arrays(np.uint8, SHAPES.map(lambda shape: (*shape, 3))))
def test_8_bit_colour_comes_back_from_png_tiff_and_bmp(image):
    for data in (pillow(image, "PNG"), tiff(image), pillow(image, "BMP")):
        assert_read(data, image)


@given(arrays(np.uint8, SHAPES))
def test_grey_bmp_comes_back(image):
    assert_read(pillow(image, "BMP"), image)


def test_twelve_bits_keep_all_their_levels():
    """A ramp of 4096 levels has 4096 levels in every format of more than 8 bits."""
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    pgm = b"P5 64 64 4095 " + ramp.astype(">u2").tobytes()
    packed = tiff(ramp, compression=None, bitspersample=12)
    for data in (pgm, npy(ramp), tiff(ramp), pillow(ramp, "PNG"), pillow(ramp, "TIFF"), packed):
        assert_read(data, ramp)


def test_palette_becomes_rgb():
    palette = Image.fromarray(COLOUR).quantize(13)
    expected = np.asarray(palette.convert("RGB"))
    for data in (pillow(palette, form) for form in ("PNG", "BMP", "TIFF")):
        assert_read(data, expected)
    assert_read(pillow(palette, "PNG", transparency=b"\xff" * 13), expected)


def test_one_bit_is_0_and_255_but_booleans_are_0_and_1():
    bits = GREY > 100
    for data in (
        pillow(bits, "PNG"),
        pillow(bits, "BMP"),
        pillow(bits, "TIFF"),
        pillow(bits, "TIFF", compression="group4"),
        tiff(bits),
    ):
        assert_read(data, bits * np.uint8(255))
    assert_read(npy(bits), bits.astype(np.uint8))


def test_an_opaque_alpha_channel_is_dropped():
    grey = np.stack([GREY, np.full_like(GREY, 255)], axis=-1)
    colour = np.dstack([COLOUR, np.full_like(GREY, 255)])
    deep = np.dstack([DEEP, DEEP, DEEP, np.full_like(DEEP, 65535)])
    assert_read(pillow(grey, "PNG"), GREY)
    assert_read(imagecodecs.png_encode(deep[..., 2:].copy()), DEEP)
    for data in (pillow(colour, "PNG"), pillow(colour, "BMP"), pillow(colour, "TIFF")):
        assert_read(data, COLOUR)
    for kind in ("unspecified", "assocalpha", "unassalpha"):
        assert_read(tiff(colour, extrasamples=[kind]), COLOUR)
        assert_read(tiff(grey, photometric="minisblack", extrasamples=[kind]), GREY)
    assert_read(imagecodecs.png_encode(deep), deep[..., :3])
    assert_read(tiff(deep, extrasamples=["unassalpha"]), deep[..., :3])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    """As Pillow's own `exif_transpose` does, in JPEG, PNG and both routes of TIFF."""
    exif = exif_of(orientation)
    for data in (pillow(GREY, "JPEG", exif=exif), pillow(COLOUR, "PNG", exif=exif)):
        assert_read(data, np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data)))))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))))
    tag = [(274, "H", 1, orientation, True)]
    assert_read(tiff(COLOUR, extratags=tag), expected)
    assert_read(tiff(COLOUR.astype(np.uint16), extratags=tag), expected.astype(np.uint16))


def test_format_is_known_by_content_and_not_by_name(tmp_path):
    path = tmp_path / "really a png.JPG"
    path.write_bytes(pillow(GREY, "PNG"))
    np.testing.assert_array_equal(read_image(path), GREY)


DICOM = {".dcm", ".dicom", ".ima"}


def test_suffixes_are_those_of_the_readers():
    assert {
        *DICOM,
        ".nii",
        ".nii.gz",
        ".png",
        ".jpg",
        ".jpeg",
        ".tif",
        ".tiff",
        ".pgm",
        ".ppm",
        ".pnm",
        ".bmp",
        ".npy",
    } == (SUFFIXES)
    assert all(suffix == suffix.lower() for suffix in SUFFIXES)


# Files that are refused


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(OSError, match="directory"):
        read_image(tmp_path)


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (pipe, os.devnull):
        with pytest.raises(ValueError, match="not a regular file") as caught:
            read_image(path)
        assert str(caught.value) == f"Cannot read {str(path)!r}: it is not a regular file."


def test_read_image_names_the_path(tmp_path):
    path = tmp_path / "it's \n one.png"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty") as caught:
        read_image(path)
    assert str(caught.value) == f"Cannot read {str(path)!r}: is empty (0 bytes)."


def test_empty_and_unknown_contents():
    assert refusal(b"", "a.png") == "Cannot read 'a.png': is empty (0 bytes)."
    assert refusal(b"GIF89a", "a.png") == (
        "Cannot read 'a.png': its content (6 bytes) is none of "
        "DICOM, NIfTI, PNG, JPEG, TIFF, PNM, NPY, BMP."
    )


def test_what_begins_with_the_two_letters_of_a_bmp_is_one_only_if_nothing_else_knows_it():
    assert [*READERS][-1] == "BMP"
    assert "damaged, cut short or not supported" in refusal(b"BMI,age\n21,60\n")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("write", [npy, tiff])
def test_pixels_that_are_not_finite(dtype, write):
    image = np.zeros((4, 5), dtype)
    image[2, 3] = np.nan
    image[3, 0] = -np.inf
    assert "2 of 20 values are NaN or infinite, the first at row 2, column 3" in refusal(
        write(image)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pixels_larger_than_a_detector_takes(dtype):
    image = np.zeros((4, 5), dtype)
    image[1, 4] = -1e35
    assert "the value -1e+35 at row 1, column 4 is beyond ±1e+30" in refusal(npy(image))
    image[1, 4] = 1e30
    assert_read(npy(image), image)


def test_colours_that_are_not_read():
    image = Image.fromarray(COLOUR)
    assert "its colours are CMYK" in refusal(pillow(image.convert("CMYK"), "JPEG"))
    assert "its colours are CMYK" in refusal(pillow(image.convert("CMYK"), "TIFF"))
    assert "its colours are CIE L*a*b*" in refusal(pillow(image.convert("LAB"), "TIFF"))
    assert "its colours are YCbCr" in refusal(pillow(image.convert("YCbCr"), "TIFF"))
    assert "photometric interpretation 32803" in refusal(tiff(GREY, photometric="cfa"))


def test_transparency():
    alpha = np.full_like(GREY, 255)
    alpha[3, 4:6] = 254
    said = "2 of its 713 pixels are transparent"
    for image in (np.dstack([GREY, alpha]), np.dstack([COLOUR, alpha])):
        assert said in refusal(pillow(image, "PNG"))
        assert said in refusal(pillow(image, "TIFF"))
    assert said in refusal(imagecodecs.png_encode(np.dstack([COLOUR, alpha]).astype("u2") * 257))
    assert said in refusal(tiff(np.dstack([COLOUR, alpha]), extrasamples=["unspecified"]))
    palette = Image.fromarray(COLOUR).quantize(13)
    assert "pixels are transparent" in refusal(pillow(palette, "PNG", transparency=0))


def test_pages_and_frames_are_counted():
    assert "holds 3 pages" in refusal(tiff(np.stack([GREY] * 3), photometric="minisblack"))
    assert "holds at least 1000 pages" in refusal(
        pillow(GREY[:1, :1], "TIFF", save_all=True, append_images=[Image.new("L", (1, 1))] * 1100)
    )
    frames = [Image.fromarray(GREY + step) for step in range(4)]
    animated = pillow(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert "animated, with 4 frames" in refusal(animated)
    # Pillow would warn of this one.
    assert "animated, with 0 frames" in refusal(png_grey(GREY, chunk(b"acTL", bytes(8))))


@pytest.mark.parametrize(
    ("width", "height"), [(2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (8193, 8192)]
)
def test_absurd_sizes_are_refused_before_anything_is_decoded(width, height):
    """No memory is taken and no warning of Pillow's escapes."""
    said = f"header says {width}x{height}, {width * height} pixels; at most {MAX_PIXELS} are read"
    assert said in refusal(png(width, height, 8, 0, b""))
    assert said in refusal(png(width, height, 16, 2, b""))
    bmp = bytearray(pillow(GREY, "BMP"))
    struct.pack_into("<ii", bmp, 18, width, height)
    assert said in refusal(bytes(bmp))
    assert said in refusal(patched_tiff(tiff(GREY), {256: width, 257: height}))
    assert said in refusal(patched_tiff(tiff(GREY, tile=(16, 16)), {322: width, 323: height}))
    if width < 65536:
        jpeg = bytearray(pillow(GREY, "JPEG"))
        struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, height, width)
        assert said in refusal(bytes(jpeg))


@pytest.mark.parametrize(
    ("data", "module"),
    [
        (imagecodecs.png_encode(COLOUR.astype(np.uint16)), "imagecodecs"),
        (tiff(COLOUR.astype(np.uint16)), "tifffile"),
        (tiff(GREY.astype(np.float64)), "tifffile"),
        (tiff(GREY.astype(np.uint32)), "tifffile"),
    ],
)
def test_what_needs_the_extra_says_so(data, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert f"needs {module}: pip install 'conocc[deep]'" in refusal(data)


def test_damaged_image_is_not_filled_with_grey_whatever_else_set_pillow_to(monkeypatch):
    """Training scripts switch Pillow's own check off, for the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "LOAD_TRUNCATED_IMAGES is set" in refusal(pillow(GREY, "JPEG"))


# What a detector sees


@given(
    arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, np.float64]),
        SHAPES,
        elements={"min_value": 0, "max_value": 255},
    )
)
def test_grey_in_three_channels_becomes_exactly_that_grey(grey):
    image = np.stack([grey] * 3, axis=-1)
    as_they_are = Preprocessing(size=None)
    np.testing.assert_array_equal(prepare(image, as_they_are), prepare(grey, as_they_are))
    assert not is_colour(image)


@given(arrays(np.float32, (3, 3, 3), elements={"allow_nan": False, "allow_infinity": False}))
def test_luma_of_finite_colours_is_finite(image):
    """Also of float32's largest and smallest at once, whose difference it cannot hold."""
    luma = prepare(image, Preprocessing(size=None))[0]
    assert np.isfinite(luma).all()
    exact = image.astype(np.longdouble) @ np.array([0.299, 0.587, 0.114], np.longdouble)
    scale = np.abs(image).max(-1).astype(np.longdouble)
    assert (np.abs(luma - exact) <= 1e-6 * scale + 1e-40).all()


def test_luma_of_eight_bits():
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    image = np.array([[[200, 100, 50]]], np.uint8)
    assert prepare(image, Preprocessing(size=None)) == pytest.approx(124.2, abs=1e-4)
    assert is_colour(image)
    assert not is_colour(image[..., 0])


def test_rgb_keeps_three_channels_and_repeats_one():
    as_they_are = Preprocessing(size=None, colour="rgb")
    np.testing.assert_array_equal(prepare(COLOUR, as_they_are), np.moveaxis(COLOUR, -1, 0))
    np.testing.assert_array_equal(prepare(GREY, as_they_are), np.stack([GREY] * 3))


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("size", [None, 16, 31])
@pytest.mark.parametrize("image", [GREY, COLOUR, DEEP, GREY.astype(">f4"), COLOUR.astype("f8")])
def test_prepared_arrays_are_new_and_contiguous(image, size, colour):
    before = image.copy()
    got = prepare(image, Preprocessing(size=size, colour=colour))
    assert got.shape == (3 if colour == "rgb" else 1, *((size, size) if size else (23, 31)))
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert got.flags.writeable
    assert not np.shares_memory(got, image)
    got[:] = -1
    np.testing.assert_array_equal(image, before)


def test_nothing_is_resampled_at_the_same_size():
    image = RNG.integers(0, 65536, (40, 40)).astype(np.uint16)
    np.testing.assert_array_equal(prepare(image, Preprocessing(size=40))[0], image)


def test_resizing_keeps_the_levels_of_sixteen_bits():
    """A ramp from 0 to 65535 halved: means of neighbours, none of them rounded to 8 bits."""
    ramp = np.tile(np.arange(0, 65536, 128, dtype=np.uint16), (512, 1))
    got = prepare(ramp, Preprocessing(size=256))[0]
    assert len(np.unique(got[0])) == 256
    # The filter spans four pixels with weights 1, 3, 3, 1: the mean of a linear ramp.
    pairs = ramp[0].reshape(-1, 2).mean(1)
    np.testing.assert_allclose(got[:, 1:-1], np.tile(pairs, (256, 1))[:, 1:-1], rtol=1e-6)


def test_resizing_is_pillows_bilinear_filter_with_antialiasing():
    """Against the triangle filter written out, for shrinking and for growing."""
    image = RNG.normal(size=(37, 53)).astype(np.float32)
    for size in (16, 64):
        expected = triangle(37, size) @ image @ triangle(53, size).T
        np.testing.assert_allclose(prepare(image, Preprocessing(size=size))[0], expected, atol=1e-5)


def triangle(side: int, size: int) -> np.ndarray:
    """Weights (size, side) of a triangle as wide as two pixels of the coarser grid."""
    scale = side / size
    centres = (np.arange(size) + 0.5) * scale
    distance = (np.arange(side) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.clip(1 - np.abs(distance), 0, None)
    return weights / weights.sum(1, keepdims=True)


def test_reading_survives_json():
    for preprocessing in (
        Preprocessing(size=64),
        Preprocessing(size=None, colour="rgb"),
        Preprocessing(size=64, fit="crop", voi="-600.5,1500", axis="coronal"),
        Preprocessing(size=64, scaled=True),
    ):
        assert (
            Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))
            == preprocessing
        )
    assert Preprocessing.from_dict({"size": 16}) == Preprocessing(size=16)


def test_a_reading_without_what_came_later_is_written_as_before():
    """So that caches stay valid, and runs begun before go on."""
    assert Preprocessing(size=16).to_dict() == {"size": 16, "colour": "grey", "fit": "stretch"}


def test_a_model_older_than_scaled_decoding_is_read_without_it():
    assert not Preprocessing.from_dict({"size": 64, "colour": "grey", "fit": "stretch"}).scaled


@pytest.mark.parametrize(
    ("preprocessing", "side"),
    [
        (Preprocessing(size=64), None),
        (Preprocessing(size=None, scaled=True), None),
        (Preprocessing(size=64, scaled=True), SPARE * 64),
    ],
)
def test_what_a_jpeg_must_keep_follows_from_the_size(preprocessing, side):
    assert preprocessing.least_side == side


def test_only_jpeg_can_be_scaled():
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    for data in (pillow(image, "PNG"), pillow(image, "TIFF")):
        np.testing.assert_array_equal(decode(data, "a", side=16), image)


def test_padding_keeps_the_shape_and_fills_with_the_lowest_value():
    """32x16 to 16 pixels is halved to 16x8, with 4 lines above and below."""
    image = np.full((16, 32), 7, np.uint8)
    image[0, 0] = 3
    (padded,) = prepare(image, Preprocessing(size=16, fit="pad"))
    assert (padded[:4] == 3).all()
    assert (padded[12:] == 3).all()
    np.testing.assert_array_equal(padded[5:12], 7)
    np.testing.assert_array_equal(prepare(image.T, Preprocessing(size=16, fit="pad"))[0], padded.T)


def test_padding_an_odd_number_of_lines_puts_the_one_more_last():
    (padded,) = prepare(np.ones((16, 13)) * [*range(1, 14)], Preprocessing(size=16, fit="pad"))
    np.testing.assert_array_equal(padded[0], [1, *range(1, 14), 1, 1])


def test_padding_a_single_line_takes_no_more_memory_than_the_image():
    line = np.arange(2**20, dtype=np.float32)[None]
    assert prepare(line, Preprocessing(size=16, fit="pad")).shape == (1, 16, 16)


def test_cropping_keeps_the_square_in_the_middle():
    image = np.tile(np.arange(20, dtype=np.uint8), (16, 1))
    (cropped,) = prepare(image, Preprocessing(size=16, fit="crop"))
    np.testing.assert_array_equal(cropped, image[:, 2:18])
    np.testing.assert_array_equal(
        prepare(image.T, Preprocessing(size=16, fit="crop"))[0], cropped.T
    )


def test_a_square_image_is_the_same_however_it_is_fitted():
    image = np.arange(400, dtype=np.uint16).reshape(20, 20)
    stretched, padded, cropped = (
        prepare(image, Preprocessing(size=16, fit=fit)) for fit in ("stretch", "pad", "crop")
    )
    np.testing.assert_array_equal(stretched, padded)
    np.testing.assert_array_equal(stretched, cropped)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"size": 15},
            r"'size' parameter of Preprocessing .* at least 16, or None. Got 15 instead.",
        ),
        ({"size": 64.0}, r"Got 64.0 instead."),
        ({"size": True}, r"Got True instead."),
        ({"size": "64"}, r"Got '64' instead."),
        ({"size": 64, "colour": "gray"}, r"'colour' .* 'grey', 'rgb'. Got 'gray' instead."),
        ({"size": 64, "fit": ["pad"]}, r"'fit' .* 'crop'. Got \['pad'\] instead."),
        ({"size": 64, "window": 1}, r"'colour', 'fit', 'voi', 'axis', 'scaled'. Got 'window' too."),
        ({"size": 64, "voi": "files"}, r"'voi' .* such as '40,400'. Got 'files' instead."),
        ({"size": 64, "voi": "40,0.5"}, r"of a width of at least 1"),
        ({"size": 64, "voi": "nan,4"}, r"Got 'nan,4' instead."),
        ({"size": 64, "axis": "z"}, r"one of 'sagittal', 'coronal', 'axial'. Got 'z' instead."),
        ({"size": 64, "voi": None}, r"Got None instead."),
        ({"size": 64, "scaled": 1}, r"'scaled' .* True or False. Got 1 instead."),
        ({"colour": "rgb"}, r"must have a 'size'. Got {'colour': 'rgb'} instead."),
    ],
)
def test_reading_that_is_not_known(values, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict(values)


def test_a_format_is_one_function_and_one_entry(monkeypatch):
    monkeypatch.setitem(READERS, "ROW", Format(re.compile(b"ROW "), (".row",), read_row))
    assert_read(b"ROW \1\2", np.array([[1, 2]], np.uint8))


def read_row(data: bytes) -> np.ndarray:
    return np.frombuffer(data[4:], np.uint8)[None]


# Real files


def test_real_radiographs_are_what_pillow_makes_of_them(data):
    """Colour JPEGs of which every one is grey."""
    files = sorted((data / "chest_xray").rglob("*.jpeg"))[::50]
    assert files
    for file in files:
        image = read_image(file)
        np.testing.assert_array_equal(image, np.asarray(Image.open(file)))
        assert image.shape == (224, 224, 3)
        assert not is_colour(image)
        assert prepare(image, Preprocessing(size=64)).shape == (1, 64, 64)


def test_real_ultrasound_is_what_imagecodecs_makes_of_it(data):
    files = sorted((data / "busi").rglob("*.png"))[::20]
    assert files
    for file in files:
        np.testing.assert_array_equal(
            read_image(file), imagecodecs.png_decode(Path(file).read_bytes())
        )
