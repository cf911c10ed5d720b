"""A progress bar on the terminal, a line now and then in a log file, or nothing."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

logger = logging.getLogger("conocc")

LOG_EVERY_S = 30.0


class Advance(Protocol):
    """Move a bar on by `steps`, with a few words on the state (``loss 12.3``)."""

    def __call__(self, steps: int = 1, state: str = "") -> None: ...


@contextmanager
def bar(description: str, total: int, *, verbose: int, done: int = 0) -> Iterator[Advance]:
    """Show how far `total` steps have come; with ``verbose=0`` show nothing.

    On a terminal this is a bar with the time left, on stderr; where stderr is a file
    (a SLURM log), a line every half minute.

    >>> with bar("Training", 2, verbose=0) as advance:
    ...     advance(state="loss 1.5")
    """
    if not verbose:
        yield lambda steps=1, state="": None
    elif sys.stderr.isatty():
        yield from _on_terminal(description, total, done)
    else:
        yield _into_log(description, total, done)


def _on_terminal(description: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeLeft(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, completed=done, state="")

        def advance(steps: int = 1, state: str = "") -> None:
            progress.update(task, advance=steps, state=state)

        yield advance


def _into_log(description: str, total: int, done: int) -> Advance:
    start = last = time.monotonic()
    first = done
    logger.info("%s %d/%d", description, done, total)

    def advance(steps: int = 1, state: str = "") -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last >= LOG_EVERY_S or done == total:
            last = now
            left = (now - start) / max(done - first, 1) * (total - done)
            logger.info("%s %d/%d %s, %.0f s left", description, done, total, state, left)

    return advance
