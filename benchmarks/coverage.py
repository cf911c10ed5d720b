"""How often do the 95 % intervals hold the truth? ``python -m benchmarks.coverage``.

Cohorts are drawn whose true figures are known: scores are normal, of variance 1, with a mean
that is higher for the minority by what gives the AUC asked for. Images are independent, or
patients have one to six of them, of either class or of both, that share 60 % of the variance.
The true AUPR is that at the cohort's own share of minority images.

Of each cohort every interval is asked, by patient as `conocc` asks them, and that of AUC also
without patients. One line a setting, in Markdown; the share of intervals that hold the truth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import norm

from conocc.metrics.confidence_intervals import auc_interval, metric_interval
from conocc.metrics.ranking import METRICS, SPECIFICITY

BETWEEN = 0.6
AREAS = (0.7, 0.85, 0.95)
WITHOUT_PATIENTS = "AUC, plain DeLong"


class Independent(NamedTuple):
    """Images of patients of their own."""

    minority: int
    majority: int

    def __str__(self) -> str:
        return f"{self.minority} minority, {self.majority} majority images"


class Clustered(NamedTuple):
    """Patients with one to six images each; a share has images of one class only."""

    patients: int
    all_majority: float
    all_minority: float

    def __str__(self) -> str:
        mixed = 1 - self.all_majority - self.all_minority
        parts = (self.all_majority, self.all_minority, mixed)
        shares = ", ".join(f"{100 * part:.0f} %" for part in parts)
        return f"{self.patients} patients ({shares} majority, minority, both)"


DESIGNS = (
    Independent(20, 180),
    Independent(100, 100),
    Independent(100, 400),
    Clustered(60, 1 / 3, 1 / 3),
    Clustered(150, 0.8, 0.1),
)


def cohort(
    design: Independent | Clustered, area: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a cohort: minority, score and patient of each image."""
    if isinstance(design, Independent):
        minority = np.repeat([True, False], design)
        patient = np.arange(minority.size)
        score = rng.normal(size=minority.size)
    else:
        images = rng.integers(1, 7, design.patients)
        patient = np.repeat(np.arange(design.patients), images)
        mixed = 1 - design.all_majority - design.all_minority
        share = rng.choice(
            [0.0, 1.0, 0.5], design.patients, p=[design.all_majority, design.all_minority, mixed]
        )
        minority = rng.random(patient.size) < share[patient]
        effect = rng.normal(scale=BETWEEN**0.5, size=design.patients)
        score = effect[patient] + rng.normal(scale=(1 - BETWEEN) ** 0.5, size=patient.size)
    return minority, score + shift(area) * minority, patient


def shift(area: float) -> float:
    """Give how much higher the minority's mean is."""
    return float(norm.ppf(area) * 2**0.5)


def truths(area: float, prevalence: float) -> dict[str, float]:
    """Compute the true value of each metric, by integrals over the normal laws."""
    by = shift(area)
    t = np.linspace(-9, 9 + by, 4001)
    found, alarms = prevalence * norm.sf(t - by), (1 - prevalence) * norm.sf(t)
    passed, missed = (1 - prevalence) * norm.cdf(t), prevalence * norm.cdf(t - by)
    return {
        "AUC": area,
        "AUPR-min": float(np.trapezoid(norm.pdf(t - by) * found / (found + alarms), t)),
        "AUPR-maj": float(np.trapezoid(norm.pdf(t) * passed / (passed + missed), t)),
        "sens@5%": float(norm.sf(norm.ppf(SPECIFICITY) - by)),
    }


def holds_the_truth(
    design: Independent | Clustered, area: float, seed: int, n_resamples: int
) -> dict[str, bool | None]:
    """Draw one cohort and say of each interval whether it holds the truth; None: there is none."""
    minority, score, patient = cohort(design, area, np.random.default_rng(seed))
    truth = truths(area, float(minority.mean()))
    found: dict[str, bool | None] = {}
    for name in METRICS:
        try:
            one = metric_interval(name, minority, score, patient=patient, n_resamples=n_resamples)
        except ValueError:  # every resample agreed
            found[name] = None
            continue
        found[name] = bool(one.low <= truth[name] <= one.high)
    plain = auc_interval(minority, score)
    found[WITHOUT_PATIENTS] = bool(plain.low <= area <= plain.high)
    return found


def lines(cohorts: int, n_resamples: int, jobs: int) -> Iterator[str]:
    """Give the table's lines, one as soon as it is known."""
    names = ["AUC", WITHOUT_PATIENTS, *[name for name in METRICS if name != "AUC"]]
    yield f"| test set | true AUC | {' | '.join(names)} |"
    yield "|---|---:|" + "---:|" * len(names)
    with Parallel(jobs) as parallel:
        for design in DESIGNS:
            for area in AREAS:
                each = parallel(
                    delayed(holds_the_truth)(design, area, i, n_resamples) for i in range(cohorts)
                )
                shares = (
                    np.mean([one[name] for one in each if one[name] is not None]) for name in names
                )
                yield f"| {design} | {area} | {' | '.join(f'{share:.3f}' for share in shares)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage")
    parser.add_argument("--cohorts", type=int, default=500, help="drawn for each line")
    parser.add_argument("--n-resamples", type=int, default=500, help="resamples of each bootstrap")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    given = parser.parse_args()
    for line in lines(given.cohorts, given.n_resamples, given.jobs):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
