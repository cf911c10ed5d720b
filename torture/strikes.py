"""Faults in mid-work: each command, struck, then started again, must end as if nothing had been.

``python -m torture.strikes --count 200`` runs ``fit``, ``benchmark``, ``crossval`` and ``score``
on a small made cohort and strikes each at a random moment with each kind of fault in turn. After a
strike the same command is run again; what it leaves must be, byte for byte, what an unbroken
command leaves, and no temporary file, lock or checkpoint beside it. A command that was not killed
must have ended with a sentence, not with a traceback, and with all its work if it ended well. The
exit status is 1 if anything was lost or left behind. Kinds of fault that this machine cannot make
are named and not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from torture.cluster import dask_cluster, is_installed, worker_pids
from torture.folders import full_disk, may_be_read_only, may_mount, read_only

PATIENCE_S = 300.0  # a machine may be busy
# What hangs on the clock, and on where a strike's folder is.
OF_THE_OCCASION = ("seconds", "where", "namespace")
RETRY = {"benchmark": ["--retry-failed"], "crossval": ["--retry-failed"]}
SMALL = ["--set", "channels=(4,8)", "--set", "bottleneck=8", "--quiet"]
COMMANDS = {
    "fit": [
        *("fit", "cohort", "--majority", "a", "--method", "conocc", "--epochs", "40"),
        *("--interval", "5", "--out", "out", *SMALL),
    ],
    "benchmark": [
        *("benchmark", "cohort", "--majority", "a", "--methods", "conocc,ocsvm", "--runs", "2"),
        *("--epochs", "10", "--jobs", "2", "--out", "out", *SMALL),
    ],
    "crossval": [
        *("crossval", "cohort", "--majority", "a", "--methods", "cae", "--folds", "2"),
        *("--group", "none", "--epochs", "10", "--jobs", "2", "--out", "out", *SMALL),
    ],
    "score": ["score", "model", "cohort", "--out", "out/scores.csv", "--quiet"],
}


# --- one command in a process of its own -------------------------------------------------------


def _command(
    name: str, folder: Path, largest: int | None, address: str | None, again: bool
) -> None:
    """Run a command in a child that has the package imported already."""
    os.setpgid(0, 0)
    os.chdir(folder)
    with Path("said").open("w") as said:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(said.fileno(), stream.fileno())
    if largest is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    from conocc import training
    from conocc.cli import run

    training.SAVE_EVERY_S = 0.0  # or so short a fit would never save its state
    # What the outputs tell of the command is the same when it is run again.
    sys.argv = ["conocc", *COMMANDS[name]]
    where = ["--engine", "dask", "--address", address] if address else []
    try:
        code = run([*COMMANDS[name], *where, *(RETRY.get(name, []) if again else [])])
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a child of multiprocessing would wait a minute for idle workers


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "conocc.cli",
        "conocc.experiments.benchmark",
        "conocc.experiments.run",
        "conocc.experiments.tables",
        "conocc.detectors.conocc",
    ]
)


def start(
    name: str,
    folder: Path,
    *,
    largest: int | None = None,
    address: str | None = None,
    again: bool = False,
) -> Any:
    """Start a command in a folder.

    `largest` bytes is as much as any file may grow to; `address` is that of a Dask scheduler.
    """
    process = _context.Process(target=_command, args=(name, folder, largest, address, again))
    process.start()
    return process


def finish(process: Any) -> int:
    """Wait for a command and whatever it started."""
    process.join(PATIENCE_S)
    if process.exitcode is None:
        _kill_all(process.pid, signal.SIGKILL)
        process.join()
        raise TimeoutError(f"a command took more than {PATIENCE_S:.0f} s")
    code: int = process.exitcode
    return code


def _kill_all(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


# --- faults ------------------------------------------------------------------------------------
# Each gives the exit code of the command that it struck, or None where it was killed.


class Strike(NamedTuple):
    """Where a fault strikes: a command in its folder, after so many seconds."""

    command: str
    folder: Path
    after: float
    rng: np.random.Generator
    address: str | None = None


def _killed(strike: Strike) -> None:
    """SIGKILL to all of it, as when the machine goes down."""
    process = start(strike.command, strike.folder)
    process.join(strike.after)
    _kill_all(process.pid, signal.SIGKILL)
    process.join()


def _terminated(strike: Strike) -> int:
    """SIGTERM to the command alone, as SLURM sends it."""
    process = start(strike.command, strike.folder)
    process.join(strike.after)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGTERM)
    return finish(process)


def _worker_killed(strike: Strike) -> int:
    """SIGKILL to one process that the command started, if there is one."""
    process = start(strike.command, strike.folder)
    process.join(strike.after)
    children = _children(process.pid)
    if children:
        os.kill(int(strike.rng.choice(children)), signal.SIGKILL)
    return _with_a_sentence(strike, process)


def _children(pid: int) -> list[int]:
    try:
        task = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in task.split()]


def _dask_worker_killed(strike: Strike) -> int:
    """SIGKILL to one of two workers of a Dask cluster; its nanny starts another one."""
    assert strike.address is not None
    pids = worker_pids(strike.address)
    process = start(strike.command, strike.folder, address=strike.address)
    process.join(strike.after)
    os.kill(int(strike.rng.choice(pids)), signal.SIGKILL)
    return _with_a_sentence(strike, process)


def _disk_full(strike: Strike) -> int:
    """Have the output on a disk of some kilobytes; then what it holds moves to one with room."""
    out, moved = strike.folder / "out", strike.folder / "moved"
    out.mkdir()
    with full_disk(out, int(2 ** strike.rng.uniform(12, 19))):
        code = _with_a_sentence(strike, start(strike.command, strike.folder))
        shutil.copytree(out, moved)
    out.rmdir()
    moved.rename(out)
    return code


def _files_limited(strike: Strike) -> int:
    """Let no file grow beyond a few bytes or some thousands."""
    largest = int(2 ** strike.rng.uniform(0, 14))
    return _with_a_sentence(strike, start(strike.command, strike.folder, largest=largest))


def _read_only(strike: Strike) -> int:
    """Kill the command, and start it again while its output cannot be written."""
    _killed(strike)
    out = strike.folder / "out"
    out.mkdir(exist_ok=True)
    with read_only(out):
        return _with_a_sentence(strike, start(strike.command, strike.folder, again=True))


def _file_vanished(strike: Strike) -> int:
    """Remove an image while the command runs; it is back when that is started again."""
    return _damage_meanwhile(strike, lambda victim, data: victim.unlink())


def _file_changed(strike: Strike) -> int:
    """Cut an image short while the command runs; it is whole when that is started again."""

    def cut(victim: Path, data: bytes) -> None:
        victim.write_bytes(data[: int(strike.rng.integers(len(data)))])

    return _damage_meanwhile(strike, cut)


def _damage_meanwhile(strike: Strike, damage: Callable[[Path, bytes], Any]) -> int:
    process = start(strike.command, strike.folder)
    process.join(strike.after / 2)
    victim = sorted((strike.folder / "cohort").rglob("*.png"))[int(strike.rng.integers(40))]
    data = victim.read_bytes()
    damage(victim, data)
    try:
        return _with_a_sentence(strike, process)
    finally:
        victim.write_bytes(data)


def _started_twice(strike: Strike) -> int:
    """Start the same command twice, the second a moment after the first."""
    first = start(strike.command, strike.folder)
    first.join(strike.after / 4)
    second = start(strike.command, strike.folder)
    return min(finish(first), _with_a_sentence(strike, second))


def _with_a_sentence(strike: Strike, process: Any) -> int:
    """Wait for a command, which must say why it ended, if not well, and without a traceback."""
    code = finish(process)
    said = (strike.folder / "said").read_text(errors="replace")
    if "Traceback" in said or (code and not said.strip()):
        raise AssertionError(f"exit code {code}, and no sentence: {said[-300:]!r}")
    return code


FAULTS: dict[str, Callable[[Strike], int | None]] = {
    "SIGKILL to all": _killed,
    "SIGTERM": _terminated,
    "SIGKILL to a worker": _worker_killed,
    "SIGKILL to a Dask worker": _dask_worker_killed,
    "disk full": _disk_full,
    "size of files limited": _files_limited,
    "read-only folder": _read_only,
    "a file vanishes": _file_vanished,
    "a file changes": _file_changed,
    "started twice": _started_twice,
}
# After these the struck command may have listed another cohort, and done well with that.
OF_ANOTHER_COHORT = ("a file vanishes", "a file changes")


def impossible() -> dict[str, str]:
    """Say which kinds of fault this machine cannot make, and why."""
    why = {}
    if not is_installed():
        why["SIGKILL to a Dask worker"] = "the extra 'dask' is not installed"
    if not may_mount():
        why["disk full"] = "nothing may be mounted"
    if not may_be_read_only():
        why["read-only folder"] = "root writes through permissions, and nothing may be mounted"
    return why


def can(command: str, fault: str) -> bool:
    """Tell whether a fault can strike a command: `fit` has no workers of Dask."""
    return (command, fault) != ("fit", "SIGKILL to a Dask worker")


# --- before and after --------------------------------------------------------------------------


def make_cohort(folder: Path) -> None:
    """Write 60 images of 16 pixels in two classes."""
    rng = np.random.default_rng(0)
    for label, count in (("a", 40), ("b", 20)):
        (folder / "cohort" / label).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 200, (16, 16)) + 50 * (label == "b")
            Image.fromarray(image.astype(np.uint8)).save(folder / "cohort" / label / f"{i}.png")


def left_by(folder: Path) -> dict[str, str]:
    """Hash every file that a command left, but for what is of the occasion."""
    return {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted((folder / "out").rglob("*"))
        if path.is_file()
    }


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".json":
        data = json.dumps(_lasting(json.loads(data)), sort_keys=True).encode()
    if path.suffix == ".npz":  # an archive holds the time at which it was written
        with np.load(path, allow_pickle=False) as file:
            data = b"".join(file[name].tobytes() for name in sorted(file.files))
    if path.name in {"study.csv", "rows.csv"}:
        return "holds seconds"
    return hashlib.sha256(data).hexdigest()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if k not in OF_THE_OCCASION}
    return value


class Result(NamedTuple):
    """What became of a strike: ``survived``, or what was lost, left behind or said."""

    command: str
    fault: str
    what: str
    said: str = ""


def strike_once(
    command: str, fault: str, base: Path, index: int, seed: int, address: str | None = None
) -> Result:
    """Strike a command once and look at what comes of it; `base` holds `prepare`'s folders."""
    rng = np.random.default_rng([seed, index])
    folder = base / f"strike-{index}"
    shutil.copytree(base / "clean", folder)
    reference = json.loads((base / f"{command}.json").read_text())
    after = float(rng.uniform(0, reference["seconds"]))
    strike = Strike(command, folder, after, rng, address if "Dask" in fault else None)
    try:
        code = FAULTS[fault](strike)
        found = left_by(folder)
        if code == 0 and fault not in OF_ANOTHER_COHORT and found != reference["left"]:
            return Result(command, fault, "lost", "ended well, and without all its work")
        code, found = _start_again(strike, reference["left"], fault in OF_ANOTHER_COHORT)
    except (AssertionError, TimeoutError) as error:
        return Result(command, fault, "other", str(error))
    if code:
        said = (folder / "said").read_text(errors="replace")[-300:]
        return Result(command, fault, "not finished", f"exit {code}: {said}")
    expected = reference["left"]
    lost = sorted(k for k in expected if found.get(k) != expected[k])
    more = sorted(found.keys() - expected.keys())
    if lost:
        return Result(command, fault, "lost", ", ".join(lost))
    if more:
        return Result(command, fault, "left behind", ", ".join(more))
    shutil.rmtree(folder)
    return Result(command, fault, "survived")


def _start_again(
    strike: Strike, expected: dict[str, str], other_cohort: bool
) -> tuple[int, dict[str, str]]:
    """Start a command until it ends well, three times at most; give exit code and what it left.

    Where the struck command did its work on another cohort, the second one must say so, and what
    it says to do about it is done.
    """
    for _ in range(3):
        code = finish(start(strike.command, strike.folder, address=strike.address, again=True))
        said = (strike.folder / "said").read_text(errors="replace")
        if other_cohort and "holds a run with other settings: images was" in said:
            shutil.rmtree(strike.folder / "out")  # "Choose another --out, or delete it."
        elif other_cohort and "also holds rows of" in said:
            _delete_rows(strike.folder / "out", expected)
        elif code == 0:
            break
    return code, left_by(strike.folder)


def _delete_rows(study: Path, expected: dict[str, str]) -> None:
    """Delete a study's rows of another cohort, with their runs, as its command says to."""
    ours = {Path(name).stem for name in expected if name.startswith("out/rows/")}
    rows = {path.stem: json.loads(path.read_text()) for path in (study / "rows").iterdir()}
    (images,) = {row["images"] for key, row in rows.items() if key in ours}
    for key, row in rows.items():
        if row["images"] != images:
            (study / "rows" / f"{key}.json").unlink()
            shutil.rmtree(study / "jobs" / key, ignore_errors=True)


def prepare(base: Path, commands: Iterable[str] = COMMANDS) -> None:
    """Make the cohort and a model, and run commands (``fit`` first) unbroken: what they leave."""
    clean = base / "clean"
    clean.mkdir()
    make_cohort(clean)
    for command in commands:
        folder = base / command
        shutil.copytree(clean, folder)
        began = time.monotonic()
        code = finish(start(command, folder))
        if code:
            raise RuntimeError(f"{command} fails on its own: {(folder / 'said').read_text()}")
        seconds = time.monotonic() - began
        kept = {"seconds": seconds, "left": left_by(folder)}
        (base / f"{command}.json").write_text(json.dumps(kept))
        if command == "fit":  # what `score` scores with
            shutil.copytree(folder / "out", clean / "model")


def table(results: list[Result]) -> str:
    """Count by fault and command, in Markdown: survived of struck."""
    lines = [
        "| fault | " + " | ".join(COMMANDS) + " | lost | left behind | other |",
        "|---" * (len(COMMANDS) + 4) + "|",
    ]
    for fault in FAULTS:
        those = [r for r in results if r.fault == fault]
        cells = []
        for command in COMMANDS:
            struck = [r for r in those if r.command == command]
            survived = sum(r.what == "survived" for r in struck)
            cells.append(f"{survived} of {len(struck)}" if struck else "–")
        counts = Counter(r.what for r in those)
        other = len(those) - counts["survived"] - counts["lost"] - counts["left behind"]
        cells += [str(counts["lost"]), str(counts["left behind"]), str(other)]
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pairs() -> list[tuple[str, str]]:
    """List the commands with the faults that can strike them here."""
    faults = [fault for fault in FAULTS if fault not in impossible()]
    return [(command, fault) for fault in faults for command in COMMANDS if can(command, fault)]


def torture(struck: Sequence[tuple[str, str]], seed: int, base: Path) -> list[Result]:
    """Strike each of these commands with its fault."""
    prepare(base, [name for name in COMMANDS if name in {"fit", *(name for name, _ in struck)}])
    results = []
    with ExitStack() as stack:
        address = None
        if any("Dask" in fault for _, fault in struck):
            address = stack.enter_context(dask_cluster(base))
        for index, (command, fault) in enumerate(struck):
            result = strike_once(command, fault, base, index, seed, address)
            results.append(result)
            if result.what != "survived":
                print(f"{index} {command}, {fault}: {result.what}: {result.said}", flush=True)
    return results


def _scratch(keep: Path | None) -> AbstractContextManager[str]:
    if keep is None:
        return tempfile.TemporaryDirectory()
    keep.mkdir(parents=True, exist_ok=True)
    return nullcontext(tempfile.mkdtemp(dir=keep))


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Where the folders of failures stay.")
    asked = parser.parse_args()
    with _scratch(asked.keep) as base:
        os.environ["CONOCC_CACHE"] = f"{base}/cache"
        # Weights hang on the threads, and these on how many Dask workers there are at the start.
        os.environ["LOKY_MAX_CPU_COUNT"] = "1"
        struck = list(islice(cycle(pairs()), asked.count))
        results = torture(struck, asked.seed, Path(base))
    print(table(results))
    for fault, why in impossible().items():
        print(f"Not tried: {fault}, since {why}.")
    return int(any(result.what != "survived" for result in results))


if __name__ == "__main__":
    sys.exit(main())
