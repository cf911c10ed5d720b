"""Which classes of a cohort are the majority, and which are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from conocc.data.cohort_spec import CohortSpec
from conocc.data.columns import bare, is_missing
from conocc.data.index import ImageEntry, ImageIndex, as_typed, count, printable
from conocc.data.layouts import divided_alike, mixtures
from conocc.data.manifest import is_manifest
from conocc.data.patients import TABLES
from conocc.io.words import parted

MOST_CLASSES_NAMED = 10


def majority_classes(index: ImageIndex, majority: Sequence[str] | None) -> frozenset[str]:
    """Return the labels that are the majority: those asked for, or those that the layout knows.

    Raises
    ------
    ValueError
        If neither names one, or a name is none of the classes: all classes are listed.
    """
    found = Counter(entry.label for entry in index.entries)
    classes = named_classes(found)
    if majority is None:
        if index.majority and index.majority <= set(found):
            return index.majority
        mixed = mixtures(index.entries)
        if len(found) == 1 and not mixed:
            return frozenset(found)
        if alike := divided_alike(index.entries):
            advice = _of_sites(index, min(mixed), alike)
        elif single := sorted(set(found) - mixed, key=lambda label: ("|" in label, label)):
            example = printable(single[0])
            advice = (
                "Name one, or several that make it up together: for instance "
                f"majority={example!r} (--majority {example})."
            )
        else:
            advice = (
                "Each of these may hold several classes. If so, name the folder that holds the "
                "class folders, call the sides of a split train and test, or list the images with "
                "their classes in a table; if not, name the majority (--majority)."
            )
        advice += listed_beside(index)
        raise ValueError(
            f"Which class of '{printable(index.name)}' is the majority, the one to train on, is "
            f"not known. Its classes are {classes}. {advice}"
        )
    return _classes_of(index, "majority", majority)


_WITHIN = " It is a folder within these: name one of these as the cohort, or list all in a table."


def _classes_of(index: ImageIndex, parameter: str, asked: Iterable[str]) -> frozenset[str]:
    """Give the classes that a parameter names, or refuse it."""
    found = Counter(entry.label for entry in index.entries)
    words = (one if one in found else one.rstrip("/\\") for one in parted(asked, found))
    names = frozenset(map(as_typed, words))  # a shell completes a folder's name by a slash
    unknown = sorted(names - set(found))
    if unknown or not names:
        got = unknown[0] if unknown else []
        is_within = any(f"/{got}/" in entry.path for entry in index.entries)
        raise ValueError(
            f"The '{parameter}' parameter must name classes of '{printable(index.name)}', which "
            f"are {named_classes(found)}. "
            f"Got {got!r} instead.{_WITHIN * is_within}{listed_beside(index)}"
        )
    return names


def dropped_classes(
    index: ImageIndex, majority: frozenset[str], spec: CohortSpec
) -> frozenset[str]:
    """Give the classes to leave out: those asked for, and what is neither of two named sides."""
    named = {"minority": spec.minority, "exclude": spec.exclude}
    asked = {name: _classes_of(index, name, classes) for name, classes in named.items() if classes}
    for name, classes in asked.items():
        if both := classes & majority:
            raise ValueError(
                f"The '{name}' parameter must not name the majority. Got {min(both)!r}, which is."
            )
    dropped = asked.get("exclude", frozenset())
    if "minority" in asked:
        dropped |= {entry.label for entry in index.entries} - majority - asked["minority"]
    return dropped


def refuse_doubtful(
    index: ImageIndex, majority: frozenset[str], dropped: frozenset[str], minority: Sequence[str]
) -> None:
    """Refuse a minority class that is called as one of the majority, or as none, unless named."""
    used = {entry.label for entry in index.entries if entry.split != "unused"}
    others = sorted(used - majority - dropped)
    if missing := [one for one in others if is_missing(one) and one not in minority]:
        one = printable(missing[0])
        raise ValueError(
            f"The class '{one}' of '{printable(index.name)}' reads as if it were missing. Leave it "
            f"out (--exclude {one}), or say that it is a class (--minority)."
        )
    for label in sorted(majority):
        if same := [printable(one) for one in others if bare(one) == bare(label)]:
            one, other = printable(label), ",".join(same)
            raise ValueError(
                f"The classes '{one}' and '{same[0]}' of '{printable(index.name)}' differ in "
                f"capitals or zeros alone. If they are one, name all (--majority {one},{other}); "
                f"if not, rename them, or leave some out (--exclude {other})."
            )


def is_left_out(entry: ImageEntry, majority: frozenset[str], dropped: frozenset[str]) -> bool:
    """Say whether nobody has a use for an image; it is then not even opened."""
    is_unused = entry.split == "unused" or (entry.split == "train" and entry.label not in majority)
    return is_unused or entry.label in dropped


def listed_beside(index: ImageIndex) -> str:
    """Advise to name a table that lies beside the images, which may say their classes."""
    folder = None if index.layout == "a manifest" else index.folder
    for path in sorted(folder.iterdir()) if folder else ():
        if is_manifest(path) and path.suffix.lower() != ".txt" and path.name.lower() not in TABLES:
            name = printable(path.name)
            return f" If '{name}' there lists the classes of the images, name it instead."
    return ""


def named_classes(found: Counter[str]) -> str:
    """Name the classes with their sizes; of many, as joined labels make them, the largest ten."""
    shown = sorted(label for label, _ in found.most_common(MOST_CLASSES_NAMED))
    names = [f"{printable(label)} ({count(found[label], 'image')})" for label in shown]
    more = len(found) - len(shown)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _of_sites(index: ImageIndex, site: str, alike: set[str]) -> str:
    """Say what to name where folders that several class folders hold may be the classes."""
    below = (part for entry in index.entries for part in entry.path.split("/")[1:2])
    inside = named_classes(Counter(part for part in below if part in alike))
    one = printable((index.folder or Path()) / site)
    return (
        f"Several of these hold the same folders: {inside}. If those are the classes, and these "
        f"are sites, name one site, such as '{one}', or list all images in a table with the "
        "columns path, label and site; if not, name the majority (--majority)."
    )
