"""What a score promises: p-values, thresholds, and the units they speak of.

The simulations are those of `promises.py`.
"""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

import promises
from conocc.thresholds.conformal import (
    Calibration,
    benjamini_hochberg,
    calibrate,
    needed,
    one_image_a_patient,
    p_values,
    patient_maxima,
    promised_threshold,
)
from promises import REPEATS

UNHURRIED = settings(deadline=None)  # other work shares the cores

rates = st.floats(0.01, 0.5)
certainties = st.floats(0.5, 0.99)


def errors(probability, repeats, number=3):
    """How far a share of `repeats` draws may lie from its probability: `number` errors."""
    return number * np.sqrt(probability * (1 - probability) / repeats)


# p-values


def test_p_values_by_hand():
    """Of 1, 2, 2, 5: all four are at least 0 and 1, three at least 2, one at least 3 and 5."""
    p = p_values([2.0, 5.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0, 5.0, 9.0])
    assert p.tolist() == [5 / 5, 5 / 5, 4 / 5, 2 / 5, 2 / 5, 1 / 5]


@UNHURRIED
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.integers(-1, 6), max_size=6),
)
def test_p_values_count_the_calibration_scores_at_least_as_high(calibration, scores):
    """Searching a sorted row equals counting, ties included."""
    counted = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores]
    assert p_values(calibration, scores).tolist() == counted


def test_p_values_of_majority_images_are_uniform():
    """A new score among nine: its p-value is 0.1, 0.2, ... or 1, each as often."""
    draws = np.random.default_rng(0).normal(size=(5000, 10))
    p = np.concatenate([p_values(draw[:9], draw[9:]) for draw in draws])
    counts = np.bincount(np.rint(p * 10).astype(int), minlength=11)[1:]
    assert counts.sum() == 5000
    assert chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_p_values_of_unequal_majority_patients_are_uniform(unit):
    assert promises.uniformity(promises.majority_p_values(unit)) > 0.01


def test_p_values_of_tied_majority_images_are_no_smaller_than_uniform():
    """Scores in whole numbers: P(p <= a) is at most a for every a, within 3 errors."""
    draws = np.random.default_rng(1).normal(scale=1.5, size=(5000, 20)).round()
    p = np.concatenate([p_values(draw[:19], draw[19:]) for draw in draws])
    for alpha in np.arange(0.05, 1, 0.05):
        assert (p <= alpha + 1e-9).mean() <= alpha + errors(alpha, 5000)


# Thresholds


def test_the_numbers_of_scores_needed():
    """0.9^29 = 0.0471 and 0.9^28 = 0.0523; 0.95^59 = 0.0485; 0.99^299 = 0.0495."""
    assert [needed(rate, 0.95) for rate in (0.10, 0.05, 0.01)] == [29, 59, 299]
    assert needed(0.20, 0.95) == 14  # 0.8^14 = 0.0440, 0.8^13 = 0.0550
    assert needed(0.5, 0.75) == 2  # 0.5^2 = 0.25 exactly
    assert needed(0.9, 0.5) == 1


@pytest.mark.parametrize(
    ("n", "false_alarms", "k"),
    [
        # The largest of n scores lies below the true 95 % quantile with a chance of 0.95^n;
        # 0.95^59 = 0.0485 is little enough.
        (59, 0.05, 59),
        # The second largest does if at most one score lies above, with a chance of
        # 0.95^93 + 93 * 0.05 * 0.95^92 = 0.00848 + 0.04150 = 0.04998,
        (93, 0.05, 92),
        # but with 92 scores of 0.00893 + 0.04321 = 0.0521, which is too much.
        (92, 0.05, 92),
        # The larger of two lies below the median with 0.25, all that 0.75 leaves.
        (2, 0.5, 2),
    ],
)
def test_thresholds_by_hand(n, false_alarms, k):
    scores = np.arange(n, 0, -1.0)
    confidence = 0.75 if n == 2 else 0.95
    assert promised_threshold(scores, false_alarms=false_alarms, confidence=confidence) == k


@UNHURRIED
@given(st.integers(1, 400), rates, certainties)
def test_the_threshold_is_the_lowest_that_keeps_the_promise(n, false_alarms, confidence):
    """Its certainty, counted by binomials, is enough; that of the score below it is not."""

    def certainty(k):
        # The k-th smallest is above the true quantile if at least n + 1 - k of n scores are.
        return binom.sf(n - k, n, false_alarms)

    scores = np.arange(1.0, n + 1)
    if n < needed(false_alarms, confidence):
        assert certainty(n) < confidence
        with pytest.raises(ValueError, match=f"Got {n}"):
            promised_threshold(scores, false_alarms=false_alarms, confidence=confidence)
        return
    k = int(promised_threshold(scores, false_alarms=false_alarms, confidence=confidence))
    assert certainty(k) >= confidence - 1e-9
    assert k == 1 or certainty(k - 1) < confidence + 1e-9


@UNHURRIED
@given(rates, certainties)
def test_the_number_needed_is_enough_and_one_less_is_not(false_alarms, confidence):
    n = needed(false_alarms, confidence)
    assert 1 - (1 - false_alarms) ** n >= confidence - 1e-9
    assert 1 - (1 - false_alarms) ** (n - 1) < confidence


def test_too_few_scores_are_refused_with_the_number_needed():
    with pytest.raises(
        ValueError,
        match=r"at most 5 % false alarms with 95 % certainty, .* at least 59 .* Got 58",
    ):
        promised_threshold(np.arange(58.0), false_alarms=0.05, confidence=0.95)


@pytest.mark.parametrize(
    ("simulate", "n", "false_alarms"),
    [
        (promises.rates_by_independent_images, 59, 0.05),
        (promises.rates_by_independent_images, 200, 0.05),
        (promises.rates_by_independent_images, 300, 0.2),
        (promises.rates_by_image, 59, 0.05),
        (promises.rates_by_image, 100, 0.1),
        (promises.rates_by_patient, 59, 0.05),
        (promises.rates_by_patient, 100, 0.1),
    ],
)
def test_the_false_alarm_rate_keeps_its_promise(simulate, n, false_alarms):
    """2000 calibrations, unequal patients too: the certainty and the mean of the Beta law."""
    rate = simulate(n, false_alarms)
    law = promises.beta_law(n, false_alarms)
    kept = np.mean(rate <= false_alarms)
    assert rate.size == REPEATS == 2000
    assert law.cdf(false_alarms) >= 0.95
    assert kept == pytest.approx(law.cdf(false_alarms), abs=errors(0.95, REPEATS))
    assert rate.mean() == pytest.approx(law.mean(), abs=0.005)


def test_the_beta_law_by_hand():
    """The largest of 59 has Beta(1, 59), of mean 1/60; the 96th of 100 has Beta(5, 96)."""
    assert promises.beta_law(59, 0.05).mean() == pytest.approx(1 / 60)
    assert promises.beta_law(100, 0.1).args == (5, 96)


def test_tied_scores_raise_fewer_false_alarms():
    """Scores in whole numbers: what equals the threshold passes, and the promise is kept."""
    rng = np.random.default_rng(2)
    new = rng.normal(scale=3, size=100_000).round()
    rate = [
        (new > promised_threshold(rng.normal(scale=3, size=100).round(), false_alarms=0.1)).mean()
        for _ in range(REPEATS)
    ]
    assert np.mean(np.array(rate) <= 0.1) >= 0.95 - errors(0.95, REPEATS)


def test_all_images_of_few_patients_would_break_the_promise():
    """Why one image a patient: counted as independent, their certainty is far below 95 %."""
    rate = promises.rates_by_all_images(100, 0.1, repeats=500)
    assert np.mean(rate <= 0.1) < 0.85


# Units


def test_one_image_a_patient_is_seeded_and_takes_each_patient_once():
    patient = np.array(["a", "b", "a", "c", "a", "b"])
    image = one_image_a_patient(patient, 0)
    assert sorted(patient[image]) == ["a", "b", "c"]
    assert (np.diff(image) > 0).all()
    # A saved calibration is drawn again by the seed that nobody gives.
    assert image.tolist() == one_image_a_patient(patient).tolist() == [2, 3, 5]


def test_each_image_of_a_patient_is_as_likely():
    """Of three images each is drawn a third of the time, within 3 errors."""
    drawn = np.array([one_image_a_patient(["a", "a", "a"], seed)[0] for seed in range(900)])
    for image in range(3):
        assert (drawn == image).mean() == pytest.approx(1 / 3, abs=errors(1 / 3, 900))


@UNHURRIED
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-9, 9)), min_size=1, max_size=9))
def test_patient_maxima_are_the_largest_of_each(rows):
    patient, scores = zip(*rows, strict=True)
    patients, maxima = patient_maxima(patient, scores)
    assert patients.tolist() == sorted(set(patient))
    assert maxima.tolist() == [max(s for q, s in rows if q == p) for p in patients]


def test_a_calibration_without_patients_takes_every_image_and_says_nothing_by_patient():
    calibration = calibrate([3.0, 1.0, 2.0])
    assert calibration.of("image").tolist() == [1.0, 2.0, 3.0]
    assert calibration.patients == 3
    with pytest.raises(ValueError, match="'patient' needs .* whose patients are known"):
        calibration.of("patient")


def test_a_calibration_by_image_takes_scores_that_were_drawn():
    """One of a's two and b's only one, seeded."""
    kept = {
        tuple(calibrate([1.0, 2.0, 5.0], patient=["a", "a", "b"], random_state=seed).of("image"))
        for seed in range(20)
    }
    assert kept == {(1.0, 5.0), (2.0, 5.0)}


def test_one_calibration_serves_both_units():
    """b's largest score is 9, a's 2; a threshold by patient is one of these."""
    calibration = calibrate([1.0, 9.0, 2.0, 5.0], patient=["a", "b", "a", "b"])
    assert calibration.of("patient").tolist() == [2.0, 9.0]
    assert set(calibration.of("image")) <= {1.0, 2.0, 5.0, 9.0}
    assert calibration.patients == 2
    asked = {"false_alarms": 0.5, "confidence": 0.75}  # the larger of two, see above
    assert calibration.threshold(**asked, unit="patient") == 9.0
    assert calibration.threshold(**asked) == calibration.of("image")[1]
    # None, one and both of the two maxima are at least so high.
    assert calibration.p_values([10.0, 3.0, 2.0], unit="patient").tolist() == [1 / 3, 2 / 3, 1.0]


def test_the_usual_rate_is_the_smallest_that_can_be_promised_so_surely():
    """By 32 patients 1 - 0.95^32 = 0.81 and 1 - 0.9^32 = 0.97."""
    calibration = calibrate(np.arange(32.0))
    assert (calibration.usual_rate(0.8), calibration.usual_rate()) == (0.05, 0.1)


@pytest.mark.parametrize("patient", [None, np.repeat(["Erika", "Max"], 20)])
def test_a_calibration_travels_through_json_to_the_last_bit(patient):
    """As numbers for patients, without their names."""
    scores = np.random.default_rng(6).normal(size=40)
    calibration = calibrate(scores, patient=patient, random_state=3)
    text = json.dumps(calibration.as_json())
    assert Calibration.from_json(json.loads(text)) == calibration
    assert calibration.scores == tuple(scores)
    assert "Erika" not in text


def test_a_calibration_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        calibrate([1.0]).seed = 1


def test_a_calibration_gives_what_its_scores_give():
    calibration = calibrate(np.arange(100.0))
    assert calibration.p_values([49.5]).tolist() == p_values(np.arange(100.0), [49.5]).tolist()
    assert calibration.threshold(false_alarms=0.1) == 95.0  # the 96th from 0


# Batches


def test_benjamini_hochberg_by_hand():
    """Five at 0.05: 0.03 <= 3/5 * 0.05 carries 0.025 > 2/5 * 0.05 with it."""
    chosen = benjamini_hochberg([0.03, 0.9, 0.001, 0.025, 0.05], rate=0.05)
    assert chosen.tolist() == [True, False, True, True, False]
    assert not benjamini_hochberg([0.5, 0.6], rate=0.05).any()
    assert benjamini_hochberg([], rate=0.05).size == 0


def within(i, k, n, t, hundredths):
    return 100 * i * t <= hundredths * k * (n + 1)


@UNHURRIED
@given(
    st.integers(1, 60),
    st.data(),
    st.sampled_from([0.05, 0.1, 0.2]),
)
def test_benjamini_hochberg_meets_its_bound_exactly(n, data, rate):
    """On the grid of conformal p-values, in whole numbers: i / (n + 1) <= rate * k / t."""
    i = data.draw(st.lists(st.integers(1, n + 1), min_size=1, max_size=20))
    t, hundredths = len(i), round(rate * 100)
    largest = max(
        (k for k in range(1, t + 1) if within(sorted(i)[k - 1], k, n, t, hundredths)), default=0
    )
    expected = [within(j, largest, n, t, hundredths) for j in i]
    assert benjamini_hochberg(np.array(i) / (n + 1), rate=rate).tolist() == expected


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_benjamini_hochberg_holds_the_false_discovery_rate(unit):
    """400 batches of 40 majority and 10 minority patients at 20 %: at most 0.8 * 0.2 are false."""
    share = promises.false_discoveries(unit, repeats=400, rate=0.2)
    assert share.mean() <= 0.16 + 3 * share.std() / 20
    assert share.mean() > 0.10  # and it does choose


# Refusals


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: p_values([], [1.0]), "at least one score"),
        (lambda: p_values([1.0, np.nan], [1.0]), "'calibration_scores'.*Got nan at position 1"),
        (lambda: p_values([1.0], [np.inf]), "'scores'.*Got inf at position 0"),
        (lambda: p_values([[1.0]], [1.0]), r"one row. Got shape \(1, 1\)"),
        (lambda: promised_threshold([1.0], false_alarms=5), r"'false_alarms'.*\(0, 1\). Got 5"),
        (
            lambda: promised_threshold([1.0], false_alarms=0.1, confidence=1.0),
            r"'confidence'.*Got 1.0",
        ),
        (lambda: needed(0.0, 0.95), r"'false_alarms'.*Got 0.0"),
        (lambda: calibrate([1.0]).of("slice"), "'unit'.*'image', 'patient'. Got 'slice'"),
        (lambda: Calibration(scores=()), "at least one score"),
        (lambda: Calibration((1.0,), (0, 0)), r"'patient'.*shape \(2,\) for 1 images"),
        (lambda: calibrate([1.0, 2.0], patient=["a"]), r"'patient'.*shape \(1,\) for 2 images"),
        (
            lambda: calibrate([1.0, 2.0], patient=["a", None]),
            "'patient'.*no value for 1 of 2 images, the first of row 1",
        ),
        (
            lambda: one_image_a_patient([1.0, np.nan]),
            "'patient'.*no value for 1 of 2 images, the first of row 1",
        ),
        (lambda: benjamini_hochberg([0.1, 1.2], rate=0.1), "numbers between 0 and 1"),
        (lambda: benjamini_hochberg([0.1, np.nan], rate=0.1), "'p'.*Got nan at position 1"),
        (lambda: patient_maxima(["a"], [np.nan]), "'scores'.*Got nan at position 0"),
        (lambda: patient_maxima(["a"], [1.0, 2.0]), r"'patient'.*shape \(1,\) for 2 images"),
        (lambda: benjamini_hochberg([0.1], rate=10), "'rate'.*Got 10"),
    ],
)
def test_refusals_name_the_parameter_the_rule_and_the_value(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
