"""`Cohort`: images with class, patient and side of the split; and how to load one.

Letters: n images, c channels, h and w pixels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from conocc.cache import cache_folder, cache_key, find, in_memory, keep
from conocc.decoding import Surveyed, decode_all, pixels, survey_all, threads, told_path
from conocc.layouts import list_cohort
from conocc.listing import Entry, Listing, count, shown
from conocc.patients import find_patients
from conocc.phantoms import PHANTOMS
from conocc.pseudonyms import hide, pseudonym
from conocc.readers import SMALLEST_SIZE, Reading
from conocc.splits import kept_for_calibration, split_by_patient
from conocc.volumes import with_slices

if TYPE_CHECKING:
    import pandas as pd

Images = npt.NDArray[np.float32]
Strings = npt.NDArray[np.str_]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

__all__ = ["SPLITS", "Cohort", "Leaks", "load_cohort"]

# The sides of the split, in the order in which a cohort's images lie.
SPLITS = ("train", "calibration", "test", "unused")
# The sides that must know nothing of the minority class.
MAJORITY_ONLY = ("train", "calibration")


# The cohort


@dataclass(frozen=True)
class Leaks:
    """What is on more than one side of the split: patients, and byte-identical images.

    Attributes
    ----------
    patients : tuple of str
    images : tuple of tuple of str
        The paths of each set of byte-identical images.
    """

    patients: tuple[str, ...]
    images: tuple[tuple[str, ...], ...]

    def __bool__(self) -> bool:
        return bool(self.patients or self.images)

    def sentences(self) -> tuple[str, ...]:
        """Say it to people: one sentence a kind, none if there is none."""
        said = []
        if self.patients:
            said.append(
                f"LEAK: {count(len(self.patients), 'patient')} on more than one side of the "
                f"split ({shown(self.patients[0])!r} …)."
            )
        if self.images:
            first = " = ".join(f"'{shown(path)}'" for path in self.images[0])
            said.append(
                f"LEAK: {count(len(self.images), 'image')} byte-identical on more than one side "
                f"of the split ({first} …)."
            )
        return tuple(said)


@dataclass(frozen=True, eq=False, repr=False)
class Cohort:
    """A data set, frozen: arrays of equal length, one row an image.

    A loaded cohort is ordered by split, class and path, so that each side of the split is one
    run of rows, and `where` a view that reads nothing from disk.

    Parameters
    ----------
    name : str
        Of a loaded cohort, as it can be printed on one line.
    images : ndarray of float32, shape (n, c, h, w)
        Possibly a read-only memory map.
    minority : ndarray of bool, shape (n,)
    patient : ndarray of str, shape (n,)
        Where patients are not known, each image is its own, named by its path.
    split : ndarray of str, shape (n,)
        One of `SPLITS`. Training and calibration images are of the majority class.
    path : ndarray of str, shape (n,)
        Relative to the cohort's folder, with forward slashes. Where it repeats what a DICOM file
        says of its patient, pseudonyms stand for that.
    digest : ndarray of str, shape (n,)
        SHA-256, in hexadecimal, of the file's bytes.
    label : ndarray of str, shape (n,)
        The class as the cohort names it.
    reading : Reading
        How the files were read.
    patients_known : bool
    notes : tuple of str
        What was decided and found: sentences for people.

    Raises
    ------
    ValueError
        If the arrays differ in length or have the wrong type or shape, a split is unknown, or a
        minority image is in training or calibration.

    Examples
    --------
    >>> cohort = Cohort(
    ...     name="two",
    ...     images=np.zeros((2, 1, 16, 16), np.float32),
    ...     minority=np.array([False, True]),
    ...     patient=np.array(["a", "b"]),
    ...     split=np.array(["train", "test"]),
    ...     path=np.array(["a.png", "b.png"]),
    ...     digest=np.array(["00", "01"]),
    ...     label=np.array(["good", "bad"]),
    ...     reading=Reading(size=16),
    ...     patients_known=True,
    ...     notes=(),
    ... )
    >>> len(cohort), len(cohort.where(split="test"))
    (2, 1)
    """

    name: str
    images: Images
    minority: Bools
    patient: Strings
    split: Strings
    path: Strings
    digest: Strings
    label: Strings
    reading: Reading
    patients_known: bool
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        images = np.asanyarray(self.images)
        if images.ndim != 4 or images.dtype != np.float32:
            raise ValueError(
                "The 'images' of a cohort must be float32 of shape (n, c, h, w). Got "
                f"{images.dtype} of shape {images.shape} instead."
            )
        for name, kind in COLUMNS.items():
            column = np.asarray(getattr(self, name))
            if column.shape != (len(images),):
                raise ValueError(
                    f"The '{name}' of a cohort must have one value for each of "
                    f"{count(len(images), 'image')}. Got shape {column.shape} instead."
                )
            if column.dtype.kind != kind:
                raise ValueError(
                    f"The '{name}' of a cohort must be {'bool' if kind == 'b' else 'str'}. "
                    f"Got {column.dtype} instead."
                )
            self._freeze(name, column)
        self._freeze("images", images)
        object.__setattr__(self, "notes", tuple(self.notes))
        unknown = sorted(set(self.split.tolist()) - set(SPLITS))
        if unknown:
            raise ValueError(
                f"The 'split' of a cohort must be one of {', '.join(SPLITS)}. "
                f"Got {unknown[0]!r} instead."
            )
        forbidden = np.flatnonzero(self.minority & np.isin(self.split, MAJORITY_ONLY))
        if forbidden.size:
            i = forbidden[0]
            raise ValueError(
                f"Minority images must not be in {self.split[i]}: '{shown(self.path[i])}' is "
                f"({forbidden.size} of {count(len(self), 'image')})."
            )

    def _freeze(self, name: str, array: np.ndarray[Any, Any]) -> None:
        # A view, so that the caller's own array stays as writable as it was.
        view = array.view()
        view.flags.writeable = False
        object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        # Patients and pixels do not belong into notebooks and tracebacks.
        size = pixels(self.images.shape[1:])
        return f"<Cohort {self.name!r}: {count(len(self), 'image')} of {size}>"

    def rows(self, *, split: str | None = None, minority: bool | None = None) -> Rows:
        """Positions of the images on one side of the split, of one class, or both; ascending."""
        if split is not None and split not in SPLITS:
            raise ValueError(
                f"The 'split' parameter must be one of {', '.join(SPLITS)}. Got {split!r} instead."
            )
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            chosen &= self.split == split
        if minority is not None:
            chosen &= self.minority == minority
        return np.flatnonzero(chosen)

    def take(self, rows: npt.ArrayLike) -> Cohort:
        """Return the cohort of these images, in this order, with the same notes.

        A run of consecutive rows is a view; other rows are copied into memory.
        """
        rows = np.asarray(rows)
        if rows.dtype.kind == "b" and rows.shape == (len(self),):
            rows = np.flatnonzero(rows)
        usable = not rows.size or (
            rows.ndim == 1
            and rows.dtype.kind in "iu"
            and rows.min() >= 0
            and rows.max() < len(self)
        )
        if not usable:
            raise ValueError(
                f"The 'rows' parameter must be positions from 0 to {len(self) - 1}, or one truth "
                f"value for each image. Got {rows.dtype} of shape {rows.shape} instead."
            )
        chosen: Any = rows.astype(np.intp)
        if (np.diff(chosen) == 1).all():
            chosen = slice(int(chosen[0]), int(chosen[-1]) + 1) if chosen.size else slice(0, 0)
        columns = {name: getattr(self, name)[chosen] for name in ("images", *COLUMNS)}
        return replace(self, **columns)

    def where(self, *, split: str | None = None, minority: bool | None = None) -> Cohort:
        """Return the cohort of the images on one side of the split, of one class, or both."""
        return self.take(self.rows(split=split, minority=minority))

    def table(self) -> pd.DataFrame:
        """One row an image: path, digest, patient, label, minority, split."""
        import pandas as pd

        names = ("path", "digest", "patient", "label", "minority", "split")
        return pd.DataFrame({name: getattr(self, name) for name in names})

    def counts(self) -> pd.DataFrame:
        """Images and patients by split and class: split, class, images, patients."""
        import pandas as pd

        rows = []
        for split in SPLITS:
            for minority in (False, True):
                chosen = self.rows(split=split, minority=minority)
                if chosen.size:
                    kind = "minority" if minority else "majority"
                    patients = len(np.unique(self.patient[chosen]))
                    rows.append((split, kind, chosen.size, patients))
        return pd.DataFrame(rows, columns=["split", "class", "images", "patients"])

    def leaks(self) -> Leaks:
        """Find patients and byte-identical images on more than one side; "unused" is no side."""
        used = np.flatnonzero(self.split != "unused")
        on = {
            column: _on_several(getattr(self, column)[used], self.split[used])
            for column in ("patient", "digest")
        }
        paths: dict[str, list[str]] = {digest: [] for digest in on["digest"]}
        for i in used:
            if self.digest[i] in paths:
                paths[self.digest[i]].append(str(self.path[i]))
        return Leaks(tuple(on["patient"]), tuple(tuple(same) for same in paths.values()))


# The columns beside the images, and the kind of their type.
COLUMNS = {
    "minority": "b",
    "patient": "U",
    "split": "U",
    "path": "U",
    "digest": "U",
    "label": "U",
}


def _on_several(key: Strings, side_of: Strings | Bools) -> list[str]:
    """Return the keys that occur on more than one side, sorted."""
    sides: dict[str, set[Any]] = {}
    for name, side in zip(key.tolist(), side_of.tolist(), strict=True):
        sides.setdefault(name, set()).add(side)
    return sorted(name for name, found in sides.items() if len(found) > 1)


# Loading


def load_cohort(
    where: str | os.PathLike[str],
    *,
    size: int | None = None,
    colour: str = "grey",
    fit: str = "stretch",
    voi: str = "none",
    axis: str = "axial",
    scaled: bool = True,
    majority: str | int | Sequence[str | int] | None = None,
    patient_regex: str | None = None,
    split_seed: int = 0,
    test_size: float = 0.4,
    calibration_size: float | None = None,
    pseudonyms: bool = False,
    cache: bool | str | os.PathLike[str] = True,
    jobs: int | None = None,
    verbose: int = 0,
) -> Cohort:
    """Load a cohort from a folder, an archive or a manifest, or draw a phantom.

    What was decided and found is told in `Cohort.notes`.
    Validation images, and minority images of a given training split, are counted there and
    never opened.
    Files are hashed first and decoded after, unless the cache holds exactly these; a file that
    changes in between is an error.

    Parameters
    ----------
    where : path or str
        The layouts are those of `conocc.layouts`; the phantoms those of `conocc.phantoms`.
    size : int, optional
        Side in pixels that images are resized to. A phantom's default is its natural size;
        files then must all have one shape.
    colour : {"grey", "rgb"}
    fit : {"stretch", "pad", "crop"}
    voi : {"none", "file", "CENTER,WIDTH"}
    axis : {"axial", "coronal", "sagittal"}
        How images become square, the window of DICOM, and how volumes are cut into images; see
        `conocc.readers.Reading`.
    scaled : bool, default=True
        Whether JPEG files several times as large as `size` are decoded at a fraction of theirs.
    majority : str or sequence of str, optional
        The class or classes to learn, where the layout does not know it by name.
        It is never guessed from counts.
    patient_regex : str, optional
        Searched in each path; its group named 'patient', or its first, is the patient.
    split_seed, test_size
        Of the split by patient that is made where the layout gives none
        (`conocc.splits.split_by_patient` has the rule).
    calibration_size : float in (0, 1), optional
        Share of the training patients that are kept out of training, for a threshold; drawn
        with `split_seed` (`conocc.splits.kept_for_calibration` has the rule).
    pseudonyms : bool, default=False
        Whether pseudonyms stand for all patients and for all names of files and folders, and not
        only for those that DICOM tells (`conocc.pseudonyms`). Classes keep their names.
    cache : bool or path, default=True
        Where decoded images are kept: the user's cache folder, another one, or nowhere.
    jobs : int, optional
        Threads that decode; all cores by default.
    verbose : int, default=0
        With 1, show progress.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `where`.
    ValueError
        If the majority or a patient is not known, an image cannot be read, shapes differ, or
        anything else is wrong with the data: what, where and which value.
    OSError
        If the cache cannot be written.
    """
    reading = Reading(size=size, colour=colour, fit=fit, voi=voi, axis=axis, scaled=scaled)
    listing = list_cohort(os.fspath(where), size)
    wanted = majority_classes(listing, majority)
    workers = threads(jobs)
    listing = with_slices(
        listing,
        axis,
        jobs=workers,
        verbose=verbose,
        leave=lambda entry: _is_left_out(entry, wanted),
    )
    rows = [i for i, entry in enumerate(listing.entries) if not _is_left_out(entry, wanted)]
    if not rows:
        raise ValueError(f"'{shown(where)}' holds no image to train on or to test.")
    entries = [listing.entries[row] for row in rows]
    surveyed = survey_all(listing.fetch(rows), len(rows), jobs=workers, verbose=verbose)
    digest = [one.digest for one in surveyed]
    paths = _told_paths(entries, surveyed, all_hidden=pseudonyms)
    patients = find_patients(
        [entry.path for entry in entries],
        given=[entry.patient for entry in entries],
        folder=listing.folder,
        regex=patient_regex,
        persons=[one.person for one in surveyed],
        called=paths,
    )
    if pseudonyms and patients.known:
        patients = replace(patients, names=tuple(map(pseudonym, patients.names)))
    minority = np.array([entry.label not in wanted for entry in entries], dtype=bool)
    if entries[0].split is None:
        split = split_by_patient(
            patients.names, minority, digest, seed=split_seed, test_size=test_size
        )
        split_note = (
            f"The split was made here: {1 - test_size:.0%} to {test_size:.0%} of the majority "
            f"images, by patient, with split_seed={split_seed}."
        )
    else:
        split = np.array([entry.split for entry in entries], dtype=np.str_)
        split_note = "The split is the cohort's own."
    if calibration_size is not None:
        split = kept_for_calibration(
            split, patients.names, digest, seed=split_seed, share=calibration_size
        )
        split_note += (
            f" Of the training patients, {calibration_size:.4g} are kept for calibration, with "
            f"split_seed={split_seed}."
        )

    # Sides and classes lie one after the other, so that each is a view of the memory map.
    rank = np.array([SPLITS.index(side) for side in split.tolist()])
    order = np.lexsort((minority, rank))  # stable: within a class the listing's order stays
    # A phantom is drawn anew each time, so that nothing is gained by keeping it.
    folder = None if str(where) in PHANTOMS else cache_folder(cache)
    images, coloured = _pixels(
        listing, rows, paths, digest, order, reading, folder, jobs=workers, verbose=verbose
    )
    cohort = Cohort(
        name=shown(listing.name),
        images=images,
        minority=minority[order],
        patient=np.array(patients.names, dtype=np.str_)[order],
        split=split[order],
        path=np.array(paths, dtype=np.str_)[order],
        digest=np.array(digest, dtype=np.str_)[order],
        label=np.array([entry.label for entry in entries], dtype=np.str_)[order],
        reading=_settled(reading, images),
        patients_known=patients.known,
        notes=(),
    )
    notes = (
        f"'{shown(listing.name)}' is laid out as {listing.layout}.",
        _classes(cohort),
        patients.note,
        split_note,
        *_sides(cohort),
        *_left_out(listing, wanted),
        *listing.notes,
        *_colour(coloured),
        *_duplicates(cohort),
        *cohort.leaks().sentences(),
    )
    return replace(cohort, notes=notes)


def majority_classes(
    listing: Listing, majority: str | int | Sequence[str | int] | None
) -> frozenset[str]:
    """Return the labels that are the majority: those asked for, or those that the layout knows.

    Raises
    ------
    ValueError
        If neither names one, or a name is none of the classes: all classes are listed.
    """
    found = Counter(entry.label for entry in listing.entries)
    classes = ", ".join(f"{shown(name)} ({count(found[name], 'image')})" for name in sorted(found))
    if majority is None:
        if listing.majority and listing.majority <= set(found):
            return listing.majority
        example = shown(min(found))
        raise ValueError(
            f"Which class of '{shown(listing.name)}' is the majority, the one to train on, is "
            f"not known. Its classes are {classes}. Name one, or several that make it up "
            f"together: for instance majority={example!r} (--majority {example})."
        )
    asked = [majority] if isinstance(majority, str | int) else list(majority)
    names = frozenset(str(name) for name in asked)
    unknown = sorted(names - set(found))
    if unknown or not names:
        raise ValueError(
            f"The 'majority' parameter must name classes of '{shown(listing.name)}', which are "
            f"{classes}. Got {unknown[0] if unknown else majority!r} instead."
        )
    return names


def _told_paths(
    entries: Sequence[Entry], surveyed: Sequence[Surveyed], *, all_hidden: bool
) -> list[str]:
    """Give each path as it may be told.

    Raises
    ------
    ValueError
        If a class is called by a patient, for which no pseudonym may stand: users name classes.
    """
    for entry, one in zip(entries, surveyed, strict=True):
        if one.person and one.person.is_named_by(entry.label):
            raise ValueError(
                "The name of a class repeats what its DICOM files say of a patient. Rename its "
                "folder, or list the images in a manifest."
            )
    if all_hidden:
        return [hide(entry.path) for entry in entries]
    return [told_path(entry.path, one.person) for entry, one in zip(entries, surveyed, strict=True)]


def _is_left_out(entry: Entry, majority: frozenset[str]) -> bool:
    """Say whether a given split has no use for an image; it is then not even opened."""
    return entry.split == "unused" or (entry.split == "train" and entry.label not in majority)


def _pixels(
    listing: Listing,
    rows: list[int],
    paths: list[str],
    digest: list[str],
    order: Rows,
    reading: Reading,
    folder: Path | None,
    *,
    jobs: int,
    verbose: int,
) -> tuple[Images, int]:
    """Images of `rows` in `order`, mapped from the cache or decoded, and how many had colour."""
    n = len(rows)
    key = cache_key([digest[i] for i in order], reading.to_dict())
    if folder is not None and (kept := find(folder, key, n)) is not None:
        images, facts = kept
        return images, int(facts["coloured"])

    place = np.argsort(order).tolist()
    coloured = 0

    def placed() -> Iterator[tuple[int, Images]]:
        nonlocal coloured
        decoded = decode_all(
            paths, digest, listing.fetch(rows), reading, jobs=jobs, verbose=verbose
        )
        for i, one in enumerate(decoded):
            coloured += one.coloured
            yield place[i], one.image

    if folder is None:
        images = in_memory(n, placed())
    else:
        images = keep(folder, key, n, placed(), lambda: {"coloured": coloured})
    return images, coloured


def _settled(reading: Reading, images: Images) -> Reading:
    """Write into the reading what size the images turned out to have.

    New images are then brought to it, instead of being refused for a size of their own.
    """
    h, w = images.shape[2:]
    if min(h, w) < SMALLEST_SIZE:
        raise ValueError(
            f"Images have {w}x{h} pixels, where at least {SMALLEST_SIZE} a side are needed. "
            "Pass a size to bring them to, such as size=32 (--size 32)."
        )
    return replace(reading, size=h) if reading.size is None and h == w else reading


# Notes


def _classes(cohort: Cohort) -> str:
    def named(minority: bool) -> str:
        found = Counter(cohort.label[cohort.minority == minority].tolist())
        return ", ".join(
            f"{shown(name)} ({count(number, 'image')})" for name, number in sorted(found.items())
        )

    if not cohort.minority.any():
        return f"Majority class: {named(False)}. There is no minority image."
    return f"Majority class: {named(False)}. Minority class: {named(True)}."


def _sides(cohort: Cohort) -> list[str]:
    said = []
    for split in SPLITS[:-1]:
        sizes = []
        for kind, minority in (("majority", False), ("minority", True)):
            rows = cohort.rows(split=split, minority=minority)
            if rows.size:
                size = count(rows.size, f"{kind} image")
                if cohort.patients_known:
                    size += f" of {count(len(np.unique(cohort.patient[rows])), 'patient')}"
                sizes.append(size)
        if sizes:
            said.append(f"{split}: {', '.join(sizes)}.")
        elif split in ("train", "test"):
            said.append(f"{split}: no image.")
    if (unused := cohort.rows(split="unused")).size:
        said.append(
            f"unused: {count(unused.size, 'minority image')} of training patients, which the "
            "test must not see."
        )
    return said


def _left_out(listing: Listing, majority: frozenset[str]) -> list[str]:
    left_out = [entry for entry in listing.entries if _is_left_out(entry, majority)]
    train = sum(entry.split == "train" for entry in left_out)
    said = []
    if train:
        said.append(f"{count(train, 'minority image')} of the training split left unused.")
    if train < len(left_out):
        said.append(f"{count(len(left_out) - train, 'validation image')} left unused.")
    return said


def _colour(coloured: int) -> list[str]:
    if not coloured:
        return []
    return [
        f"{count(coloured, 'image')} in colour read as grey; colour='rgb' (--colour rgb) keeps it."
    ]


def _duplicates(cohort: Cohort) -> list[str]:
    repeated = {digest for digest, times in Counter(cohort.digest.tolist()).items() if times > 1}
    if not repeated:
        return []
    chosen = np.isin(cohort.digest, sorted(repeated))
    said = [
        f"{count(int(chosen.sum()), 'image')} have a byte-identical twin "
        f"('{shown(cohort.path[chosen][0])}' …)."
    ]
    contradicting = _on_several(cohort.digest, cohort.minority)
    if contradicting:
        said.append(
            f"{count(len(contradicting), 'image')} byte-identical in the majority and in the "
            f"minority class ('{shown(cohort.path[cohort.digest == contradicting[0]][0])}' …)."
        )
    return said
