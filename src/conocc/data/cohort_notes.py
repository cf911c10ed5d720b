"""What is said of a cohort that was loaded: sentences for people."""

from __future__ import annotations

from collections import Counter

import numpy as np

from conocc.data.acquisition import DEPTH
from conocc.data.classes import is_left_out, listed_beside, named_classes
from conocc.data.cohort import SPLITS, Cohort, on_several
from conocc.data.columns import bare
from conocc.data.decoding import said_of
from conocc.data.image_io.stack import volume_and_slice
from conocc.data.index import ImageIndex, count, printable, stem


def cohort_notes(
    cohort: Cohort,
    index: ImageIndex,
    majority: frozenset[str],
    dropped: frozenset[str],
    patients: str,
    split: str,
    remarks: Counter[str],
) -> tuple[str, ...]:
    """Say what was decided and found, in the order in which people ask."""
    notes = [f"'{printable(index.name)}' is laid out as {index.layout}.", _classes(cohort)]
    if len({entry.label for entry in index.entries}) == 1:
        notes += filter(None, [listed_beside(index).strip()])
    notes += [patients, *_folders_of_patients(cohort), *_alike(cohort), split, *_sides(cohort)]
    classes = Counter(entry.label for entry in index.entries if entry.label in dropped)
    if classes:
        notes.append(f"Left out, as asked: {named_classes(classes)}.")
    kept = [entry for entry in index.entries if entry.label not in dropped]
    left_out = [entry.split for entry in kept if is_left_out(entry, majority, dropped)]
    if train := left_out.count("train"):
        notes.append(f"{count(train, 'minority image')} of the training split left unused.")
    if others := len(left_out) - train:
        notes.append(f"{count(others, 'validation image')} left unused.")
    notes += index.notes
    notes += _depths(cohort)
    return (
        *notes,
        *said_of(remarks),
        *_duplicates(cohort),
        *_copies(cohort),
        *cohort.leaks().sentences(),
    )


def _classes(cohort: Cohort) -> str:
    def named(minority: bool) -> str:
        found = Counter(cohort.label[cohort.minority == minority].tolist())
        return named_classes(found) or "no image that can be read"

    if not cohort.minority.any():
        return f"Majority class: {named(False)}. There is no minority image."
    return f"Majority class: {named(False)}. Minority class: {named(True)}."


def _folders_of_patients(cohort: Cohort) -> list[str]:
    """Ask whether the folders within the classes are patients, where nobody knows of any.

    They may be if most hold several images, and none is in two classes.
    """
    pairs = zip(cohort.path.tolist(), cohort.label.tolist(), strict=True)
    files = {volume_and_slice(path)[0]: label for path, label in pairs}
    inner: dict[tuple[int, str], set[str]] = {}
    times: Counter[str] = Counter()
    for path, label in files.items():
        parts = path.split("/")[:-1]
        level = parts.index(label) + 1 if label in parts else len(parts)
        if not parts[level:]:
            return []
        inner.setdefault((level, parts[level]), set()).add(label)
        times[parts[level]] += 1
    several = sum(n > 1 for n in times.values())
    is_shared = any(len(classes) > 1 for classes in inner.values())
    if cohort.patients_known or len(times) < 2 or 2 * several < len(times) or is_shared:
        return []
    (level, first), *_ = inner
    return [
        f"The images of each class lie in folders ('{printable(first)}' …), {len(times)} in all. "
        f"If each is a patient, pass patient_regex='^{'[^/]+/' * level}([^/]+)/' "
        "(--patient-regex): or images of one patient train and test."
    ]


def _alike(cohort: Cohort) -> list[str]:
    """Name patients who may be one, as where a spreadsheet took the zeros of some."""
    kinds: dict[str, list[str]] = {}
    for name in np.unique(cohort.patient).tolist() if cohort.patients_known else ():
        kinds.setdefault(bare(name), []).append(printable(name))
    several = [names for names in kinds.values() if len(names) > 1]
    if not several:
        return []
    return [
        f"{count(sum(map(len, several)), 'patient')} have names that differ from another's in "
        f"capitals or zeros alone ('{several[0][0]}' and '{several[0][1]}' …). Write them alike if "
        "they are one, or one patient trains and is tested."
    ]


def _sides(cohort: Cohort) -> list[str]:
    notes = []
    table = cohort.counts()
    for split in SPLITS[:-1]:
        sizes = []
        for _, kind, images, *patients in table[table["split"] == split].to_numpy().tolist():
            known = "".join(f" of {count(number, 'patient')}" for number in patients)
            sizes.append(count(images, f"{kind} image") + known)
        if sizes or split in ("train", "test"):
            notes.append(f"{split}: {', '.join(sizes) or 'no image'}.")
    if (unused := cohort.rows(split="unused")).size:
        notes.append(
            f"unused: {count(unused.size, 'image')} of training patients, or identical to one of "
            "theirs, which the test must not see."
        )
    return notes


def _depths(cohort: Cohort) -> list[str]:
    """Say where images of 8 bits lie beside deeper ones, which their depth makes brighter."""
    facts = cohort.acquisition
    shallow = 0 if facts is None else int((facts[:, DEPTH] == 8).sum())
    if not 0 < shallow < len(cohort):
        return []
    return [
        f"{shallow} of {count(len(cohort), 'image')} have 8 bits a pixel, the others more: their "
        "values are of another range, by which they can be told apart. Bring them to one."
    ]


def _copies(cohort: Cohort) -> list[str]:
    """Name images that are called alike but for their suffix, where patients are not known."""
    taken_apart = map(volume_and_slice, cohort.path.tolist())
    names = [(stem(file), k) for file, k in taken_apart]
    contents = {*zip(names, cohort.content.tolist(), strict=True)}
    times = Counter(name for name, _ in contents)
    alike = [path for path, name in zip(cohort.path, names, strict=True) if times[name] > 1]
    if not alike or cohort.patients_known:
        return []
    return [
        f"{count(len(alike), 'image')} are called as another but for the suffix "
        f"('{printable(alike[0])}' …). Take one out if one is a copy, or it trains and is tested."
    ]


def _duplicates(cohort: Cohort) -> list[str]:
    content = cohort.content
    times = Counter(content.tolist())
    twins = [path for path, one in zip(cohort.path, content, strict=True) if times[one] > 1]
    if not twins:
        return []
    notes = [f"{count(len(twins), 'image')} have an identical twin ('{printable(twins[0])}' …)."]
    if both := on_several(content, cohort.minority):
        notes.append(
            f"{count(len(both), 'image')} identical in the majority and in the minority class "
            f"('{printable(cohort.path[content == both[0]][0])}' …)."
        )
    return notes
