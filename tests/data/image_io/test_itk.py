"""MetaImage and NRRD: SimpleITK's values and directions, or a sentence that says why not."""

from __future__ import annotations

import bz2
import itertools
import re
import zlib
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from conocc.data.image_io.read import companions, decode, open_stack
from conocc.data.image_io.stack import StackOptions
from conocc.data.index import ImageEntry, of_files
from conocc.data.volumes import with_slices
from made_images import COLOUR, DEEP, GREY
from made_nifti import nifti

# z, y, x as SimpleITK has it; each voxel differs.
VOLUME = np.random.default_rng(0).permutation(5 * 6 * 7).reshape(5, 6, 7).astype(np.int16)
KINDS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def written(folder: Path, name: str, array, *, compressed=False, direction=None, **more) -> Path:
    image = SimpleITK.GetImageFromArray(array, **more)
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    SimpleITK.WriteImage(image, str(folder / name), compressed)
    return folder / name


def stack_at(path: Path, **options):
    with path.open("rb") as file:
        return open_stack(file, path.name, StackOptions(**options))


def slices(path: Path, axis: str = "axial") -> list[np.ndarray]:
    stack = stack_at(path, axis=axis)
    return [stack.image(k).pixels for k in range(stack.total)]


def refusal(data: bytes, name="a.mha") -> str:
    with pytest.raises(ValueError, match=r"^Cannot read '[^\n]*\.$") as caught:
        stack = open_stack(BytesIO(data), name, StackOptions())
        stack.image(0)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_every_kind_are_those_that_were_written(tmp_path, name, compressed, kind):
    """As ITK's identity lies: axial slices show the rows of the array, right on the left."""
    path = written(tmp_path, name, VOLUME.astype(kind), compressed=compressed)
    for read, plane in zip(slices(path), VOLUME.astype(kind), strict=True):
        assert read.dtype == np.dtype(kind)
        np.testing.assert_array_equal(read, plane)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
@pytest.mark.parametrize("axes", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_slices_lie_as_those_of_the_nifti_file_that_simpleitk_writes(tmp_path, name, axes, signs):
    direction = np.eye(3)[list(axes)] * signs
    one = written(tmp_path, name, VOLUME, direction=direction)
    other = written(tmp_path, "b.nii", VOLUME, direction=direction)
    for axis in ("axial", "coronal", "sagittal"):
        for read, expected in zip(slices(one, axis), slices(other, axis), strict=True):
            np.testing.assert_array_equal(read, expected)


def test_one_drawn_volume_is_the_same_in_all_containers(tmp_path):
    """To the bit, but for Analyze, which cannot say which way is up, and says that."""
    affine = np.diag([-1, -1, 3, 1.0])
    xyz = np.moveaxis(VOLUME, (0, 1, 2), (2, 1, 0))
    for name in ("a.mha", "a.mhd", "b.nrrd", "b.nhdr"):
        written(tmp_path, name, VOLUME)
    nibabel.save(nibabel.Nifti1Image(xyz, affine), tmp_path / "c.nii.gz")
    nibabel.save(nibabel.Nifti1Pair(xyz, affine), tmp_path / "d.hdr")
    nibabel.save(nibabel.Nifti1Pair(xyz, affine), tmp_path / "e.hdr.gz")
    for name in ("f.mgh", "g.mgz"):
        nibabel.save(nibabel.MGHImage(xyz.astype(np.int16), affine), tmp_path / name)
    nibabel.save(nibabel.AnalyzeImage(xyz, affine), tmp_path / "h.hdr")
    for axis in ("axial", "coronal", "sagittal"):
        expected = slices(tmp_path / "c.nii.gz", axis)
        for name in ["a.mha", "a.mhd", "b.nrrd", "b.nhdr", "d.hdr", "e.hdr.gz", "f.mgh", "g.mgz"]:
            for read, one in zip(slices(tmp_path / name, axis), expected, strict=True):
                assert read.dtype == one.dtype
                np.testing.assert_array_equal(read, one)
    nibabel.save(nibabel.MGHImage(xyz.astype(np.uint16), affine), tmp_path / "i.mgz")  # new there
    np.testing.assert_array_equal(slices(tmp_path / "i.mgz")[2], VOLUME[2].astype(np.uint16))
    flipped = slices(tmp_path / "h.hdr")
    np.testing.assert_array_equal(flipped[2], VOLUME[2, ::-1])
    assert "no directions in an Analyze header" in stack_at(tmp_path / "h.hdr").image(0).remarks[0]


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.mhd"])
def test_two_dimensions_are_one_image_of_the_name_of_its_file(tmp_path, name):
    """Grey or RGB, listed and fetched like any other."""
    for array, is_vector in ((DEEP, False), (COLOUR, True)):
        written(tmp_path, name, array, isVector=is_vector, compressed=True)
        listing = of_files("files", tmp_path, [ImageEntry(name, "x")])
        listing = with_slices(listing, StackOptions(), n_jobs=1)
        assert [entry.path for entry in listing.entries] == [name]
        (fetch,) = listing.fetch([0])
        np.testing.assert_array_equal(fetch().pixels, array)


def test_of_a_series_the_first_volume_is_read(tmp_path):
    for name in ("a.mha", "a.nrrd"):
        path = written(tmp_path, name, np.stack([VOLUME, VOLUME + 1]), isVector=False)
        stack = stack_at(path)
        assert stack.left_aside == {"volumes after the first, such as time points": 1}
        np.testing.assert_array_equal(stack.image(1).pixels, VOLUME[1])


# Headers by hand

META = "ObjectType = Image\nNDims = 3\nDimSize = 7 6 5\nElementType = MET_SHORT\n"
NRRD = "NRRD0004\n# made\ntype: int16\ndimension: 3\nsizes: 7 6 5\nendian: little\n"
RAW = VOLUME.astype("<i2").tobytes()


def meta(*lines: str, body: bytes = RAW, head: str = META, file: str = "LOCAL") -> bytes:
    text = head + "".join(f"{line}\n" for line in lines) + f"ElementDataFile = {file}\n"
    return text.encode() + body


def nrrd(*lines: str, body: bytes = RAW, head: str = NRRD, encoding: str = "raw") -> bytes:
    text = head + "".join(f"{line}\n" for line in lines) + f"encoding: {encoding}\n\n"
    return text.encode() + body


def first(data: bytes) -> np.ndarray:
    return open_stack(BytesIO(data), "a", StackOptions()).image(0).pixels


def test_headers_as_people_write_them():
    """With bytes to be skipped, in either byte order, of either line end, of other compressions."""
    big = VOLUME.astype(">i2").tobytes()
    for data in (
        meta(),
        meta("HeaderSize = 3", body=b"abc" + RAW),
        meta("HeaderSize = -1", body=b"abc" + RAW),
        meta("BinaryDataByteOrderMSB = True", body=big),
        meta("CompressedData = True", body=zlib.compress(RAW)),
        meta("Comment = made = by hand", "TransformMatrix = 1 0 0 0 1 0 0 0 1"),
        nrrd(),
        nrrd("byte skip: 2", body=b"ab" + RAW),
        nrrd("byteskip: -1", body=b"ab" + RAW),
        nrrd("line skip: 1", body=b"ab\n" + RAW),
        nrrd(body=bz2.compress(RAW), encoding="bz2"),
        nrrd("note:=kept", "endian: little", head=NRRD.replace("int16", "signed short int")),
        nrrd(head=NRRD.replace("little", "big"), body=big),
        nrrd(head=NRRD.replace("\n", "\r\n")).replace(b"raw\n\n", b"raw\r\n\r\n"),
        nrrd("space: left-posterior-superior", "space directions: (1,0,0) (0,1,0) (0,0,1)"),
        nrrd("space: RAS", "space directions: (-1,0,0) (0,-1,0) (0,0,1)"),
        nrrd("space: scanner-xyz", "space directions: (1,0,0) (0,1,0) (0,0,1)"),
    ):
        np.testing.assert_array_equal(first(data), VOLUME[0])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (meta(body=RAW[:-1]), "header says 210 voxels, its file has 209"),
        (nrrd(body=RAW[:-2]), "header says 210 voxels, its file has 209"),
        (meta("CompressedData = True", body=zlib.compress(RAW)[:-1]), "its compressed voxels"),
        (
            meta("CompressedData = True", body=zlib.compress(RAW + b"0")),
            "its compressed voxels are",
        ),
        (meta("CompressedData = True", body=zlib.compress(RAW[:-2])), "its file has 209"),
        (meta("BinaryData = False"), "its encoding 'text' is not read; save it as raw"),
        (nrrd(encoding="hex"), "its encoding 'hex' is not read"),
        (meta("ElementNumberOfChannels = 2"), "it holds 2 values a voxel, where an image has one"),
        (meta("NDims = 2"), "its header says 'ndims' twice"),
        (meta(head=META.replace("7 6 5", "7 6")), "header says 3 dimensions of 2 sides"),
        (meta(head=META.replace("7 6 5", "7 0 5")), "which are no sides of an image or volume"),
        (meta(head=META.replace("7 6 5", "x 6 5")), "its header is damaged"),
        (meta(head=META.replace("DimSize", "Size")), "its header is damaged"),
        (meta(head=META.replace("7 6 5", "70000 60000 5")), "4200000000 pixels; at most"),
        (meta(head=META.replace("7 6 5", "4000 4000 4000")), "64000000000 voxels of 16 bits"),
        (meta(head=META.replace("MET_SHORT", "MET_OTHER")), "its values are 'other', not integers"),
        (nrrd(head=NRRD.replace("int16", "block")), "its values are 'block', not integers"),
        (meta(file="a.raw"), "the file of its voxels, 'a.raw', is not beside it"),
        (meta(head=META).split(b"ElementData")[0], "its MetaImage header is damaged or cut short"),
        (nrrd()[:80], "its NRRD header is cut short"),
        (nrrd("Segment0_ID:=1"), "it is a segmentation of 3D Slicer, not an image"),
        (nrrd("space directions: none (1,0,0) (0,1,0)"), "its shape is (5, 6, 7), not"),
    ],
)
def test_what_is_not_read(data, said):
    assert said in refusal(data)


def test_nothing_is_unpacked_beyond_what_the_header_asks_for():
    """Of a stream of a gigabyte, a few hundred bytes."""
    bomb = zlib.compressobj()
    packed = bomb.compress(RAW) + b"".join(bomb.compress(bytes(2**20)) for _ in range(1024))
    assert "its compressed voxels are" in refusal(meta("CompressedData = True", body=packed))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("../a.raw", "names lies outside its folder"),
        ("/etc/passwd", "names lies outside its folder"),
        ("C:\\a.raw", "names lies outside its folder"),
        ("sub\\..\\..\\a.raw", "names lies outside its folder"),
        ("none.raw", "the file of its voxels, 'none.raw', is not beside it"),
        ("a%03d.raw", "'a%03d.raw', is not beside it"),
        ("a%09999d.raw 1 5 1", "is not beside it"),
        ("a%03d.raw 1 4 1", "header says 210 voxels in 4 files"),
        ("LIST", "'LIST', is not beside it"),
    ],
)
def test_a_file_of_voxels_lies_in_the_folder_of_its_header(tmp_path, file, said):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.raw").write_bytes(RAW)
    path = tmp_path / "inner/a.mhd"
    path.write_bytes(meta(file=file, body=b""))
    with pytest.raises(ValueError, match=f"Cannot read 'a.mhd': .*{re.escape(said)}"):
        stack_at(path)
    (tmp_path / "inner/v").mkdir()
    (tmp_path / "inner/v/a.raw").symlink_to(tmp_path / "a.raw")
    path.write_bytes(meta(file="v\\a.raw", body=b""))
    np.testing.assert_array_equal(slices(path)[0], VOLUME[0])


@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
@pytest.mark.parametrize("named", ["LIST", "x%02d.raw 3 11 2"])
def test_voxels_in_several_files_are_simpleitks(tmp_path, kind, named):
    """Each is one slice, listed below the header or numbered; all are left aside as companions."""
    names = [f"x{i:02}.raw" for i in (3, 5, 7, 9, 11)]
    for name, plane in zip(names, VOLUME, strict=True):
        (tmp_path / name).write_bytes(plane.astype("<i2").tobytes())
    below = "".join(f"{name}\n" for name in names) if named == "LIST" else ""
    key = "ElementDataFile = " if kind == "mhd" else "encoding: raw\ndata file: "
    path = tmp_path / f"a.{kind}"
    path.write_text(f"{META if kind == 'mhd' else NRRD}{key}{named}\n{below}")
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)), VOLUME)
    for read, plane in zip(slices(path), VOLUME, strict=True):
        np.testing.assert_array_equal(read, plane)
    assert companions(tmp_path, [path.name, *names]) == dict.fromkeys(names, path.name)


def test_a_pair_without_its_voxels_names_what_is_missing(tmp_path):
    image = nibabel.Nifti1Pair(np.moveaxis(VOLUME, 0, 2), np.eye(4))
    nibabel.save(image, tmp_path / "p.hdr")
    (tmp_path / "p.img").unlink()
    with pytest.raises(ValueError, match="the file of its voxels, 'p.img', is not beside it"):
        stack_at(tmp_path / "p.hdr")


def test_companions_are_told_from_images(tmp_path):
    (tmp_path / "sub").mkdir()
    written(tmp_path, "sub/a.mhd", VOLUME)
    written(tmp_path, "b.nhdr", VOLUME)
    nibabel.save(nibabel.Nifti1Pair(VOLUME, np.eye(4)), tmp_path / "c.hdr")
    (tmp_path / "d.raw").write_bytes(RAW)
    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")]
    assert companions(tmp_path, names) == {
        "sub/a.raw": "sub/a.mhd",
        "b.raw": "b.nhdr",
        "c.img": "c.hdr",
    }


def test_a_label_map_is_a_mask_and_no_image():
    data = nrrd("Segment0_ID:=1")
    assert open_stack(BytesIO(data), "a", StackOptions(labels=True)).total == 5


@pytest.mark.parametrize("name", ["a.mha", "b.mha", "c.nrrd", "d.nrrd", "e.mgz", "f.mgh", "g.hdr"])
def test_a_file_cut_or_with_wrong_bytes_is_a_stack_or_a_sentence(tmp_path, name, capfd, caplog):
    """Nothing else, nothing printed; a compressed one gives the very same voxels, or none."""
    if name.endswith(("mgz", "mgh")):
        nibabel.save(nibabel.MGHImage(VOLUME.astype(np.int16), np.eye(4)), tmp_path / name)
    elif name == "g.hdr":
        nibabel.save(nibabel.AnalyzeImage(VOLUME, np.eye(4)), tmp_path / name)
    else:
        written(tmp_path, name, VOLUME, compressed=name[0] in "bd")
    data = (tmp_path / name).read_bytes()
    whole = slices(tmp_path / name)
    rng = np.random.default_rng(0)
    for i in range(400):
        bad = np.frombuffer(data, np.uint8).copy()
        if i % 4 == 0:
            bad = bad[: rng.integers(0, len(bad))]
        else:
            spots = rng.integers(0, int(rng.choice([60, 400, len(bad)])), rng.integers(1, 4))
            spots = spots[spots < len(bad)]
            bad[spots] = rng.choice(np.frombuffer(b"0129 -=:\n\xff\0", np.uint8), len(spots))
        (tmp_path / name).write_bytes(bad.tobytes())
        try:
            got = stack_at(tmp_path / name)
            images = [got.image(k).pixels for k in range(got.total)] if got else []
        except ValueError as error:
            assert str(error).startswith(f"Cannot read '{name}': ")  # noqa: PT017
            continue
        assert all(image.ndim in (2, 3) for image in images)
        if i % 4 == 0 and images:
            assert all(map(np.array_equal, images, whole))
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


def test_a_volume_of_another_container_is_no_image_by_itself():
    for data in (meta(), nrrd(), nifti(VOLUME)):
        with pytest.raises(ValueError, match="it is a volume, whose slices are images"):
            decode(data, "a")
    assert open_stack(BytesIO(GREY.tobytes()), "a", StackOptions()) is None
