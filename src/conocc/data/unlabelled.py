"""Images without a class, to be scored: listed, cut into parts, and read in blocks.

What is listed are plain values, so that any process, on any machine that sees the same disk, can
read any part of it. Images that cannot be read are set aside, each with the reason.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conocc.data.acquisition import acquired
from conocc.data.columns import TableOptions
from conocc.data.companions import said
from conocc.data.decoding import (
    CONSTANT,
    Decoded,
    Surveyed,
    Unreadable,
    decode_one,
    deidentified_path,
    fingerprint,
    pixels,
    prefetch,
    usable_threads,
)
from conocc.data.features import check_features, is_features, list_features
from conocc.data.image_io.stack import StackOptions, volume_and_slice
from conocc.data.index import Fetch, ImageEntry, ImageIndex, content, of_files, printable, walk
from conocc.data.layouts import list_phantom
from conocc.data.manifest import is_manifest, list_manifest
from conocc.data.masks import without_masks
from conocc.data.npz import is_archive, list_archive
from conocc.data.phantoms import PHANTOMS
from conocc.data.preprocessing import Preprocessing
from conocc.data.volumes import fetch_images, with_slices
from conocc.io.progress import bar

logger = logging.getLogger("conocc")

Item = tuple[str, Fetch]

BLOCK = 64  # images that are read together, and scored: `conocc.training.BLOCK`, without torch


@dataclass(frozen=True)
class Block:
    """Some images to be scored together.

    Attributes
    ----------
    images : ndarray of float32, shape (k, c, h, w)
        k can be 0, where nothing could be read.
    path : tuple of str, length k
        Where one repeats what a DICOM file says of its patient, pseudonyms stand for that.
    errors : tuple of (path, reason)
        The images among them that cannot be scored, each with a sentence.
    remarks : tuple of str
        All that is said of how they were read, as often as it is said of one.
    acquisition : tuple of tuple of float, length k
        See `conocc.data.acquisition.FACTS`.
    """

    images: npt.NDArray[np.float32]
    path: tuple[str, ...]
    errors: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...] = ()
    acquisition: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Part:
    """Some of the images that one argument of `list_images` leads to.

    Attributes
    ----------
    where : str
        The folder that the files lie in, or an archive, as an absolute path; or a phantom.
    names : tuple of str
        Paths of files inside the folder, or of images inside the archive.
    prefix : str
        What stands before a name where an image is named.
    first : int or None
        The place in the archive or phantom of the first image; None for files.
    options : StackOptions
        How the images of volumes and other stacks among the files are chosen and read.
    listed : tuple of str
        What a manifest calls the images; where it is empty, prefix and name do.
    table : TableOptions
        How the archive is read.
    labels : tuple of str
        Of which class a table, an archive or a phantom says that each image is; or empty.
    """

    where: str
    names: tuple[str, ...]
    prefix: str
    first: int | None = None
    options: StackOptions = field(default_factory=StackOptions)
    listed: tuple[str, ...] = ()
    table: TableOptions = TableOptions()
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def cut(self, start: int, stop: int) -> Part:
        """Take the images from `start` up to `stop`."""
        first = None if self.first is None else self.first + start
        own, listed = self.names[start:stop], self.listed[start:stop]
        labels = self.labels[start:stop]
        return replace(self, names=own, listed=listed, first=first, labels=labels)

    def stamps(self) -> list[tuple[int, int] | None]:
        """Size and time of each file, or of the archive; None where there is none."""
        if self.first is not None:
            return [_stamp(self.where)]
        files = (volume_and_slice(name)[0] for name in self.names)
        return [_stamp(os.path.join(self.where, file)) for file in files]

    def items(self, size: int | None) -> Iterator[Item]:
        """Pair the path of each image with what fetches it; a phantom is drawn at `size`.

        The path may name a patient until the file was read (`deidentified_path`).
        """
        paths = self.listed or (self.prefix + name for name in self.names)
        return zip(paths, self._fetches(size), strict=True)

    def _fetches(self, size: int | None) -> Iterable[Fetch]:
        if self.first is None:
            fetch_file = partial(partial, _fetched, self.where)
            return fetch_images(Path(self.where), self.names, self.options, fetch_file, self.prefix)
        archive = _archive(self.where, size, self.table, _stamp(self.where))
        return archive.fetch(range(self.first, self.first + len(self.names)))


def list_images(
    where: Sequence[str | os.PathLike[str]],
    preprocessing: Preprocessing,
    table: TableOptions = TableOptions(),
) -> list[Part]:
    """Find the images that are to be scored.

    Parameters
    ----------
    where : sequence of path
        Image files, and folders, which are searched to the ground; also archives, manifests, of
        which only the paths are of concern, and names of phantoms. Volumes are read, to
        list their slices (`conocc.data.volumes`); what is left aside is logged.
    preprocessing : Preprocessing
        A phantom is drawn at its size.
    table : TableOptions
        How manifests and archives are read.

    Returns
    -------
    list of Part
        One for each of `where`, in their order and, in a folder, in that of the paths. A folder
        without images is a part of one image that cannot be read.

    Raises
    ------
    FileNotFoundError
        If one of `where` does not exist.
    """
    return [_part(os.fspath(one), preprocessing, table, len(where) == 1) for one in where]


def _part(where: str, preprocessing: Preprocessing, table: TableOptions, is_alone: bool) -> Part:
    path = Path(where)
    absolute = str(path.absolute())  # another process may have another working directory
    if where in PHANTOMS or is_archive(path) or is_features(path):
        index = _listed(where, preprocessing.size, table)
        check_features(index, preprocessing.features)
        names = tuple(entry.path for entry in index.entries)
        own = where if where in PHANTOMS else absolute
        listed = tuple(entry.name for entry in index.entries if entry.name)
        labels = tuple(entry.label for entry in index.entries)
        return Part(own, names, f"{where}/", 0, table=table, listed=listed, labels=labels)
    if not (os.path.exists(where) or os.path.exists(volume_and_slice(where)[0])):
        raise FileNotFoundError(f"There is no '{printable(where)}'. Nothing was written.")
    # Among several files, as a shell gives those of a folder, a text is no list of images.
    if is_manifest(path) and (is_alone or path.suffix.lower() != ".txt"):
        index = list_manifest(path, table, labelled=False)
        return _cut(index, preprocessing.stack_options, listed=True)
    if path.is_dir() and ((found := walk(path)).images or found.unknown):
        images, masks = without_masks(path, found.images, strict=False)
        for note in (*said(found.aside), *masks):
            logger.info(note)
        names = tuple(sorted((*(images or found.images), *found.unknown)))
        return _files(path, names, preprocessing.stack_options)
    return _files(path.parent, (path.name or ".",), preprocessing.stack_options)


def _files(folder: Path, names: tuple[str, ...], options: StackOptions) -> Part:
    files = [ImageEntry(name, label="") for name in names]
    return _cut(of_files("files", folder, files), options)


def _cut(files: ImageIndex, options: StackOptions, *, listed: bool = False) -> Part:
    """Put the images of stacks in their place, and note what is left aside."""
    cut = with_slices(files, options, n_jobs=usable_threads(None))
    for note in cut.notes:
        logger.info(note)
    names = tuple(entry.path for entry in cut.entries)
    shown = tuple(entry.shown for entry in cut.entries) if listed else ()
    folder = cut.folder or Path()
    prefix = (folder / "x").as_posix().removesuffix("x")
    labels = tuple(entry.label for entry in cut.entries) if listed else ()
    where = str(folder.absolute())
    return Part(where, names, prefix, options=options, listed=shown, labels=labels)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # gone, or a name that no disk can hold
        return None
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _archive(
    where: str, size: int | None, table: TableOptions, stamp: tuple[int, int] | None
) -> ImageIndex:
    # Once a process, and anew when the archive has changed.
    return _listed(where, size, table)


def _listed(where: str, size: int | None, table: TableOptions) -> ImageIndex:
    """List what is no file an image: a phantom, an archive or a table of features."""
    if where in PHANTOMS:
        return list_phantom(where, size)
    listed = list_archive if is_archive(Path(where)) else list_features
    return listed(Path(where), table, labelled=False)


def _fetched(folder: str, name: str) -> bytes:
    try:
        return content(folder, name)
    except ValueError:
        path = os.path.join(folder, name)
        if os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK):
            raise ValueError("it is a folder without images") from None
        raise


def shards(parts: Iterable[Part], n: int) -> Iterator[tuple[Part, ...]]:
    """Cut parts, in their order, into pieces of `n` images each and the rest.

    >>> [[len(part) for part in shard] for shard in shards([Part("a", ("x",) * 5, "")], 2)]
    [[2], [2], [1]]
    """
    shard: list[Part] = []
    for part in parts:
        start = 0
        while start < len(part):
            stop = start + n - sum(map(len, shard))
            shard.append(part.cut(start, stop))
            start = stop
            if sum(map(len, shard)) == n:
                yield tuple(shard)
                shard = []
    if shard:
        yield tuple(shard)


def deidentified_paths(parts: Iterable[Part], size: int | None) -> Iterator[str]:
    """Yield each path with pseudonyms where it repeats a patient's data; decode no image."""
    for path, fetch in chain.from_iterable(part.items(size) for part in parts):
        surveyed = fingerprint(fetch)
        person = surveyed.person if isinstance(surveyed, Surveyed) else None
        yield printable(deidentified_path(path, person))


def read_block(
    preprocessing: Preprocessing, shape: tuple[int, ...], items: Iterable[Item]
) -> Block:
    """Read images that a detector of input `shape`, (c, h, w), will score together.

    One that comes out in another shape, or without contrast, is an error like one that cannot be
    read: it would get a score, often the best, and tell nothing.
    """
    good: list[Decoded] = []
    errors: list[tuple[str, str]] = []
    for item in items:
        result = decode_one(preprocessing, item, hashed=False)
        if isinstance(result, Unreadable):
            errors.append((printable(result.path), result.reason))
        elif result.image.shape != shape:
            has = pixels(result.image.shape)
            reason = f"'{printable(result.path)}' has {has}, where {pixels(shape)} are expected."
            errors.append((printable(result.path), reason))
        elif CONSTANT in result.remarks:
            reason = f"'{printable(result.path)}' is no evidence: {CONSTANT}."
            errors.append((printable(result.path), reason))
        else:
            good.append(result)
    images = np.stack([one.image for one in good]) if good else np.empty((0, *shape), np.float32)
    return Block(
        images=images,
        path=tuple(one.path for one in good),
        errors=tuple(errors),
        remarks=tuple(remark for one in good for remark in one.remarks),
        acquisition=tuple(acquired([one.file for one in good], images)),
    )


def load_images(
    where: Sequence[str | os.PathLike[str]],
    preprocessing: Preprocessing,
    shape: tuple[int, ...],
    *,
    table: TableOptions = TableOptions(),
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Iterator[Block]:
    """Yield the images that `where` leads to (`list_images`) in blocks, as `read_block` reads them.

    `n_jobs` threads, by default one a core, read ahead while the caller works on a block.
    """
    parts = list_images(where, preprocessing, table)
    items = chain.from_iterable(part.items(preprocessing.size) for part in parts)
    handfuls = iter(lambda: list(islice(items, BLOCK)), [])
    read = partial(read_block, preprocessing, shape)
    with bar("Reading images", sum(map(len, parts)), verbose=verbose) as advance:
        for block in prefetch(read, handfuls, n_jobs=usable_threads(n_jobs), handful=1):
            yield block
            advance(len(block.path) + len(block.errors))
