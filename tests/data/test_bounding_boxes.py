"""Where patches lie: inside the image, around their box, beside all others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conocc.data.bounding_boxes import (
    Box,
    boxes_of_mask,
    square_around,
    squares_outside,
    window_sums,
)

UNHURRIED = settings(deadline=None)  # other work shares the cores


@st.composite
def boxes_in_images(draw):
    """The shape of an image, and a box inside it."""
    h, w = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    x, y = draw(st.integers(0, w - 1)), draw(st.integers(0, h - 1))
    return (h, w), Box(x, y, draw(st.integers(1, w - x)), draw(st.integers(1, h - y)))


def holds(outer: Box, inner: Box) -> bool:
    return (
        outer.x <= inner.x
        and outer.y <= inner.y
        and outer.x + outer.width >= inner.x + inner.width
        and outer.y + outer.height >= inner.y + inner.height
    )


def pixels_of(box: Box, shape, margin=0) -> np.ndarray:
    """A mask, pixel by pixel."""
    rows, columns = np.indices(shape)
    return (
        (columns >= box.x - margin)
        & (columns < box.x + box.width + margin)
        & (rows >= box.y - margin)
        & (rows < box.y + box.height + margin)
    )


@UNHURRIED
@given(boxes_in_images(), st.integers(0, 8))
def test_every_patch_is_square_lies_in_its_image_and_holds_its_box(given, margin):
    """Or the image is too small for the longer side and both margins: then it is refused."""
    (h, w), box = given
    side = max(box.width, box.height) + 2 * margin
    if side > min(h, w):
        with pytest.raises(ValueError, match=f"square of {side} pixels .* larger than the image"):
            square_around(box, (h, w), margin)
        return
    square = square_around(box, (h, w), margin)
    assert (square.width, square.height) == (side, side)
    assert holds(Box(0, 0, w, h), square)
    assert holds(square, box)


def test_a_square_is_moved_no_further_than_it_must():
    """Around the middle of its box, as far as the image goes."""
    assert square_around(Box(20, 30, 4, 2), (50, 60), 1) == Box(19, 28, 6, 6)
    assert square_around(Box(0, 30, 4, 2), (50, 60), 1) == Box(0, 28, 6, 6)
    assert square_around(Box(56, 48, 4, 2), (50, 60), 1) == Box(54, 44, 6, 6)


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, -1, 2, 2), (9, 0, 2, 2), (0, 9, 2, 2)])
def test_a_box_that_leaves_the_image_is_refused(box):
    with pytest.raises(ValueError, match="of 2x2 pixels leaves the image, which has 10x10"):
        square_around(Box(*box), (10, 10))
    with pytest.raises(ValueError, match="is empty"):
        square_around(Box(3, 3, 0, 2), (10, 10))


@UNHURRIED
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_boxes_of_a_mask_hold_all_of_it(mask):
    """Each part lies in its box, and touches all four sides of it."""
    found = np.zeros_like(mask)
    for box in boxes_of_mask(mask):
        inside = mask[box.y : box.y + box.height, box.x : box.x + box.width]
        assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        found |= pixels_of(box, mask.shape)
    assert not (mask & ~found).any()


def test_small_parts_of_a_mask_are_no_boxes():
    mask = np.zeros((9, 9), np.uint8)
    mask[1:4, 1:3], mask[6, 6:9] = 255, 1  # of 6 and of 3 pixels
    assert boxes_of_mask(mask, 4) == [Box(1, 1, 2, 3)]
    assert boxes_of_mask(mask, 3) == [Box(1, 1, 2, 3), Box(6, 6, 3, 1)]
    assert boxes_of_mask(np.zeros((4, 4))) == []


@UNHURRIED
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.data())
def test_window_sums_are_those_of_a_slow_count(chosen, data):
    side = data.draw(st.integers(1, min(chosen.shape)))
    h, w = chosen.shape
    slow = [
        [chosen[y : y + side, x : x + side].sum() for x in range(w - side + 1)]
        for y in range(h - side + 1)
    ]
    np.testing.assert_array_equal(window_sums(chosen, side), slow)


@UNHURRIED
@given(
    arrays(bool, (20, 24)),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 16), st.integers(1, 4)), max_size=4),
    st.lists(st.integers(1, 7), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_squares_outside_meet_no_box_and_lie_in_tissue(tissue, boxes, sides, margin, least, seed):
    """Nor each other; and where none is drawn, a slow search finds no place either."""
    boxes = [Box(x, y, side, side) for x, y, side in boxes]
    taken = np.zeros(tissue.shape, bool)
    for box in boxes:
        taken |= pixels_of(box, tissue.shape, margin)
    drawn = squares_outside(
        tissue,
        sides,
        boxes,
        margin=margin,
        least_tissue=least,
        random_state=np.random.default_rng(seed),
    )
    for side, square in zip(sides, drawn, strict=True):
        if square is None:
            for y in range(20 - side + 1):
                for x in range(24 - side + 1):
                    window = np.s_[y : y + side, x : x + side]
                    assert taken[window].any() or tissue[window].mean() < least
            continue
        assert (square.width, square.height) == (side, side)
        assert holds(Box(0, 0, 24, 20), square)
        inside = pixels_of(square, tissue.shape)
        assert inside.sum() == side**2
        assert not (inside & taken).any()
        assert tissue[inside].mean() >= least
        taken |= inside


def test_every_place_outside_has_the_same_chance():
    """Of 4 places in a row, a quarter each: 400 draws, within 5 standard deviations of 100."""
    rng = np.random.default_rng(0)
    counts = [0] * 4
    for _ in range(400):
        (square,) = squares_outside(
            np.ones((2, 7), bool),
            [2],
            [Box(5, 0, 2, 2)],
            margin=0,
            least_tissue=1,
            random_state=rng,
        )
        counts[square.x] += 1
    assert all(abs(times - 100) < 5 * np.sqrt(400 * 0.25 * 0.75) for times in counts)
