"""What a layout finds before any pixel is read: one entry an image, and how to get its bytes."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from conocc.data.companions import (
    DICOM_BYTES,
    LITTER,
    RUN,
    VOXELS,
    companion,
    is_litter,
    needs_more,
    said,
)
from conocc.data.image_io.pixels import Remarked, naming
from conocc.data.image_io.read import HEAD_BYTES, SUFFIXES, companions, format_of
from conocc.data.image_io.stack import slice_name, volume_and_slice
from conocc.io.words import count as count

# An image as it lies there: the bytes of a file, an array of an archive or a phantom, or what an
# image of a stack was decoded to.
Blob: TypeAlias = bytes | np.ndarray[Any, Any] | Remarked
# Fetching is put off, so that it can happen on another thread.
Fetch: TypeAlias = Callable[[], Blob]

# What folders, manifests and archives call a side of the split, in lower case.
SIDES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "unused"), "unused"),
}

# More than any image within the readers' limit of pixels needs.
MOST_BYTES = 2**31


@dataclass(frozen=True)
class ImageEntry:
    """One image: its path in the cohort, its class, and what is already known of it.

    Attributes
    ----------
    path : str
        Relative to the cohort's folder (a table may list an absolute one), with forward slashes;
        for an array its name and row.
    label : str
        The class, `as_typed`.
    split : {"train", "test", "unused"} or None
        None where the layout has no split.
    name : str or None
        What a table calls the file, where that is not its path.
    facts : mapping of str to str
        What further columns of a table say of the image; no part of which image it is.
    """

    path: str
    label: str
    split: str | None = None
    patient: str | None = None
    name: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", as_typed(self.label))

    @property
    def shown(self) -> str:
        """What the image is called in tables: as where it was listed, and the slice of it."""
        _, k = volume_and_slice(self.path)
        if self.name is None or k is None:
            return self.name or self.path
        return slice_name(volume_and_slice(self.name)[0], k)


def facts_of(entries: Sequence[ImageEntry]) -> dict[str, np.ndarray[Any, Any]]:
    """Give the further columns of one table as arrays of str objects, (n,)."""
    names = entries[0].facts
    return {name: np.array([one.facts[name] for one in entries], dtype=object) for name in names}


@dataclass(frozen=True)
class ImageIndex:
    """The images of one cohort as a layout found them.

    Attributes
    ----------
    layout : str
        In words, for people.
    name : str
        What the cohort is called.
    entries : tuple of Entry
        All with a split or none; all with a patient or none; in an order of their own that does
        not depend on the file system.
    fetch : callable
        Given ascending positions in `entries`, what fetches each of these images, in order.
    majority : frozenset of str or None
        The classes that the layout itself knows to be the majority.
    folder : Path or None
        Where a table of patients may stand beside the images.
    notes : tuple of str
    unknown : tuple of str
        Paths in the folder that are no images, but no known companions of images either.
    features : tuple of str
        What a table calls the features of an image, in their order.
    """

    layout: str
    name: str
    entries: tuple[ImageEntry, ...]
    fetch: Callable[[Sequence[int]], Iterable[Fetch]]
    majority: frozenset[str] | None = None
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What lies below a folder, as sorted relative paths with forward slashes.

    Attributes
    ----------
    images : tuple of str
        Files whose content is of a format that is read, and those whose suffix alone says so.
    unknown : tuple of str
        Other files, pipes and links that lead nowhere, and folders that may not be listed:
        reading one says why it cannot be read.
    aside : mapping of str to list of str
        Files that are known to be no images, and folders that conocc made, by kind.
    seen_again : tuple of str
        Linked folders that lead to one that was walked already, or up to one that holds them all;
        they are not entered.
    """

    images: tuple[str, ...]
    unknown: tuple[str, ...]
    aside: Mapping[str, list[str]]
    seen_again: tuple[str, ...]

    def notes(self) -> list[str]:
        """Say what is no image, to people."""
        notes = list(said(self.aside))
        if self.unknown:
            notes.append(f"{some(self.unknown, 'file')} of no format that is read left aside.")
        if self.seen_again:
            linked = some(self.seen_again, "linked folder")
            notes.append(f"{linked} led to one already read or above, and left aside.")
        return notes


def walk(folder: Path) -> Found:
    """Find all files below `folder`, through symbolic links too, each real folder once.

    A link may lead anywhere, since large cohorts are often made of links, but not up: what lies
    beside `folder` is no part of it. What a file is, its content says: its beginning is read.

    Raises
    ------
    ValueError
        If `folder` itself may not be listed.
    """
    names: list[str] = []
    unknown: list[str] = []
    aside: dict[str, list[str]] = defaultdict(list)
    seen_again: list[str] = []
    waiting, linked = [""], list[str]()
    seen = {_identity(above) for above in folder.resolve().parents}
    while waiting or linked:  # a real folder counts before any link to it
        inside = (waiting or linked).pop()
        try:
            # A folder reached by two ways is walked once, which also ends every loop of links.
            identity = _identity(folder / inside)
            if identity in seen:
                seen_again.append(inside)
                continue
            seen.add(identity)
            files, folders, litter = scan(folder, inside)
        except ValueError:
            if not inside:
                raise
            unknown.append(inside)
            continue
        aside[LITTER] += litter
        if inside and f"{inside}/run.json" in files:
            aside[RUN].append(inside)
            continue
        # Reversed, since the last one in is the first one out: which of two ways to a folder
        # counts must not depend on the file system.
        for path in sorted(folders, reverse=True):
            (linked if (folder / path).is_symlink() else waiting).append(path)
        names += files
    voxels = companions(folder, names)
    aside[VOXELS] += voxels
    images: list[str] = []
    for path in names:
        if path not in voxels:
            is_image, kind = _looked_at(folder, path)
            (images if is_image else aside[kind] if kind else unknown).append(path)
    known = {kind: sorted(paths) for kind, paths in aside.items() if paths}
    return Found(tuple(sorted(images)), tuple(sorted(unknown)), known, tuple(sorted(seen_again)))


def _identity(folder: Path) -> tuple[int, int]:
    with _listing(folder):
        status = folder.stat()
    return status.st_dev, status.st_ino


@contextmanager
def _listing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"Cannot list '{printable(folder)}': {error.strerror}.") from None


def scan(folder: Path, inside: str) -> tuple[list[str], list[str], list[str]]:
    """List files, folders, and what of both is hidden or litter, directly in `folder` / `inside`.

    All are relative to `folder`.
    """
    names: list[str] = []
    folders: list[str] = []
    litter: list[str] = []
    with _listing(folder / inside), os.scandir(folder / inside) as found:
        for item in found:
            path = f"{inside}/{item.name}" if inside else item.name
            if is_litter(item.name):
                litter.append(path)
            else:
                (folders if _is_folder(item) else names).append(path)
    return names, folders, litter


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link that leads to itself
        return False


def is_image_name(path: str) -> bool:
    """Say whether the suffix is that of a format that can be read."""
    return path.lower().endswith(tuple(SUFFIXES))


def stem(path: str) -> str:
    """Give a path without the suffix of an image.

    >>> stem("a/1.nii.gz"), stem("a/1.2.840")
    ('a/1', 'a/1.2.840')
    """
    suffix = next((suffix for suffix in SUFFIXES if path.lower().endswith(suffix)), "")
    return path[: len(path) - len(suffix)]


def is_image(folder: Path, path: str) -> bool:
    """Say whether a file is to be read as an image, by how it begins, or else by its suffix."""
    return _looked_at(folder, path)[0]


def _looked_at(folder: Path, path: str) -> tuple[bool, str | None]:
    """Open a file once: say whether it is an image, and of what kind it is if it is known."""
    head, format = b"", None
    with suppress(ValueError, OSError), opened(folder, path) as file:
        head = file.read(HEAD_BYTES)
        format = format_of(head)
        if needs_more(head):
            head += file.read(DICOM_BYTES - HEAD_BYTES)
        elif format == "WebP":  # which says at its end who drew it
            file.seek(max(len(head), file.seek(0, os.SEEK_END) - HEAD_BYTES))
            head += file.read()
    if kind := companion(path.rpartition("/")[2], head):
        return False, kind
    return format is not None or is_image_name(path), None


def as_typed(name: str) -> str:
    """Give a name as it is typed: without blanks around it, and with accents on their letters."""
    return unicodedata.normalize("NFC", name).strip()


def printable(path: object) -> str:
    r"""`path` as text on one line that can be printed, whatever its name holds.

    >>> print(printable("two\nlines.png"))
    two\nlines.png
    """
    text = str(path)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read_file(folder: Path, path: str) -> bytes:
    """Read a whole file, or say in one sentence why it cannot be read."""
    with naming(printable(path)):
        return content(folder, path)


def content(folder: str | os.PathLike[str], path: str) -> bytes:
    """Read a whole file, or say why it cannot be read, without its name."""
    with opened(folder, path) as file:
        return file.read()


@contextmanager
def opened(folder: str | os.PathLike[str], path: str) -> Iterator[BinaryIO]:
    """Open a file to read it, or say why it cannot be read, without its name."""
    try:
        path.encode()
        where = os.path.join(folder, path)
        status = os.stat(where)
        if stat.S_ISDIR(status.st_mode) and not os.access(where, os.R_OK | os.X_OK):
            reason = "it is a folder that may not be listed"
        elif not stat.S_ISREG(status.st_mode):
            # A pipe named 'x.png' would be waited for in vain.
            reason = "it is not a regular file"
        elif status.st_size > MOST_BYTES:
            reason = f"it has {status.st_size} bytes, where at most {MOST_BYTES} are read"
        else:
            with open(where, "rb") as file:
                yield file
                return
    except UnicodeEncodeError:
        reason = "its name is not valid Unicode, so no table could hold it"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise ValueError(reason)


def fetch_files(
    folder: Path, entries: Sequence[ImageEntry], rows: Sequence[int]
) -> Iterator[Fetch]:
    """Fetch from the files that `entries` name; the `fetch` of every layout of files."""
    return (partial(read_file, folder, entries[row].path) for row in rows)


def of_files(
    layout: str,
    folder: Path,
    entries: Sequence[ImageEntry],
    *,
    name: str | None = None,
    majority: frozenset[str] | None = None,
    notes: Sequence[str] = (),
    unknown: Sequence[str] = (),
) -> ImageIndex:
    """List the files that `entries` name below `folder`, in the order of their paths."""
    ordered = tuple(sorted(entries, key=lambda entry: entry.path))
    name, fetch = name or folder.resolve().name, partial(fetch_files, folder, ordered)
    more = tuple(notes), tuple(unknown)
    return ImageIndex(layout, name, ordered, fetch, majority, folder, *more)


def side(word: str, where: str) -> str:
    """Return the side of the split that `word` names; `where` begins the sentence if none."""
    try:
        return SIDES[word.strip().lower()]
    except KeyError:
        raise ValueError(f"{where}: the split {word!r} is none of {', '.join(SIDES)}.") from None


def some(paths: Sequence[str], thing: str) -> str:
    """Count paths, and name the first.

    >>> some(["a.png", "b.png"], "mask")
    "2 masks ('a.png' …)"
    """
    more = " …" if len(paths) > 1 else ""
    return f"{count(len(paths), thing)} ('{printable(paths[0])}'{more})"
