"""A model card: what a run's model is for, what it learned from, what it finds, and its limits.

It tells counts, figures and promises, and holds no pixels and no name of an image or a patient, so
that it can go where the model goes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from conocc._version import __version__
from conocc.detectors import METHODS
from conocc.experiments.groups import summary
from conocc.experiments.run import load_model, model_hash
from conocc.experiments.table_formats import Cell, Line, Table, as_markdown
from conocc.io.files import OWNER, claim, refuse_foreign, refuse_made, write_text
from conocc.io.words import readable
from conocc.thresholds.rule import RULE
from conocc.thresholds.rules import decisions
from conocc.visualization.html import rendered
from conocc.visualization.report import about_cohort, run_fit, run_tables

COMMAND, TEXT, PAGE = "card", "card.md", "card.html"
# What the style of reports, and the page's own policy, know of a table.
AS_IN_REPORTS = {
    ' style="text-align:left"': ' class="name"',
    ' style="text-align:right"': "",
    "<table>": '<div class="scroll" role="region" aria-label="Table" tabindex="0"><table>',
    "</table>": "</table></div>",
    " %": "\u00a0%",
}
# An example in a note, which may name a patient.
EXAMPLE = re.compile(r" \([^)]*…\)")


def write_card(run: str | Path, *, out: str | Path | None = None) -> tuple[Path, Path]:
    """Write ``card.md`` and, with the same words, ``card.html``; return their paths.

    Parameters
    ----------
    run : path
        The folder of a finished run, evaluated or not, calibrated or not.
    out : path, optional
        Another folder for the two.

    Raises
    ------
    FileNotFoundError
        If there is no such run.
    FileExistsError
        If there is a file of these names that no card wrote.
    ValueError
        If the fit is not finished, or a file of the run is damaged.
    """
    run = Path(run)
    out = Path(out) if out is not None else run
    if out.resolve() != run.resolve():
        refuse_made(out, OWNER)
    refuse_foreign(out, COMMAND, f"{re.escape(TEXT)}|{re.escape(PAGE)}")
    facts = _facts(run)
    text = re.sub(r"\n{3,}", "\n\n", rendered("card.md", facts))
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    for found, better in AS_IN_REPORTS.items():
        body = body.replace(found, better)
    page = rendered("card.html", {"name": facts["name"], "body": Markup(body)})  # noqa: S704
    claim(out, COMMAND, [TEXT, PAGE])
    write_text(out / TEXT, text)
    write_text(out / PAGE, page)
    return out / TEXT, out / PAGE


def _facts(run: Path) -> dict[str, Any]:
    """Gather what the card says, from the report's facts and the model."""
    detector = load_model(run)  # which refuses what is no finished run
    fit, measured = run_fit(run)
    about = about_cohort([fit])
    decided = decisions(detector, RULE)
    in_force = [decided.words()]
    if decided.threshold is not None:
        above = readable(decided.threshold)
        in_force.append(f"Images are flagged above an anomaly score of {above}.")
    return {
        "name": run.resolve().name,
        "method": METHODS[fit.row["method"]],
        "row": fit.row,
        "counts": as_markdown(_counts(about)),
        "leaks": [EXAMPLE.sub("", n) for n in about["notes"] if n.startswith("LEAK")],
        "left_out": about["left_out"],
        "tables": [as_markdown(table) for table in run_tables(fit, measured)],
        "in_force": in_force,
        "turned_out": [one for one in summary(measured) if one not in in_force],
        "patients": about["patients"],
        "each": decided.calibration.each if decided.calibration else "image",
        "holds_images": type(detector).__name__ == "OCSVM",
        "sha256": model_hash(run),
        "version": __version__,
    }


def _counts(about: dict[str, Any]) -> Table:
    """Count images, and patients where they are known, by side of the split and class."""
    columns, lines = ("images", "patients")[: 1 + about["patients"]], []
    for side, minority, labels, *sizes in about["counts"]:
        head = side, "minority" if minority else "majority", labels
        cells = (Cell(f"{size:,}", "", {"": size}) for size in sizes[: len(columns)])
        lines.append(Line(head, tuple(cells)))
    return Table("counts", "", ("split", "class", "named"), columns, tuple(lines))
