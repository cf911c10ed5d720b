"""Cohorts as MONAI, MedIAnomaly, Hugging Face, nnU-Net and BIDS describe them."""

import json
import random
import re

import numpy as np
import pytest
from PIL import Image

from conocc.data.columns import TableOptions
from conocc.data.index import is_image_name
from conocc.data.layouts import list_cohort
from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing

RNG = np.random.default_rng(0)
SIZE = Preprocessing(size=16)


def draw(folder, *paths):
    for path in paths:
        assert is_image_name(path)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 255, (16, 16), np.uint8)).save(folder / path)


def loaded(where, majority, **table):
    cohort = load_cohort(
        where, SIZE, majority=majority, table=TableOptions(**table), cache=False, test_size=0.5
    )
    columns = (cohort.path, cohort.label, cohort.split, cohort.patient)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return cohort, {path: row for path, *row in rows}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_datalist_of_monai(tmp_path):
    draw(tmp_path, *(f"images/{i}.png" for i in range(5)))
    training = [
        {"image": f"images/{i}.png", "label": i // 2, "patient_id": f"p{i}"} for i in range(3)
    ]
    testing = [{"image": ["images/3.png"], "label": 0, "patient": "p3"}]
    validation = [{"image": "images/4.png", "label": 0, "Patient": "p4"}]
    lists = {"training": training, "testing": testing, "validation": validation}
    write(tmp_path / "dataset_0.json", lists)
    with pytest.raises(ValueError, match="the patient of 'images/0.png' is empty"):
        loaded(tmp_path / "dataset_0.json", "0")  # patient_id is no 'patient', and is not guessed
    for item in training:
        item["patient"] = item.pop("patient_id")
    write(tmp_path / "dataset_0.json", lists)
    cohort, rows = loaded(tmp_path / "dataset_0.json", "0")
    assert cohort.name == tmp_path.name
    assert "MONAI's datalist" in cohort.notes[0]
    assert rows == {
        "images/0.png": ["0", "train", "p0"],
        "images/1.png": ["0", "train", "p1"],
        "images/3.png": ["0", "test", "p3"],
    }
    training[0]["label"] = "labels/0.png"
    write(tmp_path / "dataset_0.json", lists)
    with pytest.raises(ValueError, match="the label of 'images/0.png' is a mask, where the class"):
        loaded(tmp_path / "dataset_0.json", "0")


def test_a_set_of_medianomaly(tmp_path):
    draw(tmp_path, *(f"images/{i}.png" for i in range(6)))
    unlabeled = {"0": ["4.png"], "1": ["5.png"]}
    train = {"0": ["0.png", "1.png"], "unlabeled": unlabeled}
    write(tmp_path / "data.json", {"train": train, "test": {"0": ["2.png"], "1": ["3.png"]}})
    for where in (tmp_path, tmp_path / "data.json"):
        cohort, rows = loaded(where, "0")
        assert {path: row[:2] for path, row in rows.items()} == {
            "images/0.png": ["0", "train"],
            "images/1.png": ["0", "train"],
            "images/2.png": ["0", "test"],
            "images/3.png": ["1", "test"],
        }
        assert any("2 validation images left unused" in note for note in cohort.notes)


def test_a_folder_of_hugging_face(tmp_path):
    draw(tmp_path, "train/0.png", "train/1.png", "test/2.png", "test/3.png")
    lines = ("train/0.png,ok,a", "train/1.png,ok,b", "test/2.png,ok,c", "test/3.png,ill,c")
    write(tmp_path / "metadata.csv", "\n".join(["file_name,label,site", *lines]))
    cohort, rows = loaded(tmp_path, "ok")
    assert {path: row[:2] for path, row in rows.items()} == {
        "train/0.png": ["ok", "train"],
        "train/1.png": ["ok", "train"],
        "test/2.png": ["ok", "test"],
        "test/3.png": ["ill", "test"],
    }
    assert set(cohort.facts["site"]) == {"a", "b", "c"}


def test_a_set_of_nnunet(tmp_path):
    """Cases are patients; of their channels the first is read, and no mask."""
    draw(tmp_path, *(f"imagesTr/case_{i}_{c:04d}.png" for i in range(4) for c in range(2)))
    draw(tmp_path, "imagesTr/whole.png")  # of one channel, which has no number
    draw(tmp_path, *(f"labelsTr/case_{i}.png" for i in range(4)), "imagesTs/case_9_0000.png")
    about = {"channel_names": {"0": "T1"}, "labels": {"background": 0}, "file_ending": ".png"}
    write(tmp_path / "dataset.json", {**about, "name": "Liver", "numTraining": 4})
    _, rows = loaded(tmp_path, None)
    assert {path: [row[0], row[2]] for path, row in rows.items()} == {
        f"imagesTr/case_{i}_0000.png": ["Liver", f"case_{i}"] for i in range(4)
    } | {"imagesTr/whole.png": ["Liver", "whole"]}


def test_the_label_of_a_table_of_hugging_face_may_have_any_name(tmp_path):
    """With --label-column or --one-hot the folder was no table."""
    draw(tmp_path, "test/0.png", *(f"train/{i}.png" for i in range(1, 4)))
    lines = ["test/0.png,a,0,1", *(f"train/{i}.png,b,1,0" for i in range(1, 4))]
    write(tmp_path / "metadata.csv", "\n".join(["file_name,finding,b,a", *lines]))
    for how in ({"label_column": "finding"}, {"one_hot": ("b", "a")}):
        _, rows = loaded(tmp_path, "b", **how)
        assert sorted(row[:2] for row in rows.values()) == [["a", "test"], *[["b", "train"]] * 3]


def test_a_set_of_bids(tmp_path):
    """What its table says of participants is said of their images; the class is a column of it."""
    draw(tmp_path, *(f"sub-0{i}/anat/sub-0{i}_T1w.png" for i in range(5)), "sub-00/ses-2/x.png")
    draw(tmp_path, "derivatives/sub-00/x.png")
    lines = [f"sub-0{i}\t{'patient' if i == 4 else 'control'}\tF" for i in range(5)]
    write(tmp_path / "participants.tsv", "\n".join(["participant_id\tgroup\tsex", *lines]))
    with pytest.raises(ValueError, match="It lacks label. It has path, patient, group, sex"):
        loaded(tmp_path, "control")
    cohort, rows = loaded(tmp_path, "control", label_column="group")
    assert len(rows) == 6
    assert rows["sub-04/anat/sub-04_T1w.png"][::2] == ["patient", "sub-04"]
    assert rows["sub-00/ses-2/x.png"][::2] == ["control", "sub-00"]
    assert set(cohort.facts["sex"]) == {"F"}
    assert not any("line in the table" in note or "No image" in note for note in cohort.notes)


def test_participants_of_bids_without_images_or_without_a_line_are_counted(tmp_path):
    """Also where the table writes them without 'sub-', or as other numbers."""
    draw(tmp_path, *(f"sub-0{i}/anat/{i}.png" for i in range(6)))
    lines = [f"{who}\t{'case' if who == '03' else 'control'}" for who in ("00", "sub-01", "02")]
    lines += ["03\tcase", "sub-4\tcontrol", "sub-99\tcontrol"]
    write(tmp_path / "participants.tsv", "\n".join(["participant_id\tlabel", *lines]))
    cohort, rows = loaded(tmp_path, "control")
    assert len(rows) == 4
    said = " ".join(cohort.notes)
    assert "No image of 2 participants ('sub-4' …) that the table lists is there." in said
    assert "2 participants ('sub-04' …) with no line in the table left aside." in said


@pytest.mark.parametrize("path", ["../0.png", "/etc/0.png", "a/../../0.png", "..\\0.png"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, path):
    draw(tmp_path, "0.png")
    inside = tmp_path / "set"
    write(inside / "list.json", {"training": [{"image": path, "label": 0}]})
    with pytest.raises(
        ValueError, match="'list.json' .MONAI's datalist.: '.*0.png' leaves the fol"
    ):
        load_cohort(inside / "list.json", SIZE)
    write(inside / "metadata.csv", f"file_name,label\n{path},0\n")
    with pytest.raises(ValueError, match="leaves the folder"):
        load_cohort(inside, SIZE)
    (inside / "images").mkdir()
    write(inside / "data.json", {"train": {"0": [path]}, "test": {}})
    with pytest.raises(ValueError, match="leaves the folder|no file"):
        load_cohort(inside / "data.json", SIZE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "Cannot read 'list.json': what it holds must be an object. Got a list instead."),
        ("{", "Cannot read 'list.json': it is damaged, or no JSON."),
        ("[" * 100_000, "Cannot read 'list.json': it is damaged, or no JSON."),
        ({"a": 1}, "list.json' is not a cohort: a .json file must have the key 'training'"),
        ({"training": []}, "MONAI's datalist) lists no image."),
        ({"training": None}, "'training' must be a list. Got nothing instead."),
        ({"training": [5]}, "'training', item 1, must be an object. Got 5 instead."),
        (
            {"training": [{"label": 0}]},
            "'image' in 'training', item 1, must be a text. Got nothing",
        ),
        ({"training": [{"image": [3]}]}, "'image' in 'training', item 1, must be a text. Got 3 "),
        (
            {"training": [], "test": ["x.png", {"image": []}]},
            "'image' in 'test', item 2, must be a",
        ),
        (
            {"training": [{"image": "x.png", "label": [0]}]},
            "'label' in 'training', item 1, must be a text or a number. Got a list instead.",
        ),
        ({"training": [{"image": "x.png", "label": None}]}, "the label of 'x.png' is empty"),
        (
            {"training": [{"image": "x.png", "label": 1, "patient": {}}]},
            "'patient' in 'training', item 1, must be a text or a number. Got an object instead.",
        ),
        ({"training": [{"image": ["x.png", "y.png"], "label": 0}]}, "there is no file 'x.png'"),
    ],
)
def test_what_monai_would_not_write_is_refused(tmp_path, content, said):
    write(tmp_path / "list.json", content)
    with pytest.raises(ValueError, match=re.escape(said)):
        load_cohort(tmp_path / "list.json", SIZE)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"0": {"a": 1}}, "'0' in 'test' must be a list. Got 1 instead."),
        ({"0": 3}, "'0' in 'test' must be a list. Got 3 instead."),
        ({"0": "x"}, "'0' in 'test' must be a list. Got a text instead."),
        ({"0": ["a.png", None]}, "'0' in 'test', item 2, must be a text. Got nothing instead."),
        ([1], "'test' must be an object. Got a list instead."),
        (7, "'test' must be an object. Got 7 instead."),
    ],
)
def test_what_medianomaly_would_not_write_is_refused(tmp_path, broken, said):
    """It was Python's own words, or that the folder were no cohort."""
    draw(tmp_path, "images/a.png")
    write(tmp_path / "data.json", {"train": {"0": ["a.png"]}, "test": broken})
    for where in (tmp_path, tmp_path / "data.json"):
        with pytest.raises(
            ValueError, match=re.escape(f"'data.json' (MedIAnomaly's data.json): {said}")
        ):
            load_cohort(where, SIZE)


def test_damaged_files_of_nnunet_and_bids_are_refused(tmp_path):
    """Of such a folder, imagesTr and labelsTr, or the participants, were the classes."""
    draw(tmp_path, "nnunet/imagesTr/a_0000.png", "nnunet/labelsTr/a.png", "bids/sub-1/a.png")
    for name, content, said in (
        ("nnunet/dataset.json", "{", "Cannot read 'dataset.json': it is damaged, or no JSON."),
        ("nnunet/dataset.json", {"name": {}}, "'name' must be a text or a number. Got an object"),
        (
            "bids/participants.tsv",
            "participant_id\tlabel\nsub-1\n",
            "'participants.tsv', line 2: 1",
        ),
    ):
        write(tmp_path / name, content)
        with pytest.raises(ValueError, match=re.escape(said)):
            load_cohort((tmp_path / name).parent, SIZE)


WHOLE = {
    "list.json": {
        "training": [{"image": "images/0.png", "label": 0, "patient": "a"}, "images/1.png"],
        "testing": [{"image": ["images/2.png"], "label": "1", "patient": 3}],
    },
    "data.json": {
        "train": {"0": ["0.png"], "unlabeled": {"1": ["1.png"]}},
        "test": {"1": ["2.png"]},
    },
    "dataset.json": {"name": "x", "labels": {"background": 0}, "channel_names": {"0": "CT"}},
}
ODD = [
    None,
    True,
    -1,
    1e400,
    "",
    "x",
    "../x",
    "a\0b",
    "\ud800",
    [],
    {},
    [[]],
    {"": []},
    ["x"],
    {"image": 1},
]


def damaged(value, chance):
    """Drop, double, empty or replace parts of what JSON holds."""
    if chance.random() < 0.1:
        return chance.choice(ODD)
    if isinstance(value, dict):
        kept = {k: damaged(v, chance) for k, v in value.items() if chance.random() > 0.05}
        return {**kept, chance.choice(["", "x", "label"]): None} if chance.random() < 0.05 else kept
    if isinstance(value, list):
        return [damaged(v, chance) for v in value for _ in range(chance.choice([0, 1, 1, 1, 1, 2]))]
    return value


@pytest.mark.parametrize("name", WHOLE)
def test_whatever_the_json_of_a_framework_holds_is_a_cohort_or_one_sentence(tmp_path, name):
    draw(tmp_path, *(f"images/{i}.png" for i in range(3)), "imagesTr/a_0000.png")
    chance = random.Random(0)
    for _ in range(300):
        write(tmp_path / name, json.dumps(damaged(WHOLE[name], chance)))
        said = f"'{name}'"
        try:
            assert list_cohort(tmp_path / name).entries
        except ValueError as error:
            said = str(error)
        assert re.match(rf"'{name}'|Cannot read '{name}'|'\S*/{name}' is not a cohort", said), said
        assert not re.search(r"object is|codec|NoneType|attribute|subscript|unhashable|\n", said)
