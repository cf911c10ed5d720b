"""Masks among images: known by their names, by the images that they mark, and by their values."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conocc.data.image_io.read import decode
from conocc.data.image_io.stack import StackOptions
from conocc.data.index import SIDES, printable, read_file, some, stem
from conocc.data.volumes import read_stack

_PLAIN = r"masks?|segmentations?(?:class|object)?|ground[_ -]?truths?"
_WORD = (
    rf"(?:{_PLAIN}|(?:d|prob)?segm?|labels?(?:map|tr|ts)?|gt|annot(?:ation)?s?|rois?|contours?"
    r"|manual\d*|1stho|2ndho)"
)
_GAP = r"[_\-. ]+"
# Most paths hold no such word, and need no closer look.
_HINT = re.compile(r"mask|seg|truth|label|gt|annot|roi|contour|manual|stho|ndho", re.IGNORECASE)
# x_mask, x_mask_1, x_mask_left, xMask, 1mask, mask_x; of a folder also lung_masks, but not label_1.
_BEFORE = rf"(|.+?(?:{_GAP}|(?<=\d)|(?<=[^\W_])(?-i:(?=[A-Z]))))"
_NAME = re.compile(rf"{_BEFORE}{_WORD}(|{_GAP}.+)", re.IGNORECASE | re.DOTALL)
OF_MASKS = re.compile(rf"{_WORD}|(?:.*[_\- ])?(?:{_PLAIN})(?:[_\- ].*)?", re.IGNORECASE | re.DOTALL)
# A word that an image has where its mask has another.
OF_IMAGES = re.compile(rf"(?:^|{_GAP})(?:image|img)s?(?:tr|ts)?(?=$|{_GAP})", re.IGNORECASE)

SAMPLE = 5  # files that are looked at where names prove nothing
# A map of labels has few values; a mask that was compressed is nearly two-valued, with at least
# so much of it marked.
FEW_VALUES, NEARLY, LEAST_MARKED = 8, 0.97, 0.005
ONE_VALUED, TWO_VALUED = 1, 2


def without_masks(
    folder: Path, paths: Sequence[str], *, level: int = 0, strict: bool = True
) -> tuple[tuple[str, ...], list[str]]:
    """Leave masks aside: give the other paths, in their order, and notes.

    A file is a mask if its name or its folder says so and the image that it marks is there:
    ``x.png`` for ``x_mask_1.png``, ``images/x.png`` for ``masks/x.png``. A word without an image,
    or a class that is called by it, proves nothing: a few such files are then looked at, since
    masks have few values.

    Parameters
    ----------
    folder : Path
    paths : sequence of str
        Of images below it.
    level : int
        Which of the folders in a path, counted from 0, is its class.
    strict : bool
        Whether to refuse what is in doubt; or else it counts as images.

    Raises
    ------
    ValueError
        If what is in doubt is refused: where it is, and what to do.
    """
    bases = {path: marks for path in paths if (marks := _marked_by(path))[0]}
    keys = {_key(*path.rpartition("/")[::2]) for path in paths if path not in bases}
    names = {key.rpartition("/")[2] for key in keys}
    masks: set[str] = set()
    doubtful: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for path, (found, is_last) in bases.items():
        folders = path.split("/")[:-1][: level + 1]
        is_class = len(folders) > level and OF_MASKS.fullmatch(folders[level]) is not None
        near = {found[0], *_beginnings(found[0])} if is_last else set(found)
        if not is_class and near & keys:
            masks.add(path)
        else:
            doubtful["/".join(folders), is_class].append(path)
    masks.update(_in_other_words(folder, [path for path in paths if path not in bases]))
    notes = []
    for (inside, is_class), group in doubtful.items():
        looks = [_looks_like_mask(folder, path) for path in _sample(group)]
        called = {base.rpartition("/")[2] for path in group for base in bases[path][0]}
        if all(looks) and (called & names or not is_class):
            masks.update(group)
        elif TWO_VALUED in looks and strict:
            raise ValueError(
                f"Whether files of '{printable(inside or folder)}' are masks or images is not "
                f"known: they are named as masks ('{printable(group[0])}'), and "
                f"{looks.count(TWO_VALUED)} of {len(looks)} that were looked at have few values, "
                "as masks have. Take masks out of the cohort, rename images, or list the images "
                "in a manifest."
            )
        elif is_class:
            notes.append(f"'{printable(inside)}' is taken for a class: its files are no masks.")
    aside = [path for path in paths if path in masks]
    notes += [f"{some(aside, 'mask')} left aside."] if aside else []
    return tuple(path for path in paths if path not in masks), notes


def _in_other_words(folder: Path, paths: Sequence[str]) -> Iterator[str]:
    """Find masks by a word of any language, ``x_lesion.png`` beside ``x.png``, and their values.

    All that are looked at have few values, and no image that they would mark has.
    """
    known = {_key(*path.rpartition("/")[::2]): path for path in paths}
    groups: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for key, path in known.items():
        for base in reversed(_beginnings(key)):
            if base in known and key[len(base) :].strip("_-. ").isalpha():
                groups[path.rpartition("/")[0], key[len(base) :]].append((path, known[base]))
                break
    for group in groups.values():
        looks = [[_looks_like_mask(folder, one) for one in pair] for pair in _sample(group)]
        if all(mask == TWO_VALUED and not image for mask, image in looks):
            yield from (path for path, _ in group)


def _sample(group: Sequence[Any]) -> Sequence[Any]:
    return group[:: max(1, len(group) // SAMPLE)]


def marked_image(path: str) -> str:
    """Name the image that a mask marks by its own name, both without suffix; or else itself.

    >>> marked_image("x/1_mask_2.png"), marked_image("x/seg_1.nii.gz"), marked_image("x/1.png")
    ('x/1', 'x/1', 'x/1')
    """
    inside, slash, name = stem(path).rpartition("/")
    found = _NAME.fullmatch(name)
    base = (found[1] or found[2]).strip("_-. ") if found else name
    return f"{inside}{slash}{base}"


def _marked_by(path: str) -> tuple[list[str], bool]:
    """Give the keys that the image of a mask may have, and whether the word ends the name."""
    inside, _, name = path.rpartition("/")
    if not _HINT.search(path):
        return [], False
    if found := _NAME.fullmatch(stem(name)):
        before, after = found.groups()
        bases = [before, before + after.lstrip("_-. ")] if before else [after]
        return [_key(inside, base) for base in bases], not after
    if any(map(OF_MASKS.fullmatch, inside.split("/"))):
        return [_key(inside, stem(name))], True
    return [], False


def _key(inside: str, name: str) -> str:
    """Name what an image and its mask share: folders and name, but for words of either."""
    kept = [
        part
        for part in inside.lower().split("/")
        if part not in SIDES and not OF_MASKS.fullmatch(part) and not OF_IMAGES.fullmatch(part)
    ]
    return "/".join([*kept, OF_IMAGES.sub("", stem(name).lower()).strip("_-. ")])


def _beginnings(key: str) -> list[str]:
    """Cut a name at each gap: of a/x_1_t2 a/x and a/x_1."""
    start = key.rfind("/") + 1
    return [key[: gap.start()] for gap in re.compile(_GAP).finditer(key, start + 1)]


def _looks_like_mask(folder: Path, path: str) -> int:
    """Say whether an image has few values, or nearly two; one that cannot be read has not."""
    try:
        stack = read_stack(folder, path, StackOptions(labels=True))
        if stack is None:
            image = decode(read_file(folder, path), printable(path))
        else:
            image = stack.image(stack.total // 2).pixels
    except ValueError:
        return 0
    if (values := np.unique(image).size) <= FEW_VALUES:
        return ONE_VALUED if values == 1 else TWO_VALUED
    low, high = float(image.min()), float(image.max())
    place = (image.astype(float) - low) / (high - low)
    marked = float((place > 0.9).mean())
    nearly = marked >= LEAST_MARKED and marked + float((place < 0.1).mean()) >= NEARLY
    return TWO_VALUED if nearly else 0
