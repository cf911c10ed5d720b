"""Lesions by hand: where they are, and what each kind does."""

import numpy as np
import pytest
import torch

from conocc.detectors.lrt import synthetic_lesions as lesions

RNG = np.random.default_rng(5)


pytestmark = pytest.mark.usefixtures("seeded")


def test_masks_cover_a_part_of_each_image_softly():
    masks = lesions.lesion_masks(200, 40, 48)
    assert masks.shape == (200, 1, 40, 48)
    assert masks.min() >= 0
    assert masks.max() <= 1
    covered = (masks > 0.5).float().mean((1, 2, 3))
    # The largest ellipse is π · 0.35² = 38 % of an image, and there are at most three.
    assert covered.max() <= 1
    assert 0.05 < covered.mean() < 0.6
    assert len(covered.unique()) > 100


@pytest.mark.parametrize("change", lesions.LESIONS)
def test_every_kind_of_lesion_changes_every_image_and_its_like_in_another_way(change):
    x = torch.from_numpy(RNG.normal(size=(8, 3, 20, 24))).float()
    before = x.clone()
    first, second = lesions.with_lesion(x, change), lesions.with_lesion(x, change)
    assert torch.equal(x, before)
    assert ((first - x).abs().amax((1, 2, 3)) > 0.05).all()
    assert not torch.equal(first, second)


def test_detail_is_what_smoothing_takes_away():
    """A ramp has none inside; beside a lone bright pixel it is a ninth of it, to either side."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    assert torch.allclose(lesions.detailed(ramp)[..., 2:-2], torch.zeros(12), atol=1e-5)
    spot = torch.zeros(1, 1, 16, 16)
    spot[0, 0, 8, 8] = 9.0
    changed = lesions.detailed(spot)[0, 0]
    # 9 − 1 in the middle and 0 − 1 beside it, whatever the strength.
    assert float(changed[8, 8] / changed[8, 9]) == pytest.approx(-8)


def test_a_shade_is_even():
    changed = lesions.shaded(torch.from_numpy(RNG.normal(size=(50, 1, 16, 16))))
    assert (changed.amax((1, 2, 3)) == changed.amin((1, 2, 3))).all()
    assert (changed > 0).any()
    assert (changed < 0).any()


def test_a_replaced_piece_is_of_another_image():
    x = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 16, 16)
    assert (x + lesions.replaced(x))[:, 0, 0, 0].tolist() == [3, 0, 1, 2]


def test_haze_takes_contrast_away():
    """Towards one intensity that the image has, not an extreme one, by 20 to 80 % everywhere."""
    x = torch.from_numpy(RNG.normal(size=(60, 1, 16, 16))).float()
    hazed = x + lesions.hazed(x)
    share = 1 - hazed.std((1, 2, 3)) / x.std((1, 2, 3))
    assert share.min() > 0.2
    assert share.max() < 0.8
    towards = (hazed - (1 - share)[:, None, None, None] * x) / share[:, None, None, None]
    level = towards.mean((1, 2, 3))
    assert torch.allclose(towards, level[:, None, None, None].expand_as(x), atol=1e-3)
    ranks = (x < level[:, None, None, None]).float().mean((1, 2, 3))
    assert ((ranks > 0.09) & (ranks < 0.91)).all()
    assert ranks.std() > 0.1
