"""DAGMM's own promises: Zong's equations, a mixture that stays finite, and one that is kept."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from conftest import quick
from conocc.detectors import dagmm
from shadings import trained_and_untrained_auc


def features(n, d, k, seed=0):
    """Random features (n, d) and memberships (n, k), float64."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    gamma = rng.dirichlet(np.ones(k), size=n)
    return torch.from_numpy(z), torch.from_numpy(gamma)


def kept_by(fitted):
    root = torch.linalg.inv(fitted.mixture_.whitening)
    return dagmm.Mixture(fitted.mixture_.phi, fitted.mixture_.mu, root @ root.mT)


def slow_mixture(z, gamma):
    """Eq. (5) of Zong et al. as it is written, image by image, with the documented floor."""
    n, d = z.shape
    k = gamma.shape[1]
    phi = np.array([sum(gamma[i, j] for i in range(n)) / n for j in range(k)])
    mu, sigma = np.zeros((k, d)), np.zeros((k, d, d))
    for j in range(k):
        members = sum(gamma[i, j] for i in range(n))
        mu[j] = sum(gamma[i, j] * z[i] for i in range(n)) / members
        sigma[j] = sum(gamma[i, j] * np.outer(z[i] - mu[j], z[i] - mu[j]) for i in range(n))
        sigma[j] /= members
        sigma[j] += 1e-3 * (1 + np.trace(sigma[j]) / d) * np.eye(d)
    return phi, mu, sigma


# --- Zong's equations ---------------------------------------------------------------------------


def test_energy_is_scikit_learns_negative_log_likelihood():
    """Eq. (6), with components as different in size as 1 and 1e4."""
    z, gamma = features(60, 5, 3)
    mixture = dagmm.mixture_of(lambda: [(z, gamma**4)])
    oracle = GaussianMixture(3)
    oracle.weights_, oracle.means_ = mixture.phi.numpy(), mixture.mu.numpy()
    oracle.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(mixture.sigma.numpy())).mT
    for points in (z, 100 * z):
        assert np.allclose(
            dagmm.energy(points, mixture), -oracle.score_samples(points.numpy()), rtol=1e-10
        )


def test_mixture_is_eq_5_read_row_by_row():
    z, gamma = features(12, 4, 3)
    expected = slow_mixture(z.numpy(), gamma.numpy())
    for fast, slow in zip(dagmm.mixture_of(lambda: [(z, gamma)]), expected, strict=True):
        assert np.allclose(fast, slow, rtol=1e-12, atol=1e-14)


def test_mixture_does_not_depend_on_how_its_images_are_divided_into_blocks():
    z, gamma = features(50, 4, 3)
    blocks = list(zip(z.split(7), gamma.split(7), strict=True))
    divided = dagmm.mixture_of(lambda: iter(blocks))
    for a, b in zip(divided, dagmm.mixture_of(lambda: [(z, gamma)]), strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_diagonal_penalty_by_hand():
    """1/1 + 1/4 for one component, 1/2 + 1/8 for the other; what is off the diagonal is left."""
    sigma = torch.tensor([[[1.0, 9.0], [9.0, 4.0]], [[2.0, 9.0], [9.0, 8.0]]])
    assert dagmm.diagonal_penalty(sigma).item() == 1.875


def test_relative_distance_and_cosine_by_hand():
    """‖(3, 4) − (4, −3)‖ / 5 = √50 / 5, at a right angle; an image of zeros divides nothing."""
    x = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    x_hat = torch.tensor([[4.0, -3.0], [6.0, 8.0], [0.0, 2.0]])
    assert dagmm.relative_distance(x_hat, x).tolist() == pytest.approx([2**0.5, 1.0, 2.0])
    assert dagmm.cosine_similarity(x_hat, x).tolist() == pytest.approx([0.0, 1.0, 0.0])


def test_gradients_of_energy_and_penalty_are_right():
    z, gamma = features(6, 3, 2)

    def objective(z, logits):
        mixture = dagmm.mixture_of(lambda: [(z, torch.softmax(logits, 1))])
        return dagmm.energy(z, mixture).mean() + dagmm.diagonal_penalty(mixture.sigma)

    inputs = z.requires_grad_(), gamma.log().requires_grad_()
    assert torch.autograd.gradcheck(objective, inputs)


# --- a mixture that stays finite ----------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 20, 128])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e6])
def test_energy_of_more_features_than_images_is_finite_with_its_gradient(n, scale):
    """A bottleneck of 256 leaves every batch a singular covariance but for the floor."""
    z, gamma = features(n, 258, 4)
    z = (scale * z).requires_grad_()
    mixture = dagmm.mixture_of(lambda: [(z, gamma)])
    energies = dagmm.energy(z, mixture)
    (energies.mean() + dagmm.diagonal_penalty(mixture.sigma)).backward()
    assert torch.isfinite(energies).all()
    assert torch.isfinite(z.grad).all()
    elsewhere = dagmm.energy(z.detach() + 10 * scale, mixture)
    assert torch.isfinite(elsewhere).all()
    assert (torch.linalg.cholesky_ex(mixture.sigma).info == 0).all()


def test_an_empty_component_takes_no_part():
    z, gamma = features(20, 3, 2)
    with_empty = torch.column_stack([gamma, torch.zeros(20)]).requires_grad_()
    energies = dagmm.energy(z, dagmm.mixture_of(lambda: [(z, with_empty)]))
    without = dagmm.energy(z, dagmm.mixture_of(lambda: [(z, gamma)]))
    assert torch.allclose(energies, without, rtol=1e-12)
    energies.sum().backward()
    assert torch.isfinite(with_empty.grad).all()


@pytest.mark.parametrize("bottleneck", [2, 256])
@pytest.mark.parametrize("batch_size", [1, 19, 128])
def test_batches_of_any_size_train(bottleneck, batch_size, images):
    """Nineteen leaves a last batch of a single one of twenty images."""
    params = {"epochs": 2, "bottleneck": bottleneck, "batch_size": batch_size}
    scores = quick("dagmm", **params).fit(images).anomaly_score(images)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == len(images)


def test_constant_training_images_do_no_harm(images):
    some_constant = np.where(np.arange(20)[:, None, None] < 5, 7.0, images)
    fitted = quick("dagmm").fit(some_constant)
    assert np.isfinite(fitted.anomaly_score(images)).all()


def test_a_fit_that_diverges_says_so(images):
    with pytest.raises(ValueError, match=r"failed in epoch \d+ of stage 'dagmm'.*is (nan|inf)"):
        quick("dagmm", epochs=60, lr=1e30).fit(images)


def test_sides_of_any_length_and_raw_intensities_are_taken():
    odd = np.random.default_rng(0).integers(0, 65535, (20, 3, 17, 22)).astype(np.uint16)
    scores = quick("dagmm", normalize="none").fit(odd).anomaly_score(odd)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 20


# --- the mixture that scores --------------------------------------------------------------------


def test_mixture_kept_is_that_of_all_training_images_without_dropout(images):
    """Taken again from what the public doors give, row by row."""
    fitted = quick("dagmm", bottleneck=3, batch_size=8, false_alarms=None).fit(images)
    x, x_hat = (f(images).reshape(20, -1) for f in (fitted.normalized, fitted.reconstruct))
    norm, norm_hat = (np.linalg.norm(a, axis=1) for a in (x, x_hat))
    relative = np.linalg.norm(x - x_hat, axis=1) / norm
    cosine = (x * x_hat).sum(1) / (norm * norm_hat)
    z = np.column_stack([fitted.embed(images), relative, cosine])
    with torch.no_grad():
        gamma = fitted.network_.eval().membership(torch.from_numpy(z)).numpy()
    assert np.allclose(gamma.sum(1), 1)
    kept = kept_by(fitted)
    for a, b in zip(kept, slow_mixture(z, gamma), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert np.allclose(fitted.anomaly_score(images), dagmm.energy(torch.from_numpy(z), kept))


def test_scoring_leaves_the_mixture_alone(images):
    fitted = quick("dagmm").fit(images)
    before = [value.clone() for value in fitted.mixture_.buffers()]
    fitted.anomaly_score(100 * images[:3] ** 2)
    assert all(map(torch.equal, before, fitted.mixture_.buffers()))


def test_both_lambdas_weigh_their_terms(images):
    """In the first batch nothing has been learned yet: only the weights differ."""
    params = {"epochs": 1, "components": 2}
    rows = [
        quick("dagmm", lambda_energy=a, lambda_covariance=b, **params).fit(images).history_[0]
        for a, b in ((0.1, 0.005), (0.2, 0.015))
    ]
    assert rows[1]["lambda_1 E"] == pytest.approx(2 * rows[0]["lambda_1 E"])
    assert rows[1]["lambda_2 P"] == pytest.approx(3 * rows[0]["lambda_2 P"])
    assert rows[1]["L_AE"] == pytest.approx(rows[0]["L_AE"])


def test_dropout_is_in_training_only(images):
    network = quick("dagmm").fit(images).network_
    z, _ = features(20, 258, 4)
    assert torch.equal(network.eval().membership(z), network.membership(z))
    assert not torch.equal(network.train().membership(z), network.membership(z))


# --- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_is_what_makes_it_score_well(seed):
    """Against the same network, untrained, with a mixture of the same images.

    With 256 bottleneck features that is no weak opponent: random features of an image, whitened.
    """
    trained, untrained = trained_and_untrained_auc(
        "dagmm", seed, ("phantom-chestx", 200, 100), epochs=30, lr=1e-3, batch_size=64
    )
    assert trained > untrained + 0.03
