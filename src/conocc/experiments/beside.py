"""Blocks of images, read by processes beside this one for the threads that score them.

Threads that decode small files hold Python's lock up against each other: two of them read hardly
more than one. Here as many processes read, without torch and soon up, and the threads wait for
them without the lock. Pixels come back through a mapped file, paths and errors as a message.

Letters: c channels, h and w pixels.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
from joblib.externals.loky import ProcessPoolExecutor

from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import BLOCK, Block, Item, read_block
from conocc.experiments.parallel import end_with

logger = logging.getLogger("conocc")

Pixels = npt.NDArray[np.float32]
Shape = tuple[int, ...]
# Reads at most `BLOCK` items; the pixels hold until the context ends.
Read = Callable[[Sequence[Item]], AbstractContextManager[Block]]


def here(preprocessing: Preprocessing, shape: Shape) -> Read:
    """Give what reads blocks in the thread that asks; `shape` is (c, h, w)."""
    return lambda items: nullcontext(read_block(preprocessing, shape, items))


@contextmanager
def beside(n: int, preprocessing: Preprocessing, shape: Shape, folder: Path) -> Iterator[Read]:
    """Start `n` processes, and give what reads blocks in them, for as many threads.

    Until they are up, and once one has died, the threads read for themselves. The mapped files
    lie in `folder`, which is made, and removed by whoever owns it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    slots: SimpleQueue[tuple[Path, Pixels]] = SimpleQueue()
    for i in range(n):
        path = folder / f"{i}.f32"
        slots.put((path, np.memmap(path, np.float32, "w+", shape=(BLOCK, *shape))))
    pool = ProcessPoolExecutor(n, initializer=_serve, initargs=(os.getpid(),))
    up = [pool.submit(_is_up) for _ in range(n)]

    def read_there(items: Sequence[Item], path: Path, pixels: Pixels) -> Block:
        try:
            block: Block = pool.submit(_read_into, path, preprocessing, shape, items).result()
        except BrokenExecutor:
            logger.debug("A process that read images died; its thread reads on by itself.")
            return read_block(preprocessing, shape, items)
        return replace(block, images=pixels[: len(block.path)])

    @contextmanager
    def read(items: Sequence[Item]) -> Iterator[Block]:
        if not all(future.done() for future in up):
            yield read_block(preprocessing, shape, items)
            return
        slot = slots.get()
        try:
            yield read_there(items, *slot)
        finally:
            slots.put(slot)

    try:
        yield read
    finally:
        pool.shutdown(wait=False, kill_workers=True)


# --- in the other process ----------------------------------------------------------------------


def _serve(driver: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, who ends this one
    end_with(driver)


def _is_up() -> None:
    """Take as long as the start of a process."""


@cache
def _mapped(path: Path, shape: Shape) -> Pixels:
    return np.memmap(path, np.float32, "r+", shape=(BLOCK, *shape))


def _read_into(
    path: Path, preprocessing: Preprocessing, shape: Shape, items: Sequence[Item]
) -> Block:
    block = read_block(preprocessing, shape, items)
    _mapped(path, shape)[: len(block.path)] = block.images
    return replace(block, images=block.images[:0])
