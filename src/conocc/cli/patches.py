"""Patches at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from conocc.cli.application import SOME_FAILED, data_app, err, out
from conocc.cli.options import Axis, Jobs, PatientRegex, Quiet


@data_app.command("patches")
def patches(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder of images.")],
    folder: Annotated[Path, typer.Option("--out", help="A new folder for the patches.")],
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Table path,x,y,width,height[,label][,patient] in pixels.", show_default=False
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of masks, named as the images.", show_default=False),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Side in pixels that patches are resized to.", show_default=False),
    ] = None,
    margin: Annotated[int, typer.Option(help="Pixels around a box.")] = 0,
    outside: Annotated[
        bool, typer.Option("--outside", help="Cut as many patches of tissue outside the boxes.")
    ] = False,
    tissue: Annotated[
        float, typer.Option(help="Least share of tissue in a patch outside (Otsu's threshold).")
    ] = 0.5,
    min_area: Annotated[int, typer.Option(help="Least pixels of a part of a mask.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the patches outside.")] = 0,
    axis: Axis = "axial",
    patient_regex: PatientRegex = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Cut square patches around boxes or the parts of masks, ready for 'fit'.

    Where a patch cannot be cut, errors.csv in the folder says why; the exit code is then 3.
    """
    from conocc.data.decoding import usable_threads
    from conocc.data.patches import Rules, cut_patches

    made = cut_patches(
        images,
        folder,
        boxes=boxes,
        masks=masks,
        rules=Rules(size, margin, outside, tissue, min_area, seed),
        axis=axis,
        patient_regex=patient_regex,
        jobs=usable_threads(jobs),
        verbose=0 if quiet else 1,
    )
    for note in made.notes:
        out.print(f"• {escape(note)}")
    counts = ", ".join(f"{number} {label}" for label, number in made.counts.items())
    out.print(f"Cut {escape(counts)}: {escape(str(folder))}")
    if made.errors:
        for _, reason in made.errors[:5]:
            err.print(escape(reason))
        listed = escape(str(folder / "errors.csv"))
        err.print(f"{len(made.errors)} could not be cut; all are in {listed}")
        raise typer.Exit(SOME_FAILED)
