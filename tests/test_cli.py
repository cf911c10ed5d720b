"""The command line: what it prints, what it leaves behind, how it ends."""

import contextlib
import csv
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from cyclopts import CoercionError, Token
from PIL import Image

from conocc import load, load_cohort
from conocc.cli import INTERRUPTED, SOME_FAILED
from conocc.cli import run as run_command
from conocc.cli.application import app
from conocc.data.preprocessing import Preprocessing
from conocc.io.tables import read_csv
from made_cohorts import make_folder, write_image

QUICK = ["--epochs", "2", "--interval", "1", "--no-cache", "--quiet"]


@pytest.fixture(autouse=True)
def logging_as_it_was():
    logger = logging.getLogger("conocc")
    before = logger.handlers[:], logger.level
    yield
    logger.handlers[:], logger.level = before[0], before[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two class folders of 16-pixel PNG files: 20 'plain', 8 'odd'."""
    root = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    for name, n in (("plain", 20), ("odd", 8)):
        (root / name).mkdir()
        for i in range(n):
            pixels = rng.integers(0, 200, (16, 16), dtype=np.uint8)
            pixels[4:12, 4:12] //= 1 if name == "plain" else 4
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def call(*args: object) -> tuple[int, str]:
    """Run a command in process; its exit code and all that it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run_command([str(arg) for arg in args])
    return code, said.getvalue()


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    code, said = call("fit", folder, "--majority", "plain", "--out", out, *QUICK)
    assert code == 0, said
    return out


def test_a_run_is_loaded_by_its_folder(run):
    assert (load(run).seed_, load(run).input_shape_) == (0, (1, 16, 16))


def test_fit_says_what_it_took_for_what(folder, tmp_path):
    code, said = call("fit", folder, "--majority", "plain", "--out", tmp_path / "r", *QUICK)
    assert code == 0
    assert "plain (20 images)" in said
    assert "odd (8 images)" in said
    assert "Fitted conocc on 12 images" in said


def test_fit_again_says_so_and_does_nothing(folder, run):
    before = (run / "model.safetensors").stat().st_mtime_ns
    code, said = call("fit", folder, "--majority", "plain", "--out", run, *QUICK)
    assert code == 0
    assert "finished already" in said
    assert (run / "model.safetensors").stat().st_mtime_ns == before


def test_set_reaches_any_parameter(folder, tmp_path):
    settings = ["--set", "channels=(4, 8)", "--set", "schedule=joint", "--set", "bottleneck=8"]
    code, said = call(
        "fit", folder, "--majority", "plain", "--out", tmp_path / "r", *settings, *QUICK
    )
    assert code == 0, said
    params = json.loads((tmp_path / "r" / "run.json").read_text())["params"]
    assert (params["channels"], params["schedule"], params["bottleneck"]) == ([4, 8], "joint", 8)


def test_score_writes_a_row_for_each_image(run, folder, tmp_path):
    code, said = call("score", run, folder / "odd", "--out", tmp_path / "s.csv", "--quiet")
    assert code == 0, said
    rows = table(tmp_path / "s.csv")
    assert len(rows) == 8
    assert {row["predicted"] for row in rows} == {""}  # since nothing can be promised
    assert all(float(row["anomaly_score"]) > 0 for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.about.json", "s.csv"]


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory) -> Path:
    """JPEG files of 128 pixels, eight times what they are fitted at."""
    root = tmp_path_factory.mktemp("radiographs")
    rng = np.random.default_rng(0)
    for name, n in (("plain", 12), ("odd", 4)):
        (root / name).mkdir()
        for i in range(n):
            pixels = rng.integers(0, 255, (128, 128), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.jpg")
    return root


@pytest.mark.parametrize("option", ["--scaled", "--full"])
def test_jpegs_are_read_as_the_run_read_them_by_every_command(radiographs, tmp_path, option):
    """Scores of `score`, `evaluate` and Python are those of one reading."""
    run = tmp_path / "run"
    fitting = ["--majority", "plain", "--size", "16", option, "--out", run]
    code, said = call("fit", radiographs, *fitting, *QUICK)
    assert code == 0, said
    code, said = call("score", run, radiographs, "--out", tmp_path / "s.csv", "--quiet")
    assert code == 0, said
    code, said = call("evaluate", run, radiographs, "--no-cache")
    assert code == 0, said
    cohort = load_cohort(
        radiographs,
        Preprocessing(size=16, scaled=option == "--scaled"),
        majority="plain",
        cache=False,
    )
    scores = load(run / "model.safetensors").anomaly_score(cohort.images)
    expected = dict(zip(cohort.path.tolist(), scores.tolist(), strict=True))
    scored = {row["path"]: row for row in table(tmp_path / "s.csv")}
    evaluated = {row["path"]: row for row in table(run / "scores.csv")}
    assert len(evaluated) == 8  # 4 and, of 12, the 4 that were not trained on
    for path, score in expected.items():
        assert float(scored[f"{radiographs.as_posix()}/{path}"]["anomaly_score"]) == score
        assert float(evaluated.get(path, {"anomaly_score": score})["anomaly_score"]) == score
    about = json.loads((run / "run.json").read_text())
    assert about["preprocessing"]["scaled"] == (option == "--scaled")


def test_bad_files_are_listed_the_good_ones_scored_and_the_exit_code_says_so(run, folder, tmp_path):
    good = folder / "odd" / "0.png"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.png").write_bytes(good.read_bytes())
    (tmp_path / "in" / "cut.png").write_bytes(good.read_bytes()[:100])
    (tmp_path / "in" / "empty.png").touch()
    code, said = call("score", run, tmp_path / "in", "--out", tmp_path / "s.csv", "--quiet")
    assert code == SOME_FAILED
    assert "Scored 1 image:" in said
    assert "2 could not be read" in said
    errors = {Path(r["path"]).name: r["reason"] for r in table(tmp_path / "s.errors.csv")}
    assert errors.keys() == {"cut.png", "empty.png"}
    assert "empty" in errors["empty.png"]
    assert len(table(tmp_path / "s.csv")) == 1


def test_evaluate_prints_a_table_and_json(run, folder):
    code, said = call("evaluate", run, folder, "--no-cache")
    assert code == 0, said
    assert "AUPR-min" in said
    assert "8 majority and 8 minority test images" in said
    assert "not of a threshold set beforehand" in " ".join(said.split())
    code, said = call("evaluate", run, folder, "--no-cache", "--json")
    assert json.loads(said)["counts"]["minority"] == 8


def test_all_images_of_another_cohort_are_tested(run, tmp_path):
    """No split is drawn that would put some aside: nothing of it was trained on."""
    paths = [f"{label}/p{i}.png" for i in range(6) for label in ("plain", "odd")]
    other = make_folder(tmp_path / "other", *paths)
    asked = ("--patient-regex", r"(p\d)", "--no-cache", "--json", "--out", tmp_path / "copy")
    code, said = call("evaluate", run, other, *asked)
    assert code == 0, said
    assert json.loads(said)["counts"] == {"majority": 6, "minority": 6, "patients": 6}


def test_who_is_who_in_another_cohort_can_be_said(folder, tmp_path):
    """Two hospitals that number from 1."""
    asked = ("--patient-regex", r"(\d)\d*\.png")
    run, other = tmp_path / "run", make_folder(tmp_path / "b", *(f"plain/{i}.png" for i in "1234"))
    make_folder(other, *(f"odd/{i}.png" for i in range(10)))
    fit = ("fit", folder, "--majority", "plain", "--test-size", "0", "--out", run)
    assert call(*fit, *asked, *QUICK)[0] == 0
    code, said = call("evaluate", run, other, "--no-cache", "--out", tmp_path / "copy")
    assert code == 0, said
    words = " ".join(said.split())
    assert "not taken for the same: nobody said that they are (--same-patients)" in words
    code, said = call("evaluate", run, other, "--no-cache", "--same-patients")
    assert "4 majority" not in said
    assert "14 left out: of a patient trained on" in " ".join(said.split())


def test_classes_are_left_out_and_majority_images_alone_evaluated(run, folder, tmp_path):
    """The run's own cohort is read with the classes that the run had; others are as asked."""
    make_folder(tmp_path / "set", *(f"third/{i}.png" for i in range(5)))
    for name in ("plain", "odd"):
        shutil.copytree(folder / name, tmp_path / "set" / name)
    own = tmp_path / "own"
    asked = ("--majority", "plain", "--exclude", "third", "--out", own)
    code, said = call("fit", tmp_path / "set", *asked, *QUICK)
    assert code == 0, said
    assert "Left out, as asked: third (5 images)." in said
    assert json.loads((own / "run.json").read_text())["loading"]["exclude"] == ["third"]
    code, said = call("evaluate", own, tmp_path / "set", "--no-cache", "--json")
    assert json.loads(said)["counts"]["minority"] == 8
    away = ("--exclude", "odd", "--no-cache", "--out", tmp_path / "copy")
    code, said = call("evaluate", run, folder, *away)
    assert code == 0, said
    words = " ".join(said.split())
    assert "There is no minority image, so that only false alarms can be told" in words
    assert "AUC" not in said


def test_the_share_to_test_on_can_be_set(folder, tmp_path):
    out = tmp_path / "run"
    code, said = call(
        "fit", folder, "--majority", "plain", "--test-size", "0", "--out", out, *QUICK
    )
    assert code == 0, said
    assert "Fitted conocc on 20 images" in said
    code, said = call("data", "inspect", folder, "--majority", "plain", "--test-size", "2")
    assert "The option --test-size must be in [0, 1]" in " ".join(said.split())


@pytest.mark.parametrize(
    ("command", "name"), [("fit", "split.csv"), ("benchmark", "tables/benchmark.csv")]
)
def test_files_of_the_user_in_a_new_run_or_study_stay(folder, tmp_path, command, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    code, said = call(command, folder, "--majority", "plain", "--out", tmp_path, "--no-cache")
    assert (code, f"holds '{Path(name).name}'" in said) == (1, True), said
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [Path(name).name]
    assert (tmp_path / name).read_text() == "mine"


def test_results_on_another_cohort_go_elsewhere(run, folder, tmp_path):
    """And those of a run that may only be read; the copy is a run like any other."""
    for name in ("plain", "odd"):
        for i in range(4):
            write_image(tmp_path / "new" / name / f"{i}.png", like=f"{name}{i}")
    assert call("evaluate", run, folder, "--no-cache")[0] == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    code, said = call("evaluate", run, tmp_path / "new", "--no-cache")
    assert (code, "holds the results on other test images" in said) == (1, True), said
    for _ in range(2):
        elsewhere = ("--no-cache", "--out", tmp_path / "copy")
        code, said = call("evaluate", run, tmp_path / "new", *elsewhere)
        assert code == 0, said
        assert "4 majority and 4 minority test images" in said
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert call("report", tmp_path / "copy", "--out", tmp_path / "page")[0] == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"new", "copy", "page"}
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"conocc.json", "report.html"}
    code, said = call("evaluate", run, folder, "--no-cache", "--out", tmp_path / "new")
    assert (code, "no empty folder" in said) == (1, True), said


def test_inspect_shows_counts_and_draws_a_montage(folder, tmp_path):
    picture = tmp_path / "m.png"
    code, said = call(
        "data", "inspect", folder, "--majority", "plain", "--no-cache", "--montage", picture
    )
    assert code == 0, said
    assert "patients" not in said  # who are not known
    with Image.open(picture) as image:
        assert image.size[0] > 500


def test_inspect_tells_sizes_that_differ_and_goes_on(tmp_path):
    for i in range(9):
        write_image(tmp_path / f"plain/{i}.png", side=20 if i < 6 else 24)
    inspect = ("data", "inspect", tmp_path, "--majority", "plain", "--no-cache", "--quiet")
    code, said = call(*inspect, "--test-size", "0")
    assert code == 0, said
    said = " ".join(said.split())
    assert "Images are of 2 sizes, most often 6 of 20x20 pixels, 3 of 24x24 pixels." in said
    assert "Hashing images" not in said


def test_inspect_lists_what_cannot_be_read_and_draws_nothing_into_the_cohort(
    folder, tmp_path, monkeypatch
):
    """All of it: images, also those with an identical twin, and files of no format."""
    folder = Path(shutil.copytree(folder, tmp_path / "set"))
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    bad = [names[0], names[1], names[-1]]
    for name in bad[:2]:
        (folder / name).write_bytes(b"x")
    (folder / bad[2]).write_bytes((folder / bad[2]).read_bytes()[:-40])
    (folder / "plain" / "x.roi").write_text("Iout")
    monkeypatch.chdir(folder)
    inspect = ("data", "inspect", ".", "--majority", "plain", "--no-cache")
    code, said = call(*inspect, "--montage", "m.png")
    assert (code, "would lie in the cohort" in said) == (1, True), said
    before = {path for path in folder.rglob("*") if path.suffix == ".png"}
    monkeypatch.chdir(tmp_path)
    inspect = ("data", "inspect", folder, "--majority", "plain", "--no-cache")
    code, said = call(*inspect)
    assert (code, "3 images (" in said) == (SOME_FAILED, True), said
    assert {path for path in tmp_path.rglob("*") if path.suffix == ".png"} == before
    table = read_csv(tmp_path / f"{folder.name}-unreadable.csv")
    assert table["path"].tolist() == [*bad, "plain/x.roi"]
    assert all(path in reason for path, reason in table.to_numpy())


def test_fit_lists_what_cannot_be_read_and_goes_on_without_it_if_asked(folder, tmp_path):
    folder = Path(shutil.copytree(folder, tmp_path / "set"))
    (bad, twin, *_) = sorted(folder.rglob("plain/*.png"))
    for path in (bad, twin):
        path.write_bytes(b"x")
    run = tmp_path / "run"
    fit = ("fit", folder, "--majority", "plain", "--out", run, *QUICK)
    code, said = call(*fit)
    assert code == 1
    for part in (bad.name, "2 of ", "--skip-unreadable", "unreadable.csv"):
        assert part in said
    names = [f"plain/{path.name}" for path in (bad, twin)]
    assert read_csv(run / "unreadable.csv")["path"].tolist() == names
    code, said = call(*fit, "--skip-unreadable")
    assert code == 0, said
    about = json.loads((run / "run.json").read_text())
    assert any("2 images" in note and "left out" in note for note in about["notes"])
    assert about["loading"]["skip_unreadable"]
    code, said = call("evaluate", run, folder, "--no-cache")
    assert code == 0, said


def test_demo_ends_with_a_table_and_the_path(tmp_path):
    code, said = call("demo", "--out", tmp_path / "demo", "--epochs", 1)
    assert code == 0, said
    assert "AUPR-maj" in said
    assert "946 majority and 926 minority test images" in said
    assert "conocc" in said
    assert (tmp_path / "demo" / "cae" / "model.safetensors").exists()


def test_info_gives_versions_and_names_no_folder():
    import torch

    from conocc import __version__

    code, said = call("info")
    assert code == 0
    assert f"conocc {__version__}, Python 3." in said
    assert f"torch {torch.__version__}" in said.splitlines()
    assert "/" not in said
    assert os.path.basename(os.path.expanduser("~")) not in said.split()


def test_methods_are_listed_with_one_line_each():
    from conocc.detectors import METHODS

    code, said = call("methods")
    assert code == 0
    assert all(name in said and method.source in said for name, method in METHODS.items())


def test_what_is_said_of_a_method_is_so():
    from conocc.detectors import METHODS, method_class

    for name, method in METHODS.items():
        made = method_class(name)()
        assert method.epochs == str(made.get_params().get("epochs", "–")), name
        draws = hasattr(made, "_reconstruct") or made._draws == "contribution"
        assert method.heat_map == ("yes" if draws else "no"), name
        assert method.export == ("no" if made._no_graph else "yes"), name


def test_a_command_says_at_once_that_it_began():
    """Before torch is imported, which takes seconds, and before anything else is said."""
    program = "import sys; from conocc.cli import run; run(sys.argv[1:])"
    for quiet in ([], ["-q"]):
        arguments = ["evaluate", "nowhere", "nowhere", *quiet]
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", program, *arguments],
            capture_output=True,
            text=True,
        )
        before, began, after = done.stderr.partition("conocc evaluate …\n")
        assert bool(began) != bool(quiet)
        assert quiet or ("| torch\n" not in before and " torch\n" in after)


def test_a_folder_without_the_classes_of_the_run_is_told_what_to_do(run, folder):
    for command in ("evaluate", "calibrate"):
        code, said = call(command, run, folder / "odd", "--no-cache", "-q")
        assert (code, "has no class plain, the majority of" in said) == (1, True), said
        assert "(--majority)" in said


@pytest.mark.parametrize(
    "words", [["fit", "x", "--out", ""], ["score", " ", "x"], ["fit", "x", "--out="]]
)
def test_an_empty_word_is_no_folder(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = call(*words)
    assert (code, "An empty word" in said) == (1, True), said
    assert not list(tmp_path.iterdir())


def test_classes_are_named_with_commas_or_one_by_one(tmp_path):
    """A class whose name has a comma is meant by its name as it stands."""
    names = ("a", "b", "c", "c, old", "d")
    make_folder(tmp_path / "in", *[f"{name}/{i}.png" for name in names for i in range(4)])
    for given in (["a,b", "c, old"], ["a, b", "c, old"], ["a", "b", "c, old"]):
        majority = [word for name in given for word in ("--majority", name)]
        code, said = call("data", "inspect", tmp_path / "in", *majority, "--exclude", "d", "-q")
        assert code == 0
        assert "Majority class: a (4 images), b (4 images), c, old (4 images). Min" in said
        assert "Left out, as asked: d (4 images)." in said
    code, said = call("data", "inspect", tmp_path / "in", "--majority", "a,x")
    assert code == 1
    assert "The option --majority must name classes" in said
    assert "Got 'x' instead" in said


def test_a_list_of_many_classes_ends(tmp_path):
    make_folder(tmp_path / "in", *[f"kind {k}/0.png" for k in "abcdefghijklmnopqrstuvwxy"])
    code, said = call("data", "inspect", tmp_path / "in")
    assert code == 1
    assert "kind i (1 image), kind j (1 image) and 15 more." in said
    assert "kind k" not in said
    assert "for instance --majority kind a." in " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["score", "{run}", "{folder}", "--jobs", "0"], "option --jobs must"),
        (["score", "{run}", "{folder}", "--engine", "x"], "option --engine must"),
        (["data", "inspect", "{folder}", "--majority", "plain", "--threads", "0"], "--threads"),
        (["fit", "{folder}", "--out", "{out}", "--score", "x"], "option --score must"),
        (
            ["data", "inspect", "{folder}", "--majority", "plain", "--exclude", "plain"],
            "option --exclude must not name the majority",
        ),
    ],
)
def test_a_refusal_names_the_option_that_was_given(words, said, run, folder, tmp_path):
    where = {"run": run, "folder": folder, "out": tmp_path / "x"}
    code, answer = call(*(word.format(**where) for word in words))
    assert code == 1
    assert said in " ".join(answer.split())
    assert "parameter" not in answer


def test_a_column_may_be_left_unused_by_an_empty_word(tmp_path):
    make_folder(tmp_path, *[f"{i}.png" for i in range(8)])
    rows = [f"{i}.png,{'ab'[i % 2]},{i}" for i in range(8)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,patient_id", *rows]))
    inspect = ["data", "inspect", tmp_path / "list.csv", "--majority", "a", "-q"]
    assert call(*inspect)[0] == 1
    assert call(*inspect, "--patient-column", "")[0] == 0
    assert call(*inspect, "--patient-column=")[0] == 0


def test_a_share_is_checked_before_an_image_is_read():
    code, said = call("fit", "nowhere", "--calibrate", "50", "--out", "run")
    assert (code, "option --calibrate must be in the range (0, 1). Got 50.0" in said) == (1, True)


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("stream", [1, 2])
def test_a_stream_may_be_closed(stream):
    """Of no standard output it was asked whether it is a terminal."""
    program = f'"{sys.executable}" -m conocc plan {stream}>&-'
    assert subprocess.run(program, shell=True, check=False).returncode == 0


def test_a_pipe_that_is_closed_is_no_error(run, folder):
    program = "import sys; from conocc.cli import main; main()"
    arguments = ["evaluate", str(run), str(folder), "--json", "--no-cache"]
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_table_is_cut_in_no_terminal(monkeypatch):
    """Figures stay whole where a terminal is narrow, and words where there is none."""
    from rich.table import Table

    from conocc.cli import application

    made = Table("method")
    values = ("0.870 (0.835–0.899)", "0.813 (0.770–0.850)")
    for value in values:
        made.add_column(value, no_wrap=True)
    made.add_row("a word of many letters " * 5, *values)
    for terminal, most in ((False, 170), (True, 60)):
        said = io.StringIO()
        screen = application.Screen(file=said, width=30, force_terminal=terminal, no_color=True)
        monkeypatch.setattr(application, "out", screen)
        with contextlib.redirect_stdout(said):
            application.show(made)
        lines = said.getvalue().splitlines()
        assert all(said.getvalue().count(value) == 2 for value in values)
        assert max(map(len, lines)) <= most


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "nowhere", "--out", "r"], "nowhere"),
        (["fit", "{folder}", "--out", "r"], "--majority"),
        (["fit", "{folder}", "--majority", "plane", "--out", "r"], "plane"),
        (["fit", "{folder}", "--majority", "plain", "--size", "8", "--out", "r"], "8"),
        (["fit", "{folder}", "--majority", "plain", "--method", "svm", "--out", "r"], "'svm'"),
        (["fit", "{folder}", "--majority", "plain", "--set", "x=1", "--out", "r"], "'x'"),
        (["fit", "{folder}", "--majority", "plain", "--set", "x", "--out", "r"], "NAME=VALUE"),
        (
            ["fit", "{folder}", "--epochs", "2", "--set", "epochs=3", "--out", "r"],
            "'epochs' is set twice. Give it once",
        ),
        (["fit", "{folder}", "--majority", "plain", "--epochs", "0", "--out", "r"], "Got 0"),
        (["fit", "{folder}", "--majority", "plain", "--device", "tpu9", "--out", "r"], "tpu9"),
        (["demo", "--out", "r", "--epochs", "0"], "Got 0"),
        (["score", "nowhere", "x.png"], "nowhere"),
        (["evaluate", "nowhere", "{folder}"], "nowhere"),
        (["data", "inspect", "{empty}", "--majority", "x"], "no image"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    arguments, said, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    arguments = [a.format(folder=folder, empty=tmp_path / "empty") for a in arguments]
    cached = ["--no-cache"] if arguments[0] not in ("score", "demo") else []
    code, output = call(*arguments, *cached)
    assert code == 1, output
    assert said in output
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("Error: ")
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    assert left <= {"empty", "r", "r/run.json", "r/split.csv"}


def test_a_run_interrupted_at_the_command_line_goes_on_with_the_same_command(folder, tmp_path):
    """SIGTERM, as SLURM sends it, to a real process; then the same command again."""
    program = "from conocc import cli, training; training.SAVE_EVERY_S = 0.0; cli.main()"
    command = [
        sys.executable, "-c", program, "fit", str(folder), "--majority", "plain", "--out", "run",
        "--epochs", "100000", "--no-cache",
    ]  # fmt: skip
    start = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    checkpoint = tmp_path / "run" / "checkpoint"
    with subprocess.Popen(command, text=True, stderr=subprocess.PIPE, **start) as process:
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.05)
        process.terminate()
    assert checkpoint.exists()
    with subprocess.Popen(command, text=True, stderr=subprocess.PIPE, **start) as process:
        assert process.stderr is not None
        assert any("Going on from checkpoint" in line for line in process.stderr)
        process.terminate()


def test_an_interrupt_says_how_to_go_on(folder, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("conocc.experiments.run.fit_run", interrupted)
    code, said = call("fit", folder, "--majority", "plain", "--out", tmp_path / "r", *QUICK)
    assert code == INTERRUPTED
    assert "same command" in said


def test_a_study_shows_how_far_it_has_read_its_cohort(folder, tmp_path):
    command = ["benchmark", folder, "--majority", "plain", "--methods", "ocsvm", "--runs", "1"]
    code, said = call(*command, "--out", tmp_path / "study")
    assert code == 0, said
    assert said.count("Hashing images 28/28") == 1
    (about,) = (tmp_path / "study").glob("jobs/*/run.json")
    assert "verbose" not in json.loads(about.read_text())["loading"]


def test_a_full_disk_is_a_sentence(folder, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "r/model.safetensors")

    monkeypatch.setattr("conocc.experiments.run.fit_run", full)
    code, said = call("fit", folder, "--majority", "plain", "--out", tmp_path / "r", *QUICK)
    assert code == 1
    assert "No space left on device: 'r/model.safetensors'." in said


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_greek_ends_no_command(run, folder, encoding):
    """A γ in the help and a dash between two numbers are escaped."""
    for arguments in (["fit", "--help"], ["evaluate", run, folder, "--no-cache"]):
        said = subprocess.run(
            [sys.executable, "-m", "conocc", *map(str, arguments)],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
        )
        assert (said.returncode, b"Traceback" in said.stderr) == (0, False), said.stderr
        said.stdout.decode(encoding)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit"], "requires an argument"),
        (["fit", "c", "--out", "r", "--sise", "3"], "Unknown option: --sise"),
        (["fit", "c", "--out", "r", "--size", "big"], "--size: 'big' is no whole number. Side"),
        (["fit", "c", "--out", "r", "--size", "64.7"], "'64.7' is no whole number"),
        (["fit", "c", "--out", "r", "--calibrate", "none"], "a threshold, 0 for none; a fifth"),
        (["score", "r", "c", "--fdr", "nan"], "'nan' is no number"),
        (["fti"], 'Unknown command "fti"'),
    ],
)
def test_a_command_that_is_not_known_has_exit_code_2(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = call(*arguments)
    assert (code, said in output, output.startswith("Error: ")) == (2, True, True), output
    assert not list(tmp_path.iterdir())


def test_what_an_option_is_given_may_begin_with_a_hyphen(tmp_path):
    folder = make_folder(tmp_path / "c", *(f"{c}/{i}.png" for c in ("-a", "b") for i in range(8)))
    code, said = call("fit", folder, "--majority", "-a", "--out", tmp_path / "r", *QUICK)
    assert code == 0, said
    code, said = call("fit", folder, "--voi", "-600,1500", "--majority", "x", "--out", "r")
    assert (code, "'x'" in said) == (1, True), said


def test_the_cache_is_listed_and_emptied(folder, tmp_path):
    command = ("data", "inspect", folder, "--majority", "plain", "--cache", tmp_path / "cache")
    assert call(*command, "--montage", tmp_path / "m.png")[0] == 0
    code, said = call("data", "cache", "--cache", tmp_path / "cache")
    assert (code, "1×16×16" in said, "1 set of images" in said) == (0, True, True), said
    code, said = call("data", "cache", "--cache", tmp_path / "cache", "--clear")
    assert (code, "1 set of images removed" in said) == (0, True), said
    assert not list((tmp_path / "cache" / "images").iterdir())


def test_version_and_module_entry():
    import conocc

    said = subprocess.run(
        [sys.executable, "-m", "conocc", "--version"], check=True, capture_output=True, text=True
    )
    assert said.stdout.strip() == conocc.__version__


# --- thresholds --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(folder, tmp_path_factory) -> Path:
    """A run that keeps a quarter of its twelve training images for calibration."""
    out = tmp_path_factory.mktemp("runs") / "calibrated"
    options = ["--majority", "plain", "--calibrate", "0.25", "--out", out, *QUICK]
    code, said = call("fit", folder, *options)
    assert code == 0, said
    assert "Fitted conocc on 9 images" in said
    assert "Calibrated on 3 majority images, patients not known." in said
    assert "Of the training images, 25 % are kept for calibration" in (out / "run.json").read_text()
    assert json.loads((out / "run.json").read_text())["loading"]["calibration_size"] == 0.25
    return out


def test_every_command_says_which_rule_decides(run, folder, tmp_path):
    for command in (
        ["score", run, folder / "odd", "--out", tmp_path / "s.csv", "--quiet"],
        ["evaluate", run, folder, "--no-cache"],
    ):
        code, said = call(*command)
        assert code == 0, said
        assert "No image is flagged, since nothing can be promised: the model is not calib" in said
        assert "It takes 14 more patients ('conocc calibrate')" in said
    assert {row["p_value"] for row in table(tmp_path / "s.csv")} == {""}


def test_a_promise_sets_the_threshold_of_score(calibrated, folder, tmp_path):
    """The largest of three scores is above 70 % of majority images with 1 - 0.7^3 = 0.66."""
    common = ["score", calibrated, folder / "odd", "--out", tmp_path / "s.csv", "--quiet"]
    code, said = call(*common, "--false-alarms", "0.3", "--confidence", "0.6")
    assert code == 0, said
    assert "At most 30 % of new majority images are flagged (60 % certainty)" in said
    assert "calibrated on 3 images" in said
    largest = max(float(row["anomaly_score"]) for row in table(calibrated / "calibration.csv"))
    for row in table(tmp_path / "s.csv"):
        above = float(row["anomaly_score"]) > largest
        assert row["predicted"] == ("minority" if above else "majority")
        assert (row["p_value"] == "0.25") == above  # 1 / (3 + 1)
    code, said = call(*common, "--fdr", "0.3")
    assert code == 0, said
    assert "At most 30 % of the images flagged in a batch are expected" in said


def test_a_promise_sets_the_threshold_of_evaluate(calibrated, folder):
    asked = ["--false-alarms", "0.3", "--confidence", "0.6"]
    code, said = call("evaluate", calibrated, folder, "--no-cache", *asked)
    assert code == 0, said
    assert "At most 30 % of new majority images" in said
    assert "False alarms on the test split: " in said
    assert "of 8 majority images flagged (" in said
    assert "3 images left out: calibrated on." in said
    assert call("report", calibrated)[0] == 0
    assert "At most 30 %" in (calibrated / "report.html").read_text(encoding="utf-8")


def test_a_run_is_calibrated_afterwards(folder, tmp_path):
    """On majority images of another folder; those of the minority are counted."""
    rng = np.random.default_rng(1)
    for name, n in (("good", 4), ("odd", 2)):
        (tmp_path / "new" / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 200, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "new" / name / f"{i}.png")
    fitted = ["--majority", "plain", "--out", tmp_path / "r", *QUICK]
    assert call("fit", folder, *fitted)[0] == 0
    command = ["calibrate", tmp_path / "r", tmp_path / "new", "--no-cache", "--quiet"]
    code, said = call(*command, "--majority", "good")
    assert code == 0, said
    assert "Calibrated on 4 majority images, patients not known." in said
    assert "2 images left out: of the minority class." in said
    code, said = call("evaluate", tmp_path / "r", folder, "--no-cache", "--false-alarms", "0.6")
    assert code == 0, said  # 1 - 0.4^4 = 0.97 of four
    assert call("fit", folder, *fitted)[1].endswith("nothing was done.\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--false-alarms", "0.05"], "at least 59 images. Got 3"),
        (["--false-alarms", "5"], "Got 5.0"),
        (["--false-alarms", "0.3", "--fdr", "0.1"], "one promise"),
        (["--unit", "patient"], "whose patients are known"),
        (["--unit", "slice"], "'slice'"),
        (["--fdr", "1"], "option --fdr"),
    ],
)
def test_a_promise_that_cannot_be_made_is_refused(calibrated, folder, tmp_path, options, said):
    code, output = call("score", calibrated, folder, "--out", tmp_path / "s.csv", *options)
    assert (code, said in output) == (1, True), output
    assert "Error: " in output
    assert not list(tmp_path.iterdir())


# --- studies -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(folder, tmp_path_factory) -> Path:
    """A study that went through all three commands."""
    out = tmp_path_factory.mktemp("studies") / "study"
    common = [folder, "--majority", "plain", "--out", out, "--quiet"]
    code, said = call("benchmark", *common, "--methods", "ocsvm", "--runs", "2")
    assert code == 0, said
    assert "Mean of 2 runs" in said
    assert "Tables and rows are in" in said
    code, said = call("crossval", *common, "--methods", "ocsvm", "--folds", "2", "--group", "none")
    assert code == 0, said
    assert "2 folds of single images" in said
    small = ["--epochs", "1", "--interval", "1", "--set", "channels=(2,)", "--set", "bottleneck=4"]
    code, said = call("sweep", *common, *small, "--lr", "1e-3,1e-4", "--gamma", "1")
    assert code == 0, said
    return out


def test_rows_of_several_calls_gather_in_one_study(study):
    rows = table(study / "tables" / "rows.csv")
    assert len({row["key"] for row in rows}) == 2 + 2 + 4
    names = {path.stem for path in (study / "tables").glob("*.md")}
    assert names == {"benchmark", "benchmark-intervals", "crossval-2-none", "sweep"}


def test_a_sweep_has_every_combination_and_the_autoencoder_at_each_rate(study):
    lines = table(study / "tables" / "sweep.csv")
    assert [line["fit"] for line in lines] == [
        "cae lr=0.0001",
        "cae lr=0.001",
        "conocc lr=0.0001",
        "conocc lr=0.001",
    ]


def test_a_dry_run_lists_the_fits_and_makes_nothing(folder, tmp_path):
    command = ["benchmark", folder, "--majority", "plain", "--methods", "cae", "--runs", "2"]
    code, said = call(*command, "--epochs", "3", "--out", tmp_path / "study", "--dry-run")
    assert code == 0, said
    assert "2 of 2 fits missing" in said
    assert not list(tmp_path.iterdir())


def test_a_study_says_that_it_holds_rows_of_an_older_content(folder, tmp_path):
    """An image that was away when the study was begun, and has come back."""
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    victim = next(images.rglob("*.png"))
    command = ["benchmark", images, "--majority", "plain", "--methods", "ocsvm", "--runs", "1"]
    command += ["--out", tmp_path / "study", "--quiet"]
    data = victim.read_bytes()
    victim.unlink()
    code, said = call(*command)
    assert (code, "also holds" in said) == (0, False), said
    victim.write_bytes(data)
    code, said = call(*command)
    assert (code, "also holds rows of images " in said) == (0, True), said


def test_failed_fits_are_counted_and_the_exit_code_says_so(folder, tmp_path):
    command = ["benchmark", folder, "--majority", "plain", "--methods", "cae", "--runs", "1"]
    code, said = call(*command, "--device", "tpu9", "--out", tmp_path / "study", "--quiet")
    assert code == SOME_FAILED
    assert "1 of 1 fit failed; --retry-failed" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["benchmark", "nowhere"], "nowhere"),
        (["benchmark", "{folder}", "--methods", "cea"], "no method 'cea'"),
        (["benchmark", "{folder}", "--set", "x=1"], "No parameter 'x'"),
        (["benchmark", "{folder}", "--set", "x"], "NAME=VALUE"),
        (["benchmark", "{folder}", "--set", "lr=1", "--set", "lr=2"], "'lr' is set twice"),
        (["crossval", "{folder}", "--epochs", "1", "--set", "epochs=2"], "'epochs' is set twice"),
        (["sweep", "{folder}", "--lr", "1,2", "--set", "lr=1"], "'lr' is set twice"),
        (["benchmark", "{folder}", "--methods", "cae", "--set", "epochs=0"], "Got 0"),
        (["crossval", "{folder}", "--folds", "three"], "'three'"),
        (["crossval", "{folder}", "--folds", "99"], "99 folds"),
    ],
)
def test_a_study_that_cannot_be_is_one_sentence(arguments, said, folder, tmp_path):
    arguments = [a.format(folder=folder) for a in arguments]
    code, output = call(*arguments, "--majority", "plain", "--out", tmp_path / "study")
    assert (code, said in output) == (1, True), output
    assert not list(tmp_path.iterdir())


def test_a_study_reads_files_as_it_is_told(tmp_path):
    """What `fit` takes of how files are read, a study takes too, into each of its runs."""
    folder = make_folder(tmp_path / "c", *(f"{c}/{i}.png" for c in "ab" for i in range(8)))
    how = ["--majority", "a", "--size", "20", "--fit", "pad", "--full", "--pseudonyms"]
    code, said = call(
        "benchmark", folder, "--methods", "ocsvm", "--runs", "1", *how, "--out", tmp_path / "s"
    )
    assert code == 0, said
    (about,) = (tmp_path / "s" / "jobs").glob("*/run.json")
    run = json.loads(about.read_text())
    assert Preprocessing.from_dict(run["preprocessing"]) == Preprocessing(
        size=20, fit="pad", scaled=False
    )
    assert run["loading"]["pseudonyms"] is True


def test_a_table_is_read_by_its_own_names_from_fit_to_score(folder, tmp_path, monkeypatch):
    """The run knows them for the same table; another is asked anew; paths are the table's own."""
    monkeypatch.chdir(tmp_path)
    images = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    rows = [f"{image.with_suffix('')};{image.parent};P{i // 2}" for i, image in enumerate(images)]
    Path("set.csv").write_text("\n".join(["Image Index;diagnosis;Subject", *rows]) + "\n")
    code, said = call("fit", "set.csv", "--majority", "plain", "--out", "r", *QUICK)
    assert (code, "--path-column 'Image Index'" in said) == (1, True)
    where = ["--path-column", "Image Index", "--suffix", ".png", "--root", folder]
    named = [*where, "--label-column", "diagnosis", "--patient-column", "Subject"]
    code, said = call("fit", "set.csv", "--majority", "plain", "--out", "r", *named, *QUICK)
    assert code == 0, said
    assert json.loads(Path("r/run.json").read_text())["loading"]["table"] == {
        "path_column": "Image Index",
        "label_column": "diagnosis",
        "patient_column": "Subject",
        "split_column": None,
        "one_hot": [],
        "suffix": ".png",
        "root": str(folder),
        "patients": None,
    }
    code, said = call("evaluate", "r", "set.csv", "--no-cache")
    assert code == 0, said
    evaluated = {row["path"] for row in table(tmp_path / "r/scores.csv")}
    shutil.copy("set.csv", "again.csv")
    code, said = call("evaluate", "r", "again.csv", "--no-cache", "--out", "r2")
    assert (code, "has the column 'Image Index'" in said) == (1, True)
    code, said = call("score", "r", "set.csv", "--quiet", *where)
    assert code == 0, said
    assert {row["path"] for row in table(tmp_path / "scores.csv")} == set(map(str, images))
    assert evaluated < set(map(str, images))
    code, said = call("explain", "r", "set.csv", "--out", "e", "--quiet", *where)
    assert code == 0, said
    assert len([*Path("e").glob("0*.png")]) == len(images)


@pytest.mark.parametrize("listed", ["-", "/dev/stdin"])
def test_images_to_be_scored_may_be_listed_on_standard_input(
    listed, run, folder, tmp_path, monkeypatch
):
    files = [str(folder / "odd/1.png"), str(folder / "plain/2.png")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(files) + "\n"))
    code, said = call("score", run, listed, "--out", tmp_path / "s.csv", "--quiet")
    assert code == 0, said
    assert [row["path"] for row in table(tmp_path / "s.csv")] == files


def test_boxes_and_patients_come_from_tables_of_any_names(folder, tmp_path):
    (tmp_path / "boxes.tsv").write_text("file\tx\ty\tWidth\tHeight\n0\t1\t1\t8\t8\n")
    (tmp_path / "who.csv").write_text("file,case_id\n0.png,ann\n")
    options = ["--boxes", tmp_path / "boxes.tsv", "--out", tmp_path / "out", "--quiet"]
    code, said = call("data", "patches", folder / "odd", *options)
    assert (code, "--path-column file" in said) == (1, True)
    options += ["--path-column", "file", "--suffix", ".png", "--patients", tmp_path / "who.csv"]
    code, said = call("data", "patches", folder / "odd", *options)
    assert (code, "--patient-column case_id" in said) == (1, True)
    shutil.rmtree(tmp_path / "out")
    code, said = call("data", "patches", folder / "odd", *options, "--patient-column", "case_id")
    assert code == 0, said
    assert {row["patient"] for row in table(tmp_path / "out/patches.csv")} == {"ann"}


@pytest.mark.parametrize("name", ["film.png", "film.pdf", "film.jpg"])
def test_a_montage_replaces_montages_alone(folder, tmp_path, name):
    """A picture that somebody else made may be a patient's."""
    film = write_image(tmp_path / "film.png").replace(tmp_path / name)
    before = film.read_bytes()
    draw = ("data", "inspect", folder, "--majority", "plain", "--no-cache", "--quiet", "--montage")
    code, said = call(*draw, film)
    assert code == 1
    assert "another file than this command writes" in said
    assert "Choose another --montage, or" in " ".join(said.split())
    assert film.read_bytes() == before
    film.unlink()
    assert [call(*draw, film)[0] for _ in range(2)] == [0, 0]


def test_a_list_of_unreadable_images_replaces_no_table_and_the_montage_waits(tmp_path):
    """The montage was drawn, and then 'Nothing was written' said."""
    cohort = make_folder(tmp_path / "set", "plain/1.png", "plain/2.png")
    (cohort / "plain/3.png").write_bytes(b"no image")
    (tmp_path / "set-unreadable.csv").write_text("my,own\n")
    draw = ("data", "inspect", cohort, "--no-cache", "--quiet", "--montage", tmp_path / "m.png")
    code, said = call(*draw)
    assert (code, "another folder (--montage), or" in " ".join(said.split())) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set-unreadable.csv"]


@pytest.mark.parametrize("name", ["film.png", "map.docx"])
def test_a_figure_that_cannot_be_written_is_refused_before_the_work(run, folder, tmp_path, name):
    """Before features are made anew (of a run that keeps them), and before a cohort is read."""
    film = write_image(tmp_path / "film.png")
    kept = tmp_path / "run"
    shutil.copytree(run, kept, ignore=shutil.ignore_patterns("embedding.npz"))
    for command in (("embed", kept, folder, "--out"), ("data", "inspect", "nowhere", "--montage")):
        code, said = call(*command, film.with_name(name))
        assert code == 1
        assert ("is not replaced" if name == "film.png" else "its ending must be") in said
    assert not (kept / "embedding.npz").exists()


def test_a_demo_writes_over_no_picture_of_somebody_else(tmp_path):
    film = write_image(tmp_path / "montage.png")
    before = film.read_bytes()
    code, said = call("demo", "--out", tmp_path, "--epochs", 1)
    assert (code, "is not replaced" in said) == (1, True)
    assert film.read_bytes() == before
    assert [*tmp_path.iterdir()] == [film]


def test_a_run_a_study_and_a_cohort_do_not_share_a_folder(run, folder, tmp_path):
    """A run among images makes their folder one that conocc made, which is then left aside."""
    fit = ("fit", "--method", "gabor_mahalanobis", "--majority", "plain", *QUICK[4:], "--out")
    for place in (folder, f"{folder}/../{folder.name}"):
        code, said = call(*fit, place, folder)
        assert (code, "is the cohort" in " ".join(said.split())) == (1, True)
    assert not (folder / "run.json").exists()
    study = ("benchmark", folder, "--methods", "gabor_mahalanobis", "--majority", "plain", "--out")
    code, said = call(*study, run, "--no-cache", "--quiet")
    assert (code, "holds a run" in said) == (1, True)
    (tmp_path / "study" / "rows").mkdir(parents=True)
    code, said = call(*fit, tmp_path / "study", folder)
    assert (code, "holds a study" in said) == (1, True)


def test_no_command_writes_into_a_folder_that_another_one_made(run, folder, tmp_path):
    """Pages went into runs and studies, runs and studies into pages, a montage into any."""
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run, tmp_path / "other")
    (tmp_path / "study" / "rows").mkdir(parents=True)
    assert call("card", tmp_path / "run")[0] == 0  # its own folder
    assert call("card", tmp_path / "run", "--out", tmp_path / "page")[0] == 0
    assert call("report", tmp_path / "run", "--out", tmp_path / "page")[0] == 0
    before = sorted(tmp_path.rglob("*"))
    pages = ("report", run), ("card", run), ("explain", run, folder), ("review", run, folder)
    cohort = folder, "--method", "gabor_mahalanobis", "--majority", "plain", *QUICK[4:]
    study = folder, "--methods", "gabor_mahalanobis", "--majority", "plain", *QUICK[4:]
    for command, places in (
        *((page, ("run", "other", "study")) for page in pages),
        (("demo",), ("run", "study", "page")),
        (("fit", *cohort), ("study", "page")),
        (("benchmark", *study), ("run", "page")),
        (("crossval", *study), ("run",)),
    ):
        for place in places:
            code, said = call(*command, "--out", tmp_path / place)
            assert (code, "that another command made" in " ".join(said.split())) == (1, True), said
    if find_spec("highdicom"):
        code, said = call("score", run, folder, "--dicom-out", tmp_path / "page")
        assert (code, "that another command made" in " ".join(said.split())) == (1, True), said
    assert sorted(tmp_path.rglob("*")) == before


def test_of_features_nothing_is_offered_to_be_looked_at(tmp_path):
    """The next command was 'review', which refuses them; explain blamed the method."""
    lines = [f"{i},plain,{i * 7 % 11},{i * 5 % 13}" for i in range(12)]
    features = tmp_path / "features.csv"
    features.write_text("\n".join(["path,label,a,b", *lines]))
    run = tmp_path / "run"
    assert call("fit", features, "--method", "gabor_mahalanobis", "--out", run, "--quiet")[0] == 0
    code, said = call("score", run, features, "--out", tmp_path / "s.csv", "--quiet")
    assert (code, "Next:" in said) == (0, False)
    for command in ("review", "explain"):
        code, said = call(command, run, features, "--out", tmp_path / "page")
        assert (code, "was fitted to features" in said) == (1, True)


def test_no_option_takes_a_word_for_a_number():
    """Also one that is declared without `option`."""
    apps = [each[name] for each in (app, app["data"]) for name in each if name.isalpha()]
    commands = [each for each in apps if each.default_command]
    tried = 0
    for argument in (one for each in commands for one in each.assemble_argument_collection()):
        if {int, float} & {argument.hint, *get_args(argument.hint)}:
            argument.append(Token(value="none"))
            with pytest.raises(CoercionError, match=r"'none' is no (whole )?number\. ."):
                argument.convert()
            tried += 1
    assert tried > 50


def test_a_home_is_found_where_the_shell_leaves_it(run, folder, tmp_path, monkeypatch):
    """As of --out=~/scores.csv: a folder '~' was made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    assert call("score", run, folder / "odd", "--out=~/s.csv", "--quiet")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.about.json", "s.csv"]


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", "{"])
def test_damaged_results_of_a_run_are_named(run, folder, tmp_path, content):
    """Python's own KeyError ended evaluate, report and card."""
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text(content)
    for command in (("evaluate", folder), ("report",), ("card",)):
        code, said = call(command[0], tmp_path / "run", *command[1:], "--quiet")
        assert code == 1
        assert "Cannot read" in said
        assert "metrics.json': it " in said or content == "{"


def test_what_is_no_model_is_said_to_be_none(run, folder, tmp_path):
    code, said = call("score", run / "run.json", folder, "--out", tmp_path / "s.csv")
    assert (code, "another kind of file" in said, "by its folder" in said) == (1, True, True)


def test_a_table_of_scores_is_not_called_as_if_it_were_a_workbook(run, folder, tmp_path):
    code, said = call("score", run, folder, "--out", tmp_path / "scores.xlsx")
    assert code == 1
    assert "Call it 'scores.csv'" in " ".join(said.split())


def test_the_plan_takes_a_number_of_images(capsys):
    """It crashed: 'images' are files in other commands."""
    code, said = call("plan", "--images", "3")
    assert code == 0
    assert "with 3 images each" in " ".join(said.split())


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_that_wait_leave_their_core_unless_the_user_says_otherwise(given, spins):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    program = """
import os, sys
from conocc.cli import application
def run():
    assert "torch" not in sys.modules  # which reads it once
    print(os.environ.get("GOMP_SPINCOUNT"))
application.run = run
application.main()
"""
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | given, capture_output=True, text=True
    )
    assert done.stdout.strip() == spins, done.stderr
