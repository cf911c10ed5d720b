"""Workers: they end with their driver, and free what they have locked."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conocc.experiments.parallel import Task, run_tasks

# A driver whose one worker locks a folder, and does not end by a SIGTERM.
DRIVER = """
import os, signal, sys, time
from pathlib import Path
from conocc.experiments.parallel import Task, run_tasks

def stubborn(folder, threads):
    from conocc.io.files import folder_lock
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with folder_lock(folder):
        (folder / "pid").write_text(str(os.getpid()))
        time.sleep(100)

folder = Path(sys.argv[1])
task = Task("stubborn", stubborn, folder / "run", folder / "result", folder / "attempts")
run_tasks([task], engine="processes", n_jobs=1, address=None, give_up=print, ended=print,
          title="", total=1, verbose=0)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL.")
def test_a_worker_ends_at_once_with_a_driver_that_was_killed(tmp_path):
    """So that the same command, started again by a scheduler, finds nothing locked."""
    from conocc.io.files import folder_lock

    note = tmp_path / "run" / "pid"
    with subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)]) as driver:
        end = time.monotonic() + 60
        while not note.exists() or not note.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
    worker = int(note.read_text())
    with folder_lock(Path(tmp_path / "run")), pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(worker, 0)
            time.sleep(0.1)


def test_dask_workers_that_cannot_read_a_job_are_a_sentence(tmp_path, monkeypatch):
    """As where another conocc is installed; Dask itself would wait for ever."""
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    (tmp_path / "here_alone.py").write_text("def work(argument, threads): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    here_alone = importlib.import_module("here_alone")
    (tmp_path / "here_alone.py").unlink()
    task = Task("job", here_alone.work, 1, tmp_path / "result", tmp_path / "attempts")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as made,
        pytest.raises(ValueError, match="cannot read the jobs .No module named 'here_alone'"),
    ):
        run_tasks(
            [task],
            engine="dask",
            n_jobs=1,
            address=made.scheduler_address,
            give_up=print,
            ended=print,
            title="",
            total=1,
            verbose=0,
        )
