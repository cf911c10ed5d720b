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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

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
from conocc.detectors.file_scores import (
    NO_SCORE,
    image_preprocessing_of,
    one_torch_thread,
    scores_of,
)
from conocc.detectors.residual_scale import averaged
from conocc.experiments.artifacts import explained
from conocc.experiments.run import load_model, model_hash
from conocc.experiments.seen import about_batch
from conocc.io.files import OWNER, PICTURE_MARK, claim, refuse_foreign, refuse_made, write_text
from conocc.io.pictures import data_url, rgb
from conocc.io.progress import bar
from conocc.io.tables import ERROR_COLUMNS, write_or_remove
from conocc.io.words import percent
from conocc.thresholds.rule import RULE, Rule
from conocc.thresholds.rules import NO_DECISION, Decisions, decisions
from conocc.visualization.explain import SUM_TOLERANCE, Written, legend, none_of
from conocc.visualization.html import rendered
from conocc.visualization.images import colours

COMMAND, PAGE, ERRORS, IMAGES = "review", "index.html", "errors.csv", "images"
# Images that a thread reads and scores together: their pixels are in memory at once.
PIECE = 8
THUMBNAIL = 96  # pixels of the longer side
PICTURE = r"\d{5,}\.(js|png)"
LEVELS = 2**16  # that are told apart where an image has more, or has fractions
# What a window shows at first of an image of more than 8 bits, in per cent of its pixels.
SHOWN = (0.5, 99.5)


@dataclass(frozen=True)
class Case:
    """One image of the worklist, whose picture is written."""

    number: int
    id: str
    path: str
    score: float
    is_sum: bool
    facts: tuple[float, ...]
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


class Drawn(NamedTuple):
    """What is to be written of one image."""

    case: Case
    picture: dict[str, Any]
    thumbnail: bytes
    remarks: tuple[str, ...]


def is_picture(name: str) -> bool:
    """Say whether a file is called as those of images are."""
    return re.fullmatch(PICTURE, name) is not None


class Batch:
    """Images that are scored and drawn once each, however often a page of them is made.

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
    score : str, optional
        By which of its scores a method that has several scores; by default the run's.

    Raises
    ------
    ValueError
        If the method was not fitted to files, or the rule refuses.
    FileExistsError
        If `out` holds files of these names that no such call wrote.

    Attributes
    ----------
    where : list of path
    cases : list of Case
    errors : list of (path, reason)
    remarks : Counter of str
    """

    def __init__(
        self,
        run: str | Path,
        where: Sequence[str | Path],
        out: str | Path,
        *,
        table: TableOptions = TableOptions(),
        rule: Rule = RULE,
        score: str | None = None,
    ) -> None:
        self.run, self.where, self.out, self.table = run, list(where), Path(out), table
        refuse_made(self.out, OWNER)
        refuse_foreign(self.out, COMMAND, f"{re.escape(PAGE)}|{re.escape(ERRORS)}")
        refuse_foreign(self.out / IMAGES, COMMAND, PICTURE)
        self.detector = load_model(run, score)
        self.preprocessing = image_preprocessing_of(self.detector, run)
        self.decided = decisions(self.detector, rule)
        self.decided.columns(np.empty(0))  # what the rule refuses, it refuses before all else
        self.key = _key(run, where)
        self.remarks = Counter[str]()
        self._numbers: dict[tuple[Any, ...], int] = {}  # of a path, with size and time of its file
        self._done: dict[int, Case | tuple[str, str]] = {}
        self._labels: dict[int, str] = {}
        self._begun = 0  # pictures up to this number are claimed

    @property
    def cases(self) -> list[Case]:
        return [one for _, one in sorted(self._done.items()) if isinstance(one, Case)]

    @property
    def errors(self) -> list[tuple[str, str]]:
        return [one for _, one in sorted(self._done.items()) if not isinstance(one, Case)]

    def made(self, *, n_jobs: int | None = None, verbose: int = 0) -> Written:
        """Make the page, the most unusual image first; `n_jobs` threads read, by default all.

        Raises
        ------
        ValueError
            If no image has a score.
        FileNotFoundError
            If one of `where` does not exist. Whatever is raised, nothing was written, unless the
            disk failed or the command was stopped.
        """
        self.update(n_jobs=n_jobs, verbose=verbose)
        if not self.cases:
            raise none_of(self.errors, "has a score")
        page = self.write()
        said = [page["counts"], *page["words"], *page["warnings"], *said_of(self.remarks)]
        return Written(len(self.cases), self.out / PAGE, said, self.errors)

    def update(self, *, n_jobs: int | None = None, verbose: int = 0) -> bool:
        """Draw what is new, and let go what is there no more; tell whether anything changed."""
        parts = list_images(self.where, self.preprocessing, self.table)
        before, self._numbers = self._numbers, {}
        todo: list[tuple[int, tuple[str, Fetch]]] = []
        last = max(before.values(), default=0)
        for part in parts:
            stamps = part.stamps()
            labels = part.labels or ("",) * len(part)
            items = zip(part.items(self.preprocessing.size), labels, strict=True)
            for i, (item, label) in enumerate(items):
                key = item[0], stamps[i % len(stamps)]
                if key not in before and key not in self._numbers:
                    last += 1
                    todo.append((last, item))
                self._numbers.setdefault(key, before.get(key, last))
                self._labels[self._numbers[key]] = label
        gone = set(before.values()) - set(self._numbers.values())
        for number in gone:
            self._done.pop(number, None)
        pieces = (todo[i : i + PIECE] for i in range(0, len(todo), PIECE))
        threads = usable_threads(n_jobs)
        with one_torch_thread(), bar("Drawing images", len(todo), verbose=verbose) as advance:
            for some in prefetch(self._piece, pieces, n_jobs=threads, handful=1):
                for number, done in some:
                    one = self._kept(done, last) if isinstance(done, Drawn) else done
                    self._done[number] = one
                advance(len(some))
        return bool(todo or gone)

    def _kept(self, drawn: Drawn, last: int) -> Case:
        """Write the picture of an image; the page of an earlier call goes before the first."""
        if not self._begun:  # or that page would show wrong images
            claim(self.out, COMMAND, [PAGE, ERRORS])
            (self.out / PAGE).unlink(missing_ok=True)
        if self._begun < last:
            names = [f"{i:05d}.{kind}" for i in range(1, last + 1) for kind in ("js", "png")]
            claim(self.out / IMAGES, COMMAND, names)
            self._begun = last
        name = self.out / IMAGES / f"{drawn.case.number:05d}"
        script = f"picture({json.dumps(drawn.picture)});\n"
        name.with_suffix(".js").write_text(script, encoding="ascii")
        name.with_suffix(".png").write_bytes(drawn.thumbnail)
        self.remarks.update(drawn.remarks)
        return drawn.case

    def page(self) -> dict[str, Any]:
        """Give what the template shows."""
        counts, words, warnings = _words(self.detector, self.decided, self.cases)
        is_sum = all(case.is_sum for case in self.cases)
        has_maps = self.detector.residual_scale_ is not None
        return {
            "key": self.key,
            "cases": _listed(self.decided, self.cases, self._labels),
            "errors": self.errors,
            "counts": counts,
            "words": words,
            "warnings": warnings,
            "folder": printable(os.getcwd()),
            "version": __version__,
            "method": type(self.detector).__name__,
            "legend": list(legend(self.detector, is_sum=is_sum)) if has_maps else [],
            "run": printable(self.run),
            "revision": 0,  # of a page that is served, which has others
        }

    def write(self) -> dict[str, Any]:
        """Write the page, which `page` gives, and what could not be read; remove old pictures."""
        numbers = {case.number for case in self.cases}
        for path in (self.out / IMAGES).iterdir():  # all such were claimed
            if is_picture(path.name) and int(path.stem) not in numbers:
                path.unlink()
        write_or_remove(self.out / ERRORS, ERROR_COLUMNS, self.errors)
        page = self.page()
        write_text(self.out / PAGE, rendered("review.html", {"page": page}, assets="review"))
        return page

    def _piece(
        self, items: Sequence[tuple[int, tuple[str, Fetch]]]
    ) -> list[tuple[int, Drawn | tuple[str, str]]]:
        """Read, score and draw some images, in one thread."""
        found = examined(self.detector, self.preprocessing, items)
        return [
            (number, self._drawn(number, one) if isinstance(one, Examined) else one)
            for number, one in found
        ]

    def _drawn(self, number: int, one: Examined) -> Drawn:
        (path,), (facts,) = one.block.path, one.block.acquisition
        identity = _id(path, digest_of(one.blob))
        whole, scale = one.whole(self.preprocessing), self.detector.residual_scale_
        picture, is_sum = {"id": identity, **stored(whole)}, False
        if one.left is not None:
            picture["heat"] = _picture(np.rint(255 * colours(one.heat(), scale)))
            total = scale.totals(one.left[None])[0]
            is_sum = bool(np.isclose(one.score, total, rtol=SUM_TOLERANCE, atol=0))
        if one.again is not None:
            grey = rgb(one.again, float(one.given.min()), float(one.given.max()))
            picture["again"] = _picture(grey)
        picture["place"] = placed(whole.shape[0], whole.shape[1], self.preprocessing)
        case = Case(number, identity, path, one.score, is_sum, facts, person_on(one.blob))
        return Drawn(case, picture, thumbnail(whole, picture["window"]), one.block.remarks)


class Examined(NamedTuple):
    """One image, its score, and what is left of it in a heat map, if there is one."""

    block: Block  # of this image alone
    blob: Blob
    score: float
    given: np.ndarray  # (c, h, w) each, as `explained` gives them
    again: np.ndarray | None = None
    left: np.ndarray | None = None

    def whole(self, preprocessing: Preprocessing) -> Pixels:
        """Give the image at its own resolution, (h, w), or (h, w, 3) if it has colours."""
        blob = self.blob
        if isinstance(blob, bytes):
            blob = decode(blob, printable(self.block.path[0]), preprocessing.voi)
        pixels = remarked(blob).pixels
        return pixels if is_colour(pixels) else pixels.reshape(*pixels.shape[:2], -1)[..., 0]

    def heat(self) -> np.ndarray:
        """Give what the heat map shows, (h, w), as the method sees the image."""
        assert self.left is not None
        return averaged(self.left[None])[0]


def examined(
    detector: Any, preprocessing: Preprocessing, items: Iterable[tuple[int, tuple[str, Fetch]]]
) -> Iterator[tuple[int, Examined | tuple[str, str]]]:
    """Read, score and explain some images together; a path and a reason where one has no score."""
    read: list[tuple[int, Block, Blob]] = []
    for number, (path, fetch) in items:
        once = cache(fetch)
        block = read_block(preprocessing, detector.input_shape_, [(path, once)])
        yield from ((number, error) for error in block.errors)
        if block.path:
            read.append((number, block, once()))
    if not read:
        return
    images = np.concatenate([block.images for _, block, _ in read])
    scores = scores_of(detector, images)
    maps = _maps(detector, images[np.isfinite(scores)])
    for (number, block, blob), score in zip(read, scores.tolist(), strict=True):
        path = printable(block.path[0])
        if np.isfinite(score):
            yield number, Examined(block, blob, score, *next(maps))
        else:
            yield number, (path, NO_SCORE.format(path))


def _maps(detector: Any, images: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Give each image as it is seen, reconstruction and what is left of it, where there are any."""
    if detector.residual_scale_ is None or not len(images):
        yield from zip(images)
        return
    given, again, left = explained(detector, images)
    yield from zip(given, again if len(again) else repeat(None), left, strict=False)


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
    changes = np.diff(planes, axis=2, prepend=0).astype(planes.dtype.newbyteorder("<"))
    data = np.frombuffer(changes.tobytes(), np.uint8).reshape(-1, planes.itemsize).T
    return {
        "h": image.shape[0],
        "w": image.shape[1],
        "channels": len(planes),
        "bytes": 2 if deep else 1,
        "low": low,
        "step": step,
        "high": high,
        "window": shown_window(image),
        "data": base64.b64encode(imagecodecs.deflate_encode(data.tobytes(), 3)).decode("ascii"),
    }


def shown_window(image: Pixels) -> list[float]:
    """Say which values of an image are black and white at first."""
    window = [0.0, 255.0]
    if image.dtype != np.uint8:
        few = image[:: max(1, image.shape[0] // 256), :: max(1, image.shape[1] // 256)]
        window = [float(value) for value in np.percentile(few, SHOWN)]
    return window if window[0] < window[1] else [float(image.min()), float(image.max())]


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
    drawn_by.add_text("Software", PICTURE_MARK.decode())  # so that nobody scores it
    small.save(file, "PNG", pnginfo=drawn_by)
    return file.getvalue()


# --- the worklist --------------------------------------------------------------------------------


def _listed(
    decided: Decisions, cases: Sequence[Case], labels: Mapping[int, str]
) -> list[dict[str, Any]]:
    """List images from the highest score, by their patients where these are known."""
    columns = decided.columns(np.array([case.score for case in cases], float))
    paths, persons = [case.path for case in cases], [case.person for case in cases]
    patients = find_patients(paths, given=(), folder=None, regex=None, persons=persons)
    names = patients.names if patients.known else [""] * len(cases)
    zipped = zip(cases, *columns, names, strict=True)
    rows = [
        {**case.shown(p, predicted, patient), "label": printable(labels[case.number])}
        for case, p, predicted, patient in zipped
    ]
    return sorted(rows, key=lambda row: -row["score"])


def _words(
    detector: Any, decided: Decisions, cases: Sequence[Case]
) -> tuple[str, list[str], list[str]]:
    """Say how many are flagged; by which rule; and how the batch is unlike the calibration."""
    scores = np.array([case.score for case in cases], float)
    flagged, known = decided.flagged(scores), decided.calibration
    counts = count(len(cases), "image")
    if flagged is not None and known is not None:
        rule = decided.rule
        what = "false discoveries" if rule.false_alarms is None else "false alarms"
        counts += f" · {flagged.sum()} flagged at ≤ {percent(rule.false_alarms or rule.fdr or 0)} "
        counts += f"{what}, {count(known.patients, f'calibration {known.each}')}"
    has_volumes = any(is_slice_name(case.path) for case in cases)
    of_volumes = [NO_DECISION] if has_volumes and "" in decided.of_volumes([0.0]) else []
    files = np.array([hash(volume_and_slice(case.path)[0]) for case in cases])
    facts = np.array([case.facts for case in cases])
    batch = about_batch(detector, decided, scores, facts, files) if cases else {"words": []}
    words = [*batch["words"], *batch.get("moved", {}).values()]
    return counts, [decided.words(), *of_volumes, *words[:1]], words[1:]


def _key(run: str | Path, where: Sequence[str | Path]) -> str:
    """Name the run and the batch, for what a browser keeps: the same when the page is made anew."""
    return _id(model_hash(run), *map(os.path.abspath, where))
