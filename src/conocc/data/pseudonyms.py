"""Names that stand for patients, made with a key that only the user has.

The same patient has the same pseudonym wherever this key is used; without the key, a pseudonym
can neither be turned back nor found by trying names. The key lies in the user's configuration
folder and goes nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from conocc.data.image_io.nifti import slice_name, volume_and_slice
from conocc.data.image_io.read import SUFFIXES

_KEY = re.compile(r"[0-9a-f]{64}\n")
# 64 bits: among a million patients two share one with a chance of 3 in 10^8.
_LETTERS = 16


def pseudonym(name: str) -> str:
    """Give the name that stands for `name`: HMAC-SHA256 with the user's key.

    It begins with a letter, so that no table is read as if it held numbers.

    Raises
    ------
    OSError, ValueError
        If the key cannot be read or made.
    """
    digest = hmac.new(_key(_folder() / "key"), name.encode("utf-8", "surrogatepass"), "sha256")
    return f"p{digest.hexdigest()[:_LETTERS]}"


def hide(path: str, is_told: Callable[[str], bool] | None = None) -> str:
    """Put pseudonyms in place of the files and folders of `path` whose names `is_told` finds.

    Without `is_told`, of all. The suffix of an image stays, and the number of a slice.
    """
    parts = path.split("/")
    told = [is_told is None or is_told(part) for part in parts]
    if is_told is not None and not any(told) and is_told("".join(parts)):
        # A slash cuts it in two, as in 1950/01/02.
        told = [True] * len(parts)
    return "/".join(_hidden(part) if yes else part for part, yes in zip(parts, told, strict=True))


def _hidden(part: str) -> str:
    if part in ("", ".", ".."):
        return part
    file, k = volume_and_slice(part)
    if k is not None:
        return slice_name(_hidden(file), k)
    suffix = next((suffix for suffix in SUFFIXES if part.lower().endswith(suffix)), "")
    return pseudonym(part) + part[len(part) - len(suffix) :]


def _folder() -> Path:
    if os.environ.get("CONOCC_CONFIG"):
        return Path(os.environ["CONOCC_CONFIG"])
    if os.environ.get("XDG_CONFIG_HOME"):
        return Path(os.environ["XDG_CONFIG_HOME"]) / "conocc"
    if sys.platform == "win32":
        roaming = os.environ.get("APPDATA")
        return (Path(roaming) if roaming else Path.home() / "AppData" / "Roaming") / "conocc"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "conocc"
    return Path.home() / ".config" / "conocc"


@cache
def _key(path: Path) -> bytes:
    try:
        if not path.exists():
            _make(path)
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise OSError(
            f"Cannot read or make the key of pseudonyms '{path}': {reason}. "
            "CONOCC_CONFIG names another folder for it."
        ) from None
    if not _KEY.fullmatch(text):
        raise ValueError(f"The key of pseudonyms '{path}' is damaged: it is not 64 hex digits.")
    return bytes.fromhex(text)


def _make(path: Path) -> None:
    """Write a key whole, mode 0600; of several at once, the first stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".key.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(hashlib.sha256().digest_size) + "\n")
        # Another process may have made one in the meantime.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
