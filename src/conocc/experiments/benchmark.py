"""A benchmark: many fits, each a job that leaves a row; started again, it does what is missing.

==================  ===================================================================
``rows/KEY.json``   the row of a finished job, or of a failed one with its error
``jobs/KEY/``       its run (`conocc.experiments.run`): model, scores, metrics, split, history
``attempts/``       how often a job without a row was started
``tables/``         what `conocc.experiments.tables` makes of the rows
==================  ===================================================================

The key of a job is a hash of all that decides its result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from conocc.data.cohort import Cohort
from conocc.data.cohort_spec import CohortSpec
from conocc.detectors import METHODS, method_class, method_id
from conocc.experiments.cross_validation import folds
from conocc.experiments.parallel import Task, check_engine, run_tasks
from conocc.experiments.run import (
    FREE_PARAMETERS,
    calibrate_run,
    copy_run,
    evaluate_run,
    fit_run,
    make_detector,
    read_run,
    versions,
)
from conocc.experiments.tables import RESULT_FORMAT, column_labels, read_row
from conocc.io.files import folder_lock, refuse_made, write_json

logger = logging.getLogger("conocc")

# `--methods all`: what the paper searched, as columns of their own, since the better one is known
# by the test labels only.
VARIANTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "cae": {"lr": (1e-3, 1e-4)},
    "sae": {"lr": (1e-3, 1e-4)},
    "dagmm": {"bottleneck": (256, 2)},
}
# Values by parameter's name, or by "method.name" for one method alone, which goes before.
Settings = Mapping[str, Sequence[Any]]


# --- jobs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One fit to be done.

    Attributes
    ----------
    params
        Those that differ from the method's defaults; of `scored_by` none that does not.
    protocol
        "benchmark" and "sweep" take the cohort's own split, "crossval" fold `fold` (from 1) of
        `rule` and `group` (`conocc.experiments.cross_validation.folds`).
    seed
        Of the training.
    """

    method: str
    cohort: CohortSpec
    protocol: str
    params: Mapping[str, Any] = field(default_factory=dict)
    rule: str | int | None = None
    group: str | None = None
    fold: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rule", "fold", "seed"):  # NumPy's numbers are no JSON values
            if isinstance(value := getattr(self, name), np.generic):
                object.__setattr__(self, name, value.item())
        score = self.params.get("scored_by")
        if score and score == getattr(method_class(self.method)(), "scored_by", None):
            plain = {k: v for k, v in self.params.items() if k != "scored_by"}
            object.__setattr__(self, "params", plain)

    def detector_params(self) -> dict[str, Any]:
        """All parameters, defaults filled in, as JSON values; a score only if not the default.

        So rows are found again that were made when each method had one score.
        """
        detector = make_detector(self.method, {**self.params, "random_state": self.seed})
        left_out = FREE_PARAMETERS | (
            {"scored_by", "codes", "encoder", "layer"} - self.params.keys()
        )
        return {k: v for k, v in detector.plain_params().items() if k not in left_out}


def benchmark_jobs(
    cohorts: Sequence[CohortSpec],
    methods: str | Sequence[str] = "all",
    *,
    settings: Settings | None = None,
    runs: int = 3,
) -> list[Job]:
    """List Table 2: each method on each cohort's own split, with seeds 0 to `runs` - 1."""
    if runs < 1:
        raise ValueError(f"The 'runs' parameter must be 1 or more. Got {runs} instead.")
    chosen = _configurations(methods, settings or {})
    return [
        Job(method, cohort, "benchmark", params, seed=seed)
        for cohort in cohorts
        for method, params in chosen
        for seed in range(runs)
    ]


def crossval_jobs(
    cohorts: Sequence[CohortSpec],
    methods: str | Sequence[str] = "all",
    *,
    settings: Settings | None = None,
    rule: str | int = "paper",
    group: str | None = None,
) -> list[Job]:
    """List Table 3: each method on each fold, once. The cohorts are loaded, to count folds."""
    chosen = _configurations(methods, settings or {})
    return [
        Job(method, cohort, "crossval", params, rule, group, fold + 1)
        for cohort in cohorts
        for method, params in chosen
        for fold in range(len(_folds(cohort, rule, group)))
    ]


def sweep_jobs(
    cohort: CohortSpec, method: str = "conocc", *, settings: Settings, seed: int = 0
) -> list[Job]:
    """List Fig. 5: a method at every combination of the values given, all with one seed.

    Where ConOCC's `lr` is swept, the plain autoencoder is fitted at each of its values too.
    """
    jobs = [
        Job(method, cohort, "sweep", params, seed=seed)
        for method, params in _configurations([method], settings)
    ]
    if method == "conocc" and len(settings.get("lr", ())) > 1:
        known = make_detector("cae", {}).get_params()
        shared = {k: v for k, v in settings.items() if k in known and (len(v) == 1 or k == "lr")}
        jobs += [
            Job("cae", cohort, "sweep", params, seed=seed)
            for _, params in _configurations(["cae"], shared)
        ]
    return jobs


def _by_id(key: str) -> str:
    method, dot, name = key.rpartition(".")
    return f"{method_id(method)}.{name}" if dot else name


def _configurations(
    methods: str | Sequence[str], settings: Settings
) -> list[tuple[str, dict[str, Any]]]:
    """Pair each method with each combination of the values that are set for it."""
    everything = methods == "all"
    given = METHODS if everything else [methods] if isinstance(methods, str) else methods
    names = [method_id(name) for name in given]
    settings = {_by_id(key): values for key, values in settings.items()}
    known = {name: make_detector(name, {}).get_params() for name in names}
    for key in settings:
        method, dot, name = key.rpartition(".")
        if dot and method not in known:
            raise ValueError(f"{key!r} sets a parameter of {method!r}, which is not asked for.")
        if not any(name in known[m] for m in ([method] if dot else names)):
            raise ValueError(f"No parameter {name!r} in {method or ', '.join(names)}.")
        if name == "random_state":
            raise ValueError("The seeds are the benchmark's own: 'random_state' cannot be set.")
    made = []
    for method in names:
        values: dict[str, Sequence[Any]] = dict(VARIANTS.get(method, {})) if everything else {}
        values |= {k: v for k, v in settings.items() if k in known[method]}
        prefix = f"{method}."
        values |= {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
        for these in product(*values.values()):
            params = dict(zip(values, these, strict=True))
            make_detector(method, params)._validate_params()  # or every fit would fail of it
            made.append((method, params))
    return made


# --- keys --------------------------------------------------------------------------------------


_cohorts: dict[CohortSpec, Cohort] = {}
COHORTS_KEPT = 4
WAIT_S = 2.0


def _loaded(spec: CohortSpec, verbose: int = 0) -> Cohort:
    # Kept by each process: hashing all files again for every job would cost more than some fits.
    if spec not in _cohorts:
        if len(_cohorts) == COHORTS_KEPT:
            del _cohorts[next(iter(_cohorts))]
        _cohorts[spec] = spec.load(verbose=verbose)
    return _cohorts[spec]


@lru_cache(maxsize=4)
def _folds(spec: CohortSpec, rule: str | int, group: str | None) -> list[Cohort]:
    made = folds(_loaded(spec), rule, group=group, seed=spec.split_seed)
    if rule == "paper":
        # Its images are taken singly: patients, who are on both sides, must not be left out.
        made = [replace(fold, patients_known=False) for fold in made]
    return made


def _cohort_of(job: Job) -> Cohort:
    if job.rule is None or job.fold is None:
        return _loaded(job.cohort)
    return _folds(job.cohort, job.rule, job.group)[job.fold - 1]


@lru_cache(maxsize=1024)
def _content(
    cohort: CohortSpec, rule: str | int | None, group: str | None, fold: int | None
) -> str:
    """Hash what a cohort holds and how it is split and read."""
    split = _cohort_of(Job("", cohort, "", rule=rule, group=group, fold=fold))
    text = json.dumps([split.preprocessing.to_dict(), split.patients_known], sort_keys=True)
    return _sha256(text + split.table().to_csv(index=False))


def forget_cohorts() -> None:
    """Have cohorts read anew, whose files may have changed."""
    _cohorts.clear()
    for kept in (_folds, _content):
        kept.cache_clear()


def job_key(job: Job) -> str:
    """Hash all that decides a job's row; the cohort is loaded for it."""
    revision = method_class(job.method).revision
    decisive = {
        "format": RESULT_FORMAT,
        "method": job.method,
        "params": job.detector_params(),
        **({"revision": revision} if revision > 1 else {}),  # rows of first revisions keep theirs
        "protocol": job.protocol,
        "rule": job.rule,
        "group": job.group,
        "fold": job.fold,
        "content": _content(job.cohort, job.rule, job.group, job.fold),
    }
    return _sha256(json.dumps(decisive, sort_keys=True))[:32]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def has_row(job: Job, out: str | Path) -> bool:
    """Tell whether a benchmark has a job's row already, be it an error."""
    return (Path(out) / "rows" / f"{job_key(job)}.json").exists()


# --- one job -----------------------------------------------------------------------------------


class WorkerJob(NamedTuple):
    """A job with what its worker must know: plain values, sent to another process.

    `row` is all of its row but what comes of it. It is the driver's, since a worker may have read
    the cohort at an earlier time, when it held other images.
    """

    job: Job
    out: Path
    row: dict[str, Any]

    def task(self) -> Task:
        """Where its row comes to lie, and who makes it."""
        part = f"seed {self.job.seed}" if self.job.fold is None else f"fold {self.job.fold}"
        name = f"{self.row['label']} on {self.row['cohort']}, {part}"
        file = f"{self.row['key']}.json"
        return Task(name, do, self, self.out / "rows" / file, self.out / "attempts" / file)


def do(work: WorkerJob, threads: int) -> None:
    """Do a job and write its row; an exception becomes a row too."""
    row = {**work.row, "versions": versions()}
    torch.set_num_threads(threads)
    try:
        row |= _result(work)
    except BlockingIOError as error:  # a worker thought dead is at it still: try again later
        logger.warning("%s: %s.", row["label"], error.strerror)
        return
    except Exception as error:
        logger.debug("Job %s failed.", row["key"], exc_info=True)
        row |= {"status": "error", "error": f"{type(error).__name__}: {error}"}
    write_json(work.task().result, row)


def _result(work: WorkerJob) -> dict[str, Any]:
    job, row = work.job, work.row
    if job_key(job) != row["key"]:  # the files changed since this process read them, or are others
        forget_cohorts()
    if job_key(job) != row["key"]:
        raise ValueError(f"'{job.cohort.where}' holds other images here than for the driver.")
    cohort = _cohort_of(job)
    run, command = work.out / row["run"], row["command"]
    # All scores are of one fit, which is done under the method's own.
    plain = replace(job, params={k: v for k, v in job.params.items() if k != "scored_by"})
    fitted = run if plain == job else work.out / "jobs" / job_key(plain)
    params = {**plain.params, "random_state": job.seed}
    while True:
        try:
            fit_run(cohort, job.method, params, fitted, command=command, spec=job.cohort)
            break
        except BlockingIOError:  # another worker is at it, for another score
            time.sleep(WAIT_S)
    if not (run / "run.json").exists():
        copy_run(fitted, run, job.params["scored_by"])
        if len(calibrating := cohort.where(split="calibration")):
            calibrate_run(run, calibrating, command=command)
    if not cohort.where(split="test").minority.any():
        raise ValueError(f"Cohort '{cohort.name}' has no minority image to test on.")
    result = evaluate_run(run, cohort, command=command)
    about = read_run(run)
    return {
        "status": "done",
        **{name: result[name] for name in ("metrics", "counts", "prevalence", "left_out")},
        **{name: about[name] for name in ("seconds", "threads", "notes")},
    }


def _blank_row(job: Job, label: str, command: str) -> dict[str, Any]:
    """Everything about a job but what came of it."""
    key = job_key(job)
    whole = _loaded(job.cohort)
    unknown = ("metrics", "counts", "prevalence", "left_out", "seconds", "threads", "notes")
    return {
        "format": RESULT_FORMAT,
        "key": key,
        "status": "",
        "error": None,
        "method": job.method,
        "label": label,
        "params": job.detector_params(),
        "cohort": whole.name,
        "images": _content(job.cohort, None, None, None)[:16],
        "preprocessing": whole.preprocessing.to_dict(),
        **{name: getattr(job, name) for name in ("protocol", "rule", "group", "fold", "seed")},
        **dict.fromkeys(unknown),
        "versions": versions(),
        "command": command,
        "run": f"jobs/{key}",
    }


# --- many jobs ---------------------------------------------------------------------------------


def run_study(
    jobs: Sequence[Job],
    out: str | Path,
    *,
    command: str,
    engine: str = "processes",
    n_jobs: int = 1,
    address: str | None = None,
    retry_failed: bool = False,
    verbose: int = 0,
) -> list[dict[str, Any]]:
    """Do the jobs that have no row yet, and return the rows of all of them.

    Parameters
    ----------
    out
        The benchmark's folder; under Dask, on a disk that all workers see.
    command
        Noted in each row.
    engine : {"processes", "dask"}
        At most `n_jobs` processes of this machine, which divide its cores, or all workers of
        the Dask cluster at `address`.
    retry_failed
        Whether to do jobs again whose row is an error.

    Raises
    ------
    ValueError
        If a cohort or a parameter cannot be used, or the optional Dask is not installed.
    BlockingIOError
        If another process is at work in `out`.
    ConnectionError
        If the workers are gone. What is done stays; the same call goes on.
    """
    check_engine(engine, n_jobs)
    forget_cohorts()
    out = Path(out).resolve()
    refuse_made(out, "rows")
    labels = column_labels([(job.method, job.detector_params()) for job in jobs])
    tasks = {}
    for job, label in zip(jobs, labels, strict=True):
        anywhere = replace(job, cohort=job.cohort.absolute())
        _loaded(anywhere.cohort, verbose)  # shown here, and found in `_blank_row`
        task = WorkerJob(anywhere, out, _blank_row(job, label, command)).task()
        tasks[task.result] = task

    def give_up(task: Task, reason: str) -> None:
        write_json(task.result, {**task.argument.row, "status": "error", "error": reason})

    def ended(task: Task, done: int) -> str:
        logger.info("%d/%d %s: %s", done, len(tasks), task.name, _outcome(read_row(task.result)))
        return str(task.argument.row["label"])

    with folder_lock(out):
        for row in tasks if retry_failed else ():
            if row.exists() and read_row(row)["status"] == "error":
                row.unlink()  # what its run has done stays, to go on from
        if todo := [task for task in tasks.values() if not task.result.exists()]:
            run_tasks(
                todo,
                engine=engine,
                n_jobs=n_jobs,
                address=address,
                give_up=give_up,
                ended=ended,
                title="Fits",
                total=len(tasks),
                verbose=verbose,
            )
    return [read_row(row) for row in tasks]


def _outcome(row: Mapping[str, Any]) -> str:
    if row["status"] == "done":
        return f"AUC {row['metrics']['AUC']['value']:.3f}, {row['seconds']:.0f} s"
    return f"FAILED: {row['error']}"
