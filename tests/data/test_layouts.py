"""Each layout: what it takes for which class and side, what it leaves aside, what it refuses."""

from __future__ import annotations

import pytest

from conocc.data.classes import majority_classes
from conocc.data.image_io.read import decode
from conocc.data.index import ImageEntry
from conocc.data.layouts import LAYOUTS, list_cohort, mixtures
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
    with pytest.raises(
        ValueError,
        match=r"'train/1\.png' .* is in no class folder: .* another folder, such as '.*train'",
    ):
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
        "1 file beside the images left aside: 1 table.",
        "1 file ('benign/mask.roi') of no format that is read left aside.",
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
        ((), r"holds no images\. Files of DICOM, NIfTI, "),
        (("a/x.doc",), r"holds no images\. .* 1 file beside the images left aside: 1 document\."),
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


@pytest.mark.parametrize("sides", [("Training", "Testing"), ("TRAIN", "Validate")])
def test_a_split_is_known_by_every_word_that_a_manifest_may_use(tmp_path, sides):
    paths = [f"{side}/{label}/1.png" for side in sides for label in ("a", "b")]
    listing = list_cohort(make_folder(tmp_path, *paths))
    assert listing.layout == "{train,val,test}/CLASS"
    first, second = ({"Training": "train", "TRAIN": "train"}.get(s, "test") for s in sides)
    second = "unused" if sides[1] == "Validate" else second
    assert {entry.split for entry in listing.entries} == {first, second}


def test_good_images_may_lie_in_training(tmp_path):
    listing = list_cohort(make_folder(tmp_path, "Training/Good/1.png", "Testing/bad/2.png"))
    assert listing.majority == {"Good"}


@pytest.mark.parametrize(
    "paths",
    [
        ("train/NORMAL/1.png", "test/PNEUMONIA/2.png"),
        ("benign/1.png", "malignant/2.png"),
        ("benign/p1/1.png", "malignant/p2/2.png"),
    ],
)
def test_a_folder_that_holds_all_in_one_other_stands_for_it(tmp_path, paths):
    """However many levels too high it is named, and said."""
    below = list_cohort(make_folder(tmp_path / "archive/set/set", *paths))
    above = list_cohort(tmp_path / "archive")
    assert above.entries == below.entries
    assert above.majority == below.majority
    assert above.name == "set"
    assert above.notes[0] == "All is in 'set/set', which was taken for the cohort."
    assert below.notes == above.notes[1:]


def test_paths_begin_where_the_table_of_patients_lies(tmp_path):
    make_folder(tmp_path, "set/benign/1.png", "set/malignant/2.png")
    (tmp_path / "patients.csv").write_text("path,patient\n")
    listing = list_cohort(tmp_path)
    assert found(listing) == {
        "set/benign/1.png": ("benign", None),
        "set/malignant/2.png": ("malignant", None),
    }
    assert listing.folder == tmp_path
    next(iter(listing.fetch([1])))()


def test_one_folder_that_is_a_class_stays_a_class(tmp_path):
    """If it holds images, or was named."""
    make_folder(tmp_path / "one", "benign/1.png")
    assert found(list_cohort(tmp_path / "one")) == {"benign/1.png": ("benign", None)}
    make_folder(tmp_path / "three", "benign/images/1.png", "benign/masks/1.png")
    assert found(list_cohort(tmp_path / "three")) == {"benign/images/1.png": ("benign", None)}
    make_folder(tmp_path / "two", "benign/p1/1.png", "benign/p2/1.png")
    assert {label for label, _ in found(list_cohort(tmp_path / "two")).values()} == {"p1", "p2"}
    named = list_cohort(tmp_path / "two", named={"benign"})
    assert {label for label, _ in found(named).values()} == {"benign"}


def test_links_that_lead_round_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/a").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="holds no images"):
        list_cohort(tmp_path)


def test_a_folder_of_several_cohorts_is_refused_and_says_which_there_are(tmp_path):
    make_folder(tmp_path, "one/train/a/1.png", "two/Testing/b/2.png", "three/c/3.png")
    with pytest.raises(
        ValueError, match=r"split of their own: one, two\. Name one .*/one'.* classes"
    ):
        list_cohort(tmp_path)


def test_each_class_may_have_its_split(tmp_path):
    listing = list_cohort(make_folder(tmp_path, "a/train/1.png", "a/Test/2.png", "b/val/3.png"))
    assert found(listing) == {
        "a/Test/2.png": ("a", "test"),
        "a/train/1.png": ("a", "train"),
        "b/val/3.png": ("b", "unused"),
    }


@pytest.mark.parametrize(
    ("paths", "mixed"),
    [
        (("train_set/a/1.png", "test_set/b/2.png"), {"train_set", "test_set"}),
        (("one/a/1.png", "two/a/3.png"), set()),
        (("images/1.png", "plain/2.png"), {"images"}),
        (("train/images/1.png", "test/images/2.png"), {"images"}),
        (("a/train/1.png", "a/test/2.png", "b/train/3.png", "b/test/4.png"), set()),
    ],
)
def test_mixtures_of_classes_are_never_offered_as_majority(tmp_path, paths, mixed):
    listing = list_cohort(make_folder(tmp_path, *paths))
    assert mixtures(listing.entries) == mixed
    with pytest.raises(ValueError, match="majority, the one to train on, is not known") as caught:
        majority_classes(listing, None)
    others = {entry.label for entry in listing.entries} - mixed
    said = str(caught.value)
    offered = [label for label in (mixed | others) if f"--majority {label})" in said]
    assert offered == sorted(others)[:1]
    assert ("may hold several classes" in said) == (not others)


def test_a_class_that_lies_one_folder_lower_is_said_to(tmp_path):
    """As where each hospital has a folder."""
    listing = list_cohort(make_folder(tmp_path, "a/ben/1.png", "a/mal/2.png", "b/ben/3.png"))
    with pytest.raises(ValueError, match="'ben' instead. It is a folder within these"):
        majority_classes(listing, ["ben"])


@pytest.mark.parametrize("others", [(), ("three/a/5.png",), ("three/c/5.png",), ("four/6.png",)])
def test_of_sites_with_the_same_class_folders_none_is_offered_as_majority(tmp_path, others):
    """A third site, with one class or another one, was; and nobody was told of sites."""
    sites = ("one/a/1.png", "one/b/2.png", "two/a/3.png", "two/b/4.png")
    listing = list_cohort(make_folder(tmp_path, *sites, *others))
    assert {"one", "two"} <= mixtures(listing.entries)
    with pytest.raises(ValueError, match="majority, the one to train on, is not known") as caught:
        majority_classes(listing, None)
    said = str(caught.value)
    assert "hold the same folders: a (" in said
    assert "), b (2 images). If those are the classes, and these are sites" in said
    assert f"name one site, such as '{tmp_path / 'one'}', or list all images in a table" in said
    assert "--majority " not in said
    assert majority_classes(listing, ["one"]) == {"one"}  # it may be one, all the same


def test_a_split_within_each_class_makes_no_mixture_of_it(tmp_path):
    paths = [f"{one}/{side}/1.png" for one in ("a", "b") for side in ("train", "test")]
    listing = list_cohort(make_folder(tmp_path, *paths))
    assert mixtures(listing.entries) == set()
    with pytest.raises(ValueError, match=r"--majority a\)"):
        majority_classes(listing, None)


@pytest.mark.parametrize("majority", [None, "nv"])
def test_a_table_beside_the_images_is_pointed_at(tmp_path, majority):
    """It lists the classes in many public sets, whose folders are parts and not classes."""
    folder = make_folder(tmp_path, "images_part_1/1.png", "images_part_2/2.png")
    with pytest.raises(ValueError, match="majority") as without:
        majority_classes(list_cohort(folder), majority)
    (folder / "patients.csv").write_text("path,patient\n")  # it lists no classes
    (folder / "metadata.csv").write_text("image_id,dx\n1,nv\n2,mel\n")
    with pytest.raises(ValueError, match=r"If 'metadata\.csv' there lists the classes") as caught:
        majority_classes(list_cohort(folder), majority)
    assert str(caught.value).startswith(str(without.value))


def test_a_class_is_called_as_it_is_typed(tmp_path):
    """Whether a disk writes an accent apart (NFD), and blanks at the end, make no other class."""
    listing = list_cohort(make_folder(tmp_path, "be\u0301nin/1.png", "b\u00e9nin/2.png", "x/1.png"))
    assert ImageEntry("1.png", " x ").label == "x"
    assert {entry.label for entry in listing.entries} == {"b\u00e9nin", "x"}
    assert majority_classes(listing, ["be\u0301nin"]) == {"b\u00e9nin"}


def test_a_folder_counts_before_links_to_it(tmp_path):
    """The class is called by its folder, not by a link that comes before it in the alphabet."""
    make_folder(tmp_path, "benign/1.png", "x/1.png")
    (tmp_path / "again").symlink_to(tmp_path / "benign")
    assert {entry.label for entry in list_cohort(tmp_path).entries} == {"benign", "x"}


def test_what_icloud_has_not_brought_is_no_hidden_file(tmp_path):
    (make_folder(tmp_path, "a/1.png") / "a/.2.png.icloud").write_bytes(b"bplist00")
    listing = list_cohort(tmp_path)
    assert listing.unknown == ("a/.2.png.icloud",)
    with pytest.raises(ValueError, match="placeholder of iCloud .* download"):
        decode(b"bplist00", ".2.png.icloud")


def test_what_a_file_server_leaves_behind_is_no_class(tmp_path):
    listing = list_cohort(make_folder(tmp_path, "a/1.png", "a/@eaDir/1.png/S.png", "@eaDir/2.png"))
    assert list(found(listing)) == ["a/1.png"]


def test_folders_that_differ_in_numbers_alone_are_hardly_classes(tmp_path):
    """Ten patients are no choice of a majority; five grades may be."""
    listing = list_cohort(make_folder(tmp_path / "a", *(f"sub-{i}/1.png" for i in range(10))))
    with pytest.raises(ValueError, match="with their classes in a table"):
        majority_classes(listing, None)
    listing = list_cohort(make_folder(tmp_path / "b", *(f"grade{i}/1.png" for i in range(5))))
    with pytest.raises(ValueError, match="--majority grade0"):
        majority_classes(listing, None)


def test_a_folder_of_another_format_is_refused_with_what_to_do(tmp_path):
    """As fastMRI's, of HDF5."""
    (tmp_path / "a").mkdir()
    for name in ("1.h5", "2.h5"):
        (tmp_path / "a" / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(9))
    with pytest.raises(
        ValueError, match=r"2 files \('a/1.h5' …\) .* HDF5 file; save its images as"
    ):
        list_cohort(tmp_path)
