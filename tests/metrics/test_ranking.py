"""The metrics that a benchmark reports, and the sensitivity at a threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conocc.metrics.ranking import (
    METRICS,
    auc,
    aupr_maj,
    aupr_min,
    sensitivity_at,
)

UNHURRIED = settings(deadline=None)  # other work shares the cores


@st.composite
def cohorts(draw, methods=2):
    """Small cohorts full of ties: minority (n,), scores (methods, n), patient (n,)."""
    classes = st.integers(2, 6)
    minority = np.repeat([True, False], [draw(classes), draw(classes)])
    n = minority.size
    row = st.lists(st.integers(0, 4), min_size=n, max_size=n)
    scores = np.array([draw(row) for _ in range(methods)], dtype=float)
    # The first two images of each class are of four patients, so that a variance exists.
    patient = np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)))
    patient[np.flatnonzero(minority)[:2]] = [10, 11]
    patient[np.flatnonzero(~minority)[:2]] = [12, draw(st.sampled_from([10, 13]))]
    return minority, scores, patient


def pairwise(minority, score):
    """Every minority score against every majority score: 1 if above, 1/2 if tied."""
    a, b = score[minority][:, None], score[~minority]
    return (a > b) + 0.5 * (a == b)


# The three metrics


def test_a_constant_score_has_the_prevalence_as_aupr():
    """234 majority and 390 minority images: 234 / 624 = 0.375 and 390 / 624 = 0.625."""
    minority = np.repeat([False, True], [234, 390])
    constant = np.zeros(624)
    assert auc(minority, constant) == 0.5
    assert aupr_maj(minority, constant) == pytest.approx(0.375)
    assert aupr_min(minority, constant) == pytest.approx(0.625)


def test_aupr_by_hand():
    """Average precision sums precision times the recall gained, from the best score down.

    Minority by falling score (0.9 min, 0.4 maj, 0.3 min, 0.1 maj): 1/2 * 1 + 1/2 * 2/3.
    Majority by rising score (0.1 maj, 0.3 min, 0.4 maj, 0.9 min): 1/2 * 1 + 1/2 * 2/3.
    """
    minority, score = [True, False, True, False], [0.9, 0.4, 0.3, 0.1]
    assert aupr_min(minority, score) == pytest.approx(5 / 6)
    assert aupr_maj(minority, score) == pytest.approx(5 / 6)
    # One more majority image on top: 0 at rank 1, then 1/2 * 1/2 + 1/2 * 2/4.
    assert aupr_min([*minority, False], [*score, 1.0]) == pytest.approx(0.5)
    # From below it comes last: 1/3 * 1 + 1/3 * 2/3 + 1/3 * 3/5.
    assert aupr_maj([*minority, False], [*score, 1.0]) == pytest.approx(34 / 45)


@UNHURRIED
@given(cohorts(methods=1))
def test_turning_score_and_classes_round_swaps_the_auprs(cohort):
    """AUPR-maj is AUPR-min seen from the other class, and AUC is the same from both."""
    minority, (score,), _ = cohort
    assert aupr_maj(minority, score) == pytest.approx(aupr_min(~minority, -score))
    assert auc(minority, score) == pytest.approx(auc(~minority, -score))


@UNHURRIED
@given(cohorts(methods=1))
def test_auc_is_the_share_of_pairs_in_the_right_order(cohort):
    """Sklearn's trapezoids equal counting every pair, ties one half."""
    minority, (score,), _ = cohort
    assert auc(minority, score) == pytest.approx(pairwise(minority, score).mean())


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    ("minority", "score", "sentence"),
    [
        (
            [True, True],
            [0.1, 0.2],
            r"^The 'minority' .* both classes. Got 2 minority and 0 majority",
        ),
        ([False, False], [0.1, 0.2], "0 minority and 2 majority"),
        ([], [], "0 minority and 0 majority"),
        ([True, False], [0.1, np.nan], "^The 'anomaly_score' .* finite. Got nan at position 1"),
        ([True, False], [np.inf, 0.1], "Got inf at position 0"),
        ([True, False], [0.1], r"^The 'minority' and .* with one value .* \(2,\) and \(1,\)"),
        ([True, False], [[0.1, 0.2]], r"shape \(1, 2\)"),
        ([1, -1], [0.1, 0.2], "^The 'minority' .* True for minority .* majority images. Got -1"),
        ([0, 2], [0.1, 0.2], "Got 2 instead"),
    ],
)
def test_metrics_refuse_what_they_cannot_judge(metric, minority, score, sentence):
    """One class only, scores that are no numbers, lengths that differ, other labels."""
    with pytest.raises(ValueError, match=sentence):
        metric(minority, score)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_scores_of_any_type_are_numbers(metric):
    """Of bytes, the negative would wrap round; of float16, ranks would tie."""
    minority, score = np.array([False, True, False, True, False]), np.array([0, 2, 3, 9, 1])
    expected = metric(minority, score.astype(float))
    for same in (score.astype(np.uint8), score.astype(str), score.astype(object), score.tolist()):
        assert metric(minority, same) == expected


# Sensitivity


def test_sensitivity_at_a_specificity_by_hand():
    """Ten majority scores 1 ... 10: nine pass at 9, so that 9.5 and 11 are found, 9 is not."""
    minority = np.repeat([False, True], [10, 3])
    score = np.r_[np.arange(1.0, 11), 9, 9.5, 11]
    assert sensitivity_at(minority, score, specificity=0.9) == pytest.approx(2 / 3)
    assert sensitivity_at(minority, score, specificity=1.0) == pytest.approx(1 / 3)
    assert sensitivity_at(minority, score, specificity=0.0) == 1.0


@UNHURRIED
@given(cohorts(methods=1), st.floats(0, 1))
def test_sensitivity_keeps_the_specificity(cohort, specificity):
    """It is the best of all thresholds under which at least `specificity` passes."""
    minority, (score,), _ = cohort
    kept = [
        t
        for t in [-np.inf, *score]
        if (score[~minority] <= t).sum() >= specificity * (~minority).sum() - 1e-9  # `must_pass`
    ]
    best = max((score[minority] > t).mean() for t in kept)
    assert sensitivity_at(minority, score, specificity=specificity) == best


def test_seven_of_a_hundred_is_seven_in_floating_point_too():
    """0.07 * 100 is a little above 7; the 7th score is the threshold all the same."""
    minority = np.repeat([False, True], [100, 1])
    score = np.r_[np.arange(1.0, 101), 7.5]
    assert sensitivity_at(minority, score, specificity=0.07) == 1.0


def test_by_default_one_majority_image_in_twenty_may_be_flagged():
    """Forty majority scores 1 ... 40: two may be flagged, so that 38.5 is found and 38 is not."""
    minority = np.repeat([False, True], [40, 4])
    score = np.r_[np.arange(1.0, 41), 38, 38.5, 41, 0]
    assert sensitivity_at(minority, score) == 0.5
    # Of nineteen not one may: 1 / 19 is more than 5 %.
    minority, score = np.repeat([False, True], [19, 2]), np.r_[np.arange(1.0, 20), 18.5, 20]
    assert sensitivity_at(minority, score) == 0.5


@pytest.mark.parametrize("specificity", [95, 1.5, -0.1])
def test_sensitivity_refuses_a_specificity_in_percent(specificity):
    with pytest.raises(ValueError, match=rf"'specificity'.*\[0, 1\]. Got {specificity} instead"):
        sensitivity_at([True, False], [1, 0], specificity=specificity)
