"""The scale of residuals: quantiles of majority images, in the memory of one block."""

import numpy as np
import pytest

from conftest import quick
from conocc import load
from conocc.detectors.residual_scale import ResidualScale, averaged, scale_of


def test_the_scale_holds_two_quantiles_of_all_pixels():
    """Oracle: NumPy's, on all residuals at once; bins are 1 % wide."""
    residual = np.random.default_rng(0).normal(size=(30, 1, 40, 40))
    scale = scale_of(iter([residual[:7], residual[7:]]), source="calibration")
    faint, full = np.quantile(np.abs(residual), [0.9, 0.999])
    assert faint <= scale.faint <= 1.011 * faint
    assert full <= scale.full <= 1.011 * full
    assert (scale.images, scale.source) == (30, "calibration")


def test_how_residuals_are_cut_into_blocks_is_of_no_concern():
    residual = np.random.default_rng(0).normal(size=(9, 3, 16, 16))
    assert scale_of(residual[:, None], source="x") == scale_of([residual], source="x")


def test_channels_are_averaged_with_their_signs():
    residual = np.array([1.0, -4.0, 0.0]).reshape(1, 3, 1, 1) * np.ones((1, 3, 2, 2))
    assert np.array_equal(averaged(residual), np.full((1, 2, 2), -1.0))
    scale = scale_of([residual], source="x")
    assert 1 <= scale.faint < scale.full < 1.03


@pytest.mark.parametrize("value", [0.0, 3.0, 1e40, np.nan])
def test_where_all_pixels_are_alike_there_is_a_scale_still(value):
    scale = scale_of([np.full((2, 1, 4, 4), value)], source="x")
    assert 0 < scale.faint < scale.full < np.inf


# --- the detector's ---------------------------------------------------------------------------


def test_a_fit_takes_its_scale_from_training_images_and_calibration_from_its_own(images):
    fitted = quick("cae").fit(images[:12])
    known = fitted.normalized(images[:12]) - fitted.reconstruct(images[:12])
    assert fitted.residual_scale_ == scale_of([known], source="training")
    fitted.calibrate(images[12:])
    known = fitted.normalized(images[12:]) - fitted.reconstruct(images[12:])
    assert fitted.residual_scale_ == scale_of([known], source="calibration")
    fitted.fit(images[:12])
    assert fitted.residual_scale_.source == "training"


def test_of_many_images_some_from_all_over_set_the_scale(images, monkeypatch):
    """For AnoGAN each is a search; six are enough, so of 20 each third is taken."""
    monkeypatch.setattr("conocc.detectors.one_class_detector.RESIDUAL_IMAGES", 6)
    fitted = quick("cae").fit(images)
    some = images[::3]
    known = fitted.normalized(some) - fitted.reconstruct(some)
    assert fitted.residual_scale_ == scale_of([known], source="training")


def test_the_scale_is_saved_with_the_model(images, tmp_path):
    fitted = quick("cae").fit(images[:12]).calibrate(images[12:])
    fitted.save(tmp_path / "model")
    again = load(tmp_path / "model").residual_scale_
    assert isinstance(again, ResidualScale)
    assert again == fitted.residual_scale_


@pytest.mark.parametrize("method", ["ocsvm", "dsvdd"])
def test_a_method_without_reconstruction_has_no_scale(method, images):
    assert quick(method).fit(images).residual_scale_ is None


def test_vectors_have_no_scale():
    assert quick("cae").fit(np.random.default_rng(0).normal(size=(9, 6))).residual_scale_ is None
