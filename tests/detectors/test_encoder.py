"""Encoders that people bring: what they make of an image is learned, and nothing else runs."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import conocc
from conftest import quick
from conocc.detectors import encoder as of_encoder
from conocc.detectors.encoder import encoded, encoder_hash, read_encoder
from conocc.io.safetensors import read, write
from test_cli import call

onnx = pytest.importorskip("onnx")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT

WEIGHTS = np.random.default_rng(3).normal(size=(6, 3, 4, 4)).astype(np.float32)


def made(
    path: Path,
    *,
    image=("n", 3, "h", "w"),
    kind=FLOAT,
    nodes=(),
    outputs=("vector",),
    weights=WEIGHTS,
) -> str:
    """Write an encoder: a convolution in steps of 4 (`map`), its means (`vector`)."""
    own = (
        helper.make_node("Conv", ["image", "weights"], ["map"], strides=[4, 4]),
        helper.make_node("ReduceMean", ["map", "axes"], ["vector"], keepdims=0),
        helper.make_node("Reshape", ["map", "flat"], ["channels"]),
        helper.make_node("Transpose", ["channels"], ["tokens"], perm=[0, 2, 1]),
    )
    constants = [
        onnx.numpy_helper.from_array(weights, "weights"),
        onnx.numpy_helper.from_array(np.array([2, 3]), "axes"),
        onnx.numpy_helper.from_array(np.array([0, 6, -1]), "flat"),
    ]
    graph = helper.make_graph(
        nodes or own,
        "encoder",
        [helper.make_tensor_value_info("image", kind, image)],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return str(path)


@pytest.fixture
def path(tmp_path) -> str:
    return made(tmp_path / "encoder.onnx")


def scaled(images: np.ndarray) -> np.ndarray:
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    return ((images - low) / (high - low)).astype(np.float32)


def by_hand(images: np.ndarray) -> np.ndarray:
    """The encoder's map of grey images, as sums; (n, 16, 16) -> (n, 6, 4, 4)."""
    cells = scaled(images).reshape(-1, 4, 4, 4, 4)
    return np.einsum("niyjx,cyx->ncij", cells, WEIGHTS.sum(1))


def test_layers_are_seen_as_vectors_or_maps(path, images):
    """Grey images are repeated; of a map the vector is the mean, and of tokens too."""
    expected = by_hand(images)
    for layer in ("vector", "map", "tokens"):
        graph = read_encoder(path, layer)
        vectors = encoded(graph, images[:, None], as_map=False)
        np.testing.assert_allclose(vectors, expected.mean((2, 3)), atol=1e-5)
        maps = encoded(graph, images[:, None], as_map=True)
        wanted = expected.mean((2, 3), keepdims=True) if layer == "vector" else expected
        np.testing.assert_allclose(maps, wanted, atol=1e-5)


def test_what_leads_the_tokens_of_a_square_is_no_place(tmp_path, images):
    """Such as a class token and registers."""
    nodes = (
        helper.make_node("Conv", ["image", "weights"], ["map"], strides=[4, 4]),
        helper.make_node("Reshape", ["map", "flat"], ["channels"]),
        helper.make_node("Transpose", ["channels"], ["places"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["places"], ["first"], keepdims=1),
        helper.make_node("Expand", ["first", "leading"], ["class"]),
        helper.make_node("Concat", ["class", "places"], ["tokens"], axis=1),
        helper.make_node("Constant", [], ["leading"], value_ints=[1, 2, 6]),
    )
    nodes = (nodes[-1], *nodes[:-1])
    path = made(tmp_path / "tokens.onnx", nodes=nodes, outputs=("tokens",))
    maps = encoded(read_encoder(path, None), images[:, None], as_map=True)
    np.testing.assert_allclose(maps, by_hand(images), atol=1e-5)


def test_large_maps_are_averaged_and_of_many_channels_some_drawn(tmp_path, images):
    large = np.kron(images, np.ones((5, 5)))  # 80 pixels: 20 places a side
    weights = np.random.default_rng(0).normal(size=(120, 3, 4, 4)).astype(np.float32)
    path = made(tmp_path / "wide.onnx", outputs=("map",), weights=weights)
    maps = encoded(read_encoder(path, None), large[:, None], as_map=True)
    assert maps.shape == (20, 100, 16, 16)
    assert np.array_equal(maps[:3], encoded(read_encoder(path, None), large[:3, None], as_map=True))


@pytest.mark.parametrize("name", ["ocsvm", "gabor_mahalanobis", "cae", "dsvdd", "lrt", "dagmm"])
def test_methods_learn_what_comes_out_as_they_learn_vectors(name, path, images):
    """With the same scores, and the image's own hash as its identity."""
    of_images = quick(name, encoder=path, false_alarms=None).fit(images)
    vectors = encoded(read_encoder(path, None), images[:, None], as_map=False)
    of_vectors = quick(name, false_alarms=None).fit(vectors)
    assert np.array_equal(of_images.anomaly_score(images), of_vectors.anomaly_score(vectors))
    assert np.array_equal(of_images.knows(images), np.ones(20, bool))
    assert of_images.input_shape_ == (1, 16, 16)
    assert not hasattr(of_images, "reconstruct")
    assert not hasattr(of_images, "differences")


def test_patches_are_scored_by_place(path, images):
    """Against the definition, in NumPy, for the Gaussian and for the neighbours."""
    from sklearn.covariance import LedoitWolf

    train, new = images[:15], images[15:]
    maps = by_hand(images).reshape(20, 6, 16)
    z = (maps - maps[:15].mean(0)) / maps[:15].std(0)
    gaussian, nearest = np.empty((5, 16)), np.empty((5, 16))
    for p in range(16):
        gaussian[:, p] = LedoitWolf().fit(z[:15, :, p]).mahalanobis(z[15:, :, p])
        nearest[:, p] = np.linalg.norm(z[15:, None, :, p] - z[None, :15, :, p], axis=2).min(1)
    for distance, of_place in (("gaussian", gaussian), ("nearest", nearest)):
        settings = {"encoder": path, "layer": "map", "distance": distance}
        fitted = quick("patches", **settings).fit(train)
        highest = np.sort(of_place, 1)[:, -2:].mean(1)
        np.testing.assert_allclose(fitted.anomaly_score(new), highest, rtol=1e-3)
        drawn = fitted.differences(new)
        assert drawn.shape == (5, 1, 16, 16)
        np.testing.assert_allclose(drawn.sum((1, 2, 3)), of_place.sum(1), rtol=1e-3)


def test_a_model_is_whole_and_names_its_encoder_by_content(path, images, tmp_path):
    """It scores, calibrates and knows what it has seen, without the file."""
    fitted = quick("patches", encoder=path, layer="map").fit(images[:12])
    fitted.save(tmp_path / "model.safetensors")
    name = encoder_hash(path)
    Path(path).unlink()
    again = conocc.load(tmp_path / "model.safetensors")
    assert np.array_equal(again.anomaly_score(images), fitted.anomaly_score(images))
    assert again.encoder == name
    assert name.startswith("sha256:")
    assert path not in str(read(tmp_path / "model.safetensors", "model")[0])
    assert again.knows(images).sum() == 12
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()
    again.calibrate(images[12:])
    with pytest.raises(ValueError, match="is inside its model. To fit anew, name its ONNX file"):
        again.fit(images)
    again.set_params(encoder=None, layer=None).fit(images)
    assert not hasattr(again, "encoder_graph_")


def test_the_score_of_an_image_hangs_on_no_batch_and_no_thread(path, images):
    import torch

    fitted = quick("patches", encoder=path, layer="map").fit(images)
    together = fitted.anomaly_score(images)
    assert np.array_equal(together, [fitted.anomaly_score(x[None])[0] for x in images])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert np.array_equal(fitted.anomaly_score(images), together)
    finally:
        torch.set_num_threads(before)


# --- what is refused ----------------------------------------------------------------------------


def test_what_is_no_encoder_is_refused_in_a_sentence(path, images, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(Path(path).read_bytes()[:-300])
    text = tmp_path / "text.onnx"
    text.write_text("no model at all")
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    words = made(tmp_path / "words.onnx", image=("n", 16), kind=onnx.TensorProto.INT64)
    wide = made(tmp_path / "wide.onnx", image=("n", 5, "h", "w"))
    unknown = made(
        tmp_path / "unknown.onnx",
        nodes=[helper.make_node("Evil", ["image"], ["vector"], domain="x")],
    )
    two = made(tmp_path / "two.onnx", outputs=("vector", "map"))
    for given, layer, sentence in (
        (str(tmp_path / "none.onnx"), None, "There is no encoder '.*none.onnx'."),
        (str(tmp_path), None, "Cannot read the encoder '.*': it is not a regular file."),
        (str(damaged), None, "Cannot read the encoder '.*damaged.onnx'|ONNX Runtime cannot use"),
        (str(text), None, "Cannot read the encoder '.*text.onnx'"),
        (str(empty), None, "Cannot read the encoder '.*empty.onnx': it is no ONNX model."),
        (words, None, "is no encoder of images. It needs one input, .* its inputs are: image."),
        (wide, None, "is no encoder of images."),
        (unknown, None, "ONNX Runtime cannot use the encoder: "),
        (two, None, "has 2 outputs. Name one .--layer.: vector, map."),
        (path, "vektor", "has no layer 'vektor' .--layer.. It has: vector"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            quick("ocsvm", encoder=given, layer=layer).fit(images)
    monkeypatch.setattr(of_encoder, "LARGEST_BYTES", 1000)
    with pytest.raises(ValueError, match="Cannot read the encoder '.*': it has more than .* GiB."):
        quick("ocsvm", encoder=path).fit(images)


def test_a_graph_that_asks_for_all_memory_is_refused(tmp_path, images):
    nodes = (
        helper.make_node("Constant", [], ["shape"], value_ints=[1, 2**40]),
        helper.make_node("ConstantOfShape", ["shape"], ["vector"]),
    )
    path = made(tmp_path / "bomb.onnx", nodes=nodes)
    with pytest.raises(ValueError, match="ONNX Runtime cannot (use|run) the encoder"):
        quick("ocsvm", encoder=path).fit(images)


def apart(path: str, location: str) -> None:
    """Have an encoder's weights in another file."""
    model = onnx.load(path, load_external_data=False)
    (weights,) = (one for one in model.graph.initializer if one.name == "weights")
    weights.raw_data = WEIGHTS.tobytes()
    onnx.external_data_helper.set_external_data(weights, location)
    weights.ClearField("raw_data")
    Path(path).write_bytes(model.SerializeToString())


def test_weights_may_lie_beside_the_graph_and_nowhere_else(path, images, tmp_path):
    expected = quick("ocsvm", encoder=path).fit(images).anomaly_score(images)
    one_file = encoder_hash(path)
    beside = tmp_path / "encoder.data"
    beside.write_bytes(WEIGHTS.tobytes())
    apart(path, beside.name)
    fitted = quick("ocsvm", encoder=path).fit(images)
    assert np.array_equal(fitted.anomaly_score(images), expected)
    assert (first := encoder_hash(path)) != one_file
    beside.write_bytes((2 * WEIGHTS).tobytes())
    assert encoder_hash(path) != first

    outside = tmp_path.parent / f"{tmp_path.name}-outside.data"
    outside.write_bytes(WEIGHTS.tobytes())
    link = tmp_path / "link.data"
    link.symlink_to(outside)
    for location in (f"../{outside.name}", str(outside), link.name):
        apart(path, location)
        with pytest.raises(ValueError, match="it reaches for weights outside its folder."):
            quick("ocsvm", encoder=path).fit(images)


def test_weights_that_are_too_large_are_refused_before_they_are_read(path, tmp_path, monkeypatch):
    (tmp_path / "encoder.data").write_bytes(WEIGHTS.tobytes())
    apart(path, "encoder.data")
    monkeypatch.setattr(of_encoder, "LARGEST_BYTES", WEIGHTS.nbytes - 1)
    with pytest.raises(ValueError, match="its weights have more than .* GiB"):
        read_encoder(path, None)


def test_what_the_encoder_cannot_compute_of_an_image_is_one_sentence(images, tmp_path):
    """That its sides do not divide is known no sooner."""
    axes = helper.make_node("Reshape", ["image", "axes"], ["vector"])  # to (2, 3)
    path = made(tmp_path / "reshape.onnx", nodes=(axes,))
    with pytest.raises(ValueError, match="ONNX Runtime cannot run the encoder: "):
        quick("ocsvm", encoder=path).fit(images)


def test_a_forged_model_opens_no_file(path, images, tmp_path, monkeypatch):
    """What a saved model holds of weights elsewhere is not followed."""
    quick("ocsvm", encoder=path).fit(images).save(tmp_path / "model")
    (tmp_path / "encoder.data").write_bytes(WEIGHTS.tobytes())
    apart(path, "encoder.data")
    header, tensors = read(tmp_path / "model", "model")
    import torch

    forged = np.frombuffer(Path(path).read_bytes(), np.uint8)
    write(tmp_path / "model", "model", header, {**tensors, "encoder_graph_": torch.tensor(forged)})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="ONNX Runtime cannot use the encoder"):
        conocc.load(tmp_path / "model").anomaly_score(images)


def test_images_that_an_encoder_cannot_take_are_refused_with_the_option(path, images, tmp_path):
    fixed = made(tmp_path / "fixed.onnx", image=(1, 3, 24, 24))
    with pytest.raises(
        ValueError, match="takes images of 24x24 pixels, and these have 16x16. .*24"
    ):
        quick("ocsvm", encoder=fixed).fit(images)
    grey = made(tmp_path / "grey.onnx", image=(1, 1, "h", "w"), weights=WEIGHTS[:, :1])
    with pytest.raises(ValueError, match="--colour grey"):
        quick("ocsvm", encoder=grey).fit(np.stack([images] * 3, 1))
    with pytest.raises(ValueError, match="An encoder takes images; X holds vectors"):
        quick("ocsvm", encoder=path).fit(images.reshape(20, -1))


# --- commands -----------------------------------------------------------------------------------


def test_a_run_with_an_encoder_goes_all_the_way(path, images, tmp_path, monkeypatch):
    """Fitted, evaluated, scored and explained, the encoder's file gone after the fit."""
    monkeypatch.chdir(tmp_path)
    for i, image in enumerate(np.concatenate([images, images[:6] * [[[1], [-1]] * 8]])):
        pixels = np.uint8(255 * scaled(image[None])[0])
        file = tmp_path / "films" / ("odd" if i >= 20 else "plain") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    fit = ("fit", "films", "--majority", "plain", "--method", "patches", "--encoder", path)
    fit = (*fit, "--layer", "map", "--out", "run", "--no-cache", "-q")
    assert call(*fit)[0] == 0
    assert call(*fit)[1].endswith("nothing was done.\n")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["params"]["encoder"] == encoder_hash(path)
    made(Path(path), weights=2 * WEIGHTS)  # another encoder by the same name is another fit
    code, said = call(*fit)
    assert (code, "encoder was 'sha256:" in said) == (1, True)
    os.unlink(path)
    assert call("evaluate", "run", "films", "--no-cache", "-q")[0] == 0
    assert call("score", "run", "films", "-q")[0] == 0
    assert call("explain", "run", "films", "--out", "explained", "-q")[0] == 0
    assert call("review", "run", "films", "--out", "review", "-q")[0] == 0
    code, said = call("export", "run", "--out", "model.onnx")
    assert (code, "its encoder is a graph of its own" in said) == (1, True)


def test_a_fit_reads_its_encoder_once(path, images, monkeypatch):
    read_of, paths = of_encoder._read, []
    monkeypatch.setattr(of_encoder, "_read", lambda name: paths.append(name) or read_of(name))
    quick("gabor_mahalanobis", encoder=path, layer="map").fit(images)
    assert paths == [path]


def test_without_onnx_it_is_said_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"needs the module 'onnx': pip install"):
        quick("patches", encoder=path).check_params()
