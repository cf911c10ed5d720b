"""CAE: the convolutional autoencoder, ConOCC's network without the constraint.

Section 3.1 of the paper: same structure, the reconstruction error as the score.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from conocc import equations
from conocc.detectors.one_class_detector import POSITIVE, param
from conocc.detectors.trained import AutoencoderDetector
from conocc.networks import Autoencoder
from conocc.training import Batches, Stage, Terms, Train, adam, summed


def reconstruction_stage(
    autoencoder: Autoencoder, *, lr: float, epochs: int, name: str = "autoencoder"
) -> Stage:
    """Train an autoencoder on Eq. (2), by Adam with learning rate `lr`."""

    def loss(x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        l_ae = equations.batch_loss(equations.reconstruction_loss(autoencoder(x), x))
        return summed({"L_AE": l_ae})

    return Stage(
        name=name,
        modules={"network": autoencoder},
        optimizers={"adam": adam(autoencoder.parameters(), lr=lr)},
        losses={"adam": loss},
        epochs=epochs,
    )


@dataclass(kw_only=True, eq=False, repr=False)
class CAE(AutoencoderDetector):
    """Convolutional autoencoder, scored by its reconstruction error.

    Parameters
    ----------
    lr : float
        λ, Adam's learning rate; of {1e-3, 1e-4} the paper found 1e-4 the better for it.
    others
        Those of `AutoencoderDetector`.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> CAE(epochs=2, random_state=0).fit(images).reconstruct(images).shape
    (8, 1, 16, 16)
    """

    lr: float = param(1e-4, POSITIVE)

    def _fit(self, X: Batches, train: Train) -> None:
        stage = reconstruction_stage(self.network_, lr=self.lr, epochs=self.epochs)
        self.history_ = train([stage], batch_size=self.batch_size)
