"""The package's own tables, in CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from conocc.io.files import atomic_write, other_file, refuse_special
from conocc.io.words import reason

if TYPE_CHECKING:
    import pandas as pd

# Columns of names, which are never numbers and never missing; and those of paths.
NAME_COLUMNS = ("path", "digest", "content", "patient", "label", "split")
ERROR_COLUMNS = ("path", "reason")
PATH_COLUMNS = ("path", "source", "volume")
# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection").
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_SAFE_PATH = re.compile(rf"^\./(?={_FORMULA.pattern})")


class _UnixLines:
    """A text file to which `csv` writes its own line end, so that it quotes both parts of it."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, line: str) -> int:
        return self.file.write(line.removesuffix("\r\n") + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whole or not at all; `rows` may be a generator that is still at work.

    A path that a spreadsheet would take for a formula is written as ``./path``, which is the same
    file; all else is written as it is.
    """
    paths = [name in PATH_COLUMNS for name in header]
    lines = (map(_cell, row, paths) for row in rows)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(_UnixLines(file)).writerows(chain([header], lines))


def write_or_remove(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table, or where it would be empty remove that of an earlier call."""
    if rows:
        write_csv(path, header, rows)
    else:
        path.unlink(missing_ok=True)


def refuse_other(path: Path, first_line: str, option: str = "--out") -> None:
    """Refuse to write over a file that does not begin with this line, by which it is our own.

    `option` is the one that names the file.

    Raises
    ------
    FileExistsError
        If there is something else at `path`.
    """
    refuse_special(path)
    first = first_line.encode() + b"\n"
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(first)) != first:
                raise other_file(path, option)


def _cell(value: Any, is_path: bool) -> Any:
    return f"./{value}" if is_path and _FORMULA.match(value) else value


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table that `write_csv` wrote: its names are what they were, also "NA" and "007".

    Raises
    ------
    ValueError
        If the file is damaged; the sentence names it.
    """
    import pandas as pd

    names: dict[str, Callable[[str], str]] = dict.fromkeys(NAME_COLUMNS, str)
    names["path"] = partial(_SAFE_PATH.sub, "")
    try:
        numbers = set(pd.read_csv(path, nrows=0).columns) - set(names)
        table: pd.DataFrame = pd.read_csv(
            path,
            converters=names,
            keep_default_na=False,
            na_values={number: ["", "nan"] for number in numbers},
            **options,
        )
    except ValueError as error:
        raise ValueError(f"Cannot read '{path}': {reason(error)}.") from error
    return table
