"""Why this image: what a method makes of it, and where it is unusual, on one fixed scale.

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
from conocc.data.columns import TableOptions
from conocc.data.index import printable
from conocc.data.unlabelled import Block, load_images
from conocc.detectors.file_scores import image_preprocessing_of
from conocc.detectors.residual_scale import FAINT, FULL
from conocc.experiments.artifacts import explained
from conocc.experiments.run import load_model
from conocc.io.files import OWNER, claim, refuse_foreign, refuse_made, write_text
from conocc.io.tables import ERROR_COLUMNS, write_or_remove
from conocc.io.words import count, named, readable
from conocc.visualization.drawing import save_figure
from conocc.visualization.html import rendered
from conocc.visualization.images import UNITS, explanation

# A score this near to a sum of squares is that sum: the two are summed in different orders.
SUM_TOLERANCE = 1e-3
LONGEST_NAME = 60
COMMAND = "explain"
PAGE, ERRORS = "index.html", "errors.csv"
# What the command writes.
FILES = rf"{re.escape(PAGE)}|{re.escape(ERRORS)}|\d{{5,}}-.*\.png"


@dataclass(frozen=True)
class Written:
    """A page of some images, and what could not be read, as pairs of a path and a reason.

    `words` say how to read its pictures, or how many images are flagged, by which rule, whether
    the batch is like the calibration, and what was done to pixels.
    """

    count: int
    page: Path
    words: Sequence[str]
    errors: Sequence[tuple[str, str]]


def explain_files(
    run: str | Path,
    where: Sequence[str | Path],
    out: str | Path,
    *,
    table: TableOptions = TableOptions(),
    score: str | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Written:
    """Draw, for each image, the image, any reconstruction and where it is unusual.

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
    table : TableOptions
        How manifests and archives among `where` are read.
    score : str, optional
        By which of its scores a method that has several is explained; by default the run's.
    n_jobs : int, optional
        Threads that decode; all cores by default.
    verbose : int, default=0

    Raises
    ------
    ValueError
        If the method draws no heat map, or was not fitted to files; or if no image can be
        explained.
    FileNotFoundError
        If one of `where` does not exist.
    FileExistsError
        If `out` holds files of the names above that no such call wrote. Whatever is raised,
        nothing was written, unless the disk failed.
    """
    out = Path(out)
    refuse_made(out, OWNER)
    refuse_foreign(out, COMMAND, FILES)
    detector = load_model(run, score)
    method = type(detector).__name__
    preprocessing = image_preprocessing_of(detector, run)
    if not hasattr(detector, "differences"):
        raise ValueError(
            f"{method} makes no reconstruction: it scores an image as a whole, and no pixel adds "
            "a part of its own. 'conocc methods' says which methods draw heat maps."
        )
    if detector.residual_scale_ is None:
        raise ValueError(
            f"'{run}' has no scale for pictures of its score. "
            f"Calibrate it: conocc calibrate RUN COHORT{f' --score {score}' if score else ''}."
        )
    reading = preprocessing, detector.input_shape_
    cases: list[dict[str, Any]] = []
    errors: list[tuple[str, str]] = []
    for block in load_images(where, *reading, table=table, n_jobs=n_jobs, verbose=verbose):
        errors += block.errors
        cases += _draw(detector, block, out, first=len(cases) + 1) if block.path else []
    if not cases:
        raise none_of(errors, "can be explained")
    sentences = list(legend(detector, is_sum=all(case["is_sum"] for case in cases)))
    cases.sort(key=lambda case: -case["score"])
    page = {"method": method, "version": __version__, "legend": sentences, "cases": cases}
    claim(out, COMMAND, [PAGE, *([ERRORS] if errors else [])])
    write_text(out / PAGE, rendered("explain.html", {**page, "unread": len(errors)}))
    write_or_remove(out / ERRORS, ERROR_COLUMNS, errors)
    return Written(len(cases), out / PAGE, sentences, errors)


def none_of(errors: Sequence[tuple[str, str]], what: str) -> ValueError:
    """Say that nothing was written, since no image can be shown, and why the first cannot."""
    listed = "\n".join(named(*error) for error in errors[:5])
    return ValueError(
        f"None of {count(len(errors), 'image')} {what}. Nothing was written.\n{listed}"
    )


def _draw(detector: Any, block: Block, out: Path, first: int) -> list[dict[str, Any]]:
    """Draw the images of a block, numbered from `first` on; give what the page says of each.

    `is_sum` is whether the score is what the differences add up to, as `differences` says.
    """
    scores = detector.anomaly_score(block.images)
    given, again, left = explained(detector, block.images)
    scale = detector.residual_scale_
    is_sum = np.isclose(scores, scale.totals(left), rtol=SUM_TOLERANCE, atol=0)
    said = [f"score {readable(score)}" for score in scores]
    if detector.calibration_ is not None:
        p_values = detector.calibration_.p_values(scores, unit="image")
        said = [f"{score}, p-value {p:.2g}" for score, p in zip(said, p_values, strict=True)]
    cases = [
        {
            "file": f"{first + i:05d}-{_safe(path)}.png",
            "path": printable(path),
            "score": float(scores[i]),
            "summary": said[i],
            "is_sum": is_sum[i],
        }
        for i, path in enumerate(block.path)
    ]
    claim(out, COMMAND, [case["file"] for case in cases])
    unit = UNITS[detector.normalize]
    for i, case in enumerate(cases):
        title = f"{first + i}: {_safe(block.path[i])}   {said[i]}"
        other = again[i] if len(again) else None
        figure = explanation(given[i], other, left[i], scale, title=title, unit=unit)
        save_figure(figure, out / case["file"])
    return cases


def _safe(path: str) -> str:
    """Give the name of a path without what a file system, or a font, may not know.

    >>> _safe("a folder/Größe 1:2.png")
    'Gr_e_1_2'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(path).stem)[:LONGEST_NAME]


def legend(detector: Any, *, is_sum: bool) -> Iterator[str]:
    """Say what the colours are, of what images their scale is, and what the score is of them."""
    scale = detector.residual_scale_
    what = (
        "Orange is where an image is brighter than its reconstruction, blue where it is darker, "
        f"in {UNITS[detector.normalize]}"
    )
    if scale.of == "correlation":
        what = (
            "Orange is where the pattern of an image is not that of its reconstruction: one less "
            "the correlation of the two around each pixel. The score is the mean over all pixels"
        )
    if scale.of == "contribution":
        what = (
            "Orange is what adds to the score, blue what takes from it: each place of an image has "
            f"its part{', and all parts sum to the score' if is_sum else ''}. It is by pixel"
        )
    yield (
        f"{what}: nothing is drawn up to {readable(scale.faint)}, and full "
        f"colour is from {readable(scale.full)} on. "
        f"The scale is the same for all images. It is of {count(scale.images, 'majority image')}, "
        f"of whose pixels {100 * FAINT:g} % show nothing and {100 * (1 - FULL):.1f} % full colour."
    )
    if scale.source == "training":
        yield (
            "These are training images, of which a method leaves less than of new ones: new "
            "majority images look less calm here than they are. 'conocc calibrate' sets the "
            "scale on images that were never trained on."
        )
    if not is_sum:
        yield (
            f"The score of {type(detector).__name__} is not the sum of these differences: an "
            "image can score high and look calm, and the other way round."
        )
