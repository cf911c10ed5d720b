"""Images to be scored: blocks of good ones, and the bad ones with their reasons."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from conocc.incoming import BLOCK, load_images
from conocc.readers import Reading
from made_cohorts import make_folder, pixels, write_image

READING = Reading(size=16)


def load(*where, reading=READING, **settings):
    """Everything of all blocks together."""
    blocks = list(load_images(where, reading, jobs=2, **settings))
    images = np.concatenate([block.images for block in blocks])
    path = [path for block in blocks for path in block.path]
    digest = [digest for block in blocks for digest in block.digest]
    errors = dict(error for block in blocks for error in block.errors)
    assert len(images) == len(path) == len(digest)
    return images, path, digest, errors


def test_files_and_folders_in_the_order_given(tmp_path):
    """Each by the path that leads to it from here, with its hash."""
    make_folder(tmp_path, "b/2.png", "b/deep/1.png", "b/notes.png")
    write_image(tmp_path / "z.png", like="z")
    (tmp_path / "b" / "readme.txt").write_text("x")
    z = tmp_path / "z.png"
    images, path, digest, errors = load(z, str(tmp_path / "b"))
    base = tmp_path.as_posix()
    assert path == [
        f"{base}/z.png",
        f"{base}/b/2.png",
        f"{base}/b/deep/1.png",
        f"{base}/b/notes.png",
    ]
    assert np.array_equal(images[0, 0], pixels("z"))
    assert digest[0] == hashlib.sha256(z.read_bytes()).hexdigest()
    assert not errors


def test_bad_files_do_not_stop_the_good_ones(tmp_path):
    """Empty, cut, missing, of another kind; an empty folder: each with a sentence."""
    make_folder(tmp_path, "a/1.png", "a/2.png", "a/3.png")
    (tmp_path / "a/1.png").write_bytes(b"")
    (tmp_path / "a/2.png").write_bytes((tmp_path / "a/3.png").read_bytes()[:50])
    (tmp_path / "letter.doc").write_text("Dear colleague")
    (tmp_path / "nothing").mkdir()
    base = tmp_path.as_posix()
    bad = ["a/1.png", "a/2.png", "gone.png", "letter.doc", "nothing"]
    images, path, _, errors = load(*(tmp_path / name for name in ("a", *bad[2:])))
    assert path == [f"{base}/a/3.png"]
    assert len(images) == 1
    assert sorted(errors) == sorted(f"{base}/{name}" for name in bad)
    for name, reason in errors.items():
        assert name.split("/")[-1] in reason
        assert "\n" not in reason


def test_only_bad_files_are_a_block_without_images(tmp_path):
    (block,) = load_images([tmp_path / "gone.png"], Reading(size=20, colour="rgb"))
    assert block.images.shape == (0, 3, 20, 20)
    assert len(block.errors) == 1


def test_nothing_asked_is_nothing_given():
    assert list(load_images([], READING)) == []


def test_blocks_are_bounded_and_complete(tmp_path):
    """Two whole blocks and a rest."""
    n = 2 * BLOCK + 3
    np.savez(
        tmp_path / "many.npz",
        images=np.arange(n, dtype=np.uint16)[:, None, None] + np.zeros((16, 16), np.uint16),
        labels=np.zeros(n, int),
    )
    blocks = list(load_images([tmp_path / "many.npz"], READING, jobs=2))
    assert [len(block.images) for block in blocks] == [BLOCK, BLOCK, 3]
    images = np.concatenate([block.images for block in blocks])
    assert images[:, 0, 0, 0].tolist() == list(range(n))
    assert blocks[2].path[2].endswith(f"many.npz/images[{n - 1}]")


def test_a_detector_is_given_no_other_shape(tmp_path):
    """The shape asked for, or that of the first image."""
    write_image(tmp_path / "a.png", side=16)
    write_image(tmp_path / "b.png", side=20)
    _, path, _, errors = load(tmp_path, reading=Reading(size=None))
    assert [one.rsplit("/", 1)[1] for one in path] == ["a.png"]
    (reason,) = errors.values()
    assert reason.endswith("b.png' has 20x20 pixels, where 16x16 pixels are expected.")
    _, path, _, errors = load(tmp_path, reading=Reading(size=None), shape=(1, 20, 20))
    assert [one.rsplit("/", 1)[1] for one in path] == ["b.png"]
    assert len(errors) == 1


def test_manifests_and_phantoms_are_taken_for_their_images(tmp_path):
    """Classes and splits are of no concern."""
    make_folder(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    (tmp_path / "set.csv").write_text("path,label\na/1.png,x\nb/2.png,y\n")
    _, path, _, errors = load(tmp_path / "set.csv", "phantom-ffdm")
    assert path[:3] == [
        f"{tmp_path.as_posix()}/a/1.png",
        f"{tmp_path.as_posix()}/b/2.png",
        "phantom-ffdm/images[0]",
    ]
    assert len(path) == 2 + 304
    assert not errors


def test_jobs_are_checked(tmp_path):
    with pytest.raises(ValueError, match="'jobs'"):
        next(load_images([tmp_path], READING, jobs=0))
