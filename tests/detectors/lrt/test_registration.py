"""Alignment: moves found again, derivatives by differences, and patches left alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conocc.detectors.input_validation import zscore
from conocc.detectors.lrt.registration import (
    FARTHEST,
    LARGEST_SHARE_LEFT,
    Alignment,
    moved_back,
    slopes,
    warped,
)

RNG = np.random.default_rng(3)


def blobs(n: int, h: int = 48, w: int = 64) -> torch.Tensor:
    """Draw one smooth picture n times."""
    coarse = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 1, 6, 6))).float()
    picture = F.interpolate(coarse, (h, w), mode="bicubic", align_corners=True)
    return zscore(picture).expand(n, 1, h, w).contiguous()


def moves(n: int, far: float) -> torch.Tensor:
    return torch.from_numpy(RNG.uniform(-far, far, size=(n, 5))).float()


def fitted(images: torch.Tensor) -> Alignment:
    alignment = Alignment(tuple(images.shape[1:]))
    alignment.learn(alignment.downsampled(images))
    return alignment


def test_no_move_leaves_an_image_as_it_is():
    x = torch.from_numpy(RNG.normal(size=(2, 3, 9, 14))).float()
    assert torch.allclose(warped(x, torch.zeros(2, 5)), x, atol=1e-5)


def test_a_move_by_half_a_side_across_brings_the_middle_to_the_border():
    x = torch.zeros(1, 1, 8, 8)
    x[..., 6] = 1
    there = warped(x, torch.tensor([[1.0, 0, 0, 0, 0]]))
    assert torch.allclose(there[..., 2], torch.ones(1, 1, 8), atol=1e-5)


def test_moving_back_undoes_a_move_inside():
    x, p = blobs(6), moves(6, 0.15)
    again = moved_back(warped(x, p), p)
    inside = (..., slice(14, 34), slice(18, 46))
    assert torch.allclose(again[inside], x[inside], atol=0.05)
    assert not torch.allclose(warped(x, p)[inside], x[inside], atol=0.2)


@pytest.mark.parametrize("i", range(5))
def test_slopes_are_differences(i):
    x = blobs(1, 40, 32)
    p = torch.zeros(1, 5)
    p[0, i] = 1e-2
    by_difference = (warped(x, p) - warped(x, -p)).flatten() / 2e-2
    inside = torch.zeros(40, 32, dtype=torch.bool)
    inside[3:-3, 3:-3] = True
    found = slopes(x)[0, i]
    wanted = by_difference[inside.flatten()]
    assert torch.allclose(found[inside.flatten()], wanted, atol=0.05 * float(wanted.abs().max()))


def test_images_of_one_anatomy_are_moved_onto_each_other():
    x = zscore(warped(blobs(40), moves(40, 0.1)) + 0.1 * torch.randn(40, 1, 48, 64))
    alignment = fitted(x)
    assert alignment.wanted
    there = alignment(x)
    assert (there - there.mean(0)).square().mean() < 0.4 * (x - x.mean(0)).square().mean()
    assert alignment.found(alignment.downsampled(x)).abs().max() <= FARTHEST


def test_every_channel_of_an_image_is_moved_alike():
    x = (
        warped(blobs(30), moves(30, 0.1)).repeat(1, 3, 1, 1)
        * torch.tensor([1.0, 2, 3])[:, None, None]
    )
    there = fitted(x)(x)
    assert torch.allclose(there[:, 1], 2 * there[:, 0], atol=1e-5)
    assert torch.allclose(there[:, 2], 3 * there[:, 0], atol=1e-5)


def test_images_with_nothing_in_common_are_left_alone():
    x = torch.from_numpy(RNG.normal(size=(60, 1, 8, 8))).float()
    x = zscore(F.interpolate(x, (32, 32), mode="bicubic"))
    alignment = fitted(x)
    assert not alignment.wanted
    assert alignment(x) is x
    assert alignment.back(x, x) is x


@pytest.mark.parametrize(
    ("left", "wanted"), [(LARGEST_SHARE_LEFT - 0.01, True), (LARGEST_SHARE_LEFT + 0.01, False)]
)
def test_images_are_moved_where_that_takes_enough_of_their_variance(left, wanted, monkeypatch):
    """Without its mean, what is left after moving is `left` of what there was."""
    x = torch.from_numpy(RNG.normal(size=(30, 1, 32, 32))).float()
    alignment = Alignment((1, 32, 32))
    monkeypatch.setattr(alignment, "_onto", lambda downsampled: downsampled * left**0.5)
    alignment.learn(x)
    assert bool(alignment.wanted) is wanted


def test_images_do_not_move_where_nothing_tells_how_far():
    """Upright stripes look the same wherever they are along themselves."""
    across = torch.linspace(0, 9, 32).sin().expand(20, 1, 32, 32)
    x = warped(zscore(across), moves(20, 0.1) * torch.tensor([1.0, 0, 0, 0, 0]))
    p = fitted(x).found(fitted(x).downsampled(x))
    assert p[:, 1].abs().max() < 1e-3
    assert p[:, 3].abs().max() < 1e-3
    assert p[:, 0].std() > 0.01


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_images_stay(value):
    x = torch.full((4, 1, 20, 20), value)
    alignment = fitted(x)
    assert not alignment.wanted
    assert torch.equal(alignment.found(alignment.downsampled(x)), torch.zeros(4, 5))


def test_what_is_found_does_not_hang_on_what_comes_with_it():
    x = zscore(warped(blobs(40), moves(40, 0.1)))
    alignment = fitted(x)
    downsampled = alignment.downsampled(x)
    assert torch.allclose(
        alignment.found(downsampled)[:3], alignment.found(downsampled[:3]), atol=1e-6
    )
