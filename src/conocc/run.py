"""One run: a fit and its folder, from which everything later is made.

=======================  ==============================================================
``run.json``             what was asked: command, method, parameters, cohort, versions
``split.csv``            every image of the cohort, and the side of the split it was on
``checkpoint``           the state of an unfinished fit; gone once it is finished
``history.csv``          one row an epoch, each term of the loss
``model.safetensors``    the detector
``scores.csv``           the score of every test image; `evaluate` writes it
``metrics.json``         AUC, AUPR-maj, AUPR-min with intervals and counts; likewise
``gallery.npz``          the images it erred on most, with reconstructions; likewise
``embedding.npz``        bottleneck features, where the method has them; likewise
=======================  ==============================================================
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import torch

from conocc._version import __version__
from conocc.cohort import Cohort
from conocc.evidence import Embedding, embedding_of, gallery_of
from conocc.files import write_csv, write_json, write_text
from conocc.formats.nifti import is_slice_name
from conocc.incoming import load_images
from conocc.intervals import auc_interval, bootstrap_interval
from conocc.methods import load, method_class
from conocc.metrics import METRICS
from conocc.readers import Reading
from conocc.volumes import VOLUME_COLUMNS, by_volume

logger = logging.getLogger("conocc")

RUN_FORMAT = 1
# What may change between two calls of the same fit.
FREE_PARAMETERS = {"device", "verbose"}
SCORE_COLUMNS = ("path", "digest", "label", "minority", "patient", "anomaly_score", "predicted")


def make_detector(method: str, params: Mapping[str, Any]) -> Any:
    """Make an unfitted detector; an unknown method or parameter is a sentence.

    >>> make_detector("cae", {"epochs": 5}).epochs
    5
    """
    kind = method_class(method)
    known = kind().get_params()
    for name in params:
        if name not in known:
            raise ValueError(
                f"The method {method!r} has no parameter {name!r}; it has {', '.join(known)}."
            )
    return kind(**params)


# --- fitting -----------------------------------------------------------------------------------


def fit_run(
    cohort: Cohort,
    method: str,
    params: Mapping[str, Any],
    out: str | Path,
    *,
    command: str,
    loading: Mapping[str, Any] | None = None,
) -> bool:
    """Fit a method to the majority training images of a cohort; return whether there was work.

    Called again with the same arguments, an unfinished fit goes on where it was, with the numbers
    of an unbroken one, and a finished one is left alone.
    `command` and `loading` (arguments that loaded the cohort) are noted in ``run.json``.

    Raises
    ------
    ValueError
        If `out` holds a run of other settings, or the cohort has too few training images.
    """
    out = Path(out)
    detector = make_detector(method, params)
    identity = _identity(cohort, method, detector)
    if _is_finished(out, identity):
        return False
    training = cohort.where(split="train", minority=False)
    if not len(training):
        raise ValueError(f"Cohort '{cohort.name}' has no majority image to train on.")

    about = {
        **identity,
        "command": command,
        "loading": dict(loading or {}),
        "notes": list(cohort.notes),
        "versions": versions(),
    }
    write_json(out / "run.json", {**about, "finished": False})
    write_text(out / "split.csv", cohort.table().to_csv(index=False, lineterminator="\n"))
    checkpoint = out / "checkpoint"
    start = time.perf_counter()
    patients = training.patient if cohort.patients_known else None
    detector.fit(training.images, groups=patients, checkpoint=checkpoint)
    seconds = time.perf_counter() - start
    # A method without epochs has a history too, an empty one.
    history = pd.DataFrame(detector.history_ or {"stage": [], "epoch": []})
    write_text(out / "history.csv", history.to_csv(index=False, lineterminator="\n"))
    detector.save(out / "model.safetensors", reading=cohort.reading.to_dict())
    done = {"finished": True, "seed": detector.seed_, "seconds": round(seconds, 1)}
    write_json(out / "run.json", {**about, **done, "threads": detector.threads_})
    checkpoint.unlink(missing_ok=True)
    return True


def versions() -> dict[str, str]:
    """Versions of what the numbers hang on."""
    return {
        "conocc": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }


def _identity(cohort: Cohort, method: str, detector: Any) -> dict[str, Any]:
    """All that decides what a fit learns, as JSON values."""
    params = {k: v for k, v in detector.get_params().items() if k not in FREE_PARAMETERS}
    images = hashlib.sha256(cohort.table().to_csv(index=False).encode()).hexdigest()
    identity = {
        "format": RUN_FORMAT,
        "method": method,
        "params": params,
        "cohort": cohort.name,
        "reading": cohort.reading.to_dict(),
        "images": images,
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _is_finished(out: Path, identity: Mapping[str, Any]) -> bool:
    """Tell whether `out` holds this run, finished; refuse it if it holds another one."""
    if not (out / "run.json").exists():
        return False
    about = read_run(out)
    was = {**about["params"], **{k: v for k, v in about.items() if k in identity}}
    now = {**identity["params"], **identity}
    changes = [
        f"{key} was {was.get(key)!r}, is {value!r}"
        for key, value in now.items()
        if key != "params" and was.get(key) != value
    ]
    if changes:
        raise ValueError(
            f"'{out}' holds a run with other settings: {'; '.join(changes)}. "
            "Choose another --out, or delete it."
        )
    return bool(about["finished"])


def read_run(out: Path) -> dict[str, Any]:
    """Read ``run.json``."""
    try:
        about: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
        if about["format"] > RUN_FORMAT:
            raise ValueError(f"its format is {about['format']}, this version reads {RUN_FORMAT}")
        about["params"], about["finished"], about["loading"]
    except FileNotFoundError:
        raise FileNotFoundError(f"'{out}' is not a run: it has no run.json.") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"Cannot read '{out / 'run.json'}': {error}.") from error
    return about


# --- scoring -----------------------------------------------------------------------------------


def load_model(run: str | Path) -> Any:
    """Load the detector of a run's folder, or of a model file."""
    run = Path(run)
    if run.is_dir():
        if not read_run(run)["finished"]:
            raise ValueError(f"The fit in '{run}' is not finished; run its command again.")
        run = run / "model.safetensors"
    return load(run)


@dataclass(frozen=True)
class Scored:
    """How many files `score_files` scored, and which it could not read: (path, reason)."""

    count: int
    errors: tuple[tuple[str, str], ...]


def score_files(
    run: str | Path,
    where: Sequence[str | Path],
    out: str | Path,
    *,
    top: int = 3,
    jobs: int | None = None,
    verbose: int = 0,
) -> Scored:
    """Score files, folders or cohorts into a CSV table, read as the training images were.

    Files that cannot be read go to ``errors.csv`` beside `out`, with the reason of each.
    Where there are volumes, ``volumes.csv`` beside `out` has, of each, the highest score of its
    slices and the mean of the `top` highest.
    """
    out = Path(out)
    detector = load_model(run)
    if detector.reading_ is None:
        raise ValueError(f"The model of '{run}' was fitted to arrays: it cannot read files.")
    reading = Reading.from_dict(detector.reading_)
    errors: list[tuple[str, str]] = []
    slices: dict[str, float] = {}
    count = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal count
        for block in load_images(where, reading, jobs=jobs, verbose=verbose):
            errors.extend(block.errors)
            if block.path:
                scores = detector.anomaly_score(block.images)
                count += len(scores)
                pairs = zip(block.path, scores.tolist(), strict=True)
                slices.update((path, score) for path, score in pairs if is_slice_name(path))
                yield from zip(
                    block.path, scores.tolist(), predicted(detector, scores), strict=True
                )

    write_csv(out, ("path", "anomaly_score", "predicted"), rows())
    _write_or_remove(out.with_name("errors.csv"), ("path", "reason"), errors)
    volumes = by_volume(slices.keys(), slices.values(), top=top)
    _write_or_remove(out.with_name("volumes.csv"), VOLUME_COLUMNS, volumes)
    return Scored(count, tuple(errors))


def _write_or_remove(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table, or where it would be empty remove that of an earlier call."""
    if rows:
        write_csv(path, header, rows)
    else:
        path.unlink(missing_ok=True)


def predicted(detector: Any, anomaly_score: np.ndarray) -> list[str]:
    """Name the class on either side of the detector's threshold; (n,) -> n words."""
    above = anomaly_score > -detector.offset_
    return ["minority" if minority else "majority" for minority in above]


# --- evaluating --------------------------------------------------------------------------------


def evaluate_run(run: str | Path, cohort: Cohort, *, command: str) -> dict[str, Any]:
    """Score the labelled test images of a cohort, and write what later pages are made of.

    That is ``scores.csv``, ``metrics.json``, ``gallery.npz`` and ``embedding.npz``.
    Which images are test images says the run's own ``split.csv``, by their content; images that it
    does not know count as the cohort has them. Images and patients that were trained on are
    left out, and counted under ``left_out``.

    Returns
    -------
    dict
        ``metrics`` (name to value, low, high), ``threshold`` (of the anomaly score), ``counts``,
        ``prevalence``, ``left_out``, and what made it.

    Raises
    ------
    ValueError
        If fewer than both classes are left.
    """
    run = Path(run)
    detector = load_model(run)
    rows, left_out = _test_rows(run, detector, cohort)
    test = cohort.take(rows)
    counts = {
        "majority": int((~test.minority).sum()),
        "minority": int(test.minority.sum()),
        "patients": len(np.unique(test.patient)) if test.patients_known else None,
    }
    if not counts["majority"] or not counts["minority"]:
        why = "".join(f" {n} left out: {reason}." for reason, n in left_out.items() if n)
        raise ValueError(
            f"Cannot evaluate on '{cohort.name}': {counts['majority']} majority and "
            f"{counts['minority']} minority test images; both classes are needed.{why}"
        )
    scores = detector.anomaly_score(test.images)
    table = zip(
        *(getattr(test, name).tolist() for name in SCORE_COLUMNS[:5]),
        scores.tolist(),
        predicted(detector, scores),
        strict=True,
    )
    result = {
        "format": RUN_FORMAT,
        "cohort": cohort.name,
        "metrics": measured(test.minority, scores, test.patient if test.patients_known else None),
        "threshold": -detector.offset_,
        "counts": counts,
        "prevalence": counts["minority"] / len(test),
        "left_out": left_out,
        "command": command,
        "versions": versions(),
    }
    write_csv(run / "scores.csv", SCORE_COLUMNS, table)
    gallery_of(detector, test, scores).save(run / "gallery.npz")
    if hasattr(detector, "embed"):
        _embed(run, detector, cohort, test)
    write_json(run / "metrics.json", result)
    return result


def embed_run(run: str | Path, cohort: Cohort) -> Embedding:
    """Write ``embedding.npz`` alone, of the same images as `evaluate_run`, and return it.

    Raises
    ------
    ValueError
        If the method has no bottleneck features.
    """
    run = Path(run)
    detector = load_model(run)
    if not hasattr(detector, "embed"):
        raise ValueError(f"The {type(detector).__name__} of '{run}' has no bottleneck features.")
    rows, _ = _test_rows(run, detector, cohort)
    return _embed(run, detector, cohort, cohort.take(rows))


def _embed(run: Path, detector: Any, cohort: Cohort, test: Cohort) -> Embedding:
    trained_on = (_sides(run, cohort) == "train") & ~cohort.minority
    embedding = embedding_of(detector, cohort.take(trained_on), test)
    embedding.save(run / "embedding.npz")
    return embedding


def measured(
    minority: np.ndarray, anomaly_score: np.ndarray, patient: np.ndarray | None
) -> dict[str, dict[str, Any]]:
    """Give each metric with its 95 % interval, by patient where patients are known.

    Where there are too few patients for an interval, the reason stands in its place.
    """
    return {name: _with_interval(name, minority, anomaly_score, patient) for name in METRICS}


def _with_interval(
    name: str, minority: np.ndarray, anomaly_score: np.ndarray, patient: np.ndarray | None
) -> dict[str, Any]:
    metric = METRICS[name]
    interval = auc_interval if name == "AUC" else partial(bootstrap_interval, metric)
    try:
        found: dict[str, Any] = interval(minority, anomaly_score, patient=patient)._asdict()
    except ValueError as error:
        value = metric(minority, anomaly_score)
        return {"value": value, "low": None, "high": None, "reason": str(error)}
    return found


def _test_rows(run: Path, detector: Any, cohort: Cohort) -> tuple[np.ndarray, dict[str, int]]:
    """Choose the images to evaluate on, and count those left out by reason."""
    side = _sides(run, cohort)
    side = np.where(side == "", np.where(cohort.split == "unused", "unused", "test"), side)
    trained_on = np.isin(side, ["train", "calibration"]) | detector.knows(cohort.images)
    # Where patients are not known they are named by their files, and files anywhere can be
    # called 1.png.
    known = detector.knows_patients(cohort.patient) & cohort.patients_known
    of_training_patient = known & ~trained_on
    unused = (side == "unused") & ~trained_on & ~of_training_patient
    left_out = {
        "trained on": int(trained_on.sum()),
        "of a patient trained on": int(of_training_patient.sum()),
        "not of the test split": int(unused.sum()),
    }
    return np.flatnonzero(~(trained_on | of_training_patient | unused)), left_out


def _sides(run: Path, cohort: Cohort) -> np.ndarray:
    """Say on which side of the run's split each image was, "" if it was not there; -> (n,)."""
    table = pd.read_csv(run / "split.csv", dtype=str, keep_default_na=False)
    side_of = dict(zip(table["digest"], table["split"], strict=True))
    return np.array([side_of.get(d, "") for d in cohort.digest.tolist()])
