"""How sure a metric is, and the tests between methods."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from conocc.intervals import (
    auc_covariance,
    auc_interval,
    bootstrap_interval,
    compare_auc,
    holm,
    structural_components,
)
from conocc.metrics import (
    auc,
    aupr_maj,
    aupr_min,
    sensitivity,
    sensitivity_at,
)
from test_metrics import UNHURRIED, cohorts, pairwise

# E. R. DeLong et al. (1988): albumin, total protein and K-G score of patients with ovarian
# cancer, and whether surgery helped, as SAS/STAT prints them (User's Guide, PROC LOGISTIC,
# "Comparing Receiver Operating Characteristic Curves").
OVARIAN = np.fromstring(
    """
    3.0 5.8 10 0   3.2 6.3  5 1   3.9 6.8  3 1   2.8 4.8  6 0   3.2 5.8  3 1   0.9 4.0  5 0
    2.5 5.7  8 0   1.6 5.6  5 1   3.8 5.7  5 1   3.7 6.7  6 1   3.2 5.4  4 1   3.8 6.6  6 1
    4.1 6.6  5 1   3.6 5.7  5 1   4.3 7.0  4 1   3.6 6.7  4 0   2.3 4.4  6 1   4.2 7.6  4 0
    4.0 6.6  6 0   3.5 5.8  6 1   3.8 6.8  7 1   3.0 4.7  8 0   4.5 7.4  5 1   3.7 7.4  5 1
    3.1 6.6  6 1   4.1 8.2  6 1   4.3 7.0  5 1   4.3 6.5  4 1   3.2 5.1  5 1   2.6 4.7  6 1
    3.3 6.8  6 0   1.7 4.0  7 0   3.7 6.1  5 1   3.3 6.3  7 1   4.2 7.7  6 1   3.5 6.2  5 1
    2.9 5.7  9 0   2.1 4.8  7 1   2.8 6.2  8 0   4.0 7.0  7 1   3.3 5.7  6 1   3.7 6.9  5 1
    3.6 6.6  5 1
    """,
    sep=" ",
).reshape(-1, 4)

# N. A. Obuchowski (1997), Table 3: patient, stenosed or not, and two readers' scores of the
# carotid arteries in MR angiography, arteries without a score left out.
CAROTIDS = np.fromstring(
    """
    1 1 87 87   1 1 79 83   2 1 88 94   2 1 95 93   3 1 100 100   3 1 68 79   4 1 65 61
    4 1 89 91   5 1 97 97   5 1 100 100   6 1 100 99   6 1 89 88   7 1 77 77   8 1 94 89
    8 0 45 44   9 1 89 92   9 0 -11 -17   10 1 95 91   10 0 30 14   11 1 95 95   11 0 10 -122
    12 1 100 100   12 0 19 -3   13 1 75 75   14 0 70 73   14 1 70 81   15 0 26 27   15 1 86 93
    16 0 0 8   16 1 65 70   17 0 6 23   17 1 100 100   18 0 76 79   18 1 96 95   19 0 44 55
    19 1 100 100   20 0 73 67   20 1 97 94   21 1 85 86   22 0 58 60   22 1 100 99   23 0 -2 -2
    23 1 100 100   24 0 -3 -14   24 0 0 -11   25 0 47 -3   25 0 -94 -90   26 0 -16 17
    26 0 75 85   27 0 5 -22   27 0 -1 -14   28 0 -6 -52   29 0 37 38   29 0 47 35   30 0 42 40
    30 0 4 6   31 0 55 23   31 0 55 45   32 0 4 -87   32 0 -13 -65   33 0 49 24   33 0 35 9
    34 0 53 66   35 0 2 -15   36 0 -48 -78
    """,
    sep=" ",
).reshape(-1, 4)


def delong(minority, scores):
    """Read DeLong et al. (1988) slowly: the covariance from every pair."""
    wins = np.stack([pairwise(minority, score) for score in scores])
    over, under = wins.mean(axis=2), wins.mean(axis=1)
    return np.cov(over) / over.shape[1] + np.cov(under) / under.shape[1]


def obuchowski(minority, a, b, patient):
    """Read Obuchowski (1997) slowly: the covariance of two areas, patient by patient."""
    wins_a, wins_b = pairwise(minority, a), pairwise(minority, b)
    area_a, area_b = wins_a.mean(), wins_b.mean()
    m, n = wins_a.shape
    s10 = s01 = s11 = s11_turned = 0.0
    names = sorted(set(patient))
    for name in names:
        mine, his = patient[minority] == name, patient[~minority] == name
        x_a = sum(wins_a.mean(axis=1)[mine]) - mine.sum() * area_a
        x_b = sum(wins_b.mean(axis=1)[mine]) - mine.sum() * area_b
        y_a = sum(wins_a.mean(axis=0)[his]) - his.sum() * area_a
        y_b = sum(wins_b.mean(axis=0)[his]) - his.sum() * area_b
        s10, s01 = s10 + x_a * x_b, s01 + y_a * y_b
        s11, s11_turned = s11 + x_a * y_b, s11_turned + x_b * y_a
    i10, i01, i = len(set(patient[minority])), len(set(patient[~minority])), len(names)
    s10, s01 = s10 * i10 / ((i10 - 1) * m), s01 * i01 / ((i01 - 1) * n)
    s11, s11_turned = s11 * i / (i - 1), s11_turned * i / (i - 1)
    return s10 / m + s01 / n + (s11 + s11_turned) / (m * n)


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


# The variance of AUC


@UNHURRIED
@given(cohorts())
def test_structural_components_equal_those_from_every_pair(cohort):
    """Sun and Xu's midranks give what O(mn) comparisons give, ties included."""
    minority, scores, _ = cohort
    over, under = structural_components(minority, scores)
    for row, score in enumerate(scores):
        assert np.allclose(over[row], pairwise(minority, score).mean(axis=1))
        assert np.allclose(under[row], pairwise(minority, score).mean(axis=0))


@UNHURRIED
@given(cohorts(methods=3))
def test_covariance_without_patients_is_delongs(cohort):
    """Obuchowski's formula, with a patient for each image, is DeLong's exactly."""
    minority, scores, _ = cohort
    areas, covariance = auc_covariance(minority, scores)
    assert np.allclose(areas, [pairwise(minority, score).mean() for score in scores])
    assert np.allclose(covariance, delong(minority, scores), atol=1e-12)


@UNHURRIED
@given(cohorts())
def test_covariance_with_patients_is_obuchowskis(cohort):
    minority, scores, patient = cohort
    covariance = auc_covariance(minority, scores, patient=patient)[1]
    for i, a in enumerate(scores):
        for j, b in enumerate(scores):
            assert covariance[i, j] == pytest.approx(obuchowski(minority, a, b, patient), abs=1e-12)


@UNHURRIED
@given(cohorts(), st.integers(2, 4))
def test_copies_of_a_patients_images_tell_nothing_new(cohort, copies):
    """Each image taken several times, under its patient, leaves the covariance as it was."""
    minority, scores, patient = cohort
    once = auc_covariance(minority, scores, patient=patient)
    often = auc_covariance(
        np.tile(minority, copies), np.tile(scores, copies), patient=np.tile(patient, copies)
    )
    assert np.allclose(once[0], often[0])
    assert np.allclose(once[1], often[1], atol=1e-12)


def test_delongs_own_data_as_sas_analyses_them():
    """Areas, standard errors and contrasts with the K-G score, to the digits that SAS prints."""
    albumin, protein, kg, benefit = OVARIAN.T
    minority = benefit == 0
    areas, covariance = auc_covariance(minority, [-albumin, kg, -protein])
    assert np.round(areas, 4).tolist() == [0.7366, 0.7258, 0.6478]
    assert np.round(np.diag(covariance) ** 0.5, 4).tolist() == [0.0927, 0.1028, 0.1000]

    first = compare_auc(minority, -albumin, kg)
    assert np.round(first[:3], 4).tolist() == [0.0108, -0.1761, 0.1976]
    assert first.z**2 == pytest.approx(0.0127, abs=5e-5)
    assert first.p == pytest.approx(0.9102, abs=5e-5)
    second = compare_auc(minority, -protein, kg)
    assert np.round(second[:3], 4).tolist() == [-0.0780, -0.2830, 0.1271]
    assert second.z**2 == pytest.approx(0.5554, abs=5e-5)
    assert second.p == pytest.approx(0.4561, abs=5e-5)


def test_obuchowskis_own_data_as_her_program_analyses_them():
    """Areas, standard errors and difference of the two readers, as clusteredROC prints them.

    (Cleveland Clinic, *clusteredROC help*, which reworks Obuchowski 1997, Table 3.)
    """
    patient, stenosis, first, second = CAROTIDS.T
    minority = stenosis == 1
    areas, covariance = auc_covariance(minority, [first, second], patient=patient)
    assert np.round(areas, 4).tolist() == [0.9837, 0.9852]
    assert np.round(np.diag(covariance) ** 0.5, 4).tolist() == [0.0108, 0.0097]
    # S10 / M + S01 / N + 2 S11 / MN, with her printed components, M = 29 and N = 36
    assert covariance[0, 0] == pytest.approx(
        0.0013151307 / 29 + 0.0022375873 / 36 + 2 * 0.0051785478 / (29 * 36), abs=1e-10
    )
    assert covariance[0, 1] == pytest.approx(
        0.0008484357 / 29 + 0.0019241250 / 36 + (0.0028648340 - 0.0015136931) / (29 * 36),
        abs=1e-10,
    )
    comparison = compare_auc(minority, second, first, patient=patient)
    assert np.round(comparison[:3], 4).tolist() == [0.0014, -0.0115, 0.0143]
    assert comparison.p == pytest.approx(0.8271, abs=5e-5)


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
        ({"patient": ["a", "a", "b", "c"]}, "1 with minority and 2 with majority"),
        ({"patient": ["a", "b", "c"]}, r"'patient'.*shape \(3,\) for 4 images"),
        ({"patient": ["a", None, "b", "c"]}, "'patient'.*Got None for image 1"),
        ({"patient": [1.0, 2.0, np.nan, 3.0]}, r"'patient'.*nan\)? for image 2"),
        ({"level": 95}, r"'level'.*\(0, 1\). Got 95 instead"),
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


def test_covariance_refuses_one_score_without_its_row():
    with pytest.raises(ValueError, match=r"shape \(k, n\). Got shape \(2,\)"):
        auc_covariance([True, False], [0.1, 0.2])


# The bootstrap


def test_the_bootstrap_is_reproducible_and_has_a_seed():
    minority, score, patient = clustered(np.random.default_rng(4), 30, shift=1.0, between=0.5)

    def draw(seed):
        return bootstrap_interval(
            aupr_min, minority, score, patient=patient, repeats=50, random_state=seed
        )

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


@pytest.mark.parametrize(
    "metric", [aupr_maj, aupr_min, functools.partial(sensitivity_at, specificity=0.9)]
)
def test_the_bootstrap_draws_patients_with_all_their_images(metric):
    """Five copies of each image, under its patient, leave the interval as it was."""
    minority, score, _ = clustered(np.random.default_rng(5), 30, shift=1.0, between=0.5)
    patient = np.arange(minority.size)
    once = bootstrap_interval(metric, minority, score, patient=patient, repeats=50)
    copies = bootstrap_interval(
        metric, np.tile(minority, 5), np.tile(score, 5), patient=np.tile(patient, 5), repeats=50
    )
    assert np.allclose(once, copies)
    assert once == bootstrap_interval(metric, minority, score, repeats=50)


def test_every_resample_has_both_classes():
    """With one minority patient among twenty, a free draw would often have none."""
    minority = np.arange(20) == 7
    seen = []

    def prevalence(told, score):
        seen.append(float(told.mean()))
        return seen[-1]

    bootstrap_interval(prevalence, minority, np.arange(20.0), repeats=30)
    assert set(seen) == {0.05}


def test_the_bootstrap_agrees_with_obuchowski_on_auc():
    """Two ways to one standard error: within a fifth, for 150 patients."""
    minority, score, patient = clustered(np.random.default_rng(6), 150, shift=1.0, between=0.5)
    interval = bootstrap_interval(auc, minority, score, patient=patient, repeats=400)
    variance = auc_covariance(minority, score[None], patient=patient)[1][0, 0]
    width = (interval.high - interval.low) / (2 * 1.96)
    assert width == pytest.approx(variance**0.5, rel=0.2)


def test_the_bootstrap_covers_patients_with_several_images():
    """150 cohorts of 60 patients: the sensitivity at a threshold of 1, whose truth is known."""
    rng = np.random.default_rng(7)
    metric = functools.partial(sensitivity, threshold=1.0)
    truth = norm.sf(0.0)  # minority scores are normal about the shift, 1
    covered = 0
    for _ in range(150):
        minority, score, patient = clustered(rng, 60, shift=1.0, between=0.6)
        interval = bootstrap_interval(metric, minority, score, patient=patient, repeats=200)
        covered += interval.low <= truth <= interval.high
    # A percentile interval of 60 patients is known to run a little short: 0.90, less 3 errors.
    assert covered / 150 >= 0.90 - 3 * np.sqrt(0.1 * 0.9 / 150)


def test_the_bootstrap_refuses_no_repeats():
    with pytest.raises(ValueError, match=r"'repeats'.*at least 1. Got 0 instead"):
        bootstrap_interval(auc, [True, False], [1, 0], repeats=0)


# Families of tests


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.4 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.4; never falling."""
    assert holm([0.4, 0.02, 0.01, 0.03]) == pytest.approx([0.4, 0.06, 0.04, 0.06])
    assert holm([0.02, 0.011]) == pytest.approx([0.022, 0.022])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
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


def test_holm_refuses_what_is_no_p_value():
    with pytest.raises(ValueError, match=r"\[0, 1\]. Got 1.2 instead"):
        holm([0.1, 1.2])
