r"""Images moved onto the mean of the majority, where its images are of one anatomy.

A film is taken higher or lower, from nearer or farther, a little turned; none of it is disease.
Each image is moved, scaled and turned so that it agrees best with a template, the mean of the
training images, by Gauss and Newton's method with the gradients of Malis, *Improving vision-based
control using efficient second-order minimization techniques* (ICRA 2004), under a penalty on how
far: it minimises, over five numbers p,

.. math:: \overline{(T - W_p x)^2} + \lambda \lVert p \rVert^2

Patches of tissue have no anatomy in common: their mean says nothing, and to move them would take
away what they differ in. So images are moved only where that takes away enough of the variance
around their mean.

Where an image moves to is computed by sums over its own pixels alone, so that it is the same to
the last bit at each place of a block and among any other images.

Letters: n images, c channels, h and w pixels, a and b pixels of the template; ``p`` moves across
and down in halves of a side, stretches across and down, a turn in radians.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conocc.detectors.input_validation import zscore
from conocc.detectors.lrt.synthetic_lesions import smooth
from conocc.training import BLOCK

SIDE = 32  # of the template, in pixels
PENALTY = 2.0  # λ
STEPS = 10
ROUNDS = 2  # of a template from images that were moved onto the one before
FARTHEST = 0.3  # of each number in p
# Of the variance around the mean, after moving; with more left there is no anatomy.
LARGEST_SHARE_LEFT = 0.7


def mean_products(a: Tensor, b: Tensor) -> Tensor:
    """Average products of rows over their places; (n, m, q), (n, k, q) -> (n, m, k).

    Each is a sum over one image's own numbers. A product of matrices in a batch would round
    differently by where in the batch an image is.
    """
    return torch.stack([(a[:, [i]] * b).mean(2) for i in range(a.shape[1])], 1)


def centres(side: int, x: Tensor) -> Tensor:
    """Places of pixels along a side, from -1 to 1 at its ends, like `x`; -> (side,)."""
    return ((torch.arange(side) + 0.5) * (2 / side) - 1).to(x)


def warped(x: Tensor, p: Tensor) -> Tensor:
    """Move images; beyond its border an image goes on as it ends there; (n, c, h, w), (n, 5)."""
    across, down, wider, higher, turn = p.unbind(1)
    return _sampled(x, 1 + wider, turn, across, -turn, 1 + higher, down)


def moved_back(x: Tensor, p: Tensor) -> Tensor:
    """Undo `warped`, but for what it moved out of the image; (n, c, h, w), (n, 5) -> the same."""
    across, down, wider, higher, turn = p.unbind(1)
    a, d = 1 + wider, 1 + higher
    rows = (d, -turn, turn * down - d * across, turn, a, -turn * across - a * down)
    return _sampled(x, *(number / (a * d + turn * turn) for number in rows))


def _sampled(x: Tensor, *affine: Tensor) -> Tensor:
    """Look up each pixel where six numbers an image, (n,) each, say that it comes from."""
    y, x_ = centres(x.shape[2], x)[:, None], centres(x.shape[3], x)
    a, b, c, d, e, f = (number.to(x)[:, None, None] for number in affine)
    grid = torch.stack([a * x_ + b * y + c, d * x_ + e * y + f], -1)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def slopes(x: Tensor) -> Tensor:
    """Derive images by p, at 0; (n, 1, a, b) -> (n, 5, a·b)."""
    a, b = x.shape[2:]
    down, across = (
        torch.gradient(x[:, 0], dim=dim)[0] * (side / 2) for dim, side in ((1, a), (2, b))
    )
    y, x_ = centres(a, x)[:, None], centres(b, x)
    parts = [across, down, across * x_, down * y, across * y - down * x_]
    return torch.stack(parts, 1).flatten(2)


class Alignment(nn.Module):
    """Moves images of one shape onto a template, once `learn` has found that it is worth it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        sides = [min(side, SIDE) for side in shape[1:]]
        self.template = nn.Buffer(torch.zeros(1, 1, *sides))
        self.wanted = nn.Buffer(torch.zeros((), dtype=torch.bool))

    def downsampled(self, x: Tensor) -> Tensor:
        """Give what is compared with the template; (n, c, h, w) -> (n, 1, a, b)."""
        a, b = self.template.shape[2:]
        coarse = F.adaptive_avg_pool2d(x.mean(1, keepdim=True), (a, b))
        return zscore(smooth(coarse, 3))

    def learn(self, downsampled: Tensor) -> None:
        """Make the template of small training images, (n, 1, a, b), and see what it brings."""
        moved = downsampled
        for _ in range(1 + ROUNDS):
            self.template.copy_(zscore(moved.mean(0, keepdim=True)))
            moved = self._onto(downsampled)
        before, after = ((x - x.mean(0)).square().mean() for x in (downsampled, moved))
        self.wanted.copy_((before > 0) & (after <= LARGEST_SHARE_LEFT * before))

    def _onto(self, downsampled: Tensor) -> Tensor:
        return torch.cat(
            [zscore(warped(x, self.found(x))) for x in torch.split(downsampled, BLOCK)]
        )

    def found(self, downsampled: Tensor) -> Tensor:
        """Find p for each of some small images; (n, 1, a, b) -> (n, 5)."""
        of_template = slopes(self.template)
        penalty = PENALTY * torch.eye(5).to(downsampled)
        p = downsampled.new_zeros(len(downsampled), 5)
        for _ in range(STEPS):
            now = zscore(warped(downsampled, p))
            J = (slopes(now) + of_template) / 2
            residual = (self.template - now).flatten(2)
            downhill = mean_products(J, residual)[..., 0] - PENALTY * p
            step = torch.linalg.solve(mean_products(J, J) + penalty, downhill)
            p = (p + step).clamp(-FARTHEST, FARTHEST)
        return p

    def forward(self, x: Tensor) -> Tensor:
        """Move images onto the template, where that was worth it; (n, c, h, w) -> the same."""
        return warped(x, self.found(self.downsampled(x))) if self.wanted else x

    def back(self, of: Tensor, x: Tensor) -> Tensor:
        """Move what was computed of moved images, (n, c, h, w), to where it is in images `x`."""
        return moved_back(of, self.found(self.downsampled(x))) if self.wanted else of
