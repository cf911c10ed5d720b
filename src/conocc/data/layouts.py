"""How cohorts lie on disk: one pair of functions a layout, tried in the order of `LAYOUTS`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

from conocc.data.columns import TableOptions, refuse_options
from conocc.data.features import is_features, list_features
from conocc.data.frameworks import framework_of, list_framework
from conocc.data.image_io.read import READERS, decode
from conocc.data.index import (
    SIDES,
    ImageEntry,
    ImageIndex,
    fetch_files,
    is_image,
    of_files,
    printable,
    read_file,
    scan,
    some,
    walk,
)
from conocc.data.manifest import is_manifest, list_manifest
from conocc.data.masks import OF_IMAGES, OF_MASKS, without_masks
from conocc.data.npz import is_archive, list_archive
from conocc.data.patients import TABLES
from conocc.data.phantoms import PHANTOMS, draw_phantom
from conocc.io.user_tables import TABLE_SUFFIXES

# Kaggle's chest_xray: the one set of class folders whose majority is known by name.
KAGGLE_MAJORITY = "NORMAL"
KAGGLE_CLASSES = {"NORMAL", "PNEUMONIA"}
MVTEC_MAJORITY = "good"

MOST_LEVELS = 16  # of folders in folders, which links can lead round for ever


def list_cohort(
    where: str | Path,
    size: int | None = None,
    named: Collection[str] = (),
    table: TableOptions = TableOptions(),
) -> ImageIndex:
    """List the images at `where` by the first layout that recognises it, or draw a phantom.

    `size` is the side in pixels of a phantom; other images lie there in their own sizes.
    A folder that holds everything in one other stands for that one, unless it is a class that
    was `named`.
    `table` says how a manifest or an archive is read.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `where`.
    ValueError
        If no layout fits, there are no images, or the layout is broken: what and where.
    """
    if str(where) in PHANTOMS:
        return list_phantom(str(where), size)
    path = Path(where)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no '{printable(where)}'. A cohort is a folder of images, an .npz archive, a "
            f"table, or one of the phantoms {', '.join(PHANTOMS)}."
        )
    for recognise, list_table in TABLE_LAYOUTS.values():
        if recognise(path, table):
            return list_table(path, table)
    refuse_options(where, table, ("label_column", "split_column", "one_hot", "root"), "no table")
    lowest = _lowest(path, named) if path.is_dir() else path
    for fits, list_images in LAYOUTS.values():
        if fits(lowest):
            index = list_images(lowest)
            return index if lowest == path else _from_above(path, lowest, index)
    raise ValueError(
        f"'{printable(where)}' is not a cohort: that is a folder of images, an .npz archive or a "
        f"table ({', '.join(TABLE_SUFFIXES)}). Unpack a ZIP or TAR archive; put a single image "
        "into a folder."
    )


def _from_above(where: Path, lowest: Path, index: ImageIndex) -> ImageIndex:
    """Say which folder was taken; its paths begin where a table of patients lies."""
    inside = lowest.relative_to(where).as_posix()
    notes = (f"All is in '{printable(inside)}', which was taken for the cohort.", *index.notes)
    if not any((where / table).is_file() for table in TABLES):
        return replace(index, notes=notes)
    entries = tuple(replace(entry, path=f"{inside}/{entry.path}") for entry in index.entries)
    unknown = tuple(f"{inside}/{path}" for path in index.unknown)
    fetch = partial(fetch_files, where, entries)
    return replace(index, folder=where, entries=entries, fetch=fetch, notes=notes, unknown=unknown)


# Folders with a split


def _folders(where: Path, inside: str = "") -> list[str]:
    """Return the folders directly in `where` / `inside`, as paths relative to `where`."""
    return scan(where, inside)[1] if where.is_dir() else []


def is_official_split(where: Path) -> bool:
    """Say whether there is a folder for training or for the test."""
    return not {"train", "test"}.isdisjoint(SIDES.get(one.lower()) for one in _folders(where))


def list_official_split(where: Path) -> ImageIndex:
    """List ``{train,val,test}/CLASS/…``; ``train/good`` is known from MVTec AD and BMAD.

    Of Kaggle's set NORMAL is.
    """
    paths, notes, unknown = _walk(where, level=1)
    entries: list[ImageEntry] = []
    beside: list[str] = []
    for path in paths:
        side, *inner = path.split("/")
        if side.lower() not in SIDES or not inner:
            beside.append(path)
        elif len(inner) == 1:
            raise ValueError(
                f"'{printable(path)}' in '{printable(where)}' is in no class folder: a split is "
                f"laid out as {side}/CLASS/image. If its class is not known, name another folder, "
                f"such as '{printable(where / 'train')}'."
            )
        else:
            entries.append(ImageEntry(path, label=inner[0], split=SIDES[side.lower()]))
    if not entries:
        raise _no_images(where, len(beside))
    if beside:
        notes.append(f"{some(beside, 'image')} beside the folders of the split left aside.")
    layout, majority = "{train,val,test}/CLASS", None
    classes = {entry.label for entry in entries}
    good = frozenset(label for label in classes if label.lower() == MVTEC_MAJORITY)
    if any(entry.label in good and entry.split == "train" for entry in entries):
        layout, majority = "train/good, test/… (MVTec, BMAD)", good
    elif KAGGLE_MAJORITY in classes and classes <= KAGGLE_CLASSES:
        majority = frozenset({KAGGLE_MAJORITY})
    return of_files(layout, where, entries, majority=majority, notes=notes, unknown=unknown)


# Folders without a split


def list_class_folders(where: Path) -> ImageIndex:
    """List ``CLASS/…``, or a folder of nothing but images, which is one class by its own name.

    ``CLASS/SIDE/image`` has a split; what holds several cohorts is refused.
    """
    paths, notes, unknown = _walk(where, level=0)
    loose = [path for path in paths if "/" not in path]
    classes = {path.split("/")[0] for path in paths if "/" in path}
    if loose and classes:
        raise ValueError(
            f"'{printable(where)}' holds {some(loose, 'image')} beside the class folders "
            f"{', '.join(map(printable, sorted(classes)))}: which class they are of is not known."
        )
    parts = [path.split("/") for path in paths]
    if loose:
        layout = "one folder, one class"
        entries = [ImageEntry(path, where.resolve().name) for path in paths]
    elif all(len(part) == 3 and part[1].lower() in SIDES for part in parts):
        layout = "CLASS/{train,val,test}"
        entries = [ImageEntry("/".join(part), part[0], SIDES[part[1].lower()]) for part in parts]
    elif cohorts := [folder for folder in sorted(classes) if is_official_split(where / folder)]:
        raise ValueError(
            f"'{printable(where)}' is no cohort, but holds folders with a split of their own: "
            f"{', '.join(map(printable, cohorts))}. Name one of them, such as "
            f"'{printable(where / cohorts[0])}'. If these are classes, lay all images out as "
            "CLASS/{train,test}/image, or list them in a table."
        )
    else:
        layout = "a folder for each class"
        entries = [ImageEntry("/".join(part), part[0]) for part in parts]
    return of_files(layout, where, entries, notes=notes, unknown=unknown)


def _inner(entries: Sequence[ImageEntry]) -> dict[str, set[str]]:
    """Give the folders directly in each class folder, but for the sides of a split; none below."""
    inner: dict[str, set[str]] = {}
    for entry in entries:
        parts = entry.path.split("/")
        if parts[0] == entry.label:
            folders = (one for one in parts[1:-1][:1] if one.lower() not in SIDES)
            inner.setdefault(entry.label, set()).update(folders)
        elif entry.label in parts[1:2]:  # of a side
            inner.setdefault(entry.label, set())
    return inner


def divided_alike(entries: Sequence[ImageEntry]) -> set[str]:
    """Find folders of which two or more lie in each of two class folders, or more.

    They may be the classes, and what looks like classes sites.
    """
    several = [folders for folders in _inner(entries).values() if len(folders) > 1]
    pairs = (a & b for a, b in combinations(several, 2))
    return set[str]().union(*(both for both in pairs if len(both) > 1))


def mixtures(entries: Sequence[ImageEntry]) -> set[str]:
    """Find folders that are hardly classes: called as a side, or as images, or divided alike.

    Ten or more that differ in their numbers alone are patients, or parts: grades are fewer.
    """
    inner, alike = _inner(entries), divided_alike(entries)
    if len(inner) > 9 and len({re.sub(r"\d+", "", one) for one in inner}) == 1:
        return set(inner)
    return {
        one
        for one, folders in inner.items()
        if OF_IMAGES.fullmatch(one)
        or not set(re.split(r"[_\W]+", one.lower())).isdisjoint(SIDES)
        or folders & alike
    }


def _lowest(where: Path, named: Collection[str]) -> Path:
    """Go down from `where` as long as one folder holds everything, and folders itself.

    A side of a split, and a class that the user named, are not entered.
    """
    for _ in range(MOST_LEVELS):
        files, folders, _ = scan(where, "")
        if len(folders) != 1 or folders[0] in named or folders[0].lower() in SIDES:
            break
        inner = [folder.rpartition("/")[2] for folder in _folders(where, folders[0])]
        if any(is_image(where, file) for file in files) or not inner:
            break
        if any(map(OF_IMAGES.fullmatch, inner)) and any(map(OF_MASKS.fullmatch, inner)):
            break  # it is a class
        where = where / folders[0]
    return where


def _walk(where: Path, level: int) -> tuple[tuple[str, ...], list[str], tuple[str, ...]]:
    """Find the images below a folder, masks left aside; say what else is there, and what is odd."""
    found = walk(where)
    tables = [path for path in found.aside.get("table", []) if path.lower() not in TABLES]
    found = replace(found, aside={**found.aside, "table": tables})
    images, masks = without_masks(where, found.images, level=level)
    if not images:
        why = [*found.notes(), *masks]
        for path in found.unknown[:1]:
            try:
                decode(read_file(where, path), printable(path))
            except ValueError as error:
                why += [] if " is none of " in str(error) else [str(error)]
        raise ValueError(" ".join([str(_no_images(where, 0)), *why]))
    return images, [*found.notes(), *masks], found.unknown


def _no_images(where: Path, aside: int) -> ValueError:
    what = f"'{printable(where)}' holds no images{' in its class folders' if aside else ''}"
    return ValueError(f"{what}. Files of {', '.join(READERS)} are read.")


# Phantoms


def list_phantom(name: str, size: int | None) -> ImageIndex:
    """Draw a phantom and list its images, split and classes as in the paper's Table 1."""
    phantom = PHANTOMS[name]
    drawn = draw_phantom(name, size=size)
    entries = tuple(
        ImageEntry(f"images[{i}]", phantom.minority if minority else phantom.majority, str(split))
        for i, (minority, split) in enumerate(zip(drawn.minority, drawn.split, strict=True))
    )
    return ImageIndex(
        layout="a phantom, drawn and not taken of any patient",
        name=name,
        entries=entries,
        fetch=lambda rows: (partial(drawn.images.__getitem__, row) for row in rows),
        majority=frozenset({phantom.majority}),
    )


Recognise = Callable[[Path], object]  # true, if a layout is this one
ListImages = Callable[[Path], ImageIndex]
ListTable = Callable[[Path, TableOptions], ImageIndex]

# From the most particular to the most general: each is asked only if none above fits.
TABLE_LAYOUTS: dict[str, tuple[Callable[[Path, TableOptions], object], ListTable]] = {
    "archive": (lambda where, _: is_archive(where), list_archive),
    "framework": (framework_of, list_framework),
    "features": (lambda where, _: is_features(where), list_features),
    "manifest": (lambda where, _: is_manifest(where), list_manifest),
}
LAYOUTS: dict[str, tuple[Recognise, ListImages]] = {
    "official split": (is_official_split, list_official_split),
    "class folders": (Path.is_dir, list_class_folders),
}
