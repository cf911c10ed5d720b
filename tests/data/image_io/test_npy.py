"""NPY: every dtype of numbers comes back, and nothing is ever evaluated."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conocc.data.image_io.npy import CHANNELS_FIRST
from conocc.data.image_io.pixels import MAX_PIXELS
from conocc.data.image_io.read import decode_remarked
from made_images import COLOUR, DEEP, FLOATS, SHAPES, assert_read, npy, readable, refusal


@given(st.data())
def test_npy_of_every_dtype_order_and_byte_order_comes_back(data):
    kind = data.draw(
        st.sampled_from(["b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", *FLOATS])
    )
    dtype = np.dtype(data.draw(st.sampled_from("<>")) + kind)
    shape = data.draw(SHAPES) + data.draw(st.sampled_from([(), (3,)]))
    # Hypothesis draws native numbers only; NumPy swaps them.
    image = data.draw(arrays(kind, shape, elements=readable(kind))).astype(dtype)
    if data.draw(st.booleans()):
        image = np.asfortranarray(image)
    becomes = {"b1": np.dtype("u1"), "f2": np.dtype("f4")}.get(kind, dtype.newbyteorder("="))
    assert_read(npy(image), image.astype(becomes))


@pytest.mark.parametrize("order", "CF")
def test_one_channel_or_three_may_stand_first(order):
    """(h, w, 1), (1, h, w) and (3, h, w); of (3, h, 3) the last are the channels."""
    for written in (DEEP[..., None], DEEP[None]):
        assert_read(npy(np.asarray(written, order=order)), DEEP)
    assert_read(npy(np.asarray(np.moveaxis(COLOUR, -1, 0), order=order)), COLOUR)
    assert decode_remarked(npy(np.moveaxis(COLOUR, -1, 0)), "a").remarks == (CHANNELS_FIRST,)
    assert_read(npy(COLOUR[:3]), COLOUR[:3])
    assert "its shape is (2, 23, 31)" in refusal(npy(np.stack([DEEP, DEEP])))
    assert "header says 9000x9000" in refusal(npy_of(npy_header("<f8", (3, 9000, 9000))))


def test_npy_that_python_2_wrote_is_read():
    header = "{'descr': '<i2', 'fortran_order': False, 'shape': (1L, 2L), }\n"
    assert_read(npy_of(header, b"\1\0\2\0"), np.array([[1, 2]], np.int16))


def npy_header(descr, shape, order=False) -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def npy_of(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + body


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            npy(np.zeros((2, 2), complex)),
            "values are complex128, not bool, integer or real",
        ),
        (npy(np.array([[None]]), allow_pickle=True), "values are object"),
        (npy(np.zeros((2, 2), "M8[s]")), "values are datetime64[s]"),
        (npy(np.zeros((2, 2), "S3")), "values are bytes24"),
        (npy(np.zeros((2, 2), [("a", "i4"), ("b", "f4")])), "values are of several fields"),
        (npy_of(npy_header("<\n=f8", (2, 3))), "NPY header is damaged"),
        (npy(np.zeros(4)), "shape is (4,), not (h, w) or (h, w, 3)"),
        (npy(np.zeros((4, 5, 6))), "shape is (4, 5, 6), not (h, w) or (h, w, 3)"),
        (npy(np.zeros((2, 2, 2, 3))), "shape is (2, 2, 2, 3)"),
        (npy(np.float64(3)), "shape is ()"),
        (npy(np.zeros((0, 5))), "header says 5x0, which holds no pixels"),
        (npy_of(npy_header("<f8", (2, 3)), bytes(9)), "header says 3x2 float64 in "),
        (npy(np.zeros((2, 3))) + b"\0", "header says 3x2 float64 in 176 bytes, file has 177"),
        (npy_of(npy_header("<f8", (2**31, 2**31))), "header says 2147483648x2147483648"),
        (npy_of(npy_header("<f8", (9000, 9000))), f"at most {MAX_PIXELS} are read"),
        (npy_of(npy_header("<f8", (-3, 3))), "its NPY header is damaged"),
        (npy_of(npy_header("<f8", "__import__('os').abort(), 3")), "header is damaged"),
        (b"\x93NUMPY\x01\0", "header is damaged"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{'descr'", "header is damaged"),
        (b"\x93NUMPY\x09\0", "is none of"),
    ],
)
def test_npy_that_is_not_read(data, reason):
    assert reason in refusal(data)
