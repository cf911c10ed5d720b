"""Contestants: processes of their own, of which one runs at a time and says what it took.

Each keeps its own memory, threads and settings of the process, so that none profits from another.
A contestant is a module that is run with arguments and calls `serve`.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What a user has not set is not set here either.
ONE_CORE = "CONOCC_BENCH_ONE_CORE"
SETTINGS = ("OMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "XLA_", "MALLOC_", "TORCH_")


def serve(measure: Callable[[], Mapping[str, Any]]) -> None:
    """Answer each line of the standard input with one of JSON: what `measure` returned.

    What sets up `measure` runs before, so that it is not measured.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    answers.write("ready\n")
    answers.flush()
    for _ in sys.stdin:
        answers.write(json.dumps(dict(measure())) + "\n")
        answers.flush()


def clock() -> float:
    """Tell the seconds: of the clock, or of the processor where one core is shared with others."""
    return time.process_time() if ONE_CORE in os.environ else time.perf_counter()


def timed(work: Callable[[], Any], amount: float) -> dict[str, float]:
    """Do the work once; return how much of it a second, and the peak memory so far in MiB."""
    start = clock()
    work()
    seconds = clock() - start
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"rate": amount / seconds, "peak_mib": peak}


@dataclass
class Contestant:
    """One process, and what it answered so far."""

    name: str
    arguments: Sequence[str]
    warm_up: bool = True
    answers: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._line()

    def go(self, *, keep: bool = True) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = json.loads(self._line())
        if keep:
            self.answers.append(answer)

    def stop(self) -> None:
        self.process.communicate()

    def median(self, key: str) -> float:
        return statistics.median(answer[key] for answer in self.answers)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"Contestant {self.name!r} ended; its last words stand above.")
        return line


def share_one_core() -> None:
    """Have all contestants run on one core, timed by the processor's seconds.

    For a machine that does other things too: threads that wait for each other would be timed
    while they wait, and the clock goes on while others run.
    """
    os.environ[ONE_CORE] = "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def compete(contestants: Sequence[Contestant], repeats: int) -> None:
    """Let them take turns: a round to warm up, then `repeats` rounds that count."""
    try:
        for contestant in contestants:
            contestant.start()
        for contestant in contestants:
            if contestant.warm_up:
                contestant.go(keep=False)
        for _ in range(repeats):
            for contestant in contestants:
                contestant.go()
    finally:
        for contestant in contestants:
            if hasattr(contestant, "process"):
                contestant.stop()


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a Markdown table, numbers to the right."""
    lines = [
        list(heads),
        ["---", *["---:"] * (len(heads) - 1)],
        *([str(v) for v in r] for r in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
