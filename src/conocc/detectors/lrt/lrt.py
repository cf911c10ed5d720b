r"""LRT: compact and descriptive at once, by a likelihood ratio over all that is known of an image.

The successor of the paper's method, in this package. *Compact*: one Gaussian of the majority class
over a description of the image, which is first moved to where the others are and given more of
their tones, so that position and exposure do not make the class wide. *Descriptive*: the
directions of that Gaussian count by how far synthetic lesions, made from majority images alone,
move an image along them. Where the paper scores by the residual's sum, the description holds the
profile of the residual over place, scale and direction, of an autoencoder that has not seen the
image, beside the image's own.

Under the majority class, whitened descriptions are :math:`y \sim N(0, I)`; with lesions of strength
ε, :math:`y \sim N(0, I + \varepsilon B)`, where B is the second moment of the lesions'
displacements. How strong a lesion is, nobody knows: the score is the derivative of twice the log
of the ratio of the two densities at ε = 0, up to a constant, which is the most powerful test of
faint ones:

.. math:: s = y^T B y

Letters: n images, c channels, h and w pixels, d features of a description, p pixels and r
components of an autoencoder, k folds; ``x`` images, ``z`` descriptions, ``y`` whitened ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from sklearn.covariance import ShrunkCovariance
from sklearn.utils.extmath import randomized_svd
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn
from torch.nn import functional as F

from conocc.detectors.gabor_mahalanobis import (
    DIRECTIONS,
    GRID,
    SMALLEST_ENERGY,
    Gaussian,
    cell_means,
    energies,
    finite,
    flat,
    gabor_pairs,
    laid_out,
    levels_of,
    log_energy,
    profile,
    pyramid,
    whitening_of,
)
from conocc.detectors.input_validation import zscore
from conocc.detectors.lrt.registration import Alignment, mean_products
from conocc.detectors.lrt.synthetic_lesions import LESIONS, Change, with_lesion
from conocc.detectors.one_class_detector import OneClassDetector
from conocc.io.progress import bar
from conocc.training import BLOCK, Batches, Train, apply, concatenated

FINE_GRID = 8
QUANTILES = 21  # from 1 % to 99 %
QUANTILE_LEVELS = 3
FOLDS = 3
COMPONENTS = 32
IMAGES_A_COMPONENT = 8  # at least: what fewer images span is noise
LARGEST_SIDE = 64  # that an autoencoder sees
LESIONED = 500  # training images at most that are given lesions
SHRINKAGE = 0.2  # of the covariance, towards that of independent features
DARKEST = 0.005  # rank among the pixels, as a share; below it, and above its like, all are alike
BRIGHTEST = 16  # deviations from an image's mean
TONES = 256  # that are told apart in a deviation
# Of a feature's size: what varies less is rounding noise, which the Gaussian would magnify.
SMALLEST_DEVIATION = 1e-4
FLATTEST = 0.02  # deviation of a level's intensities; flatter ones are alike


def deviations(rows: Tensor) -> Tensor:
    """Deviation of each row; (..., q) -> (..., 1)."""
    return (rows - rows.mean(-1, keepdim=True)).square().mean(-1, keepdim=True).sqrt()


def tone_mapped(x: Tensor) -> Tensor:
    """Give each image tones half its own and half the Gaussian's; (n, c, h, w) -> the same.

    Half way from an intensity to the one that its rank has in a Gaussian of the image's mean and
    deviation: how a film was exposed counts for half, what is brighter than what stays.

    The rank is that in a histogram of `TONES` tones a deviation, in which a pixel counts for the
    two nearest tones by how near it is. So it has no steps: pixels that differ by rounding alone,
    as those of one grey do once they are moved, have one rank. It reaches `BRIGHTEST` deviations
    from the mean, beyond which lies at most one pixel in 256 (Chebyshev).
    """
    rows = x.flatten(1)
    mean = rows.mean(1, keepdim=True)
    tone = (zscore(x).flatten(1).double().clamp(-BRIGHTEST, BRIGHTEST) + BRIGHTEST) * TONES
    below = tone.long()
    share = tone - below
    counts = tone.new_zeros(len(x), 2 * BRIGHTEST * TONES + 2)
    counts.scatter_add_(1, below, 1 - share).scatter_add_(1, below + 1, share)
    ranks = (counts.cumsum(1) - counts / 2) / rows.shape[1]
    rank = torch.lerp(ranks.gather(1, below), ranks.gather(1, below + 1), share).to(x)
    gaussian = torch.special.ndtri(rank.clamp(DARKEST, 1 - DARKEST))
    return ((rows + mean + deviations(rows) * gaussian) / 2).reshape(x.shape)


# --- description -------------------------------------------------------------------------------


def quantiles(x: Tensor) -> Tensor:
    """Give 21 quantiles from 1 % to 99 % of each row, interpolated linearly; (n, p) -> (n, 21)."""
    ranked = x.sort(1).values
    place = torch.linspace(0.01, 0.99, QUANTILES) * (x.shape[1] - 1)
    below, above = place.floor().long(), place.ceil().long()
    return torch.lerp(ranked[:, below], ranked[:, above], (place - below).to(x))


def standardised(maps: Tensor) -> Tensor:
    """Give each map mean 0 and deviation 1 over place; (n, m, h, w) -> (n, m, h·w)."""
    rows = maps.flatten(2)
    return (rows - rows.mean(2, keepdim=True)) / (deviations(rows) + 1e-3)


def features(x: Tensor, pairs: Tensor) -> list[Tensor]:
    """Describe images by energies, intensities and how they go together.

    (n, 1, h, w) -> parts (n, m, rows, columns), of 1×1 cell where they are of the whole image.

    On each level of the pyramid: the profile (`conocc.detectors.gabor_mahalanobis`), the log of the
    energy in all directions on an 8×8 grid where there is a pixel for each cell, quantiles of the
    intensities on the first three, the correlations of log-energies and intensities over place,
    and, with the level before, the same and how flat halving its sides has made its intensities.
    """
    parts: list[Tensor] = []

    def add(of_all: Tensor) -> None:
        parts.append(of_all[..., None, None])

    upper, lower = torch.triu_indices(5, 5, 1)
    before: Tensor | None = None
    for i, level in enumerate(pyramid(x)):
        energy = energies(level, pairs)
        maps = torch.cat([(energy + SMALLEST_ENERGY).log(), level], 1)
        parts.append(cell_means(maps))
        if min(level.shape[2:]) >= FINE_GRID:
            total = (energy.sum(1, keepdim=True) + SMALLEST_ENERGY).log()
            parts.append(cell_means(total, FINE_GRID))
        if i < QUANTILE_LEVELS:
            add(quantiles(level.flatten(1)))
        rows = standardised(maps)
        add(mean_products(rows, rows)[:, upper, lower])
        if before is not None:
            finer = standardised(F.avg_pool2d(before, 2))
            # But for that of the intensity, which is the same map on both sides.
            add(mean_products(finer, rows).flatten(1)[:, :-1])
            add(1 / (deviations(level.flatten(1)) + FLATTEST))
        before = maps
    return parts


def residual_profile(residual: Tensor, pairs: Tensor) -> list[Tensor]:
    """Describe residuals by place, scale and direction, too large or too small.

    (n, 1, h, w) -> parts (n, 6, 4, 4), of the finest level first.
    """
    parts: list[Tensor] = []
    for level in pyramid(residual):
        log_square = (level.square() + SMALLEST_ENERGY).log()
        maps = torch.cat([log_energy(level, pairs), level, log_square], 1)
        parts.append(cell_means(maps))
    return parts


# --- learned -----------------------------------------------------------------------------------


class Description(nn.Module):
    """All that is known of an image, in numbers; its alignment and autoencoders are learned.

    The autoencoders are linear: the principal components of the training images, which no other
    linear one of their width betters (Baldi and Hornik, Neural Networks 1989). Each of the first
    three is of all but one fold of the training images, the last one of all of them. They see
    grey images of at most 64 pixels a side.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.alignment = Alignment(shape)
        self.sides = tuple(min(side, LARGEST_SIDE) for side in shape[1:])
        p = self.sides[0] * self.sides[1]
        self.mean = nn.Buffer(torch.zeros(FOLDS + 1, p))
        self.components = nn.Buffer(torch.zeros(FOLDS + 1, p, COMPONENTS))

    def downsampled(self, x: Tensor) -> Tensor:
        """Give what the autoencoders see of toned images; (n, c, h, w) -> (n, p)."""
        return cell_means(x.mean(1, keepdim=True), *self.sides).flatten(1)

    def learn(self, k: int, v: np.ndarray, seed: int) -> None:
        """Make autoencoder `k` from (n, p); components that n images cannot give stay zero."""
        r = min(COMPONENTS, len(v) // IMAGES_A_COMPONENT)
        mean = v.mean(0)
        self.mean[k] = torch.from_numpy(mean)
        if r:
            _, _, axes = randomized_svd(v - mean, r, random_state=seed)
            self.components[k, :, :r] = torch.from_numpy(axes.T)

    def bottleneck(self, v: Tensor, k: int) -> Tensor:
        """Encode by autoencoder `k`; (n, p) -> (n, r)."""
        return (v - self.mean[k]) @ self.components[k]

    def residual(self, x: Tensor, k: int) -> Tensor:
        """Give what autoencoder `k` leaves of toned images; -> (n, 1, at most 64, 64)."""
        v = self.downsampled(x)
        left = v - self.mean[k] - self.bottleneck(v, k) @ self.components[k].T
        return left.reshape(-1, 1, *self.sides)

    def parts(self, x: Tensor, folds: Sequence[int] = range(FOLDS)) -> list[Tensor]:
        """Describe aligned images, by the residuals of the autoencoders of `folds`.

        (n, c, h, w) -> parts (n, m, rows, columns), whose cells lie over the image.
        """
        x, pairs = tone_mapped(x), gabor_pairs().to(x)
        residuals = [residual_profile(self.residual(x, k), pairs) for k in folds]
        return [
            *features(x.mean(1, keepdim=True), pairs),
            *(torch.stack(level).mean(0) for level in zip(*residuals, strict=True)),
            self.bottleneck(self.downsampled(x), FOLDS)[..., None, None],
            *([profile(x, pairs)] if x.shape[1] > 1 else []),
        ]

    def forward(self, x: Tensor, folds: Sequence[int] = range(FOLDS)) -> Tensor:
        """Join the parts of a description; (n, c, h, w) -> (n, d)."""
        return flat(self.parts(x, folds))


def description_length(channels: int, h: int, w: int) -> int:
    """Count the numbers of a `Description`, on a blank image: beyond 64 pixels a side adds none.

    On the processor, whatever the device: without memory (`meta`) torch counts by an engine that
    takes a second to load.
    """
    with torch.device("cpu"):
        blank = torch.zeros(1, 1, min(h, LARGEST_SIDE), min(w, LARGEST_SIDE))
        grey = Description(blank.shape[1:])(blank).shape[1]
    maps = channels * (DIRECTIONS + 1) * levels_of(h, w) if channels > 1 else 0
    return grey + maps * GRID**2


def fit_ratio(gaussian: Gaussian, z: np.ndarray, warped: Sequence[np.ndarray]) -> None:
    r"""Fit the score's quadratic form to descriptions (n, d) and displacements, each (m, d).

    The Gaussian's matrix W is made such that :math:`\lVert (z - \mu) W \rVert^2` is the score:
    the whitened axes, turned to the eigenvectors of B and scaled by the roots of its eigenvalues.
    Each kind of lesion is taken to be as strong as the others: its second moment has a mean
    eigenvalue of 1. Without displacements nothing is known of lesions, and the score is the
    squared Mahalanobis distance. The covariance is that of standardised features, shrunk.
    """
    deviation, size = z.std(0), np.sqrt(np.square(z).mean(0))
    scale = np.where(deviation > SMALLEST_DEVIATION * size, deviation, 1.0)
    covariance = ShrunkCovariance(shrinkage=SHRINKAGE).fit(z / scale).covariance_
    matrix = whitening_of(covariance) / scale[:, None]
    if warped:
        moments = [whitened.T @ whitened for whitened in (kind @ matrix for kind in warped)]
        traces = [float(np.trace(moment)) for moment in moments]
        tiny = len(matrix) * np.finfo(float).tiny  # what changes nothing counts for nothing
        weights = [len(matrix.T) / trace if trace > tiny else 0.0 for trace in traces]
        B = np.mean([m * weight for m, weight in zip(moments, weights, strict=True)], 0)
        eigenvalues, turned = np.linalg.eigh(B)
        matrix = matrix @ turned * np.sqrt(np.maximum(eigenvalues, 0))
    gaussian.learn(z.mean(0), matrix)


def _sees_images(self: LRT) -> bool:
    return hasattr(self, "description_")


# --- method ------------------------------------------------------------------------------------


class LRT(OneClassDetector):
    """Likelihood ratio of the majority class to the same with synthetic lesions.

    Compact: one Gaussian, its covariance shrunk by a fifth, of all that is known of a majority
    image: its profile (`GaborMahalanobis`), the energy on a finer grid, quantiles of its
    intensities, correlations of its texture maps, where it falls in the bottleneck of a linear
    autoencoder, and the profile of the residual over place, scale and direction. The residuals of
    training images are of autoencoders that have not seen them; new images have the mean over all
    folds. Training images count as they are and mirrored left to right. Images are first moved
    onto the mean of the training images, where these are of one anatomy
    (`conocc.detectors.lrt.registration.Alignment`), and given tones half their own.

    Descriptive: up to 500 training images are given five kinds of lesions (shading, blurring or
    sharpening, a piece of another image, grain, haze), and a direction of the Gaussian counts by
    how far they move an image along it.

    Colour images are described by their mean over channels, and the profile of each. Feature
    vectors have no lesions: their score is the squared Mahalanobis distance.

    Everything is in closed form: there are no epochs, `history_` stays empty and a checkpoint is
    not needed. All training images are held at once at 64 pixels a side, 16 KB each. What
    was chosen by which labels is in ``docs/research/successor.md``.

    Parameters
    ----------
    others
        Those of `OneClassDetector`. Folds and lesions are drawn by `random_state`.

    Attributes
    ----------
    description_ : Description
        Alignment, filters and linear autoencoders; not for vectors.
    gaussian_ : Gaussian
        Mean of the training descriptions, and the matrix of the ratio's quadratic form.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> LRT(random_state=0).fit(images).anomaly_score(images).shape
    (8,)
    """

    revision = 3
    _no_graph = (
        "it solves equations for the place of each image and takes quantiles of the Gaussian; "
        "PyTorch exports neither to ONNX. Deploy it with this package, by `conocc score`."
    )

    _draws = "contribution"

    def _build(self) -> None:
        d = self._shape[0]
        if len(self._shape) == 3:
            self.description_ = Description(self._shape)
            d = description_length(*self._shape)
        self.gaussian_ = Gaussian(d)

    def _fit(self, X: Batches, train: Train) -> None:
        if len(X.shape) == 1:
            vectors = concatenated(apply(self._described, X), len(X)).double().numpy()
            fit_ratio(self.gaussian_, finite(vectors), [])
            return
        description, n = self.description_, len(X)
        with X.chance:  # folds and lesions are drawn
            fold = torch.randperm(n).numpy() % FOLDS
            coarse = concatenated(apply(description.alignment.downsampled, X), n)
            description.alignment.learn(coarse.to(X.device))
            toned = concatenated(apply(self._downsampled, X), n).numpy()
            for k in range(FOLDS + 1):
                description.learn(k, finite(toned)[fold != k], self.seed_)
            lesioned = torch.randperm(n).numpy()[:LESIONED]
            z = np.empty((2 * n, len(self.gaussian_.mean)))
            warped: list[list[np.ndarray]] = [[] for _ in LESIONS]
            for k in np.unique(fold):
                mine = np.flatnonzero(fold == k)
                z[mine] = self._described_unseen(X, mine, k)
                z[n + mine] = self._described_unseen(X, mine, k, lambda x: x.flip(-1))
                mine = np.intersect1d(mine, lesioned)
                for displaced, lesion in zip(warped, LESIONS, strict=True):
                    change = partial(with_lesion, lesion=lesion)
                    displaced.append(self._described_unseen(X, mine, k, change) - z[mine])
        fit_ratio(self.gaussian_, z, [np.concatenate(kind) for kind in warped])

    def _described_unseen(
        self, X: Batches, rows: np.ndarray, k: int, change: Change | None = None
    ) -> np.ndarray:
        """Describe some images, changed, by an autoencoder that has not seen them; -> (m, d)."""
        z = np.empty((len(rows), len(self.gaussian_.mean)))
        with bar("Describing images", len(rows), verbose=self.verbose) as advance:
            for start in range(0, len(rows), BLOCK):
                block = slice(start, start + BLOCK)
                x = self._aligned(X[rows[block]])
                if change:  # drawn on the CPU, so that a seed draws the same lesions everywhere
                    x = self._normalized(change(x.cpu()).to(x.device))
                z[block] = self.description_(x, [k]).cpu().numpy()
                advance(len(x))
        return finite(z)

    def _normalized(self, x: Tensor) -> Tensor:
        return self._normalization(x.device)(x).float()

    def _aligned(self, x: Tensor) -> Tensor:
        aligned: Tensor = self.description_.alignment(x)
        return aligned if aligned is x else self._normalized(aligned)

    def _downsampled(self, x: Tensor) -> Tensor:
        return self.description_.downsampled(tone_mapped(self._aligned(x)))

    def _described(self, x: Tensor) -> Tensor:
        return self.description_(self._aligned(x)) if x.ndim == 4 else x

    def _score(self, x: Tensor) -> Tensor:
        return self.gaussian_(self._described(x))

    def _embed(self, x: Tensor) -> Tensor:
        return self.gaussian_.whitened(self._described(x)).float()

    def _difference(self, x: Tensor) -> Tensor:
        description = self.description_
        parts = description.parts(self._aligned(x))
        contributions = self.gaussian_.contributions(flat(parts))
        there = laid_out(contributions, parts, *x.shape[2:])
        here = description.alignment.back(there, x)
        # What lies beyond the image's border once it was moved back is nowhere: all pixels have it.
        return here + (there - here).mean((2, 3), keepdim=True)

    @available_if(_sees_images)  # type: ignore[untyped-decorator]  # scikit-learn has no types
    def _reconstruct(self, x: Tensor) -> Tensor:
        aligned = tone_mapped(self._aligned(x))
        residuals = [self.description_.residual(aligned, k) for k in range(FOLDS)]
        residual = F.interpolate(torch.stack(residuals).mean(0), x.shape[2:], mode="bilinear")
        return x - self.description_.alignment.back(residual, x)
