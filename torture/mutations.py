"""Mutated files through every reader and loader: each is decoded, or refused in one sentence.

``python -m torture.mutations --count 20000`` prints a table; files that did anything else (an
exception of another kind, more than a sentence, words on the terminal, a crash, a hang, too much
memory) are kept in ``--keep`` and make the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from torture.samples import Sample, samples

SECONDS = 10.0
MEBIBYTES = 1024
GOOD = ("decoded", "refused")
# What a reader must give up on at once: lengths, counts and magic numbers at their ends.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to four places."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        change = CHANGES[rng.integers(len(CHANGES))]
        change(damaged, rng)
    return bytes(damaged)


def _flip(data: bytearray, rng: np.random.Generator) -> None:
    if data:
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))


def _flip_early(data: bytearray, rng: np.random.Generator) -> None:
    """Headers are small, and most of what can go wrong is in them."""
    if data:
        data[rng.integers(min(len(data), 256))] = int(rng.integers(256))


def _number(data: bytearray, rng: np.random.Generator) -> None:
    width = int(rng.choice([1, 2, 4, 8]))
    if len(data) > width:
        at = int(rng.integers(len(data) - width))
        value = int(EXTREMES[rng.integers(len(EXTREMES))]) & (256**width - 1)
        data[at : at + width] = value.to_bytes(width, "little" if rng.integers(2) else "big")


def _cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[rng.integers(len(data) + 1) :]


def _remove(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(data) + 1))
    del data[at : at + int(rng.integers(1, 64))]


def _repeat(data: bytearray, rng: np.random.Generator) -> None:
    at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 256))
    data[at:at] = data[at : at + length]


def _insert(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(data) + 1))
    data[at:at] = rng.bytes(int(rng.integers(1, 32)))


def _digits(data: bytearray, rng: np.random.Generator) -> None:
    """Make a number that is written in digits another one (PNM, JSON, CSV, NPY headers)."""
    places = [i for i, byte in enumerate(data[:4096]) if 0x30 <= byte <= 0x39]
    if places:
        data[places[rng.integers(len(places))]] = int(rng.choice(list(b"0123456789-.e\"'")))


CHANGES = (_flip, _flip_early, _number, _cut, _remove, _repeat, _insert, _digits)


# --- loaders -----------------------------------------------------------------------------------


def _image(path: Path) -> None:
    from conocc.data.image_io.read import decode
    from conocc.data.preprocessing import Preprocessing, prepare

    prepare(decode(path.read_bytes(), path.name), Preprocessing(size=16))


def _volume(path: Path) -> None:
    from conocc.data.preprocessing import Preprocessing
    from conocc.data.unlabelled import load_images

    for block in load_images([path], Preprocessing(size=16), (1, 16, 16), n_jobs=1):
        if block.errors:
            raise ValueError(block.errors[0][1])


def _cohort(path: Path) -> None:
    from conocc import load_cohort

    load_cohort(path, majority="a" if "own" in path.name else None, cache=False, n_jobs=1)


def _manifest(path: Path) -> None:
    from PIL import Image

    from conocc import load_cohort

    images = path.parent / "images"
    if not images.exists():
        images.mkdir()
        for i in range(8):
            Image.fromarray(np.full((16, 16), i, np.uint8)).save(images / f"{i}.png")
    load_cohort(path, majority="a", cache=False, n_jobs=1)


def _model(path: Path) -> None:
    from conocc import load

    load(path).anomaly_score(np.random.default_rng(0).random((1, 16, 16)))


def _header(path: Path) -> None:
    """Load a model whose header says something else, under a checksum that is right."""
    from conocc.io.safetensors import read, write

    whole = path.parent.parent / "model.safetensors"
    _, tensors = read(whole, "model")
    header = json.loads(path.read_bytes())
    if not isinstance(header, dict) or header.keys() != read(whole, "model")[0].keys():
        raise ValueError("such a header cannot be written")
    if '"verbose": 0' not in path.read_text(errors="replace"):
        raise ValueError("it asks for words")
    write(path.parent / "model.safetensors", "model", header, tensors)
    _model(path.parent / "model.safetensors")


def _gallery(path: Path) -> None:
    from conocc.experiments.artifacts import Gallery

    Gallery.load(path)


def _embedding(path: Path) -> None:
    from conocc.experiments.artifacts import Embedding

    Embedding.load(path)


def _row(path: Path) -> None:
    from conocc.experiments.tables import read_row

    read_row(path)


def _run(path: Path) -> None:
    from conocc.experiments.run import read_run

    read_run(path.parent)


LOADERS: dict[str, Callable[[Path], None]] = {
    "image": _image,
    "volume": _volume,
    "cohort": _cohort,
    "manifest": _manifest,
    "model": _model,
    "header": _header,
    "gallery": _gallery,
    "embedding": _embedding,
    "row": _row,
    "run": _run,
}


# --- one file after the other, in a process that may die ---------------------------------------


class Outcome(NamedTuple):
    """What became of file `index`: one of `GOOD`, or what is wrong."""

    index: int
    loader: str
    name: str
    what: str
    said: str
    seconds: float
    mebibytes: float


def file_of(index: int, seed: int, whole: list[Sample]) -> tuple[Sample, bytes]:
    """Give the sample and the damaged bytes of a file, which hang on nothing but these numbers."""
    rng = np.random.default_rng([seed, index])
    others = sorted({sample.loader for sample in whole} - {"image"})
    loader = "image" if rng.integers(2) else str(rng.choice(others))
    of_loader = [sample for sample in whole if sample.loader == loader]
    sample = of_loader[int(rng.integers(len(of_loader)))]
    return sample, mutated(sample.data, rng)


def survive(count: int, seed: int, whole: list[Sample], scratch: Path) -> list[Outcome]:
    """Have files 0 to `count` - 1 read by a process that is replaced when it dies or hangs."""
    outcomes: list[Outcome] = []
    context = multiprocessing.get_context("spawn")
    while len(outcomes) < count:
        ours, theirs = context.Pipe()
        todo = range(len(outcomes), count)
        worker = context.Process(target=_read_all, args=(theirs, todo, seed, whole, scratch))
        worker.start()
        theirs.close()
        _follow(ours, worker, count, seed, whole, outcomes)
    return outcomes


def _follow(
    pipe: Connection,
    worker: multiprocessing.process.BaseProcess,
    count: int,
    seed: int,
    whole: list[Sample],
    outcomes: list[Outcome],
) -> None:
    patience = 120.0  # for the imports
    while len(outcomes) < count:
        try:
            if pipe.poll(patience):
                outcomes.append(pipe.recv())
                patience = SECONDS
                continue
            what, said = "hang", f"more than {patience:.0f} s"
        except EOFError:
            worker.join()
            what, said = "crash", f"exit code {worker.exitcode}"
        worker.kill()
        worker.join()
        sample, _ = file_of(len(outcomes), seed, whole)
        outcomes.append(Outcome(len(outcomes), sample.loader, sample.name, what, said, patience, 0))
        return
    worker.join()


def _read_all(pipe: Connection, todo: range, seed: int, whole: list[Sample], scratch: Path) -> None:
    warnings.simplefilter("error")
    logging.getLogger("conocc").addHandler(logging.NullHandler())  # its warnings are meant
    with tempfile.TemporaryFile() as terminal:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(terminal.fileno(), stream.fileno())
        for sample in {sample.loader: sample for sample in whole}.values():
            _outcome(-1, sample, sample.data, scratch)  # imports take memory too
        for index in todo:
            sample, data = file_of(index, seed, whole)
            outcome = _outcome(index, sample, data, scratch)
            terminal.seek(0)
            words = terminal.read().decode(errors="replace")
            terminal.seek(0)
            terminal.truncate()
            if outcome.what in GOOD and words:
                outcome = outcome._replace(what="words on the terminal", said=words)
            pipe.send(outcome)
    pipe.close()


def _outcome(index: int, sample: Sample, data: bytes, scratch: Path) -> Outcome:
    path = scratch / sample.loader / sample.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    before, start = _peak(), time.perf_counter()
    what, said = "decoded", ""
    try:
        LOADERS[sample.loader](path)
    except (ValueError, OSError, MemoryError) as error:
        said = str(error)
        what = "refused" if said and "\n" not in said else "more than a sentence"
    except BaseException as error:
        what, said = "another exception", f"{type(error).__name__}: {error}"
    seconds, grown = time.perf_counter() - start, _peak() - before
    if what in GOOD and grown > MEBIBYTES:
        what, said = "memory", f"{grown:.0f} MiB"
    path.unlink()
    return Outcome(index, sample.loader, sample.name, what, said, seconds, grown)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- the command -------------------------------------------------------------------------------


def table(outcomes: list[Outcome]) -> str:
    """Count by loader, in Markdown."""
    lines = [
        "| loader | files | decoded | refused | anything else | slowest, s | largest, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for loader in LOADERS:
        those = [o for o in outcomes if o.loader == loader]
        counts = Counter(o.what for o in those)
        other = len(those) - counts["decoded"] - counts["refused"]
        slowest = max((o.seconds for o in those), default=0)
        largest = max((o.mebibytes for o in those), default=0)
        lines.append(
            f"| {loader} | {len(those)} | {counts['decoded']} | {counts['refused']} | {other} "
            f"| {slowest:.2f} | {largest:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("torture-kept"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = samples(Path(folder))
        outcomes = survive(asked.count, asked.seed, whole, Path(folder))
    print(table(outcomes))
    bad = [outcome for outcome in outcomes if outcome.what not in GOOD]
    for outcome in bad:
        asked.keep.mkdir(parents=True, exist_ok=True)
        _, data = file_of(outcome.index, asked.seed, whole)
        kept = asked.keep / f"{asked.seed}-{outcome.index}-{outcome.name}"
        kept.write_bytes(data)
        print(f"{kept}: {outcome.what}: {outcome.said[:300]!r}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
