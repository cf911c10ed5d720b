"""What the paper leaves unsaid, one thing at a time: ``python -m benchmarks.readings COHORT``.

ConOCC with its defaults, and with one of them changed, over some seeds: AUC, how compact the
majority is in the bottleneck (`Embedding.compactness` of `conocc.experiments.artifacts`), and how
far the features spread there in their own units, which L_con shrinks. One line of CSV a fit, as
soon as it is known.
What is no parameter of the package, since one reading of it sufficed, is built here.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
from joblib import Parallel, delayed
from torch import nn

from benchmarks.command import asked, cohort_of, write_lines
from conocc.data.cohort import Cohort
from conocc.detectors.conocc import ConOCC
from conocc.experiments.artifacts import Embedding
from conocc.metrics.confidence_intervals import auc_interval
from conocc.networks import Autoencoder
from conocc.training import adam

HEADS = ("variation", "seed", "epochs", "AUC", "low", "high", "compactness", "spread")


# --- what is changed -----------------------------------------------------------------------------


def rectified_bottleneck(autoencoder: Autoencoder) -> None:
    """Have features of 0 and more."""
    autoencoder.encoder = nn.Sequential(autoencoder.encoder, nn.ReLU())


def sigmoid_output(autoencoder: Autoencoder) -> None:
    """Have images in [0, 1]."""
    autoencoder.decoder = nn.Sequential(autoencoder.decoder, nn.Sigmoid())


def batch_normalised(autoencoder: Autoencoder) -> None:
    """Normalise each convolution but the one that makes the image."""
    encoder, decoder = autoencoder.encoder.convs, autoencoder.decoder.convs
    for convs, count in ((encoder, len(encoder)), (decoder, len(decoder) - 1)):
        for i in range(count):
            convs[i] = nn.Sequential(convs[i], nn.BatchNorm2d(convs[i].out_channels))


def started_as_keras(autoencoder: Autoencoder) -> None:
    """Start from Glorot's uniform weights and no biases, as Keras does unless told otherwise."""
    for module in autoencoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def as_keras_and_normalised(autoencoder: Autoencoder) -> None:
    """Start as Keras does, with batch normalisation."""
    started_as_keras(autoencoder)
    batch_normalised(autoencoder)


def every_second(x: np.ndarray) -> np.ndarray:
    """Halve the sides of images by taking every second pixel, which no filter precedes."""
    return np.ascontiguousarray(x[..., ::2, ::2])


def in_twos(x: np.ndarray) -> np.ndarray:
    """Halve the sides of images by means of 2×2 pixels."""
    n, c, h, w = x.shape
    means: np.ndarray = x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))
    return means


@dataclass(frozen=True)
class Variation:
    """ConOCC with other `params`, a network that `rebuild` changed, or another Adam's ε.

    Or images that are read at twice the size, and halved by `halve`.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    rebuild: Callable[[Autoencoder], None] = lambda autoencoder: None
    eps: float = 1e-8
    halve: Callable[[np.ndarray], np.ndarray] | None = None


TOGETHER = {"con_reduction": "mean", "batch_size": 32}


VARIATIONS = {
    "defaults": Variation(),
    "min-max intensities": Variation({"normalize": "minmax"}),
    "intensities as they are": Variation({"normalize": "none"}),
    "min-max, sigmoid output": Variation({"normalize": "minmax"}, sigmoid_output),
    "L_con averaged": Variation({"con_reduction": "mean"}),
    "L_AE averaged": Variation({"ae_reduction": "mean"}),
    "both averaged": Variation({"ae_reduction": "mean", "con_reduction": "mean"}),
    "joint": Variation({"schedule": "joint"}),
    "joint, both averaged": Variation(
        {"schedule": "joint", "ae_reduction": "mean", "con_reduction": "mean"}
    ),
    "joint, γ 0.01": Variation({"schedule": "joint", "gamma": 0.01}),
    "no constraint": Variation({"gamma": 0}),
    "λ 1e-4": Variation({"lr": 1e-4}),
    "batches of 32": Variation({"batch_size": 32}),
    "rectified bottleneck": Variation(rebuild=rectified_bottleneck),
    "batch normalisation": Variation(rebuild=batch_normalised),
    "Keras's start": Variation(rebuild=started_as_keras),
    "Adam's ε 1e-7": Variation(eps=1e-7),
    "half as wide": Variation({"channels": (8, 16, 32)}),
    "twice as wide": Variation({"channels": (32, 64, 128)}),
    "4 features": Variation({"bottleneck": 4}),
    "32 features": Variation({"bottleneck": 32}),
    "every second pixel": Variation(halve=every_second),
    "means of 2×2 pixels": Variation(halve=in_twos),
    # The promising ones together, and the same without the constraint.
    "L_con averaged, batches of 32": Variation(TOGETHER),
    "no constraint, batches of 32": Variation({**TOGETHER, "gamma": 0}),
    "those, Keras's start, batch normalisation": Variation(TOGETHER, as_keras_and_normalised),
    "no constraint, likewise": Variation({**TOGETHER, "gamma": 0}, as_keras_and_normalised),
}


def detector(variation: Variation, **params: Any) -> ConOCC:
    """Make ConOCC as a variation has it."""

    class Varied(ConOCC):
        def _build(self) -> None:
            super()._build()
            variation.rebuild(self.network_)

    return Varied(**{**params, **variation.params})


# --- what comes of it ----------------------------------------------------------------------------


def measured(
    cohort: Cohort, name: str, seed: int, epochs: int, interval: int = 60
) -> tuple[Any, ...]:
    """Fit one variation and give its line; `cohort` is of twice the size where it halves images."""
    variation = VARIATIONS[name]
    train, test = cohort.where(split="train"), cohort.where(split="test")
    halve = variation.halve or (lambda x: x)
    X, new = halve(train.images), halve(test.images)
    one = detector(variation, epochs=epochs, interval=interval, random_state=seed)
    with mock.patch("conocc.detectors.trained.adam", functools.partial(adam, eps=variation.eps)):
        one.fit(X)
    area = auc_interval(
        test.minority,
        one.anomaly_score(new),
        patient=test.patient if test.patients_known else None,
    )
    z, seen = one.embed(new), one.embed(X)
    there = Embedding(
        train=seen,
        test=z,
        minority=test.minority,
        center=one.network_.mu[None].cpu().numpy(),
        images=np.array([len(train), (~test.minority).sum(), test.minority.sum()]),
    )
    spread = float(np.sqrt(((seen - seen.mean(0)) ** 2).sum(1).mean()))
    figures = (area.value, area.low, area.high, there.compactness() or np.nan)
    return (name, seed, epochs, *(f"{x:.4f}" for x in figures), f"{spread:.3g}")


def main() -> None:
    """Write the lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readings", description=__doc__)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--interval", type=int, default=60, help="T")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", action="append", choices=VARIATIONS, help="these variations")
    given = asked(parser)
    names = given.only or list(VARIATIONS)
    cohort = cohort_of(given)
    twice = cohort_of(given, 2) if any(VARIATIONS[name].halve for name in names) else cohort
    fits = Parallel(given.jobs, return_as="generator")(
        delayed(measured)(
            twice if VARIATIONS[name].halve else cohort, name, seed, given.epochs, given.interval
        )
        for name, seed in product(names, range(given.seeds))
    )
    write_lines(HEADS, fits)


if __name__ == "__main__":
    main()
