"""A folder in which a reader works: images in the order of their scores, at their own resolution.

The page opens from disk. It holds the worklist; each image is a script of its own, which the page
loads when the image is looked at: ``images/00012.js`` calls ``picture`` with the pixels, how far
they are from the reconstruction, and the reconstruction. Pixels keep their values: they are
differences along rows, compressed, so that a browser reads 16 bits as well as 8.

Letters: n images, c channels, h and w pixels.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from conocc._version import __version__
from conocc.data.columns import TableOptions
from conocc.data.decoding import digest_of, person_on, prefetch, said_of, usable_threads
from conocc.data.image_io.dicom_person import Person
from conocc.data.image_io.pixels import Pixels, remarked
from conocc.data.image_io.read import decode, is_colour
from conocc.data.image_io.stack import is_slice_name, volume_and_slice
from conocc.data.index import Blob, Fetch, count, printable
from conocc.data.patients import find_patients
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import Block, list_images, read_block
from conocc.detectors.residual_scale import averaged
from conocc.experiments.inference import NO_SCORE, one_torch_thread, scores_of
from conocc.experiments.run import load_model, model_path, preprocessing_of
from conocc.io.files import claim, refuse_foreign, write_text
from conocc.io.progress import bar
from conocc.io.tables import ERROR_COLUMNS, write_csv
from conocc.thresholds.conformal import percent
from conocc.thresholds.rule import RULE, Rule
from conocc.thresholds.rules import NO_DECISION, Decisions, decisions
from conocc.visualization.explain import SUM_TOLERANCE, legend
from conocc.visualization.html import data_url, rendered
from conocc.visualization.images import colours, rgb

COMMAND, PAGE, ERRORS, IMAGES = "review", "index.html", "errors.csv", "images"
# Images that a thread reads and scores together: their pixels are in memory at once.
PIECE = 8
THUMBNAIL = 96  # pixels of the longer side
PICTURE = r"\d{5,}\.(js|png)"
LEVELS = 2**16  # that are told apart where an image has more, or has fractions
# What a window shows at first of an image of more than 8 bits, in per cent of its pixels.
SHOWN = (0.5, 99.5)


@dataclass(frozen=True)
class Reviewed:
    """What `review_files` left: the page, of how many images, and what could not be read.

    `words` say how many are flagged, by which rule, and whether the batch is like the
    calibration; `remarks` of how many images something was done to the pixels.
    """

    count: int
    page: Path
    words: tuple[str, ...]
    remarks: tuple[str, ...]
    errors: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Case:
    """One image of the worklist, whose picture is written."""

    number: int
    id: str
    path: str
    score: float
    is_sum: bool
    person: Person | None

    def shown(self, p_value: float | str, predicted: str, patient: str) -> dict[str, Any]:
        """Give what the page lists of it; None for what is not known."""
        volume, k = volume_and_slice(self.path)
        return {
            "file": f"{self.number:05d}",
            "id": self.id,
            "path": printable(self.path),
            "volume": None if k is None else printable(volume),
            "slice": k,
            "patient": printable(patient),
            "score": self.score,
            "p": None if p_value == "" else p_value,
            "flagged": predicted == "minority" if predicted else None,
        }


def review_files(
    run: str | Path,
    where: Sequence[str | Path],
    out: str | Path,
    *,
    table: TableOptions = TableOptions(),
    rule: Rule = RULE,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Reviewed:
    """Make a folder with a page for going through images, the most unusual first.

    Files are read and scored as `conocc.experiments.inference.score_files` does, with the same
    scores. Into `out` go ``index.html``, ``images/`` with a script and a thumbnail an image, and
    ``errors.csv`` with those that cannot be read, if there are such. What an earlier call wrote
    there is replaced; nothing else ever is.

    Parameters
    ----------
    run : path
        A run's folder, or a model file.
    where : sequence of path
        See `conocc.data.unlabelled.list_images`.
    out : path
        A folder.
    table : TableOptions
        How manifests and archives among `where` are read.
    rule : Rule
        When an image is flagged.
    n_jobs : int, optional
        Threads; all cores by default.

    Raises
    ------
    ValueError
        If the method was not fitted to files, the rule refuses, or no image has a score.
    FileNotFoundError
        If one of `where` does not exist.
    FileExistsError
        If `out` holds files of these names that no such call wrote. Whatever is raised, nothing
        was written, unless the disk failed or the command was stopped.
    """
    out = Path(out)
    refuse_foreign(out, COMMAND, f"{re.escape(PAGE)}|{re.escape(ERRORS)}")
    refuse_foreign(out / IMAGES, COMMAND, PICTURE)
    detector = load_model(run)
    preprocessing = preprocessing_of(detector, run)
    decided = decisions(detector, rule)
    decided.columns(np.empty(0))  # what the rule refuses, it refuses before anything is read
    parts = list_images(where, preprocessing, table)
    items = enumerate(chain.from_iterable(part.items(preprocessing.size) for part in parts), 1)
    n, threads = sum(map(len, parts)), usable_threads(n_jobs)
    writer = _Writer(out, n)
    cases: list[Case] = []
    errors: list[tuple[str, str]] = []
    remarks: list[str] = []
    pieces = iter(lambda: list(islice(items, PIECE)), [])
    made = partial(_piece, detector, preprocessing, writer)
    with one_torch_thread(), bar("Drawing images", n, verbose=verbose) as advance:
        for some, its_errors, its_remarks in prefetch(made, pieces, n_jobs=threads, handful=1):
            cases += some
            errors += its_errors
            remarks += its_remarks
            advance(len(some) + len(its_errors))
    if not cases:
        listed = "\n".join(f"{path}: {reason}" for path, reason in errors[:5])
        raise ValueError(f"None of the {n} images has a score. Nothing was written.\n{listed}")
    writer.remove_others({case.number for case in cases})
    counts, words, warnings = _words(decided, cases)
    explained = legend(detector, is_sum=all(case.is_sum for case in cases))
    page = {
        "key": _key(run, where),
        "cases": _listed(decided, cases),
        "errors": errors,
        "counts": counts,
        "words": words,
        "warnings": warnings,
        "folder": printable(os.getcwd()),
        "version": __version__,
        "method": type(detector).__name__,
        "legend": list(explained) if hasattr(detector, "reconstruct") else [],
        "run": printable(run),
    }
    if errors:
        write_csv(out / ERRORS, ERROR_COLUMNS, errors)
    else:
        (out / ERRORS).unlink(missing_ok=True)  # an earlier call's: no other is here
    write_text(out / PAGE, rendered("review.html", {"page": page}, assets="review"))
    counted = {remark: remarks.count(remark) for remark in dict.fromkeys(remarks)}
    said = (counts, *words, *warnings)
    return Reviewed(len(cases), out / PAGE, said, said_of(counted), tuple(errors))


class _Writer:
    """Puts pictures into a folder, from threads; the page of an earlier call goes before them."""

    def __init__(self, out: Path, n: int) -> None:
        self.out, self.n = out, n
        self.begin = cache(self._begin)

    def _begin(self) -> None:
        # A page beside pictures of another call would show the wrong image.
        claim(self.out, COMMAND, [PAGE, ERRORS])
        names = [f"{i:05d}.{kind}" for i in range(1, self.n + 1) for kind in ("js", "png")]
        claim(self.out / IMAGES, COMMAND, names)
        (self.out / PAGE).unlink(missing_ok=True)

    def write(self, number: int, picture: dict[str, Any], thumbnail: bytes) -> None:
        self.begin()
        name = self.out / IMAGES / f"{number:05d}"
        name.with_suffix(".js").write_text(f"picture({json.dumps(picture)});\n", encoding="ascii")
        name.with_suffix(".png").write_bytes(thumbnail)

    def remove_others(self, numbers: set[int]) -> None:
        """Remove the pictures of an earlier call; all that there are were claimed."""
        for path in (self.out / IMAGES).iterdir():
            if re.fullmatch(PICTURE, path.name) and int(path.stem) not in numbers:
                path.unlink()


def _piece(
    detector: Any,
    preprocessing: Preprocessing,
    writer: _Writer,
    items: Sequence[tuple[int, tuple[str, Fetch]]],
) -> tuple[list[Case], list[tuple[str, str]], list[str]]:
    """Read, score and draw some images, in one thread."""
    read: list[tuple[int, Block, Blob]] = []
    errors: list[tuple[str, str]] = []
    for number, (path, fetch) in items:
        once = cache(fetch)
        block = read_block(preprocessing, detector.input_shape_, [(path, once)])
        errors += block.errors
        if block.path:
            read.append((number, block, once()))
    if not read:
        return [], errors, []
    images = np.concatenate([block.images for _, block, _ in read])
    scores = scores_of(detector, images)
    maps = _maps(detector, images[np.isfinite(scores)])
    cases: list[Case] = []
    remarks: list[str] = []
    for (number, block, blob), score in zip(read, scores.tolist(), strict=True):
        (path,) = block.path
        if not np.isfinite(score):
            errors.append((printable(path), NO_SCORE.format(printable(path))))
            continue
        identity, person = _id(path, digest_of(blob)), person_on(blob)
        if isinstance(blob, bytes):
            blob = decode(blob, printable(path), preprocessing.voi)
        whole = remarked(blob).pixels
        if not is_colour(whole):
            whole = whole.reshape(*whole.shape[:2], -1)[..., 0]
        total, layers = next(maps)
        is_sum = bool(np.isclose(score, total, rtol=SUM_TOLERANCE, atol=0))
        case = Case(number, identity, path, score, is_sum, person)
        place = placed(whole.shape[0], whole.shape[1], preprocessing)
        drawn = {"id": case.id, **stored(whole), "place": place, **layers}
        writer.write(number, drawn, thumbnail(whole, drawn["window"]))
        cases.append(case)
        remarks += block.remarks
    return cases, errors, remarks


def _maps(detector: Any, images: np.ndarray) -> Iterator[tuple[float, dict[str, str]]]:
    """Give heat map and reconstruction of each image, where there are any, and what they sum to."""
    if not hasattr(detector, "reconstruct") or not len(images):
        yield from ((0.0, {}) for _ in images)
        return
    given, again = detector.normalized(images), detector.reconstruct(images)
    for one, other in zip(given, again, strict=True):
        residual = one - other
        heat = np.rint(255 * colours(averaged(residual[None])[0], detector.residual_scale_))
        grey = rgb(other, float(one.min()), float(one.max()))
        layers = {"heat": _picture(heat), "again": _picture(grey)}
        yield float((residual.astype(np.float64) ** 2).sum()), layers


def _picture(layer: np.ndarray) -> str:
    encoded = imagecodecs.png_encode(np.ascontiguousarray(layer, np.uint8))
    return data_url(bytes(encoded), "png")


def _id(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


# --- pixels --------------------------------------------------------------------------------------


def stored(image: Pixels) -> dict[str, Any]:
    """Give an image, (h, w) or (h, w, 3), as plain values that a browser can read to the last bit.

    ``data`` are the levels of each channel, row by row, as differences from the pixel before, of
    16 bits the lower bytes and then the higher ones, compressed by zlib, in base64. A value is
    ``low + step * level``. The step is 1, so that all values stay, except where they span more
    than `LEVELS` or have fractions. ``window`` is what is shown at first, (lowest, highest).
    """
    low, high = float(image.min()), float(image.max())
    exact = image.dtype.kind != "f" and high - low < LEVELS
    step = 1.0 if exact else (high - low) / (LEVELS - 1)
    shifted = image.astype(np.int32) - int(low) if exact else np.rint((image - low) / step)
    deep = not exact or high - low > 255
    planes = np.moveaxis(np.atleast_3d(shifted.astype(np.uint16 if deep else np.uint8)), -1, 0)
    changes = np.ascontiguousarray(np.diff(planes, axis=2, prepend=0).astype(planes.dtype))
    data = changes.astype(changes.dtype.newbyteorder("<")).view(np.uint8)
    if deep:
        data = np.concatenate([data.ravel()[::2], data.ravel()[1::2]])
    window = [0.0, 255.0]
    if image.dtype != np.uint8:
        few = image[:: max(1, image.shape[0] // 256), :: max(1, image.shape[1] // 256)]
        window = [float(value) for value in np.percentile(few, SHOWN)]
    return {
        "h": image.shape[0],
        "w": image.shape[1],
        "channels": len(planes),
        "bytes": 2 if deep else 1,
        "low": low,
        "step": step,
        "high": high,
        "window": window if window[0] < window[1] else [low, high],
        "data": base64.b64encode(imagecodecs.deflate_encode(data.tobytes(), 3)).decode("ascii"),
    }


def placed(h: int, w: int, preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Say where what a detector sees lies on an image: left, top, width, height, as shares of it.

    >>> placed(100, 200, Preprocessing(size=16)), placed(100, 200, Preprocessing(16, fit="crop"))
    ((0.0, 0.0, 1.0, 1.0), (0.25, 0.0, 0.5, 1.0))
    >>> placed(100, 200, Preprocessing(size=16, fit="pad"))  # as much above as below
    (0.0, -0.5, 1.0, 2.0)
    """
    size = preprocessing.size
    if size is None or preprocessing.fit == "stretch":
        return 0.0, 0.0, 1.0, 1.0
    if preprocessing.fit == "crop":
        side = min(h, w)
        return (w - side) // 2 / w, (h - side) // 2 / h, side / w, side / h
    high, wide = (max(1, round(side * size / max(h, w))) for side in (h, w))
    return -((size - wide) // 2) / wide, -((size - high) // 2) / high, size / wide, size / high


def thumbnail(image: Pixels, window: Sequence[float]) -> bytes:
    """Give a small PNG of an image, (h, w) or (h, w, 3), in a window."""
    step = max(1, min(image.shape[:2]) // (2 * THUMBNAIL))  # then averaged over two and more
    low, high = window
    few = np.clip((image[::step, ::step].astype(np.float32) - low) / (high - low), 0, 1)
    small = Image.fromarray(np.rint(255 * few).astype(np.uint8))
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file, drawn_by = io.BytesIO(), PngInfo()
    drawn_by.add_text("Software", "conocc")  # so that nobody scores it
    small.save(file, "PNG", pnginfo=drawn_by)
    return file.getvalue()


# --- the worklist --------------------------------------------------------------------------------


def _listed(decided: Decisions, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """List images from the highest score, by their patients where these are known."""
    columns = decided.columns(np.array([case.score for case in cases]))
    paths, persons = [case.path for case in cases], [case.person for case in cases]
    patients = find_patients(paths, given=(), folder=None, regex=None, persons=persons)
    names = patients.names if patients.known else [""] * len(cases)
    zipped = zip(cases, *columns, names, strict=True)
    rows = [case.shown(p, predicted, patient) for case, p, predicted, patient in zipped]
    return sorted(rows, key=lambda row: -row["score"])


def _words(decided: Decisions, cases: Sequence[Case]) -> tuple[str, list[str], list[str]]:
    """Say how many are flagged; by which rule; and how the batch is unlike the calibration."""
    scores = np.array([case.score for case in cases])
    flagged, known = decided.flagged(scores), decided.calibration
    counts = count(len(cases), "image")
    if flagged is not None and known is not None:
        rule = decided.rule
        what = "false discoveries" if rule.false_alarms is None else "false alarms"
        counts += f" · {flagged.sum()} flagged at ≤ {percent(rule.false_alarms or rule.fdr or 0)} "
        counts += f"{what}, {known.patients} calibration patients"
    has_volumes = any(is_slice_name(case.path) for case in cases)
    of_volumes = [NO_DECISION] if has_volumes and "" in decided.of_volumes([0.0]) else []
    files = np.array([hash(volume_and_slice(case.path)[0]) for case in cases])
    batch = decided.words_on(scores, files)
    return counts, [decided.words(), *of_volumes, *batch[:1]], batch[1:]


def _key(run: str | Path, where: Sequence[str | Path]) -> str:
    """Name the run and the batch, for what a browser keeps: the same when the page is made anew."""
    model = hashlib.sha256(model_path(run).read_bytes()).hexdigest()
    return _id(model, *map(os.path.abspath, where))
