"""Folders of small images, made for the tests of everything that lists or loads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(name: str, side: int = 16, *, colour: bool = False) -> np.ndarray:
    """Pixels that are the same for the same name, and differ between names."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    shape = (side, side, 3) if colour else (side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_image(path: Path, *, side: int = 16, colour: bool = False, like: str = "") -> Path:
    """Write an image of its own at `path`, or the one that the name `like` has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(like or path.as_posix(), side, colour=colour)).save(path)
    return path


def make_folder(folder: Path, *paths: str) -> Path:
    """Write an image at each of these paths below `folder`."""
    for path in paths:
        write_image(folder / path)
    return folder
