"""Saved models: one safetensors file, with everything that is not an array as JSON in its header.

Nothing in such a file can execute. A checksum over all of it tells damage, and a format number
tells a file that a newer version wrote.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from conocc._version import __version__
from conocc.io.files import atomic_write

MODEL_FORMAT = 1
HEADER_KEYS = {"format", "class", "params", "values", "versions", "sha256"}


def write_model(path: str | Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a model whole or not at all; `header` holds the `HEADER_KEYS` but format and sum."""
    tensors = on_cpu(tensors)
    header = {"format": MODEL_FORMAT, **header, "sha256": _sha256(header, tensors)}
    write_tensors(Path(path), header, tensors)


def write_tensors(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write tensors with a header of JSON values, whole or not at all.

    Raises
    ------
    OSError
        If the disk is full, or the folder may not be written.
    """
    with atomic_write(path) as temporary:
        try:
            save_file(on_cpu(tensors), temporary, metadata={"conocc": json.dumps(header)})
        except SafetensorError as error:
            raise OSError(f"Cannot write '{path}': {error}.") from error


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_tensors` wrote; a ValueError has the reason why it cannot be."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["conocc"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        reason = "it has no header of conocc" if isinstance(error, KeyError) else error
        raise ValueError(f"{reason}") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no table of names and values")
    return header, tensors


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors as files hold them."""
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Give the tensors whose names begin with a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def read_model(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and verify a saved model's header and tensors (see `OneClassDetector.load`)."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no model '{path}'.")
    try:
        header, tensors = read_tensors(path)
    except ValueError as error:
        raise ValueError(f"Cannot read model '{path}': {error}.") from error
    if header.get("format") != MODEL_FORMAT:
        raise ValueError(
            f"Cannot read model '{path}': its format is {header.get('format')}, this version of "
            f"conocc ({__version__}) reads {MODEL_FORMAT}. A newer version may."
        )
    if not header.keys() >= HEADER_KEYS:
        raise ValueError(f"Cannot read model '{path}': its header is incomplete.")
    if header["sha256"] != _sha256(header, tensors):
        raise ValueError(f"Cannot read model '{path}': its content does not match its checksum.")
    return header, tensors


def _sha256(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    said = {key: header[key] for key in sorted(HEADER_KEYS - {"format", "sha256"})}
    digest = hashlib.sha256(json.dumps(said).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
