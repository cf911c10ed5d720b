"""Folders are written by one process at a time, and tables are read as they were written."""

import csv
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conocc.data.index import read_table
from conocc.io.files import atomic_write, folder_lock, read_csv, write_csv

HOLDER = """
    import sys
    from pathlib import Path
    from conocc.io.files import atomic_write, folder_lock

    with folder_lock(Path(sys.argv[1])), atomic_write(Path(sys.argv[1]) / "table.csv"):
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder, in the middle of writing a file."""
    program = textwrap.dedent(HOLDER)
    process = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_a_folder_that_another_process_holds_is_refused_by_name(holder, tmp_path):
    with pytest.raises(BlockingIOError, match="at work here.*run'"), folder_lock(tmp_path / "run"):
        pass


def test_the_lock_does_not_outlive_its_owner_nor_do_its_files(holder, tmp_path):
    holder.kill()
    holder.wait()
    left = sorted(path.suffix for path in (tmp_path / "run").iterdir())
    assert left == ["", ".tmp"]  # .lock has no suffix
    with folder_lock(tmp_path / "run"):
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert not list((tmp_path / "run").iterdir())


def test_a_folder_is_free_again_after_a_failure(tmp_path):
    with pytest.raises(RuntimeError), folder_lock(tmp_path):
        raise RuntimeError
    with folder_lock(tmp_path):
        pass


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_what_a_link_leads_to_is_not_written(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "table.csv").symlink_to(tmp_path / "target")
    write_csv(tmp_path / "table.csv", ("path",), [("new",)])
    assert (tmp_path / "target").read_text() == "old"
    assert (tmp_path / "table.csv").read_text() == "path\nnew\n"


# --- tables ------------------------------------------------------------------------------------

# What OWASP names, and the ordinary; with what parts cells in one language or another.
NAMES = st.text("=+-@\t\r\n＝＋－＠';,\"aNA07. é", max_size=8)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_name_starts_no_formula_and_is_read_as_it_was_written(names):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_csv(path, ("path", "score", "label"), ((name, -0.5, "x") for name in names))
        with path.open(encoding="utf-8", newline="") as file:
            cells = [row[0] for row in csv.reader(file)]
        found = read_csv(path)
    assert len(cells) == 1 + len(names)
    for cell in cells:
        assert not re.search(r"^[=+\-@\t\r\n＝＋－＠]|[;\t\r\n][=+\-@＝＋－＠]", cell)
    assert found["path"].tolist() == names
    assert found["score"].tolist() == [-0.5] * len(names)


def test_numbers_are_written_as_numbers(tmp_path):
    write_csv(tmp_path / "t.csv", ("path", "score"), [("-0.5", -0.5), ("-1", -1)])
    assert (tmp_path / "t.csv").read_text() == "path,score\n'-0.5,-0.5\n'-1,-1\n"


def test_a_missing_number_is_missing_and_a_name_is_not(tmp_path):
    write_csv(tmp_path / "t.csv", ("path", "p_value", "label"), [("NA", "", "None")])
    (row,) = read_csv(tmp_path / "t.csv").itertuples(index=False)
    assert (row.path, row.label) == ("NA", "None")
    assert row.p_value != row.p_value


def test_a_table_of_names_read_by_line_is_as_it_was_written(tmp_path):
    """As manifests are; blanks around a name are not kept there."""
    write_csv(tmp_path / "t.csv", ("path", "label"), [("=a.png", "-b"), ("'=c.png", "'tis")])
    _, rows = read_table(tmp_path / "t.csv")
    assert [tuple(row.values()) for _, row in rows] == [("=a.png", "-b"), ("'=c.png", "'tis")]
