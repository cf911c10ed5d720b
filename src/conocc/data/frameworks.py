"""Cohorts as other frameworks describe them: each reader makes the rows of a manifest.

A reader is given what its file holds, and the folder that the paths in it are relative to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from conocc.data.columns import TableOptions, is_called
from conocc.data.image_io.pixels import naming
from conocc.data.index import SIDES, ImageIndex, is_image_name, opened, printable, some, stem, walk
from conocc.data.manifest import list_manifest
from conocc.io.user_tables import read_table

Row = dict[str, str]
Reader = Callable[[Any, Path], Iterator[Row | str]]  # a text is a note
Recognise = Callable[[Mapping[str, Any], TableOptions], bool]  # of JSON, or of a table's first row
_KINDS = {dict: "an object", list: "a list", str: "a text", type(None): "nothing"}


def _a(kind: type, value: Any, at: str) -> Any:
    """Return a value of JSON that is of a kind, or say where it is not."""
    if not isinstance(value, kind):
        got = _KINDS.get(type(value), value)
        raise ValueError(f"{at} must be {_KINDS[kind]}. Got {got} instead")
    return value


def _word(value: Any, at: str) -> str:
    """Write a text, a number or a truth value as text; nothing where there is none."""
    if isinstance(value, dict | list):
        raise ValueError(f"{at} must be a text or a number. Got {_KINDS[type(value)]} instead")
    return "" if value is None else str(value)


def _nnunet(content: Any, folder: Path) -> Iterator[Row]:
    """All of imagesTr, one class, a patient a case; of several channels the first."""
    label = _word(content.get("name"), "'name'") or folder.resolve().name
    for path in walk(folder / "imagesTr").images:
        case, _, channel = stem(path).rpartition("_")
        if not re.fullmatch(r"\d{4}", channel):
            case, channel = stem(path), "0000"
        if channel == "0000":
            yield {"path": f"imagesTr/{path}", "label": label, "patient": case}


def _medianomaly(content: Any, folder: Path) -> Iterator[Row]:
    """``{"train": {"0": [file, …]}, "test": {"0": […], "1": […]}}``, the files in images."""
    for side in ("train", "test"):
        for label, files in _a(dict, content[side], f"'{side}'").items():
            at = f"'{printable(label)}' in '{side}'"
            split = "unused" if isinstance(files, dict) else side  # of no known class
            for group in files.values() if isinstance(files, dict) else [files]:
                for i, file in enumerate(_a(list, group, at), 1):
                    path = f"images/{_a(str, file, f'{at}, item {i},')}"
                    yield {"path": path, "label": label, "split": split}


def _monai(content: Any, folder: Path) -> Iterator[Row]:
    """``{"training": [{"image": file, "label": class}, …], "testing": […]}``."""
    for side in ("training", "validation", "testing", "test"):
        for i, item in enumerate(_a(list, content.get(side, []), f"'{side}'"), 1):
            at = f"in '{side}', item {i},"
            item = (
                {"image": item} if isinstance(item, str) else _a(dict, item, f"'{side}', item {i},")
            )
            image = item.get("image")
            image = _a(
                str, (image or [None])[0] if isinstance(image, list) else image, f"'image' {at}"
            )
            label = _word(item.get("label"), f"'label' {at}")
            if is_image_name(label):
                raise ValueError(
                    f"the label of '{printable(image)}' is a mask, where the class of an image is "
                    "needed"
                )
            names = [_word(v, f"'{k}' {at}") for k, v in item.items() if is_called(k, "patient")]
            known = {"patient": names[0]} if names else {}
            yield {"path": image, "label": label, "split": side, **known}


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


def _keys(*names: str) -> Recognise:
    return lambda first, _: all(name in first for name in names)


def _is_labelled(first: Mapping[str, Any], table: TableOptions) -> bool:
    """Tell rows of files and labels, however these are called, from what else a table may be."""
    column = table.label_column
    has_label = column in first if column else any(is_called(key, "label") for key in first)
    return "file_name" in first and (has_label or bool(table.one_hot))


# Of each: how its file is called ("" is any .json, which is named itself), how its content is
# known, what must lie beside it, and its reader.
FRAMEWORKS: dict[str, tuple[str, Recognise, str, Reader]] = {
    "nnU-Net's imagesTr": ("dataset.json", _keys(), "imagesTr/", _nnunet),
    "MedIAnomaly's data.json": ("data.json", _keys("train", "test"), "images/", _medianomaly),
    "MONAI's datalist": ("", _keys("training"), "*", _monai),
    "Hugging Face's metadata.csv": ("metadata.csv", _is_labelled, "*", _rows),
    "BIDS with participants.tsv": ("participants.tsv", _keys("participant_id"), "sub-*", _bids),
}


def _content(file: Path) -> Any:
    """Read a JSON object, or the rows of a table."""
    if file.suffix.lower() != ".json":
        return [row for _, row in read_table(file)[1]]
    with naming(printable(file.name)), opened("", str(file)) as stream:
        try:
            found = json.load(stream)
        except (ValueError, RecursionError):
            raise ValueError("it is damaged, or no JSON") from None
        return _a(dict, found, "what it holds")


def framework_of(where: Path, table: TableOptions = TableOptions()) -> tuple[str, Path, Any] | None:
    """Give the framework of a file, or of one in a folder; that file, and what it holds.

    Raises
    ------
    ValueError
        If the file is damaged, or a JSON file of no framework.
    """
    for layout, (name, recognise, beside, _) in FRAMEWORKS.items():
        file = where / name if where.is_dir() else where
        is_named = file.name == name or (not name and file.suffix.lower() == ".json")
        if is_named and file.is_file() and any(file.parent.glob(beside)):
            # Of that name is also what describes no cohort.
            with suppress(ValueError) if beside == "*" and name else nullcontext():
                content = _content(file)
                first = content if isinstance(content, dict) else next(iter(content), {})
                if recognise(first, table):
                    return layout, file, content
    if where.is_file() and where.suffix.lower() == ".json":
        raise ValueError(
            f"'{printable(where)}' is not a cohort: a .json file must have the key 'training' "
            "(MONAI's datalist), or be data.json with 'train' and 'test' beside a folder images "
            "(MedIAnomaly), or dataset.json beside a folder imagesTr (nnU-Net)."
        )
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
    except ValueError as error:
        raise ValueError(f"{at}: {error}.") from None
    rows = [one for one in found if not isinstance(one, str)]
    if not rows:
        raise ValueError(f"{at} lists no image.")
    for row in rows:
        path = PurePosixPath(row["path"].replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[:1]:
            raise ValueError(f"{at}: '{printable(path)}' leaves the folder, and is not read.")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    whole = [{column: row.get(column, "") for column in columns} for row in rows]
    index = list_manifest(file, table, listed=(layout, columns, [*enumerate(whole, 1)]))
    return replace(index, notes=(*index.notes, *(one for one in found if isinstance(one, str))))
