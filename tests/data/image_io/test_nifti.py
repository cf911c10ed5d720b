"""NIfTI: volumes turned upright and cut, or a sentence that says why not."""

from __future__ import annotations

import gzip
import itertools
import logging
import re
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conocc.data.image_io.nifti import read_nifti
from conocc.data.image_io.read import decode
from conocc.data.image_io.stack import (
    AXES,
    cut,
    is_slice_name,
    slice_name,
    slices_with_content,
    volume_and_slice,
)
from made_nifti import CODES, nifti

UNHURRIED = settings(deadline=None)  # other work shares the cores
# Each voxel tells where it lies: 100 x + 10 y + z.
PLACES = np.fromfunction(lambda x, y, z: 100 * x + 10 * y + z, (4, 3, 2)).astype(np.int16)


def reason(data: bytes) -> str:
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
        read_nifti(data)
    return str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", CODES)
def test_voxels_of_every_kind_come_back(kind, order, version, compressed):
    """At their own depth, in native byte order."""
    voxels = PLACES.astype(kind)
    read = read_nifti(nifti(voxels, order=order, version=version, compressed=compressed))
    assert read.voxels.dtype == np.dtype(kind)
    assert read.voxels.dtype.isnative
    np.testing.assert_array_equal(read.voxels, voxels)
    assert (read.series, read.nan) == (1, 0)


def test_slope_and_intercept_are_applied():
    """2 x + 0.5; a slope of 0 or NaN says that there are none, whatever the intercept."""
    read = read_nifti(nifti(PLACES, slope=2, intercept=0.5)).voxels
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, 2 * PLACES + 0.5)
    for nothing in (0, np.nan):
        read = read_nifti(nifti(PLACES, slope=nothing, intercept=7)).voxels
        np.testing.assert_array_equal(read, PLACES)
        assert read.dtype == np.int16
    assert "header is damaged" in reason(nifti(PLACES, slope=1, intercept=np.inf))


def test_of_a_series_the_first_volume_is_read():
    """And no more of a compressed file than that: what follows may be damaged."""
    series = np.stack([PLACES, PLACES + 1000, PLACES + 2000], axis=-1)
    read = read_nifti(nifti(series))
    assert read.series == 3
    np.testing.assert_array_equal(read.voxels, PLACES)
    assert read_nifti(nifti(PLACES[..., None])).series == 1


def test_one_slice_alone_is_a_volume():
    np.testing.assert_array_equal(read_nifti(nifti(PLACES[..., 0])).voxels, PLACES[..., :1])


def test_nan_takes_the_lowest_value():
    voxels = PLACES.astype(np.float32) - 7
    voxels[1, 2, 0] = voxels[0, 0, 0] = np.nan  # the lowest is then that of (0, 0, 1)
    read = read_nifti(nifti(voxels))
    assert read.nan == 2
    assert read.voxels[1, 2, 0] == read.voxels[0, 0, 0] == -6
    assert reason(nifti(np.full((2, 2, 2), np.nan, "f4"))) == "all of its 8 voxels are NaN"
    voxels[0, 0, 0] = -np.inf
    assert reason(nifti(voxels)) == "1 of 24 voxels are infinite"

    assert "reach 1e+300, beyond ±1e+30" in reason(nifti(np.full((2, 2, 2), -1e300)))


# Which way


@pytest.mark.parametrize("axes", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("signs", [*itertools.product([1, -1], repeat=3)])
def test_a_volume_is_the_same_however_it_was_stored(axes, signs):
    """All 48 ways in which a box can lie: PLACES is what (right, anterior, superior) say."""
    stored = PLACES.transpose(axes)
    affine = np.zeros((3, 4))
    for stored_axis, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        if sign < 0:
            stored = np.flip(stored, stored_axis)
        affine[axis, stored_axis] = sign * (axis + 1.5)
    np.testing.assert_array_equal(read_nifti(nifti(stored, affine=affine)).voxels, PLACES)


def test_an_oblique_volume_is_turned_to_the_nearest_axes():
    """By 30 degrees around the long axis of the body: nothing is turned, nor resampled."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    affine = np.array([[c, -s, 0, 9], [s, c, 0, 9], [0, 0, 1, 9]])
    np.testing.assert_array_equal(read_nifti(nifti(PLACES, affine=affine)).voxels, PLACES)


def test_voxels_are_where_nibabel_says_they_are():
    """The oracle: nibabel's closest canonical image."""
    affine = np.array([[0, -2, 0, 5], [0, 0, 3, -4], [-1, 0, 0, 7.0]])
    data = nifti(PLACES, affine=affine)
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(data))
    np.testing.assert_array_equal(read_nifti(data).voxels, np.asanyarray(image.dataobj))


def test_an_affine_that_leads_nowhere_is_refused():
    for bad in (np.zeros((3, 4)), np.full((3, 4), np.nan)):
        assert "the directions of its axes are damaged" in reason(nifti(PLACES, affine=bad))


def test_slices_lie_as_radiologists_see_them():
    """The corner above on the left: right, anterior, superior; of a sagittal slice: anterior."""
    axial, coronal, sagittal = (cut(PLACES, axis, 1) for axis in ("axial", "coronal", "sagittal"))
    assert axial.tolist() == [  # z = 1; y falls downwards, x to the right
        [321, 221, 121, 21],
        [311, 211, 111, 11],
        [301, 201, 101, 1],
    ]
    assert coronal.tolist() == [[311, 211, 111, 11], [310, 210, 110, 10]]  # y = 1
    assert sagittal.tolist() == [[121, 111, 101], [120, 110, 100]]  # x = 1
    assert all(one.flags.c_contiguous for one in (axial, coronal, sagittal))


# Which slices


def test_slices_without_content_are_left_out():
    """Of 100 voxels a slice, 4 above the background are too few and 5 are enough."""
    voxels = np.full((10, 10, 4), -3.0)
    voxels[..., 1].flat[:4] = 100
    voxels[..., 2].flat[:5] = 100
    voxels[..., 3] = 100
    voxels[0, 0, 3] = 90
    assert slices_with_content(voxels, "axial") == [2, 3]
    assert slices_with_content(voxels, "coronal") == list(range(10))


def test_noise_in_the_air_is_no_content_and_one_bright_voxel_hides_none():
    """The background ends a tenth of the way to the 99th percentile, not to the highest value."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 9, (30, 30, 3))  # below a tenth of 100
    voxels[5:25, 5:25, 1] = 100
    voxels[0, 0, 2] = 30000
    assert slices_with_content(voxels, "axial") == [1]


@pytest.mark.parametrize("blank", [0, -5, 40])
def test_a_background_that_is_not_the_lowest_value(blank):
    """Of a volume that was standardised in a mask, inverted, or has one voxel of padding."""
    rng = np.random.default_rng(0)
    voxels = np.full((30, 30, 6), float(blank))
    voxels[8:22, 8:22, 2:4] += rng.normal(scale=3, size=(14, 14, 2))
    assert slices_with_content(voxels, "axial") == [2, 3]
    voxels[0, 0, 0] = -32768
    voxels[1, 0, 0] = 32767
    assert slices_with_content(voxels, "axial") == [2, 3]
    inverted = np.full((30, 30, 6), 4095 - blank)
    inverted[8:22, 8:22, 2:4] -= rng.integers(1000, 3000, (14, 14, 2))
    assert slices_with_content(inverted, "axial") == [2, 3]


def test_padding_around_a_blank_slice_and_noise_of_one_level_are_no_content():
    """Slices of padding alone, and of one grey level of noise far above the lowest value."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 1000, (20, 20, 5)).astype(np.int16)
    voxels[..., 0] = -32768
    voxels[..., 1] = 500 + rng.integers(0, 2, (20, 20))
    assert slices_with_content(voxels, "axial") == [2, 3, 4]


def test_what_marks_no_data_far_below_is_not_the_background():
    """Around a round field of air, in which two of four slices show something."""
    rng = np.random.default_rng(0)
    voxels = rng.normal(-1000, 5, (40, 40, 4))
    voxels[12:28, 12:28, 1:3] = rng.normal(50, 9, (16, 16, 2))
    assert slices_with_content(voxels, "axial") == [1, 2]
    outside = np.hypot(*np.ogrid[-20:20, -20:20]) > 19
    voxels[outside] = -32768
    assert slices_with_content(voxels, "axial") == [1, 2]


def test_a_volume_of_one_value_has_no_content():
    assert slices_with_content(np.full((3, 3, 3), 7), "axial") == []


@UNHURRIED
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(0, 10**9 - 1))
def test_the_name_of_a_slice_can_be_taken_apart(stem, k):
    for suffix in (".nii", ".nii.gz", ".NII.GZ", ".dcm", "x"):
        name = slice_name(f"{stem}{suffix}", k)
        assert volume_and_slice(name) == (f"{stem}{suffix}", k)
        assert is_slice_name(name)
    for name in (f"{stem}[{k}].png", f"images[{k}]", f"{stem}/test_images[{k}]"):
        assert volume_and_slice(name) == (name, None)


# Files that are refused


@pytest.mark.parametrize(
    ("intent", "said"),
    [
        (3, "t test"),
        (1002, "label"),
        (1007, "vector"),
        (1008, "pointset"),
        (2005, "shape"),
        (2006, "fnirt disp field"),
        (3001, "ConnDense"),
        (4444, "unknown code 4444"),
    ],
)
def test_what_is_no_image_is_refused_by_name(intent, said):
    assert said in reason(nifti(PLACES, intent=intent))


@pytest.mark.parametrize("intent", [0, 1001, 1011, 2001])
def test_intents_that_images_have_are_read(intent):
    np.testing.assert_array_equal(read_nifti(nifti(PLACES, intent=intent)).voxels, PLACES)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"magic": b"ni1"}, "its voxels are in a file beside it"),
        ({"magic": b"xyz"}, "its voxels are in a file beside it"),
        ({"dim": (0, 4, 3, 2)}, "no sides of a volume"),
        ({"dim": (9, 4, 3, 2)}, "no sides of a volume"),
        ({"dim": (3, 4, -3, 2)}, "no sides of a volume"),
        ({"dim": (3, 4, 0, 2)}, "no sides of a volume"),
        ({"dim": (5, 4, 3, 2, 1, 6)}, "6 values a voxel"),
        ({"dim": (3, 30000, 30000, 2)}, "900000000 pixels; at most"),
        ({"dim": (3, 4000, 4000, 4000)}, "64000000000 voxels of 16 bits, where at most"),
        ({"dim": (3, 4, 3, 3)}, "its voxels are damaged, cut short"),
        ({"code": 128}, "of several fields"),
        ({"code": 32}, "its values are complex64, not bool, integer or real"),
        ({"code": 1536}, "not bool"),
        ({"code": 7777}, "header is damaged"),
        ({"code": 0}, "not bool|header is damaged"),
        ({"start": 100.0}, "begin at byte 100"),
        ({"start": np.nan}, "header is damaged"),
        ({"start": 1e12}, "begin at byte 999999995904"),
    ],
)
def test_headers_that_are_refused(changed, said):
    assert re.search(said, reason(nifti(PLACES, **changed)))


def test_a_file_cut_or_with_wrong_bytes_is_a_volume_or_a_sentence(caplog):
    """At every byte, of every kind; nibabel says nothing."""
    rng = np.random.default_rng(0)
    for data in (
        nifti(PLACES, slope=2.0),
        nifti(PLACES.astype("f4"), version=2, order=">"),
        nifti(PLACES, compressed=True),
    ):
        compressed = data.startswith(b"\x1f\x8b")
        for end in range(0, len(data) - 1, 1 if compressed else 7):
            reason(data[:end])
        for _ in range(300):
            bad = np.frombuffer(data, np.uint8).copy()
            spots = rng.integers(0, len(bad), rng.integers(1, 5))
            bad[spots] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)], len(spots))
            with suppress(ValueError):
                voxels = read_nifti(bad.tobytes()).voxels
                assert np.isfinite(voxels).all()
                assert voxels.ndim == 3
    assert not caplog.get_records("call")
    assert logging.getLogger("nibabel.global").isEnabledFor(logging.WARNING)


def test_a_compressed_file_with_a_wrong_checksum_is_refused():
    data = bytearray(nifti(PLACES, compressed=True))
    data[-8] ^= 1
    assert "damaged, cut short" in reason(bytes(data))


def test_no_more_is_unpacked_than_the_header_says(monkeypatch):
    """A stream of 64 MiB behind a small volume is left alone."""
    asked = []
    read = gzip.GzipFile.read

    def counted(self, size=-1):
        asked.append(size)
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    bomb = gzip.compress(nifti(PLACES) + bytes(2**26))
    np.testing.assert_array_equal(read_nifti(bomb).voxels, PLACES)
    assert min(asked) >= 0
    assert sum(asked) < 2000


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_is_taken_as_bytes_come(compressed):
    """A header of 1 GiB over next to nothing takes 2 MiB, of one slice."""
    data = nifti(PLACES, dim=(3, 1024, 1024, 512), compressed=compressed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "its voxels are damaged, cut short" in reason(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_volume_is_not_one_image():
    for data in (
        nifti(PLACES),
        nifti(PLACES, version=2, order=">"),
        nifti(PLACES, magic=b"ni1"),
        nifti(PLACES, compressed=True),
    ):
        with pytest.raises(ValueError, match="'a': it is a volume, whose slices are images"):
            decode(data, "a")


def test_threads_get_what_one_thread_gets():
    files = [nifti(PLACES * i, compressed=bool(i % 2)) for i in range(8)] * 5
    with ThreadPoolExecutor(4) as pool:
        for i, read in enumerate(pool.map(read_nifti, files)):
            np.testing.assert_array_equal(read.voxels, PLACES * (i % 8))


# Real files


def test_every_real_volume_has_the_voxels_that_nibabel_finds(data):
    """The first of each, turned by nibabel; NaN apart. One of 14 is CIFTI."""
    refused = []
    for path in sorted((data / "nifti").iterdir()):
        try:
            read = read_nifti(path.read_bytes())
        except ValueError as error:
            refused.append((path.name, str(error)))
            continue
        image = nibabel.as_closest_canonical(nibabel.load(path))
        expected = image.get_fdata(dtype=np.float64)
        expected = expected[..., 0] if expected.ndim == 4 else expected
        measured = ~np.isnan(expected)
        assert read.nan == (~measured).sum()
        np.testing.assert_allclose(read.voxels[measured], expected[measured], rtol=1e-6)
        assert (read.voxels[~measured] == read.voxels.min()).all()
        for axis, along in AXES.items():
            assert len(slices_with_content(read.voxels, axis)) <= read.voxels.shape[along]
    assert refused == [
        (
            "row_major.dconn.nii",
            "it is meant as 'ConnDense' (NIfTI's intent), not as an image",
        )
    ]
