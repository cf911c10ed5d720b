"""Scoring files with a model: any number of them, in shards, on any number of workers.

The listing is cut into shards. While a table is being made, there is beside it:

==========================  ===========================================================
``TABLE.shards/about.json`` which model scores what; a second command keeps off
``TABLE.shards/KEY.json``   rows and errors of a finished shard
``TABLE.shards/attempts/``  how often a shard without rows was begun, and killed its worker
==========================  ===========================================================

The key of a shard is a hash of the model and of its files' paths, sizes and times. Once all are
there they are joined, in the order of the listing, and the folder goes. Started again after a
kill, the missing shards are scored, and the tables are those of an unbroken run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from conocc._version import __version__
from conocc.data.decoding import prefetch
from conocc.data.image_io.nifti import is_slice_name
from conocc.data.index import printable
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import (
    BLOCK,
    Block,
    Item,
    Part,
    deidentified_paths,
    list_images,
    refuse_missing,
    shards,
)
from conocc.data.volumes import VOLUME_COLUMNS, by_volume, check_top
from conocc.detectors import load
from conocc.experiments.beside import Read, beside, here
from conocc.experiments.parallel import Task, check_engine, do_all, threads_of
from conocc.experiments.run import SCORE_COLUMNS, model_path, preprocessing_of
from conocc.io.files import folder_lock, write_json
from conocc.io.progress import bar
from conocc.io.tables import refuse_other, write_csv
from conocc.thresholds.rule import RULE, Rule
from conocc.thresholds.rules import Decisions, decisions

SHARD_FORMAT = 1
# Files in a shard: what is done again at most after a kill, and given up with one file that
# kills every worker.
SHARD = 2048
ERROR_COLUMNS = ("path", "reason")
SHOWN_ERRORS = 5
# From so many files on, processes that read them beside this one are worth their start.
MANY = 4096

Row = tuple[Any, ...]
Scores = tuple[list[Row], Sequence[Row]]


@dataclass(frozen=True)
class Scored:
    """How many files `score_files` scored and could not read, and the first such errors.

    `words` say which rule made the predictions, and what it promises.
    """

    count: int
    failed: int
    errors: tuple[tuple[str, str], ...]
    words: str


class Shard(NamedTuple):
    """Some files to be scored, as plain values, sent to another process."""

    parts: tuple[Part, ...]
    model: Path
    checksum: str
    result: Path


def score_files(
    run: str | Path,
    where: Sequence[str | Path],
    out: str | Path,
    *,
    rule: Rule = RULE,
    top: int = 3,
    engine: str = "processes",
    workers: int = 1,
    address: str | None = None,
    verbose: int = 0,
) -> Scored:
    """Score files, folders or cohorts into a CSV table, read as the training images were.

    Files that cannot be read go to a table beside `out`, with the reason of each: ``x.errors.csv``
    beside ``x.csv``. Where there are volumes, ``x.volumes.csv`` has the highest score of each and
    the mean of the `top` highest of its slices. Tables of an earlier call are replaced, that of
    scores only if any image has one; nothing else ever is.
    Called again after it was killed, it does what is missing, with the same result.

    Parameters
    ----------
    run
        A run's folder, or a model's file.
    where : sequence of path
        See `conocc.data.unlabelled.list_images`.
    out
        The table; under Dask, on a disk that all workers see, as are the files.
    rule
        When an image is ``predicted`` to be of the minority.
    top
        At least 1.
    engine : {"processes", "dask"}
        `workers` processes of this machine, which divide its cores (one works in this process,
        on all of them), or all workers of the Dask cluster at `address`.

    Raises
    ------
    ValueError
        If the model cannot be used, or another command's scoring into `out` is unfinished.
    FileNotFoundError
        If one of `where` does not exist.
    FileExistsError
        If something else is in the place of a table, or `out` lies in a run.
    BlockingIOError
        If another process is at work on `out`.
    ConnectionError
        If the workers are gone. What is done stays; the same call goes on.
    """
    check_engine(engine, workers)
    check_top(top)
    model = model_path(run).absolute()
    checksum = _sha256(model.read_bytes())
    detector = _model(model, checksum)
    preprocessing = preprocessing_of(detector, run)
    decided = decisions(detector, rule)
    decided.columns(np.empty(0))  # what the rule refuses, it refuses before anything is scored
    out = Path(out).absolute()
    refuse_missing(where)
    _refuse_others(out)
    folder = out.with_name(f"{out.name}.shards")
    parts = list_images(where, preprocessing)
    images = [printable(Path(one).absolute()) for one in where]
    with folder_lock(folder):
        _claim(folder, {"model": printable(model), "images": images})
        about = [SHARD_FORMAT, __version__, checksum]
        work = [
            Shard(some, model, checksum, folder / f"{_key(about, some)}.json")
            for some in shards(parts, SHARD)
        ]
        # Files that are given twice may make one shard twice.
        todo = {
            shard.result: (i, shard) for i, shard in enumerate(work) if not shard.result.exists()
        }
        if todo and engine == "processes" and workers == 1:
            _here([shard for _, shard in todo.values()], folder / "blocks", verbose)
        elif todo:
            do_all(
                [_task(shard, f"shard {i + 1} of {len(work)}") for i, shard in todo.values()],
                engine=engine,
                workers=workers,
                address=address,
                give_up=_give_up,
                ended=lambda task, done: "",
                called="Shards",
                total=len(work),
                verbose=verbose,
            )
        done = _join([shard.result for shard in work], decided, top, out)
        for path in folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    with suppress(OSError):  # another process may have taken it
        folder.rmdir()
    return done


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=1)
def _model(path: Path, checksum: str) -> Any:
    """Load a model, once a process."""
    if _sha256(path.read_bytes()) != checksum:
        raise ValueError(f"The model '{path}' changed while images were being scored.")
    return load(path)


def _preprocessing_of(shard: Shard) -> Preprocessing:
    return Preprocessing.from_dict(_model(shard.model, shard.checksum).preprocessing_)


# --- shards ------------------------------------------------------------------------------------


def _key(about: Sequence[Any], parts: Sequence[Part]) -> str:
    content = [[part.where, part.told, part.first, part.names, part.stamps()] for part in parts]
    return _sha256(json.dumps([about, content]).encode())[:32]


def _claim(folder: Path, command: dict[str, Any]) -> None:
    """Note whose shards these are; refuse to mix them with those of another command."""
    note = folder / "about.json"
    if not note.exists():
        write_json(note, command)
        return
    was = json.loads(note.read_text(encoding="utf-8"))
    if was != command:
        changes = [
            f"{key} was {was.get(key)}, is {now}" for key, now in command.items() if was[key] != now
        ]
        raise ValueError(
            f"'{folder}' holds the unfinished scores of another command: {'; '.join(changes)}. "
            "Finish that one, choose another --out, or delete the folder."
        )


def _here(todo: Sequence[Shard], blocks: Path, verbose: int) -> None:
    """Score shards in this process, its threads going on to the next while one ends."""
    parts = [part for shard in todo for part in shard.parts]
    total, threads = sum(map(len, parts)), threads_of(1)
    with (
        _reader(todo[0], parts, threads, blocks) as read,
        bar("Scoring images", total, verbose=verbose) as advance,
    ):
        _score_shards(todo, threads, read, advance)


def _reader(
    shard: Shard, parts: Sequence[Part], threads: int, blocks: Path
) -> AbstractContextManager[Read]:
    """Have many files read beside this process, which slices of volumes and archives share."""
    shape = _model(shard.model, shard.checksum).input_shape_
    many = sum(map(len, parts)) >= MANY and all(part.is_of_files for part in parts)
    if many and threads > 1:
        return beside(threads, _preprocessing_of(shard), shape, blocks)
    return nullcontext(here(_preprocessing_of(shard), shape))


def _task(shard: Shard, name: str) -> Task:
    attempts = shard.result.with_name("attempts") / shard.result.name
    return Task(shard.result.stem, name, _do, shard, shard.result, attempts)


def _do(shard: Shard, threads: int) -> None:
    shape = _model(shard.model, shard.checksum).input_shape_
    _score_shards([shard], threads, here(_preprocessing_of(shard), shape))


def _give_up(task: Task, reason: str) -> None:
    """List all files of a shard as errors: which of them did it is not known."""
    shard: Shard = task.job
    paths = deidentified_paths(shard.parts, _preprocessing_of(shard).size)
    _write_shard(shard.result, [], [(path, reason) for path in paths])


def _score_shards(
    todo: Sequence[Shard],
    threads: int,
    read: Read,
    advance: Callable[[int], None] = lambda steps: None,
) -> None:
    """Score shards, and write each once its last image is scored.

    A thread takes some files, has them read and scores them together, on its own: decoding and
    the network share the cores without waiting for each other.
    """

    def scored(piece: tuple[Shard, Sequence[Item]]) -> tuple[Shard, int, Scores]:
        shard, items = piece
        detector = _model(shard.model, shard.checksum)
        with read(items) as block:
            return shard, len(items), _score(detector, block)

    with _one_torch_thread():
        done = prefetch(scored, _pieces(todo, threads), jobs=threads, handful=1)
        for shard, group in groupby(done, key=itemgetter(0)):
            rows: list[Row] = []
            errors: list[Row] = []
            for _, n, (some_rows, some_errors) in group:
                rows += some_rows
                errors += some_errors
                advance(n)
            _write_shard(shard.result, rows, errors)


def _pieces(todo: Iterable[Shard], threads: int) -> Iterator[tuple[Shard, list[Item]]]:
    """Cut shards into what one thread takes: a block of the network, or less of a few files."""
    for shard in todo:
        size = _preprocessing_of(shard).size
        n = sum(map(len, shard.parts))
        items = chain.from_iterable(part.items(size) for part in shard.parts)
        while some := list(islice(items, min(BLOCK, -(-n // threads)))):
            yield shard, some


def _score(detector: Any, block: Block) -> Scores:
    """Give the rows of images and the errors of those that could not be read."""
    if not block.path:
        return [], block.errors
    try:
        scores = detector.anomaly_score(block.images)
    except ValueError:
        return _score_each(detector, block)
    return list(zip(block.path, scores.tolist(), strict=True)), block.errors


def _score_each(detector: Any, block: Block) -> Scores:
    """Score images one by one, so that one without a score takes no other with it."""
    rows: list[Row] = []
    errors: list[Row] = list(block.errors)
    for path, image in zip(block.path, block.images, strict=True):
        try:
            rows.append((path, float(detector.anomaly_score(image[None])[0])))
        except ValueError:
            reason = f"'{printable(path)}' has no score: its values are too far from those learned."
            errors.append((printable(path), reason))
    return rows, errors


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Have each thread run the network alone: nothing is gained, nor rounded otherwise, by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- tables ------------------------------------------------------------------------------------


def _write_shard(path: Path, rows: Sequence[Row], errors: Sequence[Row]) -> None:
    """Keep paths and scores, which no rule changes, and errors."""
    write_json(path, {"rows": list(rows), "errors": list(errors)})


def table_beside(out: Path, kind: str) -> Path:
    """Name the table of ``errors`` or ``volumes`` that goes with a table of scores."""
    return out.with_name(f"{out.stem}.{kind}{out.suffix}")


def _refuse_others(out: Path) -> None:
    if (out.parent / "run.json").exists():
        raise FileExistsError(
            f"'{out}' lies in the folder of a run, whose files are its own. Choose another --out. "
            "Nothing was written."
        )
    refuse_other(out, ("path", *SCORE_COLUMNS))
    refuse_other(table_beside(out, "errors"), ERROR_COLUMNS)
    refuse_other(table_beside(out, "volumes"), VOLUME_COLUMNS)


def _join(results: Sequence[Path], decided: Decisions, top: int, out: Path) -> Scored:
    """Make the tables of all shards, in their order, one shard in memory at a time."""
    slices: dict[str, float] = {}
    count = 0
    errors: list[tuple[str, str]] = []

    def scored() -> Iterator[tuple[Sequence[str], np.ndarray]]:
        nonlocal count
        for result in results:
            shard = json.loads(result.read_text(encoding="utf-8"))
            errors.extend((path, reason) for path, reason in shard["errors"])
            if shard["rows"]:
                paths, scores = zip(*shard["rows"], strict=True)
                count += len(paths)
                pairs = zip(paths, scores, strict=True)
                slices.update((path, score) for path, score in pairs if is_slice_name(path))
                yield paths, np.array(scores)

    rows = decided.rows(scored())
    if first := next(rows, None):
        write_csv(out, ("path", *SCORE_COLUMNS), chain([first], rows))
    volumes = by_volume(slices.keys(), slices.values(), top=top)
    _write_or_remove(table_beside(out, "errors"), ERROR_COLUMNS, errors)
    _write_or_remove(table_beside(out, "volumes"), VOLUME_COLUMNS, volumes)
    return Scored(count, len(errors), tuple(errors[:SHOWN_ERRORS]), decided.words())


def _write_or_remove(path: Path, header: Sequence[str], rows: Sequence[Row]) -> None:
    """Write a table, or where it would be empty remove that of an earlier call."""
    if rows:
        write_csv(path, header, rows)
    else:
        path.unlink(missing_ok=True)
