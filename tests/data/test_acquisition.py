"""Plain facts of images: measured by hand, kept with a cohort, compared with a batch."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from conocc.data.acquisition import (
    FACTS,
    FEWEST,
    LEVELS,
    acquired,
    moved,
    of_file,
    quantiles,
)
from conocc.data.decoding import decode_one
from conocc.data.image_io.pixels import Remarked
from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing
from made_cohorts import make_folder

FILE = {"size": 0, "depth": 0}


def facts(image, read=None):
    file = of_file(Remarked(image[0]) if read is None else read)
    return dict(zip(FACTS, acquired([file], [image])[0], strict=True))


def test_facts_of_an_image_by_hand():
    """A quarter of 4 and else 0, in a file of 8 times 18 pixels, is 12 on a side.

    The mean is 1, the variance 3; of 12 steps across two are of 4, and as many down.
    """
    image = np.zeros((1, 4, 4), np.float32)
    image[0, 1:3, 1:3] = 4
    found = facts(image, Remarked(np.zeros((8, 18), np.uint16)))
    assert found == {
        "size": 12,
        "depth": 16,
        "mean": 1,
        "contrast": pytest.approx(3**0.5, rel=1e-5),
        "sharpness": pytest.approx(4 * 4 / 12 / 3**0.5, rel=1e-5),
        "border": 0.75,
    }
    assert facts(image + 1e6)["border"] == 0.75  # above the darkest


def test_only_a_constant_image_has_no_contrast():
    """Whatever its values are; what varies in the last bit alone has some."""
    image = np.full((1, 16, 16), 0.1, np.float32)
    assert (facts(image)["contrast"], facts(image)["sharpness"], facts(image)["border"]) == (0,) * 3
    image[0, 3, 3] = np.nextafter(np.float32(0.1), np.float32(1))
    assert facts(image)["contrast"] > 0


def test_the_size_is_that_of_the_file_also_where_less_is_decoded():
    file = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 100), np.uint8)).save(
        file, "JPEG"
    )
    for scaled in (True, False):
        read = decode_one(Preprocessing(size=16, scaled=scaled), ("a.jpg", file.getvalue))
        assert read.file == (200, 8)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 33, 20), (1, 1, 40), (1, 700, 600)])
def test_the_facts_of_an_image_do_not_depend_on_its_company(shape):
    """Nor on how many are measured at once: one of 700 by 600 pixels fills a block alone."""
    images = np.random.default_rng(1).normal(9, 3, (70 if shape[1] < 100 else 3, *shape))
    images = images.astype(np.float32)
    images[1] = 4
    files = [(float(i), 8.0) for i in range(len(images))]
    together = acquired(files, images)
    assert together == [
        acquired(files[i : i + 1], images[i : i + 1])[0] for i in range(len(images))
    ]
    assert together[::-1] == acquired(files[::-1], images[::-1])


def test_features_have_no_facts():
    assert acquired([(), ()], np.ones((2, 5), np.float32)) == [(), ()]
    assert acquired([], []) == []


def test_a_cohort_keeps_the_facts_of_each_image(tmp_path):
    """In the order of the images, decoded or from the cache, and of those that are taken."""
    folder = make_folder(tmp_path / "set", *(f"plain/{i}.png" for i in range(6)), "odd/1.png")
    Image.new("L", (32, 32), 7).save(folder / "plain" / "flat.png")
    twice = [
        load_cohort(folder, Preprocessing(size=16), majority="plain", cache=tmp_path / "cache")
        for _ in range(2)
    ]
    for cohort in twice:
        for image, known in zip(cohort.images, cohort.acquisition, strict=True):
            assert dict(zip(FACTS, known, strict=True)) | FILE == facts(image) | FILE
        flat = cohort.path == "plain/flat.png"
        assert np.array_equal(cohort.acquisition[:, 0], np.where(flat, 32, 16))
        assert np.array_equal(cohort.without_contrast(), flat)
        assert np.array_equal(cohort.take([3, 1]).acquisition, cohort.acquisition[[3, 1]])


def batch(middle, n=FEWEST):
    return np.tile(np.asarray(middle, float), (n, 1))


def test_what_moved_is_said_the_most_first():
    """Training images have each fact at 0, 1, ..., 200, of which 1 % are two."""
    known = quantiles(np.tile(np.arange(201.0)[:, None], (1, 6)))
    assert known["size"] == [2 * level for level in LEVELS]
    said = moved(known, batch([100, 191, 197, 201, 9, -1]))
    assert said == {
        "contrast": "Contrast: the middle batch image lies above all training images.",
        "border": "Dark border: the middle batch image lies below all training images.",
        "depth": "Bits a pixel: the middle batch image lies above 95 % of the training images.",
        "mean": "Mean brightness: the middle batch image lies above 95 % of the training images.",
        "sharpness": "Sharpness: the middle batch image lies below 95 % of the training images.",
    }


def test_nothing_is_said_of_what_did_not_move_or_is_not_known():
    known = quantiles(batch([8] * 6))
    assert moved(known, batch([8] * 6)) == {}
    assert moved(known, batch([9] * 6, FEWEST - 1)) == {}
    assert len(moved(known, batch([9] * 6))) == 6
    assert moved({}, batch([9] * 6)) == moved(known, None) == {}  # older models, made cohorts
    assert quantiles(None) == quantiles(np.empty((0, 6))) == {}


def test_batches_that_are_alike_say_nothing():
    """In 500 batches of as few images as are looked at, and as few training images as calibrate."""
    rng = np.random.default_rng(0)
    told = [
        moved(quantiles(rng.normal(size=(60, 6))), rng.normal(size=(FEWEST, 6))) for _ in range(500)
    ]
    assert np.mean([bool(one) for one in told]) <= 0.01


@pytest.mark.parametrize(("h", "w", "sharpness"), [(1, 2, 2), (2, 1, 2), (1, 1, 0)])
def test_images_of_one_pixel_a_side_have_facts(h, w, sharpness):
    """0 and 1: one step of 1, the standard deviation is a half; along the other side is no step."""
    assert facts(np.arange(h * w, dtype=np.float32).reshape(1, h, w))["sharpness"] == sharpness
