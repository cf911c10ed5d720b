"""A file that holds several images: slices of a volume, frames, pages.

Its images are numbered from 0, those too that are left aside, and named ``file.nii.gz[12]``.

How slices of a volume lie: it is turned to the nearest of the axes left to right, posterior to
anterior, inferior to superior, by the header's affine; voxel sizes are not looked at. Slices are
counted from 0, from the inferior end (axial), the posterior (coronal) or the left (sagittal). They
are shown as radiologists do, and as DICOM files lie: anterior or superior is up, the patient's
right is on the left, and anterior is on the left of a sagittal slice.

Letters: x, y, z voxels from left to right, posterior to anterior, inferior to superior; h and w
pixels; k the number of an image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from conocc.data.image_io.pixels import Pixels, Remarked

if TYPE_CHECKING:
    from conocc.data.image_io.dicom_person import Person


class StackOptions(NamedTuple):
    """How the images of a stack are chosen and read; see `conocc.data.preprocessing`.

    `labels` says whether it may be a map of labels, which is no image, but a mask.
    """

    axis: str = "axial"
    voi: str = "none"
    frames: str = "all"
    labels: bool = False


@dataclass(frozen=True)
class Stack:
    """The images of one file, not yet decoded.

    Attributes
    ----------
    kind : str
        What they are called: "axial slice", "frame", "page".
    total : int
        How many there are.
    numbers : tuple of int
        Those that are images of a cohort, ascending; slices without content, pages that are a
        thumbnail or a mask, and what was not asked for are left out.
    image : callable
        Decodes image k, of any k below `total`, on any thread; as `conocc.data.image_io.read`'s
        ``decode`` it raises ValueError, whose text is the reason alone.
    left_aside : mapping of str to int
        Why images are left out, in the plural, and how many.
    person : Person or None
        Who is on all of them.
    single : bool
        Whether it is one image, of one number, that bears the name of its file.
    """

    kind: str
    total: int
    numbers: tuple[int, ...]
    image: Callable[[int], Remarked]
    left_aside: Mapping[str, int] = field(default_factory=dict)
    person: Person | None = None
    single: bool = False


def chosen(numbers: Sequence[int], frames: str) -> tuple[int, ...]:
    """Choose "all", the "first", the one in the "middle", or as many as the text says.

    Those lie in the middle of as many equal parts.

    >>> chosen(range(10), "2"), chosen(range(10), "middle"), chosen(range(3), "8")
    ((2, 7), (5,), (0, 1, 2))
    """
    if frames == "first":
        return tuple(numbers[:1])
    n = len(numbers)
    wanted = n if frames == "all" else 1 if frames == "middle" else int(frames)
    if wanted >= n:
        return tuple(numbers)
    return tuple(numbers[(2 * i + 1) * n // (2 * wanted)] for i in range(wanted))


# Slices

# A slice with less than this share of voxels above the background is empty.
LEAST_FOREGROUND = 0.05
# The background ends this share of the way from the lowest value to the 99th percentile.
BACKGROUND = 0.1
# A value that this share of a volume has is background, wherever it lies.
MOST_COMMON = 0.5
# Values of a slice that differ by no more than this share of the volume's range are one.
NOISE = 0.01
_SAMPLE = 2**20  # voxels that the percentile is taken of, evenly spaced

EMPTY_SLICES = (
    f"empty slices, constant or less than {100 * LEAST_FOREGROUND:.0f} % above the background"
)

# The axis of the volume along which slices lie, and how one is shown: (h, w).
AXES: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


def cut(voxels: Pixels, axis: str, k: int) -> Pixels:
    """Cut slice `k` out of a volume, C-contiguous; (x, y, z) -> (h, w).

    >>> volume = np.arange(8).reshape(2, 2, 2)  # x, y, z from the binary digits
    >>> cut(volume, "axial", 1)  # above: anterior; on the left: right
    array([[7, 3],
           [5, 1]])
    """
    lying = np.moveaxis(voxels, AXES[axis], 0)[k]
    return np.ascontiguousarray(lying.T[::-1, ::-1])


def slices_with_content(voxels: Pixels, axis: str) -> list[int]:
    """Return the numbers of the slices that are not empty.

    One is empty where it is constant, but for noise, or where less than a share of
    `LEAST_FOREGROUND` of its voxels is above the background. That ends a share of `BACKGROUND` of
    the way from the volume's lowest value to its 99th percentile. Some low voxels, such as padding,
    are not its lowest value; and where one value above that is most common, it is the background,
    as in volumes that were standardised or inverted, and what differs from it on both sides is not.

    >>> voxels = np.zeros((4, 4, 3))
    >>> voxels[:2, :, 1] = 7
    >>> slices_with_content(voxels, "axial")
    [1]
    """
    step = math.ceil((voxels.size / _SAMPLE) ** (1 / 3))
    sample = voxels[::step, ::step, ::step]
    low = float(voxels.min())
    rest = sample[sample > low]
    # Far below all else lies what marks no data, and not the background.
    if low < -1024 and rest.size and float(rest.min()) - low > np.ptp(rest.astype(float)) > 0:
        sample, low = rest, float(rest.min())
    first, high = map(float, np.percentile(sample, [1, 99]))
    if first - low > high - first:
        low = first
    edge, below = low + BACKGROUND * (high - low), -math.inf
    # Where more than half of all voxels have one value, it is the median.
    common = float(np.median(sample))
    if common > edge and (sample == common).mean() >= MOST_COMMON:
        reach = BACKGROUND * max(high - common, common - first)
        edge, below = common + reach, common - reach
    others = tuple(other for other in range(3) if other != AXES[axis])
    foreground = ((voxels > edge) | (voxels < below)).mean(axis=others)
    spread = voxels.max(axis=others).astype(float) - voxels.min(axis=others).astype(float)
    content = (foreground >= LEAST_FOREGROUND) & (spread > NOISE * (high - low))
    return np.flatnonzero(content).tolist()


def stack_of_slices(
    voxels: Pixels, axis: str, remarks: tuple[str, ...], left_aside: Mapping[str, int]
) -> Stack:
    """Make a stack of the slices of a volume, (x, y, z), those without content left aside."""
    numbers = slices_with_content(voxels, axis)
    total = voxels.shape[AXES[axis]]
    empty = {EMPTY_SLICES: total - len(numbers)} if len(numbers) < total else {}
    return Stack(
        kind=f"{axis} slice",
        total=total,
        numbers=tuple(numbers),
        image=lambda k: Remarked(cut(voxels, axis, k), remarks),
        left_aside={**empty, **left_aside},
    )


# Names

# Not the rows of an archive's arrays, `images`, `features` or those of a side of the split, such as
# `train_images`.
_NAMED = re.compile(r"(?!(?:.*/)?(?:[a-z]+_)?(?:image|feature)s\[)(.+)\[(\d{1,9})\]", re.DOTALL)


def is_slice_name(path: str) -> bool:
    """Say whether a path is that of one image of a stack."""
    return _NAMED.fullmatch(path) is not None


def slice_name(path: str, k: int) -> str:
    """Name image `k` of the file at `path`.

    >>> slice_name("brains/sub-01.nii.gz", 12)
    'brains/sub-01.nii.gz[12]'
    """
    return f"{path}[{k}]"


def volume_and_slice(name: str) -> tuple[str, int | None]:
    """Take a name apart again; None where it is not that of an image of a stack.

    >>> volume_and_slice("brains/sub-01.nii.gz[12]")
    ('brains/sub-01.nii.gz', 12)
    >>> volume_and_slice("film[2].png")
    ('film[2].png', None)
    >>> volume_and_slice("train_images[2]")  # of an archive
    ('train_images[2]', None)
    """
    found = _NAMED.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)
