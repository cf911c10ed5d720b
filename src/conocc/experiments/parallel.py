"""Where many jobs are done: in joblib's processes on this machine, or on a Dask cluster.

A job is a function of plain values that leaves one file as its result, whole or not at all, so
that what was done is never done again. A worker that dies ends nothing: each start of a job is
counted on disk, and a job that was started three times and never ended is given up.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor

from conocc.io.files import write_text
from conocc.io.progress import bar

logger = logging.getLogger("conocc")

ENGINES = ("processes", "dask")
# A job that was started so often, and never ended, is given up.
MOST_STARTS = 3
GIVEN_UP = f"Its worker died in each of {MOST_STARTS} attempts (killed, or out of memory)."
# A Dask cluster without any worker for so long is taken for lost.
NO_WORKER_S = 120.0
_POLL_S = 1.0
LOST = "The Dask cluster has no worker left. Start some, and the same command again."


# --- a job -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A job as it is sent to another process: plain values.

    Attributes
    ----------
    name
        What people call it.
    function
        Called with `argument` and the number of threads it may use; writes `result`. It is a
        function of a module, so that it can be sent.
    result
        The file that says that the job is done; no two jobs have the same.
    attempts
        The file that counts how often it was started; gone in the end.
    """

    name: str
    function: Callable[[Any, int], None]
    argument: Any
    result: Path
    attempts: Path

    def started(self) -> int:
        """How often the job was started, and did not end."""
        return int(self.attempts.read_text()) if self.attempts.exists() else 0


# Torch's generator and threads are the process's own: two jobs in one would mix their numbers.
_one_at_a_time = threading.Lock()


def _work(task: Task, started: int, share: int) -> None:
    """Do a job, if nobody has; `share` jobs divide this machine's cores.

    Dask hands the job of a worker that died to the next one. It is then not done here: the
    driver, who alone knows what else was running, decides when to try again.
    A process does one job at a time, however many threads its Dask worker has.
    """
    with _one_at_a_time:
        if task.result.exists() or task.started() > started:
            return
        write_text(task.attempts, str(started + 1))
        task.function(task.argument, threads_of(share))
        task.attempts.unlink(missing_ok=True)


def threads_of(share: int) -> int:
    """Divide this machine's cores by the number of jobs that share them."""
    cores: int = joblib.cpu_count()
    return max(1, cores // share)


# --- many jobs ---------------------------------------------------------------------------------


def check_engine(engine: str, n_jobs: int) -> None:
    """Refuse an engine that there is not, and less than one worker."""
    if engine not in ENGINES:
        raise ValueError(f"The 'engine' parameter must be of {', '.join(ENGINES)}. Got {engine!r}.")
    if n_jobs < 1:
        raise ValueError(f"The 'n_jobs' parameter must be 1 or more. Got {n_jobs} instead.")


def run_tasks(
    tasks: Sequence[Task],
    *,
    engine: str,
    n_jobs: int,
    address: str | None,
    give_up: Callable[[Task, str], None],
    ended: Callable[[Task, int], str],
    title: str,
    total: int,
    verbose: int,
) -> None:
    """Hand jobs out until each of them has its result.

    When a worker dies, all that ran at the time are tried again one at a time, after the others,
    so that a job is given up for no death but its own.

    Parameters
    ----------
    engine : {"processes", "dask"}
        At most `n_jobs` processes of this machine, or all workers of the Dask cluster at
        `address`.
    give_up
        Called with a job whose worker died too often, and the reason; writes its result.
    ended
        Called with each job that has its result, and how many have; gives a word for the bar.
    title, total, verbose
        The bar's name and length; what is missing from `tasks` was done before.

    Raises
    ------
    ValueError
        If the optional Dask is not installed, or its workers cannot read the jobs.
    ConnectionError
        If the workers are gone. What is done stays; the same call goes on.
    """
    todo = {task.result: task for task in tasks}
    for task in tasks:  # a job that was running when an earlier driver was killed did no harm
        task.attempts.unlink(missing_ok=True)
    for folder in {path.parent for task in tasks for path in (task.result, task.attempts)}:
        for left in folder.glob(".*.tmp"):  # by workers that were killed
            left.unlink(missing_ok=True)

    def settle(task: Task) -> None:
        if task.result in todo and task.result.exists():
            del todo[task.result]
            advance(state=ended(task, total - len(todo)))

    def count_starts(tasks: Sequence[Task]) -> None:
        for task in tasks:
            started = 0 if task.result.exists() else task.started()
            if started:
                logger.warning("A worker died during %s (attempt %d).", task.name, started)
            if started >= MOST_STARTS:
                give_up(task, GIVEN_UP)
                task.attempts.unlink(missing_ok=True)
            settle(task)

    rounds_without_start = 0
    with (
        _dask(address, tasks) if engine == "dask" else _processes(min(n_jobs, total)) as workers,
        bar(title, total, verbose=verbose, done=total - len(todo)) as advance,
    ):
        while todo:
            fresh = [task for task in todo.values() if not task.started()]
            chosen = fresh or [next(iter(todo.values()))]
            rounds_without_start += 1
            try:
                for task in workers.each(chosen):
                    rounds_without_start = 0
                    settle(task)
            except ConnectionError:
                count_starts(chosen)
                raise
            if any(task.started() for task in chosen):
                rounds_without_start = 0
            count_starts(chosen)
            if rounds_without_start == MOST_STARTS:
                raise ConnectionError("Workers die before they start a job; see their output.")


# --- workers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Workers:
    """What does jobs: an executor of `concurrent.futures`, joblib's own (loky) or Dask's.

    Attributes
    ----------
    share
        Jobs at a time on one machine, which divide its cores.
    executor
        Gives the executor for so many jobs, a new one where the last is broken.
    are_gone
        Whether there is no worker at all.
    deaths
        What a future raises when its worker died.
    """

    share: int
    executor: Callable[[int], Any]
    are_gone: Callable[[], bool] = lambda: False
    deaths: tuple[type[BaseException], ...] = (BrokenExecutor,)

    def each(self, tasks: Sequence[Task]) -> Iterator[Task]:
        """Do jobs, and yield each whose worker lives, as it ends.

        Raises
        ------
        ConnectionError
            If there has been no worker for `NO_WORKER_S`.
        """
        executor = self.executor(len(tasks))
        futures: dict[Any, Task] = {}
        try:
            with suppress(BrokenExecutor):  # before the last job was submitted
                for task in tasks:
                    future = executor.submit(_work, task, task.started(), self.share)
                    futures[future] = task
            waiting = set(futures)
            last_alive = time.monotonic()
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        future.result()
                    except self.deaths:
                        continue
                    yield futures[future]
                if done or not self.are_gone():
                    last_alive = time.monotonic()
                elif time.monotonic() - last_alive > NO_WORKER_S:
                    raise ConnectionError(LOST)
        finally:
            for future in futures:
                future.cancel()


@contextmanager
def _processes(n_jobs: int) -> Iterator[_Workers]:
    def executor(n: int) -> Any:
        return get_reusable_executor(
            min(n, n_jobs), timeout=60, initializer=_end_with, initargs=(os.getpid(),)
        )

    try:
        with warnings.catch_warnings():
            # Of one that was idle for its 60 seconds while others were at work, from loky's thread.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
            yield _Workers(n_jobs, executor)
    except BaseException:
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)
        raise


def _end_with(driver: int) -> None:
    """Have this worker end when its driver does, whatever it is at, and free what it locked."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(_POLL_S)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _dask(address: str | None, tasks: Sequence[Task]) -> Iterator[_Workers]:
    try:
        import distributed
    except ImportError:
        raise ValueError(
            "The engine 'dask' needs the package 'distributed': pip install 'conocc[dask]'."
        ) from None
    if not address:
        raise ValueError("The engine 'dask' needs its scheduler's address, tcp://HOST:PORT.")
    try:
        connect: Any = distributed.Client  # it has no types
        client = connect(address, set_as_default=False)
    except OSError as error:
        raise ConnectionError(f"No Dask scheduler answers at '{address}': {error}.") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=NO_WORKER_S)
        except TimeoutError:
            raise ConnectionError(LOST) from None
        protocol: Any = distributed.protocol.pickle  # no types either
        job = protocol.dumps((_work, tasks[:1]))
        try:  # Dask waits for ever for a job that its worker cannot read
            for run in (client.run_on_scheduler, client.run):
                run(lambda: bool(protocol.loads(job)))
        except Exception as error:
            raise ValueError(
                f"The Dask cluster at '{address}' cannot read the jobs ({error}). Install the same "
                "conocc, and what the jobs use, for its scheduler and workers, and start them anew."
            ) from error
        hosts = Counter(worker.rpartition(":")[0] for worker in client.nthreads())
        yield _Workers(
            max(hosts.values()),
            lambda n: client.get_executor(pure=False, retries=0),
            lambda: not client.nthreads(),
            (distributed.KilledWorker, CancelledError),
        )
