"""Files that are written whole or not at all, and folders that one process writes at a time."""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from conocc.io.words import reason

PATIENCE_S = 5.0
# What pictures that conocc drew say of themselves, and how much of a file's ends holds such words.
PICTURE_MARK = b"Drawn by conocc"
END_BYTES = 2**16
# In a folder of results: which command wrote which files of it (`claim`).
OWNER = "conocc.json"
# What holds a file or a folder of these names was made by a command; the first that is there says.
MADE = {"run.json": "a run", "rows": "a study", OWNER: "a page"}


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder that is being written, for as long as the block runs.

    The system drops the lock of a process that dies, and the next one to hold the folder removes
    the temporary files that it left.

    Raises
    ------
    BlockingIOError
        If another process holds the folder, and goes on doing so for `PATIENCE_S`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    lock = FileLock(path, mode=0o666 & ~_umask())
    try:
        # A worker whose driver was killed takes a moment to save its state and end.
        lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        said = "Another process is at work here; wait for it, or choose another folder"
        raise BlockingIOError(errno.EAGAIN, said, str(folder)) from None
    except OSError as error:  # such as ENOLCK, of a disk of the network that has no locks
        said = f"{error.strerror}; choose a folder on another disk, such as one of this machine"
        raise OSError(error.errno, said, str(folder)) from None
    try:
        for left in folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        yield
    finally:
        # POSIX: before it is released, or it would be taken from the next one to hold it.
        gone = _unlinked(path)
        lock.release()
        if not gone:  # Windows, which unlinks no open file
            _unlinked(path)


def _unlinked(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


@contextmanager
def atomic_write(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Give a temporary name beside `path`; once the block ends well, move it onto `path`.

    A reader sees the old file or the new one, also when the power fails in between; when the
    block or the disk fails, the old one stays and the temporary one goes.

    Raises
    ------
    FileExistsError
        If there is a link, a folder or a device at `path`, before the block runs.
    """
    refuse_special(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what an `atomic_write` to a path left that was killed; nobody else may be at it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        left.unlink(missing_ok=True)


def refuse_special(path: Path) -> None:
    """Refuse to put a file in the place of a link, a folder or a device."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise FileExistsError(
            f"'{path}' is no file but a link, a folder or a device, and is not replaced. "
            "Give another name."
        )


def refuse_unmarked(path: Path, mark: bytes, option: str = "--out") -> None:
    """Refuse to write over a file whose ends do not hold a mark, by which it is our own.

    `option` is the one that names the file.

    Raises
    ------
    FileExistsError
        If there is something else at `path`.
    """
    refuse_special(path)
    if path.exists():
        with path.open("rb") as file:
            ends = file.read(END_BYTES)
            file.seek(max(END_BYTES, path.stat().st_size - END_BYTES))
            if mark not in ends + file.read():
                raise other_file(path, option)


def other_file(path: Path, option: str) -> FileExistsError:
    """Say that a file, which an option named, is not this command's to replace."""
    return FileExistsError(
        f"'{path}' is another file than this command writes, and is not replaced. "
        f"Choose another {option}, or move it away. Nothing was written."
    )


def refuse_made(folder: Path, own: str | None = None) -> None:
    """Refuse a folder that another command made than the one whose folders `MADE` calls `own`."""
    mark = next((name for name in MADE if (folder / name).exists()), own)
    if mark is not None and mark != own:
        raise FileExistsError(
            f"'{folder}' holds {MADE[mark]} that another command made. Choose another folder. "
            "Nothing was written."
        )


def refuse_foreign(folder: Path, command: str, names: str) -> None:
    """Refuse a folder that holds files of the `names` that a command writes, but did not write.

    Parameters
    ----------
    folder
        It need not exist. Nothing is written into it.
    command
        As a user calls it; what it wrote before (`claim`) it may write again.
    names
        A regular expression for the names of the files.

    Raises
    ------
    FileExistsError
        If there is such a file.
    NotADirectoryError
        If `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"'{folder}' is a file. Give the name of a folder.")
    own = _owned(folder).get(command, ())
    here = sorted(path.name for path in folder.glob("*") if re.fullmatch(names, path.name))
    foreign = [name for name in here if name not in own]
    if foreign:
        others = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
        raise FileExistsError(
            f"'{folder}' holds '{foreign[0]}'{others}, which '{command}' would replace but did not "
            "write. Choose another folder, or move them away. Nothing was written."
        )


def claim(folder: Path, command: str, names: Iterable[str]) -> None:
    """Note in a folder, before they are written, that files of these names are a command's own."""
    owned = _owned(folder)
    owned[command] = sorted({*owned.get(command, ()), *names})
    write_json(folder / OWNER, owned)


def _owned(folder: Path) -> dict[str, list[str]]:
    """Read which command claimed which files of a folder."""
    try:
        owned: dict[str, list[str]] = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        if all(isinstance(files, list) for files in owned.values()):
            return owned
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError):
        pass
    raise FileExistsError(
        f"'{folder / OWNER}' was not written by conocc. Choose another folder, or move it away. "
        "Nothing was written."
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON that every reader takes: no NaN, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object with these keys; a damaged one is a `ValueError` with its name."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            value[key]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Cannot read '{path}': {reason(error)}.") from error
    return value


def _umask() -> int:
    # The only portable way to read it is to set it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
