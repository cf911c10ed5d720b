"""Paths as tables of users write them, and the files that they mean."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from conocc.data.index import as_typed

_SERIES = re.compile(r"[\d.]{10,64}")  # a folder named by the UID of a DICOM series


def table_path(text: str, suffix: str = "", folder: Path | None = None) -> str:
    r"""Write a path with forward slashes and, where it lacks that, with its suffix.

    A backslash stays where there is a file of such a name in `folder`.

    >>> table_path(r".\a\1", ".png"), table_path("a//1.PNG", ".png")
    ('a/1.png', 'a/1.PNG')
    """
    if not text.lower().endswith(suffix.lower()):
        text += suffix
    if "\\" in text and not (folder and (folder / text).is_file()):
        text = text.replace("\\", "/")
    return PurePosixPath(text).as_posix() if text else ""


class FilesByName:
    """The files of a cohort, for tables that write their paths from another folder.

    >>> files = FilesByName(["a/1.png", "b/1.png", "b/2.png", "1.2.840.10008/1-1.dcm"])
    >>> files.find("2.png"), files.find("/data/b/1.png"), files.find("1.png")
    (['b/2.png'], ['b/1.png'], ['a/1.png', 'b/1.png'])
    >>> files.find("1.2.840.10008/000000.dcm")
    ['1.2.840.10008/1-1.dcm']
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._files = set(files)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for file in sorted(self._files):
            folder, _, name = _folded(file).rpartition("/")
            self._by_name[name].append(file)
            self._by_name[f"{name.rpartition('.')[0]}."].append(file)
            self._by_name[f"{folder.rpartition('/')[2]}/"].append(file)

    def find(self, path: str) -> list[str]:
        """Return the file at `path`, or those of its name where one path ends as the other does.

        Capitals, and how accents are written, do not matter. Where there is none, all files in a
        folder with the UID of the same DICOM series, whose files are called otherwise by each
        program that downloads them.
        """
        if path in self._files:
            return [path]
        parts = _folded(path).split("/")
        found = [file for file in self._by_name.get(parts[-1], ()) if _ends_alike(file, parts)]
        if not found and len(parts) > 1 and _SERIES.fullmatch(parts[-2]):
            found = self._by_name.get(f"{parts[-2]}/", [])
        return found

    def suffix_of(self, path: str) -> str:
        """Return the suffix that a file has whose name is else that of `path`, or nothing."""
        name = _folded(path).rpartition("/")[2]
        files = self._by_name.get(f"{name}.", [""])
        return PurePosixPath(files[0]).suffix


def _folded(path: str) -> str:
    return as_typed(path).lower()


def _ends_alike(file: str, parts: list[str]) -> bool:
    own = _folded(file).split("/")
    return all(a == b for a, b in zip(reversed(own), reversed(parts), strict=False))
