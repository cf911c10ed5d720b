"""What a run has seen of a cohort: images by their content, and patients by their names.

Letters: n images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conocc.data.acquisition import moved
from conocc.data.cohort import Cohort
from conocc.data.pseudonyms import key_file
from conocc.detectors.input_validation import digests
from conocc.io.tables import read_csv
from conocc.io.words import count
from conocc.thresholds.conformal import one_image_a_patient
from conocc.thresholds.rules import Decisions


def test_rows(
    run: Path, detector: Any, cohort: Cohort, namespaces: Sequence[str]
) -> tuple[np.ndarray, dict[str, int]]:
    """Choose the images to evaluate on, and count those left out by reason."""
    side = sides(run, cohort)
    side = np.where(side == "", np.where(cohort.split == "unused", "unused", "test"), side)
    reasons = learned(detector, cohort, namespaces)
    reasons |= learned(detector, cohort, namespaces, side="calibration")
    reasons["trained on"] |= side == "train"
    reasons["calibrated on"] |= side == "calibration"
    reasons["not of the test split"] = side == "unused"
    return sorted_out({**reasons, "without contrast": cohort.without_contrast()})


def namespaces_of(
    run: Path, about: Mapping[str, Any], detector: Any, cohort: Cohort, same_patients: bool | None
) -> tuple[list[str], list[str]]:
    """Say under which namespaces a cohort's patients are looked for, and who is taken for whom.

    The first is that to note them by: the run's own, if names mean one person in both.

    Raises
    ------
    ValueError
        If names are hashed with another key than those of the detector, and nobody said that
        no patient is in both.
    """
    if same_patients is not False:
        _refuse_other_key(detector, cohort)
    own = about.get("namespace", "")
    namespace = f"apart from {own}" if same_patients is False else cohort.namespace
    here = set(zip(contents(cohort), cohort.patient.tolist(), strict=True))
    found = [namespace]
    known: set[str] = set()
    for table, noted in (("calibration.csv", about.get("calibration", {})), ("split.csv", about)):
        if (run / table).exists():
            there = read_csv(run / table)
            known |= set(there["patient"])
            shares = not here.isdisjoint(zip(there["content"], there["patient"], strict=True))
            if same_patients or (shares and same_patients is None):
                found.insert(0, noted.get("namespace", ""))
    equal = known & set(cohort.patient.tolist())
    if not cohort.patients_known or not equal or namespace == own:
        return found, []
    said = f"{count(len(equal), 'patient')} of '{cohort.name}' with a name that the run knows"
    if own not in found:
        why = "" if same_patients is False else ": nobody said that they are (--same-patients)"
        return found, [f"{said} {'is' if len(equal) == 1 else 'are'} not taken for the same{why}."]
    why = "asked" if same_patients else "images of both show"
    return found, [f"{said} {'is' if len(equal) == 1 else 'are'} taken for the same, as {why}."]


def _refuse_other_key(detector: Any, cohort: Cohort) -> None:
    if cohort.key and detector.origin_.get("key", "") not in ("", cohort.key):
        raise ValueError(
            f"The patients of '{cohort.name}' are hashed with another key of pseudonyms than those "
            "of the run, so that nobody can tell who was trained or calibrated on. The key here is "
            f"'{key_file()}'. Copy that of the machine and user who made the run into a folder of "
            "its own, and name this folder in CONOCC_CONFIG; or, if no patient is in both, say "
            "--no-same-patients."
        )


def full_names(patient: np.ndarray, namespace: str) -> np.ndarray:
    """Put the namespace before the names of patients; (n,) -> (n,)."""
    return np.char.add(f"{namespace}/", patient) if namespace else patient


def learned(
    detector: Any, cohort: Cohort, namespaces: Sequence[str], *, side: str = "training"
) -> dict[str, np.ndarray]:
    """Find images, by their pixels, and patients that the detector was trained, or calibrated, on.

    Where patients are not known they are named by their files, and files anywhere can be called
    1.png.
    """
    done = {"training": "trained on", "calibration": "calibrated on"}[side]
    names = [full_names(cohort.patient, namespace) for namespace in namespaces]
    patients = [detector.knows_patients(each, side=side) for each in names]
    return {
        done: detector.knows(cohort.images, side=side),
        f"of a patient {done}": np.any(patients, axis=0) & cohort.patients_known,
    }


def sorted_out(reasons: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, int]]:
    """Give the rows that no reason leaves out, and how many each leaves out, the first counting."""
    out = np.zeros_like(next(iter(reasons.values())))
    counts = {}
    for reason, holds in reasons.items():
        counts[reason] = int((holds & ~out).sum())
        out |= holds
    return np.flatnonzero(~out), counts


def sides(run: Path, cohort: Cohort) -> np.ndarray:
    """Say on which side of the run's split each image was, "" if it was not there; -> (n,)."""
    table = split_table(run)
    side_of = {  # of two files with equal pixels, each has its own
        **dict(zip(table["content"], table["split"], strict=True)),
        **dict(zip(table["digest"], table["split"], strict=True)),
    }
    names = zip(cohort.digest.tolist(), contents(cohort), strict=True)
    return np.array([side_of.get(d, side_of.get(c, "")) for d, c in names])


def contents(cohort: Cohort) -> list[str]:
    """Name images with equal pixels alike, of whatever format their files are; n names.

    Those without contrast, which may be anybody's, are named by their files.
    """
    pixels = [row.tobytes().hex() for row in digests(cohort.images)]
    return np.where(cohort.without_contrast(), cohort.digest, pixels).tolist()


def about_batch(
    detector: Any,
    decided: Decisions,
    anomaly_score: np.ndarray,
    facts: np.ndarray | None,
    patient: np.ndarray,
    **how: Any,
) -> dict[str, Any]:
    """Say whether a batch, (n,), is like the calibration, and what moved against the training.

    Of each patient one image is taken. The result is that of `Decisions.about_batch`, and
    ``moved``, that of `conocc.data.acquisition.moved`.
    """
    batch = decided.about_batch(anomaly_score, patient, **how)
    drawn = None if facts is None else facts[one_image_a_patient(patient)]
    return {**batch, "moved": moved(detector.origin_.get("acquisition", {}), drawn)}


def split_table(run: Path) -> pd.DataFrame:
    """Read ``split.csv``."""
    return read_csv(run / "split.csv")
