"""What is marked on images: boxes from a table, or the parts of masks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np

from conocc.data.bounding_boxes import Box, boxes_of_mask
from conocc.data.columns import TableOptions, claim, table_path
from conocc.data.image_io.pixels import Pixels
from conocc.data.image_io.read import decode, format_of
from conocc.data.image_io.stack import Stack, StackOptions, volume_and_slice
from conocc.data.index import (
    ImageEntry,
    ImageIndex,
    count,
    of_files,
    printable,
    read_file,
    stem,
    walk,
)
from conocc.data.masks import marked_image
from conocc.data.volumes import read_stack
from conocc.io.user_tables import hint_at_encoding, read_table

# Given an image's path and its shape, (h, w): its boxes, each with a label.
Marks: TypeAlias = Callable[[str, tuple[int, int]], list[tuple[Box, str]]]

INSIDE = "inside"
BOX_COLUMNS = ("path", "x", "y", "width", "height")


# From a table


def marked_by_boxes(
    folder: Path, table: Path, *, reserved: str | None, options: TableOptions = TableOptions()
) -> tuple[ImageIndex, Marks]:
    """List the images that a table names, and give a function from an image to its boxes.

    The table has the columns ``path,x,y,width,height[,label][,patient]``. No label may be the one
    that is `reserved`.

    Raises
    ------
    ValueError
        If the table cannot be read, or a line is wrong: which, and why.
    """
    columns, rows = read_table(table)
    name = printable(table.name)
    claimed = claim(f"'{name}'", columns, BOX_COLUMNS, ("label", "patient"), options)
    found: dict[str, list[tuple[Box, str]]] = {}
    patient: dict[str, str | None] = {}
    for line, cells in rows:
        row = {meaning: cells[column] for meaning, column in claimed.items()}
        at = f"'{name}', line {line}"
        path = table_path(row["path"], options.suffix, folder)
        file = PurePosixPath(volume_and_slice(path)[0])
        if ".." in file.parts or file.is_absolute() or not (folder / file).is_file():
            hint = hint_at_encoding(table, path)
            raise ValueError(f"{at}: there is no file '{printable(path)}' in the images{hint}.")
        if path not in found and volume_and_slice(path)[1] is None and _is_stack(folder, path):
            raise ValueError(
                f"{at}: '{printable(path)}' holds several images; name one: '{printable(path)}[0]'."
            )
        label = row.get("label", INSIDE)
        if label == reserved or not re.fullmatch(r"[^./\\][^/\\]*", label):
            raise ValueError(f"{at}: the label {label!r} cannot name the class of a box.")
        found.setdefault(path, []).append((_box(row, at), label))
        who = row.get("patient")
        if who == "" or patient.setdefault(path, who) != who:
            raise ValueError(f"{at}: '{printable(path)}' needs one patient. Got {who!r}.")
    entries = [ImageEntry(path, label="", patient=patient[path]) for path in found]
    return of_files("boxes", folder, entries), lambda path, shape: found[path]


def _is_stack(folder: Path, path: str) -> bool:
    with suppress(ValueError):  # told when it is read
        stack = read_stack(folder, path, StackOptions())
        return stack is not None and not stack.single
    return False


def _box(row: dict[str, str], at: str) -> Box:
    """Read a box; of one with decimals, all pixels that it touches."""
    given = ",".join(row[column] for column in BOX_COLUMNS[1:])
    try:
        x, y, width, height = sides = [float(row[column]) for column in BOX_COLUMNS[1:]]
        left, top = math.floor(x), math.floor(y)
        box = Box(left, top, math.ceil(x + width) - left, math.ceil(y + height) - top)
    except (ValueError, OverflowError):
        raise ValueError(f"{at}: the box must be four numbers. Got {given!r}.") from None
    if max(sides) <= 1 and not all(map(float.is_integer, sides)):
        raise ValueError(
            f"{at}: the box must be in pixels, not in shares of a side. Got {given!r}."
        )
    return box


# From masks


def marked_by_masks(
    folder: Path, masks: Path, *, axis: str, min_area: int
) -> tuple[ImageIndex, Marks]:
    """List the images that have masks, and give a function from an image to its boxes.

    The mask of ``x/1.png`` is ``x/1``, ``x/1_mask``, ``x/1_mask_N``, ``x/1_seg`` or what else
    `conocc.data.masks` knows by name, of any format; several are taken together.

    Raises
    ------
    ValueError
        If no image has a mask.
    """
    if not masks.is_dir():
        raise ValueError(f"'{printable(masks)}' is not a folder of masks.")
    same_folder = masks.resolve() == folder.resolve()
    own: dict[str, list[str]] = {}
    images = walk(folder).images
    stems = set(map(stem, images))
    for path in walk(masks).images:
        whole = stem(path)
        marked = whole if not same_folder and whole in stems else marked_image(path)
        if marked in stems and not (same_folder and marked == whole):
            own.setdefault(marked, []).append(path)
    known = {mask for found in own.values() for mask in found} if same_folder else set()
    paths = [path for path in images if path not in known]
    entries = [ImageEntry(path, label="") for path in paths if stem(path) in own]
    if not entries:
        raise ValueError(f"No image of '{printable(folder)}' has a mask in '{printable(masks)}'.")
    aside = len(paths) - len(entries)
    notes = [f"{count(aside, 'image')} without a mask left aside."] if aside else []
    # Images of one stack come one after the other.
    options = StackOptions(axis, labels=True)
    stack = lru_cache(maxsize=2)(lambda name: read_stack(masks, name, options))

    def boxes(path: str, shape: tuple[int, int]) -> list[tuple[Box, str]]:
        file, k = volume_and_slice(path)
        whole = np.zeros(shape, bool)
        for name in own[stem(file)]:
            mask = _mask(masks, name, k, stack)
            if (size := mask.shape[:2]) != shape:
                raise ValueError(
                    f"its mask '{printable(name)}' has {size[1]}x{size[0]} pixels, where it has "
                    f"{shape[1]}x{shape[0]}"
                )
            whole |= mask.reshape(*shape, -1).any(axis=-1)
        return [(box, INSIDE) for box in boxes_of_mask(whole, min_area)]

    return of_files("masks", folder, entries, notes=notes), boxes


def _mask(
    masks: Path, name: str, k: int | None, open_mask: Callable[[str], Stack | None]
) -> Pixels:
    stack = open_mask(name)
    if (stack is None or stack.single) != (k is None):
        raise ValueError(f"of it and its mask '{printable(name)}' only one holds several images")
    if stack is None:
        data = read_file(masks, name)
        mask = decode(data, printable(name))
        # JPEG strays around what is marked.
        return mask > mask.max() / 2 if format_of(data) == "JPEG" else mask
    if (k or 0) >= stack.total:
        raise ValueError(f"its mask '{printable(name)}' has no {stack.kind} {k}")
    return stack.image(k or 0).pixels
