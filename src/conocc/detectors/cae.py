"""CAE: the convolutional autoencoder, ConOCC's network without the constraint.

Section 3.1 of the paper: same structure, the reconstruction error as the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from conocc import equations
from conocc.detectors.one_class_detector import OneClassDetector
from conocc.networks import CHANNELS, Autoencoder
from conocc.training import Batches, Stage, Train, adam


def reconstruction_stage(
    autoencoder: Autoencoder, *, lr: float, epochs: int, name: str = "autoencoder"
) -> Stage:
    """Train an autoencoder on Eq. (2), by Adam with learning rate `lr`."""

    def loss(x: Tensor, epoch: int) -> dict[str, Tensor]:
        return {"L_AE": equations.batch_loss(equations.reconstruction_loss(autoencoder(x), x))}

    return Stage(
        name=name,
        modules={"network": autoencoder},
        optimizers={"adam": adam(autoencoder.parameters(), lr=lr)},
        losses={"adam": loss},
        epochs=epochs,
    )


class CAE(OneClassDetector):
    """Convolutional autoencoder, scored by its reconstruction error.

    Parameters are those of `ConOCC`; `lr` is 1e-4, which the paper found the better of
    {1e-3, 1e-4} for it.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> CAE(epochs=2, random_state=0).fit(images).reconstruct(images).shape
    (8, 1, 16, 16)
    """

    def __init__(
        self,
        *,
        epochs: int = 1000,
        lr: float = 1e-4,
        batch_size: int = 128,
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
        self.history_ = train([reconstruction_stage(self.network_, lr=self.lr, epochs=self.epochs)])

    def _score(self, x: Tensor) -> Tensor:
        return equations.anomaly_score(self._reconstruct(x), x)

    def _embed(self, x: Tensor) -> Tensor:
        z: Tensor = self.network_.encoder(x)
        return z

    def _reconstruct(self, x: Tensor) -> Tensor:
        x_hat: Tensor = self.network_(x)
        return x_hat
