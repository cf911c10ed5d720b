"""What the columns of a user's table mean, by their names or the user's word, and its paths."""

from __future__ import annotations

import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path, PurePosixPath
from typing import Any

from conocc.data.index import as_typed, printable, stem

_NUMBER = r"(id|ids|identifier|no|nr|num|number|nummer|code|key|uid|uuid|hash|name|index|idx)?"
LEAST_LIKENESS = 0.79  # of "lable" and "label"
# Other words for what a column means, as letters and digits alone.
_OTHER_WORDS = {
    "path": r"(dicom|dcm|image|img|picture|slice|scan|relative|full|png|jpe?g)?"
    rf"(file|image|img|picture|scan|dicom|dcm|path|uri|url|location){_NUMBER}(path)?|fname|(isic)?id(code)?",
    "image": r"(image|img|picture|scan|slice)s?(data|array)?|x|data|pixels|arr0",
    "label": r"(the|image|true|binary|class|disease)?(label|class|target|diagnos[ie]s|dx|finding|"
    rf"pathology|category|outcome|groundtruth|gt|disease|y)s?(label)?{_NUMBER}|ytrue|benignmalignant",
    "patient": r"(anon|anonymi[sz]ed|deidentified|orig|original)?(patient(en)?|pat|pt|subject|subj|"
    rf"sub|participant|proband|person|individual|case|donor|client)s?{_NUMBER}|"
    r".*(patient|subject|submitter|participant)s?(id|no|nr|number|code|key)|"
    r"pid|mrn|rid|empi(anon)?|lesionid|groups",
    "split": r"(?!dataset$)(data|dataset|image|official|train(val(id)?)?(or)?test|cv)?"
    rf"(split|set|subset|partition|phase|usage){_NUMBER}|"
    r"(is)?train(ing)?(val(id)?(ation)?)?(or)?(test)?",
}


@dataclass(frozen=True)
class TableOptions:
    """How tables that the user brings are read, as plain values.

    A column (of an archive: an array) is known by its name, *path* (*images*), *label*, *patient*
    or *split*, in any case, singular or plural, or else by the name given here; an empty name is
    of none.

    Parameters
    ----------
    path_column, label_column, patient_column, split_column : str, optional
        What the columns are called there.
    one_hot : tuple of str
        Instead of a column of labels: columns of 0 and 1. The label is the name of the column that
        holds 1, and of several the names, joined by ``|``; 'other' where there is none. One that
        holds −1, for uncertain, is there as ``NAME?``.
    suffix : str
        What is added to each path, such as ``.png``.
    root : str, optional
        The folder of the images that a manifest lists, where that is not its own.
    patients : str, optional
        A table with the patient of each image, where none lies beside the images.
    """

    path_column: str | None = None
    label_column: str | None = None
    patient_column: str | None = None
    split_column: str | None = None
    one_hot: tuple[str, ...] = ()
    suffix: str = ""
    root: str | None = None
    patients: str | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableOptions:
        """Read plain values, after JSON too."""
        return cls(**{**values, "one_hot": tuple(values["one_hot"])})

    def absolute(self) -> TableOptions:
        """Name files from the root: another process may have another working directory."""
        root, patients = (one and os.path.abspath(one) for one in (self.root, self.patients))
        return replace(self, root=root, patients=patients)


def refuse_options(where: object, table: TableOptions, names: Sequence[str], kind: str) -> None:
    """Refuse options of which a cohort of this kind has no use."""
    for name in names:
        if getattr(table, name):
            raise ValueError(
                f"'{printable(where)}' is {kind}, where --{name.replace('_', '-')} says nothing. "
                f"Leave out '{name}'."
            )


def claim(
    where: str,
    columns: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str] = (),
    table: TableOptions = TableOptions(),
    thing: str = "column",
) -> dict[str, str]:
    """Say which column holds each of the meanings that are `required` or `optional`.

    Raises
    ------
    ValueError
        If one that is required or named by the user is not there, or two mean the same, or one that
        means nothing here is called nearly as if it did.
    """
    if table.patients is not None:  # the patients of another table are no column's here
        optional = [meaning for meaning in optional if meaning != "patient"]
    claimed: dict[str, str] = {}
    open_to: list[str] = []
    for meaning in (*required, *optional):
        given = getattr(table, f"{_option(meaning)}_column", None)
        found = [c for c in columns if (is_called(c, meaning) if given is None else c == given)]
        if given and not found:
            raise ValueError(
                f"{where} has no {thing} {given!r} (--{_option(meaning)}-column). {_has(columns)}"
            )
        if len(found) > 1:
            raise ValueError(f"{where} has more than one {meaning}: {_listed(found)}.")
        if found:
            claimed[meaning] = found[0]
        elif given is None:
            open_to.append(meaning)
    taken = {*claimed.values(), *table.one_hot}
    if lacking := [column for column in table.one_hot if column not in columns]:
        raise ValueError(f"{where} has no {thing} {lacking[0]!r} (--one-hot). {_has(columns)}")
    near = {
        meaning: column
        for meaning in open_to
        for column in reversed(columns)  # the first counts
        if column not in taken and is_near(column, meaning)
    }
    if near:
        hints = [_near(meaning, column, meaning in optional) for meaning, column in near.items()]
        raise ValueError(f"{where} has the {thing} {'; and '.join(hints)}.")
    if lacking := [meaning for meaning in required if meaning not in claimed]:
        raise ValueError(
            f"{where} must have the {thing}{'s' * (len(required) > 1)} {' and '.join(required)}"
            f"{', and may have ' + ' and '.join(optional) if optional else ''}. "
            f"It lacks {_listed(lacking)}. {_has(columns)}"
        )
    return claimed


def _near(meaning: str, column: str, may_lack: bool) -> str:
    option = f"{_option(meaning)}_column"
    flag = f"--{option.replace('_', '-')}"
    name = printable(column)
    unused = f" ({flag} '' leaves it unused)" if may_lack else ""
    return (
        f"'{name}', which reads as if it were '{meaning}': rename it to '{meaning}', pass {flag} "
        f"{shlex.quote(name)} ({option} of TableOptions), or drop it{unused}"
    )


def _option(meaning: str) -> str:
    return {"images": "path", "labels": "label"}.get(meaning, meaning)


def _has(columns: Sequence[str]) -> str:
    return f"It has {_listed(columns) or 'none'}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names))


def _word(column: str) -> str:
    return "".join(filter(str.isalnum, column.casefold()))


def is_missing(label: str) -> bool:
    """Say whether a program wrote the name of a class because it had none."""
    words = r"nan|n/?a|null|missing|unknown|unlabell?ed|\?+"
    return re.fullmatch(rf"\W*({words})\W*", label, re.I) is not None


def is_nobody(patient: str) -> bool:
    """Say whether a name is none, as programs write what is missing, or a number that was rounded.

    >>> is_nobody("NaN"), is_nobody("1.23E+11"), is_nobody("7E2")
    (True, True, False)
    """
    none = r"\W*|nan|none|null|\W*n/?a\W*|unknown|missing|\d[.,]?\d*e\+\d+"
    return re.fullmatch(none, patient, re.I) is not None


def bare(name: str) -> str:
    """Give a name without capitals, leading zeros and a zero behind the decimal point.

    >>> bare("P007"), bare("1.0"), bare("10")
    ('p7', '1', '10')
    """
    return re.sub(r"(?<![\d.])0+(?=\d)|(?<=\d)\.0+$", "", name.casefold().strip())


def is_called(column: str, meaning: str) -> bool:
    """Say whether a column is called by its meaning, in any case, singular or plural."""
    return _word(column).removesuffix("s") == meaning.removesuffix("s")


def is_near(column: str, meaning: str) -> bool:
    """Say whether a column is called by another word for it, or by one written a little wrong.

    Remarks in brackets, as in "Patient (pseudonym)", do not matter.
    """
    word = _word(re.sub(r"(?s)(?<=.)[(\[{].*", "", column))
    if column != word and is_called(word, meaning):
        return True
    if re.fullmatch(rf"({_OTHER_WORDS.get(meaning.removesuffix('s'), meaning)})(e?s)?", word):
        return True
    is_as_long = len(meaning) > 4 and abs(len(word) - len(meaning)) <= 1
    return is_as_long and SequenceMatcher(None, word, meaning).ratio() >= LEAST_LIKENESS


# Paths, and the files that they mean

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
            self._by_name[f"{stem(name)}."].append(file)
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
        file = self._by_name.get(f"{_folded(path).rpartition('/')[2]}.", [""])[0]
        return file[len(stem(file)) :]

    def of_other_suffix(self, path: str) -> str:
        """Return a file whose name is that of `path` but for the suffix, or nothing."""
        return self._by_name.get(f"{stem(_folded(path).rpartition('/')[2])}.", [""])[0]


def _folded(path: str) -> str:
    return as_typed(path).lower()


def _ends_alike(file: str, parts: list[str]) -> bool:
    own = _folded(file).split("/")
    return all(a == b for a, b in zip(reversed(own), reversed(parts), strict=False))
