"""Made sets that show whether training did anything: shadings hidden in noise, and phantoms."""

import numpy as np
from sklearn.metrics import roc_auc_score

from conftest import quick
from conocc.data.phantoms import draw_phantom


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


def trained_and_untrained_auc(
    name: str, seed: int, phantom: tuple[str, int, int] | None = None, **params
) -> tuple[float, float]:
    """AUC with training and without, for shadings thrice as strong or a phantom's minority.

    Untrained means steps too small to move anything. A phantom is given by its name, how many
    images of it are trained on, and on how many of each class it is tested.
    """
    if phantom:
        kind, train, each = phantom
        drawn = draw_phantom(
            kind, size=16, train=train, test_majority=each, test_minority=each, seed=seed
        )
        test = drawn.split == "test"
        X, new, minority = drawn.images[~test], drawn.images[test], drawn.minority[test]
    else:
        rng = np.random.default_rng(seed)
        X, minority = shadings(200, 3, rng), np.repeat([False, True], 150)
        new = np.concatenate([shadings(150, 3, rng), shadings(150, 9, rng)])
    fits = (
        quick(name, random_state=seed, **params).fit(X),
        quick(name, random_state=seed, **{**params, "epochs": 1, "lr": 1e-12}).fit(X),
    )
    trained, untrained = (roc_auc_score(minority, fitted.anomaly_score(new)) for fitted in fits)
    return trained, untrained
