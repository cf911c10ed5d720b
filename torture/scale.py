"""Many small files, many rows, and Ctrl-C: memory, seconds, the first word and the last.

``python -m torture.scale`` writes 100 000 images of 16 pixels and takes them through ``data
inspect``, ``fit`` (one epoch) and ``score``, each on a terminal of its own; makes the tables of a
study of 10 000 rows; and presses Ctrl-C at several moments of five commands. The exit status is 1
if a command failed, did not stop within two seconds, or did not say how to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from conocc.experiments.significance import write_comparisons
from conocc.experiments.tables import write_tables
from conocc.metrics.ranking import METRICS

STOP_S = 2.0
EVERY_S = 0.1
GO_ON = "same command"
SMALL = ["--set", "channels=(4,8)", "--set", "bottleneck=8"]
COHORT = ["images", "--majority", "a"]
LARGE = {
    "data inspect": ["data", "inspect", *COHORT],
    "fit": ["fit", *COHORT, "--epochs", "1", *SMALL, "--out", "run"],
    "score": ["score", "run", "images", "--out", "scores.csv"],
}
# What is interrupted, on fewer files; 'run' is there.
LONG = ["--epochs", "1000", *SMALL]
INTERRUPTED = {
    "data inspect": ["data", "inspect", *COHORT, "--no-cache"],
    "fit": ["fit", *COHORT, *LONG, "--out", "out"],
    "benchmark": ["benchmark", *COHORT, "--methods", "cae,conocc", *LONG, "--runs", "2"],
    "crossval": ["crossval", *COHORT, "--methods", "cae", *LONG, "--folds", "2", "--group", "none"],
    "score": ["score", "run", "images", "--out", "out/scores.csv"],
}
INTERRUPTED["benchmark"] += ["--jobs", "2", "--out", "out"]
INTERRUPTED["crossval"] += ["--jobs", "2", "--out", "out"]
MOMENTS = (0.0, 1.0, 3.0, 6.0, 12.0, 20.0)


# --- a command on a terminal -------------------------------------------------------------------


class Seen(NamedTuple):
    """What a command was seen to do.

    Attributes
    ----------
    first_s, silent_s
        Until its first word; the longest time without one.
    stop_s, gone_s
        From Ctrl-C until it ended, and until all that it started was gone; None if it had ended
        before.
    mebibytes
        Most anonymous memory of all its processes together.
    """

    code: int
    seconds: float
    first_s: float
    silent_s: float
    stop_s: float | None
    gone_s: float | None
    mebibytes: float
    said: str


def watch(arguments: Sequence[str], folder: Path, interrupt_after: float = np.inf) -> Seen:
    """Run a command on a terminal, and press Ctrl-C there so many seconds after its first word."""
    with _terminal() as (screen, keyboard):
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "conocc", *arguments],
            **{"cwd": folder, "stdin": keyboard, "stdout": keyboard, "stderr": keyboard},
            process_group=0,
        )
        said, words, peak, pressed, ended = b"", [start], 0.0, None, None
        while _lives(process):
            if select.select([screen], [], [], EVERY_S)[0]:
                said += os.read(screen, 1 << 16)
                words.append(time.monotonic())
            peak = max(peak, _anonymous_mib(process.pid))
            now = time.monotonic()
            if ended is None and process.poll() is not None:
                ended = now
            begun = len(words) > 1 and now - words[1] >= interrupt_after
            if begun and pressed is None and ended is None:
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                pressed = now
        gone = time.monotonic()
        while select.select([screen], [], [], 0)[0]:
            said += os.read(screen, 1 << 16)
    ended = ended or gone
    silent = max(np.diff([*words, ended]))
    first = words[1] - start if len(words) > 1 else np.inf
    stop, all_gone = (None, None) if pressed is None else (ended - pressed, gone - pressed)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode(errors="replace"))
    code: int = process.returncode
    return Seen(code, ended - start, first, silent, stop, all_gone, peak, text)


@contextmanager
def _terminal() -> Iterator[tuple[int, int]]:
    ends = pty.openpty()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _lives(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a command or anything that it started is there still."""
    if process.poll() is None:
        return True
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 0)
        return True
    return False


def _anonymous_mib(group: int) -> float:
    """Sum the memory that belongs to no file over a process group (Linux: RssAnon)."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError, ValueError):
            if os.getpgid(int(status.parent.name)) == group:
                found = re.search(r"RssAnon:\s*(\d+)", status.read_text())
                total += int(found[1]) if found else 0
    return total / 1024


# --- what there is much of ---------------------------------------------------------------------


def make_images(folder: Path, count: int) -> None:
    """Write noise of 16 pixels in two classes, a tenth of them of the minority."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / "images" / label).mkdir(parents=True)
    for i in range(count):
        image = Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8))
        image.save(folder / "images" / ("b" if i % 10 == 9 else "a") / f"{i:06}.png")


def make_rows(study: Path, count: int) -> None:
    """Write the rows of a study: ten methods, many seeds."""
    rows = study / "rows"
    rows.mkdir(parents=True)
    rng = np.random.default_rng(0)
    methods = ("gabor_mahalanobis", "ocsvm", "cocsvm", "dagmm", "dsvdd", "anogan", "sae", "cae")
    methods += ("conocc",)
    for i in range(count):
        method = methods[i % len(methods)]
        metrics = {name: {"value": rng.random(), "low": 0, "high": 1} for name in METRICS}
        row = {"format": 1, "key": f"{i:032x}", "status": "done", "error": None}
        row |= {"method": method, "label": method, "cohort": f"cohort-{i % 5}"}
        row |= {"params": {"epochs": 5, "random_state": i}, "images": "0" * 16}
        row |= {"preprocessing": {"size": 16}, "protocol": "benchmark", "rule": None, "group": None}
        row |= {"fold": None, "seed": i, "prevalence": 0.5, "left_out": {}, "threads": 1}
        row |= {"counts": {"majority": 8, "minority": 8, "patients": None}, "seconds": 1.0}
        row |= {"metrics": metrics, "notes": [], "versions": {}}
        row |= {"command": "conocc benchmark", "run": f"jobs/{i:032x}"}
        (rows / f"{i:032x}.json").write_text(json.dumps(row))


# --- the command -------------------------------------------------------------------------------


def large(folder: Path, count: int) -> bool:
    """Take many files through three commands, and print what that took."""
    make_images(folder, count)
    print(f"{count} files:\n")
    print("| command | seconds | first word, s | longest silence, s | anonymous memory, MiB |")
    print("|---|---|---|---|---|")
    good = True
    for name, arguments in LARGE.items():
        seen = watch(arguments, folder)
        cells = (seen.seconds, seen.first_s, seen.silent_s, seen.mebibytes)
        print(f"| `{name}` | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |", flush=True)
        if seen.code:
            print(f"exit code {seen.code}: {seen.said[-500:]}")
        good &= seen.code == 0
    return good


def tabulated(folder: Path, count: int) -> None:
    """Make the tables of many rows, and print what that took."""
    make_rows(folder / "study", count)
    start = time.monotonic()
    write_tables(folder / "study")
    tables = time.monotonic()
    write_comparisons(folder / "study")
    end = time.monotonic()
    print(f"\n{count} rows: tables in {tables - start:.1f} s, comparisons in {end - tables:.1f} s.")


def interrupted(folder: Path, moments: Sequence[float]) -> bool:
    """Press Ctrl-C at moments after each command's first word, and print how soon it stopped."""
    print("\nCtrl-C: seconds until the command ended (until all that it had started was gone).\n")
    print("| command | " + " | ".join(f"after {moment:.0f} s" for moment in moments) + " |")
    print("|---" * (len(moments) + 1) + "|")
    faults = []
    for name, arguments in INTERRUPTED.items():
        cells = []
        for i, moment in enumerate(moments):
            own = [
                a.replace("out", f"{name.split()[0]}-{i}") if a[:3] == "out" else a
                for a in arguments
            ]
            seen = watch(own, folder, moment)
            if seen.stop_s is None:
                cells.append("had ended")
                continue
            cells.append(f"{seen.stop_s:.1f} ({seen.gone_s:.1f})")
            if seen.stop_s > STOP_S or GO_ON not in seen.said:
                faults.append(f"{name} after {moment:.0f} s: {seen.said[-500:]!r}")
        print(f"| `{name}` | " + " | ".join(cells) + " |", flush=True)
    for fault in faults:
        print(fault)
    return not faults


def main() -> int:
    """Run the command."""
    # A shell that started this in the background has it ignored, also by all that this starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--moments", type=float, nargs="*", default=MOMENTS, help="Of Ctrl-C.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        os.environ["CONOCC_CACHE"] = f"{base}/cache"
        good = large(folder, asked.files)
        tabulated(folder, asked.rows)
        good &= not asked.moments or interrupted(folder, asked.moments)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
