"""Results by class and by the columns of a table: of whom they are, and what stands out."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from conocc import Cohort, load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.experiments.groups import (
    groups_of,
    groups_table,
    left_to_a_reader,
    measured_groups,
    summary,
)
from conocc.experiments.run import evaluate_run, fit_run
from conocc.metrics.confidence_intervals import auc_interval, share_interval
from conocc.visualization.report import write_report

LABELS = np.array(["well"] * 8 + ["a"] * 4 + ["b"] * 2 + ["a|c"] * 2)
SCORES = np.random.default_rng(0).permutation(16).astype(float)


def labelled(**facts) -> Cohort:
    """Eight majority images, and eight minority ones of three classes, two images of which two."""
    n = len(LABELS)
    names = np.array([f"{i}.png" for i in range(n)])
    return Cohort(
        name="made",
        images=np.zeros((n, 1, 16, 16), np.float32),
        minority=LABELS != "well",
        patient=np.array([f"p{i // 2}" for i in range(n)]),
        split=np.array(["test"] * n),
        path=names,
        digest=names,
        label=LABELS,
        preprocessing=Preprocessing(size=16),
        patients_known=True,
        notes=(),
        facts={name: np.array(values, dtype=object) for name, values in facts.items()},
    )


def measure(cohort: Cohort, *by: str, flagged=SCORES > 9) -> dict[tuple[str, str], dict]:
    made = measured_groups(cohort, groups_of(cohort, by), SCORES, flagged, "image")
    return {(group["by"], group["group"]): group for group in made}


def test_each_minority_class_is_told_from_the_whole_majority():
    """An image of two classes is in both; each figure is that of these images alone."""
    cohort = labelled()
    groups = measure(cohort)
    assert list(groups) == [("all", ""), ("class", "a"), ("class", "b"), ("class", "c")]
    for name, minority in (("a", range(8, 12)), ("b", (12, 13)), ("c", (14, 15))):
        rows = np.array([*range(8), *minority, *((14, 15) if name == "a" else ())])
        chosen, patient = cohort.minority[rows], cohort.patient[rows]
        group = groups["class", name]
        assert (group["majority"], group["minority"]) == (8, len(rows) - 8)
        sensitivity = share_interval(SCORES[rows[8:]] > 9, patient=patient[8:])
        assert group["sensitivity"] == {**sensitivity._asdict(), "of": len(rows) - 8}
        assert group["false_alarms"] == groups["all", ""]["false_alarms"]
        if name == "a":
            area = auc_interval(chosen, SCORES[rows], patient=patient)
            assert group["AUC"] == area._asdict()
        else:
            assert "two patients" in group["AUC"]["reason"]


def test_a_column_divides_both_classes_and_numbers_stand_by_size():
    age = [*["9", "10"] * 4, *["10"] * 4, *[""] * 4]
    groups = measure(labelled(age=age), "age")
    assert [group for by, group in groups if by == "age"] == ["9", "10", "no value"]
    assert (groups["age", "9"]["majority"], groups["age", "9"]["minority"]) == (4, 0)
    assert groups["age", "9"]["AUC"] is groups["age", "9"]["sensitivity"] is None
    assert groups["age", "10"]["false_alarms"]["of"] == 4
    assert groups["age", "no value"]["sensitivity"]["of"] == 4


def test_of_many_classes_the_rarer_are_one_group():
    cohort = labelled()
    many = replace(cohort, label=np.array(["well"] * 8 + [f"{i:02d}" for i in range(8)]))
    many = many.take([*range(16), *range(8, 16), *range(8, 16)])
    twice = np.array(["well"] * 8 + [f"{i:02d}" for i in range(24)])
    made = groups_of(replace(many, label=twice))
    assert [len(made), made[-1][1], int(made[-1][2].sum())] == [22, "all others", 8 + 4]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("Site", r"no column 'Site' \(--by\)\. Further columns: site, id\."),
        ("id", r"column 'id' \(--by\) has 24 values, such as 0, 1, .* at most 20 .* groups"),
    ],
)
def test_a_column_that_divides_nothing_is_refused(by, said):
    cohort = labelled(site=["x"] * 16, id=[*map(str, range(16))])
    many = cohort.take([*range(16), *range(8, 16)])
    many = replace(many, facts={**many.facts, "id": np.array([*map(str, range(24))], dtype=object)})
    with pytest.raises(ValueError, match=said):
        groups_of(many, [by])


def test_where_nothing_is_decided_there_are_areas_alone():
    group = measure(labelled(), flagged=None)["all", ""]
    assert group["AUC"]["value"] > 0
    assert group["false_alarms"] is None
    assert groups_table({"groups": [group]}).lines[0].cells[3:] == (None, None)


def test_an_area_that_is_surely_below_a_half_is_said_of_whom():
    """Class a scores lowest of all; b and c, of one patient each, have no interval."""
    scores = np.array([*range(10, 18), *range(4), 30, 31, 5, 6], dtype=float)
    groups = measured_groups(labelled(), groups_of(labelled()), scores, None, "image")
    nothing = {"false_alarms": None, "fdr": None, "threshold": None, "words": "Nothing."}
    result = {"decision": nothing, "observed_rates": {"false_alarms": None}, "groups": groups}
    (said,) = [one for one in summary(result) if "0.5" in one]
    assert "below 0.5 (class a): these minority images look more like the majority" in said
    above = measured_groups(labelled(), groups_of(labelled()), -scores, None, "image")
    assert summary({**result, "groups": above}) == ["Nothing."]


# Left to a reader


def test_the_images_nearest_the_threshold_are_left_to_a_reader():
    """Twenty images, threshold 10.1: half of them lie within 5 of it, those of 6 to 15."""
    scores = np.arange(20.0)
    minority = np.isin(scores, (3, 12, 17, 19))
    points = left_to_a_reader(minority, scores, 10.1, None)
    assert [(one["share"], one["left"]) for one in points[::7]] == [(0, 0), (0.5, 10)]
    none, half = points[0], points[-1]
    assert (none["sensitivity"]["value"], none["sensitivity"]["of"]) == (3 / 4, 4)
    assert (none["false_alarms"]["value"], none["false_alarms"]["of"]) == (6 / 16, 16)
    assert half["band"] == pytest.approx([10.1 - 4.9, 10.1 + 4.9])
    assert (half["sensitivity"]["value"], half["sensitivity"]["of"]) == (2 / 3, 3)  # not 12
    assert (half["false_alarms"]["value"], half["false_alarms"]["of"]) == (2 / 7, 7)  # 16, 18
    assert half["false_alarms"]["low"] == share_interval([True] * 2 + [False] * 5).low


@pytest.mark.parametrize("threshold", [None, np.inf])
def test_without_a_threshold_none_is_near_it(threshold):
    assert left_to_a_reader(SCORES > 9, SCORES, threshold, None) == []


def test_patients_make_the_interval_of_what_remains():
    """Two images a patient, who are flagged together, tell as much as half as many patients."""
    twice, patient = np.repeat(np.arange(20.0), 2), np.repeat(np.arange(20), 2)
    of_image, of_patient = (
        left_to_a_reader(twice > 30, twice, 15.5, whose)[0]["false_alarms"]
        for whose in (None, patient)
    )
    assert of_image["value"] == of_patient["value"] == 0.2
    assert of_patient["high"] > of_image["high"] + 0.05


# A site that differs, from a table to the page


@pytest.fixture(scope="module")
def two_sites(tmp_path_factory):
    """A run that learned images of site A, evaluated on images of both; site B's are rougher."""
    folder = tmp_path_factory.mktemp("sites")
    rng = np.random.default_rng(0)
    lines = ["path,label,split,patient,site"]
    for i in range(150):
        site = "B" if i % 2 and i >= 80 else "A"
        label = "ill" if i >= 130 else "well"
        pixels = rng.normal(0, 8 + 12 * (site == "B") + 60 * (label == "ill"), (16, 16))
        pixels += np.linspace(60, 180, 16)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{label},{'train' if i < 80 else 'test'},p{i},{site}")
    (folder / "set.csv").write_text("\n".join(lines) + "\n")
    cohort = load_cohort(folder / "set.csv", majority="well", calibration_size="auto", cache=False)
    fit_run(cohort, "ocsvm", {"random_state": 0}, folder / "run", command="")
    return folder / "run", evaluate_run(folder / "run", cohort, command="", by=["site"])


def test_a_site_that_differs_stands_out(two_sites):
    _, result = two_sites
    groups = {group["group"]: group for group in result["groups"]}
    promised = result["decision"]["false_alarms"]
    assert groups["A"]["false_alarms"]["low"] <= promised < groups["B"]["false_alarms"]["low"]
    assert groups["A"]["majority"] == groups["B"]["majority"] == 25
    (said,) = [one for one in summary(result) if "site" in one]
    assert said.endswith(
        "more majority images are flagged than the 20 % promised: site B. "
        "Calibrate on images of each."
    )


def test_the_groups_are_a_table_of_the_run_and_of_its_page(two_sites):
    run, result = two_sites
    lines = (run / "groups.csv").read_text().splitlines()
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["all", "", "50", "20"],
        ["site", "A", "25", "10"],
        ["site", "B", "25", "10"],
    ]
    hits = round(25 * result["groups"][2]["false_alarms"]["value"])
    write_report(run)
    page = (run / "report.html").read_text()
    assert f">{hits} of 25<" in page
    assert "An interval is for its group alone" in page


def test_what_is_left_to_a_reader_is_told_and_drawn(two_sites):
    run, result = two_sites
    (said,) = [one for one in summary(result) if "reader" in one]
    assert said.startswith("If the 14 images (20 %) nearest the threshold, with scores of ")
    assert re.search(r"majority images flagged \(.* and \d+ of \d+ minority images flagged", said)
    write_report(run, figures="svg")
    assert "when some images are left to a reader, by ocsvm" in (run / "report.html").read_text()
    assert "left to a reader (%)" in (run / "figures" / "abstention-ocsvm.svg").read_text()
