"""One self-contained page on a run or a study, made from its folder alone.

Nothing here needs torch, a network or a server: images are inside the page, and its own content
security policy forbids it to ask for anything.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from conocc._version import __version__
from conocc.experiments.artifacts import EMBEDDED, Embedding, Gallery, read_results
from conocc.experiments.groups import groups_table, summary
from conocc.experiments.significance import compared
from conocc.experiments.table_formats import Line, Table, mean
from conocc.experiments.tables import caption, grouped, make_tables, read_rows
from conocc.io.files import OWNER, claim, read_json, refuse_foreign, refuse_made, write_text
from conocc.io.pictures import data_url, png, sheet
from conocc.io.tables import read_csv
from conocc.io.words import count
from conocc.metrics.ranking import METRICS
from conocc.visualization.charts import (
    CURVES,
    MAPPED,
    Scored,
    abstention_curves,
    curves,
    feature_maps,
    parameter_bars,
    score_histogram,
    training_curves,
)
from conocc.visualization.drawing import check_kind, save_figure, svg
from conocc.visualization.html import rendered
from conocc.visualization.images import case_strip

COMMAND, PAGE = "report", "report.html"
# More curves than this in one figure cannot be told apart; a sweep has its bars instead.
MOST_CURVES = 14
# More parameters than this cannot be drawn as panels, groups and bars.
MOST_SWEPT = 3
# What of a cohort's part of the page are charts, not images.
CHARTS = ("curves", "maps", "sweep", "histograms", "training")
# What an evaluation counts as left out, and a reader need not be told.
EXPECTED = {"trained on", "calibrated on"}
# Figures wider than this, in inches, scroll sideways on a phone.
WIDE = 5
# Images beside each other in a montage, and how wide each is at most, in CSS pixels.
MONTAGE, CASE = 8, 96

Context = dict[str, Any]


def write_report(
    folder: str | Path, *, out: str | Path | None = None, figures: str | None = None
) -> Path:
    """Write ``report.html`` on the folder of a run or a study, and return its path.

    Parameters
    ----------
    out : path, optional
        The folder for the page, where it is not to be that one.
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
    out = Path(out) if out is not None else folder
    if out.resolve() != folder.resolve():
        refuse_made(out, OWNER)
    refuse_foreign(out, COMMAND, re.escape(PAGE))
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
        refuse_foreign(out / "figures", COMMAND, "|".join(map(re.escape, charts)))
        claim(out / "figures", COMMAND, charts)
        for name, figure in charts.items():
            save_figure(figure, out / "figures" / name)
    claim(out, COMMAND, [PAGE])
    write_text(out / PAGE, rendered("report.html", page))
    return out / PAGE


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
    """A fit: its row, and the folder in which its evaluation left files."""

    row: Mapping[str, Any]
    folder: Path

    @property
    def label(self) -> str:
        return str(self.row["label"])

    @property
    def part(self) -> str:
        """Which of the fits with this label it is."""
        part = "seed" if self.row["fold"] is None else "fold"
        return f"{part} {self.row[part]}"

    @property
    def compactness(self) -> float | None:
        kept = self.read("embedding.npz")
        return kept and kept.compactness()

    def read(self, name: str) -> Any:
        """Read what was left under this name; None, if nothing was."""
        path = self.folder / name
        return READERS.get(name, read_csv)(path) if path.exists() else None

    def scored(self) -> Scored | None:
        """Give the test images' scores, the threshold, and the scores that it was set on."""
        table, calibration = self.read("scores.csv"), self.read("calibration.csv")
        if table is None:
            return None
        return Scored(
            self.label,
            table["minority"].to_numpy(bool),
            table["anomaly_score"].to_numpy(float),
            (self.read("metrics.json") or {}).get("decision", {}).get("threshold"),
            None if calibration is None else calibration["anomaly_score"].to_numpy(float),
        )


# The other files of a fit are tables.
READERS = {"metrics.json": read_results, "gallery.npz": Gallery.load}
READERS |= {"embedding.npz": Embedding.load}


# --- the two kinds of page ---------------------------------------------------------------------


def _study_page(folder: Path) -> Context:
    """Divide a study's rows into protocols, and these into cohorts."""
    rows = read_rows(folder)
    if not rows:
        raise ValueError(f"'{folder}' has no rows yet: nothing of it is done.")
    groups = grouped(rows)
    further = compared(folder, rows)
    tables, parts, fits = [], [], []
    for table, group in zip(make_tables(rows), groups.values(), strict=True):
        tables += [table, *(one for one in further if one.name.rpartition("-")[0] == table.name)]
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


def run_fit(folder: Path) -> tuple[Fit, Mapping[str, Any]]:
    """Take a run for a study's one fit, and give what its evaluation, if any, measured."""
    about = read_json(folder / "run.json")
    measured = read_results(folder / "metrics.json")
    unfinished = None if about.get("finished") else "The fit is not finished."
    error = unfinished or (None if measured else "It has not been evaluated.")
    unknown = ("metrics", "counts", "prevalence", "left_out", "fold", "seconds", "threads")
    row = {
        **dict.fromkeys(unknown),
        **about,
        **{key: measured[key] for key in measured if key not in ("versions", "command", "cohort")},
        "label": about["method"],
        "key": "run",
        "run": "",
        "status": "error" if error else "done",
        "error": error,
        "commands": [about["command"], measured.get("command")],
    }
    return Fit(row, folder), measured


def run_tables(fit: Fit, measured: Mapping[str, Any]) -> list[Table]:
    """Give a run's figures with their intervals; where there are groups, of each of them too."""
    tables = [_run_table(fit.row)] if fit.row["metrics"] else []
    return tables + ([table] if len((table := groups_table(measured)).lines) > 1 else [])


def _run_page(folder: Path) -> Context:
    fit, measured = run_fit(folder)
    cohort, tested = fit.row["cohort"], measured.get("cohort", fit.row["cohort"])
    title = cohort if tested == cohort else f"{cohort}, tested: {tested}"
    return _page("Run", folder, run_tables(fit, measured), [_part(title, [fit])], [fit])


def _page(
    kind: str, folder: Path, tables: list[Table], parts: list[Context], fits: list[Fit]
) -> Context:
    settings: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    versions: dict[str, list[str]] = defaultdict(list)
    for fit in fits:
        for name, value in fit.row["params"].items():
            settings[fit.row["method"]][name].append(json.dumps(value))
        for name, value in {**(fit.row["versions"] or {}), "threads": fit.row["threads"]}.items():
            versions[name] += [str(value)] if value else []
    return {
        "kind": kind,
        "name": folder.resolve().name,
        "commands": [c for fit in fits for c in fit.row.get("commands", [fit.row["command"]]) if c],
        "tables": tables,
        "parts": parts,
        "fits": fits,
        "metrics": list(METRICS),
        "settings": settings,
        "versions": versions,
        "version": __version__,
        "limits": {"mapped": MAPPED, "embedded": EMBEDDED},
    }


def _run_table(row: Mapping[str, Any]) -> Table:
    """Give a run's metrics with their intervals."""
    lines = []
    for name, found in row["metrics"].items():
        values = (found[key] for key in ("value", "low", "high"))
        lines.append(Line((name,), tuple(None if v is None else mean(v) for v in values)))
    reasons = dict.fromkeys(m["reason"] for m in row["metrics"].values() if m.get("reason"))
    said = caption("run", [row], reasons=reasons)
    return Table("", said, ("metric",), ("value", "low", "high"), tuple(lines))


# --- one cohort --------------------------------------------------------------------------------


def _part(title: str, fits: Sequence[Fit]) -> Context:
    """All that is shown of one cohort under one protocol; the first fit of each label is drawn."""
    done = [fit for fit in fits if fit.row["status"] == "done"]
    firsts = list({fit.label: fit for fit in reversed(done)}.values())[::-1]
    if len(firsts) > MOST_CURVES:
        firsts = []
    scored = [one for fit in firsts if (one := fit.scored()) and one.minority.any()]
    names = ", ".join(one.label for one in scored)
    return {
        "title": title,
        "about": about_cohort(done or fits),
        "montage": list(_montage(done)),
        "shown": firsts[0].part if firsts and len(done) > 1 else "",
        "alone": len(firsts) == 1,
        "too_many": bool(done) and not firsts,
        "curves": [
            _figure(
                kind if kind == "roc" else f"precision-recall-{kind}",
                curves(scored, kind),
                f"{shown} {names}",
            )
            for kind, (*_, shown) in CURVES.items()
            if scored
        ],
        "maps": list(_maps(firsts)),
        "sweep": list(_sweep(done)),
        "histograms": list(_histograms(firsts)),
        "training": list(_training(firsts)),
        "galleries": [_gallery(fit, kept) for fit in firsts if (kept := fit.read("gallery.npz"))],
    }


def about_cohort(fits: Sequence[Fit]) -> Context:
    """Count the cohort by side and class; add its prevalence and what was noted of it."""
    first = next((fit for fit in fits if (fit.folder / "split.csv").exists()), fits[0])
    split, row = first.read("split.csv"), first.row
    counts = []
    if split is not None:
        for (side, minority), its in split.groupby(["split", "minority"], sort=False):
            labels = ", ".join(sorted(set(its["label"])))
            counts.append((side, minority, labels, len(its), its["patient"].nunique()))
    return {
        "notes": row["notes"] or [],
        "left_out": {r: n for r, n in (row["left_out"] or {}).items() if n and r not in EXPECTED},
        "counts": counts,
        "patients": split is not None and not (split["patient"] == split["path"]).all(),
        "part": first.part if row["fold"] is not None else "",
        "prevalence": row["prevalence"],
    }


def _montage(fits: Sequence[Fit]) -> Iterator[Context]:
    kept: Any = next((found for fit in fits if (found := fit.read("gallery.npz"))), None)
    for name in ("majority", "minority") if kept else ():
        chosen = kept.montage_minority == (name == "minority")
        if not chosen.any():
            continue
        labels = ", ".join(np.unique(kept.montage_label[chosen]))
        alt = f"{count(chosen.sum(), 'test image')} of the {name} class: {labels}"
        drawn = sheet(kept.montage[chosen], MONTAGE)
        width = CASE * min(MONTAGE, int(chosen.sum()))  # or one image would fill the page
        yield {"src": data_url(png(drawn), "png"), "alt": alt, "width": width}


def _maps(fits: Sequence[Fit]) -> Iterator[Context]:
    found = [(fit.label, kept) for fit in fits if (kept := fit.read("embedding.npz"))]
    known = [f"{label} {c:.3f}" for label, kept in found if (c := kept.compactness()) is not None]
    alt = f"t-SNE maps of training features; compactness {', '.join(known) or 'unknown'}"
    if found:
        yield _figure("features", feature_maps(found), alt)


def _sweep(fits: Sequence[Fit]) -> Iterator[Context]:
    """Draw Fig. 5 for the method of which most parameter values were tried."""
    rows = [fit.row for fit in fits if fit.row.get("protocol") == "sweep"]
    seed = min((row["seed"] for row in rows), default=0)
    tried: dict[str, list[tuple[Mapping[str, Any], float]]] = defaultdict(list)
    for row in rows:
        if row["seed"] == seed:
            tried[row["method"]].append((row["params"], row["metrics"]["AUC"]["value"]))
    method, other, *_ = [*sorted(tried, key=lambda name: -len(tried[name])), "", ""]
    names = _swept([params for params, _ in tried[method]])
    if 1 <= len(names) <= MOST_SWEPT:
        level = f" and the level of {other}" if other else ""
        bars = parameter_bars(tried[method], names, levels=tried[other], level_name=other)
        said = f"One fit each, with seed {seed}; a fit that failed leaves its place empty."
        yield _figure("parameters", bars, f"AUC of {method} over {', '.join(names)}{level}", said)


def _swept(params: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the parameters that differ, those with the fewest values first."""
    names = dict.fromkeys(name for one in params for name in one if name != "random_state")
    values = {name: {json.dumps(one.get(name)) for one in params} for name in names}
    return sorted((n for n in names if len(values[n]) > 1), key=lambda n: len(values[n]))


def _histograms(fits: Sequence[Fit]) -> Iterator[Context]:
    for fit in fits:
        if scored := fit.scored():
            measured = fit.read("metrics.json") or {}
            said = " ".join(summary(measured))
            alt = f"Scores of both classes by {fit.label}"
            yield _figure(f"scores-{fit.label}", score_histogram(scored), alt, said)
            if points := measured.get("abstention"):
                drawn = abstention_curves(fit.label, points)
                alt = "False alarms and sensitivity when some images are left to a reader"
                yield _figure(f"abstention-{fit.label}", drawn, f"{alt}, by {fit.label}")


def _training(fits: Sequence[Fit]) -> Iterator[Context]:
    for fit in fits:
        history = fit.read("history.csv")
        if history is not None and (drawn := training_curves(history, fit.label)):
            yield _figure(f"training-{fit.label}", drawn, f"Losses over the epochs of {fit.label}")


def _gallery(fit: Fit, kept: Gallery) -> Context:
    cases = [
        (data_url(png(case_strip(kept, i)), "png"), str(kept.path[i]), float(score))
        for i, score in enumerate(kept.anomaly_score)
    ]
    majority = int((~kept.minority).sum())  # they stand before the minority
    return {
        "label": fit.label,
        "key": fit.row["key"],
        "scale": kept.scale() if len(kept.residual) else None,
        "majority": cases[:majority],
        "minority": cases[majority:],
    }


def _figure(name: str, figure: Figure, alt: str, caption: str = "") -> Context:
    return {
        "name": name,
        "figure": figure,
        "src": data_url(svg(figure), "svg+xml"),
        "alt": alt,
        "caption": caption,
        "wide": figure.get_size_inches()[0] > WIDE,
    }
