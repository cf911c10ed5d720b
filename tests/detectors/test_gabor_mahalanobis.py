"""Profile: its filters and its grid by hand, its Gaussian against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from conftest import quick
from conocc.detectors import gabor_mahalanobis as p
from shadings import shadings

RNG = np.random.default_rng(4)
VECTORS = RNG.normal(size=(60, 5)) * [1, 2, 3, 4, 50] + 1000


def grating(angle: float, side: int = 64, wavelength: float = 4.0) -> torch.Tensor:
    """Waves that run at `angle` to a row of pixels; (1, 1, side, side)."""
    y, x = np.mgrid[:side, :side]
    phase = 2 * np.pi / wavelength * (x * np.cos(angle) + y * np.sin(angle))
    return torch.from_numpy(np.cos(phase)).float()[None, None]


def test_filters_have_mean_zero_and_norm_one():
    pairs = p.gabor_pairs()
    assert pairs.shape == (4, 2, 7, 7)
    assert torch.allclose(pairs.mean((2, 3)), torch.zeros(4, 2), atol=1e-7)
    assert torch.allclose(pairs.square().sum((2, 3)), torch.ones(4, 2))


def test_filters_by_hand():
    """Along the middle row of the first pair: cos is 1, 0, −1 at 0, 1, 2 pixels, sin 0, 1, 0."""
    even, odd = p.gabor_pairs()[0, :, 3]
    envelope = np.exp(-np.array([1.0, 4.0]) / 8)
    assert float(odd[5]) == pytest.approx(0, abs=1e-6)
    assert float(odd[6] / odd[4]) == pytest.approx(-np.exp(-9 / 8) / envelope[0], rel=1e-5)
    assert float(odd[3]) == pytest.approx(0, abs=1e-7)
    # What was taken off the even one for its mean is the same everywhere, so it cancels here.
    ratio = (even[3] - even[5]) / (even[3] - even[4])
    assert float(ratio) == pytest.approx(1 + envelope[1], rel=1e-5)


@pytest.mark.parametrize("direction", range(4))
def test_a_grating_has_most_energy_in_its_own_direction(direction):
    energies = p.log_energy(grating(direction * np.pi / 4), p.gabor_pairs()).mean((0, 2, 3))
    assert int(energies.argmax()) == direction


def test_energy_of_a_grating_does_not_depend_on_where_it_begins():
    """That is what the pair is for: cos² + sin² = 1, up to the cut at 7 pixels.

    One filter alone would fall to the smallest energy, 10 below.
    """
    inside = p.log_energy(grating(0), p.gabor_pairs())[0, 0, 8:-8, 8:-8]
    assert float(inside.max() - inside.min()) < 0.3


def test_the_border_of_an_even_image_is_no_edge():
    energies = p.log_energy(torch.full((1, 1, 20, 20), 3.0), p.gabor_pairs())
    assert np.allclose(energies, np.log(1e-3), atol=1e-3)


@pytest.mark.parametrize("side", [4, 7, 10, 50])
def test_cells_are_those_of_torchs_adaptive_pooling(side):
    x = torch.from_numpy(RNG.normal(size=(2, 3, side, side + 1))).float()
    assert torch.allclose(p.cell_means(x), F.adaptive_avg_pool2d(x, 4), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "d"),
    [((1, 16, 16), 240), ((1, 32, 40), 320), ((3, 16, 90), 720), ((1, 300, 300), 320)],
)
def test_a_profile_has_eighty_features_a_level_and_channel(shape, d):
    """4 · 4 cells times (4 directions + 1 intensity), on 3 levels from 16 pixels, 4 from 32."""
    images = RNG.normal(size=(3, *shape))
    fitted = quick("gabor_mahalanobis").fit(images)
    assert fitted.gaussian_.mean.shape == (d,)
    assert np.isfinite(fitted.anomaly_score(images)).all()


def test_the_first_level_is_the_image_and_each_next_one_the_means_of_squares_of_it():
    x = torch.from_numpy(RNG.normal(size=(2, 1, 32, 32)))
    first, second, third, _ = p.pyramid(x)
    assert torch.equal(first, x)
    for fine, coarse in ((first, second), (second, third)):
        corners = (fine[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        torch.testing.assert_close(coarse, sum(corners) / 4)


def test_directions_in_which_little_varies_are_whitened_like_others():
    covariance = np.array([[0.02, 0.01], [0.01, 0.05]])
    whitening = p.whitening_of(covariance)
    np.testing.assert_allclose(whitening @ whitening.T, np.linalg.inv(covariance))
    assert np.isfinite(p.whitening_of(np.zeros((2, 2)))).all()


def test_score_is_the_squared_mahalanobis_distance_of_scikit_learn():
    fitted = quick("gabor_mahalanobis").fit(VECTORS[:40])
    oracle = LedoitWolf().fit(fitted.normalized(VECTORS[:40]).astype(np.float64))
    expected = oracle.mahalanobis(fitted.normalized(VECTORS).astype(np.float64))
    assert np.allclose(fitted.anomaly_score(VECTORS), expected, rtol=1e-9)


def test_colours_are_described_each_by_itself():
    """Grey profiles of the channels, side by side."""
    x = torch.from_numpy(RNG.normal(size=(2, 3, 16, 16))).float()
    apart = [p.profile(x[:, [c]], p.gabor_pairs()) for c in range(3)]
    assert torch.allclose(p.profile(x, p.gabor_pairs()), torch.cat(apart, 1), atol=1e-6)


def test_images_that_are_all_the_same_can_be_learned(images):
    """No variance at all: the distance becomes the Euclidean one."""
    fitted = quick("gabor_mahalanobis").fit(np.repeat(images[:1], 5, axis=0))
    assert fitted.anomaly_score(images[:1]) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(fitted.anomaly_score(images)).all()


def test_what_leaves_the_numbers_there_are_is_refused_in_one_sentence(images):
    with pytest.raises(ValueError, match="is infinite or NaN: their values are too large"):
        quick("gabor_mahalanobis", normalize="none").fit(images * 1e25)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_images_without_the_structure_of_the_majority_score_higher(seed):
    rng = np.random.default_rng(seed)
    fitted = quick("gabor_mahalanobis").fit(shadings(200, 12, rng))
    X = np.concatenate([shadings(150, 12, rng), shadings(150, 0, rng)])
    assert roc_auc_score(np.repeat([False, True], 150), fitted.anomaly_score(X)) > 0.65
