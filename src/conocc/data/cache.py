"""Decoded images on disk, so that a cohort is decoded once and read without filling the memory.

A cache entry is an ``.npy`` file, mapped and never loaded whole, and a JSON file beside it that
is written last and says what the other must be. It holds each image once, in the order of their
hashes: every order and split of the same images shares it.
The folder is private (mode 0700), since it holds patients' pixels, unless it is made below one in
which others may write: several people then share it. Nothing in it tells a name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from conocc.io.files import atomic_write, write_json

logger = logging.getLogger("conocc")

Images = npt.NDArray[np.float32]
Facts = dict[str, Any]

# Raise it when the same bytes and preprocessing would give other pixels, or facts, than before.
CACHE_FORMAT = 4

# Images beyond this size, wanted in an order of their own, go to a temporary file.
ARRANGED_IN_MEMORY_BYTES = 2**26
_ABANDONED_S = 24 * 3600
_CHUNK_BYTES = 2**22


def cache_folder(cache: bool | str | os.PathLike[str]) -> tuple[Path | None, tuple[str, ...]]:
    """Return the folder that `cache` asks for, and a note where there should be one and is none.

    ``True`` is ``$CONOCC_CACHE``, or else what the platform has for such things.
    """
    if cache is False:
        return None, ()
    base = Path(cache) if cache and cache is not True else own_cache()
    folder = base / "images"
    try:
        base.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            folder.mkdir()
            mode = stat.S_IMODE(base.stat().st_mode)
            folder.chmod(mode if mode & (stat.S_IWGRP | stat.S_IWOTH) else 0o700)
        os.listdir(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        return None, (f"Decoded images are not kept: '{folder}' cannot be used ({reason}).",)
    return folder, ()


def own_cache() -> Path:
    """Return ``$CONOCC_CACHE``, or else the folder that the platform has for such things."""
    given = os.environ.get("CONOCC_CACHE")
    return Path(given) if given else user_cache_path("conocc", appauthor=False)


def cache_key(digests: Sequence[str], preprocessing: dict[str, Any]) -> str:
    """Name the entry for images of these digests, read in this way."""
    settings = {"format": CACHE_FORMAT, "preprocessing": preprocessing}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for digest in digests:
        key.update(digest.encode())
    return key.hexdigest()


def lookup(folder: Path, key: str, n: int) -> tuple[Images, Facts] | None:
    """Map the entry `key`, read-only, with its facts; None if there is none or it is damaged."""
    array, facts = folder / f"{key}.npy", folder / f"{key}.json"
    if not (array.is_file() and facts.is_file()):
        return None
    try:
        written = json.loads(facts.read_text(encoding="utf-8"))
        if (array.stat().st_size, _checksum(array)) != (written["bytes"], written["crc32"]):
            raise ValueError("its contents changed")
        images = np.load(array, mmap_mode="r", allow_pickle=False)
        if images.shape[:1] != (n,) or images.ndim not in (2, 4) or images.dtype != np.float32:
            raise ValueError(f"it holds {images.dtype} of shape {images.shape}")
        return images, dict(written["facts"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.warning("The cache file '%s' is damaged (%s) and is made anew.", array, error)
        return None


def store(
    folder: Path, key: str, n: int, placed: Iterable[tuple[int, Images]], facts: Callable[[], Facts]
) -> tuple[Images, Facts]:
    """Write `n` images, each at its place, as they come; return them mapped, with the facts.

    `facts` is asked once all images have come.
    The files appear whole or not at all, whatever fails in between.

    Raises
    ------
    OSError
        If the disk is full, or fails.
    """
    array = folder / f"{key}.npy"
    _sweep(folder)
    try:
        # An old entry's facts must never stand beside a new array.
        (folder / f"{key}.json").unlink(missing_ok=True)
        with atomic_write(array) as part:
            _write(part, n, placed)
            sums: Facts = {"bytes": part.stat().st_size, "crc32": _checksum(part)}
        sums["facts"] = facts()
        write_json(folder / f"{key}.json", sums)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise OSError(
            f"Cannot write to the cache folder '{folder}': "
            f"{'the disk is full' if full else error.strerror}. Another one is taken with "
            "cache=PATH (--cache DIR), none with cache=False (--no-cache)."
        ) from None
    return np.load(array, mmap_mode="r", allow_pickle=False), sums["facts"]


def in_memory(n: int, placed: Iterable[tuple[int, Images]]) -> Images:
    """Gather `n` images, each at its place, without a cache."""
    images: Images | None = None
    for i, image in placed:
        if images is None:
            images = np.empty((n, *image.shape), dtype=np.float32)
        images[i] = image
    assert images is not None  # there is no cohort without images
    return images


def arranged(images: Images, rows: npt.NDArray[np.intp]) -> Images:
    """Give the images of `rows`, in that order; many of them in a file that nobody else sees."""
    if np.array_equal(rows, np.arange(len(images))):
        return images
    if len(rows) * images[:1].nbytes <= ARRANGED_IN_MEMORY_BYTES:
        return images[rows]
    with tempfile.TemporaryFile() as file:
        for row in rows:
            file.write(images[row].tobytes())
        file.flush()
        return np.memmap(file, np.float32, "r", shape=(len(rows), *images.shape[1:]))


class CacheEntry(NamedTuple):
    """One set of images that the cache holds."""

    key: str
    images: int
    shape: tuple[int, ...]
    megabytes: float


def entries(folder: Path) -> list[CacheEntry]:
    """List what the cache holds; files that are none of its own are passed over."""
    found = []
    for path in sorted(folder.glob("*.npy")):
        with suppress(OSError, ValueError):
            n, *shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            found.append(CacheEntry(path.stem, n, tuple(shape), path.stat().st_size / 1e6))
    return found


def clear(folder: Path) -> int:
    """Remove all entries and nothing else; return how many there were."""
    found = entries(folder)
    for entry in found:
        for suffix in ("json", "npy"):
            (folder / f"{entry.key}.{suffix}").unlink(missing_ok=True)
    return len(found)


def _write(part: Path, n: int, placed: Iterable[tuple[int, Images]]) -> None:
    # Written as a file, not through a map: a full disk then is an error, not a SIGBUS.
    start = 0
    with part.open("wb") as file:
        for i, image in placed:
            if not start:
                shape = (n, *image.shape)
                head = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, head)
                start = file.tell()
            file.seek(start + i * image.nbytes)
            file.write(np.ascontiguousarray(image, dtype="<f4").tobytes())


def _checksum(path: Path) -> int:
    # Against damage, not against malice: the folder is the user's own. Read, not mapped, so
    # that a disk error is an exception and no page stays in memory.
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _sweep(folder: Path) -> None:
    """Remove what killed runs left a day ago or earlier."""
    for part in folder.glob(".*.npy.*.tmp"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_S:
                part.unlink()
