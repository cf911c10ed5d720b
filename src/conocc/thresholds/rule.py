"""What is asked of decisions, as plain values: it needs neither SciPy nor scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

from conocc.metrics.checks import in_unit_interval

UNITS = ("image", "patient")


def known_unit(unit: str) -> str:
    """Return the unit, or refuse it."""
    if unit not in UNITS:
        raise ValueError(
            f"The 'unit' parameter must be one of {', '.join(map(repr, UNITS))}. "
            f"Got {unit!r} instead."
        )
    return unit


@dataclass(frozen=True)
class Rule:
    """What is asked of the decisions.

    Without a rate, it is the smallest of 5, 10 and 20 % of false alarms that the calibration can
    promise; where it can promise none, nothing is decided.

    Parameters
    ----------
    false_alarms : float in (0, 1), optional
        Rate of new majority images, or patients, that may be flagged.
    confidence : float in (0, 1), default=0.95
        With what certainty that rate is kept.
    unit : str, default="image"
        ``"image"`` or ``"patient"``, as in `conocc.thresholds.conformal`; p-values are of this
        unit.
    fdr : float in (0, 1), optional
        Rate of majority images, or patients, among those of a batch that are flagged.

    Raises
    ------
    ValueError
        If both rates are given, or a value is outside its range.

    Examples
    --------
    >>> Rule(false_alarms=0.05).unit
    'image'
    """

    false_alarms: float | None = None
    confidence: float = 0.95
    unit: str = "image"
    fdr: float | None = None

    def __post_init__(self) -> None:
        known_unit(self.unit)
        for name in ("false_alarms", "confidence", "fdr"):
            if (value := getattr(self, name)) is not None:
                in_unit_interval(name, value)
        if self.false_alarms is not None and self.fdr is not None:
            raise ValueError(
                "A threshold has one promise: give a rate of false alarms or of false "
                f"discoveries (fdr). Got {self.false_alarms} and {self.fdr}."
            )


# What holds where nobody asked for anything.
RULE = Rule()
