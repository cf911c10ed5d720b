"""CAE: the convolutional autoencoder, ConOCC's network without the constraint.

Section 3.1 of the paper: same structure, the reconstruction error as the score.
"""

from __future__ import annotations

from dataclasses import dataclass

from conocc.detectors.one_class_detector import POSITIVE, param
from conocc.detectors.reconstruction_scores import ScoredByReconstruction
from conocc.detectors.trained import AutoencoderDetector


@dataclass(kw_only=True, eq=False, repr=False)
class CAE(ScoredByReconstruction, AutoencoderDetector):
    """Convolutional autoencoder, scored by its reconstruction error.

    Parameters
    ----------
    lr : float
        λ, Adam's learning rate; of {1e-3, 1e-4} the paper found 1e-4 the better for it.
    others
        Those of `AutoencoderDetector` and `ScoredByReconstruction`.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> CAE(epochs=2, random_state=0).fit(images).reconstruct(images).shape
    (8, 1, 16, 16)
    """

    lr: float = param(1e-4, POSITIVE)
