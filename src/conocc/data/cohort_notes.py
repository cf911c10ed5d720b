"""What is said of a cohort that was loaded: sentences for people."""

from __future__ import annotations

from collections import Counter

from conocc.data.cohort import SPLITS, Cohort, on_several
from conocc.data.decoding import said_of
from conocc.data.image_io.stack import volume_and_slice
from conocc.data.index import ImageEntry, ImageIndex, count, printable

MOST_CLASSES_NAMED = 10


def is_left_out(entry: ImageEntry, majority: frozenset[str], dropped: frozenset[str]) -> bool:
    """Say whether nobody has a use for an image; it is then not even opened."""
    is_unused = entry.split == "unused" or (entry.split == "train" and entry.label not in majority)
    return is_unused or entry.label in dropped


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
    notes += [patients, *_folders_of_patients(cohort), split, *_sides(cohort)]
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
    return (*notes, *said_of(remarks), *_duplicates(cohort), *cohort.leaks().sentences())


def _classes(cohort: Cohort) -> str:
    def named(minority: bool) -> str:
        return named_classes(Counter(cohort.label[cohort.minority == minority].tolist()))

    if not cohort.minority.any():
        return f"Majority class: {named(False)}. There is no minority image."
    return f"Majority class: {named(False)}. Minority class: {named(True)}."


def named_classes(found: Counter[str]) -> str:
    """Name the classes with their sizes; of many, as joined labels make them, the largest ten."""
    shown = sorted(label for label, _ in found.most_common(MOST_CLASSES_NAMED))
    names = [f"{printable(label)} ({count(found[label], 'image')})" for label in shown]
    more = len(found) - len(shown)
    return ", ".join(names) + (f" and {more} more" if more else "")


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


def _sides(cohort: Cohort) -> list[str]:
    notes = []
    table = cohort.counts()
    for split in SPLITS[:-1]:
        sizes = []
        for _, kind, images, patients in table[table["split"] == split].to_numpy().tolist():
            known = f" of {count(patients, 'patient')}" if cohort.patients_known else ""
            sizes.append(count(images, f"{kind} image") + known)
        if sizes or split in ("train", "test"):
            notes.append(f"{split}: {', '.join(sizes) or 'no image'}.")
    if (unused := cohort.rows(split="unused")).size:
        notes.append(
            f"unused: {count(unused.size, 'image')} of training patients, or identical to one of "
            "theirs, which the test must not see."
        )
    return notes


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
