"""Checks of parameters that need no arrays, and so neither SciPy nor scikit-learn."""

from __future__ import annotations


def in_unit_interval(name: str, value: float) -> float:
    """Return a value in (0, 1), or refuse it by its parameter's name."""
    if not 0 < value < 1:
        raise ValueError(
            f"The {name!r} parameter must be in the range (0, 1). Got {value!r} instead."
        )
    return value
