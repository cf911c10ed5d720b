"""What methods share that are trained: their steps, and an autoencoder with its halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from torch import Tensor

from conocc import equations
from conocc.detectors.one_class_detector import COUNT, POSITIVE, OneClassDetector, param
from conocc.networks import CHANNELS, Autoencoder


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
    """A method with an autoencoder, scored by its reconstruction error, Eq. (6), as a rule.

    Parameters
    ----------
    bottleneck : int
        n of the paper, the bottleneck features; for vectors at most half their length.
    others
        Those of `TrainedDetector`.

    Attributes
    ----------
    network_ : nn.Module
        The trained autoencoder, or what holds it.
    """

    bottleneck: int = param(256, COUNT)

    def _build(self) -> None:
        self.network_ = Autoencoder(self.input_shape_, self.bottleneck, self.channels)

    @property
    def _autoencoder(self) -> Autoencoder:
        return self.network_

    def _score(self, x: Tensor) -> Tensor:
        return equations.anomaly_score(self._reconstruct(x), x)

    def _embed(self, x: Tensor) -> Tensor:
        return self._autoencoder.encoder(x)

    def _reconstruct(self, x: Tensor) -> Tensor:
        return self._autoencoder(x)
