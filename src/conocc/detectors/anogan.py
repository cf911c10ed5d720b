"""AnoGAN: a generative adversarial network, searched for the image most like the one given.

Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs: *Unsupervised Anomaly Detection with
Generative Adversarial Networks to Guide Marker Discovery*, IPMI 2017; its equations are cited by
their numbers there. The network is DCGAN (Radford, Metz, Chintala: *Unsupervised Representation
Learning with Deep Convolutional Generative Adversarial Networks*, ICLR 2016). The encoder that can
take the place of the search is f-AnoGAN's (Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth:
*f-AnoGAN: Fast Unsupervised Anomaly Detection with Generative Adversarial Networks*, Medical Image
Analysis 2019).

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
from conocc.networks import Encoder, bottleneck_of, dense, dense_widths, halved
from conocc.training import Batches, Stage, Terms, Train, adam, summed

BETAS = (0.5, 0.999)  # Adam's, of DCGAN
SLOPE = 0.2  # of DCGAN's leaky rectifiers
LAMBDA = 0.1  # λ of Schlegl's Eq. (5)
KAPPA = 1.0  # κ of f-AnoGAN, which weighs features against pixels
ENCODER_LR = 1e-3  # that of the autoencoders, whose encoder it is


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


def encoder_loss(x: Tensor, drawn: Tensor, f: Tensor, f_drawn: Tensor) -> Tensor:
    r"""Give the loss of f-AnoGAN's encoder, "izif", which is also its score; -> (n,).

    :math:`\frac{1}{n} \lVert x - G(E(x)) \rVert^2 +
    \frac{\kappa}{n_d} \lVert f(x) - f(G(E(x))) \rVert^2`, n pixels and :math:`n_d` features.
    """
    pixels, features = ((a - b).square().flatten(1).mean(1) for a, b in ((x, drawn), (f, f_drawn)))
    return pixels + KAPPA * features


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

    A search finds images of the minority about as well as others, and on `busi` and a phantom its
    loss has an AUC below 0.5. With ``codes="encoder"`` an encoder is trained for as many epochs,
    once both networks are, as f-AnoGAN's is ("izif": pixels and features, both networks fixed): it
    was shown the majority alone, and needs no steps for an image. It is ConOCC's encoder, with
    Adam. Under ``scored_by="correlation"`` it is above 0.6 on both development cohorts and on the
    three phantoms. The publication's stays the default (docs/research/reproduction.md).

    Parameters
    ----------
    latent : int
        Length of a latent code (DCGAN: 100); for vectors at most half their length.
    codes : {"search", "encoder"}
        How the code of an image is found: by Schlegl's search, or by f-AnoGAN's encoder.
    search_steps : int
        Γ, Adam's steps for each image that is scored.
    search_lr : float
        Learning rate of these steps.
    augment : bool
        Whether training images are augmented; not for images whose left is not their right.
    scored_by : {"search", "residual", "correlation"}
        "search": what is left of the loss by which the code was found: Eq. (6), or with an encoder
        "izif"; the others, of the image and its reconstruction, are `ScoredByReconstruction`'s.
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
    encoder_ : Module
        With ``codes="encoder"``: images to codes.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> AnoGAN(epochs=2, search_steps=5, random_state=0).fit(images).anomaly_score(images).shape
    (8,)
    """

    lr: float = param(2e-4, POSITIVE)
    latent: int = param(100, COUNT)
    codes: str = param("search", StrOptions({"search", "encoder"}))
    search_steps: int = param(500, COUNT)
    search_lr: float = param(0.02, POSITIVE)
    scored_by: str = param("search", StrOptions({"search", *SCORES}))
    augment: bool = param(True, "boolean")

    @property
    def _no_graph(self) -> str:  # type: ignore[override]  # that of how codes are found
        steps = "each image is searched for by steps down a gradient, which ONNX cannot take. "
        return steps + "Score with 'conocc score', or in Python." if self.codes == "search" else ""

    # A search for each of all training images would take longer than the training.
    _threshold_images = 256

    def _build(self) -> None:
        shape, channels = self._shape, self.channels
        self.network_ = Gan(shape, self.latent, channels)
        if self.codes == "encoder":
            d = self.network_.z_0.shape[1]
            self.encoder_ = (
                Encoder(shape, d, channels)
                if len(shape) == 3
                else dense([*dense_widths(shape[0], channels), d])
            )

    def _fit(self, X: Batches, train: Train) -> None:
        gan = self.network_
        of_d = adam(nn.ModuleList([gan.features, gan.verdict]).parameters(), self.lr, BETAS)
        of_g = adam(gan.generator.parameters(), self.lr, BETAS)
        steps = {"discriminator": (of_d, self._discriminator), "generator": (of_g, self._generator)}
        stages = [Stage("gan", {"network": gan}, self.epochs, steps)]
        if self.codes == "encoder":
            of_e = adam(self.encoder_.parameters(), ENCODER_LR)
            steps = {"encoder": (of_e, self._encoder)}

            def fixed(epoch: int) -> None:
                gan.eval().requires_grad_(False)  # batch normalisation as in a search

            encoder = {"encoder": self.encoder_}
            stages.append(Stage("encoder", encoder, self.epochs, steps, before_epoch=fixed))
        self.history_ = train(stages, batch_size=self.batch_size)
        gan.requires_grad_(True)

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

    def _encoder(self, x: Tensor, epoch: int) -> tuple[Tensor, Terms]:
        return summed({"E": self._left(x, self.encoder_(x)).mean()})

    def _codes(self, x: Tensor) -> Tensor:
        return self._search(x) if self.codes == "search" else self.encoder_(x)

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
                loss = self._left(x, z, f).sum()
                # Gradients of the code alone: none of the weights is computed, or kept.
                (z.grad,) = torch.autograd.grad(loss, z)
                adam.step()
        return z.detach()

    def _left(self, x: Tensor, z: Tensor, f: Tensor | None = None) -> Tensor:
        """Give the loss by which codes are found, with the features of `x` where known; -> (n,)."""
        features, drawn = self.network_.features, self.network_.generator(z)
        f, f_drawn = features(x) if f is None else f, features(drawn)
        if self.codes == "encoder":
            return encoder_loss(x, drawn, f, f_drawn)
        return search_loss(distance(x, drawn), distance(f, f_drawn))

    def _residual_scale(self, array: np.ndarray, *, source: str) -> ResidualScale | None:
        # That of the other scores would take another search for each image.
        if self.codes == "search":
            return OneClassDetector._residual_scale(self, array, source=source)
        return super()._residual_scale(array, source=source)

    def _score(self, x: Tensor) -> Tensor:
        return self._left(x, self._codes(x)) if self.scored_by == "search" else super()._score(x)

    def _reconstruct(self, x: Tensor) -> Tensor:
        return self.network_.generator(self._codes(x))
