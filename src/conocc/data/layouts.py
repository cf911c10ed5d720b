"""How cohorts lie on disk: one pair of functions a layout, tried in the order of `LAYOUTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from conocc.data.image_io.read import SUFFIXES
from conocc.data.index import (
    SIDES,
    Found,
    ImageEntry,
    ImageIndex,
    count,
    of_files,
    printable,
    scan,
    walk,
)
from conocc.data.manifest import is_manifest, list_manifest
from conocc.data.npz import is_archive, list_archive
from conocc.data.patients import TABLES
from conocc.data.phantoms import PHANTOMS, draw_phantom

# Kaggle's chest_xray: the one set of class folders whose majority is known by name.
KAGGLE_MAJORITY = "NORMAL"
KAGGLE_CLASSES = {"NORMAL", "PNEUMONIA"}
MVTEC_MAJORITY = "good"


def list_cohort(where: str | Path, size: int | None = None) -> ImageIndex:
    """List the images at `where` by the first layout that recognises it, or draw a phantom.

    `size` is the side in pixels of a phantom; other images lie there in their own sizes.

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
            f".csv manifest, or one of the phantoms {', '.join(PHANTOMS)}."
        )
    for recognise, list_images in LAYOUTS.values():
        if recognise(path):
            return list_images(path)
    raise ValueError(
        f"'{printable(where)}' is not a cohort: that is a folder of images, an .npz archive or a "
        ".csv manifest."
    )


# Folders with a split


def _folders(where: Path, inside: str = "") -> list[str]:
    """Return the folders directly in `where` / `inside`, as paths relative to `where`."""
    return scan(where, inside)[1] if where.is_dir() else []


def is_mvtec(where: Path) -> bool:
    """Say whether there is ``train/good``, which MVTec AD and BMAD have."""
    training = [folder for folder in _folders(where) if folder.lower() == "train"]
    return any(
        inner.lower() == f"train/{MVTEC_MAJORITY}"
        for folder in training
        for inner in _folders(where, folder)
    )


def list_mvtec(where: Path) -> ImageIndex:
    """List ``train/good``, ``test/good``, ``test/ANYTHING``, without the masks of pixels.

    MVTec AD keeps masks in ``ground_truth/``; BMAD in ``label/`` beside the images in ``img/``.
    """
    found = walk(where)
    masks = tuple(path for path in found.images if _is_mask(path))
    rest = tuple(path for path in found.images if not _is_mask(path))
    entries, notes = _split_folders(where, rest)
    known = frozenset(entry.label for entry in entries if entry.label.lower() == MVTEC_MAJORITY)
    notes = [*_notes(found), *notes]
    if masks:
        notes.append(f"{_some(masks, 'mask')} left aside.")
    return of_files("train/good, test/… (MVTec, BMAD)", where, entries, majority=known, notes=notes)


def _is_mask(path: str) -> bool:
    parts = [part.lower() for part in path.split("/")]
    return parts[0] == "ground_truth" or "label" in parts[2:-1]


def is_official_split(where: Path) -> bool:
    """Say whether there is a folder ``train`` or ``test``."""
    return any(folder.lower() in ("train", "test") for folder in _folders(where))


def list_official_split(where: Path) -> ImageIndex:
    """List ``{train,val,test}/CLASS/…``; NORMAL and PNEUMONIA are known from Kaggle's set."""
    found = walk(where)
    entries, notes = _split_folders(where, found.images)
    classes = {entry.label for entry in entries}
    is_kaggle = KAGGLE_MAJORITY in classes and classes <= KAGGLE_CLASSES
    return of_files(
        "{train,val,test}/CLASS",
        where,
        entries,
        majority=frozenset({KAGGLE_MAJORITY}) if is_kaggle else None,
        notes=[*_notes(found), *notes],
    )


def _split_folders(where: Path, paths: tuple[str, ...]) -> tuple[list[ImageEntry], list[str]]:
    """Entries of ``SIDE/CLASS/…``, and a note on images beside the folders of the split."""
    entries: list[ImageEntry] = []
    beside: list[str] = []
    for path in paths:
        parts = path.split("/")
        if parts[0].lower() not in SIDES or len(parts) == 1:
            beside.append(path)
        elif len(parts) == 2:
            raise ValueError(
                f"'{printable(path)}' in '{printable(where)}' is in no class folder: a split is "
                f"laid out as {parts[0]}/CLASS/image."
            )
        else:
            entries.append(ImageEntry(path, label=parts[1], split=SIDES[parts[0].lower()]))
    if not entries:
        raise _no_images(where, len(beside))
    if not beside:
        return entries, []
    return entries, [f"{_some(beside, 'image')} beside the folders of the split left aside."]


# Folders without a split


def list_class_folders(where: Path) -> ImageIndex:
    """List ``CLASS/…``, or a folder of nothing but images, which is one class by its own name."""
    found = walk(where)
    loose = [path for path in found.images if "/" not in path]
    classes = {path.split("/")[0] for path in found.images if "/" in path}
    if not found.images:
        raise _no_images(where, 0, found.others)
    if loose and classes:
        raise ValueError(
            f"'{printable(where)}' holds {_some(loose, 'image')} beside the class folders "
            f"{', '.join(map(printable, sorted(classes)))}: which class they are of is not known."
        )
    own_name = where.resolve().name
    entries = [ImageEntry(path, own_name if loose else path.split("/")[0]) for path in found.images]
    layout = "one folder, one class" if loose else "a folder for each class"
    return of_files(layout, where, entries, notes=_notes(found))


def _notes(found: Found) -> list[str]:
    notes: list[str] = []
    if others := [path for path in found.others if path not in TABLES]:
        notes.append(f"{_some(others, 'file')} that no reader knows by suffix left aside.")
    if found.seen_again:
        linked = _some(found.seen_again, "linked folder")
        notes.append(f"{linked} led to one already read or above, and left aside.")
    return notes


def _some(paths: Sequence[str], thing: str) -> str:
    more = " …" if len(paths) > 1 else ""
    return f"{count(len(paths), thing)} ('{printable(paths[0])}'{more})"


def _no_images(where: Path, aside: int, others: tuple[str, ...] = ()) -> ValueError:
    what = f"'{printable(where)}' holds no images{' in its class folders' if aside else ''}"
    what += f", but {_some(others, 'other file')}" if others else ""
    return ValueError(f"{what}. Files ending in {', '.join(sorted(SUFFIXES))} are read.")


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


Recognise = Callable[[Path], bool]
ListImages = Callable[[Path], ImageIndex]

# From the most particular to the most general: each is asked only if none above fits.
LAYOUTS: dict[str, tuple[Recognise, ListImages]] = {
    "archive": (is_archive, list_archive),
    "manifest": (is_manifest, list_manifest),
    "mvtec": (is_mvtec, list_mvtec),
    "official split": (is_official_split, list_official_split),
    "class folders": (Path.is_dir, list_class_folders),
}
