"""C-OCSVM: both of its stages against those that they are made of."""

import logging

import numpy as np
import pytest
from sklearn.svm import OneClassSVM

from conftest import quick
from conocc import CAE, training
from conocc.detectors import ocsvm
from interrupting import interrupt_at, same
from shadings import trained_and_untrained_auc


@pytest.mark.parametrize(("nu", "kernel_gamma"), [(0.5, "scale"), (0.2, 0.05)])
def test_score_is_minus_scikit_learns_decision_on_its_embedding(images, nu, kernel_gamma):
    params = {"nu": nu, "kernel_gamma": kernel_gamma, "bottleneck": 32, "false_alarms": None}
    fitted = quick("cocsvm", **params).fit(images)
    oracle = OneClassSVM(nu=nu, gamma=kernel_gamma).fit(fitted.embed(images).astype(np.float64))
    for X in (images, -images):
        expected = -oracle.decision_function(fitted.embed(X).astype(np.float64))
        assert np.allclose(fitted.anomaly_score(X), expected, rtol=0, atol=1e-12)


def test_its_first_stage_is_the_plain_autoencoder(images):
    fitted, plain = quick("cocsvm").fit(images), CAE(epochs=3, random_state=0).fit(images)
    assert np.array_equal(fitted.reconstruct(images), plain.reconstruct(images))
    assert np.array_equal(fitted.embed(images), plain.embed(images))
    assert fitted.history_ == plain.history_


def test_interrupted_in_the_svm_the_autoencoder_is_not_trained_again(images, tmp_path, monkeypatch):
    unbroken = quick("cocsvm").fit(images)
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    steps = interrupt_at(0, monkeypatch)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ocsvm.OneClassSVM, "fit", interrupted)
        quick("cocsvm").fit(images, checkpoint=tmp_path / "checkpoint")
    resumed = quick("cocsvm").fit(images, checkpoint=tmp_path / "checkpoint")
    assert len(steps) == 3
    assert same(resumed, unbroken)


def test_the_cost_is_said_before_training(images, caplog, monkeypatch):
    monkeypatch.setattr(ocsvm, "WARN_FROM_GIB", 0.0)
    interrupt_at(1, monkeypatch)
    with caplog.at_level(logging.WARNING, "conocc"), pytest.raises(KeyboardInterrupt):
        quick("cocsvm").fit(images)
    assert "n=16 training vectors of d=256 at once" in caplog.text


def test_progress_is_shown_in_both_stages(images, capsys):
    quick("cocsvm", verbose=1).fit(images)
    shown = capsys.readouterr().err
    assert "Training 3/3 autoencoder" in shown
    assert "Support vectors 1/1" in shown


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_beats_no_training(seed):
    trained, untrained = trained_and_untrained_auc(
        "cocsvm", seed, epochs=30, lr=1e-3, batch_size=32, bottleneck=8
    )
    assert trained > untrained + 0.1
