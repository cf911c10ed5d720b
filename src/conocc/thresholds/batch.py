r"""Is a batch like the calibration? Told from scores alone, without labels.

A promise holds for new majority images like those of the calibration. Minority images score high,
so that the lower half of the scores tells whether the rest is: of m_0 such images among a batch,
the number that score at most as high as the r-th smallest of n calibration scores follows the
Beta-binomial law (m_0; r, n + 1 - r), and below that score their law is that of the calibration.

References
----------
J. D. Storey, *A direct approach to false discovery rates*, Journal of the Royal Statistical
Society B 64 (2002) 479-498, for the share of null p-values from those above one half.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import betabinom, ks_2samp

from conocc.io.words import percent, readable
from conocc.metrics.ranking import Floats
from conocc.thresholds.conformal import ROUNDING, p_values

# How often the two checks together take a batch for unlike that is alike.
FALSE_WARNINGS = 0.05
SMALL_P = 0.01


@dataclass(frozen=True)
class BatchCheck:
    """How like a batch is to the calibration.

    Attributes
    ----------
    images : int
    small, expected : int, float
        How many have a p-value of at most `SMALL_P`, or of the least that the calibration can
        give, and how many of as many majority images would.
    at : float
        That p-value.
    majority, most : float
        Share of the batch that looks like the calibration images (Storey's estimate), and the
        most that it can be.
    lower_half : float
        p-value of Kolmogorov and Smirnov's two-sample test of the scores in the lower half.
    """

    images: int
    small: int
    expected: float
    at: float
    majority: float
    most: float
    lower_half: float

    @property
    def differs(self) -> bool:
        """Whether the batch has minority images, or is unlike the calibration."""
        return self.most < 1 or self.lower_half < FALSE_WARNINGS / 2

    def words(self, majority_by: str = "") -> list[str]:
        """Say it, a sentence each; one alone of a batch that is alike.

        `majority_by` is for a batch whose classes are known, of which these are the majority: of
        each "patient" or "file" one image, or each "image".
        """
        one = f", one a {majority_by}," if majority_by not in ("", "image") else ""
        whose = f"majority images{one}" if majority_by else "images"
        said = [
            # Rounded up: an image counted here has no higher p-value in its table.
            f"{self.small:,} of {self.images:,} {whose} have p ≤ "
            f"{math.ceil(1000 * self.at - ROUNDING) / 1000:g}; "
            f"{readable(float(f'{self.expected:.3g}'))} would be expected"
            f"{' of majority images' * (not majority_by)}."
        ]
        if self.most < 1:
            whose = "these" if majority_by else "this batch"
            unless = "" if majority_by else "unless you expect that many minority images, "
            said.append(
                f"About {percent(round(self.majority, 3))}, at most "
                f"{percent(round(self.most, 3))} of {whose} look like the calibration images: "
                f"{unless}the batch differs (another scanner, another organ?), and what is "
                "promised does not hold for it."
            )
        elif self.differs:
            said.append(
                "The lower half of the scores is unlike that of the calibration images "
                f"(Kolmogorov-Smirnov, p = {self.lower_half:.2g}): the batch differs (another "
                "scanner, another preparation?), and what is promised does not hold for it."
            )
        return said

    def as_json(self, **how: Any) -> dict[str, Any]:
        """Plain values: the attributes, whether it differs, and the `words`."""
        return {**asdict(self), "differs": self.differs, "words": self.words(**how)}


def check_batch(calibration_scores: Floats, scores: Floats) -> BatchCheck:
    """Compare the scores of a batch, at least one, with those of the calibration.

    Parameters
    ----------
    calibration_scores : array of float, shape (n,)
        One a patient, as `Calibration.of` gives them.
    scores : array of float, shape (m,)
        One a patient, where patients are known: images of one are not independent.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> alike, shifted = rng.normal(size=100), rng.normal(2, size=100)
    >>> check_batch(alike[:60], alike[60:]).differs, check_batch(alike[:60], shifted).differs
    (False, True)
    """
    m, n = len(scores), len(calibration_scores)
    p = p_values(calibration_scores, scores)
    at = max(SMALL_P, 1 / (n + 1))
    calibration = np.sort(calibration_scores)
    r = (n + 1) // 2
    middle = calibration[r - 1]
    low = scores[scores <= middle]
    share = r / (n + 1)
    # The most images for which so few in the lower half, or fewer, are not too rare.
    candidates = np.arange(len(low), m + 1)
    likely = betabinom.cdf(len(low), candidates, r, n + 1 - r) >= FALSE_WARNINGS / 2
    lower_half = 1.0
    if len(low) and r > 1:
        lower_half = float(ks_2samp(low, calibration[: r - 1]).pvalue)
    return BatchCheck(
        images=m,
        small=int((p <= at * (1 + ROUNDING)).sum()),
        expected=m * float(np.floor(at * (n + 1) + 1e-9)) / (n + 1),
        at=at,
        majority=min(1.0, len(low) / m / share),
        most=float(candidates[likely].max()) / m,
        lower_half=lower_half,
    )
