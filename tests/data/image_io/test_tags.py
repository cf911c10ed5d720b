"""The tags of TIFF: what is not one plain value where there must be one is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from conocc.data.image_io.tags import TAGS, exif_orientation, read_directory


def directory(order: str, *entries: tuple[int, int, int, bytes], big: bool = False) -> bytes:
    """A TIFF of nothing but tags: number, type, count and the bytes of the value, or its place."""
    mark, count, entry = (43, "HHQQ", "HHQ8s") if big else (42, "IH", "HHI4s")
    header = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", mark)
    start = (8, 0, 16, len(entries)) if big else (8, len(entries))
    parts = [header, struct.pack(order + count, *start)]
    parts += [struct.pack(order + entry, *one) for one in entries]
    return b"".join([*parts, bytes(8 if big else 4)])


def short(order: str, number: int, value: int) -> tuple[int, int, int, bytes]:
    return number, 3, 1, struct.pack(order + "H", value)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_the_first_of_several_tags_with_one_number_is_taken(order, big):
    tags = read_directory(directory(order, short(order, 274, 6), short(order, 274, 8), big=big))
    assert tags.value("Orientation") == 6


def test_tags_that_are_not_there_have_their_default():
    tags = read_directory(directory("<"))
    assert tags.value("Compression", 1) == 1
    assert tags.common_value("BitsPerSample") == 1
    assert len(tags.values("StripOffsets")) == 0
    with pytest.raises(ValueError, match="ImageWidth must have one value, not 0"):
        tags.value("ImageWidth")


def test_values_that_do_not_fit_into_the_entry_lie_elsewhere():
    # 8 bytes of header, 2 of count, 12 of one entry, 4 of none follows: the values are at 26.
    tags = directory("<", (258, 3, 3, struct.pack("<I", 26)))
    for depths in ((8, 8, 8), (5, 6, 5)):
        found = read_directory(tags + struct.pack("<3H", *depths))
        np.testing.assert_array_equal(found.values("BitsPerSample"), depths)
    with pytest.raises(ValueError, match="BitsPerSample must be the same for all channels"):
        found.common_value("BitsPerSample")
    with pytest.raises(ValueError, match="BitsPerSample must have one value, not 3"):
        found.value("BitsPerSample")
    with pytest.raises(ValueError, match="BitsPerSample ends at byte 32, file has 31 bytes"):
        read_directory(tags + bytes(5)).values("BitsPerSample")


def test_values_that_are_no_whole_numbers_are_refused():
    tags = read_directory(directory("<", (256, 2, 1, b"9")))
    with pytest.raises(ValueError, match="values of its TIFF tag ImageWidth are of type 2"):
        tags.value("ImageWidth")


@pytest.mark.parametrize("big", [False, True])
def test_a_directory_cut_anywhere_is_refused(big):
    data = directory("<", short("<", 274, 6), big=big)
    for cut in range(4, len(data)):
        with pytest.raises(ValueError, match="its TIFF directory lies beyond"):
            read_directory(data[:cut])
        assert exif_orientation(data[:cut]) == 1
    assert exif_orientation(data) == 6


def test_tags_are_written_in_the_order_of_their_numbers():
    """In which they go into a directory."""
    assert list(TAGS.values()) == sorted(set(TAGS.values()))
