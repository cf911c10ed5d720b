"""A run's folder: what is in it, what happens when it is asked for again, who is left out."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import QUICK
from conocc import Cohort, load, load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.experiments import artifacts
from conocc.experiments.artifacts import Embedding, Gallery
from conocc.experiments.run import calibrate_run, embed_run, evaluate_run, fit_run, make_detector
from conocc.io.files import folder_lock
from conocc.metrics import ranking as metrics
from conocc.thresholds.rule import Rule
from conocc.visualization.report import write_report
from interrupting import interrupt_at

PARAMS = {"epochs": 2, "interval": 1, "random_state": 0}


def small_cohort(*, patients_known: bool = True, seed: int = 0, n: int = 30) -> Cohort:
    """Twenty majority images (twelve of them training) and ten minority ones, two a patient."""
    rng = np.random.default_rng(seed)
    names = [f"{i:02d}.png" for i in range(n)]
    minority = np.arange(n) >= 20
    images = rng.random((n, 1, 16, 16), dtype=np.float32)
    images[minority, :, 8:] += 1
    return Cohort(
        name="small",
        images=images,
        minority=minority,
        patient=np.array([f"p{seed}-{i // 2}" for i in range(n)] if patients_known else names),
        split=np.array(["train"] * 12 + ["test"] * (n - 12)),
        path=np.array(names),
        digest=np.array([f"{seed}-{i}" for i in range(n)]),
        label=np.where(minority, "bad", "good"),
        preprocessing=Preprocessing(size=16),
        patients_known=patients_known,
        notes=("made for a test",),
    )


@pytest.fixture
def cohort() -> Cohort:
    return small_cohort()


@pytest.fixture
def run(cohort, tmp_path):
    out = tmp_path / "run"
    assert fit_run(cohort, "conocc", PARAMS, out, command="conocc fit small")
    return out


def test_a_finished_run_holds_what_it_made_and_nothing_else(run):
    assert {path.name for path in run.iterdir()} == {
        "run.json",
        "split.csv",
        "history.csv",
        "model.safetensors",
    }
    about = json.loads((run / "run.json").read_text())
    assert about["command"] == "conocc fit small"
    assert about["notes"] == ["made for a test"]
    assert about["params"]["epochs"] == 2
    assert about["finished"] is True
    assert pd.read_csv(run / "split.csv")["split"].tolist() == ["train"] * 12 + ["test"] * 18
    assert pd.read_csv(run / "history.csv")["epoch"].tolist() == [1, 2]
    assert load(run / "model.safetensors").preprocessing_ == Preprocessing(size=16).to_dict()


def test_only_majority_training_images_are_learned_from(run, cohort):
    detector = load(run / "model.safetensors")
    assert detector.knows(cohort.images).tolist() == [True] * 12 + [False] * 18
    assert detector.knows_patients(cohort.patient).tolist() == [True] * 12 + [False] * 18


def test_a_finished_run_is_left_alone(run, cohort):
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert not fit_run(cohort, "conocc", PARAMS, run, command="again")
    assert {path: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("conocc", {**PARAMS, "epochs": 3}, "epochs was 2, is 3"),
        ("cae", {"epochs": 2, "random_state": 0}, "method was 'conocc', is 'cae'"),
    ],
)
def test_a_run_of_other_settings_is_not_overwritten(run, cohort, method, params, said):
    with pytest.raises(ValueError, match=f"other settings: .*{said}"):
        fit_run(cohort, method, params, run, command="other")


def test_a_run_on_other_images_is_not_overwritten(run):
    with pytest.raises(ValueError, match="other settings: images was"):
        fit_run(small_cohort(seed=1), "conocc", PARAMS, run, command="other")


def test_an_interrupted_run_goes_on_and_ends_with_the_same_model(
    run, cohort, tmp_path, monkeypatch
):
    interrupt_at(2, monkeypatch)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        fit_run(cohort, "conocc", PARAMS, broken, command="conocc fit small")
    assert (broken / "checkpoint").exists()
    with pytest.raises(ValueError, match="not finished"):
        evaluate_run(broken, cohort, command="")
    assert fit_run(cohort, "conocc", PARAMS, broken, command="conocc fit small")
    model = "model.safetensors"
    assert (broken / model).read_bytes() == (run / model).read_bytes()
    assert not (broken / "checkpoint").exists()


@pytest.mark.parametrize(
    ("wrong", "said"), [({"epochs": 0}, "'epochs' .* Got 0"), ({"device": "mps"}, "device 'mps'")]
)
def test_a_fit_that_cannot_be_does_not_stand_in_the_way_of_the_corrected_one(
    cohort, tmp_path, wrong, said
):
    with pytest.raises(ValueError, match=said):
        fit_run(cohort, "conocc", {**PARAMS, **wrong}, tmp_path / "run", command="")
    assert not (tmp_path / "run").exists()


def test_an_alias_of_a_method_is_kept_under_its_id(cohort, tmp_path):
    assert fit_run(cohort, "profile", {}, tmp_path / "run", command="")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["method"] == "gabor_mahalanobis"
    assert not fit_run(cohort, "gabor_mahalanobis", {}, tmp_path / "run", command="")


def test_parameters_may_be_numpys(run, cohort, tmp_path):
    numpys = {**PARAMS, "epochs": np.int64(2), "bottleneck": np.int32(256), "gamma": np.float32(10)}
    assert fit_run(cohort, "conocc", numpys, tmp_path / "numpys", command="conocc fit small")
    model = "model.safetensors"
    assert (tmp_path / "numpys" / model).read_bytes() == (run / model).read_bytes()
    assert not fit_run(cohort, "conocc", PARAMS, tmp_path / "numpys", command="")


def test_evaluation_scores_the_test_images_and_no_others(run, cohort):
    result = evaluate_run(run, cohort, command="conocc evaluate")
    scores = pd.read_csv(run / "scores.csv")
    assert scores["path"].tolist() == cohort.path[12:].tolist()
    detector = load(run / "model.safetensors")
    expected = detector.anomaly_score(cohort.images[12:])
    assert np.array_equal(scores["anomaly_score"], expected)
    assert scores["predicted"].isna().all()  # it is not calibrated
    assert result["counts"] == {"majority": 8, "minority": 10, "patients": 9}
    assert result["prevalence"] == 10 / 18
    assert result["left_out"]["trained on"] == 12
    assert result["metrics"]["AUC"]["value"] == metrics.auc(cohort.minority[12:], expected)
    assert json.loads((run / "metrics.json").read_text()) == json.loads(json.dumps(result))


@pytest.fixture
def no_intervals(monkeypatch):
    """Intervals take seconds, and say nothing of images and features."""
    monkeypatch.setattr("conocc.experiments.run.measured", lambda *args: {})


@pytest.mark.usefixtures("no_intervals")
def test_evaluation_keeps_the_images_it_erred_on_most(run, cohort):
    """Majority from the top, minority from the bottom, as the network saw and rebuilt them."""
    evaluate_run(run, cohort, command="")
    kept = Gallery.load(run / "gallery.npz")
    table = pd.read_csv(run / "scores.csv").sort_values("anomaly_score")
    majority, minority = table[~table["minority"]], table[table["minority"]]
    assert kept.path.tolist() == [*majority["path"][::-1], *minority["path"]][:18]
    assert kept.minority.tolist() == [False] * 8 + [True] * 10
    detector = load(run / "model.safetensors")
    images = cohort.images[[cohort.path.tolist().index(path) for path in kept.path]]
    assert np.array_equal(kept.input, detector.normalized(images))
    assert np.array_equal(kept.reconstruction, detector.reconstruct(images))
    assert np.array_equal(kept.residual, kept.input - kept.reconstruction)
    assert kept.scale() == detector.residual_scale_
    # Eq. (6) is the residual's sum of squares.
    assert np.allclose((kept.residual**2).sum((1, 2, 3)), kept.anomaly_score, rtol=1e-4)
    assert np.isin(kept.montage, cohort.images[12:]).all()
    assert kept.montage_minority.tolist() == [False] * 8 + [True] * 10


@pytest.mark.usefixtures("no_intervals")
def test_evaluation_keeps_features_of_training_and_test_images_and_the_center(run, cohort):
    """Training images are those of the run's own split, whatever the cohort says today."""
    evaluate_run(run, replace(cohort, split=np.array(["test"] * 30)), command="")
    kept = Embedding.load(run / "embedding.npz")
    detector = load(run / "model.safetensors")
    assert np.array_equal(kept.train, detector.embed(cohort.images[:12]))
    assert np.array_equal(kept.test, detector.embed(cohort.images[12:]))
    assert kept.minority.tolist() == cohort.minority[12:].tolist()
    assert np.array_equal(kept.center[0], detector.network_.mu.numpy())
    assert kept.images.tolist() == [12, 8, 10]


@pytest.mark.usefixtures("no_intervals")
def test_where_the_training_images_are_not_at_hand_the_test_images_are_kept(run, cohort):
    evaluate_run(run, cohort.where(split="test"), command="")
    assert Embedding.load(run / "embedding.npz").train.shape == (0, 256)


def test_a_large_cohort_keeps_features_of_some_images_of_each_group(run, cohort, monkeypatch):
    monkeypatch.setattr(artifacts, "EMBEDDED", 5)
    kept = embed_run(run, cohort)
    assert (len(kept.train), kept.minority.tolist()) == (5, [False] * 5 + [True] * 5)
    assert kept.images.tolist() == [12, 8, 10]


@pytest.mark.usefixtures("no_intervals")
@pytest.mark.parametrize(
    ("method", "reconstructs", "embeds", "center"),
    [("ocsvm", False, False, False), ("dsvdd", False, True, True), ("cae", True, True, False)],
)
def test_what_a_method_does_not_have_is_left_out(
    method, reconstructs, embeds, center, cohort, tmp_path
):
    out = tmp_path / "r"
    fit_run(cohort, method, {"random_state": 0, **QUICK[method]}, out, command="")
    evaluate_run(out, cohort, command="")
    kept = Gallery.load(out / "gallery.npz")
    assert len(kept.input) == 18
    assert (len(kept.reconstruction) > 0) is reconstructs
    assert (out / "embedding.npz").exists() is embeds
    if embeds:
        assert len(Embedding.load(out / "embedding.npz").center) == center
    else:
        with pytest.raises(ValueError, match="no bottleneck features"):
            embed_run(out, cohort)


def test_the_runs_own_split_holds_whatever_the_cohort_says_today(run, cohort):
    """Images are recognised by content: a new split cannot turn training images into test ones."""
    turned = replace(cohort, split=np.array(["test"] * 30))
    assert evaluate_run(run, turned, command="")["counts"]["majority"] == 8


def test_images_that_were_trained_on_are_left_out_under_any_name(run, cohort):
    """Renamed, their digest changed, in another cohort: their pixels are known."""
    other = replace(
        cohort,
        split=np.array(["test"] * 30),
        digest=np.array([f"new-{i}" for i in range(30)]),
        patient=np.array([f"new-{i}" for i in range(30)]),
    )
    result = evaluate_run(run, other, command="")
    assert result["left_out"]["trained on"] == 12
    assert result["counts"]["majority"] == 8


def test_new_images_of_a_patient_trained_on_are_left_out(run):
    other = small_cohort(seed=1)
    patient = other.patient.copy()
    patient[12:16] = "p0-0"
    result = evaluate_run(run, replace(other, patient=patient, split=other.split), command="")
    assert result["left_out"]["of a patient trained on"] == 4


def another_hospital(**changes) -> Cohort:
    """Other images, of patients who have the names of the first cohort's, in another namespace."""
    first = small_cohort()
    return replace(
        small_cohort(seed=1), name="other", patient=first.patient, namespace="B", **changes
    )


@pytest.fixture
def run_of_one_hospital(tmp_path):
    out = tmp_path / "one"
    fit_run(replace(small_cohort(), namespace="A"), "cae", {"epochs": 1}, out, command="")
    return out


def test_patients_of_two_hospitals_are_not_the_same_by_name_alone(run_of_one_hospital):
    """Both number from 1; it is said, and whoever knows better says so."""
    result = evaluate_run(run_of_one_hospital, another_hospital(), command="")
    assert not any(result["left_out"].values())
    assert result["counts"]["majority"] == 20
    assert result["assumed"] == [
        "15 patients of 'other' with a name that the run knows are not taken for the same: nobody "
        "said that they are (--same-patients)."
    ]


def test_patients_are_the_same_where_that_is_said(run_of_one_hospital):
    result = evaluate_run(run_of_one_hospital, another_hospital(), command="", same_patients=True)
    assert result["left_out"]["of a patient trained on"] == 12
    assert "are taken for the same, as asked" in result["assumed"][0]


def test_patients_are_the_same_where_an_image_of_both_has_the_same_patient(run_of_one_hospital):
    """The same cohort, moved and grown, and its files perhaps of another format."""
    grown = another_hospital()
    images = grown.images.copy()
    images[19] = small_cohort().images[19]
    result = evaluate_run(run_of_one_hospital, replace(grown, images=images), command="")
    assert result["left_out"]["of a patient trained on"] == 12
    assert "as images of both show" in result["assumed"][0]


def test_names_that_hold_everywhere_can_be_said_to_be_of_others(run):
    """Two hospitals whose PatientIDs begin at 1."""
    other = replace(another_hospital(), namespace="")
    assert evaluate_run(run, other, command="")["left_out"]["of a patient trained on"] == 12


def test_names_that_hold_everywhere_can_be_denied(run):
    other = replace(another_hospital(), namespace="")
    result = evaluate_run(run, other, command="", same_patients=False)
    assert result["left_out"]["of a patient trained on"] == 0


def test_slices_of_one_volume_are_no_evidence_of_their_own(tmp_path):
    """Intervals go by volume where patients are not known."""
    images = np.random.default_rng(3).random((30, 1, 16, 16), dtype=np.float32)
    cohort = replace(small_cohort(patients_known=False), images=images)
    volumes = replace(cohort, path=np.array([f"{i // 3}.nii[{i % 3}]" for i in range(30)]))
    results = []
    for name, each in (("slices", volumes), ("images", cohort)):
        fit_run(each, "cae", {"epochs": 1, "random_state": 0}, tmp_path / name, command="")
        results.append(evaluate_run(tmp_path / name, each, command=""))
    assert results[0]["counts"] == results[1]["counts"]
    assert results[0]["counts"]["patients"] is None
    auc = [result["metrics"]["AUC"] for result in results]
    assert auc[0]["value"] == auc[1]["value"]
    assert auc[0]["low"] != auc[1]["low"]


def test_unknown_patients_are_not_taken_for_the_same_by_their_file_names(tmp_path):
    """Files anywhere can be called 1.png."""
    fit_run(small_cohort(patients_known=False), "cae", {"epochs": 1}, tmp_path / "r", command="")
    result = evaluate_run(tmp_path / "r", small_cohort(patients_known=False, seed=1), command="")
    assert result["left_out"]["of a patient trained on"] == 0


def test_majority_images_alone_tell_false_alarms(run, cohort):
    calibrate_run(run, small_cohort(seed=1), command="")
    rule = Rule(false_alarms=0.3)
    result = evaluate_run(run, cohort.where(minority=False), command="", rule=rule)
    assert result["metrics"] == {}
    assert result["counts"] == {"majority": 8, "minority": 0, "patients": 4}
    rates = result["observed_rates"]
    assert rates["false_alarms"]["of"] == 8
    assert rates["sensitivity"] is rates["false_discoveries"] is None
    assert len(Gallery.load(run / "gallery.npz").minority) > 0
    write_report(run)
    page = (run / "report.html").read_text()
    assert "only false alarms can be told" in page
    assert "ROC curves" not in page


def test_a_cohort_of_training_images_only_cannot_be_evaluated_on(run, cohort):
    with pytest.raises(ValueError, match="0 majority .* 12 left out: trained on"):
        evaluate_run(run, cohort.where(split="train"), command="")


def test_too_few_patients_for_an_interval_are_said_and_the_value_stays(tmp_path, cohort):
    one = replace(cohort, patient=np.where(cohort.minority, "one", cohort.patient))
    fit_run(one, "cae", {"epochs": 1, "random_state": 0}, tmp_path / "r", command="")
    result = evaluate_run(tmp_path / "r", one, command="")["metrics"]["AUC"]
    assert result["low"] is None
    assert "patient" in result["reason"]


def test_an_unknown_method_or_parameter_names_those_there_are():
    with pytest.raises(ValueError, match="no method 'cea'; there are .*cae"):
        make_detector("cea", {})
    with pytest.raises(ValueError, match="'cae' has no parameter 'epoch'; it has .*epochs"):
        make_detector("cae", {"epoch": 3})


@pytest.mark.parametrize("text", ["", "{", '{"format": 1}', "[]", '{"format": 99}'])
def test_a_damaged_run_json_is_one_sentence(run, cohort, text):
    (run / "run.json").write_text(text)
    with pytest.raises(ValueError, match="Cannot read .*run.json"):
        fit_run(cohort, "conocc", PARAMS, run, command="")


@pytest.mark.parametrize("name", ["phantom-mri", "phantom-ffdm", "phantom-chestx"])
def test_a_trained_autoencoder_tells_a_phantoms_classes_apart(name, tmp_path):
    """AUC of 0.75 or more, and better than untrained, in three paired seeds."""
    counts = {"phantom-mri": (32, 12), "phantom-ffdm": (64, 30), "phantom-chestx": (48, 12)}
    size, epochs = counts[name]
    cohort = load_cohort(name, Preprocessing(size=size), cache=False)
    training_images = cohort.where(split="train").images
    test = cohort.where(split="test")
    for seed in range(3):
        params = {"lr": 1e-3, "random_state": seed}
        trained = make_detector("cae", {"epochs": epochs, **params}).fit(training_images)
        untrained = make_detector("cae", {"epochs": 1, "lr": 1e-12, "random_state": seed})
        untrained.fit(training_images)
        aucs = [
            metrics.auc(test.minority, d.anomaly_score(test.images)) for d in (trained, untrained)
        ]
        assert aucs[0] > aucs[1], aucs
        assert aucs[0] >= 0.75, aucs
        assert torch.isfinite(torch.from_numpy(trained.anomaly_score(test.images))).all()


def test_a_run_that_another_process_writes_is_left_alone(run, cohort, monkeypatch):
    """The lock is of this process's own, which excludes as another's does."""
    monkeypatch.setattr("conocc.io.files.PATIENCE_S", 0)
    with folder_lock(run):
        for write in (
            lambda: fit_run(cohort, "conocc", PARAMS, run, command=""),
            lambda: evaluate_run(run, cohort, command=""),
            lambda: embed_run(run, cohort),
            lambda: calibrate_run(run, cohort, command=""),
        ):
            with pytest.raises(BlockingIOError, match="at work here"):
                write()
    assert not (run / ".lock").exists()


def test_what_is_no_run_is_not_made_a_folder(tmp_path, cohort):
    with pytest.raises(FileNotFoundError, match="is not a run"):
        evaluate_run(tmp_path / "typo", cohort, command="")
    assert not (tmp_path / "typo").exists()
