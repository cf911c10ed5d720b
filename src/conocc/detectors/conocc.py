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
from conocc.detectors.reconstruction_scores import ScoredByReconstruction
from conocc.detectors.trained import AutoencoderDetector
from conocc.networks import Autoencoder
from conocc.training import Batches, Terms, Train, apply

logger = logging.getLogger("conocc")


def constrains(epoch: int, interval: int) -> bool:
    """Tell whether an epoch of the alternating schedule trains the constraint (section 2.5).

    T epochs of the autoencoder, then one of the constraining layer.

    >>> [constrains(epoch, interval=2) for epoch in range(6)]
    [False, False, True, False, False, True]
    """
    return epoch % (interval + 1) == interval


class Constrained(Autoencoder):
    """An autoencoder with the center `mu` (d,) of its bottleneck features."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.mu = nn.Buffer(torch.zeros(self.bottleneck))


@dataclass(kw_only=True, eq=False, repr=False)
class ConOCC(ScoredByReconstruction, AutoencoderDetector):
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
        Those of `AutoencoderDetector`, where the epochs of the constraint count, and
        `ScoredByReconstruction`.

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
    schedule: str = param("alternate", StrOptions({"alternate", "joint"}))
    ae_reduction: str = param("sum", StrOptions({"sum", "mean"}))
    con_reduction: str = param("sum", StrOptions({"sum", "mean"}))

    def _build(self) -> None:
        self.network_ = Constrained(self._shape, self.bottleneck, self.channels)

    def _fit(self, X: Batches, train: Train) -> None:
        alternate = self.schedule == "alternate"
        if alternate and self.gamma and self.epochs <= self.interval:
            logger.warning(
                f"The constraint is never trained: schedule='alternate' trains it after each "
                f"interval={self.interval} epochs, and there are epochs={self.epochs}."
            )

        def update_center(epoch: int) -> None:
            # Epoch 0 gives `mu` a meaning where no update is ever due.
            due = constrains(epoch, self.interval) if alternate else epoch % self.interval == 0
            if due or epoch == 0:
                self.network_.mu.copy_(equations.center(apply(self._embed, X)))

        self._train(train, "conocc", before_epoch=update_center)

    def _loss(self, x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        """Eq. (3); of its two terms the alternating schedule trains one an epoch."""
        joint, constraint = self.schedule == "joint", constrains(epoch, self.interval)
        z = self._embed(x)
        l_ae = l_con = x.new_zeros(())
        terms: dict[str, Tensor] = {}
        if joint or not constraint:
            x_hat, mean = self.network_.decoder(z), self.ae_reduction == "mean"
            l_ae = equations.batch_loss(equations.reconstruction_loss(x_hat, x))
            l_ae = terms["L_AE"] = l_ae / x[0].numel() if mean else l_ae
        if joint or constraint:
            l_con = equations.batch_loss(equations.constraining_loss(z, self.network_.mu))
            l_con = l_con / z.shape[1] if self.con_reduction == "mean" else l_con
            terms["gamma L_con"] = self.gamma * l_con
        return equations.total_loss(l_ae, l_con, self.gamma), terms
