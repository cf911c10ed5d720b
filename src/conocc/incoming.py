"""Images without a class, to be scored: files and folders, in blocks, bad ones set aside."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conocc.archives import is_archive
from conocc.decoding import Decoded, Unreadable, ahead, decode_one, pixels, threads
from conocc.layouts import is_manifest, list_cohort
from conocc.listing import Entry, Fetch, of_files, shown, walk
from conocc.phantoms import PHANTOMS
from conocc.progress import bar
from conocc.readers import Reading
from conocc.volumes import with_slices

logger = logging.getLogger("conocc")

BLOCK = 256


@dataclass(frozen=True)
class Block:
    """Some images to be scored together.

    Attributes
    ----------
    images : ndarray of float32, shape (k, c, h, w)
        k can be 0, where nothing could be read.
    path, digest : tuple of str, length k
        Where a path repeats what a DICOM file says of its patient, pseudonyms stand for that.
    errors : tuple of (path, reason)
        The images met on the way that cannot be scored, each with a sentence.
    """

    images: npt.NDArray[np.float32]
    path: tuple[str, ...]
    digest: tuple[str, ...]
    errors: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Source:
    """What one argument of `load_images` leads to."""

    paths: Sequence[str] = ()
    fetches: Iterable[Fetch] = ()
    errors: tuple[tuple[str, str], ...] = ()


def load_images(
    where: Sequence[str | os.PathLike[str]],
    reading: Reading,
    *,
    shape: tuple[int, int, int] | None = None,
    jobs: int | None = None,
    verbose: int = 0,
) -> Iterator[Block]:
    """Read images block by block, in bounded memory, the next block while this one is scored.

    Parameters
    ----------
    where : sequence of path
        Image files, and folders, which are searched to the ground; also archives, manifests and
        names of phantoms, whose classes and splits are then of no concern. Volumes are cut into
        slices (`conocc.volumes`).
    reading : Reading
        How to read them: as the images were read that the detector learned from.
    shape : (c, h, w), optional
        What a detector takes; images that come out otherwise are errors.
        Without it, the first image sets the shape.
    jobs : int, optional
        Threads that decode; all cores by default.
    verbose : int, default=0

    Yields
    ------
    Block
        At most `BLOCK` images and errors, in the order of `where` and, in a folder, of the
        paths. There is one at least, if `where` is not empty.
    """
    workers = threads(jobs)
    sources = [_source(os.fspath(one), reading, workers, verbose) for one in where]
    paths = [path for source in sources for path in source.paths]
    fetches = chain.from_iterable(source.fetches for source in sources)
    errors = [error for source in sources for error in source.errors]
    good: list[Decoded] = []
    work = ahead(
        partial(decode_one, reading),
        zip(paths, fetches, strict=True),
        jobs=workers,
        lookahead=BLOCK,
    )
    with bar("Scoring images", len(paths), verbose=verbose) as advance:
        for result in work:
            if isinstance(result, Unreadable):
                errors.append((shown(result.path), result.reason))
            elif result.image.shape != (shape := shape or _shape(result)):
                errors.append((shown(result.path), _misfit(result, shape)))
            else:
                good.append(result)
            if len(good) + len(errors) >= BLOCK:
                yield _block(good, errors, reading)
                good, errors = [], []
            advance()
    if good or errors:
        yield _block(good, errors, reading)


def _source(where: str, reading: Reading, jobs: int, verbose: int) -> _Source:
    path = Path(where)
    if where in PHANTOMS or is_archive(path):
        listing = list_cohort(where, reading.size)
        names = [f"{where}/{entry.path}" for entry in listing.entries]
        return _Source(names, listing.fetch(range(len(names))))
    if is_manifest(path):
        folder, inside = path.parent, [entry.path for entry in list_cohort(where).entries]
    elif not path.is_dir():
        folder, inside = Path(), [where]
    else:
        folder, inside = path, list(walk(path).images)
        if not inside:
            return _Source(errors=((shown(where), f"'{shown(where)}' holds no images."),))
    files = of_files("files", folder, [Entry(one, label="") for one in inside])
    listing = with_slices(files, reading.axis, jobs=jobs, verbose=verbose)
    for note in listing.notes:
        logger.info(note)
    names = [(folder / entry.path).as_posix() for entry in listing.entries]
    return _Source(names, listing.fetch(range(len(names))))


def _shape(decoded: Decoded) -> tuple[int, int, int]:
    c, h, w = decoded.image.shape
    return c, h, w


def _misfit(decoded: Decoded, shape: tuple[int, ...]) -> str:
    return (
        f"'{shown(decoded.path)}' has {pixels(decoded.image.shape)}, "
        f"where {pixels(shape)} are expected."
    )


def _block(good: list[Decoded], errors: list[tuple[str, str]], reading: Reading) -> Block:
    side = reading.size or 0
    nothing = np.empty((0, 3 if reading.colour == "rgb" else 1, side, side), dtype=np.float32)
    return Block(
        images=np.stack([decoded.image for decoded in good]) if good else nothing,
        path=tuple(decoded.path for decoded in good),
        digest=tuple(decoded.digest for decoded in good),
        errors=tuple(errors),
    )
