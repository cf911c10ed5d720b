"""DAGMM: an autoencoder and a Gaussian mixture over its bottleneck, learned together.

Zong, Song, Min, Cheng, Lumezanu, Cho, Chen: *Deep Autoencoding Gaussian Mixture Model for
Unsupervised Anomaly Detection*, ICLR 2018; its equations are cited by their numbers there.
The autoencoder is ConOCC's, as section 3.1 of Gao et al. says.

Letters: n images, k mixture components, p bottleneck features, d = p + 2 features of the mixture;
``z_c`` the bottleneck feature, ``z_r`` how far the reconstruction is from the image, ``z`` both.
Of the mixture: ``gamma`` the membership of an image in each component, ``phi`` the weights of
the components, ``mu`` their means and ``sigma`` their covariances. All of it is in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor, nn

from conocc import equations
from conocc.detectors.one_class_detector import COUNT, NOT_NEGATIVE, POSITIVE, param
from conocc.detectors.reconstruction_scores import SCORES, ScoredByReconstruction
from conocc.detectors.trained import AutoencoderDetector
from conocc.networks import Autoencoder
from conocc.training import Batches, Terms, Train, apply, summed

HIDDEN = 10  # units of the estimation network in all of Zong's experiments
DROPOUT = 0.5
# See `floored`. At the usual 1e-6, 300 training images of 256 features leave majority images that
# were not among them hundreds of nats above those that were; at 1e-3, some tens.
FLOOR = 1e-3
# The least weight of a component: its logarithm and its reciprocal are still finite.
TINY = torch.finfo(torch.float64).tiny


# --- what the mixture sees (Zong, Eq. 1 to 4) ----------------------------------------------------


def relative_distance(x_hat: Tensor, x: Tensor) -> Tensor:
    r"""Section 3.2. :math:`\lVert x - x' \rVert / \lVert x \rVert`; (n, ...) -> (n,) float64.

    Of a constant image, whose norm is zero, the distance itself.
    """
    x, x_hat = x.flatten(1).double(), x_hat.flatten(1).double()
    norm = torch.linalg.vector_norm(x, dim=1)
    return torch.linalg.vector_norm(x - x_hat, dim=1) / torch.where(norm > 0, norm, 1.0)


def cosine_similarity(x_hat: Tensor, x: Tensor) -> Tensor:
    r"""Section 3.2. :math:`x \cdot x' / (\lVert x \rVert \lVert x' \rVert)`; -> (n,) float64.

    Zero where an image or its reconstruction is.
    """
    return nn.functional.cosine_similarity(x.flatten(1).double(), x_hat.flatten(1).double())


class CompressionAndEstimation(Autoencoder):
    """The two networks: images to reconstructions and features, features to memberships."""

    def __init__(self, *args: Any, components: int) -> None:
        super().__init__(*args)
        self.estimation = nn.Sequential(
            nn.Linear(self.bottleneck + 2, HIDDEN),
            nn.Tanh(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, components),
        )

    def compress(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. (1) to (3). (n, ...) -> reconstructions (n, ...), features `z` (n, d) float64."""
        z_c = self.encoder(x)
        x_hat = self.decoder(z_c)
        z_r = (relative_distance(x_hat, x), cosine_similarity(x_hat, x))
        return x_hat, torch.column_stack([z_c.double(), *z_r])

    def membership(self, z: Tensor) -> Tensor:
        """Eq. (4). The soft membership in each component, rows sum to 1; (n, d) -> (n, k)."""
        return torch.softmax(self.estimation(z.float()).double(), dim=1)


# --- the mixture (Zong, Eq. 5 to 7) --------------------------------------------------------------


class Mixture(NamedTuple):
    """A Gaussian mixture: `phi` (k,), `mu` (k, d), `sigma` (k, d, d), float64."""

    phi: Tensor
    mu: Tensor
    sigma: Tensor


def floored(sigma: Tensor) -> Tensor:
    r"""Lift the diagonals of covariances: :math:`\Sigma + \epsilon (1 + \bar\sigma^2) I`.

    ε is `FLOOR`, 1e-3, and :math:`\bar\sigma^2` the mean of the diagonal; (k, d, d) -> the same.
    The absolute part serves where nothing varies (a batch of one image), the relative one where
    features are so large that the absolute one is below their rounding: with both, a Cholesky
    factor exists of any finite features, few or many.
    """
    spread = sigma.diagonal(dim1=1, dim2=2).mean(1)
    eye = torch.eye(sigma.shape[1], dtype=sigma.dtype, device=sigma.device)
    return sigma + (FLOOR * (1 + spread))[:, None, None] * eye


def mixture_of(blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> Mixture:
    r"""Eq. (5). The mixture of features `z` (·, d) and memberships `gamma` (·, k), in blocks.

    .. math:: \phi_k = \frac{1}{n} \sum_i \gamma_{ik}, \quad
        \mu_k = \frac{\sum_i \gamma_{ik} z_i}{\sum_i \gamma_{ik}}, \quad
        \Sigma_k = \frac{\sum_i \gamma_{ik} (z_i - \mu_k)(z_i - \mu_k)^T}{\sum_i \gamma_{ik}}

    `blocks` is called twice, first for the means and then for the deviations from them, so that
    neither all features are held at once nor large squares subtracted. A component that has lost
    all its members keeps a weight of zero at the origin.
    """
    members, total = reduce(
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        ((gamma.sum(0), gamma.T @ z) for z, gamma in blocks()),
    )
    divisor = members.clamp(min=TINY)
    mu = total / divisor[:, None]
    scatter = reduce(torch.add, (_scatter(z, gamma, mu) for z, gamma in blocks()))
    sigma = floored(scatter / divisor[:, None, None])
    return Mixture(members / members.sum(), mu, sigma)


def _scatter(z: Tensor, gamma: Tensor, mu: Tensor) -> Tensor:
    deviation = (z - mu[:, None]).mT  # (k, d, n)
    return (deviation * gamma.T[:, None]) @ deviation.mT


def energy(z: Tensor, mixture: Mixture) -> Tensor:
    r"""Eq. (6). The energy of features under a mixture, their negative log-likelihood.

    .. math:: E(z) = -\log \sum_k \phi_k
        \frac{\exp(-\frac{1}{2} (z - \mu_k)^T \Sigma_k^{-1} (z - \mu_k))}{\sqrt{|2 \pi \Sigma_k|}}

    (n, d) -> (n,). By Cholesky factors and a log-sum-exp, since with 258 features the determinant
    alone is beyond float64.
    """
    phi, mu, sigma = mixture
    cholesky = factor(sigma)
    whitened = torch.linalg.solve_triangular(cholesky, (z - mu[:, None]).mT, upper=False)
    return energy_of(whitened, phi, cholesky.diagonal(dim1=1, dim2=2).log().sum(1))


def factor(sigma: Tensor) -> Tensor:
    """Give the Cholesky factors of covariances; (k, d, d) -> (k, d, d)."""
    # Features of a diverged network are NaN and pass through, so that the loop names the term.
    return torch.linalg.cholesky_ex(sigma).L


def energy_of(whitened: Tensor, phi: Tensor, log_root: Tensor) -> Tensor:
    r"""Eq. (6) of whitened features; (k, d, n), (k,), (k,) -> (n,).

    These are :math:`L_k^{-1} (z - \mu_k)`, where :math:`L_k` is the Cholesky factor of
    :math:`\Sigma_k`; `log_root` is :math:`\log |L_k|`.
    """
    log_density = -0.5 * (whitened.square().sum(1) + whitened.shape[1] * math.log(2 * math.pi))
    log_phi = phi.clamp(min=TINY).log()
    return -torch.logsumexp(log_density + (log_phi - log_root)[:, None], dim=0)


def diagonal_penalty(sigma: Tensor) -> Tensor:
    r"""Eq. (7). :math:`P(\Sigma) = \sum_k \sum_j 1 / \Sigma_{kjj}`; (k, d, d) -> ()."""
    return sigma.diagonal(dim1=1, dim2=2).reciprocal().sum()


class StoredMixture(nn.Module):
    """The mixture that scores, as buffers, so that it is saved with the model.

    Of the covariances it holds `whitening`, the inverse Cholesky factors: with them an energy is
    products and sums alone, which exist in every exported format.
    """

    def __init__(self, k: int, d: int) -> None:
        super().__init__()
        self.phi = nn.Buffer(torch.zeros(k, dtype=torch.float64))
        self.mu = nn.Buffer(torch.zeros(k, d, dtype=torch.float64))
        self.whitening = nn.Buffer(torch.zeros(k, d, d, dtype=torch.float64))

    def keep(self, mixture: Mixture) -> None:
        phi, mu, sigma = mixture
        eye = torch.eye(sigma.shape[1], dtype=sigma.dtype, device=sigma.device)
        self.phi.copy_(phi)
        self.mu.copy_(mu)
        self.whitening.copy_(torch.linalg.solve_triangular(factor(sigma), eye, upper=False))

    def forward(self, z: Tensor) -> Tensor:
        """Give the `energy` of features; (n, d) -> (n,)."""
        whitened = self.whitening @ (z - self.mu[:, None]).mT
        log_root = -self.whitening.diagonal(dim1=1, dim2=2).log().sum(1)
        return energy_of(whitened, self.phi, log_root)


# --- the method ----------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class DAGMM(ScoredByReconstruction, AutoencoderDetector):
    r"""Deep autoencoding Gaussian mixture model of Zong et al. (ICLR 2018).

    Learns :math:`L_{AE} + \lambda_1 E + \lambda_2 P` (Eq. 7) and scores by the energy (Eq. 6).
    :math:`L_{AE}` is summed over the pixels, which is what :math:`\lVert x - x' \rVert^2` says.

    It departs from the publication in this:

    - the autoencoder is ConOCC's, with 256 bottleneck features where Zong has one or two
      (``bottleneck=2`` is Zong's), and rectified where Zong's is tanh;
    - the covariances have a floor (`floored`): of 258 features and 128 images a batch they are
      singular by construction, and Eq. (6) and (7) infinite;
    - the mixture that scores is Eq. (5) of all training images, taken without dropout after the
      last epoch and stored. Zong leaves open which one is meant; it is never one of test images,
      whose scores would then depend on each other.

    Parameters
    ----------
    components : int
        K, the Gaussians of the mixture.
    lambda_energy, lambda_covariance : float
        :math:`\lambda_1` and :math:`\lambda_2` of Eq. (7).
    lr : float
        Adam's learning rate, Zong's.
    scored_by : {"energy", "residual", "correlation"}
        The energy of Eq. (6), or the autoencoder alone, as `ScoredByReconstruction` says.
    others
        Those of `AutoencoderDetector`.

    Attributes
    ----------
    network_ : CompressionAndEstimation
        The trained networks.
    mixture_ : StoredMixture
        The mixture of all training images, with buffers ``phi``, ``mu`` and ``whitening``, the
        inverse Cholesky factors of the covariances.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> DAGMM(epochs=2, random_state=0).fit(images).anomaly_score(images).shape
    (8,)
    """

    scored_by: str = param("energy", StrOptions({"energy", *SCORES}))
    lr: float = param(1e-4, POSITIVE)
    components: int = param(4, COUNT)
    lambda_energy: float = param(0.1, NOT_NEGATIVE)
    lambda_covariance: float = param(0.005, NOT_NEGATIVE)

    def _build(self) -> None:
        sizes = (self._shape, self.bottleneck, self.channels)
        self.network_ = CompressionAndEstimation(*sizes, components=self.components)
        self.mixture_ = StoredMixture(self.components, self.network_.bottleneck + 2)

    def _fit(self, X: Batches, train: Train) -> None:
        self._train(train, "dagmm")
        self.network_.eval()
        self.mixture_.keep(mixture_of(lambda: self._features(X)))

    def _loss(self, x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        """Eq. (7), term by term."""
        x_hat, z = self.network_.compress(x)
        gamma = self.network_.membership(z)
        mixture = mixture_of(lambda: [(z, gamma)])
        terms = {
            "L_AE": equations.batch_loss(equations.reconstruction_loss(x_hat, x)),
            "lambda_1 E": self.lambda_energy * energy(z, mixture).mean(),
            "lambda_2 P": self.lambda_covariance * diagonal_penalty(mixture.sigma),
        }
        return summed(terms)

    def _features(self, X: Batches) -> Iterable[tuple[Tensor, Tensor]]:
        def side_by_side(x: Tensor) -> Tensor:
            _, z = self.network_.compress(x)
            return torch.cat([self.network_.membership(z), z], dim=1)

        for rows in apply(side_by_side, X):
            yield rows[:, self.components :], rows[:, : self.components]

    def _score(self, x: Tensor) -> Tensor:
        if self.scored_by != "energy":
            return super()._score(x)
        _, z = self.network_.compress(x)
        return self.mixture_(z)
