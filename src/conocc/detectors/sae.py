r"""SAE: an autoencoder whose rectified bottleneck features are kept sparse.

Glorot, Bordes, Bengio: *Deep Sparse Rectifier Neural Networks* (AISTATS 2011): rectified units,
and an L1 penalty on their activations. Section 3.1 of the paper: "employed with the same structure
as ConOCC", the reconstruction error as the score.

Letters: n images, d bottleneck features; ``z`` a bottleneck feature before it is rectified.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from conocc import equations
from conocc.detectors.one_class_detector import NOT_NEGATIVE, param
from conocc.detectors.reconstruction_scores import ScoredByReconstruction
from conocc.detectors.trained import AutoencoderDetector
from conocc.training import Batches, Terms, Train, summed


def activity(a: Tensor) -> Tensor:
    r"""L1 norm of the activations, :math:`\sum_j |a_{ij}|`; (n, d) -> (n,)."""
    return a.abs().sum(1)


def mean_square_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Eq. (2) divided by the number of pixels; (n, ...) -> (n,)."""
    return equations.reconstruction_loss(x_hat, x) / x[0].numel()


@dataclass(kw_only=True, eq=False, repr=False)
class SAE(ScoredByReconstruction, AutoencoderDetector):
    r"""Sparse autoencoder, scored by its reconstruction error (Eq. 6).

    It descends :math:`L_{AE} / (c h w) + \text{sparsity} \sum_j \max(0, z_j)`. The error is the
    mean over pixels: beside Eq. (2)'s sum a penalty of 1e-3 would vanish.

    Deviations: Glorot et al. penalise all hidden layers of classifiers, and of denoising
    autoencoders that pretrain them. Here, as the paper says ("constraints on the bottleneck
    feature"), the bottleneck alone is penalised, and images are not corrupted.

    Parameters
    ----------
    sparsity : float
        Weight of the L1 penalty on the rectified bottleneck features; 0 leaves them rectified.
    lr : float
        λ, Adam's learning rate. The paper reports the better of {1e-3, 1e-4} by test labels and
        does not say which; 1e-3 is its λ of section 2.5. Report both.
    others
        Those of `AutoencoderDetector` and `ScoredByReconstruction`.

    Attributes
    ----------
    network_ : Autoencoder
        The trained autoencoder, which leaves the rectification between its halves to `embed`.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> bool((SAE(epochs=2, random_state=0).fit(images).embed(images) >= 0).all())
    True
    """

    sparsity: float = param(1e-3, NOT_NEGATIVE)

    def _fit(self, X: Batches, train: Train) -> None:
        self._train(train, "sparse autoencoder")

    def _loss(self, x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        a = self._embed(x)
        l_ae = equations.batch_loss(mean_square_error(self.network_.decoder(a), x))
        l_1 = equations.batch_loss(activity(a))
        return summed({"mean L_AE": l_ae, "sparsity L_1": self.sparsity * l_1})

    def _embed(self, x: Tensor) -> Tensor:
        return F.relu(self.network_.encoder(x))
