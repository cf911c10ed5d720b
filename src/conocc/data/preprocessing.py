"""From an image as its file has it to what a detector sees: colour, shape and size.

Letters: h and w pixels, c channels.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conocc.data.image_io.pixels import MAX_PIXELS, Pixels
from conocc.data.image_io.stack import AXES, StackOptions

Floats = NDArray[np.float32]

SMALLEST_SIZE, LARGEST_SIZE = 16, isqrt(MAX_PIXELS)
# How many times the size asked for a JPEG must keep when it is decoded at a fraction of its own.
SPARE = 2


@dataclass(frozen=True)
class Preprocessing:
    """How files become arrays; travels with a saved model.

    Parameters
    ----------
    size : int, optional
        Side in pixels, at least 16. None leaves images as they are.
    colour : {"grey", "rgb"}
        One channel (ITU-R 601 luma) or three (a grey image is repeated).
    fit : {"stretch", "pad", "crop"}
        How an image that is not square becomes one. Stretching is what the paper did. Padding
        adds, on both of the shorter sides, the lowest value of each channel; cropping keeps the
        square in the middle.
    voi : {"none", "file", "CENTER,WIDTH"}
        The window of grey DICOM images, which spreads the values of interest over 0 to 1: none,
        so that all values stay; the one in each file, without which it is refused; or this one,
        such as "40,400", for all.
    axis : {"axial", "coronal", "sagittal"}
        How volumes are cut into slices, which are the images.
    frames : {"all", "middle", "first", "N"}
        Which of the images that one file holds are read, slices of volumes and frames alike: all
        that are not empty, the one in the middle, the first, or N of them evenly spaced, such as
        "8".
    scaled : bool
        Whether a JPEG at least `SPARE` times 2, 4 or 8 as large as `size` on both sides is decoded
        at a half, a quarter or an eighth of its size, before it is resized.

    features : tuple of str
        What the features of a table are called, which a loaded cohort notes; a table with others
        is refused. Empty of images and arrays.

    Raises
    ------
    ValueError
        If a parameter is none of these.

    Examples
    --------
    >>> Preprocessing.from_dict(Preprocessing(size=64).to_dict()) == Preprocessing(size=64)
    True
    """

    size: int | None = None
    colour: str = "grey"
    fit: str = "stretch"
    voi: str = "none"
    axis: str = "axial"
    frames: str = "all"
    scaled: bool = True
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            "size": (
                self.size is None
                or (type(self.size) is int and SMALLEST_SIZE <= self.size <= LARGEST_SIZE),
                f"an integer from {SMALLEST_SIZE} to {LARGEST_SIZE}, or None",
            ),
            "colour": _is_one_of(COLOURS, self.colour),
            "fit": _is_one_of(FITS, self.fit),
            "voi": (
                self.voi in ("none", "file") or _is_window(self.voi),
                "'none', 'file' or a window 'CENTER,WIDTH' of a width of at least 1, "
                "such as '40,400'",
            ),
            "axis": _is_one_of(AXES, self.axis),
            "frames": (
                isinstance(self.frames, str)
                and re.fullmatch(r"all|middle|first|[1-9][0-9]{0,8}", self.frames) is not None,
                "'all', 'middle', 'first' or how many of each file, such as '8'",
            ),
            "scaled": (type(self.scaled) is bool, "True or False"),
        }
        for parameter, (fulfilled, wanted) in checks.items():
            if not fulfilled:
                raise ValueError(
                    f"The '{parameter}' parameter of Preprocessing must be {wanted}. "
                    f"Got {getattr(self, parameter)!r} instead."
                )

    @property
    def least_side(self) -> int | None:
        """What both sides of a JPEG should keep when it is decoded; None for all they have."""
        return SPARE * self.size if self.scaled and self.size is not None else None

    @property
    def stack_options(self) -> StackOptions:
        """How the images of files that hold several are chosen and read."""
        return StackOptions(self.axis, self.voi, self.frames)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, for JSON; names of features where there are any."""
        values = dataclasses.asdict(self)
        return values if self.features else {k: v for k, v in values.items() if k != "features"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_dict` gave.

        Raises
        ------
        ValueError
            If a key is missing or too many, or a value is not known.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if {*values, "features"} != {*known}:
            raise ValueError(
                f"A Preprocessing has {', '.join(map(repr, known))}. Got {dict(values)!r} instead."
            )
        return cls(**{**values, "features": tuple(values.get("features", ()))})


def _is_one_of(known: Mapping[str, object], value: object) -> tuple[bool, str]:
    return value in tuple(known), f"one of {', '.join(map(repr, known))}"


def _is_window(voi: object) -> bool:
    number = r"[+-]?\d{1,9}(?:\.\d{1,9})?"
    found = re.fullmatch(rf"{number},({number})", voi) if isinstance(voi, str) else None
    return found is not None and float(found[1]) >= 1


def prepare(image: Pixels, preprocessing: Preprocessing) -> Floats:
    """Give an image the channels and the size asked for; values keep their range.

    Parameters
    ----------
    image : array, shape (h, w) or (h, w, 3)
        As `image_io.read.decode` gives it: finite, and within `LARGEST_VALUE`.
    preprocessing : Preprocessing

    Returns
    -------
    array of float32, shape (c, size, size)
        New and C-contiguous; c is 1 or 3. (c, h, w) where `preprocessing` has no size.

    Examples
    --------
    >>> prepare(np.full((20, 30), 4095, np.uint16), Preprocessing(size=16)).shape
    (1, 16, 16)
    """
    if image.ndim == 3:
        grey = preprocessing.colour == "grey"
        stored = _luma(image)[None] if grey else np.moveaxis(image, -1, 0)
    else:
        stored = image[None]
    planes = [plane.astype(np.float32, order="C") for plane in stored]
    if preprocessing.size is not None:
        planes = [FITS[preprocessing.fit](plane, preprocessing.size) for plane in planes]
    return np.array(planes * (COLOURS[preprocessing.colour] // len(planes)))


def _luma(image: Pixels) -> Floats:
    """ITU-R 601 luma, 0.299 R + 0.587 G + 0.114 B; (h, w, 3) -> (h, w).

    Written around green, so that three equal channels give exactly that channel.
    """
    # Beyond 16 bits a difference of two channels can leave float32.
    kind = np.float32 if image.dtype.itemsize <= 2 else np.float64
    red, green, blue = np.moveaxis(image, -1, 0).astype(kind, order="C")
    luma: Pixels = green + 0.299 * (red - green) + 0.114 * (blue - green)
    return luma.astype(np.float32, copy=False)


def _stretch(plane: Floats, h: int, w: int | None = None) -> Floats:
    """Resample to (h, w), or to (h, h): Pillow's bilinear filter, antialiased when shrinking.

    A plane of that size already is not resampled.
    """
    w = h if w is None else w
    if plane.shape == (h, w):
        return plane
    return np.asarray(Image.fromarray(plane).resize((w, h), Image.Resampling.BILINEAR))


def _pad(plane: Floats, size: int) -> Floats:
    """Bring the longer side to `size`, and fill beside the shorter one with the lowest value.

    Of an odd number of lines to fill, the one more is below, or on the right.
    """
    longest = max(plane.shape)
    h, w = (max(1, round(side * size / longest)) for side in plane.shape)
    # Resampled first: filled up first, a single line of pixels could take all memory.
    square = np.full((size, size), plane.min(), np.float32)
    top, left = (size - h) // 2, (size - w) // 2
    square[top : top + h, left : left + w] = _stretch(plane, h, w)
    return square


def _crop(plane: Floats, size: int) -> Floats:
    """Bring the largest square in the middle to (size, size)."""
    side = min(plane.shape)
    top, left = ((length - side) // 2 for length in plane.shape)
    middle = plane[top : top + side, left : left + side]
    return _stretch(np.ascontiguousarray(middle), size)


COLOURS = {"grey": 1, "rgb": 3}  # channels; of a grey image the one is repeated
FITS: dict[str, Callable[[Floats, int], Floats]] = {"stretch": _stretch, "pad": _pad, "crop": _crop}
