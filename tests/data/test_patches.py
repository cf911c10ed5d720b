"""Patches: cut at their own depth, into a folder that can be fitted at once."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conocc.data.bounding_boxes import Box
from conocc.data.load import load_cohort
from conocc.data.patches import Rules, cut_patch, cut_patches, tissue_of, write_patch
from conocc.data.preprocessing import Preprocessing, prepare
from conocc.data.pseudonyms import pseudonym
from made_cohorts import make_folder
from made_dicom import dicom, element
from made_images import npy, read_image
from made_nifti import nifti, write_volume
from test_cli import QUICK, SOME_FAILED, call

RNG = np.random.default_rng(0)
SQUARE = Box(3, 5, 20, 20)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def write_boxes(tmp_path: Path, *lines: str, more: str = "") -> Path:
    """A table of boxes; `more` names columns behind the five that there must be."""
    table = tmp_path / "boxes.csv"
    table.write_text("\n".join([f"path,x,y,width,height{more}", *lines]) + "\n")
    return table


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("colour", [False, True])
def test_a_patch_keeps_the_depth_of_its_image(tmp_path, dtype, colour):
    """8 and 16 bits in PNG, the others in NPY: what is read again is what was cut."""
    image = RNG.integers(0, 250, (40, 30, 3) if colour else (40, 30)).astype(dtype)
    image *= 200 if dtype != np.uint8 else 1
    path = write_patch(tmp_path / "a", cut_patch(image, SQUARE))
    again = read_image(path)
    deep_colour = colour and dtype == np.uint16
    whole = dtype in (np.uint8, np.uint16) and not deep_colour
    assert path.suffix == (".png" if whole else ".npy")
    assert again.dtype == (dtype if whole else np.float32)
    np.testing.assert_array_equal(again, image[5:25, 3:23])


def test_a_patch_is_resized_as_images_are(tmp_path):
    """By the package's own resampling, and rounded to the image's own kind."""
    image = RNG.integers(0, 65536, (40, 30)).astype(np.uint16)
    patch = cut_patch(image, SQUARE, 16)
    (expected,) = prepare(image[5:25, 3:23], Preprocessing(size=16))
    assert patch.dtype == np.uint16
    np.testing.assert_allclose(patch, expected, atol=0.5)
    grey = np.repeat(image[..., None], 3, axis=2)
    np.testing.assert_array_equal(cut_patch(grey, SQUARE, 16), patch)


@pytest.fixture
def films(tmp_path) -> Path:
    """Four 64-pixel films, tissue but for the left quarter; p07's are two."""
    folder = tmp_path / "films"
    folder.mkdir()
    for i, name in enumerate(("p07_1", "p07_2", "p08_1", "p09_1")):
        film = np.random.default_rng(i).integers(2000, 4000, (64, 64)).astype(np.uint16)
        film[:, :16] = 5
        Image.fromarray(film).save(folder / f"{name}.png")
    lines = [f"{name}.png,30,{20 + i},10,12" for i, name in enumerate(("p07_1", "p07_2", "p08_1"))]
    write_boxes(tmp_path, *lines)
    return folder


def test_classes_and_patients_that_look_like_formulas_are_read_again_as_they_are(films, tmp_path):
    for i, name in enumerate(("-1.png", "-2.png")):
        (films / f"p0{i + 8}_1.png").rename(films / name)
    boxes = [f"-{i}.png,30,20,10,12,=odd,@{i}" for i in (1, 2)]
    table = write_boxes(tmp_path, *boxes, more=",label,patient")
    cut_patches(films, tmp_path / "out", boxes=table, rules=Rules(16))
    first, _ = rows_of(tmp_path / "out" / "patches.csv")
    assert [first[name] for name in ("path", "label", "patient", "source")] == [
        *("./=odd/-1_0.png", "=odd", "@1", "./-1.png")
    ]
    for where in (tmp_path / "out", tmp_path / "out" / "patches.csv"):
        cohort = load_cohort(where, majority="=odd", cache=False)
        assert set(cohort.path) == {"=odd/-1_0.png", "=odd/-2_0.png"}
        assert set(cohort.patient) == {"@1", "@2"}


def test_patches_are_cut_with_their_patients_and_can_be_fitted(films, tmp_path):
    """As many outside as inside, each named in patches.csv with its source and its square."""
    out = tmp_path / "out"
    code, said = call(
        *("data", "patches", films, "--boxes", tmp_path / "boxes.csv", "--size", 16),
        *("--margin", 2, "--outside", "--patient-regex", r"(p\d+)_", "--out", out, "--quiet"),
    )
    assert code == 0, said
    assert "Cut 3 inside, 3 outside" in said
    rows = rows_of(out / "patches.csv")
    assert [(row["path"], row["patient"], row["source"]) for row in rows[:2]] == [
        ("inside/p07_1_0.png", "p07", "p07_1.png"),
        ("outside/p07_1_0.png", "p07", "p07_1.png"),
    ]
    for i, row in enumerate(row for row in rows if row["label"] == "inside"):
        square = [int(row[column]) for column in ("x", "y", "width", "height")]
        assert square == [27, 18 + i, 16, 16]
    for row in rows:
        film = read_image(films / row["source"])
        x, y, side = int(row["x"]), int(row["y"]), int(row["width"])
        np.testing.assert_array_equal(
            read_image(out / row["path"]), film[y : y + side, x : x + side]
        )
        if row["label"] == "outside":
            assert (film[y : y + side, x : x + side] > 1000).mean() >= 0.5
    cohort = load_cohort(out, Preprocessing(size=16), majority="inside")
    assert cohort.patients_known
    assert set(cohort.patient.tolist()) == {"p07", "p08"}
    run = tmp_path / "run"
    options = ["--majority", "inside", "--size", 16, "--split-seed", 1]  # which trains on p07
    code, said = call("fit", out, *options, "--out", run, *QUICK)
    assert code == 0, said


def test_the_seed_and_the_image_alone_decide_on_patches_outside(films, tmp_path):
    rules = Rules(size=16, outside=True, seed=3)
    squares = {}
    for name in ("first", "again", "fewer", "other"):
        if name == "fewer":
            write_boxes(tmp_path, *(tmp_path / "boxes.csv").read_text().splitlines()[2:])
        if name == "other":
            rules = Rules(size=16, outside=True, seed=4)
        cut_patches(films, tmp_path / name, boxes=tmp_path / "boxes.csv", rules=rules, n_jobs=2)
        table = (tmp_path / name / "patches.csv").read_text().splitlines()
        squares[name] = [line for line in table if line.startswith("outside/")]
    assert squares["first"] == squares["again"]
    assert squares["fewer"] == squares["first"][1:]
    assert squares["other"] != squares["fewer"]


def test_what_cannot_be_cut_is_listed_with_its_reason(films, tmp_path):
    """A damaged image, a box that leaves it, a square too large, and no place outside."""
    (films / "cut.png").write_bytes((films / "p07_1.png").read_bytes()[:90])
    with (tmp_path / "boxes.csv").open("a") as file:
        file.write("cut.png,0,0,9,9\np08_1.png,60,0,9,9\np08_1.png,0,0,64,9\n")
        file.write("p09_1.png,17,2,46,46\n")
    code, said = call(
        *("data", "patches", films, "--boxes", tmp_path / "boxes.csv", "--margin", 1),
        *("--outside", "--out", tmp_path / "out", "--quiet"),
    )
    assert code == SOME_FAILED
    reasons = {}
    for row in rows_of(tmp_path / "out/errors.csv"):
        reasons.setdefault(row["path"], []).append(row["reason"])
    assert reasons.keys() == {"cut.png", "p08_1.png", "p09_1.png"}
    assert reasons["cut.png"][0].startswith("Cannot read 'cut.png'")
    assert "leaves the image, which has 64x64" in reasons["p08_1.png"][0]
    assert "the square of 66 pixels around" in reasons["p08_1.png"][1]
    assert reasons["p09_1.png"] == [
        "'p09_1.png': no tissue outside its boxes has place for 48 pixels."
    ]
    assert "Cut 4 inside, 3 outside" in said


def test_patches_of_one_image_are_of_one_patient_though_nobody_named_it(films, tmp_path):
    cut_patches(films, tmp_path / "out", boxes=tmp_path / "boxes.csv", rules=Rules(outside=True))
    patients = [row["patient"] for row in rows_of(tmp_path / "out/patches.csv")]
    assert patients == [f"{name}.png" for name in ("p07_1", "p07_2", "p08_1") for _ in range(2)]


def test_patches_are_cut_around_the_parts_of_masks(films, tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 30:42] = mask[50:56, 50:56] = 1
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks/p08_1.png")
    code, said = call(
        *("data", "patches", films, "--masks", tmp_path / "masks", "--out", tmp_path / "out", "-q")
    )
    assert code == 0, said
    assert "3 images without a mask left aside." in said
    sides = [int(row["width"]) for row in rows_of(tmp_path / "out/patches.csv")]
    assert sides == [12, 6]


def test_patches_of_slices_keep_their_volume_for_patient(tmp_path):
    """And their values, which a slope has made floats."""
    folder = tmp_path / "brains"
    folder.mkdir()
    voxels = RNG.integers(500, 4000, (40, 40, 3)).astype(np.int16)
    (folder / "sub-01.nii.gz").write_bytes(nifti(voxels, slope=0.5, compressed=True))
    table = write_boxes(tmp_path, "sub-01.nii.gz[2],4,5,20,20")
    cut_patches(folder, tmp_path / "out", boxes=table)
    (row,) = rows_of(tmp_path / "out/patches.csv")
    assert row["path"] == "inside/sub-01_2_0.npy"
    assert (row["patient"], row["source"]) == ("sub-01", "sub-01.nii.gz[2]")
    upright = voxels[::-1, ::-1, 2].T * np.float32(0.5)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / row["path"]), upright[5:25, 4:24])


def test_volumes_are_cut_along_the_axis_that_is_asked_for(tmp_path):
    write_volume(tmp_path / "brains/v.nii", shape=(18, 20, 30))
    table = write_boxes(tmp_path, "v.nii[19],0,14,16,16")
    cut_patches(tmp_path / "brains", tmp_path / "out", boxes=table, axis="coronal")
    assert len(rows_of(tmp_path / "out/patches.csv")) == 1


def test_a_dicom_file_gives_its_patient_as_a_pseudonym(tmp_path):
    image = RNG.integers(0, 4096, (30, 30)).astype(np.uint16)
    who = element(0x00100020, "LO", "Smith77")
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "smith77.dcm").write_bytes(dicom(image, who))
    cut_patches(folder, tmp_path / "out", boxes=write_boxes(tmp_path, "smith77.dcm,1,1,16,16"))
    (row,) = rows_of(tmp_path / "out/patches.csv")
    assert row["patient"] == pseudonym("Smith77")
    assert "smith" not in json.dumps(row).lower()
    assert row["path"].endswith(".png")
    np.testing.assert_array_equal(read_image(tmp_path / "out" / row["path"]), image[1:17, 1:17])


def test_images_of_equal_names_do_not_overwrite_each_other(tmp_path):
    """a/b.png and a_b.png."""
    make_folder(tmp_path / "x", "a/b.png", "a_b.png")
    table = write_boxes(tmp_path, "a/b.png,0,0,4,4,p", "a_b.png,0,0,4,4,q", more=",patient")
    cut_patches(tmp_path / "x", tmp_path / "out", boxes=table)
    rows = rows_of(tmp_path / "out/patches.csv")
    assert [(row["path"], row["patient"]) for row in rows] == [
        ("inside/a_b_0.png", "p"),
        ("inside/a_b_1.png", "q"),
    ]


def test_arguments_that_are_refused(films, tmp_path):
    boxes = tmp_path / "boxes.csv"
    with pytest.raises(ValueError, match="--boxes"):
        cut_patches(films, tmp_path / "out")
    with pytest.raises(ValueError, match="--masks"):
        cut_patches(films, tmp_path / "out", boxes=boxes, masks=films)
    with pytest.raises(ValueError, match="is not a folder of images"):
        cut_patches(boxes, tmp_path / "out", boxes=boxes)
    with pytest.raises(ValueError, match="is not empty. Choose another --out"):
        cut_patches(films, films, boxes=boxes)
    write_boxes(tmp_path, "p07_1.png,0,0,65,1")
    with pytest.raises(ValueError, match=r"No patch was cut from '.*films'. .* leaves the image"):
        cut_patches(films, tmp_path / "out", boxes=boxes)
    Image.new("L", (64, 64)).save(tmp_path / "p07_1_mask.png")
    with pytest.raises(ValueError, match="Nothing is marked, or all of it is smaller"):
        cut_patches(films, tmp_path / "out", masks=tmp_path)
    for name, value in (("margin", -1), ("min_area", 0), ("least_tissue", 1.5), ("size", 8)):
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            Rules(**{name: value})


def test_values_beyond_8_bits_survive_a_whole_way(tmp_path):
    """From an NPY of floats to the cohort."""
    folder = tmp_path / "x"
    folder.mkdir()
    image = RNG.normal(0, 1e5, (32, 32)).astype(np.float64)
    (folder / "a.npy").write_bytes(npy(image))
    cut_patches(folder, tmp_path / "out", boxes=write_boxes(tmp_path, "a.npy,8,8,16,16"))
    cohort = load_cohort(tmp_path / "out", Preprocessing(size=16), majority="inside", test_size=0)
    np.testing.assert_array_equal(cohort.images[0, 0], image[8:24, 8:24].astype(np.float32))


def test_tissue_is_what_lies_above_otsus_threshold_and_an_even_image_has_none():
    """Of two groups that lie apart, the upper one, to a bin of the histogram; at every depth."""
    upper = RNG.random((30, 40)) < 0.3
    image = np.where(upper, RNG.normal(300, 20, (30, 40)), RNG.normal(-500, 40, (30, 40)))
    for deep in (image, np.rint(image + 1000).astype(np.uint16)):
        assert (tissue_of(deep) != upper).sum() <= 2
    assert not tissue_of(np.full((30, 40), 7, np.uint8)).any()
