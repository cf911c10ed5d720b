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
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from conocc.data.columns import TableOptions, claim, is_called, refuse_options
from conocc.data.image_io.npy import Head, read_head
from conocc.data.image_io.pixels import MAX_PIXELS, decoding
from conocc.data.index import Fetch, ImageEntry, ImageIndex, printable, side
from conocc.io.words import count, reason

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
# Deflate's best is 1032 to 1; images, even sparse ones, stay far below the limit.
BOMB_BYTES = 2**30
BOMB_RATIO = 500


def is_archive(where: Path) -> bool:
    """Say whether `where` is a file that ends in .npz."""
    return where.is_file() and where.suffix.lower() == ".npz"


def list_archive(
    where: Path, table: TableOptions = TableOptions(), *, labelled: bool = True
) -> ImageIndex:
    """List the images of an ``.npz`` file.

    Own arrays are `images`, (n, h, w), (n, c, h, w) or (n, h, w, c) with c of 1 or 3; `labels`,
    (n,); and, if wished, `patient` and `split`, (n,); or as `table` calls them.
    Instead of images there may be `features`, (n, d): without labels they are one class.
    Unless they are to be `labelled`, labels are read only where they are called so, and no more.
    Rows are named by what the array means, ``images[3]``, whatever it is called.
    MedMNIST's are `{train,val,test}_images` and `{train,val,test}_labels`; `val` stays unused.

    Raises
    ------
    ValueError
        If the file is damaged or forged, arrays are missing or do not fit each other, or the
        set is three-dimensional or has several labels an image.
    """
    name = printable(where.name)
    refuse_options(name, table, ("root", "patients", "suffix", "one_hot"), "an archive")
    with _opened(where) as archive:
        members = [member for member in archive.namelist() if member.endswith(".npy")]
        heads = {member.removesuffix(".npy"): _head(archive, member) for member in members}
    sides = [f"{side}_" for side in MEDMNIST_SIDES if f"{side}_images" in heads]
    vectors = any(is_called(array, "features") for array in heads)
    is_own = not sides or vectors or any(is_called(array, "images") for array in heads)
    needed: tuple[str, ...] = ("features",) if vectors else ("images", "labels")
    entries: list[ImageEntry] = []
    arrays: list[tuple[str, int]] = []
    unused = set(heads)
    for prefix in [""] if is_own else sides:
        inside = sorted(one.removeprefix(prefix) for one in heads if one.startswith(prefix))
        optional: tuple[str, ...] = ("patient", "split") if is_own else ("patient",)
        optional = ("labels", *optional) if vectors else optional
        if not labelled:
            needed = needed[:1]
            optional = ("labels",) * any(is_called(one, "labels") for one in inside)
        claimed = claim(f"'{name}'", inside, needed, optional, table, "array")
        claimed = {meaning: prefix + array for meaning, array in claimed.items()}
        unused -= set(claimed.values())
        array = claimed.pop(needed[0])
        n = (_count_vectors if vectors else _count_images)(
            f"'{name}': the array {array}", heads[array]
        )
        values = {meaning: _column(where, heads, one, n) for meaning, one in claimed.items()}
        arrays.append((array, n))
        words = values.get("split", [prefix[:-1]] * n)
        for i in range(n):
            split = side(words[i], f"'{name}', {claimed.get('split')}[{i}]") if words[i] else None
            who = values["patient"][i] if "patient" in values else None
            label = values["labels"][i] if "labels" in values else where.stem
            entries.append(ImageEntry(f"{prefix}{needed[0]}[{i}]", label, split, who))
    if not entries:
        raise ValueError(f"'{name}' holds no images: its arrays are empty.")
    if len({entry.patient is None for entry in entries}) > 1:
        raise ValueError(f"'{name}' has patients of some images only; all need one, or none.")
    known = MEDMNIST_MAJORITY.get(re.sub(r"_(64|128|224)$", "", where.stem.lower()))
    return ImageIndex(
        layout="an .npz archive" if is_own else "a MedMNIST archive",
        name=where.stem,
        entries=tuple(entries),
        fetch=partial(_fetch, where, arrays),
        majority=None if is_own or known is None else frozenset({known}),
        notes=(f"Arrays not used: {', '.join(map(printable, sorted(unused)))}.",) if unused else (),
    )


@contextmanager
def _opened(where: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive; whatever is wrong with it becomes one sentence."""
    # A RuntimeError is of an archive that is encrypted, or compressed in an unknown way.
    damage = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)
    try:
        with zipfile.ZipFile(where) as archive:
            yield archive
    except damage as error:
        raise ValueError(f"Cannot read '{printable(where.name)}': {reason(error)}.") from None


def _head(archive: zipfile.ZipFile, member: str) -> Head:
    """Read the head of one array and hold it against what the archive says of its size."""
    info = archive.getinfo(member)
    name = Path(archive.filename or "").name
    at = f"'{printable(name)}': the array {printable(member)}"
    with archive.open(info) as file:
        with decoding(f"{at} is"):
            head = read_head(file)
        declared = file.tell() + head.nbytes
    if head.dtype.hasobject:
        raise ValueError(f"{at} holds Python objects, not read since reading them can run code.")
    if declared != info.file_size:
        raise ValueError(f"{at} declares {declared} bytes, but has {info.file_size}.")
    if declared > BOMB_BYTES and declared > BOMB_RATIO * info.compress_size:
        raise ValueError(
            f"{at} would grow from {info.compress_size} to {declared} bytes: a decompression bomb."
        )
    return head


def _count_images(at: str, head: Head) -> int:
    """Return the number of images, if they are images."""
    shape = head.shape
    if len(shape) != 3 and not (len(shape) == 4 and (shape[3] in (1, 3) or shape[1] in (1, 3))):
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
        raise ValueError(f"{at} declares images of {shape[1:]}; 1 to {MAX_PIXELS} pixels are read.")
    if head.fortran and head.nbytes > BOMB_BYTES:
        raise ValueError(
            f"{at} lies in Fortran order and is too large to be turned round in memory; save it "
            "with numpy.ascontiguousarray."
        )
    return shape[0]


def _count_vectors(at: str, head: Head) -> int:
    """Return the number of vectors, if they are vectors."""
    if len(head.shape) != 2 or head.dtype.kind not in "buif" or not all(head.shape):
        raise ValueError(f"{at} must hold numbers (n, d). It holds {head.dtype}, {head.shape}.")
    return head.shape[0]


def _column(where: Path, heads: dict[str, Head], name: str, n: int) -> list[str]:
    """Read one value an image, as strings."""
    at = f"'{printable(where.name)}': the array {name}"
    head = heads[name]
    if len(head.shape) == 2 and head.shape[1] > 1:
        raise ValueError(f"{at} gives each image {head.shape[1]} labels, where one is needed.")
    if head.shape not in ((n,), (n, 1)):
        raise ValueError(
            f"{at} must have one value for each of {count(n, 'image')}, not {head.shape}."
        )
    with _opened(where) as archive, archive.open(f"{name}.npy") as file:
        values = np.lib.format.read_array(file, allow_pickle=False).reshape(-1)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "backslashreplace")
    whole = values.dtype.kind == "f" and np.array_equal(values, np.rint(values))
    if values.dtype.kind not in "biuU" and not whole:
        raise ValueError(f"{at} must hold names or whole numbers. It holds {values.dtype}.")
    texts = [str(value) for value in (values.astype(np.int64) if whole else values).tolist()]
    if "" in texts:
        raise ValueError(f"{at} is empty for image {texts.index('')}.")
    return texts


def _fetch(where: Path, arrays: list[tuple[str, int]], rows: Sequence[int]) -> Iterator[Fetch]:
    """Stream the images in `rows`, ascending over all `arrays` one after the other."""
    start = 0
    for name, n in arrays:
        wanted = {row - start for row in rows if start <= row < start + n}
        start += n
        if wanted:
            with _opened(where) as archive, archive.open(f"{name}.npy") as file:
                for i, image in enumerate(_images(file)):
                    if i in wanted:
                        yield partial(_channels_last, image)


def _images(file: IO[bytes]) -> Iterator[Array]:
    """Yield images one at a time, each on bytes of its own."""
    head = read_head(file)
    if head.fortran:  # its images do not lie one after the other
        values = np.frombuffer(_exactly(file, head.nbytes), head.dtype)
        yield from values.reshape(head.shape[::-1]).T
        return
    size = head.nbytes // max(head.shape[0], 1)
    for _ in range(head.shape[0]):
        yield np.frombuffer(_exactly(file, size), head.dtype).reshape(head.shape[1:])


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("the array ends early")
    return data


def _channels_last(image: Array) -> Array:
    """Give an image as (h, w) or (h, w, 3), in the byte order of this machine."""
    if image.ndim == 3 and image.shape[2] not in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    native = np.uint8 if image.dtype.kind == "b" else image.dtype.newbyteorder("=")
    return np.ascontiguousarray(image, native)
