"""Saved models and checkpoints: safetensors files, with all that is no array as JSON in the header.

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

FORMAT = 1


def write(
    path: str | Path, kind: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors with a header of JSON values, whole or not at all.

    `kind` is what people call the file: ``"model"`` or ``"checkpoint"``.

    Raises
    ------
    OSError
        If the disk is full, or the folder may not be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, "kind": kind, **header})
    with atomic_write(Path(path)) as temporary:
        try:
            # One entry: of several, safetensors changes the order from file to file.
            save_file(tensors, temporary, {"conocc": f"{_sha256(text, tensors)} {text}"})
        except SafetensorError as error:
            raise OSError(f"Cannot write '{path}': {error}.") from error


def read(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and verify the header and the tensors that `write` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, of another kind or program, or of a newer format.
    """
    path = Path(path) / f"{kind}.safetensors" if Path(path).is_dir() else Path(path)  # of a run
    if not path.exists():
        raise FileNotFoundError(f"There is no {kind} '{path}'.")
    try:
        with safe_open(path, framework="pt") as file:
            checksum, _, text = (file.metadata() or {})["conocc"].partition(" ")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        header = json.loads(text)
        if header["format"] != FORMAT:
            reads = f"conocc {__version__} reads {FORMAT}, a newer version may read it"
            raise ValueError(f"its format is {header['format']}; {reads}")
        if checksum != _sha256(text, tensors):
            raise ValueError("its content does not match its checksum")
        if header["kind"] != kind:
            raise ValueError(f"it is a {header['kind']}")
    except (KeyError, TypeError) as error:
        raise ValueError(f"Cannot read {kind} '{path}': it has no header of conocc.") from error
    except SafetensorError as error:
        raise ValueError(
            f"Cannot read {kind} '{path}': it is damaged, or another kind of file ({error}). A run "
            "is named by its folder."
        ) from error
    except (ValueError, OSError) as error:
        raise ValueError(f"Cannot read {kind} '{path}': {error}.") from error
    return header, tensors


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Give the tensors whose names begin with a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _sha256(header: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
