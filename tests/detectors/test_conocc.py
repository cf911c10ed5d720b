"""ConOCC's own promises: both schedules, the center, γ."""

import logging

import numpy as np
import pytest
import torch

from conftest import quick
from conocc import CAE, ConOCC, equations
from conocc.training import apply


def mean_feature(detector, X):
    """The mean bottleneck feature over all of `X`, taken through the public door."""
    return detector.embed(X).astype(np.float64).mean(0)


@pytest.mark.parametrize("schedule", ["alternate", "joint"])
def test_gamma_changes_the_weights(schedule, images):
    """Under an optimiser of its own for the constraint, γ would cancel."""
    fits = [
        quick("conocc", schedule=schedule, gamma=gamma).fit(images).network_.state_dict()
        for gamma in (1.0, 10.0)
    ]
    for name in ("encoder.out.weight", "encoder.convs.0.weight"):
        assert not torch.equal(fits[0][name], fits[1][name]), name


def test_joint_with_gamma_zero_is_the_plain_autoencoder(images):
    joint = quick("conocc", schedule="joint", gamma=0.0, lr=1e-4).fit(images)
    plain = CAE(epochs=3, random_state=0).fit(images)
    assert np.array_equal(joint.anomaly_score(images), plain.anomaly_score(images))


@pytest.mark.parametrize(
    ("schedule", "updates"), [("alternate", [0, 2, 5]), ("joint", [0, 2, 4, 6])]
)
def test_center_is_the_mean_feature_at_each_update_and_constant_between(
    schedule, updates, images, monkeypatch
):
    """T = 2: joint at epochs 0, 2, 4, 6; alternating at 0 and before each constraint, 2 and 5."""
    detector = quick("conocc", epochs=7, interval=2, schedule=schedule, false_alarms=None)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    original = ConOCC._loss

    def recording(self, x, epoch):
        seen.append((self.network_.mu.numpy().copy(), mean_feature(self, images)))
        self.network_.train()
        return original(self, x, epoch)

    monkeypatch.setattr(ConOCC, "_loss", recording)
    monkeypatch.setattr(ConOCC, "__sklearn_is_fitted__", lambda self: True)  # on the way
    detector.fit(images)
    for epoch, (mu, mean) in enumerate(seen):  # one batch an epoch
        assert np.allclose(mu, mean, atol=1e-6) == (epoch in updates), epoch
        if epoch and epoch not in updates:
            assert np.array_equal(mu, seen[epoch - 1][0])
    assert np.array_equal(detector.network_.mu.numpy(), seen[-1][0]), "moved after the last epoch"


def test_the_constraint_epoch_moves_the_encoder_and_not_the_decoder(images):
    before = quick("conocc", epochs=2, interval=2).fit(images).network_.state_dict()
    after = quick("conocc", epochs=3, interval=2).fit(images).network_.state_dict()
    for name, value in before.items():
        moved = not torch.equal(value, after[name])
        assert moved == (name.startswith("encoder.") or name == "mu"), name


def test_the_constraint_draws_features_to_the_center(images):
    """γ at work: the features of the training images end closer together."""
    spread = {
        gamma: quick("conocc", schedule="joint", gamma=gamma, epochs=40).fit(images).embed(images)
        for gamma in (0.0, 10.0)
    }
    assert spread[10.0].var(0).sum() < 0.5 * spread[0.0].var(0).sum()


def test_score_is_eq_6_of_the_normalised_image(images):
    fitted = quick("conocc").fit(images)
    x = torch.from_numpy(fitted.normalized(images))
    x_hat = torch.from_numpy(fitted.reconstruct(images))
    assert np.allclose(fitted.anomaly_score(images), equations.anomaly_score(x_hat, x), rtol=1e-6)


@pytest.mark.parametrize("which", ["ae_reduction", "con_reduction"])
def test_means_instead_of_sums_move_the_ratio_of_the_two_terms(which, images):
    """L_AE by the 256 pixels of an image, L_con by the 32 features asked for."""
    sums = quick("conocc", epochs=1, schedule="joint", bottleneck=32).fit(images).history_[0]
    means = quick("conocc", epochs=1, schedule="joint", bottleneck=32, **{which: "mean"})
    row = means.fit(images).history_[0]
    by_pixels, by_features = (256, 1) if which == "ae_reduction" else (1, 32)
    assert sums["L_AE"] / row["L_AE"] == pytest.approx(by_pixels, rel=1e-5)
    assert sums["gamma L_con"] / row["gamma L_con"] == pytest.approx(by_features, rel=1e-5)


def test_a_constraint_that_would_never_train_is_said(images, caplog):
    with caplog.at_level(logging.WARNING, "conocc"):
        quick("conocc", epochs=3, interval=60).fit(images)
    assert "never trained" in caplog.text


def test_the_center_is_taken_over_all_images_without_gradient(images):
    fitted = quick("conocc", epochs=1, schedule="joint").fit(images)
    batches = fitted._batches(images[:, None])
    assert not any(z.requires_grad for z in apply(fitted._embed, batches))


def test_training_lowers_the_loss(images):
    history = quick("conocc", epochs=60, interval=20).fit(images).history_
    losses = [row["L_AE"] for row in history if "L_AE" in row]
    assert losses[-1] < 0.5 * losses[0]
