"""DICOM: what is stored comes back, then means what its header says; or one sentence why not."""

from __future__ import annotations

import csv
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import apply_color_lut

from conocc.data.image_io.dicom import LOCALIZER, read_dicom
from conocc.data.image_io.dicom_kind import companion_kind
from conocc.data.image_io.dicom_person import person_of, plain_letters
from conocc.data.image_io.pixels import MAX_PIXELS
from conocc.data.image_io.read import decode
from conocc.data.preprocessing import Preprocessing, prepare
from made_dicom import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    STORAGE,
    compressed,
    dicom,
    element,
    items,
    meta,
    rescale,
    rle,
    sequence,
    table,
    window,
)
from made_images import COLOUR, DEEP, GREY, assert_read, pillow, refusal

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
CT = np.array([[-1024, -1, 0, 1, 39, 40, 3071, 32767]], np.int16)


# Stored values


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize("image", [GREY, DEEP, CT, COLOUR, COLOUR.astype(np.uint32) * 2**24])
def test_pixels_of_every_plain_syntax_come_back(syntax, image):
    photometric = "RGB" if image.ndim == 3 else "MONOCHROME2"
    assert_read(dicom(image, syntax=syntax, photometric=photometric), image)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_file_without_preamble_is_known_by_its_first_element(syntax):
    assert_read(dicom(DEEP, syntax=syntax, preamble=False), DEEP)


def test_a_preamble_may_be_another_formats_beginning():
    data = b"II*\0" + dicom(DEEP)[4:]
    assert_read(data, DEEP)
    assert data[128:132] == b"DICM"


def test_a_12_bit_ramp_keeps_its_levels():
    got = decode(dicom(RAMP, stored=12), "ramp.dcm")
    assert len(np.unique(got)) == 4096
    np.testing.assert_array_equal(got, RAMP)
    np.testing.assert_array_equal(prepare(got, Preprocessing(size=64))[0], RAMP)


def test_bits_that_hold_no_pixel_are_dropped():
    """Overlays of older files lie above; of a signed number, the highest bit kept is its sign."""
    overlaid = (RAMP | 0xA000).astype(np.uint16)
    assert_read(dicom(overlaid, stored=12), RAMP)
    signed = np.array([[0x0FFF, 0x07FF, 0x0800]], np.int16)
    assert_read(dicom(signed, stored=12), np.array([[-1, 2047, -2048]], np.int16))
    # Kept in the upper 12 bits.
    assert_read(dicom(RAMP << 4, stored=12, high=15), RAMP)


def test_colours_by_plane_and_by_pixel_are_the_same():
    planes = np.ascontiguousarray(np.moveaxis(COLOUR, -1, 0)).tobytes()
    pixels = element(0x7FE00010, "OB", planes)
    assert_read(dicom(COLOUR, photometric="RGB", planar=1, pixels=pixels), COLOUR)


def test_ybr_becomes_rgb():
    """Grey has no colour; a red of (255, 0, 0) is Y 76, Cb 85, Cr 255, to within rounding."""
    ybr = np.array([[[7, 128, 128], [76, 85, 255]]], np.uint8)
    got = decode(dicom(ybr, photometric="YBR_FULL"), "a.dcm")
    np.testing.assert_array_equal(got[0, 0], 7)
    np.testing.assert_allclose(got[0, 1], [255, 0, 0], atol=2)


def test_ybr_with_half_the_colours_becomes_rgb():
    pairs = element(0x7FE00010, "OB", bytes([7, 9, 128, 128]))
    data = dicom(np.zeros((1, 2, 3), np.uint8), photometric="YBR_FULL_422", pixels=pairs)
    assert_read(data, np.array([[[7] * 3, [9] * 3]], np.uint8))


def test_a_palette_becomes_rgb():
    """Numbers before the table's first take its first colour, those beyond its last."""
    tables = b""
    for i, values in enumerate(([10, 20, 30], [0, 0, 1], [5, 6, 7])):
        tables += element(0x00281101 + i, "US", (3, 1, 8))
        tables += element(0x00281201 + i, "OW", np.array(values, np.uint8).tobytes())
    image = np.array([[0, 1, 2, 3, 200]], np.uint8)
    expected = [[10, 0, 5], [10, 0, 5], [20, 0, 6], [30, 1, 7], [30, 1, 7]]
    got = decode(dicom(image, tables, photometric="PALETTE COLOR"), "a.dcm")
    assert_array(got, np.array([expected], np.uint8))


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (16, np.uint16)])
def test_a_palette_in_segments_is_pydicoms(bits, kind):
    """A segment of numbers, one that leads to a number by steps; and one of a kind not read."""
    words = [[0, 3, 10, 20, 7, 1, 5, 99], [0, 8, *range(8)], [0, 1, 9, 1, 3, 0, 1, 4, 200]]
    tables = b""
    for i, values in enumerate(words):
        tables += element(0x00281101 + i, "US", (8, 0, bits))
        tables += element(0x00281221 + i, "OW", np.array(values, kind).tobytes())
    image = np.array([[0, 1, 2, 3, 7, 9]], np.uint8)
    data = dicom(image, tables, photometric="PALETTE COLOR")
    assert_array(decode(data, "a.dcm"), apply_color_lut(image, dcmread(BytesIO(data))))
    damaged = data.replace(
        np.array([1, 5, 99], kind).tobytes(), np.array([3, 5, 99], kind).tobytes()
    )
    assert "the numbers of its DICOM RedPalette" in read(damaged)[1]


def test_a_palette_of_8_bits_has_colours_for_numbers_of_16():
    tables = b""
    for i in range(3):
        tables += element(0x00281101 + i, "US", (3, 300, 8))
        tables += element(0x00281201 + i, "OW", bytes([10, 20, 30, 0]))
    image = np.array([[0, 300, 301, 302, 556]], np.uint16)
    got = decode(dicom(image, tables, photometric="PALETTE COLOR"), "a.dcm")
    assert_array(got[..., 0], np.array([[10, 10, 20, 30, 30]], np.uint8))


def assert_array(got, expected):
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


JPEG_2000, JPEG_LS, JPEG, LOSSLESS = "4.90", "4.80", "4.50", "4.70"
COMPRESSED = [
    (JPEG_2000, DEEP, lambda image: imagecodecs.jpeg2k_encode(image, reversible=True, level=0)),
    (JPEG_2000, COLOUR, lambda image: imagecodecs.jpeg2k_encode(image, reversible=True, level=0)),
    (JPEG_LS, DEEP, imagecodecs.jpegls_encode),
    (LOSSLESS, DEEP, imagecodecs.ljpeg_encode),
]


@pytest.mark.parametrize("image", [GREY, DEEP, CT, COLOUR, COLOUR.astype(np.uint32) * 2**24])
def test_runs_come_back(image):
    assert_read(compressed("5", image, rle(image)), image)


def test_lossless_jpeg_of_numbers_with_a_sign_comes_back():
    image = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    stream = imagecodecs.ljpeg_encode((image & 0xFFF).astype(np.uint16), bitspersample=12)
    assert_read(compressed(LOSSLESS, image, stream, stored=12), image)


@pytest.mark.parametrize(("syntax", "image", "encode"), COMPRESSED)
def test_lossless_pixels_come_back(syntax, image, encode):
    assert_read(compressed(syntax, image, encode(image)), image)


def test_jpeg_is_what_pillow_makes_of_it():
    stream = pillow(COLOUR, "JPEG", quality=95, subsampling=0)
    got = decode(compressed(JPEG, COLOUR, stream, photometric="YBR_FULL"), "a.dcm")
    np.testing.assert_allclose(got, decode(stream, "a.jpg"), atol=3)


def test_rgb_that_a_jpeg_says_is_ybr_is_read_as_the_jpeg_says():
    """Its JFIF marker says so; pydicom would warn."""
    stream = pillow(COLOUR, "JPEG", quality=95, subsampling=0)
    got = decode(compressed(JPEG, COLOUR, stream, photometric="RGB"), "a.dcm")
    np.testing.assert_allclose(got, decode(stream, "a.jpg"), atol=3)


def test_12_bit_jpeg_keeps_its_depth():
    image = RAMP[:, ::-1].copy()
    stream = imagecodecs.jpeg_encode(image, level=98, bitspersample=12)
    got = decode(compressed("4.51", image, stream, stored=12), "a.dcm")
    np.testing.assert_allclose(got.astype(int), image, atol=40)
    assert got.max() > 4000


def test_fragments_of_one_frame_belong_together():
    stream = imagecodecs.jpeg2k_encode(DEEP, reversible=True, level=0)
    half = len(stream) // 4 * 2
    pixels = items(stream[:half], stream[half:])
    assert_read(dicom(DEEP, pixels=pixels, syntax="1.2.840.10008.1.2.4.90"), DEEP)


# What values mean


def test_rescale_gives_what_the_scanner_meant():
    got = decode(dicom(CT, rescale("2", "-1024.5")), "a.dcm")
    assert_array(got, (CT.astype(np.float32) * 2 - 1024.5))


def test_a_rescale_of_nothing_keeps_the_integers():
    assert_read(dicom(DEEP, rescale("1.000", "0")), DEEP)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("undefined", [False, True])
def test_a_modality_table_stands_for_a_rescale(undefined, bits):
    image = np.array([[0, 5, 6, 7, 9]], np.uint8)
    values = struct.pack("<3H", 100, 300, 200)
    modality = table(0x00283000, (3, 5, bits), values, undefined=undefined)
    expected = np.array([[100, 100, 300, 200, 200]], np.uint16)
    assert_read(dicom(image, modality, rescale("2", "0")), expected)


def test_values_of_an_enhanced_object_lie_in_its_functional_groups():
    inside = sequence(0x00289145, rescale("3", "1"), undefined=True)
    groups = sequence(0x52009229, inside, undefined=True)
    got = decode(dicom(GREY, groups), "a.dcm")
    assert_array(got, GREY.astype(np.float32) * 3 + 1)


def test_no_window_is_applied_unless_asked_for():
    assert_read(dicom(CT, window("40", "400")), CT)


def test_a_window_is_that_of_the_standard():
    """PS3.3 C.11.2.1.2.1 for center 40 and width 400: 0 up to -160, 1 above 239, a line between.

    At 39.5, which is center - 0.5, it gives a half; one number further, 1/399 more.
    """
    image = np.array([[-1000, -160, 39, 40, 239, 240, 3000]], np.int16)
    expected = [0, 0, 0.5 - 0.5 / 399, 0.5 + 0.5 / 399, 1, 1, 1]
    for data, voi in (
        (dicom(image), "40,400"),
        (dicom(image, window("40\\7", "400\\9")), "file"),
        (dicom(image, window("7", "9")), "40,400"),
    ):
        got = decode(data, "a.dcm", voi)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got[0], expected, atol=1e-6)


def test_the_window_is_applied_after_the_rescale():
    image = np.array([[1024, 1064, 1424]], np.uint16)
    got = decode(dicom(image, rescale("1", "-1024")), "a.dcm", "40.5,401")
    np.testing.assert_allclose(got[0], [0.4, 0.5, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # (x - 100) / 200 + 1/2
        ("LINEAR_EXACT", [0, 0.25, 0.5, 1]),
        # 1 / (1 + exp(-4 (x - 100) / 200))
        ("SIGMOID", [1 / (1 + np.exp(2)), 1 / (1 + np.exp(1)), 0.5, 1 / (1 + np.exp(-4))]),
    ],
)
def test_a_file_says_what_its_window_is_like(function, expected):
    image = np.array([[0, 50, 100, 300]], np.uint16)
    got = decode(dicom(image, window("100", "200", function)), "a.dcm", "file")
    np.testing.assert_allclose(got[0], expected, atol=1e-6)


def test_a_window_of_width_1_is_a_step():
    image = np.array([[9, 10, 11]], np.uint16)
    np.testing.assert_array_equal(decode(dicom(image), "a.dcm", "10,1"), [[0, 1, 1]])


def test_a_files_table_comes_before_its_window():
    values = struct.pack("<3H", 0, 1023, 4095)
    data = dicom(
        np.array([[4, 5, 6, 7]], np.uint8), window("1", "2"), table(0x00283010, (3, 4, 12), values)
    )
    got = decode(data, "a.dcm", "file")
    np.testing.assert_allclose(got[0], [0, 1023 / 4095, 1, 1], atol=1e-6)


def test_a_file_without_a_window_of_its_own_is_refused_one():
    with pytest.raises(ValueError, match="no window; read it with voi='none'"):
        decode(dicom(DEEP), "a.dcm", "file")


def test_colours_and_other_formats_have_no_window():
    for voi in ("file", "40,400"):
        np.testing.assert_array_equal(decode(dicom(COLOUR, photometric="RGB"), "a", voi), COLOUR)
        np.testing.assert_array_equal(decode(pillow(GREY, "PNG"), "a", voi), GREY)


@pytest.mark.parametrize("image", [GREY, RAMP, CT])
def test_monochrome1_is_monochrome2_inverted(image):
    """Around the numbers that its bits can hold: 0 to 255, 0 to 4095, -32768 to 32767."""
    stored = 12 if image is RAMP else None
    low, high = {1: (0, 255), 2: (0, 4095)}[image.itemsize] if image is not CT else (-32768, 32767)
    data = dicom(image, photometric="MONOCHROME1", stored=stored)
    assert_read(data, (low + high - image.astype(int)).astype(image.dtype))


@pytest.mark.parametrize("voi", ["none", "file", "40,400"])
def test_monochrome1_is_inverted_last(voi):
    """The sum of both is the same everywhere, whatever was done before."""
    more = rescale("2", "-1000") + window("40", "400")
    plain, inverted = (
        decode(dicom(RAMP, more, stored=12, photometric=kind), "a", voi).astype(float)
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    # 2 * 0 - 1000 and 2 * 4095 - 1000
    np.testing.assert_allclose(plain + inverted, -1000 + 7190 if voi == "none" else 1, atol=1e-3)


# What is refused


COMPANIONS = [
    ("66.4", "segmentation"),
    ("481.2", "RT dose grid"),
    ("481.3", "RT structure set"),
    ("481.5", "RT plan"),
    ("481.8", "RT plan"),
    ("481.4", "radiotherapy record"),
    ("88.33", "structured report"),
    ("88.67", "structured report"),
    ("88.59", "key object selection"),
    ("11.1", "presentation state"),
    ("9.1.1", "waveform"),
    ("66.1", "registration"),
    ("104.1", "encapsulated document"),
    ("66", "raw data"),
    ("67", "Real World Value Mapping"),
]


@pytest.mark.parametrize(("sop", "name"), COMPANIONS)
def test_what_is_no_image_is_refused_by_kind_even_if_it_has_pixels(sop, name):
    """And its beginning, whose end may lie within an element, tells as well."""
    data = dicom(DEEP, element(0x00080060, "CS", "MR"), sop=STORAGE + sop)
    assert refusal(data).endswith(f": it is of DICOM's kind {name!r}, not an image.")
    assert companion_kind(data) == companion_kind(data[:300]) == name


def header(*elements: bytes) -> bytes:
    return meta(EXPLICIT) + b"".join(elements)


PRIVATE = element(0x00080016, "UI", "1.2.3")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (dicom(DEEP), None),
        (dicom(DEEP, sop=STORAGE + "481.1"), None),
        (dicom(DEEP)[:400], None),
        # An image that has lost its pixels is no companion; nor is what says nothing of itself.
        (header(element(0x00080016, "UI", STORAGE + "4")), None),
        (header(), None),
        (pillow(GREY, "PNG"), None),
        # Classes that are not the standard's go by their modality, and by what they hold.
        (dicom(DEEP, element(0x00080060, "CS", "DOC"), sop="1.2.3"), None),
        (dicom(DEEP, element(0x00080060, "CS", "RTDOSE"), sop="1.2.3"), "RT dose grid"),
        (header(PRIVATE, element(0x00080060, "CS", "SR")), "structured report"),
        (header(PRIVATE), "object without pixels"),
        (header(PRIVATE, element(0x00100010, "PN", "A" * 9))[:-2], None),
        (header(PRIVATE, element(0x00280010, "US", 9)), None),
        (header(element(0x00080016, "UI", "1.3.12.2.1107.5.9.1")), "raw data"),
        (bytes(128) + b"DICM" + element(0x00020002, "UI", "1.2.840.10008.1.3.10"), "DICOMDIR"),
    ],
)  # fmt: skip
def test_companions_of_images_are_named_by_kind(data, kind):
    assert companion_kind(data) == kind


@pytest.mark.parametrize("modality", ["DOC", "ECG", "RTIMAGE", "SEG", "SR"])
def test_what_an_image_class_holds_is_an_image_whatever_its_modality(modality):
    assert_read(dicom(DEEP, element(0x00080060, "CS", modality)), DEEP)


# Odd headers

STRAY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
CODE = element(0x00080100, "SH", "CODE")
IMPLICIT_CODE = element(0x00080100, "SH", "CODE", implicit=True)


def odd(kind: bytes, length: str, n: int, value: bytes) -> bytes:
    """A private element, as the standard does not have it."""
    return b"\x11\0\1\x10" + kind + struct.pack(length, n) + value


def unending(kind: bytes, value: bytes) -> bytes:
    return odd(kind, "<2xI", 2**32 - 1, value + SEQUENCE_END)


ODD = {
    "an end of an item": ITEM_END,
    "an end of a sequence": SEQUENCE_END,
    "an item": STRAY_ITEM[:4] + struct.pack("<I", len(CODE)) + CODE,
    "an item without length": STRAY_ITEM + element(0x00280010, "US", 9) + ITEM_END,
    "items in each other": STRAY_ITEM * 2 + CODE + ITEM_END * 2,
    "an element without a kind": odd(b"", "<I", 2, b"12"),
    "question marks": odd(b"??", "<2xI", 2, b"12"),
    "question marks of a short length": odd(b"??", "<H", 2, b"12"),
    "an unknown kind": odd(b"ZZ", "<H", 2, b"12"),
    "an unknown kind of a long length": odd(b"ZZ", "<2xI", 4, b"1234"),
    "a long kind of a short length": odd(b"UT", "<H", 4, b"1234"),
    "a length too long": odd(b"LO", "<H", 400, b"1234"),
    "a length too short": odd(b"LO", "<H", 2, b"1234567890"),
    "an item that does not end": unending(b"SQ", STRAY_ITEM + CODE),
    "a sequence of rubbish": unending(b"SQ", b"rubbish!" * 3),
    "explicit elements in an unknown": unending(b"UN", STRAY_ITEM + CODE + ITEM_END),
    "implicit elements in an unknown": unending(b"UN", STRAY_ITEM + IMPLICIT_CODE + ITEM_END),
}


@pytest.mark.parametrize("oddity", ODD)
def test_what_is_odd_in_a_header_is_passed_over(oddity):
    """In the place of a private element, before those of the pixels, which are all read."""
    data = dicom(DEEP, rescale("2", "-1"), element(0x00100020, "LO", "007"))
    at = data.index(struct.pack("<HH", 0x28, 2))
    data = data[:at] + ODD[oddity] + data[at:]
    assert_read(data, DEEP.astype(np.float32) * 2 - 1)
    person = person_of(data)
    assert person is not None
    assert person.patient == "007"


@pytest.mark.parametrize("oddity", ["an end of an item", "an end of a sequence", "an item"])
def test_what_is_stray_in_an_implicit_header_is_passed_over(oddity):
    data = dicom(DEEP, syntax=IMPLICIT)
    at = data.index(struct.pack("<HH", 0x28, 2))
    assert_read(data[:at] + ODD[oddity] + data[at:], DEEP)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("named", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_elements_are_what_they_look_like_not_what_the_syntax_says(syntax, named):
    whole = dicom(DEEP, syntax=syntax)
    assert_read(meta(named) + whole[len(meta(syntax)) :], DEEP)


@pytest.mark.parametrize("behind", [b"\0", bytes(500), b"rubbish" * 9, SEQUENCE_END])
def test_bytes_behind_the_end_do_no_harm(behind):
    assert_read(dicom(DEEP) + behind, DEEP)
    packed = compressed(JPEG_2000, DEEP, COMPRESSED[0][2](DEEP))
    assert_read(packed + behind, DEEP)
    assert_read(packed[:-8] + behind, DEEP)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"rows": None}, "its DICOM Rows is missing"),
        ({"rows": b"\1\0\0\0"}, "its DICOM Rows is not a number"),
        ({"rows": 0}, "which holds no pixels"),
        ({"rows": 65535, "columns": 65535}, f"at most {MAX_PIXELS} are read"),
        ({"rows": 400}, "header says 31x400 16-bit, which takes 24800 bytes, file has 1426."),
        ({"samples": 3}, "SamplesPerPixel is 3, where MONOCHROME2 has 1"),
        ({"photometric": "CMYK"}, "its DICOM colours are none of MONOCHROME1"),
        ({"bits": 12}, "BitsAllocated is 12, where MONOCHROME2 has 1 or 8 or 16 or 32"),
        ({"stored": 20}, "header says 20 bits, of 16"),
        ({"signed": 7}, "PixelRepresentation is 7, where MONOCHROME2 has 0 or 1"),
    ],
)
def test_headers_that_are_refused(changed, reason):
    assert reason in refusal(dicom(DEEP, **changed))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (element(0x00280008, "IS", "2"), "says 2 frames of 31x23 16-bit, which takes 2852 bytes"),
        (element(0x00280008, "IS", "1000000"), "says 1000000 frames of 31x23 16-bit, which takes"),
        (element(0x00280008, "IS", "Smith"), "its DICOM NumberOfFrames is not a number"),
        (element(0x00280008, "IS", "1e99"), "says 1e+99 frames, more than any file holds"),
        (rescale("Smith", "0"), "its DICOM RescaleSlope is not a number"),
        (rescale("1e999", "0"), "is not a finite number"),
        (rescale("1e300", "0"), "NaN, infinite"),
        (rescale("1\\2", "0"), "is not a finite number"),
        (table(0x00283000, (9, 0, 16), b"\0\0"), "the numbers of its DICOM LUT are damaged"),
        (sequence(0x00283000, b"\1\2\3\4"), "the numbers of its DICOM LUT are damaged"),
    ],
)
def test_values_that_are_refused(more, reason):
    assert reason in refusal(dicom(DEEP, more))


def test_a_window_that_is_no_number_is_not_quoted():
    with pytest.raises(
        ValueError, match="its DICOM WindowCenter or WindowWidth is not a number"
    ) as caught:
        decode(dicom(DEEP, window("Smith", "John")), "a.dcm", "file")
    assert "Smith" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (meta(EXPLICIT), "it is a DICOM object without an image"),
        (compressed("4.100", DEEP, bytes(99)), "transfer syntax is none that is read"),
        (compressed("4.9999", DEEP, b"Smith"), "its compressed pixels are damaged"),
        (compressed(JPEG_2000, DEEP, bytes(99)), "Compression (Lossless Only) pixels are damaged"),
        (
            dicom(DEEP, pixels=items(), syntax="1.2.840.10008.1.2.4.90"),
            "pixels are damaged, cut short",
        ),
        (compressed(JPEG_2000, DEEP, b"no stream"), "pixels are damaged, cut short"),
        (
            compressed(JPEG, GREY, pillow(GREY, "JPEG")[:160]),
            "its JPEG Baseline (Process 1) pixels are damaged",
        ),
        (compressed(JPEG_2000, DEEP, COMPRESSED[0][2](DEEP)[:-200]), "damaged, cut short"),
        (compressed(LOSSLESS, DEEP, COMPRESSED[3][2](DEEP)[:-200]), "damaged, cut short"),
        (compressed("5", DEEP, rle(DEEP)[:-900]), "RLE Lossless pixels are damaged, cut short"),
        (
            compressed("5", DEEP, struct.pack("<16I", 9, *[64] * 15)),
            "RLE Lossless pixels are damaged",
        ),
        (meta(DEFLATED) + b"no deflate", "its deflated DICOM elements are damaged"),
    ],
)
def test_pixels_that_are_refused(data, reason):
    assert reason in refusal(data)


@pytest.mark.parametrize("lost", [4, 40])
def test_pixels_that_have_lost_bytes_within_are_refused(lost):
    """Wherever they are missing: such a JPEG mostly decodes all the same, to another image."""
    large = np.tile(COLOUR, (4, 4, 1))
    data = compressed(JPEG, large, pillow(large, "JPEG"), photometric="YBR_FULL_422")
    for at in range(len(data) - 400, len(data) - lost - 12, 40):
        assert "pixels are damaged, cut short" in refusal(data[:at] + data[at + lost :])


@pytest.mark.parametrize(("syntax", "image", "encode"), COMPRESSED)
def test_a_stream_larger_than_its_header_says_is_refused_before_it_is_decoded(
    syntax, image, encode
):
    larger = encode(np.concatenate([image, image]))
    assert "pixels are 31x46 " in refusal(compressed(syntax, image, larger))


def test_deflated_elements_that_unpack_without_end_are_refused(monkeypatch):
    monkeypatch.setattr("conocc.data.image_io.dicom_header._MOST_BYTES", 1000)
    packing = zlib.compressobj(wbits=-15)
    bomb = meta(DEFLATED) + packing.compress(bytes(10**6)) + packing.flush()
    assert "unpack to more than 1000 bytes" in refusal(bomb)


@pytest.mark.parametrize("syntax", ["5", "4.50"])
def test_compressed_pixels_without_their_end_are_read(syntax):
    """As some write them; what is cut within its pixels is refused."""
    stream = rle(GREY) if syntax == "5" else pillow(GREY, "JPEG")
    data = compressed(syntax, GREY, stream)
    assert_read(data[:-8], decode(data, "a.dcm"))
    assert "pixels are damaged, cut short" in refusal(data[:-12])


def test_a_table_of_offsets_is_not_needed():
    """Where it is wrong, the only frame is still all that there is."""
    data = compressed(JPEG, GREY, pillow(GREY, "JPEG"))
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    wrong = data.replace(item, item[:4] + struct.pack("<II", 4, 65536), 1)
    assert_read(wrong, decode(data, "a.dcm"))


def test_runs_that_go_beyond_their_channel_leave_the_next_as_it_is():
    assert_read(compressed("5", COLOUR, rle(COLOUR, spare=bytes(4))), COLOUR)


@pytest.mark.parametrize(
    "endless",
    [
        struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000,
        struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1) + element(0x00100010, "PN", "") * 1_000_000,
    ],
)
def test_a_header_of_endless_elements_is_given_up_at_once(endless):
    data = dicom(
        DEEP, element(0x00100020, "LO", "007"), sequence(0x00321064, undefined=True)[:12] + endless
    )
    start = time.process_time()
    assert "without an image, or damaged or cut short" in refusal(data)
    person = person_of(data)
    assert person is not None
    assert person.patient == "007"
    assert time.process_time() - start < 15


def test_who_is_on_it_is_told_of_kinds_that_do_not_exist():
    """An empty element of such a kind has no value that could be converted."""
    data = dicom(DEEP, element(0x00080050, "SI", ""), element(0x00100020, "LO", "007"))
    person = person_of(data)
    assert person is not None
    assert person.patient == "007"


def test_a_header_that_is_nested_without_end_is_an_image_or_a_sentence():
    deep = sequence(0x00081140, undefined=True)[:12] + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 2**32 - 1
    )
    image, sentence = read(dicom(DEEP, deep * 5000))
    assert sentence or image.shape == DEEP.shape


WHOLE = {
    "explicit": dicom(DEEP, rescale("2", "-1"), window("1", "2"), photometric="MONOCHROME1"),
    "implicit": dicom(GREY, syntax=IMPLICIT),
    "big": dicom(DEEP, syntax=BIG_ENDIAN),
    "deflated": dicom(GREY, syntax=DEFLATED),
    "bare": dicom(GREY, preamble=False),
    "table": dicom(GREY, table(0x00283000, (3, 5, 16), bytes(6), undefined=True)),
    "colour": dicom(COLOUR, photometric="YBR_FULL"),
    "jpeg 2000": compressed(JPEG_2000, DEEP, COMPRESSED[0][2](DEEP)),
    "jpeg-ls": compressed(JPEG_LS, DEEP, COMPRESSED[2][2](DEEP)),
    "lossless": compressed(LOSSLESS, DEEP, COMPRESSED[3][2](DEEP)),
    "rle": compressed("5", DEEP, rle(DEEP)),
    "jpeg": compressed(JPEG, COLOUR, pillow(COLOUR, "JPEG"), photometric="YBR_FULL_422"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_or_with_wrong_bytes_is_an_image_or_a_sentence(name):
    """Seeded; and who is on it can be asked all the same."""
    rng = np.random.default_rng(len(name))
    data = np.frombuffer(WHOLE[name], np.uint8)
    for i in range(150):
        changed = data.copy()
        reach = min(len(data), int(rng.choice([400, 600, len(data)])))
        spots = rng.integers(128, reach, rng.integers(1, 5))
        changed[spots] = rng.choice([0, 1, 2, 127, 128, 255, rng.integers(256)], len(spots))
        mutated = changed.tobytes()[: rng.integers(1, len(data)) if i % 3 == 0 else None]
        person_of(mutated)
        image, sentence = read(mutated, ("none", "file", "40,400")[i % 3])
        assert sentence or (image.ndim in (2, 3) and np.isfinite(image).all())


def read(data: bytes, voi: str = "none") -> tuple[np.ndarray, str]:
    """The pixels, or one sentence that refuses them."""
    try:
        return decode(data, "a.dcm", voi), ""
    except ValueError as error:
        sentence = str(error)
    assert sentence.startswith("Cannot read 'a.dcm': ")
    assert "\n" not in sentence
    return np.empty(0), sentence


def test_threads_get_what_one_thread_gets():
    names = [*WHOLE] * 5
    expected = {name: decode(data, name) for name, data in WHOLE.items()}
    with ThreadPoolExecutor(4) as pool:
        for name, image in zip(names, pool.map(lambda n: decode(WHOLE[n], n), names), strict=True):
            np.testing.assert_array_equal(image, expected[name])


# Who is on it


def test_who_is_on_an_image():
    more = (
        element(0x00080090, "PN", "Weiß^Ada")
        + element(0x00100010, "PN", "Müller^Jörg")
        + element(0x00100020, "LO", " 007-X ")
        + element(0x00100030, "DA", "19500102")
        + element(0x00100040, "CS", "M")
        + element(0x00101010, "AS", "045Y")
        + element(0x0020000D, "UI", "1.2.826.55")
        + sequence(0x00101002, element(0x00100020, "LO", "OTHER9"))
    )
    person = person_of(dicom(DEEP, more))
    assert person is not None
    assert person.patient == "007-X"
    for name in (
        "Muller",
        "müller_jörg",
        "scan-007x",
        "1950-01-02",
        "Ada",
        "IM_1.2.826.55.7",
        "other9",
    ):
        assert person.identifies(name), name
    for name in ("M", "045Y", "tumour", "IM0001", "Adam"):
        assert not person.identifies(name), name
    assert person.is_named_by("Mueller or Müller, Jörg")
    assert not person.is_named_by("Müller")
    assert "007" not in repr(person)


def test_a_file_cut_short_still_says_who_is_on_it():
    data = dicom(DEEP, element(0x00100010, "PN", "Smith^John"))
    person = person_of(data[:-500])
    assert person is not None
    assert person.identifies("smith")


def test_other_formats_say_nothing_of_anyone():
    assert person_of(pillow(GREY, "PNG")) is None
    assert plain_letters("Ærøskøbing_ßtraße") == "ærøskøbingsstrasse"


# Real files


def rows_of(folder):
    with (folder / "dicom" / "INDEX.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


NO_IMAGES = {"SEG", "SR", "RTDOSE", "RTPLAN", "ECG"}


def test_every_real_file_is_an_image_or_a_sentence(data):
    """Sizes and, where nothing is done to them, values are those of the index."""
    images = 0
    for row in rows_of(data):
        content = (data / "dicom" / row["file"]).read_bytes()
        several = row["frames"] not in ("1", "1A")
        image, sentence = read(content)
        if sentence:
            decoded = not row["decoded"].startswith("ERR")
            refused = several or row["modality"] in NO_IMAGES
            assert refused or not decoded or "parametric_map" in row["file"], (row, sentence)
            continue
        images += 1
        assert not several
        assert row["modality"] not in NO_IMAGES
        assert image.shape[:2] == (int(row["rows"]), int(row["cols"]))
        raw = row["photometric"] in ("MONOCHROME2", "RGB") and not row["modlut"]
        if raw and not row["decoded"].startswith("ERR"):
            assert f"{image.min()}..{image.max()}" == row["decoded"].split()[-1]
    # Of 87: 8 of several frames, 6 SEG, 6 RT, 2 SR, and 3 that are: a waveform, without pixels,
    # without a beginning.
    assert images == 87 - 25


def test_a_real_ct_is_in_hounsfield_units(data):
    """CT_small: stored 128 to 2191, slope 1, intercept -1024."""
    image = read_dicom((data / "dicom/pydicom/CT_small.dcm").read_bytes()).pixels
    assert (image.min(), image.max()) == (-896, 1167)


@pytest.mark.parametrize("pair", ["693_{}.dcm"])
def test_a_real_file_is_the_same_compressed_and_not(data, pair):
    folder = data / "dicom" / "pydicom"
    plain, packed = (
        read_dicom((folder / pair.format(kind)).read_bytes()).pixels for kind in ("UNCI", "J2KI")
    )
    # JPEG 2000 with loss.
    assert np.abs(plain - packed).max() <= np.ptp(plain) / 10


@pytest.mark.parametrize("kind", [r"ORIGINAL\PRIMARY\LOCALIZER", "LOCALIZER", r"ORIGINAL\PRIMARY"])
def test_a_localizer_is_remarked(kind):
    """It lies in each series, and shows another view."""
    data = dicom(GREY, element(0x00080008, "CS", kind))
    remarks = read_dicom(data).remarks
    assert (remarks == (LOCALIZER,)) is ("LOCALIZER" in kind), remarks
