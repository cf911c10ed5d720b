"""Volumes among the files of a cohort: each becomes as many images as it has slices.

A file is read as a whole, once each time that its slices are asked for, and no more of them are
in memory at once than there are threads.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import nlargest
from itertools import groupby
from pathlib import Path

from conocc.data.decoding import prefetch
from conocc.data.image_io import nifti
from conocc.data.image_io.nifti import Volume, is_volume_name, slice_name, volume_and_slice
from conocc.data.index import (
    Blob,
    Fetch,
    ImageEntry,
    ImageIndex,
    content,
    count,
    printable,
    read_file,
)
from conocc.io.progress import bar

VOLUME_COLUMNS = ("volume", "slices", "maximum", "mean_of_top", "top")


def read_volume(folder: Path, path: str, prefix: str = "") -> Volume:
    """Read a NIfTI file, or say in one sentence why not; it is called `prefix` + `path` there."""
    try:
        return nifti.read_nifti(content(folder, path))
    except ValueError as error:
        raise ValueError(f"Cannot read '{printable(prefix + path)}': {error}.") from error


# From volumes to slices


@dataclass(frozen=True)
class _Cut:
    """The slices of one volume that are images; of one that cannot be read, the reason."""

    slices: tuple[int, ...] = ()
    empty: int = 0
    series: int = 1
    nan: int = 0
    reason: str = ""

    def names(self, path: str) -> list[str]:
        """Name the images that stand for the file at `path`: its slices, or else itself."""
        return [path] if self.reason else [slice_name(path, k) for k in self.slices]


def with_slices(
    listing: ImageIndex,
    axis: str,
    *,
    n_jobs: int,
    verbose: int = 0,
    leave: Callable[[ImageEntry], bool] = lambda entry: False,
) -> ImageIndex:
    """Put the slices of each volume, the empty ones left out, in its place.

    Slices are named ``volume.nii.gz[12]``, and have the class, the split and the patient of
    their volume. One that is listed by that name already stays, empty or not. A volume that
    cannot be read stays as it is, and its reason comes when it is fetched.
    """
    folder = listing.folder
    paths = [entry.path for entry in listing.entries]
    if folder is None or not any(is_volume_name(volume_and_slice(path)[0]) for path in paths):
        return listing
    used = [entry.path for entry in listing.entries if not leave(entry)]
    volumes = [path for path in used if is_volume_name(path)]
    cuts: dict[str, _Cut] = {}
    with bar("Cutting volumes", len(volumes), verbose=verbose) as advance:
        work = prefetch(partial(_cut, folder, axis), volumes, n_jobs=n_jobs)
        for path, one in zip(volumes, work, strict=True):
            cuts[path] = one
            advance()
    entries = tuple(
        replace(entry, path=name)
        for entry in listing.entries
        for name in cuts.get(entry.path, _Cut(reason="no volume")).names(entry.path)
    )
    (name, times), *_ = Counter(entry.path for entry in entries).most_common(1)
    if times > 1:
        raise ValueError(f"'{printable(name)}' is listed with its volume, and by itself too.")

    def fetch(rows: Sequence[int]) -> Iterator[Fetch]:
        names = [entries[row].path for row in rows]
        return fetch_images(folder, names, axis, partial(partial, read_file, folder))

    return replace(
        listing,
        entries=entries,
        fetch=fetch,
        notes=(*listing.notes, *_notes([one for one in cuts.values() if not one.reason], axis)),
    )


def _cut(folder: Path, axis: str, path: str, prefix: str = "") -> _Cut:
    try:
        volume = read_volume(folder, path, prefix)
    except ValueError as error:
        return _Cut(reason=str(error))
    number = volume.voxels.shape[nifti.AXES[axis]]
    slices = nifti.slices_with_content(volume.voxels, axis)
    if not slices:
        rule = f"less than {nifti.LEAST_FOREGROUND:.0%} of each is above the background"
        reason = f"all of its {count(number, f'{axis} slice')} are empty: {rule}"
        return _Cut(reason=f"Cannot read '{printable(prefix + path)}': {reason}.")
    return _Cut(tuple(slices), number - len(slices), volume.series, volume.nan)


def _notes(cuts: Sequence[_Cut], axis: str) -> Iterator[str]:
    if cuts:
        slices = count(sum(len(one.slices) for one in cuts), f"{axis} slice")
        yield f"{count(len(cuts), 'volume')} cut into {slices}."
    if empty := sum(one.empty for one in cuts):
        yield (
            f"{count(empty, 'empty slice')} left aside: less than "
            f"{nifti.LEAST_FOREGROUND:.0%} of each is above its volume's background."
        )
    if series := [one.series for one in cuts if one.series > 1]:
        yield (
            f"{count(len(series), 'file')} with {count(sum(series), 'volume')}, such as time "
            "points, of which the first of each file is read."
        )
    if nan := [one.nan for one in cuts if one.nan]:
        yield (
            f"{count(sum(nan), 'voxel')} of {count(len(nan), 'volume')} NaN, read as the lowest "
            "value of the volume."
        )


# Fetching


def fetch_images(
    folder: Path,
    names: Sequence[str],
    axis: str,
    fetch_file: Callable[[str], Fetch],
    prefix: str = "",
) -> Iterator[Fetch]:
    """Fetch slices, in a run of one volume reading it once, and by `fetch_file` other files.

    A volume without the number of a slice is one that could not be cut; fetching it says why.
    `prefix` stands before a name where an error names it.
    """
    for volume, group in groupby(names, key=lambda name: volume_and_slice(name)[0]):
        numbers = [volume_and_slice(name)[1] for name in group]
        shared = _SharedVolume(partial(read_volume, folder, volume, prefix), len(numbers))
        for k in numbers:
            if k is not None:
                yield partial(_slice, shared, prefix + volume, axis, k)
            elif is_volume_name(volume):
                yield partial(_refused, folder, axis, volume, prefix)
            else:
                yield fetch_file(volume)


class _SharedVolume:
    """A volume that is read when it is first asked for, and let go at the last of `times`."""

    def __init__(self, read: Callable[[], Volume], times: int) -> None:
        self._read = read
        self._times = times
        self._lock = threading.Lock()
        self._volume: Volume | None = None

    def get(self) -> Volume:
        with self._lock:
            volume = self._volume or self._read()
            self._times -= 1
            self._volume = volume if self._times else None
        return volume


def _slice(shared: _SharedVolume, path: str, axis: str, k: int) -> Blob:
    voxels = shared.get().voxels
    number = voxels.shape[nifti.AXES[axis]]
    if k >= number:
        raise ValueError(
            f"Cannot read '{printable(slice_name(path, k))}': there are {number} {axis} slices, "
            "counted from 0."
        )
    return nifti.cut(voxels, axis, k)


def _refused(folder: Path, axis: str, path: str, prefix: str) -> Blob:
    reason = _cut(folder, axis, path, prefix).reason
    raise ValueError(reason or f"'{printable(prefix + path)}' changed while it was being read.")


# Scores


def check_top(top: int) -> None:
    """Refuse to average no score, before any is made."""
    if top < 1:
        raise ValueError(f"The 'top' parameter must be at least 1. Got {top} instead.")


def by_volume(
    path: Iterable[str], anomaly_score: Iterable[float], *, top: int
) -> list[tuple[str, int, float, float, int]]:
    """Gather the scores of slices by volume: one row of `VOLUME_COLUMNS` each.

    Parameters
    ----------
    path : iterable of str, length n
        Images that are no slices are passed over.
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
