"""Why this image: pictures on one scale, a page that shows them, and what could not be read."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from conftest import quick
from conocc import load_cohort
from conocc.cli import SOME_FAILED
from conocc.data.preprocessing import Preprocessing
from conocc.experiments.run import fit_run, load_model
from conocc.io.words import readable
from conocc.visualization.explain import explain_files
from made_dicom import dicom, element
from test_cli import call

NAMES = ("a b", "Größe_1", "c")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two class folders of 16-pixel PNG files: 20 'plain', 4 'odd'."""
    root = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    for name, n in (("plain", 20), ("odd", 4)):
        (root / name).mkdir()
        for i in range(n):
            pixels = rng.integers(0, 255, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return load_cohort(
        root, Preprocessing(size=16), majority="plain", calibration_size=0.4, cache=False
    )


def fitted(cohort, method: str, folder):
    kept = quick(method).get_params()
    params = {name: kept[name] for name in kept if name in ("epochs", "interval", "random_state")}
    assert fit_run(cohort, method, params, folder, command="")
    return folder


@pytest.fixture(scope="module")
def run(cohort, tmp_path_factory):
    """A calibrated run, whose score is Eq. (6)."""
    return fitted(cohort, "cae", tmp_path_factory.mktemp("runs") / "cae")


@pytest.fixture
def files(tmp_path):
    """Three images and a broken one."""
    (tmp_path / "new").mkdir()
    for i, name in enumerate(NAMES):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "new" / f"{name}.png")
    (tmp_path / "new" / "broken.png").write_bytes(b"no")
    return tmp_path / "new"


def test_each_image_has_a_picture_and_the_page_shows_all_from_the_highest_score(
    run, files, tmp_path
):
    done = explain_files(run, [files], tmp_path / "out")
    assert done.count == 3
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {"00001-Gr_e_1.png", "00002-a_b.png", "00003-c.png"}
    page = done.page.read_text(encoding="utf-8")
    assert re.findall(r'src="([^"]+)"', page) == re.findall(r'href="(0[^"]+)"', page)
    assert set(re.findall(r'src="([^"]+)"', page)) == pictures
    scores = [float(text) for text in re.findall(r"<figcaption>score ([^,]+),", page)]
    assert scores == sorted(scores, reverse=True)
    assert "Größe_1.png" in page
    assert all(sentence in page for sentence in done.words)
    for name in pictures:
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) > 400


def test_scores_and_p_values_are_the_detectors(run, files, tmp_path):
    detector = load_model(run)
    pixels = np.array(Image.open(files / "c.png").resize((16, 16)), np.float32)[None]
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels[0].astype(np.uint8)).save(tmp_path / "one" / "c.png")
    page = explain_files(run, [tmp_path / "one"], tmp_path / "out").page.read_text()
    score, p_value = detector.anomaly_score(pixels)[0], detector.p_value(pixels)[0]
    assert f"score {score:.4g}, p-value {p_value:.2g} ·" in page


def test_one_scale_for_all_so_that_a_picture_does_not_hang_on_the_others(run, files, tmp_path):
    explain_files(run, [files / "c.png"], tmp_path / "alone")
    explain_files(run, [files / "c.png", files], tmp_path / "together")
    name = "00001-c.png"
    assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "together" / name).read_bytes()


def test_files_that_cannot_be_read_are_listed_and_the_exit_code_says_so(run, files, tmp_path):
    out = tmp_path / "out"
    code, said = call("explain", run, files, "--out", out, "--quiet")
    assert code == SOME_FAILED
    assert "Explained 3 images" in said
    assert "1 could not be read" in said
    (row,) = csv.DictReader((out / "errors.csv").read_text().splitlines())
    assert row["path"].endswith("broken.png")
    assert "1 could not be read" in (out / "index.html").read_text()
    (files / "broken.png").unlink()
    code, said = call("explain", run, files, "--out", out, "--quiet")
    assert code == 0
    assert not (out / "errors.csv").exists()


@pytest.mark.parametrize("name", ["index.html", "errors.csv", "00001-c.png"])
def test_what_explain_did_not_write_it_neither_replaces_nor_deletes(run, files, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"holds '{name}', which 'explain' would replace"):
        explain_files(run, [files / "c.png"], out)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


def test_a_note_of_owners_that_is_no_such_note_is_left_alone(run, files, tmp_path):
    (tmp_path / "conocc.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"conocc\.json' was not written by conocc"):
        explain_files(run, [files / "c.png"], tmp_path)
    assert (tmp_path / "conocc.json").read_text() == "mine"


def test_an_own_file_put_beside_the_pictures_later_is_kept(run, files, tmp_path):
    explain_files(run, [files / "c.png"], tmp_path / "out")
    (tmp_path / "out" / "errors.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="holds 'errors.csv'"):
        explain_files(run, [files], tmp_path / "out")
    assert (tmp_path / "out" / "errors.csv").read_text() == "mine"


def test_a_path_that_does_not_exist_is_refused_before_anything_is_written(run, files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no '.*gone\.png'"):
        explain_files(run, [files, files / "gone.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_explained_nothing_is_written(run, files, tmp_path):
    code, said = call("explain", run, files / "broken.png", "--out", tmp_path / "out", "--quiet")
    assert code != 0
    assert "None of 1 image can be explained" in said
    assert "broken.png" in said
    assert not (tmp_path / "out").exists()


def test_an_image_of_another_shape_than_learned_is_listed(run, files, tmp_path):
    """The model's own shape counts, not that of the first image."""
    detector = load_model(run)
    preprocessing = {**detector.preprocessing_, "size": None}
    detector.save(tmp_path / "model", preprocessing=preprocessing)
    with pytest.raises(ValueError, match=r"c\.png' has 20x20 .*, where 16x16 .* are expected"):
        explain_files(tmp_path / "model", [files / "c.png"], tmp_path / "out")


def test_what_dicom_says_of_a_patient_is_in_no_name(run, tmp_path, monkeypatch):
    monkeypatch.setenv("CONOCC_CONFIG", str(tmp_path / "config"))
    about = element(0x00100010, "PN", "Smith^John") + element(0x00100020, "LO", "ID-7")
    image = np.random.default_rng(0).integers(0, 4096, (20, 24)).astype(np.uint16)
    (tmp_path / "smith_john.dcm").write_bytes(dicom(image, about))
    out = tmp_path / "out"
    done = explain_files(run, [tmp_path / "smith_john.dcm"], out)
    assert done.count == 1
    names = "".join(path.name for path in out.iterdir()) + done.page.read_text()
    assert "smith" not in names.lower()
    assert b"mith" not in b"".join(path.read_bytes() for path in out.glob("*.png"))


# --- what is said ---------------------------------------------------------------------------------


def test_where_the_score_is_the_sum_of_the_squares_nothing_is_taken_back(run, files, tmp_path):
    (legend,) = explain_files(run, [files], tmp_path / "out").words
    scale = load_model(run).residual_scale_
    assert f"nothing is drawn up to {scale.faint:.3g}" in legend
    assert f"full colour is from {readable(scale.full)} on" in legend
    assert f"It is of {scale.images} majority images, of whose pixels 90 % show nothing" in legend
    assert "in standard deviations of its pixels" in legend


def test_by_correlation_the_picture_is_of_the_correlation_on_a_scale_of_its_own(
    run, files, tmp_path
):
    done = explain_files(run, [files / "c.png"], tmp_path / "out", score="correlation")
    detector = load_model(run, "correlation")
    (tmp_path / "one").mkdir()
    pixels = np.array(Image.open(files / "c.png").resize((16, 16)))
    Image.fromarray(pixels).save(tmp_path / "one" / "c.png")
    page = explain_files(run, [tmp_path / "one"], tmp_path / "own", score="correlation").page
    assert f"score {detector.anomaly_score(pixels[None])[0]:.4g} ·" in page.read_text()
    said, training = done.words
    assert "one less the correlation of the two around each pixel. The score is the mean" in said
    assert f"nothing is drawn up to {detector.residual_scale_.faint:.3g}" in said
    assert "These are training images" in training


def test_where_it_is_not_and_where_the_scale_is_of_training_images_this_is_said(files, tmp_path):
    cohort = load_cohort("phantom-mri", Preprocessing(size=16), cache=False)
    cohort = cohort.take(np.flatnonzero(cohort.split == "train")[:12])
    run = fitted(cohort, "cocsvm", tmp_path / "run")
    done = explain_files(run, [files / "c.png"], tmp_path / "out")
    assert "p-value" not in done.page.read_text()
    _, training, not_the_sum = done.words
    assert "These are training images" in training
    assert "The score of COCSVM is not the sum of these differences" in not_the_sum


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ocsvm", "dsvdd"])
def test_a_method_without_reconstruction_says_so(method, cohort, files, tmp_path):
    run = fitted(cohort, method, tmp_path / "run")
    with pytest.raises(ValueError, match="makes no reconstruction: it scores an image as a whole"):
        explain_files(run, [files], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_score_whose_scale_is_not_known_is_refused_with_the_command(cohort, files, tmp_path):
    """AnoGAN takes the scale of the score in force alone: each other one is a search more."""
    run = tmp_path / "run"
    params = {"epochs": 1, "search_steps": 1, "random_state": 0}
    assert fit_run(cohort, "anogan", params, run, command="")
    with pytest.raises(ValueError, match=r"no scale .* RUN COHORT --score correlation\."):
        explain_files(run, [files], tmp_path / "out", score="correlation")
    assert not (tmp_path / "out").exists()


def test_a_model_of_arrays_cannot_read_files(images, files, tmp_path):
    quick("cae").fit(images).save(tmp_path / "model")
    with pytest.raises(ValueError, match="was fitted to arrays: it cannot read files"):
        explain_files(tmp_path / "model", [files], tmp_path / "out")


def test_one_picture_is_one_image(run, files, tmp_path):
    code, said = call("explain", run, files / "c.png", "--out", tmp_path / "x")
    assert code == 0, said
    assert "Explained 1 image: " in said
