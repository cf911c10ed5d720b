"""Whole files of every kind that the package reads, made here, and those that `CONOCC_DATA` has."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import nibabel
import numpy as np
import pyarrow
from openpyxl import Workbook
from PIL import Image
from pyarrow.parquet import write_table
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from conocc.detectors.conocc import ConOCC
from conocc.experiments.artifacts import Embedding, Gallery
from conocc.io.safetensors import read

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 32), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (24, 32), dtype=np.uint16)

LARGEST = 300_000  # bytes; of the real files, those that mutate and decode quickly
REAL_FOLDERS = {"dicom": 90, "nifti": 20, "busi/benign": 3, "chest_xray/test/NORMAL": 3}


class Sample(NamedTuple):
    """A whole file: which loader reads it (`torture.mutations.LOADERS`), its name, its bytes."""

    loader: str
    name: str
    data: bytes


def samples(scratch: Path) -> list[Sample]:
    """Make or read one file of each kind; `scratch` is a folder for what has to be written."""
    made = [
        *_images(),
        *_volumes(),
        *_frames(),
        *_dicom(),
        *_archives(),
        *_manifests(),
        *_of_a_fit(scratch),
        *_of_a_run(scratch),
    ]
    return [*made, *_real()]


def _images() -> Iterator[Sample]:
    formats = {
        "grey.png": (GREY, "PNG", {}),
        "deep.png": (DEEP, "PNG", {}),
        "colour.png": (COLOUR, "PNG", {}),
        "grey.jpg": (GREY, "JPEG", {}),
        "progressive.jpg": (COLOUR, "JPEG", {"progressive": True}),
        "grey.bmp": (GREY, "BMP", {}),
        "grey.pgm": (GREY, "PPM", {}),
        "colour.ppm": (COLOUR, "PPM", {}),
        "deep.tif": (DEEP, "TIFF", {}),
        "lzw.tif": (GREY, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tif": (COLOUR, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "grey.gif": (GREY, "GIF", {}),
        "colour.webp": (COLOUR, "WEBP", {}),
        "colour.avif": (COLOUR, "AVIF", {}),
        "grey.jp2": (GREY, "JPEG2000", {}),
        "alpha.png": (np.dstack([COLOUR, GREY]), "PNG", {}),
        "bits.pbm": (GREY > 99, "PPM", {}),
    }
    for name, (image, kind, options) in formats.items():
        yield Sample("image", name, _bytes(lambda f, i=image, k=kind, o=options: _save(i, f, k, o)))
    for dtype in ("u1", "<u2", ">f4", "f8"):
        values = GREY.astype(dtype)
        yield Sample("image", f"{dtype[-2:]}.npy", _bytes(lambda f, v=values: np.save(f, v)))


def _volumes() -> Iterator[Sample]:
    voxels = RNG.integers(1, 1000, (18, 20, 6)).astype(np.int16)
    for name, kind in (("one.nii", nibabel.Nifti1Image), ("two.nii", nibabel.Nifti2Image)):
        data = kind(voxels, np.eye(4)).to_bytes()
        yield Sample("volume", name, data)
        yield Sample("volume", f"{name}.gz", gzip.compress(data, mtime=0))
    data = nibabel.MGHImage(voxels, np.eye(4)).to_bytes()
    yield Sample("volume", "one.mgz", gzip.compress(data, mtime=0))
    raw = voxels.tobytes(order="F")
    for packed, body in (("False", raw), ("True", zlib.compress(raw))):
        head = f"ObjectType = Image\nNDims = 3\nCompressedData = {packed}\nDimSize = 18 20 6\n"
        end = "Rotation = 1 0 0 0 1 0 0 0 1\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        yield Sample("volume", f"{packed}.mha", f"{head}{end}".encode() + body)
    for encoding, body in (("raw", raw), ("gzip", gzip.compress(raw, mtime=0))):
        head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 18 20 6\nendian: little\n"
        end = f"space: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: {encoding}\n\n"
        yield Sample("volume", f"{encoding}.nrrd", f"{head}{end}".encode() + body)


def _frames() -> Iterator[Sample]:
    frames = [Image.fromarray(np.roll(GREY, k, 0)) for k in range(4)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"save_all": True, "append_images": frames[1:]}
        data = _bytes(lambda f, k=kind, o=options: frames[0].save(f, k, **o))
        yield Sample("volume", f"frames.{kind.lower()}", data)


def _dicom() -> Iterator[Sample]:
    for name, image in (("deep.dcm", DEEP), ("grey.dcm", GREY)):
        said = Dataset()
        said.file_meta = FileMetaDataset()
        said.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        said.file_meta.MediaStorageSOPClassUID = said.SOPClassUID = CTImageStorage
        said.file_meta.MediaStorageSOPInstanceUID = said.SOPInstanceUID = "1.2.3"
        said.PatientID = "A"
        said.Rows, said.Columns = image.shape
        said.SamplesPerPixel, said.PhotometricInterpretation = 1, "MONOCHROME2"
        bits = 8 * image.dtype.itemsize
        said.BitsAllocated, said.BitsStored, said.HighBit = bits, bits, bits - 1
        said.PixelRepresentation = 0
        said.RescaleSlope, said.RescaleIntercept = "2", "-1024"
        said.PixelPaddingValue = 0
        said.PixelData = image.tobytes()
        data = _bytes(lambda f, s=said: s.save_as(f, enforce_file_format=True))
        yield Sample("image", name, data)
        said.NumberOfFrames = 3
        own = [_with("PixelValueTransformationSequence", RescaleSlope=k + 1) for k in range(3)]
        said.PerFrameFunctionalGroupsSequence = own
        said.PixelData = image.tobytes() * 3
        data = _bytes(lambda f, s=said: s.save_as(f, enforce_file_format=True))
        yield Sample("volume", f"frames-{name}", data)
        streams = [ENCODE[bits](np.roll(image, k, 0)) for k in range(3)]
        said.file_meta.TransferSyntaxUID = JPEG2000Lossless if bits == 16 else JPEGBaseline8Bit
        said.PixelData = encapsulate(streams)
        said["PixelData"].is_undefined_length = True
        data = _bytes(lambda f, s=said: s.save_as(f, enforce_file_format=True))
        yield Sample("volume", f"packed-{name}", data)


ENCODE: dict[int, Callable[[np.ndarray], bytes]] = {
    8: lambda image: imagecodecs.jpeg_encode(image, level=90),
    16: lambda image: imagecodecs.jpeg2k_encode(image, reversible=True, level=0),
}


def _with(sequence: str, **values: object) -> Dataset:
    """Make a functional group of one frame."""
    item, group = Dataset(), Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    setattr(group, sequence, [item])
    return group


def _save(image: np.ndarray, file: BytesIO, kind: str, options: dict[str, object]) -> None:
    Image.fromarray(image).save(file, kind, **options)


def _bytes(write: Callable[[BytesIO], object]) -> bytes:
    file = BytesIO()
    write(file)
    return file.getvalue()


def _archives() -> Iterator[Sample]:
    images = RNG.integers(0, 256, (6, 16, 16), dtype=np.uint8)
    own = {"images": images, "labels": np.array(["a", "a", "a", "b", "b", "b"])}
    sides = {
        f"{side}_{what}": values
        for side in ("train", "val", "test")
        for what, values in (("images", images), ("labels", np.array([[0]] * 3 + [[1]] * 3)))
    }
    for name, arrays in (("own.npz", own), ("pneumoniamnist.npz", sides)):
        for save in (np.savez, np.savez_compressed):
            data = _bytes(lambda f, s=save, a=arrays: s(f, **a))
            yield Sample("cohort", name, data)


def _manifests() -> Iterator[Sample]:
    text = _manifest()
    yield Sample("manifest", "manifest.csv", text)
    yield Sample("manifest", "utf16.csv", text.decode().replace(",", ";").encode("utf-16"))
    rows = list(csv.reader(text.decode().splitlines()))
    book = Workbook()
    for row in rows:
        book.active.append(row)
    yield Sample("manifest", "manifest.xlsx", _bytes(book.save))
    head, *cells = rows
    table = pyarrow.table(dict(zip(head, zip(*cells, strict=True), strict=True)))
    yield Sample("manifest", "manifest.parquet", _bytes(lambda file: write_table(table, file)))


def _manifest() -> bytes:
    lines = ["path,label,split,patient"]
    for i in range(8):
        label, side = ("a", "train") if i < 5 else ("b", "test")
        lines.append(f'images/{i}.png,{label},{side},"p {i}"')
    return "\n".join(lines).encode()


def _of_a_fit(scratch: Path) -> Iterator[Sample]:
    images = RNG.random((4, 16, 16))
    detector = ConOCC(epochs=1, bottleneck=2, channels=(2, 2), random_state=0)
    detector.fit(images, checkpoint=scratch / "checkpoint")
    detector.save(scratch / "model.safetensors")
    yield Sample("model", "model.safetensors", (scratch / "model.safetensors").read_bytes())
    header, _ = read(scratch / "model.safetensors", "model")
    yield Sample("header", "header.json", json.dumps(header).encode())


def _of_a_run(scratch: Path) -> Iterator[Sample]:
    zeros = np.zeros((2, 1, 16, 16), np.float32)
    words, flags = np.array(["a.png", "b.png"]), np.array([False, True])
    gallery = Gallery(
        zeros, zeros, zeros, words, np.zeros(2), flags, zeros, flags, words, np.array("")
    )
    vectors = np.zeros((2, 3), np.float32)
    embedding = Embedding(vectors, vectors, flags, vectors[:1], np.array([2, 1, 1]))
    for name, evidence in (("gallery.npz", gallery), ("embedding.npz", embedding)):
        evidence.save(scratch / name)
        yield Sample(name.removesuffix(".npz"), name, (scratch / name).read_bytes())
    metrics = {"AUC": {"value": 0.5, "low": 0.4, "high": None}}
    row = {"format": 1, "key": "0", "status": "done", "method": "cae", "label": "cae", "seed": 0}
    row |= {"params": {"lr": 0.001}, "cohort": "c", "metrics": metrics, "fold": None}
    yield Sample("row", "row.json", json.dumps(row).encode())
    run = {"format": 1, "params": {"epochs": 2}, "finished": True, "loading": {"where": "c"}}
    yield Sample("run", "run.json", json.dumps(run).encode())


def _real() -> Iterator[Sample]:
    """Files below `CONOCC_DATA`, where it is set."""
    root = os.environ.get("CONOCC_DATA")
    for folder, most in REAL_FOLDERS.items() if root else ():
        files = sorted(path for path in Path(root, folder).rglob("*") if path.is_file())
        small = [path for path in files if path.stat().st_size <= LARGEST]
        for path in small[:most]:
            if path.suffix != ".csv":
                loader = "volume" if folder == "nifti" else "image"
                yield Sample(loader, path.name, path.read_bytes())
