"""What methods share that are trained: their steps, and an autoencoder with its halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from torch import Tensor, nn

from conocc import equations
from conocc.detectors.one_class_detector import COUNT, POSITIVE, OneClassDetector, param
from conocc.networks import CHANNELS, Autoencoder
from conocc.training import Batches, Stage, Terms, Train, adam, summed


def reconstruction_terms(autoencoder: nn.Module, x: Tensor) -> tuple[Tensor, Terms]:
    """Give the loss of an autoencoder, Eq. (2), as a stage of training takes it."""
    l_ae = equations.batch_loss(equations.reconstruction_loss(autoencoder(x), x))
    return summed({"L_AE": l_ae})


@dataclass(kw_only=True, eq=False, repr=False)
class TrainedDetector(OneClassDetector):
    """A method that is trained by Adam.

    Parameters
    ----------
    epochs : int
        Passes over the training images (section 2.5 of the paper: 1000).
    lr : float
        λ, Adam's learning rate.
    batch_size : int
        b, images a step.
    channels : sequence of int
        Widths of the encoder's convolutions; the decoder mirrors them (`conocc.networks`).
    others
        Those of `OneClassDetector`.
    """

    _scores_all_folds = False  # which would train six times

    epochs: int = param(1000, COUNT)
    lr: float = param(1e-3, POSITIVE)
    batch_size: int = param(128, COUNT)
    channels: Sequence[int] = param(CHANNELS, list, tuple)

    def _validate_params(self) -> None:
        super()._validate_params()
        if not self.channels or not all(isinstance(c, Integral) and c > 0 for c in self.channels):
            raise ValueError(
                f"The 'channels' parameter of {type(self).__name__} must be one or more widths "
                f"from 1, such as (16, 32, 64). Got {self.channels!r} instead."
            )


@dataclass(kw_only=True, eq=False, repr=False)
class AutoencoderDetector(TrainedDetector):
    """A method with an autoencoder, as a rule trained on Eq. (2).

    Parameters
    ----------
    bottleneck : int
        n of the paper, the bottleneck features; for vectors at most half their length.
    others
        Those of `TrainedDetector`.

    Attributes
    ----------
    network_ : Autoencoder
        The trained autoencoder, and what a method adds to it.
    """

    bottleneck: int = param(256, COUNT)

    def _build(self) -> None:
        self.network_: Any = Autoencoder(self._shape, self.bottleneck, self.channels)

    def _fit(self, X: Batches, train: Train) -> None:
        self._train(train, "autoencoder")

    def _train(self, train: Train, stage: str, **more: Any) -> None:
        """Descend `_loss` in one stage, with one Adam for all that `network_` learns."""
        network = self.network_
        steps = {"adam": (adam(network.parameters(), lr=self.lr), self._loss)}
        stages = [Stage(stage, {"network": network}, self.epochs, steps, **more)]
        self.history_ = train(stages, batch_size=self.batch_size)

    def _loss(self, x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        return reconstruction_terms(self.network_, x)

    def _embed(self, x: Tensor) -> Tensor:
        return self.network_.encoder(x)

    def _reconstruct(self, x: Tensor) -> Tensor:
        return self.network_.decoder(self._embed(x))
