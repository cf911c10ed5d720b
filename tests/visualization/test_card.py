"""The model card: its facts, its promise, and nothing of a patient or a pixel."""

import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.experiments.run import evaluate_run, fit_run
from conocc.visualization.card import write_card

CLASS = "<b>be*nign*</b>|x"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A calibrated and evaluated run of a class with a hostile name, of known patients."""
    folder = tmp_path_factory.mktemp("card")
    rng = np.random.default_rng(0)
    rows, images = ["path,label"], folder / "images"
    images.mkdir()
    for i in range(120):
        label, spread = ((CLASS, 20), ("malignant", 90))[i % 2]
        pixels = np.clip(rng.normal(128, spread, (16, 16)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"mueller{i}_1.png")
        rows.append(f"mueller{i}_1.png,{label}")
    (images / "labels.csv").write_text("\n".join(rows))
    cohort = load_cohort(
        images / "labels.csv",
        Preprocessing(size=16),
        majority=[CLASS],
        patient_regex=r"(mueller\d+)_",
        calibration_size=0.5,
    )
    fit_run(cohort, "gabor_mahalanobis", {}, folder / "run", command="conocc fit mueller0")
    evaluate_run(folder / "run", cohort, command="conocc evaluate mueller0")
    return folder / "run"


def test_a_card_tells_purpose_data_figures_promise_limits_and_the_model(run):
    text, page = write_card(run)
    said = text.read_text(encoding="utf-8")
    parts = re.findall("^## (.*)$", said, re.M)
    assert parts == [
        *("What it is for", "What it is not for", "Data", "How well it tells the classes apart"),
        *("Threshold, and what it promises", "Limits", "How it was made"),
    ]
    measured = json.loads((run / "metrics.json").read_text())
    for name in ("value", "low", "high"):
        assert f"{measured['metrics']['AUC'][name]:.3f}" in said
    calibrated = json.loads((run / "run.json").read_text())["calibration"]
    assert f"of each of {calibrated['patients']} patients" in said
    assert re.search(r"\| calibration +\| majority .*\| +18 \| +18 \|", said)
    assert hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest() in said
    assert "not a medical device" in said
    assert page.read_text(encoding="utf-8").count("<h2>") == 7


def test_a_card_has_no_pixels_no_image_and_no_patient_and_is_no_place_for_tags(run):
    for path in write_card(run):
        said = path.read_text(encoding="utf-8")
        assert "mueller" not in said
        assert "data:image" not in said
        assert "<img" not in said
        assert "<b>" not in said.replace(r"\<b>", "")


def test_a_card_is_replaced_by_a_card_alone(run, tmp_path):
    assert write_card(run, out=tmp_path / "a") == write_card(run, out=tmp_path / "a")
    (tmp_path / "card.html").write_text("mine")
    with pytest.raises(FileExistsError, match="card.html"):
        write_card(run, out=tmp_path)
    assert [path.name for path in tmp_path.glob("card.*")] == ["card.html"]


def test_what_was_not_done_is_said(run, tmp_path):
    cohort = load_cohort(
        run.parent / "images" / "labels.csv", Preprocessing(size=16), majority=[CLASS]
    )
    fit_run(cohort, "gabor_mahalanobis", {}, tmp_path / "run", command="")
    said = write_card(tmp_path / "run")[0].read_text(encoding="utf-8")
    assert "It has not been evaluated" in said
    assert "No image is flagged, since nothing can be promised" in said
    with pytest.raises(FileNotFoundError, match="not a run"):
        write_card(tmp_path)
