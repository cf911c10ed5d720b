"""One run at the command line: fit, calibrate, evaluate, score, and a demonstration of it all."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape
from rich.table import Table

from conocc.cli import options as ask
from conocc.cli.application import (
    app,
    command_line,
    out,
    say_all,
    say_failed,
    say_left_out,
    say_next,
    show,
    unreadable_listed,
)
from conocc.io.files import refuse_made
from conocc.io.words import count, duration, readable
from conocc.metrics.checks import in_unit_interval
from conocc.thresholds.rule import RULE


@app.command
def demo(
    *,
    folder: Annotated[Path, ask.option("Folder for what the demo makes.", "--out")] = Path(
        "conocc-demo"
    ),
    epochs: Annotated[int, ask.option("Passes over the training images.", group=ask.METHOD)] = 100,
    quiet: ask.Quiet = False,
) -> None:
    """Fit ConOCC and the plain autoencoder on a built-in phantom, and compare them."""
    from conocc.data.load import load_cohort
    from conocc.experiments.run import evaluate_run, fit_run, make_detector
    from conocc.visualization.drawing import refuse_picture, save_figure
    from conocc.visualization.images import montage

    shared = {"epochs": epochs, "lr": 1e-3, "random_state": 0, "verbose": int(not quiet)}
    methods = {"conocc": {**shared, "interval": max(1, epochs // 4)}, "cae": shared}
    make_detector("cae", shared).check_params()  # before anything is written
    refuse_made(folder)
    refuse_picture(folder / "montage.png")
    cohort = load_cohort("phantom-mri")
    save_figure(montage(cohort), folder / "montage.png")
    results = {}
    for method, params in methods.items():
        out.print(
            f"Fitting {method} to {count(len(cohort.where(split='train')), 'majority image')} …"
        )
        fit_run(cohort, method, params, folder / method, command=command_line())
        results[method] = evaluate_run(folder / method, cohort, command=command_line())
    say_metrics("phantom-mri: tumour against tissue, 32x32", results)
    out.print(f"Models, scores and a montage are in {escape(str(folder))}")
    say_next("report", folder / "conocc")


@app.command
def fit(
    cohort: ask.CohortArgument,
    /,
    *,
    run: Annotated[Path, ask.option("Folder for the run.", "--out")],
    how: ask.MethodOptions = ask.MethodOptions(),
    read: ask.CohortOptions = ask.CohortOptions(),
    calibrate: Annotated[
        float | None,
        ask.option(
            "Share of training patients kept for a threshold, 0 for none; a fifth if that can "
            "promise any.",
            group=ask.DECISION,
        ),
    ] = None,
    device: ask.Device = "auto",
    threads: ask.Threads = None,
    quiet: ask.Quiet = False,
) -> None:
    """Train a method on the majority training images of a cohort.

    Killed, and started again with the same command, it goes on where it was.
    """
    from conocc.experiments.run import fit_run, load_model, make_detector, read_run
    from conocc.thresholds.rules import decisions

    command = command_line()
    if run.resolve() == Path(cohort).resolve():
        raise ValueError(f"'{run}' is the cohort, among whose images no run may lie (--out).")
    others = ("method", "seed", "settings")
    named = ((k, v) for k, v in vars(how).items() if v is not None and k not in others)
    params = {"device": device, "verbose": int(not quiet), "random_state": how.seed}
    params |= each_once([*named, *map(setting, how.settings or [])])
    make_detector(how.method, params).check_params()  # before the images are read
    refuse_made(run, "run.json")
    share = "auto" if calibrate is None else calibrate or None
    if calibrate:
        in_unit_interval("calibrate", calibrate)
    spec = replace(read.spec(cohort), calibration_size=share)
    with unreadable_listed(run):
        loaded = spec.load(n_jobs=threads, verbose=int(not quiet))
    say_all(loaded.notes, "• ")
    where = escape(str(run))
    if not fit_run(loaded, how.method, params, run, command=command, spec=spec):
        out.print(f"{where} is finished already; nothing was done.")
        return
    out.print(f"Fitted {how.method} on {count(len(loaded.where(split='train')), 'image')}: {where}")
    if found := read_run(run).get("calibration"):
        say_calibration(found)
    out.print(escape(decisions(load_model(run), RULE).words()))
    say_next("evaluate", run, cohort)


@app.command
def calibrate(
    run: ask.RunArgument,
    cohort: ask.CohortArgument,
    /,
    *,
    read: ask.ReadAsOptions = ask.ReadAsOptions(),
    same_patients: ask.SamePatients = None,
    score: ask.Score = None,
    quiet: ask.Quiet = False,
) -> None:
    """Calibrate a run's threshold on majority images that it was not trained on.

    Only majority images count; images and patients of the run's training and test split are left
    out. 'score' and 'evaluate' then flag images by the promise that is said, or by another one
    (--false-alarms, --fdr). Each score has a calibration of its own: that of 'score --score NAME'
    is of 'calibrate --score NAME'.
    """
    from conocc.experiments.run import calibrate_run, load_model
    from conocc.thresholds.rules import decisions

    command = command_line()
    loaded = read.load(run, cohort, quiet=quiet)
    found = calibrate_run(
        run,
        loaded,
        command=command,
        same_patients=same_patients,
        score=score,
        verbose=int(not quiet),
    )
    say_calibration(found)
    say_all(found["assumed"])
    out.print(escape(decisions(load_model(run, score), RULE).words()))
    say_next("score", run, "IMAGES")


@app.command
def evaluate(
    run: ask.RunArgument,
    cohort: ask.CohortArgument,
    /,
    *,
    read: ask.ReadAsOptions = ask.ReadAsOptions(),
    same_patients: ask.SamePatients = None,
    folder: Annotated[
        Path | None, ask.option("Folder for a copy of the run, with these results.", "--out")
    ] = None,
    by: Annotated[
        list[str] | None, ask.option("Columns of the table to tell results apart by.")
    ] = None,
    as_json: Annotated[bool, ask.option("Print metrics.json instead.", "--json")] = False,
    score: ask.Score = None,
    rule: ask.RuleOptions = RULE,
    quiet: ask.Quiet = False,
) -> None:
    """Compute the metrics, with intervals, on the labelled test images of a cohort.

    The test images are those of the run's own split, found by content; images and patients
    that were trained or calibrated on are left out. False alarms and sensitivity are those at
    the threshold of a promise: the smallest of 5, 10 and 20 % false alarms that the calibration
    can promise, or another one (--false-alarms, --fdr). Where there are several minority classes,
    each is told apart, and so is each value of a column of the table, such as its site (--by).
    A run has the results on one set of images, by its own score; those on others, by another score
    (--score), or of a run that may only be read, go into a copy of it (--out).
    """
    from conocc.experiments.groups import groups_table, summary
    from conocc.experiments.run import copy_run, evaluate_run, read_run
    from conocc.experiments.table_formats import as_text

    command = command_line()
    quiet = quiet or as_json
    loaded = read.load(run, cohort, quiet=quiet)
    if folder is not None:
        run = copy_run(run, folder, score)
    elif score is not None:
        raise ValueError("Results by another score go into a copy of the run: say where (--out).")
    how: dict[str, Any] = {"rule": rule, "by": by or (), "same_patients": same_patients}
    result = evaluate_run(run, loaded, command=command, verbose=int(not quiet), **how)
    if as_json:
        print(json.dumps(result, indent=2))  # noqa: T201  (rich would wrap and colour it)
        return
    say_metrics(f"{run} on {loaded.name}", {read_run(run)["method"]: result})
    say_all(summary(result))
    if len((groups := groups_table(result)).lines) > 1:
        say_all(["", as_text(groups)])
    say_left_out(result["left_out"])
    say_all(result["assumed"])
    say_next("report", run)


@app.command
def score(
    run: ask.RunArgument,
    images: ask.ImagesArgument,
    /,
    *,
    scores: Annotated[Path, ask.option("The table to write.", "--out")] = Path("scores.csv"),
    top: Annotated[int, ask.option("Slices of a volume whose scores are averaged.")] = 3,
    table: ask.ListGroup = ask.ASKED.table,
    score: ask.Score = None,
    rule: ask.RuleOptions = RULE,
    objects: Annotated[
        Path | None,
        ask.option(
            "Also write reports and heat maps as DICOM objects into this folder; they name the "
            "patients.",
            "--dicom-out",
        ),
    ] = None,
    keep: ask.Keep = None,
    parallel: ask.ParallelOptions = ask.ParallelOptions(),
    quiet: ask.Quiet = False,
) -> int:
    """Score images into a CSV table: a higher score is less like the majority class.

    An image is flagged, 'predicted' minority, above the threshold of a promise: the smallest of 5,
    10 and 20 % false alarms that the calibration can promise, or another one (--false-alarms,
    --fdr). Where nothing can be promised, nothing is predicted, and it is said why.
    Files that cannot be read are listed beside the table, in scores.errors.csv beside scores.csv;
    the exit code is then 3. Where there are volumes, scores.volumes.csv has the highest score of
    each, the mean of its --top highest and, under --false-alarms with --unit patient, whether it
    is flagged.
    A table may list the images, or standard input (-), one a line.
    With --dicom-out DICOM images also get objects for a PACS: a report a study, and of each image a
    picture of its heat map and a parametric map.
    Killed, and started again with the same command, it does what is missing.
    """
    from conocc.data.features import is_features
    from conocc.experiments.inference import score_files, table_beside

    export_files = _exporter(objects) if objects is not None else None
    if images == [Path("/dev/stdin")]:
        images = [Path(line) for line in sys.stdin.read().splitlines() if line]
    done = score_files(
        run,
        images,
        scores,
        table=table,
        rule=rule,
        score=score,
        top=top,
        engine=parallel.engine,
        n_jobs=parallel.jobs,
        address=parallel.address,
        verbose=int(not quiet),
    )
    if done.count:
        out.print(f"Scored {count(done.count, 'image')}: {escape(str(scores))}")
        say_all(done.words)
        say_all(done.remarks)
        if done.flagged is not None:
            share = f"{100 * done.flagged / done.count:.1f} %"
            out.print(f"Flagged: {done.flagged:,} of {count(done.count, 'image')} ({share}).")
        out.print("Highest anomaly scores:")
        say_all((f"{readable(value):>10}  {path}" for value, path in done.highest))
        is_fetched = any("dicomweb" in one.parts for one in images)  # and goes
        shown = ["IMAGES"] if is_fetched or len(images) > 3 else images
        same = ["--score", score] if score else []
        if not any(map(is_features, images)):  # of which there is nothing to look at
            say_next("review", run, *shown, *same, "--out", "review")
    else:
        out.print("No image was scored, and no table of scores was written.")
    if export_files and done.count:
        how: dict[str, Any] = {"rule": rule, "score": score, "verbose": int(not quiet)}
        say_all(export_files(run, done.parts, objects, **how))
    return say_failed(done.errors, table_beside(scores, "errors"), "read", done.failed)


def _exporter(folder: Path) -> Callable[..., list[str]]:
    refuse_made(folder)
    try:
        from conocc.deploy.dicom_out import export_files
    except ImportError as error:
        raise ValueError("--dicom-out needs: pip install 'conocc[dicom-out]'.") from error
    return export_files


@app.command
def methods() -> None:
    """List the methods: what they are, how long they take, and what can be had of them."""
    from conocc.detectors import METHODS

    table = Table("id", "what it is", box=None)
    for name in ("epochs", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("heat map", "export", "source"):
        table.add_column(name, overflow="fold")
    for name, (*_, source, what, epochs, heat_map, export, seconds) in METHODS.items():
        table.add_row(name, what, epochs, duration(float(seconds)), heat_map, export, source)
    show(table)
    out.print(
        "Time: about, of a fit to 1,000 images of 64 pixels a side, on two cores.\n"
        "'lrt' and 'gabor_mahalanobis' tell classes apart best on the sets measured, in seconds."
    )
    say_next("fit", "IMAGES", "--method", "lrt", "--size", 64, "--out", "run")


def setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; the value is a Python literal, or else a word."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--set takes NAME=VALUE; got {text!r}.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def each_once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Gather parameters by name; one that is set twice, with two values, is refused."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise ValueError(
                f"'{name}' is set twice. Give it once, by --set or by an option of its own."
            )
    return found


def say_calibration(found: dict[str, Any]) -> None:
    """Print what `calibrate_run` returned, or a fit noted of its own calibration."""
    patients = "patients not known"
    if found["patients"] is not None:
        patients = count(found["patients"], "patient")
    out.print(f"Calibrated on {count(found['images'], 'majority image')}, {patients}.")
    say_left_out(found["left_out"])


def say_metrics(title: str, results: dict[str, dict[str, Any]]) -> None:
    """Print what `evaluate_run` returned of some methods, and say of what images it is."""
    from conocc.experiments.tables import SENSITIVITY
    from conocc.metrics.ranking import METRICS

    table = Table("method", title=escape(title))
    for name in METRICS:
        table.add_column(name, justify="right", no_wrap=True)
    for method, result in results.items():
        table.add_row(method, *map(_interval, result["metrics"].values()))
    if result["metrics"]:
        show(table)
    counts = result["counts"]
    patients = f" of {count(counts['patients'], 'patient')}" if counts["patients"] else ""
    tested = (
        f"{counts['majority']} majority and {counts['minority']} minority test images{patients}"
    )
    if not result["metrics"]:
        out.print(f"{tested}.")
        return
    prevalence = f"{result['prevalence']:.3f}, the chance level of AUPR-min"
    out.print(f"{tested}; prevalence of the minority {prevalence}.")
    out.print(SENSITIVITY)


def _interval(metric: dict[str, Any]) -> str:
    if metric["low"] is None:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} ({metric['low']:.3f}–{metric['high']:.3f})"
