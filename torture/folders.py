"""Folders that cannot be written: on a disk that is full, or read-only."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@cache
def may_mount() -> bool:
    """Tell whether this user may mount on this machine (root, but not in every container)."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with full_disk(Path(folder), 4096):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def full_disk(folder: Path, size: int) -> Iterator[None]:
    """Put a disk of `size` bytes, in memory, over an empty folder; what it holds goes with it."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        _run("umount", str(folder))


def may_be_read_only() -> bool:
    """Tell whether `read_only` works: root writes through permissions, and needs a mount."""
    return os.geteuid() != 0 or may_mount()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nothing be written into a folder: by a read-only mount, or else by its permissions."""
    if may_mount():
        _run("mount", "--bind", str(folder), str(folder))
        try:
            _run("mount", "-o", "remount,bind,ro", str(folder))
            yield
        finally:
            _run("umount", str(folder))
        return
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
