"""The methods: one file each, found by their id."""

from __future__ import annotations

import csv
import importlib
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple


class Method(NamedTuple):
    """A line of ``methods.csv``: where a method's class is, who published it, what it can do.

    `epochs` are its default, "–" where it has none; `heat_map` says whether it draws one, as
    'explain' needs, `export` whether ONNX can hold it, `seconds` about how long a fit to 1,000
    images of 64 pixels a side takes on two cores (docs/research/performance.md and results.md).
    """

    module: str
    class_name: str
    source: str
    what: str
    epochs: str
    heat_map: str
    export: str
    seconds: str


_TABLE = files("conocc.detectors").joinpath("methods.csv").read_text(encoding="utf-8")
METHODS = {row.pop("id"): Method(**row) for row in csv.DictReader(_TABLE.splitlines())}
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
    """Read a saved detector of any method, from its file or the folder of its run."""
    from conocc.io.safetensors import read

    header, _ = read(path, "model")
    for name, method in METHODS.items():
        if method.class_name == header["class"]:
            return method_class(name).load(path)
    raise ValueError(
        f"Cannot read model '{path}': this version of conocc has no method {header['class']!r}."
    )
