"""Encoders that people bring: an ONNX file, executed by ONNX Runtime alone.

The file is read once, by `fit`, which keeps the whole graph, weights and all, in the model: a saved
model asks for no other file. An image is encoded by itself on one thread, so that what comes out
hangs neither on its batch nor on the machine's number of threads.

Letters: c channels, h and w pixels or places of a map, t tokens, d features of a vector.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from conocc.data.index import opened, printable
from conocc.detectors.input_validation import minmax
from conocc.io.progress import bar

LARGEST_BYTES = 2**30
# Of a map: more places are averaged, of more channels some are drawn, as PaDiM does.
MOST_PLACES, MOST_CHANNELS = 16, 100
NAMED = 5  # layers in a message


def encoder_hash(path: str) -> str:
    """Name an encoder by its content: ``sha256:`` and the hash of its file.

    That of a loaded model, which is so named already, is given back. Files of weights that lie
    outside the graph's own are hashed after it.
    """
    if path.startswith("sha256:"):
        return path
    _, files = _read(path)
    return "sha256:" + hashlib.sha256(b"".join(files)).hexdigest()


def read_encoder(path: str, layer: str | None) -> np.ndarray:
    """Read a graph from one image to one layer, an output or any inner one; -> (bytes,) uint8.

    Raises
    ------
    ValueError
        If the file is damaged, of more than `LARGEST_BYTES`, no encoder of images, or reaches for
        weights outside its folder; or if there is no such layer.
    """
    name = f"'{printable(path)}'"
    if path.startswith("sha256:"):
        raise ValueError(
            f"The encoder {path[:19]}… is inside its model. To fit anew, name its ONNX file."
        )
    model, _ = _read(path)
    import onnx  # not before `_read`, which says how to install it

    weights = {weight.name for weight in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    kinds = [one.type.tensor_type for one in inputs]
    sides = [[axis.dim_value for axis in kind.shape.dim] for kind in kinds]
    if not (
        [kind.elem_type for kind in kinds] == [onnx.TensorProto.FLOAT]
        and len(sides[0]) == 4
        and sides[0][0] in (0, 1)
        and sides[0][1] in (1, 3)
    ):
        listed = ", ".join(printable(one.name) for one in inputs[:NAMED]) or "none"
        raise ValueError(
            f"{name} is no encoder of images. It needs one input, float32 images (1, c, h, w) with "
            f"c of 1 or 3; its inputs are: {listed}."
        )
    outputs = [one.name for one in model.graph.output]
    inner = [out for node in model.graph.node for out in node.output if out]
    if layer is None and len(outputs) != 1:
        raise ValueError(
            f"{name} has {len(outputs)} outputs. Name one (--layer): {_some(outputs)}."
        )
    layer = layer or outputs[0]
    if layer not in outputs + inner:
        near = get_close_matches(layer, outputs + inner, NAMED, 0.4) or outputs
        raise ValueError(f"{name} has no layer {layer!r} (--layer). It has: {_some(near)}.")
    kept = [one for one in model.graph.output if one.name == layer]
    del model.graph.output[:]
    model.graph.output.extend(kept or [onnx.ValueInfoProto(name=layer)])
    graph = model.SerializeToString()
    _session(graph)  # or what it cannot run is found out after hours
    return np.frombuffer(graph, np.uint8)


def _some(names: list[str]) -> str:
    return ", ".join(map(printable, names[:NAMED])) + (" …" if len(names) > NAMED else "")


def need_modules(what: str, *modules: str) -> None:
    """Refuse what needs modules of the extra ``onnx``, where one is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise ValueError(f"{what} needs the module {module!r}: pip install 'conocc[onnx]'.")


def _read(path: str) -> tuple[Any, list[bytes]]:
    """Read a model with its weights, and the bytes of all its files."""
    need_modules("An encoder", "onnx", "onnxruntime")
    import onnx
    from onnx import external_data_helper as external

    name, folder = f"'{printable(path)}'", Path(path).parent
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no encoder {name}.")
    try:
        with opened("", path) as file:
            files = [file.read(LARGEST_BYTES + 1)]
        if len(files[0]) > LARGEST_BYTES:
            raise ValueError(f"it has more than {LARGEST_BYTES / 2**30:g} GiB")
        model = onnx.load_model_from_string(files[0])
        tensors = [one for one in model.graph.initializer if external.uses_external_data(one)]
        inside = {one.location for one in map(external.ExternalDataInfo, tensors)}
        apart = [(folder / one).resolve() for one in sorted(inside)]
        if not all(one.is_relative_to(folder.resolve()) for one in apart):
            raise ValueError("it reaches for weights outside its folder")
        if sum(one.stat().st_size for one in apart) > LARGEST_BYTES:
            raise ValueError(f"its weights have more than {LARGEST_BYTES / 2**30:g} GiB")
        external.load_external_data_for_model(model, str(folder))
        files += [one.read_bytes() for one in apart]
        if not model.graph.node:
            raise ValueError("it is no ONNX model")
    except Exception as error:  # of many kinds, from protobuf and from onnx
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"Cannot read the encoder {name}: {reason[0].rstrip('.')}.") from None
    return model, files


@lru_cache(maxsize=1)
def _session(graph: bytes) -> Any:
    """Have ONNX Runtime prepare a graph, which is whole: it opens no file."""
    need_modules("An encoder", "onnx", "onnxruntime")
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        with TemporaryDirectory() as nothing:  # what weights of other files are looked for in
            model = onnx.load_model_from_string(graph)
            onnx.external_data_helper.load_external_data_for_model(model, nothing)
        return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
    except Exception as error:  # which are of no common class
        raise ValueError(f"ONNX Runtime cannot use the encoder: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return printable(str(error).strip())[:300]


def encoded(graph: np.ndarray, X: np.ndarray, *, as_map: bool, verbose: int = 0) -> np.ndarray:
    """Encode images, each scaled to 0–1 by its own lowest and highest value.

    A grey image is repeated where three channels are needed. Of a layer (c, h, w) a vector is the
    mean over its places, and so it is of tokens (t, d).

    Parameters
    ----------
    graph : ndarray of uint8
        Of `read_encoder`.
    X : ndarray of shape (n, c, h, w)
    as_map : bool
        Give maps, of at most 16 places a side and 100 channels: of tokens the last that fill a
        square, whatever leads them, and of a vector one place.

    Returns
    -------
    ndarray of float32, shape (n, d), or (n, c, h, w) as maps
    """
    session = _session(graph.tobytes())
    image = session.get_inputs()[0]
    _refuse_misfit(image.shape[1:], X.shape[1:])
    shaped: Callable[[torch.Tensor], torch.Tensor] = _map_of if as_map else _vector_of

    def encode(x: np.ndarray) -> np.ndarray:
        scaled = minmax(torch.from_numpy(np.array(x[None], np.float64))).float()
        given = scaled.expand(1, image.shape[1], *x.shape[1:]).numpy()
        try:
            (layer,) = session.run(None, {image.name: given})
        except Exception as error:  # which are of no common class
            raise ValueError(f"ONNX Runtime cannot run the encoder: {_reason(error)}") from None
        if layer.dtype.kind != "f" or layer.ndim not in (2, 3, 4) or len(layer) != 1:
            raise ValueError(
                f"The encoder's layer gives {layer.dtype} of shape {layer.shape} for an image. "
                "Name one (--layer) of (1, d), tokens (1, t, d) or a map (1, c, h, w)."
            )
        return shaped(torch.from_numpy(layer).float())[0].numpy()

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        rows: list[np.ndarray] = []
        with bar("Encoding images", len(X), verbose=verbose) as advance:
            for row in pool.map(encode, X):
                rows.append(row)
                advance()
    return np.stack(rows)


def _refuse_misfit(wanted: list[Any], shape: tuple[int, ...]) -> None:
    c, h, w = (side if isinstance(side, int) else None for side in wanted)
    if shape[0] == 3 and c == 1:
        raise ValueError("The encoder takes grey images. Read these so (--colour grey).")
    if (h or shape[1], w or shape[2]) != shape[1:]:
        raise ValueError(
            f"The encoder takes images of {w}x{h} pixels, and these have {shape[2]}x{shape[1]}. "
            f"Read them as it needs them (--size {h})."
        )


def _vector_of(layer: torch.Tensor) -> torch.Tensor:
    if layer.ndim == 2:
        return layer
    return layer.mean(1) if layer.ndim == 3 else layer.mean((2, 3))


def _map_of(layer: torch.Tensor) -> torch.Tensor:
    if layer.ndim == 2:
        return layer[:, :, None, None]
    if layer.ndim == 3:
        side = math.isqrt(layer.shape[1])
        tokens = layer[:, -side * side :].mT
        layer = tokens.reshape(*tokens.shape[:2], side, side)
    if max(layer.shape[2:]) > MOST_PLACES:
        h, w = (min(side, MOST_PLACES) for side in layer.shape[2:])
        layer = F.adaptive_avg_pool2d(layer, (h, w))
    c = layer.shape[1]
    if c > MOST_CHANNELS:  # the same ones for each image, today and in a year
        drawn = np.random.RandomState(0).permutation(c)[:MOST_CHANNELS]
        layer = layer[:, torch.from_numpy(np.sort(drawn))]
    return layer
