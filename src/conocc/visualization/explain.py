"""Why this image: what a method reconstructs of it, and where it differs, on one fixed scale.

The scale is of majority images (`OneClassDetector.residual_scale_`) and the same for all, so that
an image like these looks calm.

Letters: n images, c channels, h and w pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from conocc._version import __version__
from conocc.data.image_io.read import Preprocessing
from conocc.data.index import printable
from conocc.data.unlabelled import Block, load_images
from conocc.detectors.residual_scale import FAINT, FULL, ResidualScale
from conocc.experiments.run import load_model
from conocc.io.files import write_csv, write_text
from conocc.visualization.figures import explanation, save_figure
from conocc.visualization.html import rendered

# Of what `OneClassDetector.normalized` gives, by its parameter `normalize`.
UNITS = {
    "zscore": "standard deviations of its pixels",
    "minmax": "parts of its own range",
    "none": "the units of the files",
}
# How near a score must be to a sum of squares to be called one: it is summed in another order.
SAME = 1e-3
LONGEST_NAME = 60


@dataclass(frozen=True)
class Explained:
    """What `explain_files` left: how many pictures, what they show, and what could not be read.

    Attributes
    ----------
    count : int
    page : Path
        The HTML page that shows all of them.
    words : tuple of str
        Sentences that say how to read them.
    errors : tuple of (path, reason)
    """

    count: int
    page: Path
    words: tuple[str, ...]
    errors: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Case:
    """One picture: its file beside the page, the image's path as it may be told, its score."""

    file: str
    path: str
    score: float
    said: str


def explain_files(
    run: str | Path,
    where: Sequence[str | Path],
    out: str | Path,
    *,
    jobs: int | None = None,
    verbose: int = 0,
) -> Explained:
    """Draw, for each image, the image, its reconstruction and where they differ.

    Files are read as the training images were. Into `out` go a PNG an image, ``index.html`` with
    all of them, and ``errors.csv`` with those that cannot be read, if there are such.

    Parameters
    ----------
    run : path
        A run's folder, or a model file.
    where : sequence of path
        Files, folders, archives, manifests or names of phantoms.
    out : path
        A folder.
    jobs : int, optional
        Threads that decode; all cores by default.
    verbose : int, default=0

    Raises
    ------
    ValueError
        If the method has no reconstruction, the model no scale, or was not fitted to files.
    """
    out = Path(out)
    detector = load_model(run)
    scale = _scale(detector, run)
    preprocessing = Preprocessing.from_dict(detector.preprocessing_)
    cases: list[_Case] = []
    errors: list[tuple[str, str]] = []
    of_residual = True
    blocks = load_images(where, preprocessing, detector.input_shape_, jobs=jobs, verbose=verbose)
    for block in blocks:
        errors.extend(block.errors)
        for case, is_sum in _explained(detector, scale, block, out, first=len(cases)):
            cases.append(case)
            of_residual &= is_sum
    words = (*_words(detector, scale), *([] if of_residual else [_not_the_sum(detector)]))
    page = {
        "method": type(detector).__name__,
        "version": __version__,
        "words": words,
        "cases": sorted(cases, key=lambda case: -case.score),
        "unread": len(errors),
    }
    write_text(out / "index.html", rendered("explain.html", page))
    if errors:
        write_csv(out / "errors.csv", ("path", "reason"), errors)
    else:
        (out / "errors.csv").unlink(missing_ok=True)  # of an earlier call
    return Explained(len(cases), out / "index.html", words, tuple(errors))


def _scale(detector: Any, run: str | Path) -> ResidualScale:
    name = type(detector).__name__
    if not hasattr(detector, "reconstruct"):
        raise ValueError(
            f"{name} makes no reconstruction: its score is of the image as a whole and says of no "
            "pixel how much it adds. Only methods that reconstruct can be explained."
        )
    if detector.preprocessing_ is None:
        raise ValueError(f"The model of '{run}' was fitted to arrays: it cannot read files.")
    scale: ResidualScale | None = detector.residual_scale_
    if scale is None:
        raise ValueError(
            f"The model of '{run}' was saved by a version that kept no scale for residuals. "
            f"'conocc calibrate {run} COHORT' sets one, as does a new fit."
        )
    return scale


def _explained(
    detector: Any, scale: ResidualScale, block: Block, out: Path, first: int
) -> Iterator[tuple[_Case, bool]]:
    """Draw the images of a block; yield each case, and whether its score is Eq. (6) of it."""
    if not block.path:
        return
    scores = detector.anomaly_score(block.images)
    given, again = detector.normalized(block.images), detector.reconstruct(block.images)
    squares = ((given - again).astype(np.float64) ** 2).sum((1, 2, 3))
    p_values = None
    if detector.calibration_ is not None:
        p_values = detector.calibration_.p_values(scores, unit="image")
    for i, path in enumerate(block.path):
        said = f"score {scores[i]:.4g}"
        if p_values is not None:
            said += f", p-value {p_values[i]:.2g}"
        number = first + i + 1
        file = f"{number:05d}-{_safe(path)}.png"
        title = f"{number}: {_safe(path)}   {said}"
        save_figure(
            explanation(given[i], again[i], scale, title=title, unit=UNITS[detector.normalize]),
            out / file,
        )
        is_sum = bool(np.isclose(scores[i], squares[i], rtol=SAME, atol=0))
        yield _Case(file, printable(path), float(scores[i]), said), is_sum


def _safe(path: str) -> str:
    """Give the name of a path without what a file system, or a font, may not know.

    >>> _safe("a folder/Größe 1:2.png")
    'Gr_e_1_2'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(path).stem)[:LONGEST_NAME]


def _words(detector: Any, scale: ResidualScale) -> list[str]:
    """Say what the colours are, and of what images their scale is."""
    said = [
        "Orange is where an image is brighter than its reconstruction, blue where it is darker, "
        f"in {UNITS[detector.normalize]}: nothing is drawn up to {scale.faint:.3g}, and full "
        f"colour is from {scale.full:.3g} on. "
        f"The scale is the same for all images. It is of {scale.images} majority images, of "
        f"whose pixels {FAINT:.0%} show nothing and {1 - FULL:.1%} full colour."
    ]
    if scale.source == "training":
        said.append(
            "These are training images, of which a method leaves less than of new ones: new "
            "majority images look less calm here than they are. 'conocc calibrate' sets the "
            "scale on images that were never trained on."
        )
    return said


def _not_the_sum(detector: Any) -> str:
    return (
        f"The score of {type(detector).__name__} is not the sum of these differences: an image "
        "can score high and look calm, and the other way round."
    )
