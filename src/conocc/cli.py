"""The command line: parse, call one function of a room above, print.

Rooms that need torch are imported in the command that uses them, so that ``--help`` is quick.
"""

from __future__ import annotations

import ast
import json
import logging
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from conocc._version import __version__

if TYPE_CHECKING:
    from conocc.cohort import Cohort
    from conocc.study import Job, Loading

logger = logging.getLogger("conocc")

SOME_FAILED = 3  # exit code when some files could not be read, or some fits failed
INTERRUPTED = 130

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


class Sentences(TyperGroup):
    """Commands whose errors are one sentence on stderr, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, MemoryError) as error:
            err.print(f"[red]Error:[/red] {escape(_sentence(error))}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            err.print("Stopped. The same command goes on from the last checkpoint.")
            raise typer.Exit(INTERRUPTED) from None


def _sentence(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"Out of memory: {error}".rstrip(": ") + "."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: '{error.filename}'." if error.filename else f"{error.strerror}."
    return str(error)


app = typer.Typer(
    cls=Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One-class learning on medical images: train on the majority class, score the rest.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at cohorts.")
app.add_typer(data_app, name="data")

CohortArgument = Annotated[
    str, typer.Argument(metavar="COHORT", help="A folder, archive or manifest, or a phantom.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that 'fit' made.")]
Size = Annotated[
    int | None, typer.Option(help="Side in pixels that images are resized to.", show_default=False)
]
Colour = Annotated[str, typer.Option(help="'grey', or 'rgb' to keep colour.")]
Fit = Annotated[str, typer.Option("--fit", help="How images become square: stretch, pad or crop.")]
Voi = Annotated[
    str, typer.Option("--voi", help="Window of DICOM: none, file (its own) or CENTER,WIDTH.")
]
Pseudonyms = Annotated[
    bool, typer.Option("--pseudonyms", help="Hide all names of patients, files and folders.")
]
Majority = Annotated[
    list[str] | None,
    typer.Option(help="Class to learn; may be given more than once.", show_default=False),
]
PatientRegex = Annotated[
    str | None,
    typer.Option(help="Finds the patient in a path: its first group.", show_default=False),
]
SplitSeed = Annotated[int, typer.Option(help="Seed of the split, where the cohort has none.")]
Cache = Annotated[
    Path | None, typer.Option(help="Folder that keeps decoded images.", show_default=False)
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no decoded images.")]
Jobs = Annotated[
    int | None, typer.Option(help="Threads that decode; all cores.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


@app.command()
def demo(
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder for what the demo makes.")
    ] = Path("conocc-demo"),
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 100,
) -> None:
    """Fit ConOCC and the plain autoencoder on a built-in phantom, and compare them."""
    from conocc.figures import montage, save_figure
    from conocc.run import evaluate_run, fit_run

    cohort = _load("phantom-mri")
    save_figure(montage(cohort), out_folder / "montage.png")
    table = _metrics_table("phantom-mri: tumour against tissue, 32x32")
    for method in ("conocc", "cae"):
        out.print(f"Fitting {method} to {len(cohort.where(split='train'))} majority images …")
        interval = {"interval": max(1, epochs // 4)} if method == "conocc" else {}
        params: dict[str, Any] = {
            "epochs": epochs,
            "lr": 1e-3,
            "random_state": 0,
            "verbose": 1,
            **interval,
        }
        fit_run(cohort, method, params, out_folder / method, command=_command())
        result = evaluate_run(out_folder / method, cohort, command=_command())
        _add_metrics(table, method, result)
    out.print(table)
    out.print(f"Models, scores and a montage are in {escape(str(out_folder))}")


@data_app.command("inspect")
def inspect(
    cohort: CohortArgument,
    size: Size = None,
    colour: Colour = "grey",
    fitting: Fit = "stretch",
    voi: Voi = "none",
    majority: Majority = None,
    patient_regex: PatientRegex = None,
    pseudonyms: Pseudonyms = False,
    split_seed: SplitSeed = 0,
    cache: Cache = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    picture: Annotated[
        Path | None,
        typer.Option("--montage", help="Where the montage goes.", show_default="NAME-montage.png"),
    ] = None,
) -> None:
    """Show a cohort's classes, counts, patients, split and leaks, and draw a montage."""
    from conocc.figures import montage, save_figure

    loaded = _load(
        cohort,
        size,
        colour,
        majority,
        patient_regex,
        split_seed,
        cache,
        no_cache,
        jobs,
        fit=fitting,
        voi=voi,
        pseudonyms=pseudonyms,
    )
    for note in loaded.notes:
        out.print(f"• {escape(note)}")
    table = Table("split", "class", "images", "patients")
    for row in loaded.counts().itertuples(index=False):
        table.add_row(*(str(value) for value in row))
    out.print(table)
    picture = picture or Path(f"{Path(loaded.name).name}-montage.png")
    save_figure(montage(loaded), picture)
    out.print(f"Montage: {escape(str(picture))}")


@app.command()
def fit(
    cohort: CohortArgument,
    run: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder for the run.")],
    method: Annotated[str, typer.Option(help="Which method; see 'conocc methods'.")] = "conocc",
    size: Size = None,
    colour: Colour = "grey",
    fitting: Fit = "stretch",
    voi: Voi = "none",
    majority: Majority = None,
    patient_regex: PatientRegex = None,
    pseudonyms: Pseudonyms = False,
    split_seed: SplitSeed = 0,
    epochs: Annotated[
        int | None, typer.Option(show_default=False, help="Passes over them.")
    ] = None,
    gamma: Annotated[float | None, typer.Option(show_default=False, help="γ of Eq. 3.")] = None,
    interval: Annotated[
        int | None, typer.Option(show_default=False, help="T, epochs between updates of μ.")
    ] = None,
    lr: Annotated[float | None, typer.Option(show_default=False, help="λ, learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other parameter of the method."),
    ] = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Train a method on the majority training images of a cohort.

    Killed, and started again with the same command, it goes on where it was.
    """
    from conocc.run import fit_run, make_detector

    given = {"epochs": epochs, "gamma": gamma, "interval": interval, "lr": lr}
    params: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    params |= {"device": device, "verbose": 0 if quiet else 1, "random_state": seed}
    params |= dict(_setting(text) for text in settings or [])
    make_detector(method, params)  # a misspelt name is said before the images are read
    loaded = _load(
        cohort,
        size,
        colour,
        majority,
        patient_regex,
        split_seed,
        cache,
        no_cache,
        jobs,
        quiet,
        fit=fitting,
        voi=voi,
        pseudonyms=pseudonyms,
    )
    for note in loaded.notes:
        out.print(f"• {escape(note)}")
    where = escape(str(run))
    loading: dict[str, Any] = {"where": cohort, "majority": majority}
    loading["patient_regex"] = patient_regex
    loading |= {"pseudonyms": True} if pseudonyms else {}
    if fit_run(loaded, method, params, run, command=_command(), loading=loading):
        out.print(f"Fitted {method} on {len(loaded.where(split='train'))} images: {where}")
    else:
        out.print(f"{where} is finished already; nothing was done.")


@app.command()
def score(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES…", help="Files or folders.")],
    scores: Annotated[Path, typer.Option("--out", help="The table to write.")] = Path("scores.csv"),
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Score images into a CSV table: higher is less like the majority class.

    Files that cannot be read are listed in errors.csv beside the table; the exit code is then 3.
    """
    from conocc.run import score_files

    done = score_files(run, images, scores, jobs=jobs, verbose=0 if quiet else 1)
    out.print(f"Scored {done.count} images: {escape(str(scores))}")
    if done.errors:
        listed = scores.with_name("errors.csv")
        for path, reason in done.errors[:5]:
            err.print(f"{escape(path)}: {escape(reason)}")
        err.print(f"{len(done.errors)} could not be read; all are in {escape(str(listed))}")
        raise typer.Exit(SOME_FAILED)


@app.command()
def evaluate(
    run: RunArgument,
    cohort: CohortArgument,
    majority: Majority = None,
    patient_regex: PatientRegex = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json instead.")] = False,
    cache: Cache = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
) -> None:
    """Compute AUC, AUPR-maj and AUPR-min on the labelled test images of a cohort.

    The test images are those of the run's own split, found by content; images and patients
    that were trained on are left out.
    """
    from conocc.run import evaluate_run, load_model, read_run

    reading, loading = load_model(run).reading_, read_run(run)["loading"]
    loaded = _load(
        cohort,
        size=reading["size"],
        colour=reading["colour"],
        fit=reading["fit"],
        voi=reading.get("voi", "none"),
        pseudonyms=loading.get("pseudonyms", False),
        majority=majority or loading.get("majority"),
        patient_regex=patient_regex or loading.get("patient_regex"),
        cache=cache,
        no_cache=no_cache,
        jobs=jobs,
        quiet=as_json,
    )
    result = evaluate_run(run, loaded, command=_command())
    if as_json:
        print(json.dumps(result, indent=2))  # noqa: T201  (rich would wrap and colour it)
        return
    table = _metrics_table(f"{run} on {loaded.name}")
    _add_metrics(table, read_run(run)["method"], result)
    out.print(table)
    counts = result["counts"]
    known = f" of {counts['patients']} patients" if counts["patients"] else ""
    out.print(
        f"{counts['majority']} majority and {counts['minority']} minority test images{known}; "
        f"prevalence of the minority {result['prevalence']:.3f}, the chance level of AUPR-min."
    )
    for reason, number in result["left_out"].items():
        if number:
            out.print(f"{number} images left out: {reason}.")


@app.command("methods")
def list_methods() -> None:
    """List the methods, with one line and the source of each."""
    from conocc.methods import METHODS, method_class

    table = Table("id", "what it is", "source", box=None)
    for name, method in METHODS.items():
        summary = (method_class(name).__doc__ or "").strip().splitlines()[0]
        table.add_row(name, summary, method.source)
    out.print(table)


# --- studies -----------------------------------------------------------------------------------

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
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
Workers = Annotated[int, typer.Option("--jobs", help="Fits at a time on this machine.")]
Engine = Annotated[str, typer.Option(help="'processes' of this machine, or 'dask'.")]
Address = Annotated[
    str | None, typer.Option(help="Of Dask's scheduler, tcp://HOST:PORT.", show_default=False)
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
    from conocc.study import benchmark_jobs

    loading = _loadings(cohorts, size, colour, majority, patient_regex, split_seed, cache)
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
    from conocc.study import crossval_jobs

    loading = _loadings(cohorts, size, colour, majority, patient_regex, split_seed, cache)
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
    from conocc.study import sweep_jobs

    (loading,) = _loadings([cohort], size, colour, majority, patient_regex, split_seed, cache)
    named = {"lr": lr, "gamma": gamma, "interval": interval}
    texts = [*(settings or []), *(f"{k}={v}" for k, v in named.items() if v is not None)]
    jobs = sweep_jobs(loading, method, settings=_settings(texts, epochs, device), seed=seed)
    _study(jobs, study, workers, engine, address, dry_run, retry_failed, quiet)


def _loadings(
    cohorts: list[str],
    size: int | None,
    colour: str,
    majority: list[str] | None,
    patient_regex: str | None,
    split_seed: int,
    cache: Path | None,
) -> list[Loading]:
    from conocc.study import Loading

    return [
        Loading(
            cohort,
            size=size,
            colour=colour,
            majority=tuple(majority) if majority else None,
            patient_regex=patient_regex,
            split_seed=split_seed,
            cache=str(cache.resolve()) if cache else True,
        )
        for cohort in cohorts
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
        settings[key] = [_setting(f"{name}={part}")[1] for part in parts]
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
    from conocc.study import run_study
    from conocc.tables import as_text, write_tables

    if dry_run:
        _print_costs(jobs, study, workers)
        return
    rows = run_study(
        jobs,
        study,
        command=_command(),
        engine=engine,
        workers=workers,
        address=address,
        retry_failed=retry_failed,
        verbose=0 if quiet else 1,
    )
    for made in write_tables(study):
        out.print(as_text(made))
    out.print(f"Tables and rows are in {escape(str(study / 'tables'))}")
    failed = sum(row["status"] == "error" for row in rows)
    if failed:
        err.print(f"{failed} of {len(rows)} fits failed; --retry-failed does them again.")
        raise typer.Exit(SOME_FAILED)


def _print_costs(jobs: list[Job], study: Path, workers: int) -> None:
    from conocc.study import costs, has_row

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


@app.command()
def embed(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN… [COHORT]", help="Evaluated runs; or runs and their cohort."),
    ],
    picture: Annotated[Path, typer.Option("--out", help="The figure: .png, .svg or .pdf.")],
    cache: Cache = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Map the training images' bottleneck features by t-SNE, one map a run: Fig. 6.

    The features are those that 'evaluate' kept; with a COHORT they are made anew.
    """
    from conocc.evidence import Embedding
    from conocc.figures import feature_maps, save_figure

    cohort = None if (Path(runs[-1]) / "run.json").exists() else runs.pop()
    if not runs:
        raise ValueError(f"'{cohort}' is not a run: it has no run.json.")
    if cohort is not None:
        from conocc.run import embed_run

        for run in runs:
            embed_run(run, _load_as(run, cohort, cache, no_cache, jobs, quiet))
    files = [Path(run) / "embedding.npz" for run in runs]
    for file in files:
        if not file.exists():
            raise ValueError(
                f"'{file.parent}' has no embedding.npz: it was not evaluated, or its method has "
                "no bottleneck features."
            )
    embeddings = [
        (label, Embedding.load(file)) for label, file in zip(_run_labels(runs), files, strict=True)
    ]
    save_figure(feature_maps(embeddings), picture)
    table = Table("run", "compactness")
    for name, embedding in embeddings:
        compactness = embedding.compactness()
        table.add_row(escape(name), "–" if compactness is None else f"{compactness:.3f}")
    out.print(table)
    out.print(f"Figure: {escape(str(picture))}")


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="STUDY|RUN", help="A folder that a study or 'fit' made.")
    ],
) -> None:
    """Write one self-contained HTML page on a study or a run, into its folder."""
    from conocc.report import write_report

    out.print(escape(str(write_report(folder))))


def _run_labels(runs: list[str]) -> list[str]:
    """Name runs by their methods; those of one method by their folders too."""
    methods = []
    for run in runs:
        about = Path(run, "run.json")
        if not about.exists():
            raise ValueError(f"'{run}' is not a run: it has no run.json.")
        methods.append(json.loads(about.read_text(encoding="utf-8"))["method"])
    return [
        method if methods.count(method) == 1 else f"{method} ({Path(run).resolve().name[:12]})"
        for method, run in zip(methods, runs, strict=True)
    ]


def _load_as(
    run: str, where: str, cache: Path | None, no_cache: bool, jobs: int | None, quiet: bool
) -> Cohort:
    """Load a cohort as a run's own was read."""
    from conocc.run import load_model, read_run

    loading = read_run(Path(run))["loading"]
    asked = {name: loading.get(name) for name in ("majority", "patient_regex")}
    asked |= {"pseudonyms": True} if loading.get("pseudonyms") else {}
    given: dict[str, Any] = {**load_model(run).reading_, **asked}
    return _load(where, **given, cache=cache, no_cache=no_cache, jobs=jobs, quiet=quiet)


def _load(
    where: str,
    size: int | None = None,
    colour: str = "grey",
    majority: list[str] | None = None,
    patient_regex: str | None = None,
    split_seed: int = 0,
    cache: Path | None = None,
    no_cache: bool = False,
    jobs: int | None = None,
    quiet: bool = False,
    **reading: Any,
) -> Cohort:
    from conocc.cohort import load_cohort

    return load_cohort(
        where,
        size=size,
        colour=colour,
        majority=majority or None,
        patient_regex=patient_regex,
        split_seed=split_seed,
        cache=False if no_cache else cache or True,
        jobs=jobs,
        verbose=0 if quiet else 1,
        **reading,
    )


def _setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; the value is a Python literal, or else a word."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--set takes NAME=VALUE; got {text!r}.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _metrics_table(title: str) -> Table:
    from conocc.metrics import METRICS

    table = Table("method", title=escape(title))
    for name in METRICS:
        table.add_column(name, justify="right")
    return table


def _add_metrics(table: Table, method: str, result: dict[str, Any]) -> None:
    table.add_row(method, *(_interval(metric) for metric in result["metrics"].values()))


def _interval(metric: dict[str, Any]) -> str:
    if metric["low"] is None:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} ({metric['low']:.3f}–{metric['high']:.3f})"


def _command() -> str:
    return shlex.join(["conocc", *sys.argv[1:]])


def main() -> None:
    """Run the command line."""
    app()
