"""Scoring files: the same tables however it is cut, spread, killed and gone on with.

Workers are real processes. They learn to die through a ``sitecustomize`` on their path, which
Python imports on its own, so that the package needs no door for tests.
"""

import csv
import hashlib
import json
import os
import shutil
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from conftest import quick
from conocc import Preprocessing, load, load_cohort
from conocc.data.acquisition import FACTS
from conocc.experiments import inference
from conocc.experiments.inference import score_files, table_beside
from conocc.experiments.run import fit_run, make_detector
from conocc.thresholds.rule import RULE, Rule
from made_cohorts import make_folder, write_image
from reused_workers import stop_workers

# Files in the order of the listing; those of a name that begins with "bad" cannot be read.
NAMES = [
    *("a/0.png", "a/1.png", "a/bad.png", "a/3.png", "a/4.png"),
    *("b/0.png", "b/bad0.png", "b/bad1.png", "b/bad2.png", "b/z.png"),
]
GOOD = [name for name in NAMES if "bad" not in name]
BAD = [name for name in NAMES if "bad" in name]

# Has a worker die, in the first `deaths` times that it is given a shard with a file called so.
DEADLY = """
import os, signal
import conocc.experiments.inference
_do = conocc.experiments.inference._do

def deadly(shard, threads):
    names = [name.rsplit("/", 1)[-1] for part in shard.parts for name in part.names]
    for name in names:
        if name.startswith("deadly"):
            diary = os.path.join({folder!r}, name)
            with open(diary, "a+") as file:
                file.write("started\\n")
                file.seek(0)
                starts = len(file.readlines())
            if starts <= int(name.removesuffix(".png").split("-")[1]):
                os.kill(os.getpid(), signal.SIGKILL)
    _do(shard, threads)

conocc.experiments.inference._do = deadly
"""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Three files in a shard: the ten make four, one of them of nothing but bad files and one."""
    monkeypatch.setattr(inference, "SHARD", 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A model of 16-pixel images."""
    folder = tmp_path_factory.mktemp("fit")
    make_folder(folder / "made", *[f"plain/{i}.png" for i in range(8)])
    cohort = load_cohort(folder / "made", majority="plain", cache=False)
    fit_run(cohort, "cae", {"epochs": 1, "random_state": 0}, folder / "run", command="")
    return folder / "run"


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    make_folder(folder, *GOOD)
    for name in BAD:
        (folder / name).write_text(f"not an image {name}")
    return folder


@pytest.fixture(scope="module")
def tables(run, images, tmp_path_factory) -> tuple[bytes, bytes]:
    """What an unbroken run in one process gives."""
    out = tmp_path_factory.mktemp("whole") / "scores.csv"
    score_files(run, [images], out)
    return both(out)


@pytest.mark.parametrize("rule", [RULE, Rule(fdr=0.5, unit="image")], ids=["usual", "fdr"])
def test_a_detector_gives_the_figures_of_the_table_as_a_frame(run, images, tmp_path, rule):
    """Files that cannot be read have a row each, after the others, with the reason."""
    model = load(run)
    if rule.fdr:
        majority = np.random.default_rng(0).random((20, 16, 16)) * 255
        model.calibrate(majority)
    model.save(tmp_path / "model.safetensors")
    score_files(tmp_path / "model.safetensors", [images], tmp_path / "scores.csv", rule=rule)
    frame, table = model.score_files(images, rule=rule), pd.read_csv(tmp_path / "scores.csv")
    good, bad = frame[frame["error"].isna()], frame[frame["error"].notna()]
    for name in ("path", "anomaly_score", "p_value"):
        np.testing.assert_array_equal(good[name].to_numpy(), table[name].to_numpy())
    flagged = {"minority": True, "majority": False}
    assert good["flagged"].tolist() == [flagged.get(one, pd.NA) for one in table["predicted"]]
    listed = pd.read_csv(tmp_path / "scores.errors.csv")
    assert bad[["path", "error"]].to_numpy().tolist() == listed.to_numpy().tolist()
    assert len(bad) == len(BAD)
    pd.testing.assert_frame_equal(model.score_files(p for p in [images]), model.score_files(images))
    with pytest.raises(ValueError, match="There is no file to score: the list is empty"):
        model.score_files(images.glob("*.none"))


def test_a_detector_of_arrays_scores_no_files(images):
    detector = quick("gabor_mahalanobis").fit(np.random.default_rng(0).random((20, 16, 16)))
    with pytest.raises(ValueError, match="GaborMahalanobis was fitted to arrays"):
        detector.score_files([images])


def both(out: Path) -> tuple[bytes, bytes]:
    return out.read_bytes(), table_beside(out, "errors").read_bytes()


def rows(table: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(table.decode().splitlines()))


def left(out: Path) -> list[str]:
    """What lies beside the tables, and beside the note of whose they are."""
    names = (
        p.name
        for p in out.parent.iterdir()
        if p.suffix != ".csv" and not p.name.endswith(".about.json")
    )
    return sorted(name for name in names if name != "conocc.json")


def finished_shards(out: Path) -> set[str]:
    folder = out.with_name(f"{out.name}.shards")
    return {p.stem for p in folder.glob("*.json")} - {"about"}


class Killed(BaseException):
    """Ends the program as a signal would."""


@pytest.fixture
def killed_after(monkeypatch):
    """Start a command, and end it after some shards; in the next one, list what it writes."""
    original = inference._write_shard

    def start(shards: int, *arguments):
        written = []

        def writing(path, *tables):
            if len(written) == shards:
                raise Killed
            original(path, *tables)
            written.append(path.stem)

        monkeypatch.setattr(inference, "_write_shard", writing)
        if shards < 99:
            with pytest.raises(Killed):
                score_files(*arguments)
        else:
            score_files(*arguments)
        monkeypatch.setattr(inference, "_write_shard", original)
        return written

    return start


ALL = 99


# --- the tables --------------------------------------------------------------------------------


def test_good_files_are_scored_and_bad_ones_named_both_in_the_order_of_the_listing(
    run, images, tables
):
    scored, failed = map(rows, tables)
    assert [row["path"] for row in scored] == [f"{images.as_posix()}/{name}" for name in GOOD]
    assert [row["path"] for row in failed] == [f"{images.as_posix()}/{name}" for name in BAD]
    for row in failed:
        assert row["reason"].startswith(f"Cannot read '{row['path']}': its content")
    detector = load(run / "model.safetensors")
    pixels = [np.asarray(Image.open(images / name), np.float32) for name in GOOD]
    expected = detector.anomaly_score(np.stack(pixels))
    assert [float(row["anomaly_score"]) for row in scored] == expected.tolist()
    assert {row["predicted"] for row in scored} == {""}


def test_what_was_done_is_told_with_the_first_errors_and_nothing_else_is_left(
    run, images, tables, tmp_path
):
    done = score_files(run, [images], tmp_path / "s.csv")
    assert (done.count, done.failed) == (len(GOOD), len(BAD))
    assert [path.rsplit("/", 2)[1:] for path, _ in done.errors] == [n.split("/") for n in BAD]
    assert both(tmp_path / "s.csv") == tables
    assert left(tmp_path / "s.csv") == []


def test_of_many_errors_the_first_five_are_told(run, tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.png").write_text("no image")
    done = score_files(run, [tmp_path], tmp_path / "out" / "s.csv")
    assert done.failed == 9
    assert [Path(path).name for path, _ in done.errors] == [f"{i}.png" for i in range(5)]


def test_without_errors_there_is_no_table_of_them_not_even_an_older_one(run, images, tmp_path):
    (tmp_path / "s.errors.csv").write_text("path,reason\nold,old\n")
    done = score_files(run, [images / "a" / "0.png"], tmp_path / "s.csv")
    assert (done.count, done.failed, done.errors) == (1, 0, ())
    assert not (tmp_path / "s.errors.csv").exists()


@pytest.mark.parametrize("name", ["s.csv", "s.errors.csv", "s.volumes.csv", "s.about.json"])
def test_a_table_that_is_not_its_own_is_refused_before_anything_is_written(
    run, images, tmp_path, name
):
    (tmp_path / name).write_text("path,mine\nx,1\n")
    with pytest.raises(FileExistsError, match=f"{name}' is another file"):
        score_files(run, [images], tmp_path / "s.csv")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "path,mine\nx,1\n"


def test_tables_of_the_user_beside_its_own_stay(run, images, tmp_path):
    for name in ("errors.csv", "volumes.csv", "t.errors.csv"):
        (tmp_path / name).write_text("mine")
    score_files(run, [images], tmp_path / "s.csv")
    for name in ("errors.csv", "volumes.csv", "t.errors.csv"):
        assert (tmp_path / name).read_text() == "mine"


def test_what_a_killed_call_left_of_its_tables_goes_and_nothing_else(run, images, tmp_path):
    """As where the disk was made read-only before a table was renamed."""
    own = [".s.csv.abcd_123.tmp", ".s.errors.csv.abcd1234.tmp", ".s.about.json.abcd1234.tmp"]
    others = [".t.csv.abcd1234.tmp", ".s.csv.tmp", ".s.csv.a-longer-name.tmp", "s.csv.abcd1234.tmp"]
    for name in own + others:
        (tmp_path / name).write_text("half a ta")
    score_files(run, [images], tmp_path / "s.csv")
    assert not any((tmp_path / name).exists() for name in own)
    assert all((tmp_path / name).exists() for name in others)


def test_no_table_goes_into_the_folder_of_a_run(run, images):
    before = sorted(run.iterdir())
    for name in ("scores.csv", "mine.csv"):
        with pytest.raises(FileExistsError, match="lies in the folder of a run"):
            score_files(run, [images], run / name)
    assert sorted(run.iterdir()) == before


def test_a_path_that_does_not_exist_is_refused_before_anything_is_written(run, images, tmp_path):
    with pytest.raises(FileNotFoundError, match="no '.*gone.png'"):
        score_files(run, [images, tmp_path / "gone.png"], tmp_path / "s.csv")
    assert not list(tmp_path.iterdir())


def test_where_nothing_is_scored_an_older_table_stays(run, images, tmp_path):
    score_files(run, [images], tmp_path / "s.csv")
    before = (tmp_path / "s.csv").read_bytes()
    (tmp_path / "bad.png").write_text("no image")
    done = score_files(run, [tmp_path / "bad.png"], tmp_path / "s.csv")
    assert (done.count, done.failed) == (0, 1)
    assert (tmp_path / "s.csv").read_bytes() == before


def test_only_a_score_that_is_not_finite_is_an_error_of_the_image(
    run, images, tmp_path, monkeypatch
):
    """Any other ValueError is a fault of the program, and ends it."""

    def broken(self, X):
        raise ValueError("a fault")

    monkeypatch.setattr("conocc.detectors.cae.CAE.anomaly_score", broken)
    with pytest.raises(ValueError, match="a fault"):
        score_files(run, [images], tmp_path / "s.csv")


def test_a_file_that_is_named_twice_has_two_rows(run, images, tmp_path):
    score_files(run, [images / GOOD[0]] * 7, tmp_path / "s.csv")
    assert len({tuple(row.items()) for row in rows((tmp_path / "s.csv").read_bytes())}) == 1
    assert len(rows((tmp_path / "s.csv").read_bytes())) == 7


def test_an_image_of_a_shape_that_the_model_does_not_take_is_an_error(tmp_path):
    """Of images that are not square the size is not known, and none is resized."""
    rng = np.random.default_rng(0)
    (tmp_path / "made").mkdir()
    for i in range(5):
        pixels = rng.integers(0, 255, (16, 20), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "made" / f"{i}.png")
    (tmp_path / "made.csv").write_text(
        "path,label\n" + "".join(f"made/{i}.png,x\n" for i in range(5))
    )
    cohort = load_cohort(tmp_path / "made.csv", majority="x", cache=False)
    fit_run(cohort, "cae", {"epochs": 1}, tmp_path / "run", command="")
    write_image(tmp_path / "made" / "5.png", side=16)
    done = score_files(tmp_path / "run", [tmp_path / "made"], tmp_path / "s.csv")
    assert done.count == 5
    ((path, reason),) = done.errors
    assert path.endswith("/5.png")
    assert "has 16x16 pixels, where 20x16 pixels are expected" in reason


def test_a_model_of_arrays_cannot_read_files(tmp_path):
    pixels = np.random.default_rng(0).random((4, 16, 16))
    make_detector("cae", {"epochs": 1}).fit(pixels).save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="fitted to arrays"):
        score_files(tmp_path / "model.safetensors", [tmp_path], tmp_path / "scores.csv")
    assert left(tmp_path / "scores.csv") == ["model.safetensors"]


def test_torchs_threads_are_left_as_they_were(run, images, tmp_path):
    import torch

    torch.set_num_threads(2)
    try:
        score_files(run, [images], tmp_path / "s.csv")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# --- killed and gone on with -------------------------------------------------------------------


def test_killed_and_started_again_it_does_the_missing_shards_and_gives_the_same_tables(
    run, images, tables, tmp_path, killed_after
):
    out = tmp_path / "s.csv"
    first = killed_after(2, run, [images], out)
    assert len(first) == 2
    assert not out.exists()
    assert finished_shards(out) == set(first)
    rest = killed_after(ALL, run, [images], out)
    assert len(rest) == 2
    assert not set(first) & set(rest)
    assert both(out) == tables
    assert left(out) == []


def test_killed_while_the_tables_are_joined_nothing_is_scored_again(
    run, images, tables, tmp_path, killed_after, monkeypatch
):
    out = tmp_path / "s.csv"

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(inference, "_join", killed)
        score_files(run, [images], out)
    assert killed_after(ALL, run, [images], out) == []
    assert both(out) == tables


def test_a_file_that_changed_meanwhile_makes_its_shard_new(
    run, images, tables, tmp_path, killed_after
):
    copy = shutil.copytree(images, tmp_path / "images")
    out = tmp_path / "out" / "s.csv"
    first = killed_after(2, run, [copy], out)
    write_image(copy / "a" / "0.png", like="another")
    os.utime(copy / "a" / "0.png", (1, 1))
    rest = killed_after(ALL, run, [copy], out)
    assert len(rest) == 3  # the first, and the two that were missing
    assert first[0] not in rest
    scored, before = rows(out.read_bytes()), rows(tables[0])
    changed = [
        new["anomaly_score"] != old["anomaly_score"]
        for new, old in zip(scored, before, strict=True)
    ]
    assert changed == [True] + [False] * (len(GOOD) - 1)
    assert left(out) == []


def test_a_model_that_changed_meanwhile_makes_all_shards_new(run, images, tmp_path, killed_after):
    own = shutil.copytree(run, tmp_path / "run")
    out = tmp_path / "out" / "s.csv"
    killed_after(2, own, [images], out)
    detector = load(own / "model.safetensors")
    detector.network_.decoder.convs[-1].bias.data += 1
    detector.save(own / "model.safetensors")
    assert len(killed_after(ALL, own, [images], out)) == 4
    score_files(own, [images], tmp_path / "whole.csv")
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("other", ["model", "images"])
def test_another_command_does_not_mix_with_an_unfinished_one(
    run, images, tables, tmp_path, killed_after, other
):
    out = tmp_path / "s.csv"
    killed_after(1, run, [images], out)
    command = {
        "model": (shutil.copytree(run, tmp_path / "other"), [images]),
        "images": (run, [images / "a"]),
    }
    with pytest.raises(ValueError, match=f"unfinished scores of another command: {other} was"):
        score_files(*command[other], out)
    score_files(run, [images], out)
    assert both(out) == tables


# --- workers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deadly(tmp_path_factory):
    """Teach the processes that are started from now on to die; their diaries are in the folder."""
    folder = tmp_path_factory.mktemp("deadly")
    (folder / "sitecustomize.py").write_text(DEADLY.format(folder=str(folder)))
    stop_workers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder
        stop_workers()


def test_three_processes_give_the_tables_of_one(run, images, tables, tmp_path, deadly):
    score_files(run, [images], tmp_path / "s.csv", n_jobs=3)
    assert both(tmp_path / "s.csv") == tables
    assert left(tmp_path / "s.csv") == []


def test_there_are_never_more_processes_than_shards(run, images, tmp_path, deadly):
    stop_workers()
    score_files(run, [images / name for name in GOOD[:2]], tmp_path / "s.csv", n_jobs=1000)
    workers = [p for p in active_children() if p.name.startswith("LokyProcess")]
    assert len(workers) == 1


def test_a_worker_that_dies_ends_nothing_and_a_shard_that_kills_three_is_listed(
    run, images, tmp_path, deadly
):
    """The shard of deadly-1 kills its worker once, that of deadly-99 always."""
    folder = shutil.copytree(images, tmp_path / "images")
    # Shards are (a/0 a/1 a/3) (a/4 a/bad b/0) (b/bad0 b/bad1 b/bad2) (b/z c/..1 c/y) (d/..)
    lost = [f"{folder.as_posix()}/d/{name}.png" for name in ("deadly-99", "y", "z")]
    make_folder(folder, "c/deadly-1.png", "c/y.png", "d/deadly-99.png", "d/y.png", "d/z.png")
    done = score_files(run, [folder], tmp_path / "s.csv", n_jobs=2)
    scored, failed = map(rows, both(tmp_path / "s.csv"))
    assert [row["path"] for row in failed[-3:]] == lost
    assert {row["reason"] for row in failed[-3:]} == {
        "Its worker died in each of 3 attempts (killed, or out of memory)."
    }
    assert [row["path"].removeprefix(f"{folder.as_posix()}/") for row in scored] == [
        *GOOD,
        "c/deadly-1.png",
        "c/y.png",
    ]
    assert (done.count, done.failed) == (len(GOOD) + 2, len(BAD) + 3)
    starts = {path.name: len(path.read_text().splitlines()) for path in deadly.glob("*.png")}
    assert starts == {"deadly-1.png": 2, "deadly-99.png": 3}
    assert left(tmp_path / "s.csv") == ["images"]


@pytest.fixture(scope="module")
def cluster(deadly):
    """A scheduler and two worker processes, on this machine's own address."""
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as made:
        yield made.scheduler_address


def test_dask_gives_the_tables_of_one_process_also_after_a_kill(
    run, images, tables, tmp_path, cluster, killed_after
):
    out = tmp_path / "s.csv"
    killed_after(1, run, [images], out)
    score_files(run, [images], out, engine="dask", address=cluster)
    assert both(out) == tables
    assert left(out) == []


def test_a_dask_worker_that_dies_ends_nothing(run, images, tmp_path, cluster, deadly):
    folder = tmp_path / "images"
    make_folder(folder, "deadly-1-dask.png", "z.png")
    done = score_files(run, [folder], tmp_path / "s.csv", engine="dask", address=cluster)
    assert (done.count, done.failed, done.errors) == (2, 0, ())
    assert len((deadly / "deadly-1-dask.png").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [({"engine": "ray"}, "processes, dask. Got 'ray'"), ({"n_jobs": 0}, "1 or more. Got 0")],
)
def test_an_engine_that_there_is_not_is_refused(run, images, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        score_files(run, [images], tmp_path / "s.csv", **options)


def test_a_shard_of_another_model_is_not_scored(run, images, tmp_path):
    """A worker that sees another file than the driver says so."""
    from conocc.data.preprocessing import Preprocessing
    from conocc.data.unlabelled import list_images

    (part,) = list_images([images], Preprocessing(size=16))
    shard = inference.Shard((part,), run / "model.safetensors", "0" * 64, tmp_path / "x.json")
    with pytest.raises(ValueError, match="model.safetensors' changed while images were"):
        inference._do(shard, 1)


def test_a_note_is_plain_json(run, images, tmp_path, killed_after):
    killed_after(1, run, [images], tmp_path / "s.csv")
    about = json.loads((tmp_path / "s.csv.shards" / "about.json").read_text())
    assert about == {
        "model": str(run / "model.safetensors"),
        "images": [str(images)],
    }


def test_a_note_says_of_a_table_how_it_came_to_be(run, images, tmp_path):
    """Whether a batch is like the calibration too, once there is one."""
    score_files(run, [images], tmp_path / "s.csv")
    note = json.loads((tmp_path / "s.about.json").read_text())
    assert note["sha256"] == hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    assert note["images"] == len(GOOD)
    assert "nothing can be promised" in note["decision"]["words"]
    assert note["batch"] == {"words": [], "moved": {}}
    detector = load(run / "model.safetensors")
    rng = np.random.default_rng(0)
    detector.calibrate(rng.normal(size=(20, *detector.input_shape_)))
    detector.save(tmp_path / "calibrated")
    done = score_files(tmp_path / "calibrated", [images], tmp_path / "s.csv")
    note = json.loads((tmp_path / "s.about.json").read_text())
    batch = note["batch"]
    assert (note["decision"]["words"], *batch["words"]) == done.words
    assert f"of {len(GOOD)} images have p ≤" in batch["words"][0]
    assert {"majority", "most", "lower_half", "differs", "moved"} < {*batch}


def test_a_batch_whose_images_moved_says_how(tmp_path):
    """Blurred ones, and of another size; training images alone, or a model of arrays, say none."""
    rng = np.random.default_rng(0)
    for kind in ("plain", "new"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(20):
            image = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            drawn = Image.fromarray(image)
            if kind == "new":
                drawn = drawn.filter(ImageFilter.GaussianBlur(2)).resize((64, 64))
            drawn.save(tmp_path / "set" / kind / f"{i}.png")
    cohort = load_cohort(tmp_path / "set", Preprocessing(size=32), majority="plain", cache=False)
    fit_run(cohort, "ocsvm", {}, tmp_path / "run", command="")

    def moved(kind, run="run"):
        score_files(tmp_path / run, [tmp_path / "set" / kind], tmp_path / "s.csv")
        return json.loads((tmp_path / "s.about.json").read_text())["batch"]["moved"]

    assert {"size", "sharpness", "contrast"} <= {*moved("new")}
    assert moved("new")["sharpness"].endswith(
        "the middle batch image lies below all training images."
    )
    assert moved("plain") == {}
    detector = load(tmp_path / "run" / "model.safetensors")
    assert [*detector.origin_["acquisition"]] == [*FACTS]
    detector.origin_ = {}
    detector.save(tmp_path / "arrays.safetensors", preprocessing=detector.preprocessing_)
    assert moved("new", "arrays.safetensors") == {}
