"""The figures of an evaluation, of all test images and of each group of them, and in words.

Letters: ``n`` images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from conocc.data.cohort import Cohort
from conocc.data.index import printable
from conocc.experiments.table_formats import Cell, Line, Table, estimate, share
from conocc.experiments.tables import caption
from conocc.io.words import count, parted, percent, readable
from conocc.metrics.confidence_intervals import metric_interval
from conocc.metrics.ranking import METRICS
from conocc.thresholds.rules import COUNTED, observed_rates

MOST_GROUPS = 20
# Shares of the test images that are left to a reader, in `left_to_a_reader`.
LEFT = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
# Of the shares that may be left to a reader, the one that `summary` tells.
TOLD_SHARE = 0.2
NO_MINORITY = (
    "There is no minority image, so that only false alarms can be told, where a threshold is set."
)
# Some test images: a column, one of its values, and which images these are, (n,) bool.
Group: TypeAlias = tuple[str, str, np.ndarray]


def measured(
    minority: np.ndarray, anomaly_score: np.ndarray, patient: np.ndarray | None
) -> dict[str, dict[str, Any]]:
    """Give each metric with its 95 % interval, by patient where patients are known.

    Where the images cannot give an interval, the reason stands in its place.
    """
    return {name: with_interval(name, minority, anomaly_score, patient) for name in METRICS}


def with_interval(
    name: str, minority: np.ndarray, anomaly_score: np.ndarray, patient: np.ndarray | None
) -> dict[str, Any]:
    """Give one metric, as `measured` does all."""
    try:
        return dict(metric_interval(name, minority, anomaly_score, patient=patient)._asdict())
    except ValueError as error:
        value = METRICS[name](minority, anomaly_score)
        return {"value": value, "low": None, "high": None, "reason": str(error)}


def groups_of(test: Cohort, by: Sequence[str] = ()) -> list[Group]:
    """Divide the test images by class, and by columns of the cohort's table.

    The first group is all images. Each class of the minority, where there are several, is a group
    with the whole majority, and each of the majority one with the whole minority. An image with
    several labels or values, joined by ``|``, is in the group of each.

    Raises
    ------
    ValueError
        If a column is not there, or has more than `MOST_GROUPS` values.
    """
    groups: list[Group] = [("all", "", np.ones(len(test), dtype=bool))]
    for minority in (True, False):
        of_class = test.minority == minority
        labels = zip(test.label.tolist(), of_class, strict=True)
        found, _ = _members([label if its else None for label, its in labels])
        if len(found) > 1:
            others = of_class & ~np.any([*found.values()], axis=0)
            found |= {"all others": others} if others.any() else {}
            groups += [("class", value, its | ~of_class) for value, its in found.items()]
    for column in parted(by, test.facts):
        if column not in test.facts:
            has = ", ".join(map(printable, test.facts)) or "none; only a table can have some"
            raise ValueError(
                f"'{test.name}' has no column {column!r} (--by). Further columns: {has}."
            )
        found, number = _members(test.facts[column].tolist())
        if number > MOST_GROUPS:
            raise ValueError(
                f"The column {column!r} (--by) has {number} values, such as "
                f"{', '.join(list(found)[:3])}, where at most {MOST_GROUPS} are told apart. Add a "
                "column of groups to the table, such as of ages 0-39, 40-59 and 60-99."
            )
        groups += [(column, value, its) for value, its in found.items()]
    return groups


def _members(values: Sequence[str | None]) -> tuple[dict[str, np.ndarray], int]:
    """Say which images have each of the most usual values, and how many values there are."""
    parts = [set() if v is None else {part.strip() for part in v.split("|")} for v in values]
    counts = Counter(part for its in parts for part in its)
    usual = sorted(name for name, _ in counts.most_common(MOST_GROUPS))
    usual.sort(key=lambda name: int(name) if name.isdecimal() else np.inf)
    return {
        printable(name) or "no value": np.array([name in its for its in parts]) for name in usual
    }, len(counts)


def measured_groups(
    test: Cohort,
    groups: Iterable[Group],
    anomaly_score: np.ndarray,
    flagged: np.ndarray | None,
    unit: str,
) -> list[dict[str, Any]]:
    """Measure each group on its own, by the one threshold of all.

    Returns
    -------
    list of dict
        ``by``, ``group``, ``majority`` and ``minority`` (images), ``AUC`` (None of one class
        alone), and what `observed_rates` gives.
    """
    found, patients = [], test.groups
    for column, value, rows in groups:
        minority, patient = test.minority[rows], None if patients is None else patients[rows]
        counts = {"majority": int((~minority).sum()), "minority": int(minority.sum())}
        of_group = None if flagged is None else flagged[rows]
        area = None
        if all(counts.values()):
            area = with_interval("AUC", minority, anomaly_score[rows], patient)
        rates = observed_rates(minority, of_group, patient=patient, unit=unit)
        found.append({"by": column, "group": value, **counts, "AUC": area, **rates})
    return found


def left_to_a_reader(
    minority: np.ndarray,
    anomaly_score: np.ndarray,
    threshold: float | None,
    patient: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Measure the decisions that remain when those nearest the threshold are left to a reader.

    Near is meant in units of the score, so that who is left does not depend on the other images:
    the band can be used on new images. Images are counted, whatever the unit of the promise.

    Returns
    -------
    list of dict
        For each share of `LEFT` its ``share`` and number ``left``, the ``band`` of scores around
        the threshold that holds them, and of the others what `observed_rates` gives. Empty where
        there is no threshold.
    """
    if threshold is None or not np.isfinite(threshold):
        return []
    distance = np.abs(anomaly_score - threshold)
    order, found = np.argsort(distance, kind="stable"), []
    for part in LEFT:
        left = round(part * len(order))
        rest = order[left:]
        half = float(distance[order[left - 1]]) if left else 0.0
        whose = None if patient is None else patient[rest]
        flagged = anomaly_score[rest] > threshold
        rates = observed_rates(minority[rest], flagged, patient=whose, unit="image")
        band = [threshold - half, threshold + half]
        found.append({"share": part, "left": left, "band": band, **rates})
    return found


def groups_table(result: Mapping[str, Any]) -> Table:
    """Make a table of the groups that an evaluation (``metrics.json``) noted; first, all images."""
    lines = []
    for group in result.get("groups", ()):
        area = group["AUC"] and estimate(*(group["AUC"][key] for key in ("value", "low", "high")))
        rates = (share(group[name]) for name in ("false_alarms", "sensitivity"))
        sizes = (group[name] for name in ("majority", "minority"))
        counts = (Cell(f"{size:,}", "", {"": size}) for size in sizes)
        lines.append(Line((group["by"], group["group"]), (*counts, area, *rates)))
    columns = ("majority", "minority", "AUC", "false alarms", "sensitivity")
    return Table("groups", caption("groups", [result]), ("by", "group"), columns, tuple(lines))


# --- in words ------------------------------------------------------------------------------------


def _counted(name: str, rate: Mapping[str, Any], unit: str) -> str:
    whole, part = COUNTED[name]
    return (
        f"{round(rate['value'] * rate['of']):,} of {rate['of']:,} {whole.format(unit)} {part} "
        f"({100 * rate['value']:.1f} %, 95 % interval "
        f"{100 * rate['low']:.1f}–{100 * rate['high']:.1f} %)"
    )


def summary(measured: Mapping[str, Any]) -> list[str]:
    """Say what an evaluation (``metrics.json``), if there was one, noted, a sentence each."""
    if not measured:
        return []
    decision, rates = measured["decision"], measured["observed_rates"]
    threshold, promised = decision["threshold"], decision["false_alarms"]
    sentences = [NO_MINORITY] if measured.get("metrics") == {} else []
    sentences.append(decision["words"])
    if threshold is not None:
        sentences.append(f"Images are flagged above an anomaly score of {readable(threshold)}.")
    elif promised or decision["fdr"]:
        sentences.append("No image is flagged.")
    for name, rate in rates.items():
        if rate is not None:
            counted = _counted(name, rate, decision["unit"])
            sentences.append(f"{name.replace('_', ' ').capitalize()} on the test split: {counted}.")
    batch = measured.get("batch", {"words": [], "moved": {}})
    sentences += [*batch["words"], *batch["moved"].values()]
    for one in measured.get("abstention", ()):
        if one["share"] == TOLD_SHARE:
            rest = [_counted(name, one[name], "image") for name in [*COUNTED][:2] if one[name]]
            low, high = one["band"]
            sentences.append(
                f"If the {count(one['left'], 'image')} ({percent(one['share'])}) nearest the "
                f"threshold, with scores of {readable(low)} to {readable(high)}, are left to a "
                f"reader, of the others: {' and '.join(rest)}."
            )
    groups = {f"{one['by']} {one['group']}".strip(): one for one in measured.get("groups", [])}
    parts = {n: one for n, one in groups.items() if one["majority"] < groups["all"]["majority"]}
    alarms = {name: one["false_alarms"] for name, one in parts.items()} if promised else {}
    broken = [name for name, rate in alarms.items() if rate and rate["low"] > promised]
    if broken:
        sentences.append(
            f"In groups, more majority {decision['unit']}s are flagged than the "
            f"{percent(promised)} promised: {', '.join(broken)}. Calibrate on images of each."
        )
    if below := [n for n, one in groups.items() if ((one["AUC"] or {}).get("high") or 1) < 0.5]:
        sentences.append(
            f"The whole interval of the AUC lies below 0.5 ({', '.join(below)}): these minority "
            "images look more like the majority than the majority itself does. Try another "
            "majority class (--majority), another method (--method) or another size (--size)."
        )
    if promised is not None and rates["false_alarms"]["low"] > promised:
        by_chance = percent(round(1 - decision["confidence"], 6))
        sentences.append(
            f"More majority {decision['unit']}s are flagged than the {percent(promised)} promised. "
            f"That happens by chance after at most {by_chance} of calibrations; or the majority "
            "images of the test split are not like those of the calibration. Calibrate on more "
            "images, like those that are to be scored."
        )
    return sentences
