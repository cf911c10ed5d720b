"""One self-contained page on a run or a study, made from its folder alone.

Nothing here needs torch, a network or a server: images are inside the page, and its own content
security policy forbids it to ask for anything.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from matplotlib.figure import Figure

from conocc._version import __version__
from conocc.experiments.artifacts import EMBEDDED, Embedding, Gallery
from conocc.experiments.significance import compared
from conocc.experiments.table_formats import Table, mean
from conocc.experiments.tables import SENSITIVITY, grouped, make_tables, read_rows, tested_on
from conocc.io.files import read_csv, write_text
from conocc.metrics.ranking import METRICS
from conocc.thresholds.rules import summary
from conocc.visualization.figures import (
    Scored,
    case_strip,
    feature_maps,
    parameter_bars,
    png,
    precision_recall_curves,
    roc_curves,
    save_figure,
    score_histogram,
    sheet,
    svg,
    training_curves,
)
from conocc.visualization.html import rendered

# More curves than this in one figure cannot be told apart; a sweep has its bars instead.
MOST_CURVES = 14
# More parameters than this cannot be drawn as panels, groups and bars.
MOST_SWEPT = 3
# What of a cohort's part of the page are charts, not images.
CHARTS = ("curves", "maps", "sweep", "histograms", "training")
# A longer list of comparisons is folded.
MOST_LINES = 12
# Figures wider than this, in inches, scroll sideways on a phone.
WIDE = 5
# What the evaluation counts as left out, and a reader need not be told.
EXPECTED = {"trained on", "calibrated on"}
INTERVALS = "With 95 % intervals, by patient where patients are known."

T = TypeVar("T")
Context = dict[str, Any]


def write_report(folder: str | Path, *, figures: str | None = None) -> Path:
    """Write ``report.html`` into the folder of a run or a study, and return its path.

    Parameters
    ----------
    figures : str, optional
        A kind of file that matplotlib writes, such as ``"pdf"``. The page's charts, which show no
        pixels, are then also files of that kind, in the folder ``figures``.

    Raises
    ------
    FileNotFoundError
        If the folder is neither.
    ValueError
        If a file in it is damaged, or there is no such kind of file.
    """
    folder = Path(folder)
    if (folder / "rows").is_dir():
        page = _study_page(folder)
    elif (folder / "run.json").exists():
        page = _run_page(folder)
    else:
        raise FileNotFoundError(
            f"'{folder}' is neither a run nor a study: it has no run.json and no folder 'rows'."
        )
    if figures is not None:
        for name, figure in _charts(page["parts"]):
            save_figure(figure, folder / "figures" / f"{name}.{figures}")
    path = folder / "report.html"
    write_text(path, rendered("report.html", page))
    return path


def _charts(parts: Sequence[Context]) -> Iterator[tuple[str, Figure]]:
    """Name each chart, for a file, by what it shows and, of several cohorts, by its cohort."""
    for part in parts:
        before = f"{part['title']}-" if len(parts) > 1 else ""
        for kind in CHARTS:
            for chart in part[kind]:
                yield re.sub(r"[^\w.=-]+", "-", before + chart["name"]), chart["figure"]


# --- what there is -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Fit:
    """A fit: its row, and what its evaluation left in its folder; None is what is not there."""

    row: Mapping[str, Any]
    folder: Path

    @property
    def label(self) -> str:
        return str(self.row["label"])

    @property
    def part(self) -> str:
        """Which of the fits with this label it is."""
        if self.row["fold"] is not None:
            return f"fold {self.row['fold']}"
        return f"seed {self.row['seed']}"

    @cached_property
    def scored(self) -> Scored | None:
        """The test images' scores, with the threshold and the scores that it was set on."""
        table = self._read("scores.csv", _read_csv)
        if table is None:
            return None
        score = table["anomaly_score"].to_numpy(float)
        calibration = self._read("calibration.csv", _read_csv)
        return Scored(
            self.label,
            table["minority"].to_numpy(bool),
            score,
            self.measured.get("decision", self.measured).get("threshold"),
            None if calibration is None else calibration["anomaly_score"].to_numpy(float),
        )

    @cached_property
    def measured(self) -> dict[str, Any]:
        """What the evaluation found; nothing, if there was none."""
        return self._read("metrics.json", _read_json) or {}

    @property
    def history(self) -> pd.DataFrame | None:
        return self._read("history.csv", _read_csv)

    @property
    def split(self) -> pd.DataFrame | None:
        return self._read("split.csv", _read_csv)

    @property
    def gallery(self) -> Gallery | None:
        return self._read("gallery.npz", Gallery.load)

    @property
    def embedding(self) -> Embedding | None:
        return self._read("embedding.npz", Embedding.load)

    def _read(self, name: str, read: Callable[[Path], T]) -> T | None:
        try:
            return read(self.folder / name)
        except FileNotFoundError:
            return None


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return read_csv(path)
    except ValueError as error:
        raise ValueError(f"Cannot read '{path}': {error}.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Cannot read '{path}': {error}.") from error
    return value


# --- the two kinds of page ---------------------------------------------------------------------


def _study_page(folder: Path) -> Context:
    """Divide a study's rows into protocols, and these into cohorts."""
    rows = read_rows(folder)
    if not rows:
        raise ValueError(f"'{folder}' has no rows yet: nothing of it is done.")
    groups = grouped(rows)
    sure = {table.name: table for table in compared(folder, rows)}
    tables, parts, fits = [], [], []
    for table, of_group in zip(make_tables(rows), groups.values(), strict=True):
        tables.append(_table(table))
        further = (sure.get(f"{table.name}-{kind}") for kind in ("intervals", "comparisons"))
        tables += [_table(one) for one in further if one]
        named = [Fit(row, folder / row["run"]) for row in of_group]
        named.sort(key=partial(_place, columns=table.columns))
        fits += named
        for cohort in dict.fromkeys(fit.row["cohort"] for fit in named):
            title = cohort if len(groups) == 1 else f"{cohort}: {table.name}"
            parts.append(_part(title, [fit for fit in named if fit.row["cohort"] == cohort]))
    return _page("Study", folder, tables, parts, fits)


def _place(fit: Fit, columns: Sequence[str]) -> tuple[Any, ...]:
    """Order fits by cohort, then as the table orders its columns; seeds and folds ascend."""
    place = columns.index(fit.label) if fit.label in columns else len(columns)
    return fit.row["cohort"], place, fit.label, fit.row["fold"] or 0, fit.row["seed"] or 0


def _run_page(folder: Path) -> Context:
    """Take a run for a study of one fit."""
    about = _read_json(folder / "run.json")
    measured = _read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
    unfinished = None if about.get("finished") else "The fit is not finished."
    unmeasured = None if measured else "It has not been evaluated."
    error = unfinished or unmeasured
    row = {
        **dict.fromkeys(("metrics", "counts", "prevalence", "left_out", "fold")),
        **{key: about.get(key) for key in ("method", "params", "cohort", "seed", "seconds")},
        **{
            key: about.get(key)
            for key in ("notes", "versions", "threads", "preprocessing", "command")
        },
        **{key: measured[key] for key in measured if key not in ("versions", "command", "cohort")},
        "label": about["method"],
        "key": "run",
        "run": "",
        "status": "error" if error else "done",
        "error": error,
        "commands": [about.get("command"), measured.get("command")],
    }
    fit = Fit(row, folder)
    tables = [_run_table(row)] if row["metrics"] else []
    tested_on = measured.get("cohort", row["cohort"])
    title = row["cohort"] if tested_on == row["cohort"] else f"{row['cohort']}, tested: {tested_on}"
    return _page("Run", folder, tables, [_part(title, [fit])], [fit])


def _page(
    kind: str, folder: Path, tables: list[Context], parts: list[Context], fits: list[Fit]
) -> Context:
    for number, part in enumerate(parts):
        part["anchor"] = f"cohort-{number}"
    commands = [c for fit in fits for c in fit.row.get("commands", [fit.row.get("command")]) if c]
    return {
        "kind": kind,
        "name": folder.resolve().name,
        "commands": list(dict.fromkeys(commands)),
        "tables": tables,
        "parts": parts,
        "fits": [_fit_line(fit) for fit in fits],
        "metrics": list(METRICS),
        "errors": [{**fit.row, "part": fit.part} for fit in fits if fit.row["status"] != "done"],
        "settings": _settings(fits),
        "versions": _versions(fits),
        "version": __version__,
    }


def _table(table: Table) -> Context:
    """Turn a table of `conocc.experiments.tables` into cells that the page can sort."""
    return {
        "title": table.name.replace("-", ", "),
        "folded": len(table.lines) > MOST_LINES and table.name.endswith("-comparisons"),
        "caption": " ".join(table.caption),
        "ranked": table.ranked,
        "head": table.head,
        "columns": table.columns,
        "lines": [{"head": line.head, "cells": line.cells} for line in table.lines],
    }


def _run_table(row: Mapping[str, Any]) -> Context:
    """Give a run's metrics with their intervals, in the shape of `_table`."""
    lines, metrics = [], row["metrics"]
    for name, found in metrics.items():
        values = (found[key] for key in ("value", "low", "high"))
        cells = [None if value is None else mean(value) for value in values]
        lines.append({"head": (name,), "cells": cells})
    reasons = dict.fromkeys(m["reason"] for m in metrics.values() if m.get("reason"))
    return {
        "title": "",
        "folded": False,
        "caption": " ".join([INTERVALS, *tested_on([row]), SENSITIVITY, *reasons]),
        "ranked": False,
        "head": ("metric",),
        "columns": ("value", "low", "high"),
        "lines": lines,
    }


def _fit_line(fit: Fit) -> Context:
    """One line of the list of all fits."""
    embedding = fit.embedding
    return {
        **{key: fit.row[key] for key in ("label", "key", "cohort", "metrics", "seconds", "run")},
        "part": fit.part,
        "compactness": embedding.compactness() if embedding else None,
    }


def _settings(fits: Iterable[Fit]) -> dict[str, dict[str, str]]:
    """Give each method's parameters; where they differ between its fits, all values."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for fit in fits:
        of_method = found.setdefault(fit.row["method"], {})
        for name, value in fit.row["params"].items():
            of_method.setdefault(name, {})[json.dumps(value)] = None
    return {
        method: {name: " | ".join(values) for name, values in params.items()}
        for method, params in found.items()
    }


def _versions(fits: Iterable[Fit]) -> dict[str, str]:
    """Give the versions that the rows name, and how many threads trained."""
    found: dict[str, dict[str, None]] = {}
    for fit in fits:
        for name, value in (fit.row["versions"] or {}).items():
            found.setdefault(name, {})[str(value)] = None
        if fit.row.get("threads"):
            found.setdefault("threads", {})[str(fit.row["threads"])] = None
    return {name: ", ".join(values) for name, values in found.items()}


# --- one cohort --------------------------------------------------------------------------------


def _part(title: str, fits: Sequence[Fit]) -> Context:
    """All that is shown of one cohort under one protocol; the first fit of each label is drawn."""
    done = [fit for fit in fits if fit.row["status"] == "done"]
    firsts = list({fit.label: fit for fit in reversed(done)}.values())[::-1]
    if len(firsts) > MOST_CURVES:
        firsts = []
    return {
        "title": title,
        "about": _about(done or fits),
        "montage": _montage(done),
        "drawn": firsts[0].part if firsts and len(done) > 1 else "",
        "undrawn": bool(done) and not firsts,
        "curves": list(_curves(firsts)),
        "maps": list(_maps(firsts)),
        "sweep": list(_sweep(done)),
        "histograms": list(_histograms(firsts)),
        "training": list(_training(firsts)),
        "galleries": [found for fit in firsts if (found := _gallery(fit))],
    }


def _about(fits: Sequence[Fit]) -> Context:
    """Count the cohort by side and class; add its prevalence and what was noted of it."""
    first = next((fit for fit in fits if fit.split is not None), fits[0])
    split, row = first.split, first.row
    notes = list(row["notes"] or [])
    for reason, number in (row["left_out"] or {}).items():
        if number and reason not in EXPECTED:
            notes.append(f"Left out of the evaluation: {number} images, {reason}.")
    counts = []
    if split is not None:
        grouped = split.groupby(["split", "minority"], sort=False)
        for (side, minority), of_group in grouped:
            kind = "minority" if minority else "majority"
            labels = ", ".join(sorted(set(of_group["label"])))
            counts.append((side, kind, labels, len(of_group), of_group["patient"].nunique()))
    named = split is not None and not (split["patient"] == split["path"]).all()
    return {
        "notes": notes,
        "counts": counts,
        "patients": named,
        "part": first.part if row["fold"] is not None else "",
        "preprocessing": row["preprocessing"] or {},
        "prevalence": row["prevalence"],
    }


def _montage(fits: Sequence[Fit]) -> list[Context]:
    kept = next((found for fit in fits if (found := fit.gallery)), None)
    if kept is None:
        return []
    printable = []
    for minority, name in ((False, "majority"), (True, "minority")):
        chosen = kept.montage_minority == minority
        labels = ", ".join(sorted(set(kept.montage_label[chosen].tolist())))
        images = kept.montage[chosen]
        alt = f"{len(images)} test images of the {name} class: {labels}"
        printable.append({"src": _inline(png(sheet(images)), "png"), "alt": alt})
    return printable


def _curves(fits: Sequence[Fit]) -> Iterator[Context]:
    scored = [fit.scored for fit in fits if fit.scored is not None]
    if not scored:
        return
    names = ", ".join(one.label for one in scored)
    yield _figure("roc", roc_curves(scored), f"ROC curves of {names}")
    for minority, name in ((True, "minority"), (False, "majority")):
        curves = precision_recall_curves(scored, minority=minority)
        alt = f"Precision–recall curves of finding the {name} class: {names}"
        yield _figure(f"precision-recall-{name}", curves, alt)


def _maps(fits: Sequence[Fit]) -> Iterator[Context]:
    found = [(fit.label, embedding) for fit in fits if (embedding := fit.embedding)]
    if found:
        said = (f"{label} {c:.3f}" for label, e in found if (c := e.compactness()) is not None)
        alt = f"t-SNE maps of training features; compactness {', '.join(said) or 'unknown'}"
        yield _figure("features", feature_maps(found), alt, _caption_of_maps([e for _, e in found]))


def _caption_of_maps(embeddings: Sequence[Embedding]) -> str:
    largest = int(max(e.images.max() for e in embeddings))
    cap = f" At most {EMBEDDED} images of each group, drawn with a seed." * (largest > EMBEDDED)
    return (
        "t-SNE of the training images' bottleneck features. The center μ is embedded along with "
        "them; methods without one show the mean feature. Sizes and distances do not compare "
        "between maps. Compactness does, whatever the scale of the features: the mean distance of "
        "majority test images to the center, divided by the mean distance between random pairs of "
        f"a majority and a minority test image; less is more compact.{cap}"
    )


def _sweep(fits: Sequence[Fit]) -> Iterator[Context]:
    """Draw Fig. 5 for the method of which most parameter values were tried."""
    rows = [fit.row for fit in fits if fit.row.get("protocol") == "sweep"]
    seed = min((row["seed"] for row in rows), default=0)
    by_method: dict[str, list[tuple[Mapping[str, Any], float]]] = {}
    for row in rows:
        if row["seed"] == seed:
            cell = row["params"], row["metrics"]["AUC"]["value"]
            by_method.setdefault(row["method"], []).append(cell)
    if not by_method:
        return
    method, *others = sorted(by_method, key=lambda name: -len(by_method[name]))
    names = _swept([params for params, _ in by_method[method]])
    if not 1 <= len(names) <= MOST_SWEPT:
        return
    other = others[0] if others else ""
    figure = parameter_bars(
        by_method[method], names, levels=by_method.get(other, []), level_name=other
    )
    beside = f" and the level of {other}" if other else ""
    caption = f"One fit each, with seed {seed}; a fit that failed leaves its place empty."
    alt = f"AUC of {method} over {', '.join(names)}{beside}"
    yield _figure("parameters", figure, alt, caption)


def _swept(params: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the parameters that differ, those with the fewest values first."""
    values = {name: {json.dumps(p.get(name)) for p in params} for name in params[0]}
    differing = [name for name in values if len(values[name]) > 1 and name != "random_state"]
    return sorted(differing, key=lambda name: len(values[name]))


def _histograms(fits: Sequence[Fit]) -> Iterator[Context]:
    for fit in fits:
        if fit.scored is not None:
            alt = f"Scores of both classes by {fit.label}"
            figure = score_histogram(fit.scored)
            yield _figure(f"scores-{fit.label}", figure, alt, " ".join(summary(fit.measured)))


def _training(fits: Sequence[Fit]) -> Iterator[Context]:
    for fit in fits:
        history = fit.history
        if history is not None and (curves := training_curves(history, fit.label)):
            alt = f"Losses over the epochs of {fit.label}"
            yield _figure(f"training-{fit.label}", curves, alt)


def _gallery(fit: Fit) -> Context | None:
    kept = fit.gallery
    if kept is None:
        return None
    cases = [
        {
            "src": _inline(png(case_strip(kept, i)), "png"),
            "path": str(kept.path[i]),
            "score": float(kept.anomaly_score[i]),
            "minority": bool(kept.minority[i]),
        }
        for i in range(len(kept.path))
    ]
    return {
        "label": fit.label,
        "key": fit.row["key"],
        "reconstructed": len(kept.reconstruction) > 0,
        "scale": kept.scale().as_json() if len(kept.reconstruction) else None,
        "groups": [
            ("Majority images scored highest", [c for c in cases if not c["minority"]]),
            ("Minority images scored lowest", [c for c in cases if c["minority"]]),
        ],
    }


# --- the page ----------------------------------------------------------------------------------


def _figure(name: str, figure: Figure, alt: str, caption: str = "") -> Context:
    return {
        "name": name,
        "figure": figure,
        "src": _inline(svg(figure), "svg+xml"),
        "alt": alt,
        "caption": caption,
        "wide": figure.get_size_inches()[0] > WIDE,
    }


def _inline(image: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
