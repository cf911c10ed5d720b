"""Hashing and decoding on threads: in order, in bounds, naming what is bad."""

from __future__ import annotations

import hashlib
import threading
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image

from conocc.data.decoding import (
    COLOUR_LOST,
    CONSTANT,
    decode_all,
    digest_of,
    prefetch,
    said_of,
    survey_all,
    usable_threads,
)
from conocc.data.decoding import pixels as said
from conocc.data.image_io.read import decode
from conocc.data.index import read_file
from conocc.data.preprocessing import Preprocessing, prepare
from made_cohorts import make_folder, pixels, write_image

READING = Preprocessing(size=16)


def fetches(folder, names):
    return [partial(read_file, folder, name) for name in names]


def decoded(folder, names, preprocessing=READING, digests=None):
    if digests is None:
        surveyed = survey_all(fetches(folder, names), len(names), n_jobs=2, verbose=0)
        digests = [getattr(one, "digest", "") for one in surveyed]
    return list(
        decode_all(names, digests, fetches(folder, names), preprocessing, n_jobs=2, verbose=0)
    )


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("n", [0, 1, 4, 50])
def test_ahead_keeps_the_order(jobs, n):
    """Whichever thread is done first."""

    def slow_if_even(i):
        time.sleep(0.001 * (i % 2 == 0))
        return i * i

    assert list(prefetch(slow_if_even, range(n), n_jobs=jobs)) == [i * i for i in range(n)]


@pytest.mark.parametrize(("handful", "bound"), [(1, 8), (10, 80)])
def test_ahead_stays_within_bounds(handful, bound):
    """A caller who takes one result has not set off the whole work."""
    taken = []

    def count(i):
        taken.append(i)
        return i

    results = prefetch(count, iter(range(1000)), n_jobs=2, handful=handful)
    next(results)
    time.sleep(0.05)
    assert handful <= len(taken) <= bound
    results.close()


@pytest.mark.parametrize("size", [16, 32, 60])
def test_a_large_jpeg_is_scaled_if_the_reading_says_so(tmp_path, size):
    """256 pixels: an eighth is twice 16, a quarter twice 32, and a half twice 60 with 8 more."""
    grey = np.add.outer(np.arange(256), np.arange(256))
    smooth = (127 + 100 * np.sin(grey / 40)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    scaled, whole = Preprocessing(size=size), Preprocessing(size=size, scaled=False)
    (got,) = decoded(tmp_path, ["a.jpg"], scaled)
    np.testing.assert_array_equal(got.image, prepare(decode(data, "a", side=2 * size), scaled))
    (full,) = decoded(tmp_path, ["a.jpg"], whole)
    np.testing.assert_array_equal(full.image, prepare(decode(data, "a"), whole))
    difference = np.abs(got.image - full.image)
    assert 0 < difference.mean() < 1


def test_ahead_works_while_the_caller_does_other_things():
    """Results are made on other threads."""
    names = set(prefetch(lambda _: threading.current_thread().name, range(20), n_jobs=2))
    assert threading.current_thread().name not in names


def test_ahead_passes_errors_on():
    def broken():
        yield 1
        raise ValueError("ended early")

    with pytest.raises(ValueError, match="ended early"):
        list(prefetch(str, broken(), n_jobs=2))


def test_digests_are_of_bytes_or_of_type_shape_and_values():
    assert digest_of(b"x") == hashlib.sha256(b"x").hexdigest()
    image = np.zeros((4, 6), np.uint8)
    others = [image.T, image.astype(np.int8), image + 1, np.zeros((24,), np.uint8)]
    assert len({digest_of(one) for one in [image, *others]}) == 5
    assert digest_of(np.asfortranarray(image)) == digest_of(image)


def test_decoding(tmp_path):
    """Pixels as they lie in the file, the file's hash, and that colour was given up."""
    write_image(tmp_path / "grey.png", like="grey")
    write_image(tmp_path / "colour.png", colour=True)
    grey, colour = decoded(tmp_path, ["grey.png", "colour.png"])
    assert np.array_equal(grey.image[0], pixels("grey"))
    assert grey.digest == hashlib.sha256((tmp_path / "grey.png").read_bytes()).hexdigest()
    assert (grey.remarks, colour.remarks) == ((), (COLOUR_LOST,))
    (kept,) = decoded(tmp_path, ["colour.png"], Preprocessing(size=16, colour="rgb"))
    assert kept.image.shape == (3, 16, 16)
    assert not kept.remarks
    Image.new("L", (20, 20), 9).save(tmp_path / "flat.png")
    (flat,) = decoded(tmp_path, ["flat.png"])
    assert flat.remarks == (CONSTANT,)
    assert said_of({CONSTANT: 2, COLOUR_LOST: 1}) == (
        "2 images: every pixel has the same value.",
        "1 image: colour read as grey; colour='rgb' (--colour rgb) keeps it.",
    )


def test_all_files_are_tried_before_the_first_bad_one_is_named(tmp_path):
    names = ["a.png", "b.png", "c.png", "d.png"]
    make_folder(tmp_path, *names)
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"^Cannot read 'b\.png': .* 2 of 4 images cannot be read"):
        decoded(tmp_path, names)
    with pytest.raises(ValueError, match=r"^Cannot read 'd\.png': ") as caught:
        decoded(tmp_path, ["a.png", "d.png"])
    assert "of 2 images" not in str(caught.value)


def test_all_files_are_tried_for_hashing_too(tmp_path):
    make_folder(tmp_path, "a.png")
    names = ["a.png", "x.png", "y.png"]
    first, *others = survey_all(fetches(tmp_path, names), 3, n_jobs=2, verbose=0)
    assert len(first.digest) == 64
    assert ["No such file" in one.reason for one in others] == [True, True]


def test_a_file_that_changes_in_between_is_named(tmp_path):
    make_folder(tmp_path, "a.png")
    with pytest.raises(ValueError, match=r"'a\.png' changed while it was being read"):
        decoded(tmp_path, ["a.png"], digests=["0" * 64])


def test_differing_shapes_are_named_with_their_sizes(tmp_path):
    """Only where no size is asked for; a bad file comes first."""
    names = ["a.png", "b.png"]
    write_image(tmp_path / "a.png", side=16)
    write_image(tmp_path / "b.png", side=20)
    with pytest.raises(ValueError, match=r"'a\.png' has 16x16 .*'b\.png' has 20x20 .*size=64"):
        decoded(tmp_path, names, Preprocessing(size=None))
    assert len(decoded(tmp_path, names)) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_arrays_with_unusable_values_are_named(value):
    """As for files: NaN, infinite, or beyond what float32 holds."""
    image = np.zeros((16, 16))
    image[3, 4] = value
    digests = [digest_of(image)]
    with pytest.raises(ValueError, match=r"Cannot read 'images\[7\]': 1 of 256 values are NaN"):
        list(decode_all(["images[7]"], digests, [lambda: image], READING, n_jobs=1, verbose=0))


@pytest.mark.parametrize("kind", ["complex64", "longdouble", "datetime64[s]"])
def test_arrays_of_types_that_hold_no_pixels_are_named(kind):
    image = np.zeros((16, 16), kind)
    with pytest.raises(ValueError, match=r"'images\[7\]': its values are .*, not bool, integer or"):
        list(decode_all(["images[7]"], [""], [lambda: image], READING, n_jobs=1, verbose=0))


def test_threads():
    """All cores that this process may use, or as many as asked for."""
    assert usable_threads(3) == 3
    assert usable_threads(None) == usable_threads(-1) >= 1
    with pytest.raises(ValueError, match=r"'n_jobs' parameter must be at least 1.* Got 0"):
        usable_threads(0)


def test_shapes_in_words():
    assert said((3, 20, 30)) == "30x20 pixels in colour"
