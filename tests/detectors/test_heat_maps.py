"""What each place of an image adds to the score of methods whose features have places."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from conftest import quick
from conocc.data.phantoms import draw_phantom
from conocc.detectors.gabor_mahalanobis import GaborMahalanobis, laid_out
from conocc.detectors.input_validation import zscore
from conocc.detectors.lrt.lrt import LRT
from conocc.detectors.lrt.synthetic_lesions import LESIONS, lesion_masks

METHODS = ["gabor_mahalanobis", "lrt"]


def drawn(name, n):
    """Images of a phantom's majority; (n, 1, 32, 32)."""
    return draw_phantom(name, size=32, train=n, test_majority=1, test_minority=1).images[:n, None]


@pytest.fixture(scope="module")
def phantoms():
    """160 to learn, and 40 others."""
    return drawn("phantom-mri", 200)


def test_values_are_laid_out_over_their_cells_by_hand():
    """Two cells across: each pixel of the outer quarters is one cell's, those between are mixed."""
    parts = [torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 1, 1)]
    values = torch.tensor([[1.0, 0.0, 3.0, 0.0, 8.0]])  # two features of the first cell: 4 in all
    # Weights of the first cell along four pixels are 1, 3/4, 1/4 and 0, of 2 in all.
    across = 4 * np.array([1, 0.75, 0.25, 0]) / 2
    expected = np.tile(across / 3, (3, 1)) + 8 / 12
    assert np.allclose(laid_out(values, parts, 3, 4)[0, 0], expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_map_sums_to_the_score(method, channels):
    rng = np.random.default_rng(0)
    images = rng.random((20, channels, 24, 33))
    images[:, :, 8:20, 4:20] += np.linspace(0, 1, 20)[:, None, None, None]
    fitted = quick(method, false_alarms=None).fit(images)
    maps = fitted.differences(images)
    assert maps.shape == (20, 1, 24, 33)
    assert np.allclose(maps.sum((1, 2, 3)), fitted.anomaly_score(images), rtol=1e-6)
    assert np.allclose(fitted.residual_scale_.totals(maps), maps.sum((1, 2, 3)), rtol=1e-9)
    alone = fitted.differences(images[7:8])
    assert np.allclose(maps[7:8], alone, rtol=0, atol=1e-5 * np.abs(alone).max())


def test_the_map_of_moved_images_sums_to_the_score_too():
    """Films of one anatomy are moved, and what is found is moved back."""
    films = drawn("phantom-chestx", 80)
    fitted = quick("lrt", false_alarms=None).fit(films)
    assert fitted.description_.alignment.wanted
    maps = fitted.differences(films[:10])
    assert np.allclose(maps.sum((1, 2, 3)), fitted.anomaly_score(films[:10]), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_planted_lesions_are_hotter_than_the_rest(method, phantoms):
    """On average over kinds of lesions; and for `lrt`, more so than its residual is."""
    fitted = quick(method, false_alarms=None).fit(phantoms[:160])
    x = zscore(torch.from_numpy(phantoms[160:]).float())
    torch.manual_seed(0)
    masks = lesion_masks(len(x), *x.shape[2:])
    inside = (masks > 0.5).flatten(1).numpy()
    kept = (inside.mean(1) > 0) & (inside.mean(1) < 1)
    found, by_residual = [], []
    for lesion in LESIONS:
        sick = (x + masks * lesion(x)).numpy()
        maps = fitted.differences(sick).reshape(len(x), -1)
        found.append([roc_auc_score(inside[i], maps[i]) for i in np.flatnonzero(kept)])
        if method == "lrt":
            left = np.abs(fitted.normalized(sick) - fitted.reconstruct(sick)).reshape(len(x), -1)
            by_residual.append([roc_auc_score(inside[i], left[i]) for i in np.flatnonzero(kept)])
    error = np.std(found) / np.sqrt(np.size(found))
    assert np.mean(found) > 0.5 + 3 * error
    if method == "lrt":
        assert np.mean(found) > np.mean(by_residual) + 0.05


@pytest.mark.parametrize("cls", [GaborMahalanobis, LRT])
def test_vectors_have_no_map(cls):
    vectors = np.random.default_rng(0).normal(size=(30, 5))
    fitted = cls(random_state=0).fit(vectors)
    assert not hasattr(fitted, "differences")
    assert fitted.residual_scale_ is None
