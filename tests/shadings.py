"""A made set that only a trained encoder tells apart: shadings hidden in noise."""

import numpy as np
from sklearn.metrics import roc_auc_score

from conftest import quick


def shadings(n: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw `n` noisy 16-pixel images with a mixture of three shadings of one strength.

    The noise has the energy 256, so that a strength of 3 (energy 9) is hidden in it from an
    encoder that has not learned where to look.
    """
    x = np.linspace(-1, 1, 16)
    x, y = np.meshgrid(x, x)
    patterns = np.stack([shading / np.linalg.norm(shading) for shading in (x, y, x * y)])
    mixture = rng.normal(size=(n, 3))
    mixture *= strength / np.linalg.norm(mixture, axis=1, keepdims=True)
    return np.tensordot(mixture, patterns, 1) + rng.normal(size=(n, 16, 16))


def trained_and_untrained_auc(name: str, seed: int, **params) -> tuple[float, float]:
    """AUC for shadings thrice as strong; untrained means steps too small to move anything."""
    rng = np.random.default_rng(seed)
    train, test = shadings(200, 3, rng), [shadings(150, 3, rng), shadings(150, 9, rng)]
    minority = np.repeat([False, True], 150)
    untrained = {**params, "epochs": 1, "lr": 1e-12}
    trained_auc, untrained_auc = (
        roc_auc_score(
            minority,
            quick(name, random_state=seed, **p).fit(train).anomaly_score(np.concatenate(test)),
        )
        for p in (params, untrained)
    )
    return trained_auc, untrained_auc
