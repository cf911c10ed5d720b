"""Who is on which image."""

from __future__ import annotations

from dataclasses import replace

import openpyxl
import pytest

from conocc.data.columns import TableOptions
from conocc.data.image_io.dicom_person import Person
from conocc.data.patients import EVERYWHERE, by_regex, by_standard, by_table, find_patients


def find(paths, *, given=None, folder=None, regex=None):
    given = [None] * len(paths) if given is None else given
    return find_patients(paths, given=given, folder=folder, regex=regex)


def test_unknown_patients_are_the_images_themselves():
    """Each image counts as its own patient, and the cohort knows that it does not know."""
    patients = find(["a/1.png", "a/2.png"])
    assert patients.names == ("a/1.png", "a/2.png")
    assert not patients.known
    assert "not known" in patients.note


def test_chestx_names():
    """All the ways in which the set names its files; NORMAL2-IM-n and IM-n are two patients."""
    paths = {
        "test/PNEUMONIA/person12_bacteria_3.jpeg": "person12",
        "person1_virus_6.jpeg": "person1",
        "IM-0115-0001.jpeg": "IM-0115",
        "NORMAL2-IM-0115-0001.jpeg": "NORMAL2-IM-0115",
        "IM-0543-0001-0002.jpeg": "IM-0543",
        "NORMAL2-IM-1440-0001-0002.jpeg": "NORMAL2-IM-1440",
    }
    assert find(list(paths)).names == tuple(paths.values())
    assert find(list(paths)).known


@pytest.mark.parametrize(
    ("paths", "names", "among"),
    [
        (("a/sub-01_ses-1_T1w.nii.gz[3]", "b/sub-01/ses-2/anat/x.png"), ("sub-01",) * 2, ""),
        (("sub-01/sub-01_ses-1.nii[0]", "sub-02.png"), ("sub-01", "sub-02"), ""),
        (("TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1.tif",), ("TCGA-CS-4941",), EVERYWHERE),
        (("x/TCGA-02-0001-01Z-00-DX1.tif",), ("TCGA-02-0001",), EVERYWHERE),
    ],
)
def test_what_a_standard_names_is_the_patient(paths, names, among):
    """Of all sessions; TCGA's names are of the whole world, those of BIDS of one data set."""
    found = find(list(paths))
    assert (found.names, found.known, found.among) == (names, True, among)


@pytest.mark.parametrize(
    "paths",
    [
        ("sub-01/sub-02_T1w.png",),
        ("subject-01/x.png",),
        ("sub-01.png", "x.png"),
        ("TCGA-1.png",),
        ("ISIC_0000001.png",),
    ],
)
def test_what_no_standard_names_or_two_ways_is_not_known(paths):
    assert not find(list(paths)).known


def test_one_name_in_several_folders_is_told():
    """Two sites, each with a sub-01: they could be two people."""
    note = find(["a/sub-01.png", "b/sub-01.png", "b/sub-02.png"]).note
    assert "of which 1 name in several folders count as one patient each (--patient-regex" in note
    assert find(["a/sub-01.png", "b/sub-02.png"]).note.endswith("as in BIDS (sub-…).")


@pytest.mark.parametrize("name", ["scan.png", "person_bacteria_3.png", "IM-1.png", "xIM-1-2.png"])
def test_one_other_name_and_the_chestx_names_are_not_used(name):
    """A guess that fits some images only is no knowledge."""
    assert by_standard(["IM-0115-0001.jpeg", name]) is None


def test_regex_takes_the_named_group_or_the_first():
    assert by_regex(["a/x1_p2.png"], r"x(\d)_p(\d)") == ("1",)
    assert by_regex(["a/x1_p2.png"], r"x(\d)_p(?P<patient>\d)") == ("2",)


@pytest.mark.parametrize(
    ("regex", "sentence"),
    [
        (r"p(\d+)", r"finds none in 'b/q\.png' \(1 of 2 images; --patient-regex '\(.\+\)' makes"),
        (r"p(\d*)", r"finds none in 'b/q\.png'"),
        (r"p\d+", "must have a group"),
        (r"p(", "is not a regular expression"),
    ],
)
def test_regex_that_does_not_do_is_refused(regex, sentence):
    """The parameter, the rule and the value are named, or the image that has no patient."""
    with pytest.raises(ValueError, match=sentence) as caught:
        by_regex(["a/p1.png", "b/q.png"], regex)
    assert "'patient_regex'" in str(caught.value)


def test_table_beside_the_images(tmp_path):
    """Both names of the column of files will do; more rows than images are fine."""
    for column in ("file", "path"):
        (tmp_path / "patients.csv").write_text(
            f"{column},age,patient\n./a/1.png,50,ann\na/2.png,60,bob\na/3.png,1,eve\n"
        )
        patients = find(["a/2.png", "a/1.png"], folder=tmp_path)
        assert patients.names == ("bob", "ann")
        assert patients.known


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,patient\na/1.png,ann\n", r"no patient for 'a/2\.png' \(2 of 3 images\)"),
        ("file,patient\na/1,ann\na/2,bob\n", r"\(3 of 3 images; --suffix .png adds what its"),
        ("file,patient\na/1.png,ann\na/2.png,null\n", r"no patient for 'a/2\.png'"),
        ("file,patient\na/1.png,ann\na/2.png,\n", r"no patient for 'a/2\.png'"),
        ("what,patient\na/1.png,ann\n", "the columns path and patient. It lacks path. It has what"),
        ("file,who\na/1.png,ann\n", "It lacks patient. It has file, who"),
        ("file,subject\na/1.png,ann\n", "has the column 'subject', which reads .* 'patient'"),
        ("filename,patient\na/1.png,ann\n", "has the column 'filename', which reads .* 'path'"),
        ("file,patient\n1.png,ann\n", r"line 2: '1\.png' may be 'a/1\.png' or 'b/1\.png'; write"),
        ("file,patient\na/1.png,ann\na/1.png,bob\n", "line 3: 'a/1.png' has the patient 'bob'"),
    ],
)
def test_tables_that_do_not_do_are_refused(tmp_path, text, sentence):
    """An image without a patient is named, with how many there are."""
    table = tmp_path / "patches.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        by_table(["a/1.png", "a/2.png", "b/1.png"], table)


def test_what_the_user_says_comes_before_what_the_cohort_lists_before_a_table(tmp_path):
    """The order of the sources, each with a note that names it."""
    (tmp_path / "patients.csv").write_text("file,patient\nIM-1-1.png,table\n")
    paths = ["IM-1-1.png"]
    asked = find(paths, given=["listed"], folder=tmp_path, regex=r"(IM)")
    listed = find(paths, given=["listed"], folder=tmp_path)
    table = find(paths, folder=tmp_path)
    named = find(paths)
    assert [p.names[0] for p in (asked, listed, table, named)] == ["IM", "listed", "table", "IM-1"]
    assert "(IM)" in asked.note
    assert "patients.csv" in table.note
    assert "ChestX" in named.note


def test_a_slice_has_the_patient_of_its_volume_unless_a_table_names_it_itself(tmp_path):
    (tmp_path / "patients.csv").write_text("file,patient\na.nii.gz,p\nb.nii,q\nb.nii[3],r\n")
    paths = ["a.nii.gz[0]", "b.nii[2]", "b.nii[3]"]
    found = find_patients(paths, given=[None] * 3, folder=tmp_path, regex=None)
    assert found.names == ("p", "q", "r")


def test_volumes_are_no_patients_by_name():
    """Each counts as one, in its folder: two may be two visits of somebody."""
    paths = ["x/brain1.nii.gz[0]", "x/brain1.nii.gz[1]", "y/brain1.nii.gz[0]", "x/1.png"]
    found = find(paths)
    assert found.names == ("x/brain1.nii.gz", "x/brain1.nii.gz", "y/brain1.nii.gz", "x/1.png")
    assert not found.known
    assert "not known: each file of several images counts as a patient of its own" in found.note


def test_a_table_of_patients_may_lie_anywhere_and_call_its_columns_as_it_likes(tmp_path):
    """It comes before what the cohort lists; paths may be from another folder, or names alone."""
    (tmp_path / "who.tsv").write_text(
        "Subject ID\tImage Index\nann\t1\nbob\tD:\\all\\b\\2.png\neve\t/data/a/3\n"
    )
    options = TableOptions("Image Index", patient_column="Subject ID", suffix=".png")
    options = replace(options, patients=str(tmp_path / "who.tsv"), one_hot=("MEL",))
    paths = ["x/a/1.png", "b/2.png", "a/3.png"]
    found = find_patients(paths, given=["x"] * 3, folder=None, regex=None, options=options)
    assert (found.names, found.known) == (("ann", "bob", "eve"), True)
    assert found.note == "Patients are read from 'who.tsv'."


def test_a_table_of_patients_beside_the_images_may_be_a_workbook(tmp_path):
    """Capitals of its name do not matter, and one patient is as good as several."""
    book = openpyxl.Workbook()
    for row in [["File", "Patients"], ["1.png", 7]]:
        book.active.append(row)
    book.save(tmp_path / "Patient.XLSX")
    assert find(["a/1.png"], folder=tmp_path).names == ("7",)


def test_images_without_the_id_that_others_have_are_counted():
    """For one of them nobody is known, and images of one patient may train and test."""
    persons = [Person("P1", frozenset()), Person("P1", frozenset()), Person("", frozenset())]
    paths = ["1", "2", "3"]
    found = find_patients(paths, given=[None] * 3, folder=None, regex=None, persons=persons)
    assert not found.known
    assert "not known: 1 of 3 images have no PatientID of DICOM, so that each" in found.note
