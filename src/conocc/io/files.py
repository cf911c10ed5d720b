"""Files that are written whole or not at all, and folders that one process writes at a time."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import pandas as pd

PATIENCE_S = 5.0
# In a folder of results: which command wrote which files of it (`claim`).
OWNER = "conocc.json"

# Where a spreadsheet would begin to read a formula (OWASP, "CSV Injection"): at the start of a
# cell, or behind what ends a cell or a line in one that is set to another language.
_START = r"(?:^{}(?='*[=+\-@\t\r\n＝＋－＠])|(?<=[;\t\r\n]){}(?='*[=+\-@＝＋－＠]))"
_FORMULA = re.compile(_START.format("", ""))
_GUARDED = re.compile(_START.format("'", "'"))
# Columns of names, which are never numbers and never missing.
_NAMES = ("path", "digest", "patient", "label", "split")


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
    try:
        for left in folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
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


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whole or not at all; `rows` may be a generator that is still at work.

    Texts are `guarded`; `read_csv` reads them as they were.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(csv_lines(chain([header], rows)))


class _Echo:
    def write(self, line: str) -> str:
        return line


def csv_lines(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Give each row as a line of a table, its texts `guarded`."""
    # Its end has both characters, so that a text with either of them is put in quotes.
    writer = csv.writer(_Echo(), lineterminator="\r\n")
    for cells in rows:
        yield writer.writerow(map(guarded, cells)).removesuffix("\r\n") + "\n"


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table that `write_csv` wrote: its names are what they were, also "NA" and "007".

    Raises
    ------
    ValueError
        If the file is damaged; the sentence names it.
    """
    import pandas as pd

    try:
        columns = pd.read_csv(path, nrows=0).columns.tolist()
        table: pd.DataFrame = pd.read_csv(
            path,
            converters=dict.fromkeys(_NAMES, unguarded),
            keep_default_na=False,
            na_values={name: ["", "nan"] for name in columns if name not in _NAMES},
            **options,
        )
    except ValueError as error:
        raise ValueError(f"Cannot read '{path}': {error}.") from error
    return table


def guarded(cell: Any) -> Any:
    """Put an apostrophe where a text would start a formula in a spreadsheet.

    `unguarded` takes it away again. What is no text is left as it is.

    >>> [guarded(cell) for cell in ("a=1.png", "=1+1.png", "'-1", -1)]
    ['a=1.png', "'=1+1.png", "''-1", -1]
    """
    return _FORMULA.sub("'", cell) if isinstance(cell, str) else cell


def unguarded(text: str) -> str:
    """Give the text that `guarded` was given.

    >>> [unguarded(text) for text in ("a=1.png", "'=1+1.png", "''-1", "'tis.png")]
    ['a=1.png', '=1+1.png', "'-1", "'tis.png"]
    """
    return _GUARDED.sub("", text)


def _umask() -> int:
    # The only portable way to read it is to set it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
