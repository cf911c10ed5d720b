"""Images themselves: montages, the images on which a method erred most, and residuals over them.

Residuals are overlays, all on one scale (`conocc.detectors.residual_scale`).
Letters: n images, k chosen ones, c channels, h and w pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure

from conocc.data.cohort import Cohort
from conocc.data.index import printable
from conocc.detectors.residual_scale import ResidualScale, averaged
from conocc.experiments.artifacts import Gallery
from conocc.io.pictures import GAP, rgb, sheet
from conocc.io.words import count, readable
from conocc.visualization.drawing import MINORITY, blank, styled


class Drawn(NamedTuple):
    """What is called how in the picture of a map of `ResidualScale.of`."""

    name: str
    orange: str
    blue: str
    unit: str  # of itself; empty for that of the image


DRAWN = {
    "residual": Drawn("image − reconstruction", "brighter", "darker", ""),
    "correlation": Drawn("1 − correlation", "", "", "0 where the patterns are alike"),
    "contribution": Drawn("part of the score", "adds", "takes", "score a pixel"),
}
# Of what `OneClassDetector.normalized` gives, by its parameter `normalize`.
UNITS = {
    "zscore": "standard deviations of its pixels",
    "minmax": "parts of its own range",
    "none": "the units of the files",
}
# Where the image is brighter than its reconstruction, and where darker: colours that
# colour-blind readers tell apart, both legible on dark tissue and on bright.
BRIGHTER, DARKER = MINORITY, "#56B4E9"
# Under full colour the image is still to be seen.
OPAQUE = 0.85
# Of each class in a montage.
COLUMNS, ROWS = 8, 3
# The colour bar has as many steps, on the grey of an image.
SHADES, GROUND = 513, "#666666"


@styled
def montage(cohort: Cohort) -> Figure:
    """Show some images of each class, drawn with a seed; each on its own grey scale."""
    generator = np.random.default_rng(0)
    figure = blank(COLUMNS, 2 * ROWS + 1.2)
    figure.suptitle(cohort.name)
    for axes, name in zip(figure.subplots(2), ("majority", "minority"), strict=True):
        chosen = cohort.rows(minority=name == "minority")
        labels = ", ".join(map(printable, sorted(set(cohort.label[chosen].tolist()))))
        axes.set_title(f"{name}: {labels} ({count(len(chosen), 'image')})")
        axes.set_axis_off()
        some = generator.permutation(chosen)[: ROWS * COLUMNS]
        if len(some):
            axes.imshow(sheet(np.stack([cohort.images[row] for row in some]), COLUMNS))
    return figure


def case_strip(kept: Gallery, case: int) -> np.ndarray:
    """Put input, reconstruction and residual of one image side by side; -> (h, 3 w + gaps, 3).

    The reconstruction is shown on the grey scale of its input, the residual as an `overlay` on
    one scale for the whole gallery.
    """
    given = kept.input[case]
    parts = _on_one_scale(given, kept.reconstruction[case] if len(kept.reconstruction) else None)
    if len(kept.residual):
        parts.append(overlay(given, kept.residual[case], kept.scale()))
    gap = np.full((given.shape[1], GAP, 3), 255, np.uint8)
    return np.concatenate([piece for part in parts for piece in (part, gap)][:-1], axis=1)


def _on_one_scale(given: np.ndarray, again: np.ndarray | None) -> list[np.ndarray]:
    """Give an image, and any reconstruction on the same grey scale; (h, w, 3) each."""
    low, high = float(given.min()), float(given.max())
    return [rgb(one, low, high) for one in (given, again) if one is not None]


def overlay(given: np.ndarray, residual: np.ndarray, scale: ResidualScale) -> np.ndarray:
    """Lay a residual over its image in grey; (c, h, w), (c, h, w) -> (h, w, 3) uint8.

    Orange is brighter than the reconstruction, blue darker; of colour images the mean over
    channels. Nothing is drawn where it is no larger than `scale.faint`.
    """
    ground = rgb(given.mean(0, keepdims=True)) / 255
    colour = colours(averaged(residual[None])[0], scale)
    blended = ground * (1 - colour[..., 3:]) + colour[..., :3] * colour[..., 3:]
    return np.rint(255 * blended).astype(np.uint8)


def colours(residual: np.ndarray, scale: ResidualScale) -> np.ndarray:
    """Colour and opacity of residuals, which rises from faint to full; (...) -> (..., 4)."""
    opacity = (np.abs(residual) - scale.faint) / (scale.full - scale.faint)
    hue = np.where(residual[..., None] < 0, to_rgb(DARKER), to_rgb(BRIGHTER))
    return np.concatenate([hue, OPAQUE * np.clip(opacity, 0, 1)[..., None]], axis=-1)


@styled
def explanation(
    given: np.ndarray,
    reconstruction: np.ndarray | None,
    residual: np.ndarray,
    scale: ResidualScale,
    *,
    title: str,
    unit: str,
) -> Figure:
    """Show an image, any reconstruction of it, and where it is unusual, with a colour bar.

    (c, h, w) each, the first two in the units of `OneClassDetector.normalized`, which `unit`
    names; the third is that of `OneClassDetector.differences`.
    """
    pictures = _on_one_scale(given, reconstruction)
    figure = blank(4.2 + 2.5 * len(pictures), 3.2)
    figure.suptitle(title)
    *before, last = figure.subplots(1, len(pictures) + 1)
    for axes, picture, name in zip(before, pictures, ("image", "reconstruction"), strict=False):
        axes.imshow(picture)
        axes.set_title(name)
        axes.set_axis_off()
    draw_overlay(last, given, residual, scale, unit=unit)
    return figure


def draw_overlay(
    axes: Axes, given: np.ndarray, residual: np.ndarray, scale: ResidualScale, *, unit: str
) -> None:
    """Show an `overlay`, with its colour bar."""
    axes.imshow(overlay(given, residual, scale))
    axes.set_title(DRAWN[scale.of].name)
    axes.set_axis_off()
    signed = scale.of != "correlation"
    low = -scale.full if signed else 0.0
    shades = ListedColormap(colours(np.linspace(low, scale.full, SHADES), scale))
    scaled = ScalarMappable(Normalize(low, scale.full), shades)
    bar = axes.figure.colorbar(scaled, ax=axes, extend="both" if signed else "max")
    bar.ax.set_facecolor(GROUND)
    full, faint, drawn = readable(scale.full), readable(scale.faint), DRAWN[scale.of]
    ticks = {scale.faint: faint, scale.full: f"{full} {drawn.orange}".rstrip()}
    if signed:
        ticks = {-scale.full: f"−{full} {drawn.blue}", -scale.faint: f"−{faint}", **ticks}
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.set_label(drawn.unit or unit, fontsize=7)
