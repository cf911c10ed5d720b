"""Numbers at their ends, and cohorts of almost nothing: a result or one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import quick
from made_cohorts import make_folder
from test_cli import SOME_FAILED, call, table

QUICK = ("--epochs", 1, "--interval", 1, "--size", 16, "--no-cache", "--quiet")

# What becomes of images, or of vectors, before they are learned.
NUMBERS = {
    "two": lambda x: x[:2],
    "all equal": lambda x: np.repeat(x[:1], len(x), axis=0),
    "zero": np.zeros_like,
    "constant, each another": lambda x: x * 0 + np.arange(20.0).reshape(-1, *[1] * (x.ndim - 1)),
    "denormal": lambda x: (x * 1e-42).astype(np.float32),
    "on a large offset": lambda x: 1e9 + 1e-6 * x,
    "huge": lambda x: x * 1e29,
    "of integers' ends": lambda x: np.where(x > 0, 2**63 - 1, -(2**63)),
}
VECTORS = np.random.default_rng(1).normal(size=(20, 6))


def assert_sentence(error: Exception) -> None:
    said = str(error)
    assert said.endswith(".")
    assert "\n" not in said
    assert len(said) < 300


@pytest.mark.parametrize("normalize", ["zscore", "none"])
@pytest.mark.parametrize("kind", ["images", "vectors"])
@pytest.mark.parametrize("numbers", NUMBERS)
def test_any_numbers_give_finite_scores_or_a_sentence(method, numbers, kind, normalize, images):
    X = NUMBERS[numbers](images if kind == "images" else VECTORS)
    detector = quick(method, normalize=normalize)
    if "epochs" in detector.get_params():
        detector.set_params(epochs=1)
    try:
        scores = detector.fit(X).anomaly_score(X)
    except ValueError as error:
        assert normalize == "none"
        assert numbers in ("huge", "of integers' ends", "denormal")
        assert_sentence(error)
    else:
        assert np.isfinite(scores).all()
        assert detector.offset_ is None or np.isfinite(detector.offset_)


def test_a_score_that_is_no_number_is_a_sentence_and_no_label(method):
    """Features that were all but constant, and then are not; NaN is below no threshold."""
    fitted = quick(method).fit((VECTORS * 1e-42).astype(np.float32))
    with pytest.raises(ValueError, match="The score of image 0 of X is") as error:
        fitted.anomaly_score(VECTORS)
    assert_sentence(error.value)
    with pytest.raises(ValueError, match="The score of image 0 of X is"):
        fitted.predict(VECTORS)


# --- at the command line -----------------------------------------------------------------------


def write_arrays(folder: Path, n: int, change=lambda image: image) -> Path:
    """Write images as .npy files, of class 'plain' and a quarter as many of class 'odd'."""
    rng = np.random.default_rng(0)
    for label, count in (("plain", n), ("odd", max(1, n // 4))):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            image = change(rng.normal(size=(16, 16)).astype(np.float32))
            np.save(folder / label / f"{i}.npy", image)
    return folder


def fitted(folder: Path, run: Path, *options: object) -> tuple[int, str]:
    return call("fit", folder, "--majority", "plain", "--out", run, *QUICK, *options)


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "NaN"), (np.inf, "infinite"), (1e35, "1e+35")]
)
def test_an_image_with_such_a_value_is_named(value, said, tmp_path):
    folder = write_arrays(tmp_path / "set", 8)
    image = np.zeros((16, 16), np.float32)
    image[3, 4] = value
    np.save(folder / "plain" / "bad.npy", image)
    code, text = fitted(folder, tmp_path / "run")
    assert code == 1
    assert text.startswith("Error: Cannot read 'plain/bad.npy': ")
    assert said in text
    (folder / "plain" / "bad.npy").rename(tmp_path / "bad.npy")
    assert fitted(folder, tmp_path / "run")[0] == 0
    where = (tmp_path / "bad.npy", folder / "odd")
    code, text = call("score", tmp_path / "run", *where, "--out", tmp_path / "s.csv", "--quiet")
    assert code == SOME_FAILED
    assert len(table(tmp_path / "s.csv")) == 2


def test_an_image_without_a_score_takes_no_other_with_it(tmp_path):
    folder = write_arrays(tmp_path / "set", 8)
    code, text = fitted(folder, tmp_path / "run", "--set", "normalize=none")
    assert code == 0, text
    np.save(
        folder / "odd" / "far.npy", np.linspace(1e28, 1e29, 256, dtype=np.float32).reshape(16, 16)
    )
    where = (folder / "odd", "--out", tmp_path / "s.csv", "--quiet")
    code, text = call("score", tmp_path / "run", *where)
    assert code == SOME_FAILED
    assert "far.npy' has no score: its values are too far from those learned." in text
    assert len(table(tmp_path / "s.csv")) == 2


@pytest.mark.parametrize(
    "change", [lambda x: x * 0 + x[0, 0], lambda x: x * 0 + x[0, 0] * np.float32(1e-40)]
)
def test_a_cohort_of_constant_images_is_a_sentence(change, tmp_path):
    folder = write_arrays(tmp_path / "set", 8, change)
    code, text = fitted(folder, tmp_path / "run")
    assert code == 1
    assert "training images of cohort 'set' have no contrast: every pixel of each" in text
    assert not (tmp_path / "run" / "run.json").exists()


def test_images_without_contrast_are_no_evidence(tmp_path):
    """They are listed with their reason, never called, and evaluated on by nobody."""
    folder = write_arrays(tmp_path / "set", 8)
    np.save(folder / "odd" / "black.npy", np.zeros((16, 16), np.float32))
    code, text = fitted(folder, tmp_path / "run")
    assert code == 0, text
    code, text = call("score", tmp_path / "run", folder / "odd", "--out", tmp_path / "s.csv", "-q")
    assert code == SOME_FAILED
    assert "black.npy' is no evidence: every pixel has the same value." in text
    assert not [row for row in table(tmp_path / "s.csv") if "black" in row["path"]]
    code, text = call("evaluate", tmp_path / "run", folder, "--no-cache")
    assert code == 0, text
    assert "1 image left out: without contrast." in text


def test_a_cohort_of_one_image_is_a_sentence(tmp_path):
    make_folder(tmp_path / "set", "plain/1.png")
    code, text = fitted(tmp_path / "set", tmp_path / "run")
    assert code == 1
    assert text.startswith(
        "Error: A split leaves no majority image for the test: there is one, of one patient."
    )


def test_two_patients_are_one_to_train_on_and_one_to_test(tmp_path):
    """Their intervals cannot be had, and the metrics say why."""
    paths = [
        f"{label}/p{p}_{i}.png" for p in (1, 2) for i in range(3) for label in ("plain", "odd")
    ]
    folder = make_folder(tmp_path / "set", *paths)
    code, text = fitted(folder, tmp_path / "run", "--patient-regex", r"(p\d)_")
    assert code == 0, text
    code, text = call("evaluate", tmp_path / "run", folder, "--no-cache")
    assert code == 0, text
    measured = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert measured["counts"] == {"majority": 3, "minority": 3, "patients": 1}
    assert all(one["low"] is None and one["reason"] for one in measured["metrics"].values())
    code, text = call("report", tmp_path / "run")
    assert code == 0, text
