"""`Cohort` and `load_cohort`: what may be made, what is loaded, what is said of it."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from conocc.data import load as loading
from conocc.data.cohort import SPLITS, Cohort
from conocc.data.decoding import UnreadableImagesError, survey_all
from conocc.data.load import load_cohort
from conocc.data.near_copies import near_copies
from conocc.data.preprocessing import Preprocessing
from made_cohorts import make_folder, pixels, write_image
from made_dicom import dicom


def cohort(**change):
    """Four images by hand: two that train, one of each class to test."""
    values = {
        "name": "made",
        "images": np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)
        * np.ones((1, 1, 16, 16), "f4"),
        "minority": np.array([False, False, False, True]),
        "patient": np.array(["ann", "bob", "eve", "eve"]),
        "split": np.array(["train", "train", "test", "test"]),
        "path": np.array(["a/1.png", "a/2.png", "a/3.png", "b/1.png"]),
        "digest": np.array(["01", "02", "03", "04"]),
        "label": np.array(["a", "a", "a", "b"]),
        "preprocessing": Preprocessing(size=16),
        "patients_known": True,
        "notes": ("made by hand.",),
    }
    return Cohort(**{**values, **change})


def load(where, **settings):
    names = {field.name for field in dataclasses.fields(Preprocessing)}
    preprocessing = Preprocessing(**{k: v for k, v in settings.items() if k in names})
    rest = {k: v for k, v in settings.items() if k not in names}
    return load_cohort(where, preprocessing, **{"cache": False, "n_jobs": 1, **rest})


def said(loaded, words):
    """The one note that has these words."""
    (note,) = [note for note in loaded.notes if words in note]
    return note


def sides(loaded):
    """Path to side."""
    return dict(zip(loaded.path.tolist(), loaded.split.tolist(), strict=True))


# Cohort


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"patient": np.array(["ann"])}, r"'patient' .* each of 4 images. Got shape \(1,\)"),
        ({"digest": np.array(["01"] * 5)}, r"'digest' .* Got shape \(5,\)"),
        (
            {"minority": np.array([0, 0, 0, 1])},
            "'minority' of a cohort must be bool.* Got shape .* of int64",
        ),
        (
            {"patient": np.array([1, 2, 3, 3])},
            "'patient' of a cohort must be str.* Got shape .* of int64",
        ),
        ({"images": np.zeros((4, 1, 16, 16))}, r"must be float32 .* Got float64 of shape \(4, 1,"),
        ({"images": np.zeros((4, 16, 16), "f4")}, r"must be float32 of shape \(n, c, h, w\)"),
        ({"split": np.array(["train", "train", "val", "test"])}, "Got 'val'"),
        (
            {"minority": np.array([False, True, False, True])},
            r"must not be in train: 'a/2\.png' is \(1 of 4 images\)",
        ),
        (
            {"split": np.array(["train", "train", "test", "calibration"])},
            r"must not be in calibration: 'b/1\.png'",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(change, sentence):
    """Lengths, types, sides, and above all minority images in training."""
    with pytest.raises(ValueError, match=sentence):
        cohort(**change)


def test_the_patients_cannot_be_forgotten():
    with pytest.raises(TypeError, match="patient"):
        Cohort(name="x", images=np.zeros((1, 1, 16, 16), np.float32))


def test_a_cohort_is_frozen_and_leaves_the_callers_arrays_alone():
    images = np.zeros((4, 1, 16, 16), np.float32)
    made = cohort(images=images)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"
    with pytest.raises(ValueError, match="read-only"):
        made.images[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        made.minority[3] = False
    images[0] = 1
    assert np.shares_memory(images, made.images)


def test_a_cohort_does_not_print_its_patients():
    """Nor its pixels: what is shown in a traceback is its size."""
    assert repr(cohort()) == "<Cohort 'made': 4 images of 16x16 pixels>"


def test_a_notebook_shows_counts_and_some_images_of_each_class_and_no_names():
    made = cohort(name="<b>x</b>")
    page = made._repr_html_()
    assert "&lt;b&gt;x" in page
    assert "<b>" not in page
    counts = [tuple(map(str, row)) for row in made.counts().to_numpy().tolist()]
    for row in counts:
        assert re.search(r"\s*".join(f"<td>{value}</td>" for value in row), page)
    shown = re.findall('data:image/png;base64,([^"]+)', page)
    sizes = [Image.open(io.BytesIO(base64.b64decode(one))).size for one in shown]
    assert sizes == [(3 * 18 - 2, 16), (16, 16)]
    for name in (*made.path, *made.patient):
        assert name not in re.sub('src="[^"]*"', "", page)


def test_where_chooses_a_side_and_a_class():
    made = cohort()
    assert made.rows(split="test").tolist() == [2, 3]
    assert made.rows(minority=True).tolist() == [3]
    assert made.rows(split="test", minority=False).tolist() == [2]
    assert made.rows().tolist() == [0, 1, 2, 3]
    assert made.where(split="test").path.tolist() == ["a/3.png", "b/1.png"]
    assert len(made.where(split="unused")) == 0
    with pytest.raises(ValueError, match=r"'split' must be one of train, .*Got 'val'"):
        made.where(split="val")


def test_a_run_of_rows_is_a_view_and_others_are_a_copy():
    made = cohort()
    assert np.shares_memory(made.where(split="train").images, made.images)
    chosen = made.take([3, 0])
    assert not np.shares_memory(chosen.images, made.images)
    assert chosen.images[:, 0, 0, 0].tolist() == [3, 0]
    assert chosen.label.tolist() == ["b", "a"]
    assert made.take(np.array([True, False, False, True])).path.tolist() == ["a/1.png", "b/1.png"]
    assert len(made.take([])) == 0


@pytest.mark.parametrize("rows", [[4], [-1], [-2, -1], [3, 4], [0.5], [[0, 1]], [True]])
def test_rows_that_are_not_there_are_refused(rows):
    with pytest.raises(ValueError, match="'rows' parameter must be positions from 0 to 3"):
        cohort().take(rows)


def test_counts_and_table():
    """By hand: eve is on the test side in both classes."""
    assert cohort().counts().to_dict("list") == {
        "split": ["train", "test", "test"],
        "class": ["majority", "majority", "minority"],
        "images": [2, 1, 1],
        "patients": [2, 1, 1],
    }
    table = cohort().table()
    assert list(table) == ["path", "digest", "patient", "label", "minority", "split"]
    assert table["path"].tolist() == ["a/1.png", "a/2.png", "a/3.png", "b/1.png"]


def test_leaks_are_patients_and_images_on_two_sides():
    """What is unused leaks nothing."""
    assert not cohort().leaks()
    assert cohort().leaks().sentences() == ()
    leaks = cohort(
        patient=np.array(["ann", "bob", "bob", "eve"]), digest=np.array(["01", "02", "03", "01"])
    ).leaks()
    assert leaks.patients == ("bob",)
    assert leaks.images == (("a/1.png", "b/1.png"),)
    assert leaks.sentences() == (
        "LEAK: 1 patient on more than one side of the split ('bob' …).",
        "LEAK: 1 image identical on more than one side of the split ('a/1.png' = 'b/1.png' …).",
    )
    unused = cohort(
        patient=np.array(["ann", "ann", "ann", "eve"]),
        split=np.array(["train", "train", "unused", "test"]),
    )
    assert not unused.leaks()


def test_near_copies_leak_where_patients_are_not_known():
    """Of five images drawn at random the second is the first, brighter, with a mark on it."""
    images = np.random.default_rng(0).normal(100, 20, (5, 1, 48, 40)).astype("f4")
    images[1] = images[0] * 1.2 + 5
    images[1, 0, :2, :6] = 200
    images[3:] = 7  # without contrast, alike, and no evidence
    path = np.array([f"{i}.png" for i in range(5)])
    of = {"images": images, "path": path, "patient": path, "digest": path, "label": path}
    of |= {"minority": np.zeros(5, bool), "split": np.array(["train", *["test"] * 3, "train"])}
    leaks = cohort(**of, patients_known=False).leaks()
    assert leaks.near_copies == (("1.png", "0.png"),)
    assert leaks.sentences() == (
        "LEAK: 1 image nearly identical to one that trains ('1.png' and '0.png' …), as if of one "
        "patient: figures come out too good. Say who the patients are (--patient-regex, or a "
        "table).",
    )
    same = cohort(**{**of, "digest": path[[0, 0, 2, 3, 4]]}, patients_known=False).leaks()
    assert same.images
    assert not same.near_copies  # said once
    assert not cohort(**of).leaks()


@pytest.mark.parametrize(("most", "found"), [(2000, 300), (50, 50)])
def test_of_many_images_some_are_looked_at_for_near_copies(monkeypatch, most, found):
    """All of 300 are copies; a frame that all share, and a flat ground, make nobody alike."""
    monkeypatch.setattr("conocc.data.near_copies.MOST_IMAGES", most)
    images = np.random.default_rng(0).normal(0, 1, (600, 2, 32, 32)).astype("f4")
    images[:, :, :2] = 500
    rows = np.arange(300)
    assert not near_copies(images, rows, 300 + rows)
    images[300:] = images[:300]
    assert near_copies(images, rows, 300 + rows) == {i: 300 + i for i in rows[:: 300 // found]}


# Loading


@pytest.fixture
def kaggle(tmp_path):
    """A small one, as Kaggle lays it out."""
    return make_folder(
        tmp_path / "chest",
        "train/NORMAL/IM-0001-0001.png",
        "train/NORMAL/IM-0002-0001.png",
        "train/NORMAL/NORMAL2-IM-0003-0001.png",
        "train/PNEUMONIA/person1_virus_1.png",
        "val/NORMAL/IM-0009-0001.png",
        "test/NORMAL/IM-0003-0001.png",
        "test/PNEUMONIA/person7_bacteria_1.png",
        "test/PNEUMONIA/person7_bacteria_2.png",
    )


def test_official_split_as_it_is_loaded(kaggle):
    """Ordered by side, class and path; validation and minority training images are not there."""
    loaded = load(kaggle)
    assert loaded.path.tolist() == [
        "train/NORMAL/IM-0001-0001.png",
        "train/NORMAL/IM-0002-0001.png",
        "train/NORMAL/NORMAL2-IM-0003-0001.png",
        "test/NORMAL/IM-0003-0001.png",
        "test/PNEUMONIA/person7_bacteria_1.png",
        "test/PNEUMONIA/person7_bacteria_2.png",
    ]
    assert loaded.split.tolist() == ["train"] * 3 + ["test"] * 3
    assert loaded.minority.tolist() == [False] * 4 + [True] * 2
    assert loaded.label.tolist() == ["NORMAL"] * 4 + ["PNEUMONIA"] * 2
    assert loaded.patient.tolist() == [
        "IM-0001",
        "IM-0002",
        "NORMAL2-IM-0003",
        "IM-0003",
        "person7",
        "person7",
    ]
    expected = pixels((kaggle / loaded.path[4]).as_posix())
    assert np.array_equal(loaded.images[4, 0], expected)
    assert loaded.name == "chest"
    assert loaded.preprocessing == Preprocessing(size=16, scaled=True)
    assert loaded.patients_known


def test_the_notes_say_what_was_decided_and_found(kaggle):
    """Sentences: layout, classes, patients, split, counts, what was left aside."""
    (kaggle / "train" / "NORMAL" / "readme.txt").write_text("x")
    assert load(kaggle).notes == (
        "'chest' is laid out as {train,val,test}/CLASS.",
        "Majority class: NORMAL (4 images). Minority class: PNEUMONIA (2 images).",
        "Patients are read from names as in the ChestX set.",
        "The split is the cohort's own.",
        "train: 3 majority images of 3 patients.",
        "test: 1 majority image of 1 patient, 2 minority images of 1 patient.",
        "1 minority image of the training split left unused.",
        "1 validation image left unused.",
        "1 file beside the images left aside: 1 document.",
    )


def test_what_is_unused_is_not_opened(kaggle):
    """A minority training image can do no harm, not even by being broken."""
    (kaggle / "train/PNEUMONIA/person1_virus_1.png").write_bytes(b"broken")
    (kaggle / "val/NORMAL/IM-0009-0001.png").write_bytes(b"")
    assert len(load(kaggle)) == 6


def test_training_patients_of_a_given_split_are_kept_for_calibration(kaggle):
    """A third of three patients; nothing else moves, and the notes say so."""
    loaded = load(kaggle, calibration_size=0.3, split_seed=1)
    assert loaded.split.tolist() == ["train"] * 2 + ["calibration"] + ["test"] * 3
    assert not loaded.leaks()
    assert "30 % are kept for calibration, with split_seed=1" in said(loaded, "cohort's own")
    assert said(loaded, "calibration: ") == "calibration: 1 majority image of 1 patient."
    with pytest.raises(ValueError, match=r"calibrate on must be .* Got 2"):
        load(kaggle, calibration_size=2)


def test_leaks_of_a_given_split_are_reported_not_mended(kaggle):
    shutil.copy(kaggle / "train/NORMAL/IM-0001-0001.png", kaggle / "test/NORMAL/IM-0002-0009.png")
    loaded = load(kaggle)
    assert loaded.split.tolist() == ["train"] * 3 + ["test"] * 4
    assert "1 patient on more than one side" in said(loaded, "LEAK: 1 patient")
    assert "'test/NORMAL/IM-0002-0009.png'" in said(loaded, "LEAK: 1 image")
    assert loaded.leaks().patients == ("IM-0002",)


@pytest.fixture
def classes(tmp_path):
    """Three class folders, ten patients, of whom p0 to p5 have images of two classes."""
    return make_folder(
        tmp_path / "scans",
        *(f"benign/p{i}_a.png" for i in range(10)),
        *(f"malignant/p{i}_b.png" for i in range(6)),
        *(f"normal/p{i}_c.png" for i in range(3)),
    )


def test_class_folders_are_split_by_patient(classes):
    """10 majority images, one a patient: six train; their minority images are unused."""
    loaded = load(classes, majority="benign", patient_regex=r"(p\d+)_")
    assert (loaded.split == "train").sum() == 6
    trained = set(loaded.patient[loaded.split == "train"])
    for path, side in sides(loaded).items():
        patient = path.split("/")[1].split("_")[0]
        if path.startswith("benign"):
            assert side == ("train" if patient in trained else "test")
        else:
            assert side == ("unused" if patient in trained else "test")
    assert "60 % to 40 %" in said(loaded, "split_seed=0")
    unused = (loaded.split == "unused").sum()
    assert said(loaded, "unused: ").startswith(f"unused: {unused} image")


def test_what_many_patients_share_makes_no_one_patient_of_them(tmp_path):
    """A black slice of all, and one without contrast of two; either is on one side alone."""
    folder = make_folder(tmp_path, *(f"a/p{i}_1.png" for i in range(10)))
    black = Image.new("L", (16, 16))
    for i in range(10):
        black.save(folder / f"a/p{i}_2.png")
    grey = Image.new("L", (16, 16), 9)
    for i in range(2):
        grey.save(folder / f"a/p{i}_3.png")
    loaded = load(folder, majority="a", patient_regex=r"(p\d+)_")
    own = np.array([path.endswith("_1.png") for path in loaded.path])
    assert set(loaded.split[own].tolist()) == {"train", "test"}
    assert not loaded.leaks()
    assert "12 images of several patients without contrast, or of more than 3, make nobody" in said(
        loaded, "The split was made"
    )


def test_a_split_without_a_test_is_refused(tmp_path):
    folder = make_folder(tmp_path, "a/p1_1.png", "a/p1_2.png", "b/p2_3.png")
    with pytest.raises(ValueError, match="no majority image for the test: all 2 are of one pat"):
        load(folder, majority="a", patient_regex=r"(p\d+)_")
    loaded = load(folder, majority="a", patient_regex=r"(p\d+)_", test_size=0)
    assert loaded.split.tolist() == ["train", "train", "test"]
    assert set(load(folder, majority="a", test_size=1).split) == {"test"}


def test_classes_can_be_left_out_or_chosen(classes):
    """Counted, and never opened."""
    (classes / "normal/p0_c.png").write_bytes(b"nothing")
    asked = {"exclude": ("normal",)}, {"minority": ("malignant",)}
    for options in asked:
        loaded = load(classes, majority="benign", **options)
        assert set(loaded.label) == {"benign", "malignant"}
        assert "Left out, as asked: normal (3 images)." in loaded.notes
        assert "Minority class: malignant (6 images)." in said(loaded, "Majority class")
    both = load(classes, majority="benign", exclude=("malignant", "normal"))
    assert not both.minority.any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"exclude": ("norml",)}, r"'exclude' parameter must name classes .* Got 'norml'"),
        ({"minority": ("x", "normal")}, r"'minority' parameter must name classes .* Got 'x'"),
        ({"exclude": ("benign",)}, r"'exclude' parameter must not name the majority. Got 'benign'"),
        ({"minority": ("benign",)}, r"'minority' parameter must not name the majority"),
    ],
)
def test_classes_that_cannot_be_left_out_or_chosen_are_refused(classes, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(classes, majority="benign", **options)


def test_names_of_patients_hold_in_one_folder_or_table_or_everywhere(tmp_path):
    """Whether two cohorts that number from 1 mean the same people."""

    def namespace(where, **options):
        return load(where, majority="a", **options).namespace

    for name in ("one", "two"):
        make_folder(tmp_path / name, "a/p1.png", "a/p2.png")
    one, two = (namespace(tmp_path / name, patient_regex="p(.)") for name in ("one", "two"))
    assert one != two
    assert one == namespace(f"{tmp_path}/two/../one", patient_regex="p(.)")
    for name in ("one", "two"):
        (tmp_path / name / "patients.csv").write_text("file,patient\na/p1.png,1\na/p2.png,2\n")
        for manifest in ("x.csv", "y.csv"):
            (tmp_path / name / manifest).write_text("path,label\na/p1.png,a\na/p2.png,a\n")
    table = namespace(tmp_path / "one")
    assert table not in (one, namespace(tmp_path / "two"))
    assert table == namespace(tmp_path / "one/x.csv") == namespace(tmp_path / "one/y.csv")
    public = make_folder(tmp_path / "chest", "a/IM-0001-0001.png", "a/IM-0002-0001.png")
    assert namespace(public) == ""


def test_several_classes_can_be_the_majority(classes):
    loaded = load(classes, majority=["benign", "malignant"])
    assert set(loaded.label[loaded.minority]) == {"normal"}
    assert (
        said(loaded, "Majority") == "Majority class: benign (10 images), malignant (6 images). "
        "Minority class: normal (3 images)."
    )
    assert not loaded.patients_known
    assert loaded.patient.tolist() == loaded.path.tolist()


@pytest.mark.parametrize(
    ("paths", "regex"),
    [
        ([f"{c}/{c}{p}/{i}.png" for c in "ab" for p in range(4) for i in "12"], "^[^/]+/([^/]+)/"),
        (
            [f"{s}/a/{s}{p}/v/{i}.png" for s in ("train", "test") for p in "34" for i in "12"],
            "^[^/]+/[^/]+/([^/]+)/",
        ),
        ([f"{c}/part{p}/{i}.png" for c in "ab" for p in range(4) for i in "12"], ""),
        ([f"{c}/{c}{p}/1.png" for c in "ab" for p in range(4)], ""),
        ([f"{c}/images{c}/{i}.png" for c in "a" for i in range(8)], ""),
    ],
)
def test_folders_that_may_be_patients_are_asked_about(tmp_path, paths, regex):
    """Where they hold several images each and are in one class; the advice can be followed."""
    loaded = load(make_folder(tmp_path, *paths), majority="a")
    notes = [note for note in loaded.notes if "If each is a patient" in note]
    assert len(notes) == bool(regex)
    if regex:
        assert f"patient_regex='{regex}'" in notes[0]
        loaded = load(tmp_path, majority="a", patient_regex=regex)
        assert len(set(loaded.patient)) < len(loaded)
        assert not any("If each is a patient" in note for note in loaded.notes)


def test_byte_identical_images_stay_together(tmp_path):
    """Wherever they lie, at any seed; and the notes tell of them."""
    folder = make_folder(tmp_path, *(f"a/{i}.png" for i in range(8)), "b/0.png", "b/1.png")
    write_image(folder / "a/twin.png", like="twin")
    write_image(folder / "b/twin.png", like="twin")
    for seed in range(6):
        loaded = load(folder, majority="a", split_seed=seed)
        side = sides(loaded)
        assert (side["a/twin.png"], side["b/twin.png"]) in (("train", "unused"), ("test", "test"))
    assert "2 images have an identical twin ('a/twin.png' …)" in said(loaded, "identical twin")
    assert "in the majority and in the minority class" in said(loaded, "in the majority and")


@pytest.mark.parametrize("name", ["bmp", "tif", "pgm", "gif", "webp", "npy", "jp2", "dcm"])
def test_the_same_pixels_in_another_format_are_identical(tmp_path, name):
    """Also of a grey image as three channels; what differs by one grey level is not identical."""
    folder = make_folder(tmp_path / "set", *(f"a/{i}.png" for i in range(8)), "b/0.png", "b/1.png")
    grey = np.random.default_rng(5).integers(0, 256, (16, 16)).astype(np.uint8)
    other = grey.copy()
    other[3, 3] ^= 1
    Image.fromarray(grey).save(folder / "a/grey.png")
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(folder / "a/colour.png")
    Image.fromarray(other).save(folder / "b/other.png")
    twin = folder / f"b/twin.{name}"
    if name == "npy":
        np.save(twin, grey)
    elif name == "dcm":
        twin.write_bytes(dicom(grey))
    else:
        Image.fromarray(grey).save(twin, **({"lossless": True} if name == "webp" else {}))
    for cache in (tmp_path / "cache",) * 2 + (False,):
        for seed in range(4):
            loaded = load(folder, majority="a", split_seed=seed, cache=cache)
            side = sides(loaded)
            assert side["b/other.png"] == "test"
            found = (
                side["a/grey.png"],
                side["a/colour.png"],
                side[twin.relative_to(folder).as_posix()],
            )
            assert found in (("train", "train", "unused"), ("test", "test", "test"))
        assert "3 images have an identical twin ('a/colour.png' …)" in said(loaded, "twin")
    moved = dataclasses.replace(loaded, split=np.where(loaded.label == "b", "test", "train"))
    assert any(
        "1 image identical on more than one side" in one for one in moved.leaks().sentences()
    )


@pytest.mark.parametrize(
    ("majority", "sentence"),
    [
        (
            None,
            r"Which class of 'scans' is the majority, .* is not known\. Its classes are "
            r"benign \(10 images\), malignant \(6 images\), normal \(3 images\)\. "
            r".*majority='benign' \(--majority benign\)",
        ),
        ("bening", r"must name classes of 'scans', which are benign \(10 .* Got 'bening' instead"),
        (["benign", "x"], "Got 'x' instead"),
        ([], r"Got \[\] instead"),
    ],
)
def test_the_majority_is_never_guessed(classes, majority, sentence):
    """All classes are named, with how many images each has, and what to pass."""
    with pytest.raises(ValueError, match=sentence):
        load(classes, majority=majority)


@pytest.mark.parametrize("majority", [None, "films"])
def test_one_class_alone_is_the_majority(majority, tmp_path):
    folder = make_folder(tmp_path / "films", "1.png", "2.png", "3.png")
    loaded = load(folder, majority=majority)
    assert "There is no minority image." in said(loaded, "Majority")
    (folder / "labels.csv").write_text("path,label\n1.png,ill\n")
    assert "If 'labels.csv' there lists the classes" in said(load(folder, majority=majority), "If")


def test_a_cohort_of_nothing_but_unused_images_is_refused(tmp_path):
    folder = make_folder(tmp_path, "train/b/1.png", "val/a/1.png")
    with pytest.raises(ValueError, match="holds no image to train on or to test"):
        load(folder, majority="a")


def test_every_layout_loads(tmp_path):
    """Manifest, archive, MVTec and phantom, each to the same kind of cohort."""
    manifest = make_folder(tmp_path / "m", "x/1.png", "x/2.png", "y/3.png") / "set.csv"
    manifest.write_text(
        "path,label,split,patient\nx/1.png,0,train,1\nx/2.png,0,test,2\ny/3.png,1,test,2\n"
    )
    images = np.stack([pixels(str(i)) for i in range(3)])
    np.savez(tmp_path / "own.npz", images=images, labels=[0, 0, 1], split=["train", "test", "test"])
    mvtec = make_folder(tmp_path / "v", "train/good/1.png", "test/good/2.png", "test/bad/3.png")
    for where, majority in ((manifest, "0"), (tmp_path / "own.npz", 0), (mvtec, None)):
        loaded = load(where, majority=majority)
        assert loaded.split.tolist() == ["train", "test", "test"]
        assert loaded.minority.tolist() == [False, False, True]
    assert load(manifest, majority=0).patient.tolist() == ["1", "2", "2"]


def test_phantoms_have_the_counts_of_table_1(tmp_path):
    """FFDM: 200 to train, 52 and 52 to test; nothing is written for them."""
    loaded = load_cohort("phantom-ffdm", Preprocessing(size=16), cache=tmp_path / "cache")
    assert loaded.counts()["images"].tolist() == [200, 52, 52]
    assert loaded.images.shape == (304, 1, 16, 16)
    assert load_cohort("phantom-ffdm").images.shape[2:] == (64, 64)
    assert not (tmp_path / "cache").exists()


def test_large_jpegs_are_scaled_unless_told_otherwise_and_the_cache_knows_which(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (128, 128), np.uint8)).save(path)
    for cache in (tmp_path / "cache", False):
        scaled, whole = (
            load_cohort(
                tmp_path / "set", Preprocessing(16, scaled=scaled), majority="a", cache=cache
            )
            for scaled in (True, False)
        )
        assert (scaled.preprocessing.scaled, whole.preprocessing.scaled) == (True, False)
        assert not np.array_equal(scaled.images, whole.images)


def test_shapes_and_sizes(tmp_path):
    """Differing shapes need a size; the size found is written into the reading."""
    folder = make_folder(tmp_path, "a/1.png", "a/2.png")
    write_image(folder / "b/3.png", side=20)
    with pytest.raises(ValueError, match=r"'a/1\.png' has 16x16 .*'b/3\.png' has 20x20"):
        load(folder, majority="a")
    loaded = load(folder, majority="a", size=24)
    assert loaded.images.shape == (3, 1, 24, 24)
    assert loaded.preprocessing == Preprocessing(size=24, scaled=True)
    small = tmp_path / "small"
    write_image(small / "a/1.png", side=8)
    write_image(small / "a/2.png", side=8)
    with pytest.raises(ValueError, match=r"Images have 8x8 pixels, where at least 16"):
        load(small, majority="a")
    with pytest.raises(ValueError, match=r"'size' parameter .* Got 15"):
        load(folder, majority="a", size=15)


def test_colour_is_told_of_and_can_be_kept(tmp_path):
    folder = make_folder(tmp_path, "a/1.png")
    write_image(folder / "a/2.png", colour=True)
    grey = load(folder, majority="a")
    assert grey.images.shape[1] == 1
    assert said(grey, "colour read") == (
        "1 image: colour read as grey; colour='rgb' (--colour rgb) keeps it."
    )
    kept = load(folder, majority="a", colour="rgb")
    assert kept.images.shape[1] == 3
    assert not [note for note in kept.notes if "in colour" in note]


def test_bad_files_stop_the_load_by_name(classes):
    """One sentence: the first, and how many."""
    (classes / "normal/p0_c.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"^Cannot read 'normal/p0_c\.png': it is empty \(0 bytes\)"
    ):
        load(classes, majority="benign")
    (classes / "benign/p3_a.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"'benign/p3_a\.png': .* 2 of 19 images cannot be read"):
        load(classes, majority="benign")


def test_the_order_does_not_depend_on_the_file_system(tmp_path, classes, monkeypatch):
    """Folders listed in any order give the same cohort."""
    loaded = load(classes, majority="benign")
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            self.items = sorted(scandir(path), key=lambda item: item.name, reverse=True)

        def __enter__(self):
            return iter(self.items)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("conocc.data.index.os.scandir", Backwards)
    again = load(classes, majority="benign")
    assert again.path.tolist() == loaded.path.tolist()
    assert again.notes == loaded.notes


# The cache


def test_the_cache_spares_decoding_and_gives_the_same(classes, tmp_path, monkeypatch):
    """Found again for the same files and reading: mapped, with the same notes."""
    write_image(classes / "benign/p0_a.png", colour=True)
    settings = {"majority": "benign", "cache": tmp_path / "cache"}
    plain = load(classes, majority="benign")
    first = load(classes, **settings)

    def no_decoding(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr("conocc.data.decoding.decode_remarked", no_decoding)
    second = load(classes, **settings)
    for loaded in (first, second):
        assert np.array_equal(loaded.images, plain.images)
        assert loaded.notes == plain.notes
    with pytest.raises(AssertionError, match="decoded again"):
        load(classes, **settings, size=20)
    write_image(classes / "benign/p1_a.png", like="changed")
    with pytest.raises(AssertionError, match="decoded again"):
        load(classes, **settings)


def test_the_cache_holds_each_image_once_whatever_the_split(classes, tmp_path, monkeypatch):
    """Other seeds, and a share for calibration, find what the first one kept."""
    settings = {"majority": "benign", "cache": tmp_path / "cache"}
    load(classes, **settings)
    monkeypatch.setattr("conocc.data.decoding.decode_remarked", None)
    for other in ({"split_seed": 1}, {"split_seed": 2, "calibration_size": 0.3}):
        loaded, plain = load(classes, **settings, **other), None
        monkeypatch.undo()
        plain = load(classes, majority="benign", **other)
        monkeypatch.setattr("conocc.data.decoding.decode_remarked", None)
        assert loaded.path.tolist() == plain.path.tolist()
        assert np.array_equal(loaded.images, plain.images)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_a_cache_that_cannot_be_used_is_left_out_with_a_note(classes, tmp_path):
    (tmp_path / "file").write_text("x")
    loaded = load(classes, majority="benign", cache=tmp_path / "file")
    assert np.array_equal(loaded.images, load(classes, majority="benign").images)
    assert "Decoded images are not kept" in loaded.notes[-1]


def test_a_damaged_cache_is_made_anew(classes, tmp_path, caplog):
    settings = {"majority": "benign", "cache": tmp_path / "cache"}
    first = load(classes, **settings)
    (array,) = (tmp_path / "cache").rglob("*.npy")
    array.write_bytes(array.read_bytes()[:-1000])
    again = load(classes, **settings)
    assert "is damaged" in caplog.text
    assert np.array_equal(again.images, load(classes, majority="benign").images)
    assert again.notes == first.notes


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_the_cache_is_private_and_tells_no_name(classes, tmp_path):
    load(classes, majority="benign", cache=tmp_path / "cache")
    assert stat.S_IMODE((tmp_path / "cache/images").stat().st_mode) == 0o700
    for file in (tmp_path / "cache").rglob("*"):
        assert "p0" not in file.name
        assert file.is_dir() or b"p0_a" not in file.read_bytes()


def test_a_failed_load_leaves_nothing_in_the_cache(classes, tmp_path):
    (classes / "normal/p0_c.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="p0_c"):
        load(classes, majority="benign", cache=tmp_path / "cache")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_all_that_cannot_be_read_is_known(classes, monkeypatch):
    """What cannot be fetched, what cannot be decoded: in one error, or left out if asked."""
    (classes / "benign/p0_a.png").write_bytes(b"x")
    (classes / "normal/p0_c.png").unlink()
    (classes / "normal/p0_c.png").symlink_to(classes / "nowhere")
    with pytest.raises(UnreadableImagesError, match=r"2 of 19 images cannot be read") as caught:
        load(classes, majority="benign")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    paths = ["benign/p0_a.png", "normal/p0_c.png"]
    assert [path for _, (path, _) in sorted(again.errors.items())] == paths
    hashed = []

    def counted(*images, **how):
        hashed.append(survey_all(*images, **how))
        return hashed[-1]

    monkeypatch.setattr(loading, "survey_all", counted)
    loaded = load(classes, majority="benign", skip_unreadable=True)
    assert (len(loaded), len(hashed)) == (17, 1)  # files are hashed once
    assert [path for path, _ in loaded.unreadable] == paths
    assert said(loaded, "cannot be read left out").startswith("2 images ('benign/p0_a.png' …)")


def test_threads_do_not_change_anything(classes):
    one, many = (load(classes, majority="benign", n_jobs=n_jobs) for n_jobs in (1, 4))
    assert np.array_equal(one.images, many.images)
    assert one.digest.tolist() == many.digest.tolist()


def test_loading_takes_neither_torch_nor_sklearn():
    """They take seconds, and nothing here needs them."""
    code = (
        "import sys; from conocc.data.load import load_cohort\n"
        "assert not {'torch', 'sklearn', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Real images


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_chest_xray_has_the_papers_counts_and_no_leak(data, cache):
    """Table 1: 1341 to train, 234 and 390 to test; 9 % of the patients have several images."""
    loaded = load_cohort(data / "chest_xray", Preprocessing(size=32), cache=cache)
    assert loaded.counts()["images"].tolist() == [1341, 234, 390]
    assert loaded.patients_known
    assert not loaded.leaks()
    _, images = np.unique(loaded.patient, return_counts=True)
    assert round(100 * (images > 1).mean()) == 9


def test_merging_normal2_would_invent_94_leaks(data, cache):
    """Which is why NORMAL2-IM-n and IM-n are two patients."""
    loaded = load_cohort(
        data / "chest_xray",
        Preprocessing(size=32),
        cache=cache,
        patient_regex=r"(IM-\d+|person\d+)",
    )
    assert len(loaded.leaks().patients) == 94


def test_lgg_patches_are_split_by_patient(data, cache):
    """110 patients, 109 of them with both classes; none on both sides."""
    loaded = load_cohort(data / "lgg-mri-patches", majority="tumour", cache=cache)
    assert loaded.images.shape == (2575, 1, 32, 32)
    assert ((~loaded.minority).sum(), loaded.minority.sum()) == (1313, 1262)
    assert len(np.unique(loaded.patient)) == 110
    assert not loaded.leaks()
    both = set(loaded.patient[loaded.minority]) & set(loaded.patient[~loaded.minority])
    assert len(both) == 109
    trained = (loaded.split == "train").sum() / 1313
    assert 0.6 <= trained < 0.65


def test_lgg_patients_who_calibrate_are_a_fifth_of_those_who_would_train(data, cache):
    """71 would train: 15 calibrate, of whose images nothing trains and nothing is tested."""
    settings = {"majority": "tumour", "cache": cache}
    before = load_cohort(data / "lgg-mri-patches", **settings)
    after = load_cohort(data / "lgg-mri-patches", **settings, calibration_size=0.2)
    patients = {side: set(after.patient[after.split == side]) for side in SPLITS}
    assert len(patients["calibration"]) == 15
    assert len(patients["train"]) == 56
    assert not patients["calibration"] & (patients["train"] | patients["test"])
    assert not after.minority[after.split == "calibration"].any()
    assert sorted(after.path[after.split == "test"]) == sorted(before.path[before.split == "test"])


def test_busi_has_one_byte_identical_pair_and_it_stays_together(data, cache):
    """437 benign and 210 malignant are the majority; the pair lies across their folders.

    Other images are near copies, which nothing keeps together: patients are not known.
    """
    for seed in range(4):
        loaded = load_cohort(
            data / "busi",
            Preprocessing(size=16),
            majority=["benign", "malignant"],
            split_seed=seed,
            cache=cache,
        )
        digests, first, times = np.unique(loaded.digest, return_index=True, return_counts=True)
        assert len(digests) == 779
        twins = loaded.digest == loaded.digest[first[times == 2][0]]
        assert sorted(loaded.label[twins]) == ["benign", "malignant"]
        assert len(set(loaded.split[twins])) == 1
    assert ((~loaded.minority).sum(), loaded.minority.sum()) == (647, 133)
    assert not loaded.patients_known
    leaks = loaded.leaks()
    assert not leaks.patients
    assert not leaks.images
    assert len(leaks.near_copies) > 0.1 * (loaded.split == "test").sum()


def test_pneumoniamnist(data, cache):
    """As its README says: 524 of val unused, 624 to test; label 0 is the majority."""
    loaded = load_cohort(data / "medmnist" / "pneumoniamnist.npz", cache=cache)
    train = (loaded.split == "train").sum()
    assert loaded.images.shape == (train + 624, 1, 28, 28)
    assert set(loaded.label[~loaded.minority]) == {"0"}
    assert "524 validation images" in said(loaded, "validation")
    assert said(loaded, "of the training split").startswith(f"{3882 - train} minority images")


def test_sides_of_the_split_are_listed_in_their_order():
    """Loaded cohorts lie in this order; the calibration side is for thresholds."""
    assert SPLITS == ("train", "calibration", "test", "unused")


def test_classes_that_differ_in_capitals_alone_are_not_told_apart_in_silence(tmp_path):
    """Majority images of a test set would count as missed minority."""
    folder = make_folder(tmp_path, *(f"{c}/{i}.png" for c in ("Benign", "benign") for i in (1, 2)))
    with pytest.raises(ValueError, match="'benign' and 'Benign' .* differ in capitals or ze"):
        load(folder, majority="benign")
    assert not load(folder, majority="benign,Benign").minority.any()
    assert not load(folder, majority="benign/,Benign/").minority.any()
    assert load(folder, majority="benign", exclude="Benign").images.shape[0] == 2


def test_labels_that_are_one_number_are_not_told_apart_in_silence(tmp_path):
    """As where one half of a table went through a spreadsheet or through pandas."""
    folder = make_folder(tmp_path, *(f"{i}.png" for i in range(6)))
    table, labels = folder / "m.csv", ["0", "0.0", "00", "1", "1.0", "10"]
    lines = [f"{i}.png,{label}\n" for i, label in enumerate(labels)]
    table.write_text("".join(["path,label\n", *lines]))
    with pytest.raises(ValueError, match=r"name all \(--majority 0,0.0,00\); if not, .*0.0,00\)"):
        load(table, majority="0")
    assert (~load(table, majority="0,0.0,00").minority).sum() == 3


def test_copies_of_another_format_are_named_where_nobody_knows_patients(tmp_path):
    """As previews in JPEG beside their originals: they would train and be tested."""
    folder = make_folder(tmp_path, "a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png")
    Image.open(folder / "a/3.png").save(folder / "a/3.bmp")  # a twin, which is known as one
    Image.open(folder / "a/1.png").resize((16, 16)).save(folder / "a/1.jpg")
    assert "2 images are called as another but for the suffix ('a/1." in said(
        load(folder, majority="a"), "suffix"
    )
    known = load(folder, majority="a", patient_regex="^(./.)")
    assert not any("suffix" in note for note in known.notes)


def test_patients_who_may_be_one_are_named(tmp_path):
    """Zeros, decimals and capitals; numbers that only begin alike are not."""
    folder = make_folder(tmp_path, *(f"{i}.png" for i in range(9)))
    names = ["007", "7", "100", "100.0", "p1", "P01", "10", "1000", "70"]
    lines = [f"{i}.png,a,{name}\n" for i, name in enumerate(names)]
    (folder / "m.csv").write_text("".join(["path,label,patient\n", *lines]))
    note = said(load(folder / "m.csv"), "capitals or zeros alone")
    assert note.startswith("6 patients have names")
    assert "'007' and '7' …" in note
    (folder / "m.csv").write_text("".join(["path,label,patient\n", *lines[1:3], *lines[6:]]))
    assert not any("zeros alone" in one for one in load(folder / "m.csv").notes)


@pytest.mark.parametrize("label", ["NA", "nan", "#N/A", "null", "n/a", "?", "Unknown"])
def test_a_class_that_is_missing_is_no_minority(tmp_path, label):
    """Unless that it is one, or that it is to be left out, is said."""
    folder = make_folder(tmp_path, *(f"{i}.png" for i in range(6)))
    lines = [f"{i}.png,{'a' if i < 3 else label if i == 3 else 'none'}\n" for i in range(6)]
    (folder / "m.csv").write_text("".join(["path,label\n", *lines]))
    with pytest.raises(ValueError, match="reads as if it were missing"):
        load(folder / "m.csv", majority="a")
    assert load(folder / "m.csv", majority="a", exclude=[label]).minority.sum() == 2
    assert load(folder / "m.csv", majority="a", minority=[label]).minority.sum() == 1


def test_images_of_8_bits_beside_deeper_ones_are_counted(tmp_path):
    """A detector would tell them apart by that alone."""
    folder = make_folder(tmp_path, *(f"a/{i}.png" for i in range(4)), "b/0.png")
    assert not any("8 bits" in note for note in load(folder, majority="a").notes)
    deep = np.random.default_rng(0).integers(0, 60_000, (16, 16)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "b/deep.png")
    assert said(load(folder, majority="a"), "8 bits").startswith("5 of 6 images have 8 bits a pix")


def test_a_majority_of_which_nothing_can_be_read_is_told(tmp_path):
    """Where images that cannot be read are left out, as `inspect` does."""
    folder = make_folder(tmp_path, "b/0.png", "b/1.png")
    (folder / "a").mkdir()
    (folder / "a" / "x.png").write_bytes(b"")
    loaded = load(folder, majority="a", skip_unreadable=True)
    assert said(loaded, "Majority class").startswith("Majority class: no image that can be read. M")


def test_another_error_does_not_hide_what_cannot_be_read(tmp_path):
    """There is one image to split, since the other one was left out."""
    folder = make_folder(tmp_path, "0.png")
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^A split leaves .* 0\)\. Cannot read '1.png': it is em"):
        load(folder, majority=None, skip_unreadable=True)
