"""Batches that are like the calibration, and batches that are not."""

import re

import numpy as np
import pytest

from conocc.thresholds.batch import FALSE_WARNINGS, check_batch

BATCHES = 200


def warnings(n, m, draw, seed=0):
    """Share of batches of which a warning is given, over calibration and batch together."""
    rng = np.random.default_rng(seed)
    return np.mean([check_batch(rng.normal(size=n), draw(rng, m)).differs for _ in range(BATCHES)])


def majority(rng, m):
    return rng.normal(size=m)


def half_minority(rng, m):
    return np.concatenate([rng.normal(size=m - m // 2), rng.normal(4, size=m // 2)])


@pytest.mark.parametrize(("n", "m"), [(14, 20), (14, 500), (59, 52), (400, 200)])
def test_batches_that_are_alike_are_seldom_warned_of(n, m):
    """At most one in twenty: 5 % and, of so many batches, two standard errors."""
    assert warnings(n, m, majority) <= FALSE_WARNINGS + 2 * np.sqrt(0.05 * 0.95 / BATCHES)


@pytest.mark.parametrize(
    ("draw", "power"),
    [
        (half_minority, 0.95),  # which is no shift, and which the sentence allows for
        (lambda rng, m: rng.normal(1, size=m), 0.95),  # all scores are higher
        (lambda rng, m: rng.normal(-1, size=m), 0.7),  # or lower
        (lambda rng, m: rng.normal(0, 3, size=m), 0.9),  # or vary more
    ],
)
def test_batches_that_differ_are_warned_of(draw, power):
    assert warnings(59, 200, draw) >= power


def test_the_share_of_minority_images_is_estimated_and_bounded():
    """Of 400 images a quarter is minority: the bound covers the share in 95 of 100 batches."""
    rng = np.random.default_rng(0)
    checks = []
    for _ in range(200):
        batch = np.concatenate([rng.normal(size=300), rng.normal(5, size=100)])
        checks.append(check_batch(rng.normal(size=200), batch))
    assert np.mean([check.majority for check in checks]) == pytest.approx(0.75, abs=0.02)
    assert np.mean([check.most >= 0.75 for check in checks]) >= 0.95


def test_a_batch_by_hand():
    """Two of five parts of majority scores are at most the second of four, and one of three is.

    Of k majority images none is that low with the chance 12 / ((k + 3) (k + 4)), which is 12 / 462
    for 18 and less than 2.5 % for 19. One score below the second of three says nothing of a half.
    """
    check = check_batch(np.arange(1.0, 5.0), np.array([2.0, 5.0, 5.0]))
    assert (check.images, check.small, check.at, check.most) == (3, 2, 0.2, 1)
    assert (check.majority, check.expected) == pytest.approx((1 / 3 / 0.4, 0.6))
    assert check_batch(np.arange(1.0, 5.0), np.full(40, 9.0)).most == 18 / 40
    assert check_batch(np.array([1.0, 2.0]), np.zeros(10)).lower_half == 1
    assert check_batch(np.array([1.0, 2.0]), np.zeros(10)).majority == 1
    assert check_batch(np.arange(3.0), np.full(10, -5.0)).lower_half == pytest.approx(2 / 11)


def test_what_is_said_of_a_batch():
    calibration = np.arange(100.0)
    alike = check_batch(calibration, np.arange(0.5, 100, 5))
    (said,) = alike.words()
    assert said == "0 of 20 images have p ≤ 0.01; 0.198 would be expected of majority images."
    high = check_batch(calibration, np.arange(200.0, 252))
    facts, warned = high.words()
    assert facts.startswith("52 of 52 images have p ≤ 0.01; ")
    assert warned.startswith(
        "About 0 %, at most 9.6 % of this batch look like the calibration images: unless"
    )
    low = check_batch(calibration, np.full(40, 0.5))
    assert low.most == 1
    assert low.words()[1].startswith(
        "The lower half of the scores is unlike that of the calibration images "
        "(Kolmogorov-Smirnov, p = "
    )
    some = check_batch(calibration, np.r_[np.arange(5.0), np.full(19, 200.0)])
    assert some.words()[1].startswith("About 42.1 %, at most 83.3 % of this batch look")
    few = check_batch(np.arange(14.0), np.array([20.0, 3.0]))
    assert few.words()[0].startswith("1 of 2 images have p ≤ 0.067; 0.133 ")
    said = [high.words(unit)[0].partition(" have")[0] for unit in ("patient", "file", "image")]
    assert said == [
        "52 of 52 majority images, one a patient,",
        "52 of 52 majority images, one a file,",
        "52 of 52 majority images",
    ]
    of_majority = high.words("patient")
    assert "of these look like the calibration images: the batch differs" in of_majority[1]
    assert high.as_json()["words"] == [facts, warned]
    assert (high.as_json()["majority"], high.as_json()["differs"]) == (0, True)


@pytest.mark.parametrize("n", [1, 2, 6, 11, 15, 59, 98, 99, 1000])
def test_the_bound_that_is_said_is_not_below_the_p_values_that_are_counted(n):
    """Of 15 it was said that p ≤ 0.062, of an image whose p is 0.0625."""
    check = check_batch(np.arange(float(n)), np.full(1234, n + 1.0))
    found = re.match(r"1,234 of 1,234 images have p ≤ (0\.\d+); ", check.words()[0])
    assert 1 / (n + 1) <= float(found[1]) < 2 / (n + 1) or n > 99
