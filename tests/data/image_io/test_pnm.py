"""PGM and PPM: numbers come back as they are, whatever the maximum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from made_images import SHAPES, assert_read, refusal


@settings(deadline=None)
@given(st.data())
def test_pgm_and_ppm_of_any_maximum_are_not_rescaled(data):
    maximum = data.draw(st.integers(1, 65535))
    dtype = np.uint8 if maximum < 256 else np.uint16
    shape = data.draw(SHAPES) + data.draw(st.sampled_from([(), (3,)]))
    image = data.draw(arrays(dtype, shape, elements=st.integers(0, maximum)))
    gap = data.draw(st.sampled_from([" ", "\n", "\r\n", "\t# made by hand 7 7\n", "#\n"]))
    height, width = shape[:2]
    for binary in (True, False):
        kind = 2 + (len(shape) == 3) + 3 * binary
        header = f"P{kind}{gap}{width}{gap}{height}{gap}{maximum}\n".encode()
        body = (
            image.astype(image.dtype.newbyteorder(">")).tobytes()
            if binary
            else b"\n".join(b" ".join(str(v).encode() for v in row) for row in image.reshape(-1, 1))
            + b"\n"
        )
        assert_read(header + body, image)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P5 1024 1024 255\n", "header says 1024x1024, 1048576 numbers; file has 0"),
        (b"P6 2 1 256\n12345", "header says 2x1, 6 numbers; file has 2"),
        (b"P2 2 1 9\n1\n", "header says 2x1, 2 numbers; file has 1"),
        (b"P2 2 1 99\n1 9", "numbers are damaged or cut short"),
        (b"P2 2 1 9\n1 -2\n", "numbers are damaged or cut short"),
        (b"P2 2 1 9\n1 99999999999999999999\n", "maximum of 9, file has the value 92233"),
        (b"P5 2 1 9\n\x01\x0a", "maximum of 9, file has the value 10"),
        (b"P5 2 1 70000\n\x01\x0a", "a maximum of 70000"),
        (b"P5 2 1 0\n\x01\x0a", "a maximum of 0"),
        (b"P5 0 1 9\n", "0x1, which holds no pixels"),
        (b"P5 2 one 9\n", "header is damaged"),
        (b"P5 99999999999 1 9\n", "header is damaged"),
        (b"P5 9999999999 9999999999 9\n", "9999999999x9999999999, 99999999980000000001 pixels"),
        (b"P5 1 1 9\n\1P5 1 1 9\n\1", "more than 1 image"),
    ],
)
def test_pnm_that_is_not_read(data, reason):
    assert reason in refusal(data)
