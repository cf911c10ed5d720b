"""Folders are written by one process at a time, and files whole or not at all."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from conocc.io.files import atomic_write, folder_lock, refuse_unmarked
from conocc.io.tables import write_csv

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
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_is_neither_replaced_nor_written_to(tmp_path, kind):
    path = tmp_path / "table.csv"
    (tmp_path / "target").write_text("old")
    {"link": lambda p: p.symlink_to("target"), "folder": Path.mkdir, "pipe": os.mkfifo}[kind](path)
    before = path.lstat().st_mode
    with pytest.raises(FileExistsError, match="table.csv' is no file"):
        write_csv(path, ("path",), [("new",)])
    assert path.lstat().st_mode == before
    assert (tmp_path / "target").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.name != "posix", reason="needs files with holes")
@pytest.mark.parametrize("place", [0, 2**36 - 4])
def test_a_mark_is_looked_for_at_the_ends_of_a_file(tmp_path, place):
    """It was looked for in all of it: in gigabytes of a graph."""
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**36)
        file.seek(place)
        file.write(b"mark")
    refuse_unmarked(path, b"mark")
    with pytest.raises(FileExistsError, match=r"'.*model.onnx' is another file"):
        refuse_unmarked(path, b"other")


def test_a_lock_whose_file_cannot_be_unlinked_while_it_is_open_ends_well(tmp_path, monkeypatch):
    """As on Windows: the file goes once the lock is released."""
    unlink = Path.unlink

    def refusing(path, missing_ok=False):
        if path.name == ".lock" and any(
            os.path.samefile(fd, path) for fd in Path("/proc/self/fd").iterdir() if fd.exists()
        ):
            raise PermissionError(13, "The process cannot access the file", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    with folder_lock(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not list(tmp_path.iterdir())


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    def refused(lock, *args, **kwargs):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("conocc.io.files.FileLock.acquire", refused)
    with (
        pytest.raises(OSError, match="No locks .*; choose a folder") as caught,
        folder_lock(tmp_path),
    ):
        pass
    assert caught.value.filename == str(tmp_path)
