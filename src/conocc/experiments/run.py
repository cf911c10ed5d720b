"""One run: a fit and its folder, from which everything later is made.

=======================  ==============================================================
``run.json``             what was asked: command, method, parameters, cohort, versions
``split.csv``            every image of the cohort, and the side of the split it was on
``checkpoint``           the state of an unfinished fit; gone once it is finished
``history.csv``          one row an epoch, each term of the loss
``model.safetensors``    the detector, with its calibration scores, if it is calibrated
``calibration.csv``      the score of every calibration image, if it is calibrated
``scores.csv``           the score of every test image; `evaluate` writes it
``metrics.json``         the metrics with intervals, the counts, the threshold, what
                         it promises and how that turned out; likewise
``gallery.npz``          the images it erred on most, with reconstructions; likewise
``groups.csv``           the figures of all test images, and of each group; likewise
``embedding.npz``        bottleneck features, where the method has them; likewise
=======================  ==============================================================
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import pandas as pd
import sklearn
import torch

from conocc._version import __version__
from conocc.data.acquisition import quantiles
from conocc.data.cohort import Cohort
from conocc.data.cohort_spec import CohortSpec
from conocc.detectors import load, method_class, method_id
from conocc.detectors.reconstruction_scores import told_to_score_by
from conocc.experiments.artifacts import Embedding, embedding_of, gallery_of, read_results
from conocc.experiments.groups import (
    groups_of,
    groups_table,
    left_to_a_reader,
    measured,
    measured_groups,
)
from conocc.experiments.seen import (
    about_batch,
    contents,
    full_names,
    learned,
    namespaces_of,
    sides,
    sorted_out,
    split_table,
    test_rows,
)
from conocc.experiments.table_formats import as_csv
from conocc.io.files import (
    atomic_write,
    folder_lock,
    refuse_foreign,
    refuse_made,
    write_json,
    write_text,
)
from conocc.io.tables import write_csv
from conocc.io.words import count, reason
from conocc.thresholds.rule import RULE, Rule
from conocc.thresholds.rules import Decisions, decisions, observed_rates

logger = logging.getLogger("conocc")

P = ParamSpec("P")
R = TypeVar("R")

RUN_FORMAT = 1
# Share of the training images that may be without contrast.
MOST_EMPTY = 0.9
# What a fit leaves beside run.json.
FIT_FILES = ("split.csv", "history.csv", "calibration.csv", "model.safetensors")
# What may change between two calls of the same fit.
FREE_PARAMETERS = {"device", "verbose"}
COHORT_COLUMNS = ("path", "digest", "label", "minority", "patient")
SCORE_COLUMNS = ("anomaly_score", "p_value", "predicted")


def make_detector(method: str, params: Mapping[str, Any]) -> Any:
    """Make an unfitted detector; an unknown method or parameter is a sentence.

    It holds nothing out for a threshold of its own, as the paper's do not: a run is calibrated.

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
    return kind(**{"false_alarms": None, **params})


# --- fitting -----------------------------------------------------------------------------------


def fit_run(
    cohort: Cohort,
    method: str,
    params: Mapping[str, Any],
    out: str | Path,
    *,
    command: str,
    spec: CohortSpec | None = None,
) -> bool:
    """Fit a method to the majority training images of a cohort; return whether there was work.

    Called again with the same arguments, an unfinished fit goes on where it was, with the numbers
    of an unbroken one, and a finished one is left alone.
    `command` and `spec` (what loaded the cohort) are noted in ``run.json``.

    Raises
    ------
    ValueError
        If a parameter is not allowed, the device is not to be had, `out` holds a run of other
        settings, or the cohort has too few training images, or hardly any with contrast.
    BlockingIOError
        If another process is at work in `out`.
    """
    out = Path(out)
    detector = make_detector(method, params)
    detector.check_params()  # before anything is written
    identity = _identity(cohort, method_id(method), detector)
    with folder_lock(out):
        if _is_finished(out, identity):
            return False
        training = cohort.where(split="train", minority=False)
        if not len(training):
            raise ValueError(f"Cohort '{cohort.name}' has no majority image to train on.")
        empty = int(training.without_contrast().sum())
        if empty > MOST_EMPTY * len(training):
            raise ValueError(
                f"{empty} of {count(len(training), 'training image')} of cohort '{cohort.name}' "
                "have no contrast: every pixel of each has the same value. Look at the files, and "
                "at the window that they are read with (--voi). Nothing was written."
            )

        about = {
            **identity,
            "command": command,
            "loading": spec.to_dict() if spec else None,
            "namespace": cohort.namespace,
            "notes": list(cohort.notes),
            "versions": versions(),
        }
        write_json(out / "run.json", {**about, "finished": False})
        table = cohort.table().assign(content=contents(cohort))
        write_csv(out / "split.csv", table.columns.tolist(), table.to_numpy().tolist())
        checkpoint = out / "checkpoint"
        start = time.perf_counter()
        patients = full_names(training.patient, cohort.namespace)
        known = patients if cohort.patients_known else None
        detector.fit(training.images, groups=known, checkpoint=checkpoint)
        facts = quantiles(training.acquisition)
        detector.origin_ = {"key": cohort.key, "acquisition": facts}
        seconds = time.perf_counter() - start
        # A method without epochs has a history too, an empty one.
        history = pd.DataFrame(detector.history_ or {"stage": [], "epoch": []})
        write_text(out / "history.csv", history.to_csv(index=False, lineterminator="\n"))
        calibrating = cohort.where(split="calibration")
        if len(calibrating):
            about["calibration"] = _calibrate(
                detector, calibrating, out / "calibration.csv", command, [cohort.namespace]
            )
        detector.save(out / "model.safetensors", preprocessing=cohort.preprocessing.to_dict())
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
    params = {k: v for k, v in detector.plain_params().items() if k not in FREE_PARAMETERS}
    images = hashlib.sha256(cohort.table().to_csv(index=False).encode()).hexdigest()
    identity = {
        "format": RUN_FORMAT,
        "method": method,
        "params": params,
        "cohort": cohort.name,
        "preprocessing": cohort.preprocessing.to_dict(),
        "images": images,
    }
    return json.loads(json.dumps(identity))


def _is_finished(out: Path, identity: Mapping[str, Any]) -> bool:
    """Tell whether `out` holds this run, finished; refuse it if it holds another one."""
    if not (out / "run.json").exists():
        refuse_made(out)
        refuse_foreign(out, "fit", "|".join(map(re.escape, (*FIT_FILES, "checkpoint"))))
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
        raise ValueError(f"Cannot read '{out / 'run.json'}': {reason(error)}.") from error
    return about


# --- calibrating -------------------------------------------------------------------------------


def _alone(
    function: Callable[Concatenate[str | Path, P], R],
) -> Callable[Concatenate[str | Path, P], R]:
    """Keep other processes out of the run's folder meanwhile; it must be there already."""

    @wraps(function)
    def alone(run: str | Path, /, *args: P.args, **kwargs: P.kwargs) -> R:
        read_run(Path(run))
        with folder_lock(Path(run)):
            return function(run, *args, **kwargs)

    return alone


@_alone
def calibrate_run(
    run: str | Path,
    cohort: Cohort,
    *,
    command: str,
    same_patients: bool | None = None,
    score: str | None = None,
    verbose: int = 0,
) -> dict[str, Any]:
    """Calibrate a finished run on the majority images of a cohort, in place of a former time.

    Calibrated by another `score` than its own, the run keeps its own, with what that was calibrated
    on: the model holds both.

    Left out, and counted by reason, are minority images; images and patients that were trained
    on; and those of the test split that ``split.csv`` tells, whose scores must not set a
    threshold. Whatever is taken is left out of every later evaluation.
    `same_patients` is as for `evaluate_run`.

    Returns
    -------
    dict
        ``images``, ``patients`` (None where they are not known), ``left_out``, ``assumed``,
        ``cohort``, ``command``; it is noted in ``run.json``.

    Raises
    ------
    ValueError
        If no image is left.
    """
    run = Path(run)
    own = getattr(load_model(run), "scored_by", None)
    detector = load_model(run, score, verbose=verbose)
    about = read_run(run)
    table = split_table(run)
    tested = table[table["split"] == "test"]
    side = sides(run, cohort)
    namespaces, assumed = namespaces_of(run, about, detector, cohort, same_patients)
    is_known = cohort.patients_known and about.get("namespace", "") in namespaces
    reasons = {
        "of the minority class": cohort.minority,
        "of the test split": side == "test",
        "of a patient of the test split": np.isin(cohort.patient, tested["patient"].to_numpy(str))
        & is_known,
    }
    taken, left_out = sorted_out(reasons)
    name = "calibration" if score in (None, own) else f"calibration-{score}"
    about[name] = _calibrate(
        detector, cohort.take(taken), run / f"{name}.csv", command, namespaces, left_out
    )
    about[name]["assumed"] = assumed
    told_to_score_by(detector, own).save(run / "model.safetensors")
    write_json(run / "run.json", about)
    return about[name]


def _calibrate(
    detector: Any,
    cohort: Cohort,
    table: Path,
    command: str,
    namespaces: Sequence[str],
    left_out: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Calibrate on what the detector has not learned; write the scores, say what it was."""
    reasons = learned(detector, cohort, namespaces)
    taken, of_these = sorted_out({**reasons, "without contrast": cohort.without_contrast()})
    left_out = {**(left_out or {}), **of_these}
    kept = cohort.take(taken)
    if not len(kept):
        why = "".join(f" {n} left out: {reason}." for reason, n in left_out.items() if n)
        raise ValueError(
            f"Cohort '{cohort.name}' has no majority image to calibrate on that the run has not "
            f"seen.{why}"
        )
    groups = None if kept.groups is None else full_names(kept.groups, namespaces[0])
    detector.calibrate(kept.images, groups=groups)
    detector.calibration_ = replace(detector.calibration_, whose=kept.unit)
    detector.origin_["key"] = detector.origin_.get("key") or cohort.key
    columns = [getattr(kept, name).tolist() for name in COHORT_COLUMNS]
    scores = detector.calibration_.scores
    names = (*COHORT_COLUMNS, "content", "anomaly_score")
    write_csv(table, names, zip(*columns, contents(kept), scores, strict=True))
    return {
        "cohort": cohort.name,
        "images": len(kept),
        "patients": detector.calibration_.patients if kept.patients_known else None,
        "left_out": left_out,
        "namespace": namespaces[0],
        "command": command,
    }


# --- a fitted model ----------------------------------------------------------------------------


def model_path(run: str | Path) -> Path:
    """Find the model of a finished run's folder; a model's own file is taken as it is."""
    run = Path(run)
    if not run.is_dir():
        return run
    if not read_run(run)["finished"]:
        raise ValueError(f"The fit in '{run}' is not finished; run its command again.")
    return run / "model.safetensors"


def model_hash(run: str | Path) -> str:
    """Hash the file of a run's model, by which what is made of it says so."""
    return hashlib.sha256(model_path(run).read_bytes()).hexdigest()


def load_model(run: str | Path, score: str | None = None, *, verbose: int = 0) -> Any:
    """Load the detector of a run's folder, or of a model file; with `verbose` 1 it shows bars.

    With a `score` it scores by that one of its scores.
    """
    return told_to_score_by(load(model_path(run)).set_params(verbose=verbose), score)


def copy_run(run: str | Path, out: str | Path, score: str | None = None) -> Path:
    """Copy a finished run without its results, to be evaluated on another cohort, or by others.

    With a `score` the copy is scored by that, with its own calibration, if there is one.
    Where `out` holds the same run already, nothing is done.

    Raises
    ------
    FileExistsError
        If `out` holds anything else.
    """
    run, out = Path(run), Path(out)
    detector, about = load_model(run, score), read_run(run)  # or it is not finished
    files = {name: name for name in FIT_FILES}
    if score is not None and score != about["params"].get("scored_by", load_model(run).scored_by):
        about["params"]["scored_by"] = score
        about["calibration"] = about.pop(f"calibration-{score}", None)
        files["calibration.csv"] = f"calibration-{score}.csv"
    if (out / "run.json").exists():
        if read_run(out) == about:
            return out
        raise FileExistsError(
            f"'{out}' holds another run than '{run}', or it before it was calibrated. Choose "
            "another --out, or delete it."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"'{out}' is no empty folder. Choose another --out.")
    with folder_lock(out):
        for name, source in files.items():
            if (run / source).exists():
                with atomic_write(out / name) as temporary:
                    shutil.copyfile(run / source, temporary)
        if files["calibration.csv"] != "calibration.csv":
            detector.save(out / "model.safetensors")
        write_json(out / "run.json", about)
    return out


# --- evaluating --------------------------------------------------------------------------------


@_alone
def evaluate_run(
    run: str | Path,
    cohort: Cohort,
    *,
    command: str,
    rule: Rule = RULE,
    by: Sequence[str] = (),
    same_patients: bool | None = None,
    verbose: int = 0,
) -> dict[str, Any]:
    """Score the labelled test images of a cohort, and write what later pages are made of.

    That is ``scores.csv``, ``groups.csv``, ``metrics.json``, ``gallery.npz``, ``embedding.npz``.
    Which images are test images says the run's own ``split.csv``, by their content; images that it
    does not know count as the cohort has them. Images and patients that were trained or
    calibrated on are left out, and counted under ``left_out``.
    Results on the same images are replaced, those on others are not (`copy_run`).
    `rule` says when an image is ``predicted`` to be of the minority, and `by` which columns of
    the cohort's table (`Cohort.facts`) the results are told apart by, as they are by class.
    `same_patients` says whether equal names of patients mean one person here and where the run
    was fitted and calibrated; by itself they do where names hold everywhere (`Cohort.namespace`),
    and in cohorts that share an image with its patient's name.
    With `verbose` 1, bars show how far it is.

    Returns
    -------
    dict
        ``metrics`` (name to value, low, high; empty without minority images), ``decision`` (the
        rule, its ``threshold`` of the anomaly score, and what it promises in ``words``),
        ``observed_rates`` (how that turned out, see `conocc.thresholds.rules.observed_rates`),
        ``batch`` (how like the calibration the majority images are, see
        `conocc.experiments.seen.about_batch`), ``groups``, ``abstention`` (see
        `conocc.experiments.groups.measured_groups` and `left_to_a_reader`), ``counts``,
        ``prevalence``, ``left_out``, ``assumed`` (who was taken for whom), and what made it.

    Raises
    ------
    ValueError
        If no majority image is left, the rule cannot be had of this run, a column of `by` is not
        there or has too many values, or the run's folder has results on other images.
    """
    run = Path(run)
    detector = load_model(run, verbose=verbose)
    decided = decisions(detector, rule)
    namespaces, assumed = namespaces_of(run, read_run(run), detector, cohort, same_patients)
    rows, left_out = test_rows(run, detector, cohort, namespaces)
    test = cohort.take(rows)
    patient = test.groups
    counts: dict[str, Any] = {
        "majority": int((~test.minority).sum()),
        "minority": int(test.minority.sum()),
        "patients": len(np.unique(test.patient)) if test.patients_known else None,
    }
    if not counts["majority"]:
        why = "".join(f" {n} left out: {reason}." for reason, n in left_out.items() if n)
        raise ValueError(
            f"Cannot evaluate on '{cohort.name}': {counts['majority']} majority and "
            f"{counts['minority']} minority test images; majority images are needed.{why}"
        )
    groups, tested = groups_of(test, by), _hash_of(run, test)
    scores = detector.anomaly_score(test.images)
    decided = decided.with_batch_threshold(scores, patient)
    flagged = decided.flagged(scores)
    columns = (getattr(test, name).tolist() for name in COHORT_COLUMNS)
    table = zip(*columns, scores.tolist(), *decided.columns(scores), strict=True)
    result = {
        "format": RUN_FORMAT,
        "cohort": cohort.name,
        "tested": tested,
        "metrics": measured(test.minority, scores, patient) if counts["minority"] else {},
        "decision": decided.as_json(),
        "observed_rates": observed_rates(test.minority, flagged, patient=patient, unit=rule.unit),
        "batch": _batch_of_majority(detector, decided, test, scores),
        "groups": measured_groups(test, groups, scores, flagged, rule.unit),
        "abstention": left_to_a_reader(test.minority, scores, decided.threshold, patient),
        "counts": counts,
        "prevalence": counts["minority"] / len(test),
        "left_out": left_out,
        "assumed": assumed,
        "command": command,
        "versions": versions(),
    }
    write_csv(run / "scores.csv", (*COHORT_COLUMNS, *SCORE_COLUMNS), table)
    write_text(run / "groups.csv", as_csv(groups_table(result)))
    if test.images.ndim == 4:
        gallery_of(detector, test, scores).save(run / "gallery.npz")
    if hasattr(detector, "embed"):
        _embed(run, detector, cohort, test)
    write_json(run / "metrics.json", result)
    return result


def _batch_of_majority(
    detector: Any, decided: Decisions, test: Cohort, scores: np.ndarray
) -> dict[str, Any]:
    rows = test.rows(minority=False)
    whose = rows if test.groups is None else test.groups[rows]
    facts = None if test.acquisition is None else test.acquisition[rows]
    return about_batch(detector, decided, scores[rows], facts, whose, majority_by=test.unit)


def _hash_of(run: Path, test: Cohort) -> str:
    """Hash which images are tested, and of which class; refuse to replace results on others."""
    images = sorted(zip(test.digest.tolist(), test.minority.tolist(), strict=True))
    tested = hashlib.sha256(json.dumps(images).encode()).hexdigest()
    before = read_results(run / "metrics.json")
    if before and before["tested"] != tested:
        raise FileExistsError(
            f"'{run}' holds the results on other test images, of '{before['cohort']}'. Choose "
            "another folder for these (--out), or delete its metrics.json."
        )
    return tested


@_alone
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
    namespaces, _ = namespaces_of(run, read_run(run), detector, cohort, None)
    rows, _ = test_rows(run, detector, cohort, namespaces)
    return _embed(run, detector, cohort, cohort.take(rows))


def _embed(run: Path, detector: Any, cohort: Cohort, test: Cohort) -> Embedding:
    trained_on = (sides(run, cohort) == "train") & ~cohort.minority
    embedding = embedding_of(detector, cohort.take(trained_on), test)
    embedding.save(run / "embedding.npz")
    return embedding
