"""Studies at the command line: the paper's tables and its Fig. 5."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from conocc.cli.application import SOME_FAILED, app, err, out, say_start
from conocc.cli.options import (
    Address,
    Axis,
    Cache,
    CohortArgument,
    Colour,
    Device,
    Engine,
    Fit,
    Majority,
    PatientRegex,
    Pseudonyms,
    Quiet,
    Scaled,
    Size,
    SplitSeed,
    Voi,
    Workers,
    command_line,
    kept_in,
    setting,
)

if TYPE_CHECKING:
    from conocc.data.load import CohortSpec
    from conocc.experiments.benchmark import Job

CohortsArgument = Annotated[
    list[str], typer.Argument(metavar="COHORT…", help="Folders, archives, manifests or phantoms.")
]
StudyOut = Annotated[
    Path, typer.Option("--out", metavar="STUDY", help="Folder for the study; rows accumulate.")
]
Methods = Annotated[str, typer.Option(help="'all', or some, separated by commas.")]
Epochs = Annotated[
    int | None, typer.Option(help="Of the methods that have epochs.", show_default=False)
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="[METHOD.]NAME=VALUE",
        help="A parameter of the methods that have it, or of one; V1,V2 makes a fit of each.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the fits and their cost only.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Do failed fits again.")]


@app.command()
def benchmark(
    cohorts: CohortsArgument,
    study: StudyOut,
    methods: Methods = "all",
    runs: Annotated[int, typer.Option(help="Fits of each method, with seeds from 0.")] = 3,
    epochs: Epochs = None,
    settings: Settings = None,
    size: Size = None,
    colour: Colour = "grey",
    fitting: Fit = "stretch",
    voi: Voi = "none",
    axis: Axis = "axial",
    scaled: Scaled = True,
    pseudonyms: Pseudonyms = False,
    majority: Majority = None,
    patient_regex: PatientRegex = None,
    split_seed: SplitSeed = 0,
    cache: Cache = None,
    device: Device = "auto",
    workers: Workers = 1,
    engine: Engine = "processes",
    address: Address = None,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    quiet: Quiet = False,
) -> None:
    """Fit methods to the split of each cohort, several times: the paper's Table 2.

    Killed, and started again with the same command, it does what is missing.
    Cohorts that need other options are added by a second call with the same --out.
    """
    say_start(quiet)
    from conocc.experiments.benchmark import benchmark_jobs

    loading = _specs(
        cohorts,
        majority,
        cache,
        size=size,
        colour=colour,
        fit=fitting,
        voi=voi,
        axis=axis,
        scaled=scaled,
        pseudonyms=pseudonyms,
        patient_regex=patient_regex,
        split_seed=split_seed,
    )
    jobs = benchmark_jobs(
        loading, _names(methods), settings=_settings(settings, epochs, device), runs=runs
    )
    _study(jobs, study, workers, engine, address, dry_run, retry_failed, quiet)


@app.command()
def crossval(
    cohorts: CohortsArgument,
    study: StudyOut,
    methods: Methods = "all",
    folds: Annotated[str, typer.Option(help="'paper', or how many.")] = "paper",
    group: Annotated[
        str | None,
        typer.Option(
            help="'patient' or 'none': whose images stay together.",
            show_default="patient; none with --folds paper",
        ),
    ] = None,
    epochs: Epochs = None,
    settings: Settings = None,
    size: Size = None,
    colour: Colour = "grey",
    fitting: Fit = "stretch",
    voi: Voi = "none",
    axis: Axis = "axial",
    scaled: Scaled = True,
    pseudonyms: Pseudonyms = False,
    majority: Majority = None,
    patient_regex: PatientRegex = None,
    split_seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    cache: Cache = None,
    device: Device = "auto",
    workers: Workers = 1,
    engine: Engine = "processes",
    address: Address = None,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    quiet: Quiet = False,
) -> None:
    """Cross-validate methods on each cohort: the paper's Table 3.

    Killed, and started again with the same command, it does what is missing.
    """
    say_start(quiet)
    from conocc.experiments.benchmark import crossval_jobs

    loading = _specs(
        cohorts,
        majority,
        cache,
        size=size,
        colour=colour,
        fit=fitting,
        voi=voi,
        axis=axis,
        scaled=scaled,
        pseudonyms=pseudonyms,
        patient_regex=patient_regex,
        split_seed=split_seed,
    )
    jobs = crossval_jobs(
        loading,
        _names(methods),
        settings=_settings(settings, epochs, device),
        rule=int(folds) if folds.isdecimal() else folds,
        group=group,
    )
    _study(jobs, study, workers, engine, address, dry_run, retry_failed, quiet)


@app.command()
def sweep(
    cohort: CohortArgument,
    study: StudyOut,
    method: Annotated[str, typer.Option(help="Which method; see 'conocc methods'.")] = "conocc",
    lr: Annotated[str | None, typer.Option(help="Values of λ.", show_default=False)] = None,
    gamma: Annotated[str | None, typer.Option(help="Values of γ.", show_default=False)] = None,
    interval: Annotated[str | None, typer.Option(help="Values of T.", show_default=False)] = None,
    epochs: Epochs = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Seed of every fit.")] = 0,
    size: Size = None,
    colour: Colour = "grey",
    fitting: Fit = "stretch",
    voi: Voi = "none",
    axis: Axis = "axial",
    scaled: Scaled = True,
    pseudonyms: Pseudonyms = False,
    majority: Majority = None,
    patient_regex: PatientRegex = None,
    split_seed: SplitSeed = 0,
    cache: Cache = None,
    device: Device = "auto",
    workers: Workers = 1,
    engine: Engine = "processes",
    address: Address = None,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    quiet: Quiet = False,
) -> None:
    """Fit a method at every combination of the values given, separated by commas: Fig. 5.

    Where ConOCC's λ is swept, the plain autoencoder is fitted at each λ too.
    """
    say_start(quiet)
    from conocc.experiments.benchmark import sweep_jobs

    (loading,) = _specs(
        [cohort],
        majority,
        cache,
        size=size,
        colour=colour,
        fit=fitting,
        voi=voi,
        axis=axis,
        scaled=scaled,
        pseudonyms=pseudonyms,
        patient_regex=patient_regex,
        split_seed=split_seed,
    )
    named = {"lr": lr, "gamma": gamma, "interval": interval}
    texts = [*(settings or []), *(f"{k}={v}" for k, v in named.items() if v is not None)]
    jobs = sweep_jobs(loading, method, settings=_settings(texts, epochs, device), seed=seed)
    _study(jobs, study, workers, engine, address, dry_run, retry_failed, quiet)


def _specs(
    cohorts: list[str],
    majority: list[str] | None,
    cache: Path | None,
    *,
    patient_regex: str | None,
    pseudonyms: bool,
    split_seed: int,
    **preprocessing: Any,
) -> list[CohortSpec]:
    from conocc.data.load import CohortSpec
    from conocc.data.preprocessing import Preprocessing

    return [
        CohortSpec(
            where,
            Preprocessing(**preprocessing),
            majority=tuple(majority) if majority else None,
            patient_regex=patient_regex,
            pseudonyms=pseudonyms,
            split_seed=split_seed,
            cache=kept_in(cache, False),
        )
        for where in cohorts
    ]


def _names(methods: str) -> str | list[str]:
    return "all" if methods == "all" else methods.split(",")


def _settings(texts: list[str] | None, epochs: int | None, device: str) -> dict[str, list[Any]]:
    """Read what a study sets: [METHOD.]NAME=V1,V2; a comma inside brackets parts no values."""
    settings: dict[str, list[Any]] = {"device": [device]}
    if epochs is not None:
        settings["epochs"] = [epochs]
    for text in texts or []:
        key, equals, values = text.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise ValueError(f"--set takes NAME=VALUE or METHOD.NAME=VALUE; got {text!r}.")
        name = key.rpartition(".")[2]
        parts = re.split(r",(?![^(\[]*[)\]])", values)
        settings[key] = [setting(f"{name}={part}")[1] for part in parts]
    return settings


def _study(
    jobs: list[Job],
    study: Path,
    workers: int,
    engine: str,
    address: str | None,
    dry_run: bool,
    retry_failed: bool,
    quiet: bool,
) -> None:
    from conocc.experiments.benchmark import run_study
    from conocc.experiments.significance import write_comparisons
    from conocc.experiments.table_formats import as_text
    from conocc.experiments.tables import other_contents, read_rows, write_tables

    if dry_run:
        _print_costs(jobs, study, workers)
        return
    rows = run_study(
        jobs,
        study,
        command=command_line(),
        engine=engine,
        workers=workers,
        address=address,
        retry_failed=retry_failed,
        verbose=0 if quiet else 1,
    )
    for made in [*write_tables(study), *write_comparisons(study)]:
        out.print(escape(as_text(made)))
    out.print(f"Tables and rows are in {escape(str(study / 'tables'))}")
    for sentence in other_contents(read_rows(study), {row["key"] for row in rows}):
        err.print(escape(sentence))
    failed = sum(row["status"] == "error" for row in rows)
    if failed:
        err.print(f"{failed} of {len(rows)} fits failed; --retry-failed does them again.")
        raise typer.Exit(SOME_FAILED)


def _print_costs(jobs: list[Job], study: Path, workers: int) -> None:
    from conocc.experiments.benchmark import costs, has_row

    missing = [job for job in jobs if not has_row(job, study)]
    table = Table("fit", "cohort", "seed", "fold", "seconds", box=None)
    seconds = costs(missing, share=workers)
    for job, cost in zip(missing, seconds, strict=True):
        params = " ".join(f"{k}={v}" for k, v in job.params.items() if k != "device")
        fit = escape(f"{job.method} {params}")
        where = escape(Path(job.cohort.where).name)
        table.add_row(fit, where, str(job.seed), str(job.fold or ""), f"{cost:.0f}")
    out.print(table)
    hours = sum(seconds) / workers / 3600
    out.print(
        f"{len(missing)} of {len(jobs)} fits are missing, "
        f"about {hours:.1f} hours with --jobs {workers}."
    )
