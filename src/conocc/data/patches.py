"""Patches cut from larger images, around boxes or the parts of masks, as the paper's sets were.

A patch is square: the longer side of its box and a margin on both sides, around the middle of the
box, and moved just so far that it lies inside the image. Patches of tissue outside the boxes are
as many and as large as those inside; they touch no box with its margin, nor each other, and at
least a share of each is above the image's threshold by Otsu's method.

Patches of 8 and 16 bits are PNG files of as many, all others float32 in NPY. They lie in a folder
for each class, beside a table ``patches.csv`` that says who the patient is.

Letters: h and w pixels.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from conocc.data.annotations import Marks, marked_by_boxes, marked_by_masks
from conocc.data.bounding_boxes import Box, square_around, squares_outside
from conocc.data.columns import TableOptions
from conocc.data.decoding import deidentified_path, person_on, prefetch
from conocc.data.image_io.dicom_person import Person
from conocc.data.image_io.pixels import Pixels, remarked
from conocc.data.image_io.read import decode, is_colour
from conocc.data.image_io.stack import StackOptions, volume_and_slice
from conocc.data.index import Fetch, printable, stem
from conocc.data.patients import find_patients
from conocc.data.preprocessing import Preprocessing, prepare
from conocc.data.volumes import with_slices
from conocc.io.files import atomic_write
from conocc.io.progress import bar
from conocc.io.tables import write_csv

OUTSIDE = "outside"
TABLE_COLUMNS = ("path", "label", "patient", "source", "x", "y", "width", "height")


# Patches


def cut_patch(image: Pixels, square: Box, size: int | None = None) -> Pixels:
    """Cut a square out of an image and resize it, at the image's depth where files can hold it.

    Parameters
    ----------
    image : array, shape (h, w) or (h, w, 3)
    square : Box
        Inside the image.
    size : int, optional
        Side in pixels; by default it stays as it is.

    Returns
    -------
    array, shape (size, size) or (size, size, 3)
        uint8 and, of grey images, uint16 are rounded to their own kind again; all others become
        float32. Colour channels that are all the same become one.
    """
    rows = slice(square.y, square.y + square.height)
    piece = image[rows, square.x : square.x + square.width]
    colour = "rgb" if is_colour(image) else "grey"
    planes = prepare(piece, Preprocessing(size=size, colour=colour))
    patch = np.moveaxis(planes, 0, -1) if colour == "rgb" else planes[0]
    if image.dtype == np.uint8 or (image.dtype == np.uint16 and colour == "grey"):
        return np.rint(patch).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)
    return np.ascontiguousarray(patch, np.float32)


def write_patch(path: Path, patch: Pixels) -> Path:
    """Write a patch as ``.png`` or ``.npy``, whichever holds its values; return where."""
    as_array = patch.dtype == np.float32
    path = path.with_name(f"{path.name}{'.npy' if as_array else '.png'}")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        if as_array:
            np.save(file, patch, allow_pickle=False)
        else:
            Image.fromarray(patch).save(file, "PNG")
    return path


# Folders of patches


@dataclass(frozen=True)
class Rules:
    """How patches are cut; see `cut_patches`."""

    size: int | None = None
    margin: int = 0
    outside: bool = False
    least_tissue: float = 0.5
    min_area: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        Preprocessing(size=self.size)
        for name, least in (("margin", 0), ("min_area", 1)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"The '{name}' parameter must be at least {least}. Got {value}.")
        if not 0 <= self.least_tissue <= 1:
            raise ValueError(
                f"The 'least_tissue' parameter must be in [0, 1]. Got {self.least_tissue}."
            )


@dataclass
class _Cut:
    """What became of one image: its path, without what identifies a patient, and its patches."""

    path: str
    person: Person | None = None
    patches: list[tuple[Pixels, str, Box]] = field(default_factory=list)
    written: list[tuple[str, str, Box]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Made:
    """How many patches `cut_patches` made of each class, and what it could not: (path, reason)."""

    counts: dict[str, int]
    errors: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def cut_patches(
    images: str | Path,
    out: str | Path,
    *,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    table: TableOptions = TableOptions(),
    rules: Rules | None = None,
    axis: str = "axial",
    patient_regex: str | None = None,
    n_jobs: int = 1,
    verbose: int = 0,
) -> Made:
    """Cut patches around boxes or the parts of masks into a folder that `load_cohort` takes.

    Parameters
    ----------
    images : path
        A folder of images of all formats, volumes too.
    out : path
        A folder that is empty, or not there. It gets a folder for each class, ``patches.csv``
        (`TABLE_COLUMNS`; boxes in pixels of the source), and ``errors.csv`` if there are any.
    boxes : path
        A table ``path,x,y,width,height[,label][,patient]``, its paths relative to `images`; of
        a volume, that of a slice, ``volume.nii.gz[12]``. Without a label it is "inside".
    masks : path
        A folder of images, not zero inside; that of ``x/1.png`` is ``x/1``, ``x/1_mask`` or
        ``x/1_mask_N``, of any format. Several are taken together. It is that or `boxes`.
    table : TableOptions
        How the tables of boxes and of patients are read.
    rules : Rules
        ``size`` of the patches; ``margin`` in pixels around a box; ``outside``, whether as many
        patches of the class "outside" are drawn, from a generator of ``seed`` and the path;
        ``least_tissue``, the least share of such a patch above Otsu's threshold; ``min_area``,
        below which a part of a mask is no box.
    axis
        How volumes are cut into slices; see `conocc.data.preprocessing.Preprocessing`.
    patient_regex
        See `conocc.data.patients.find_patients`, whose rules hold for the images. Where patients
        are not known, each image is a patient of its own, and its patches are of that.

    Raises
    ------
    ValueError
        If `out` is not empty, or the table or a parameter is wrong, or no image has a patch.
    """
    rules, out, folder = rules or Rules(), Path(out), Path(images)
    if (boxes is None) == (masks is None):
        raise ValueError("Patches are cut around boxes (--boxes) or the parts of masks (--masks).")
    if not folder.is_dir():
        raise ValueError(f"'{printable(folder)}' is not a folder of images.")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"'{printable(out)}' is not empty. Choose another --out, or delete it.")
    if boxes is not None:
        reserved = OUTSIDE if rules.outside else None
        listing, marks = marked_by_boxes(folder, Path(boxes), reserved=reserved, options=table)
    elif masks is not None:
        listing, marks = marked_by_masks(folder, Path(masks), axis=axis, min_area=rules.min_area)
    listing = with_slices(listing, StackOptions(axis), n_jobs=n_jobs, verbose=verbose)
    paths = [entry.path for entry in listing.entries]
    items = zip(paths, listing.fetch(range(len(paths))), strict=True)
    done: list[_Cut] = []
    taken: Counter[str] = Counter()
    with bar("Cutting patches", len(paths), verbose=verbose) as advance:
        for one in prefetch(partial(_cut, rules, marks), items, n_jobs=n_jobs):
            _write(out, one, taken)
            done.append(one)
            advance()
    errors = tuple((printable(one.path), reason) for one in done for reason in one.errors)
    if not any(one.written for one in done):
        why = (
            errors[0][1] if errors else "Nothing is marked, or all of it is smaller than asked for."
        )
        raise ValueError(f"No patch was cut from '{printable(folder)}'. {why}")
    patients = find_patients(
        paths,
        given=[entry.patient for entry in listing.entries],
        folder=folder,
        regex=patient_regex,
        persons=[one.person for one in done],
        deidentified=[one.path for one in done],
        options=table,
    )
    rows = [
        (path, label, patient, one.path, *square)
        for one, patient in zip(done, patients.names, strict=True)
        for path, label, square in one.written
    ]
    write_csv(out / "patches.csv", TABLE_COLUMNS, rows)
    if errors:
        write_csv(out / "errors.csv", ("path", "reason"), errors)
    counts = Counter(label for _, label, *_ in rows)
    return Made(dict(sorted(counts.items())), errors, (*listing.notes, patients.note))


def _write(out: Path, one: _Cut, taken: Counter[str]) -> None:
    """Write the patches of an image, and keep of them where they are and what they show."""
    volume, k = volume_and_slice(one.path)
    own = re.sub(r"[^\w.-]+", "_", stem(volume)) + ("" if k is None else f"_{k}")
    for patch, label, square in one.patches:
        name = f"{label}/{own}"
        path = write_patch(out / f"{name}_{taken[name]}", patch)
        taken[name] += 1
        one.written.append((path.relative_to(out).as_posix(), label, square))
    one.patches.clear()


def _cut(rules: Rules, marks: Marks, item: tuple[str, Fetch]) -> _Cut:
    path, fetch = item
    one = _Cut(path)
    try:
        blob = fetch()
        one.person = person_on(blob)
        one.path = deidentified_path(path, one.person)
        if isinstance(blob, bytes):
            image = decode(blob, printable(one.path))
        else:
            image = remarked(blob).pixels
        labelled = marks(path, image.shape[:2])
    except ValueError as error:
        one.errors.append(_named(one.path, error))
        return one
    for box, label in labelled:
        try:
            square = square_around(box, image.shape[:2], rules.margin)
        except ValueError as error:
            one.errors.append(_named(one.path, error))
        else:
            one.patches.append((cut_patch(image, square, rules.size), label, square))
    sides = [square.width for _, _, square in one.patches]
    if rules.outside and sides:
        # A generator of its own, on which no other image has a bearing.
        seed = sha256(f"{rules.seed}:{path}".encode("utf-8", "backslashreplace")).digest()
        drawn = squares_outside(
            tissue_of(image),
            sides,
            [box for box, _ in labelled],
            margin=rules.margin,
            least_tissue=rules.least_tissue,
            random_state=np.random.default_rng(int.from_bytes(seed)),
        )
        for outside, side in zip(drawn, sides, strict=True):
            if outside is not None:
                one.patches.append((cut_patch(image, outside, rules.size), OUTSIDE, outside))
            else:
                reason = f"no tissue outside its boxes has place for {side} pixels"
                one.errors.append(_named(one.path, reason))
    return one


def tissue_of(image: Pixels) -> npt.NDArray[np.bool_]:
    """Say which pixels of an image, (h, w) or (h, w, 3), are above Otsu's threshold; (h, w)."""
    from skimage.filters import threshold_otsu

    (grey,) = prepare(image, Preprocessing(size=None))
    tissue: npt.NDArray[np.bool_] = grey > threshold_otsu(grey)
    return tissue


def _named(path: str, reason: object) -> str:
    text = str(reason)
    return text if text.startswith("Cannot read") else f"'{printable(path)}': {text}."
