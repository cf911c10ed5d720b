"""Stored pixels against what their header says, and frames; compared with pydicom's own."""

from __future__ import annotations

import struct
from io import BytesIO

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut

from conocc.data.image_io.dicom_pixels import (
    NO_PHOTOMETRIC,
    OTHER_BITS,
    OTHER_COLOURS,
    OTHER_FRAMES,
    OTHER_SIGN,
    OTHER_SYNTAX,
)
from conocc.data.image_io.read import decode, decode_remarked, open_stack
from conocc.data.image_io.stack import StackOptions
from made_dicom import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    compressed,
    dicom,
    element,
    items,
    meta,
    rescale,
    rle,
    sequence,
    window,
)
from made_images import COLOUR, DEEP, GREY, pillow, refusal

JPEG, LOSSLESS, JPEG_LS, JPEG_2000, RUNS = "4.50", "4.70", "4.80", "4.90", "5"
SMOOTH = np.add.outer(np.arange(48), np.arange(64) * 30).astype(np.uint16)  # 0 to 1937


def remarks_of(data: bytes) -> tuple[str, ...]:
    return decode_remarked(data, "a").remarks


def frames_of(data: bytes, **options: str):
    stack = open_stack(BytesIO(data), "a", StackOptions(**options))
    return None if stack is None else [stack.image(k) for k in stack.numbers]


# Colours


def without(stream: bytes, marker: int) -> bytes:
    """Take a marker's segment out of a JPEG."""
    at = stream.index(bytes([0xFF, marker]))
    return stream[:at] + stream[at + 2 + struct.unpack_from(">H", stream, at + 2)[0] :]


def renamed(stream: bytes, names: bytes) -> bytes:
    """Give the channels of a JPEG other names, in its frame and in its scan."""
    changed = bytearray(stream)
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    for i, name in enumerate(names):
        changed[frame + 10 + 3 * i] = name
        changed[scan + 5 + 2 * i] = name
    return bytes(changed)


SOFT = np.stack([np.add.outer(np.arange(48) * s, np.arange(64)) for s in (1, 3, 4)], -1).astype(
    "u1"
)
AS_YBR = pillow(SOFT, "JPEG", quality=95, subsampling=0)
HALF = pillow(SOFT, "JPEG", quality=95, subsampling=1)
AS_RGB = pillow(SOFT, "JPEG", quality=95, keep_rgb=True, subsampling=0)
BARE_YBR, BARE_RGB = without(AS_YBR, 0xE0), without(AS_RGB, 0xEE)


@pytest.mark.parametrize(
    ("stream", "is_ybr"),
    [
        (AS_YBR, True),
        (HALF, True),
        (BARE_YBR, True),
        (renamed(BARE_YBR, b"\0\1\2"), True),
        (without(HALF, 0xE0), True),
        (AS_RGB, False),
        (BARE_RGB, False),
    ],
    ids=["jfif", "jfif half", "bare", "other names", "bare half", "adobe", "named R, G, B"],
)
@pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT"])
def test_colours_of_a_jpeg_are_what_its_stream_says(stream, is_ybr, label):
    got = decode_remarked(compressed(JPEG, SOFT, stream, photometric=label), "a")
    assert np.abs(got.pixels.astype(int) - SOFT).mean() < 4
    overruled = is_ybr != (label in ("YBR_FULL", "YBR_FULL_422"))
    assert got.remarks == ((OTHER_COLOURS,) if overruled else ())


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
def test_a_jpeg_that_says_nothing_of_its_colours_has_those_of_the_header(label):
    """Names 1, 2, 3, one table for all and no marker, as some write RGB."""
    stream = renamed(BARE_RGB, b"\1\2\3")
    got = decode_remarked(compressed(JPEG, SOFT, stream, photometric=label), "a")
    assert (np.abs(got.pixels.astype(int) - SOFT).mean() < 4) == (label == "RGB")
    assert got.remarks == ()


@pytest.mark.parametrize(
    ("label", "stream"), [("RGB", pillow(GREY, "JPEG")), ("MONOCHROME2", AS_YBR)]
)
def test_the_channels_of_a_jpeg_count_before_those_of_the_header(label, stream):
    image = SOFT[..., 0] if label != "RGB" else np.stack([GREY] * 3, -1)
    got = decode_remarked(compressed(JPEG, image, stream, photometric=label), "a")
    assert got.pixels.ndim == (2 if label == "RGB" else 3)
    assert np.abs(got.pixels.astype(int) - decode(stream, "a")).max() <= 3
    assert got.remarks == (OTHER_COLOURS,)


@pytest.mark.parametrize("mct", [True, False])
@pytest.mark.parametrize("label", ["RGB", "YBR_RCT", "YBR_ICT", "YBR_FULL"])
def test_colours_of_jpeg_2000_are_transformed_back_where_its_stream_says_so(mct, label):
    stream = imagecodecs.jpeg2k_encode(SOFT, reversible=True, level=0, mct=mct)
    data = compressed(JPEG_2000, SOFT, stream, photometric=label)
    if label == "YBR_FULL" and not mct:
        expected = decode(dicom(SOFT, photometric=label), "a")
    else:
        expected = SOFT
    np.testing.assert_array_equal(decode(data, "a"), expected)
    agrees = label == "RGB" or (label in ("YBR_RCT", "YBR_ICT")) == mct
    assert remarks_of(data) == (() if agrees else (OTHER_COLOURS,))


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (JPEG_2000, imagecodecs.jpeg2k_encode(COLOUR, reversible=True, level=0)),
        (JPEG_LS, imagecodecs.jpegls_encode(COLOUR)),
        (RUNS, rle(COLOUR)),
    ],
)
def test_planes_that_a_header_makes_up_for_compressed_pixels_do_not_matter(syntax, stream):
    data = compressed(syntax, COLOUR, stream, planar=1)
    np.testing.assert_array_equal(decode(data, "a"), COLOUR)


def test_full_colours_that_are_called_half_are_full():
    full = decode(dicom(COLOUR[:, :30].copy(), photometric="YBR_FULL"), "a")
    got = decode_remarked(dicom(COLOUR[:, :30].copy(), photometric="YBR_FULL_422"), "a")
    np.testing.assert_array_equal(got.pixels, full)
    assert got.remarks == (OTHER_COLOURS,)


@pytest.mark.parametrize("image", [DEEP, COLOUR])
def test_without_a_photometric_interpretation_the_channels_say_whether_it_is_grey(image):
    got = decode_remarked(dicom(image, photometric=""), "a")
    np.testing.assert_array_equal(got.pixels, image)
    assert got.remarks == (NO_PHOTOMETRIC,)


# Compressed or not

STREAMS = {
    LOSSLESS: imagecodecs.ljpeg_encode(DEEP),
    JPEG_LS: imagecodecs.jpegls_encode(DEEP),
    JPEG_2000: imagecodecs.jpeg2k_encode(DEEP, reversible=True, level=0),
    RUNS: rle(DEEP),
}


@pytest.mark.parametrize("named", [*STREAMS, "1", JPEG, "4.9999"])
@pytest.mark.parametrize("real", STREAMS)
def test_pixels_are_what_they_look_like_not_what_the_syntax_says(named, real):
    """Called compressed in another way, not compressed, or in a way that no one knows."""
    got = decode_remarked(compressed(named, DEEP, STREAMS[real]), "a")
    np.testing.assert_array_equal(got.pixels, DEEP)
    same = named == real or (named, real) == (JPEG, LOSSLESS)
    assert got.remarks == (() if same else (OTHER_SYNTAX,))


@pytest.mark.parametrize("named", [*STREAMS, "4.100", "4.9999"])
def test_pixels_in_the_open_are_read_whatever_the_syntax_says(named):
    data = dicom(DEEP, syntax=f"1.2.840.10008.1.2.{named}")
    np.testing.assert_array_equal(decode(data, "a"), DEEP)
    assert remarks_of(data) == (OTHER_SYNTAX,)


@pytest.mark.parametrize("named", [EXPLICIT, "1.2.840.10008.1.2.4.90"])
def test_a_stream_without_items_is_read(named):
    pixels = element(0x7FE00010, "OB", STREAMS[JPEG_2000])
    np.testing.assert_array_equal(decode(dicom(DEEP, pixels=pixels, syntax=named), "a"), DEEP)


@pytest.mark.parametrize("syntax", [JPEG, JPEG_2000])
def test_bytes_behind_a_stream_do_no_harm(syntax):
    encode = {
        JPEG: lambda: pillow(GREY, "JPEG"),
        JPEG_2000: lambda: imagecodecs.jpeg2k_encode(GREY),
    }
    stream = encode[syntax]()
    expected = decode(compressed(syntax, GREY, stream), "a")
    got = decode(compressed(syntax, GREY, stream + bytes(200)), "a")
    np.testing.assert_array_equal(got, expected)


# Bits and signs


def test_numbers_above_the_bits_of_the_header_are_real_where_the_image_is_smooth_with_them():
    deep = SMOOTH * np.uint16(16)
    got = decode_remarked(dicom(deep, stored=12), "a")
    np.testing.assert_array_equal(got.pixels, deep)
    assert got.remarks == (OTHER_BITS,)
    signed = deep.astype(np.int32).astype(np.int16) - np.int16(9000)
    got = decode_remarked(dicom(signed, stored=12), "a")
    np.testing.assert_array_equal(got.pixels, signed)


def test_bits_of_an_overlay_are_none_of_the_image():
    overlay = (np.add.outer(np.arange(48), np.arange(64)) % 7 == 0).astype(np.uint16)
    for bit in (12, 15):
        got = decode_remarked(dicom(SMOOTH | overlay << bit, stored=12), "a")
        np.testing.assert_array_equal(got.pixels, SMOOTH)
        assert got.remarks == ()


@pytest.mark.parametrize(("stored", "bits"), [(16, 12), (10, 12), (12, 16)])
def test_the_bits_of_a_stream_count_before_those_of_the_header(stored, bits):
    stream = imagecodecs.jpeg2k_encode(SMOOTH, reversible=True, level=0, bitspersample=bits)
    data = compressed(JPEG_2000, SMOOTH, stream, stored=stored)
    np.testing.assert_array_equal(decode(data, "a"), SMOOTH)


@pytest.mark.parametrize(("stored", "high"), [(12, 15), (12, 7), (12, 0), (16, 16)])
def test_a_highest_bit_that_cannot_be_is_the_last_of_those_stored(stored, high):
    """Numbers that would lie in the upper 12 of 16 bits use none of the lower four."""
    got = decode_remarked(dicom(SMOOTH, stored=stored, high=high), "a")
    np.testing.assert_array_equal(got.pixels, SMOOTH)
    assert got.remarks == (OTHER_BITS,)


def test_a_stream_of_more_bits_than_the_header_has_room_for_is_read():
    stream = imagecodecs.jpegls_encode(SMOOTH)
    data = compressed(JPEG_LS, SMOOTH, stream, bits=8, stored=8, high=7)
    np.testing.assert_array_equal(decode(data, "a"), SMOOTH)


@pytest.mark.parametrize("signed", [0, 1])
def test_the_sign_of_jpeg_2000_is_that_with_which_the_image_is_smooth(signed):
    """Where header and stream do not agree; either may be labelled wrongly."""
    image = SMOOTH.astype(np.int16) - np.int16(900)
    stream = imagecodecs.jpeg2k_encode(image, reversible=True, level=0)
    got = decode_remarked(compressed(JPEG_2000, image, stream, signed=signed), "a")
    np.testing.assert_array_equal(got.pixels, image)
    assert got.remarks == (() if signed else (OTHER_SIGN,))
    bare = imagecodecs.jpeg2k_encode(image.view(np.uint16), reversible=True, level=0)
    got = decode_remarked(compressed(JPEG_2000, image, bare), "a")
    np.testing.assert_array_equal(got.pixels, image)
    assert got.remarks == ()


# One bit, and floating point


@pytest.mark.parametrize("shape", [(8, 16), (3, 5)])
def test_pixels_of_one_bit_are_read(shape):
    image = (np.arange(shape[0] * shape[1]).reshape(shape) % 3 == 0).astype(np.uint8)
    packed = np.packbits(image.ravel(), bitorder="little").tobytes()
    pixels = element(0x7FE00010, "OB", packed)
    data = dicom(image, bits=1, stored=1, high=0, pixels=pixels)
    np.testing.assert_array_equal(decode(data, "a"), image)


@pytest.mark.parametrize(("tag", "kind", "dtype"), [(8, "OF", "<f4"), (9, "OD", "<f8")])
def test_pixels_of_floating_point_are_read(tag, kind, dtype):
    image = (SMOOTH / 7 - 90).astype(dtype)
    head = struct.pack("<HH2s2xI", 0x7FE0, tag, kind.encode(), image.nbytes)
    bits = {"bits": 8 * image.itemsize, "stored": None, "high": None, "signed": None}
    pixels = {"pixels": head + image.tobytes()}
    for more, change in (
        (b"", 0),
        (element(0x00280122 + tag - 8, "F" + kind[1].replace("F", "L"), image[0, 0].tobytes()), 1),
    ):
        got = decode_remarked(dicom(SMOOTH, more, **bits, **pixels), "a")
        assert got.pixels.dtype == image.dtype.newbyteorder("=")
        np.testing.assert_array_equal(got.pixels.ravel()[1:], image.ravel()[1:])
        assert got.pixels[0, 0] == (np.unique(image)[change])
        assert len(got.remarks) == change


# Frames


def several(number: int, *more: bytes, image: np.ndarray, **options) -> bytes:
    return dicom(image[0], element(0x00280008, "IS", str(number)), *more, **options)


STACK = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH + 5])
PLAIN = element(0x7FE00010, "OW", STACK.tobytes())


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_frames_are_images(syntax):
    order, implicit = ">" if syntax == BIG_ENDIAN else "<", syntax == IMPLICIT
    raw = STACK.astype(f"{order}u2").tobytes()
    pixels = element(0x7FE00010, "OW", raw, order, implicit)
    number = element(0x00280008, "IS", "3", order, implicit)
    data = dicom(SMOOTH, number, pixels=pixels, syntax=syntax)
    got = frames_of(data)
    np.testing.assert_array_equal([one.pixels for one in got], STACK)
    assert "it holds 3 frames" in refusal(data)
    assert len(frames_of(data, frames="2")) == 2
    assert frames_of(dicom(SMOOTH, element(0x00280008, "IS", "1"))) is None


def table_of(*streams: bytes) -> bytes:
    starts = np.cumsum([0, *(8 + len(one) + len(one) % 2 for one in streams)])[:-1]
    return struct.pack(f"<{len(streams)}I", *starts)


def with_table(pixels: bytes, table: bytes) -> bytes:
    """Fill the empty table of offsets."""
    return pixels[:16] + struct.pack("<I", len(table)) + table + pixels[20:]


@pytest.mark.parametrize("syntax", [JPEG_2000, JPEG_LS, RUNS])
@pytest.mark.parametrize("table", ["none", "basic", "wrong", "extended"])
def test_compressed_frames_are_found_with_and_without_a_table(syntax, table):
    encode = {
        JPEG_2000: lambda one: imagecodecs.jpeg2k_encode(one, reversible=True, level=0),
        JPEG_LS: imagecodecs.jpegls_encode,
        RUNS: rle,
    }[syntax]
    streams = [encode(np.ascontiguousarray(one)) for one in STACK]
    pixels, more = items(*streams), b""
    if table == "basic":
        pixels = with_table(pixels, table_of(*streams))
    elif table == "wrong":
        pixels = with_table(pixels, struct.pack("<3I", 0, 77, 99))
    elif table == "extended":
        offsets = struct.unpack("<3I", table_of(*streams))
        value = struct.pack("<3Q", *offsets)
        more = b"\xe0\x7f\x01\0OV\0\0" + struct.pack("<I", len(value)) + value
    data = several(3, more, image=STACK, pixels=pixels, syntax=f"1.2.840.10008.1.2.{syntax}")
    np.testing.assert_array_equal([one.pixels for one in frames_of(data)], STACK)


@pytest.mark.parametrize("table", [True, False])
def test_fragments_of_several_frames_belong_to_their_own(table):
    streams = [imagecodecs.jpeg2k_encode(one, reversible=True, level=0) for one in STACK]
    parts = [part for one in streams for part in (one[:100], one[100:])]
    pixels = items(*parts)
    if table:
        lengths = [len(one) + len(one) % 2 + 8 for one in streams]
        pixels = with_table(pixels, table_of(*(bytes(n) for n in lengths)))
    data = several(3, image=STACK, pixels=pixels, syntax="1.2.840.10008.1.2.4.90")
    np.testing.assert_array_equal([one.pixels for one in frames_of(data)], STACK)


PACKED = items(*(imagecodecs.jpegls_encode(np.ascontiguousarray(one)) for one in STACK))


@pytest.mark.parametrize("number", ["1", "2", ""])
@pytest.mark.parametrize(
    ("pixels", "syntax"), [(PLAIN, EXPLICIT), (PACKED, "1.2.840.10008.1.2.4.80")]
)
def test_more_frames_than_the_header_says_are_read(number, pixels, syntax):
    more = element(0x00280008, "IS", number)
    got = frames_of(dicom(SMOOTH, more, pixels=pixels, syntax=syntax))
    np.testing.assert_array_equal([one.pixels for one in got], STACK)
    assert got[0].remarks == (OTHER_FRAMES,)


@pytest.mark.parametrize("spare", [1, 2, 500])
def test_bytes_behind_the_only_frame_are_none(spare):
    data = dicom(DEEP, pixels=element(0x7FE00010, "OW", DEEP.tobytes() + bytes(spare)))
    np.testing.assert_array_equal(decode(data, "a"), DEEP)
    assert frames_of(data) is None


def test_fewer_frames_than_the_header_says_are_refused():
    data = several(5, image=STACK, pixels=PLAIN)
    assert frames_of(data) is None
    assert "header says 5 frames of 64x48 16-bit, which takes 30720 bytes" in refusal(data)
    streams = [imagecodecs.jpegls_encode(np.ascontiguousarray(one)) for one in STACK]
    options = {"pixels": items(*streams), "syntax": "1.2.840.10008.1.2.4.80"}
    assert "header says 5 frames of 64x48 16-bit, file has 3" in refusal(
        several(5, image=STACK, **options)
    )


def test_a_video_is_refused_by_its_syntax():
    data = several(5, image=STACK, pixels=items(bytes(99)), syntax="1.2.840.10008.1.2.4.102")
    assert frames_of(data) is None
    assert "its DICOM transfer syntax is none that is read" in refusal(data)


@pytest.mark.parametrize("undefined", [False, True])
def test_each_frame_has_the_values_and_the_window_of_its_own_group(undefined):
    """Else those of the shared group, else those of the header."""

    def group(inside: bytes) -> bytes:
        return sequence(0x00289145, inside, undefined=undefined) if inside else b""

    own = [rescale("2", "0"), rescale("4", "-7"), b""]
    windows = [sequence(0x00289132, window("40", "400"), undefined=undefined), b"", b""]
    frames = [w + group(one) for one, w in zip(own, windows, strict=True)]
    more = (
        rescale("9", "9"),
        window("500", "1000"),
        sequence(0x52009229, group(rescale("3", "1")), undefined=undefined),
        sequence(0x52009230, *frames, undefined=undefined),
    )
    data = several(3, *more, image=STACK, pixels=PLAIN)
    got = [one.pixels for one in frames_of(data)]
    expected = [STACK[0] * 2.0, STACK[1] * 4.0 - 7, STACK[2] * 3.0 + 1]
    np.testing.assert_array_equal(got, expected)
    windowed = [one.pixels for one in frames_of(data, voi="file")]
    for values, image, (center, width) in zip(
        expected, windowed, [(40, 400), (500, 1000), (500, 1000)], strict=True
    ):
        line = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
        np.testing.assert_allclose(image, line, atol=1e-6)


def test_frames_of_a_damaged_stream_are_refused_one_by_one():
    streams = [imagecodecs.jpegls_encode(np.ascontiguousarray(one)) for one in STACK]
    pixels = items(streams[0], b"no stream, but even", streams[2])
    stack = open_stack(
        BytesIO(several(3, image=STACK, pixels=pixels, syntax="1.2.840.10008.1.2.4.80")),
        "a",
        StackOptions(),
    )
    np.testing.assert_array_equal(stack.image(2).pixels, STACK[2])
    with pytest.raises(ValueError, match="pixels are damaged"):
        stack.image(1)


@pytest.mark.parametrize("center", ["40\\Smith", "Smith\\40", "7\\40"])
def test_the_first_window_that_is_one_counts(center):
    """One of text, or of no width; without a window asked for, none matters."""
    data = dicom(DEEP, window(center, "0\\400" if center[0] != "4" else "400\\0"))
    np.testing.assert_array_equal(decode(data, "a", "file"), decode(dicom(DEEP), "a", "40,400"))
    np.testing.assert_array_equal(decode(data, "a"), DEEP)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_group_with_an_empty_window_has_none(implicit):
    empty = element(0x00281050, "DS", "", implicit=implicit)
    head = struct.pack("<HHI", 0xFFFE, 0xE000, len(empty)) + empty
    item = element(0x00289132, "SQ", head, implicit=implicit)
    group = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
    more = element(0x52009229, "SQ", group, implicit=implicit)
    data = dicom(SMOOTH, more, syntax=IMPLICIT if implicit else EXPLICIT)
    with pytest.raises(ValueError, match="it has no window"):
        decode(data, "a", "file")


def test_a_slope_of_0_is_1():
    got = decode_remarked(dicom(DEEP, rescale("0", "5")), "a")
    np.testing.assert_array_equal(got.pixels, DEEP.astype(np.float32) + 5)
    assert len(got.remarks) == 1


# Real files


def test_frames_of_real_files_are_those_of_pydicom(data):
    """And no two of emri_small are the same; of eCT_Supplemental, each frame has its rescale."""
    found = {}
    for path in sorted((data / "dicom/pydicom").glob("*.dcm")):
        content = path.read_bytes()
        if (frames := frames_of(content)) is None or "too_short" in path.name:
            continue
        found[path.name] = len(frames)
        ds = pydicom.dcmread(path)
        for k, frame in enumerate(frames):
            expected = ds.pixel_array[k]
            own = ds.get("PerFrameFunctionalGroupsSequence", [ds] * len(frames))[k]
            for group in (own, *ds.get("SharedFunctionalGroupsSequence", [])):
                for item in group.get("PixelValueTransformationSequence", []):
                    expected = apply_modality_lut(expected, item)
            np.testing.assert_allclose(frame.pixels, expected, rtol=1e-6)
    assert found == {
        "SC_rgb_16bit_2frame.dcm": 2,
        "SC_rgb_expb_16bit_2frame.dcm": 2,
        "SC_rgb_rle_16bit_2frame.dcm": 2,
        "eCT_Supplemental.dcm": 2,
        "emri_small.dcm": 10,
        "emri_small_big_endian.dcm": 10,
        "examples_ybr_color.dcm": 30,
    }


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_ges_own_syntax_has_its_pixels_the_other_way_round(depth):
    """All else of it is implicit and little-endian; of a number of one byte there is no order."""
    image = np.arange(12, dtype=depth).reshape(3, 4) * 17
    raw = element(
        0x7FE00010, "OW", image.astype(image.dtype.newbyteorder(">")).tobytes(), "<", True
    )
    data = dicom(image, syntax=IMPLICIT, pixels=raw, preamble=False)
    got = decode(meta("1.2.840.113619.5.2") + data, "a.dcm")
    assert np.array_equal(got, image)
