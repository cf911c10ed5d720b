"""A cohort in a table of the user: a line an image, with its class, and what else is known."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from conocc.data.columns import FilesByName, TableOptions, claim, is_called, is_nobody, table_path
from conocc.data.image_io.stack import volume_and_slice
from conocc.data.index import ImageEntry, ImageIndex, count, of_files, printable, side, walk
from conocc.io.user_tables import TABLE_SUFFIXES, Rows, hint_at_encoding, read_table
from conocc.io.words import parted

# What numbers the slices or frames of a file.
NUMBERS = re.compile(r"(slice|frame|page)s?\W*_*(no|nr|num|number|index|idx|id)?\W*", re.I)
# What a column of 0 and 1 adds to a label: its name, its name as uncertain, or nothing.
_ONE_HOT = {"1": "{}", "true": "{}", "-1": "{}?", "0": "", "false": "", "": ""}

_HINTS = {
    "label": " --one-hot reads columns of 1 and blanks.",
    "patient": " Write each in full, as text.",  # not as 1.2E+11
}


def is_manifest(where: Path) -> bool:
    """Say whether `where` is a file whose suffix is that of a table."""
    return where.is_file() and where.suffix.lower() in TABLE_SUFFIXES


def list_manifest(
    where: Path,
    table: TableOptions = TableOptions(),
    *,
    labelled: bool = True,
    listed: tuple[str, list[str], Rows] | None = None,
) -> ImageIndex:
    """List a table ``path,label[,split][,patient]``, its paths relative to its folder or the root.

    A path may be absolute, or that of one slice of a volume, ``volume.nii.gz[12]``. A file that
    is not there is looked for below the root, as `FilesByName` does. Rows of one path are one
    image, which needs one split and patient; labels that differ are joined by ``|``. Unless it is
    to be `labelled`, paths alone are read, and labels where a column is called so. What another
    reader `listed` in the table's place is its layout, columns and rows.

    Raises
    ------
    ValueError
        If a column, a value or a file is missing or contradicts another: the line and the value.
    """
    name = f"'{printable(where.name)}'"
    root = where.parent if table.root is None else Path(table.root)
    if not root.is_dir():
        raise ValueError(f"There is no folder '{printable(root)}' (--root).")
    layout, columns, rows = listed or ("a manifest", *read_table(where))
    table = replace(table, one_hot=tuple(parted(table.one_hot, columns)))
    if not labelled:
        table = replace(table, one_hot=())
        # A mere list of paths has no head line.
        if len(columns) == 1 and (root / table_path(columns[0], table.suffix)).is_file():
            rows = [(1, {columns[0]: columns[0]}), *rows]
            table = replace(table, path_column=columns[0])
    required = ("path", "label") if labelled and not table.one_hot else ("path",)
    optional = ("split", "patient") if labelled else ()
    claimed = claim(name, columns, required, optional, table)
    told = [column for column in columns if is_called(column, "label") and not labelled]
    if not rows:
        raise ValueError(f"{name} lists no images.")
    first: dict[str, tuple[int, ImageEntry]] = {}
    labels: dict[str, set[str]] = defaultdict(set)
    used = {*claimed.values(), *table.one_hot}
    further = [column for column in columns if column not in used] if labelled else []
    facts: dict[str, dict[str, str]] = {}
    for line, row in rows:
        at = f"{name}, line {line}"
        entry = _entry({word: row[column] for word, column in claimed.items()}, at, table, root)
        known, same = first.setdefault(entry.path, (line, entry))
        if replace(same, label=entry.label) != entry:
            raise ValueError(
                f"{at}: '{printable(entry.path)}' has another split or patient than line {known}."
            )
        label = row[told[0]] if len(told) == 1 else entry.label
        found = _one_hot(row, table.one_hot, at) if table.one_hot else label.split("|")
        labels[entry.path].update(map(str.strip, found))
        _add(row, facts.setdefault(entry.path, {column: row[column] for column in further}), at)
    places = _places(where, root, {path: line for path, (line, _) in first.items()}, table)
    entries = []
    for path, (_, entry) in first.items():
        label, place = "|".join(sorted(labels[path])), places[path]
        known_as = None if place == path else path
        entries.append(replace(entry, path=place, label=label, name=known_as, facts=facts[path]))
    notes = []
    if further:
        others = ", ".join(map(printable, further))
        notes.append(f"Columns of {name} that only 'evaluate --by' uses: {others}.")
    if len(rows) > len(first):
        notes.append(f"The {len(rows)} rows of {name} list {count(len(first), 'image')}.")
    if several := sum(len(words) > 1 for words in labels.values()):
        notes.append(f"{count(several, 'image')} with several labels, joined by '|'.")
    if elsewhere := sum(entry.name is not None for entry in entries):
        notes.append(f"{count(elsewhere, 'image')} found below the root by the end of the path.")
    called = root.resolve().name if listed else where.stem
    return of_files(layout, root, entries, name=called, notes=notes)


def _entry(values: dict[str, str], at: str, table: TableOptions, root: Path) -> ImageEntry:
    path = table_path(values["path"], table.suffix, root)
    for meaning in ("path", "label", "patient"):
        value = values.get(meaning, "one")
        if not value or (meaning == "patient" and is_nobody(value)):
            of = f" of '{printable(path)}'" if path else ""
            hint = _HINTS.get(meaning, "")
            given = f", {value!r}, is nobody's name" if value else " is empty"
            raise ValueError(f"{at}: the {meaning}{of}{given}.{hint}")
    split = side(values["split"], at) if "split" in values else None
    return ImageEntry(path, values.get("label", ""), split, values.get("patient"))


def _add(row: Mapping[str, str], facts: dict[str, str], at: str) -> None:
    """Join what another row of an image says, as labels are."""
    for column, value in facts.items():
        if row[column] != value:
            if NUMBERS.fullmatch(column):
                raise ValueError(
                    f"{at}: its file has another '{printable(column)}' above. If that numbers the "
                    "images in one file, write 'FILE[3]', counted from 0; or rename the column."
                )
            facts[column] = "|".join(dict.fromkeys(f"{value}|{row[column]}".split("|")))


def _one_hot(row: Mapping[str, str], columns: Sequence[str], at: str) -> list[str]:
    """Name the columns that hold 1."""
    found = []
    for column in columns:
        value = re.sub(r"\.0*$", "", row[column].lower())
        if value not in _ONE_HOT:
            raise ValueError(
                f"{at}: column {column!r} (--one-hot) holds {row[column]!r}, not 1, 0, -1 or blank."
            )
        found.append(_ONE_HOT[value].format(column))
    return list(filter(None, found)) or ["other"]


def _places(
    where: Path, root: Path, lines: Mapping[str, int], table: TableOptions
) -> dict[str, str]:
    """Find where each path of a table lies below the root, of no two in the same place."""
    name = f"'{printable(where.name)}'"
    places = {path: path for path in lines}
    lost: dict[str, list[str]] = {}
    files = {path: volume_and_slice(path)[0] for path in lines}
    missing = [
        path
        for path, file in files.items()
        if not any(os.path.isfile(root / one) for one in {path, file})
    ]
    if missing:
        below = walk(root)
        by_name = FilesByName([*below.images, *below.unknown, *chain(*below.aside.values())])
    for path in missing:
        found = by_name.find(files[path])
        if len(found) == 1:
            places[path] = found[0] + path[len(files[path]) :]
        else:
            lost[path] = found
    if lost:
        path, found = next(iter(lost.items()))
        what = f"there is no file '{printable(path)}'"
        hint = "" if table.root else "; --root says in which folder they lie"
        if found:
            what = f"'{printable(path)}' may be '{printable(found[0])}' or '{printable(found[1])}'"
            hint = "; write its folder"
        elif suffix := by_name.suffix_of(files[path]):
            hint = f"; --suffix {suffix} adds what the names lack"
        elif misread := hint_at_encoding(where, path):
            hint = misread
        elif other := by_name.of_other_suffix(files[path]):
            hint = f"; there is '{printable(other)}'"
        raise ValueError(
            f"{name}, line {lines[path]}: {what} "
            f"({len(lost)} of {count(len(lines), 'file')} missing{hint})."
        )
    listed: dict[str, str] = {}
    for path, place in places.items():
        if (other := listed.setdefault(place, path)) != path:
            raise ValueError(
                f"{name}, line {lines[path]}: '{printable(path)}' would be the file of "
                f"'{printable(other)}', '{printable(place)}'."
            )
    return places
