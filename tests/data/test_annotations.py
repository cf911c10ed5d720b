"""Boxes from tables and from masks: each image's own, or a sentence that names the line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from conocc.data.annotations import marked_by_boxes, marked_by_masks
from conocc.data.bounding_boxes import Box
from conocc.data.columns import TableOptions
from made_cohorts import make_folder
from made_nifti import nifti, write_volume

HEAD = "path,x,y,width,height"


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "images", "a/1.png", "a/2.png", "b/3.png")


def boxed(folder, text, **options):
    table = folder.parent / "boxes.csv"
    table.write_text(text)
    return marked_by_boxes(folder, table, **{"reserved": None, **options})


def test_a_table_gives_each_image_its_boxes(folder):
    """With labels and patients, where it has them; of boxes with decimals, all pixels met."""
    listing, marks = boxed(
        folder,
        f"{HEAD},label,patient\nb/3.png,1,2,3,4,mass,p\na/1.png,0,0,2,2,cyst,q\n"
        "b/3.png,5.5,6.5,2,1.2,cyst,p\n",
    )
    assert [(e.path, e.patient) for e in listing.entries] == [("a/1.png", "q"), ("b/3.png", "p")]
    assert marks("b/3.png", (16, 16)) == [
        (Box(1, 2, 3, 4), "mass"),
        (Box(5, 6, 3, 2), "cyst"),
    ]
    listing, marks = boxed(folder, f"{HEAD}\na/2.png,1,2,3,4\n")
    assert marks("a/2.png", (16, 16)) == [(Box(1, 2, 3, 4), "inside")]
    assert listing.entries[0].patient is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,x,y,width\na/1.png,1,2,3\n", r"It lacks height\."),
        (f"{HEAD}\na/1.png,1,2,3,4\na/9.png,1,2,3,4\n", r"line 3: there is no file 'a/9.png'"),
        (f"{HEAD}\n../images/a/1.png,1,2,3,4\n", r"line 2: there is no file"),
        (f"{HEAD}\na/1.png,1,2,x,4\n", r"line 2: the box must be four numbers. Got '1,2,x,4'"),
        (f"{HEAD}\na/1.png,.1,.5,.3,1\n", r"line 2: the box must be in pixels, not in shares"),
        (f"{HEAD}\na/1.png,1,inf,2,4\n", r"line 2: the box must be four numbers"),
        (f"{HEAD},label\na/1.png,1,2,3,4,x/y\n", r"line 2: the label 'x/y' cannot name"),
        (f"{HEAD},label\na/1.png,1,2,3,4,..\n", r"line 2: the label '..' cannot name"),
        (f"{HEAD},label\na/1.png,1,2,3,4,kept\n", r"line 2: the label 'kept' cannot name"),
        (f"{HEAD},patient\na/1.png,1,2,3,4,\n", r"needs one patient. Got ''"),
        (f"{HEAD},patient\na/1.png,1,2,3,4,p\na/1.png,1,2,3,4,q\n", r"line 3: .* Got 'q'"),
        (f"{HEAD},patient_id\na/1.png,1,2,3,4,p\n", "'patient_id', which reads .* 'patient'"),
        (f"{HEAD},class_name\na/1.png,1,2,3,4,p\n", "'class_name', which reads .* 'label'"),
        (f"file,{HEAD[5:]}\na/1.png,1,2,3,4\n", "'file', which reads as if it were 'path'"),
        (
            f"{HEAD}\nv.nii,1,2,3,4\n",
            r"'v.nii' holds several images; name one: 'v.nii\[0\]'",
        ),
    ],
)
def test_lines_that_are_refused(folder, text, said):
    write_volume(folder / "v.nii")
    with pytest.raises(ValueError, match=said):
        boxed(folder, text, reserved="kept")


def test_columns_of_boxes_may_be_named(folder):
    """Also by capitals; paths may have backslashes and lack their suffix."""
    options = TableOptions("file", "class", "who", suffix=".png")
    listing, marks = boxed(
        folder, "file,X,Y,Width,Height,class,who\na\\1,1,2,3,4,mass,p\n", options=options
    )
    assert [(e.path, e.patient) for e in listing.entries] == [("a/1.png", "p")]
    assert marks("a/1.png", (16, 16)) == [(Box(1, 2, 3, 4), "mass")]


def test_a_slice_of_a_volume_can_have_boxes(folder):
    write_volume(folder / "v.nii")
    listing, marks = boxed(folder, f"{HEAD}\nv.nii[3],1,2,3,4\n")
    assert listing.entries[0].path == "v.nii[3]"
    assert marks("v.nii[3]", (20, 18)) == [(Box(1, 2, 3, 4), "inside")]


# Masks


def write_mask(path, *boxes, side=16):
    mask = np.zeros((side, side), np.uint8)
    for box in boxes:
        mask[box.y : box.y + box.height, box.x : box.x + box.width] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


FIRST, SECOND, TINY = Box(1, 2, 3, 4), Box(9, 8, 5, 6), Box(14, 0, 1, 1)


def test_masks_are_found_by_name_and_taken_together(folder):
    """Small parts are no boxes; images without a mask are counted."""
    masks = folder.parent / "masks"
    write_mask(masks / "a/1.bmp", FIRST, TINY)
    write_mask(masks / "a/2_mask.png", FIRST)
    write_mask(masks / "a/2_mask_1.png", SECOND)
    listing, marks = marked_by_masks(folder, masks, axis="axial", min_area=2)
    assert [entry.path for entry in listing.entries] == ["a/1.png", "a/2.png"]
    assert listing.notes == ("1 image without a mask left aside.",)
    assert marks("a/1.png", (16, 16)) == [(FIRST, "inside")]
    assert marks("a/2.png", (16, 16)) == [(FIRST, "inside"), (SECOND, "inside")]
    with pytest.raises(ValueError, match=r"its mask 'a/1.bmp' has 16x16 pixels, where it has 9x8"):
        marks("a/1.png", (8, 9))


@pytest.mark.parametrize("name", ["1_mask", "1_seg", "1-label_2", "mask_1", "1_GT"])
def test_masks_may_lie_beside_their_images(folder, name):
    """Then they are told by their names, and are no images."""
    write_mask(folder / f"a/{name}.png", FIRST)
    listing, marks = marked_by_masks(folder, folder, axis="axial", min_area=1)
    assert [entry.path for entry in listing.entries] == ["a/1.png"]
    assert marks("a/1.png", (16, 16)) == [(FIRST, "inside")]


def test_what_jpeg_strays_around_a_mask_is_no_part_of_it(folder):
    """The box is that of the mask before it was compressed."""
    masks = folder.parent / "masks"
    write_mask(masks / "a/1.png", FIRST, SECOND)
    Image.open(masks / "a/1.png").save(masks / "a/2.jpg", quality=75)
    _, marks = marked_by_masks(folder, masks, axis="axial", min_area=1)
    assert marks("a/2.png", (16, 16)) == marks("a/1.png", (16, 16))


def test_no_mask_at_all_is_an_error(folder):
    make_folder(folder.parent / "masks", "x.png")
    with pytest.raises(ValueError, match="No image of '.*images' has a mask in '.*masks'"):
        marked_by_masks(folder, folder.parent / "masks", axis="axial", min_area=1)
    with pytest.raises(ValueError, match="'.*nothing' is not a folder of masks"):
        marked_by_masks(folder, folder.parent / "nothing", axis="axial", min_area=1)


def test_the_mask_of_a_volume_is_cut_as_the_volume_is(tmp_path):
    """However each of both is stored."""
    write_volume(tmp_path / "images/v.nii.gz")  # 18 x 20 x 6
    mask = np.zeros((18, 20, 6), np.uint8)
    mask[2:5, 3:9, 4] = 1
    (tmp_path / "masks").mkdir()
    flipped = nifti(mask[::-1], affine=np.diag([-1.0, 1, 1, 1])[:3])
    (tmp_path / "masks/v.nii").write_bytes(flipped)
    _, marks = marked_by_masks(tmp_path / "images", tmp_path / "masks", axis="axial", min_area=1)
    # From the right, x 2 to 4 of 18 is column 13 to 15; from the front, y 3 to 8 of 20 is row 11.
    assert marks("v.nii.gz[4]", (20, 18)) == [(Box(13, 11, 3, 6), "inside")]
    assert marks("v.nii.gz[3]", (20, 18)) == []
    with pytest.raises(ValueError, match=r"its mask 'v.nii' has no axial slice 6"):
        marks("v.nii.gz[6]", (20, 18))
    write_mask(tmp_path / "masks/v_mask.png", FIRST)
    _, marks = marked_by_masks(tmp_path / "images", tmp_path / "masks", axis="axial", min_area=1)
    with pytest.raises(ValueError, match=r"its mask 'v_mask.png' only one holds several images"):
        marks("v.nii.gz[4]", (20, 18))
