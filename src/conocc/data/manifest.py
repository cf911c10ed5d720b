"""A cohort in a table of the user: a line an image, with its class, and what else is known."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from conocc.data.image_io.stack import volume_and_slice
from conocc.data.index import ImageEntry, ImageIndex, count, of_files, printable, side
from conocc.io.user_tables import TABLE_SUFFIXES, read_table

MANIFEST_COLUMNS = ("path", "label", "split", "patient")


def is_manifest(where: Path) -> bool:
    """Say whether `where` is a file whose suffix is that of a table."""
    return where.is_file() and where.suffix.lower() in TABLE_SUFFIXES


def list_manifest(where: Path) -> ImageIndex:
    """List a CSV file ``path,label[,split][,patient]``, its paths relative to its folder.

    A path may be that of one slice of a volume, ``volume.nii.gz[12]``.
    """
    name = printable(where.name)
    columns, rows = read_table(where)
    if not {"path", "label"} <= set(columns):
        raise ValueError(
            f"'{name}' must have the columns path and label, and may have split and patient. "
            f"It has {', '.join(map(printable, columns))}."
        )
    if not rows:
        raise ValueError(f"'{name}' lists no images.")
    entries: list[ImageEntry] = []
    first_line: dict[str, int] = {}
    for line, row in rows:
        at = f"'{name}', line {line}"
        entry = _manifest_entry(row, at)
        if entry.path in first_line:
            known = first_line[entry.path]
            raise ValueError(f"{at}: '{printable(entry.path)}' is listed in line {known} already.")
        first_line[entry.path] = line
        entries.append(entry)
    missing = [
        path
        for path in first_line
        if not any((where.parent / file).is_file() for file in (path, volume_and_slice(path)[0]))
    ]
    if missing:
        raise ValueError(
            f"'{name}', line {first_line[missing[0]]}: there is no file '{printable(missing[0])}' "
            f"({len(missing)} of {count(len(rows), 'file')} missing)."
        )
    unknown = [column for column in columns if column not in MANIFEST_COLUMNS]
    notes = (
        [f"Columns of '{name}' not used: {', '.join(map(printable, unknown))}."] if unknown else []
    )
    return of_files("a manifest", where.parent, entries, name=where.stem, notes=notes)


def _manifest_entry(row: dict[str, str], at: str) -> ImageEntry:
    path = PurePosixPath(row["path"])
    if not row["path"]:
        raise ValueError(f"{at}: the path is empty.")
    # What is absolute on this system need not begin with a slash.
    if path.is_absolute() or Path(path).anchor or ".." in path.parts:
        raise ValueError(
            f"{at}: '{printable(path)}' leaves the manifest's folder; paths are relative to it."
        )
    for column in ("label", "patient"):
        if not row.get(column, "-"):
            raise ValueError(f"{at}: the {column} of '{printable(path)}' is empty.")
    split = side(row["split"], at) if "split" in row else None
    return ImageEntry(path.as_posix(), row["label"], split, row.get("patient"))
