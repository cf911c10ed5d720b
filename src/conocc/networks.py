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

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHANNELS = (16, 32, 64)
FEW_CHANNELS = 4  # up to so many, the last layer is computed another way than those before
# The product is no public name of torch's: where a version lacks it, the plain layer serves.
ONEDNN: bool = (
    torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def halved(sides: tuple[int, ...], times: int) -> list[tuple[int, ...]]:
    """Sides of the maps of `times` convolutions of stride 2, padding 1: each rounds up.

    >>> halved((50, 16), 3)
    [(50, 16), (25, 8), (13, 4), (7, 2)]
    """
    maps = [sides]
    for _ in range(times):
        maps.append(tuple((side + 1) // 2 for side in maps[-1]))
    return maps


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


def channels_last(x: Tensor) -> Tensor:
    """Lay the channels of each pixel together; (n, c, h, w) -> the same values.

    A map of one channel lies both ways at once, and torch takes it for channels first, with all
    that is computed from it: its strides are written anew to tell.
    """
    n, c, h, w = x.shape
    if c == 1:
        return x.reshape(n, h, w, 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def meeting_kernel(weight: Tensor) -> Tensor:
    """Turn a 3×3 kernel into the 2×2 one that upsamples by two from where four pixels meet.

    The 2×2 outputs around a corner at which four pixels meet depend on these four alone, so that
    `upsampling_kernel` is also a plain convolution to four channels, one for each of the outputs:
    as many multiplications. (c_out, c_in, 3, 3) -> (4 c_out, c_in, 2, 2).
    """
    w = upsampling_kernel(weight)
    c_in, c_out = w.shape[:2]
    # An output takes the last two taps of the pixel before the corner, the first two of the next.
    taps = w.reshape(c_in, c_out, 2, 2, 2, 2).flip(2, 4)
    return taps.permute(1, 3, 5, 0, 2, 4).reshape(4 * c_out, c_in, 2, 2)


class _UpsampledToFew(torch.autograd.Function):
    """`UpsampledConv` by `meeting_kernel` forwards, by a transposed convolution backwards.

    With few channels to convolve to, each is the faster way round.
    (n, c, h, w), (c_out, c, 3, 3), (c_out,) -> (n, c_out, *size).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, size: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = F.conv2d(x, meeting_kernel(weight), bias.repeat_interleave(4), padding=1)
        n, c, h, w = y.shape
        y = y.permute(0, 2, 3, 1).reshape(n, h, w, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
        y = y.reshape(n, c // 4, 2 * h, 2 * w)
        return y[..., 1 : 1 + size[0], 1 : 1 + size[1]].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (h, w), (kept_h, kept_w) = x.shape[-2:], gradients[0].shape[-2:]
        g = F.pad(gradients[0], (0, 2 * w - kept_w, 0, 2 * h - kept_h))
        with torch.enable_grad():
            weight = weight.detach().requires_grad_()
            kernel = upsampling_kernel(weight)
        of_x, of_kernel, of_bias = torch.ops.aten.convolution_backward(
            *(g, x, kernel.detach(), [len(weight)]),
            *([2, 2], [1, 1], [1, 1]),  # stride, padding, dilation
            *(True, [0, 0], 1),  # transposed, output padding, groups
            [True, True, True],
        )
        (of_weight,) = torch.autograd.grad(kernel, weight, of_kernel)
        return of_x, of_weight, of_bias, None


class UpsampledConv(nn.Conv2d):
    """Nearest-neighbour upsampling by two, a 3×3 convolution, and a crop to `size`.

    Parameters are those of the plain 3×3 convolution, whichever way it is computed.
    Transposed convolutions to few channels are slow forwards: a tenth of the usual rate.
    """

    def __init__(self, c_in: int, c_out: int, size: tuple[int, ...]) -> None:
        super().__init__(c_in, c_out, kernel_size=3, padding=1)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if self.out_channels <= FEW_CHANNELS:
            return _UpsampledToFew.apply(x, self.weight, self.bias, self.size)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        kernel = upsampling_kernel(self.weight)
        y = F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)
        h, w = self.size
        # Gradients of a crop that takes all would be copied all the same.
        return y if y.shape[-2:] == self.size else y[..., :h, :w]


def _products(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x @ weight.T + bias`` by oneDNN; (n, i), (o, i), (o,) -> (n, o)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _DenseByOneDNN(torch.autograd.Function):
    """A dense layer with three products of matrices, all by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _products(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = gradients[0].contiguous()
        of_x = _products(g, weight.t()) if ctx.needs_input_grad[0] else None
        return of_x, _products(g.t(), x.t()), g.sum(0) if ctx.has_bias else None


class Dense(nn.Linear):
    """A linear layer whose matrices are multiplied by oneDNN where that can be done.

    On an AMD processor with AVX-512 it is more than twice as fast as the library that `nn.Linear`
    takes (docs/research/performance.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        by_onednn = ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32
        if not by_onednn or torch.compiler.is_compiling():  # what is exported is the plain layer
            return super().forward(x)
        return _DenseByOneDNN.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]  # torch leaves it untyped


class Encoder(nn.Module):
    """Images (n, c, h, w) to bottleneck features (n, d).

    Without `bias` it is the encoder of Deep SVDD, which must not be able to map every image to
    one point by its biases alone.
    """

    def __init__(
        self, shape: tuple[int, ...], bottleneck: int, channels: Sequence[int], *, bias: bool = True
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, kernel_size=3, stride=2, padding=1, bias=bias)
            for c_in, c_out in pairwise((shape[0], *channels))
        )
        h, w = halved(shape[1:], len(channels))[-1]
        self.out = Dense(channels[-1] * h * w, bottleneck, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        *hidden, last = self.convs
        for conv in hidden:
            x = F.relu_(conv(x))
        # Flattened before it is rectified: gradients would meet maps of another layout there.
        return self.out(F.relu_(last(x).flatten(1)))


class Decoder(nn.Module):
    """Bottleneck features (n, d) to images (n, c, h, w), mirroring `Encoder`."""

    def __init__(self, shape: tuple[int, ...], bottleneck: int, channels: Sequence[int]) -> None:
        super().__init__()
        *sizes, smallest = halved(shape[1:], len(channels))
        self.start = (channels[-1], *smallest)
        self.into = Dense(bottleneck, math.prod(self.start))
        widths = (*reversed(channels), shape[0])
        self.convs = nn.ModuleList(
            UpsampledConv(c_in, c_out, size)
            for (c_in, c_out), size in zip(pairwise(widths), reversed(sizes), strict=True)
        )

    def forward(self, z: Tensor) -> Tensor:
        x = channels_last(F.relu_(self.into(z)).reshape(z.shape[0], *self.start))
        *hidden, last = self.convs
        for conv in hidden:
            x = F.relu_(conv(x))
        return last(x)


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
        if len(shape) == 3:
            self.encoder: nn.Module = Encoder(shape, bottleneck, channels, bias=encoder_bias)
            self.decoder: nn.Module = Decoder(shape, bottleneck, channels)
        else:
            widths = [*dense_widths(shape[0], channels), bottleneck]
            self.encoder = dense(widths, bias=encoder_bias)
            self.decoder = dense(widths[::-1])
        # Convolutions over channels that lie together run about twice as fast on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))
