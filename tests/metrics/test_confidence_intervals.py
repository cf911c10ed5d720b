"""How sure a metric is, and the tests between methods."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from test_ranking import UNHURRIED, cohorts, pairwise

from conocc.metrics.auc_variance import auc_covariance
from conocc.metrics.confidence_intervals import (
    auc_interval,
    bootstrap_interval,
    compare_auc,
    holm,
    metric_interval,
)
from conocc.metrics.ranking import (
    METRICS,
    auc,
    aupr_maj,
    aupr_min,
    sensitivity_at,
)


def clustered(rng, patients, *, shift, between):
    """Patients with one to six images of either class, alike by a shared normal effect.

    Scores have variance 1, of which `between` is between patients.
    """
    images = rng.integers(1, 7, patients)
    patient = np.repeat(np.arange(patients), images)
    minority = rng.random(patient.size) < np.repeat(rng.choice([0.0, 0.5, 1.0], patients), images)
    effect = rng.normal(scale=between**0.5, size=patients)[patient]
    score = effect + rng.normal(scale=(1 - between) ** 0.5, size=patient.size)
    return minority, score + shift * minority, patient


# The interval of AUC


def test_auc_interval_by_hand():
    """Minority 5, 7, 9 over majority 1, 2, 6: components (2/3, 1, 1) and (1, 1, 2/3).

    Each class: squares (4 + 1 + 1) / 81, by 2 * 3, is 1/81. Variance 2/81, area 8/9: on the
    logit scale log 8 +- 1.959964 * sqrt(2/81) / (8/81).
    """
    interval = auc_interval([0, 0, 0, 1, 1, 1], [1, 2, 6, 5, 7, 9])
    half = 1.959964 * np.sqrt(2 / 81) / (8 / 81)
    assert interval.value == pytest.approx(8 / 9)
    assert interval.low == pytest.approx(1 / (1 + np.exp(-np.log(8) + half)), abs=1e-6)
    assert interval.high == pytest.approx(1 / (1 + np.exp(-np.log(8) - half)), abs=1e-6)


@UNHURRIED
@given(cohorts(methods=1), st.booleans())
def test_auc_interval_holds_the_area_and_stays_in_range(cohort, known):
    minority, (score,), patient = cohort
    interval = auc_interval(minority, score, patient=patient if known else None)
    assert interval.value == pytest.approx(auc(minority, score))
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high


def test_perfect_separation_is_not_certainty():
    """The lower end lies 1.96 of its own standard errors below 1, and rises with more images."""

    def separated(n, **given):
        return auc_interval(np.repeat([False, True], n), np.arange(2.0 * n), **given)

    low = separated(10).low
    # Newcombe (2006), method 5, for ten and ten: (m + n) / 2 - 1 = 9
    spread = 1 + 9 * (1 - low) / (2 - low) + 9 * low / (1 + low)
    assert 1 - low == pytest.approx(1.959964 * np.sqrt(low * (1 - low) * spread / 100), abs=1e-6)
    assert separated(10).high == separated(10).value == 1.0
    assert 0.5 < separated(5).low < low < separated(100).low < 1

    # Ten images of five patients a class say as much as five images do.
    of_five = separated(10, patient=np.repeat(np.arange(10), 2))
    assert of_five == separated(5)


def test_a_reversed_perfect_score_mirrors_a_perfect_one():
    minority = np.repeat([False, True], 8)
    perfect = auc_interval(minority, minority.astype(float))
    reversed_ = auc_interval(minority, -minority.astype(float))
    assert reversed_.low == reversed_.value == 0.0
    assert reversed_.high == pytest.approx(1 - perfect.low)


def test_a_separated_sample_is_rare_where_the_lower_end_says_so():
    """Ten and ten normal scores whose true area is the lower end separate in at most 2.5 %."""
    low = auc_interval(np.repeat([False, True], 10), np.arange(20.0)).low
    rng = np.random.default_rng(0)
    majority, minority = rng.normal(size=(2, 20_000, 10))
    shift = norm.ppf(low) * 2**0.5
    separated = (minority + shift).min(axis=1) > majority.max(axis=1)
    assert separated.mean() <= 0.025


@pytest.mark.parametrize(("area", "images"), [(0.60, (40, 60)), (0.85, (40, 60)), (0.95, (60, 90))])
def test_delongs_interval_covers_independent_images(area, images):
    """In 800 simulated cohorts, 95 % of the intervals hold the true area, within 3 errors."""
    rng = np.random.default_rng(1)
    minority = np.repeat([True, False], images)
    shift = norm.ppf(area) * 2**0.5
    intervals = [
        auc_interval(minority, rng.normal(size=minority.size) + shift * minority)
        for _ in range(800)
    ]
    covered = np.mean([interval.low <= area <= interval.high for interval in intervals])
    assert covered == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 800))


def test_only_obuchowskis_interval_covers_patients_with_several_images():
    """80 patients, 60 % of the variance between them: 95 % with patients, far less without."""
    rng = np.random.default_rng(2)
    area = 0.8
    shift = norm.ppf(area) * 2**0.5
    covered = np.zeros((600, 2))
    for row in covered:
        minority, score, patient = clustered(rng, 80, shift=shift, between=0.6)
        for column, given_patient in enumerate([patient, None]):
            interval = auc_interval(minority, score, patient=given_patient)
            row[column] = interval.low <= area <= interval.high
    with_patients, without = covered.mean(axis=0)
    assert with_patients == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 600))
    assert without < 0.88


# Comparisons


@UNHURRIED
@given(cohorts(), st.booleans())
def test_a_comparison_turned_round_changes_its_sign(cohort, known):
    minority, (a, b), patient = cohort
    there = compare_auc(minority, a, b, patient=patient if known else None)
    back = compare_auc(minority, b, a, patient=patient if known else None)
    assert np.allclose(
        [there.difference, there.low, there.high, there.z, there.p],
        [-back.difference, -back.high, -back.low, -back.z, back.p],
        equal_nan=True,
    )


def test_methods_that_rank_alike_do_not_differ():
    minority, score = [0, 1, 0, 1, 1], np.array([0.1, 0.4, 0.5, 0.6, 0.9])
    assert compare_auc(minority, score, np.exp(score)) == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_the_mean_of_several_fits_is_compared():
    """Areas 1 and 3/4 beside 1/2 twice and 1: a half, three, and a quarter less of the fits."""
    minority = [0, 0, 1, 1]
    a, b = [[1, 2, 3, 4], [1, 3, 2, 4]], [[2, 3, 1, 4], [2, 3, 1, 4], [1, 2, 3, 4]]
    assert compare_auc(minority, a, b).difference == pytest.approx(7 / 8 - 2 / 3)


def test_a_difference_without_a_variance_has_no_p():
    """A perfect and a constant score: the areas differ by 1/2, and nothing says how surely."""
    minority = np.repeat([False, True], 5)
    comparison = compare_auc(minority, minority, np.zeros(10))
    assert comparison.difference == 0.5
    assert np.isnan(comparison[1:]).all()


def test_the_paired_test_errs_as_often_as_it_says_only_with_patients():
    """Two equally good methods, alike within patients: 5 % of p-values are below 0.05."""
    rng = np.random.default_rng(3)
    below = np.zeros((600, 2))
    for row in below:
        minority, a, patient = clustered(rng, 80, shift=1.2, between=0.6)
        effect = rng.normal(scale=0.6**0.5, size=patient.max() + 1)[patient]
        b = effect + rng.normal(scale=0.4**0.5, size=patient.size) + 1.2 * minority
        row[:] = [
            compare_auc(minority, a, b, patient=patient).p < 0.05,
            compare_auc(minority, a, b).p < 0.05,
        ]
    with_patients, without = below.mean(axis=0)
    assert with_patients == pytest.approx(0.05, abs=3 * np.sqrt(0.95 * 0.05 / 600))
    assert without > 0.12


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"patient": ["a", "a", "b", "c"]},
            "^The variance of an AUC .* 1 with minority and 2 with",
        ),
        ({"patient": ["a", "b", "c"]}, r"^The 'patient'.*shape \(3,\) for 4 images"),
        ({"patient": [["a", "b"]]}, r"Got shape \(1, 2\) for 4 images"),
        ({"patient": ["a", None, "b", "c"]}, "^The .patient.*no value for 1 of 4 .*row 1"),
        ({"patient": [1.0, 2.0, np.nan, 3.0]}, "^The .patient.*no value for 1 of 4 .*row 2"),
        ({"confidence_level": 95}, r"'confidence_level'.*\(0, 1\). Got 95 instead"),
    ],
)
def test_intervals_refuse_what_gives_no_variance(changed, sentence):
    """Too few patients, patients unknown, a level in percent."""
    minority, score = [True, True, False, False], [0.3, 0.4, 0.2, 0.35]
    with pytest.raises(ValueError, match=sentence):
        auc_interval(minority, score, **changed)
    with pytest.raises(ValueError, match=sentence):
        compare_auc(minority, score, score[::-1], **changed)


def test_one_minority_image_has_no_interval():
    with pytest.raises(ValueError, match="Got 1 with minority and 2 with majority"):
        auc_interval([True, False, False], [0.3, 0.2, 0.1])


# The bootstrap


def test_the_bootstrap_is_reproducible_and_has_a_seed():
    minority, score, patient = clustered(np.random.default_rng(4), 30, shift=1.0, between=0.5)

    def draw(seed):
        return bootstrap_interval(
            aupr_min, minority, score, patient=patient, n_resamples=50, random_state=seed
        )

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    usual = bootstrap_interval(aupr_min, minority, score, patient=patient, n_resamples=50)
    assert usual == draw(0)


@pytest.mark.parametrize(
    "metric", [aupr_maj, aupr_min, functools.partial(sensitivity_at, specificity=0.9)]
)
def test_the_bootstrap_draws_patients_with_all_their_images(metric):
    """Five copies of each image, under its patient, leave the interval as it was."""
    minority, score, _ = clustered(np.random.default_rng(5), 30, shift=1.0, between=0.5)
    patient = np.arange(minority.size)
    once = bootstrap_interval(metric, minority, score, patient=patient, n_resamples=50)
    copies = bootstrap_interval(
        metric, np.tile(minority, 5), np.tile(score, 5), patient=np.tile(patient, 5), n_resamples=50
    )
    assert np.allclose(once, copies)
    assert once == bootstrap_interval(metric, minority, score, n_resamples=50)


def test_every_resample_has_both_classes():
    """With one minority patient among twenty, a free draw would often have none."""
    minority = np.arange(20) == 7
    seen = []

    def prevalence(classes, score):
        seen.append(float(classes.mean()))
        return seen[-1]

    bootstrap_interval(prevalence, minority, np.arange(20.0), n_resamples=30)
    assert set(seen) == {0.05}


def test_the_bootstrap_agrees_with_obuchowski_on_auc():
    """Two ways to one standard error: within a fifth, for 150 patients."""
    minority, score, patient = clustered(np.random.default_rng(6), 150, shift=1.0, between=0.5)
    interval = bootstrap_interval(auc, minority, score, patient=patient, n_resamples=400)
    variance = auc_covariance(minority, score[None], patient=patient)[1][0, 0]
    width = (interval.high - interval.low) / (2 * 1.96)
    assert width == pytest.approx(variance**0.5, rel=0.2)


def test_the_bootstrap_covers_patients_with_several_images():
    """150 cohorts of 60 patients: the sensitivity at a threshold of 1, whose truth is known."""
    rng = np.random.default_rng(7)

    def metric(minority, score):
        return (score[minority] > 1).mean()

    truth = norm.sf(0.0)  # minority scores are normal about the shift, 1
    covered = 0
    for _ in range(150):
        minority, score, patient = clustered(rng, 60, shift=1.0, between=0.6)
        interval = bootstrap_interval(metric, minority, score, patient=patient, n_resamples=200)
        covered += interval.low <= truth <= interval.high
    # A percentile interval of 60 patients is known to run a little short: 0.90, less 3 errors.
    assert covered / 150 >= 0.90 - 3 * np.sqrt(0.1 * 0.9 / 150)


def test_the_bootstrap_refuses_no_resamples():
    with pytest.raises(ValueError, match=r"'n_resamples'.*at least 1. Got 0 instead"):
        bootstrap_interval(auc, [True, False], [1, 0], n_resamples=0)
    with pytest.raises(ValueError, match=r"'confidence_level'.*\(0, 1\). Got 95 instead"):
        bootstrap_interval(auc, [True, False], [1, 0], confidence_level=95)
    assert bootstrap_interval(auc, [True, False], [1, 0], n_resamples=1) == (1, 1, 1)


# The bootstrap on the logit scale


def test_the_logit_interval_by_hand():
    """Resampled figures 0.2, 0.5 and 0.8, logits -log 4, 0, log 4, deviation log 4.

    Three patients a class: t with 2 degrees of freedom is 4.302653, the factor sqrt(3 / 2).
    """
    figures = iter([0.2, 0.5, 0.8, 0.4])  # the last is the cohort's own
    minority = np.repeat([False, True], 3)
    interval = bootstrap_interval(
        lambda classes, score: next(figures),
        minority,
        np.arange(6.0),
        on_logit_scale=True,
        n_resamples=3,
    )
    half = 4.302653 * 1.5**0.5 * np.log(4)
    middle = np.log(0.4 / 0.6)
    assert interval.value == 0.4
    assert interval.low == pytest.approx(1 / (1 + np.exp(half - middle)), rel=1e-6)
    assert interval.high == pytest.approx(1 / (1 + np.exp(-half - middle)), rel=1e-6)


def test_a_resample_at_the_end_is_moved_to_where_the_logit_is_finite():
    """Resampled 1 and 0.8: 1 becomes 0.9, half as far inside, whose logit is log 9; so does 1.

    The logit of 0.8 is log 4, the deviation log(9 / 4) / sqrt 2, the factor sqrt 2.
    """
    figures = iter([1.0, 0.8, 1.0])
    minority = np.repeat([False, True], [5, 2])
    interval = bootstrap_interval(
        lambda classes, score: next(figures),
        minority,
        np.arange(7.0),
        on_logit_scale=True,
        n_resamples=2,
    )
    half = 12.7062 * np.log(9 / 4)
    assert interval.high == interval.value == 1.0
    assert interval.low == pytest.approx(1 / (1 + np.exp(half - np.log(9))), rel=1e-4)


@pytest.mark.parametrize("clusters", [False, True])
def test_the_logit_interval_covers_aupr_where_percentiles_do_not(clusters):
    """200 cohorts of about 20 minority images at an AUC of 0.85: within 3 errors of 0.95.

    The truth is the precision at each score, averaged over the majority's normal law.
    """
    rng = np.random.default_rng(8)
    shift = norm.ppf(0.85) * 2**0.5
    t = np.linspace(-6, 8, 2001)
    covered = np.zeros((200, 2))
    for row in covered:
        if clusters:
            minority, score, patient = clustered(rng, 40, shift=shift, between=0.6)
        else:
            minority, patient = np.repeat([True, False], [20, 180]), np.arange(200)
            score = rng.normal(size=200) + shift * minority
        share = minority.mean()
        below = (
            norm.cdf(t) * (1 - share) / (norm.cdf(t) * (1 - share) + norm.cdf(t - shift) * share)
        )
        truth = np.trapezoid(norm.pdf(t) * below, t)
        how = {"patient": patient, "n_resamples": 200}
        for column, on_logit_scale in enumerate((True, False)):
            one = bootstrap_interval(
                aupr_maj, minority, score, on_logit_scale=on_logit_scale, **how
            )
            row[column] = one.low <= truth <= one.high
    logit, percentile = covered.mean(axis=0)
    assert logit == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 200))
    assert percentile < 0.93
    assert percentile < logit


@pytest.mark.parametrize("name", ["AUPR-maj", "AUPR-min", "sens@5%"])
def test_resamples_that_agree_are_no_certainty(name):
    with pytest.raises(ValueError, match=f"same {name}, 1: the bootstrap cannot say"):
        metric_interval(name, np.repeat([False, True], 5), np.arange(10.0))


@pytest.mark.parametrize("name", METRICS)
def test_one_minority_patient_gives_no_interval(name):
    minority, patient = [False, False, True, True], ["a", "b", "c", "c"]
    with pytest.raises(ValueError, match="Got 1 with minority and 2 with majority"):
        metric_interval(name, minority, [0.1, 0.5, 0.3, 0.9], patient=patient)


def test_each_metric_has_its_own_interval():
    minority, score, patient = clustered(np.random.default_rng(9), 30, shift=1.0, between=0.5)
    for name, interval in {
        "AUC": auc_interval(minority, score, patient=patient),
        "AUPR-min": bootstrap_interval(
            aupr_min, minority, score, patient=patient, on_logit_scale=True
        ),
        "sens@5%": bootstrap_interval(METRICS["sens@5%"], minority, score, patient=patient),
    }.items():
        assert metric_interval(name, minority, score, patient=patient) == interval


# Several fits of a method


@pytest.mark.parametrize("name", METRICS)
def test_the_figure_of_several_fits_is_the_mean_of_theirs(name):
    """Fits that rank alike say what one says; the mean is of figures, not of scores."""
    minority, score, patient = clustered(np.random.default_rng(10), 30, shift=1.0, between=0.5)
    one = metric_interval(name, minority, score, patient=patient)
    same = metric_interval(name, minority, [score, 9 * score], patient=patient)
    assert np.allclose(one, same)
    both = metric_interval(name, minority, [score, -9 * score], patient=patient)
    mean = (METRICS[name](minority, score) + METRICS[name](minority, -score)) / 2
    assert both.value == pytest.approx(mean)


def test_the_interval_of_a_mean_is_that_of_its_placements():
    """Each image's placement, averaged over two fits, then DeLong's divisors, by hand."""
    rng = np.random.default_rng(11)
    minority, scores = np.repeat([True, False], [5, 7]), rng.normal(size=(2, 12))
    wins = np.mean([pairwise(minority, score) for score in scores], axis=0)
    area = wins.mean()
    variance = np.var(wins.mean(axis=1), ddof=1) / 5 + np.var(wins.mean(axis=0), ddof=1) / 7
    half = 1.959964 * variance**0.5 / (area * (1 - area))
    interval = auc_interval(minority, scores)
    assert interval.low == pytest.approx(1 / (1 + (1 - area) / area * np.exp(half)), rel=1e-6)
    # A comparison with a constant score differs from 1/2 by as much, as surely.
    comparison = compare_auc(minority, scores, np.zeros(12))
    assert comparison.difference == pytest.approx(area - 0.5)
    assert comparison.z == pytest.approx((area - 0.5) / variance**0.5)


def test_no_fits_at_all_are_refused():
    with pytest.raises(ValueError, match=r"one row a fit.*\(0, 4\)"):
        auc_interval([0, 0, 1, 1], np.empty((0, 4)))


# Families of tests


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.4 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.4; never falling."""
    assert holm([0.4, 0.02, 0.01, 0.03]) == pytest.approx([0.4, 0.06, 0.04, 0.06])
    assert holm([0.02, 0.011]) == pytest.approx([0.022, 0.022])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.8, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0, 1]).tolist() == [0.0, 1.0]
    assert holm([]).size == 0


def test_holm_counts_a_test_that_could_not_be_made():
    """Two p-values and a NaN are a family of three: 0.01 * 3, 0.03 * 2."""
    assert holm([0.03, np.nan, 0.01]) == pytest.approx([0.06, np.nan, 0.03], nan_ok=True)


@UNHURRIED
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_the_step_down_rejects(p):
    """Step by step: reject the smallest while it is at most alpha by the number left."""
    adjusted = holm(p)
    for alpha in (0.05, 0.2):
        left = sorted(range(len(p)), key=p.__getitem__)
        while left and p[left[0]] * len(left) <= alpha:
            assert adjusted[left.pop(0)] <= alpha
        assert all(adjusted[i] > alpha for i in left)
