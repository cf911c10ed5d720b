"""One run at the command line: look, fit, score, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from conocc.cli.application import SOME_FAILED, app, data_app, err, out, say_start
from conocc.cli.options import (
    Address,
    Axis,
    Cache,
    CohortArgument,
    Colour,
    Confidence,
    Engine,
    FalseAlarms,
    Fdr,
    Fit,
    Jobs,
    Majority,
    NoCache,
    PatientRegex,
    Pseudonyms,
    Quiet,
    RunArgument,
    Scaled,
    Size,
    SplitSeed,
    Unit,
    Voi,
    Workers,
    add_metrics,
    command_line,
    kept_in,
    metrics_table,
    print_tested,
    read_cohort_as,
    setting,
)
from conocc.cli.thresholds import print_calibration


@app.command()
def demo(
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder for what the demo makes.")
    ] = Path("conocc-demo"),
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 100,
) -> None:
    """Fit ConOCC and the plain autoencoder on a built-in phantom, and compare them."""
    from conocc.data.load import load_cohort
    from conocc.experiments.run import evaluate_run, fit_run
    from conocc.visualization.figures.drawing import save_figure
    from conocc.visualization.figures.pictures import montage

    cohort = load_cohort("phantom-mri")
    save_figure(montage(cohort), out_folder / "montage.png")
    table = metrics_table("phantom-mri: tumour against tissue, 32x32")
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
        fit_run(cohort, method, params, out_folder / method, command=command_line())
        result = evaluate_run(out_folder / method, cohort, command=command_line())
        add_metrics(table, method, result)
    out.print(table)
    print_tested(result)
    out.print(f"Models, scores and a montage are in {escape(str(out_folder))}")


@data_app.command("inspect")
def inspect(
    cohort: CohortArgument,
    size: Size = None,
    colour: Colour = "grey",
    fitting: Fit = "stretch",
    voi: Voi = "none",
    axis: Axis = "axial",
    scaled: Scaled = True,
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
    say_start()
    from conocc.data.load import CohortSpec
    from conocc.data.preprocessing import Preprocessing

    spec = CohortSpec(
        cohort,
        Preprocessing(size=size, colour=colour, fit=fitting, voi=voi, axis=axis, scaled=scaled),
        majority=tuple(majority) if majority else None,
        patient_regex=patient_regex,
        pseudonyms=pseudonyms,
        split_seed=split_seed,
        cache=kept_in(cache, no_cache),
    )
    loaded = spec.load(n_jobs=jobs, verbose=1)
    from conocc.visualization.figures.drawing import save_figure  # not before: it takes a second
    from conocc.visualization.figures.pictures import montage

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
    axis: Axis = "axial",
    scaled: Scaled = True,
    majority: Majority = None,
    patient_regex: PatientRegex = None,
    pseudonyms: Pseudonyms = False,
    split_seed: SplitSeed = 0,
    calibrate: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the training patients to keep for a threshold.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(show_default=False, help="Passes over them.")
    ] = None,
    gamma: Annotated[float | None, typer.Option(show_default=False, help="γ of Eq. 3.")] = None,
    interval: Annotated[
        int | None, typer.Option(show_default=False, help="T, epochs between updates of μ.")
    ] = None,
    lr: Annotated[float | None, typer.Option(show_default=False, help="λ, learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
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
    say_start(quiet)
    from conocc.data.load import CohortSpec
    from conocc.data.preprocessing import Preprocessing
    from conocc.experiments.run import fit_run, make_detector, read_run

    command = command_line()
    given = {"epochs": epochs, "gamma": gamma, "interval": interval, "lr": lr}
    params: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    params |= {"device": device, "verbose": 0 if quiet else 1, "random_state": seed}
    params |= dict(setting(text) for text in settings or [])
    make_detector(method, params).check_params()  # before the images are read
    spec = CohortSpec(
        cohort,
        Preprocessing(size=size, colour=colour, fit=fitting, voi=voi, axis=axis, scaled=scaled),
        majority=tuple(majority) if majority else None,
        patient_regex=patient_regex,
        pseudonyms=pseudonyms,
        split_seed=split_seed,
        calibration_size=calibrate,
        cache=kept_in(cache, no_cache),
    )
    loaded = spec.load(n_jobs=jobs, verbose=0 if quiet else 1)
    for note in loaded.notes:
        out.print(f"• {escape(note)}")
    where = escape(str(run))
    if fit_run(loaded, method, params, run, command=command, spec=spec):
        out.print(f"Fitted {method} on {len(loaded.where(split='train'))} images: {where}")
        if calibrate:
            print_calibration(read_run(run)["calibration"])
    else:
        out.print(f"{where} is finished already; nothing was done.")


@app.command()
def score(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES…", help="Files or folders.")],
    scores: Annotated[Path, typer.Option("--out", help="The table to write.")] = Path("scores.csv"),
    top: Annotated[int, typer.Option(help="Slices of a volume whose scores are averaged.")] = 3,
    false_alarms: FalseAlarms = None,
    confidence: Confidence = 0.95,
    unit: Unit = "image",
    fdr: Fdr = None,
    workers: Workers = 1,
    engine: Engine = "processes",
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Score images into a CSV table: higher is less like the majority class.

    An image is 'predicted' minority above the threshold: the model's own, which promises nothing,
    or that of a promise that a calibrated run can keep (--false-alarms, --fdr).
    Files that cannot be read are listed in errors.csv beside the table; the exit code is then 3.
    Where there are volumes, volumes.csv beside it has the highest score of each and the mean of
    its --top highest.
    Killed, and started again with the same command, it does what is missing.
    """
    say_start(quiet)
    from conocc.experiments.inference import score_files
    from conocc.thresholds.rules import Rule

    done = score_files(
        run,
        images,
        scores,
        rule=Rule(false_alarms, confidence, unit, fdr),
        top=top,
        engine=engine,
        workers=workers,
        address=address,
        verbose=0 if quiet else 1,
    )
    out.print(f"Scored {done.count} images: {escape(str(scores))}")
    out.print(escape(done.words))
    if done.failed:
        listed = scores.with_name("errors.csv")
        for path, reason in done.errors:
            err.print(f"{escape(path)}: {escape(reason)}")
        err.print(f"{done.failed} could not be read; all are in {escape(str(listed))}")
        raise typer.Exit(SOME_FAILED)


@app.command()
def evaluate(
    run: RunArgument,
    cohort: CohortArgument,
    majority: Majority = None,
    patient_regex: PatientRegex = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json instead.")] = False,
    false_alarms: FalseAlarms = None,
    confidence: Confidence = 0.95,
    unit: Unit = "image",
    fdr: Fdr = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
) -> None:
    """Compute the metrics, with intervals, on the labelled test images of a cohort.

    The test images are those of the run's own split, found by content; images and patients
    that were trained or calibrated on are left out. False alarms and sensitivity are those at
    the threshold: the model's own, or that of a promise (--false-alarms, --fdr).
    """
    from conocc.experiments.run import evaluate_run, read_run
    from conocc.thresholds.rules import Rule, summary

    rule = Rule(false_alarms, confidence, unit, fdr)
    command = command_line()
    loaded = read_cohort_as(run, cohort, cache, no_cache, jobs, as_json, majority, patient_regex)
    result = evaluate_run(run, loaded, command=command, rule=rule)
    if as_json:
        print(json.dumps(result, indent=2))  # noqa: T201  (rich would wrap and colour it)
        return
    table = metrics_table(f"{run} on {loaded.name}")
    add_metrics(table, read_run(run)["method"], result)
    out.print(table)
    print_tested(result)
    for sentence in summary(result):
        out.print(escape(sentence))
    for reason, number in result["left_out"].items():
        if number:
            out.print(f"{number} images left out: {reason}.")


@app.command("methods")
def list_methods() -> None:
    """List the methods, with one line and the source of each."""
    from conocc.detectors import METHODS, method_class

    table = Table("id", "what it is", "source", box=None)
    for name, method in METHODS.items():
        summary = (method_class(name).__doc__ or "").strip().splitlines()[0]
        table.add_row(name, summary, method.source)
    out.print(table)
