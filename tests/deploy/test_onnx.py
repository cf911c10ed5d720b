"""A detector without Python: ONNX Runtime alone computes what PyTorch does, or nothing is left."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from conftest import quick
from conocc._version import __version__
from conocc.data.preprocessing import Preprocessing
from conocc.deploy import onnx as export
from conocc.deploy.onnx import export_onnx, export_run
from conocc.detectors import METHODS, method_class
from conocc.detectors.persistence import learned
from conocc.detectors.residual_scale import ResidualScale
from conocc.thresholds.conformal import Calibration
from test_cli import call

EXPORTED = [name for name in METHODS if not method_class(name)._no_graph]


@pytest.fixture(scope="module")
def raw(images) -> np.ndarray:
    """Images in units of a scanner, float32."""
    return (100 * images + 700).astype(np.float32)[:, None]


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def metadata(path):
    about = session_of(path).get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in about.items()}


def test_all_methods_but_two_can_be_exported():
    assert set(METHODS) - set(EXPORTED) == {"anogan", "lrt"}


@pytest.mark.parametrize("name", EXPORTED)
def test_the_graph_gives_score_and_residual_of_raw_images(name, raw, tmp_path, capfd, recwarn):
    """On batches of any size, in silence, and with no word of where it was made."""
    fitted = quick(name).fit(raw[:12])
    path = tmp_path / "model.onnx"
    parity = export_onnx(fitted, path)
    assert (parity.images, parity.of) == (16, "phantoms")
    assert parity.score < 1e-4
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert b"export.py" not in path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    weights = sum(tensor.nbytes for tensor in learned(fitted)[0].values())
    assert path.stat().st_size < 1.5 * weights + 100_000  # each is there once

    session = session_of(path)
    for n in (1, 5):
        new = raw[-n:] + np.float32(50) * np.arange(16, dtype=np.float32)  # shaded
        score, *residual = session.run(None, {"image": new})
        expected = fitted.anomaly_score(new)
        assert score.dtype == np.float32
        assert np.allclose(score, expected, 1e-4, 1e-4 * np.abs(expected).max())
        if hasattr(fitted, "reconstruct"):
            known = fitted.normalized(new) - fitted.reconstruct(new)
            assert np.allclose(residual[0], known, atol=1e-4)
        else:
            assert residual == []


def test_vectors_and_odd_sided_colour_images_are_taken_too(tmp_path):
    rng = np.random.default_rng(0)
    for X in (rng.normal(7, 3, size=(20, 6)), rng.random((9, 3, 17, 20))):
        fitted = quick("cae").fit(X)
        parity = export_onnx(fitted, tmp_path / "model.onnx")
        assert max(parity.score, parity.residual) < 1e-5
        X = X.astype(np.float32)
        score, residual = session_of(tmp_path / "model.onnx").run(None, {"image": X})
        assert np.allclose(score, fitted.anomaly_score(X), rtol=1e-4)
        assert residual.shape == X.shape


def test_a_graph_follows_the_score_in_force(raw, tmp_path):
    colour = np.repeat(raw, 3, axis=1)[:, :, :, :15].repeat(2, axis=3)
    fitted = quick("cae", false_alarms=0.2).fit(colour).set_params(scored_by="correlation")
    parity = export_onnx(fitted, tmp_path / "m", images=colour)
    assert max(parity.score, parity.residual) < 1e-4
    score, difference = session_of(tmp_path / "m").run(None, {"image": colour})
    assert np.allclose(score, fitted.anomaly_score(colour), rtol=1e-4)
    assert np.allclose(difference.mean((1, 2, 3)), score, rtol=1e-4)
    about = metadata(tmp_path / "m")
    assert (about["scored_by"], about["threshold"]) == (
        "correlation",
        None,
    )  # that it has is the other's


@pytest.fixture(scope="module")
def fitted(raw):
    return quick("cae", false_alarms=0.2).fit(raw[:12]).calibrate(raw[12:])


def test_what_decides_is_in_the_metadata(fitted, raw, tmp_path):
    path = tmp_path / "model.onnx"
    fitted.save(tmp_path / "model", preprocessing=Preprocessing(size=16).to_dict())
    parity = export_onnx(type(fitted).load(tmp_path / "model"), path, images=raw[:, 0])
    about = metadata(path)
    assert about["format"] == 1
    assert (about["class"], about["version"]) == ("CAE", __version__)
    assert about["input_shape"] == [1, 16, 16]
    assert about["preprocessing"] == Preprocessing(size=16).to_dict()
    assert about["normalize"] == "zscore"
    assert Calibration.from_json(about["calibration"]) == fitted.calibration_
    assert ResidualScale(**about["residual_scale"]) == fitted.residual_scale_
    assert about["parity"] == vars(parity)
    assert (parity.images, parity.of) == (20, "images given")
    (score, _) = session_of(path).run(None, {"image": raw})
    minority = fitted.predict(raw) == -1
    assert 0 < minority.sum() < 20
    assert np.array_equal(score > about["threshold"], minority)


def test_an_uncalibrated_detector_says_null(raw, tmp_path):
    export_onnx(quick("dsvdd").fit(raw), tmp_path / "m")
    about = metadata(tmp_path / "m")
    assert (about["calibration"], about["residual_scale"], about["preprocessing"]) == (None,) * 3


def test_the_detector_itself_is_left_alone(raw, tmp_path):
    detector = quick("dsvdd", verbose=1).fit(raw)
    export_onnx(detector, tmp_path / "m", images=raw)
    assert (detector.device, detector.verbose) == ("auto", 1)


# --- refusals -----------------------------------------------------------------------------------


def test_a_method_that_searches_is_refused_with_the_reason(raw, tmp_path):
    fitted = quick("anogan").fit(raw)
    with pytest.raises(ValueError, match="AnoGAN cannot be exported: .* down a gradient"):
        export_onnx(fitted, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_with_an_encoder_in_the_place_of_the_search_there_is_a_graph(raw, tmp_path):
    for score in ("search", "correlation"):
        fitted = quick("anogan", codes="encoder", scored_by=score).fit(raw)
        assert export_onnx(fitted, tmp_path / "m", images=raw).score < 1e-4


def test_a_graph_that_differs_is_not_left_behind(fitted, tmp_path, monkeypatch):
    """What was there before stays."""
    (tmp_path / "m").write_bytes(export.PRODUCER)
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(ValueError, match="would differ: ONNX Runtime .* scores differ by .*e-0"):
        export_onnx(fitted, tmp_path / "m")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [export.PRODUCER]


def test_nan_is_no_parity(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_largest", lambda *args: float("nan"))
    with pytest.raises(ValueError, match="differ by nan"):
        export_onnx(fitted, tmp_path / "m")


def test_a_detector_too_large_for_the_format_is_refused(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST_BYTES", 1000)
    with pytest.raises(ValueError, match="cannot be exported: it holds .* GiB"):
        export_onnx(fitted, tmp_path / "m")


def test_without_the_extra_the_sentence_names_it(fitted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"'onnxruntime': pip install 'conocc\[onnx\]'"):
        export_onnx(fitted, tmp_path / "m")


def test_differences_are_relative_to_each_image():
    difference = np.array([[0.0, 3.0], [1.0, 0.5], [0.25, 0.0]])
    # 3 of 6, 1 of 1, and 0.25 of nothing, which counts as it is.
    assert export._largest(difference, np.array([6.0, 1.0, 0.0])) == 1.0
    assert export._largest(difference[::2], np.array([6.0, 0.0])) == 0.5
    assert np.isnan(export._largest(np.array([1.0, np.nan]), np.array([1.0, 1.0])))


# --- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    fitted.save(path, preprocessing=Preprocessing(size=16).to_dict())
    return path


def test_the_command_checks_on_the_images_given_and_says_what_it_found(model, tmp_path):
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    out = tmp_path / "m.onnx"
    code, said = call("export", model, "--out", out, "--check", tmp_path / "images")
    assert code == 0, said
    assert "against PyTorch on 3 images given: scores differ by" in said
    assert metadata(out)["parity"]["images"] == 3


def test_an_image_to_check_on_that_cannot_be_read_is_named(model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"Cannot read '.*bad\.png'"):
        export_run(model, tmp_path / "m.onnx", [tmp_path / "bad.png"])


def test_a_model_of_arrays_cannot_read_files(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    with pytest.raises(ValueError, match="was fitted to arrays: it cannot read files"):
        export_run(tmp_path / "model", tmp_path / "m.onnx", [tmp_path])
    assert export_run(tmp_path / "model", tmp_path / "m.onnx").of == "phantoms"


def test_a_graph_that_resizes_scores_as_files_are_scored(raw, tmp_path):
    """To 1e-5, smaller and larger, and its metadata say by which rule."""
    fitted = quick("gabor_mahalanobis").fit(raw[:12])
    fitted.preprocessing_ = Preprocessing(size=16).to_dict()
    path = tmp_path / "model.onnx"
    assert export_onnx(fitted, path, resize=True).score < 1e-4
    session = session_of(path)
    for shape in [(16, 16), (64, 48), (150, 31), (11, 90), (2, 3)]:
        films = 100 * np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32).cumsum(1)
        small = [
            np.asarray(Image.fromarray(film).resize((16, 16), Image.Resampling.BILINEAR))
            for film in films
        ]
        (scores,) = session.run(["anomaly_score"], {"image": films[:, None]})
        np.testing.assert_allclose(scores, fitted.anomaly_score(np.array(small)), rtol=1e-4)
    rule = metadata(path)["resize"]
    assert (rule["in_graph"], rule["antialias"], rule["numbers"]) == (True, True, "float32")
    assert rule["grey"] == [0.299, 0.587, 0.114]
    export_onnx(fitted, path)
    assert not metadata(path)["resize"]["in_graph"]


def test_a_graph_resizes_only_what_was_stretched_from_files(raw, tmp_path):
    fitted = quick("gabor_mahalanobis").fit(raw[:12])
    for preprocessing in (None, Preprocessing(size=16, fit="pad").to_dict()):
        fitted.preprocessing_ = preprocessing
        with pytest.raises(ValueError, match="cannot resize: .* Leave out --resize"):
            export_onnx(fitted, tmp_path / "model.onnx", resize=True)


def test_a_run_is_exported_by_the_score_that_is_asked_for(raw, tmp_path):
    quick("cae").fit(raw[:12]).save(tmp_path / "model.safetensors")
    for score in ("residual", "correlation"):
        export_run(tmp_path / "model.safetensors", tmp_path / "model.onnx", score=score)
        assert metadata(tmp_path / "model.onnx")["scored_by"] == score


def test_a_graph_replaces_graphs_alone(fitted, raw, tmp_path):
    other, path = tmp_path / "scores.csv", tmp_path / "model.onnx"
    other.write_text("path,anomaly_score\n")
    with pytest.raises(FileExistsError, match="another file than this command writes"):
        export_onnx(fitted, other, images=raw)
    assert other.read_text() == "path,anomaly_score\n"
    for _ in range(2):
        export_onnx(fitted, path, images=raw)
