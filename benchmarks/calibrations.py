"""How often does a promise break on drawn images? ``python -m benchmarks.calibrations PHANTOM``.

A line of CSV for each calibration, as soon as it is known: the share of majority images that are
flagged where at most 5 % are promised (10 % where a fifth of the images is too few), of the test
images and of 3,000 drawn for this. The images are those of the phantom, of which other seeds of the
split keep other fifths (``same``), or they are all drawn anew, test images too (``anew``).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from benchmarks.command import write_lines
from conocc.data.phantoms import PHANTOMS, draw_phantom
from conocc.data.splits import kept_for_calibration
from conocc.detectors import method_class
from conocc.thresholds.conformal import calibrate

HEADS = ("images", "draw", "calibrated on", "promised", "of the test", "of 3,000")


def lines(name: str, method: str, images: str, draws: range) -> Iterator[list[object]]:
    """Fit, calibrate and count, one line a draw."""
    fresh = draw_phantom(name, train=0, test_majority=3000, test_minority=0, seed=999).images
    for draw in draws:
        drawn = draw_phantom(name, test_minority=0, seed=1000 + draw if images == "anew" else 0)
        train, test = (drawn.images[drawn.split == side, None] for side in ("train", "test"))
        names = [f"images[{i}]" for i in range(len(train))]
        seed = draw if images == "same" else 0
        side = kept_for_calibration(["train"] * len(train), names, names, seed=seed, share="auto")
        detector = method_class(method)(random_state=0, false_alarms=None)
        detector.fit(train[side == "train"].astype("f4"))
        known = calibrate(detector.anomaly_score(train[side == "calibration"].astype("f4")))
        promised = known.usual_rate()
        assert promised is not None
        threshold = known.threshold(false_alarms=promised)
        scores = (detector.anomaly_score(new.astype("f4")) for new in (test, fresh[:, None]))
        shares = [f"{np.mean(score > threshold):.4f}" for score in scores]
        yield [images, draw, known.patients, promised, *shares]


def main() -> None:
    """Write the lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrations", description=__doc__)
    parser.add_argument("phantom", choices=PHANTOMS)
    parser.add_argument("--method", default="lrt")
    parser.add_argument("--images", choices=("same", "anew"), default="same")
    parser.add_argument("--draws", type=int, nargs=2, default=(0, 20), help="first, and one on")
    given = parser.parse_args()
    found = lines(given.phantom, given.method, given.images, range(*given.draws))
    write_lines(HEADS, found)


if __name__ == "__main__":
    main()
