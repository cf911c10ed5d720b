"""Scoring files with a model: any number of them, in shards, on any number of workers.

The listing is cut into shards. While a table is being made, there is beside it:

==========================  ===========================================================
``TABLE.shards/about.json`` which model scores what; a second command keeps off
``TABLE.shards/KEY.json``   rows, errors and remarks of a finished shard
``TABLE.shards/attempts/``  how often a shard without rows was started
==========================  ===========================================================

The key of a shard is a hash of the model and of its files' paths, sizes and times. Once all are
there they are joined, in the order of the listing, and the folder goes. Started again after a
kill, the missing shards are scored, and the tables are those of an unbroken run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from heapq import nlargest
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conocc._version import __version__
from conocc.data.columns import TableOptions
from conocc.data.decoding import prefetch, said_of
from conocc.data.image_io.stack import is_slice_name, volume_and_slice
from conocc.data.index import printable
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import (
    BLOCK,
    Item,
    Part,
    deidentified_paths,
    list_images,
    read_block,
    shards,
)
from conocc.data.volumes import VOLUME_COLUMNS, by_volume, check_top
from conocc.detectors import load
from conocc.detectors.file_scores import one_torch_thread, preprocessing_of, scored
from conocc.detectors.reconstruction_scores import told_to_score_by
from conocc.experiments.parallel import Task, check_engine, run_tasks, threads_of
from conocc.experiments.run import SCORE_COLUMNS, model_hash, model_path
from conocc.experiments.seen import about_batch
from conocc.io.files import folder_lock, read_json, remove_unfinished, write_json
from conocc.io.progress import bar
from conocc.io.tables import ERROR_COLUMNS, refuse_other, write_csv, write_or_remove
from conocc.thresholds.rule import RULE, Rule
from conocc.thresholds.rules import NO_DECISION, Decisions, decisions

SHARD_FORMAT = 3
# Files in a shard: what is done again at most after a kill, and given up with one file that
# kills every worker.
SHARD = 2048
SHOWN = 5  # errors, and highest scores

Row = tuple[Any, ...]
Scores = tuple[list[Row], Sequence[Row]]


@dataclass(frozen=True)
class Scored:
    """How many files `score_files` scored and could not read, and the first such errors.

    `flagged` of them are flagged (None where nothing is decided); `highest` are scores and paths,
    `parts` what was scored.
    `words` say which rule made the predictions, what it promises, and whether the images are
    like those of the calibration; `remarks`, of how many
    images something was done to the pixels, and what.
    """

    count: int
    failed: int
    errors: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    remarks: tuple[str, ...]
    flagged: int | None = None
    highest: tuple[tuple[float, str], ...] = ()
    parts: tuple[Part, ...] = ()


class Shard(NamedTuple):
    """Some files to be scored, as plain values, sent to another process."""

    parts: tuple[Part, ...]
    model: Path
    checksum: str
    result: Path
    score: str | None = None

    def detector(self) -> Any:
        """Load the model, once a process."""
        return _load(self.model, self.checksum, self.score)

    def preprocessing(self) -> Preprocessing:
        """Say how the files are read: as the training images were."""
        return Preprocessing.from_dict(self.detector().preprocessing_)

    def task(self, name: str) -> Task:
        """Have it scored by a worker."""
        attempts = self.result.with_name("attempts") / self.result.name
        return Task(name, _do, self, self.result, attempts)


def score_files(
    run: str | Path,
    where: Sequence[str | Path],
    out: str | Path,
    *,
    table: TableOptions = TableOptions(),
    rule: Rule = RULE,
    score: str | None = None,
    top: int = 3,
    engine: str = "processes",
    n_jobs: int = 1,
    address: str | None = None,
    verbose: int = 0,
) -> Scored:
    """Score files, folders or cohorts into a CSV table, read as the training images were.

    Files that cannot be read go to a table beside `out`, with the reason of each: ``x.errors.csv``
    beside ``x.csv``. Where there are volumes, ``x.volumes.csv`` has the highest score of each and
    the mean of the `top` highest of its slices, and a decision where one is promised.
    ``x.about.json`` says by which model and rule, what is promised, and whether the images are like
    those of the calibration. Files of an earlier call are replaced, the scores only if any image
    has one; nothing else ever is.
    Called again after it was killed, it does what is missing, with the same result.

    Parameters
    ----------
    run
        A run's folder, or a model's file.
    where : sequence of path
        See `conocc.data.unlabelled.list_images`.
    out
        The table; under Dask, on a disk that all workers see, as are the files.
    table
        How manifests and archives among `where` are read.
    rule
        When an image is ``predicted`` to be of the minority.
    score
        By which of its scores a method that has several scores; by default the run's. Decisions are
        by the calibration of the same score.
    top
        At least 1.
    engine : {"processes", "dask"}
        At most `n_jobs` processes of this machine, which divide its cores (one works in this
        process, on all of them), or all workers of the Dask cluster at `address`.

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
    check_engine(engine, n_jobs)
    check_top(top)
    model = model_path(run).absolute()
    checksum = model_hash(model)
    detector = _load(model, checksum, score)
    preprocessing = preprocessing_of(detector, run)
    decided = decisions(detector, rule)
    decided.columns(np.empty(0))  # what the rule refuses, it refuses before anything is scored
    out = Path(out).absolute()
    _refuse_others(out)
    folder = out.with_name(f"{out.name}.shards")
    parts = list_images(where, preprocessing, table)
    images = [printable(Path(one).absolute()) for one in where]
    with folder_lock(folder):
        _refuse_other(folder, {"model": printable(model), "images": images})
        about = [SHARD_FORMAT, __version__, checksum, *([score] if score else [])]
        work = [
            Shard(some, model, checksum, folder / f"{_key(about, some)}.json", score)
            for some in shards(parts, SHARD)
        ]
        # Files that are given twice may make one shard twice.
        todo = {
            shard.result: (i, shard) for i, shard in enumerate(work) if not shard.result.exists()
        }
        if todo and engine == "processes" and n_jobs == 1:
            _here([shard for _, shard in todo.values()], verbose)
        elif todo:
            run_tasks(
                [shard.task(f"shard {i + 1} of {len(work)}") for i, shard in todo.values()],
                engine=engine,
                n_jobs=n_jobs,
                address=address,
                give_up=_give_up,
                ended=lambda task, done: "",
                title="Shards",
                total=len(work),
                verbose=verbose,
            )
        made_by = {"model": type(detector).__name__, "sha256": checksum, "conocc": __version__}
        made_by |= {"scored_by": detector.scored_by} if hasattr(detector, "scored_by") else {}
        done = _join([shard.result for shard in work], detector, decided, top, out, made_by)
        for path in folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    with suppress(OSError):  # another process may have taken it
        folder.rmdir()
    return replace(done, parts=tuple(parts))


@lru_cache(maxsize=1)
def _load(path: Path, checksum: str, score: str | None) -> Any:
    if model_hash(path) != checksum:
        raise ValueError(f"The model '{path}' changed while images were being scored.")
    return told_to_score_by(load(path), score)


# --- shards ------------------------------------------------------------------------------------


def _key(about: Sequence[Any], parts: Sequence[Part]) -> str:
    content = [
        [part.where, part.prefix, part.first, part.names, part.listed, part.stamps()]
        for part in parts
    ]
    return hashlib.sha256(json.dumps([about, content]).encode()).hexdigest()[:32]


def _refuse_other(folder: Path, command: dict[str, Any]) -> None:
    """Note whose shards these are; refuse to mix them with those of another command."""
    note = folder / "about.json"
    if not note.exists():
        write_json(note, command)
        return
    if (was := read_json(note)) != command:
        changes = [
            f"{key} was {was.get(key)}, is {now}" for key, now in command.items() if was[key] != now
        ]
        raise ValueError(
            f"'{folder}' holds the unfinished scores of another command: {'; '.join(changes)}. "
            "Finish that one, choose another --out, or delete the folder."
        )


def _here(todo: Sequence[Shard], verbose: int) -> None:
    """Score shards in this process, its threads going on to the next while one ends."""
    total = sum(len(part) for shard in todo for part in shard.parts)
    with bar("Scoring images", total, verbose=verbose) as advance:
        _score_shards(todo, threads_of(1), advance)


def _do(shard: Shard, threads: int) -> None:
    _score_shards([shard], threads)


def _give_up(task: Task, reason: str) -> None:
    """List all files of a shard as errors: which of them did it is not known."""
    shard: Shard = task.argument
    paths = deidentified_paths(shard.parts, shard.preprocessing().size)
    _write_shard(shard.result, [], [(path, reason) for path in paths], Counter())


def _score_shards(
    todo: Sequence[Shard], threads: int, advance: Callable[[int], None] = lambda steps: None
) -> None:
    """Score shards, and write each once its last image is scored.

    A thread reads some files and scores them together, on its own: decoding and the network
    share the cores without waiting for each other.
    """

    def score(piece: tuple[Shard, Sequence[Item]]) -> tuple[Shard, int, Scores, Sequence[str]]:
        shard, items = piece
        detector = shard.detector()
        block = read_block(shard.preprocessing(), detector.input_shape_, items)
        return shard, len(items), scored(detector, block), block.remarks

    with one_torch_thread():
        done = prefetch(score, _pieces(todo, threads), n_jobs=threads, handful=1)
        for shard, group in groupby(done, key=itemgetter(0)):
            rows: list[Row] = []
            errors: list[Row] = []
            remarks = Counter[str]()
            for _, n, (some_rows, some_errors), some_remarks in group:
                rows += some_rows
                errors += some_errors
                remarks.update(some_remarks)
                advance(n)
            _write_shard(shard.result, rows, errors, remarks)


def _pieces(todo: Iterable[Shard], threads: int) -> Iterator[tuple[Shard, list[Item]]]:
    """Cut shards into what one thread takes: a block of the network, or less of a few files."""
    for shard in todo:
        size = shard.preprocessing().size
        n = sum(map(len, shard.parts))
        items = chain.from_iterable(part.items(size) for part in shard.parts)
        while some := list(islice(items, min(BLOCK, -(-n // threads)))):
            yield shard, some


# --- tables ------------------------------------------------------------------------------------


def _write_shard(
    path: Path, rows: Sequence[Row], errors: Sequence[Row], remarks: Counter[str]
) -> None:
    """Keep paths, scores, which no rule changes, and `FACTS`; errors, and remarks."""
    write_json(path, {"rows": list(rows), "errors": list(errors), "remarks": dict(remarks)})


def table_beside(out: Path, kind: str) -> Path:
    """Name the table of ``errors`` or ``volumes`` that goes with a table of scores."""
    return out.with_name(f"{out.stem}.{kind}{out.suffix}")


def note_beside(out: Path) -> Path:
    """Name the file that says of a table of scores how it came to be."""
    return out.with_name(f"{out.stem}.about.json")


def _refuse_others(out: Path) -> None:
    if (out.parent / "run.json").exists():
        raise FileExistsError(
            f"'{out}' lies in the folder of a run, whose files are its own. Choose another --out. "
            "Nothing was written."
        )
    if out.suffix.lower() in (".xlsx", ".xlsm", ".xls", ".parquet", ".pq"):
        raise ValueError(f"'{out}' would hold a table in CSV. Call it '{out.stem}.csv' (--out).")
    refuse_other(out, ",".join(("path", *SCORE_COLUMNS)))
    refuse_other(table_beside(out, "errors"), ",".join(ERROR_COLUMNS))
    refuse_other(table_beside(out, "volumes"), ",".join(VOLUME_COLUMNS))
    refuse_other(note_beside(out), '{\n  "written_by": "conocc score",')


def _join(
    results: Sequence[Path],
    detector: Any,
    decided: Decisions,
    top: int,
    out: Path,
    about: dict[str, Any],
) -> Scored:
    """Make the tables of all shards, in their order, one shard's paths in memory at a time."""
    slices: dict[str, float] = {}
    measured, files = list[np.ndarray](), list[int]()  # hashes, since paths of all take memory
    errors: list[tuple[str, str]] = []
    remarks, highest = Counter[str](), list[tuple[float, str]]()
    for shard in map(read_json, results):
        errors += [(path, reason) for path, reason in shard["errors"]]
        remarks.update(shard["remarks"])
        if shard["rows"]:
            paths, *columns = zip(*shard["rows"], strict=True)
            highest = nlargest(SHOWN, [*highest, *zip(columns[0], paths, strict=True)])
            pairs = zip(paths, columns[0], strict=True)
            slices.update((path, score) for path, score in pairs if is_slice_name(path))
            files += [hash(volume_and_slice(path)[0]) for path in paths]
            measured.append(np.array(columns).T)

    _refuse_others(out)  # once more: hours may have passed
    for path in (out, table_beside(out, "errors"), table_beside(out, "volumes"), note_beside(out)):
        remove_unfinished(path)
    words, flagged = [decided.words()], None
    if measured:
        images = np.concatenate(measured)
        whole = decided.with_batch_threshold(images[:, 0])
        write_csv(out, ("path", *SCORE_COLUMNS), _decided_rows(results, whole))
        volumes = by_volume(slices.keys(), slices.values(), top=top)
        predicted = decided.of_volumes(volume[2] for volume in volumes)
        lines = [(*volume, said) for volume, said in zip(volumes, predicted, strict=True)]
        write_or_remove(table_beside(out, "volumes"), VOLUME_COLUMNS, lines)
        words += [NO_DECISION] if "" in predicted else []
        batch = about_batch(detector, decided, images[:, 0], images[:, 1:], np.array(files))
        is_flagged = whole.flagged(images[:, 0])
        flagged = None if is_flagged is None else int(is_flagged.sum())
        note = {"written_by": "conocc score", **about, "images": len(files)}
        write_json(note_beside(out), {**note, "decision": decided.as_json(), "batch": batch})
        words += [*batch["words"], *batch["moved"].values()]
    write_or_remove(table_beside(out, "errors"), ERROR_COLUMNS, errors)
    counts, shown = (len(files), len(errors)), tuple(errors[:SHOWN])
    return Scored(*counts, shown, tuple(words), said_of(remarks), flagged, tuple(highest))


def _decided_rows(results: Sequence[Path], decided: Decisions) -> Iterator[Row]:
    """Give path, score, p-value and prediction of the images of shards, by one threshold of all."""
    for shard in map(read_json, results):
        scores = np.array([row[1] for row in shard["rows"]], float)
        paths = [row[0] for row in shard["rows"]]
        yield from zip(paths, scores.tolist(), *decided.columns(scores), strict=True)
