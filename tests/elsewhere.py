"""What a process does that has fitted nothing."""

from pathlib import Path

import numpy as np


def scores_of_model(folder: Path) -> tuple[dict, np.ndarray]:
    """Load the model in a folder and score what lies beside it; say what it reads images by."""
    import conocc

    detector = conocc.load(folder / "model.safetensors")
    return detector.preprocessing_, detector.anomaly_score(np.load(folder / "X.npy"))
