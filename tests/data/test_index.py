"""Walking folders, reading files and tables."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from conocc.data.index import count, printable, read_file, side, walk
from conocc.visualization.drawing import blank, save_figure
from made_cohorts import make_folder
from made_dicom import EXPLICIT, STORAGE, dicom, element, meta, sequence

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


def test_walk_sorts_and_tells_images_from_others(tmp_path):
    """Images by content, or by suffix in any case; what is hidden, and tables, are counted."""
    make_folder(tmp_path, "b/2.png", "b/10.png", "a/1.PNG")
    for name in ("a/notes.txt", "a/.DS_Store", "a/Thumbs.db", "readme.md", "VIEWER.EXE"):
        (tmp_path / name).write_text("x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "x.txt").write_text("x")
    found = walk(tmp_path)
    assert found.images == ("a/1.PNG", "b/10.png", "b/2.png")
    assert found.unknown == ()
    assert found.aside == {
        "document": ["a/notes.txt", "readme.md"],
        "hidden file": ["__MACOSX", "a/.DS_Store", "a/Thumbs.db"],
        "program": ["VIEWER.EXE"],
    }
    said = "6 files beside the images left aside: 2 documents, 3 hidden files, 1 program."
    assert found.notes() == [said]
    assert found.seen_again == ()


def test_content_decides_what_a_file_is(tmp_path):
    """Under any name; a text that begins as a weak format does is a text by its name."""
    make_folder(tmp_path, "a.png")
    png = (tmp_path / "a.png").read_bytes()
    for name in ("b.jfif", "IM0001", "c.csv", "d.txt"):
        (tmp_path / name).write_bytes(png)
    grey = np.zeros((4, 4), np.uint8)
    (tmp_path / "IM0002").write_bytes(dicom(grey))
    (tmp_path / "IM0003").write_bytes(dicom(grey, preamble=False))
    (tmp_path / "notes.txt").write_text("P1 was seen twice.")
    (tmp_path / "LICENSE").write_text("BM")
    (tmp_path / "e.png").write_text("no image")
    (tmp_path / "x.roi").write_text("Iout")
    found = walk(tmp_path)
    images = ("IM0001", "IM0002", "IM0003", "a.png", "b.jfif", "c.csv", "d.txt", "e.png")
    assert found.images == images
    assert found.unknown == ("x.roi",)
    assert found.aside == {"document": ["LICENSE", "notes.txt"]}


@pytest.mark.parametrize(
    ("sop", "modality", "kind"),
    [
        ("11.1", "PR", "presentation state"),
        ("88.11", "SR", "structured report"),
        ("88.59", "KO", "key object selection"),
        ("481.3", "RTSTRUCT", "RT structure set"),
    ],
)
def test_dicom_objects_beside_images_are_counted_by_kind(tmp_path, sop, modality, kind):
    """Also where they point at images of other classes."""
    make_folder(tmp_path, "a.png")
    pointed = element(0x00081150, "UI", STORAGE + "7")
    body = meta(EXPLICIT) + element(0x00080016, "UI", STORAGE + sop)
    body += element(0x00080060, "CS", modality) + sequence(0x00081115, pointed)
    (tmp_path / "IM9").write_bytes(body)
    found = walk(tmp_path)
    assert found.images == ("a.png",)
    assert found.aside == {f"DICOM {kind}": ["IM9"]}
    assert found.notes() == [f"1 DICOM object that is no image left aside: 1 {kind}."]


def test_what_conocc_made_is_no_image(tmp_path):
    """Its pictures, by what they say, and its runs."""
    make_folder(tmp_path, "set/a.png", "set/run/split/b.png")
    (tmp_path / "set" / "run" / "run.json").write_text("{}")
    pictures = [f"montage.{kind}" for kind in ("gif", "jpg", "png", "svg", "tif", "webp")]
    drawn = blank()
    drawn.figimage(np.random.default_rng(0).random((200, 200)))  # so that a WebP's end is far off
    for name in pictures:
        save_figure(drawn, tmp_path / "set" / name)
    found = walk(tmp_path / "set")
    assert found.images == ("a.png",)
    assert found.aside == {
        "picture that conocc drew": pictures,
        "folder that conocc made": ["run"],
    }


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root lists every folder")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path):
    make_folder(tmp_path, "a.png", "locked/b.png")
    (tmp_path / "locked").chmod(0)
    try:
        assert walk(tmp_path).unknown == ("locked",)
    finally:
        (tmp_path / "locked").chmod(0o700)


@posix
def test_walk_ends_in_loops_of_links(tmp_path):
    """A folder that is reached twice is walked once, and a link to itself is no folder."""
    make_folder(tmp_path, "a/1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    found = walk(tmp_path)
    assert found.images == ("a/1.png",)
    assert found.unknown == ("self",)
    assert found.seen_again == ("a/up",)


@posix
def test_walk_does_not_follow_links_up(tmp_path):
    """Neither to the folder above, whose other folders are no part of it, nor to the root."""
    make_folder(tmp_path, "cohort/a/1.png", "beside/2.png")
    for name, target in {"up": "../..", "root": "/", "dot": "."}.items():
        (tmp_path / "cohort" / "a" / name).symlink_to(target, target_is_directory=True)
    found = walk(tmp_path / "cohort")
    assert found.images == ("a/1.png",)
    assert found.seen_again == ("a/dot", "a/root", "a/up")


@posix
def test_links_that_lead_nowhere_or_to_themselves_are_sentences(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    assert walk(tmp_path).images == ("gone.png", "self.png")
    with pytest.raises(ValueError, match=r"Cannot read 'gone\.png': No such file or directory\."):
        read_file(tmp_path, "gone.png")
    with pytest.raises(ValueError, match=r"Cannot read 'self\.png': Too many levels of symbolic"):
        read_file(tmp_path, "self.png")


@posix
def test_links_to_other_files_are_followed(tmp_path):
    """As in cohorts kept by git-annex, which are nothing but links."""
    make_folder(tmp_path / "store", "1.png")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "a.png").symlink_to(tmp_path / "store" / "1.png")
    content = (tmp_path / "store" / "1.png").read_bytes()
    assert read_file(tmp_path / "cohort", "a.png") == content


@posix
def test_walk_follows_links_to_other_folders(tmp_path):
    """Linked data is data."""
    make_folder(tmp_path / "elsewhere", "1.png")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert walk(tmp_path / "cohort").images == ("a/1.png",)


@posix
def test_a_pipe_is_not_waited_for(tmp_path):
    """A pipe named like an image is refused at once."""
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"Cannot read 'x\.png': it is not a regular file\."):
        read_file(tmp_path, "x.png")


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_a_name_that_is_not_unicode_is_refused(tmp_path):
    """No table could hold it."""
    with open(os.fsencode(tmp_path) + b"/x\xff.png", "wb"):
        pass
    (name,) = walk(tmp_path).images
    with pytest.raises(ValueError, match=r"'x\\udcff\.png': its name is not valid Unicode"):
        read_file(tmp_path, name)


def test_missing_and_oversized_files_are_named(tmp_path, monkeypatch):
    """The sentence has the name and the reason."""
    with pytest.raises(ValueError, match=r"Cannot read 'no\.png': No such file"):
        read_file(tmp_path, "no.png")
    monkeypatch.setattr("conocc.data.index.MOST_BYTES", 3)
    (tmp_path / "big.png").write_bytes(b"1234")
    with pytest.raises(ValueError, match=r"'big\.png': it has 4 bytes, where at most 3"):
        read_file(tmp_path, "big.png")


def test_sides_of_the_split_in_many_words():
    """Validation is unused; anything else is refused."""
    assert [side(word, "") for word in ("Train", " test ", "val", "Valid")] == [
        "train",
        "test",
        "unused",
        "unused",
    ]
    with pytest.raises(ValueError, match=r"'m\.csv', line 3: the split 'fold1' is none of train"):
        side("fold1", "'m.csv', line 3")


def test_shown_names_stay_on_one_line():
    """Whatever a name holds, a message is one line of printable text."""
    assert printable("a b'ü.png") == "a b'ü.png"
    assert printable("a\nb\udcff") == "a\\nb\\udcff"


def test_count_makes_plurals():
    assert [count(0, "image"), count(1, "image"), count(2, "class")] == [
        "0 images",
        "1 image",
        "2 classes",
    ]
