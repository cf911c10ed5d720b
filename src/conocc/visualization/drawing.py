"""How figures look, and how they are written."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import ExifTags, Image

from conocc.io.files import PICTURE_MARK, atomic_write, refuse_unmarked

# Okabe and Ito's colours, which colour-blind readers tell apart, less the yellow, which print
# loses. Lines differ in their dashes too.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
MAJORITY, MINORITY, FAINT = "#0072B2", "#D55E00", "#767676"

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.fontsize": 8,
    "legend.framealpha": 0.9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # A '$' in the name of a class or a method is a '$'.
    "text.parse_math": False,
    # The same figure is the same file.
    "svg.hashsalt": "conocc",
}
# How each kind of file is written: without a date, and with the mark by which a picture is told
# from an image (`conocc.data.companions`), and from a file that is not ours to replace.
MARK = PICTURE_MARK.decode()
RASTER = ("jpg", "jpeg", "tif", "tiff", "webp", "avif")
EXIF = Image.Exif()
EXIF[ExifTags.Base.Software] = MARK
KINDS: dict[str, dict[str, Any]] = {
    "png": {"metadata": {"Software": MARK}},
    "svg": {"metadata": {"Date": None, "Creator": MARK}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": MARK}},
    **{kind: {"metadata": {"Creator": MARK}} for kind in ("eps", "ps")},
    **{kind: {"pil_kwargs": {"exif": EXIF}} for kind in RASTER},
    "gif": {"pil_kwargs": {"comment": PICTURE_MARK}},
}


# How a chart in a page looks where the page is dark; its grey grid and its colours stay.
DARK = b"""<style>@media (prefers-color-scheme: dark) {
svg { fill: #e6e9ec } [style*="fill: #ffffff"] { fill: #14171a !important }
[style*="stroke: #000000"] { stroke: #e6e9ec !important }
[style*="stroke: #dddddd"] { stroke: #3a424a !important } }</style><metadata>"""

# A decorator: draws under `STYLE`, and leaves the caller's settings as they were.
styled = matplotlib.rc_context(STYLE)  # type: ignore[arg-type]  # its keys are literals


def blank(width: float = 4.2, height: float = 3.6) -> Figure:
    """Make an empty figure; by default one that keeps its letters legible in half a page."""
    return Figure(figsize=(width, height), layout="constrained")


def line_style(i: int) -> dict[str, Any]:
    """Give the i-th line its colour and dashes; the first 28 all differ."""
    turn, place = divmod(i, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": DASHES[(place + turn) % len(DASHES)]}


def check_kind(kind: str, path: Path | None = None) -> None:
    """Refuse a kind of file that is not written."""
    if kind.lower() not in KINDS:
        raise ValueError(
            f"Cannot draw '{path or kind}': its ending must be one of {', '.join(KINDS)}."
        )


def refuse_picture(path: Path, option: str = "--out") -> None:
    """Refuse, before a figure is made for it, what `save_figure` does not write or replace.

    `option` is the one that names the file.

    Raises
    ------
    ValueError
        If the suffix names no kind of file that is written.
    FileExistsError
        If there is anything at `path` but a picture that conocc drew.
    """
    check_kind(_kind(path), path)
    refuse_unmarked(path, PICTURE_MARK, option)


@styled
def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the path's suffix names, whole or not at all."""
    check_kind(kind := _kind(path), path)
    with atomic_write(path) as temporary, warnings.catch_warnings():
        # A letter of a name that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(temporary, format=kind, dpi=150, **KINDS[kind])


def _kind(path: Path) -> str:
    return path.suffix.lstrip(".").lower() or "png"


@styled
def svg(figure: Figure) -> bytes:
    """Give a figure as an SVG document, light or dark as the page around it."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", dpi=150, **KINDS["svg"])
    return file.getvalue().replace(b"<metadata>", DARK, 1)
