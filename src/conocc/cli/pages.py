"""Pictures and pages at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from conocc.cli.application import app, out
from conocc.cli.options import (
    Cache,
    Jobs,
    NoCache,
    Quiet,
    read_cohort_as,
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
    from conocc.experiments.artifacts import Embedding
    from conocc.visualization.figures.drawing import save_figure
    from conocc.visualization.figures.features import feature_maps

    cohort = None if (Path(runs[-1]) / "run.json").exists() else runs.pop()
    if not runs:
        raise ValueError(f"'{cohort}' is not a run: it has no run.json.")
    if cohort is not None:
        from conocc.experiments.run import embed_run

        for run in runs:
            embed_run(run, read_cohort_as(run, cohort, cache, no_cache, jobs, quiet))
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
    figures: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Also write the charts, without images, as files: pdf, svg, png.",
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML page on a study or a run, into its folder."""
    from conocc.visualization.report import write_report

    out.print(escape(str(write_report(folder, figures=figures))))
    if figures is not None:
        out.print(f"Figures: {escape(str(folder / 'figures'))}")


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
