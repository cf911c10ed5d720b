"""Scores by a reconstruction: the correlation against a slow reading, and two scores of one fit."""

import math

import numpy as np
import pytest
import torch

from conftest import quick
from conocc import AnoGAN, load
from conocc.detectors import METHODS, method_class
from conocc.detectors.reconstruction_scores import (
    BY_SCORE,
    FLAT,
    SIGMA,
    ScoredByReconstruction,
    correlation_score,
    dissimilarity,
)

SCORED = [name for name in METHODS if issubclass(method_class(name), ScoredByReconstruction)]


@pytest.fixture(params=SCORED)
def fitted(request, images):
    return quick(request.param).fit(images)


# --- the formula ----------------------------------------------------------------------------------


def slow_dissimilarity(x_hat: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Read the formula pixel by pixel; (c, h, w), (c, h, w) -> (c, h, w)."""
    (c, h, w), found = x.shape, np.empty(x.shape)
    k = FLAT * x.var()
    for channel in range(c):
        a, b = x[channel], x_hat[channel]
        for i in range(h):
            for j in range(w):
                weight = np.empty((h, w))
                for p in range(h):
                    for q in range(w):
                        distance = math.hypot(i - p, j - q) / (SIGMA * min(h, w))
                        weight[p, q] = math.exp(-(distance**2) / 2)
                weight /= weight.sum()
                mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
                var_a = (weight * (a - mean_a) ** 2).sum()
                var_b = (weight * (b - mean_b) ** 2).sum()
                covariance = (weight * (a - mean_a) * (b - mean_b)).sum()
                root = math.sqrt((var_a + k) * (var_b + k))
                found[channel, i, j] = 1 - (covariance + k) / root
    return found


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_correlation_is_that_of_a_slow_reading(offset):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 1, 16, 19)).cumsum(-1) + offset
    x[1, :, :9] = offset  # flat, but for its edge
    x_hat = x + rng.normal(size=x.shape)
    given = torch.from_numpy(x_hat), torch.from_numpy(x)
    expected = np.stack([slow_dissimilarity(*pair) for pair in zip(x_hat, x, strict=True)])
    assert np.allclose(dissimilarity(*given), expected, atol=1e-6)
    means = expected.reshape(2, -1).mean(1)
    assert np.allclose(correlation_score(*given), means, atol=1e-6)


def test_brightness_and_contrast_count_for_nothing_and_patterns_do():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 16, 16))).float()
    assert correlation_score(x, x) == pytest.approx(0, abs=1e-5)
    assert correlation_score(3 * x + 7, x) == pytest.approx(0, abs=1e-2)
    assert correlation_score(-x, x) == pytest.approx(2, abs=3e-2)
    assert correlation_score(torch.zeros_like(x), x) == pytest.approx(1, abs=6e-2)


def test_flat_images_are_alike_and_no_noise():
    flat = torch.full((1, 1, 16, 16), 0.1)
    assert correlation_score(flat, flat) == 0
    assert correlation_score(flat + 3, flat) == pytest.approx(0, abs=1e-6)


# --- two scores of one fit ------------------------------------------------------------------------


def test_the_score_is_what_its_map_adds_up_to(fitted, images):
    squares = fitted.set_params(scored_by="residual").differences(images).astype(float) ** 2
    assert np.allclose(fitted.anomaly_score(images), squares.sum((1, 2, 3)), rtol=1e-5)
    assert np.array_equal(
        fitted.differences(images), fitted.normalized(images) - fitted.reconstruct(images)
    )
    means = fitted.set_params(scored_by="correlation").differences(images).mean((1, 2, 3))
    assert np.allclose(fitted.anomaly_score(images), means, rtol=1e-5)


def test_a_fitted_detector_scores_either_way_as_one_fitted_to_score_so(fitted, images):
    own = fitted.scored_by
    other = type(fitted)(**{**fitted.get_params(), "scored_by": "correlation"}).fit(images)
    expected = other.anomaly_score(images), fitted.anomaly_score(images)
    turned = fitted.set_params(scored_by="correlation").anomaly_score(images)
    assert np.array_equal(turned, expected[0])
    if not isinstance(fitted, AnoGAN):  # for which it would take another search for each image
        assert fitted.residual_scale_ == other.residual_scale_
    back = fitted.set_params(scored_by=own).anomaly_score(images)
    assert np.array_equal(back, expected[1])


def test_by_correlation_the_score_of_an_image_does_not_depend_on_its_batch(images):
    odd = np.random.default_rng(0).normal(size=(70, 3, 17, 21))
    fitted = quick("cae", scored_by="correlation").fit(odd[:20])
    scores, order = fitted.anomaly_score(odd), np.random.default_rng(1).permutation(70)
    assert np.array_equal(fitted.anomaly_score(odd[order]), scores[order])
    assert fitted.anomaly_score(odd[3:4]) == scores[3]


def test_a_threshold_of_one_score_never_decides_on_another(images):
    fitted = quick("cae", false_alarms=0.2).fit(images[:12]).calibrate(images[12:16])
    offset, calibration = fitted.offset_, fitted.calibration_
    fitted.scored_by = "correlation"
    with pytest.raises(ValueError, match="has no threshold: calibrate it"):
        fitted.predict(images)
    with pytest.raises(ValueError, match="is not calibrated; calibrate it"):
        fitted.p_value(images)
    assert not fitted.knows(images, side="calibration").any()
    fitted.calibrate(images[16:])
    assert fitted.calibration_.scores == tuple(fitted.anomaly_score(images[16:]))
    assert fitted.residual_scale_.of == "correlation"
    fitted.scored_by = "residual"
    assert (fitted.offset_, fitted.calibration_) == (offset, calibration)
    assert (
        fitted.knows(images, side="calibration").tolist() == [False] * 12 + [True] * 4 + [False] * 4
    )


def test_a_saved_model_keeps_what_each_score_was_calibrated_on(images, tmp_path):
    fitted = quick("cae").fit(images[:12]).calibrate(images[12:16])
    fitted.set_params(scored_by="correlation").calibrate(images[16:]).save(tmp_path / "model")
    again = load(tmp_path / "model")
    for score in ("correlation", "residual"):
        for each in (fitted, again):
            each.scored_by = score
        for name in BY_SCORE:
            assert np.array_equal(getattr(again, name), getattr(fitted, name)), name
        assert np.array_equal(again.anomaly_score(images), fitted.anomaly_score(images))


def test_training_does_not_hang_on_the_score(images, tmp_path):
    plain, other = quick("cae").fit(images), quick("cae", scored_by="correlation").fit(images)
    assert plain._checkpoint("c").identity == other._checkpoint("c").identity
    assert plain.history_ == other.history_


def test_feature_vectors_are_scored_by_residuals_alone():
    vectors = np.random.default_rng(0).normal(size=(9, 6))
    fitted = quick("cae").fit(vectors)
    with pytest.raises(ValueError, match=r"CAE cannot score feature vectors by 'correlation'.*Set"):
        fitted.set_params(scored_by="correlation").anomaly_score(vectors)
    with pytest.raises(ValueError, match="cannot score feature vectors"):
        quick("cae", scored_by="correlation").fit(vectors)


def test_a_score_that_there_is_not_is_refused(images):
    fitted = quick("cae").fit(images)
    with pytest.raises(ValueError, match="'scored_by' parameter of CAE must be a str among"):
        fitted.scored_by = "ssim"
    assert fitted.scored_by == "residual"
