"""Folders of runs and studies as they are left behind, written by hand: no torch, no training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conocc.detectors.residual_scale import scale_of
from conocc.experiments.artifacts import Embedding, Gallery

READING = {"size": 16, "colour": "grey", "fit": "stretch"}
METRICS = {
    "AUC": {"value": 0.75, "low": 0.5, "high": 0.9},
    "AUPR-maj": {"value": 0.625, "low": 0.4, "high": 0.8},
    "AUPR-min": {"value": 0.8125, "low": None, "high": None, "reason": "Too few patients."},
    "sens@5%": {"value": 0.375, "low": 0.2, "high": 0.6},
}
COUNTS = {"majority": 8, "minority": 6, "patients": 14}


def gallery(*, reconstructs: bool = True, channels: int = 1, name: str = "a") -> Gallery:
    """Two majority and two minority images of 16 pixels, and a montage of three and two."""
    rng = np.random.default_rng(0)
    given, again = rng.normal(size=(2, 4, channels, 16, 16)).astype(np.float32)
    kept = 4 if reconstructs else 0
    scale = scale_of([given - again], source="calibration")
    return Gallery(
        input=given,
        reconstruction=again[:kept],
        residual=(given - again)[:kept],
        path=np.array([f"{name}{i}.png" for i in range(4)]),
        anomaly_score=np.array([9.0, 8.0, 1.0, 2.0]),
        minority=np.array([False, False, True, True]),
        montage=rng.random((5, channels, 16, 16), dtype=np.float32),
        montage_minority=np.array([False, False, False, True, True]),
        montage_label=np.array(["good"] * 3 + ["bad"] * 2),
        residual_scale=np.array(json.dumps(scale.as_json()) if reconstructs else ""),
    )


def embedding(*, center: bool = True, train: int = 12) -> Embedding:
    """Features of length 3: training and majority around zero, minority around four."""
    rng = np.random.default_rng(1)
    test = rng.normal(size=(14, 3)).astype(np.float32)
    test[8:] += 4
    return Embedding(
        train=rng.normal(size=(train, 3)).astype(np.float32),
        test=test,
        minority=np.arange(14) >= 8,
        center=np.zeros((int(center), 3), np.float32),
        images=np.array([train, 8, 6]),
    )


def write_run(folder: Path, method: str = "conocc", *, name: str = "a") -> Path:
    """Write the folder of an evaluated run, but for its model; paths and labels hold `name`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    paths = [f"{name}{i}.png" for i in range(26)]
    minority = np.arange(26) >= 20
    split = pd.DataFrame({"path": paths, "digest": paths, "patient": [f"p{i}" for i in range(26)]})
    split["label"] = np.where(minority, f"bad {name}", "good")
    split["minority"] = minority
    split["split"] = np.where(np.arange(26) < 12, "train", "test")
    split.to_csv(folder / "split.csv", index=False)
    scores = split[split["split"] == "test"].drop(columns="split")
    scores["anomaly_score"] = rng.random(14) + scores["minority"]
    scores.to_csv(folder / "scores.csv", index=False)
    history = {"stage": "conocc", "epoch": [1, 2], "L_AE": [9.0, 8.0], "gamma L_con": [None, 1.0]}
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    calibration = pd.DataFrame({"path": ["c.png"] * 6, "anomaly_score": rng.random(6)})
    calibration.to_csv(folder / "calibration.csv", index=False)
    gallery(name=name).save(folder / "gallery.npz")
    embedding().save(folder / "embedding.npz")
    _write(
        folder / "run.json",
        {
            "format": 1,
            "method": method,
            "params": {"epochs": 2, "lr": 0.001, "random_state": 0},
            "cohort": f"cohort {name}",
            "preprocessing": READING,
            "command": f"conocc fit {name}",
            "loading": {},
            "notes": [f"Made of {name}.", f"LEAK: 2 patients on more than one side ({name} …)."],
            "versions": {"conocc": "0.1.0", "torch": "9.9.9"},
            "finished": True,
            "seed": 0,
            "seconds": 12.5,
            "threads": 1,
        },
    )
    _write(folder / "metrics.json", _measured(f"conocc evaluate {name}", f"cohort {name}"))
    return folder


def write_row(study: Path, key: str, method: str, *, auc: float | None, **changes: Any) -> Path:
    """Write one row of a study; without an AUC it is a failed one. Return where its run goes."""
    metrics = {**METRICS, "AUC": {"value": auc, "low": None, "high": None}}
    row = {
        "format": 1,
        "key": key,
        "status": "done" if auc is not None else "error",
        "error": None if auc is not None else "ValueError: no",
        "method": method,
        "label": method,
        "params": {"epochs": 2, "lr": 0.001, "random_state": 0},
        "cohort": "made",
        "images": "0123456789abcdef",
        "preprocessing": READING,
        "protocol": "benchmark",
        "rule": None,
        "group": None,
        "fold": None,
        "seed": 0,
        **dict.fromkeys(("metrics", "counts", "prevalence", "left_out")),
        **({"metrics": metrics, "counts": COUNTS, "prevalence": 6 / 14} if auc is not None else {}),
        "seconds": 1.5,
        "threads": 1,
        "notes": ["The split is the cohort's own."] if auc is not None else None,
        "versions": {"conocc": "0.1.0"},
        "command": "conocc benchmark made --out study",
        "run": f"jobs/{key}",
        **changes,
    }
    _write(study / "rows" / f"{key}.json", row)
    return study / "jobs" / key


def _measured(command: str, cohort: str) -> dict[str, Any]:
    return {
        "format": 1,
        "cohort": cohort,
        "tested": "0123456789abcdef",
        "metrics": METRICS,
        "decision": {
            "false_alarms": 0.05,
            "unit": "patient",
            "threshold": 1.0,
            "words": "At most 5 % of new patients.",
        },
        "observed_rates": {
            "false_alarms": {"value": 0.125, "low": 0.003, "high": 0.527, "of": 8},
            "sensitivity": {"value": 1.0, "low": 0.541, "high": 1.0, "of": 6},
            "false_discoveries": None,
        },
        "counts": COUNTS,
        "prevalence": 6 / 14,
        "left_out": {"trained on": 12, "of a patient trained on": 3, "not of the test split": 0},
        "command": command,
        "versions": {"conocc": "0.1.0"},
    }


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
