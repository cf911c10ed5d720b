"""Images to be scored: what is found, cut and read of them, and the bad ones with their reasons."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from conocc import training
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import BLOCK, list_images, read_block, shards
from conocc.visualization.drawing import blank, save_figure
from made_cohorts import make_folder, pixels, write_image

READING = Preprocessing(size=16)
RASTER = ("png", "jpg", "tif", "webp", "avif", "gif")
DRAWN = "it is a picture that conocc drew, not an image of a patient"


def load(*where, preprocessing=READING, shape=(1, 16, 16)):
    """Everything in one block, through a pickle, as another process would read it."""
    parts = pickle.loads(pickle.dumps(list_images(where, preprocessing)))
    items = [item for part in parts for item in part.items(preprocessing.size)]
    block = read_block(preprocessing, shape, items)
    assert len(block.images) == len(block.path)
    assert block.images.shape[1:] == shape
    assert block.images.dtype == np.float32
    return block.images, list(block.path), dict(block.errors)


def test_files_and_folders_in_the_order_given(tmp_path):
    """Each by the path that leads to it from here."""
    make_folder(tmp_path, "b/2.png", "b/deep/1.png", "b/notes.png")
    write_image(tmp_path / "z.png", like="z")
    (tmp_path / "b" / "readme.txt").write_text("x")
    images, path, errors = load(tmp_path / "z.png", str(tmp_path / "b"))
    base = tmp_path.as_posix()
    assert path == [
        f"{base}/z.png",
        f"{base}/b/2.png",
        f"{base}/b/deep/1.png",
        f"{base}/b/notes.png",
    ]
    assert np.array_equal(images[0, 0], pixels("z"))
    assert not errors


def test_paths_are_told_as_they_were_given_and_hold_from_any_folder(tmp_path, monkeypatch):
    make_folder(tmp_path, "in/a/1.png", "in/2.png")
    monkeypatch.chdir(tmp_path / "in")
    parts = list_images(["a", "2.png", "../in/a/1.png", "."], READING)
    monkeypatch.chdir(tmp_path)
    told = [
        path for part in parts for path in read_block(READING, (1, 16, 16), part.items(16)).path
    ]
    assert told == ["a/1.png", "2.png", "../in/a/1.png", "2.png", "a/1.png"]


def test_bad_files_do_not_stop_the_good_ones(tmp_path):
    """Empty, cut, of another kind; an empty folder: each with a sentence."""
    make_folder(tmp_path, "a/1.png", "a/2.png", "a/3.png")
    (tmp_path / "a/1.png").write_bytes(b"")
    (tmp_path / "a/2.png").write_bytes((tmp_path / "a/3.png").read_bytes()[:50])
    (tmp_path / "letter.doc").write_text("Dear colleague")
    (tmp_path / "nothing").mkdir()
    base = tmp_path.as_posix()
    bad = ["a/1.png", "a/2.png", "letter.doc", "nothing"]
    images, path, errors = load(*(tmp_path / name for name in ("a", *bad[2:])))
    assert path == [f"{base}/a/3.png"]
    assert len(images) == 1
    assert list(errors) == [f"{base}/{name}" for name in bad]
    for name, reason in errors.items():
        assert name.split("/")[-1] in reason
        assert "\n" not in reason


@pytest.mark.parametrize("kind", RASTER)
def test_a_picture_that_conocc_drew_is_no_image_by_its_own_name_either(tmp_path, kind):
    """Named, or in a list, it had a score; in a folder it is left aside."""
    film, drawn = write_image(tmp_path / "film.png"), tmp_path / f"montage.{kind}"
    save_figure(blank(), drawn)
    (tmp_path / "list.csv").write_text(f"path\nfilm.png\nmontage.{kind}\n")
    for where in ((film, drawn), (tmp_path / "list.csv",)):
        images, _, errors = load(*where)
        assert len(images) == 1
        (reason,) = errors.values()
        assert reason.endswith(f"montage.{kind}': {DRAWN}.")


def test_an_empty_folder_says_so(tmp_path, monkeypatch):
    (tmp_path / "nothing").mkdir()
    base = tmp_path.as_posix()
    assert load(tmp_path / "nothing")[2] == {
        f"{base}/nothing": f"Cannot read '{base}/nothing': it is a folder without images."
    }
    monkeypatch.chdir(tmp_path / "nothing")
    assert load(".")[2] == {".": "Cannot read '.': it is a folder without images."}


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    make_folder(tmp_path, "1.png")
    with pytest.raises(FileNotFoundError, match=r"There is no '.*gone.png'"):
        list_images([tmp_path / "1.png", tmp_path / "gone.png"], READING)
    with pytest.raises(FileNotFoundError, match=r"There is no '.*gone.nii.gz"):
        list_images([tmp_path / "gone.nii.gz[3]"], READING)


def test_a_shard_is_of_so_many_images_whatever_they_lie_in(tmp_path):
    """An archive of 5, a folder of 3 and a file: 4, 4 and 1."""
    write_archive(tmp_path / "many.npz", 5)
    make_folder(tmp_path, "a/1.png", "a/2.png", "a/3.png", "z.png")
    where = [tmp_path / "many.npz", tmp_path / "a", tmp_path / "z.png"]
    cut = list(shards(list_images(where, READING), 4))
    assert [[len(part) for part in shard] for shard in cut] == [[4], [1, 3], [1]]
    whole = [path for part in list_images(where, READING) for path, _ in part.items(16)]
    assert [path for shard in cut for part in shard for path, _ in part.items(16)] == whole


def test_a_part_of_an_archive_is_read_from_its_place(tmp_path):
    write_archive(tmp_path / "many.npz", 9)
    (part,) = list_images([tmp_path / "many.npz"], READING)
    block = read_block(READING, (1, 16, 16), part.cut(3, 8).cut(2, 4).items(16))
    assert block.images[:, 0, 0, 0].tolist() == [5, 6]
    assert [path.rsplit("/", 1)[1] for path in block.path] == ["images[5]", "images[6]"]


def test_an_archive_that_was_replaced_is_read_anew(tmp_path):
    write_archive(tmp_path / "many.npz", 3)
    load(tmp_path / "many.npz")
    write_archive(tmp_path / "many.npz", 4)
    assert len(load(tmp_path / "many.npz")[0]) == 4


def write_archive(path, n):
    corner = np.arange(256, dtype=np.uint16).reshape(16, 16)
    images = np.arange(n, dtype=np.uint16)[:, None, None] + corner
    np.savez(path, images=images, labels=np.zeros(n, int))


@pytest.mark.parametrize(
    "others", [{}, {"arr_1": [0, 1]}, {"y": [0.5, 1.5], "patient_id": [1, 1], "split": [0, 1]}]
)
def test_an_archive_to_be_scored_needs_no_labels(tmp_path, others):
    """Nor are other arrays of concern, whatever they are called."""
    images = np.arange(512, dtype=np.uint16).reshape(2, 16, 16)
    np.savez(tmp_path / "new.npz", images=images, **others)
    _, path, errors = load(tmp_path / "new.npz")
    assert [one.rsplit("/", 1)[1] for one in path] == ["images[0]", "images[1]"]
    assert not errors


def test_stamps_tell_that_a_file_changed_or_went(tmp_path):
    make_folder(tmp_path, "1.png", "2.png")
    (part,) = list_images([tmp_path], READING)
    before = part.stamps()
    (tmp_path / "1.png").write_text("another")
    (tmp_path / "2.png").unlink()
    after = part.stamps()
    assert after[0] != before[0]
    assert after[1] is None


def test_a_detector_is_given_no_other_shape(tmp_path):
    write_image(tmp_path / "a.png", side=16)
    write_image(tmp_path / "b.png", side=20)
    _, path, errors = load(tmp_path, preprocessing=Preprocessing(size=None))
    assert [one.rsplit("/", 1)[1] for one in path] == ["a.png"]
    (reason,) = errors.values()
    assert reason.endswith("b.png' has 20x20 pixels, where 16x16 pixels are expected.")


def test_a_block_that_is_read_is_a_block_of_the_network():
    assert BLOCK == training.BLOCK


def test_a_mere_list_of_paths_needs_no_head_line(tmp_path):
    make_folder(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a/1.png\nb/2.png\n")
    _, path, errors = load(tmp_path / "list.txt")
    assert sorted(path) == sorted([f"{tmp_path}/a/1.png", "b/2.png"])
    assert not errors
    _, path, errors = load(tmp_path / "list.txt", tmp_path / "a/1.png")
    assert path == [f"{tmp_path}/a/1.png"]
    assert list(errors) == [f"{tmp_path}/list.txt"]


def test_manifests_and_phantoms_are_taken_for_their_images(tmp_path):
    """Classes and splits are of no concern; the names are those of the manifest."""
    make_folder(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    (tmp_path / "set.csv").write_text("path\na/1.png\n2.png\n")
    _, path, errors = load(tmp_path / "set.csv", "phantom-ffdm")
    assert path[:3] == ["a/1.png", "2.png", "phantom-ffdm/images[0]"]
    assert len(path) == 2 + 304
    assert not errors
