"""Files written by other routes and read back, and a sentence for every file that is not read."""

from __future__ import annotations

import bz2
import gzip
import struct
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFile, ImageOps

from conocc.data.image_io.pixels import MAX_PIXELS, ON_BLACK
from conocc.data.image_io.read import (
    READERS,
    SUFFIXES,
    Format,
    decode,
    decode_remarked,
    is_colour,
    open_stack,
)
from conocc.data.image_io.stack import StackOptions
from conocc.data.preprocessing import Preprocessing, prepare
from made_images import (
    COLOUR,
    DEEP,
    GREY,
    SHAPES,
    assert_read,
    exif_of,
    npy,
    patched_tiff,
    pillow,
    png,
    read_image,
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
        ".hdr",
        ".hdr.gz",
        ".mgh",
        ".mgz",
        ".mha",
        ".mhd",
        ".nrrd",
        ".nhdr",
        ".png",
        ".jpg",
        ".jpeg",
        ".jls",
        ".jpe",
        ".jfif",
        ".gif",
        ".webp",
        ".avif",
        ".jp2",
        ".j2k",
        ".pbm",
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


def test_empty_and_unknown_contents():
    assert refusal(b"", "a.png") == "Cannot read 'a.png': it is empty (0 bytes)."
    assert "its content (1 byte) is none of" in refusal(b"\n", "a.png")
    assert refusal(b"GIF999", "a.png") == (
        f"Cannot read 'a.png': its content (6 bytes) is none of {', '.join(READERS)}."
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
    assert (
        "2 of 20 values are NaN, infinite or beyond ±1e+30, the first, nan, at row 2, column 3"
        in refusal(write(image))
    )


def test_float16_comes_as_float32_from_every_format():
    image = GREY.astype(np.float16)
    for data in (npy(image), tiff(image), tiff(image, byteorder=">")):
        assert_read(data, image.astype(np.float32))


@pytest.mark.parametrize("bits", range(1, 9))
def test_grey_levels_of_few_bits_are_spread_to_255(bits):
    levels = np.arange(2**bits, dtype=np.uint8)[None]
    spread = np.array([[level * 255 // (2**bits - 1) for level in range(2**bits)]], np.uint8)
    assert_read(tiff(levels, bitspersample=bits), spread)
    assert_read(tiff(levels, bitspersample=bits, photometric="miniswhite"), 255 - spread)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pixels_larger_than_a_detector_takes(dtype):
    image = np.zeros((4, 5), dtype)
    image[1, 4] = -1e35
    assert (
        "1 of 20 values are NaN, infinite or beyond ±1e+30, the first, -1e+35, at row 1, column 4"
        in refusal(npy(image))
    )
    image[1, 4] = 1e30
    assert_read(npy(image), image)


def test_colours_that_are_not_read():
    image = Image.fromarray(COLOUR)
    assert "its colours are CMYK" in refusal(pillow(image.convert("CMYK"), "JPEG"))
    for colours, name in (("CMYK", "SEPARATED"), ("LAB", "CIELAB"), ("YCbCr", "YCBCR")):
        assert f"TIFF colours {name}; save" in refusal(pillow(image.convert(colours), "TIFF"))
    assert "TIFF colours CFA; save as grey or RGB" in refusal(tiff(GREY, photometric="cfa"))


def test_transparency():
    alpha = np.full_like(GREY, 255)
    alpha[3, 4:6] = 51  # a fifth of 255
    alpha[0, 0] = 0
    laid = {}
    for name, image in (("LA", GREY), ("RGBA", COLOUR)):
        laid[name] = image.copy()
        laid[name][3, 4:6] = np.rint(image[3, 4:6] / 5)
        laid[name][0, 0] = 0
    for image in (np.dstack([GREY, alpha]), np.dstack([COLOUR, alpha])):
        expected = laid["LA" if image.shape[2] == 2 else "RGBA"]
        for data in (pillow(image, "PNG"), pillow(image, "TIFF")):
            assert_read(data, expected)
            assert decode_remarked(data, "a").remarks == (ON_BLACK,)
        colours = "minisblack" if image.shape[2] == 2 else "rgb"
        data = tiff(image, photometric=colours, extrasamples=["assocalpha"])
        assert_read(data, image[..., 0] if image.shape[2] == 2 else COLOUR)
    deep = imagecodecs.png_encode(np.dstack([COLOUR, alpha]).astype("u2") * 257)
    assert_read(
        deep,
        np.where(
            alpha[..., None] == 255,
            COLOUR.astype("u2") * 257,
            np.rint(COLOUR * 257.0 * (alpha / 255)[..., None]).astype("u2"),
        ),
    )
    webp = pillow(np.dstack([COLOUR, alpha]), "WEBP", lossless=True, exact=True)
    assert_read(webp, laid["RGBA"])
    palette = Image.fromarray(COLOUR).quantize(13)
    for kind in ("PNG", "GIF"):
        data = pillow(palette, kind, transparency=0)
        assert decode_remarked(data, "a").remarks == (ON_BLACK,)
        shown = np.asarray(palette.convert("RGB")) * (np.asarray(palette) != 0)[..., None]
        assert_read(data, shown.astype(np.uint8))


def test_pages_and_frames_are_counted():
    assert "holds 3 pages" in refusal(tiff(np.stack([GREY] * 3), photometric="minisblack"))
    assert "holds 1101 pages" in refusal(
        pillow(GREY[:1, :1], "TIFF", save_all=True, append_images=[Image.new("L", (1, 1))] * 1100)
    )
    frames = [Image.fromarray(GREY + step) for step in range(4)]
    animated = pillow(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert "it holds 4 frames, each an image of its own" in refusal(animated)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_frames_of_an_animation_are_images(kind):
    shown = [np.roll(GREY, step, 0) for step in range(3)]
    frames = [Image.fromarray(image) for image in shown]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = pillow(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    stack = open_stack(BytesIO(data), "a", StackOptions(frames="2"))
    assert (stack.kind, stack.total, stack.numbers) == ("frame", 3, (0, 2))
    for k, image in enumerate(shown):
        pixels = stack.image(k).pixels
        shown_green = pixels if pixels.ndim == 2 else pixels[..., 1]
        # AVIF, which Pillow writes with a loss, is near.
        np.testing.assert_allclose(shown_green, image, atol=40 if kind == "AVIF" else 0)
    assert "it holds 3 frames" in refusal(data)
    assert open_stack(BytesIO(pillow(frames[0], kind)), "a", StackOptions()) is None


def test_frames_beyond_what_is_read_are_not_decoded():
    """A GIF of few bytes, of which 1,500 frames would be 3.9 GB."""
    frames = [Image.new("L", (600, 600), k % 2) for k in range(800)]
    data = pillow(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="header says 800 frames, 288000000 pixels; at most"):
        open_stack(BytesIO(data), "a", StackOptions())


def test_two_dimensional_formats_of_the_web():
    """Lossless ones as they were written; JPEG 2000 at 16 bits too."""
    assert_read(pillow(COLOUR, "WEBP", lossless=True), COLOUR)
    assert_read(pillow(GREY, "GIF"), np.dstack([GREY] * 3))
    for image in (GREY, DEEP, COLOUR):
        assert_read(imagecodecs.jpeg2k_encode(image, level=0), image)
        assert_read(imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"), image)
    twelve = imagecodecs.avif_encode(COLOUR.astype(np.uint16) * 16, level=100, bitspersample=12)
    assert "it is an AVIF of more than 8 bits; save it as PNG" in refusal(twelve)
    avif = imagecodecs.avif_encode(COLOUR, level=100, pixelformat="yuv444")
    np.testing.assert_allclose(decode(avif, "a"), COLOUR, atol=2)
    packed = b"P4 9 2\n" + bytes([0b10101010, 0b10000000, 0, 0])
    for body in (packed, b"P1 9 2 101010101\n000000000"):
        assert_read(body, np.array([[0, 255] * 4 + [0], [255] * 9], np.uint8))
    for cut in (b"P4 9 2\n" + bytes(3), b"P1 9 2 101010101 00000000x"):
        assert "its pixels are damaged, cut short" in refusal(cut)
    assert "TGA file cannot be told" in refusal(bytes(40), "x.TGA")


def test_what_gzip_compresses_is_named():
    for kind, data in (("PNG", pillow(GREY, "PNG")), ("PNM", pillow(GREY, "PPM"))):
        assert f"it is a {kind} file compressed by gzip; unpack" in refusal(gzip.compress(data))
    assert "what gzip compresses in it" in refusal(gzip.compress(b"path,label"))
    assert "is none of" in refusal(b"\x1f\x8b" + bytes(9))
    for begin, said in (
        (b"PK\x03\x04", "it is a ZIP archive; unpack it"),
        (b"PK\x03\x04" + bytes(26) + b"image.npy", "it is an archive of NumPy arrays; save its"),
        (imagecodecs.jpegxl_encode(GREY), "it is a JPEG XL file; save it as PNG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "it is a JPEG XL file"),
        (b"\x89HDF\r\n", "it is an HDF5 file; save its images as NPY or PNG"),
        (b"\0\0\0\x20ftypisom", "it is a video; save its frames as PNG"),
        (b" <!DOCTYPE HTML><html>", "it is a web page, as of a download that needs a password"),
        (b"<html lang='en'>", "it is a web page"),
        (b"%PDF-1.7", "it is a PDF file; save its pictures as PNG"),
    ):
        assert said in refusal(begin + bytes(40))
    assert "it is an archive; unpack it" in refusal(bz2.compress(b"P5 1 1 255 a"))
    assert "'git lfs pull' brings the file" in refusal(
        b"version https://git-lfs.github.com/spec/v1"
    )


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


def test_damaged_image_is_not_filled_with_grey_whatever_else_set_pillow_to(monkeypatch):
    """Training scripts switch Pillow's own check off, for the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "LOAD_TRUNCATED_IMAGES is set" in refusal(pillow(GREY, "JPEG"))


def test_only_jpeg_can_be_scaled():
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    for data in (pillow(image, "PNG"), pillow(image, "TIFF")):
        np.testing.assert_array_equal(decode(data, "a", side=16), image)


def test_a_format_is_one_function_and_one_entry(monkeypatch):
    monkeypatch.setitem(READERS, "ROW", Format(b"ROW ", ".row", read_row))
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
