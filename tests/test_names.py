"""Files, folders, classes and patients may be called anything, and names do nothing."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conocc.io.tables import read_csv
from made_cohorts import write_image
from test_cli import SOME_FAILED, call

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems refuse such names")

# A slash cannot stand in a name, but between two: <script>alert(1)< and script>.png.
NASTY = (
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    'it\'s a "name" & more.png',
    "two\nlines, and\rmore.png",
    "[bold]b[blink].png",
    "=HYPERLINK(1).png",
    "-1;=2.png",
    "@größe 正常\u202e.png",
    "\x1b[31mred\x07.png",
    "a[link=x]\\.png",
    "$\\frac$.png",
    "NA.png",
)
MAJORITY, MINORITY = "[red]=<b>mäjo\nrity'", '-<i>\x1b[32m"odd" & $\\frac'
COHORT, RUN, STUDY = "co\x1b[31m<u>[bold]\nhort", "=r\x1b[31m<s>[u]n\n", "-s\x1b[31m[i]tudy\n"
QUICK = ("--no-cache", "--quiet")


class Tags(HTMLParser):
    """The tags of a page, and the attributes that act."""

    def __init__(self, path: Path):
        super().__init__()
        self.found: set[str] = set()
        self.acting: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.acting |= {name for name, _ in attrs if name.startswith("on")}


def assert_tame(page: Path) -> None:
    tags = Tags(page)
    assert not tags.found & {"b", "i", "u", "s"}
    assert not tags.acting
    assert "<script>alert" not in page.read_text(encoding="utf-8")


def names_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that is worked in, with a cohort whose every name is nasty."""
    place = tmp_path_factory.mktemp("names")
    for label, n in ((MAJORITY, len(NASTY)), (MINORITY, 8)):
        for name in NASTY[:n]:
            path = place / COHORT / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(place / "made.png", like=f"{label}{name}").rename(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


@pytest.fixture(scope="module")
def said(place) -> dict[str, str]:
    """What each command said; all ended well."""
    majority = ("--majority", MAJORITY)
    commands = {
        "inspect": ("data", "inspect", COHORT, *majority, "--no-cache"),
        "fit": ("fit", COHORT, *majority, "--out", RUN, "--method", "cae", "--epochs", 1, *QUICK),
        "evaluate": ("evaluate", RUN, COHORT, "--no-cache"),
        "score": ("score", RUN, COHORT, "--out", "scores.csv", "--quiet"),
        "explain": ("explain", RUN, COHORT, "--out", "explained", "--quiet"),
        "embed": ("embed", RUN, "--out", "map.png"),
        "benchmark": (
            *("benchmark", COHORT, *majority, "--out", f"./{STUDY}", "--runs", 1),
            *("--methods", "ocsvm,gabor_mahalanobis"),
        ),
        "report": ("report", RUN),
        "report of a study": ("report", f"./{STUDY}"),
    }
    found = {}
    for name, command in commands.items():
        code, found[name] = call(*command)
        assert code == 0, (name, found[name])
    return found


def test_nothing_of_a_name_reaches_the_terminal_but_its_letters(said):
    for text in said.values():
        assert text.replace("\n", "").isprintable()
    for name in ("inspect", "fit"):
        assert "Majority class: [red]=<b>mäjo\\nrity' (12 images)" in said[name]
    assert "[bold]" in said["evaluate"]
    assert "[i]tudy" in said["report of a study"]


def test_nothing_of_a_name_is_markup_in_a_page(said, place):
    for page in (place / RUN / "report.html", place / STUDY / "report.html"):
        assert_tame(page)
    assert_tame(place / "explained" / "index.html")


def test_every_table_has_the_names_again_and_no_path_that_is_a_formula(said, place):
    images = names_of(place / COHORT)
    assert set(read_csv(place / RUN / "split.csv")["path"]) == images
    scored = read_csv(place / "scores.csv")["path"]
    assert {path.removeprefix(f"{COHORT}/") for path in scored} == images
    assert set(read_csv(place / RUN / "scores.csv")["label"]) <= {
        MAJORITY,
        MINORITY,
    }
    tables = [*place.rglob("*.csv")]
    assert len(tables) > 8
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                assert row.get("path", "")[:1] not in tuple("=+-@\t\r\n"), table


def test_a_file_whose_name_is_no_unicode_is_a_sentence(said, place):
    shutil.copytree(place / COHORT, place / "bad")
    os.rename(place / "bad" / MINORITY / NASTY[7], place / "bad" / MINORITY / "b\udcff.png")
    majority = ("--majority", MAJORITY, *QUICK)
    code, text = call("fit", "bad", *majority, "--out", "r")
    assert code == 1
    assert "b\\udcff.png': its name is not valid Unicode" in text
    code, text = call("score", RUN, "bad", "--out", "bad.csv", "--quiet")
    assert code == SOME_FAILED
    assert "b\\udcff.png': its name is not valid Unicode" in text


def test_a_command_that_no_file_can_note_is_refused_before_it_works(said, place, monkeypatch):
    shutil.copytree(place / COHORT, place / "c\udcff")
    majority = ("--majority", MAJORITY)
    for command in (
        ("fit", "c\udcff", *majority, "--out", "r", *QUICK),
        ("benchmark", "c\udcff", *majority, "--out", "s", "--quiet"),
        ("evaluate", RUN, "c\udcff", "--no-cache", "--quiet"),
        ("calibrate", RUN, "c\udcff", *QUICK),
    ):
        monkeypatch.setattr(sys, "argv", ["conocc", *map(str, command)])
        code, text = call(*command)
        assert code == 1
        assert text == (
            "Error: 'c\\udcff' is not valid Unicode, so that no file could note it. Rename it.\n"
        )
    code, text = call("data", "inspect", "c\udcff", *majority, "--no-cache")
    assert code == 0, text
