"""Residuals as overlays, all on one scale (`conocc.residuals`).

Letters: c channels, h and w pixels.
"""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure

from conocc.figures.drawing import MINORITY, blank, styled
from conocc.residuals import ResidualScale, averaged

# Where the image is brighter than its reconstruction, and where darker: colours that
# colour-blind readers tell apart, both legible on dark tissue and on bright.
BRIGHTER, DARKER = MINORITY, "#56B4E9"
# Under full colour the image is still to be seen.
OPAQUE = 0.85
SHADES = 513
GROUND = 0.4


def overlay_colours(scale: ResidualScale) -> ListedColormap:
    """Colours from −full to +full: none up to the faint size, from there the more, the larger."""
    sizes = np.linspace(-scale.full, scale.full, SHADES)
    shown = (np.abs(sizes) - scale.faint) / (scale.full - scale.faint)
    rgba = np.empty((SHADES, 4))
    rgba[:, :3] = np.where(sizes[:, None] < 0, to_rgb(DARKER), to_rgb(BRIGHTER))
    rgba[:, 3] = OPAQUE * np.clip(shown, 0, 1)
    return ListedColormap(rgba)


def overlay(given: np.ndarray, residual: np.ndarray, scale: ResidualScale) -> np.ndarray:
    """Lay a residual over its image in grey; (c, h, w), (c, h, w) -> (h, w, 3) uint8.

    Orange is brighter than the reconstruction, blue darker; of colour images the mean over
    channels. Nothing is drawn where it is no larger than `scale.faint`.
    """
    ground = grey(given)[..., None]
    mean = averaged(residual[None])[0]
    colour = _norm(scale)(mean)
    rgba = overlay_colours(scale)(colour)
    blended = ground * (1 - rgba[..., 3:]) + rgba[..., :3] * rgba[..., 3:]
    shown: np.ndarray = np.rint(255 * blended).astype(np.uint8)
    return shown


def grey(image: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Give an image's mean over channels on its own grey scale, or that of another; -> (h, w).

    From 0 to 1; (c, h, w).
    """
    of = image if like is None else like
    low, high = float(of.mean(0).min()), float(of.mean(0).max())
    scaled: np.ndarray = np.clip((image.mean(0) - low) / ((high - low) or 1.0), 0, 1)
    return scaled


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
    first.imshow(grey(given), cmap="gray", vmin=0, vmax=1)
    second.imshow(grey(reconstruction, like=given), cmap="gray", vmin=0, vmax=1)
    third.imshow(overlay(given, given - reconstruction, scale))
    names = ("image", "reconstruction", "image − reconstruction")
    for axis, name in zip((first, second, third), names, strict=True):
        axis.set_title(name)
        axis.set_axis_off()
    bar = figure.colorbar(
        ScalarMappable(_norm(scale), overlay_colours(scale)), ax=third, extend="both"
    )
    bar.ax.set_facecolor(str(GROUND))
    bar.set_ticks([-scale.full, -scale.faint, scale.faint, scale.full], labels=_ticks(scale))
    bar.set_label(unit, fontsize=7)
    return figure


def _norm(scale: ResidualScale) -> Normalize:
    return Normalize(-scale.full, scale.full)


def _ticks(scale: ResidualScale) -> list[str]:
    return [
        f"−{scale.full:.3g} darker",
        f"−{scale.faint:.2g}",
        f"{scale.faint:.2g}",
        f"{scale.full:.3g} brighter",
    ]
