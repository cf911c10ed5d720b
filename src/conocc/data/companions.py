"""What lies beside images and is none: by its name, and by how its content begins."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from conocc.data.image_io.dicom import SIGNATURE as DICOM
from conocc.data.image_io.dicom_kind import companion_kind
from conocc.data.image_io.read import HEAD_BYTES, format_of
from conocc.io.files import PICTURE_MARK

# What the kind of a DICOM object is told of, which is mostly near its beginning.
DICOM_BYTES = 2**16

LITTER = "hidden file"
RUN = "folder that conocc made"
PICTURE = "picture that conocc drew"
VOXELS = "file of voxels, read with its header"
_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "icon\r", "@eadir", "$recycle.bin", "lost+found"}
_LITTER |= {"system volume information"}
_BY_SUFFIX = {
    "table": "csv tsv tab xlsx xlsm xls ods parquet pq json jsonl xml yaml yml bval bvec",
    "document": "txt md rst pdf doc docx odt rtf html htm bib log toml ini cfg sha256 md5",
    "program": "py ipynb r m sh bat js css exe dll jar inf",
}
_SUFFIXES = {suffix: kind for kind, some in _BY_SUFFIX.items() for suffix in some.split()}
_NAMES = re.compile(r"(?:readme|licen[cs]e|copying|notice|citation|changes|changelog)\b", re.I)
# Formats with which a text may begin.
_WEAK = (None, "PNM", "BMP")
# What most files say of their class: those are images, which need no closer look.
_IMAGE_CLASS = re.compile(
    rb"\x08\0\x16\0(?:UI..|..\0\0)1\.2\.840\.10008\.5\.1\.4\.1\.1\."
    rb"(?:1|1\.1|1\.2|2|2\.1|4|4\.1|6\.1|7|12\.1|20|128)\0?\x08",
    re.DOTALL,
)


def is_litter(name: str) -> bool:
    """Say whether a file or folder is hidden, or what a desktop or an archiver left behind.

    ``.x.png.icloud`` stands for an image, which iCloud has not brought yet.
    """
    return (name.startswith(".") and not name.endswith(".icloud")) or name.lower() in _LITTER


def companion(name: str, head: bytes) -> str | None:
    """Name the kind of a file that lies beside images, or None for what is, or may be, an image.

    Parameters
    ----------
    name : str
        Without folders. It decides where the content is of no format, or of one with which a text
        may begin.
    head : bytes
        The first `HEAD_BYTES`, or for DICOM the first `DICOM_BYTES`.
    """
    kind = format_of(head)
    if kind == "DICOM":
        if _is_an_image(head):
            return None
        other = companion_kind(head)
        return other and f"DICOM {other}"
    if PICTURE_MARK in head:
        return PICTURE
    if kind in _WEAK:
        readme = "document" if _NAMES.match(name) else None
        return _SUFFIXES.get(PurePath(name).suffix[1:].lower(), readme)
    return None


def needs_more(head: bytes) -> bool:
    """Say whether more of a file than its head tells its kind."""
    return DICOM.match(head) is not None and not _is_an_image(head)


def _is_an_image(head: bytes) -> bool:
    """Say whether a DICOM file is of a class of images, and not by `conocc.deploy.dicom_out`."""
    head = head[:HEAD_BYTES]
    return _IMAGE_CLASS.search(head) is not None and b"LO\6\0conocc" not in head


def said(aside: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Say how many files of which kinds were left aside: a sentence for DICOM, and one for others.

    >>> list(said({"table": ["a.csv", "b.csv"], "DICOM registration": ["x"]}))
    ['1 DICOM object that is no image left aside: 1 registration.', '2 files beside the images \
left aside: 2 tables.']
    """
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for kind, paths in sorted(item for item in aside.items() if item[1]):
        first, _, rest = kind.partition(" ")
        is_dicom = first == "DICOM"
        groups["DICOM" if is_dicom else ""][rest if is_dicom else kind] = len(paths)
    for group, kinds in sorted(groups.items(), reverse=True):
        total = sum(kinds.values())
        what = f"file{'s' * (total > 1)} beside the images"
        if group:
            what = f"DICOM object{'s that are no images' if total > 1 else ' that is no image'}"
        numbers = [f"{n} {kind if n == 1 else plural(kind)}" for kind, n in kinds.items()]
        yield f"{total} {what} left aside: {', '.join(numbers)}."


def plural(kind: str) -> str:
    """Put the first noun of a kind in the plural.

    >>> plural("presentation state"), plural("file of voxels, read with its header")
    ('presentation states', 'files of voxels, read with its header')
    """
    noun, preposition, rest = next(
        (kind.partition(word) for word in (" of ", " that ") if word in kind), (kind, "", "")
    )
    ending = "" if noun.endswith(("s", "data", "DIR")) else "s"
    return f"{noun}{ending}{preposition}{rest}"
