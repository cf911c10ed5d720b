r"""D-SVDD: an encoder trained to map the majority class into a small hypersphere.

Ruff, Vandermeulen, Görnitz, Deecke, Siddiqui, Binder, Müller, Kloft: *Deep One-Class
Classification* (ICML 2018). Section 3.1 of the paper: "the encoder of ConOCC is used as the basic
model, and a SVDD-based loss layer is integrated with default parameters".

Letters: n images, d bottleneck features; ``z`` a bottleneck feature, ``c`` the center, ``radius``
Ruff's R, ``nu`` Ruff's ν. The squared distance :math:`\lVert z_i - c \rVert^2` that objectives and
score share is `equations.constraining_loss`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from numbers import Integral

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn
from torch.nn import functional as F

from conocc import equations
from conocc.detectors.one_class_detector import COUNT, NOT_NEGATIVE, SHARE, param
from conocc.detectors.trained import TrainedDetector, reconstruction_terms
from conocc.networks import Autoencoder
from conocc.training import Batches, Stage, Terms, Train, adam, apply, concatenated, summed

logger = logging.getLogger("conocc")

# Both are in Ruff's code, github.com/lukasruff/Deep-SVDD-PyTorch, not in the publication.
SMALLEST_COMPONENT = 0.1
WARM_UP = 10


def away_from_zero(c: Tensor) -> Tensor:
    """Move components of the center within 0.1 of zero to ±0.1; (d,) -> (d,).

    A feature whose center is zero could be met by weights of zero. Zero itself, which Ruff's
    code leaves, becomes +0.1.
    """
    smallest = torch.where(c < 0, -SMALLEST_COMPONENT, SMALLEST_COMPONENT)
    return torch.where(c.abs() < SMALLEST_COMPONENT, smallest, c)


def excess(distance: Tensor, radius: Tensor, nu: float) -> Tensor:
    r"""Give :math:`\frac{1}{\nu} \max(0, \lVert z_i - c \rVert^2 - R^2)`; (n,), () -> (n,).

    With :math:`R^2` and the weight decay it makes Ruff's Eq. (3), the soft boundary.
    """
    return F.relu(distance - radius**2) / nu


def radius_of(distance: Tensor, nu: float) -> Tensor:
    r"""Give the (1 − ν)-quantile of :math:`\lVert z_i - c \rVert`; squared distances (n,) -> ().

    Up to interpolation, the R that minimises Ruff's Eq. (3) for fixed weights.
    """
    return torch.quantile(distance.sqrt(), 1 - nu)


class Hypersphere(nn.Module):
    """The center (d,) and the radius, which no gradient moves."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.c = nn.Buffer(torch.zeros(d))
        self.radius = nn.Buffer(torch.zeros(()))


@dataclass(kw_only=True, eq=False, repr=False)
class DeepSVDD(TrainedDetector):
    r"""Deep support vector data description, scored by the squared distance to the center.

    The encoder is first trained in an autoencoder; then the center is taken, once, as the mean
    feature of all training images, and the encoder alone goes on. No layer of the encoder has a
    bias or a normalisation, with which it could map all images to the center.

    Deviations from Ruff et al. and their code's example for MNIST: ConOCC's encoder with plain
    rectifiers for a LeNet with leaky ones and batch normalisation; the paper's 1000 epochs at one
    learning rate, 1e-3, for 150 at 1e-4 and, from the 50th, 1e-5; batches of 128 for 200; as many
    epochs of pretraining as theirs, without weight decay. The radius is taken over all training
    images before an epoch, as in their text, and not over each batch, as in their code. The score
    is the squared distance under both objectives; less R², as in their code, it would have another
    zero and the same order.

    Parameters
    ----------
    epochs : int
        Passes over the training images after pretraining.
    pretrain_epochs : int
        Passes before, in an autoencoder with this encoder; 0 leaves it out.
    objective : {"one-class", "soft-boundary"}
        Mean squared distance to the center (Ruff's Eq. 4), or squared radius and what lies beyond
        it (Eq. 3). The radius is zero for the first 10 epochs, then updated before each.
    nu : float in (0, 1]
        ν, the share of the training images that the soft boundary leaves outside.
    weight_decay : float
        Ruff's λ, the weight of :math:`\frac{1}{2} \sum \lVert W \rVert^2`.
    lr : float
        Adam's learning rate, in both stages.
    bottleneck : int
        The encoder's features; for vectors at most half their length.
    others
        Those of `TrainedDetector`.

    Attributes
    ----------
    encoder_ : nn.Module
        The trained encoder.
    sphere_ : Hypersphere
        Its center ``c`` and ``radius``; the radius stays 0 under the one-class objective.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> DeepSVDD(epochs=2, pretrain_epochs=1, random_state=0).fit(images).embed(images).shape
    (8, 256)
    """

    pretrain_epochs: int = param(150, Interval(Integral, 0, None, closed="left"))
    objective: str = param("one-class", StrOptions({"one-class", "soft-boundary"}))
    nu: float = param(0.1, SHARE)
    weight_decay: float = param(1e-6, NOT_NEGATIVE)
    bottleneck: int = param(256, COUNT)

    def _autoencoder(self) -> Autoencoder:
        return Autoencoder(self._shape, self.bottleneck, self.channels, encoder_bias=False)

    def _build(self) -> None:
        autoencoder = self._autoencoder()
        self.encoder_ = autoencoder.encoder
        self.sphere_ = Hypersphere(autoencoder.bottleneck)

    def _fit(self, X: Batches, train: Train) -> None:
        sphere, soft = self.sphere_, self.objective == "soft-boundary"
        if soft and self.epochs <= WARM_UP:
            logger.warning(
                f"The radius is never used: objective='soft-boundary' takes it after {WARM_UP} "
                f"epochs, and there are epochs={self.epochs}."
            )
        with X.chance:
            autoencoder = self._autoencoder().to(X.device)
        autoencoder.encoder = self.encoder_  # the decoder is for pretraining alone, and not kept

        def update_sphere(epoch: int) -> None:
            if epoch == 0:
                sphere.c.copy_(away_from_zero(equations.center(apply(self.encoder_, X))))
            if soft and epoch >= WARM_UP:
                distances = concatenated(apply(self._score, X), len(X)).to(X.device)
                sphere.radius.copy_(radius_of(distances, self.nu))

        def reconstruct(x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
            return reconstruction_terms(autoencoder, x)

        plain = adam(autoencoder.parameters(), lr=self.lr)
        decaying = adam(self.encoder_.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        modules = {"network": autoencoder, "sphere": sphere}
        pretraining = Stage(
            "pretraining", modules, self.pretrain_epochs, {"adam": (plain, reconstruct)}
        )
        svdd = Stage("svdd", modules, self.epochs, {"adam": (decaying, self._loss)}, update_sphere)
        self.history_ = train([pretraining, svdd], batch_size=self.batch_size)

    def _loss(self, x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        distance, radius = self._score(x), self.sphere_.radius
        if self.objective == "one-class":
            return summed({"distance": equations.batch_loss(distance)})
        beyond = equations.batch_loss(excess(distance, radius, self.nu))
        return summed({"R^2": radius**2, "excess / nu": beyond})

    def _score(self, x: Tensor) -> Tensor:
        return equations.constraining_loss(self._embed(x), self.sphere_.c)

    def _embed(self, x: Tensor) -> Tensor:
        return self.encoder_(x)
