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
SETTINGS = ("OMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "XLA_", "MALLOC_", "TORCH_")


def serve(measure: Callable[[], Mapping[str, Any]]) -> None:
    """Answer each line of the standard input with one of JSON: what `measure` returned."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    answers.write("ready\n")
    answers.flush()
    for _ in sys.stdin:
        answers.write(json.dumps(dict(measure())) + "\n")
        answers.flush()


def timed(work: Callable[[], Any], amount: int) -> dict[str, float]:
    """Do the work once; return how much of it a second, and the peak memory so far in MiB."""
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rate": amount / seconds,
        "peak_mib": peak / (2**20 if sys.platform == "darwin" else 2**10),
    }


@dataclass
class Contestant:
    """One process, and what it answered so far."""

    name: str
    arguments: Sequence[str]
    answers: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("CONOCC_BENCH_LOUD") else None,
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
            _, errors = self.process.communicate()
            raise RuntimeError(f"Contestant {self.name!r} ended: {errors or 'see above'}")
        return line


def compete(contestants: Sequence[Contestant], repeats: int) -> None:
    """Let them take turns: one round to warm up, then `repeats` rounds that count."""
    try:
        for contestant in contestants:
            contestant.start()
        for repeat in range(repeats + 1):
            for contestant in contestants:
                contestant.go(keep=repeat > 0)
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
