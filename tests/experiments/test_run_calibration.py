"""A calibrated run: what calibrates it and what must not, and what its threshold then keeps to."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_run import PARAMS, small_cohort

from conftest import quick
from conocc import Cohort, load
from conocc.detectors.reconstruction_scores import told_to_score_by
from conocc.experiments.groups import summary
from conocc.experiments.inference import score_files
from conocc.experiments.run import calibrate_run, copy_run, evaluate_run, fit_run, read_run
from conocc.experiments.seen import contents
from conocc.thresholds.rule import Rule


@pytest.fixture
def run(tmp_path):
    """A run that is not calibrated."""
    out = tmp_path / "run"
    assert fit_run(small_cohort(), "conocc", PARAMS, out, command="conocc fit small")
    return out


@pytest.fixture
def no_intervals(monkeypatch):
    """Those of the metrics take seconds, and say nothing of thresholds."""
    monkeypatch.setattr("conocc.experiments.run.measured", lambda *args: {})


# --- with the fit ------------------------------------------------------------------------------


def calibrating_cohort(**changes) -> Cohort:
    """The small cohort with images 8 to 11, of patients p0-4 and p0-5, on the calibration side."""
    cohort = small_cohort()
    split = cohort.split.astype("U11")
    split[8:12] = "calibration"
    return replace(cohort, split=split, **changes)


@pytest.fixture
def calibrated(tmp_path):
    out = tmp_path / "calibrated"
    assert fit_run(calibrating_cohort(), "conocc", PARAMS, out, command="conocc fit small")
    return out


def test_calibration_images_are_scored_and_reach_nothing_else(calibrated, tmp_path):
    """Weights, center and own threshold are those of a fit to a cohort without these images."""
    detector = load(calibrated / "model.safetensors")
    cohort = calibrating_cohort()
    scores = detector.anomaly_score(cohort.images[8:12])
    assert detector.calibration_.scores == tuple(scores)
    assert detector.calibration_.patient == (0, 0, 1, 1)
    assert detector.knows(cohort.images).tolist() == [True] * 8 + [False] * 22
    without = cohort.take(np.flatnonzero(cohort.split != "calibration"))
    assert fit_run(without, "conocc", PARAMS, tmp_path / "without", command="")
    other = load(tmp_path / "without" / "model.safetensors")
    assert np.array_equal(other.anomaly_score(cohort.images), detector.anomaly_score(cohort.images))
    assert other.offset_ == detector.offset_
    assert np.array_equal(other.network_.mu, detector.network_.mu)


def test_a_calibrated_run_says_what_calibrated_it(calibrated):
    assert pd.read_csv(calibrated / "split.csv")["split"].tolist() == (
        ["train"] * 8 + ["calibration"] * 4 + ["test"] * 18
    )
    table = pd.read_csv(calibrated / "calibration.csv")
    assert table["path"].tolist() == ["08.png", "09.png", "10.png", "11.png"]
    detector = load(calibrated / "model.safetensors")
    assert tuple(table["anomaly_score"]) == detector.calibration_.scores
    noted = read_run(calibrated)["calibration"]
    assert (noted["images"], noted["patients"], noted["command"]) == (4, 2, "conocc fit small")


@pytest.mark.usefixtures("no_intervals")
def test_an_evaluation_leaves_out_what_calibrated(calibrated):
    """By the run's split; by pixels under any name; and other images of these patients."""
    cohort = calibrating_cohort()
    assert evaluate_run(calibrated, cohort, command="")["left_out"]["calibrated on"] == 4
    patient = small_cohort(seed=1).patient.copy()
    patient[12] = "p0-4"
    renamed = replace(
        cohort,
        split=np.array(["test"] * 30),
        digest=np.array([f"new-{i}" for i in range(30)]),
        patient=patient,
    )
    (calibrated / "metrics.json").unlink()  # results on other images are not replaced
    left_out = evaluate_run(calibrated, renamed, command="")["left_out"]
    assert left_out["trained on"] == 8
    assert left_out["calibrated on"] == 4
    assert left_out["of a patient calibrated on"] == 1


@pytest.mark.usefixtures("no_intervals")
def test_a_threshold_keeps_to_its_calibration_whatever_is_tested(calibrated):
    """Asked anew at each evaluation; the scores of the test images do not move it."""
    cohort = calibrating_cohort()
    rule = Rule(false_alarms=0.8, confidence=0.9)  # 1 - 0.2^2 = 0.96 of two patients
    first = evaluate_run(calibrated, cohort, command="", rule=rule)
    scores = load(calibrated / "model.safetensors").calibration_
    assert first["decision"]["threshold"] == scores.threshold(false_alarms=0.8, confidence=0.9)
    brighter = cohort.images.copy()
    brighter[12:] *= np.linspace(1, 9, 16)
    second = evaluate_run(calibrated, replace(cohort, images=brighter), command="", rule=rule)
    assert second["decision"]["threshold"] == first["decision"]["threshold"]
    table = pd.read_csv(calibrated / "scores.csv")
    above = table["anomaly_score"] > first["decision"]["threshold"]
    assert ((table["predicted"] == "minority") == above).all()
    assert second["observed_rates"]["sensitivity"]["value"] == above[table["minority"]].mean()
    assert second["observed_rates"]["false_alarms"]["value"] == above[~table["minority"]].mean()
    p_values = scores.p_values(table["anomaly_score"])
    assert table["p_value"].tolist() == p_values.tolist()
    assert second["decision"]["unit"] == "image"


@pytest.mark.usefixtures("no_intervals")
def test_a_run_without_calibration_has_no_p_values_and_no_promise(run):
    cohort = small_cohort()
    result = evaluate_run(run, cohort, command="")
    assert "nothing can be promised" in result["decision"]["words"]
    assert set(result["observed_rates"].values()) == {None}
    assert pd.read_csv(run / "scores.csv")[["p_value", "predicted"]].isna().all().all()
    before = (run / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="not calibrated.*--calibrate"):
        evaluate_run(run, cohort, command="", rule=Rule(false_alarms=0.5))
    assert (run / "metrics.json").read_bytes() == before


def test_a_batch_by_patient_is_refused_before_a_file_is_scored(calibrated, tmp_path):
    """Nobody says whose new files are."""
    rule = Rule(fdr=0.5, unit="patient")
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").touch()
    with pytest.raises(ValueError, match="needs to know whose images"):
        score_files(calibrated, [new], new / "scores.csv", rule=rule)
    assert [path.name for path in new.iterdir()] == ["a.png"]


def test_a_batch_by_patient_is_evaluated_where_patients_are_known(calibrated):
    """Above two calibration patients p is 1/3 and more: none of nine is flagged at 50 %."""
    rule = Rule(fdr=0.5, unit="patient")
    result = evaluate_run(calibrated, small_cohort(), command="", rule=rule)
    assert result["observed_rates"]["false_alarms"]["of"] == 4
    assert set(pd.read_csv(calibrated / "scores.csv")["predicted"]) == {"majority"}


# --- afterwards --------------------------------------------------------------------------------


def new_images(**changes) -> Cohort:
    """A cohort that the run has not seen, all on the side that loading gave."""
    return replace(small_cohort(seed=1), **changes)


def test_a_run_is_calibrated_afterwards_on_majority_images_it_never_saw(run):
    """Twenty of the other cohort, whichever side they are on; the ten of the minority are not."""
    before = load(run / "model.safetensors")
    cohort = new_images()
    found = calibrate_run(run, cohort, command="conocc calibrate")
    assert (found["images"], found["patients"]) == (20, 10)
    assert {reason: n for reason, n in found["left_out"].items() if n} == {
        "of the minority class": 10
    }
    after = load(run / "model.safetensors")
    assert after.calibration_.scores == tuple(before.anomaly_score(cohort.images[:20]))
    assert after.offset_ == before.offset_
    assert after.preprocessing_ == before.preprocessing_
    assert read_run(run)["calibration"] == found
    assert not fit_run(small_cohort(), "conocc", PARAMS, run, command="again")  # still finished


@pytest.mark.usefixtures("no_intervals")
def test_each_score_of_a_run_is_decided_on_by_its_own_calibration(calibrated, tmp_path):
    before = load(calibrated / "model.safetensors")
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    out = tmp_path / "scores.csv"
    asked = {"score": "correlation", "rule": Rule(false_alarms=0.7)}
    with pytest.raises(ValueError, match="ConOCC is not calibrated"):
        score_files(calibrated, [folder], out, **asked)
    found = calibrate_run(calibrated, new_images(), command="", score="correlation")
    assert read_run(calibrated)["calibration-correlation"] == found
    after = load(calibrated / "model.safetensors")
    assert (after.scored_by, after.calibration_) == ("residual", before.calibration_)
    turned = load(calibrated / "model.safetensors").set_params(scored_by="correlation")
    table = pd.read_csv(calibrated / "calibration-correlation.csv")
    assert tuple(table["anomaly_score"]) == turned.calibration_.scores
    assert len(pd.read_csv(calibrated / "calibration.csv")) == 4
    score_files(calibrated, [folder], out, **asked)
    (row,) = pd.read_csv(out).itertuples()
    assert row.anomaly_score == turned.anomaly_score(pixels[None])[0]
    assert (row.predicted == "minority") == (row.anomaly_score > turned.threshold(false_alarms=0.7))
    assert json.loads((tmp_path / "scores.about.json").read_text())["scored_by"] == "correlation"
    copied = copy_run(calibrated, tmp_path / "copy", "correlation")
    assert copy_run(calibrated, tmp_path / "copy", "correlation") == copied
    assert read_run(copied)["calibration"] == found
    evaluate_run(copied, small_cohort(), command="")
    scores = pd.read_csv(copied / "scores.csv")["anomaly_score"]
    tested = small_cohort().where(split="test")
    assert set(scores) == set(turned.anomaly_score(tested.images))
    with pytest.raises(ValueError, match="OCSVM has one score"):
        told_to_score_by(quick("ocsvm").fit(tested.images), "correlation")


def test_what_was_trained_on_or_is_tested_does_not_calibrate(run):
    """By pixels, whatever the file; by the split that the run noted; and their patients."""
    own = small_cohort()
    other = new_images()
    images = other.images.copy()
    images[0] = own.images[0]  # trained on, in another file
    digest, patient = other.digest.copy(), other.patient.copy()
    digest[2] = own.digest[12]  # a test image
    patient[4], patient[6] = "p0-0", "p0-6"  # of the training, and of the test
    found = calibrate_run(
        run, replace(other, images=images, digest=digest, patient=patient), command=""
    )
    assert {reason: n for reason, n in found["left_out"].items() if n} == {
        "of the minority class": 10,
        "of the test split": 1,
        "of a patient of the test split": 1,
        "trained on": 1,
        "of a patient trained on": 1,
    }
    table = pd.read_csv(run / "calibration.csv")
    assert table["path"].tolist() == [f"{i:02d}.png" for i in (1, 3, 5, *range(7, 20))]


def test_a_runs_own_cohort_has_nothing_left_to_calibrate_on(run):
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"10 left out: of the minority.* 12 left out: trained on"):
        calibrate_run(run, small_cohort(), command="")
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.usefixtures("no_intervals")
def test_what_calibrated_afterwards_is_left_out_of_evaluations(run):
    calibrate_run(run, new_images().take(range(8, 12)), command="")
    result = evaluate_run(run, new_images(), command="")
    assert result["left_out"]["calibrated on"] == 4
    assert result["counts"]["majority"] == 16


@pytest.mark.usefixtures("no_intervals")
def test_patients_of_another_hospital_calibrate_unless_they_are_said_to_be_the_same(run):
    """Whatever their names; who calibrated is known again, by name in the same place."""
    other = new_images(patient=small_cohort().patient, namespace="B")
    found = calibrate_run(run, other.take(range(8, 12)), command="")
    assert (found["images"], found["patients"]) == (4, 2)
    assert "2 patients of 'small' with a name that the run knows are not" in found["assumed"][0]
    more = replace(small_cohort(seed=2), patient=other.patient, namespace="B")
    result = evaluate_run(run, more, command="")
    assert result["left_out"]["of a patient calibrated on"] == 4
    assert result["counts"]["majority"] == 16
    with pytest.raises(ValueError, match=r" 8 left out: of a patient of the test split"):
        calibrate_run(run, other, command="", same_patients=True)


@pytest.mark.usefixtures("no_intervals")
def test_a_copy_in_another_format_is_known_by_its_pixels(run, calibrated):
    """Its files have other hashes: its test images set thresholds, and its patients were others."""
    files = np.array([f"{i}.bmp" for i in range(30)])
    copy = replace(small_cohort(), digest=files, namespace="B", split=np.array(["test"] * 30))
    result = evaluate_run(calibrated, copy, command="")
    assert "taken for the same, as images of both show" in result["assumed"][0]
    with pytest.raises(ValueError, match=r" 8 left out: of the test split\. 12 .*: trained on"):
        calibrate_run(run, copy, command="")
    other = replace(new_images(), digest=files, namespace="B")
    assert calibrate_run(run, other, command="")["images"] == 20
    more = replace(other, digest=np.char.add("0", files), namespace="C")
    with pytest.raises(ValueError, match=r" 20 left out: calibrated on"):
        evaluate_run(run, more, command="")


def test_images_without_contrast_are_known_by_their_files_alone():
    """All that are black have the same pixels, whoever is on them."""
    black = replace(small_cohort(), images=np.zeros((30, 1, 16, 16), np.float32))
    assert contents(black) == black.digest.tolist()


@pytest.mark.usefixtures("no_intervals")
def test_an_evaluation_says_whether_the_majority_images_are_like_the_calibration(calibrated):
    """Of the minority images nothing is expected; of each patient one image counts."""
    result = evaluate_run(calibrated, calibrating_cohort(), command="")
    batch = result["batch"]
    assert (batch["images"], batch["expected"]) == (4, pytest.approx(4 / 3))
    said = f"{batch['small']} of 4 majority images, one a patient, have p ≤ 0.334; 1.33 would be"
    assert batch["words"][0].startswith(said)
    assert {*batch["words"]} < {*summary(result)}
    assert batch["moved"] == {}  # of a cohort that was not read from files


@pytest.mark.usefixtures("no_intervals")
def test_patients_who_were_hashed_with_another_key_are_refused(tmp_path):
    """Their names say nothing then of who was trained on; the key of the calibration counts too."""
    run, here = tmp_path / "run", replace(small_cohort(), key="here")
    fit_run(here, "cae", {"epochs": 1}, run, command="")
    assert evaluate_run(run, here, command="")["counts"]["majority"] == 8
    elsewhere = replace(new_images(), key="elsewhere")
    with pytest.raises(ValueError, match=r"'small' are hashed with another key .* CONOCC_CONFIG"):
        calibrate_run(run, elsewhere, command="")
    with pytest.raises(ValueError, match="hashed with another key"):
        evaluate_run(run, replace(here, key="elsewhere"), command="")
    copy_run(run, tmp_path / "copy")
    assert evaluate_run(tmp_path / "copy", new_images(), command="")["counts"]["majority"] == 20
    assert calibrate_run(run, elsewhere, command="", same_patients=False)["images"] == 20
    plain = tmp_path / "plain"
    fit_run(small_cohort(), "cae", {"epochs": 1}, plain, command="")
    calibrate_run(plain, elsewhere.take(range(4)), command="")
    with pytest.raises(ValueError, match="hashed with another key"):
        evaluate_run(plain, here, command="")


def test_unknown_patients_calibrate_as_images(tmp_path):
    fit_run(small_cohort(patients_known=False), "cae", {"epochs": 1}, tmp_path / "r", command="")
    found = calibrate_run(tmp_path / "r", small_cohort(patients_known=False, seed=1), command="")
    assert (found["images"], found["patients"]) == (20, None)
    assert load(tmp_path / "r" / "model.safetensors").calibration_.patient is None


def test_unknown_patients_of_volumes_calibrate_as_files(tmp_path):
    """Two slices each: ten files, which were called ten patients."""
    cohort = small_cohort(patients_known=False, seed=1)
    cohort = replace(cohort, path=np.array([f"{i // 2}.nii[{i % 2}]" for i in range(len(cohort))]))
    fit_run(small_cohort(patients_known=False), "cae", {"epochs": 1}, tmp_path / "r", command="")
    assert calibrate_run(tmp_path / "r", cohort, command="")["patients"] is None
    known = load(tmp_path / "r" / "model.safetensors").calibration_
    assert (known.patients, known.each) == (10, "file")
