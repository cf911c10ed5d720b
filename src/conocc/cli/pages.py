"""Pages, pictures and graphs of runs and studies at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape
from rich.table import Table

from conocc.cli import options as ask
from conocc.cli.application import app, out, say_all, say_failed, show
from conocc.io.words import count
from conocc.thresholds.rule import RULE


@app.command
def embed(
    runs: Annotated[list[str], ask.option("Evaluated runs; or runs and, last, their cohort.")],
    /,
    *,
    picture: Annotated[Path, ask.option("The figure: .png, .svg or .pdf.", "--out")],
    read: ask.ReadAsOptions = ask.ReadAsOptions(),
    quiet: ask.Quiet = False,
) -> None:
    """Map the training images' bottleneck features by t-SNE, one map a run: Fig. 6.

    The features are those that 'evaluate' kept; with a cohort they are made anew.
    """
    from conocc.experiments.artifacts import Embedding
    from conocc.visualization.charts import feature_maps
    from conocc.visualization.drawing import refuse_picture, save_figure

    refuse_picture(picture)
    if len(runs) > 1 and not (Path(runs[-1]) / "run.json").exists():
        from conocc.experiments.run import embed_run

        *runs, cohort = runs
        for run in runs:
            embed_run(run, read.load(run, cohort, quiet=quiet))
    labels = _run_labels(runs)
    files = [Path(run) / "embedding.npz" for run in runs]
    for file in files:
        if not file.exists():
            raise ValueError(
                f"'{file.parent}' has no embedding.npz: it was not evaluated, or its method has "
                "no bottleneck features."
            )
    embeddings = [(label, Embedding.load(f)) for label, f in zip(labels, files, strict=True)]
    save_figure(feature_maps(embeddings), picture)
    table = Table("run", "compactness")
    for name, embedding in embeddings:
        compactness = embedding.compactness()
        table.add_row(escape(name), "–" if compactness is None else f"{compactness:.3f}")
    show(table)
    out.print(f"Figure: {escape(str(picture))}")


def _run_labels(runs: list[str]) -> list[str]:
    """Name runs by their methods; those of one method by their folders too."""
    from conocc.experiments.run import read_run

    methods = [read_run(Path(run))["method"] for run in runs]
    return [
        method if methods.count(method) == 1 else f"{method} ({Path(run).resolve().name[:12]})"
        for method, run in zip(methods, runs, strict=True)
    ]


@app.command
def report(
    folder: Annotated[Path, ask.option("A folder that a study or 'fit' made.")],
    /,
    *,
    to: Annotated[Path | None, ask.option("Another folder for the page.", "--out")] = None,
    figures: Annotated[
        str | None, ask.option("Also write the charts, without images, as files: pdf, svg, png.")
    ] = None,
    quiet: ask.Quiet = False,
) -> None:
    """Write one self-contained HTML page on a study or a run, into its folder or another one."""
    from conocc.visualization.report import write_report

    page = write_report(folder, out=to, figures=figures)
    out.print(escape(str(page)))
    if figures is not None:
        out.print(f"Figures: {escape(str(page.parent / 'figures'))}")


@app.command
def card(
    run: ask.RunArgument,
    /,
    *,
    to: Annotated[Path | None, ask.option("Another folder for the card.", "--out")] = None,
    quiet: ask.Quiet = False,
) -> None:
    """Write a model card of a run, in Markdown and HTML, into its folder or another one.

    It says what the model is for, what it learned from, what it finds, what its threshold promises,
    and its limits; it holds no pixels and no name of a patient or an image.
    """
    from conocc.visualization.card import write_card

    for page in write_card(run, out=to):
        out.print(escape(str(page)))


@app.command
def explain(
    run: ask.RunArgument,
    images: ask.ImagesArgument,
    /,
    *,
    folder: Annotated[Path, ask.option("Folder for the pictures.", "--out")],
    table: ask.ListGroup = ask.ASKED.table,
    score: ask.Score = None,
    keep: ask.Keep = None,
    threads: ask.Threads = None,
    quiet: ask.Quiet = False,
) -> int:
    """Show what in each image is unusual to a method, on one scale for all.

    Files that cannot be read are listed in errors.csv in the folder; the exit code is then 3.
    """
    from conocc.visualization.explain import explain_files

    how: dict[str, Any] = {"table": table, "score": score}
    done = explain_files(run, images, folder, **how, n_jobs=threads, verbose=int(not quiet))
    say_all(done.words)
    out.print(f"Explained {count(done.count, 'image')}: {escape(str(done.page))}")
    return say_failed(done.errors, folder / "errors.csv", "read")


@app.command
def review(
    run: ask.RunArgument,
    images: ask.ImagesArgument,
    /,
    *,
    folder: Annotated[Path, ask.option("Folder for the page and its pictures.", "--out")],
    table: ask.ListGroup = ask.ASKED.table,
    rule: ask.RuleOptions = RULE,
    score: ask.Score = None,
    served: Annotated[
        bool,
        ask.option(
            "Serve the page on this machine, to several readers, with images to come.", "--serve"
        ),
    ] = False,
    keep: ask.Keep = None,
    threads: ask.Threads = None,
    quiet: ask.Quiet = False,
) -> int:
    """Make a page to go through images on, the most unusual first, and to give verdicts by key.

    It opens from disk and shows each image at its own resolution, with a heat map where the method
    makes one. The browser keeps the verdicts; what it exports 'evaluate' and 'calibrate' read.
    Files that cannot be read are listed in errors.csv in the folder; the exit code is then 3.
    With --serve the page is at an address of this machine until Ctrl-C: it shows images that are
    added later, or dropped onto it, and keeps verdicts, with who and when, in verdicts.db beside
    the run.
    """
    from conocc.visualization.review import Batch

    if served:
        try:
            from conocc.visualization.serve import serve
        except ImportError as error:
            raise ValueError("--serve needs two packages: pip install 'conocc[serve]'.") from error
    batch = Batch(run, images, folder, table=table, rule=rule, score=score)
    if served:
        serve(batch, announce=out.print)
        return 0
    done = batch.made(n_jobs=threads, verbose=int(not quiet))
    say_all(done.words)
    out.print(f"To be reviewed: {escape(str(done.page))}")
    return say_failed(done.errors, folder / "errors.csv", "read")


@app.command
def export(
    run: ask.RunArgument,
    /,
    *,
    model: Annotated[Path, ask.option("The ONNX file, or bundle, to write.", "--out")],
    check: Annotated[
        list[Path] | None,
        ask.option("Images to compare with PyTorch on, instead of phantoms; may be repeated."),
    ] = None,
    score: ask.Score = None,
    resize: Annotated[
        bool, ask.option("Have the graph take images of any size, and resize them as 'fit' did.")
    ] = False,
    bundle: Annotated[
        bool, ask.option("Write a folder, a MONAI bundle, around a graph that resizes.")
    ] = False,
    threads: ask.Threads = None,
    quiet: ask.Quiet = False,
) -> None:
    """Write a run as one ONNX graph, checked against PyTorch.

    Its input are images as decoded and, but for --resize, resized; its outputs scores and, where
    the method reconstructs, residuals. Its metadata hold threshold, calibration, and how files are
    read and resized.
    """
    from conocc.deploy.onnx import export_run

    if bundle:
        from conocc.deploy.bundle import export_bundle

        parity = export_bundle(run, model, check or (), score=score, n_jobs=threads)
    else:
        parity = export_run(run, model, check or (), score=score, resize=resize, n_jobs=threads)
    out.print(escape(parity.words()))
    out.print(f"Exported: {escape(str(model))}")


@app.command(name="log")
def log_after(
    run: ask.RunArgument,
    /,
    *,
    to: Annotated[str, ask.option("Where to: mlflow, as its MLFLOW_TRACKING_URI says.")] = "mlflow",
    experiment: Annotated[str, ask.option("What the experiment is called there.")] = "conocc",
) -> None:
    """Log a finished run's parameters, metrics and history to MLflow, and no name of a patient."""
    from conocc.deploy.mlflow import log_run

    if to != "mlflow":
        raise ValueError(f"--to must be 'mlflow'. Got {to!r} instead.")
    out.print(f"Logged to MLflow, as run {log_run(run, experiment)}.")
