"""From what lies on disk to images of one shape, on all cores, in order."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import joblib
import numpy as np
import numpy.typing as npt

from conocc.data.acquisition import of_file
from conocc.data.image_io.dicom_person import Person, person_of
from conocc.data.image_io.pixels import Remarked, remarked
from conocc.data.image_io.read import checked, decode_remarked, is_colour
from conocc.data.index import Blob, Fetch, count, printable
from conocc.data.preprocessing import Preprocessing, prepare
from conocc.data.pseudonyms import hide
from conocc.io.progress import bar

Images = npt.NDArray[np.float32]
Item = TypeVar("Item")
Result = TypeVar("Result")

# Work is handed to a thread in handfuls, since handing over costs as much as a small image.
FEW = 4

CONSTANT = "every pixel has the same value"
COLOUR_LOST = "colour read as grey; colour='rgb' (--colour rgb) keeps it"


@dataclass(frozen=True)
class Decoded:
    """One image as it will be used.

    Attributes
    ----------
    path : str
        As it may be told.
    image : ndarray of float32, shape (c, h, w), or (d,) of features
    digest : str
        SHA-256 of the bytes that it was decoded from; "" where nobody asked for it.
    remarks : tuple of str
        What was done to its pixels; see `conocc.data.image_io.pixels.Remarked`.
    file : tuple of float
        See `conocc.data.acquisition.OF_FILES`; empty of features.
    """

    path: str
    image: Images
    digest: str
    remarks: tuple[str, ...] = ()
    file: tuple[float, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A sentence that names an image and says why it cannot be used; and its path, likewise."""

    reason: str
    path: str = ""


class UnreadableImagesError(ValueError):
    """Images of a cohort that cannot be used: the first in a sentence, and how many of `n`.

    Attributes
    ----------
    errors : dict of int to (path, reason)
        By the places of the images among those that were asked for.
    """

    def __init__(self, errors: Mapping[int, tuple[str, str]], n: int) -> None:
        more = f" {len(errors)} of {n} images cannot be read." if len(errors) > 1 else ""
        super().__init__(f"{errors[min(errors)][1]}{more}")
        self.errors = dict(errors)
        self.n = n

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errors, self.n)


class SizesDifferError(ValueError):
    """Images of a cohort that are to be of one shape, and are not; `said` tells their sizes."""

    def __init__(self, sentence: str, said: str = "") -> None:
        super().__init__(sentence)
        self.said = said


@dataclass(frozen=True)
class Surveyed:
    """The SHA-256 of one image before it is decoded, and who is on it, if its file is DICOM."""

    digest: str
    person: Person | None


def digest_of(blob: Blob) -> str:
    """SHA-256, in hexadecimal, of a file's bytes or of an array with its type and shape."""
    if isinstance(blob, bytes):
        return hashlib.sha256(blob).hexdigest()
    blob = remarked(blob).pixels
    about = f"{blob.dtype.str} {blob.shape}".encode()
    return hashlib.sha256(about + np.ascontiguousarray(blob).tobytes()).hexdigest()


def fingerprint(fetch: Fetch) -> Surveyed | Unreadable:
    """Fetch and hash one image, and see who is on it."""
    try:
        blob = fetch()
    except ValueError as error:
        return Unreadable(str(error))
    return Surveyed(digest_of(blob), person_on(blob))


def person_on(blob: Blob) -> Person | None:
    """Say who is on an image, if its file is DICOM."""
    return person_of(blob) if isinstance(blob, bytes) else remarked(blob).person


def deidentified_path(path: str, person: Person | None) -> str:
    """Give `path` with pseudonyms for whatever in it repeats what DICOM says of people."""
    return hide(path, person.identifies) if person else path


def decode_one(
    preprocessing: Preprocessing, item: tuple[str, Fetch], *, hashed: bool = True
) -> Decoded | Unreadable:
    """Fetch, hash and decode one image, path first; hash and pixels are of the same bytes."""
    path, fetch = item
    try:
        blob = fetch()
        path = deidentified_path(path, person_on(blob))
        name = printable(path)
        if isinstance(blob, np.ndarray) and blob.ndim == 1:
            if not np.isfinite(vector := blob.astype(np.float32)).all():
                raise ValueError("a feature of it is no finite number")
            return Decoded(path, vector, digest_of(blob) if hashed else "")
        if isinstance(blob, bytes):
            read = decode_remarked(blob, name, preprocessing.voi, preprocessing.least_side)
        else:  # what a stack gave was checked there
            read = blob if isinstance(blob, Remarked) else checked(Remarked(blob))
        image, remarks = read.pixels, read.remarks
        if image.min() == image.max():
            remarks += (CONSTANT,)
        if preprocessing.colour == "grey" and image.ndim == 3:
            if is_colour(image):
                remarks += (COLOUR_LOST,)
            else:
                image = image[..., 0]  # which the luma of equal channels is, in more time
        digest = digest_of(blob) if hashed else ""
        return Decoded(path, prepare(image, preprocessing), digest, remarks, of_file(read))
    except ValueError as error:
        reason = str(error)
        named = reason.startswith("Cannot read")
        return Unreadable(reason if named else f"Cannot read '{printable(path)}': {reason}.", path)


def said_of(remarks: Mapping[str, int]) -> tuple[str, ...]:
    """Say of how many images there are which remarks, the most frequent first.

    >>> said_of({"read twice": 1})
    ('1 image: read twice.',)
    """
    ordered = sorted(remarks.items(), key=lambda item: (-item[1], item[0]))
    return tuple(f"{count(n, 'image')}: {remark}." for remark, n in ordered)


def usable_threads(n_jobs: int | None) -> int:
    """Return `n_jobs`, or as many as there are cores that this process may use."""
    if n_jobs is None or n_jobs == -1:
        return int(joblib.cpu_count())
    if n_jobs < 1:
        raise ValueError(f"The 'n_jobs' parameter must be at least 1, or -1 for all. Got {n_jobs}.")
    return n_jobs


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, n_jobs: int, handful: int = FEW
) -> Iterator[Result]:
    """Yield ``function(item)`` in order, working on threads while the caller does other things.

    A thread is given a `handful` of items at a time. No more results wait for the caller than
    keep `n_jobs` threads busy.
    """
    items = iter(items)
    pool = ThreadPoolExecutor(n_jobs)
    running: deque[Future[list[Result]]] = deque()
    try:
        while some := list(islice(items, handful)):
            running.append(pool.submit(_all, function, some))
            if len(running) > 2 * n_jobs:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
    finally:
        # A caller who stops early, or Ctrl-C, does not wait for what nobody will use.
        pool.shutdown(wait=False, cancel_futures=True)


def _all(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


def survey_all(
    fetches: Iterable[Fetch], n: int, *, n_jobs: int, verbose: int
) -> list[Surveyed | Unreadable]:
    """Hash all `n` images, and see who is on them."""
    surveyed = []
    with bar("Hashing images", n, verbose=verbose) as advance:
        for one in prefetch(fingerprint, fetches, n_jobs=n_jobs):
            surveyed.append(one)
            advance()
    return surveyed


def decode_all(
    paths: Sequence[str],
    digests: Sequence[str],
    fetches: Iterable[Fetch],
    preprocessing: Preprocessing,
    *,
    n_jobs: int,
    verbose: int,
) -> Iterator[Decoded]:
    """Decode images that were hashed before, in order; all are tried before one is refused.

    Parameters
    ----------
    paths, digests : sequence of str, length n
        The paths as they may be told.
    fetches : iterable of Fetch, length n

    Raises
    ------
    UnreadableImagesError
        If any cannot be read, or changed since it was hashed.
    SizesDifferError
        If they differ in shape.
    """
    n = len(paths)
    bad: dict[int, tuple[str, str]] = {}
    shapes: dict[tuple[int, ...], str] = {}
    sizes: Counter[str] = Counter()
    work = prefetch(
        partial(decode_one, preprocessing), zip(paths, fetches, strict=True), n_jobs=n_jobs
    )
    with bar("Reading images", n, verbose=verbose) as advance:
        for i, (path, digest, result) in enumerate(zip(paths, digests, work, strict=True)):
            if isinstance(result, Unreadable):
                bad[i] = path, result.reason
            elif result.digest != digest:
                bad[i] = path, f"'{printable(path)}' changed while it was being read."
            else:
                shapes.setdefault(result.image.shape, path)
                sizes[pixels(result.image.shape)] += 1
                if not bad and len(shapes) == 1:
                    yield result
            advance()
    if bad:
        raise UnreadableImagesError(bad, n)
    if len(shapes) > 1:
        (shape, path), (other_shape, other_path), *_ = shapes.items()
        usual = ", ".join(f"{n} of {size}" for size, n in sizes.most_common(3))
        raise SizesDifferError(
            f"Images differ in shape: '{printable(path)}' has {pixels(shape)}, "
            f"'{printable(other_path)}' has {pixels(other_shape)}. Pass the size to bring them to, "
            "such as size=64 (--size 64).",
            f"Images are of {len(sizes)} sizes, most often {usual}. Pass the size to bring them to "
            "where they are trained on, such as --size 64.",
        )


def pixels(shape: tuple[int, ...]) -> str:
    """Say the shape of an image, (c, h, w), or of its features, (d,), as people do.

    >>> pixels((1, 20, 30))
    '30x20 pixels'
    """
    if len(shape) == 1:
        return count(shape[0], "feature")
    channels, height, width = shape
    return f"{width}x{height} pixels" + (" in colour" if channels > 1 else "")
