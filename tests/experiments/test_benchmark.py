"""Studies: no job is done twice, none is lost, and no failure or death stops the others.

Workers are real processes. They find a method that kills them through a ``sitecustomize`` on
their path, which Python imports on its own, so that the package needs no door for tests.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conocc.data.cohort_spec import CohortSpec
from conocc.data.preprocessing import Preprocessing
from conocc.detectors import METHODS
from conocc.experiments import benchmark, parallel
from conocc.experiments.benchmark import (
    Job,
    benchmark_jobs,
    crossval_jobs,
    job_key,
    run_study,
    sweep_jobs,
)
from conocc.experiments.tables import write_tables
from made_cohorts import make_folder
from reused_workers import stop_workers

SMALL = {"epochs": 1, "channels": (2,)}
QUICK = {name: [value] for name, value in SMALL.items()}

# A method that notes each start and kills its process in the first `deaths` of them.
DEADLY = '''
import os, signal
from conocc.detectors.cae import CAE

class Deadly(CAE):
    """Die of fitting."""

    def __init__(self, *, diary="", deaths=99, epochs=1, lr=1e-4, batch_size=8, bottleneck=4,
                 channels=(2,), normalize="zscore", false_alarms=None, minority="refuse",
                 random_state=None,
                 device="auto", verbose=0):
        super().__init__(epochs=epochs, lr=lr, batch_size=batch_size, bottleneck=bottleneck,
                         channels=channels, normalize=normalize, false_alarms=false_alarms,
                         minority=minority,
                         random_state=random_state, device=device, verbose=verbose)
        self.diary, self.deaths = diary, deaths

    def _fit(self, X, train):
        with open(self.diary, "a+") as diary:
            diary.write("started\\n")
            diary.seek(0)
            starts = len(diary.readlines())
        if starts <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._fit(X, train)
'''
REGISTER = """
import conocc.detectors
method = conocc.detectors.Method("deadly", "Deadly", "a test", *["–"] * 5)
conocc.detectors.METHODS["deadly"] = method
conocc.detectors.__path__.append({folder!r})
"""


@pytest.fixture(autouse=True, scope="module")
def deadly(tmp_path_factory):
    """Teach this process and all that it starts the method 'deadly'."""
    import conocc.detectors

    folder = tmp_path_factory.mktemp("deadly")
    (folder / "deadly.py").write_text(DEADLY)
    (folder / "sitecustomize.py").write_text(REGISTER.format(folder=str(folder)))
    stop_workers()  # of other tests, which know nothing of it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.setitem(
            conocc.detectors.METHODS,
            "deadly",
            conocc.detectors.Method("deadly", "Deadly", "a test", *["–"] * 5),
        )
        patch.setattr(conocc.detectors, "__path__", [*conocc.detectors.__path__, str(folder)])
        yield
        stop_workers()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> CohortSpec:
    """Twenty images of the majority and eight others, 16 pixels."""
    plain, odd = ([f"{name}/{i}.png" for i in range(n)] for name, n in (("plain", 20), ("odd", 8)))
    folder = make_folder(tmp_path_factory.mktemp("data") / "made", *plain, *odd)
    return CohortSpec(str(folder), majority=("plain",))


def do(jobs, out, **options):
    return run_study(jobs, out, command="conocc test", **{"n_jobs": 2, **options})


def rows_of(out: Path) -> dict[str, bytes]:
    """The files in the folder of rows, temporary ones too, with their contents and times."""
    return {
        p.name: p.read_bytes() + repr(p.stat().st_mtime_ns).encode()
        for p in (out / "rows").iterdir()
    }


def starts(diary: Path) -> int:
    return len(diary.read_text().splitlines()) if diary.exists() else 0


def dying(cohort: CohortSpec, diary: Path, deaths: int) -> Job:
    params = {"diary": str(diary), "deaths": deaths}
    return Job("deadly", cohort, "benchmark", params)


# --- lists of jobs -----------------------------------------------------------------------------


def test_all_methods_run_at_each_setting_the_paper_searched(cohort):
    jobs = benchmark_jobs([cohort], "all", runs=2, settings=QUICK)
    searched = [
        (job.method, {k: v for k, v in job.params.items() if k not in QUICK})
        for job in jobs
        if job.seed == 0 and job.method in ("cae", "sae", "dagmm")
    ]
    assert searched == [
        ("cae", {"lr": 1e-3}),
        ("cae", {"lr": 1e-4}),
        ("sae", {"lr": 1e-3}),
        ("sae", {"lr": 1e-4}),
        ("dagmm", {"bottleneck": 256}),
        ("dagmm", {"bottleneck": 2}),
    ]
    assert {job.method for job in jobs} == set(METHODS)
    assert {job.seed for job in jobs} == {0, 1}


def test_a_setting_reaches_the_methods_that_have_it_and_one_methods_own_goes_before(cohort):
    settings = {"epochs": [5], "anogan.epochs": [2], "lr": [1e-2]}
    jobs = benchmark_jobs([cohort], ["ocsvm", "cae", "anogan"], runs=1, settings=settings)
    assert [job.params for job in jobs] == [
        {},
        {"epochs": 5, "lr": 1e-2},
        {"epochs": 2, "lr": 1e-2},
    ]


def test_an_alias_of_a_method_is_kept_under_its_id(cohort):
    settings = {"profile.false_alarms": [0.2]}
    (job,) = benchmark_jobs([cohort], ["profile"], runs=1, settings=settings)
    assert (job.method, job.params) == ("gabor_mahalanobis", {"false_alarms": 0.2})


def test_parameters_seeds_and_folds_may_be_numpys(cohort):
    def keys(a):
        settings = {"epochs": [a(5)], "lr": [a(0.5)]}
        jobs = benchmark_jobs([cohort], ["cae"], runs=a(1), settings=settings)
        jobs += sweep_jobs(cohort, settings=settings, seed=a(3))
        jobs += crossval_jobs([cohort], ["cae"], rule=a(2))
        jobs += [Job("cae", cohort, "crossval", {}, a(2), None, a(1), a(4))]
        return [job_key(job) for job in jobs]

    assert keys(lambda x: np.asarray(x)[()]) == keys(lambda x: x)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epoch": [1]}, "No parameter 'epoch' in cae"),
        ({"sae.epochs": [1]}, "'sae', which is not asked for"),
        ({"random_state": [1]}, "seeds are the benchmark's own"),
    ],
)
def test_a_setting_that_nobody_has_is_refused(cohort, settings, said):
    with pytest.raises(ValueError, match=said):
        benchmark_jobs([cohort], ["cae"], settings=settings)


def test_fig_5_is_forty_fits_and_the_autoencoders_two(cohort):
    settings = {
        "lr": [1e-3, 1e-4],
        "gamma": [1e-2, 1e-1, 1, 10],
        "interval": [20, 40, 60, 80, 100],
        "epochs": [300],
    }
    jobs = sweep_jobs(cohort, settings=settings)
    assert [job.method for job in jobs] == ["conocc"] * 40 + ["cae"] * 2
    assert [job.params for job in jobs[40:]] == [
        {"lr": 1e-3, "epochs": 300},
        {"lr": 1e-4, "epochs": 300},
    ]
    assert len({job_key(job) for job in jobs}) == 42


def test_the_papers_folds_of_20_and_8_images_are_three(cohort):
    """round(20 / 8) = round(2.5), upwards: 3."""
    jobs = crossval_jobs([cohort], ["cae", "ocsvm"], settings=QUICK)
    assert [(job.method, job.fold) for job in jobs] == [
        (method, fold) for method in ("cae", "ocsvm") for fold in (1, 2, 3)
    ]


# --- keys --------------------------------------------------------------------------------------


def test_a_key_holds_all_that_decides_the_result(cohort):
    def key(method="cae", protocol="benchmark", where=cohort, params=None, **others):
        return job_key(Job(method, where, protocol, params or {}, **others))

    other_split = CohortSpec(cohort.where, majority=("plain",), split_seed=1)
    other_class = CohortSpec(cohort.where, majority=("odd",))
    other_size = CohortSpec(cohort.where, preprocessing=Preprocessing(size=32), majority=("plain",))
    keys = [
        key(),
        key("sae"),
        key(params={"epochs": 7}),
        key(seed=1),
        key(where=other_split),
        key(where=other_class),
        key(where=other_size),
        key(where=replace(other_size, preprocessing=Preprocessing(size=32, fit="pad"))),
        key(where=replace(other_size, preprocessing=Preprocessing(size=32, scaled=False))),
        key(where=replace(other_size, pseudonyms=True)),
        key(protocol="crossval", rule="paper", fold=1),
        key(protocol="crossval", rule="paper", fold=2),
        key(protocol="crossval", rule=2, fold=2),
    ]
    assert len(set(keys)) == len(keys)


def test_a_default_written_out_and_the_device_change_no_key(cohort):
    plain = job_key(Job("cae", cohort, "benchmark"))
    assert job_key(Job("cae", cohort, "benchmark", {"lr": 1e-4, "device": "cpu"})) == plain


def test_the_methods_own_score_written_out_changes_no_key_and_another_does(cohort):
    """So rows are found that were made before there was a choice."""
    plain = Job("cae", cohort, "benchmark", SMALL)
    assert job_key(replace(plain, params={**SMALL, "scored_by": "residual"})) == job_key(plain)
    assert "scored_by" not in plain.detector_params()
    assert job_key(replace(plain, params={**SMALL, "scored_by": "correlation"})) != job_key(plain)
    assert "codes" not in Job("anogan", cohort, "benchmark").detector_params()


def test_what_another_revision_of_a_method_made_is_not_taken_for_this_ones(cohort, monkeypatch):
    """While rows of a first revision keep the key that they were made with."""
    first = job_key(Job("cae", cohort, "benchmark"))
    monkeypatch.setattr("conocc.CAE.revision", 2)
    assert job_key(Job("cae", cohort, "benchmark")) != first
    monkeypatch.setattr("conocc.CAE.revision", 1)
    assert job_key(Job("cae", cohort, "benchmark")) == first


def test_the_content_decides_and_not_the_place(cohort, tmp_path):
    import shutil

    copy = shutil.copytree(cohort.where, tmp_path / "made")
    moved = CohortSpec(str(copy), majority=("plain",))
    assert job_key(Job("cae", moved, "benchmark")) == job_key(Job("cae", cohort, "benchmark"))
    (copy / "odd" / "0.png").write_bytes((copy / "odd" / "1.png").read_bytes())
    benchmark.forget_cohorts()
    assert job_key(Job("cae", moved, "benchmark")) != job_key(Job("cae", cohort, "benchmark"))


# --- running -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(cohort, tmp_path_factory) -> Path:
    """A finished study of three methods, two seeds."""
    out = tmp_path_factory.mktemp("study")
    do(benchmark_jobs([cohort], ["cae", "ocsvm", "conocc"], settings=QUICK, runs=2), out)
    return out


def test_every_job_leaves_a_row_and_its_run_and_nothing_half_written(done):
    rows = [json.loads(path.read_text()) for path in (done / "rows").iterdir()]
    assert sorted((row["method"], row["seed"]) for row in rows) == [
        (method, seed) for method in ("cae", "conocc", "ocsvm") for seed in (0, 1)
    ]
    for row in rows:
        assert row["status"] == "done"
        assert row["params"]["random_state"] == row["seed"]
        assert row["counts"] == {"majority": 8, "minority": 8, "patients": None}
        assert set(row["metrics"]["AUC"]) >= {"value", "low", "high"}
        assert row["command"] == "conocc test"
        assert (done / row["run"] / "scores.csv").exists()
        assert (done / "rows" / f"{row['key']}.json").exists()
    assert not list((done / "attempts").iterdir())


def test_a_second_call_does_nothing_and_gives_the_same_rows(done, cohort):
    before = rows_of(done), {p: p.stat().st_mtime_ns for p in done.rglob("model.safetensors")}
    jobs = benchmark_jobs([cohort], ["cae", "ocsvm", "conocc"], settings=QUICK, runs=2)
    rows = do(jobs, done)
    after = rows_of(done), {p: p.stat().st_mtime_ns for p in done.rglob("model.safetensors")}
    assert after == before
    assert [row["key"] for row in rows] == [job_key(job) for job in jobs]


def test_on_one_thread_each_one_job_at_a_time_or_four_give_the_same_bytes(
    cohort, tmp_path, monkeypatch
):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    stop_workers()  # who count the cores as before
    jobs = benchmark_jobs([cohort], ["cae", "conocc", "ocsvm", "lrt"], settings=QUICK, runs=2)
    for n_jobs in (1, 4):
        do(jobs, tmp_path / str(n_jobs), n_jobs=n_jobs)
        write_tables(tmp_path / str(n_jobs))
    stop_workers()
    one, four = (
        {str(p.relative_to(tmp_path / n)): p.read_bytes() for p in (tmp_path / n).rglob("*.*")}
        for n in ("1", "4")
    )
    assert one.keys() == four.keys()
    kinds = ("model.safetensors", "scores.csv", "history.csv", "benchmark.md", "benchmark.csv")
    compared = [name for name in one if name.endswith(kinds)]
    assert len(compared) == 3 * 8 + 2
    for name in compared:
        assert one[name] == four[name], name


def test_a_changed_parameter_is_a_new_job_and_the_old_rows_stay(done, cohort):
    before = rows_of(done)
    do(benchmark_jobs([cohort], ["cae"], settings={**QUICK, "epochs": [2]}, runs=1), done)
    after = rows_of(done)
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()
    (table,) = write_tables(done)
    assert {"cae epochs=1", "cae epochs=2"} <= set(table.columns)


def test_a_job_gives_the_numbers_of_the_commands_by_hand(done, cohort, tmp_path):

    from conocc.experiments.run import evaluate_run, fit_run

    loaded = cohort.load()
    fit_run(loaded, "cae", {**SMALL, "random_state": 1}, tmp_path / "run", command="")
    by_hand = evaluate_run(tmp_path / "run", loaded, command="")
    job = Job("cae", cohort, "benchmark", SMALL, seed=1)
    row = json.loads((done / "rows" / f"{job_key(job)}.json").read_text())
    assert row["metrics"] == by_hand["metrics"]


def test_two_scores_are_two_rows_of_one_fit(cohort, tmp_path, monkeypatch):
    from conocc import CAE, load
    from conocc.metrics.ranking import METRICS

    fits = []
    monkeypatch.setattr(CAE, "_fit", lambda *args, was=CAE._fit: (fits.append(1), was(*args))[1])
    settings = {**QUICK, "scored_by": ["correlation", "residual"]}
    jobs = benchmark_jobs([cohort], "cae", settings=settings, runs=1)
    assert len(jobs) == 2
    for job in jobs:  # in this process, where fits can be counted
        row = benchmark._blank_row(job, "cae", "conocc test")
        benchmark.do(benchmark.WorkerJob(job, tmp_path, row), 1)
    correlation, residual = do(jobs, tmp_path)
    assert (len(fits), correlation["status"], residual["status"]) == (1, "done", "done")
    (table,) = write_tables(tmp_path)
    assert {"cae", "cae scored_by=correlation"} <= set(table.columns)
    detector = load(tmp_path / residual["run"] / "model.safetensors")
    test = cohort.load().where(split="test")
    for row, score in ((residual, "residual"), (correlation, "correlation")):
        scores = detector.set_params(scored_by=score).anomaly_score(test.images)
        assert row["metrics"]["AUC"]["value"] == METRICS["AUC"](test.minority, scores)
        assert row["seconds"] == residual["seconds"]


def test_the_papers_folds_test_patients_who_were_trained_on_too(tmp_path):
    """By its rule images are single: 4 of each class are tested, whoever they are of."""
    folder = make_folder(
        tmp_path / "made",
        *[f"plain/p{i % 3}_{i}.png" for i in range(8)],
        *[f"odd/p{i % 3}_{i}.png" for i in range(4)],
    )
    loading = CohortSpec(str(folder), majority=("plain",), patient_regex="(p.)_")
    rows = do(crossval_jobs([loading], ["cae"], settings=QUICK), tmp_path / "study")
    assert [row["counts"]["majority"] for row in rows] == [4, 4]
    assert [row["counts"]["minority"] for row in rows] == [4, 4]


def test_a_failed_job_is_a_row_stops_nobody_and_is_retried_on_request(cohort, tmp_path):
    bad = Job("cae", cohort, "benchmark", {**SMALL, "device": "no-such"})
    good = Job("ocsvm", cohort, "benchmark")
    rows = do([bad, good], tmp_path)
    assert [row["status"] for row in rows] == ["error", "done"]
    assert "no-such" in rows[0]["error"]
    mended = Job("cae", cohort, "benchmark", {**SMALL, "device": "cpu"})
    assert do([mended, good], tmp_path)[0]["status"] == "error"
    assert do([mended, good], tmp_path, retry_failed=True)[0]["status"] == "done"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "ray"}, "processes, dask. Got 'ray'"),
        ({"n_jobs": 0}, "1 or more. Got 0"),
    ],
)
def test_an_engine_that_there_is_not_is_refused(cohort, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        do([Job("cae", cohort, "benchmark")], tmp_path, **options)


# --- deaths ------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_ends_nothing(cohort, tmp_path):
    jobs = [dying(cohort, tmp_path / "diary", deaths=1)]
    jobs += benchmark_jobs([cohort], ["cae", "ocsvm"], settings=QUICK, runs=1)
    rows = do(jobs, tmp_path / "study")
    assert [row["status"] for row in rows] == ["done"] * 3
    assert starts(tmp_path / "diary") == 2


def test_a_job_that_always_kills_its_worker_is_given_up_after_three_attempts(cohort, tmp_path):
    """And its neighbours, whose workers it took down too, are not."""
    jobs = [dying(cohort, tmp_path / "diary", deaths=99)]
    jobs += benchmark_jobs([cohort], ["cae", "ocsvm"], settings=QUICK, runs=1)
    rows = do(jobs, tmp_path / "study")
    assert [row["status"] for row in rows] == ["error"] + ["done"] * 2
    assert "died in each of 3 attempts" in rows[0]["error"]
    assert starts(tmp_path / "diary") == 3
    assert not list((tmp_path / "study" / "attempts").iterdir())


def test_killed_half_way_and_started_again_it_ends_with_the_same_tables(cohort, tmp_path):
    """SIGKILL to the driver; no finished job is done twice."""
    command = [
        *(sys.executable, "-m", "conocc", "benchmark", cohort.where, "--majority", "plain"),
        *("--methods", "ocsvm,conocc", "--runs", "2", "--epochs", "50", "--jobs", "2"),
        *("--set", "channels=(2,)", "--set", "conocc.interval=1", "--out"),
    ]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    with subprocess.Popen([*command, str(broken)], stderr=subprocess.DEVNULL) as driver:
        wait_until(lambda: (broken / "rows").is_dir() and len(rows_of(broken)) >= 1)
        driver.send_signal(signal.SIGKILL)
    finished = {k: v for k, v in rows_of(broken).items() if k.endswith(".json")}
    settings = {"epochs": [50], "channels": [(2,)], "conocc.interval": [1]}
    jobs = benchmark_jobs([cohort], ["ocsvm", "conocc"], settings=settings, runs=2)
    assert 1 <= len(finished) < len(jobs)
    do(jobs, broken)
    do(jobs, whole)
    assert finished.items() <= rows_of(broken).items()
    write_tables(broken)
    write_tables(whole)
    for name in ("benchmark.md", "benchmark.csv", "benchmark.tex"):
        texts = {(out / "tables" / name).read_text() for out in (broken, whole)}
        assert len(texts) == 1


def wait_until(true, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


# --- Dask --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and two worker processes, on this machine's own address."""
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as made:
        yield made.scheduler_address


def test_dask_gives_the_rows_of_processes(cluster, done, cohort, tmp_path):
    jobs = benchmark_jobs([cohort], ["cae", "conocc"], settings=QUICK, runs=1)
    there = do(jobs, tmp_path, engine="dask", address=cluster)
    here = do(jobs, done)
    assert [row["metrics"] for row in there] == [row["metrics"] for row in here]


def test_dask_workers_that_are_killed_end_nothing(cluster, cohort, tmp_path):
    """One job kills its worker once, another one always."""
    once, always = tmp_path / "once", tmp_path / "always"
    jobs = [dying(cohort, once, deaths=1), dying(cohort, always, deaths=99)]
    jobs += benchmark_jobs([cohort], ["cae", "ocsvm"], settings=QUICK, runs=1)
    rows = do(jobs, tmp_path / "study", engine="dask", address=cluster)
    assert [row["status"] for row in rows] == ["done", "error"] + ["done"] * 2
    assert "died in each of 3 attempts" in rows[1]["error"]
    assert (starts(once), starts(always)) == (2, 3)


def test_a_dask_cluster_without_workers_is_a_sentence(cohort, tmp_path, monkeypatch, caplog):
    """The last worker, whom nobody starts again, is killed by its job."""
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    monkeypatch.setattr(parallel, "NO_WORKER_S", 60)
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--no-dashboard"]
    with distributed.LocalCluster(
        n_workers=0, dashboard_address="127.0.0.1:0", processes=True
    ) as made:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        start = [*worker, made.scheduler_address, "--nthreads", "1"]
        with subprocess.Popen(start, env=dict(os.environ), **quiet) as process:
            job = dying(cohort, tmp_path / "diary", deaths=99)
            with distributed.Client(made, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
            monkeypatch.setattr(parallel, "NO_WORKER_S", 1)
            with pytest.raises(ConnectionError, match="no worker left"):
                do([job], tmp_path / "study", engine="dask", address=made.scheduler_address)
            assert process.wait() == -signal.SIGKILL
    assert "A worker died during" in caplog.text


def test_dask_without_its_package_or_address_is_a_sentence(cohort, tmp_path, monkeypatch):
    jobs = [Job("cae", cohort, "benchmark")]
    with pytest.raises(ValueError, match="scheduler's address"):
        do(jobs, tmp_path, engine="dask")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'conocc\[dask\]'"):
        do(jobs, tmp_path, engine="dask", address="tcp://127.0.0.1:1")
