"""How often the heat map of each method points at a lesion that was planted.

``python -m benchmarks.heat_maps OUT.csv [COHORT SIZE MAJORITY…]``, without a cohort on the three
phantoms. New majority images are given each of five kinds of synthetic lesions
(`conocc.detectors.lrt.synthetic_lesions`, others of which `lrt` learns from, and no other method).
``area`` is the share of pixels that lie in the lesion, which chance would hit; ``hit`` how often
the hottest pixel does; ``auc`` how well heat tells these pixels from the image's others (0.5 by
chance), both averaged over images and kinds, with the standard error of ``auc`` over images.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.default_thresholds import made, parts
from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.data.splits import patient_groups
from conocc.detectors import METHODS
from conocc.detectors.input_validation import zscore
from conocc.detectors.lrt.synthetic_lesions import LESIONS, lesion_masks
from conocc.detectors.residual_scale import averaged

IMAGES = 60
PHANTOMS = ("phantom-mri", "phantom-ffdm", "phantom-chestx")
COLUMNS = ("cohort", "method", "score", "images", "area", "hit", "auc", "error")


def main(out: Path, where: str, size: int | None, majority: list[str]) -> None:
    """Add a line for each method and score that draws a map."""
    cohort = load_cohort(where, Preprocessing(size=size), majority=majority or None)
    cohort = cohort.take(cohort.rows(minority=False))
    learned, new = parts(patient_groups(cohort.patient, cohort.digest), 0)
    x = zscore(torch.from_numpy(np.asarray(cohort.images[new[:IMAGES]])).float())
    torch.manual_seed(0)
    masks = lesion_masks(len(x), *x.shape[2:])
    sick = [(x + masks * kind(x)).numpy() for kind in LESIONS]
    inside = (masks > 0.5).flatten(1).numpy()
    kept = np.flatnonzero(inside.any(1) & ~inside.all(1))
    for method in METHODS:
        if method == "anogan":  # a search for each image
            continue
        detector = made(method, 0, false_alarms=None).fit(cohort.images[learned])
        for score in ("residual", "correlation"):
            if hasattr(detector, "scored_by"):
                detector.set_params(scored_by=score)
            elif score == "correlation":
                continue
            if hasattr(detector, "differences"):
                row = found(detector, sick, inside, kept)
                of = detector.residual_scale_.of
                with out.open("a", newline="") as file:
                    line = [cohort.name, method, of, len(kept), *(f"{v:.3f}" for v in row)]
                    csv.writer(file, lineterminator="\n").writerow(line)


def found(detector: Any, sick: list[np.ndarray], inside: np.ndarray, kept: np.ndarray) -> Any:
    """Give area, hit, auc and its error."""
    hits, areas = [], []
    for images in sick:
        heat = averaged(detector.differences(images)).reshape(len(images), -1)
        if detector.residual_scale_.of == "residual":
            heat = np.abs(heat)  # brighter or darker than the reconstruction
        hits.append([inside[i, heat[i].argmax()] for i in kept])
        areas.append([roc_auc_score(inside[i], heat[i]) for i in kept])
    by_image = np.mean(areas, axis=0)
    error = by_image.std(ddof=1) / np.sqrt(len(kept))
    return inside[kept].mean(), np.mean(hits), by_image.mean(), error


if __name__ == "__main__":
    file = Path(sys.argv[1])
    if not file.exists():
        file.write_text(",".join(COLUMNS) + "\n")
    if sys.argv[2:]:
        main(file, sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    else:
        for name in PHANTOMS:
            main(file, name, None, [])
