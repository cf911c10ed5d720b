"""Cohorts in one ``.npz`` file: a user's own arrays, and the sets of MedMNIST v2.

Nothing is unpickled, and no array is made before its head has been checked, so that a forged
archive can neither run code nor fill the memory.
Images are streamed from the archive, one at a time.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from conocc.data.image_io.pixels import MAX_PIXELS
from conocc.data.index import SIDES, Blob, Fetch, ImageEntry, ImageIndex, printable, side

Array = npt.NDArray[Any]

# The label that MedMNIST's own set holds most of and that stands for the ordinary finding.
MEDMNIST_MAJORITY = {
    "breastmnist": "1",  # normal, benign
    "dermamnist": "5",  # melanocytic nevi
    "octmnist": "3",  # normal
    "pneumoniamnist": "0",  # normal
    "retinamnist": "0",  # no retinopathy
}
MEDMNIST_SIDES = ("train", "val", "test")

MOST_IMAGES = 10_000_000
MOST_COLUMN_BYTES = 2**28  # labels, patients, splits
# Deflate's best is 1032 to 1; images, even sparse ones, stay far below the limit.
BOMB_BYTES = 2**30
BOMB_RATIO = 500


@dataclass(frozen=True)
class Head:
    """What an array's head says before any of its values is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


def is_archive(where: Path) -> bool:
    """Say whether `where` is a file that ends in .npz."""
    return where.is_file() and where.suffix.lower() == ".npz"


def list_archive(where: Path) -> ImageIndex:
    """List the images of an ``.npz`` file.

    Own arrays are `images`, (n, h, w), (n, c, h, w) or (n, h, w, c) with c of 1 or 3; `labels`,
    (n,); and, if wished, `patient` and `split`, (n,).
    MedMNIST's are `{train,val,test}_images` and `{train,val,test}_labels`; `val` stays unused.

    Raises
    ------
    ValueError
        If the file is damaged or forged, arrays are missing or do not fit each other, or the
        set is three-dimensional or has several labels an image.
    """
    with _opened(where) as archive:
        heads = {
            name.removesuffix(".npy"): _head(archive, name)
            for name in archive.namelist()
            if name.endswith(".npy")
        }
    if "images" in heads:
        return _list_own(where, heads)
    if any(f"{side}_images" in heads for side in MEDMNIST_SIDES):
        return _list_medmnist(where, heads)
    raise ValueError(
        f"'{printable(where.name)}' must hold arrays named images and labels (and, if wished, "
        "patient and split), or MedMNIST's train_images, train_labels, test_images, "
        f"test_labels. It holds {', '.join(map(printable, sorted(heads))) or 'no arrays'}."
    )


def _list_own(where: Path, heads: dict[str, Head]) -> ImageIndex:
    n = _check_images(where, "images", heads["images"])
    label = _column(where, heads, "labels", n)
    patient = _column(where, heads, "patient", n) if "patient" in heads else [None] * n
    words = _column(where, heads, "split", n) if "split" in heads else [None] * n
    entries = tuple(
        ImageEntry(
            f"images[{i}]",
            label[i] or "",
            split=None if word is None else side(word, f"'{printable(where.name)}', split[{i}]"),
            patient=patient[i],
        )
        for i, word in enumerate(words)
    )
    unknown = sorted(set(heads) - {"images", "labels", "patient", "split"})
    notes = [f"Arrays not used: {', '.join(map(printable, unknown))}."] if unknown else []
    return _listing("an .npz archive", where, entries, [("images", n)], notes=notes)


def _list_medmnist(where: Path, heads: dict[str, Head]) -> ImageIndex:
    entries: list[ImageEntry] = []
    arrays: list[tuple[str, int]] = []
    for part in MEDMNIST_SIDES:
        name = f"{part}_images"
        if name not in heads:
            continue
        n = _check_images(where, name, heads[name])
        label = _column(where, heads, f"{part}_labels", n)
        entries += [ImageEntry(f"{name}[{i}]", label[i] or "", split=SIDES[part]) for i in range(n)]
        arrays.append((name, n))
    stem = re.sub(r"_(64|128|224)$", "", where.stem.lower())
    known = MEDMNIST_MAJORITY.get(stem)
    return _listing(
        "a MedMNIST archive",
        where,
        tuple(entries),
        arrays,
        majority=None if known is None else frozenset({known}),
    )


def _listing(
    layout: str,
    where: Path,
    entries: tuple[ImageEntry, ...],
    arrays: list[tuple[str, int]],
    *,
    majority: frozenset[str] | None = None,
    notes: Sequence[str] = (),
) -> ImageIndex:
    if not entries:
        raise ValueError(f"'{printable(where.name)}' holds no images: its arrays are empty.")
    return ImageIndex(
        layout=layout,
        name=where.stem,
        entries=entries,
        fetch=partial(_fetch, where, arrays),
        majority=majority,
        notes=tuple(notes),
    )


# Heads


@contextmanager
def _opened(where: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive; whatever is wrong with it becomes one sentence."""
    try:
        with zipfile.ZipFile(where) as archive:
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,  # encrypted, or compressed in a way that Python does not know
        OSError,
    ) as error:
        raise ValueError(f"Cannot read '{printable(where.name)}': {error}.") from None


def _head(archive: zipfile.ZipFile, name: str) -> Head:
    """Read the head of one array and hold it against what the archive says of its size."""
    info = archive.getinfo(name)
    with archive.open(info) as file:
        try:
            head = _read_head(file)
        except ValueError as error:
            raise ValueError(
                f"Cannot read '{printable(archive.filename)}': the array {printable(name)} is damaged "
                f"({str(error).splitlines()[0]})."
            ) from None
        declared = file.tell() + _size(head)
    if head.dtype.hasobject:
        raise ValueError(
            f"'{printable(archive.filename)}': the array {printable(name)} holds Python objects, which "
            "are not read, since reading them can run code."
        )
    if declared != info.file_size:
        raise ValueError(
            f"'{printable(archive.filename)}': the array {printable(name)} declares {declared} bytes, "
            f"but has {info.file_size}."
        )
    if declared > BOMB_BYTES and declared > BOMB_RATIO * info.compress_size:
        raise ValueError(
            f"'{printable(archive.filename)}': the array {printable(name)} would grow from "
            f"{info.compress_size} to {declared} bytes, as in a decompression bomb."
        )
    return head


def _read_head(file: IO[bytes]) -> Head:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"format {version[0]}.{version[1]} is not known")
    if min(shape, default=0) < 0:
        raise ValueError(f"a shape of {shape}")
    return Head(tuple(shape), dtype, fortran)


def _size(head: Head) -> int:
    return head.dtype.itemsize * math.prod(head.shape)


def _check_images(where: Path, name: str, head: Head) -> int:
    """Return the number of images, if they are images."""
    at = f"'{printable(where.name)}': the array {name}"
    shape = head.shape
    flat = len(shape) == 3 or (len(shape) == 4 and (shape[3] in (1, 3) or shape[1] in (1, 3)))
    if not flat:
        kind = "volumes" if len(shape) in (4, 5) else "no images"
        raise ValueError(
            f"{at} holds {kind}, of shape {shape}; images are (n, h, w), (n, c, h, w) or "
            "(n, h, w, c) with one or three channels."
        )
    if head.dtype.kind not in "buif":
        raise ValueError(f"{at} must hold numbers. It holds {head.dtype}.")
    if shape[0] > MOST_IMAGES:
        raise ValueError(f"{at} declares {shape[0]} images; at most {MOST_IMAGES} are read.")
    if not 0 < math.prod(shape[1:]) <= 3 * MAX_PIXELS:
        raise ValueError(
            f"{at} declares images of shape {shape[1:]}, where 1 to {MAX_PIXELS} pixels are read."
        )
    if head.fortran and _size(head) > BOMB_BYTES:
        raise ValueError(
            f"{at} lies in Fortran order and is too large to be turned round in memory; save it "
            "with numpy.ascontiguousarray."
        )
    return int(shape[0])


def _column(where: Path, heads: dict[str, Head], name: str, n: int) -> list[str | None]:
    """Read one value an image, as strings."""
    at = f"'{printable(where.name)}': the array {name}"
    if name not in heads:
        raise ValueError(f"{at} is missing.")
    head = heads[name]
    if len(head.shape) == 2 and head.shape[1] > 1:
        raise ValueError(
            f"{at} gives each image {head.shape[1]} labels; a one-class cohort needs one."
        )
    if _size(head) > MOST_COLUMN_BYTES:
        raise ValueError(f"{at} declares {_size(head)} bytes, which is too large.")
    if head.shape not in ((n,), (n, 1)):
        raise ValueError(f"{at} must have one value for each of {n} images, not {head.shape}.")
    with _opened(where), np.load(where, allow_pickle=False) as archive:
        values = archive[name].reshape(-1)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "backslashreplace")
    if values.dtype.kind not in "biufU":
        raise ValueError(f"{at} must hold names or whole numbers. It holds {values.dtype}.")
    if values.dtype.kind == "f":
        if not np.array_equal(values, np.rint(values)):
            raise ValueError(f"{at} must hold names or whole numbers.")
        values = values.astype(np.int64)
    texts = [str(value) for value in values.tolist()]
    if "" in texts:
        raise ValueError(f"{at} is empty for image {texts.index('')}.")
    return list(texts)


# Images


def _fetch(where: Path, arrays: list[tuple[str, int]], rows: Sequence[int]) -> Iterator[Fetch]:
    """Stream the images in `rows`, ascending over all `arrays` one after the other."""
    start = 0
    for name, n in arrays:
        wanted = {row - start for row in rows if start <= row < start + n}
        start += n
        if not wanted:
            continue
        with _opened(where) as archive, archive.open(f"{name}.npy") as file:
            for i, image in enumerate(_rows(file)):
                if i in wanted:
                    yield partial(_itself, image)


def _itself(image: Array) -> Blob:
    return image


def _rows(file: IO[bytes]) -> Iterator[Array]:
    """Images one at a time as (h, w) or (h, w, 3), each on bytes of its own."""
    head = _read_head(file)
    shape = head.shape[1:]
    size = _size(head) // max(head.shape[0], 1)
    if head.fortran:
        # Its images do not lie one after the other.
        values = np.frombuffer(_exactly(file, _size(head)), head.dtype)
        whole = values.reshape(head.shape[::-1]).T
        yield from (_channels_last(np.ascontiguousarray(image)) for image in whole)
        return
    for _ in range(head.shape[0]):
        yield _channels_last(np.frombuffer(_exactly(file, size), head.dtype).reshape(shape))


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("the array ends early")
    return data


def _channels_last(image: Array) -> Array:
    if image.ndim == 3 and image.shape[2] not in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    native = image.dtype.newbyteorder("=")
    return image.astype(np.uint8 if image.dtype.kind == "b" else native, copy=False)
