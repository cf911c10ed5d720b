"""Cohorts as other frameworks describe them: each reader makes the rows of a manifest.

A reader is given what its file holds, and the folder that the paths in it are relative to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from conocc.data.columns import TableOptions, is_called
from conocc.data.index import SIDES, ImageIndex, is_image_name, opened, printable, some, stem, walk
from conocc.data.manifest import list_manifest
from conocc.io.user_tables import read_table
from conocc.io.words import reason

Row = dict[str, str]
Reader = Callable[[Any, Path], Iterator[Row | str]]  # a text is a note


def _nnunet(content: Any, folder: Path) -> Iterator[Row]:
    """All of imagesTr, one class, a patient a case; of several channels the first."""
    label = str(content.get("name") or folder.resolve().name)
    for path in walk(folder / "imagesTr").images:
        case, _, channel = stem(path).rpartition("_")
        if not re.fullmatch(r"\d{4}", channel):
            case, channel = stem(path), "0000"
        if channel == "0000":
            yield {"path": f"imagesTr/{path}", "label": label, "patient": case}


def _medianomaly(content: Any, folder: Path) -> Iterator[Row]:
    """``{"train": {"0": [file, …]}, "test": {"0": […], "1": […]}}``, the files in images."""
    for side in ("train", "test"):
        for label, files in content[side].items():
            split = "unused" if isinstance(files, dict) else side  # of no known class
            for group in files.values() if isinstance(files, dict) else [files]:
                for file in group:
                    yield {"path": f"images/{file}", "label": label, "split": split}


def _monai(content: Any, folder: Path) -> Iterator[Row]:
    """``{"training": [{"image": file, "label": class}, …], "testing": […]}``."""
    for side in ("training", "validation", "testing", "test"):
        for item in content.get(side, []):
            item = item if isinstance(item, dict) else {"image": item}
            image, label = item["image"], str(item.get("label", ""))
            if is_image_name(label):
                raise ValueError(
                    f"the label of '{printable(image)}' is a mask, where the class of an image is "
                    "needed"
                )
            path = image[0] if isinstance(image, list) else image
            names = [str(value) for key, value in item.items() if is_called(key, "patient")]
            known = {"patient": names[0]} if names else {}
            yield {"path": str(path), "label": label, "split": side, **known}


def _rows(rows: Any, folder: Path) -> Iterator[Row]:
    """``file_name`` and further columns; folders that are called so are sides of the split."""
    for row in rows:
        path = row.pop("file_name")
        first = path.partition("/")[0].lower()
        yield {"path": path, **({"split": first} if first in SIDES else {}), **row}


def _bids(rows: Any, folder: Path) -> Iterator[Row | str]:
    """All images of each participant, with what its line says; who has no image, or no line."""
    known, lacking = set(), []
    for row in rows:
        who = f"sub-{row.pop('participant_id').removeprefix('sub-')}"
        paths = walk(folder / who).images if (folder / who).is_dir() else ()
        known.add(who)
        lacking += [] if paths else [who]
        yield from ({"path": f"{who}/{path}", "patient": who, **row} for path in paths)
    others = {path.name for path in folder.glob("sub-*") if path.is_dir()} - known
    if lacking:
        yield f"No image of {some(lacking, 'participant')} that the table lists is there."
    if others:
        yield f"{some(sorted(others), 'participant')} with no line in the table left aside."


# Of each: how its file is called ("" is any .json, which is named itself), what the file must hold
# at the least, by the framework's names (but for the `LABEL`, found as in any table), what must lie
# beside it, and its reader.
LABEL = "label"
FRAMEWORKS: dict[str, tuple[str, dict[str, type], str, Reader]] = {
    "nnU-Net's imagesTr": ("dataset.json", {"labels": object}, "imagesTr/", _nnunet),
    "MedIAnomaly's data.json": ("data.json", {"train": dict, "test": dict}, "*", _medianomaly),
    "MONAI's datalist": ("", {"training": list}, "*", _monai),
    "Hugging Face's metadata.csv": ("metadata.csv", {"file_name": str, LABEL: str}, "*", _rows),
    "BIDS with participants.tsv": ("participants.tsv", {"participant_id": str}, "sub-*", _bids),
}


def _holds(content: Any, wanted: Mapping[str, type], table: TableOptions) -> bool:
    """Say whether JSON, or the first row of a table, holds what is wanted, of these types."""
    first = content if isinstance(content, dict) else content[0]
    label = table.one_hot[:1] or [key for key in first if is_called(key, LABEL)]
    found = {**first, LABEL: first.get(table.label_column or next(iter(label), ""))}
    return all(name in found and isinstance(found[name], kind) for name, kind in wanted.items())


def _content(file: Path) -> Any:
    """Read JSON, or the rows of a table; nothing where it is neither, or empty."""
    try:
        if file.suffix.lower() != ".json":
            return [row for _, row in read_table(file)[1]] or None
        with opened("", str(file)) as stream:
            found = json.load(stream)
        return found if isinstance(found, dict) else None
    except (ValueError, RecursionError):
        return None


def framework_of(where: Path, table: TableOptions = TableOptions()) -> tuple[str, Path, Any] | None:
    """Give the framework of a file, or of one in a folder; that file, and what it holds."""
    for layout, (name, wanted, beside, _) in FRAMEWORKS.items():
        file = where / name if where.is_dir() else where
        is_named = file.name == name or (not name and file.suffix.lower() == ".json")
        if is_named and file.is_file():
            content = _content(file)
            if content and _holds(content, wanted, table) and any(file.parent.glob(beside)):
                return layout, file, content
    return None


def list_framework(where: Path, table: TableOptions = TableOptions()) -> ImageIndex:
    """List the images that a framework's file describes, as those of a manifest.

    Raises
    ------
    ValueError
        If the file is not such as its framework writes, or a path leaves its folder; and as
        `list_manifest`.
    """
    known = framework_of(where, table)
    assert known  # or it is not asked
    layout, file, content = known
    at = f"'{printable(file.name)}' ({layout})"
    try:
        found = list(FRAMEWORKS[layout][-1](content, file.parent))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{at}: {reason(error)}.") from None
    rows = [one for one in found if not isinstance(one, str)]
    for row in rows:
        path = PurePosixPath(row["path"].replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[:1]:
            raise ValueError(f"{at}: '{printable(path)}' leaves the folder, and is not read.")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    whole = [{column: row.get(column, "") for column in columns} for row in rows]
    index = list_manifest(file, table, listed=(layout, columns, [*enumerate(whole, 1)]))
    return replace(index, notes=(*index.notes, *(one for one in found if isinstance(one, str))))
