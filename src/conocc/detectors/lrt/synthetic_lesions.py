"""Lesions made from majority images alone: what an image that is not of the majority may look like.

Each kind is a change that is added within soft ellipses; images are taken to be normalised, and
are to be normalised again. Random numbers are torch's, drawn on the CPU.

Letters: n images, c channels, h and w pixels; ``x`` images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Change = Callable[[Tensor], Tensor]


def _between(low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape)


def _sign(n: int) -> Tensor:
    return torch.where(torch.rand(n, 1, 1, 1) < 0.5, -1.0, 1.0)


def smooth(x: Tensor, side: int) -> Tensor:
    """Average over a square of odd `side`; (n, c, h, w) -> the same."""
    return F.avg_pool2d(F.pad(x, (side // 2,) * 4, mode="replicate"), side, stride=1)


def lesion_masks(n: int, h: int, w: int) -> Tensor:
    """Draw one to three soft ellipses for each image; -> (n, 1, h, w) in [0, 1].

    Centres lie within the middle 80 % of a side, half axes are 6 to 35 % of it.
    """
    y, x = ((torch.arange(side) + 0.5) / side for side in (h, w))
    across, down = _between(0.1, 0.9, 2, n, 3, 1, 1)
    a, b = _between(0.06, 0.35, 2, n, 3, 1, 1)
    angle = _between(0, torch.pi, n, 3, 1, 1)
    x, y = x - across, y[:, None] - down
    along, aside = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    ellipses = torch.sigmoid(6 * (1 - torch.hypot(along / a, aside / b)))
    drawn = torch.arange(3) < torch.randint(1, 4, (n, 1))
    return (ellipses * drawn[..., None, None]).amax(1, keepdim=True)


def shaded(x: Tensor) -> Tensor:
    """Change to brighter or darker, by 0.2 to 1.5 deviations of an image."""
    return _sign(len(x)) * _between(0.2, 1.5, len(x), 1, 1, 1) * torch.ones_like(x)


def detailed(x: Tensor) -> Tensor:
    """Change to a blurred or sharpened image."""
    detail = x - smooth(x, max(3, (min(x.shape[2:]) // 16) | 1))
    return _sign(len(x)) * _between(0.3, 1, len(x), 1, 1, 1) * detail


def replaced(x: Tensor) -> Tensor:
    """Change to another image of the batch, moved by up to a third of a side."""
    down, across = (int(torch.randint(-(s // 3), s // 3 + 1, ())) for s in x.shape[2:])
    return torch.roll(x.roll(1, 0), (down, across), (2, 3)) - x


def grained(x: Tensor) -> Tensor:
    """Change by noise, 0.2 to 0.8 deviations strong, of one to five pixels' grain."""
    noise = torch.randn_like(x)
    grains = torch.stack([noise, 3 * smooth(noise, 3), 5 * smooth(noise, 5)])
    chosen = grains[torch.randint(3, (len(x),)), torch.arange(len(x))]
    return _between(0.2, 0.8, len(x), 1, 1, 1) * chosen


def hazed(x: Tensor) -> Tensor:
    """Change towards one of the image's own intensities, by 20 to 80 %: contrast is lost.

    As an opacity does, and an acoustic shadow; the intensity is one of the 10 to 90 % quantiles.
    """
    ranked = x.flatten(1).sort(1).values
    place = (_between(0.1, 0.9, len(x), 1) * (ranked.shape[1] - 1)).long()
    level = ranked.gather(1, place)[..., None, None]
    return _between(0.2, 0.8, len(x), 1, 1, 1) * (level - x)


LESIONS: tuple[Change, ...] = (shaded, detailed, replaced, grained, hazed)


def with_lesion(x: Tensor, lesion: Change) -> Tensor:
    """Change each image within soft ellipses of its own; (n, c, h, w) -> the same."""
    return x + lesion_masks(len(x), *x.shape[2:]) * lesion(x)
