"""Resamples of patients: counts equal copies of the images, and whole patients are drawn."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ranking import UNHURRIED, cohorts

from conocc.metrics.bootstrap import FROM_COUNTS, resampled
from conocc.metrics.confidence_intervals import metric_interval
from conocc.metrics.ranking import METRICS


@pytest.mark.parametrize("metric", FROM_COUNTS, ids=lambda metric: metric.__name__)
@UNHURRIED
@given(cohorts(methods=1), st.integers(0, 5))
def test_counts_give_what_copies_of_the_images_give(metric, cohort, seed):
    """The metric itself, of each resample's images; behind a lambda it is computed so."""
    minority, (score,), patient = cohort
    how = {
        "code": np.unique(patient, return_inverse=True)[1],
        "n_resamples": 7,
        "random_state": seed,
    }
    slow = resampled(lambda m, s: metric(m, s), minority, score, **how)
    assert resampled(metric, minority, score, **how) == pytest.approx(slow)


def test_a_metric_is_added_in_one_place(monkeypatch):
    """Whatever is in `METRICS` has an interval, without a formula of its own."""
    monkeypatch.setitem(METRICS, "mean", lambda minority, score: float(score[minority].mean()))
    interval = metric_interval("mean", [0, 0, 1, 1], [0.1, 0.2, 0.3, 0.5], n_resamples=50)
    assert interval == pytest.approx((0.4, 0.3, 0.5))


def test_whole_patients_are_drawn_within_the_classes_that_they_have():
    """Of two patients with both classes, three with one: 2, 1 and 2 of them are drawn again."""
    code = np.array([0, 0, 0, 1, 1, 2, 3, 4])
    minority = np.array([True, False, False, True, False, True, False, False])
    seen = []

    def kept(classes, score):
        image = score.astype(int)
        seen.append(np.bincount(image, minlength=8))
        return 0.0

    resampled(kept, minority, np.arange(8.0), code, n_resamples=40, random_state=0)
    drawn = np.array(seen)
    assert (drawn[:, [0, 1]] == drawn[:, [1, 2]]).all()
    assert (drawn[:, 3] == drawn[:, 4]).all()
    assert (drawn[:, 0] + drawn[:, 3] == 2).all()
    assert (drawn[:, 5] == 1).all()
    assert (drawn[:, 6] + drawn[:, 7] == 2).all()
    assert len(np.unique(drawn, axis=0)) == 3 * 3


def test_the_same_seed_draws_the_same_patients_for_every_score():
    """Without it the mean over fits would be of different patients."""
    minority, seen = np.arange(10) < 4, []

    def kept(classes, score):
        seen.append(classes.size)
        return float(score.min())

    ranks = np.arange(10.0)
    a = resampled(kept, minority, ranks, np.arange(10), n_resamples=20, random_state=3)
    b = resampled(kept, minority, ranks + 1, np.arange(10), n_resamples=20, random_state=3)
    assert (b == a + 1).all()
    assert set(seen) == {10}


def test_ten_thousand_images_two_thousand_times_take_seconds():
    rng = np.random.default_rng(0)
    minority = np.arange(10_000) % 5 == 0
    score = rng.normal(size=10_000) + minority
    start = time.process_time()
    code = np.arange(10_000) // 3
    resampled(METRICS["AUPR-maj"], minority, score, code, n_resamples=2000, random_state=0)
    assert time.process_time() - start < 10
