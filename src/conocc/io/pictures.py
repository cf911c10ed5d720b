"""Small pictures of images, as pages and notebooks hold them.

Letters: n images, c channels, h and w pixels.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

GAP = 2


def rgb(image: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Give an image as 8-bit RGB, on its own scale or a given one; (c, h, w) -> (h, w, 3)."""
    low = float(image.min()) if low is None else low
    high = float(image.max()) if high is None else high
    scaled = np.clip((image - low) / ((high - low) or 1.0), 0, 1).transpose(1, 2, 0)
    return np.broadcast_to(np.rint(255 * scaled), (*scaled.shape[:2], 3)).astype(np.uint8)


def sheet(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """Put images into rows and columns, each on its own grey scale; (n, c, h, w) -> uint8 RGB."""
    n, _, h, w = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    paper = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + GAP), (i % columns) * (w + GAP)
        paper[top : top + h, left : left + w] = rgb(image)
    return paper


def png(pixels: np.ndarray) -> bytes:
    """Give a picture as a PNG of at most 256 colours, which makes it small."""
    file = io.BytesIO()
    image = Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def data_url(image: bytes, kind: str) -> str:
    """Give an image as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
