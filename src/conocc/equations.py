"""The paper, in its own order and with its own symbols.

Gao, Liu, Arefan, Panigrahy, Wu: *Constrained Deep One-Class Feature Learning For Classifying
Imbalanced Medical Images*, sections 2.1 to 2.3.

Letters: n images, d bottleneck features; ``x`` an image or a vector, ``x_hat = D(E(x))`` its
reconstruction, ``z = E(x)`` its bottleneck feature, ``mu`` the center, ``gamma`` the coefficient γ.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def center(blocks: Iterable[Tensor]) -> Tensor:
    r"""Section 2.2. The center :math:`\mu`, the mean bottleneck feature; blocks of (·, d) -> (d,).

    Summed in float64 over blocks, since all training images need not fit into memory at once.
    """
    total, n, dtype = torch.zeros((), dtype=torch.float64), 0, None
    for z in blocks:
        total = total.to(z.device) + z.double().sum(0)
        n, dtype = n + len(z), z.dtype
    return (total / n).to(dtype)


def constraining_loss(z: Tensor, mu: Tensor) -> Tensor:
    r"""Eq. (1). :math:`L_{con} = \lVert z_i - \mu \rVert^2`; (n, d), (d,) -> (n,)."""
    return ((z - mu) ** 2).sum(1)


def reconstruction_loss(x_hat: Tensor, x: Tensor) -> Tensor:
    r"""Eq. (2). :math:`L_{AE} = \sum_j \lVert D(E(x_i))_j - x_{ij} \rVert^2`; (n, ...) -> (n,).

    The sum runs over all pixels (and channels). The text calls it a mean square error; dividing
    by the number of pixels changes nothing but the weight of γ, since Adam ignores scale.
    """
    return ((x_hat - x) ** 2).flatten(1).sum(1)


def total_loss(l_ae: Tensor, l_con: Tensor, gamma: float) -> Tensor:
    r"""Eq. (3). :math:`L = L_{AE} + \gamma L_{con}`; (n,), (n,) -> (n,)."""
    return l_ae + gamma * l_con


def batch_loss(loss: Tensor) -> Tensor:
    r"""Eq. (4) and (5). The batch mean that both steps descend; (n,) -> ().

    The decoder's step (4) follows the gradient of :math:`L_{AE}` alone and the encoder's (5) that
    of :math:`L_{AE} + \gamma L_{con}`. :math:`L_{con}` does not depend on the decoder, so both are
    gradients of one number: the mean of Eq. (3). Eq. (5) writes
    :math:`\partial L_{con} / \partial z_i`, read here with the chain rule into :math:`W_e`.
    """
    return loss.mean()


def anomaly_score(x_hat: Tensor, x: Tensor) -> Tensor:
    r"""Eq. (6). The score :math:`s_i`, Eq. (2) of a new image: higher is less like the majority."""
    return reconstruction_loss(x_hat, x)
