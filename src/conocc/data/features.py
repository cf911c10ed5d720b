"""Cohorts of features: a table of numbers with a row an image, as other programs write it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from conocc.data.columns import TableOptions, claim, is_called, is_near, is_nobody, refuse_options
from conocc.data.index import ImageEntry, ImageIndex, count, printable, side, some
from conocc.data.manifest import is_manifest
from conocc.io.user_tables import read_table


def is_features(where: Path) -> bool:
    """Say whether `where` is a table whose name ends in 'features', as features.csv does."""
    return is_manifest(where) and where.stem.lower().endswith("features")


_TOLD = ("label", "split", "patient")  # what is no feature, but told of the image


def list_features(
    where: Path, table: TableOptions = TableOptions(), *, labelled: bool = True
) -> ImageIndex:
    """List the rows of a table ``[path][,label][,split][,patient]`` and features.

    Each other column that holds a number anywhere is a feature, in the order of their names; those
    that hold words alone are not used. Without labels all are one class, called as the table.
    Unless they are to be `labelled`, columns of a class, a side or a patient are passed over.

    Raises
    ------
    ValueError
        If a feature of a row is no finite number, or there is none, or a patient is empty.
    """
    name = f"'{printable(where.name)}'"
    refuse_options(name, table, ("root", "patients", "suffix", "one_hot"), "a table of features")
    columns, rows = read_table(where)
    if not labelled:
        columns = [c for c in columns if not any(is_called(c, m) or is_near(c, m) for m in _TOLD)]
    claimed = claim(name, columns, (), ("path", *_TOLD), table)
    others = [column for column in columns if column not in claimed.values()]
    features = sorted(one for one in others if any(_is_number(row[one]) for _, row in rows))
    if not features:
        raise ValueError(f"{name} has no column of numbers, where each is a feature of an image.")
    for one in features:
        if means := next((word for word in _TOLD if is_near(one, word)), ""):
            raise ValueError(
                f"{name} has the column '{printable(one)}', which reads as if it were '{means}', "
                f"and would be a feature. Drop it, or rename it."
            )
    values = np.empty((len(rows), len(features)), np.float32)
    entries = []
    for i, (line, row) in enumerate(rows):
        known = {meaning: row[column] for meaning, column in claimed.items()}
        numbers = [_number(row[feature]) for feature in features]
        if None in numbers:
            feature = features[numbers.index(None)]
            raise ValueError(
                f"{name}, line {line}: the feature '{printable(feature)}' is {row[feature]!r}, and "
                "no finite number with a decimal point. Fill it in, or drop row or column."
            )
        values[i] = numbers
        if not known.get("label", "one") or is_nobody(known.get("patient", "one")):
            raise ValueError(f"{name}, line {line}: the label or the patient is empty.")
        part = side(known["split"], f"{name}, line {line}") if "split" in known else None
        label, patient = known.get("label", where.stem), known.get("patient")
        entries.append(ImageEntry(f"row {line}", label, part, patient, known.get("path")))
    unused = [printable(column) for column in others if column not in features]
    more = f" and {len(features) - 10} more" if len(features) > 10 else ""
    named = ", ".join(map(printable, features[:10])) + more
    said = [f"{count(len(features), 'feature')} an image: {named}."]
    if unused:
        said.append(f"Columns of {name} that are no numbers, and not used: {', '.join(unused)}.")
    return ImageIndex(
        layout="a table of features",
        name=where.stem,
        entries=tuple(entries),
        fetch=lambda rows: (partial(values.__getitem__, row) for row in rows),
        notes=tuple(said),
        features=tuple(features),
    )


def check_features(index: ImageIndex, known: Sequence[str]) -> None:
    """Refuse a table of other features than the `known` ones, if both have names.

    The order of its columns does not matter.
    """
    lacking, others = (
        [*set(a) - {*b}] for a, b in ((known, index.features), (index.features, known))
    )
    if known and index.features and (lacking or others):
        raise ValueError(
            f"'{printable(index.name)}' has other features than the model was trained on: it lacks "
            f"{_named(lacking)}, and has besides {_named(others)}. Rename or drop columns."
        )


def _named(features: Sequence[str]) -> str:
    return some(sorted(features), "feature") if features else "none"


def _is_number(text: str) -> bool:
    """Say whether a number is meant, though it may have a decimal comma."""
    return _number(text.replace(",", ".")) is not None


def _number(text: str) -> float | None:
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    return None
