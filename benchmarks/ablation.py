"""What each part of LRT brings: ``python -m benchmarks.ablation COHORT``.

The method as it is, and without one part, on one cohort with one seed. One line of CSV each, as
soon as it is known: the AUC on the test split, and its 95 % interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np
import torch

from benchmarks.command import asked, cohort_of, write_lines
from conocc import LRT
from conocc.data.cohort import Cohort
from conocc.detectors.gabor_mahalanobis import GRID, Gaussian
from conocc.detectors.lrt import lrt
from conocc.detectors.lrt.synthetic_lesions import LESIONS
from conocc.metrics.confidence_intervals import auc_interval

HEADS = ("without", "seed", "AUC", "low", "high")
# What `Description` puts one after another.
FAMILIES = (
    *("profile", "fine grid", "quantiles", "correlations", "flatness"),
    *("residual", "bottleneck", "colour"),
)


@dataclass(frozen=True)
class Described:
    """Training and test images as one LRT describes them; d features."""

    z: np.ndarray  # (2n, d), as they are and mirrored
    warped: Sequence[np.ndarray]  # for each kind of lesion, (m, d)
    test: np.ndarray  # (n, d)
    families: np.ndarray  # (d,) of names


def families(description: lrt.Description, shape: tuple[int, ...]) -> np.ndarray:
    """Name the family of each feature, in the order of `lrt.Description.forward`."""
    names: list[str] = []
    for i, level in enumerate(lrt.pyramid(torch.zeros(1, 1, *shape[1:]))):
        names += ["profile"] * (5 * GRID**2)
        if min(level.shape[2:]) >= lrt.FINE_GRID:
            names += ["fine grid"] * lrt.FINE_GRID**2
        if i < lrt.QUANTILE_LEVELS:
            names += ["quantiles"] * lrt.QUANTILES
        names += ["correlations"] * 10
        names += (["correlations"] * 24 + ["flatness"]) * (i > 0)
    for _ in lrt.pyramid(torch.zeros(1, 1, *description.sides)):
        names += ["residual"] * (6 * GRID**2)
    names += ["bottleneck"] * lrt.COMPONENTS
    d = description(torch.zeros(1, *shape)).shape[1]
    return np.array(names + ["colour"] * (d - len(names)))


def described(train: np.ndarray, test: np.ndarray, seed: int) -> Described:
    """Fit LRT, and keep what its ratio was fitted to."""
    seen = {}

    def kept(gaussian: Gaussian, z: np.ndarray, warped: Sequence[np.ndarray]) -> None:
        seen.update(z=z, warped=warped)
        gaussian.learn(np.zeros(z.shape[1]), np.eye(z.shape[1]))  # what it whitens stays as it is

    with mock.patch.object(lrt, "fit_ratio", kept):
        detector = LRT(random_state=seed).fit(train)
    return Described(
        **seen,
        test=detector.embed(test),
        families=families(detector.description_, detector.input_shape_),
    )


def scores(
    of: Described, keep: np.ndarray, kinds: Sequence[int], *, mirrored: bool = True
) -> np.ndarray:
    """Score test images by some features, kinds of lesions, and with or without mirrored images."""
    z = of.z if mirrored else of.z[: len(of.z) // 2]
    gaussian = Gaussian(int(keep.sum()))
    lrt.fit_ratio(gaussian, z[:, keep], [of.warped[k][:, keep] for k in kinds])
    return gaussian(torch.from_numpy(of.test[:, keep])).numpy()


def variations(cohort: Cohort, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Give what is left out, and the scores of the test images without it."""
    train, test = (cohort.where(split=split).images for split in ("train", "test"))
    every = range(len(LESIONS))
    whole = described(train, test, seed)
    all_of_it = np.ones(len(whole.families), dtype=bool)
    yield "nothing", scores(whole, all_of_it, every)
    with mock.patch.object(lrt.Alignment, "learn", return_value=None):
        yield "alignment", scores(described(train, test, seed), all_of_it, every)
    with mock.patch.object(lrt, "tone_mapped", lambda x: x):
        yield "tones", scores(described(train, test, seed), all_of_it, every)
    yield "mirrored images", scores(whole, all_of_it, every, mirrored=False)
    yield "lesions", scores(whole, all_of_it, [])
    for i, kind in enumerate(LESIONS):
        yield f"lesions: {kind.__name__}", scores(whole, all_of_it, [k for k in every if k != i])
    for family in FAMILIES:
        if (whole.families == family).any():
            yield family, scores(whole, whole.families != family, every)
    yield "all but the profile", scores(whole, whole.families == "profile", every)


def main() -> None:
    """Write the lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    given = asked(parser)
    cohort = cohort_of(given)
    test = cohort.where(split="test")
    patient = test.patient if test.patients_known else None
    interval = partial(auc_interval, test.minority, patient=patient)
    lines = (
        (name, given.seed, *(f"{x:.4f}" for x in interval(score)))
        for name, score in variations(cohort, given.seed)
    )
    write_lines(HEADS, lines)


if __name__ == "__main__":
    main()
