"""LRT: its score against two densities, its maps and tones by hand, its folds unseen."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm, rankdata
from sklearn.covariance import ShrunkCovariance
from sklearn.metrics import roc_auc_score

from conftest import quick
from conocc.detectors.gabor_mahalanobis import Gaussian, flat, gabor_pairs
from conocc.detectors.lrt import lrt
from shadings import shadings

RNG = np.random.default_rng(5)
VECTORS = RNG.normal(size=(60, 5)) * [1, 2, 3, 4, 50] + 1000


pytestmark = pytest.mark.usefixtures("seeded")


# --- the ratio ----------------------------------------------------------------------------------


def test_score_is_the_slope_of_twice_the_log_ratio_of_two_densities():
    """With a constant: of the majority's Gaussian, and of the same with lesions of strength ε."""
    z = RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 3)) + 7
    warped = [RNG.normal(size=(90, 3)) * [5, 1, 0], RNG.normal(size=(80, 3)) * [0, 0, 2]]
    gaussian = Gaussian(3)
    lrt.fit_ratio(gaussian, z, warped)

    scale = z.std(0)
    covariance = ShrunkCovariance(shrinkage=0.2).fit(z / scale).covariance_
    values, vectors = np.linalg.eigh(covariance)
    whiten = np.diag(1 / scale) @ vectors @ np.diag(values**-0.5)
    effect = np.zeros((3, 3))
    for kind in warped:
        second = (kind @ whiten).T @ (kind @ whiten)
        effect += second / second.trace() * 3 / 2
    unwhiten = np.linalg.inv(whiten)

    def log_density(strength):
        covariance = unwhiten.T @ (np.eye(3) + strength * effect) @ unwhiten
        return multivariate_normal(z.mean(0), covariance).logpdf(new)

    new = RNG.normal(size=(20, 3)) * 9
    slope = (log_density(1e-5) - log_density(-1e-5)) / 1e-5
    score = gaussian(torch.from_numpy(new)).numpy()
    assert np.allclose(score - score[0], slope - slope[0], rtol=1e-5)


@pytest.mark.parametrize(
    "shape", [(1, 16, 16), (1, 31, 64), (1, 128, 90), (3, 64, 64), (3, 300, 40), (2, 65, 200)]
)
def test_the_length_of_a_description_is_counted_on_a_small_image(shape):
    assert lrt.description_length(*shape) == lrt.Description(shape)(torch.rand(1, *shape)).shape[1]


def test_vectors_are_scored_by_the_mahalanobis_distance():
    fitted = quick("lrt").fit(VECTORS[:40])
    seen = fitted.normalized(VECTORS).astype(np.float64)
    scale = seen[:40].std(0)
    oracle = ShrunkCovariance(shrinkage=0.2).fit(seen[:40] / scale)
    assert np.allclose(fitted.anomaly_score(VECTORS), oracle.mahalanobis(seen / scale), rtol=1e-4)
    assert not hasattr(fitted, "reconstruct")


def test_what_never_varied_does_not_count():
    z = np.column_stack([RNG.normal(size=50), np.full(50, 3.0)])
    gaussian = Gaussian(2)
    lrt.fit_ratio(gaussian, z, [])
    near = gaussian(torch.tensor([[0.0, 3.0], [0.0, 3.001]]))
    assert float(near[1] - near[0]) < 0.01


def test_tones_are_half_an_images_own_and_half_a_gaussians():
    """Of distinct pixels, and between their extremes, which are no rarer than one in 200."""
    x = RNG.exponential(size=(2, 1, 20, 30)) * 3 + 5
    ranked = norm.ppf((rankdata(x.reshape(2, -1), axis=1) - 0.5) / 600).clip(
        *norm.ppf([0.005, 0.995])
    )
    rows = x.reshape(2, -1)
    expected = (rows + rows.mean(1, keepdims=True) + rows.std(1, keepdims=True) * ranked) / 2
    found = lrt.tone_mapped(torch.from_numpy(x)).numpy()
    # A pixel is ranked to 1/256 of a deviation, within which there are a few others of 600.
    difference = np.abs(found.reshape(2, -1) - expected) / x.std((1, 2, 3))[:, None]
    assert np.quantile(difference, 0.9) < 0.005
    assert difference.max() < 0.1


def test_equal_pixels_have_equal_tones():
    """A black background is no ramp in the order in which its pixels come."""
    x = torch.zeros(1, 2, 8, 8)
    x[..., 4:] = torch.rand(1, 2, 8, 4)
    assert len(lrt.tone_mapped(x)[..., :4].unique()) == 1
    assert torch.equal(
        lrt.tone_mapped(torch.full((2, 1, 8, 8), 7.0)), torch.full((2, 1, 8, 8), 7.0)
    )


def test_tones_have_no_steps():
    """Rounding moves no tone by more than itself, about; not even in an even background."""
    x = torch.zeros(1, 1, 32, 32)
    x[..., 10:20, 8:18] = torch.rand(1, 1, 10, 10)
    noise = 1e-7 * torch.randn(1, 1, 32, 32)
    assert torch.allclose(lrt.tone_mapped(x + noise), lrt.tone_mapped(x), rtol=0, atol=1e-4)


# --- description --------------------------------------------------------------------------------


def test_quantiles_are_numpys():
    x = RNG.normal(size=(3, 300))
    expected = np.quantile(x, np.linspace(0.01, 0.99, 21), axis=1).T
    assert np.allclose(lrt.quantiles(torch.from_numpy(x)), expected, atol=1e-6)


def test_correlations_are_numpys():
    maps = RNG.normal(size=(1, 3, 8, 9)) + 5
    rows = lrt.standardised(torch.from_numpy(maps))
    expected = np.corrcoef(maps[0].reshape(3, -1))
    assert np.allclose(lrt.mean_products(rows, rows)[0], expected, atol=0.01)  # its 1e-3 below


def test_the_number_of_features_is_that_of_the_parts():
    """At 32 pixels, four levels. Profile 4 · 80, fine grid on 32, 16 and 8: 3 · 64, quantiles
    3 · 21, correlations 4 · 10 + 3 · 24, flatness 3; residual 4 · 16 · (4 + 2); bottleneck 32.
    """
    parts = 4 * 80 + 3 * 64 + 3 * 21 + 4 * 10 + 3 * 25 + 4 * 16 * 6 + 32
    assert lrt.Description((1, 32, 32))(torch.zeros(1, 1, 32, 32)).shape == (1, parts)
    colour = lrt.Description((3, 32, 32))(torch.zeros(1, 3, 32, 32))
    assert colour.shape == (1, parts + 3 * 4 * 80)


def test_a_residual_too_small_is_told_from_one_as_usual():
    """In each cell, the log of a tenth of it is lower by log 100."""
    residual = torch.from_numpy(RNG.normal(size=(1, 1, 32, 32))).float() * 10
    usual, downsampled = (
        flat(lrt.residual_profile(r, gabor_pairs())) for r in (residual, residual / 10)
    )
    finest = slice(0, 64)  # the log-energies of the first level
    assert np.allclose(usual[0, finest] - downsampled[0, finest], np.log(100), atol=0.05)


def test_autoencoders_are_the_principal_components():
    """As many as there are eight images for each; what they leave is orthogonal to them."""
    v = RNG.normal(size=(40, 5)) @ RNG.normal(size=(5, 256))
    description = lrt.Description((1, 16, 16))
    description.learn(1, v.astype(np.float32), seed=0)
    images = torch.from_numpy(v).float().reshape(40, 1, 16, 16)
    assert torch.allclose(description.residual(images, 1), torch.zeros(1), atol=1e-4)
    description = lrt.Description((1, 16, 16))
    description.learn(1, v[:16].astype(np.float32), seed=0)
    used = description.components[1].abs().amax(0) > 0
    assert used.sum() == 2
    left = description.residual(images, 1).flatten(1) @ description.components[1]
    assert torch.allclose(left, torch.zeros(1), atol=1e-4)


def posed(n: int, down: np.ndarray) -> np.ndarray:
    """Draw a bright ellipse with a dark one in it on 40 pixels, `down` pixels below the middle."""
    y, x = np.mgrid[:40, :40] - 19.5
    y = y[None] - down[:, None, None]
    body = 1 / (1 + np.exp(4 * (np.hypot(x / 14, y / 10) - 1) * 4))
    hole = 1 / (1 + np.exp(4 * (np.hypot((x - 5) / 4, y / 5) - 1) * 4))
    return body - 0.6 * hole + 0.05 * RNG.normal(size=(n, 40, 40))


# --- method -------------------------------------------------------------------------------------


def test_training_images_are_described_by_autoencoders_that_have_not_seen_them(images, monkeypatch):
    """Every image is learned by all autoencoders but that of its own fold."""
    learned = {}
    learn = lrt.Description.learn

    def spy(self, k, v, seed):
        learned[k] = {row.tobytes() for row in v}
        learn(self, k, v, seed)

    features = []
    forward = lrt.Description.forward

    def watch(self, x, folds=range(lrt.FOLDS)):
        if list(folds) != list(range(lrt.FOLDS)):
            features.append((next(iter(folds)), self.downsampled(x).numpy()))
        return forward(self, x, folds)

    monkeypatch.setattr(lrt.Description, "learn", spy)
    monkeypatch.setattr(lrt.Description, "forward", watch)
    quick("lrt").fit(images)
    assert len(learned[lrt.FOLDS]) == 20
    for k, downsampled in features:
        assert not any(row.tobytes() in learned[k] for row in downsampled)
    assert {k for k, _ in features} == {0, 1, 2}


def test_reconstruction_leaves_what_the_autoencoders_cannot_see():
    """Their mean residual, at its own size where an image is no larger than they see."""
    X = RNG.normal(size=(30, 24, 24)).cumsum(1).cumsum(2)
    fitted = quick("lrt").fit(X)
    fitted.description_.alignment.wanted.fill_(False)
    x = lrt.tone_mapped(torch.from_numpy(fitted.normalized(X[:2])))
    residuals = [fitted.description_.residual(x, k) for k in range(3)]
    left = fitted.normalized(X[:2]) - fitted.reconstruct(X[:2])
    assert np.allclose(left, torch.stack(residuals).mean(0), atol=1e-5)


def test_a_residual_is_shown_where_it_is_in_the_image_as_it_was_given():
    """A bright spot in an image that lies lower than the others."""
    fitted = quick("lrt").fit(posed(60, RNG.normal(size=60) * 2))
    assert fitted.description_.alignment.wanted
    low = posed(1, np.array([4.0]))
    spotted = low.copy()
    spotted[0, 20:23, 30:33] += 2
    left = fitted.normalized(spotted) - fitted.reconstruct(spotted)
    row, column = np.unravel_index(left[0, 0].argmax(), left.shape[2:])
    assert abs(row - 21) <= 1
    assert abs(column - 31) <= 1


def test_where_an_image_lies_is_no_anomaly_where_all_are_of_one_anatomy():
    """An image shifted by an eighth of a side scores like others; without alignment it does not."""
    fitted = quick("lrt").fit(posed(100, RNG.normal(size=100) * 2))
    assert fitted.description_.alignment.wanted
    usual = fitted.anomaly_score(posed(50, np.zeros(50)))
    shifted = posed(50, np.full(50, 5.0))
    assert roc_auc_score(np.repeat([0, 1], 50), np.r_[usual, fitted.anomaly_score(shifted)]) < 0.9
    fitted.description_.alignment.wanted.fill_(False)
    usual = fitted.anomaly_score(posed(50, np.zeros(50)))
    assert roc_auc_score(np.repeat([0, 1], 50), np.r_[usual, fitted.anomaly_score(shifted)]) > 0.95


def test_embedding_has_the_score_for_its_squared_length(images):
    fitted = quick("lrt").fit(images)
    lengths = (fitted.embed(images).astype(np.float64) ** 2).sum(1)
    assert np.allclose(lengths, fitted.anomaly_score(images), rtol=1e-4)


def test_two_images_are_enough(images):
    assert np.isfinite(quick("lrt").fit(images[:2]).anomaly_score(images)).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_images_without_the_structure_of_the_majority_score_higher(seed):
    rng = np.random.default_rng(seed)
    fitted = quick("lrt", random_state=seed).fit(shadings(200, 12, rng))
    X = np.concatenate([shadings(150, 12, rng), shadings(150, 0, rng)])
    assert roc_auc_score(np.repeat([False, True], 150), fitted.anomaly_score(X)) > 0.65


def test_training_images_count_mirrored_too(images, monkeypatch):
    """Mean intensities on the finest level, features 64 to 79, change places left to right."""
    seen = {}
    monkeypatch.setattr(
        lrt, "fit_ratio", lambda gaussian, z, warped: seen.update(z=z, warped=warped)
    )
    quick("lrt").fit(images)
    assert len(seen["z"]) == 40
    given, mirror = seen["z"][:, 64:80].reshape(2, 20, 4, 4)
    assert np.allclose(given[..., ::-1], mirror, atol=1e-5)
    assert [len(kind) for kind in seen["warped"]] == [20] * 5
