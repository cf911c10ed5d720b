"""The encoder and the decoder of Fig. 1, and their dense twins for feature vectors.

The paper's text gives 3×3 kernels and 256 bottleneck features; its Fig. 1, which draws the widths,
is not in the text. Chosen here: three convolutions of stride 2 with 16, 32 and 64 channels, a dense
layer to the bottleneck; back by a dense layer and three times nearest-neighbour upsampling with a
convolution. Rectified throughout, linear at the bottleneck and at the output, no normalisation
layers: z-scored images have no range that an output activation could match, and a batch must not
change what is learned of an image.

Letters: n images, c channels, h and w pixels, d bottleneck features or the length of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = (16, 32, 64)


def halved(side: int, times: int) -> list[int]:
    """Sides of the maps of `times` convolutions of stride 2, padding 1: each rounds up.

    >>> halved(50, 3)
    [50, 25, 13, 7]
    """
    sides = [side]
    for _ in range(times):
        sides.append((sides[-1] + 1) // 2)
    return sides


def upsampling_kernel(weight: Tensor) -> Tensor:
    """Turn a 3×3 kernel into the 4×4 one that upsamples by two on its own.

    Nearest-neighbour upsampling by two followed by a 3×3 convolution is exactly one transposed
    convolution of stride 2 whose kernel is the 3×3 kernel, mirrored, convolved with a 2×2 box:
    16 multiplications for 36, and no map of four times the size in between.
    (c_out, c_in, 3, 3) -> (c_in, c_out, 4, 4), as `conv_transpose2d` wants it.
    """
    w = F.pad(weight.flip(-1, -2).transpose(0, 1), (1, 1, 1, 1))
    w = w[..., 1:, :] + w[..., :-1, :]
    return w[..., 1:] + w[..., :-1]


class UpsampledConv(nn.Conv2d):
    """Nearest-neighbour upsampling by two, a 3×3 convolution, and a crop to `size`.

    Parameters are those of the plain 3×3 convolution, whichever way it is computed.
    """

    def __init__(self, c_in: int, c_out: int, size: tuple[int, int]) -> None:
        super().__init__(c_in, c_out, kernel_size=3, padding=1)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        kernel = upsampling_kernel(self.weight)
        y = F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)
        h, w = self.size
        return y[..., :h, :w]


class Encoder(nn.Module):
    """Images (n, c, h, w) to bottleneck features (n, d).

    Without `bias` it is the encoder of Deep SVDD, which must not be able to map every image to
    one point by its biases alone.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        bottleneck: int,
        channels: Sequence[int] = CHANNELS,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        c, h, w = shape
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, kernel_size=3, stride=2, padding=1, bias=bias)
            for c_in, c_out in pairwise((c, *channels))
        )
        h, w = halved(h, len(channels))[-1], halved(w, len(channels))[-1]
        self.out = nn.Linear(channels[-1] * h * w, bottleneck, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu_(conv(x))
        features: Tensor = self.out(x.flatten(1))
        return features


class Decoder(nn.Module):
    """Bottleneck features (n, d) to images (n, c, h, w), mirroring `Encoder`."""

    def __init__(
        self, shape: tuple[int, int, int], bottleneck: int, channels: Sequence[int] = CHANNELS
    ) -> None:
        super().__init__()
        c, h, w = shape
        sizes = list(zip(halved(h, len(channels)), halved(w, len(channels)), strict=True))
        self.start = (channels[-1], *sizes[-1])
        self.into = nn.Linear(bottleneck, channels[-1] * sizes[-1][0] * sizes[-1][1])
        widths = (*reversed(channels), c)
        self.convs = nn.ModuleList(
            UpsampledConv(c_in, c_out, size)
            for (c_in, c_out), size in zip(pairwise(widths), reversed(sizes[:-1]), strict=True)
        )

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu_(self.into(z)).reshape(z.shape[0], *self.start)
        x = x.contiguous(memory_format=torch.channels_last)
        *hidden, last = self.convs
        for conv in hidden:
            x = F.relu_(conv(x))
        image: Tensor = last(x)
        return image


def dense(widths: Sequence[int], *, bias: bool = True) -> nn.Sequential:
    """Linear layers through `widths`, rectified in between and linear at the end."""
    layers: list[nn.Module] = []
    for d_in, d_out in pairwise(widths):
        layers += [nn.Linear(d_in, d_out, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def dense_widths(d: int, channels: Sequence[int]) -> list[int]:
    """Widths of the dense twin: as many layers as convolutions, four times as wide, narrowing.

    >>> dense_widths(30, (16, 32, 64))
    [30, 256, 128, 64]
    """
    return [d, *(4 * c for c in reversed(channels))]


def bottleneck_of(shape: tuple[int, ...], bottleneck: int) -> int:
    """Size of the bottleneck: as asked for images; at most half the features for vectors.

    A vector of 30 features through a bottleneck of 256 would pass unchanged, and whatever passes
    unchanged has no reconstruction error.
    """
    return bottleneck if len(shape) == 3 else min(bottleneck, max(1, shape[0] // 2))


class Autoencoder(nn.Module):
    """Encoder and decoder for images of `shape` (c, h, w), or the dense ones for vectors (d,)."""

    def __init__(
        self,
        shape: tuple[int, ...],
        bottleneck: int,
        channels: Sequence[int] = CHANNELS,
        *,
        encoder_bias: bool = True,
    ) -> None:
        super().__init__()
        self.bottleneck = bottleneck = bottleneck_of(shape, bottleneck)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if len(shape) == 3:
            c, h, w = shape
            self.encoder = Encoder((c, h, w), bottleneck, channels, bias=encoder_bias)
            self.decoder = Decoder((c, h, w), bottleneck, channels)
        else:
            widths = [*dense_widths(shape[0], channels), bottleneck]
            self.encoder = dense(widths, bias=encoder_bias)
            self.decoder = dense(widths[::-1])
        # Convolutions over channels that lie together run about twice as fast on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it

    def forward(self, x: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(self.encoder(x))
        return x_hat
