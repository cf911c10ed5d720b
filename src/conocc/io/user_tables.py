"""Tables that users bring: text of any common dialect, Excel workbooks and Parquet."""

from __future__ import annotations

import csv
import io
import logging
import re
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from conocc.io.words import count

logger = logging.getLogger("conocc")

# Each row as text, with the number of its line.
Rows: TypeAlias = list[tuple[int, dict[str, str]]]
_Lines: TypeAlias = Iterator[tuple[int, list[str]]]

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".xlsx", ".xlsm", ".xls", ".parquet", ".pq")
# What pandas, and readr of R, call a column without a name, such as that of row numbers.
_UNNAMED = re.compile(r"Unnamed: [\d.]+|\.\.\.\d+")
EIGHT_BITS = {"cp1252": "Windows-1252", "mac_roman": "Mac Roman"}
# Letters beyond ASCII where words of Western languages have them: a capital that no small letter
# precedes, up to two small ones that touch no digit, quotes around them, dashes and units.
_IN_WORDS = re.compile(
    r"(?<![^\0-\x7f])(?=[^\0-\x7f])(?:[‘’“„«]?(?:(?<![a-z])[À-ÖØ-ÞŒŠŽ])?"
    r"(?:(?<!\d)[ß-öø-ÿœ]{1,2}(?!\d))?[’”“»]?|[–—…•°±µ²³ºª])(?![^\0-\x7f])"
)
MOST_BYTES = 2**28  # of a table, unpacked
MOST_LINES = 2**22


def read_table(path: Path) -> tuple[list[str], Rows]:
    """Read a table of the user: its columns, and each row as text with its line number.

    What the file holds decides, whatever its suffix: text with commas, semicolons, tabs or bars,
    in UTF-8, UTF-16 or else Windows-1252, which holds Latin-1, or Mac Roman, whichever makes more
    words of Western languages, with a warning where that is a guess; the first sheet of an Excel
    workbook; or Parquet. Cells are stripped of surrounding blanks; whole numbers have no decimals.
    Empty lines and columns without a name are passed over.

    Raises
    ------
    ValueError
        If the file cannot be read, is too large, has no head line or names a column twice, or a
        row has another number of cells.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        if status.st_size > MOST_BYTES:
            raise OSError(0, f"it has {status.st_size} bytes, where at most {MOST_BYTES} are read")
        with path.open("rb") as file:
            head = file.read(4)
        lines = next((read for magic, read in READERS.items() if head == magic), _text_lines)
        return _checked(repr(path.name), lines(path))
    except OSError as error:
        raise ValueError(f"Cannot read {path.name!r}: {error.strerror}.") from None


def _checked(name: str, lines: Iterable[tuple[int, list[str]]]) -> tuple[list[str], Rows]:
    """Take the first line for the names of the columns, and hold each other one against it."""
    columns: list[str] = []
    rows: Rows = []
    for line, given in lines:
        if line > MOST_LINES:
            raise ValueError(f"{name} has more than {MOST_LINES} lines, which are not read.")
        cells = [cell.strip() for cell in given]
        while len(cells) > len(columns) and not cells[-1]:
            cells.pop()
        if not any(cells):
            continue
        if not columns:
            columns = ["" if _UNNAMED.fullmatch(cell) else cell for cell in cells]
        elif len(cells) != len(columns):
            raise ValueError(
                f"{name}, line {line}: {count(len(cells), 'cell')}, where the head line "
                f"({columns[0]!r} …) has {len(columns)}."
            )
        else:
            rows.append((line, {c: cell for c, cell in zip(columns, cells, strict=True) if c}))
    if not columns:
        raise ValueError(f"{name} has no head line that names its columns.")
    columns = [column for column in columns if column]
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise ValueError(f"{name} names a column twice: {twice[0]!r}.")
    return columns, rows


# Text


def _text_lines(path: Path) -> _Lines:
    text = _decoded(path)
    if own := re.match(r"sep=(.)\r?\n", text, re.IGNORECASE):  # Excel's word for what parts cells
        return islice(_cells(path, text, own[1]), 1, None)

    def width(mark: str) -> int:
        heads = (cells for _, cells in _cells(path, text, mark))
        return len(next((head for head in heads if any(c.strip(" ,;\t|") for c in head)), ()))

    return _cells(path, text, max(",;\t|", key=width))


def _cells(path: Path, text: str, mark: str) -> _Lines:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        for cells in lines:
            yield lines.line_num, cells
    except csv.Error as error:
        raise ValueError(f"Cannot read {path.name!r}, line {lines.line_num}: {error}.") from None


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    encoding, is_sure = _encoding(data)
    if not is_sure:
        logger.warning(
            "%r is not in UTF-8; its letters were read as %s. If names, labels or paths come out "
            "wrong, save it as CSV UTF-8.",
            *(path.name, EIGHT_BITS[encoding]),
        )
    return data.decode(encoding)


def hint_at_encoding(table: Path, path: str) -> str:
    """Say how a table was read where a path in it, which is not there, may have lost letters."""
    data = b"" if path.isascii() else table.read_bytes()
    encoding = "" if data[:4] in READERS else _encoding(data)[0]
    if encoding not in EIGHT_BITS:
        return ""
    read_as = EIGHT_BITS[encoding]
    return f"; the table is not in UTF-8 and was read as {read_as}: save it as CSV UTF-8"


def _encoding(data: bytes) -> tuple[str, bool]:
    """Give the encoding in which bytes are text, and whether that is sure."""
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in data[:2]:
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    with suppress(UnicodeDecodeError):
        if "\0" not in data.decode(encoding):
            return encoding, True
    odd: dict[str, int] = {}  # how many runs of other letters than ASCII's would be in no word
    for one in EIGHT_BITS if encoding == "utf-8-sig" and b"\0" not in data else ():
        with suppress(UnicodeDecodeError):
            text = data.decode(one)
            odd[one] = len(re.findall(r"[^\0-\x7f]+", text)) - len(_IN_WORDS.findall(text))
    if "cp1252" in odd:
        best = min(odd, key=lambda one: odd[one])
        return best, best == "cp1252" and odd[best] == 0 < odd["mac_roman"]
    if odd.get("mac_roman") == 0:
        return "mac_roman", False
    raise OSError(
        0, "it is not a text file in UTF-8, UTF-16, Windows-1252 or Mac Roman; save it as CSV UTF-8"
    )


# Workbooks and Parquet


@contextmanager
def _library(path: Path, module: str) -> Iterator[None]:
    """Make one sentence of whatever a library says that cannot read the file, or is not there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what in a workbook is no cell
            yield
    except ImportError:
        raise ValueError(
            f"To read {path.name!r}, the module {module!r} is needed: pip install "
            "'conocc[tables]'; or save the table as CSV."
        ) from None
    except Exception as error:  # whose words are of the inside of the library
        if isinstance(error, OSError) and error.errno == 0:  # said here
            raise
        raise ValueError(
            f"Cannot read {path.name!r}: it is damaged, cut short or of a kind that {module} does "
            "not read."
        ) from None


def _excel_lines(path: Path) -> _Lines:
    with _library(path, "openpyxl"):
        from openpyxl import load_workbook

        with zipfile.ZipFile(path) as parts:
            _check_size(sum(part.file_size for part in parts.infolist()))
        with (
            path.open("rb") as file,
            closing(load_workbook(file, read_only=True, data_only=True)) as book,
        ):
            sheet, *others = book.worksheets
            for one in book.worksheets:
                one.reset_dimensions()  # which a workbook may state too small
            heads = [next(one.iter_rows(values_only=True), ()) for one in book.worksheets]
            if any(heads[0]) and heads[0] in heads[1:]:
                what = "several of its sheets have the same columns, and one sheet is read"
                raise OSError(0, f"{what}; put all rows into one, or remove the others")
            if others:
                logger.info("Of %r, the first sheet is read: %r.", path.name, sheet.title)
            width = 0
            for line, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
                width = max(width, len(cells))
                yield line, [*map(_text, cells), *[""] * (width - len(cells))]


def _parquet_lines(path: Path) -> _Lines:
    with _library(path, "pyarrow"):
        from pyarrow import types
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            names = [
                field.name
                for field in file.schema_arrow
                if not types.is_nested(field.type) and not types.is_binary(field.type)  # as pixels
            ]
            # Not the sizes of single columns: asking a damaged file for them ends the process.
            groups = map(file.metadata.row_group, range(file.num_row_groups))
            _check_size(sum(group.total_byte_size for group in groups))
            yield 1, names
            line = 1
            for batch in file.iter_batches(columns=names):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    line += 1
                    yield line, list(map(_text, row))


def _old_excel(path: Path) -> _Lines:
    raise OSError(0, "it is a workbook of an old kind, or has a password; save it as .xlsx or CSV")


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise OSError(0, f"it unpacks to {size} bytes, where at most {MOST_BYTES} are read")


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


READERS: dict[bytes, Callable[[Path], _Lines]] = {
    b"PK\x03\x04": _excel_lines,
    b"PAR1": _parquet_lines,
    b"\xd0\xcf\x11\xe0": _old_excel,
}
