"""Each layout: what it takes for which class and side, what it leaves aside, what it refuses."""

from __future__ import annotations

import pytest

from conocc.data.layouts import LAYOUTS, list_cohort
from made_cohorts import make_folder


def found(listing):
    """Path to (class, side) of each entry."""
    return {entry.path: (entry.label, entry.split) for entry in listing.entries}


def test_official_split(tmp_path):
    """Kaggle's names tell the majority; val is unused; what lies beside is counted."""
    folder = make_folder(
        tmp_path,
        "train/NORMAL/1.png",
        "train/PNEUMONIA/2.png",
        "val/NORMAL/3.png",
        "test/NORMAL/4.png",
        "test/PNEUMONIA/deep/er/5.png",
        "copy/train/NORMAL/1.png",
    )
    listing = list_cohort(folder)
    assert found(listing) == {
        "test/NORMAL/4.png": ("NORMAL", "test"),
        "test/PNEUMONIA/deep/er/5.png": ("PNEUMONIA", "test"),
        "train/NORMAL/1.png": ("NORMAL", "train"),
        "train/PNEUMONIA/2.png": ("PNEUMONIA", "train"),
        "val/NORMAL/3.png": ("NORMAL", "unused"),
    }
    assert listing.majority == {"NORMAL"}
    assert any(
        "1 image ('" in note and "beside the folders" in note and "copy/" in note
        for note in listing.notes
    )


def test_other_names_in_a_split_tell_no_majority(tmp_path):
    """NORMAL beside anything but PNEUMONIA is not Kaggle's set."""
    listing = list_cohort(make_folder(tmp_path, "train/NORMAL/1.png", "test/EFFUSION/2.png"))
    assert listing.majority is None


def test_an_image_in_no_class_folder_of_a_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'train/1\.png' .* is in no class folder"):
        list_cohort(make_folder(tmp_path, "train/1.png", "test/a/2.png"))


def test_mvtec(tmp_path):
    """Good is the majority; masks are counted and left aside."""
    folder = make_folder(
        tmp_path,
        "train/good/1.png",
        "test/good/2.png",
        "test/crack/3.png",
        "ground_truth/crack/3_mask.png",
    )
    listing = list_cohort(folder)
    assert found(listing) == {
        "test/crack/3.png": ("crack", "test"),
        "test/good/2.png": ("good", "test"),
        "train/good/1.png": ("good", "train"),
    }
    assert listing.majority == {"good"}
    assert any(note.startswith("1 mask (") for note in listing.notes)


def test_bmad(tmp_path):
    """Images in img/ are read, masks in label/ are not, valid/ is unused."""
    folder = make_folder(
        tmp_path,
        "train/good/1.png",
        "valid/good/img/2.png",
        "valid/good/label/2.png",
        "valid/Ungood/img/3.png",
        "valid/Ungood/label/3.png",
        "test/good/img/4.png",
        "test/good/label/4.png",
        "test/Ungood/img/5.png",
        "test/Ungood/label/5.png",
    )
    listing = list_cohort(folder)
    assert found(listing) == {
        "test/Ungood/img/5.png": ("Ungood", "test"),
        "test/good/img/4.png": ("good", "test"),
        "train/good/1.png": ("good", "train"),
        "valid/Ungood/img/3.png": ("Ungood", "unused"),
        "valid/good/img/2.png": ("good", "unused"),
    }
    assert any(note.startswith("4 masks (") for note in listing.notes)


def test_class_folders(tmp_path):
    """A folder for each class, however deep, and no side of a split; others are counted."""
    folder = make_folder(tmp_path, "benign/1.png", "malignant/x/2.png")
    for name in ("benign/mask.roi", "notes.csv", "patients.csv"):
        (folder / name).write_text("x")
    listing = list_cohort(folder)
    assert found(listing) == {
        "benign/1.png": ("benign", None),
        "malignant/x/2.png": ("malignant", None),
    }
    assert listing.majority is None
    assert listing.notes == (
        "2 files ('benign/mask.roi' …) that no reader knows by suffix left aside.",
    )


def test_a_folder_of_images_is_one_class_by_its_own_name(tmp_path):
    listing = list_cohort(make_folder(tmp_path / "films", "1.png", "2.png"))
    assert set(found(listing).values()) == {("films", None)}


def test_images_beside_class_folders_are_refused(tmp_path):
    """Nothing says which class they are of."""
    with pytest.raises(ValueError, match=r"1 image \('montage\.png'\) beside the class folders a,"):
        list_cohort(make_folder(tmp_path, "montage.png", "a/1.png", "b/2.png"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        ((), r"holds no images\. Files ending in \.bmp, "),
        (("a/x.doc",), r"holds no images, but 1 other file \('a/x\.doc'\)"),
        (("train/a/x.doc", "copy/1.png"), "holds no images in its class folders"),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path, make, sentence):
    for path in make:
        if path.endswith(".png"):
            make_folder(tmp_path, path)
        else:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text("x")
    with pytest.raises(ValueError, match=sentence):
        list_cohort(tmp_path)


def test_what_is_no_cohort_is_refused(tmp_path):
    """Nothing there, or a file of another kind."""
    with pytest.raises(FileNotFoundError, match=r"There is no 'nowhere'\. .*phantom-mri"):
        list_cohort("nowhere")
    make_folder(tmp_path, "1.png")
    with pytest.raises(ValueError, match=r"1\.png' is not a cohort"):
        list_cohort(tmp_path / "1.png")


def test_phantom():
    """Its own classes and split, at any size."""
    listing = list_cohort("phantom-ffdm", 16)
    assert len(listing.entries) == 304
    assert {entry.label for entry in listing.entries if entry.split == "train"} == set(
        listing.majority
    )
    (fetch,) = listing.fetch([303])
    assert fetch().shape == (16, 16)


def test_no_layout_is_recognised_where_there_is_nothing(tmp_path):
    """Recognising never fails, whatever is asked about."""
    for recognise, _ in LAYOUTS.values():
        assert not recognise(tmp_path / "nowhere")
