"""What several commands take, and what they do with it."""

from __future__ import annotations

import ast
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from conocc.cli.application import out

if TYPE_CHECKING:
    from conocc.data.cohort import Cohort

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
Axis = Annotated[
    str, typer.Option("--axis", help="Slices of NIfTI volumes: axial, coronal or sagittal.")
]
Scaled = Annotated[
    bool,
    typer.Option(
        "--scaled/--full", help="Decode JPEGs several times as large as needed at a fraction."
    ),
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
Workers = Annotated[
    int, typer.Option("--jobs", help="Processes at a time on this machine; they divide its cores.")
]
Engine = Annotated[str, typer.Option(help="'processes' of this machine, or 'dask'.")]
Address = Annotated[
    str | None, typer.Option(help="Of Dask's scheduler, tcp://HOST:PORT.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
FalseAlarms = Annotated[
    float | None,
    typer.Option(
        "--false-alarms",
        metavar="RATE",
        help="Flag at most this share of new majority images; needs calibration.",
        show_default=False,
    ),
]
Confidence = Annotated[
    float, typer.Option("--confidence", help="Certainty with which --false-alarms is kept.")
]
Unit = Annotated[
    str, typer.Option("--unit", help="Of promise and p-values: 'image', or 'patient'.")
]
Fdr = Annotated[
    float | None,
    typer.Option(
        "--fdr",
        metavar="RATE",
        help="Instead: at most this share of the images flagged in a batch is majority.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda.")]


def read_cohort_as(
    run: str | Path,
    where: str,
    cache: Path | None,
    no_cache: bool,
    jobs: int | None,
    quiet: bool,
    majority: list[str] | None = None,
    patient_regex: str | None = None,
) -> Cohort:
    """Load a cohort as a run's own was read."""
    from conocc.data.load import CohortSpec
    from conocc.data.preprocessing import Preprocessing
    from conocc.experiments.run import load_model, read_run

    noted = read_run(Path(run))["loading"]
    own = CohortSpec.from_dict(noted) if noted else CohortSpec(where)
    spec = CohortSpec(
        where,
        Preprocessing.from_dict(load_model(run).preprocessing_),
        majority=tuple(majority) if majority else own.majority,
        patient_regex=patient_regex or own.patient_regex,
        pseudonyms=own.pseudonyms,
        cache=kept_in(cache, no_cache),
    )
    return spec.load(n_jobs=jobs, verbose=0 if quiet else 1)


def kept_in(cache: Path | None, no_cache: bool) -> bool | str:
    """Say where decoded images are kept, as `CohortSpec` takes it."""
    return False if no_cache else str(cache) if cache else True


def setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; the value is a Python literal, or else a word."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--set takes NAME=VALUE; got {text!r}.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def metrics_table(title: str) -> Table:
    """Head a table with a column for each metric."""
    from conocc.metrics.ranking import METRICS

    table = Table("method", title=escape(title))
    for name in METRICS:
        table.add_column(name, justify="right")
    return table


def add_metrics(table: Table, method: str, result: dict[str, Any]) -> None:
    """Add the row of what `evaluate_run` returned."""
    table.add_row(method, *(_interval(metric) for metric in result["metrics"].values()))


def print_tested(result: dict[str, Any]) -> None:
    """Say of what images the metrics are, and what the name of one of them leaves out."""
    from conocc.experiments.tables import SENSITIVITY

    counts = result["counts"]
    known = f" of {counts['patients']} patients" if counts["patients"] else ""
    out.print(
        f"{counts['majority']} majority and {counts['minority']} minority test images{known}; "
        f"prevalence of the minority {result['prevalence']:.3f}, the chance level of AUPR-min."
    )
    out.print(SENSITIVITY)


def _interval(metric: dict[str, Any]) -> str:
    if metric["low"] is None:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} ({metric['low']:.3f}–{metric['high']:.3f})"


def command_line() -> str:
    """Say what was typed, as a shell would take it again.

    Raises
    ------
    ValueError
        If a name in it is not valid Unicode, so that no file could note it.
    """
    for word in sys.argv[1:]:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"'{word}' is not valid Unicode, so that no file could note it. Rename it."
            ) from None
    return shlex.join(["conocc", *sys.argv[1:]])
