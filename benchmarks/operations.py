"""The textbook network of Fig. 1 in numbers: its parameters, and the arithmetic of a step.

The textbook network upsamples and then convolves; however a contestant computes it, the same
operations are counted, so that a share of the machine's rate says how far a user gets.

Letters: c channels, h and w pixels, d bottleneck features.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

CHANNELS = (16, 32, 64)
BOTTLENECK = 256


def sides(side: int, channels: Sequence[int]) -> list[int]:
    """Sides of the maps, from the image down.

    >>> sides(100, (16, 32, 64))
    [100, 50, 25, 13]
    """
    result = [side]
    for _ in channels:
        result.append(ceil(result[-1] / 2))
    return result


def parameters(side: int, channels: Sequence[int] = CHANNELS, d: int = BOTTLENECK) -> int:
    """Weights and biases of the network for square grey images."""
    widths = (1, *channels)
    flat = channels[-1] * sides(side, channels)[-1] ** 2
    down = sum(9 * a * b + b for a, b in pairwise(widths))
    up = sum(9 * a * b + a for a, b in pairwise(widths))
    return down + flat * d + d + d * flat + flat + up


def multiplications(
    side: int, channels: Sequence[int] = CHANNELS, d: int = BOTTLENECK
) -> tuple[int, int]:
    """Multiply-adds of one image forward: of the first layer, and of all layers.

    Convolutions are counted at every place of their output, borders included, and upsampled maps
    at the size to which they are upsampled before they are cropped.
    """
    widths, maps = (1, *channels), sides(side, channels)
    down = [9 * a * b * s**2 for (a, b), s in zip(pairwise(widths), maps[1:], strict=True)]
    up = [9 * a * b * (2 * s) ** 2 for (a, b), s in zip(pairwise(widths), maps[1:], strict=True)]
    dense = 2 * d * channels[-1] * maps[-1] ** 2
    return down[0], sum(down) + dense + sum(up)


def training_operations(side: int, channels: Sequence[int] = CHANNELS, d: int = BOTTLENECK) -> int:
    """Floating-point operations of one image in a training step.

    Two a multiply-add; backward costs forward twice, once for the weights and once for the
    inputs, but for the first layer, whose input needs no gradient.
    """
    first, forward = multiplications(side, channels, d)
    return 2 * (3 * forward - first)
