"""The methods: one file each, found by their id."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple


class Method(NamedTuple):
    """Where a method's class is found, and who published it."""

    module: str
    class_name: str
    source: str


METHODS = {
    "conocc": Method("conocc", "ConOCC", "Gao et al., the paper"),
    "ocsvm": Method("ocsvm", "OCSVM", "Schölkopf et al. 2000"),
    "cocsvm": Method("cocsvm", "COCSVM", "Gao et al., section 3.1"),
    "cae": Method("cae", "CAE", "Gao et al., section 3.1"),
    "sae": Method("sae", "SAE", "Glorot et al. 2011"),
    "dagmm": Method("dagmm", "DAGMM", "Zong et al. 2018"),
    "dsvdd": Method("deep_svdd", "DeepSVDD", "Ruff et al. 2018"),
    "anogan": Method("anogan", "AnoGAN", "Schlegl et al. 2017"),
    "lrt": Method("lrt.lrt", "LRT", "this package, docs/research/successor.md"),
    "gabor_mahalanobis": Method("gabor_mahalanobis", "GaborMahalanobis", "Ledoit and Wolf 2004"),
}
ALIASES = {"profile": "gabor_mahalanobis"}  # until 0.2


def method_id(name: str) -> str:
    """Give the id of a method, under which results are kept, for an id or an alias.

    Raises
    ------
    ValueError
        If there is no such method; the message lists those there are.
    """
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise ValueError(f"There is no method {name!r}; there are {', '.join(METHODS)}.")
    return name


def method_class(name: str) -> Any:
    """Give the class of a method's id, or alias; an unknown one is refused as by `method_id`."""
    method = METHODS[method_id(name)]
    module = importlib.import_module(f"conocc.detectors.{method.module}")
    return getattr(module, method.class_name)


def load(path: str | Path) -> Any:
    """Read a saved detector of any method (see `OneClassDetector.load`)."""
    from conocc.io.safetensors import read

    header, _ = read(path, "model")
    for name, method in METHODS.items():
        if method.class_name == header["class"]:
            return method_class(name).load(path)
    raise ValueError(
        f"Cannot read model '{path}': this version of conocc has no method {header['class']!r}."
    )
