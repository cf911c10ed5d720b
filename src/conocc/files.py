"""Files that are written whole or not at all, and folders that one process writes at a time."""

from __future__ import annotations

import csv
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

PATIENCE_S = 5.0


@contextmanager
def held(folder: Path) -> Iterator[None]:
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
    try:
        for left in folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; once the block ends well, move it onto `path`.

    A reader sees the old file or the new one, also when the power fails in between; when the
    block or the disk fails, the old one stays and the temporary one goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON that every reader takes: no NaN, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whole or not at all; `rows` may be a generator that is still at work."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _umask() -> int:
    # The only portable way to read it is to set it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
