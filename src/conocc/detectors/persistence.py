"""Saved detectors: what a detector has learned, to and from one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conocc._version import __version__
from conocc.detectors.residual_scale import ResidualScale
from conocc.io.safetensors import below, read, write
from conocc.thresholds.conformal import Calibration
from conocc.training import default_settings

# Where and how loudly a detector was fitted is no part of what it learned.
NEUTRAL = {"device": "auto", "verbose": 0}
# Learned values that JSON holds in another form.
FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "input_shape_": tuple,
    "seen_shape_": tuple,
    "feature_names_in_": lambda names: np.array(names, object),
    "calibration_": lambda values: values and Calibration.from_json(values),
    "residual_scale_": lambda values: values and ResidualScale(**values),
    **dict.fromkeys(
        ("calibration_digests_", "calibration_patients_"),
        lambda rows: np.array(rows, np.uint8).reshape(-1, 16),
    ),
    "other_scores_": lambda scores: {k: from_json(values) for k, values in scores.items()},
}


def from_json(values: dict[str, Any]) -> dict[str, Any]:
    """Give learned values as they were before JSON held them."""
    return {k: FROM_JSON[k](value) if k in FROM_JSON else value for k, value in values.items()}


NEEDED = {
    *("input_shape_", "offset_", "held_out_offset_", "seed_", "threads_", "history_"),
    *("preprocessing_", "origin_", "other_scores_"),
    *("training_digests_", "training_patients_", "residual_scale_"),
    *("calibration_", "calibration_digests_", "calibration_patients_"),
}


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Give values as JSON gives them back: numbers and lists for NumPy's, tables for records."""

    def simpler(value: Any) -> Any:
        return value.as_json() if hasattr(value, "as_json") else value.tolist()

    return json.loads(json.dumps(values, default=simpler))


def learned(detector: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Divide what ends in an underscore into tensors and values that JSON holds."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, value in vars(detector).items():
        if not name.endswith("_"):
            continue
        if isinstance(value, nn.Module):
            tensors |= {f"{name}.{k}": v for k, v in value.state_dict().items()}
        elif isinstance(value, np.ndarray) and value.dtype != object:  # as names of columns are
            tensors[name] = torch.from_numpy(value.copy())
        else:
            values[name] = value
    return tensors, plain(values)


def save(detector: Any, path: str | Path, preprocessing: dict[str, Any] | None) -> None:
    """Write a fitted detector (see `OneClassDetector.save`)."""
    tensors, values = learned(detector)
    values["preprocessing_"] = preprocessing
    versions = {"conocc": __version__, "torch": torch.__version__, "method": detector.revision}
    header = {
        "class": type(detector).__name__,
        "params": detector.plain_params(random_state=detector.seed_, **NEUTRAL),
        # Sorted: in the order of attributes a loaded detector would differ from a fitted one.
        "values": dict(sorted(values.items())),
        "versions": versions,
    }
    refusal = f"Cannot save this {type(detector).__name__} as its parameters are now, fit it again"
    _made(type(detector), header, tensors, refusal)  # or what was learned could not be read
    write(path, "model", header, tensors)


def load(cls: Any, path: str | Path) -> Any:
    """Read a detector of a class (see `OneClassDetector.load`)."""
    header, tensors = read(path, "model")
    if header["class"] != cls.__name__:
        raise ValueError(f"'{path}' holds a {header['class']}, not a {cls.__name__}.")
    return _made(cls, header, tensors, f"Cannot read model '{path}'")


def _made(cls: Any, header: dict[str, Any], tensors: dict[str, Tensor], refusal: str) -> Any:
    try:
        return _filled(cls, header, tensors)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{refusal}: {str(error).splitlines()[0]}.") from error


def _filled(cls: Any, header: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    revision, version = header["versions"]["method"], header["versions"]["conocc"]
    if revision != cls.revision:
        raise ValueError(
            f"it is of revision {revision} of {cls.__name__}, this version of conocc "
            f"({__version__}) computes revision {cls.revision}; fit it again, or read it "
            f"with conocc {version}"
        )
    if missing := NEEDED - {*header["values"], *tensors}:
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in header["params"].items()}
    detector = cls(**params)
    for name, value in from_json(header["values"]).items():
        setattr(detector, name, value)
    if min(detector.input_shape_) < 1:
        raise ValueError(f"its images are of shape {detector.input_shape_}")
    detector._validate_params()
    with default_settings(torch.device("cpu")):
        with torch.device("meta"):  # a header must not ask for more memory than its file fills
            detector._build()
        _fill(detector, tensors)
    return detector


def _fill(detector: Any, tensors: dict[str, Tensor]) -> None:
    """Give the weights of a file to modules that have none yet, and set its arrays."""
    modules = {k: v for k, v in vars(detector).items() if isinstance(v, nn.Module)}
    for name, module in modules.items():
        has = below(tensors, f"{name}.")
        for key, value in module.state_dict().items():
            if has[key].shape != value.shape:
                raise ValueError(
                    f"its parameters make {key!r} {tuple(value.shape)}, its file holds "
                    f"{tuple(has[key].shape)}"
                )
            has[key] = has[key].to(value.dtype, copy=True)  # a file that changes later changes none
        # Modules are not emptied first (`to_empty`), for which torch imports sympy, in 0.3 s.
        module.load_state_dict(has, assign=True)
    for name, tensor in tensors.items():
        if "." not in name:
            setattr(detector, name, tensor.numpy())
