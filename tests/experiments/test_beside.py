"""Blocks read beside this process: the same as here, also once a process has died."""

import multiprocessing
import os
import signal
import time
from contextlib import contextmanager

import numpy as np
import pytest

from conocc import training
from conocc.data import unlabelled as incoming
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import list_images
from conocc.experiments.beside import beside, here
from made_cohorts import make_folder

READING = Preprocessing(size=16)
SHAPE = (1, 16, 16)
PATIENCE_S = 30.0


@pytest.fixture
def items(tmp_path):
    make_folder(tmp_path / "images", *[f"{i}.png" for i in range(5)])
    (tmp_path / "images" / "3.png").write_text("not an image")
    (part,) = list_images([tmp_path / "images"], READING)
    return list(part.items(READING.size))


@contextmanager
def processes(n, folder, items):
    """Readers that are up: their blocks lie in mapped files."""
    with beside(n, READING, SHAPE, folder) as read:

        def is_up():
            with read(items) as block:
                return isinstance(block.images, np.memmap)

        wait_for(is_up)
        yield read


def wait_for(is_so):
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def workers():
    found = multiprocessing.active_children()
    return [p for p in found if p.name.startswith("LokyProcess")]


def told(read, items):
    with read(items) as block:
        return block.images.tolist(), block.path, block.errors


def test_a_block_read_beside_is_the_block_read_here(items, tmp_path):
    with processes(2, tmp_path / "blocks", items) as read:
        assert told(read, items) == told(here(READING, SHAPE), items)
        assert told(read, items[3:4]) == told(here(READING, SHAPE), items[3:4])


def test_two_blocks_at_a_time_do_not_share_their_pixels(items, tmp_path):
    readers = processes(2, tmp_path / "blocks", items)
    with readers as read, read(items[:2]) as one, read(items[4:]) as two:
        whole = told(here(READING, SHAPE), items)[0]
        assert one.images.tolist() == whole[:2]
        assert two.images.tolist() == whole[-1:]


def test_before_the_processes_are_up_blocks_are_read_here(items, tmp_path):
    with beside(1, READING, SHAPE, tmp_path / "blocks") as read, read(items) as block:
        assert not isinstance(block.images, np.memmap)
        assert len(block.path) == 4


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL.")
def test_when_a_process_has_died_blocks_are_read_here(items, tmp_path):
    before = workers()
    with processes(1, tmp_path / "blocks", items) as read:
        (reader,) = [p for p in workers() if p not in before]
        os.kill(reader.pid, signal.SIGKILL)
        wait_for(lambda: not reader.is_alive())
        for _ in range(2):
            assert told(read, items) == told(here(READING, SHAPE), items)


def test_no_process_stays(items, tmp_path):
    before = workers()
    with processes(2, tmp_path / "blocks", items) as read:
        told(read, items)
    wait_for(lambda: not [p for p in workers() if p not in before])


def test_a_block_that_is_read_is_a_block_of_the_network():
    assert incoming.BLOCK == training.BLOCK
