"""Who is on a DICOM image, so that no path, message or file repeats it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from conocc.data.image_io.dicom import SIGNATURE
from conocc.data.image_io.dicom_header import items, read_header

# What a message may not tell of, nor a path repeat: beside all of the patient's own group, numbers
# of the study and its images, and who made it.
_TELLING = """
SOPInstanceUID AccessionNumber ReferringPhysicianName PhysiciansOfRecord
PerformingPhysicianName NameOfPhysiciansReadingStudy OperatorsName StudyInstanceUID
SeriesInstanceUID StudyID FrameOfReferenceUID RequestingPhysician AdmissionID
PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest
"""
_PATIENT_GROUP = 0x0010
# Which many share, and which a path holds by chance.
_SHARED = tuple(map(Tag, ("PatientSex", "PatientAge", "PatientSize", "PatientWeight")))
_LONGEST = 1024
_CODECS = "utf-8 latin-1 iso8859-2 iso8859-5 iso8859-7 iso2022_jp_2 shift_jis euc_kr gb18030"
_SUBSTRING = 4
_ANYWHERE = 8
# What is written where a name is not to be told, and what folders are called all the same.
_NOBODY = """
test phantom anonymous anonymized anonymised anon unknown none patient subject case study series
image images scan ct mr mri us xray dx cr dr mg pt nm lung chest brain head neck breast heart liver
kidney prostate abdomen pelvis spine knee hip normal abnormal benign malignant train
"""


@dataclass(frozen=True)
class Person:
    """Who is on a DICOM image. Never to be shown.

    Attributes
    ----------
    patient : str
        The PatientID; empty where there is none.
    values : frozenset of str
        What the header says of the patient, the study and their doctors, in plain letters.
    names : frozenset of str
        The PatientID and the whole name, in plain letters.
    issuer : str
        Who gave that ID, which another may have given to somebody else; often empty.
    """

    patient: str
    values: frozenset[str]
    names: frozenset[str] = frozenset()
    issuer: str = ""

    def __repr__(self) -> str:
        return "Person()"

    def identifies(self, name: str) -> bool:
        """Tell whether a name, of a file or folder, repeats any of these values.

        As a whole: as one word, or as up to eight that follow each other, where words also end
        between letters and digits, and where a capital begins. Values of at least eight letters,
        which no chance repeats, are found anywhere.
        """
        plain = plain_letters(name)
        words = set()
        for pattern in (r"[^\W_]+", r"[^\W\d_]+|\d+", r"[A-Z]?[^\W\dA-Z_]+|[A-Z]+|\d+"):
            parts = list(map(plain_letters, re.findall(pattern, name)))
            words |= {"".join(parts[i : i + n]) for i in range(len(parts)) for n in range(1, 9)}
        return not words.isdisjoint(self.values) or any(
            value in plain for value in self.values if len(value) >= _ANYWHERE
        )

    def is_named_by(self, name: str) -> bool:
        """Tell whether `name` holds the PatientID or the whole name, of four letters or more."""
        plain = plain_letters(name)
        return any(len(value) >= _SUBSTRING and value in plain for value in self.names)


def person_of(data: bytes) -> Person | None:
    """Read who is on an image; None where `data` is not DICOM. A damaged file says what it can."""
    if not SIGNATURE.match(data):
        return None
    ds = Dataset()
    with suppress(ValueError):  # of damage, which is told when the pixels are read
        ds = read_header(data)
    own = set(ds.group_dataset(_PATIENT_GROUP).keys()) - set(_SHARED)
    texts = [*(_raw(ds, tag) for tag in own), *(_raw(ds, word) for word in _TELLING.split())]
    with suppress(ValueError):  # likewise
        texts += [_raw(item, "PatientID") for item in items(ds, "OtherPatientIDsSequence")]
    keywords = ("PatientID", "PatientName", "IssuerOfPatientID")
    ids, names, issuers = (_decoded(_raw(ds, keyword)) for keyword in keywords)
    patient = " ".join(ids[:1])
    values = {plain_letters(patient)}
    for text in texts:
        if 0 < len(text) <= _LONGEST:
            values |= {part for decoded in _decoded(text) for part in _parts(decoded)}
    # Nor does a number of one or two digits identify anybody.
    values -= {"", *_NOBODY.split()}
    values = {one for one in values if len(one) > 2 or not one.isdecimal()}
    whole = frozenset(map(plain_letters, ids + names))
    return Person(patient, frozenset(values), whole, " ".join(issuers[:1]))


def _raw(ds: Dataset, tag: int | str) -> bytes:
    """Give the bytes of an element; none where it is missing or a sequence."""
    with suppress(Exception):  # of a kind that does not exist
        value = ds.get_item(tag).value
        return value if isinstance(value, bytes) else b""
    return b""


def _decoded(value: bytes) -> list[str]:
    """Read text in each way that it may have been written, which its header need not tell."""
    value = value.strip(b" \0")
    if value.isascii() and b"\x1b" not in value:
        return [value.decode("ascii")] if value else []
    texts = []
    for codec in _CODECS.split():
        with suppress(UnicodeDecodeError):
            texts.append(value.decode(codec))
    return texts


def _parts(text: str) -> Iterator[str]:
    for part in [text, *re.split(r"[\\^=\s]+", text)]:
        if len(plain := plain_letters(part)) > 1:
            yield plain


def plain_letters(text: str) -> str:
    """Give the letters and digits alone, without accents and case.

    >>> plain_letters("Müller^Ånn 1950-01-02")
    'mullerann19500102'
    """
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if c.isalnum()).casefold()
