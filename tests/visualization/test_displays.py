"""Displays as scikit-learn's: of an estimator and of predictions alike, into any axes."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.ensemble import IsolationForest
from test_figures import texts

from conftest import quick
from conocc.metrics.bootstrap import RATES, roc_band
from conocc.visualization import ExplanationDisplay, RocDisplay, ScoreDisplay
from conocc.visualization.images import overlay

matplotlib.use("agg")
RNG = np.random.default_rng(0)
MINORITY = np.arange(40) >= 25
SCORES = RNG.normal(size=40) + 2 * MINORITY
Y = np.where(MINORITY, -1, 1)


@pytest.fixture
def axes():
    return Figure().add_subplot()


@pytest.mark.parametrize("kind", [ScoreDisplay, RocDisplay])
def test_an_estimator_and_its_predictions_give_one_picture(kind, axes):
    """Of any outlier detector; a name of one's own goes before that of its class."""
    X = np.c_[SCORES, SCORES]
    forest = IsolationForest(random_state=0).fit(X[~MINORITY])
    made = kind.from_estimator(forest, X, Y, ax=axes)
    assert (made.ax_, made.figure_) == (axes, axes.figure)
    given = {"threshold": -forest.offset_, "name": "IsolationForest"}
    again = kind.from_predictions(MINORITY, -forest.score_samples(X), **given).plot()
    assert texts(again.figure_) == texts(made.figure_)
    assert again.ax_ is not axes
    named = kind.from_estimator(forest, X, Y, name="mine").figure_
    assert "mine" in texts(named)
    matplotlib.pyplot.close("all")


def test_a_roc_curve_has_its_interval_and_the_point_of_its_threshold(axes):
    display = RocDisplay.from_predictions(MINORITY, SCORES, threshold=1.0, ax=axes)
    curve, chance, point = display.ax_.lines
    alarms, found = (SCORES[its] > 1 for its in (~MINORITY, MINORITY))
    assert point.get_xydata().tolist() == [[alarms.mean(), found.mean()]]
    at = f"{100 * alarms.mean():.1f} % false alarms, {100 * found.mean():.1f} % found"
    assert at in texts(display.figure_)
    assert chance.get_xydata().tolist() == [[0, 0], [1, 1]]
    (band,) = display.ax_.collections
    x, y = band.get_paths()[0].vertices.T
    inside = np.interp(RATES, *curve.get_xydata().T)
    for rate, sensitivity in zip(RATES[1:-1], inside[1:-1], strict=True):
        ends = y[np.isclose(x, rate)]
        assert ends.min() <= sensitivity <= ends.max()


def test_a_roc_curve_without_a_threshold_has_no_point(axes):
    display = RocDisplay.from_predictions(MINORITY, SCORES, ax=axes)
    assert len(display.ax_.lines) == 2  # the curve and chance
    assert not any("threshold" in text for text in texts(display.figure_))


def test_a_band_is_wider_by_patient_than_by_image():
    """Ten images of each patient, all with one score, tell no more than one of each."""
    few, many = np.arange(40), np.repeat(np.arange(40), 10)
    one = roc_band(MINORITY, SCORES, few, n_resamples=200)
    assert np.array_equal(one, roc_band(MINORITY[many], SCORES[many], many, n_resamples=200))
    by_image = roc_band(MINORITY[many], SCORES[many], np.arange(400), n_resamples=200)
    assert np.ptp(one, axis=0).mean() > 2 * np.ptp(by_image, axis=0).mean()


def test_a_detector_of_ours_shows_its_threshold_and_calibration(images, axes):
    detector = quick("gabor_mahalanobis", false_alarms=0.2).fit(images)
    y = np.where(np.arange(20) < 10, -1, 1)
    assert "threshold" in texts(ScoreDisplay.from_estimator(detector, images, y, ax=axes).figure_)
    calibrated = quick("gabor_mahalanobis", false_alarms=None).fit(images[:10])
    calibrated.calibrate(images[10:])
    said = texts(ScoreDisplay.from_estimator(calibrated, images, y).figure_)
    assert "calibration (10)" in said
    matplotlib.pyplot.close("all")


def test_an_explanation_is_the_overlay_of_the_detectors_own_scale(images, axes):
    detector = quick("gabor_mahalanobis").fit(images)
    display = ExplanationDisplay.from_estimator(detector, images[0], ax=axes)
    given = detector.normalized(images[:1])[0]
    left = detector.differences(images[:1])[0]
    drawn = display.ax_.images[0].get_array()
    assert np.array_equal(drawn, overlay(given, left, detector.residual_scale_))
    again = ExplanationDisplay.from_predictions(
        given[0], left[0], scale=detector.residual_scale_, ax=Figure().add_subplot()
    )
    assert np.array_equal(again.ax_.images[0].get_array(), drawn)
    with pytest.raises(ValueError, match="no heat map"):
        ExplanationDisplay.from_estimator(quick("ocsvm").fit(images), images[0])
