"""Which DICOM objects are images, and what the others, which lie beside them, are called."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from conocc.data.image_io.dicom_header import read_header, text

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_KEYWORDS = "MediaStorageSOPClassUID SOPClassUID Manufacturer Modality Rows Columns"
_TAGS = list(map(Tag, _KEYWORDS.split()))

# By the names of the standard's classes: those that have pixels of a patient.
_IMAGES = re.compile("Image|US Volume|Volume Analysis|Parametric Map|Thickness Map|Topography Map")
# What the others are called: by the names of their classes, the first that matches, or, of a class
# that is not the standard's, by their modality. Others keep the standard's name.
_COMPANIONS = {
    "DICOMDIR": ("Media Storage Directory", ""),
    "presentation state": ("Presentation State", "PR"),
    "key object selection": ("Key Object", "KO"),
    "structured report": (r"\bSR\b|Report|Procedure Log", "SR"),
    "RT structure set": ("Structure Set", "RTSTRUCT"),
    "RT plan": ("RT (Ion )?Plan", "RTPLAN"),
    "RT dose grid": ("RT Dose", "RTDOSE"),
    "radiotherapy record": ("RT |Radiation", "RTRECORD"),
    "waveform": ("Waveform", "ECG|EPS|HD|RESP|EEG|AU"),
    "registration": ("Registration|Fiducials", "REG|FID"),
    "segmentation": ("Segmentation", "SEG"),
    "encapsulated document": ("Encapsulated", "DOC"),
    "spectroscopy": ("Spectroscopy", ""),
    "raw data": ("Raw Data", ""),
    "ophthalmic measurements": ("Measurements|Calculations", ""),
    "display or procedure protocol": ("Protocol|Structured Display", ""),
}
# What manufacturers keep beside images: Siemens, Philips, GE.
_PRIVATE = re.compile(
    r"1\.3\.12\.2\.1107\.5\.9\.1|1\.3\.46\.670589\.11\.0\.0\.12\.\d|1\.2\.840\.113619\.4\.\d+"
)
_WITH_PIXELS = ("RT dose grid", "segmentation")  # which are none of a patient, all the same


def companion_kind(data: bytes) -> str | None:
    """Name the kind of a DICOM object that is no image, in everyday words.

    Parameters
    ----------
    data : bytes
        A whole file, or its beginning: 64 KiB hold what tells of nearly all.

    Returns
    -------
    str or None
        Such as "presentation state". None for an image, damaged or not: one that lacks its pixels
        is no companion of others, but has lost them; and for what is not DICOM.
    """
    try:
        ds = read_header(data, [*_TAGS, *map(Tag, PIXEL_KEYWORDS)])
    except ValueError:  # of damage, which is told when it is read
        return None
    return kind_of(ds)


def kind_of(ds: Dataset) -> str | None:
    """Name the kind of a header, as `companion_kind` does of a file."""
    if text(ds, "Manufacturer") == "conocc":  # `conocc.deploy.dicom_out`
        return "conocc result"
    uid = UID(text(ds, "SOPClassUID") or text(ds.file_meta, "MediaStorageSOPClassUID"))
    name = uid.name.removesuffix(" SOP Class")
    modality = text(ds, "Modality")
    if "Storage" in name:
        if _IMAGES.search(name):
            return None
        words = (word for word, (names, _) in _COMPANIONS.items() if re.search(names, name))
        return next(words, name.replace(" Storage", ""))
    if _PRIVATE.fullmatch(uid):
        return "raw data"
    words = (word for word, (_, modes) in _COMPANIONS.items() if re.fullmatch(modes, modality))
    kind = next(words, None) if modality else None
    if "Rows" in ds or any(keyword in ds for keyword in PIXEL_KEYWORDS):
        return kind if kind in _WITH_PIXELS else None
    return (kind or ("object without pixels" if uid else None)) if ds.is_whole else None
