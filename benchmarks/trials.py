"""What was tried of scores and kernels: ``python -m benchmarks.trials TRIAL COHORT --size N``.

A line of CSV for each reading, as soon as it is known: its AUC on the test split with the 95 %
interval, and beside principal components their lead over `lrt`, in pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, sobel
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from benchmarks.command import asked, cohort_of, write_lines
from conocc.data.cohort import Cohort
from conocc.detectors import reconstruction_scores as by
from conocc.detectors.cae import CAE
from conocc.detectors.gabor_mahalanobis import GaborMahalanobis
from conocc.detectors.input_validation import zscore
from conocc.detectors.lrt.lrt import LRT
from conocc.metrics.auc_variance import Fold, mean_auc_covariance
from conocc.metrics.confidence_intervals import auc_interval, difference_test

HEADS = ("reading", "AUC", "low", "high", "less lrt", "low", "high", "p")
Lines = Iterator[tuple[str, np.ndarray]]
SEEDS = 3  # of lrt
COMPONENTS = (32, 64, 128, 256)
SIGMAS = (0.03, 0.04, 0.06, 0.08, 0.1)


def scored(score: str, x_hat: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Score reconstructions by one of `SCORES`; (n, c, h, w), (n, c, h, w) -> (n,)."""
    images = (torch.from_numpy(np.array(each, "f4")) for each in (x_hat, x))
    return by.SCORES[score][0](*images).numpy()


def of_components(learned: np.ndarray, new: np.ndarray, k: int) -> np.ndarray:
    """Reconstruct images from the first `k` principal components of others; (n, c, h, w)."""
    pca = PCA(k, random_state=0).fit(learned.reshape(len(learned), -1))
    flat = pca.inverse_transform(pca.transform(new.reshape(len(new), -1)))
    return np.asarray(flat.reshape(new.shape))


def components(train: np.ndarray, test: np.ndarray, **params: Any) -> Lines:
    """Principal components in the place of a network, and what needs no network either."""
    for seed in range(SEEDS):
        yield "lrt", LRT(random_state=seed, false_alarms=None).fit(train).anomaly_score(test)
    floor = GaborMahalanobis(random_state=0, false_alarms=None).fit(train)
    yield "gabor_mahalanobis", floor.anomaly_score(test)
    x, new = (zscore(torch.from_numpy(np.array(a, "f4"))).numpy() for a in (train, test))
    for k in (k for k in COMPONENTS if k < len(x)):
        reconstructed = of_components(x, new, k)
        for score in by.SCORES:
            yield f"{k} components, {score}", scored(score, reconstructed, new)


def kernels(train: np.ndarray, test: np.ndarray, **params: Any) -> Lines:
    """One-class SVMs on the features of a CAE: their kernels, and features scaled otherwise."""
    cae = CAE(**params).fit(train)
    z, new = (cae.embed(images).astype(float) for images in (train, test))
    mean, deviation = z.mean(0), z.std(0) + 1e-12
    variance, axes = np.linalg.eigh(np.cov(z.T, bias=True))
    whitening = axes / np.sqrt(0.8 * variance.clip(0) + 0.2 * variance.mean())
    scalings = {"as they are": np.eye(len(mean)), "standardised": np.diag(1 / deviation)}
    for name, scaling in {**scalings, "whitened": whitening}.items():
        a, b = ((each - mean) @ scaling for each in (z, new))
        to_another = np.median(NearestNeighbors(n_neighbors=2).fit(a).kneighbors(a)[0][:, 1])
        gammas = {"scale": 1 / (a.shape[1] * a.var()), "nearest": 4 / to_another**2}
        for kernel, gamma in gammas.items():
            svm = OneClassSVM(nu=0.5, gamma=gamma).fit(a)
            yield f"{kernel}, {name}", -svm.decision_function(b)
        nearest = NearestNeighbors(n_neighbors=1).fit(a).kneighbors(b)[0][:, 0]
        yield f"distance to the nearest, {name}", nearest
        yield f"distance to the mean, {name}", (b**2).sum(1)


def sigma(train: np.ndarray, test: np.ndarray, **params: Any) -> Lines:
    """Windows of other widths than `SIGMA`, of one CAE."""
    cae = CAE(**params).fit(train)
    x, x_hat = cae.normalized(test), cae.reconstruct(test)
    yield "Eq. 6", scored("residual", x_hat, x)
    for width in SIGMAS:
        with mock.patch.object(by, "SIGMA", width):
            yield f"σ {width:g}", scored("correlation", x_hat, x)


def places(x_hat: np.ndarray) -> np.ndarray:
    """Describe each pixel of grey reconstructions by what lies around it; (n, h, w) -> (·, 13)."""
    side = x_hat.shape[-1]
    found = []
    for width in (0.02 * side, 0.06 * side):
        around = partial(gaussian_filter, sigma=(0, width, width))
        mean = around(x_hat)
        slope = np.hypot(sobel(mean, 1), sobel(mean, 2))
        deviation = np.sqrt((around(x_hat**2) - mean**2).clip(0))
        found += [mean, mean**2, np.log(1e-3 + slope), np.log(1e-3 + deviation)]
    down, right = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    each = (down, right, down**2, right**2, down * right)
    found += [np.broadcast_to(place, x_hat.shape) for place in each]
    return np.stack(found, axis=-1).reshape(-1, len(found))


def variance(train: np.ndarray, test: np.ndarray, **params: Any) -> Lines:
    """Residuals over the variance expected there, learned of images that a CAE did not see."""
    cae = CAE(**params).fit(train)
    x, x_hat = cae.normalized(test)[:, 0], cae.reconstruct(test)[:, 0]
    halves = train[::2], train[1::2]
    unseen = np.concatenate([cae.normalized(half)[:, 0] for half in halves])
    without = [CAE(**params).fit(half) for half in halves[::-1]]
    drawn = [one.reconstruct(half)[:, 0] for one, half in zip(without, halves, strict=True)]
    seen = places(np.concatenate(drawn))
    left = np.log((unseen - np.concatenate(drawn)).ravel() ** 2 + 1e-4)
    some = np.random.default_rng(0).choice(len(seen), min(len(seen), 300_000), replace=False)
    expected = make_pipeline(StandardScaler(), Ridge(1.0)).fit(seen[some], left[some])
    log_variance = expected.predict(places(x_hat)).reshape(x.shape)
    residual = (x - x_hat) ** 2
    yield "Eq. 6", residual.sum((1, 2))
    yield "over the variance", (residual / np.exp(log_variance)).sum((1, 2))
    yield "correlation", scored("correlation", x_hat[:, None], x[:, None])


TRIALS = {each.__name__: each for each in (components, kernels, sigma, variance)}


def lines(trial: str, cohort: Cohort, **params: Any) -> Iterator[list[str]]:
    """Give each reading's AUC and interval, and where `lrt` is known, the lead over it."""
    test = cohort.where(split="test")
    whose = test.patient if test.patients_known else np.arange(len(test)).astype(str)
    patient = whose if test.patients_known else None
    peers: list[np.ndarray] = []
    for name, score in TRIALS[trial](cohort.where(split="train").images, test.images, **params):
        cells: list[float] = [*auc_interval(test.minority, score, patient=patient)]
        if name == "lrt":
            peers.append(score)
        elif peers:
            areas, covariance = mean_auc_covariance([Fold(test.minority, [score, *peers], whose)])
            weights = np.array([1.0, *[-1 / len(peers)] * len(peers)])
            lead = difference_test(weights @ areas, weights @ covariance @ weights)
            cells += [lead.difference, lead.low, lead.high, lead.p]
        yield [name, *(f"{cell:.4f}" for cell in cells)]


def main() -> None:
    """Write the lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trials", description=__doc__)
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--epochs", type=int, default=60)
    given = asked(parser)
    params = {"epochs": given.epochs, "lr": 1e-3, "random_state": 0, "false_alarms": None}
    write_lines(HEADS, lines(given.trial, cohort_of(given), **params))


if __name__ == "__main__":
    main()
