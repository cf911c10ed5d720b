"""Names that stand for patients, made with a key that only the user has.

The same patient has the same pseudonym wherever this key is used; without the key, a pseudonym
can neither be turned back nor found by trying names. The key lies in the user's configuration
folder and goes nowhere else. Beside it are the names of files and folders that were hidden, by
which the user, and nobody else, finds them again (`reveal`).
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from filelock import FileLock
from platformdirs import user_config_path

from conocc.data.image_io.stack import slice_name, volume_and_slice
from conocc.data.index import stem
from conocc.io.files import atomic_write, folder_lock

logger = logging.getLogger("conocc")

_KEY_BYTES = 32
# 64 bits: among a million patients two share one with a chance of 3 in 10^8.
_PSEUDONYM_DIGITS = 16


def pseudonym(name: str) -> str:
    """Give the name that stands for `name`: HMAC-SHA256 with the user's key.

    It begins with a letter, so that no table is read as if it held numbers.

    Raises
    ------
    OSError, ValueError
        If the key cannot be read or made.
    """
    digest = hmac.new(_key(key_file()), name.encode("utf-8", "surrogatepass"), "sha256")
    return f"p{digest.hexdigest()[:_PSEUDONYM_DIGITS]}"


def key_fingerprint() -> str:
    """Tell the user's key from others, without telling the key."""
    return pseudonym("\0 fingerprint")


def key_file() -> Path:
    """Say where the user's key lies."""
    return _folder() / "key"


def hide(path: str, identifies: Callable[[str], bool] | None = None) -> str:
    """Put pseudonyms for those files and folders of `path` whose names identify a patient.

    Without `identifies`, for all. The suffix of an image stays, and the number of a slice.
    """
    parts = path.split("/")
    hidden = [identifies is None or identifies(part) for part in parts]
    if identifies is not None and not any(hidden) and identifies("".join(parts)):
        # A slash cuts it in two, as in 1950/01/02.
        hidden = [True] * len(parts)
    return "/".join(_hidden(part) if yes else part for part, yes in zip(parts, hidden, strict=True))


def _hidden(part: str) -> str:
    if part in ("", ".", ".."):
        return part
    file, k = volume_and_slice(part)
    hidden = pseudonym(file) + file[len(stem(file)) :]
    _remember(_folder() / NAMES, file, pseudonym(file))
    return hidden if k is None else slice_name(hidden, k)


# Which names pseudonyms stand for in paths: a line of JSON each, beside the key and as private.
NAMES = "names.jsonl"
_ONE_AT_A_TIME = threading.Lock()
_PSEUDONYM = re.compile(rf"(?<![0-9A-Za-z])(p[0-9a-f]{{{_PSEUDONYM_DIGITS}}})((?:\.[0-9A-Za-z]+)*)")


def _remember(path: Path, name: str, hidden: str) -> None:
    """Note a name, once; where that cannot be, say so once, since nothing else fails."""
    with _ONE_AT_A_TIME:
        known = _names_before(path)
        if hidden in known:
            return
        known[hidden] = name
        try:
            with FileLock(f"{path}.lock", 5), open(path, "a", opener=_private) as file:
                file.write(json.dumps([hidden, name]) + "\n")
        except OSError as error:
            _warn(f"Pseudonyms cannot be revealed later: '{path}': {error.strerror or error}.")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@cache
def _warn(sentence: str) -> None:
    logger.warning(sentence)


def reveal(text: str) -> str:
    """Put back the names of files and folders for which pseudonyms stand in `text`.

    Those of another key, or of patients alone, stay.
    """
    known = _names(_folder() / NAMES)

    def name(found: re.Match[str]) -> str:
        if found[1] not in known:
            return found[0]
        name = known[found[1]]
        return name + found[2].removeprefix(name[len(stem(name)) :])

    return _PSEUDONYM.sub(name, text)


def _names(path: Path) -> dict[str, str]:
    names = {}
    with suppress(FileNotFoundError), path.open(encoding="ascii") as file:
        for line in file:
            with suppress(ValueError):  # of a line that was cut short
                hidden, name = json.loads(line)
                names[hidden] = name
    return names


_names_before = cache(_names)


def _folder() -> Path:
    given = os.environ.get("CONOCC_CONFIG")
    return Path(given) if given else user_config_path("conocc", appauthor=False, roaming=True)


@cache
def _key(path: Path) -> bytes:
    try:
        if not path.exists():
            _make(path)
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise OSError(
            f"Cannot read or make the key of pseudonyms '{path}': {error.strerror or error}. "
            "CONOCC_CONFIG names another folder for it."
        ) from None
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError(
            f"The key of pseudonyms '{path}' is damaged: it is not {2 * _KEY_BYTES} hex digits."
        )
    return key


def _make(path: Path) -> None:
    """Write a key whole, mode 0600; of several processes at once, the first makes it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with folder_lock(path.parent):
        if not path.exists():
            with atomic_write(path, mode=0o600) as temporary:
                temporary.write_text(secrets.token_hex(_KEY_BYTES) + "\n", encoding="ascii")
