"""Studies at the command line: the paper's tables and its Fig. 5."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape
from rich.table import Table

from conocc.cli.application import (
    SOME_FAILED,
    app,
    command_line,
    err,
    out,
    say_all,
    say_next,
    show,
    unreadable_listed,
)
from conocc.cli.options import METHOD, CohortArgument, Method, Seed, StudyOptions, option
from conocc.cli.runs import each_once, say_metrics, setting
from conocc.io.files import refuse_foreign, write_text
from conocc.io.tables import refuse_other
from conocc.io.words import count, parted

if TYPE_CHECKING:
    from conocc.experiments.benchmark import Job

CohortsArgument = Annotated[list[str], option("Folders, archives, manifests or phantoms.")]
Methods = Annotated[list[str] | None, option("Which ones; all.", group=METHOD)]


@app.command
def benchmark(
    cohorts: CohortsArgument,
    /,
    *,
    study: StudyOptions,
    methods: Methods = None,
    runs: Annotated[int, option("Fits of each method, with seeds from 0.", group=METHOD)] = 3,
) -> int:
    """Fit methods to the split of each cohort, several times: the paper's Table 2.

    Killed, and started again with the same command, it does what is missing.
    Cohorts that need other options are added by a second call with the same --out.
    """
    from conocc.experiments.benchmark import benchmark_jobs

    jobs = benchmark_jobs(
        [*map(study.spec, cohorts)], _names(methods), settings=_settings(study), runs=runs
    )
    return _study(jobs, study)


@app.command
def crossval(
    cohorts: CohortsArgument,
    /,
    *,
    study: StudyOptions,
    methods: Methods = None,
    folds: Annotated[str, option("'paper', or how many.", group=METHOD)] = "paper",
    group: Annotated[
        str | None,
        option(
            "'patient' or 'none': whose images stay together; patient, but for the paper's.",
            group=METHOD,
        ),
    ] = None,
) -> int:
    """Cross-validate methods on each cohort: the paper's Table 3.

    Killed, and started again with the same command, it does what is missing.
    """
    from conocc.experiments.benchmark import crossval_jobs

    jobs = crossval_jobs(
        [*map(study.spec, cohorts)],
        _names(methods),
        settings=_settings(study),
        rule=int(folds) if folds.isdecimal() else folds,
        group=group,
    )
    return _study(jobs, study)


@app.command
def sweep(
    cohort: CohortArgument,
    /,
    *,
    study: StudyOptions,
    method: Method = "conocc",
    lr: Annotated[str | None, option("Values of λ.", group=METHOD)] = None,
    gamma: Annotated[str | None, option("Values of γ.", group=METHOD)] = None,
    interval: Annotated[str | None, option("Values of T.", group=METHOD)] = None,
    seed: Seed = 0,
) -> int:
    """Fit a method at every combination of the values given, separated by commas: Fig. 5.

    Where ConOCC's λ is swept, the plain autoencoder is fitted at each λ too.
    """
    from conocc.experiments.benchmark import sweep_jobs

    named = {"lr": lr, "gamma": gamma, "interval": interval}
    swept = [f"{name}={values}" for name, values in named.items() if values is not None]
    jobs = sweep_jobs(study.spec(cohort), method, settings=_settings(study, swept), seed=seed)
    return _study(jobs, study)


@app.command
def compare(
    runs: Annotated[list[Path], option("Two runs or more, evaluated on the same images.")],
    /,
    *,
    to: Annotated[Path | None, option("File for the table: .csv, .md or .tex.", "--out")] = None,
) -> None:
    """Test whether runs differ in AUC: each pair on the same images, corrected after Holm."""
    from conocc.experiments.significance import compare_runs
    from conocc.experiments.table_formats import FORMATS, as_text

    if to is not None and to.suffix[1:] not in FORMATS:
        raise ValueError(f"'{to}' must end in .csv, .md or .tex (--out).")
    results, table = compare_runs(runs)
    say_metrics("runs", results)
    say_all(["", as_text(table)])
    if to is not None:
        text = FORMATS[to.suffix[1:]](table)
        refuse_other(to, text.partition("\n")[0])
        write_text(to, text)
        out.print(f"Table: {escape(str(to))}")


@app.command
def plan(
    *,
    false_alarms: Annotated[float, option("Rate of false alarms to promise.")] = 0.05,
    confidence: Annotated[float, option("Certainty of that promise.")] = 0.95,
    auc: Annotated[float, option("The AUC that is expected.")] = 0.8,
    width: Annotated[float, option("Of its 95 % interval, from end to end.")] = 0.1,
    prevalence: Annotated[float, option("Share of the test patients in the minority.")] = 0.5,
    images: Annotated[int, option("Images of each test patient.")] = 1,
    likeness: Annotated[
        float, option("Correlation of the scores of images of one patient, between 0 and 1.")
    ] = 0.5,
) -> None:
    """Say how many patients a promise takes to calibrate, and an AUC to be tested."""
    from conocc.experiments.planning import plan_words

    test = {"auc": auc, "width": width, "prevalence": prevalence}
    say_all(plan_words(false_alarms, confidence, **test, images=images, likeness=likeness))


def _names(methods: Sequence[str] | None) -> str | list[str]:
    return "all" if (names := parted(methods or ["all"])) == ["all"] else names


def _settings(study: StudyOptions, more: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Read what a study sets: [METHOD.]NAME=V1,V2; a comma inside brackets parts no values."""
    named = [("epochs", [study.epochs])] if study.epochs is not None else []
    for text in [*(study.settings or []), *more]:
        key, equals, values = text.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise ValueError(f"--set takes NAME=VALUE or METHOD.NAME=VALUE; got {text!r}.")
        name = key.rpartition(".")[2]
        parts = re.split(r",(?![^(\[]*[)\]])", values)
        named.append((key, [setting(f"{name}={part}")[1] for part in parts]))
    return {"device": [study.device]} | each_once(named)


def _study(jobs: list[Job], study: StudyOptions) -> int:
    from conocc.experiments.benchmark import run_study
    from conocc.experiments.significance import write_comparisons
    from conocc.experiments.table_formats import as_text
    from conocc.experiments.tables import other_contents, read_rows, write_tables

    if study.dry_run:
        _list_missing(jobs, study.out)
        return 0
    if not (study.out / "rows").exists():
        refuse_foreign(study.out / "tables", "a study", ".*")
    with unreadable_listed(study.out):
        rows = run_study(
            jobs,
            study.out,
            command=command_line(),
            engine=study.engine,
            n_jobs=study.jobs,
            address=study.address,
            retry_failed=study.retry_failed,
            verbose=int(not study.quiet),
        )
    say_all(as_text(made) for made in [*write_tables(study.out), *write_comparisons(study.out)])
    out.print(f"Tables and rows are in {escape(str(study.out / 'tables'))}")
    say_next("report", study.out)
    for sentence in other_contents(read_rows(study.out), {row["key"] for row in rows}):
        err.print(escape(sentence))
    failed = sum(row["status"] == "error" for row in rows)
    if failed:
        err.print(f"{failed} of {count(len(rows), 'fit')} failed; --retry-failed does them again.")
    return SOME_FAILED if failed else 0


def _list_missing(jobs: list[Job], study: Path) -> None:
    from conocc.experiments.benchmark import has_row

    missing = [job for job in jobs if not has_row(job, study)]
    table = Table("fit", "cohort", "seed", "fold", box=None)
    for job in missing:
        params = " ".join(f"{k}={v}" for k, v in job.params.items() if k != "device")
        fit, where = escape(f"{job.method} {params}"), escape(Path(job.cohort.where).name)
        table.add_row(fit, where, str(job.seed), str(job.fold or ""))
    show(table)
    out.print(f"{len(missing)} of {count(len(jobs), 'fit')} missing.")
