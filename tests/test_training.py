"""A killed fit ends with the numbers of an unbroken one."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from benchmarks.memory import anonymous_mib
from safetensors import SafetensorError
from torch import nn

from conftest import quick
from conocc import ConOCC, equations, load, training
from conocc.training import BLOCK, Batches, Chance, Stage, summed, train
from interrupting import interrupt_at

PROGRAM = """
import sys, numpy
from conocc import ConOCC, training
training.SAVE_EVERY_S = 0.0
schedule, checkpoint, out = sys.argv[1:]
X = numpy.random.default_rng(0).random((40, 16, 16))
detector = ConOCC(epochs=120, interval=7, batch_size=16, schedule=schedule, random_state=3)
detector.fit(X, checkpoint=checkpoint).save(out)
"""


def batches(array) -> Batches:
    cpu = torch.device("cpu")
    return Batches(np.asarray(array), lambda x: x, cpu, Chance(0, cpu))


@pytest.mark.parametrize("schedule", ["alternate", "joint"])
def test_a_fit_killed_at_random_moments_ends_with_the_same_bytes(schedule, tmp_path):
    """SIGKILL twice, wherever it strikes; then the model file is that of an unbroken fit."""
    X = np.random.default_rng(0).random((40, 16, 16))
    unbroken = ConOCC(epochs=120, interval=7, batch_size=16, schedule=schedule, random_state=3)
    unbroken.fit(X).save(tmp_path / "unbroken")

    checkpoint, out = tmp_path / "checkpoint", tmp_path / "broken"
    command = [sys.executable, "-c", PROGRAM, schedule, str(checkpoint), str(out)]
    seen = None
    for _ in range(2):
        process = subprocess.Popen(command)
        while process.poll() is None and _written(checkpoint) == seen:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.15))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the fit ended before it could be killed"
        seen = _written(checkpoint)
    subprocess.run(command, check=True)
    assert out.read_bytes() == (tmp_path / "unbroken").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} >= {"unbroken", "broken", "checkpoint"}


def _written(path):
    return path.stat().st_mtime_ns if path.exists() else None


def test_an_interrupt_of_an_update_of_the_center_is_one_at_once(images, monkeypatch):
    """Of all images' features not one more is computed."""
    computed = []

    def interrupted(blocks):
        for z in blocks:
            computed.append(z)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(equations, "center", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick("conocc").fit(np.repeat(images, 10, axis=0))
    assert len(computed) == 1


@pytest.mark.parametrize(("seconds", "saved"), [(0, 6), (25, 2), (45, 3), (90, 6)])
def test_the_state_is_saved_at_the_end_of_an_epoch_at_most_once_a_minute(
    seconds, saved, images, tmp_path, monkeypatch
):
    """Six epochs of so many seconds: of 25, at 75 and 150; of 45, at 90, 180 and 270."""
    now, saves = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training, "SAVE_EVERY_S", 60.0 if seconds else 0.0)
    monkeypatch.setattr(training.Checkpoint, "save", lambda self, *args: saves.append(now[0]))
    original = training._epoch

    def slow(*args):
        now[0] += seconds
        return original(*args)

    monkeypatch.setattr(training, "_epoch", slow)
    quick("conocc", epochs=6).fit(images, checkpoint=tmp_path / "checkpoint")
    assert len(saves) == saved


def test_finished_stages_are_not_run_again(tmp_path, monkeypatch):
    """Killed in the second of two stages, the first is loaded."""
    seen: list[str] = []

    def stages() -> list[Stage]:
        torch.manual_seed(0)
        layer = nn.Linear(2, 1)

        def stage(name: str, kill_at: int | None) -> Stage:
            def before(epoch: int) -> None:
                seen.append(f"{name}{epoch}")
                if epoch == kill_at and len(seen) == 5:
                    signal.raise_signal(signal.SIGINT)

            optimizer = torch.optim.Adam(layer.parameters())

            def loss(x, epoch):
                return summed({"loss": layer(x).square().mean()})

            return Stage(name, {"layer": layer}, 3, {"adam": (optimizer, loss)}, before)

        return [stage("a", None), stage("b", 1)]

    X = batches(np.ones((4, 2)))
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    checkpoint = training.Checkpoint(tmp_path / "c", {})
    with pytest.raises(KeyboardInterrupt):
        train(stages(), X, batch_size=4, checkpoint=checkpoint)
    history = train(stages(), X, batch_size=4, checkpoint=checkpoint)
    assert seen == ["a0", "a1", "a2", "b0", "b1", "b1", "b2"]
    assert [(row["stage"], row["epoch"]) for row in history] == [
        (s, e) for s in "ab" for e in (1, 2, 3)
    ]


def test_each_optimiser_takes_a_step_on_its_own_loss():
    """Two weights, two losses, plain gradient steps: 1 − 0.1·2 = 0.8 and 1 + 0.1·3 = 1.3."""
    a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for layer in (a, b):
        nn.init.ones_(layer.weight)
    steps = {
        "a": (torch.optim.SGD(a.parameters(), 0.1), lambda x, _: summed({"a": 2 * a(x).mean()})),
        "b": (torch.optim.SGD(b.parameters(), 0.1), lambda x, _: summed({"b": -3 * b(x).mean()})),
    }
    stage = Stage("two", {"a": a, "b": b}, 1, steps)
    history = train([stage], batches(np.ones((2, 1))), batch_size=2)
    assert a.weight.item() == pytest.approx(0.8)
    assert b.weight.item() == pytest.approx(1.3)
    assert history == [{"stage": "two", "epoch": 1, "a": 2.0, "b": -3.0}]


def test_every_image_is_seen_once_an_epoch_in_an_order_that_changes():
    orders: list[list[float]] = [[]]
    layer = nn.Linear(1, 1)

    def loss(x, epoch):
        orders[-1] += x[:, 0].tolist()
        if len(orders[-1]) == 10:
            orders.append([])
        return summed({"loss": layer(x).mean()})

    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    stage = Stage("s", {"layer": layer}, 2, {"sgd": (optimizer, loss)})
    train([stage], batches(np.arange(10.0)[:, None]), batch_size=4)
    first, second, _ = orders
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_a_loss_that_is_not_a_number_stops_the_fit_and_says_so(images):
    with pytest.raises(ValueError, match=r"failed in epoch \d+ .*loss term '.*' is (nan|inf)"):
        quick("conocc", epochs=60, lr=1e30).fit(images)


def test_a_checkpoint_of_another_fit_is_refused_and_says_what_differs(images, tmp_path):
    path = tmp_path / "checkpoint"
    _interrupted(images, path, lr=1e-3)
    with pytest.raises(ValueError, match=r"another fit: lr was 0\.001, is 0\.002"):
        quick("conocc", lr=2e-3).fit(images, checkpoint=path)
    with pytest.raises(ValueError, match="another fit: images was"):
        quick("conocc", lr=1e-3).fit(images + 1, checkpoint=path)


def test_a_damaged_checkpoint_is_refused_in_one_sentence(images, tmp_path):
    """Cut off, or with one bit of its last weight changed."""
    path = tmp_path / "checkpoint"
    _interrupted(images, path)
    whole = path.read_bytes()
    for damaged in (whole[:1000], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="Cannot read checkpoint .* Delete it"):
            quick("conocc").fit(images, checkpoint=path)


def test_a_checkpoint_is_no_model(images, tmp_path):
    _interrupted(images, tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="Cannot read model .*: it is a checkpoint"):
        load(tmp_path / "checkpoint")


def _interrupted(images, path, **params):
    """Ctrl-C in the second epoch, of one step."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(2, patch)
        quick("conocc", **params).fit(images, checkpoint=path)


def test_a_full_disk_leaves_the_last_checkpoint_whole(images, tmp_path, monkeypatch):
    """The write fails half-way: the file before it stays, and no temporary one is left."""
    path = tmp_path / "checkpoint"
    _interrupted(images, path)
    whole = path.read_bytes()

    def full(tensors, target, metadata):
        target.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")  # as safetensors says it

    monkeypatch.setattr("conocc.io.safetensors.save_file", full)
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    with pytest.raises(OSError, match="Cannot write .*checkpoint.*No space left"):
        quick("conocc").fit(images, checkpoint=path)
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_threads_of_a_killed_fit_are_restored(images, tmp_path):
    """Another number of threads sums in another order and would change the last bits."""
    before = torch.get_num_threads()
    other = 1 if before > 1 else 2
    torch.set_num_threads(other)
    _interrupted(images, tmp_path / "checkpoint")
    torch.set_num_threads(before)
    fitted = quick("conocc").fit(images, checkpoint=tmp_path / "checkpoint")
    assert fitted.threads_ == other
    assert torch.get_num_threads() == before


def test_blocks_have_one_height_and_no_row_is_lost():
    X = batches(np.arange(BLOCK + 3.0)[:, None])
    blocks = list(X.blocks())
    assert [len(block) for block, _ in blocks] == [BLOCK, BLOCK]
    rows = torch.cat([block[:n] for block, n in blocks])
    assert rows[:, 0].tolist() == list(range(BLOCK + 3))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_a_mapped_cohort(tmp_path):
    """64 MiB of images in a file are learned and scored within 16 MiB more than 4 MiB of them.

    Small results kept one by one among large blocks that are freed once held 12 KiB an image.
    """
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (4096, 64, 64))
    X[:] = np.random.default_rng(0).random((64, 64), np.float32)
    detector = quick("conocc", epochs=1, schedule="joint", channels=(2, 2), bottleneck=2)
    detector.fit(X[:256]).anomaly_score(X[:256])
    before = anonymous_mib()
    detector.fit(X).anomaly_score(X)
    assert anonymous_mib() - before < 16


def test_blocks_are_gathered_in_their_order():
    rows = torch.arange(10.0).reshape(5, 2)
    assert torch.equal(training.concatenated([rows[:2], rows[2:4], rows[4:]], 5), rows)


def test_nothing_drops_out_where_a_network_is_not_trained():
    x, layer = torch.ones(4, 100), nn.Dropout(0.5)
    with Chance(0, torch.device("cpu")):
        assert set(layer(x).unique().tolist()) == {0.0, 2.0}
        assert torch.equal(layer.eval()(x), x)


def test_how_long_it_takes_is_said_once_and_to_who_asks(images, caplog, monkeypatch):
    monkeypatch.setattr(training, "TIMED_S", -1.0)
    caplog.set_level("INFO", "conocc")
    quick("cae", epochs=4).fit(images)
    assert "epochs: about" not in caplog.text
    quick("cae", epochs=4, verbose=1).fit(images)
    # The first of five folds is held out.
    assert caplog.text.count("16 images, 4 epochs: about 1 second.") == 1


def test_convolutions_are_those_of_cudnn_in_whole_float32_the_same_twice():
    """Without a card the settings can be read all the same, and are the caller's again."""
    cudnn = torch.backends.cudnn

    def settings():
        return cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32

    before = settings()
    with training.default_settings(torch.device("cpu")):
        assert settings() == (True, True, False, False)
    assert settings() == before
