"""A detector as one ONNX graph: from raw images to scores and residuals, without Python.

Normalisation is inside the graph. The threshold, the calibration, and how files become arrays
are in its metadata, as JSON, since they may be chosen anew without a new graph. A graph is
written only if ONNX Runtime computes with it what PyTorch computes.

Letters: n images, c channels, h and w pixels, d features of a vector.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from conocc._version import __version__
from conocc.data.phantoms import draw_phantom
from conocc.data.preprocessing import SPARE, _stretch
from conocc.data.unlabelled import load_images
from conocc.detectors.encoder import need_modules
from conocc.detectors.file_scores import preprocessing_of
from conocc.detectors.persistence import learned
from conocc.experiments.run import load_model
from conocc.io.files import atomic_write, refuse_unmarked

EXPORT_FORMAT = 1
# How far ONNX Runtime may be from PyTorch, see `Parity`.
TOLERANCE = 1e-4
# A graph is one protobuf message, which can hold no more.
LARGEST_BYTES = 2**31 - 1
# With what a graph begins that conocc made: the length of its name, and its name (protobuf).
PRODUCER = b"\x12\x06conocc"
INPUT, SCORE, RESIDUAL = "image", "anomaly_score", "residual"


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime is from PyTorch.

    Attributes
    ----------
    images : int
        How many images both saw.
    of : str
        ``"images given"`` or ``"phantoms"``.
    score : float
        Largest difference of a score, relative to the score; where that is smaller than half of
        the scores are, relative to their median size, since scores of some methods cross zero.
    residual : float or None
        Largest difference of a pixel, relative to the largest residual of its image.
    runtime : str
        Version of ONNX Runtime.
    """

    images: int
    of: str
    score: float
    residual: float | None
    runtime: str

    def words(self) -> str:
        """Say what was compared, and what was found."""
        residuals = "" if self.residual is None else f", residuals by {self.residual:.1e}"
        return (
            f"ONNX Runtime {self.runtime} against PyTorch on {self.images} {self.of}: scores "
            f"differ by {self.score:.1e} at most{residuals}; {TOLERANCE:g} is allowed."
        )


def export_onnx(
    detector: Any, path: str | Path, *, images: Any = None, resize: bool = False
) -> Parity:
    """Write a fitted detector as an ONNX graph, and check it against PyTorch.

    The input ``image`` is float32 of shape (n, c, h, w), or (n, d) for vectors, raw: as decoded
    and resized. The outputs are ``anomaly_score``, float32 of shape (n,), higher less like the
    majority, and, where the method reconstructs, ``residual``, shaped like the input:
    `OneClassDetector.differences`.

    Metadata, each a JSON text: ``format``, ``class``, ``version`` (of conocc), ``input_shape``,
    ``preprocessing`` (`Preprocessing.to_dict`, null for arrays), ``resize`` (by which filter, in
    which numbers, of which grey; null likewise), ``normalize``, ``scored_by``
    (null where a method has one score), ``threshold``
    (scores above it are minority; null where there is none), ``calibration``
    (`Calibration.as_json`, or null), ``residual_scale`` (`ResidualScale.as_json`, or null),
    ``parity``.

    Parameters
    ----------
    detector : OneClassDetector
        Fitted.
    path : path
        The file to write, whole or not at all.
    images : array of shape (n, h, w), (n, c, h, w) or (n, d), optional
        What to compare on; by default drawn phantoms, or random vectors.
    resize : bool
        Whether the graph takes images of any size, and resizes them as Pillow does when files are
        read; what is compared is then three times as high and twice as wide.

    Returns
    -------
    Parity

    Raises
    ------
    ValueError
        If the method is no graph, the graph would be too large, the extra ``onnx`` is not
        installed, or ONNX Runtime differs from PyTorch by more than `TOLERANCE`.

    Examples
    --------
    >>> import tempfile
    >>> from conocc import CAE
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> detector = CAE(epochs=2, random_state=0).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parity = export_onnx(detector, f"{folder}/model.onnx", images=images)
    >>> parity.score < 1e-4, parity.of
    (True, 'images given')
    """
    check_is_fitted(detector)
    name = type(detector).__name__
    if detector._no_graph:
        raise ValueError(f"{name} cannot be exported: {detector._no_graph}")
    if detector.encoder is not None:
        raise ValueError(f"{name} cannot be exported: its encoder is a graph of its own.")
    need_modules("Exporting", "onnx", "onnxruntime", "onnxscript")
    size = sum(tensor.nbytes for tensor in learned(detector)[0].values())
    if size > LARGEST_BYTES:
        raise ValueError(
            f"This {name} cannot be exported: it holds {size / 2**30:.1f} GiB, "
            f"and an ONNX file at most {LARGEST_BYTES / 2**30:.1f}."
        )
    refuse_unmarked(Path(path), PRODUCER)
    detector = copy.deepcopy(detector).set_params(device="cpu", verbose=0)
    # As float32, since the graph takes no other; with a channel, where images came without.
    given = detector._checked(_drawn(detector) if images is None else np.asarray(images, "f4"))
    if resize and (detector.preprocessing_ or {}).get("fit") != "stretch":
        raise ValueError(
            f"The graph of this {name} cannot resize: its images are not files that were stretched "
            "to a square (--fit stretch). Leave out --resize."
        )
    graph = _graph(detector, resize=resize)
    with atomic_write(Path(path)) as temporary:
        of = "phantoms" if images is None else "images given"
        parity = _compare(graph.SerializeToString(), detector, given, of, resize=resize)
        if not max(parity.score, parity.residual or 0.0) <= TOLERANCE:
            raise ValueError(
                f"This {name} was not exported, since it would differ: {parity.words()}"
            )
        _describe(graph, detector, parity, resize=resize)
        temporary.write_bytes(graph.SerializeToString())
    return parity


def export_run(
    run: str | Path,
    path: str | Path,
    where: Sequence[str | Path] = (),
    *,
    score: str | None = None,
    resize: bool = False,
    n_jobs: int | None = None,
) -> Parity:
    """Write the detector of a run's folder, or of a model file, as `export_onnx` does.

    `where` names images to compare on, of which the first 64 are read as the training
    images were; one that cannot be read is a `ValueError`.
    """
    detector = load_model(run, score)
    if not where:
        return export_onnx(detector, path, resize=resize)
    preprocessing = preprocessing_of(detector, run)
    block = next(load_images(where, preprocessing, detector.input_shape_, n_jobs=n_jobs))
    for _, reason in block.errors:
        raise ValueError(reason)
    return export_onnx(detector, path, images=block.images, resize=resize)


class _Graph(nn.Module):
    """Raw images to what a detector makes of them."""

    def __init__(self, detector: Any, *, resize: bool = False) -> None:
        super().__init__()
        self.resize = resize
        self.detector = detector
        # Weights in modules of its own are written once, others for each use.
        self.parts = nn.ModuleList(v for v in vars(detector).values() if isinstance(v, nn.Module))
        self.normalize = detector._normalization(torch.device("cpu"))
        self.outputs = [SCORE, RESIDUAL] if hasattr(detector, "_reconstruct") else [SCORE]
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.resize:
            h, w = self.detector.input_shape_[1:]
            image = triangle(image, 2, h) @ image @ triangle(image, 3, w).T
        x = self.normalize(image).float()
        score = self.detector._score(x).float()
        return (score, self.detector._difference(x)) if RESIDUAL in self.outputs else (score,)


def triangle(image: Tensor, axis: int, size: int) -> Tensor:
    """Give the weights of Pillow's bilinear filter along an axis of n pixels; -> (size, n).

    A triangle as wide as two pixels, of the image or of the result, whichever are larger.
    """
    place = torch.arange(image.shape[axis], dtype=torch.float64) + 0.5
    step = torch.ones_like(place).sum() / size
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * step
    weight = (1 - (place - centre[:, None]).abs() / step.clamp(min=1)).clamp(min=0)
    return (weight / weight.sum(1, keepdim=True)).to(image)


def _graph(detector: Any, *, resize: bool = False) -> Any:
    """Turn a detector on the CPU into an ONNX message.

    What the exporter warns of and logs is not about the detector, and is not shown.
    """
    module = _Graph(detector, resize=resize)
    shape, free = detector.input_shape_, {0: torch.export.Dim("n")}
    if resize:
        shape = shape[0], 37, 53
        free |= {2: torch.export.Dim("h", min=2), 3: torch.export.Dim("w", min=2)}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            program = torch.onnx.export(
                module,
                (torch.zeros(2, *shape),),
                input_names=[INPUT],
                output_names=module.outputs,
                dynamic_shapes={INPUT: free},
                dynamo=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None  # for mypy: None is what the older exporter returns
    graph = program.model_proto
    _forget_sources(graph)
    return graph


def _forget_sources(graph: Any) -> None:
    """Take out in which line of which file, on this machine, each step was traced."""
    nodes = [*graph.graph.node, *(node for function in graph.functions for node in function.node)]
    for node in nodes:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        nodes += [inner for attribute in node.attribute for inner in attribute.g.node]
    for value in graph.graph.value_info:
        value.ClearField("metadata_props")


def _compare(
    graph: bytes, detector: Any, images: np.ndarray, of: str, *, resize: bool = False
) -> Parity:
    import onnxruntime

    raw = images
    if resize:
        raw = images.repeat(3, 2).repeat(2, 3)
        h, w = images.shape[2:]
        small = [[_stretch(np.ascontiguousarray(plane), h, w) for plane in one] for one in raw]
        images = np.array(small)

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    score, *residual = session.run(None, {INPUT: raw})
    expected = detector.anomaly_score(images)
    size = np.maximum(np.abs(expected), np.median(np.abs(expected)))
    differs, left = _largest(np.abs(score - expected), size), None
    if residual:
        known = detector.differences(images)
        left = _largest(np.abs(residual[0] - known), np.abs(known).reshape(len(known), -1).max(1))
    return Parity(len(images), of, differs, left, onnxruntime.__version__)


def _largest(difference: np.ndarray, size: np.ndarray) -> float:
    """Give the largest difference relative to the size of each image; (n, ...), (n,)."""
    of_image = difference.reshape(len(difference), -1).max(1)
    # What is zero on both sides is equal; NaN, which passes through, is no parity.
    return float(np.max(np.divide(of_image, size, out=of_image.astype(float), where=size > 0)))


def _describe(graph: Any, detector: Any, parity: Parity, *, resize: bool) -> None:
    import onnx

    read = detector.preprocessing_
    rule = read and {
        "in_graph": resize,
        "filter": "triangle (bilinear), as Pillow's Image.resize",
        "antialias": True,
        "numbers": "float32",
        "grey": None if read["colour"] == "rgb" else [0.299, 0.587, 0.114],
        "jpeg": f"decoded at 1/2, 1/4 or 1/8 where {SPARE} x size stays on both sides"
        if read["scaled"]
        else "decoded whole",
    }

    about = {
        "format": EXPORT_FORMAT,
        "class": type(detector).__name__,
        "version": __version__,
        "input_shape": detector.input_shape_,
        "preprocessing": read,
        "resize": rule,
        "normalize": detector.normalize,
        "scored_by": getattr(detector, "scored_by", None),
        "threshold": None if detector.offset_ is None else -detector.offset_,
        "calibration": detector.calibration_ and detector.calibration_.as_json(),
        "residual_scale": detector.residual_scale_ and detector.residual_scale_.as_json(),
        "parity": vars(parity),
    }
    graph.producer_name, graph.producer_version = "conocc", __version__
    onnx.helper.set_model_props(graph, {key: json.dumps(value) for key, value in about.items()})


def _drawn(detector: Any) -> np.ndarray:
    """Draw images, or vectors, of the shape that the detector takes; -> (16, ...) float32."""
    shape = detector.input_shape_
    if len(shape) == 1:
        vectors = np.random.default_rng(0).normal(size=(16, *shape))
        own = vectors * detector.feature_scale_ + detector.feature_offset_
        return np.asarray(own, np.float32)
    c, h, w = shape
    counts = {"train": 0, "test_majority": 8, "test_minority": 8}
    phantoms = draw_phantom("phantom-mri", size=max(h, w), **counts).images
    return np.asarray(phantoms[:, None, :h, :w].repeat(c, axis=1), np.float32)
