"""Cohorts at the command line: what is in one, patches out of one, and the cache of all."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from rich.table import Table

from conocc.cli import options as ask
from conocc.cli.application import data_app, out, say_all, say_failed, show, write_unreadable
from conocc.data.patches import Rules
from conocc.data.preprocessing import Preprocessing
from conocc.io.files import atomic_write
from conocc.io.words import count


@data_app.command
def inspect(
    cohort: ask.CohortArgument,
    /,
    *,
    read: ask.CohortOptions = ask.CohortOptions(),
    keep: ask.Keep = None,
    threads: ask.Threads = None,
    picture: Annotated[
        Path | None, ask.option("Draw a montage of some images into this file.", "--montage")
    ] = None,
    quiet: ask.Quiet = False,
) -> int:
    """Show a cohort's classes, counts, patients, split and leaks, and draw a montage if asked.

    What cannot be read is listed in NAME-unreadable.csv, beside the montage or here; the exit code
    is then 3.
    """
    where = Path(cohort).resolve()
    if picture is not None and where.is_dir() and picture.resolve().is_relative_to(where):
        raise ValueError(
            f"The montage '{picture}' would lie in the cohort '{cohort}', among its images. "
            "Choose another --montage. Nothing was written."
        )
    from conocc.data.decoding import SizesDifferError

    if picture is not None:
        from conocc.visualization.drawing import refuse_picture  # not before: it takes a second

        refuse_picture(picture, "--montage")
    spec, sizes = replace(read.spec(cohort), skip_unreadable=True), list[str]()
    try:
        loaded = spec.load(n_jobs=threads, verbose=int(not quiet))
    except SizesDifferError as error:  # to look at them, any size will do
        sizes, reading = [error.said], replace(spec.preprocessing, size=64)
        loaded = replace(spec, preprocessing=reading).load(n_jobs=threads, verbose=int(not quiet))
    if picture is not None and loaded.images.ndim == 2:
        raise ValueError(f"'{cohort}' holds features, which no --montage can draw.")
    say_all([*loaded.notes, *sizes], "• ")
    counts = loaded.counts()
    table = Table(*counts)
    for row in counts.itertuples(index=False):
        table.add_row(*(str(value) for value in row))
    show(table)
    errors = [*loaded.unreadable, *loaded.no_images]
    listed = (picture or Path("x")).with_name(f"{Path(loaded.name).name}-unreadable.csv")
    if errors:  # before the montage, since an error says that nothing was written
        write_unreadable(listed, errors, "folder (--montage)")
    if picture is not None:
        from conocc.visualization.drawing import save_figure
        from conocc.visualization.images import montage

        save_figure(montage(loaded), picture)
        out.print(f"Montage: {escape(str(picture))}")
    out.print("Next: 'conocc fit' with these options, --method lrt and --out RUN.")
    return say_failed(errors, listed, "read")


@data_app.command
def patches(
    images: Annotated[Path, ask.option("A folder of images.")],
    /,
    *,
    folder: Annotated[Path, ask.option("A new folder for the patches.", "--out")],
    boxes: Annotated[
        Path | None, ask.option("Table path,x,y,width,height[,label][,patient] in pixels.")
    ] = None,
    masks: Annotated[Path | None, ask.option("Folder of masks, named as the images.")] = None,
    table: ask.BoxTableGroup = ask.ASKED.table,
    rules: ask.PatchOptions = Rules(),
    how: ask.AxisOptions = Preprocessing(),
    asked: ask.PatientOptions = ask.ASKED,
    threads: ask.Threads = None,
    quiet: ask.Quiet = False,
) -> int:
    """Cut square patches around boxes or the parts of masks, ready for 'fit'.

    Where a patch cannot be cut, errors.csv in the folder says why; the exit code is then 3.
    """
    from conocc.data.decoding import usable_threads
    from conocc.data.patches import cut_patches

    made = cut_patches(
        images,
        folder,
        boxes=boxes,
        masks=masks,
        table=table,
        rules=rules,
        axis=how.axis,
        patient_regex=asked.patient_regex,
        n_jobs=usable_threads(threads),
        verbose=int(not quiet),
    )
    say_all(made.notes, "• ")
    counts = ", ".join(f"{number} {label}" for label, number in made.counts.items())
    out.print(f"Cut {escape(counts)}: {escape(str(folder))}")
    return say_failed(made.errors, folder / "errors.csv", "cut")


@data_app.command(name="cache")
def list_cache(
    *,
    folder: Annotated[Path | None, ask.option("Another folder than the user's.", "--cache")] = None,
    clear: Annotated[bool, ask.option("Remove what it holds.")] = False,
) -> None:
    """List the decoded images that are kept, or remove them."""
    from conocc.data import cache

    where, notes = cache.cache_folder(str(folder) if folder else True)
    if where is None:
        raise ValueError(notes[0])
    if clear:
        out.print(f"{count(cache.clear(where), 'set')} of images removed: {escape(str(where))}")
        return
    table = Table("images", "shape", "MB")
    found = cache.entries(where)
    for entry in found:
        shape = "×".join(map(str, entry.shape))
        table.add_row(str(entry.images), shape, f"{entry.megabytes:,.1f}")
    show(table)
    total = sum(entry.megabytes for entry in found)
    out.print(f"{count(len(found), 'set')} of images, {total:,.1f} MB: {escape(str(where))}")


@data_app.command(name="reveal")
def reveal_names(
    texts: Annotated[list[str], ask.option("Tables, or paths and names with pseudonyms.")],
    /,
    *,
    to: Annotated[
        Path | None, ask.option("A new file for them, which only you may read.", "--out")
    ] = None,
) -> None:
    """Show which files and folders pseudonyms stand for, in tables, paths or messages.

    Only you can: the names are kept beside your key. What is shown may name patients.
    """
    from conocc.data.pseudonyms import reveal

    shown = []
    for text in texts:
        if not Path(text).is_file():
            shown.append(reveal(text))
            continue
        with Path(text).open(encoding="utf-8", newline="") as file:
            rows = [[reveal(cell) for cell in row] for row in csv.reader(file)]
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(rows)
        shown.append(table.getvalue().rstrip("\n"))
    if to is None:
        say_all(shown)
        return
    if to.exists():
        raise FileExistsError(f"'{to}' exists, and is not replaced. Give another name (--out).")
    with atomic_write(to, mode=0o600) as temporary:
        temporary.write_text("\n".join(shown) + "\n", encoding="utf-8")
    out.print(f"Revealed: {escape(str(to))}")
