"""Scores of an image by its reconstruction, and the maps that say how much each pixel adds.

Letters: n images, c channels, h and w pixels; ``x`` normalised images, ``x_hat`` reconstructions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor
from torch.nn import functional as F

from conocc import equations
from conocc.detectors.input_validation import centered, nonzero
from conocc.detectors.one_class_detector import OneClassDetector, param
from conocc.detectors.residual_scale import ResidualScale

SIGMA = 0.06  # of the window, in shorter sides of the image
FLAT = 1e-3  # of the variance of an image: a window with less is taken for flat


def window(side: int, sigma: float, like: Tensor) -> Tensor:
    """Give the weights of the Gaussian windows around the pixels of a line; -> (side, side).

    What lies beyond the border counts for nothing: each row sums to 1.
    """
    place = torch.arange(side, dtype=like.dtype, device=like.device)
    weight = torch.exp(-((place - place[:, None]) ** 2) / (2 * sigma**2))
    return weight / weight.sum(1, keepdim=True)


def dissimilarity(x_hat: Tensor, x: Tensor) -> Tensor:
    r"""One less the correlation of image and reconstruction around each pixel.

    .. math:: 1 - \frac{\operatorname{cov}(x, \hat x) + k}
        {\sqrt{(\operatorname{var} x + k) (\operatorname{var} \hat x + k)}}

    Mean, variance and covariance are weighted by a Gaussian window of :math:`\sigma` = `SIGMA` of
    the shorter side, a channel by itself, and :math:`k` is `FLAT` of the variance of all of `x`.
    It is the structure term of SSIM (Wang, Bovik, Sheikh, Simoncelli: *Image quality assessment*,
    IEEE Transactions on Image Processing 2004) with a wide window: brightness and contrast of a
    window count for nothing; it is 0 where the two are alike, or both flat, and at most 2.
    (n, c, h, w), (n, c, h, w) -> (n, c, h, w), float64.
    """
    n, c, h, w = x.shape
    # Or the variance of a flat window would be rounding noise.
    x, x_hat = x.double(), x_hat.double()
    # In units of the image, each from its mean, so that squares lose no digits to an offset.
    low = x.amin((1, 2, 3), keepdim=True)
    spread = nonzero(x.amax((1, 2, 3), keepdim=True) - low)
    a, b = (centered((image - low) / spread) for image in (x, x_hat))
    scale = nonzero(a.square().mean((1, 2, 3), keepdim=True).sqrt())
    # A product an image, of sides that are multiples of 8: at another place in the memory, or as
    # one product of all, an image could be rounded otherwise.
    beyond = (0, -w % 8, 0, -h % 8)
    a, b = (F.pad((image / scale).reshape(n * c, h, w), beyond) for image in (a, b))
    down, across = (
        F.pad(window(side, SIGMA * min(h, w), a), (0, -side % 8, 0, -side % 8)) for side in (h, w)
    )

    def around(image: Tensor) -> Tensor:
        image = torch.bmm(down.expand(n * c, *down.shape), image)
        return torch.bmm(image, across.T.expand(n * c, *across.shape))

    mean_a, mean_b = around(a), around(b)
    var_a, var_b = ((around(z * z) - m * m).clamp(min=0) for z, m in ((a, mean_a), (b, mean_b)))
    covariance = around(a * b) - mean_a * mean_b
    correlation = (covariance + FLAT) / ((var_a + FLAT) * (var_b + FLAT)).sqrt()
    return (1 - correlation)[:, :h, :w].clamp(min=0).reshape(x.shape)


def correlation_score(x_hat: Tensor, x: Tensor) -> Tensor:
    """Score by the mean of the `dissimilarity` over all pixels; (n, c, h, w) -> (n,)."""
    return dissimilarity(x_hat, x).flatten(1).mean(1)


# What each is scored by, and the map that is drawn of it; `torch.rsub` gives x - x_hat.
SCORES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "residual": (equations.anomaly_score, torch.rsub),
    "correlation": (correlation_score, dissimilarity),
}
# What hangs on the score, and what stands in its place until a score has its own.
BY_SCORE: dict[str, Any] = {
    **dict.fromkeys(("offset_", "held_out_offset_", "calibration_", "residual_scale_")),
    **dict.fromkeys(("calibration_digests_", "calibration_patients_"), np.empty((0, 16), np.uint8)),
}


@dataclass(kw_only=True, eq=False, repr=False)
class ScoredByReconstruction(OneClassDetector):
    r"""A method that can score by an image and its reconstruction.

    Parameters
    ----------
    scored_by : {"residual", "correlation"}
        Eq. (6), the sum of squared residuals; or the mean of the `dissimilarity`, for images
        alone. A fitted detector may be told to score by the other (``set_params``) without
        training again. Threshold and calibration are those of one score: the other has none until
        it is calibrated too, after which each keeps its own.
    """

    scored_by: str = param("residual", StrOptions(set(SCORES)))

    def __setattr__(self, name: str, value: Any) -> None:
        before = str(self.__dict__.get("scored_by"))
        if name == "scored_by" and "offset_" in self.__dict__:
            type(self)(scored_by=value)._validate_params()
            if value != before:
                self.other_scores_[before] = {key: self.__dict__[key] for key in BY_SCORE}
                self.__dict__.update(BY_SCORE | self.other_scores_.pop(value, {}))
        super().__setattr__(name, value)

    def _checked(self, X: Any, *, reset: bool = False) -> np.ndarray:
        array = super()._checked(X, reset=reset)
        if self._draws == "correlation" and (array.ndim == 2 or self.encoder is not None):
            raise ValueError(
                f"{type(self).__name__} cannot score feature vectors by 'correlation', which "
                "compares each pixel with those around it. Set scored_by='residual'."
            )
        return array

    @property
    def _draws(self) -> str:  # type: ignore[override]  # that of the score in force
        return "correlation" if self.scored_by == "correlation" else "residual"

    def _residual_scale(self, array: np.ndarray, *, source: str) -> ResidualScale | None:
        """Take the scale of the score in force; a fit takes those of the others too."""
        for other in {*SCORES} - {self.scored_by} if source == "training" else ():
            like = copy.copy(self)
            like.__dict__["scored_by"] = other
            scale = super(ScoredByReconstruction, like)._residual_scale(array, source=source)
            self.other_scores_[other] = {**BY_SCORE, "residual_scale_": scale}
        return super()._residual_scale(array, source=source)

    def _score(self, x: Tensor) -> Tensor:
        return SCORES[self.scored_by][0](self._reconstruct(x), x)

    def _difference(self, x: Tensor) -> Tensor:
        return SCORES[self._draws][1](self._reconstruct(x), x).float()


def told_to_score_by(detector: Any, score: str | None) -> Any:
    """Have a fitted detector score by another of its scores, if one is given; return it.

    Raises
    ------
    ValueError
        If the method has no such score.
    """
    if score is not None:
        if not isinstance(detector, ScoredByReconstruction):
            raise ValueError(
                f"{type(detector).__name__} has one score. Only methods that are scored by their "
                f"reconstruction have others; leave out --score {score}."
            )
        detector.scored_by = score
    return detector
