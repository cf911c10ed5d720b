"""What an evaluation keeps of images and features: chosen as promised, read without pickle."""

import json
from dataclasses import replace

import numpy as np
import pytest

from conocc.detectors.residual_scale import ResidualScale
from conocc.experiments.artifacts import EMBEDDED, Embedding, Gallery, extremes, subsample
from made_runs import embedding, gallery


def test_extremes_are_the_majority_from_the_top_and_the_minority_from_the_bottom():
    minority = np.array([True, False, True, False, False, True])
    score = np.array([5.0, 1.0, 2.0, 9.0, 4.0, 3.0])
    assert extremes(minority, score, count=2).tolist() == [3, 4, 2, 5]
    assert extremes(minority, score).tolist() == [3, 4, 1, 2, 5, 0]


def test_drawing_keeps_all_that_are_few_and_repeats_none():
    rows = np.arange(100, 110)
    assert subsample(rows, 10).tolist() == rows.tolist()
    some = subsample(rows, 4)
    assert len(set(some.tolist())) == 4
    assert (np.diff(some) > 0).all()
    assert np.array_equal(some, subsample(rows, 4))


@pytest.mark.parametrize("made", [gallery(), gallery(reconstructs=False), embedding()])
def test_what_is_saved_is_read_back_without_pickle(made, tmp_path):
    path = tmp_path / "made.npz"
    made.save(path)
    again = type(made).load(path)
    for name, array in vars(made).items():
        assert np.array_equal(array, getattr(again, name)), name
    with np.load(path, allow_pickle=False) as file:
        assert set(file.files) == {"format", *vars(made)}


@pytest.mark.parametrize("kind", [Gallery, Embedding])
@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut", b"nonsense"])
def test_a_damaged_file_is_named(kind, damage, tmp_path):
    path = tmp_path / "made.npz"
    path.write_bytes(damage)
    with pytest.raises(ValueError, match=r"Cannot read .*made\.npz"):
        kind.load(path)


def test_another_format_is_refused(tmp_path):
    np.savez(tmp_path / "new.npz", format=np.array(99))
    with pytest.raises(ValueError, match="format is 99"):
        Embedding.load(tmp_path / "new.npz")


@pytest.mark.parametrize("number", [np.array(b"1\n2"), np.array([1, 1]), np.array(1.5)])
def test_a_format_that_is_no_number_is_refused_in_one_line(number, tmp_path):
    np.savez(tmp_path / "odd.npz", format=number)
    with pytest.raises(ValueError, match="its format is") as refused:
        Embedding.load(tmp_path / "odd.npz")
    assert "\n" not in str(refused.value)


def test_a_gallery_keeps_the_scale_of_majority_images():
    scale = ResidualScale(0.5, 2.0, images=3, source="calibration")
    made = replace(gallery(), residual_scale=np.array(json.dumps(scale.as_json())))
    assert made.scale() == scale


def test_compactness_does_not_depend_on_the_scale_of_the_features():
    """ConOCC shrinks its features; that alone must not look compact."""
    wide = embedding()
    parts = {name: getattr(wide, name) * 0.001 for name in ("train", "test", "center")}
    narrow = Embedding(**parts, minority=wide.minority, images=wide.images)
    assert narrow.compactness() == pytest.approx(wide.compactness())


def test_compactness_against_the_mean_over_all_pairs():
    """Oracle: all pairs instead of ten thousand random ones."""
    made = embedding()
    majority, minority = made.test[:8], made.test[8:]
    apart = np.linalg.norm(majority[:, None] - minority[None], axis=2).mean()
    within = np.linalg.norm(majority, axis=1).mean()  # the center is zero
    assert made.compactness() == pytest.approx(within / apart, rel=0.02)


def test_without_a_center_the_mean_training_feature_stands_in():
    made = embedding(center=False)
    assert np.array_equal(made.middle(), made.train.mean(0))


@pytest.mark.parametrize(
    "changes",
    [
        {"minority": np.zeros(14, dtype=bool)},
        {"test": np.zeros((14, 3), np.float32)},
        {"train": np.zeros((0, 3), np.float32), "center": np.zeros((0, 3), np.float32)},
    ],
    ids=["one class", "all alike", "no center"],
)
def test_where_there_is_nothing_to_measure_compactness_is_none(changes):
    assert Embedding(**{**vars(embedding()), **changes}).compactness() is None


def test_a_large_group_is_cut_to_the_stated_size():
    assert len(subsample(np.arange(10 * EMBEDDED), EMBEDDED)) == EMBEDDED
