"""Padding of DICOM: an image with it is that of the same patient without it."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from conocc.data.image_io.dicom_padding import PADDED
from conocc.data.image_io.read import decode, decode_remarked
from made_dicom import BIG_ENDIAN, DEFLATED, IMPLICIT, compressed, dicom, element, rescale
from made_images import DEEP, assert_read, refusal


def tissue(n: int = 64) -> np.ndarray:
    """A body in air, of HU, whose corners lie outside of a scanner's circle."""
    y, x = np.mgrid[:n, :n] / n - 0.5
    rng = np.random.default_rng(0)
    hu = np.where((x / 0.35) ** 2 + (y / 0.28) ** 2 < 1, 40 + 25 * rng.normal(size=x.shape), -1000)
    return hu.round().astype(np.int16)


def corners(n: int = 64) -> np.ndarray:
    y, x = np.mgrid[:n, :n] / n - 0.5
    return x * x + y * y > 0.24


def pad(value: object, limit: object = None, kind: str = "US") -> bytes:
    ends = element(0x00280120, kind, value)
    return ends if limit is None else ends + element(0x00280121, kind, limit)


MODALITY = {kind: element(0x00080060, "CS", kind) for kind in ("CT", "MR", "MG")}


@pytest.mark.parametrize(
    ("stored", "intercept", "declared"),
    [
        # With a sign, without, of the 12 bits that are stored, as text, none, a range either way.
        (-2000, "-1024", pad((-2000,), kind="SS")),
        (-2000, "-1024", pad(63536)),
        (-2000, "-1024", pad("-2000", kind="IS")),
        (-2000, "0", b""),
        (-3024, "-1024", b""),
        (-2000, "-1024", pad((-2100,), (-1900,), kind="SS")),
        (-2000, "-1024", pad(63636, 63436)),
        # Declared, though no rescale brings it below air.
        (2000, "-1024", pad(2000)),
    ],
)
@pytest.mark.parametrize("voi", ["none", "40,400"])
def test_padding_of_a_ct_is_air(stored, intercept, declared, voi):
    """So that the image is that of the same patient without it."""
    more = (MODALITY["CT"], rescale("1", intercept))
    image = tissue() - np.int16(intercept)
    padded = np.where(corners(), np.int16(stored), image)
    got = decode_remarked(dicom(padded, *more, declared), "a", voi)
    whole = decode_remarked(dicom(image, *more), "a", voi)
    np.testing.assert_array_equal(got.pixels, whole.pixels)
    assert (got.remarks, whole.remarks) == ((PADDED,), ())


def test_padding_of_12_bits_is_known_by_all_its_bits():
    """0x0830 is -2000 with the sign of 12 bits; 0xF830, that of 16, lies beyond 12 bits."""
    image = (tissue() + 1024).astype(np.uint16)
    more = (MODALITY["CT"], rescale("1", "-1024"))
    whole = decode(dicom(image, *more), "a")
    for value, declared in ((0xF830, 0xF830), (0xF830, 0x0830), (0xF000, 0xF000)):
        padded = np.where(corners(), np.uint16(value), image)
        got = decode(dicom(padded, *more, pad(declared), stored=12), "a")
        np.testing.assert_array_equal(got, whole)
    signed = np.where(corners(), np.int16(0x0830), tissue() & 0xFFF).astype(np.int16)
    got = decode(dicom(signed, MODALITY["CT"], pad(0x0830), stored=12), "a")
    np.testing.assert_array_equal(got, whole)


def test_a_ct_that_is_all_within_the_body_has_no_darker_air():
    """And padding of another kind of image has its darkest value that is real, not -1000."""
    image = tissue()[20:40, 20:40].copy()
    image[0] = -2000
    for modality, less in (("CT", pad(63536)), ("MR", pad(63536)), ("CT", b"")):
        got = decode(dicom(image, MODALITY[modality], less), "a")
        assert set(got[0]) == {image[1:].min()}
        np.testing.assert_array_equal(got[1:], image[1:])
    got = decode(dicom(image, MODALITY["MR"]), "a")
    np.testing.assert_array_equal(got, image)
    other_unit = element(0x00281054, "LO", "MGML")
    np.testing.assert_array_equal(decode(dicom(image, MODALITY["CT"], other_unit), "a"), image)


def test_padding_of_a_mammogram_is_black_of_either_kind():
    """Of MONOCHROME1, the darkest is the highest number; a strip of its background is padding."""
    y, x = np.mgrid[:64, :64] / 64
    image = (3600 - 2600 * (x**2 / 0.36 + (y - 0.5) ** 2 / 0.2 < 1)).astype(np.uint16)
    strip = np.where(x > 0.8, 0, image).astype(np.uint16)
    for photometric, whole, padded, value in (
        ("MONOCHROME1", image, strip, 0),
        ("MONOCHROME2", 4095 - image, np.where(x > 0.8, 4095, 4095 - image).astype("u2"), 4095),
    ):
        kinds = {"photometric": photometric, "stored": 12}
        got = decode(dicom(padded, pad(value), **kinds), "a")
        np.testing.assert_array_equal(got, decode(dicom(whole, **kinds), "a"))


def test_padding_beside_a_bright_background_is_bright():
    """PET that is shown inverted: 0 is white, and also what the header calls padding."""
    image = np.where(tissue() > -900, 600, 3).astype(np.uint16) + np.uint16(2)
    padded = np.where(corners(), 0, image).astype(np.uint16)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        got = decode(dicom(padded, pad(0), photometric=photometric), "a")
        whole = decode(dicom(image, photometric=photometric), "a")
        np.testing.assert_array_equal(got, whole)


def test_a_number_of_the_image_declared_as_padding_by_mistake_does_no_harm():
    """Within the image it stays; a black background is filled by the darkest number above it."""
    rng = np.random.default_rng(0)
    image = np.abs(rng.normal(0, 9, (64, 64))).astype(np.uint16)
    image[16:48, 16:48] = rng.integers(200, 900, (32, 32))
    got = decode(dicom(image, MODALITY["MR"], pad(0)), "a")
    assert np.abs(got.astype(int) - image).max() <= 1
    hounsfield = tissue()
    hounsfield[30:34, 30:34] = np.arange(-8, 8).reshape(4, 4)
    np.testing.assert_array_equal(
        decode(dicom(hounsfield, MODALITY["CT"], pad(0)), "a"), hounsfield
    )


@pytest.mark.parametrize("value", [0, 4000])
def test_padding_of_a_ct_with_loss_is_air(value):
    """Near-lossless: numbers are off by up to 3, those of padding too; 0 is near to air's 24."""
    image = (tissue() + 1024).astype(np.uint16)
    padded = np.where(corners(), np.uint16(value), image)
    more = MODALITY["CT"] + rescale("1", "-1024")
    whole, got = (
        decode(compressed("4.81", one, imagecodecs.jpegls_encode(one, level=3), more + mark), "a")
        for one, mark in ((image, b""), (padded, pad(value)))
    )
    assert np.abs(got - whole).max() <= 6


@pytest.mark.parametrize("quality", [75, 95])
def test_padding_is_known_after_compression_with_loss(quality):
    """Where it has become other numbers near by; and within the image, such numbers stay."""
    y, x = np.mgrid[:96, :96] / 96
    rng = np.random.default_rng(0)
    image = (1500 + 900 * np.sin(9 * x) * np.cos(7 * y) + rng.normal(0, 20, x.shape)).astype("u2")
    image[:, 77:] = 0
    image[40:48, 40:48] = 0
    stream = imagecodecs.jpeg_encode(image, level=quality, bitspersample=12)
    decoded = imagecodecs.jpeg_decode(stream)
    assert len(set(decoded[:, 77:].ravel())) > 1
    got = decode(compressed("4.51", image, stream, stored=12, more=pad(0)), "a")
    assert set(got[:, 77:].ravel()) == {got.min()}
    assert got[0, 95] == decoded[:, :77].min()
    np.testing.assert_array_equal(got[:, :77], decoded[:, :77])


def test_an_image_that_is_all_padding_is_refused():
    for image, more in (
        (np.full((9, 9), 7, np.uint16), pad(7)),
        (np.full((9, 9), -3024, "i2"), b""),
    ):
        reason = refusal(dicom(image, MODALITY["CT"], more))
        assert "all of its pixels are padding, which holds no image" in reason


@pytest.mark.parametrize(
    "declared", [pad(b"", kind="OB"), pad("Smith", kind="DS"), pad("1e999", kind="DS")]
)
def test_padding_that_is_no_number_is_none(declared):
    assert_read(dicom(DEEP, declared), DEEP)


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG_ENDIAN, DEFLATED])
def test_padding_is_known_in_every_syntax(syntax):
    order, implicit = ">" if syntax == BIG_ENDIAN else "<", syntax == IMPLICIT
    more = [
        element(tag, kind, value, order, implicit)
        for tag, kind, value in (
            (0x00080060, "CS", "CT"),
            (0x00280120, "US", 1000),
            (0x00280121, "US", 1100),
        )
    ]
    padded = np.where(corners(), np.int16(1050), tissue())
    got = decode(dicom(padded, *more, syntax=syntax), "a")
    np.testing.assert_array_equal(got, tissue())
