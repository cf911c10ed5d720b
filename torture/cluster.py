"""A Dask cluster of this machine: a scheduler and two workers, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WORKERS = 2
START_S = 120


def is_installed() -> bool:
    """Tell whether the optional Dask is there."""
    return find_spec("distributed") is not None


@contextmanager
def dask_cluster(folder: Path) -> Iterator[str]:
    """Start a cluster and give its scheduler's address; a worker that dies is started again.

    What it says goes into a file in `folder`.
    """
    note = folder / "scheduler.json"
    scheduler = ["distributed.cli.dask_scheduler", "--no-dashboard", "--host", "127.0.0.1"]
    worker = ["distributed.cli.dask_worker", "--no-dashboard", "--nworkers", str(WORKERS)]
    worker += [
        "--nthreads",
        "1",
        "--local-directory",
        str(folder),
        "--preload",
        "conocc.experiments.benchmark",
    ]
    with ExitStack() as stack:
        log = stack.enter_context((folder / "cluster.log").open("w"))
        for command in (scheduler, worker):
            where = ["--scheduler-file", str(note)]
            where += ["--port", "0"] if command is scheduler else []
            process = subprocess.Popen(
                [sys.executable, "-m", *command, *where], stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        with _client(scheduler_file=str(note), timeout=START_S) as client:
            client.wait_for_workers(WORKERS, timeout=START_S)
            address: str = client.scheduler.address
        yield address


def worker_pids(address: str) -> list[int]:
    """Wait until all workers are there, and list their processes."""
    with _client(address) as client:
        while True:  # one that died may not be missed yet
            client.wait_for_workers(WORKERS, timeout=START_S)
            pids = client.run(os.getpid, on_error="ignore").values()
            if len(pids) == WORKERS:
                return sorted(pids)


def _client(*args: Any, **options: Any) -> Any:
    import distributed

    connect: Any = distributed.Client  # it has no types
    return connect(*args, **options, set_as_default=False)
