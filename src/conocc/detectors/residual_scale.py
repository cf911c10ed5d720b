"""One scale for the residuals of all images, taken from majority images.

A map scaled to its own maximum makes every image look ill. Here the scale comes from what a
method leaves of *majority* images, and is the same for every image that is looked at.

A residual is an image less its reconstruction, averaged over channels, in the units of
`OneClassDetector.normalized`; its size is its absolute value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Nine in ten pixels of majority images show nothing, one in a thousand full colour.
FAINT, FULL = 0.9, 0.999
# Sizes are counted in bins 1 % wide, so that no residual is kept.
EDGES = np.geomspace(1e-8, 1e32, 9257)

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ResidualScale:
    """From which size on a residual is shown, and from which in full colour.

    Attributes
    ----------
    faint, full : float
        The `FAINT` and the `FULL` quantile of the sizes of all pixels, to 1 %;
        0 < faint < full.
    images : int
        How many images they are of.
    source : str
        ``"calibration"``; or ``"training"``, whose residuals are smaller than those of new
        images of the majority, which then look less calm than they are.
    of : str
        ``"residual"``; ``"correlation"``: one less the local correlation, which has no sign; or
        ``"contribution"``: what each place adds to the score, or takes from it.

    Examples
    --------
    >>> scale = ResidualScale(0.1, 0.8, images=64, source="calibration")
    >>> scale == ResidualScale(**scale.as_json())
    True
    """

    faint: float
    full: float
    images: int
    source: str
    of: str = "residual"

    def totals(self, differences: Floats) -> Floats:
        """Add up what is drawn of images, as the score does that it is of; (n, ...) -> (n,)."""
        rows = differences.reshape(len(differences), -1).astype(np.float64)
        if self.of == "residual":
            return (rows**2).sum(1)
        return rows.sum(1) if self.of == "contribution" else rows.mean(1)

    def as_json(self) -> dict[str, Any]:
        """Plain values that JSON keeps."""
        return asdict(self)


def averaged(residual: Floats) -> Floats:
    """Average over channels, with their signs; (n, c, h, w) -> (n, h, w)."""
    return residual.mean(1)


def scale_of(blocks: Iterable[Floats], *, source: str, of: str = "residual") -> ResidualScale:
    """Take the scale of residuals that come in blocks, in the memory of one; (·, c, h, w) each.

    Where nothing is left of any image, the scale is the smallest there is.

    Examples
    --------
    >>> sizes = np.arange(1, 1001).reshape(10, 1, 10, 10)  # 0.9 of them up to 900
    >>> scale = scale_of([sizes, -sizes], source="calibration")
    >>> 900 <= scale.faint < 909 and 999 <= scale.full < 1009, scale.images
    (True, 20)
    """
    counts, images = np.zeros(len(EDGES), dtype=np.int64), 0
    for block in blocks:
        sizes = np.abs(averaged(block)).ravel()
        # The i-th bin holds what is larger than the edge before it and at most the i-th edge.
        bins = np.searchsorted(EDGES, sizes).clip(max=len(EDGES) - 1)
        counts += np.bincount(bins, minlength=len(EDGES))
        images += len(block)
    share = np.cumsum(counts) / counts.sum()
    faint, full = (int(np.searchsorted(share, quantile)) for quantile in (FAINT, FULL))
    faint = min(faint, len(EDGES) - 2)
    full = max(full, faint + 1)
    return ResidualScale(float(EDGES[faint]), float(EDGES[full]), images, source, of)
