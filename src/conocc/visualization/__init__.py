"""What people look at: figures, reports, explanations; Displays for notebooks."""

from conocc.visualization.displays import ExplanationDisplay, RocDisplay, ScoreDisplay

__all__ = ["ExplanationDisplay", "RocDisplay", "ScoreDisplay"]
