"""Residuals as overlays, all on one scale (`conocc.detectors.residual_scale`).

Letters: c channels, h and w pixels.
"""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure

from conocc.detectors.residual_scale import ResidualScale, averaged
from conocc.visualization.figures.drawing import MINORITY, blank, rgb, styled

# Where the image is brighter than its reconstruction, and where darker: colours that
# colour-blind readers tell apart, both legible on dark tissue and on bright.
BRIGHTER, DARKER = MINORITY, "#56B4E9"
# Under full colour the image is still to be seen.
OPAQUE = 0.85
# The colour bar has as many steps, on the grey of an image.
SHADES, GROUND = 513, "#666666"


def overlay(given: np.ndarray, residual: np.ndarray, scale: ResidualScale) -> np.ndarray:
    """Lay a residual over its image in grey; (c, h, w), (c, h, w) -> (h, w, 3) uint8.

    Orange is brighter than the reconstruction, blue darker; of colour images the mean over
    channels. Nothing is drawn where it is no larger than `scale.faint`.
    """
    ground = rgb(given.mean(0, keepdims=True)) / 255
    colour = _colours(averaged(residual[None])[0], scale)
    blended = ground * (1 - colour[..., 3:]) + colour[..., :3] * colour[..., 3:]
    overlaid: np.ndarray = np.rint(255 * blended).astype(np.uint8)
    return overlaid


def _colours(residual: np.ndarray, scale: ResidualScale) -> np.ndarray:
    """Colour and opacity of residuals, which rises from faint to full; (...) -> (..., 4)."""
    opacity = (np.abs(residual) - scale.faint) / (scale.full - scale.faint)
    hue = np.where(residual[..., None] < 0, to_rgb(DARKER), to_rgb(BRIGHTER))
    return np.concatenate([hue, OPAQUE * np.clip(opacity, 0, 1)[..., None]], axis=-1)


@styled
def explanation(
    given: np.ndarray,
    reconstruction: np.ndarray,
    scale: ResidualScale,
    *,
    title: str,
    unit: str,
) -> Figure:
    """Show an image, what a method makes of it, and where the two differ, with a colour bar.

    (c, h, w), (c, h, w), in the units of `OneClassDetector.normalized`, which `unit` names.
    """
    figure = blank(9.2, 3.2)
    figure.suptitle(title)
    first, second, third = figure.subplots(1, 3)
    first.imshow(rgb(given))
    second.imshow(rgb(reconstruction, float(given.min()), float(given.max())))
    third.imshow(overlay(given, given - reconstruction, scale))
    names = ("image", "reconstruction", "image − reconstruction")
    for axis, name in zip((first, second, third), names, strict=True):
        axis.set_title(name)
        axis.set_axis_off()
    shades = ListedColormap(_colours(np.linspace(-scale.full, scale.full, SHADES), scale))
    scaled = ScalarMappable(Normalize(-scale.full, scale.full), shades)
    bar = figure.colorbar(scaled, ax=third, extend="both")
    bar.ax.set_facecolor(GROUND)
    full, faint = f"{scale.full:.3g}", f"{scale.faint:.2g}"
    bar.set_ticks(
        [-scale.full, -scale.faint, scale.faint, scale.full],
        labels=[f"−{full} darker", f"−{faint}", faint, f"{full} brighter"],
    )
    bar.set_label(unit, fontsize=7)
    return figure
