"""OCSVM against scikit-learn's, its formulas by hand, and what it says beforehand."""

import logging

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.svm import OneClassSVM

from conftest import quick
from conocc.detectors import ocsvm
from shadings import shadings

RNG = np.random.default_rng(2)
COLOUR = RNG.normal(size=(30, 3, 17, 21))
VECTORS = RNG.normal(size=(90, 6)) * [1, 2, 3, 4, 5, 60] + 1000


def as_seen(detector, X) -> np.ndarray:
    """What the detector sees of `X`, as float64 vectors."""
    return detector.normalized(X).reshape(len(X), -1).astype(np.float64)


@pytest.mark.parametrize("X", [COLOUR, VECTORS], ids=["images", "vectors"])
@pytest.mark.parametrize("normalize", ["zscore", "minmax", "none"])
@pytest.mark.parametrize(("nu", "kernel_gamma"), [(0.5, "scale"), (0.1, 0.003)])
def test_score_is_minus_scikit_learns_decision(X, normalize, nu, kernel_gamma):
    """To 1e-12, on images that it was trained on and on others, near the origin and far."""
    train, new = X[:20], X[20:]
    fitted = quick("ocsvm", nu=nu, kernel_gamma=kernel_gamma, normalize=normalize).fit(train)
    oracle = OneClassSVM(nu=nu, gamma=kernel_gamma).fit(as_seen(fitted, train))
    for images in (train, new):
        expected = -oracle.decision_function(as_seen(fitted, images))
        assert np.allclose(fitted.anomaly_score(images), expected, rtol=0, atol=1e-12)
    assert np.array_equal(fitted.support_vectors_, oracle.support_vectors_)


def test_scale_is_one_over_dimension_times_variance():
    """1, 2, 3, 4 have the variance 5/4: 1 / (2 · 5/4) = 0.4. Without a variance it is 1."""
    assert ocsvm.scaled_gamma(np.array([[1.0, 2.0], [3.0, 4.0]])) == pytest.approx(0.4)
    assert ocsvm.scaled_gamma(np.full((3, 2), 7.0)) == 1.0


def test_nearest_is_of_the_median_distance_to_the_nearest_other():
    """0, 1, 3, 7 are 1, 1, 2 and 4 from the nearest other: 4 / 1.5². Of twins it is the scale."""
    z = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert ocsvm.nearest_gamma(z) == pytest.approx(4 / 1.5**2)
    twins = np.array([[0.0], [0.0], [2.0], [2.0]])
    assert ocsvm.nearest_gamma(twins) == ocsvm.scaled_gamma(twins)
    fitted = quick("cocsvm", kernel_gamma="nearest", false_alarms=None).fit(COLOUR)
    assert fitted.kernel_gamma_ == ocsvm.nearest_gamma(fitted.embed(COLOUR).astype(np.float64))


def test_score_by_hand():
    """Vectors at 0 and 2, weights 1 and 2, ρ = 1, γ = ln 2, so that k = 2^-distance².

    At 0: 1 - (1 + 2/16) = -1/8. At 1: 1 - (1/2 + 2/2) = -1/2. At 3: 1 - (1/512 + 2/2) = -1/512.
    """
    z = torch.tensor([[0.0], [1.0], [3.0]])
    score = ocsvm.svm_score(z, np.array([[0.0], [2.0]]), np.array([1.0, 2.0]), 1.0, np.log(2))
    assert score.dtype == torch.float64
    assert np.allclose(score, [-1 / 8, -1 / 2, -1 / 512], atol=1e-15)


@pytest.mark.parametrize("nu", [0.1, 0.5])
def test_nu_bounds_the_share_outside_and_the_share_of_support_vectors(nu):
    """Proposition of Schölkopf et al.: outside <= ν <= support vectors, up to the solver's 1e-3."""
    fitted = quick("ocsvm", nu=nu).fit(VECTORS)
    assert (fitted.anomaly_score(VECTORS) > 1e-2).mean() <= nu <= len(fitted.dual_coef_) / 90


def test_the_cost_is_said_before_the_vectors_are_gathered(images, caplog, monkeypatch):
    def refuse(*args):
        raise MemoryError

    monkeypatch.setattr(ocsvm, "WARN_FROM_GIB", 0.19)  # the cache alone takes 0.195
    monkeypatch.setattr(ocsvm, "concatenated", refuse)
    with caplog.at_level(logging.WARNING, "conocc"), pytest.raises(MemoryError):
        quick("ocsvm", false_alarms=None).fit(images)
    assert "n=20 training vectors of d=256 at once: up to 0.2 GiB" in caplog.text


def test_nothing_is_said_where_the_cost_is_small(images, capsys):
    quick("ocsvm").fit(images)
    assert capsys.readouterr().err == ""


def test_progress_is_shown(images, capsys):
    fitted = quick("ocsvm", verbose=1).fit(images)
    assert f"Support vectors 1/1 {len(fitted.dual_coef_)} of 20" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_images_without_the_structure_of_the_majority_score_higher(seed):
    """There is no untrained self to beat; an order by chance is at 0.5 ± 0.03."""
    rng = np.random.default_rng(seed)
    fitted = quick("ocsvm").fit(shadings(200, 12, rng))
    X = np.concatenate([shadings(150, 12, rng), shadings(150, 0, rng)])
    assert roc_auc_score(np.repeat([False, True], 150), fitted.anomaly_score(X)) > 0.65


@pytest.mark.parametrize(
    ("params", "message"),
    [({"nu": 0}, r"'nu' parameter of OCSVM .* Got 0"), ({"kernel_gamma": "auto"}, "Got 'auto'")],
)
def test_parameters_out_of_range_are_refused(images, params, message):
    with pytest.raises(ValueError, match=message):
        quick("ocsvm", **params).fit(images)


def test_the_threshold_of_folds_is_that_of_as_many_images(images):
    """Scores are sums over training images, which a fold has fewer of."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(20):
        X = rng.normal(size=(240, 4))
        fitted = quick("ocsvm", nu=0.5, false_alarms=0.2).fit(X[:120])
        shares.append((fitted.predict(X[120:]) == -1).mean())
    assert np.mean(shares) == pytest.approx(0.18, abs=0.03)
