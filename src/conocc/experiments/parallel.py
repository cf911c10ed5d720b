"""Where many tasks are done: in processes of this machine or on a Dask cluster.

A task leaves one file as its result, whole or not at all, so that what was done is never done
again. A worker that dies ends nothing: that a task was started, and that its worker died of it,
is counted on disk, and a task that happens to too often is given up.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor

from conocc.io.files import write_json
from conocc.io.progress import bar

logger = logging.getLogger("conocc")

ENGINES = ("processes", "dask")
# A task whose worker died this often is given up.
MOST_DEATHS = 3
# A Dask cluster without any worker for so long is taken for lost.
NO_WORKER_S = 120.0
_POLL_S = 1.0
# What a worker may take to save its state when the driver is interrupted.
PATIENCE_S = 30.0
LOST = "The Dask cluster has no worker left. Start some, and the same command again."


# --- a task ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Something to be done once: plain values, sent to another process.

    Attributes
    ----------
    key
        No two tasks have the same.
    name
        What people call it.
    do
        Called with `job` and the number of threads it may use; writes `result`. It is a function
        of a module, so that it can be sent.
    result
        The file that says that the task is done.
    attempts
        The file that counts how often it was started, and killed its worker; gone in the end.
    share
        Tasks at a time on one machine, which divide its cores.
    deaths
        How many workers had died of it when it was handed out.
    """

    key: str
    name: str
    do: Callable[[Any, int], None]
    job: Any
    result: Path
    attempts: Path
    share: int = 1
    deaths: int = 0

    def counts(self) -> dict[str, int]:
        """How often the task was `started`, and how often its worker `died` of it."""
        try:
            counts: dict[str, int] = json.loads(self.attempts.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"started": 0, "died": 0}
        return counts


# Torch's generator and threads are the process's own: two tasks in one would mix their numbers.
_one_at_a_time = threading.Lock()


def work(task: Task) -> None:
    """Do a task, if nobody has.

    Dask hands the task of a worker that died to the next one. It is then not done here: the
    driver, who alone knows what else was running, decides when to try again.
    A process does one task at a time, however many threads its Dask worker has.
    """
    with _one_at_a_time:
        if task.result.exists():  # of a worker that outlived an earlier driver by a moment
            return
        counts = task.counts()
        if counts["started"] > task.deaths:
            return
        write_json(task.attempts, {**counts, "started": counts["started"] + 1})
        task.do(task.job, threads_of(task.share))
        task.attempts.unlink(missing_ok=True)


def threads_of(share: int) -> int:
    """Divide this machine's cores by the number of tasks that share them."""
    cores: int = joblib.cpu_count()
    return max(1, cores // share)


# --- many tasks --------------------------------------------------------------------------------


def check_engine(engine: str, workers: int) -> None:
    """Refuse an engine that there is not, and less than one worker."""
    if engine not in ENGINES:
        raise ValueError(f"The 'engine' must be one of {', '.join(ENGINES)}. Got {engine!r}.")
    if workers < 1:
        raise ValueError(f"The 'workers' parameter must be 1 or more. Got {workers} instead.")


def do_all(
    tasks: Sequence[Task],
    *,
    engine: str,
    workers: int,
    address: str | None,
    give_up: Callable[[Task, str], None],
    ended: Callable[[Task, int], str],
    called: str,
    total: int,
    verbose: int,
) -> None:
    """Hand tasks out until each of them has its result.

    When a worker dies, all that ran at the time are suspects. They are tried again one at a
    time, after the others, so that a task pays for no death but its own.

    Parameters
    ----------
    engine : {"processes", "dask"}
        `workers` processes of this machine, or all workers of the Dask cluster at `address`.
    give_up
        Called with a task whose worker died too often, and the reason; writes its result.
    ended
        Called with each task that has its result, and how many have; gives a word for the bar.
    called, total, verbose
        The bar's name and length; what is missing from `tasks` was done before.

    Raises
    ------
    ValueError
        If the optional Dask is not installed.
    ConnectionError
        If the workers are gone. What is done stays; the same call goes on.
    """
    todo = {task.key: task for task in tasks}
    for task in tasks:  # who was running when an earlier driver was killed is no suspect
        counts = task.counts()
        if counts["started"]:
            write_json(task.attempts, {**counts, "started": counts["died"]})
    deaths = {task.key: task.counts()["died"] for task in tasks}
    idle_rounds = 0
    with (
        _pool(engine, workers, address) as pool,
        bar(called, total, verbose=verbose, done=total - len(todo)) as advance,
    ):
        while todo:
            fresh = [key for key in todo if not deaths[key]]
            chosen = fresh or [next(iter(todo))]
            handed = [replace(todo[k], deaths=deaths[k], share=pool.share) for k in chosen]
            before = len(todo), sum(deaths.values())
            try:
                for key in pool.each(handed):
                    if key in todo and todo[key].result.exists():
                        task = todo.pop(key)
                        advance(state=ended(task, total - len(todo)))
            except ConnectionError:
                _count_deaths([todo[key] for key in chosen if key in todo], deaths, give_up)
                raise
            left = [todo[key] for key in chosen if key in todo]
            _count_deaths(left, deaths, give_up)
            for task in left:
                if task.result.exists():
                    del todo[task.key]
                    advance(state=ended(task, total - len(todo)))
            idle_rounds = 0 if before != (len(todo), sum(deaths.values())) else idle_rounds + 1
            if idle_rounds == MOST_DEATHS:
                raise ConnectionError("Workers die before they start a job; see their output.")


def _count_deaths(
    tasks: Sequence[Task], deaths: dict[str, int], give_up: Callable[[Task, str], None]
) -> None:
    """Note the tasks that were started and left no result; give up those that did so too often."""
    for task in tasks:
        started = task.counts()["started"]
        if task.result.exists() or started <= deaths[task.key]:
            continue
        deaths[task.key] = started
        logger.warning("A worker died during %s (attempt %d).", task.name, started)
        write_json(task.attempts, {"started": started, "died": started})
        if started >= MOST_DEATHS:
            reason = f"Its worker died in each of {started} attempts (killed, or out of memory)."
            give_up(task, reason)
            task.attempts.unlink(missing_ok=True)


# --- workers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pool:
    """What does tasks: an executor of `concurrent.futures`, joblib's own (loky) or Dask's.

    Attributes
    ----------
    share
        Tasks at a time on one machine, which divide its cores.
    executor
        Gives the executor, and a new one where the last is broken.
    deaths
        What a future raises when its worker died.
    is_empty
        Whether there is no worker at all.
    """

    share: int
    executor: Callable[[], Any]
    deaths: tuple[type[BaseException], ...] = (BrokenExecutor,)
    is_empty: Callable[[], bool] = lambda: False

    def each(self, tasks: Sequence[Task]) -> Iterator[str]:
        """Do the tasks, and yield the key of each that ends, well or by its worker's death.

        Raises
        ------
        ConnectionError
            If there has been no worker for `NO_WORKER_S`.
        """
        executor = self.executor()
        futures: dict[Any, str] = {}
        last_alive = time.monotonic()
        try:
            for task in tasks:
                futures[executor.submit(work, task)] = task.key
            waiting = set(futures)
            while waiting:
                ended, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in ended:
                    with suppress(*self.deaths):
                        future.result()
                    yield futures[future]
                if ended or not self.is_empty():
                    last_alive = time.monotonic()
                elif time.monotonic() - last_alive > NO_WORKER_S:
                    raise ConnectionError(LOST)
        except BrokenExecutor:  # before the last task was submitted
            yield from futures.values()
        finally:
            for future in futures:
                future.cancel()


def _pool(engine: str, workers: int, address: str | None) -> AbstractContextManager[_Pool]:
    return _dask(address) if engine == "dask" else _processes(workers)


@contextmanager
def _processes(workers: int) -> Iterator[_Pool]:
    def executor() -> Any:
        return get_reusable_executor(
            max_workers=workers, timeout=60, initializer=end_with, initargs=(os.getpid(),)
        )

    try:
        with warnings.catch_warnings():
            # Of one that was idle for its 60 seconds while others were at work, from loky's thread.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
            yield _Pool(workers, executor)
    except BaseException:
        # By a SIGTERM first, on which training saves its state.
        mine = [p for p in multiprocessing.active_children() if p.name.startswith("LokyProcess")]
        for process in mine:
            process.terminate()
        for process in mine:
            process.join(PATIENCE_S)
        executor().shutdown(wait=True, kill_workers=True)
        raise


def end_with(driver: int) -> None:
    """Have this worker end, by a SIGTERM that training saves its state on, when its driver does."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _dask(address: str | None) -> Iterator[_Pool]:
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
        hosts = Counter(worker.rpartition(":")[0] for worker in client.nthreads())
        yield _Pool(
            share=max(hosts.values()),
            executor=lambda: client.get_executor(pure=False, retries=0),
            deaths=(distributed.KilledWorker, CancelledError),
            is_empty=lambda: not client.nthreads(),
        )
