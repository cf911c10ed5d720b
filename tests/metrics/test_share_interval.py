"""How sure a share is: exactly, and less so where images are of one patient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binomtest, norm
from test_ranking import UNHURRIED

from conocc.metrics.confidence_intervals import share_interval


@UNHURRIED
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.sampled_from([0.9, 0.95]))
def test_a_share_of_independent_images_has_the_exact_binomial_interval(hits, level):
    exact = binomtest(sum(hits), len(hits)).proportion_ci(level, method="exact")
    interval = share_interval(hits, confidence_level=level)
    assert interval == pytest.approx((sum(hits) / len(hits), exact.low, exact.high))


def test_a_share_over_patients_by_hand():
    """Three patients with two images: of a both, of b none, of c one.

    The deviations 1, -1 and 0 have the variance 3/2 * 2 / 36 = 1/12; 0.25 / (1/12) = 3 images,
    times (2.5706 / 4.3027)^2 = 0.3569, the ratio of t with 5 and with 2 degrees: 1.0708.
    """
    interval = share_interval([1, 1, 0, 0, 1, 0], patient=list("aabbcc"))
    assert interval.value == 0.5
    half = 1.0708 / 2
    assert interval.low == pytest.approx(beta.ppf(0.025, half, half + 1), abs=1e-4)
    assert interval.high == pytest.approx(beta.ppf(0.975, half + 1, half), abs=1e-4)


@UNHURRIED
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcd")), min_size=1, max_size=30))
def test_patients_never_make_a_share_surer(rows):
    """And the interval has the share in it, within [0, 1]."""
    hits, patient = zip(*rows, strict=True)
    interval = share_interval(hits, patient=patient)
    independent = share_interval(hits)
    assert interval.value == independent.value == sum(hits) / len(hits)
    assert 0 <= interval.low <= independent.low + 1e-9
    assert independent.high - 1e-9 <= interval.high <= 1


def test_a_share_of_nothing_is_as_sure_as_there_are_patients():
    """1 - 0.025^(1/4) = 0.602 of four, however many images they have; one alone tells little."""
    for hits in (np.zeros(12), np.ones(12)):
        of_four = share_interval(hits, patient=np.repeat(list("abcd"), 3))
        assert of_four == share_interval(hits[:4])
    assert share_interval(np.zeros(12), patient=np.repeat(list("abcd"), 3)).high == pytest.approx(
        0.602, abs=1e-3
    )
    alone = share_interval([True, False, True], patient=list("aaa"))
    assert alone.high - alone.low > 0.9


def test_a_share_covers_patients_with_several_images():
    """300 cohorts of 60 patients with 1 to 12 images, a tenth of whose scores are above 1.28."""
    rng = np.random.default_rng(8)
    covered = {"patients": 0, "images": 0}
    for _ in range(300):
        patient = np.repeat(np.arange(60), rng.choice([1, 2, 3, 12], 60))
        score = rng.normal(scale=0.8, size=60)[patient] + rng.normal(scale=0.6, size=patient.size)
        hits = score > norm.isf(0.1)
        for name, whose in (("patients", patient), ("images", None)):
            interval = share_interval(hits, patient=whose)
            covered[name] += interval.low <= 0.1 <= interval.high
    assert covered["patients"] / 300 >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 300)
    assert covered["images"] / 300 < 0.85


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: share_interval([]), r"'hits'.*at least one. Got shape \(0,\)"),
        (lambda: share_interval([[True]]), r"'hits'.*Got shape \(1, 1\)"),
        (lambda: share_interval([True], patient=["a", "b"]), r"'patient'.*shape \(2,\) for 1"),
        (lambda: share_interval([True], confidence_level=95), "'confidence_level'.*Got 95"),
    ],
)
def test_a_share_that_cannot_be_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
