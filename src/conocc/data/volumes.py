"""Files of several images among those of a cohort: volumes, frames, pages.

Each becomes as many images as it has slices or frames with content. It is opened once each time
that some are asked for, and no more of them are in memory at once than there are threads.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from heapq import nlargest
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from conocc.data.decoding import prefetch
from conocc.data.image_io.pixels import Remarked, naming
from conocc.data.image_io.read import HEAD_BYTES, READERS, checked, format_of, open_stack
from conocc.data.image_io.stack import Stack, StackOptions, slice_name, volume_and_slice
from conocc.data.index import (
    Blob,
    Fetch,
    ImageEntry,
    ImageIndex,
    count,
    opened,
    printable,
    read_file,
)
from conocc.data.manifest import NUMBERS
from conocc.io.progress import bar

VOLUME_COLUMNS = ("volume", "slices", "maximum", "mean_of_top", "top", "predicted")


def read_stack(folder: Path, path: str, options: StackOptions, prefix: str = "") -> Stack | None:
    """Open a file as a stack, or say in one sentence why not; it is called `prefix` + `path` there.

    None where it holds one image, or none.
    """
    name = printable(prefix + path)
    with naming(name), opened(folder, path) as file:
        return open_stack(file, name, options)


# From files to images


def _names(path: str, stack: Stack | None) -> list[str]:
    """Name the images that stand for the file at `path`: those in it, or else itself."""
    if stack is None or stack.single:
        return [path]
    return [slice_name(path, k) for k in stack.numbers]


def with_slices(
    listing: ImageIndex,
    options: StackOptions,
    *,
    n_jobs: int,
    verbose: int = 0,
    leave: Callable[[ImageEntry], bool] = lambda entry: False,
) -> ImageIndex:
    """Put the images that a file holds in its place: slices of a volume, frames, pages.

    They are named ``volume.nii.gz[12]``, and have the class, the split and the patient of their
    file; empty slices and what `options` do not ask for are left out. One that is listed by that
    name already stays, empty or not. A file that cannot be read stays as it is, and its reason
    comes when it is fetched.
    """
    folder = listing.folder
    if folder is None:
        return listing
    paths = [entry.path for entry in listing.entries if not leave(entry)]
    cuts: dict[str, Stack] = {}
    with bar("Looking into files", len(paths), verbose=verbose) as advance:
        work = prefetch(partial(_cut, folder, options), paths, n_jobs=n_jobs)
        for path, one in zip(paths, work, strict=True):
            if one is not None:
                cuts[path] = one
            advance()
    for entry in listing.entries:
        told = [one for one in entry.facts if NUMBERS.fullmatch(one) and not one.endswith("s")]
        if told and entry.path in cuts and cuts[entry.path].total > 1:
            raise ValueError(
                f"'{printable(entry.shown)}' holds several images, and its table has a column "
                f"'{printable(told[0])}'. If that numbers the one that is meant, write 'FILE[3]', "
                "counted from 0; or rename the column."
            )
    if not cuts and all(volume_and_slice(path)[1] is None for path in paths):
        return listing
    entries = tuple(
        replace(entry, path=name)
        for entry in listing.entries
        for name in _names(entry.path, cuts.get(entry.path))
    )
    (name, times), *_ = Counter(entry.path for entry in entries).most_common(1)
    if times > 1:
        raise ValueError(f"'{printable(name)}' is listed with its volume, and by itself too.")

    def fetch(rows: Sequence[int]) -> Iterator[Fetch]:
        names = [entries[row].path for row in rows]
        return fetch_images(folder, names, options, partial(partial, read_file, folder))

    notes = (*listing.notes, *_notes(list(cuts.values())))
    return replace(listing, entries=entries, fetch=fetch, notes=notes)


def _cut(folder: Path, options: StackOptions, path: str) -> Stack | None:
    """Open a stack and close it again; None where it is none."""
    try:
        stack = read_stack(folder, path, options)
    except ValueError:  # told when it is fetched, as that it is empty
        return _UNREAD
    return stack and (replace(stack, image=_gone) if stack.numbers else _UNREAD)


def _empty(stack: Stack, named: str) -> str:
    held, why = count(stack.total, stack.kind), "; ".join(stack.left_aside)
    return f"Cannot read {named}: none of its {held} is an image: all are left aside ({why})."


def _gone(k: int) -> Remarked:
    raise AssertionError(f"image {k} of a stack that was only looked into")


_UNREAD = Stack("", 0, (), _gone, single=True)


def _notes(stacks: Sequence[Stack]) -> Iterator[str]:
    for kind in sorted({stack.kind for stack in stacks if not stack.single}):
        own = [stack for stack in stacks if stack.kind == kind and not stack.single]
        images = sum(len(stack.numbers) for stack in own)
        yield f"{count(len(own), 'file')} read as {count(images, kind)}."
    for reason in dict.fromkeys(reason for stack in stacks for reason in stack.left_aside):
        numbers = [n for stack in stacks if (n := stack.left_aside.get(reason))]
        yield f"{sum(numbers)} left aside in {count(len(numbers), 'file')}: {reason}."


# Fetching


def fetch_images(
    folder: Path,
    names: Sequence[str],
    options: StackOptions,
    fetch_file: Callable[[str], Fetch],
    prefix: str = "",
) -> Iterator[Fetch]:
    """Fetch images of stacks, in a run of one opening it once, and by `fetch_file` other files.

    A volume without the number of a slice is one that could not be cut; fetching it says why.
    `prefix` stands before a name where an error names it.
    """
    taken_apart = (file_and_number(folder, name) for name in names)
    for path, group in groupby(taken_apart, key=itemgetter(0)):
        numbers = [k for _, k in group]
        shared = _SharedStack(partial(read_stack, folder, path, options, prefix), len(numbers))
        for k in numbers:
            if k is None:
                yield partial(_whole, fetch_file(path), folder, options, path, prefix)
            else:
                yield partial(_image, shared, prefix + path, k)


def file_and_number(folder: Path, name: str) -> tuple[str, int | None]:
    """Take the name of an image apart, unless there is a file of the whole name."""
    path, k = volume_and_slice(name)
    return (name, None) if k is None or os.path.exists(folder / name) else (path, k)


class _SharedStack:
    """A stack that is opened when it is first asked for, and let go at the last of `times`."""

    def __init__(self, read: Callable[[], Stack | None], times: int) -> None:
        self._read = read
        self._times = times
        self._lock = threading.Lock()
        self._stack: Stack | None = None

    def get(self) -> Stack | None:
        with self._lock:
            stack = self._stack or self._read()
            self._times -= 1
            self._stack = stack if self._times else None
        return stack


def _image(shared: _SharedStack, path: str, k: int) -> Blob:
    with naming(printable(slice_name(path, k))):
        stack = shared.get()
        if stack is None:
            raise ValueError("its file holds one image, which has no number")
        if k >= stack.total:
            raise ValueError(f"it holds {count(stack.total, stack.kind)}, counted from 0")
        return checked(stack.image(k))._replace(person=stack.person)


def _whole(fetch: Fetch, folder: Path, options: StackOptions, path: str, prefix: str) -> Blob:
    """Fetch a file; of a volume, its only image or why it has none."""
    blob = fetch()
    kind = format_of(blob[:HEAD_BYTES]) if isinstance(blob, bytes) else None
    if kind is None or READERS[kind].read is not None:
        return blob
    stack = read_stack(folder, path, options, prefix)
    if stack is None or not stack.single:
        named = f"'{printable(prefix + path)}'"
        why = f"{named} changed while it was being read."
        raise ValueError(why if stack is None or stack.numbers else _empty(stack, named))
    return checked(stack.image(stack.numbers[0]))


# Scores


def check_top(top: int) -> None:
    """Refuse to average no score, before any is made."""
    if top < 1:
        raise ValueError(f"The 'top' parameter must be at least 1. Got {top} instead.")


def by_volume(
    path: Iterable[str], anomaly_score: Iterable[float], *, top: int
) -> list[tuple[str, int, float, float, int]]:
    """Gather the scores of slices by volume: one row of `VOLUME_COLUMNS` each, less the last.

    Parameters
    ----------
    path : iterable of str, length n
        Images that are no slices or frames are passed over.
    anomaly_score : iterable of float, length n
    top : int
        How many of the highest scores of a volume are averaged; all, where there are fewer.

    Returns
    -------
    list of (volume, slices, maximum, mean_of_top, top)
        In the order of the first slice of each.

    Raises
    ------
    ValueError
        If `top` is less than 1.

    Examples
    --------
    >>> by_volume(["a.nii[0]", "a.nii[1]", "a.nii[2]", "b.png"], [1.0, 4.0, 2.0, 9.0], top=2)
    [('a.nii', 3, 4.0, 3.0, 2)]
    """
    check_top(top)
    scores: dict[str, list[float]] = {}
    for name, score in zip(path, anomaly_score, strict=True):
        volume, k = volume_and_slice(name)
        if k is not None:
            scores.setdefault(volume, []).append(score)
    rows = []
    for volume, found in scores.items():
        highest = nlargest(top, found)
        mean = sum(highest) / len(highest)
        rows.append((volume, len(found), highest[0], mean, len(highest)))
    return rows
