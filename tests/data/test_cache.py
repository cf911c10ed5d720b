"""The cache of decoded images: found, damaged, private, never half-written."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conocc.data.cache import (
    arranged,
    cache_folder,
    cache_key,
    clear,
    entries,
    in_memory,
    lookup,
    store,
)

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")

IMAGES = np.random.default_rng(0).normal(size=(3, 1, 16, 16)).astype(np.float32)
KEY = "0" * 64


def placed(order=(2, 0, 1)):
    return ((i, IMAGES[i]) for i in order)


def facts():
    return {"remarks": {"x": [2]}}


@pytest.fixture
def folder(tmp_path) -> Path:
    return cache_folder(tmp_path / "cache")[0]


def test_what_was_kept_is_found(folder):
    """In the order of the places, not of arrival; mapped and read-only, with its facts."""
    kept, _ = store(folder, KEY, 3, placed(), facts)
    images, found = lookup(folder, KEY, 3)
    for one in (kept, images):
        assert isinstance(one, np.memmap)
        assert not one.flags.writeable
        assert np.array_equal(one, IMAGES)
    assert found == facts()
    assert np.array_equal(in_memory(3, placed()), IMAGES)


def test_nothing_is_found_under_another_key(folder):
    store(folder, KEY, 3, placed(), facts)
    assert lookup(folder, "1" * 64, 3) is None


def test_the_key_is_of_contents_their_order_and_the_reading():
    keys = [
        cache_key(["a", "b"], {"size": 64}),
        cache_key(["b", "a"], {"size": 64}),
        cache_key(["a", "b"], {"size": 32}),
        cache_key(["a"], {"size": 64}),
    ]
    assert len(set(keys)) == 4
    assert cache_key(["a", "b"], {"size": 64}) == keys[0]


def damages():
    def cut(array, facts):
        array.write_bytes(array.read_bytes()[:-1])

    def flip(array, facts):
        data = bytearray(array.read_bytes())
        data[-5] ^= 1
        array.write_bytes(data)

    def empty(array, facts):
        array.write_bytes(b"")

    def no_json(array, facts):
        facts.write_text("{")

    def other_json(array, facts):
        facts.write_text("[]")

    def foreign(array, facts):
        np.save(array, np.zeros((3, 2)))
        written = json.loads(facts.read_text())
        import zlib

        data = array.read_bytes()
        facts.write_text(json.dumps({**written, "bytes": len(data), "crc32": zlib.crc32(data)}))

    return [cut, flip, empty, no_json, other_json, foreign]


@pytest.mark.parametrize("damage", damages(), ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_told_of_and_not_used(folder, caplog, damage):
    """And writing it anew mends it."""
    store(folder, KEY, 3, placed(), facts)
    damage(folder / f"{KEY}.npy", folder / f"{KEY}.json")
    with caplog.at_level(logging.WARNING, "conocc"):
        assert lookup(folder, KEY, 3) is None
    assert "is damaged" in caplog.text
    store(folder, KEY, 3, placed(), facts)
    assert np.array_equal(lookup(folder, KEY, 3)[0], IMAGES)


@posix
def test_the_folder_is_private_unless_it_is_made_where_others_may_write(tmp_path):
    for mode, wanted in ((0o755, 0o700), (0o770, 0o770), (0o2775, 0o2775)):
        base = tmp_path / oct(mode)
        base.mkdir()
        base.chmod(mode)
        folder, _ = cache_folder(base)
        assert stat.S_IMODE(folder.stat().st_mode) == wanted
        assert stat.S_IMODE(base.stat().st_mode) == mode


def test_where_the_cache_is(tmp_path, monkeypatch):
    """CONOCC_CACHE, then the platform's folder; a path as given; False for none."""
    assert cache_folder(False) == (None, ())
    assert cache_folder(tmp_path / "mine") == (tmp_path / "mine" / "images", ())
    monkeypatch.setattr("conocc.data.cache.user_cache_path", lambda *a, **k: tmp_path / "user")
    monkeypatch.delenv("CONOCC_CACHE", raising=False)
    assert cache_folder(True) == (tmp_path / "user" / "images", ())
    monkeypatch.setenv("CONOCC_CACHE", str(tmp_path / "own"))
    assert cache_folder(True) == (tmp_path / "own" / "images", ())


def test_a_folder_that_cannot_be_made_is_left_out_with_a_note(tmp_path):
    (tmp_path / "file").write_text("x")
    folder, (note,) = cache_folder(tmp_path / "file")
    assert folder is None
    assert note.startswith("Decoded images are not kept: ")


def test_images_come_in_any_order_and_many_in_a_file_that_nobody_else_sees(monkeypatch):
    rows = np.array([2, 0, 0, 1])
    assert arranged(IMAGES, np.arange(3)) is IMAGES
    assert np.array_equal(arranged(IMAGES, rows), IMAGES[rows])
    monkeypatch.setattr("conocc.data.cache.ARRANGED_IN_MEMORY_BYTES", 0)
    mapped = arranged(IMAGES, rows)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    assert np.array_equal(mapped, IMAGES[rows])


def test_the_cache_is_listed_and_emptied_of_its_own_files_alone(folder):
    store(folder, KEY, 3, placed(), facts)
    (folder / "notes.txt").write_text("mine")
    (entry,) = entries(folder)
    assert entry[:3] == (KEY, 3, (1, 16, 16))
    assert entry.megabytes == pytest.approx(3 * 16 * 16 * 4 / 1e6, abs=2e-4)
    assert clear(folder) == 1
    assert left(folder) == ["notes.txt"]
    assert clear(folder) == 0


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_is_a_sentence_and_leaves_nothing(folder, monkeypatch):
    def full(self, *args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("conocc.io.files.os.fsync", full)
    with pytest.raises(OSError, match=r"^Cannot write to the cache folder .*: the disk is full\. "):
        store(folder, KEY, 3, placed(), facts)
    assert left(folder) == []


@posix
def test_a_limit_on_file_size_is_a_sentence_and_leaves_nothing(folder):
    """The same with a real limit of the system, in a process of its own."""
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np\n"
        "from conocc.data.cache import store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: store(Path(sys.argv[1]), 'k', 9, "
        "((i, np.ones((1, 16, 16), np.float32)) for i in range(9)), dict)\n"
        "except OSError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert "the disk is full" in run.stdout
    assert left(folder) == []


def test_a_failure_while_decoding_leaves_nothing(folder):
    """Whatever stops the images from coming is passed on as it is."""

    def broken():
        yield 0, IMAGES[0]
        raise ValueError("Cannot read 'x.png': it is cut short.")

    with pytest.raises(ValueError, match=r"^Cannot read 'x\.png': it is cut short\.$"):
        store(folder, KEY, 3, broken(), facts)
    assert left(folder) == []


def test_what_killed_runs_left_is_swept_after_a_day(folder):
    two_days_ago = time.time() - 2 * 24 * 3600
    for name in (".a.npy.x.tmp", ".b.npy.y.tmp", "notes.tmp"):
        (folder / name).write_text("x")
    for name in (".a.npy.x.tmp", "notes.tmp"):
        os.utime(folder / name, (two_days_ago, two_days_ago))
    store(folder, KEY, 3, placed(), facts)
    assert {name for name in left(folder) if name.endswith(".tmp")} == {".b.npy.y.tmp", "notes.tmp"}
