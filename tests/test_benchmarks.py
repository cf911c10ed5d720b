"""The harness: what it counts, how it lets contestants compete, where it writes."""

import subprocess
from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks import (
    ablation,
    calibrations,
    contestants,
    epochs,
    gpu,
    near_copies,
    operations,
    readings,
    training,
    trials,
)
from benchmarks.__main__ import written
from benchmarks.contest import Contestant, compete, table
from PIL import Image
from torch.nn import BatchNorm2d

from conftest import quick
from conocc import LRT, load, load_cohort
from conocc.cli.application import app
from conocc.data.phantoms import PHANTOMS
from conocc.data.preprocessing import Preprocessing
from conocc.detectors.lrt import lrt
from conocc.metrics.ranking import auc
from conocc.networks import Autoencoder
from made_cohorts import make_folder


def test_operations_of_a_tiny_network_by_hand():
    """4 pixels a side, 2 channels, 3 features.

    Forward: 9·1·2 at 2·2 places = 72, twice 8·3 = 48, 9·2·1 at 4·4 places = 288; 408 in all.
    A step: 3·408 less the 72 of the first layer's input, two operations each.
    """
    assert operations.multiplications(4, channels=(2,), d=3) == (72, 408)
    assert operations.training_operations(4, channels=(2,), d=3) == 2 * (3 * 408 - 72)


def test_upsampled_maps_count_before_they_are_cropped():
    """3 pixels come from 2: 9·2·1 at 4·4 places, though 3·3 are kept."""
    assert operations.multiplications(3, channels=(2,), d=3)[1] == 72 + 48 + 288


@pytest.mark.parametrize("side", [16, 25, 100])
def test_parameters_are_those_of_the_network(side):
    network = Autoencoder((1, side, side), operations.BOTTLENECK, operations.CHANNELS)
    assert operations.parameters(side) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ["conocc", "pytorch"])
def test_a_contestant_trains_a_network_of_the_right_size(name):
    work, count = contestants.CONTESTANTS[name](contestants.images(4, 25), 1, "cpu")
    assert count == operations.parameters(25)
    work()


def test_images_are_z_scored():
    x = contestants.images(3, 16)
    assert np.allclose(x.mean((1, 2)), 0, atol=1e-6)
    assert np.allclose(x.std((1, 2)), 1, atol=1e-6)


def test_contestants_answer_as_often_as_they_are_asked():
    """In a process of its own: one round to warm up, two that count."""
    contestant = Contestant("conocc", ["benchmarks.contestants", "conocc", "16", "4", "1"])
    compete([contestant], repeats=2)
    assert len(contestant.answers) == 2
    assert contestant.median("rate") > 0
    assert contestant.process.poll() == 0


def test_a_contestant_that_ends_is_named():
    with pytest.raises(RuntimeError, match="'nobody' ended"):
        compete([Contestant("nobody", ["benchmarks.operations"])], repeats=1)


def test_rows_hold_medians_ratios_and_shares():
    """Rates 40, 10 and 5; a machine that does 80 images' operations a second: 50 %."""
    per_image = operations.training_operations(32)
    rates = {"conocc": [40, 40, 1], "keras": [10], "pytorch": [5], "machine": [80 * per_image]}
    asked = {name: Contestant(name, []) for name in rates}
    for name, contestant in asked.items():
        contestant.answers = [{"rate": r, "peak_mib": i} for i, r in enumerate(rates[name])]
    assert training.rows(asked, 32)[0] == ["`ConOCC.fit`", "40", "4.0×", "8.0×", "50 %", "2"]


def test_a_table_is_written_between_its_markers():
    page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    assert written(page, "x", "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="lacks the markers"):
        written(page, "y", "new")


def test_numbers_stand_to_the_right():
    assert table(["", "n"], [["a", 1]]) == "|  | n |\n| --- | ---: |\n| a | 1 |"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    make_folder(folder, *[f"{label}/{i}.png" for label in "ab" for i in range(10)])
    return load_cohort(folder, Preprocessing(size=32), majority="a", cache=False)


@pytest.mark.parametrize("name", readings.VARIATIONS)
def test_every_reading_of_the_paper_trains_and_is_measured(name, cohort):
    line = dict(zip(readings.HEADS, readings.measured(cohort, name, 0, 2), strict=True))
    assert 0 <= float(line["low"]) <= float(line["AUC"]) <= float(line["high"]) <= 1
    assert float(line["spread"]) > 0


def test_images_are_halved_by_pixels_and_by_means():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    assert readings.every_second(x)[0, 0].tolist() == [[0, 2], [8, 10]]
    assert readings.in_twos(x)[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_readings_build_what_they_say(cohort):
    def fitted(name):
        return readings.detector(readings.VARIATIONS[name], epochs=1, random_state=0).fit(x)

    x = cohort.where(split="train").images
    assert fitted("rectified bottleneck").embed(x).min() >= 0 > fitted("defaults").embed(x).min()
    image = fitted("min-max, sigmoid output").reconstruct(x)
    assert image.min() >= 0
    assert image.max() <= 1
    normalised = fitted("batch normalisation").network_.modules()
    assert sum(isinstance(module, BatchNorm2d) for module in normalised) == 5
    biases = fitted("Keras's start").network_.encoder.out.bias
    assert biases.abs().max() < 0.01


def test_an_ablation_begins_with_the_method_as_it_is_and_names_each_part(cohort):
    found = dict(ablation.variations(cohort, 0))
    train, test = (cohort.where(split=split).images for split in ("train", "test"))
    whole = LRT(random_state=0).fit(train).anomaly_score(test)
    assert np.allclose(found["nothing"], whole, rtol=1e-3)
    assert set(ablation.FAMILIES) - set(found) == {"colour"}
    changed = [name for name, score in found.items() if not np.allclose(score, whole, rtol=1e-3)]
    # Files of noise have no anatomy, so that nothing is aligned.
    assert set(found) - set(changed) == {"nothing", "alignment"}


def test_features_are_named_by_their_family():
    """Quantiles rise, and correlations are within −1 and 1."""
    description = lrt.Description((3, 32, 32))
    names = ablation.families(description, (3, 32, 32))
    assert (names == "profile").sum() == 4 * 80
    assert (names == "colour").sum() == 3 * 4 * 80
    assert (names == "quantiles").sum() == 3 * 21
    x = torch.rand(2, 3, 32, 32)
    z = description(x)
    ranked = z[:, torch.from_numpy(names == "quantiles")].reshape(2, 3, 21)
    assert (ranked.diff(dim=2) >= 0).all()
    within = z[:, torch.from_numpy(names == "correlations")]
    assert within.abs().max() <= 1 + 1e-5


@pytest.mark.parametrize("method", ["conocc", "cae"])
def test_a_training_followed_for_some_epochs_is_one_of_fewer(method, cohort, tmp_path):
    """Also where T is over; and what is known is not trained again."""
    given = {"false_alarms": None, **({"interval": 2} if method == "conocc" else {})}
    epochs.follow(tmp_path, cohort, method, 0, (2, 4, 6), **given)
    found = pd.read_csv(tmp_path / "epochs.csv").set_index(["epoch", "score"])["AUC"]
    train, test = (cohort.where(split=split) for split in ("train", "test"))
    for epoch in (2, 4, 6):
        one = quick(method, epochs=epoch, lr=1e-3, **given).fit(train.images)
        for score in ("residual", "correlation"):
            one.scored_by = score
            expected = auc(test.minority, one.anomaly_score(test.images))
            assert found[epoch, score] == pytest.approx(expected, abs=1e-4)
    assert found.nunique() > 1
    before = (tmp_path / "epochs.csv").read_bytes()
    with mock.patch.object(epochs, "watched", side_effect=AssertionError("trained again")):
        epochs.follow(tmp_path, cohort, method, 0, (2, 4, 6), **given)
    assert (tmp_path / "epochs.csv").read_bytes() == before
    assert len(epochs.figure(pd.read_csv(tmp_path / "epochs.csv")).axes[0].lines) == 2


@pytest.mark.parametrize("trial", trials.TRIALS)
def test_each_reading_of_a_trial_has_an_auc_with_its_interval(trial, cohort, monkeypatch):
    monkeypatch.setattr(trials, "COMPONENTS", (2, 4, 600))
    monkeypatch.setattr(trials, "SEEDS", 2)
    found = list(trials.lines(trial, cohort, epochs=2, lr=1e-3, random_state=0, false_alarms=None))
    names = [line[0] for line in found]
    expected = {"components": 7, "kernels": 12, "sigma": 6, "variance": 3}
    assert len(names) == expected[trial]
    for name, area, low, high, *lead in found:
        assert 0 <= float(low) <= float(area) <= float(high) <= 1, name
        assert len(lead) == (4 if trial == "components" and name != "lrt" else 0)
    if trial == "sigma":
        assert len({line[1] for line in found}) > 1


def test_components_give_back_what_they_span():
    rng = np.random.default_rng(0)
    images = np.einsum("nk,kchw->nchw", rng.normal(size=(9, 2)), rng.normal(size=(2, 1, 4, 5)))
    assert np.allclose(trials.of_components(images[:6], images[6:], 2), images[6:])
    assert not np.allclose(trials.of_components(images[:6], images[6:], 1), images[6:])


def test_near_copies_are_counted_and_left_out(tmp_path):
    """74 majority images, each with a brighter twin; 60 % of the 148 are 89, four fifths 71."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (90, 16, 16))
    for i, image in enumerate(np.concatenate([images, images[:74] + 1]).astype("u1")):
        folder = tmp_path / ("b" if 74 <= i < 90 else "a")
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    made = load_cohort(tmp_path, majority=["a"], cache=False)
    found = [*near_copies.lines(made, "gabor_mahalanobis", range(1), 1)]
    assert [line[:3] for line in found] == [
        [0, "all", 89],
        [0, "less a fifth", 71],
        [0, "random", 36],
        [0, "random", 53],
        [0, "random", 71],
    ]
    trained = made.path[made.split == "train"].tolist()
    tested = made.path[(made.split == "test") & ~made.minority].tolist()

    def twin(path):
        i = int(path[2:-4])
        return f"a/{i + 90 if i < 74 else i - 90}.png"

    copies = sum(twin(path) in trained for path in tested)
    assert {tuple(line[3:5]) for line in found} == {(copies, 59)}
    assert [len(line) for line in found] == [7, 10, 7, 7, 7]


def test_calibrations_are_of_the_same_images_or_of_others(monkeypatch):
    small = replace(PHANTOMS["phantom-mri"], size=16, train=100, test_majority=30)
    monkeypatch.setitem(PHANTOMS, "phantom-mri", small)
    same, anew = (
        [*calibrations.lines("phantom-mri", "gabor_mahalanobis", images, range(2))]
        for images in ("same", "anew")
    )
    assert [line[:4] for line in same] == [["same", 0, 20, 0.2], ["same", 1, 20, 0.2]]
    assert [line[:4] for line in anew] == [["anew", 0, 20, 0.2], ["anew", 1, 20, 0.2]]
    shares = [tuple(line[4:]) for line in (*same, *anew)]
    assert len({*shares}) == 4
    assert all(0 <= float(share) <= 1 for pair in shares for share in pair)


def test_gpu_runs_without_one_and_goes_on(tmp_path, monkeypatch):
    """Each part once; what is there is kept, and a part without time is named."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(gpu, "METHODS", ["cae", "anogan"])
    gpu.main([str(tmp_path), "equality", "--device", "cpu", "--quick"])
    lines = [
        line for line in (tmp_path / "gpu.md").read_text().splitlines() if line.endswith("yes |")
    ]
    assert [line.split(" | ")[0] for line in lines] == ["| cae", "| anogan", "| anogan encoder"]
    (tmp_path / "equality.md").write_text("kept\n")
    monkeypatch.setitem(gpu.SECTIONS, "contract", lambda given: "six passed")
    monkeypatch.setitem(gpu.SECTIONS, "protocol", mock.Mock(side_effect=TimeoutError("1 of 9")))
    gpu.main([str(tmp_path), "contract", "equality", "protocol", "--device", "cpu", "--quick"])
    page = (tmp_path / "gpu.md").read_text()
    assert "six passed" in page
    assert "kept" in page
    assert "Not done in time.\n\n1 of 9" in page
    assert not (tmp_path / "protocol.md").exists()


def test_gpu_says_that_a_device_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "METHODS", ["cae"])
    monkeypatch.setattr(gpu, "load", lambda path: Louder(load(path)))
    page = gpu.equality(mock.Mock(device="cpu", quick=True))
    assert "| cae | " in page
    assert page.count("| NO |") == 2  # with AnoGAN's encoder


class Louder:
    """A detector that scores higher the second time."""

    def __init__(self, detector):
        self.detector = detector

    def set_params(self, **params):
        return self

    def anomaly_score(self, X):
        Louder.calls = getattr(Louder, "calls", 0) + 1
        return self.detector.anomaly_score(X) * (1 + 0.01 * (Louder.calls % 2))


def test_the_protocol_ends_with_the_time_and_passes_over_what_failed(tmp_path, monkeypatch):
    """Of three cohorts one is missing; of six commands two fail, and the last is stopped."""
    for name in ("lgg-mri-patches", "busi"):
        (tmp_path / name).mkdir()
    late = subprocess.TimeoutExpired("conocc", 1)
    ends = mock.Mock(side_effect=[1, 0, 1, late, -15])
    started = mock.Mock(return_value=mock.Mock(wait=ends))
    monkeypatch.setattr(gpu.subprocess, "Popen", started)
    given = mock.Mock(quick=False, out=tmp_path, jobs=2, data=tmp_path, left=lambda: 100.0)
    with pytest.raises(TimeoutError) as caught:
        gpu.protocol(given)
    said = ["lgg-mri-patches-conocc:", "busi-conocc:", "lgg-mri-patches-ocsvm:", "busi-ocsvm:"]
    words = str(caught.value).split("\n\n")
    assert [word.strip() for word in words if word.strip().endswith(":")] == said
    assert words.count("Not all fits are done.") == 3
    for call in started.call_args_list:
        command = call.args[0]
        assert command[1:4] == ["-m", "conocc", "benchmark"]
        app.parse_args(command[3:], exit_on_error=False, print_error=False)  # or it is refused
