"""What near copies do to figures: ``python -m benchmarks.near_copies COHORT --size N``.

Where patients are not known, images of one are on both sides of a split
(`conocc.data.near_copies`). For each seed of the split, a method is fitted to the training side,
to what ``conocc fit`` leaves of it, to as many of its images at random, and to fewer. A line of
CSV for each fit, as soon as it is known: the AUC on all test images, and on those without a near
copy; and where a fifth is kept for the threshold, the share of majority images
above it, of all, of near copies and of others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.command import asked, cohort_of, write_lines
from conocc.data.cohort import Cohort
from conocc.data.near_copies import near_copies
from conocc.data.splits import kept_for_calibration, split_by_patient
from conocc.detectors import method_class
from conocc.metrics.ranking import auc
from conocc.thresholds.conformal import calibrate

HEADS = (
    *("split", "trained on", "images", "copies", "of", "AUC", "AUC of others"),
    *("false alarms", "of copies", "of others"),
)
SHARES = (0.4, 0.6, 0.8)


def lines(
    cohort: Cohort, method: str, splits: range, draws: int, **params: Any
) -> Iterator[list[object]]:
    """Fit and measure, one line a fit."""
    whose = cohort.patient, cohort.digest
    for seed in splits:
        split = split_by_patient(cohort.patient, cohort.minority, cohort.digest, seed=seed)
        kept = kept_for_calibration(split, *whose, seed=seed, share="auto")
        train, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
        copy = np.isin(test, list(near_copies(cohort.images, test, train)))
        minority = cohort.minority[test]
        counted = [int((copy & ~minority).sum()), int((~minority).sum())]
        rng = np.random.default_rng(seed)
        sizes = [round(share * len(train)) for share in SHARES for _ in range(draws)]
        trained = [("all", train), ("less a fifth", np.flatnonzero(kept == "train"))]
        trained += [("random", np.sort(rng.choice(train, n, replace=False))) for n in sizes]
        for name, learned in trained:
            detector = method_class(method)(random_state=0, false_alarms=None, **params)
            score = detector.fit(cohort.images[learned]).anomaly_score(cohort.images[test])
            areas = [auc(minority[of], score[of]) for of in (slice(None), ~copy)]
            shares: list[float] = []
            if name == "less a fifth":
                known = calibrate(detector.anomaly_score(cohort.images[kept == "calibration"]))
                flagged = score > known.threshold(false_alarms=known.usual_rate() or 0.05)
                shares = [flagged[~minority & of].mean() for of in (copy | ~copy, copy, ~copy)]
            found = [f"{value:.4f}" for value in (*areas, *shares)]
            yield [seed, name, len(learned), *counted, *found]


def main() -> None:
    """Write the lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.near_copies", description=__doc__)
    parser.add_argument("--method", default="lrt")
    parser.add_argument("--splits", type=int, nargs=2, default=(0, 6), help="first, and one on")
    parser.add_argument("--draws", type=int, default=2, help="at random, of each number of images")
    parser.add_argument("--params", type=json.loads, default={}, help="of the method, as JSON")
    given = asked(parser)
    cohort, splits = cohort_of(given), range(*given.splits)
    write_lines(HEADS, lines(cohort, given.method, splits, given.draws, **given.params))


if __name__ == "__main__":
    main()
