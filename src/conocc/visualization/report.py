"""One self-contained page on a run or a study, made from its folder alone.

Nothing here needs torch, a network or a server: images are inside the page, and its own content
security policy forbids it to ask for anything.
"""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
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
from conocc.experiments.table_formats import Line, Table, mean
from conocc.experiments.tables import caption, grouped, make_tables, read_rows
from conocc.io.files import claim, refuse_foreign, write_text
from conocc.io.tables import read_csv
from conocc.metrics.ranking import METRICS
from conocc.thresholds.rules import summary
from conocc.visualization.figures.curves import (
    Scored,
    precision_recall_curves,
    roc_curves,
    score_histogram,
    training_curves,
)
from conocc.visualization.figures.drawing import check_kind, save_figure, svg
from conocc.visualization.figures.features import MAPPED, feature_maps
from conocc.visualization.figures.pictures import case_strip, png, sheet
from conocc.visualization.figures.sweeps import parameter_bars
from conocc.visualization.html import rendered

COMMAND, PAGE = "report", "report.html"
# More curves than this in one figure cannot be told apart; a sweep has its bars instead.
MOST_CURVES = 14
# More parameters than this cannot be drawn as panels, groups and bars.
MOST_SWEPT = 3
# A longer list of comparisons is folded.
MOST_COMPARISONS = 12
# What of a cohort's part of the page are charts, not images.
CHARTS = ("curves", "maps", "sweep", "histograms", "training")
# Figures wider than this, in inches, scroll sideways on a phone.
WIDE = 5
# What the evaluation counts as left out, and a reader need not be told.
EXPECTED = {"trained on", "calibrated on"}

CAPTION_OF_MAPS = (
    "t-SNE of the training images' bottleneck features. The center μ is embedded along with "
    "them; methods without one show the mean feature. Sizes and distances do not compare "
    "between maps. Compactness does, whatever the scale of the features: the mean distance of "
    "majority test images to the center, divided by the mean distance between random pairs of "
    "a majority and a minority test image; less is more compact. A map shows at most "
    f"{MAPPED} images, and compactness is of at most {EMBEDDED} of each class, drawn with a seed."
)

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
    FileExistsError
        If there is a file of these names that no report wrote.
    ValueError
        If a file in it is damaged, or there is no such kind of file.
    """
    folder = Path(folder)
    refuse_foreign(folder, COMMAND, re.escape(PAGE))
    if figures is not None:
        check_kind(figures)
    if (folder / "rows").is_dir():
        page = _study_page(folder)
    elif (folder / "run.json").exists():
        page = _run_page(folder)
    else:
        raise FileNotFoundError(
            f"'{folder}' is neither a run nor a study: it has no run.json and no folder 'rows'."
        )
    if figures is not None:
        charts = {f"{name}.{figures}": figure for name, figure in _charts(page["parts"])}
        refuse_foreign(folder / "figures", COMMAND, "|".join(map(re.escape, charts)))
        claim(folder / "figures", COMMAND, charts)
        for name, figure in charts.items():
            save_figure(figure, folder / "figures" / name)
    claim(folder, COMMAND, [PAGE])
    write_text(folder / PAGE, rendered("report.html", page))
    return folder / PAGE


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
        table = self._read("scores.csv", read_csv)
        if table is None:
            return None
        calibration = self._read("calibration.csv", read_csv)
        return Scored(
            self.label,
            table["minority"].to_numpy(bool),
            table["anomaly_score"].to_numpy(float),
            self.measured.get("decision", {}).get("threshold"),
            None if calibration is None else calibration["anomaly_score"].to_numpy(float),
        )

    @cached_property
    def measured(self) -> dict[str, Any]:
        """What the evaluation found; nothing, if there was none."""
        return self._read("metrics.json", _read_json) or {}

    @property
    def history(self) -> pd.DataFrame | None:
        return self._read("history.csv", read_csv)

    @cached_property
    def split(self) -> pd.DataFrame | None:
        return self._read("split.csv", read_csv)

    @property
    def gallery(self) -> Gallery | None:
        return self._read("gallery.npz", Gallery.load)

    @cached_property
    def embedding(self) -> Embedding | None:
        return self._read("embedding.npz", Embedding.load)

    @property
    def compactness(self) -> float | None:
        return self.embedding.compactness() if self.embedding else None

    def _read(self, name: str, read: Callable[[Path], T]) -> T | None:
        try:
            return read(self.folder / name)
        except FileNotFoundError:
            return None


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
    further = {table.name: table for table in compared(folder, rows)}
    tables, parts, fits = [], [], []
    for table, group in zip(make_tables(rows), groups.values(), strict=True):
        names = (f"{table.name}-{kind}" for kind in ("intervals", "comparisons"))
        tables += [table, *(further[name] for name in names if name in further)]
        named = [Fit(row, folder / row["run"]) for row in group]
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
    error = unfinished or (None if measured else "It has not been evaluated.")
    row = {
        **dict.fromkeys(("metrics", "counts", "prevalence", "left_out", "fold")),
        **dict.fromkeys(("seconds", "threads")),
        **about,
        **{key: measured[key] for key in measured if key not in ("versions", "command", "cohort")},
        "label": about["method"],
        "key": "run",
        "run": "",
        "status": "error" if error else "done",
        "error": error,
        "commands": [about["command"], measured.get("command")],
    }
    fit = Fit(row, folder)
    tables = [_run_table(row)] if row["metrics"] else []
    cohort, tested = row["cohort"], measured.get("cohort", row["cohort"])
    title = cohort if tested == cohort else f"{cohort}, tested: {tested}"
    return _page("Run", folder, tables, [_part(title, [fit])], [fit])


def _page(
    kind: str, folder: Path, tables: list[Table], parts: list[Context], fits: list[Fit]
) -> Context:
    commands = [c for fit in fits for c in fit.row.get("commands", [fit.row.get("command")]) if c]
    settings: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    versions: list[tuple[str, Any]] = []
    for fit in fits:
        settings[fit.row["method"]] += fit.row["params"].items()
        versions += (fit.row["versions"] or {}).items()
        versions += [("threads", fit.row["threads"])] if fit.row["threads"] else []
    return {
        "kind": kind,
        "name": folder.resolve().name,
        "commands": list(dict.fromkeys(commands)),
        "tables": tables,
        "most_comparisons": MOST_COMPARISONS,
        "parts": parts,
        "fits": fits,
        "metrics": list(METRICS),
        "errors": [fit for fit in fits if fit.row["status"] != "done"],
        "settings": {m: _distinct(pairs, " | ", json.dumps) for m, pairs in settings.items()},
        "versions": _distinct(versions, ", ", str),
        "version": __version__,
    }


def _run_table(row: Mapping[str, Any]) -> Table:
    """Give a run's metrics with their intervals."""
    lines = []
    for name, found in row["metrics"].items():
        values = (found[key] for key in ("value", "low", "high"))
        cells = tuple(None if value is None else mean(value) for value in values)
        lines.append(Line((name,), cells))
    reasons = dict.fromkeys(m["reason"] for m in row["metrics"].values() if m.get("reason"))
    said = caption("run", [row], reasons=reasons)
    return Table("", said, ("metric",), ("value", "low", "high"), tuple(lines))


def _distinct(
    pairs: Iterable[tuple[str, Any]], separator: str, text: Callable[[Any], str]
) -> dict[str, str]:
    """Give each name all values that it has, in the order in which they come."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for name, value in pairs:
        found[name][text(value)] = None
    return {name: separator.join(values) for name, values in found.items()}


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
        "shown": firsts[0].part if firsts and len(done) > 1 else "",
        "too_many": bool(done) and not firsts,
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
        for (side, minority), of_group in split.groupby(["split", "minority"], sort=False):
            kind = "minority" if minority else "majority"
            labels = ", ".join(sorted(set(of_group["label"])))
            counts.append((side, kind, labels, len(of_group), of_group["patient"].nunique()))
    return {
        "notes": notes,
        "counts": counts,
        "patients": split is not None and not (split["patient"] == split["path"]).all(),
        "part": first.part if row["fold"] is not None else "",
        "prevalence": row["prevalence"],
    }


def _montage(fits: Sequence[Fit]) -> list[Context]:
    kept = next((found for fit in fits if (found := fit.gallery)), None)
    if kept is None:
        return []
    sheets = []
    for minority, name in ((False, "majority"), (True, "minority")):
        chosen = kept.montage_minority == minority
        labels = ", ".join(sorted(set(kept.montage_label[chosen].tolist())))
        images = kept.montage[chosen]
        alt = f"{len(images)} test images of the {name} class: {labels}"
        sheets.append({"src": _inline(png(sheet(images)), "png"), "alt": alt})
    return sheets


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
    if not found:
        return
    known = [f"{fit.label} {c:.3f}" for fit in fits if (c := fit.compactness) is not None]
    alt = f"t-SNE maps of training features; compactness {', '.join(known) or 'unknown'}"
    yield _figure("features", feature_maps(found), alt, CAPTION_OF_MAPS)


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
    level = f" and the level of {other}" if other else ""
    caption = f"One fit each, with seed {seed}; a fit that failed leaves its place empty."
    alt = f"AUC of {method} over {', '.join(names)}{level}"
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
        }
        for i in range(len(kept.path))
    ]
    majority = int((~kept.minority).sum())  # they stand before the minority
    return {
        "label": fit.label,
        "key": fit.row["key"],
        "scale": kept.scale() if len(kept.reconstruction) else None,
        "groups": [
            ("Majority images scored highest", cases[:majority]),
            ("Minority images scored lowest", cases[majority:]),
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
