r"""SAE: an autoencoder whose rectified bottleneck features are kept sparse.

Glorot, Bordes, Bengio: *Deep Sparse Rectifier Neural Networks* (AISTATS 2011): rectified units,
and an L1 penalty on their activations. Section 3.1 of the paper: "employed with the same structure
as ConOCC", the reconstruction error as the score.

Letters: n images, d bottleneck features; ``z`` a bottleneck feature before it is rectified.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn import functional as F

from conocc import equations
from conocc.detectors.one_class_detector import OneClassDetector
from conocc.networks import CHANNELS, Autoencoder
from conocc.training import Batches, Stage, Train, adam


def activity(a: Tensor) -> Tensor:
    r"""L1 norm of the activations, :math:`\sum_j |a_{ij}|`; (n, d) -> (n,)."""
    return a.abs().sum(1)


def mean_square_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Eq. (2) divided by the number of pixels; (n, ...) -> (n,)."""
    return equations.reconstruction_loss(x_hat, x) / x[0].numel()


class SAE(OneClassDetector):
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
        Those of `ConOCC`.

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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **OneClassDetector._parameter_constraints,
        "sparsity": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        *,
        epochs: int = 1000,
        lr: float = 1e-3,
        batch_size: int = 128,
        sparsity: float = 1e-3,
        bottleneck: int = 256,
        channels: Sequence[int] = CHANNELS,
        normalize: str = "zscore",
        contamination: float = 0.1,
        random_state: Any = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.sparsity = sparsity
        self.bottleneck = bottleneck
        self.channels = channels
        self.normalize = normalize
        self.contamination = contamination
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _build(self) -> None:
        self.network_ = Autoencoder(self.input_shape_, self.bottleneck, self.channels)

    def _fit(self, X: Batches, train: Train) -> None:
        stage = Stage(
            name="sparse autoencoder",
            modules={"network": self.network_},
            optimizers={"adam": adam(self.network_.parameters(), lr=self.lr)},
            losses={"adam": self._loss},
            epochs=self.epochs,
        )
        self.history_ = train([stage])

    def _loss(self, x: Tensor, epoch: int) -> dict[str, Tensor]:
        a = self._embed(x)
        return {
            "mean L_AE": equations.batch_loss(mean_square_error(self.network_.decoder(a), x)),
            "sparsity L_1": self.sparsity * equations.batch_loss(activity(a)),
        }

    def _score(self, x: Tensor) -> Tensor:
        return equations.anomaly_score(self._reconstruct(x), x)

    def _embed(self, x: Tensor) -> Tensor:
        return F.relu(self.network_.encoder(x))

    def _reconstruct(self, x: Tensor) -> Tensor:
        x_hat: Tensor = self.network_.decoder(self._embed(x))
        return x_hat
