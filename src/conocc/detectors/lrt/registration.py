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

Letters: n images, c channels, h and w pixels, a and b pixels of the template; ``p`` moves across
and down in halves of a side, stretches across and down, a turn in radians.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conocc.detectors.lrt.synthetic_lesions import smooth

SIDE = 32  # of the template, in pixels
PENALTY = 2.0  # λ
STEPS = 10
ROUNDS = 2  # of a template from images that were moved onto the one before
FARTHEST = 0.3  # of each number in p
# Of the variance around the mean, what moving leaves; with more left there is no anatomy.
ENOUGH = 0.7
BLOCK = 64


def standardised(x: Tensor) -> Tensor:
    """Give each image mean 0 and deviation 1, a constant one zeros; (n, ...) -> the same."""
    rows = x.flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    deviation = rows.square().mean(1, keepdim=True).sqrt()
    return (rows / deviation.clamp(min=1e-6)).reshape(x.shape)


def warped(x: Tensor, p: Tensor) -> Tensor:
    """Move images; beyond its border an image goes on as it ends there; (n, c, h, w), (n, 5)."""
    across, down, wider, higher, turn = p.unbind(1)
    rows = torch.stack([1 + wider, turn, across, -turn, 1 + higher, down], 1)
    return _sampled(x, rows.reshape(-1, 2, 3))


def moved_back(x: Tensor, p: Tensor) -> Tensor:
    """Undo `warped`, but for what it moved out of the image; (n, c, h, w), (n, 5) -> the same."""
    across, down, wider, higher, turn = p.unbind(1)
    a, d = 1 + wider, 1 + higher
    scale = a * d + turn * turn
    rows = torch.stack([d, -turn, turn * down - d * across, turn, a, -turn * across - a * down], 1)
    return _sampled(x, (rows / scale[:, None]).reshape(-1, 2, 3))


def _sampled(x: Tensor, affine: Tensor) -> Tensor:
    grid = F.affine_grid(affine.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def slopes(x: Tensor) -> Tensor:
    """Derive images by p, at 0; (n, 1, a, b) -> (n, a·b, 5)."""
    a, b = x.shape[2:]
    down, across = (
        torch.gradient(x[:, 0], dim=dim)[0] * (side / 2) for dim, side in ((1, a), (2, b))
    )
    y, x_ = (((torch.arange(side) + 0.5) * (2 / side) - 1).to(x) for side in (a, b))
    y = y[:, None]
    parts = [across, down, across * x_, down * y, across * y - down * x_]
    return torch.stack(parts, -1).flatten(1, 2)


class Alignment(nn.Module):
    """Moves images of one shape onto a template, once `learn` has found that it is worth it."""

    template: Tensor
    wanted: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        sides = [min(side, SIDE) for side in shape[1:]]
        self.register_buffer("template", torch.zeros(1, 1, *sides))
        self.register_buffer("wanted", torch.zeros((), dtype=torch.bool))

    def downsampled(self, x: Tensor) -> Tensor:
        """Give what is compared with the template; (n, c, h, w) -> (n, 1, a, b)."""
        a, b = self.template.shape[2:]
        coarse = F.adaptive_avg_pool2d(x.mean(1, keepdim=True), (a, b))
        return standardised(smooth(coarse, 3))

    def learn(self, downsampled: Tensor) -> None:
        """Make the template of small training images, (n, 1, a, b), and see what it brings."""
        before = (downsampled - downsampled.mean(0)).square().mean()
        self.template.copy_(standardised(downsampled.mean(0, keepdim=True)))
        for _ in range(ROUNDS):
            self.template.copy_(standardised(self._onto(downsampled).mean(0, keepdim=True)))
        there = self._onto(downsampled)
        after = (there - there.mean(0)).square().mean()
        self.wanted.copy_((before > 0) & (after <= ENOUGH * before))

    def _onto(self, downsampled: Tensor) -> Tensor:
        blocks = (downsampled[start : start + BLOCK] for start in range(0, len(downsampled), BLOCK))
        return torch.cat([standardised(warped(x, self.found(x))) for x in blocks])

    def found(self, downsampled: Tensor) -> Tensor:
        """Find p for each of some small images; (n, 1, a, b) -> (n, 5)."""
        pixels = self.template.numel()
        of_template = slopes(self.template)
        penalty = PENALTY * torch.eye(5).to(downsampled)
        p = downsampled.new_zeros(len(downsampled), 5)
        for _ in range(STEPS):
            now = standardised(warped(downsampled, p))
            J = (slopes(now) + of_template) / 2
            residual = (self.template - now).flatten(1)[..., None]
            turned = J.transpose(1, 2)
            step = torch.linalg.solve(
                turned @ J / pixels + penalty, turned @ residual / pixels - PENALTY * p[..., None]
            )
            p = (p + step[..., 0]).clamp(-FARTHEST, FARTHEST)
        return p

    def forward(self, x: Tensor) -> Tensor:
        """Move images onto the template, where that was worth it; (n, c, h, w) -> the same."""
        return warped(x, self.found(self.downsampled(x))) if self.wanted else x

    def back(self, of: Tensor, x: Tensor) -> Tensor:
        """Move what was computed of moved images, (n, c, h, w), to where it is in images `x`."""
        return moved_back(of, self.found(self.downsampled(x))) if self.wanted else of
