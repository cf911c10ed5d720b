"""How many new majority images each method flags by default, where one in ten is said.

``python -m benchmarks.default_thresholds OUT.csv DATA`` (DATA holds ``chest_xray``, ``busi`` and
``lgg-mri-patches``). The majority images of a cohort are divided by patient, 3 to 2; the first
part is fitted, the second is new. A row is written as it is done, and then not done again.
``promise`` is the default of ``conocc fit``, ``default`` that of the detectors in Python; beside
them, the threshold of the training images' own scores (``training``), the default of old, and
for networks that of five folds (``folds``), which train six times.
"""

from __future__ import annotations

import csv
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from conocc.data.cohort import Cohort
from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.data.splits import kept_for_calibration, patient_groups
from conocc.detectors import METHODS, method_class
from conocc.metrics.confidence_intervals import share_interval
from conocc.thresholds.rule import RULE
from conocc.thresholds.rules import decisions

COHORTS = {
    "phantom-mri": (None, None),
    "phantom-ffdm": (None, None),
    "phantom-chestx": (None, None),
    "lgg-mri-patches": (32, ("tumour",)),
    "busi": (64, ("benign", "malignant")),
    "chest_xray": (64, ("NORMAL",)),
}
EPOCHS = {"anogan": 10}  # of others 30
MOST = 600  # images that are fitted, by whole patients
COLUMNS = (
    *("cohort", "method", "threshold", "seed", "fitted", "new", "patients", "said"),
    *("false_alarms", "low", "high", "seconds"),
)


def main(out: Path, data: Path) -> None:
    """Do what is missing."""
    done = set()
    if out.exists():
        with out.open(newline="") as file:
            done = {tuple(row[name] for name in COLUMNS[:4]) for row in csv.DictReader(file)}
    else:
        out.write_text(",".join(COLUMNS) + "\n")
    for seed, (name, (size, majority)) in product(range(3), COHORTS.items()):
        where = data / name if majority else name
        cohort = load_cohort(where, Preprocessing(size=size), majority=majority)
        cohort = cohort.take(cohort.rows(minority=False))
        fitted, new = parts(patient_groups(cohort.patient, cohort.digest), seed)
        for method, way in product(METHODS, WAYS):
            once = seed or method in ("anogan", "dagmm", "dsvdd")
            if (name, method, way, str(seed)) in done or (way == "folds" and once):
                continue
            if way == "folds" and method_class(method)._scores_all_folds:
                continue
            start = time.perf_counter()
            detector, threshold, said = WAYS[way](method, seed, cohort, fitted)
            seconds = time.perf_counter() - start
            row = [name, method, way, seed, len(fitted), len(new)]
            row += [len(np.unique(cohort.patient[new])), said]
            if threshold is not None:
                flagged = detector.anomaly_score(cohort.images[new]) > threshold
                found = share_interval(flagged, patient=cohort.patient[new])
                row += [f"{value:.4f}" for value in found]
            else:
                row += ["", "", ""]
            with out.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow([*row, f"{seconds:.1f}"])


def parts(group: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows by patient, 3 to 2; of the first part no more than `MOST` images."""
    names = np.random.default_rng(seed).permutation(np.unique(group))
    first = names[: len(names) * 3 // 5]
    rows = np.concatenate([np.flatnonzero(group == one) for one in first])
    return np.sort(rows[:MOST]), np.flatnonzero(~np.isin(group, first))


def made(method: str, seed: int, **params: Any) -> Any:
    """Make an unfitted detector."""
    kind = method_class(method)
    if "epochs" in kind().get_params():
        params["epochs"] = EPOCHS.get(method, 30)
    more = {"anogan": {"search_steps": 20}, "conocc": {"interval": 10}}.get(method, {})
    return kind(random_state=seed, **params, **more)


def default(method: str, seed: int, cohort: Cohort, rows: np.ndarray) -> Any:
    """Fit as Python's users do who ask for nothing."""
    detector = made(method, seed).fit(cohort.images[rows], groups=cohort.patient[rows])
    return detector, -detector.offset_, detector.false_alarms


def folds(method: str, seed: int, cohort: Cohort, rows: np.ndarray) -> Any:
    """Likewise, with the threshold of five folds where the default has one."""
    with patch.object(method_class(method), "_scores_all_folds", True):
        return default(method, seed, cohort, rows)


def training(method: str, seed: int, cohort: Cohort, rows: np.ndarray) -> Any:
    """Fit to all; one in ten of the training images exceeds the threshold."""
    images = cohort.images[rows]
    detector = made(method, seed, false_alarms=None).fit(images)
    return detector, np.quantile(detector.anomaly_score(images), 0.9), 0.1


def promise(method: str, seed: int, cohort: Cohort, rows: np.ndarray) -> Any:
    """Fit and calibrate as ``conocc fit`` does where nobody asks for anything."""
    patient, digest = cohort.patient[rows], cohort.digest[rows]
    side = np.repeat("train", len(rows))
    kept = kept_for_calibration(side, patient, digest, seed=seed, share="auto") == "calibration"
    detector = made(method, seed, false_alarms=None)
    detector.fit(cohort.images[rows[~kept]], groups=patient[~kept])
    if not kept.any():
        return detector, None, ""
    detector.calibrate(cohort.images[rows[kept]], groups=patient[kept])
    decided = decisions(detector, RULE)
    return detector, decided.threshold, decided.rule.false_alarms


WAYS = {"promise": promise, "default": default, "training": training, "folds": folds}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
