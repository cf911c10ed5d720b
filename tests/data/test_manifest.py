"""Tables of users: what is read from them, and what is refused, with its line."""

from __future__ import annotations

import hashlib
import re
from functools import partial

import numpy as np
import pytest

from conocc.data.annotations import marked_by_boxes
from conocc.data.columns import TableOptions
from conocc.data.index import ImageEntry
from conocc.data.layouts import list_cohort
from conocc.data.load import load_cohort
from conocc.data.patients import by_table
from made_cohorts import make_folder
from made_nifti import nifti

NEAR = {
    "patient": [
        *(
            "patient_id",
            "PatientID",
            "Patient ID",
            "subject",
            "Subject IDs",
            "Patient (pseudonym)",
            "Patient-ID [anonymised]",
            "participant_id",
            "MRN",
        ),
        *("case_id", "pid", "pateint", "Patienten-Nr.", "paciente", "BraTS_2020_subject_ID"),
    ],
    "split": [
        "set",
        "partition",
        "subset",
        "train_test",
        "data split",
        "is_train",
        "spilt",
    ],
    "path": [
        "file",
        "FileName",
        "image",
        "image_path",
        "Image Index",
        "image file path",
        "isic_id",
    ],
    "label": ["class", "Target", "diagnosis", "Finding Labels", "class_name", "pathology", "dx"],
}
# Columns of public tables and of clinics that have no meaning here.
OTHERS = """age sex site Patient Age;patient_sex;Patient Gender;Follow-up #;View Position;dataset
    source;anatom_site_general;study_id;series_id;laterality;abnormality type;breast_density
    StudyInstanceUID;SeriesInstanceUID;Modality;scanner;hospital;set_size;split_seed;pathologist
    training_time;caseload;image_quality;rad_id;dx_type;localization;height;width;comment"""


def found(listing):
    """Path to (class, side) of each entry."""
    return {entry.path: (entry.label, entry.split) for entry in listing.entries}


def manifest(folder, text):
    make_folder(folder, "a/1.png", "a/2.png", "b/3.png", "c/1.png")
    (folder / "set.csv").write_text(text)
    return folder / "set.csv"


def test_manifest(tmp_path):
    """Sorted by path, with split and patient where there are such columns."""
    listing = list_cohort(
        manifest(
            tmp_path,
            "label,path,age,patient,split\n"
            "ill,b/3.png,1,ann,Test\n"
            "well,./a/1.png,2,bob,train\n"
            "well,a/2.png,3,eve,val\n",
        )
    )
    assert found(listing) == {
        "a/1.png": ("well", "train"),
        "a/2.png": ("well", "unused"),
        "b/3.png": ("ill", "test"),
    }
    assert [entry.patient for entry in listing.entries] == ["bob", "eve", "ann"]
    assert listing.name == "set"
    assert listing.notes == ("Columns of 'set.csv' that only 'evaluate --by' uses: age.",)
    assert [entry.facts for entry in listing.entries] == [{"age": "2"}, {"age": "3"}, {"age": "1"}]


def test_short_manifest(tmp_path):
    listing = list_cohort(manifest(tmp_path, "path,label\na/1.png,well\n"))
    assert found(listing) == {"a/1.png": ("well", None)}
    assert listing.entries[0].patient is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "where,label\na/1.png,x\n",
            "must have the columns path and label.* lacks path. It has w",
        ),
        ("path,label\n", "lists no images"),
        ("path,label\na/1.png,x\n\na/9.png,x\na/8.png,x\n", r"line 4: .*'a/9\.png' \(2 of 3 files"),
        ("path,label\na/0.png,x\n", r"\(1 of 1 file missing; --root says in which folder they lie"),
        (
            "path,label\n1.png,x\n",
            r"line 2: '1\.png' may be 'a/1\.png' or 'c/1\.png' \(1 of 1 .*; write its f",
        ),
        ("path,label\na/1.jpg,x\n", r"no file 'a/1\.jpg' \(1 of 1 .*; there is 'a/1\.png'\)"),
        ("path,label\n3.png,x\nb/3.png,x\n", r"line 3: 'b/3\.png' would be the file of '3\.png', "),
        ("path,label,split\na/1.png,x,train\na/1.png,x,test\n", "another split .* than line 2"),
        ("path,label,patient\na/1.png,x,p\na/1.png,x,q\n", "another split or patient than line"),
        ("Path,paths,label\na/1.png,x,p\n", "more than one path: Path, paths"),
        ("path,label\nA/2,x\n", r"no file 'A/2' \(1 of 1 file missing; --suffix .png adds what"),
        ("path,label\n,x\n", "line 2: the path is empty"),
        ("path,label,Slice No.\na/1.png,x,1\na/1.png,y,2\n", "line 3: .*write 'FILE.3.', counted"),
        (
            "path,label,patient\na/1.png,x,NaN\n",
            r"line 2: the patient of 'a/1\.png', 'NaN', is nobody's name",
        ),
        ("path,label\na/1.png,\n", r"line 2: the label of 'a/1\.png' is empty"),
        ("path,label,patient\na/1.png,x,\n", r"line 2: the patient of 'a/1\.png' is empty"),
        ("path,label,split\na/1.png,x,dev\n", "line 2: the split 'dev' is none"),
        ("path,label,split\na/1.png,x,\n", "line 2: the split '' is none"),
    ],
)
def test_manifests_that_do_not_do_are_refused(tmp_path, text, sentence):
    """Each fault with its line."""
    with pytest.raises(ValueError, match=sentence) as caught:
        list_cohort(manifest(tmp_path, text))
    assert "'set.csv'" in str(caught.value)


def test_a_manifest_may_be_any_table(tmp_path):
    """What parts the cells and how letters are written is for the table to say."""
    where = manifest(tmp_path, "path;label;patient\na/1.png;größer;7,5\n")
    where.write_bytes(where.read_text().encode("cp1252"))
    (entry,) = list_cohort(where.rename(tmp_path / "set.tsv")).entries
    assert (entry.path, entry.label, entry.patient) == ("a/1.png", "größer", "7,5")


def test_a_path_that_lost_its_letters_is_refused_with_how_the_table_was_read(tmp_path):
    """In a manifest, a table of patients and one of boxes; of another path it is not said."""
    make_folder(tmp_path, "нёбо/1.png", "b/1.png")
    table = tmp_path / "set.csv"
    for path, said in (
        ("нёбо/1.png", "; the table is not in UTF-8 and was read as Windows-1252: save it as CSV"),
        ("c/2.png", ""),
    ):
        table.write_bytes(
            f"path,label,patient,x,y,width,height\n{path},x,п,0,0,9,9".encode("cp1251")
        )
        for read, end in (
            (partial(list_cohort, table), "of 1 file missing"),
            (partial(marked_by_boxes, tmp_path, table, reserved=None), "in the images"),
            (partial(by_table, [path, "b/3.png"], table), "of 2 images"),
        ):
            with pytest.raises(ValueError, match=re.escape(end + said)) as refused:
                read()
            assert said or "UTF-8" not in str(refused.value)


@pytest.mark.parametrize(("meaning", "column"), [(m, c) for m, cs in NEAR.items() for c in cs])
def test_a_name_that_is_nearly_one_of_meaning_stops(tmp_path, meaning, column):
    """It would be left unused otherwise, and its patients or its split with it."""
    head = ["path", "label", "split", "patient"]
    head[head.index(meaning)] = column
    flag = f"--{meaning}-column"
    where = manifest(tmp_path, f"{','.join(head)}\na/1.png,well,train,ann\n")
    sentence = f"'set.csv' has the column '{re.escape(column)}', which reads as if .* '{meaning}': "
    with pytest.raises(ValueError, match=f"{sentence}rename it to '{meaning}', pass {flag} "):
        list_cohort(where)
    named = TableOptions(**{f"{meaning}_column": column})
    assert list_cohort(where, table=named).entries == (
        ImageEntry("a/1.png", "well", "train", "ann"),
    )


def test_all_names_that_are_nearly_of_meaning_are_told_at_once(tmp_path):
    where = manifest(tmp_path, "file,image,dx,Sex,pid\na/1.png,1,well,f,ann\n")
    with pytest.raises(ValueError, match="'file', .*; and 'dx', .* or drop it; and 'pid', .* un"):
        list_cohort(where)


def test_a_column_of_meaning_may_be_left_unused(tmp_path):
    where = manifest(tmp_path, "path,label,patient_id,Fold\na/1.png,x,p,train\n")
    listing = list_cohort(where, table=TableOptions(patient_column="", split_column=""))
    assert listing.entries == (ImageEntry("a/1.png", "x"),)
    assert listing.notes == (
        "Columns of 'set.csv' that only 'evaluate --by' uses: patient_id, Fold.",
    )


def test_columns_without_a_meaning_are_noted(tmp_path):
    """Nor does a name that is near to one whose column is there."""
    others = [one.strip() for one in re.split(r"[;\n]", OTHERS)]
    head = ",".join(["Paths", "LABEL", "Patient", "diagnosis", "subject_id", *others])
    cells = ",".join(["a/1.png", "x", "ann", *"." * (len(others) + 2)])
    (entry,) = (listing := list_cohort(manifest(tmp_path, f"{head}\n{cells}\n"))).entries
    assert entry == ImageEntry("a/1.png", "x", None, "ann")
    assert listing.notes == (
        "Columns of 'set.csv' that only 'evaluate --by' uses: "
        f"{', '.join(['diagnosis', 'subject_id', *others])}.",
    )


def test_what_several_rows_say_of_one_image_is_joined(tmp_path):
    """A row of each box, say: what is the same stands once."""
    rows = "a/1.png,x,f,top|left\na/1.png,x,f,low\na/1.png,x,f,top|left\n"
    (entry,) = list_cohort(manifest(tmp_path, f"path,label,sex,box\n{rows}")).entries
    assert entry.facts == {"sex": "f", "box": "top|left|low"}


def test_a_column_that_is_named_must_be_there(tmp_path):
    where = manifest(tmp_path, "path,label\na/1.png,x\n")
    with pytest.raises(
        ValueError, match=r"no column 'who' \(--patient-column\). It has path, label"
    ):
        list_cohort(where, table=TableOptions(patient_column="who"))
    with pytest.raises(ValueError, match=r"no column 'MEL' \(--one-hot\)"):
        list_cohort(where, table=TableOptions(one_hot=("MEL",)))


def test_options_of_tables_are_refused_where_there_is_none(tmp_path):
    make_folder(tmp_path, "a/1.png")
    with pytest.raises(
        ValueError, match="is no table, where --one-hot says nothing. Leave out 'one_hot'"
    ):
        list_cohort(tmp_path, table=TableOptions(one_hot=("a",)))


def test_a_column_of_folds_is_no_split(tmp_path):
    index = list_cohort(manifest(tmp_path, "path,label,fold\na/1.png,x,3\n"))
    assert index.entries[0].split is None
    assert any(note.endswith(": fold.") for note in index.notes)


def test_a_table_may_lie_anywhere(tmp_path):
    """Paths relative to its folder or to a root, absolute, or as on Windows; also upwards."""
    make_folder(tmp_path, "images/a/1.png", "images/b/2.png")
    (tmp_path / "lists").mkdir()
    where = tmp_path / "lists/set.csv"
    first = (tmp_path / "images/a/1.png").as_posix()
    for paths, root in [
        (["../images/a/1.png", "../images/b/2.png"], None),
        (["a/1.png", "b\\2.png"], "images"),
        ([first, "..\\images\\b\\2.png"], None),
        (["D:\\all\\images\\a\\1.png", "/home/me/images/b/2.png"], "images"),
        (["../input/images/a/1.png", "2.png"], "images"),
    ]:
        lines = [f"{path},x" for path in paths]
        where.write_text("\n".join(["path,label", *lines]) + "\n")
        root = root and str(tmp_path / root)
        cohort = load_cohort(where, majority="x", table=TableOptions(root=root), cache=False)
        assert sorted(cohort.path) == sorted(path.replace("\\", "/") for path in paths)
        digests = dict(zip(cohort.path, cohort.digest, strict=True))
        for path, file in zip(paths, ["a/1.png", "b/2.png"], strict=True):
            data = (tmp_path / "images" / file).read_bytes()
            assert digests[path.replace("\\", "/")] == hashlib.sha256(data).hexdigest()


def test_slices_of_a_volume_that_was_looked_for_have_the_name_of_the_table(tmp_path):
    (tmp_path / "deep").mkdir()
    voxels = np.random.default_rng(0).integers(1, 99, (16, 16, 2), dtype=np.int16)
    (tmp_path / "deep/sub-1.nii").write_bytes(nifti(voxels))
    (tmp_path / "set.csv").write_text("path,label\nsub-1.nii,x\n")
    cohort = load_cohort(tmp_path / "set.csv", majority="x", cache=False, test_size=0)
    assert sorted(cohort.path) == ["sub-1.nii[0]", "sub-1.nii[1]"]
    (tmp_path / "set.csv").write_text("path,label\nsub-1.nii[1],x\n")
    cohort = load_cohort(tmp_path / "set.csv", majority="x", cache=False, test_size=0)
    assert cohort.path.tolist() == ["sub-1.nii[1]"]


def test_one_hot_columns(tmp_path):
    """The label is what holds 1, in any writing of it; uncertain is not found and not absent."""
    where = manifest(
        tmp_path,
        "path,No Finding,Edema,Mass\na/1.png,1.0,,\na/2.png,0,-1.0,1\nb/3.png,False,0.0,\n"
        "c/1.png,,TRUE,1\n",
    )
    table = TableOptions(one_hot=("No Finding", "Edema", "Mass"))
    labels = [entry.label for entry in list_cohort(where, table=table).entries]
    assert labels == ["No Finding", "Edema?|Mass", "other", "Edema|Mass"]
    where.write_text("path,Mass\na/1.png,2\n")
    with pytest.raises(ValueError, match=r"line 2: column 'Mass' \(--one-hot\) holds '2'"):
        list_cohort(where, table=TableOptions(one_hot=("Mass",)))


def test_labels_of_one_image_are_joined_in_one_order(tmp_path):
    """From one cell or from several rows; patients are those of all rows."""
    where = manifest(
        tmp_path,
        "path,label,patient\na/1.png,Mass|Edema,p\na/2.png,Mass,q\nA\\2.PNG,Edema ,q\n"
        "a/2.png,Edema,q\nb/3.png,Mass,r\nb/3.png,Mass,r\n",
    )
    with pytest.raises(ValueError, match=r"line 4: 'A/2.PNG' would be the file of 'a/2.png'"):
        list_cohort(where)
    where.write_text(where.read_text().replace("A\\2.PNG", "a\\2.png"))
    listing = list_cohort(where)
    assert {entry.path: (entry.label, entry.patient) for entry in listing.entries} == {
        "a/1.png": ("Edema|Mass", "p"),
        "a/2.png": ("Edema|Mass", "q"),
        "b/3.png": ("Mass", "r"),
    }
    assert listing.notes == (
        "The 6 rows of 'set.csv' list 3 images.",
        "2 images with several labels, joined by '|'.",
    )


def test_capitals_of_a_path_do_not_matter_where_it_is_looked_for(tmp_path):
    (entry,) = list_cohort(manifest(tmp_path, "path,label\nB\\3.PNG,x\n")).entries
    assert (entry.path, entry.shown) == ("b/3.png", "B/3.PNG")


def test_linked_folders_are_looked_into_and_loops_of_them_end(tmp_path):
    make_folder(tmp_path / "disk", "1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/images").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/again").symlink_to(tmp_path / "disk")
    (tmp_path / "set/set.csv").write_text("path,label\n1.png,x\n")
    assert list_cohort(tmp_path / "set/set.csv").entries[0].path == "images/1.png"


def test_a_root_that_is_not_there_is_named(tmp_path):
    where = manifest(tmp_path, "path,label\na/1.png,x\n")
    with pytest.raises(ValueError, match=r"There is no folder 'gone' \(--root\)"):
        list_cohort(where, table=TableOptions(root="gone"))


def test_what_finds_patients_sees_paths_as_the_table_has_them(tmp_path):
    where = manifest(tmp_path, "path,label\n/p1/b/3.png,x\n/p2/a/2.png,x\n")
    cohort = load_cohort(where, majority="x", patient_regex=r"/(p\d)/", cache=False)
    assert dict(zip(cohort.path, cohort.patient, strict=True)) == {
        "/p1/b/3.png": "p1",
        "/p2/a/2.png": "p2",
    }


def test_of_many_classes_the_largest_are_named(tmp_path):
    """Joined labels make hundreds; the whole list would hide the sentence."""
    make_folder(tmp_path, *(f"{i}.png" for i in range(30)))
    rows = [f"{i}.png,{'often' if i < 5 else f'c{i}'}" for i in range(30)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    with pytest.raises(ValueError, match=r"c18 \(1 image\), often \(5 images\) and 16 more"):
        load_cohort(tmp_path / "set.csv", cache=False)


def test_files_whose_accents_the_disk_writes_apart_are_found(tmp_path):
    make_folder(tmp_path, "e\u0301/1.png")
    table = tmp_path / "list.csv"
    table.write_text("path,label\n\u00e9/1.png,a\n", "utf-8")
    assert list_cohort(table).entries[0].path == "e\u0301/1.png"


@pytest.mark.parametrize("who", ["unknown", "-", "?", "NA", "#N/A", "NaN", ".", "1.2E+11"])
def test_a_word_for_what_is_missing_is_no_patient(tmp_path, who):
    make_folder(tmp_path, "1.png")
    table = tmp_path / "list.csv"
    table.write_text(f"path,label,patient\n1.png,a,{who}\n")
    with pytest.raises(ValueError, match="line 2: the patient of '1.png', .* is nobody's name"):
        list_cohort(table)
