"""A cohort from its files: listed, patients found, hashed, split, and decoded or from the cache.

Letters: n images, c channels, h and w pixels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conocc.data.acquisition import CONTRAST, acquired
from conocc.data.cache import arranged, cache_folder, cache_key, in_memory, lookup, store
from conocc.data.classes import (
    dropped_classes,
    is_left_out,
    majority_classes,
    refuse_doubtful,
)
from conocc.data.cohort import SPLITS, Bools, Cohort, Images, Rows, Strings, content_of
from conocc.data.cohort_notes import cohort_notes
from conocc.data.cohort_spec import CohortSpec
from conocc.data.columns import TableOptions
from conocc.data.decoding import (
    FEW,
    Surveyed,
    Unreadable,
    UnreadableImagesError,
    decode_all,
    decode_one,
    deidentified_path,
    survey_all,
    usable_threads,
)
from conocc.data.features import check_features
from conocc.data.index import (
    ImageEntry,
    ImageIndex,
    count,
    facts_of,
    printable,
    read_file,
)
from conocc.data.layouts import list_cohort
from conocc.data.patients import EVERYWHERE, Patients, find_patients
from conocc.data.phantoms import PHANTOMS
from conocc.data.preprocessing import SMALLEST_SIZE, Preprocessing
from conocc.data.pseudonyms import hide, key_fingerprint, pseudonym
from conocc.data.splits import (
    FEWEST_PATIENTS,
    MOST_SHARING,
    USUAL_SHARE,
    joining_nobody,
    kept_for_calibration,
    split_by_patient,
)
from conocc.data.volumes import with_slices
from conocc.io.words import parted, percent


def load_cohort(
    where: str | os.PathLike[str],
    preprocessing: Preprocessing | None = None,
    *,
    majority: str | int | Sequence[str | int] | None = None,
    minority: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    patient_regex: str | None = None,
    table: TableOptions = TableOptions(),
    pseudonyms: bool = False,
    skip_unreadable: bool = False,
    split_seed: int = 0,
    test_size: float = 0.4,
    calibration_size: float | str | None = None,
    cache: bool | str | os.PathLike[str] = True,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Cohort:
    """Load a cohort from a folder, an archive or a manifest, or draw a phantom.

    `Cohort.notes` say what was decided and found.
    Validation images, and minority images of a given training split, are counted there and
    never opened.
    Files are hashed first and decoded after, unless the cache holds exactly these; a file that
    changes in between is an error.

    Parameters
    ----------
    where, preprocessing, majority, minority, exclude, patient_regex, table
        See `conocc.data.cohort_spec.CohortSpec`.
    pseudonyms, skip_unreadable, split_seed, test_size, calibration_size, cache
        Likewise.
    n_jobs : int, optional
        Threads that decode; all cores by default.
    verbose : int, default=0
        With 1, show progress.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `where`.
    UnreadableImagesError
        If images cannot be read, and are not to be skipped: all of them, after all were tried.
    ValueError
        If the majority or a patient is not known, shapes differ, or anything else is wrong with the
        data: what, where and which value.
    OSError
        If the disk of the cache is full.
    """
    spec = CohortSpec(
        os.fspath(where),
        preprocessing or Preprocessing(),
        _names(majority),
        _names(minority),
        _names(exclude),
        patient_regex,
        table,
        pseudonyms,
        skip_unreadable,
        split_seed,
        test_size,
        calibration_size,
        cache if isinstance(cache, bool) else os.fspath(cache),
    )
    listed, bad = _listed(spec, usable_threads(n_jobs), verbose)
    n = len(listed.found) + len(bad)
    while True:  # until all that is left can be read
        try:
            cohort = _decoded(listed, [row for row in listed.found if row not in bad])
            break
        except ValueError as error:
            bad |= getattr(error, "errors", {})
            if len(bad) == n or (bad and not skip_unreadable):
                raise UnreadableImagesError(bad, n) from None
            if not isinstance(error, UnreadableImagesError):
                if bad:  # without these it may not have come
                    error.args = (f"{error} {UnreadableImagesError(bad, n)}",)
                raise
    others, folder = _no_images(listed.index, spec.preprocessing), listed.index.folder
    folders = [one for one in others if folder and (folder / one[0]).is_dir()]
    bad |= dict(enumerate(folders, len(listed.index.entries)))
    if bad and not skip_unreadable:
        raise UnreadableImagesError(bad, n + len(folders))
    errors = tuple(bad[i] for i in sorted(bad))
    if errors:
        first = f"'{printable(errors[0][0])}'{' …' if len(errors) > 1 else ''}"
        left_out = f"{count(len(errors), 'image')} ({first}) that cannot be read left out."
        cohort = replace(cohort, notes=(*cohort.notes, left_out))
    files = tuple(one for one in others if one not in folders)
    return replace(cohort, unreadable=errors, no_images=files)


def _names(given: str | int | Sequence[str | int] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    return tuple(map(str, [given] if isinstance(given, str | int) else given))


def _no_images(index: ImageIndex, preprocessing: Preprocessing) -> list[tuple[str, str]]:
    """Give the path of each file that is of no format, and the reason."""
    fetches = (partial(read_file, index.folder or Path(), path) for path in index.unknown)
    items = zip(index.unknown, fetches, strict=True)
    tried = (decode_one(preprocessing, item, hashed=False) for item in items)
    return [(one.path, one.reason) for one in tried if isinstance(one, Unreadable)]


@dataclass(frozen=True)
class _Listed:
    """The images of a cohort that are of use, hashed, by their rows in the index."""

    spec: CohortSpec
    index: ImageIndex
    majority: frozenset[str]
    dropped: frozenset[str]
    found: dict[int, Surveyed]
    threads: int
    verbose: int


def _listed(
    spec: CohortSpec, threads: int, verbose: int
) -> tuple[_Listed, dict[int, tuple[str, str]]]:
    """List and hash the images; those that cannot be read are given by row, with the reason."""
    preprocessing = spec.preprocessing
    named = {*(spec.majority or ()), *parted(spec.majority or ())}
    index = list_cohort(spec.where, preprocessing.size, named, spec.table)
    check_features(index, preprocessing.features)
    wanted = majority_classes(index, spec.majority)
    dropped = dropped_classes(index, wanted, spec)
    refuse_doubtful(index, wanted, dropped, spec.minority or ())
    leave = partial(is_left_out, majority=wanted, dropped=dropped)
    cut = preprocessing.stack_options
    index = with_slices(index, cut, n_jobs=threads, verbose=verbose, leave=leave)
    rows = [i for i, entry in enumerate(index.entries) if not leave(entry)]
    if not rows:
        raise ValueError(f"'{printable(spec.where)}' holds no image to train on or to test.")
    found, errors = dict[int, Surveyed](), dict[int, tuple[str, str]]()
    surveyed = survey_all(index.fetch(rows), len(rows), n_jobs=threads, verbose=verbose)
    for row, one in zip(rows, surveyed, strict=True):
        if isinstance(one, Surveyed):
            found[row] = one
        else:  # nobody knows yet whom its path may name
            shown = index.entries[row].shown
            errors[row] = hide(shown) if spec.pseudonyms else shown, one.reason
    if not found:
        raise UnreadableImagesError(errors, len(errors))
    return _Listed(spec, index, wanted, dropped, found, threads, verbose), errors


def _decoded(listed: _Listed, rows: list[int]) -> Cohort:
    """Make a cohort of some rows of the index; errors are by row."""
    spec, index, wanted = listed.spec, listed.index, listed.majority
    entries = [index.entries[row] for row in rows]
    found = [listed.found[row] for row in rows]
    digest = np.array([one.digest for one in found], dtype=np.str_)
    path = np.array(_deidentified_paths(entries, found, all_hidden=spec.pseudonyms), dtype=np.str_)
    patients = _patients(spec, index, entries, found, path)
    other = np.array([entry.label not in wanted for entry in entries], dtype=bool)
    decoded, place, facts, remarks, unkept = _pixels(_Source(listed, rows, path, digest))
    content = content_of(np.unique(digest), decoded, facts)[place]
    blank = (facts[place, CONTRAST] == 0) if facts.size else None
    side, split_note = _split(spec, entries, patients, other, content, blank)
    # Sides and classes lie one after the other, so that each is a view of the images.
    rank = np.array([SPLITS.index(one) for one in side.tolist()])
    order = np.lexsort((other, rank))  # stable: within a class the index's order stays
    images, facts = arranged(decoded, place[order]), facts[place[order]]
    among = patients.among or os.path.realpath(spec.where)
    cohort = Cohort(
        name=printable(index.name),
        images=images,
        minority=other[order],
        patient=np.array(patients.names, dtype=np.str_)[order],
        split=side[order],
        path=path[order],
        digest=digest[order],
        label=np.array([entry.label for entry in entries], dtype=np.str_)[order],
        preprocessing=_as_found(spec.preprocessing, images, index.features),
        patients_known=patients.known,
        notes=(),
        # A hash, since a path may tell of people.
        namespace="" if among == EVERYWHERE else sha256(os.fsencode(among)).hexdigest()[:16],
        key=patients.key,
        acquisition=facts if facts.size else None,
        facts=facts_of([entries[i] for i in order]),
    )
    notes = cohort_notes(cohort, index, wanted, listed.dropped, patients.note, split_note, remarks)
    return replace(cohort, notes=(*notes, *unkept))


def _deidentified_paths(
    entries: Sequence[ImageEntry], found: Sequence[Surveyed], *, all_hidden: bool
) -> list[str]:
    """Give each path as it may be shown.

    Raises
    ------
    ValueError
        If a class is called by a patient, for which no pseudonym may stand: users name classes.
    """
    pairs = [(entry, one.person) for entry, one in zip(entries, found, strict=True)]
    if any(person and person.is_named_by(entry.label) for entry, person in pairs):
        raise ValueError(
            "The name of a class repeats what its DICOM files say of a patient. Rename its "
            "folder, or list the images in a manifest."
        )
    return [
        hide(entry.shown) if all_hidden else deidentified_path(entry.shown, person)
        for entry, person in pairs
    ]


def _patients(
    spec: CohortSpec,
    index: ImageIndex,
    entries: Sequence[ImageEntry],
    found: Sequence[Surveyed],
    path: Strings,
) -> Patients:
    patients = find_patients(
        [entry.shown for entry in entries],
        given=[entry.patient for entry in entries],
        folder=index.folder,
        regex=spec.patient_regex,
        persons=[one.person for one in found],
        deidentified=path.tolist(),
        options=spec.table,
    )
    if spec.pseudonyms and patients.known:
        names = tuple(map(pseudonym, patients.names))
        patients = replace(patients, names=names, key=key_fingerprint())
    return patients


def _split(
    spec: CohortSpec,
    entries: Sequence[ImageEntry],
    patients: Patients,
    minority: Bools,
    content: Strings,
    blank: Bools | None,
) -> tuple[Strings, str]:
    """Give the side of each image, and a sentence on where that is from."""
    seed, test_size, share = spec.split_seed, spec.test_size, spec.calibration_size
    names, each = patients.names, patients.each
    if entries[0].split is None:
        split = split_by_patient(
            names, minority, content, seed=seed, test_size=test_size, blank=blank
        )
        note = (
            f"The split was made here: {percent(1 - test_size)} to {percent(test_size)} of the "
            f"majority images, by {each}, with split_seed={seed}."
        )
        if alone := int(joining_nobody(names, content, blank).sum()):
            note += (
                f" {count(alone, 'image')} of several patients without contrast, or of more than "
                f"{MOST_SHARING}, make nobody one patient with another."
            )
    else:
        split = np.array([entry.split for entry in entries], dtype=np.str_)
        note = "The split is the cohort's own."
    if share is not None:
        split = kept_for_calibration(split, names, content, seed=seed, share=share, blank=blank)
        kept = percent(USUAL_SHARE if share == "auto" else float(share))
        note += (
            f" Of the training {each}s, {kept} are kept for calibration, with split_seed={seed}."
            if "calibration" in split
            else f" No training {each} is kept for calibration: {kept} of them are fewer than "
            f"the {FEWEST_PATIENTS} that a promise takes."
        )
    return split, note


class _Source(NamedTuple):
    """The images of a cohort before they are decoded: n rows of those that were listed."""

    listed: _Listed
    rows: list[int]
    path: Strings
    digest: Strings


def _pixels(
    source: _Source,
) -> tuple[Images, Rows, np.ndarray, Counter[str], tuple[str, ...]]:
    """Each image once, from the cache or decoded, in the order of their digests.

    Also the place of each row among them, their facts, how many rows have each remark, and notes.
    """
    unique, first, place = np.unique(source.digest, return_index=True, return_inverse=True)
    n = len(unique)
    listed, spec = source.listed, source.listed.spec
    key = cache_key(unique.tolist(), spec.preprocessing.to_dict())
    seen: dict[str, Any] = {"remarks": {}, "acquisition": [()] * n}

    def placed() -> Iterator[tuple[int, Images]]:
        ascending = np.argsort(first)
        rows = first[ascending]
        decoded = decode_all(
            source.path[rows].tolist(),
            source.digest[rows].tolist(),
            listed.index.fetch([source.rows[i] for i in rows]),
            spec.preprocessing,
            n_jobs=listed.threads,
            verbose=listed.verbose,
        )
        try:
            places = iter(ascending.tolist())
            while some := list(islice(decoded, FEW)):
                facts = acquired([one.file for one in some], [one.image for one in some])
                for one, fact, i in zip(some, facts, places, strict=False):
                    for remark in one.remarks:
                        seen["remarks"].setdefault(remark, []).append(i)
                    seen["acquisition"][i] = fact
                    yield i, one.image
        except UnreadableImagesError as error:
            bad = {}
            for k, (path, reason) in error.errors.items():
                for i in np.flatnonzero(place == ascending[k]).tolist():  # its twins are bad too
                    own = str(source.path[i])
                    said = reason.replace(f"'{printable(path)}'", f"'{printable(own)}'")
                    bad[source.rows[i]] = own, said
            raise UnreadableImagesError(bad, len(source.rows)) from None

    # A phantom is drawn anew each time, so that nothing is gained by keeping it.
    folder, notes = cache_folder(spec.where not in PHANTOMS and spec.cache)
    kept = lookup(folder, key, n) if folder else None
    if kept is None and folder and not os.access(folder, os.W_OK):
        notes = (f"Decoded images are not kept: '{folder}' may not be written.",)
        folder = None
    if kept is None and folder:
        kept = store(folder, key, n, placed(), lambda: seen)
    images, seen = kept or (in_memory(n, placed()), seen)
    counts = {text: int(np.isin(place, at).sum()) for text, at in seen["remarks"].items()}
    return images, place, np.array(seen["acquisition"]), Counter(counts), notes


def _as_found(
    preprocessing: Preprocessing, images: Images, features: tuple[str, ...]
) -> Preprocessing:
    """Write into the reading what size the images, or what names the features turned out to have.

    New images are then brought to it, instead of being refused for a size of their own.
    """
    if images.ndim == 2:
        return replace(preprocessing, features=features or preprocessing.features)
    h, w = images.shape[2:]
    if min(h, w) < SMALLEST_SIZE:
        raise ValueError(
            f"Images have {w}x{h} pixels, where at least {SMALLEST_SIZE} a side are needed. "
            "Pass a size to bring them to, such as size=32 (--size 32)."
        )
    return replace(preprocessing, size=h if h == w else preprocessing.size)
