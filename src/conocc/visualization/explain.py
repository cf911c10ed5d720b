"""Why this image: what a method reconstructs of it, and where it differs, on one fixed scale.

The scale is of majority images (`OneClassDetector.residual_scale_`) and the same for all, so that
an image like these looks calm.

Letters: n images, c channels, h and w pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from conocc._version import __version__
from conocc.data.index import printable
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import Block, load_images, refuse_missing
from conocc.detectors.residual_scale import FAINT, FULL, ResidualScale
from conocc.experiments.run import load_model
from conocc.io.files import claim, refuse_foreign, write_text
from conocc.io.tables import write_csv
from conocc.visualization.drawing import save_figure
from conocc.visualization.html import rendered
from conocc.visualization.images import explanation

# Of what `OneClassDetector.normalized` gives, by its parameter `normalize`.
UNITS = {
    "zscore": "standard deviations of its pixels",
    "minmax": "parts of its own range",
    "none": "the units of the files",
}
# A score this near to a sum of squares is that sum: the two are summed in different orders.
SUM_TOLERANCE = 1e-3
LONGEST_NAME = 60
COMMAND = "explain"
PAGE, ERRORS = "index.html", "errors.csv"
# What the command writes.
FILES = rf"{re.escape(PAGE)}|{re.escape(ERRORS)}|\d{{5,}}-.*\.png"


@dataclass(frozen=True)
class Explained:
    """What `explain_files` left: how many pictures, what they show, and what could not be read.

    Attributes
    ----------
    count : int
    page : Path
        The HTML page that shows all of them.
    legend : tuple of str
        Sentences that say how to read them.
    errors : tuple of (path, reason)
    """

    count: int
    page: Path
    legend: tuple[str, ...]
    errors: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Case:
    """One picture: its file beside the page, the image's deidentified path, its score."""

    file: str
    path: str
    score: float
    summary: str
    is_sum: bool  # whether the score is the sum of the squared differences, Eq. (6)


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
    all of them, and ``errors.csv`` with those that cannot be read, if there are such. What an
    earlier call wrote there is replaced; nothing else ever is.

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
        If the method has no reconstruction, or was not fitted to files; or if no image can be
        explained.
    FileNotFoundError
        If one of `where` does not exist.
    FileExistsError
        If `out` holds files of the names above that no such call wrote. Whatever is raised,
        nothing was written, unless the disk failed.
    """
    out = Path(out)
    refuse_missing(where)
    refuse_foreign(out, COMMAND, FILES)
    detector = load_model(run)
    scale = _scale(detector, run)
    preprocessing = Preprocessing.from_dict(detector.preprocessing_)
    cases: list[_Case] = []
    errors: list[tuple[str, str]] = []
    blocks = load_images(where, preprocessing, detector.input_shape_, jobs=jobs, verbose=verbose)
    for block in blocks:
        errors += block.errors
        if block.path:
            cases += _draw(detector, scale, block, out, first=len(cases) + 1)
    if not cases:
        listed = "\n".join(f"{path}: {reason}" for path, reason in errors[:5])
        raise ValueError(
            f"None of the {len(errors)} images can be explained. Nothing was written.\n{listed}"
        )
    legend = _legend(detector, scale, is_sum=all(case.is_sum for case in cases))
    page = {
        "method": type(detector).__name__,
        "version": __version__,
        "legend": legend,
        "cases": sorted(cases, key=lambda case: -case.score),
        "unread": len(errors),
    }
    claim(out, COMMAND, [PAGE, *([ERRORS] if errors else [])])
    write_text(out / PAGE, rendered("explain.html", page))
    if errors:
        write_csv(out / ERRORS, ("path", "reason"), errors)
    else:
        (out / ERRORS).unlink(missing_ok=True)  # an earlier call's: no other is here
    return Explained(len(cases), out / PAGE, legend, tuple(errors))


def _scale(detector: Any, run: str | Path) -> ResidualScale:
    if not hasattr(detector, "reconstruct"):
        raise ValueError(
            f"{type(detector).__name__} makes no reconstruction: it scores an image as a whole, "
            "and no pixel adds a part of its own. Only methods that reconstruct can be explained."
        )
    if detector.preprocessing_ is None:
        raise ValueError(f"The model of '{run}' was fitted to arrays: it cannot read files.")
    scale: ResidualScale = detector.residual_scale_
    return scale


def _draw(detector: Any, scale: ResidualScale, block: Block, out: Path, first: int) -> list[_Case]:
    """Draw the images of a block, numbered from `first` on."""
    scores = detector.anomaly_score(block.images)
    given, again = detector.normalized(block.images), detector.reconstruct(block.images)
    sums = ((given - again).astype(np.float64) ** 2).sum((1, 2, 3))
    is_sum = np.isclose(scores, sums, rtol=SUM_TOLERANCE, atol=0)
    summaries = [f"score {score:.4g}" for score in scores]
    if detector.calibration_ is not None:
        p_values = detector.calibration_.p_values(scores, unit="image")
        summaries = [f"{s}, p-value {p:.2g}" for s, p in zip(summaries, p_values, strict=True)]
    cases = [
        _Case(f"{first + i:05d}-{_safe(path)}.png", printable(path), float(scores[i]), s, is_sum[i])
        for i, (path, s) in enumerate(zip(block.path, summaries, strict=True))
    ]
    claim(out, COMMAND, [case.file for case in cases])
    for i, case in enumerate(cases):
        title = f"{first + i}: {_safe(block.path[i])}   {case.summary}"
        unit = UNITS[detector.normalize]
        figure = explanation(given[i], again[i], scale, title=title, unit=unit)
        save_figure(figure, out / case.file)
    return cases


def _safe(path: str) -> str:
    """Give the name of a path without what a file system, or a font, may not know.

    >>> _safe("a folder/Größe 1:2.png")
    'Gr_e_1_2'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(path).stem)[:LONGEST_NAME]


def _legend(detector: Any, scale: ResidualScale, *, is_sum: bool) -> tuple[str, ...]:
    """Say what the colours are, of what images their scale is, and what the score is of them."""
    sentences = [
        "Orange is where an image is brighter than its reconstruction, blue where it is darker, "
        f"in {UNITS[detector.normalize]}: nothing is drawn up to {scale.faint:.3g}, and full "
        f"colour is from {scale.full:.3g} on. "
        f"The scale is the same for all images. It is of {scale.images} majority images, of "
        f"whose pixels {FAINT:.0%} show nothing and {1 - FULL:.1%} full colour."
    ]
    if scale.source == "training":
        sentences.append(
            "These are training images, of which a method leaves less than of new ones: new "
            "majority images look less calm here than they are. 'conocc calibrate' sets the "
            "scale on images that were never trained on."
        )
    if not is_sum:
        sentences.append(
            f"The score of {type(detector).__name__} is not the sum of these differences: an "
            "image can score high and look calm, and the other way round."
        )
    return tuple(sentences)
