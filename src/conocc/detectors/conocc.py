"""ConOCC: an autoencoder whose bottleneck features are pulled towards their mean.

Gao, Liu, Arefan, Panigrahy, Wu: *Constrained Deep One-Class Feature Learning For Classifying
Imbalanced Medical Images*. `conocc.equations` holds the formulas, `conocc.networks` the networks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from conocc import equations
from conocc.detectors.one_class_detector import OneClassDetector
from conocc.networks import CHANNELS, Autoencoder
from conocc.training import Batches, Stage, Train, adam, apply

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


class ConOCC(OneClassDetector):
    """Constrained one-class classifier of Gao et al.

    Parameters
    ----------
    epochs : int
        Passes over the training images, those of the constraint included (section 2.5: 1000).
    lr : float
        λ, Adam's learning rate.
    batch_size : int
        b, images a step.
    gamma : float
        γ of Eq. (3), the weight of the constraint; 0 leaves a plain autoencoder.
    interval : int
        T, the epochs between two updates of the center μ.
    schedule : {"alternate", "joint"}
        How the two losses meet. Section 2.2 minimises their sum in every step ("joint"); section
        2.5 says that the constraining layer was trained after the autoencoder each T epochs
        ("alternate"): T epochs of L_AE, then μ is taken anew and one epoch of γ L_con follows,
        under the same Adam, whose memory of the size of L_AE's gradients gives γ its meaning.
    bottleneck : int
        n of the paper, the bottleneck features; for vectors at most half their length.
    channels : sequence of int
        Widths of the encoder's convolutions; the decoder mirrors them (`conocc.networks`).
    normalize : {"zscore", "minmax", "none"}
        Intensities of an image, each by itself; of vectors, each feature over the training set.
    ae_reduction, con_reduction : {"sum", "mean"}
        Whether L_AE sums or averages over pixels, and L_con over bottleneck features. The paper's
        formulas sum, its words ("MSE") average.
    contamination : float in (0, 0.5]
        Share of the training images that fall below the threshold.
    random_state : int, RandomState or None
        0 is a seed like any other; None draws one and keeps it in ``seed_``.
    device : str
        "auto" (CUDA where there is one, else CPU), or a name torch knows.
    verbose : int
        0 is silent, 1 shows progress.

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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **OneClassDetector._parameter_constraints,
        "gamma": [Interval(Real, 0, None, closed="left")],
        "interval": [Interval(Integral, 1, None, closed="left")],
        "schedule": [StrOptions(set(SCHEDULES))],
        "ae_reduction": [StrOptions(set(REDUCTIONS))],
        "con_reduction": [StrOptions(set(REDUCTIONS))],
    }

    def __init__(
        self,
        *,
        epochs: int = 1000,
        lr: float = 1e-3,
        batch_size: int = 128,
        gamma: float = 10.0,
        interval: int = 60,
        schedule: str = "alternate",
        bottleneck: int = 256,
        channels: Sequence[int] = CHANNELS,
        normalize: str = "zscore",
        ae_reduction: str = "sum",
        con_reduction: str = "sum",
        contamination: float = 0.1,
        random_state: Any = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.gamma = gamma
        self.interval = interval
        self.schedule = schedule
        self.bottleneck = bottleneck
        self.channels = channels
        self.normalize = normalize
        self.ae_reduction = ae_reduction
        self.con_reduction = con_reduction
        self.contamination = contamination
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _build(self) -> None:
        autoencoder = Autoencoder(self.input_shape_, self.bottleneck, self.channels)
        self.network_ = Constrained(autoencoder, autoencoder.bottleneck)

    def _fit(self, X: Batches, train: Train) -> None:
        network, encoder = self.network_, self.network_.autoencoder.encoder
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
                network.mu.copy_(equations.center(apply(encoder, X)))

        stage = Stage(
            name="conocc",
            modules={"network": network},
            optimizers={"adam": adam(network.parameters(), lr=self.lr)},
            losses={"adam": self._alternating if alternate else self._joint},
            epochs=self.epochs,
            before_epoch=update_center,
        )
        self.history_ = train([stage])

    def _alternating(self, x: Tensor, epoch: int) -> dict[str, Tensor]:
        autoencoder = self.network_.autoencoder
        if constrains(epoch, self.interval):
            return {"gamma L_con": self.gamma * self._constraint(autoencoder.encoder(x))}
        return {"L_AE": self._reconstruction(autoencoder(x), x)}

    def _joint(self, x: Tensor, epoch: int) -> dict[str, Tensor]:
        autoencoder = self.network_.autoencoder
        z = autoencoder.encoder(x)
        return {
            "L_AE": self._reconstruction(autoencoder.decoder(z), x),
            "gamma L_con": self.gamma * self._constraint(z),
        }

    def _reconstruction(self, x_hat: Tensor, x: Tensor) -> Tensor:
        loss = equations.batch_loss(equations.reconstruction_loss(x_hat, x))
        return loss / x[0].numel() if self.ae_reduction == "mean" else loss

    def _constraint(self, z: Tensor) -> Tensor:
        loss = equations.batch_loss(equations.constraining_loss(z, self.network_.mu))
        return loss / z.shape[1] if self.con_reduction == "mean" else loss

    def _score(self, x: Tensor) -> Tensor:
        return equations.anomaly_score(self._reconstruct(x), x)

    def _embed(self, x: Tensor) -> Tensor:
        z: Tensor = self.network_.autoencoder.encoder(x)
        return z

    def _reconstruct(self, x: Tensor) -> Tensor:
        x_hat: Tensor = self.network_.autoencoder(x)
        return x_hat
