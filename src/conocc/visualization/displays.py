"""Figures as scikit-learn's Displays: from an estimator or from predictions, into any axes.

After `plot`, ``ax_`` and ``figure_`` are what was drawn into. Without axes a figure of pyplot is
made, which a notebook shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from conocc.detectors.residual_scale import ResidualScale, scale_of
from conocc.experiments.artifacts import explained
from conocc.experiments.model_selection import minority_of
from conocc.metrics.auc_variance import patient_codes
from conocc.metrics.bootstrap import RATES, roc_band
from conocc.metrics.confidence_intervals import N_RESAMPLES, metric_interval
from conocc.metrics.ranking import checked
from conocc.visualization.charts import Scored, draw_curves, draw_scores
from conocc.visualization.drawing import styled
from conocc.visualization.images import UNITS, draw_overlay


class _Display:
    """What all have: `plot` and what it leaves."""

    ax_: Axes
    figure_: Any
    _draw: Callable[[Axes], None]

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw into these axes, or into those of a new figure."""
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots(layout="constrained")[1]
        self.ax_, self.figure_ = ax, ax.figure
        styled(self._draw)(ax)
        return self


class _OfScores(_Display):
    def __init__(self, scored: Scored, *, patient: ArrayLike | None = None) -> None:
        self.scored, self.patient = scored, patient

    @classmethod
    def from_predictions(
        cls,
        minority: ArrayLike,
        anomaly_score: ArrayLike,
        *,
        patient: ArrayLike | None = None,
        threshold: float | None = None,
        calibration: ArrayLike | None = None,
        name: str = "",
        ax: Axes | None = None,
    ) -> Self:
        """Draw the scores of images whose classes are known.

        Parameters
        ----------
        minority : array of bool, shape (n,)
        anomaly_score : array, shape (n,)
            Higher is less like the majority.
        patient : array, shape (n,), optional
            Whose image each is, for intervals.
        threshold : float, optional
            Above which an image is flagged.
        calibration : array, optional
            Scores of calibration images.

        Raises
        ------
        ValueError
            If there is one class alone, or an array is of another length.
        """
        known = None if calibration is None else np.asarray(calibration)
        scored = Scored(name, *checked(minority, anomaly_score), threshold, known)
        return cls(scored, patient=patient).plot(ax)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: ArrayLike, **more: Any) -> Self:
        """Draw the scores that a fitted outlier detector, any of scikit-learn's, gives `X`.

        `y` is -1 for the minority, as for `conocc.one_class_scorer`; `more` is what
        `from_predictions` takes. Threshold, calibration scores and name are the detector's own.
        """
        offset = getattr(estimator, "offset_", None)
        kept = getattr(estimator, "calibration_", None)
        own = {
            "threshold": None if offset is None else -float(np.squeeze(offset)),
            "calibration": None if kept is None else kept.scores,
            "name": type(estimator).__name__,
        }
        return cls.from_predictions(minority_of(y), -estimator.score_samples(X), **{**own, **more})


class ScoreDisplay(_OfScores):
    """The scores of both classes as histograms, with threshold and calibration scores.

    >>> display = ScoreDisplay.from_predictions([False, False, True], [0.1, 0.2, 0.9])
    >>> display.ax_.get_xlabel()
    'anomaly score'
    """

    def _draw(self, ax: Axes) -> None:
        draw_scores(ax, self.scored)


class RocDisplay(_OfScores):
    """A ROC curve with its AUC, its 95 % interval, and the point at which the threshold works.

    The band is that of the sensitivity at each rate of false alarms on its own, over resamples of
    patients; the AUC's interval is `conocc.metrics.confidence_intervals.auc_interval`.
    """

    def _draw(self, ax: Axes) -> None:
        name, minority, score, threshold, _ = self.scored
        code = patient_codes(self.patient, len(score))
        area = metric_interval("AUC", minority, score, patient=self.patient)
        label = f"{name} AUC {area.value:.3f} ({area.low:.3f}–{area.high:.3f})".lstrip()
        draw_curves(ax, [self.scored], "roc")
        ax.lines[-2].set_label(label)
        low, high = roc_band(minority, score, code, n_resamples=N_RESAMPLES)
        look: dict[str, Any] = {"color": "black", "alpha": 0.15, "linewidth": 0}
        ax.fill_between(RATES, low, high, label="95 % interval", **look)
        if threshold is not None and np.isfinite(threshold):
            alarms, found = ((score[its] > threshold).mean() for its in (~minority, minority))
            at = f"threshold: {100 * alarms:.1f} % false alarms, {100 * found:.1f} % found"
            ax.plot(alarms, found, "o", color="black", label=at)
        ax.legend(loc="lower right")


class ExplanationDisplay(_Display):
    """One image, and over it what in it is unusual, with a colour bar."""

    def __init__(
        self, image: np.ndarray, differences: np.ndarray, scale: ResidualScale, unit: str
    ) -> None:
        self.image, self.differences, self.scale, self.unit = image, differences, scale, unit

    @classmethod
    def from_predictions(
        cls,
        image: ArrayLike,
        differences: ArrayLike,
        *,
        scale: ResidualScale | None = None,
        unit: str = "",
        ax: Axes | None = None,
    ) -> Self:
        """Draw differences over their image, (h, w) or (c, h, w) both.

        By default the scale is their own; one of majority images (`scale_of`) has an image like
        those look calm.
        """
        given, left = (np.asarray(a) for a in (image, differences))
        given, left = (a[None] if a.ndim == 2 else a for a in (given, left))
        return cls(given, left, scale or scale_of([left[None]], source="image"), unit).plot(ax)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, *, ax: Axes | None = None) -> Self:
        """Draw what a fitted detector finds in one image, (h, w) or (c, h, w), on its own scale.

        Raises
        ------
        ValueError
            If the method draws no heat map.
        """
        scale = estimator.residual_scale_
        if scale is None:
            raise ValueError(
                f"This {type(estimator).__name__} has no heat map to draw: see 'conocc methods'."
            )
        given, _, left = explained(estimator, np.asarray(X)[None])
        return cls(given[0], left[0], scale, UNITS[estimator.normalize]).plot(ax)

    def _draw(self, ax: Axes) -> None:
        draw_overlay(ax, self.image, self.differences, self.scale, unit=self.unit)
