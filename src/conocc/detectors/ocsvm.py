r"""OCSVM: the one-class support vector machine, on images as vectors.

Schölkopf, Williamson, Smola, Shawe-Taylor, Platt: *Support Vector Method for Novelty Detection*
(NIPS 2000); section 3.1 of the paper: RBF kernel, "each original image is reshaped into a vector".

Letters: n images, d pixels of an image or features of a vector, m support vectors; ``z`` a vector,
``alpha`` and ``rho`` as in Schölkopf et al., ``nu`` the coefficient ν.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from conocc.detectors.one_class_detector import POSITIVE, SHARE, OneClassDetector, param
from conocc.io.progress import bar
from conocc.training import Batches, Train, apply, concatenated

logger = logging.getLogger("conocc")

CACHE_MIB = 200  # of kernel rows, scikit-learn's default
WARN_FROM_GIB = 1.0


def scaled_gamma(z: np.ndarray) -> float:
    r"""Give scikit-learn's "scale", :math:`1 / (d \operatorname{Var} z)`; (n, d) -> float."""
    variance = z.var()
    return float(1 / (z.shape[1] * variance)) if variance else 1.0


def nearest_gamma(z: np.ndarray) -> float:
    r"""Give :math:`4 / m^2`, m the median distance to the nearest other vector; (n, d) -> float.

    So a kernel reaches the neighbours of a vector alone, and a score tells of the density there.
    """
    distance = NearestNeighbors(n_neighbors=1).fit(z).kneighbors()[0]
    median = float(np.median(distance))
    return 4 / median**2 if median else scaled_gamma(z)


GAMMA = {"scale": scaled_gamma, "nearest": nearest_gamma}


def svm_score(
    z: Tensor, vectors: np.ndarray, alpha: np.ndarray, rho: float, gamma: float
) -> Tensor:
    r"""Score by :math:`\rho - \sum_i \alpha_i k(z_i, z)`, minus the decision; (n, d) -> (n,).

    In float64 on the CPU, where the support vectors are.
    """
    # Distances are computed as a² + b² - 2ab, which loses digits far from the origin.
    origin = torch.from_numpy(vectors.mean(0))
    a, b = z.double().cpu() - origin, torch.from_numpy(vectors) - origin
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    kernel = torch.exp(-gamma * square.clamp(min=0))
    return rho - kernel @ torch.from_numpy(alpha)


def warn_of_cost(n: int, d: int) -> None:
    """Warn of what solving for `n` vectors of length `d` will take where that is much."""
    # The vectors, at most as many support vectors, and a cache.
    gib = (2 * n * d * 8 + CACHE_MIB * 2**20) / 2**30
    if gib > WARN_FROM_GIB:
        logger.warning(
            f"The support vector machine holds all n={n} training vectors of d={d} at once: up to "
            f"{gib:.1f} GiB of memory, and a time that grows with the square of n."
        )


@dataclass(kw_only=True, eq=False, repr=False)
class SupportVectorDetector(OneClassDetector):
    """A method that ends in a one-class support vector machine, on vectors of its own.

    Parameters and attributes are described with `OCSVM`.
    """

    _grows = True  # the weights sum up to ν n

    nu: float = param(0.5, SHARE)
    kernel_gamma: float | str = param("scale", StrOptions(set(GAMMA)), POSITIVE)

    @abstractmethod
    def _vectors(self, x: Tensor) -> Tensor:
        """Give what the machine sees of a normalised batch; -> (n, d)."""

    def _fit_svm(self, X: Batches) -> None:
        z = concatenated(apply(self._vectors, X), len(X)).double().numpy()
        own = self.kernel_gamma
        gamma = GAMMA[own](z) if isinstance(own, str) else float(own)
        svm = OneClassSVM(kernel="rbf", nu=self.nu, gamma=gamma, cache_size=CACHE_MIB)
        # Nothing is drawn, yet scikit-learn would take a seed from the caller's global generator.
        svm.random_state = 0
        with bar("Support vectors", 1, verbose=self.verbose) as advance:
            svm.fit(z)
            advance(state=f"{len(svm.support_)} of {len(z)}")
        self.support_vectors_, self.dual_coef_ = svm.support_vectors_, svm.dual_coef_[0]
        self.rho_, self.kernel_gamma_ = float(svm.offset_[0]), gamma

    def _score(self, x: Tensor) -> Tensor:
        z = self._vectors(x)
        return svm_score(z, self.support_vectors_, self.dual_coef_, self.rho_, self.kernel_gamma_)


@dataclass(kw_only=True, eq=False, repr=False)
class OCSVM(SupportVectorDetector):
    """One-class support vector machine, scored by minus its decision function.

    Each image is normalised by itself as for all methods and reshaped into a vector; feature
    vectors are normalised by feature. The score is that of ``sklearn.svm.OneClassSVM`` with its
    sign turned: 0 on the boundary, higher outside.

    There are no epochs, batches or random numbers: `history_` stays empty, a checkpoint is not
    needed, and the solver runs on the CPU in float64 with all training vectors in memory.

    A saved model holds its support vectors, which are at least a share ν of the training images,
    pixel for pixel as normalised: pass it on with the care that those images need.

    Deviation: the paper gives neither ν nor the kernel's γ. These are scikit-learn's defaults.

    Parameters
    ----------
    nu : float in (0, 1]
        ν, at most this share of the training images lies outside, at least this share becomes
        support vectors.
    kernel_gamma : "scale", "nearest" or float
        γ of the kernel exp(−γ‖z − z'‖²); "scale" is 1 / (d · variance of all training values),
        "nearest" 4 / (median distance to the nearest other training vector)².
    others
        Those of `OneClassDetector`. Nothing depends on `random_state`, and little on `device`.

    Attributes
    ----------
    support_vectors_ : ndarray of shape (m, d)
        Float64 training vectors on and outside the boundary.
    dual_coef_ : ndarray of shape (m,)
        Their weights α.
    rho_ : float
        ρ, the kernel sum at the boundary.
    kernel_gamma_ : float
        γ as used.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> OCSVM().fit(images).anomaly_score(images).shape
    (8,)
    """

    def _vectors(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def _fit(self, X: Batches, train: Train) -> None:
        warn_of_cost(len(X), math.prod(X.shape))
        self._fit_svm(X)
