"""What a run makes of images, and a run without Python, at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from conocc.cli.application import SOME_FAILED, app, err, out
from conocc.cli.options import Jobs, Quiet, RunArgument


@app.command()
def explain(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES…", help="Files or folders.")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the pictures.")],
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Show where images differ from what a method makes of them, on one scale for all.

    Files that cannot be read are listed in errors.csv in the folder; the exit code is then 3.
    """
    from conocc.visualization.explain import explain_files

    done = explain_files(run, images, folder, jobs=jobs, verbose=0 if quiet else 1)
    for sentence in done.legend:
        out.print(escape(sentence))
    out.print(f"Explained {done.count} images: {escape(str(done.page))}")
    if done.errors:
        for path, reason in done.errors[:5]:
            err.print(f"{escape(path)}: {escape(reason)}")
        listed = escape(str(folder / "errors.csv"))
        err.print(f"{len(done.errors)} could not be read; all are in {listed}")
        raise typer.Exit(SOME_FAILED)


@app.command()
def export(
    run: RunArgument,
    model: Annotated[Path, typer.Option("--out", metavar="FILE", help="The ONNX file to write.")],
    check: Annotated[
        list[Path] | None,
        typer.Option(
            "--check",
            metavar="IMAGES",
            help="Images to compare with PyTorch on; may be given more than once.",
            show_default="drawn phantoms",
        ),
    ] = None,
    jobs: Jobs = None,
) -> None:
    """Write a run as one ONNX graph, checked against PyTorch.

    Its input are images as decoded and resized, its outputs scores and, where the method
    reconstructs, residuals. Its metadata hold threshold, calibration and how files are read.
    """
    from conocc.deploy.onnx import export_run

    parity = export_run(run, model, check or (), jobs=jobs)
    out.print(escape(parity.words()))
    out.print(f"Exported: {escape(str(model))}")
