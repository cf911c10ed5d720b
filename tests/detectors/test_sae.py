"""SAE: its penalty by hand, and what the penalty does."""

import numpy as np
import pytest
import torch

from conftest import quick
from conocc import equations
from conocc.detectors import sae
from shadings import trained_and_untrained_auc


def share_of_zeros(detector, X) -> float:
    return float((detector.embed(X) == 0).mean())


def test_penalty_and_error_by_hand():
    """Σ |a|: 0 + 1 + 2 = 3 and 4. Mean of 1, 0, 4, 9 is 3.5."""
    assert sae.activity(torch.tensor([[0.0, 1.0, 2.0], [4.0, 0.0, 0.0]])).tolist() == [3.0, 4.0]
    x_hat, x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[2.0, 2.0], [5.0, 1.0]]])
    assert sae.mean_square_error(x_hat, x).tolist() == [3.5]


def test_loss_is_the_error_a_pixel_plus_the_weighted_sum_of_rectified_features(images):
    fitted = quick("sae", sparsity=0.3).fit(images)
    x = torch.from_numpy(fitted.normalized(images))
    with torch.no_grad():
        z = fitted.network_.encoder(x).numpy()
        _, terms = fitted._loss(x, 0)
    penalty = 0.3 * np.where(z > 0, z, 0).sum(1).mean()
    assert float(terms["sparsity L_1"]) == pytest.approx(penalty, rel=1e-5)
    error = fitted.anomaly_score(images).mean() / 256  # pixels
    assert float(terms["mean L_AE"]) == pytest.approx(error, rel=1e-5)


def test_share_of_zeros_grows_with_the_penalty(images):
    zeros = [
        share_of_zeros(quick("sae", sparsity=sparsity, epochs=60).fit(images), images)
        for sparsity in (0.0, 1e-4, 1e-3)
    ]
    assert zeros[0] < zeros[1] < zeros[2] < 1


def test_embedding_is_rectified_and_alive(images):
    embedding = quick("sae", epochs=60).fit(images).embed(images)
    assert embedding.min() == 0
    assert (embedding.max(1) > 0).all()


def test_score_is_eq_6_of_the_reconstruction_from_the_rectified_features(images):
    fitted = quick("sae").fit(images)
    x = torch.from_numpy(fitted.normalized(images))
    x_hat = torch.from_numpy(fitted.reconstruct(images))
    assert np.allclose(fitted.anomaly_score(images), equations.anomaly_score(x_hat, x), rtol=1e-6)
    with torch.no_grad():
        decoded = fitted.network_.decoder(torch.from_numpy(fitted.embed(images)))
    assert np.allclose(decoded, x_hat, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_beats_no_training_on_a_phantom(seed):
    trained, untrained = trained_and_untrained_auc(
        "sae", seed, ("phantom-mri", 150, 100), epochs=20, batch_size=32
    )
    assert trained > untrained + 0.1
