"""The variance of AUC: against every pair, against published examples, over seeds and folds."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ranking import UNHURRIED, cohorts, pairwise

from conocc.metrics.auc_variance import (
    Fold,
    auc_covariance,
    mean_auc_covariance,
    structural_components,
)
from conocc.metrics.confidence_intervals import compare_auc

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


# One test split


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


# Folds


def in_folds(rng, *, shared):
    """Three folds of two methods: twelve patients of two images each, four of them a fold.

    Of each fold the first two patients are of the minority; `shared` makes these the same in all.
    """
    folds = []
    for f in range(3):
        names = [0, 1, 4 * f + 2, 4 * f + 3] if shared else [4 * f + i for i in range(4)]
        patient = np.repeat(names, 2)
        minority = np.repeat([True, True, False, False], 2)
        folds.append(Fold(minority, rng.normal(size=(2, 8)), patient))
    return folds


def test_folds_without_a_patient_in_common_are_independent():
    """The mean of three independent areas: their covariances summed, by nine."""
    folds = in_folds(np.random.default_rng(0), shared=False)
    each = [auc_covariance(m, s, patient=p) for m, s, p in folds]
    areas, covariance = mean_auc_covariance(folds)
    assert np.allclose(areas, np.mean([area for area, _ in each], axis=0))
    assert np.allclose(covariance, sum(c for _, c in each) / 9)


def test_the_same_images_in_every_fold_are_not_counted_anew():
    """Folds that test the same images are fits of one split: the mean of their areas."""
    rng = np.random.default_rng(1)
    minority = np.repeat([True, False], 6)
    scores, patient = rng.normal(size=(3, 12)), rng.permutation(12) // 2
    folds = [Fold(minority, score[None], patient) for score in scores]
    areas, covariance = auc_covariance(minority, scores, patient=patient)
    mean, variance = mean_auc_covariance(folds)
    assert mean == pytest.approx(areas.mean())
    assert variance[0, 0] == pytest.approx(covariance.mean())


def test_minority_images_shared_by_folds_are_counted_once():
    """DeLong by hand: each minority image with its mean over folds, each fold's majority alone."""
    rng = np.random.default_rng(2)
    m, n, k = 5, 4, 3
    wins, folds = [], []
    for f in range(k):
        score, minority = rng.normal(size=m + n), np.repeat([True, False], [m, n])
        paths = [*(f"minority{i}" for i in range(m)), *(f"{f}/{j}" for j in range(n))]
        folds.append(Fold(minority, score[None], paths))
        wins.append(pairwise(minority, score))
    over = np.mean([w.mean(axis=1) for w in wins], axis=0)
    expected = np.var(over, ddof=1) / m
    expected += sum(np.var(w.mean(axis=0), ddof=1) / n for w in wins) / k**2
    assert mean_auc_covariance(folds)[1][0, 0] == pytest.approx(expected)


@pytest.mark.parametrize("shared", [False, True])
def test_the_variance_over_folds_is_that_of_new_patients(shared):
    """In 1500 studies of three given fits, the estimate is on average the variance seen.

    A patient's images are alike; a fit adds noise of its own to what all of them see.
    """
    rng = np.random.default_rng(3)
    means, estimates = [], []
    for _ in range(1500):
        folds = []
        minority_patients = rng.normal(loc=1.0, size=8)
        for f in range(3):
            mine = minority_patients if shared else rng.normal(loc=1.0, size=8)
            effect = np.r_[mine, rng.normal(size=8)]
            names = [*(f"m{i}" if shared else f"m{f}{i}" for i in range(8))]
            names += [f"n{f}{i}" for i in range(8)]
            score = np.repeat(effect, 2) + rng.normal(scale=0.5, size=32)
            folds.append(Fold(np.repeat([True, False], 16), score[None], np.repeat(names, 2)))
        (area,), ((variance,),) = mean_auc_covariance(folds)
        means.append(area)
        estimates.append(variance)
    assert np.mean(estimates) == pytest.approx(np.var(means), rel=0.12)


def test_a_fold_with_one_minority_patient_is_refused():
    folds = in_folds(np.random.default_rng(4), shared=False)
    folds[1] = folds[1]._replace(patient=["a"] * 4 + ["b", "b", "c", "c"])
    with pytest.raises(ValueError, match="Got 1 with minority and 2 with majority"):
        mean_auc_covariance(folds)


def test_scores_of_bytes_have_the_variance_of_the_same_numbers():
    minority, score = np.repeat([True, False], 4), np.array([3, 1, 2, 5, 0, 2, 1, 4], np.uint8)
    (area,), ((variance,),) = auc_covariance(minority, score[None].astype(float))
    for same in (score[None], score[None].astype(str)):
        assert auc_covariance(minority, same) == ([area], [[variance]])


def test_a_hundred_thousand_scores_take_a_moment():
    """Every pair of them would be two and a half thousand million."""
    rng = np.random.default_rng(5)
    minority = np.arange(100_000) % 2 == 0
    scores = rng.normal(size=(1, 100_000)) + minority
    start = time.process_time()
    auc_covariance(minority, scores, patient=np.arange(100_000) // 4)
    assert time.process_time() - start < 1
