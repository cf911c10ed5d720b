"""A bar on the terminal, a line now and then in a log or a notebook, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY_S = 30.0


class Advance(Protocol):
    """Move a bar on by `steps`, with a few words on the state (``loss 12.3``)."""

    def __call__(self, steps: int = 1, state: str = "") -> None: ...


@contextmanager
def bar(
    description: str, total: int | None = None, *, verbose: int, done: int = 0
) -> Iterator[Advance]:
    """Show on stderr how far `total` steps have come; with ``verbose=0`` show nothing.

    On a terminal this is a bar with the time left, gone when all is done; where stderr is a file
    (a SLURM log) or a notebook, a line every half minute. Without a total it only says what is
    being done.

    >>> with bar("Training", 2, verbose=0) as advance:
    ...     advance(state="loss 1.5")
    """
    if not verbose:
        yield lambda steps=1, state="": None
    elif sys.stderr.isatty():
        yield from _on_terminal(description, total, done)
    else:
        yield _in_lines(description, total, done)


# The bars that a terminal shows, those of inner steps below those of outer ones.
_shown: list[Progress] = []


def _on_terminal(description: str, total: int | None, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if not _shown:
        what, state = TextColumn("{task.description}"), TextColumn("{task.fields[s]}")
        columns = (what, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), state)
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            _shown.append(progress)
            try:
                yield from _on_terminal(description, total, done)
            finally:
                _shown.clear()
        return
    (progress,) = _shown
    task = progress.add_task(description, total=total, completed=done, s="")

    def advance(steps: int = 1, state: str = "") -> None:
        nonlocal done
        done += steps
        progress.update(task, completed=done, s=f"{done}/{total} {state}")

    try:
        yield advance
    finally:
        progress.remove_task(task)


@contextmanager
def without_bars() -> Iterator[None]:
    """Take bars away while something else is written to the terminal."""
    for progress in _shown:
        progress.stop()
    yield
    for progress in _shown:
        progress.start()


def _in_lines(description: str, total: int | None, done: int) -> Advance:
    if total is None:
        sys.stderr.write(f"{description} …\n")
        return lambda steps=1, state="": None
    start = last = time.monotonic()
    first = done

    def say(words: str) -> None:
        # Not to a log, which a library's user would have to set up before it shows anything.
        sys.stderr.write(f"{description} {done}/{total}{words}\n")
        sys.stderr.flush()

    def advance(steps: int = 1, state: str = "") -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last >= LINE_EVERY_S or done == total:
            last = now
            left = (now - start) / max(done - first, 1) * (total - done)
            say(f"{' ' * bool(state)}{state}, {left:.0f} s left")

    say("")
    return advance
