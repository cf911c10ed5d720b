"""Decoded images on disk, so that a cohort is decoded once and read without filling the memory.

A cache entry is an ``.npy`` file, mapped and never loaded whole, and a JSON file beside it that
is written last and says what the other must be.
The folder is private (mode 0700), since it holds patients' pixels; nothing in it tells a name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import secrets
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

logger = logging.getLogger("conocc")

Images = npt.NDArray[np.float32]

# Raise it when the same bytes and the same reading would give other pixels than before.
CACHE_FORMAT = 1

_ABANDONED_S = 24 * 3600
_CHUNK = 2**22


def cache_folder(cache: bool | str | os.PathLike[str]) -> Path | None:
    """Return the folder that `cache` asks for, made private; None for no cache.

    ``True`` is ``$CONOCC_CACHE``, or else what the platform has for such things.
    Images lie in a folder of their own below it, so that a folder which other people may enter
    can be given too.
    """
    if cache is False:
        return None
    folder = (_default_folder() if cache is True else Path(cache)) / "images"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            folder.chmod(0o700)
    except OSError as error:
        raise OSError(
            f"Cannot make the cache folder '{folder}': {error.strerror}. Another one is taken "
            "with cache=PATH (--cache DIR), none with cache=False (--no-cache)."
        ) from None
    return folder


def _default_folder() -> Path:
    if os.environ.get("CONOCC_CACHE"):
        return Path(os.environ["CONOCC_CACHE"])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "conocc"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "conocc" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "conocc"
    return Path.home() / ".cache" / "conocc"


def cache_key(digests: Sequence[str], preprocessing: dict[str, Any]) -> str:
    """Name the entry for files of these digests, in this order, read in this way."""
    settings = {"format": CACHE_FORMAT, "preprocessing": preprocessing}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for digest in digests:
        key.update(digest.encode())
    return key.hexdigest()


def lookup(folder: Path, key: str, n: int) -> tuple[Images, dict[str, Any]] | None:
    """Map the entry `key`, read-only, with its facts; None if there is none or it is damaged."""
    array, facts = folder / f"{key}.npy", folder / f"{key}.json"
    if not (array.is_file() and facts.is_file()):
        return None
    try:
        written = json.loads(facts.read_text(encoding="utf-8"))
        if (array.stat().st_size, _checksum(array)) != (written["bytes"], written["crc32"]):
            raise ValueError("its contents changed")
        images = np.load(array, mmap_mode="r", allow_pickle=False)
        if images.shape[:1] != (n,) or images.ndim != 4 or images.dtype != np.float32:
            raise ValueError(f"it holds {images.dtype} of shape {images.shape}")
        return images, dict(written["facts"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.warning("The cache file '%s' is damaged (%s) and is made anew.", array, error)
        return None


def store(
    folder: Path,
    key: str,
    n: int,
    placed: Iterable[tuple[int, Images]],
    facts: Callable[[], dict[str, Any]],
) -> Images:
    """Write `n` images, each at its place, as they come; return them mapped, read-only.

    `facts` is asked once all images have come.
    The files appear whole or not at all, whatever fails in between.
    """
    _sweep(folder)
    # The name says whose it is, so that the part of a killed run can be told from a live one.
    part = folder / f"{key}.{_node()}.{os.getpid()}.{secrets.token_hex(4)}.part"
    try:
        _write(part, n, placed)
        written = {"bytes": part.stat().st_size, "crc32": _checksum(part), "facts": facts()}
        # An old entry's facts must never stand beside a new array.
        (folder / f"{key}.json").unlink(missing_ok=True)
        os.replace(part, folder / f"{key}.npy")
        part.write_text(json.dumps(written), encoding="utf-8")
        os.replace(part, folder / f"{key}.json")
    except OSError as error:
        raise _cannot_write(folder, error) from None
    finally:
        part.unlink(missing_ok=True)
    images: Images = np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False)
    return images


def in_memory(n: int, placed: Iterable[tuple[int, Images]]) -> Images:
    """Gather `n` images, each at its place, without a cache."""
    images: Images | None = None
    for i, image in placed:
        if images is None:
            images = np.empty((n, *image.shape), dtype=np.float32)
        images[i] = image
    assert images is not None  # there is no cohort without images
    return images


def _write(part: Path, n: int, placed: Iterable[tuple[int, Images]]) -> None:
    # Written as a file, not through a map: a full disk then is an error, not a SIGBUS.
    start = 0
    with part.open("wb") as file:
        for i, image in placed:
            start = start or _write_head(file, (n, *image.shape))
            file.seek(start + i * image.nbytes)
            file.write(np.ascontiguousarray(image, dtype="<f4").tobytes())
        file.flush()
        os.fsync(file.fileno())


def _write_head(file: Any, shape: tuple[int, ...]) -> int:
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return int(file.tell())


def _cannot_write(folder: Path, error: OSError) -> OSError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = "the disk is full" if full else error.strerror
    return OSError(
        f"Cannot write to the cache folder '{folder}': {reason}. Another one is taken with "
        "cache=PATH (--cache DIR), none with cache=False (--no-cache)."
    )


def _checksum(path: Path) -> int:
    # Against damage, not against malice: the folder is the user's own. Read, not mapped, so
    # that a disk error is an exception and no page stays in memory.
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _node() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _sweep(folder: Path) -> None:
    """Remove what killed runs left: parts of dead processes of this machine, and old ones."""
    for part in folder.glob("*.part"):
        with suppress(OSError, ValueError):
            node, pid = part.name.split(".")[-4:-2]
            dead = node == _node() and not _is_alive(int(pid))
            if dead or time.time() - part.stat().st_mtime > _ABANDONED_S:
                part.unlink()


def _is_alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere the question itself would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it lives, and is another user's
        pass
    return True
