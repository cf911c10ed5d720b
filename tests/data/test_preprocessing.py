"""What becomes of an image on its way to a detector."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conocc.data.image_io.read import is_colour
from conocc.data.preprocessing import SPARE, Preprocessing, prepare
from made_images import COLOUR, DEEP, GREY, RNG, SHAPES


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


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(size=64),
        Preprocessing(size=None, colour="rgb"),
        Preprocessing(size=64, fit="crop", voi="-600.5,1500", axis="coronal"),
        Preprocessing(size=64, scaled=False),
    ],
)
def test_preprocessing_survives_json(preprocessing):
    values = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(values) == preprocessing


@pytest.mark.parametrize(
    ("preprocessing", "side"),
    [
        (Preprocessing(size=64, scaled=False), None),
        (Preprocessing(size=None, scaled=True), None),
        (Preprocessing(size=64, scaled=True), SPARE * 64),
    ],
)
def test_what_a_jpeg_must_keep_follows_from_the_size(preprocessing, side):
    assert preprocessing.least_side == side


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
            r"'size' parameter of Preprocessing .* from 16 to 8192, or None. Got 15 inst",
        ),
        ({"size": 100_000}, r"from 16 to 8192, or None. Got 100000"),  # it took all memory
        ({"size": 64.0}, r"Got 64.0 instead."),
        ({"size": True}, r"Got True instead."),
        ({"size": "64"}, r"Got '64' instead."),
        ({"colour": "gray"}, r"'colour' .* 'grey', 'rgb'. Got 'gray' instead."),
        ({"fit": ["pad"]}, r"'fit' .* 'crop'. Got \['pad'\] instead."),
        ({"voi": "files"}, r"'voi' .* such as '40,400'. Got 'files' instead."),
        ({"voi": "40,0.5"}, r"of a width of at least 1"),
        ({"voi": "nan,4"}, r"Got 'nan,4' instead."),
        ({"axis": "z"}, r"one of 'sagittal', 'coronal', 'axial'. Got 'z' instead."),
        ({"frames": "last"}, r"'all', 'middle', 'first' or how many .* '8'. Got 'last' instead."),
        ({"frames": "0"}, r"Got '0' instead."),
        ({"frames": 8}, r"Got 8 instead."),
        ({"voi": None}, r"Got None instead."),
        ({"scaled": 1}, r"'scaled' .* True or False. Got 1 instead."),
        (
            {"window": 1},
            r"has 'size', 'colour', .*'frames', 'scaled', 'features'. Got {.*'window': 1",
        ),
    ],
)
def test_preprocessing_that_is_not_known(values, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict({**Preprocessing(size=64).to_dict(), **values})


def test_saved_preprocessing_must_have_every_value():
    values = Preprocessing(size=64).to_dict()
    for missing in values:
        with pytest.raises(ValueError, match="A Preprocessing has 'size', .* Got {"):
            Preprocessing.from_dict({k: v for k, v in values.items() if k != missing})
