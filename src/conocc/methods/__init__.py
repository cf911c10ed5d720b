"""The methods: one file each, found by their id."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple


class Method(NamedTuple):
    """Where a method's class is found in the module of its id, and who published it."""

    class_name: str
    source: str


METHODS = {
    "conocc": Method("ConOCC", "Gao et al., the paper"),
    "ocsvm": Method("OCSVM", "Schölkopf et al. 2000"),
    "cocsvm": Method("COCSVM", "Gao et al., section 3.1"),
    "cae": Method("CAE", "Gao et al., section 3.1"),
    "sae": Method("SAE", "Glorot et al. 2011"),
    "dagmm": Method("DAGMM", "Zong et al. 2018"),
    "dsvdd": Method("DeepSVDD", "Ruff et al. 2018"),
    "anogan": Method("AnoGAN", "Schlegl et al. 2017"),
    "lrt": Method("LRT", "this package, docs/successor.md"),
    "profile": Method("Profile", "Ledoit and Wolf 2004"),
}


def method_class(name: str) -> Any:
    """Give the class of a method's id.

    Raises
    ------
    ValueError
        If there is no such method; the message lists those there are.
    """
    if name not in METHODS:
        raise ValueError(f"There is no method {name!r}; there are {', '.join(METHODS)}.")
    return getattr(importlib.import_module(f"conocc.methods.{name}"), METHODS[name].class_name)


def load(path: str | Path) -> Any:
    """Read a saved detector of any method (see `OneClassDetector.load`)."""
    from conocc.model_file import read_model

    header, _ = read_model(path)
    ids = {method.class_name: name for name, method in METHODS.items()}
    if header["class"] not in ids:
        raise ValueError(
            f"Cannot read model '{path}': this version of conocc has no method {header['class']!r}."
        )
    return method_class(ids[header["class"]]).load(path)
