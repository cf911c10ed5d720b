"""ConOCC: an autoencoder whose bottleneck features are pulled towards their mean.

Gao, Liu, Arefan, Panigrahy, Wu: *Constrained Deep One-Class Feature Learning For Classifying
Imbalanced Medical Images*. `conocc.equations` holds the formulas, `conocc.networks` the networks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor, nn

from conocc import equations
from conocc.detectors.one_class_detector import COUNT, NOT_NEGATIVE, param
from conocc.detectors.trained import AutoencoderDetector
from conocc.networks import Autoencoder
from conocc.training import Batches, Stage, Terms, Train, adam, apply

logger = logging.getLogger("conocc")

SCHEDULES = ("alternate", "joint")
REDUCTIONS = ("sum", "mean")


def constrains(epoch: int, interval: int) -> bool:
    """Tell whether an epoch of the alternating schedule trains the constraint (section 2.5).

    T epochs of the autoencoder, then one of the constraining layer.

    >>> [constrains(epoch, interval=2) for epoch in range(6)]
    [False, False, True, False, False, True]
    """
    return epoch % (interval + 1) == interval


class Constrained(nn.Module):
    """The autoencoder and the center of its bottleneck features, of length d."""

    mu: Tensor

    def __init__(self, autoencoder: Autoencoder, d: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.register_buffer("mu", torch.zeros(d))


@dataclass(kw_only=True, eq=False, repr=False)
class ConOCC(AutoencoderDetector):
    """Constrained one-class classifier of Gao et al.

    Parameters
    ----------
    gamma : float
        γ of Eq. (3), the weight of the constraint; 0 leaves a plain autoencoder.
    interval : int
        T, the epochs between two updates of the center μ.
    schedule : {"alternate", "joint"}
        How the two losses meet. Section 2.2 minimises their sum in every step ("joint"); section
        2.5 says that the constraining layer was trained after the autoencoder each T epochs
        ("alternate"): T epochs of L_AE, then μ is taken anew and one epoch of γ L_con follows,
        under the same Adam, whose memory of the size of L_AE's gradients gives γ its meaning.
    ae_reduction, con_reduction : {"sum", "mean"}
        Whether L_AE sums or averages over pixels, and L_con over bottleneck features. The paper's
        formulas sum, its words ("MSE") average.
    others
        Those of `AutoencoderDetector`; the epochs of the constraint count.

    Attributes
    ----------
    network_ : Constrained
        The trained autoencoder with the center ``mu``, the mean bottleneck feature over all
        training images when μ was last updated; it is not moved after the last epoch.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> ConOCC(epochs=2, random_state=0).fit(images).anomaly_score(images).shape
    (8,)
    """

    gamma: float = param(10.0, NOT_NEGATIVE)
    interval: int = param(60, COUNT)
    schedule: str = param("alternate", StrOptions(set(SCHEDULES)))
    ae_reduction: str = param("sum", StrOptions(set(REDUCTIONS)))
    con_reduction: str = param("sum", StrOptions(set(REDUCTIONS)))

    def _build(self) -> None:
        autoencoder = Autoencoder(self.input_shape_, self.bottleneck, self.channels)
        self.network_: Any = Constrained(autoencoder, autoencoder.bottleneck)

    @property
    def _autoencoder(self) -> Autoencoder:
        return self.network_.autoencoder

    def _fit(self, X: Batches, train: Train) -> None:
        network = self.network_
        alternate = self.schedule == "alternate"
        if alternate and self.gamma and self.epochs <= self.interval:
            logger.warning(
                "The constraint is never trained: schedule='alternate' trains it after each "
                "interval=%d epochs, and there are epochs=%d.",
                self.interval,
                self.epochs,
            )

        def update_center(epoch: int) -> None:
            # Epoch 0 gives `mu` a meaning where no update is ever due.
            due = constrains(epoch, self.interval) if alternate else epoch % self.interval == 0
            if due or epoch == 0:
                network.mu.copy_(equations.center(apply(self._embed, X)))

        stage = Stage(
            name="conocc",
            modules={"network": network},
            optimizers={"adam": adam(network.parameters(), lr=self.lr)},
            losses={"adam": self._loss},
            epochs=self.epochs,
            before_epoch=update_center,
        )
        self.history_ = train([stage], batch_size=self.batch_size)

    def _loss(self, x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        """Eq. (3); of its two terms the alternating schedule trains one an epoch."""
        joint, constraint = self.schedule == "joint", constrains(epoch, self.interval)
        z = self._embed(x)
        l_ae = l_con = x.new_zeros(())
        terms: dict[str, Tensor] = {}
        if joint or not constraint:
            l_ae = terms["L_AE"] = self._reconstruction(self._autoencoder.decoder(z), x)
        if joint or constraint:
            l_con = self._constraint(z)
            terms["gamma L_con"] = self.gamma * l_con
        return equations.total_loss(l_ae, l_con, self.gamma), terms

    def _reconstruction(self, x_hat: Tensor, x: Tensor) -> Tensor:
        loss = equations.batch_loss(equations.reconstruction_loss(x_hat, x))
        return loss / x[0].numel() if self.ae_reduction == "mean" else loss

    def _constraint(self, z: Tensor) -> Tensor:
        loss = equations.batch_loss(equations.constraining_loss(z, self.network_.mu))
        return loss / z.shape[1] if self.con_reduction == "mean" else loss
