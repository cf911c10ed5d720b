"""What is a mask: names, the image that it marks, and, where names prove nothing, its values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conocc.data.layouts import list_cohort
from conocc.data.masks import without_masks
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import list_images
from made_cohorts import make_folder
from made_nifti import nifti


def write_masks(folder: Path, *paths: str, lossy: bool = False) -> Path:
    """Write a mask at each of these paths: black, with a white square."""
    for path in paths:
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 6:20] = 255
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(folder / path, **({"quality": 60} if lossy else {}))
    return folder


def left(folder: Path, *images: str, masks: tuple[str, ...], level: int = 0) -> set[str]:
    """What is left of these images and masks."""
    write_masks(make_folder(folder, *images), *masks)
    return set(without_masks(folder, sorted({*images, *masks}), level=level)[0])


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("benign/benign (1).png", ("benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png")),
        ("TCGA_CS_4941/TCGA_CS_4941_1.tif", ("TCGA_CS_4941/TCGA_CS_4941_1_mask.tif",)),
        ("a/x.png", ("a/x_GT.png", "a/x-mask.png", "a/x_label.png", "a/x_labels.png")),
        ("a/x.png", ("a/x.seg.png", "a/x_segmentation.png", "a/mask_x.png", "a/x_mask_left.png")),
        ("a/image_1.png", ("a/mask_1.png", "a/image_1_mask.png", "a/label_1.png")),
        ("a/p/image.png", ("a/p/mask.png",)),
        ("a/images/x.png", ("a/masks/x.png", "a/label/x_mask.png", "a/ground_truth/x.png")),
        ("a/img/x.png", ("a/annotations/x.png", "a/segmentation/x.png", "a/GT/x.png")),
        ("a/x.png", ("a/mask/x.png", "a/lung_masks/x.png", "a/Training_GroundTruth/x.png")),
        ("a/imagesTr/x_0000.png", ("a/labelsTr/x.png",)),
        ("a/x1.png", ("a/x1Mask.png", "a/x1_1stHO.png")),
        ("a/sub-1_T1w.png", ("a/sub-1_T1w_desc-brain_mask.png", "a/sub-1_T1w_dseg.png")),
        ("a/images/21_training.png", ("a/1st_manual/21_manual1.png",)),
        ("a/BraTS20_001_flair.png", ("a/BraTS20_001_seg.png",)),
        ("images/x.png", ("masks/x.png",)),
        ("Task1_Input/ISIC_1.png", ("Task1_GroundTruth/ISIC_1_segmentation.png",)),
        ("a/case1.png", ("a/case1mask.png", "a/case1_lesion.png", "a/case1 Maske.png")),
    ],
)
def test_masks_are_known_by_their_names_and_images(tmp_path, image, masks):
    """As sets are shipped: beside the image, in a folder of their own, several of one image."""
    assert left(tmp_path, image, masks=masks) == {image}


def test_a_mask_of_a_split_may_lie_anywhere_in_it(tmp_path):
    images = ("train/a/images/1.png", "test/a/2.png")
    masks = ("train/a/masks/1.png", "masks/a/2.png", "ground_truth/a/2_mask.png")
    assert left(tmp_path, *images, masks=masks, level=1) == set(images)


def test_names_of_masks_beside_their_images_need_no_look(tmp_path):
    """A coloured overlay is no image either."""
    make_folder(tmp_path, "a/x.png", "a/x_mask.png")
    assert without_masks(tmp_path, ["a/x.png", "a/x_mask.png"]) == (
        ("a/x.png",),
        ["1 mask ('a/x_mask.png') left aside."],
    )


def test_masks_whose_images_are_not_there_are_known_by_their_values(tmp_path):
    assert left(tmp_path, "a/x.png", masks=("a/y_mask.png", "a/segmentation.png")) == {"a/x.png"}


def test_a_mask_that_was_compressed_has_nearly_two_values(tmp_path):
    write_masks(make_folder(tmp_path, "a/x.png"), "a/y_mask.jpg", lossy=True)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "a/y_mask.jpg")))) > 8
    assert without_masks(tmp_path, ["a/x.png", "a/y_mask.jpg"])[0] == ("a/x.png",)


@pytest.mark.parametrize(
    "names",
    [
        ("with_mask/with_mask_1.png", "without_mask/1.png"),
        ("mask/1.png", "no_mask/1.png"),
        ("mask/1.png", "plain/1.png"),
        ("label_0/1.png", "label_1/1.png"),
        ("benign/roi_1.png", "benign/roi_2.png", "malignant/contour.png"),
    ],
)
def test_a_word_alone_makes_no_mask_of_an_image(tmp_path, names):
    """Faces with a mask are a class, and a region that was cut out is an image."""
    assert left(tmp_path, *names, masks=()) == set(names)


def test_a_class_called_masks_is_said_to_be_taken_for_a_class(tmp_path):
    make_folder(tmp_path, "masks/1.png", "plain/1.png")
    notes = without_masks(tmp_path, ["masks/1.png", "plain/1.png"])[1]
    assert notes == ["'masks' is taken for a class: its files are no masks."]


@pytest.mark.parametrize("masks", [("masks/2.png",), ("a/y_mask.png",)])
def test_what_could_be_either_is_refused_and_scored(tmp_path, masks):
    """A class of two-valued images that mark no other; names of masks, of which only some look so.

    Where nothing is trained, it is scored.
    """
    images = ("plain/1.png", "a/z_mask.png")
    write_masks(make_folder(tmp_path, *images), *masks)
    with pytest.raises(ValueError, match=r"masks or images is not known: .* Take masks out"):
        list_cohort(tmp_path)
    (part,) = list_images([tmp_path], Preprocessing())
    assert set(part.names) == {*images, *masks}


def test_masks_are_left_aside_by_every_layout_and_by_score(tmp_path, caplog):
    """BUSI as its authors ship it, with and without a split."""
    caplog.set_level("INFO", logger="conocc")
    for folder, before in ((tmp_path / "plain", ""), (tmp_path / "split", "train/")):
        images = {f"{before}{label}/{label} (1).png" for label in ("benign", "normal")}
        make_folder(folder, *images)
        write_masks(folder, *(path.replace(".png", "_mask.png") for path in images))
        index = list_cohort(folder)
        assert {entry.path for entry in index.entries} == images
        assert f"2 masks ('{before}benign/benign (1)_mask.png' …) left aside." in index.notes
        (part,) = list_images([folder], Preprocessing())
        assert set(part.names) == images
    assert caplog.text.count("2 masks (") == 2


def test_masks_of_volumes(tmp_path):
    volume = np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32)
    (tmp_path / "case").mkdir()
    for name, voxels in (("ct", volume), ("segmentation", (volume > 1).astype(np.uint8))):
        (tmp_path / f"case/{name}.nii.gz").write_bytes(nifti(voxels, compressed=True))
    paths = ["case/ct.nii.gz", "case/segmentation.nii.gz"]
    assert without_masks(tmp_path, paths)[0] == ("case/ct.nii.gz",)


def test_a_folder_of_nothing_but_masks_holds_no_image(tmp_path):
    with pytest.raises(ValueError, match=r"holds no images\. .* 2 masks \("):
        list_cohort(write_masks(tmp_path, "a/1_mask.png", "a/2_mask.png"))


def test_an_image_that_is_named_like_the_mask_of_a_name_that_is_not_there_is_looked_at(tmp_path):
    """A name that only begins as another does proves nothing."""
    images = {"image_and_mask.png", "image_and_thumbnail.png"}
    noise = np.random.default_rng(0).integers(0, 255, (2, 32, 32), dtype=np.uint8)
    for name, pixels in zip(sorted(images), noise, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    assert set(without_masks(tmp_path, sorted(images))[0]) == images


def test_an_image_is_no_mask_for_its_name_alone(tmp_path):
    """Words of any language tell masks from their images only where values do."""
    views = ("a/1.png", "a/1_left.png")
    assert left(tmp_path / "views", *views, masks=()) == set(views)
    assert left(tmp_path / "drawn", masks=views) == set(views)  # all are drawn in two tones
