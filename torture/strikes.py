"""Faults in mid-work: each command, struck, then started again, must end as if nothing had been.

``python -m torture.strikes --count 200`` runs ``fit``, ``benchmark``, ``crossval`` and ``score``
on a small made cohort and strikes each at a random moment with a random fault. After a strike the
same command is run again; what it leaves must be, byte for byte, what an unbroken command leaves,
and no temporary file, lock or checkpoint beside it. A command that was not killed must have ended
with a sentence, not with a traceback. The exit status is 1 if anything was lost or left behind.
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
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

PATIENCE_S = 120.0
# What hangs on the clock, and on where a strike's folder is.
OF_THE_OCCASION = ("seconds", "where")
RETRY = {"benchmark": ["--retry-failed"], "crossval": ["--retry-failed"]}
SMALL = ["--set", "channels=(4,8)", "--set", "bottleneck=8", "--quiet"]
COMMANDS = {
    "fit": [
        *("fit", "cohort", "--majority", "a", "--method", "conocc", "--epochs", "80"),
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


def _command(name: str, folder: Path, largest: int | None, again: bool) -> None:
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
    from conocc.cli import app

    training.SAVE_EVERY_S = 0.05  # or so short a fit would never save its state
    # What the outputs tell of the command is the same when it is run again.
    sys.argv = ["conocc", *COMMANDS[name]]
    try:
        app([*COMMANDS[name], *(RETRY.get(name, []) if again else [])])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a child of multiprocessing would wait a minute for idle workers


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["conocc.cli", "conocc.study", "conocc.run", "conocc.tables", "conocc.methods.conocc"]
)


def start(name: str, folder: Path, largest: int | None = None, *, again: bool = False) -> Any:
    """Start a command in a folder; `largest` bytes is as much as any file may grow to."""
    process = _context.Process(target=_command, args=(name, folder, largest, again))
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


class Strike(NamedTuple):
    """Where a fault strikes: a command in its folder, after so many seconds."""

    command: str
    folder: Path
    after: float
    rng: np.random.Generator


def _killed(strike: Strike) -> None:
    """SIGKILL to all of it, as when the machine goes down."""
    process = start(strike.command, strike.folder)
    process.join(strike.after)
    _kill_all(process.pid, signal.SIGKILL)
    process.join()


def _terminated(strike: Strike) -> None:
    """SIGTERM to the command alone, as SLURM sends it."""
    process = start(strike.command, strike.folder)
    process.join(strike.after)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGTERM)
    finish(process)


def _worker_killed(strike: Strike) -> None:
    """SIGKILL to one process that the command started, if there is one."""
    process = start(strike.command, strike.folder)
    process.join(strike.after)
    children = _children(process.pid)
    if children:
        os.kill(int(strike.rng.choice(children)), signal.SIGKILL)
    finish(process)
    _must_be_a_sentence(strike.folder)


def _children(pid: int) -> list[int]:
    try:
        task = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in task.split()]


def _disk_full(strike: Strike) -> None:
    """Let no file grow beyond a few bytes or some thousands."""
    finish(start(strike.command, strike.folder, int(2 ** strike.rng.uniform(0, 14))))
    _must_be_a_sentence(strike.folder)


def _file_vanished(strike: Strike) -> None:
    """Remove an image while the command runs; it is back when that is started again."""
    process = start(strike.command, strike.folder)
    process.join(strike.after / 2)
    victim = sorted((strike.folder / "cohort").rglob("*.png"))[int(strike.rng.integers(40))]
    data = victim.read_bytes()
    victim.unlink()
    finish(process)
    victim.write_bytes(data)
    _must_be_a_sentence(strike.folder)


def _file_changed(strike: Strike) -> None:
    """Cut an image short while the command runs; it is whole when that is started again."""
    process = start(strike.command, strike.folder)
    process.join(strike.after / 2)
    victim = sorted((strike.folder / "cohort").rglob("*.png"))[int(strike.rng.integers(40))]
    data = victim.read_bytes()
    victim.write_bytes(data[: int(strike.rng.integers(len(data)))])
    finish(process)
    victim.write_bytes(data)
    _must_be_a_sentence(strike.folder)


def _started_twice(strike: Strike) -> None:
    """Start the same command twice, the second a moment after the first."""
    first = start(strike.command, strike.folder)
    first.join(strike.after / 4)
    second = start(strike.command, strike.folder)
    finish(first)
    finish(second)
    _must_be_a_sentence(strike.folder)


def _must_be_a_sentence(folder: Path) -> None:
    said = (folder / "said").read_text(errors="replace")
    if "Traceback" in said:
        raise AssertionError(f"a traceback: {said[-300:]!r}")


FAULTS: dict[str, Callable[[Strike], None]] = {
    "SIGKILL to all": _killed,
    "SIGTERM": _terminated,
    "SIGKILL to a worker": _worker_killed,
    "disk full": _disk_full,
    "a file vanishes": _file_vanished,
    "a file changes": _file_changed,
    "started twice": _started_twice,
}


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


def strike_once(command: str, fault: str, base: Path, index: int, seed: int) -> Result:
    """Strike a command once and look at what comes of it; `base` holds `prepare`'s folders."""
    rng = np.random.default_rng([seed, index])
    folder = base / f"strike-{index}"
    shutil.copytree(base / "clean", folder)
    reference = json.loads((base / f"{command}.json").read_text())
    after = float(rng.uniform(0, reference["seconds"]))
    try:
        FAULTS[fault](Strike(command, folder, after, rng))
        for _ in range(3):
            code = finish(start(command, folder, again=True))
            if code == 0:
                break
        found = left_by(folder)
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
    except (AssertionError, TimeoutError) as error:
        return Result(command, fault, "other", str(error))
    shutil.rmtree(folder)
    return Result(command, fault, "survived")


def prepare(base: Path) -> None:
    """Make the cohort and a model, and run each command unbroken, for what it leaves."""
    clean = base / "clean"
    clean.mkdir()
    make_cohort(clean)
    for command in COMMANDS:
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


def torture(count: int, seed: int, base: Path) -> list[Result]:
    """Strike `count` times, each pair of command and fault in turn."""
    prepare(base)
    pairs = [(command, fault) for fault in FAULTS for command in COMMANDS]
    results = []
    for index in range(count):
        command, fault = pairs[index % len(pairs)]
        results.append(strike_once(command, fault, base, index, seed))
        if results[-1].what != "survived":
            print(f"{index} {command}, {fault}: {results[-1].what}: {results[-1].said}", flush=True)
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
        results = torture(asked.count, asked.seed, Path(base))
    print(table(results))
    return int(any(result.what != "survived" for result in results))


if __name__ == "__main__":
    sys.exit(main())
