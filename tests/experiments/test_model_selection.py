"""Folds and scorers for scikit-learn: who trains, who is tested, and by what."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_validate
from sklearn.svm import OneClassSVM

from conocc import OCSVM, SCORERS, OneClassKFold, one_class_scorer
from conocc.metrics.ranking import METRICS, auc, sensitivity_at

RNG = np.random.default_rng(0)
GROUPS = RNG.integers(0, 25, 120)  # patients with images of both classes among them
Y = np.where(RNG.random(120) < 0.25, -1, 1)
X = RNG.normal(size=(120, 3)) + (Y == -1)[:, None]


@pytest.mark.parametrize("groups", [GROUPS, None])
@pytest.mark.parametrize("all_minority", [False, True])
def test_folds_train_on_majority_rows_of_patients_whom_they_do_not_test(groups, all_minority):
    folds = OneClassKFold(4, all_minority=all_minority)
    patient = np.arange(120) if groups is None else groups
    tested = []
    for train, test in folds.split(X, Y, groups):
        assert (Y[train] == 1).all()
        assert {*Y[test]} == {-1, 1}
        assert not {*patient[train]} & {*patient[test]}
        minority = np.flatnonzero(Y == -1)
        new = minority[~np.isin(patient[minority], patient[train])]
        if all_minority:
            assert {*new} == {*test[Y[test] == -1]}
        tested += test[Y[test] == 1].tolist() if all_minority else test.tolist()
    assert sorted(tested) == (np.flatnonzero(Y == 1) if all_minority else np.arange(120)).tolist()
    assert folds.get_n_splits() == 4


def test_folds_are_those_of_the_seed():
    def first(seed):
        return next(OneClassKFold(4, random_state=seed).split(X, Y, GROUPS))[1].tolist()

    assert first(0) == first(0) != first(1)
    assert repr(OneClassKFold(4)) == "OneClassKFold(all_minority=False, n_splits=4, random_state=0)"


def test_a_scorer_gives_what_the_metric_gives():
    """Of this package's detectors and scikit-learn's."""
    minority = Y == -1
    for fitted in (OCSVM().fit(X, Y), OneClassSVM().fit(X[Y == 1])):
        scores = -fitted.score_samples(X)
        for name, scorer in SCORERS.items():
            assert scorer(fitted, X, Y) == METRICS[name](minority, scores)
        scorer = pickle.loads(pickle.dumps(one_class_scorer("sensitivity", false_alarms=0.2)))
        assert scorer(fitted, X, Y) == sensitivity_at(minority, scores, specificity=0.8)
    assert one_class_scorer()(fitted, X, Y) == auc(minority, scores) > 0.6


def test_scikit_learn_takes_both():
    done = cross_validate(
        OCSVM(false_alarms=None),
        X,
        Y,
        groups=GROUPS,
        cv=OneClassKFold(3),
        scoring=SCORERS,
        n_jobs=1,
    )
    assert all(np.isfinite(done[f"test_{name}"]).all() for name in METRICS)


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("auc", {}, "one of AUC, AUPR-maj, AUPR-min, sens@5%, or 'sensitivity' .* Got 'auc'"),
        ("sensitivity", {}, "rate of false_alarms. Got 'sensitivity' and None"),
        ("AUC", {"false_alarms": 0.1}, "Got 'AUC' and 0.1"),
        ("sensitivity", {"false_alarms": 1}, r"'false_alarms' .* \(0, 1\). Got 1"),
    ],
)
def test_a_metric_that_there_is_not_is_a_sentence(metric, options, message):
    with pytest.raises(ValueError, match=message):
        one_class_scorer(metric, **options)


def test_folds_that_cannot_be_are_a_sentence():
    """Labels of 0 and 1 mark no minority; one minority patient is in one fold alone."""
    with pytest.raises(ValueError, match=r"must be -1 for minority rows .* Got \[0, 1\]"):
        next(OneClassKFold(3).split(X, (Y == 1).astype(int), GROUPS))
    one = np.where(GROUPS == 3, -1, 1)
    with pytest.raises(ValueError, match="of 3 would test majority images only. Ask for fewer"):
        list(OneClassKFold(3).split(X, one, GROUPS))
    assert len(list(OneClassKFold(3, all_minority=True).split(X, one, GROUPS))) == 3


def test_folds_take_what_a_fit_takes():
    """Columns crashed, text marked nobody, and a row without a label was trained on."""

    def folds(y, groups=GROUPS):
        return [test.tolist() for _, test in OneClassKFold(3).split(X, y, groups)]

    for y in (Y[:, None], Y.astype(str), pd.DataFrame(Y)):
        assert folds(y) == folds(Y)
    mixed = np.array([f"p{g}" if g > 9 else g for g in GROUPS], object)
    assert len(folds(Y, mixed)) == 3
    with pytest.raises(ValueError, match="'y' parameter has no value for 1 of 120 images"):
        folds([*Y[:-1], np.nan])
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[120, 119"):
        folds(Y[1:])
