r"""OCSVM: the one-class support vector machine, on images as vectors.

Schölkopf, Williamson, Smola, Shawe-Taylor, Platt: *Support Vector Method for Novelty Detection*
(NIPS 2000); section 3.1 of the paper: RBF kernel, "each original image is reshaped into a vector".

Letters: n images, d pixels of an image or features of a vector, m support vectors; ``z`` a vector,
``alpha`` and ``rho`` as in Schölkopf et al., ``nu`` the coefficient ν.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.svm import OneClassSVM
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from conocc.detectors.one_class_detector import POSITIVE, SHARE, OneClassDetector, param
from conocc.io.progress import bar
from conocc.training import Batches, Train, apply, concatenated

logger = logging.getLogger("conocc")

CACHE_MIB = 200  # of kernel rows, scikit-learn's default
WARN_FROM_GIB = 1.0
GAMMA = (StrOptions({"scale"}), POSITIVE)  # what `kernel_gamma` may be


def scaled_gamma(z: np.ndarray) -> float:
    r"""Give scikit-learn's "scale", :math:`1 / (d \operatorname{Var} z)`; (n, d) -> float."""
    variance = z.var()
    return float(1 / (z.shape[1] * variance)) if variance else 1.0


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


def fit_svm(
    z: np.ndarray, *, nu: float, kernel_gamma: float | str, verbose: int
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Solve for (n, d) float64: support vectors (m, d), alpha (m,), rho, and γ as used."""
    gamma = scaled_gamma(z) if kernel_gamma == "scale" else float(kernel_gamma)
    svm = OneClassSVM(kernel="rbf", nu=nu, gamma=gamma, cache_size=CACHE_MIB)
    # Nothing is drawn, yet scikit-learn would take a seed from the caller's global generator.
    svm.random_state = 0
    with bar("Support vectors", 1, verbose=verbose) as advance:
        svm.fit(z)
        advance(state=f"{len(svm.support_)} of {len(z)}")
    return svm.support_vectors_, svm.dual_coef_[0], float(svm.offset_[0]), gamma


def memory_gib(n: int, d: int) -> float:
    """Estimate the memory of `fit_svm`: the vectors, at most as many support vectors, a cache.

    >>> memory_gib(2**14, 2**12)
    1.1953125
    """
    return (2 * n * d * 8 + CACHE_MIB * 2**20) / 2**30


def say_cost(n: int, d: int) -> None:
    """Warn of what `fit_svm` will take where that is much."""
    gib = memory_gib(n, d)
    if gib > WARN_FROM_GIB:
        logger.warning(
            "The support vector machine holds all n=%d training vectors of d=%d at once: up to "
            "%.1f GiB of memory, and a time that grows with the square of n.",
            n,
            d,
            gib,
        )


def as_vectors(x: Tensor) -> Tensor:
    """Reshape images (n, c, h, w) into vectors (n, c·h·w); vectors stay as they are."""
    return x.flatten(1)


@dataclass(kw_only=True, eq=False, repr=False)
class OCSVM(OneClassDetector):
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
    kernel_gamma : "scale" or float
        γ of the kernel exp(−γ‖z − z'‖²); "scale" is 1 / (d · variance of all training values).
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

    nu: float = param(0.5, SHARE)
    kernel_gamma: float | str = param("scale", *GAMMA)

    def _fit(self, X: Batches, train: Train) -> None:
        n, d = len(X), int(np.prod(X.shape))
        say_cost(n, d)
        z = concatenated(apply(as_vectors, X), n).double().numpy()
        self.support_vectors_, self.dual_coef_, self.rho_, self.kernel_gamma_ = fit_svm(
            z, nu=self.nu, kernel_gamma=self.kernel_gamma, verbose=self.verbose
        )

    def _score(self, x: Tensor) -> Tensor:
        return svm_score(
            as_vectors(x), self.support_vectors_, self.dual_coef_, self.rho_, self.kernel_gamma_
        )
