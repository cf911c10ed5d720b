"""Archives of arrays: own ones, MedMNIST's, and forged ones."""

from __future__ import annotations

import io
import re
import zipfile

import numpy as np
import pytest

from conocc.data.columns import TableOptions
from conocc.data.image_io.stack import is_slice_name
from conocc.data.layouts import list_cohort
from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing
from made_cohorts import pixels

GREY = np.stack([pixels(str(i)) for i in range(4)])


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def fetched(listing, rows):
    return [fetch() for fetch in listing.fetch(rows)]


def test_own_arrays(tmp_path):
    """Names, numbers or truth values as labels; patient and split if there are any."""
    path = save(
        tmp_path / "own.npz",
        images=GREY,
        labels=np.array(["well", "ill", "well", "well"]),
        patient=np.array([7, 7, 8, 9]),
        split=np.array(["train", "test", "val", "test"]),
        age=np.zeros(4),
    )
    listing = list_cohort(path)
    assert [(e.path, e.label, e.split, e.patient) for e in listing.entries] == [
        ("images[0]", "well", "train", "7"),
        ("images[1]", "ill", "test", "7"),
        ("images[2]", "well", "unused", "8"),
        ("images[3]", "well", "test", "9"),
    ]
    assert listing.notes == ("Arrays not used: age.",)
    assert listing.majority is None
    assert np.array_equal(fetched(listing, [1, 3]), GREY[[1, 3]])


def test_members_named_by_paths_lead_nowhere(tmp_path):
    path = save(tmp_path / "own.npz", images=GREY, labels=np.arange(4))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../../x.npy", "/etc/x.npy"):
            archive.writestr(name, archive.read("labels.npy"))
    assert list_cohort(path).notes == ("Arrays not used: ../../x, /etc/x.",)
    assert [file.name for file in tmp_path.iterdir()] == ["own.npz"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([[0], [1], [0], [0]]), ["0", "1", "0", "0"]),
        (np.array([0.0, 1.0, 0.0, 0.0]), ["0", "1", "0", "0"]),
        (np.array([False, True, False, False]), ["False", "True", "False", "False"]),
        (np.array([b"a", b"b", b"a", b"a"]), ["a", "b", "a", "a"]),
    ],
)
def test_labels_of_many_types(tmp_path, labels, names):
    listing = list_cohort(save(tmp_path / "own.npz", images=GREY, labels=labels))
    assert [entry.label for entry in listing.entries] == names


COLOUR = np.stack([pixels(str(i), colour=True) for i in range(4)])


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GREY[:, None], GREY),
        (GREY[..., None], GREY),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR),
        (np.asfortranarray(GREY), GREY),
        (GREY.astype(">u2"), GREY.astype(np.uint16)),
        (GREY > 99, (GREY > 99).astype(np.uint8)),
    ],
    ids=["1hw", "hw1", "hw3", "3hw", "fortran", "big-endian", "bool"],
)
def test_images_of_many_shapes_and_types(tmp_path, images, expected):
    """All come out as (h, w) or (h, w, 3), in native order."""
    listing = list_cohort(save(tmp_path / "own.npz", images=images, labels=np.zeros(4, int)))
    for image, one in zip(fetched(listing, range(4)), expected, strict=True):
        assert image.dtype == one.dtype
        assert np.array_equal(image, one)


def medmnist(path, **change):
    labels = np.array([[0], [1]])
    arrays = {}
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = np.stack([pixels(f"{part}{i}") for i in range(2)])
        arrays[f"{part}_labels"] = labels
    return save(path, **{**arrays, **change})


@pytest.mark.parametrize(
    ("name", "majority"),
    [
        ("pneumoniamnist", "0"),
        ("breastmnist_64", "1"),
        ("octmnist_224", None),  # its majority is 3, which this one does not hold
        ("bloodmnist", None),
    ],
)
def test_medmnist(tmp_path, name, majority):
    """The table knows some sets' majority by the file's name, whatever the size."""
    listing = list_cohort(medmnist(tmp_path / f"{name}.npz"))
    assert [(e.path, e.label, e.split) for e in listing.entries] == [
        ("train_images[0]", "0", "train"),
        ("train_images[1]", "1", "train"),
        ("val_images[0]", "0", "unused"),
        ("val_images[1]", "1", "unused"),
        ("test_images[0]", "0", "test"),
        ("test_images[1]", "1", "test"),
    ]
    known = listing.majority
    assert known == ({majority} if majority else ({"3"} if "oct" in name else None))
    third, last = fetched(listing, [2, 5])
    assert np.array_equal(third, pixels("val0"))
    assert np.array_equal(last, pixels("test1"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train_labels": np.zeros((2, 14))}, "train_labels gives each image 14 labels"),
        ({"train_images": np.zeros((2, 16, 16, 16))}, r"train_images holds volumes, of shape"),
        ({"test_labels": np.zeros(3)}, r"test_labels must have one value for each of 2 images"),
        ({"train_labels": np.array([0.5, 1])}, "must hold names or whole numbers"),
        ({"train_labels": np.array(["", "a"])}, "train_labels is empty for image 0"),
        ({"train_labels": np.zeros(2, complex)}, "must hold names or whole numbers"),
        ({"train_images": np.zeros((2, 16, 16), complex)}, "must hold numbers"),
        ({"train_images": np.zeros((2, 16))}, "train_images holds no images, of shape"),
        ({"train_images": np.zeros((2, 16, 0))}, "1 to 67108864 pixels are read"),
        ({"train_labels": np.array([None, 1])}, "holds Python objects"),
    ],
)
def test_sets_that_do_not_do_are_refused(tmp_path, change, sentence):
    """The array and the reason are named."""
    with pytest.raises(ValueError, match=sentence) as caught:
        list_cohort(medmnist(tmp_path / "set.npz", **change))
    assert "set.npz'" in str(caught.value)


def test_arrays_of_other_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must have the arrays images and labels.* It has a, b"):
        list_cohort(save(tmp_path / "set.npz", a=GREY, b=np.zeros(4)))
    with pytest.raises(ValueError, match="It lacks labels. It has images"):
        list_cohort(save(tmp_path / "set.npz", images=GREY))
    with pytest.raises(ValueError, match="its arrays are empty"):
        list_cohort(save(tmp_path / "set.npz", images=GREY[:0], labels=np.zeros(0)))


@pytest.mark.parametrize(
    ("array", "meaning"),
    [
        *((name, "images") for name in ("X", "x", "data", "imgs", "arr_0")),
        *((name, "labels") for name in ("y", "Y", "targets", "classes", "diagnosis")),
        *((name, "patient") for name in ("groups", "subject_ids", "patient_id", "pids")),
        *((name, "split") for name in ("set", "train_test")),
    ],
)
def test_an_array_that_is_called_nearly_by_its_meaning_stops(tmp_path, array, meaning):
    own = {"images": GREY, "labels": [0, 0, 1, 1], "patient": [1, 2, 3, 4], "split": ["train"] * 4}
    own[array] = own.pop(meaning)
    where = save(tmp_path / "set.npz", **own)
    flag = {"images": "path", "labels": "label"}.get(meaning, meaning)
    with pytest.raises(ValueError, match=f"'set.npz' has the array '{array}', .* '{meaning}'"):
        list_cohort(where)
    listing = list_cohort(where, table=TableOptions(**{f"{flag}_column": array}))
    assert [(e.label, e.split, e.patient) for e in listing.entries] == [
        (label, "train", patient) for label, patient in zip("0011", "1234", strict=True)
    ]
    assert not any(is_slice_name(e.path) for e in listing.entries)  # of one file, one patient


@pytest.mark.parametrize("name", ["Images", "arr_0"])
def test_rows_of_an_array_of_any_name_are_no_slices_of_one_patient(tmp_path, name):
    """Each is a patient of its own, as those of `images` are."""
    images = np.random.default_rng(0).integers(0, 255, (10, 16, 16), np.uint8)
    where = save(tmp_path / "set.npz", **{name: images}, labels=["a"] * 10)
    table = TableOptions(path_column=None if name == "Images" else name)
    cohort = load_cohort(where, table=table, cache=False)
    assert len(set(cohort.patient.tolist())) == 10


@pytest.mark.parametrize("option", ["root", "patients", "suffix"])
def test_options_that_an_archive_has_no_use_for_are_refused(tmp_path, option):
    where = tmp_path / "own.npz"
    np.savez(where, images=np.zeros((2, 4, 4)), labels=["a", "b"])
    with pytest.raises(ValueError, match=f"is an archive, where --{option} says nothing. Leave"):
        list_cohort(where, table=TableOptions(**{option: "x"}))


def test_arrays_may_be_in_any_case_singular_or_plural(tmp_path):
    own = {"Image": GREY, "LABEL": [0, 0, 1, 1], "Patients": [1, 2, 3, 4], "age": [9] * 4}
    listing = list_cohort(save(tmp_path / "set.npz", **own))
    assert [(e.path, e.label, e.patient) for e in listing.entries][3] == ("images[3]", "1", "4")
    assert listing.notes == ("Arrays not used: age.",)
    assert np.array_equal(fetched(listing, [2])[0], GREY[2])


def test_patients_of_a_medmnist_archive_are_read_or_asked_about(tmp_path):
    """Of all sides or of none; what else is in the archive is noted."""
    patients = {f"{side}_patient": [f"{side}1", f"{side}2"] for side in ("train", "val", "test")}
    listing = list_cohort(medmnist(tmp_path / "set.npz", **patients, about=[1]))
    assert [e.patient for e in listing.entries][3:] == ["val2", "test1", "test2"]
    assert listing.notes == ("Arrays not used: about.",)
    with pytest.raises(ValueError, match="has patients of some images only"):
        list_cohort(medmnist(tmp_path / "set.npz", test_patients=[1, 2]))
    with pytest.raises(ValueError, match="has the array 'subject_ids', which reads .* 'patient'"):
        list_cohort(medmnist(tmp_path / "set.npz", test_subject_ids=[1, 2]))


def test_damaged_archives_are_one_sentence(tmp_path):
    """Cut anywhere, or with any byte changed: an archive is read or refused by name."""
    whole = save(tmp_path / "whole.npz", images=GREY, labels=np.zeros(4, int)).read_bytes()
    path = tmp_path / "bad.npz"
    random = np.random.default_rng(0)
    refused = 0
    for case in range(150):
        data = bytearray(whole)
        if case % 3 == 0:
            data = data[: random.integers(len(data))]
        else:
            for at in random.integers(len(data), size=3):
                data[at] = random.integers(256)
        path.write_bytes(data)
        sentence = refusal(path)
        if sentence is not None:
            refused += 1
            assert "bad.npz'" in sentence
            assert "\n" not in sentence
    assert refused > 50


def refusal(path):
    """The sentence with which an archive is refused, or None."""
    try:
        fetched(list_cohort(path), range(4))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("part", ["x", "None", "lambda: 0", "(1e3, 2)", "f(x)", "'zz'", "b'u1'"])
@pytest.mark.parametrize("key", ["descr", "fortran_order", "shape"])
def test_a_damaged_head_is_refused_without_words_of_python(tmp_path, key, part):
    """Of an archive, and of an image in NPY."""
    head = {"descr": "'|u1'", "fortran_order": "False", "shape": "(16, 16)"} | {key: part}
    text = "{" + ", ".join(f"'{name}': {value}" for name, value in head.items()) + "}\n"
    data = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(256)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("images.npy", data)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/bad.npy").write_bytes(data)
    for where in (tmp_path / "bad.npz", tmp_path / "set"):
        with pytest.raises(ValueError, match="bad.npy|array images.npy") as refused:
            load_cohort(where, Preprocessing(size=16))
        assert not re.search(r"<|object|NoneType|literal|node|invalid", str(refused.value))
        assert str(tmp_path) not in str(refused.value)


def test_an_archive_behind_other_bytes_is_read_or_refused_whole(tmp_path):
    """Zip archives may have anything before them."""
    path = save(tmp_path / "whole.npz", images=GREY, labels=np.array([0, 0, 1, 1]))
    path.write_bytes(b"#!x\n" + path.read_bytes())
    assert [entry.label for entry in list_cohort(path).entries] == ["0", "0", "1", "1"]


def forged(path, shape, payload=b""):
    """An archive whose array declares a shape that it does not have."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", head.getvalue() + payload)
        archive.writestr("labels.npy", b"")
    return path


@pytest.mark.parametrize("shape", [(2**40, 2**20, 2**20), (-4, -16, 16), (10**9, 1, 1)])
def test_forged_heads_are_refused_before_anything_is_allocated(tmp_path, shape):
    with pytest.raises(ValueError, match=r"declares|damaged"):
        list_cohort(forged(tmp_path / "bomb.npz", shape, bytes(1024)))


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    """Much from little: sixteen megabytes of zeros in a few kilobytes."""
    monkeypatch.setattr("conocc.data.npz.BOMB_BYTES", 2**23)
    path = save(tmp_path / "bomb.npz", images=np.zeros((64, 512, 512), np.uint8), labels=[0] * 64)
    with pytest.raises(ValueError, match="bytes: a decompression bomb"):
        list_cohort(path)


def test_nan_is_no_patient(tmp_path):
    """NumPy makes the word of it where names and numbers stand in one array."""
    who = np.array(["ann", np.nan, "bob", "bob"])
    path = save(tmp_path / "own.npz", images=GREY, labels=np.zeros(4, int), patient=who)
    with pytest.raises(ValueError, match=r"lists no patient for 'images\[1\]' \(1 of 4 images\)"):
        load_cohort(path, cache=False)


def test_what_would_fill_the_memory_is_refused_by_its_head(tmp_path, monkeypatch):
    """More images than anyone lists, and large ones that lie column by column."""
    path = save(tmp_path / "set.npz", images=np.asfortranarray(GREY), labels=np.zeros(4, int))
    assert len(list_cohort(path).entries) == 4
    monkeypatch.setattr("conocc.data.npz.BOMB_BYTES", 1000)
    with pytest.raises(ValueError, match="the array images lies in Fortran order and is too large"):
        list_cohort(path)
    monkeypatch.setattr("conocc.data.npz.MOST_IMAGES", 3)
    with pytest.raises(ValueError, match="the array images declares 4 images; at most 3 are read"):
        list_cohort(path)
