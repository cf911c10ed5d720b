"""AnoGAN: a generative adversarial network, searched for the image most like the one given.

Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs: *Unsupervised Anomaly Detection with
Generative Adversarial Networks to Guide Marker Discovery*, IPMI 2017; its equations are cited by
their numbers there. The network is DCGAN (Radford, Metz, Chintala: *Unsupervised Representation
Learning with Deep Convolutional Generative Adversarial Networks*, ICLR 2016).

Letters: n images, c channels, h and w pixels, d length of a vector or of a latent code;
``x`` an image, ``z`` a latent code, ``G`` the generator, ``D`` the discriminator, ``f`` the
features of its last hidden layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor, nn
from torch.nn import functional as F

from conocc.detectors.one_class_detector import COUNT, POSITIVE, OneClassDetector, param
from conocc.detectors.reconstruction_scores import SCORES, ScoredByReconstruction
from conocc.detectors.residual_scale import ResidualScale
from conocc.detectors.trained import TrainedDetector
from conocc.networks import bottleneck_of, dense, dense_widths, halved
from conocc.training import Batches, Stage, Terms, Train, adam, summed

BETAS = (0.5, 0.999)  # Adam's, of DCGAN
SLOPE = 0.2  # of DCGAN's leaky rectifiers
LAMBDA = 0.1  # λ of Schlegl's Eq. (5)


# --- DCGAN ---------------------------------------------------------------------------------------


class Generator(nn.Module):
    """Latent codes (n, d) to images (n, c, h, w), by convolutions of stride 1/2.

    Each doubles the sides and is cropped to those of the map that the discriminator has there, so
    that any size comes out exactly. The output is linear: DCGAN's tanh would end at ±1, which
    z-scored images do not.
    """

    def __init__(self, shape: tuple[int, ...], d: int, channels: Sequence[int]) -> None:
        super().__init__()
        *sizes, smallest = halved(shape[1:], len(channels))
        self.sizes = sizes[::-1]
        self.start = (channels[-1], *smallest)
        self.into = nn.Linear(d, math.prod(self.start))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in reversed(channels))
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(c_in, c_out, kernel_size=4, stride=2, padding=1)
            for c_in, c_out in pairwise((*reversed(channels), shape[0]))
        )

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.into(z).reshape(z.shape[0], *self.start)
        x = x.contiguous(memory_format=torch.channels_last)
        for norm, conv, (h, w) in zip(self.norms, self.convs, self.sizes, strict=True):
            x = conv(F.relu(norm(x)))[..., :h, :w]
        return x


class Features(nn.Module):
    """Images (n, c, h, w) to the features f of the discriminator's last convolution (n, ·)."""

    def __init__(self, c: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, kernel_size=4, stride=2, padding=1)
            for c_in, c_out in pairwise((c, *channels))
        )
        # DCGAN normalises all layers but the one that sees the image.
        norms = (nn.BatchNorm2d(width) for width in channels[1:])
        self.norms = nn.ModuleList([nn.Identity(), *norms])

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h, w = x.shape[2:]
            if h % 2 or w % 2:  # or the last row or column of an odd side would be left out
                x = F.pad(x, (0, w % 2, 0, h % 2))
            x = F.leaky_relu(norm(conv(x)), SLOPE)
        return x.flatten(1)


class Gan(nn.Module):
    """Generator and discriminator, and the one latent code from which every search starts.

    For vectors (d,) both are dense and without batch normalisation.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, channels: Sequence[int]) -> None:
        super().__init__()
        latent = bottleneck_of(shape, latent)
        if len(shape) == 3:
            self.generator: nn.Module = Generator(shape, latent, channels)
            self.features: nn.Module = Features(shape[0], channels)
            width = self.generator.into.out_features
        else:
            widths = dense_widths(shape[0], channels)
            self.generator = dense([latent, *widths[::-1]])
            self.features = nn.Sequential(dense(widths), nn.LeakyReLU(SLOPE))
            width = widths[-1]
        self.verdict = nn.Linear(width, 1)
        self.z_0 = nn.Buffer(uniform(1, latent))
        if len(shape) == 3:
            self.apply(start_as_dcgan)
        # As in `networks.Autoencoder`.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it

    def draw(self, n: int) -> Tensor:
        """Generate images from `n` random codes."""
        return self.generator(uniform(n, self.z_0.shape[1], self.z_0.device))

    def discriminate(self, x: Tensor) -> Tensor:
        """Give the logit of D, that an image is real; (n, ...) -> (n, 1)."""
        return self.verdict(self.features(x))


def uniform(n: int, d: int, device: torch.device | None = None) -> Tensor:
    """Draw latent codes, uniform in [-1, 1] (Schlegl, section 2.1); -> (n, d)."""
    return 2 * torch.rand(n, d, device=device) - 1


def start_as_dcgan(module: nn.Module) -> None:
    """Draw weights with deviation 0.02, those of batch normalisation around 1 (DCGAN)."""
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


# --- augmentation --------------------------------------------------------------------------------


def draw_augmentation(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw for a batch (n, c, h, w): each second image mirrored, shifts up to 1/16 of a side.

    That is (n,) bool, and (n,) pixels down and to the right.
    """
    n, _, h, w = x.shape

    def shift(side: int) -> Tensor:
        return torch.randint(-(side // 16), side // 16 + 1, (n,), device=x.device)

    return torch.rand(n, device=x.device) < 0.5, shift(h), shift(w)


def augmented(x: Tensor, mirrored: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Mirror, then shift, images (n, c, h, w); what a shift uncovers is filled by reflection."""
    n, _, h, w = x.shape
    rows, columns = _reflected(h, down), _reflected(w, right)
    columns = torch.where(mirrored[:, None], w - 1 - columns, columns)
    image = torch.arange(n, device=x.device)[:, None, None]
    return x[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(side: int, shift: Tensor) -> Tensor:
    """Tell from where each pixel of a shifted line comes; (n,) -> (n, side)."""
    index = (torch.arange(side, device=shift.device) - shift[:, None]).abs()
    return (side - 1) - ((side - 1) - index).abs()


# --- the losses (DCGAN; Schlegl, Eq. 1 to 6) -----------------------------------------------------


def taken_for(real: bool, logit: Tensor) -> Tensor:
    r"""Eq. (1). :math:`-\log D(x)` if `real`, :math:`-\log(1 - D(x))` if not; logits -> ()."""
    return F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, float(real)))


def distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Eq. (2) on images, Eq. (4) on features. :math:`\sum |a - b|`; (n, ...) -> (n,)."""
    return (a - b).abs().flatten(1).sum(1)


def search_loss(residual: Tensor, discrimination: Tensor) -> Tensor:
    r"""Eq. (5) and (6). :math:`(1 - \lambda) L_R + \lambda L_D`; (n,), (n,) -> (n,)."""
    return (1 - LAMBDA) * residual + LAMBDA * discrimination


# --- the method ----------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class AnoGAN(ScoredByReconstruction, TrainedDetector):
    r"""Generative adversarial network of Schlegl et al. (IPMI 2017).

    A generator learns to draw majority images; of a new image it is then asked for the one most
    like it, by a search for the latent code. The score is the loss at the end of the search,
    Eq. (6): what is left between the two, in pixels and in features of the discriminator.

    It departs from the publication in this:

    - the widths of the convolutions are ConOCC's, for images as small and as few as the paper's,
      and their kernels 4×4 (DCGAN: 5×5), the smallest that overlap evenly at stride 2;
    - the generator ends linear, not in a tanh (see `Generator`);
    - every search starts from one code, drawn once and stored, where Schlegl draws one for each
      image: a score would hang on chance. Codes may leave [-1, 1] during the search;
    - training images are augmented, as section 3.1 of Gao et al. says without saying how: half of
      them mirrored left to right, each shifted by up to 1/16 of its sides and reflected at the
      border. Images that are scored never are, nor are vectors;
    - the search is Adam's with a rate of 0.02, of which Schlegl gives nothing.

    The loss of the search has an AUC of 0.46 on `busi`, where ``scored_by="correlation"`` has 0.64,
    as it has 0.85 for 0.80 on `lgg-mri-patches`; on phantoms, whose lesions are bright, it has
    less, and ``"residual"`` most. The publication's stays the default
    (docs/research/reproduction.md).

    Parameters
    ----------
    latent : int
        Length of a latent code (DCGAN: 100); for vectors at most half their length.
    search_steps : int
        Γ, Adam's steps for each image that is scored.
    search_lr : float
        Learning rate of these steps.
    augment : bool
        Whether training images are augmented; not for images whose left is not their right.
    scored_by : {"search", "residual", "correlation"}
        Eq. (6), the loss at the end of the search; or the two images that it leaves, as
        `ScoredByReconstruction` says.
    lr : float
        Adam's learning rate for both networks, DCGAN's.
    channels : sequence of int
        Widths of the discriminator's convolutions; the generator mirrors them.
    others
        Those of `TrainedDetector`.

    Attributes
    ----------
    network_ : Gan
        The trained networks, with the buffer ``z_0``, the code from which each search starts.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> AnoGAN(epochs=2, search_steps=5, random_state=0).fit(images).anomaly_score(images).shape
    (8,)
    """

    lr: float = param(2e-4, POSITIVE)
    latent: int = param(100, COUNT)
    search_steps: int = param(500, COUNT)
    search_lr: float = param(0.02, POSITIVE)
    scored_by: str = param("search", StrOptions({"search", *SCORES}))
    augment: bool = param(True, "boolean")

    _no_graph = (
        "each image is searched for by steps down a gradient, which ONNX cannot take. "
        "Score with 'conocc score', or in Python."
    )

    # A search for each of all training images would take longer than the training.
    _threshold_images = 256

    def _build(self) -> None:
        self.network_ = Gan(self.input_shape_, self.latent, self.channels)

    def _fit(self, X: Batches, train: Train) -> None:
        gan = self.network_
        of_d = adam(nn.ModuleList([gan.features, gan.verdict]).parameters(), self.lr, BETAS)
        of_g = adam(gan.generator.parameters(), self.lr, BETAS)
        steps = {"discriminator": (of_d, self._discriminator), "generator": (of_g, self._generator)}
        stage = Stage("gan", {"network": gan}, self.epochs, steps)
        self.history_ = train([stage], batch_size=self.batch_size)

    def _discriminator(self, x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        gan = self.network_
        # Batch normalisation has no deviation of a single row; two views of it will do.
        x = torch.cat([x, x]) if len(x) == 1 else x
        with torch.no_grad():
            drawn = gan.draw(len(x))
        if self.augment and x.ndim == 4:
            x = augmented(x, *draw_augmentation(x))
        real = taken_for(True, gan.discriminate(x))
        return summed({"D real": real, "D drawn": taken_for(False, gan.discriminate(drawn))})

    def _generator(self, x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        gan = self.network_
        return summed({"G": taken_for(True, gan.discriminate(gan.draw(max(len(x), 2))))})

    def _search(self, x: Tensor) -> Tensor:
        """Find the code of each image; (n, ...) -> (n, d).

        The losses are summed over the batch, so that no image feels another: each has gradients,
        and in Adam a memory, of its own.
        """
        gan = self.network_
        f = gan.features(x)
        with torch.enable_grad():
            z = gan.z_0.repeat(len(x), 1).requires_grad_()
            adam = torch.optim.Adam([z], lr=self.search_lr)
            for _ in range(self.search_steps):
                loss = self._loss(x, f, z).sum()
                # Gradients of the code alone: none of the weights is computed, or kept.
                (z.grad,) = torch.autograd.grad(loss, z)
                adam.step()
        return z.detach()

    def _loss(self, x: Tensor, f: Tensor, z: Tensor) -> Tensor:
        drawn = self.network_.generator(z)
        return search_loss(distance(x, drawn), distance(f, self.network_.features(drawn)))

    def _residual_scale(self, array: np.ndarray, *, source: str) -> ResidualScale | None:
        # That of the other scores would take another search for each image.
        return OneClassDetector._residual_scale(self, array, source=source)

    def _score(self, x: Tensor) -> Tensor:
        if self.scored_by != "search":
            return super()._score(x)
        return self._loss(x, self.network_.features(x), self._search(x))

    def _reconstruct(self, x: Tensor) -> Tensor:
        return self.network_.generator(self._search(x))
