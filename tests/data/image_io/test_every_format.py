"""What every format promises: a damaged file is a sentence or the same pixels, in threads too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from conocc.data.image_io.read import decode
from made_images import COLOUR, DEEP, GREY, chunk, exif_of, npy, pillow, tiff

NOTES = PngInfo()
NOTES.add_text("Comment", "left breast " * 9, zip=True)
WHOLE = {
    "a.png": pillow(GREY, "PNG", pnginfo=NOTES),
    "deep.png": imagecodecs.png_encode(COLOUR.astype(np.uint16) * 257),
    "palette.png": pillow(Image.fromarray(COLOUR).quantize(13), "PNG", exif=exif_of(6)),
    "a.jpg": pillow(COLOUR, "JPEG", exif=exif_of(6), comment=b"a comment"),
    "progressive.jpg": pillow(COLOUR, "JPEG", progressive=True),
    "deep.jpg": imagecodecs.jpeg_encode(DEEP // 16, bitspersample=12),
    "lossless.jpg": imagecodecs.jpeg_encode(DEEP, bitspersample=16, lossless=True),
    "a.jls": imagecodecs.jpegls_encode(DEEP),
    "a.bmp": pillow(COLOUR, "BMP"),
    "palette.bmp": pillow(Image.fromarray(COLOUR).quantize(13), "BMP"),
    "a.tif": tiff(GREY),
    "lzw.tif": pillow(DEEP, "TIFF", compression="tiff_lzw"),
    "jpeg.tif": pillow(COLOUR, "TIFF", compression="jpeg"),
    "tiled.tif": tiff(GREY.astype(np.float32), tile=(16, 16), byteorder=">"),
    "deep.tif": tiff(COLOUR.astype(np.uint16), compression="zlib", bigtiff=True, byteorder=">"),
    "a.pgm": pillow(GREY, "PPM"),
    "ascii.pgm": b"P2 # by hand\n3 2 4095\n1 2 30\n4 5 4095\n",
    "a.ppm": pillow(COLOUR, "PPM"),
    "a.gif": pillow(GREY, "GIF"),
    "a.webp": pillow(COLOUR, "WEBP"),
    "a.avif": pillow(COLOUR, "AVIF"),
    "a.jp2": imagecodecs.jpeg2k_encode(DEEP, level=0),
    "alpha.png": pillow(np.dstack([COLOUR, GREY]), "PNG"),
    "a.pbm": pillow(Image.fromarray(GREY).convert("1"), "PPM"),
    "a.npy": npy(GREY.astype(">f8").T),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_anywhere_is_refused_or_read_whole(name, capfd, caplog):
    """At every byte of both ends and many between: a sentence, or the very same pixels."""
    data = WHOLE[name]
    whole = decode(data, name)
    ends = {*range(min(len(data), 300)), *range(max(0, len(data) - 40), len(data))}
    for cut in sorted(ends | set(range(0, len(data), 13))):
        if (image := read_or_refused(data[:cut], name)) is not None:
            assert image.dtype == whole.dtype
            np.testing.assert_array_equal(image, whole)
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_with_wrong_bytes_is_an_image_or_a_sentence(name, capfd, caplog):
    """Seeded mutations, also with a PNG's sums made right again. Nothing is printed or logged."""
    rng = np.random.default_rng(len(name))
    for _ in range(150):
        data = np.frombuffer(WHOLE[name], np.uint8).copy()
        reach = min(len(data), int(rng.choice([40, 200, len(data)])))
        spots = rng.integers(0, reach, rng.integers(1, 5))
        data[spots] = rng.choice([0, 1, 2, 127, 128, 255, rng.integers(256)], len(spots))
        for damaged in (data.tobytes(), summed(data.tobytes())):
            if (image := read_or_refused(damaged, name)) is not None:
                assert image.ndim in (2, 3)
                assert np.isfinite(image).all()
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


def read_or_refused(data: bytes, name: str) -> np.ndarray | None:
    """The pixels, or None where one sentence refuses them; anything else fails the test."""
    try:
        return decode(data, name)
    except ValueError as error:
        sentence = str(error)
    assert sentence.startswith(f"Cannot read {name!r}: ")
    return None


def summed(data: bytes) -> bytes:
    parts, at = [data[:8]], 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        body = data[at + 8 : at + 8 + length]
        parts.append(data[at : at + 4] + chunk(data[at + 4 : at + 8], body)[4:])
        at += length + 12
    return b"".join(parts) if len(parts) > 1 else data


def test_threads_get_what_one_thread_gets():
    expected = {name: decode(data, name) for name, data in WHOLE.items()}
    with ThreadPoolExecutor(4) as pool:
        for name, image in zip(
            [*WHOLE] * 5,
            pool.map(lambda name: decode(WHOLE[name], name), [*WHOLE] * 5),
            strict=True,
        ):
            np.testing.assert_array_equal(image, expected[name])
