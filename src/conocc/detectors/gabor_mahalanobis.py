r"""Profile: how much of each texture an image has where, and a Gaussian of that; no training.

The floor that a trained method has to beat. What one sees of an image is described by hand, as
the energy of oriented Gabor filters over place and scale (Gabor 1946; Jain and Farrokhnia 1991),
and how far that falls from the majority class by the Mahalanobis distance under the covariance of
Ledoit and Wolf, *A well-conditioned estimator for large-dimensional covariance matrices* (Journal
of Multivariate Analysis 2004).

Letters: n images, c channels, h and w pixels, d features of a profile or of a vector; ``x`` images,
``z`` profiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn
from torch.nn import functional as F

from conocc.detectors.one_class_detector import OneClassDetector
from conocc.training import Batches, Train, apply, concatenated

SIDE, WAVELENGTH, SIGMA = 7, 4.0, 2.0  # of the filters, in pixels
DIRECTIONS = 4
LEVELS = 4
GRID = 4
# Of z-scored images, whose energies are about 1: what is darker than this is equally dark.
SMALLEST_ENERGY = 1e-3
# Of the largest variance: what varies less is rounding noise, and would divide by nothing.
SMALLEST_VARIANCE = 1e-10


# --- profile -----------------------------------------------------------------------------------


def gabor_pairs() -> Tensor:
    """Give an even and an odd filter of mean 0 and norm 1 for each direction; -> (4, 2, 7, 7).

    The first pair answers to change along rows of pixels, each next one is turned by 45 degrees.
    """
    place = torch.arange(SIDE) - (SIDE - 1) / 2
    y, x = torch.meshgrid(place, place, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * SIGMA**2))
    angles = torch.arange(DIRECTIONS) * (torch.pi / DIRECTIONS)
    phase = torch.stack([x * torch.cos(a) + y * torch.sin(a) for a in angles])
    phase *= 2 * torch.pi / WAVELENGTH
    pairs = envelope * torch.stack([torch.cos(phase), torch.sin(phase)], 1)
    pairs -= pairs.mean((2, 3), keepdim=True)
    return pairs / pairs.square().sum((2, 3), keepdim=True).sqrt()


def energies(x: Tensor, pairs: Tensor) -> Tensor:
    """Energy (even² + odd²) in each direction; (n, 1, h, w) -> (n, 4, h, w).

    Beyond its border an image goes on as it ends there, so that the border is no edge.
    """
    x = F.pad(x, (SIDE // 2,) * 4, mode="replicate")
    answers = F.conv2d(x, pairs.flatten(0, 1)[:, None])
    return answers[:, ::2].square() + answers[:, 1::2].square()


def log_energy(x: Tensor, pairs: Tensor) -> Tensor:
    """Log of `energies`, with a floor; (n, 1, h, w) -> (n, 4, h, w)."""
    return (energies(x, pairs) + SMALLEST_ENERGY).log()


def cell_means(x: Tensor, rows: int = GRID, columns: int | None = None) -> Tensor:
    """Average over the cells of a grid, near enough equal; (n, c, h, w) -> (n, c, rows, columns).

    As ``adaptive_avg_pool2d``, but as two matrix products, which exist in every exported format.
    The grid is square where `columns` are not given.

    >>> cell_means(torch.arange(16.0).reshape(1, 1, 4, 4), 2).flatten().tolist()
    [2.5, 4.5, 10.5, 12.5]
    """
    grid = (rows, columns or rows)
    down, across = (
        F.adaptive_avg_pool1d(torch.eye(side), cells).to(x)
        for side, cells in zip(x.shape[2:], grid, strict=True)
    )
    return down.T @ x @ across


def levels_of(h: int, w: int) -> int:
    """Count the levels of the pyramid: at most four, each with a pixel or more for each cell.

    >>> levels_of(16, 100), levels_of(32, 32)
    (3, 4)
    """
    return min(LEVELS, (min(h, w) // GRID).bit_length())


def pyramid(x: Tensor) -> Iterator[Tensor]:
    """Halve the sides as often as `levels_of` says; (n, 1, h, w) -> levels, the finest first."""
    for level in range(levels_of(*x.shape[2:])):
        x = F.avg_pool2d(x, 2) if level else x
        yield x


def profile(x: Tensor, pairs: Tensor) -> Tensor:
    """Describe images by log-energies and intensities over place and scale.

    On each level of the pyramid there are, in every cell of a 4×4 grid, the mean log-energy in
    four directions and the mean intensity of each channel; (n, c, h, w) -> (n, 5 · c · levels,
    4, 4).
    """
    levels = pyramid(x.flatten(0, 1)[:, None])
    parts = [cell_means(torch.cat([log_energy(level, pairs), level], 1)) for level in levels]
    # Not len(x), which an exported graph would take for a constant.
    return torch.cat(parts, 1).reshape(x.shape[0], -1, GRID, GRID)


# --- where the features are --------------------------------------------------------------------


def flat(parts: Sequence[Tensor]) -> Tensor:
    """Join features of cells, (n, m, rows, columns) each, into vectors; -> (n, d)."""
    return torch.cat([part.flatten(1) for part in parts], 1)


def laid_out(values: Tensor, parts: Sequence[Tensor], h: int, w: int) -> Tensor:
    """Lay a value of each feature out over the cell that it is of; (n, d) -> (n, 1, h, w).

    The features are those of `flat`. Pixels sum to what the values sum to; between the centres of
    two cells they go evenly from the one's to the other's.
    """
    total = values.new_zeros(len(values), 1, h, w)
    sizes = [part[0].numel() for part in parts]
    for of_part, part in zip(torch.split(values, sizes, 1), parts, strict=True):
        cells = of_part.reshape(len(values), *part.shape[1:]).sum(1, keepdim=True)
        down, across = (
            F.interpolate(torch.eye(n)[None].to(values), side, mode="linear")[0]
            for n, side in zip(part.shape[2:], (h, w), strict=True)
        )
        down, across = (weights / weights.sum(1, keepdim=True) for weights in (down, across))
        total += down.T @ cells @ across
    return total


# --- Gaussian ----------------------------------------------------------------------------------


def finite(z: np.ndarray) -> np.ndarray:
    """Give what was computed of images, (n, ...); refuse it where it left the numbers there are."""
    if not np.isfinite(z).all():
        raise ValueError(
            "What is computed of the training images is infinite or NaN: their values are too "
            "large. Scale them, or have them normalised."
        )
    return z


def whitening_of(covariance: np.ndarray) -> np.ndarray:
    r"""Give W with :math:`W W^T = \Sigma^{-1}`, where Σ is no rounding noise; (d, d) -> (d, d)."""
    variances, axes = np.linalg.eigh(covariance)
    floor = SMALLEST_VARIANCE * variances[-1] if variances[-1] > 0 else 1.0
    return axes / np.sqrt(np.maximum(variances, floor))


class Gaussian(nn.Module):
    """A Gaussian: its mean (d,) and the matrix (d, d) that turns it into the standard one."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(d, dtype=torch.float64))
        self.whitening = nn.Buffer(torch.zeros(d, d, dtype=torch.float64))

    def learn(self, mean: np.ndarray, whitening: np.ndarray) -> None:
        """Take over what was estimated."""
        self.mean.copy_(torch.from_numpy(mean))
        self.whitening.copy_(torch.from_numpy(whitening))

    def whitened(self, z: Tensor) -> Tensor:
        """Turn (n, d) into vectors of the standard Gaussian; -> (n, d) float64."""
        return (z.double() - self.mean) @ self.whitening

    def forward(self, z: Tensor) -> Tensor:
        r"""Give :math:`(z - \mu)^T \Sigma^{-1} (z - \mu)`; (n, d) -> (n,) float64."""
        return self.whitened(z).square().sum(1)

    def contributions(self, z: Tensor) -> Tensor:
        """Give what each feature adds to `forward`, or takes from it; (n, d) -> (n, d) float64."""
        return (z.double() - self.mean) * (self.whitened(z) @ self.whitening.T)


# --- method ------------------------------------------------------------------------------------


class GaborMahalanobis(OneClassDetector):
    """Gaussian of hand-made texture energies, scored by the squared Mahalanobis distance.

    An image's profile is taken on up to four levels of a pyramid (fewer below 32 pixels a side,
    so that a cell has a pixel): in each cell of a 4×4 grid, the mean log-energy of 7×7 Gabor pairs
    of wavelength 4 in four directions, and the mean intensity. Feature vectors are their own
    profile.

    There are no epochs, batches or random numbers: `history_` stays empty and a checkpoint is not
    needed. Profiles of all training images are held at once, in float64: 2.5 KB each for one
    channel.

    Parameters
    ----------
    others
        Those of `OneClassDetector`. But for the folds that set the threshold, nothing depends on
        `random_state`, and little on `device`.

    Attributes
    ----------
    gaussian_ : Gaussian
        Mean of the training profiles, and the matrix that whitens them.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> GaborMahalanobis().fit(images).anomaly_score(images).shape
    (8,)
    """

    _draws = "contribution"

    def _build(self) -> None:
        shape = self._shape
        d = shape[0] if len(shape) == 1 else shape[0] * 80 * levels_of(*shape[1:])
        self.gaussian_ = Gaussian(d)

    def _fit(self, X: Batches, train: Train) -> None:
        z = concatenated(apply(self._profile, X), len(X)).double().numpy()
        estimate = LedoitWolf().fit(finite(z))
        self.gaussian_.learn(estimate.location_, whitening_of(estimate.covariance_))

    def _score(self, x: Tensor) -> Tensor:
        return self.gaussian_(self._profile(x))

    def _profile(self, x: Tensor) -> Tensor:
        return flat([profile(x, gabor_pairs().to(x))]) if x.ndim == 4 else x

    def _difference(self, x: Tensor) -> Tensor:
        parts = [profile(x, gabor_pairs().to(x))]
        return laid_out(self.gaussian_.contributions(flat(parts)), parts, *x.shape[2:])
