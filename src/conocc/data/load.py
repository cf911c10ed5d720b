"""A cohort from its files: listed, patients found, hashed, split, and decoded or from the cache.

Letters: n images, c channels, h and w pixels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from conocc.data.cache import cache_folder, cache_key, in_memory, lookup, store
from conocc.data.cohort import SPLITS, Cohort, Images, Rows, on_several
from conocc.data.decoding import Surveyed, decode_all, deidentified_path, survey_all, threads
from conocc.data.index import ImageEntry, ImageIndex, count, printable
from conocc.data.layouts import list_cohort
from conocc.data.patients import find_patients
from conocc.data.phantoms import PHANTOMS
from conocc.data.preprocessing import SMALLEST_SIZE, Preprocessing
from conocc.data.pseudonyms import hide, pseudonym
from conocc.data.splits import kept_for_calibration, split_by_patient
from conocc.data.volumes import with_slices


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
        The layouts are those of `conocc.data.layouts`; the phantoms those of `conocc.data.phantoms`.
    size : int, optional
        Side in pixels that images are resized to. A phantom's default is its natural size;
        files then must all have one shape.
    colour : {"grey", "rgb"}
    fit : {"stretch", "pad", "crop"}
    voi : {"none", "file", "CENTER,WIDTH"}
    axis : {"axial", "coronal", "sagittal"}
        How images become square, the window of DICOM, and how volumes are cut into images; see
        `conocc.data.preprocessing.Preprocessing`.
    scaled : bool, default=True
        Whether JPEG files several times as large as `size` are decoded at a fraction of theirs.
    majority : str or sequence of str, optional
        The class or classes to learn, where the layout does not know it by name.
        It is never guessed from counts.
    patient_regex : str, optional
        Searched in each path; its group named 'patient', or its first, is the patient.
    split_seed, test_size
        Of the split by patient that is made where the layout gives none
        (`conocc.data.splits.split_by_patient` has the rule).
    calibration_size : float in (0, 1), optional
        Share of the training patients that are kept out of training, for a threshold; drawn
        with `split_seed` (`conocc.data.splits.kept_for_calibration` has the rule).
    pseudonyms : bool, default=False
        Whether pseudonyms stand for all patients and for all names of files and folders, and not
        only for those that DICOM tells (`conocc.data.pseudonyms`). Classes keep their names.
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
    preprocessing = Preprocessing(
        size=size, colour=colour, fit=fit, voi=voi, axis=axis, scaled=scaled
    )
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
        raise ValueError(f"'{printable(where)}' holds no image to train on or to test.")
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
        listing, rows, paths, digest, order, preprocessing, folder, jobs=workers, verbose=verbose
    )
    cohort = Cohort(
        name=printable(listing.name),
        images=images,
        minority=minority[order],
        patient=np.array(patients.names, dtype=np.str_)[order],
        split=split[order],
        path=np.array(paths, dtype=np.str_)[order],
        digest=np.array(digest, dtype=np.str_)[order],
        label=np.array([entry.label for entry in entries], dtype=np.str_)[order],
        preprocessing=_settled(preprocessing, images),
        patients_known=patients.known,
        notes=(),
    )
    notes = (
        f"'{printable(listing.name)}' is laid out as {listing.layout}.",
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
    listing: ImageIndex, majority: str | int | Sequence[str | int] | None
) -> frozenset[str]:
    """Return the labels that are the majority: those asked for, or those that the layout knows.

    Raises
    ------
    ValueError
        If neither names one, or a name is none of the classes: all classes are listed.
    """
    found = Counter(entry.label for entry in listing.entries)
    classes = ", ".join(
        f"{printable(name)} ({count(found[name], 'image')})" for name in sorted(found)
    )
    if majority is None:
        if listing.majority and listing.majority <= set(found):
            return listing.majority
        example = printable(min(found))
        raise ValueError(
            f"Which class of '{printable(listing.name)}' is the majority, the one to train on, is "
            f"not known. Its classes are {classes}. Name one, or several that make it up "
            f"together: for instance majority={example!r} (--majority {example})."
        )
    asked = [majority] if isinstance(majority, str | int) else list(majority)
    names = frozenset(str(name) for name in asked)
    unknown = sorted(names - set(found))
    if unknown or not names:
        raise ValueError(
            f"The 'majority' parameter must name classes of '{printable(listing.name)}', which are "
            f"{classes}. Got {unknown[0] if unknown else majority!r} instead."
        )
    return names


def _told_paths(
    entries: Sequence[ImageEntry], surveyed: Sequence[Surveyed], *, all_hidden: bool
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
    return [
        deidentified_path(entry.path, one.person)
        for entry, one in zip(entries, surveyed, strict=True)
    ]


def _is_left_out(entry: ImageEntry, majority: frozenset[str]) -> bool:
    """Say whether a given split has no use for an image; it is then not even opened."""
    return entry.split == "unused" or (entry.split == "train" and entry.label not in majority)


def _pixels(
    listing: ImageIndex,
    rows: list[int],
    paths: list[str],
    digest: list[str],
    order: Rows,
    preprocessing: Preprocessing,
    folder: Path | None,
    *,
    jobs: int,
    verbose: int,
) -> tuple[Images, int]:
    """Images of `rows` in `order`, mapped from the cache or decoded, and how many had colour."""
    n = len(rows)
    key = cache_key([digest[i] for i in order], preprocessing.to_dict())
    if folder is not None and (kept := lookup(folder, key, n)) is not None:
        images, facts = kept
        return images, int(facts["coloured"])

    place = np.argsort(order).tolist()
    coloured = 0

    def placed() -> Iterator[tuple[int, Images]]:
        nonlocal coloured
        decoded = decode_all(
            paths, digest, listing.fetch(rows), preprocessing, jobs=jobs, verbose=verbose
        )
        for i, one in enumerate(decoded):
            coloured += one.coloured
            yield place[i], one.image

    if folder is None:
        images = in_memory(n, placed())
    else:
        images = store(folder, key, n, placed(), lambda: {"coloured": coloured})
    return images, coloured


def _settled(preprocessing: Preprocessing, images: Images) -> Preprocessing:
    """Write into the reading what size the images turned out to have.

    New images are then brought to it, instead of being refused for a size of their own.
    """
    h, w = images.shape[2:]
    if min(h, w) < SMALLEST_SIZE:
        raise ValueError(
            f"Images have {w}x{h} pixels, where at least {SMALLEST_SIZE} a side are needed. "
            "Pass a size to bring them to, such as size=32 (--size 32)."
        )
    return (
        replace(preprocessing, size=h) if preprocessing.size is None and h == w else preprocessing
    )


# --- notes ---------------------------------------------------------------------------------------


def _classes(cohort: Cohort) -> str:
    def named(minority: bool) -> str:
        found = Counter(cohort.label[cohort.minority == minority].tolist())
        return ", ".join(
            f"{printable(name)} ({count(number, 'image')})"
            for name, number in sorted(found.items())
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


def _left_out(listing: ImageIndex, majority: frozenset[str]) -> list[str]:
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
        f"('{printable(cohort.path[chosen][0])}' …)."
    ]
    contradicting = on_several(cohort.digest, cohort.minority)
    if contradicting:
        said.append(
            f"{count(len(contradicting), 'image')} byte-identical in the majority and in the "
            f"minority class ('{printable(cohort.path[cohort.digest == contradicting[0]][0])}' …)."
        )
    return said
