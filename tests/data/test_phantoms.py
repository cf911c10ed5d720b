"""The built-in cohorts: counts, reproducibility, and that no one statistic gives them away."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from conocc.data.phantoms import PHANTOMS, draw_phantom, power_law_texture

# Table 1 of the paper: side, majority in training, majority and minority in testing.
TABLE_1 = {
    "phantom-mri": (32, 1000, 946, 926),
    "phantom-ffdm": (64, 200, 52, 52),
    "phantom-chestx": (100, 1341, 234, 390),
}
every_phantom = pytest.mark.parametrize("name", TABLE_1)


def few(name, *, train=3, test_majority=2, test_minority=4, **settings):
    return draw_phantom(
        name, train=train, test_majority=test_majority, test_minority=test_minority, **settings
    )


def test_the_phantoms_are_those_of_table_1():
    assert PHANTOMS.keys() == TABLE_1.keys()


@every_phantom
def test_by_default_the_counts_are_those_of_table_1(name):
    """Training majority first, then testing majority, then testing minority."""
    _, train, test_majority, test_minority = TABLE_1[name]
    drawn = draw_phantom(name, size=16)
    assert len(drawn.images) == train + test_majority + test_minority
    assert drawn.split.tolist() == ["train"] * train + ["test"] * (test_majority + test_minority)
    assert drawn.minority.tolist() == [False] * (train + test_majority) + [True] * test_minority


@every_phantom
def test_by_default_the_size_is_that_of_table_1(name):
    side = TABLE_1[name][0]
    assert few(name).images.shape == (9, side, side)


@every_phantom
@pytest.mark.parametrize("counts", [(5, 0, 0), (0, 1, 2), (0, 0, 0)])
def test_any_count_can_be_had(name, counts):
    train, test_majority, test_minority = counts
    drawn = few(name, train=train, test_majority=test_majority, test_minority=test_minority)
    assert (drawn.split == "train").sum() == train
    assert drawn.minority.sum() == test_minority
    assert len(drawn.images) == len(drawn.split) == len(drawn.minority) == sum(counts)


@every_phantom
def test_fewer_images_are_the_first_of_more_in_every_part(name):
    """Images of training and testing do not move when either is asked for in other numbers."""
    fewer = few(name, train=1, test_majority=2, test_minority=1).images
    more = few(name, train=3, test_majority=4, test_minority=2).images
    assert np.array_equal(fewer, more[[0, 3, 4, 7]])


@every_phantom
def test_the_same_seed_gives_the_same_bytes(name):
    assert few(name, seed=7).images.tobytes() == few(name, seed=7).images.tobytes()


@every_phantom
def test_no_two_images_are_equal_across_parts_and_seeds(name):
    images = np.concatenate([few(name, seed=seed).images for seed in (0, 1)])
    assert len({image.tobytes() for image in images}) == len(images) == 18


@every_phantom
@pytest.mark.parametrize("size", [16, 25, 50, 81, 100])
def test_any_size_from_16_can_be_had(name, size):
    """Twelve-bit images that use a good part of the range and are hardly ever clipped."""
    images = few(name, size=size).images
    assert images.shape == (9, size, size)
    assert images.dtype == np.uint16
    assert images.max() <= 4095
    assert (images.std((1, 2)) > 0.05 * 4095).all()
    assert np.isin(images, (0, 4095)).mean() < 0.01


@every_phantom
def test_drawing_leaves_numpys_own_generator_alone(name):
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy state is what is tested
    few(name)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002 - likewise


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match=r"'phantom-ct'.*phantom-mri, phantom-ffdm, phantom-chestx"
    ):
        draw_phantom("phantom-ct")


@pytest.mark.parametrize(
    ("parameter", "value", "smallest"),
    [("size", 15, 16), ("train", -1, 0), ("test_majority", -2, 0), ("seed", -1, 0)],
)
def test_a_number_too_small_is_refused_by_its_name(parameter, value, smallest):
    with pytest.raises(ValueError, match=f"'{parameter}'.* {smallest} or more. Got {value}"):
        draw_phantom("phantom-mri", **{parameter: value})


def central_quarter(size):
    """The middle square with half the side."""
    middle = np.zeros((size, size), bool)
    middle[size // 4 : size - size // 4, size // 4 : size - size // 4] = True
    return middle


SIMPLE_STATISTICS = {
    "mean": lambda image: image.mean(),
    "deviation": lambda image: image.std(),
    "mean gradient": lambda image: np.hypot(*np.gradient(image)).mean(),
    "centre minus surround": lambda image: (
        image[central_quarter(len(image))].mean() - image[~central_quarter(len(image))].mean()
    ),
}


def auc_either_way(minority, value):
    auc = roc_auc_score(minority, value)
    return max(auc, 1 - auc)


@every_phantom
def test_no_simple_statistic_tells_the_classes_apart(name):
    """None has an AUC above 0.70, in either direction, on grey values or z-scored."""
    drawn = few(name, train=0, test_majority=350, test_minority=350)
    grey = drawn.images.astype(float)
    zscored = (grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True)
    for statistic, measure in SIMPLE_STATISTICS.items():
        auc = auc_either_way(drawn.minority, [measure(image) for image in grey])
        assert auc <= 0.70, f"{statistic} of grey values: {auc:.3f}"
    # Mean and deviation of a z-scored image are 0 and 1.
    for statistic in ("mean gradient", "centre minus surround"):
        measure = SIMPLE_STATISTICS[statistic]
        auc = auc_either_way(drawn.minority, [measure(image) for image in zscored])
        assert auc <= 0.70, f"{statistic} of z-scored images: {auc:.3f}"


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("beta", [2.0, 3.0])
def test_the_texture_follows_its_power_law(beta, size):
    """A line through the radial mean of log power over log frequency falls by beta.

    The oracle takes the power from the full Fourier transform, ring by ring. With about 2 pi f
    independent values in the ring at f and 40 textures, its slope is off by about 0.02.
    """
    generator = np.random.default_rng(0)
    textures = [power_law_texture(generator, size, beta=beta) for _ in range(40)]
    power = np.mean([np.abs(np.fft.fft2(texture)) ** 2 for texture in textures], axis=0)
    cycles = np.fft.fftfreq(size, d=1 / size)
    frequency = np.sqrt(cycles[:, None] ** 2 + cycles**2)
    rings = np.arange(2, size // 2)
    in_ring = [np.rint(frequency) == ring for ring in rings]
    slope, _ = np.polyfit(
        [np.log(frequency[ring]).mean() for ring in in_ring],
        [np.log(power[ring]).mean() for ring in in_ring],
        deg=1,
    )
    assert slope == pytest.approx(-beta, abs=0.1)


def test_a_texture_has_mean_0_and_deviation_1():
    texture = power_law_texture(np.random.default_rng(1), 33)
    assert texture.mean() == pytest.approx(0, abs=1e-12)
    assert texture.std() == pytest.approx(1)
