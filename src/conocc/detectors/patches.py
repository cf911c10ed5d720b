r"""Patches: how unusual each place of an image is among the same places of the majority's.

After Defard, Setkov, Loesch, Audigier, *PaDiM: a Patch Distribution Modeling Framework for Anomaly
Detection and Localization* (ICPR Workshops 2021, `arXiv:2011.08785`), who fit a Gaussian at each
place of a pretrained network's map, and Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler, *Towards
Total Recall in Industrial Anomaly Detection* (PatchCore, CVPR 2022, `arXiv:2106.08265`), who look
for the nearest patches of training images. Both take the highest place for the score of an image;
the mean of the highest tenth hangs less on one. The covariances are shrunk after Ledoit and Wolf,
where PaDiM adds 0.01 to their diagonals; neighbours are of the same place, where PatchCore looks at
all places and keeps a coreset.

Letters: n images, c channels, h and w pixels, p places of a map, m training images kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from conocc.detectors.gabor_mahalanobis import finite, gabor_pairs, laid_out, profile, whitening_of
from conocc.detectors.one_class_detector import OneClassDetector, param
from conocc.training import Batches, Train, apply, concatenated

HIGHEST = 0.1  # of the places, whose mean is the score
MOST_KEPT = 256  # training images whose places are compared with


def highest_mean(distance: Tensor) -> Tensor:
    """Average the highest tenth of the places, at least one; (n, p) -> (n,).

    >>> highest_mean(torch.arange(20.0)[None]).tolist()
    [18.5]
    """
    return distance.topk(max(1, round(HIGHEST * distance.shape[1]))).values.mean(1)


@dataclass(kw_only=True, eq=False, repr=False)
class Patches(OneClassDetector):
    """Distance of each place of a map, averaged over the highest tenth.

    The map is that of an `encoder`, of at most 16 places a side and 100 channels, standardised over
    the training images; without one, it is the profile of `GaborMahalanobis`, of 4×4 places, and
    of a vector the one place that this is.

    There are no epochs, batches or random numbers but the draw of training images to keep. With
    ``distance="nearest"`` a saved model holds what was computed of these, place by place.

    Parameters
    ----------
    distance : {"gaussian", "nearest"}
        The squared Mahalanobis distance of a place from those of the majority, or its distance to
        the nearest of theirs.
    others
        Those of `OneClassDetector`.

    Attributes
    ----------
    mean_, whitening_ : ndarray of shape (p, 1, c) and (p, c, c)
        Of "gaussian": the Gaussians.
    kept_ : ndarray of shape (p, m, c)
        Of "nearest": the places of at most 256 training images.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> Patches().fit(images).anomaly_score(images).shape
    (8,)
    """

    _takes_maps = True
    _draws = "contribution"

    distance: str = param("gaussian", StrOptions({"gaussian", "nearest"}))

    def _fit(self, X: Batches, train: Train) -> None:
        z = concatenated(apply(lambda x: self._map(x).flatten(2), X), len(X))
        places = finite(z.double().numpy()).transpose(2, 0, 1)  # (p, n, c)
        if self.distance == "nearest":
            n = places.shape[1]
            rows = np.random.default_rng(self.seed_).permutation(n)[:MOST_KEPT]
            self.kept_ = places[:, np.sort(rows)]
            return
        self.mean_ = places.mean(1, keepdims=True)
        self.whitening_ = np.stack([whitening_of(ledoit_wolf(place)[0]) for place in places])

    def _score(self, x: Tensor) -> Tensor:
        return highest_mean(self._distances(self._map(x)))

    def _map(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return x[:, :, None, None]
        return x if self._sees_features else profile(x, gabor_pairs().to(x))

    def _distances(self, z: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, p) float64."""
        places = z.flatten(2).permute(2, 0, 1).double()
        if self.distance == "nearest":
            # As a² + b² - 2ab, which every exported format has.
            kept = torch.from_numpy(self.kept_).to(places)
            squares = places.square().sum(2)[:, :, None] + kept.square().sum(2)[:, None]
            return (squares - 2 * places @ kept.mT).clamp(min=0).amin(2).sqrt().T
        mean, whitening = (
            torch.from_numpy(one).to(places) for one in (self.mean_, self.whitening_)
        )
        return ((places - mean) @ whitening).square().sum(2).T

    def _difference(self, x: Tensor) -> Tensor:
        z = self._map(x)
        return laid_out(self._distances(z), [z[:, :1]], *self.input_shape_[1:])
