"""Intervals of means and paired tests of a study, from folders written by hand."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conocc.cli import run as run_command
from conocc.experiments.significance import compare_runs, write_comparisons
from conocc.metrics.auc_variance import Fold, mean_auc_covariance
from conocc.metrics.confidence_intervals import compare_auc, holm, metric_interval
from conocc.metrics.ranking import METRICS
from made_runs import write_row

N = 40
MINORITY = np.arange(N) % 4 == 0
PATHS = np.array([f"{i}.png" for i in range(N)])
PATIENT = np.array([f"p{i // 2}" for i in range(N)])
TABLE = {"path": PATHS, "digest": PATHS, "minority": MINORITY, "patient": PATIENT}


def scores(seed: int, shift: float = 1.0) -> np.ndarray:
    """Scores of one fit; what the images themselves bring is the same for all seeds."""
    of_image = np.random.default_rng(99).normal(size=N)
    noise = np.random.default_rng(seed).normal(size=N)
    return of_image + 0.7 * noise + shift * MINORITY


def write_fit(study: Path, key: str, method: str, score, *, images=slice(None), **changes) -> Path:
    """Write the row of a fit and its scores of some of the images, of patients of two each."""
    table = {**TABLE, **changes.pop("table", {})}
    path, digest, minority, patient = (np.asarray(column)[images] for column in table.values())
    score = np.asarray(score)[images]
    metrics = {
        name: {"value": metric(minority, score), "low": 0.01, "high": 0.99}
        for name, metric in METRICS.items()
    }
    folder = write_row(study, key, method, auc=0.5, **{"metrics": metrics, **changes})
    folder.mkdir(parents=True)
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "digest", "minority", "patient", "anomaly_score"])
        writer.writerows(zip(path, digest, minority, patient, score.tolist(), strict=True))
    return folder


def write_fold(study: Path, method: str, fold: int, score, images) -> Path:
    part = {"protocol": "crossval", "rule": 5, "group": "patient", "fold": fold}
    return write_fit(study, f"{method}{fold}", method, score, images=images, **part)


def tables(study: Path) -> dict[str, list[dict[str, str]]]:
    """The tables that were written, read from their CSV files."""
    made = write_comparisons(study)
    return {
        table.name: list(
            csv.DictReader((study / "tables" / f"{table.name}.csv").read_text().splitlines())
        )
        for table in made
    }


def captions(study: Path) -> dict[str, str]:
    return {table.name: table.caption for table in write_comparisons(study)}


@pytest.fixture
def study(tmp_path) -> Path:
    """Two seeds of the CAE and of ConOCC, one of the OCSVM."""
    for seed in (0, 1):
        write_fit(tmp_path, f"a{seed}", "cae", scores(seed, 0.8), seed=seed)
        write_fit(tmp_path, f"b{seed}", "conocc", scores(10 + seed, 1.5), seed=seed)
    write_fit(tmp_path, "c0", "ocsvm", scores(20, 0.2))
    return tmp_path


# Intervals


@pytest.mark.parametrize("metric", METRICS)
def test_a_mean_over_seeds_has_the_interval_of_the_mean(study, metric):
    line = tables(study)["benchmark-intervals"][1]
    both = np.array([scores(0, 0.8), scores(1, 0.8)])
    expected = metric_interval(metric, MINORITY, both, patient=PATIENT)
    assert line["method"] == "cae"
    found = [float(line[name]) for name in (metric, f"{metric} low", f"{metric} high")]
    assert found == pytest.approx(list(expected))
    assert line[f"{metric} n"] == "2"


def test_a_single_fit_keeps_the_interval_of_its_row(study):
    line = tables(study)["benchmark-intervals"][0]
    assert (line["method"], line["AUC low"], line["AUC high"]) == ("ocsvm", "0.01", "0.99")


def test_a_mean_whose_scores_are_gone_has_no_ends(study):
    (study / "jobs" / "a1" / "scores.csv").unlink()
    line = tables(study)["benchmark-intervals"][1]
    mean = np.mean([METRICS["AUC"](MINORITY, scores(seed, 0.8)) for seed in (0, 1)])
    assert float(line["AUC"]) == pytest.approx(mean)
    assert line["AUC low"] == line["AUC high"] == ""


def test_captions_count_the_test_images_and_say_that_fits_are_given(study):
    for caption in captions(study).values():
        assert "taken as given" in caption
    said = captions(study)["benchmark-intervals"]
    assert "8 majority and 6 minority images of 14 patients" in said
    assert "prevalence of the minority 0.429" in said


# Comparisons


def test_every_pair_is_tested_and_corrected(study):
    """The same as `compare_auc` of the stacked scores, by patient; from the paper's method on."""
    lines = tables(study)["benchmark-comparisons"]
    of = {
        "cae": np.array([scores(0, 0.8), scores(1, 0.8)]),
        "conocc": np.array([scores(10, 1.5), scores(11, 1.5)]),
        "ocsvm": scores(20, 0.2),
    }
    pairs = [("conocc", "cae"), ("conocc", "ocsvm"), ("cae", "ocsvm")]
    assert [(line["A"], line["B"]) for line in lines] == pairs
    tests = [compare_auc(MINORITY, of[a], of[b], patient=PATIENT) for a, b in pairs]
    corrected = holm([test.p for test in tests])
    for line, test, p in zip(lines, tests, corrected, strict=True):
        ends = ("AUC of A − B", "AUC of A − B low", "AUC of A − B high", "p", "Holm's p")
        expected = [test.difference, test.low, test.high, test.p, p]
        assert [float(line[name]) for name in ends] == pytest.approx(expected)


def test_the_cohorts_of_a_study_are_families_of_their_own(tmp_path):
    for cohort in "xy":
        for method, seed in (("cae", 0), ("conocc", 1)):
            key = f"{cohort}{method}"
            write_fit(tmp_path, key, method, scores(seed), cohort=cohort)
    lines = tables(tmp_path)["benchmark-comparisons"]
    assert [line["cohort"] for line in lines] == ["x", "y"]
    assert all(line["p"] == line["Holm's p"] for line in lines)


@pytest.mark.parametrize("how", ["gone", "of fewer images", "of other classes"])
def test_a_method_that_tested_something_else_is_left_out_and_named(study, how):
    (study / "rows" / "a1.json").unlink()
    (study / "jobs" / "a1" / "scores.csv").unlink()
    if how == "gone":
        (study / "jobs" / "c0" / "scores.csv").unlink()
    elif how == "of fewer images":
        write_fit(study, "c1", "ocsvm", scores(20), images=slice(1, None), seed=1)
    else:
        write_fit(study, "c1", "ocsvm", scores(20), table={"minority": ~MINORITY}, seed=1)
    (line,) = tables(study)["benchmark-comparisons"]
    assert (line["A"], line["B"]) == ("conocc", "cae")
    said = captions(study)["benchmark-comparisons"]
    assert "Left out on made, since scores are missing or not of the same images: ocsvm." in said


def test_a_study_of_which_no_scores_are_left_says_so(study):
    for path in (study / "jobs").glob("*/scores.csv"):
        path.unlink()
    assert tables(study)["benchmark-comparisons"] == []
    assert "ocsvm, cae, conocc." in captions(study)["benchmark-comparisons"]


def test_a_failed_fit_is_no_part_of_a_mean(study):
    write_row(study, "a2", "cae", auc=None, seed=2)
    assert tables(study)["benchmark-intervals"][1]["AUC n"] == "2"
    assert len(tables(study)["benchmark-comparisons"]) == 3


def test_one_method_is_compared_with_nothing(tmp_path):
    write_fit(tmp_path, "a", "cae", scores(0))
    assert list(tables(tmp_path)) == ["benchmark-intervals"]


def test_a_sweep_is_not_tested(tmp_path):
    for lr in (0.1, 0.2):
        params = {"lr": lr}
        write_fit(tmp_path, f"a{lr}", "cae", scores(int(10 * lr)), protocol="sweep", params=params)
    assert tables(tmp_path) == {}


def test_too_few_patients_are_said_in_place_of_tests(tmp_path):
    one = {"patient": np.where(MINORITY, "p", PATIENT)}
    for method in ("cae", "conocc"):
        write_fit(tmp_path, method, method, scores(len(method)), table=one)
    assert tables(tmp_path)["benchmark-comparisons"] == []
    said = captions(tmp_path)["benchmark-comparisons"]
    assert "No tests on made: The variance of an AUC needs" in said


def test_a_difference_without_a_variance_is_shown_without_a_p(tmp_path):
    write_fit(tmp_path, "a", "cae", np.zeros(N))
    write_fit(tmp_path, "b", "conocc", MINORITY.astype(float))
    (line,) = tables(tmp_path)["benchmark-comparisons"]
    assert (line["AUC of A − B"], *list(line.values())[4:]) == ("0.5", "", "", "", "")


def test_damaged_scores_are_named(study):
    (study / "jobs" / "a0" / "scores.csv").write_text("path,minority\n")
    with pytest.raises(ValueError, match=r"Cannot read '.*a0.*scores\.csv'"):
        write_comparisons(study)


# Cross-validation


def test_folds_are_compared_by_the_mean_of_their_areas(tmp_path):
    """Two folds of other patients: the covariance of the means, and no scores pooled."""
    halves = [slice(0, 20), slice(20, N)]
    for fold, images in enumerate(halves):
        for method, seed in (("cae", 0), ("conocc", 5)):
            score = scores(seed + fold) + 100 * fold  # another scale in each fold
            write_fold(tmp_path, method, fold + 1, score, images)
    assert list(tables(tmp_path)) == ["crossval-5-patient-comparisons"]
    (line,) = tables(tmp_path)["crossval-5-patient-comparisons"]
    folds = [
        Fold(MINORITY[i], [scores(f)[i], scores(5 + f)[i]], PATIENT[i])
        for f, i in enumerate(halves)
    ]
    areas, covariance = mean_auc_covariance(folds)
    assert float(line["AUC of A − B"]) == pytest.approx(areas[1] - areas[0])
    error = np.array([1, -1]) @ covariance @ [1, -1]
    width = float(line["AUC of A − B high"]) - float(line["AUC of A − B low"])
    assert width == pytest.approx(2 * 1.959964 * error**0.5)
    assert "averaged over folds" in captions(tmp_path)["crossval-5-patient-comparisons"]


def test_a_method_that_lacks_a_fold_is_left_out(tmp_path):
    """Its mean would be of other images than that of the others."""
    for fold, images in enumerate([slice(0, 20), slice(20, N)]):
        for method in ("cae", "conocc", "ocsvm")[: 3 - fold]:
            score = scores(len(method))
            write_fold(tmp_path, method, fold + 1, score, images)
    (line,) = tables(tmp_path)["crossval-5-patient-comparisons"]
    assert (line["A"], line["B"]) == ("conocc", "cae")
    assert "the same images: ocsvm." in captions(tmp_path)["crossval-5-patient-comparisons"]


# Files


def test_the_tables_are_written_in_every_format(study):
    write_comparisons(study)
    names = {path.name for path in (study / "tables").iterdir()}
    assert names == {
        f"benchmark-{kind}.{ending}"
        for kind in ("intervals", "comparisons")
        for ending in ("csv", "md", "tex")
    }
    latex = (study / "tables" / "benchmark-comparisons.tex").read_text()
    assert "−" not in latex
    assert "AUC of A $-$ B" in latex


def test_tests_need_no_torch(study):
    program = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name.split('.')[0] != 'torch'\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from conocc.experiments.significance import write_comparisons\n"
        "assert len(write_comparisons(sys.argv[1])) == 2"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(study)], check=True)


# Runs


def write_runs(folder: Path, *scored: np.ndarray, **changes) -> list[Path]:
    """Write evaluated runs of the same images, the images of each in an order of their own."""
    runs = []
    for i, score in enumerate(scored):
        order = np.random.default_rng(i).permutation(N)
        table = TABLE | (changes if i == 1 else {})
        table = {name: np.asarray(column)[order] for name, column in table.items()}
        runs.append(write_fit(folder, f"run{i}", "cae", score[order], table=table))
        (runs[-1] / "run.json").write_text('{"method": "cae"}')
        counts = {"majority": 30, "minority": 10, "patients": 20}
        result = {"tested": "these", "cohort": "made", "metrics": {}, "counts": counts}
        result |= {"prevalence": 0.25, "decision": {}, "observed_rates": {}}
        (runs[-1] / "metrics.json").write_text(json.dumps(result))
    return runs


def test_runs_are_compared_on_the_same_images_in_whatever_order(tmp_path):
    scored = [scores(1, 0.5), scores(2, 1.5), scores(3, 0.6)]
    runs = write_runs(tmp_path, *scored)
    results, table = compare_runs(runs)
    assert list(results) == [f"cae ({run})" for run in runs]
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert [line.head for line in table.lines] == [
        ("made", f"cae ({runs[a]})", f"cae ({runs[b]})") for a, b in pairs
    ]
    tests = [compare_auc(MINORITY, scored[a], scored[b], patient=PATIENT) for a, b in pairs]
    for line, test, p in zip(table.lines, tests, holm([t.p for t in tests]), strict=True):
        area, plain, corrected = (cell.parts for cell in line.cells)
        assert [*area.values()] == pytest.approx([test.difference, test.low, test.high])
        assert plain[""] == pytest.approx(test.p)
        assert corrected[""] == pytest.approx(p)
    assert "seeds would have changed" in table.caption
    assert "averaged" not in table.caption


def test_slices_of_a_volume_whose_patient_is_unknown_are_one_patient(tmp_path):
    slices = np.array([f"v{i // 2}.nii.gz[{i % 2}]" for i in range(N)])
    unknown = {"path": slices, "patient": slices}
    scored = [scores(1), scores(2)]
    (line,) = compare_runs(write_runs(tmp_path, *scored, **unknown))[1].lines
    expected = compare_auc(MINORITY, *scored, patient=PATIENT)
    assert line.cells[1].parts[""] == pytest.approx(expected.p)


@pytest.mark.parametrize("how", ["images", "patients", "not evaluated", "twice", "alone"])
def test_runs_that_cannot_be_compared_are_refused(tmp_path, how):
    others = {"patient": PATHS} if how == "patients" else {}
    runs = write_runs(tmp_path, scores(1), scores(2), **others)
    said = f"'{runs[1]}' was evaluated on other images than '{runs[0]}', or on images of other pat"
    if how == "images":
        result = json.loads((runs[1] / "metrics.json").read_text())
        (runs[1] / "metrics.json").write_text(json.dumps({**result, "tested": "others"}))
    elif how == "not evaluated":
        (runs[1] / "metrics.json").unlink()
        said = f"'{runs[1]}' is no evaluated run: 'conocc evaluate {runs[1]} COHORT'"
    elif how != "patients":
        runs, said = {"twice": [runs[0], runs[0] / "."], "alone": runs[:1]}[how], "at least two"
    with pytest.raises(ValueError, match=re.escape(said)):
        compare_runs(runs)


@pytest.mark.parametrize("ending", ["csv", "md", "tex", "xls"])
def test_the_command_writes_its_table_and_no_other_file(tmp_path, capsys, ending):
    runs = [*map(str, write_runs(tmp_path, scores(1, 0.5), scores(2, 1.5)))]
    to = tmp_path / f"t.{ending}"
    again = ["compare", *runs, "--out", str(to)]
    if ending == "xls":
        assert run_command(again) == 1
        assert "must end in .csv, .md or .tex" in capsys.readouterr().err
        return
    assert run_command(again) == run_command(again) == 0
    assert "cae" in to.read_text()
    assert "30 majority and 10 minority" in capsys.readouterr().out
    to.write_text("mine\n")
    assert run_command(again) == 1
    assert to.read_text() == "mine\n"
