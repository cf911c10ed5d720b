"""A run that was trained for a moment, and what it was trained on."""

from __future__ import annotations

import numpy as np
from PIL import Image

from conftest import quick
from conocc import load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.experiments.run import fit_run


def pixels(seed: int, high: int = 255, shape=(20, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape)


def fitted(root):
    """A calibrated autoencoder of 16-pixel images of noise, below a folder."""
    for name, n in (("plain", 40), ("odd", 4)):
        (root / "cohort" / name).mkdir(parents=True)
        for i in range(n):
            path = root / "cohort" / name / f"{name}{i}.png"
            Image.fromarray(pixels(i).astype(np.uint8)).save(path)
    read = Preprocessing(size=16)
    cohort = load_cohort(root / "cohort", read, majority="plain", calibration_size=0.6, cache=False)
    kept = quick("cae").get_params()
    params = {name: kept[name] for name in ("epochs", "random_state")}
    assert fit_run(cohort, "cae", params, root / "run", command="")
    return root / "run"
