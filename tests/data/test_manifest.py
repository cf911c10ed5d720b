"""Tables of users: what is read from them, and what is refused, with its line."""

from __future__ import annotations

import pytest

from conocc.data.layouts import list_cohort
from made_cohorts import make_folder


def found(listing):
    """Path to (class, side) of each entry."""
    return {entry.path: (entry.label, entry.split) for entry in listing.entries}


def manifest(folder, text):
    make_folder(folder, "a/1.png", "a/2.png", "b/3.png")
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
    assert listing.notes == ("Columns of 'set.csv' not used: age.",)


def test_short_manifest(tmp_path):
    listing = list_cohort(manifest(tmp_path, "path,label\na/1.png,well\n"))
    assert found(listing) == {"a/1.png": ("well", None)}
    assert listing.entries[0].patient is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\na/1.png,x\n", "must have the columns path and label"),
        ("path,label\n", "lists no images"),
        ("path,label\na/1.png,x\n\na/9.png,x\na/8.png,x\n", r"line 4: .*'a/9\.png' \(2 of 3 files"),
        ("path,label\na/1.png,x\n./a/1.png,y\n", r"line 3: 'a/1\.png' is listed in line 2 already"),
        ("path,label\n../1.png,x\n", r"line 2: '\.\./1\.png' leaves the manifest's folder"),
        ("path,label\n/etc/x.png,x\n", "leaves the manifest's folder"),
        ("path,label\n,x\n", "line 2: the path is empty"),
        ("path,label\na/1.png,\n", r"line 2: the label of 'a/1\.png' is empty"),
        ("path,label,patient\na/1.png,x,\n", r"line 2: the patient of 'a/1\.png' is empty"),
        ("path,label,split\na/1.png,x,dev\n", "line 2: the split is 'dev'"),
        ("path,label,split\na/1.png,x,\n", "line 2: the split is ''"),
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
