"""Deep SVDD: both objectives, the radius and the center by hand, and no collapse."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from conftest import quick
from conocc import DeepSVDD
from conocc.detectors import deep_svdd as dsvdd
from conocc.detectors.persistence import learned
from interrupting import interrupt_at, same
from shadings import shadings, trained_and_untrained_auc

# Around the center (1, 0) the squared distances are 0, 9, 3² + 4² = 25 and 1.
POINTS = torch.tensor([[1.0, 0.0], [1.0, 3.0], [4.0, 4.0], [1.0, -1.0]])


def around_the_center(**params) -> DeepSVDD:
    """A detector whose encoder is the identity, with the center (1, 0)."""
    detector = DeepSVDD(**params)
    detector.encoder_ = nn.Identity()
    detector.sphere_ = dsvdd.Hypersphere(2)
    detector.sphere_.c.copy_(torch.tensor([1.0, 0.0]))
    return detector


def total(terms) -> float:
    return float(terms[0])


def test_score_is_the_squared_distance_to_the_center():
    assert around_the_center()._score(POINTS).tolist() == [0, 9, 25, 1]


def test_one_class_objective_by_hand():
    """(0 + 9 + 25 + 1) / 4 = 8.75."""
    assert total(around_the_center()._loss(POINTS, 0)) == 8.75


def test_soft_boundary_objective_by_hand():
    """R = 2: beyond R² = 4 lie 5 and 21, (0 + 5 + 21 + 0) / 4 = 6.5; 4 + 6.5 / 0.5 = 17."""
    detector = around_the_center(objective="soft-boundary", nu=0.5)
    detector.sphere_.radius.fill_(2.0)
    assert total(detector._loss(POINTS, 0)) == 17.0


def test_radius_is_the_quantile_of_distances_and_not_of_their_squares():
    """Distances 0, 1, 2, 3, 4: ν = 0.25 leaves one of four steps outside, R = 3.

    ν = 0.1 is at 3.6, between 3 and 4; between their squares it would be √13.2 = 3.63.
    """
    squared = torch.arange(5.0) ** 2
    assert float(dsvdd.radius_of(squared, 0.25)) == pytest.approx(3.0)
    assert float(dsvdd.radius_of(squared, 0.1)) == pytest.approx(3.6)


def test_radius_minimises_the_soft_boundary_objective():
    """No other R on a fine grid does better, but for what interpolation gives away."""
    squared = torch.from_numpy(np.random.default_rng(0).normal(size=(2000, 3)) ** 2).sum(1)

    def objective(radius):
        return float(radius**2 + dsvdd.excess(squared, radius, 0.1).mean())

    best = min(objective(radius) for radius in torch.linspace(0, 5, 2001))
    assert objective(dsvdd.radius_of(squared, 0.1)) == pytest.approx(best, rel=1e-4)


def test_components_of_the_center_are_moved_away_from_zero():
    c = torch.tensor([0.5, 0.05, 0.0, -0.05, -0.1, -2.0])
    expected = torch.tensor([0.5, 0.1, 0.1, -0.1, -0.1, -2.0])
    assert torch.equal(dsvdd.away_from_zero(c), expected)


@pytest.mark.parametrize("pretrain_epochs", [0, 2])
def test_the_center_is_taken_once_after_pretraining(pretrain_epochs, images, monkeypatch):
    taken = []

    def recording(c):
        taken.append((c, detector.embed(images).mean(0), detector.history_))
        return original(c)

    original = dsvdd.away_from_zero
    monkeypatch.setattr(dsvdd, "away_from_zero", recording)
    monkeypatch.setattr(DeepSVDD, "__sklearn_is_fitted__", lambda self: True)  # on the way
    detector = quick("dsvdd", pretrain_epochs=pretrain_epochs, false_alarms=None)
    detector.fit(images)
    ((mean, expected, _),) = taken
    assert np.allclose(mean, expected, atol=1e-6)
    assert torch.equal(detector.sphere_.c, original(mean)), "moved after it was taken"
    assert not np.allclose(detector.embed(images).mean(0), expected, atol=1e-3)


def test_pretraining_is_of_the_same_encoder_and_can_be_left_out(images):
    both = quick("dsvdd").fit(images)
    assert [row["stage"] for row in both.history_] == ["pretraining"] * 2 + ["svdd"] * 3
    without = quick("dsvdd", pretrain_epochs=0).fit(images)
    assert [row["stage"] for row in without.history_] == ["svdd"] * 3
    assert not torch.equal(both.encoder_.out.weight, without.encoder_.out.weight)


def test_the_encoder_has_no_bias_and_only_the_encoder_is_kept(images):
    fitted = quick("dsvdd").fit(images)
    names = set(learned(fitted)[0])
    assert not any("bias" in name or "decoder" in name for name in names)
    assert {"encoder_.out.weight", "sphere_.c", "sphere_.radius"} <= names


def test_the_radius_is_zero_while_warming_up_then_taken_over_all_images(images):
    """The radius of the eleventh epoch is that of the distances which ten epochs leave."""
    soft = {"objective": "soft-boundary", "nu": 0.3, "batch_size": 8, "false_alarms": None}
    ten = quick("dsvdd", epochs=10, **soft).fit(images)
    eleven = quick("dsvdd", epochs=11, **soft).fit(images)
    squared = [row["R^2"] for row in eleven.history_ if row["stage"] == "svdd"]
    assert squared[:10] == [0.0] * 10
    radius = np.quantile(np.sqrt(ten.anomaly_score(images)), 0.7)
    assert float(eleven.sphere_.radius) == pytest.approx(radius, rel=1e-5)
    assert squared[10] == pytest.approx(radius**2, rel=1e-5)


def test_a_radius_that_would_never_be_used_is_said(images, caplog):
    with caplog.at_level(logging.WARNING, "conocc"):
        quick("dsvdd", objective="soft-boundary").fit(images)
    assert "radius is never used" in caplog.text


def test_weight_decay_shrinks_the_weights(images):
    norms = [
        float(quick("dsvdd", weight_decay=decay).fit(images).encoder_.out.weight.detach().norm())
        for decay in (0.0, 100.0)
    ]
    assert norms[1] < norms[0]


@pytest.mark.parametrize("step", [7, 10, 13])
def test_a_fit_interrupted_after_an_update_of_the_radius_goes_on(
    step, images, tmp_path, monkeypatch
):
    """After pretraining of six steps, and before and after updates of the radius."""
    monkeypatch.setattr(dsvdd, "WARM_UP", 1)
    params = {"objective": "soft-boundary", "batch_size": 8, "false_alarms": None}
    unbroken = quick("dsvdd", **params).fit(images)
    steps = interrupt_at(step, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        quick("dsvdd", **params).fit(images, checkpoint=tmp_path / "checkpoint")
    resumed = quick("dsvdd", **params).fit(images, checkpoint=tmp_path / "checkpoint")
    # What was done of the epoch, of three steps, is done again, and no more.
    assert len(steps) == (2 + 3) * 3 + (step - 1) % 3 + 1
    assert same(resumed, unbroken)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_beats_no_training(seed):
    trained, untrained = trained_and_untrained_auc(
        "dsvdd", seed, epochs=20, pretrain_epochs=20, batch_size=32, bottleneck=8
    )
    assert trained > untrained + 0.1


@pytest.mark.parametrize("objective", ["one-class", "soft-boundary"])
def test_the_center_is_not_reached_by_every_image(objective):
    """It comes closer in training, but images stay apart."""
    X = shadings(60, 3, np.random.default_rng(0))
    short, long = (
        quick("dsvdd", epochs=epochs, batch_size=20, objective=objective, bottleneck=8).fit(X)
        for epochs in (12, 100)
    )
    new = shadings(60, 3, np.random.default_rng(1))
    assert np.median(long.anomaly_score(X)) < np.median(short.anomaly_score(X))
    scores = long.anomaly_score(new)
    assert len(np.unique(scores)) == len(new)
    assert np.median(scores) > 1e-3 * float((long.sphere_.c**2).sum())
