"""A newcomer's log: each command of README, as on a terminal and into a file, by the clock.

``python -m benchmarks.first_hour IMAGES [--conocc PROGRAM]`` takes a folder with a folder
``benign`` of its own, works in a new folder, and prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.contest import table

README = Path(__file__).parents[1] / "README.md"
NEW = 40  # images, which 'new-images' holds
# What README says in a line of text.
FURTHER = [
    *("report run", "card run", "methods", "fit --help"),
    "fit phantom-mri --method lrt --out phantom",
    "evaluate phantom phantom-mri",
]


def commands() -> list[str]:
    """Give what README has one type."""
    shown = re.findall(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in shown for line in block.splitlines()]
    return [line.removeprefix("conocc ") for line in lines if line.startswith("conocc ")] + FURTHER


def clocked(words: list[str], folder: Path, *, terminal: bool) -> tuple[float, float, float]:
    """Run a command; give the seconds to its first word, of its longest silence, and in all."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    start = last = time.monotonic()
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, cwd=folder
    )
    os.close(writer)
    first, longest = None, 0.0
    while True:
        select.select([reader], [], [])
        try:
            said = os.read(reader, 65536)
        except OSError:  # how a terminal ends on Linux
            said = b""
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        if said.strip() and first is None:
            first = now - start
        if not said:
            break
    os.close(reader)
    if process.wait():
        raise RuntimeError(f"{shlex.join(words)} ended with exit code {process.returncode}.")
    return first or now - start, longest, now - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--conocc", default="conocc")
    asked = parser.parse_args()
    logs: dict[bool, list[tuple[float, float, float]]] = {}
    for terminal in (True, False):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            os.environ["CONOCC_CACHE"] = str(folder / "cache")
            (folder / "my-images").symlink_to(asked.images.resolve())
            (folder / "new-images").mkdir()
            found = sorted(path for path in asked.images.rglob("*") if path.is_file())
            for i, path in enumerate(found[:: -(-len(found) // NEW)]):
                (folder / "new-images" / f"{i}{path.suffix}").symlink_to(path.resolve())
            words = [[asked.conocc, *shlex.split(command)] for command in commands()]
            logs[terminal] = [clocked(one, folder, terminal=terminal) for one in words]
    rows = [
        [f"`conocc {command}`", *(f"{seconds:.1f}" for seconds in (*on, *into[:2]))]
        for command, on, into in zip(commands(), logs[True], logs[False], strict=True)
    ]
    heads = [
        "",
        "first word, s",
        "longest silence, s",
        "in all, s",
        "into a file: first",
        "silence",
    ]
    print(table(heads, rows))


if __name__ == "__main__":
    main()
