"""Who is on which image: from a table, from a regular expression, from known file names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conocc.data.columns import (
    FilesByName,
    TableOptions,
    bare,
    claim,
    is_called,
    is_nobody,
    table_path,
)
from conocc.data.image_io.dicom_person import Person
from conocc.data.image_io.stack import is_slice_name, volume_and_slice
from conocc.data.index import count, printable
from conocc.data.pseudonyms import key_fingerprint, pseudonym
from conocc.io.user_tables import TABLE_SUFFIXES, hint_at_encoding, read_table

EVERYWHERE = "everywhere"
# Tables that may stand beside the images.
TABLES = (
    *(f"{name}{suffix}" for name in ("patients", "patient") for suffix in TABLE_SUFFIXES),
    "patches.csv",
)

# Names that a standard gives to patients, anywhere in a path, and whether they are the same
# everywhere or in one data set.
STANDARDS = {
    # person12_bacteria_3, IM-0115-0001, IM-0543-0001-0002, NORMAL2-IM-0115-0001. NORMAL2-IM-0115
    # and IM-0115 are two patients: merging them invents 94 overlaps between training and test.
    "as in the ChestX set": (
        r"(?<![^/])(?:person\d+(?=_(?:bacteria|virus)_\d+(?:\.\w+)?$)"
        r"|(?:NORMAL2-)?IM-\d+(?=-\d+(?:-\d+)?(?:\.\w+)?$))",
        True,
    ),
    "as in BIDS (sub-…)": (r"(?<![^/])sub-[A-Za-z0-9]+(?=[/_.[]|$)", False),
    "as in TCGA": (r"(?<![A-Za-z0-9])TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4}(?![A-Za-z0-9])", True),
}


@dataclass(frozen=True)
class Patients:
    """The patient of each image, whether that is knowledge, and a sentence on its source.

    `among` is where a name stands for one person: "everywhere", the path of a table, or "" for
    the cohort alone. `key` is the fingerprint of the key with which names are hashed, "" if none.
    """

    names: tuple[str, ...]
    known: bool
    note: str
    among: str = ""
    key: str = ""
    each: str = "patient"  # what counts as one


def find_patients(
    paths: Sequence[str],
    *,
    given: Sequence[str | None],
    folder: Path | None,
    regex: str | None,
    persons: Sequence[Person | None] = (),
    deidentified: Sequence[str] | None = None,
    options: TableOptions = TableOptions(),
) -> Patients:
    """Name the patient of each image.

    The first of these that there is decides: the regular expression, or the table of patients
    (`options`), that the user gave; what the layout itself lists (`given`); a table beside the
    images; the PatientID of DICOM (`persons`), if every image has one, and with it who issued it,
    if every image says so, for which a pseudonym stands; a name of one of the `STANDARDS`, if every
    image has exactly one.
    Otherwise patients are not known: each image counts as one, named by its path, and so does
    each file of several images.
    Messages and names take the `deidentified` paths, if these are not the paths themselves.

    Raises
    ------
    ValueError
        If the source that decides has no patient for one of the images: it is named.
    """
    deidentified = paths if deidentified is None else deidentified
    if regex is not None:
        names = by_regex(paths, regex, deidentified)
        note = f"Patients are read from the paths by {regex!r}."
        return _hidden(Patients(names, True, note), persons)
    table = Path(options.patients) if options.patients is not None else None
    if table is None and given and given[0] is not None:
        named = [None if who is None or is_nobody(who) else who for who in given]
        names = _complete(named, deidentified, "The cohort lists no patient for")
        return Patients(names, True, "Patients are those that the cohort lists.")
    if table is None and folder:
        beside = {path.name.lower(): path for path in sorted(folder.iterdir())}
        table = next((beside[name] for name in TABLES if name in beside), None)
    if table is not None:
        names = by_table(paths, table, deidentified, options)
        note = f"Patients are read from '{printable(table.name)}'."
        return Patients(names, True, note, str(table.resolve()))
    people = [person for person in persons if person and person.patient]
    if people and len(people) == len(persons):
        issued = all(person.issuer for person in people)
        names = tuple(
            pseudonym(f"{person.issuer}\n{person.patient}" if issued else person.patient)
            for person in people
        )
        note = f"Patients are pseudonyms of DICOM's PatientID{' and of its issuer' * issued}."
        whole = {person.patient for person in people}
        if alike := len(whole) - len({*map(bare, whole)}):
            note += (
                f" {count(alike, 'PatientID')} of {len(whole)} differ from another in capitals or "
                "zeros alone. Where these are one patient, name patients by a table (--patients)."
            )
        return Patients(names, True, note, EVERYWHERE, key_fingerprint())
    if standard := by_standard(paths):
        return _hidden(standard, persons)
    names = tuple(volume_and_slice(path)[0] for path in deidentified)
    each = "file" if any(map(is_slice_name, paths)) else "image"
    unit = "file of several images" if each == "file" else each
    lacking = sum(not (person and person.patient) for person in persons)
    some = f"{lacking} of {count(len(persons), 'image')} have no PatientID of DICOM, so that "
    some = some if lacking < len(persons) else ""
    note = f"Patients are not known: {some}each {unit} counts as a patient of its own."
    return Patients(names, False, note, each=each)


def _hidden(patients: Patients, persons: Sequence[Person | None]) -> Patients:
    """Put a pseudonym for each name that identifies the person on any image with it."""
    pairs = zip(patients.names, persons, strict=False)
    hidden = {name for name, person in pairs if person and person.identifies(name)}
    names = tuple(pseudonym(name) if name in hidden else name for name in patients.names)
    return replace(patients, names=names, key=key_fingerprint()) if hidden else patients


def by_regex(
    paths: Sequence[str], regex: str, deidentified: Sequence[str] | None = None
) -> tuple[str, ...]:
    r"""Take the group named 'patient', or else the first one, as found in each path.

    >>> by_regex(["a/p07_1.png", "b/p07_2.png"], r"p(\d+)_")
    ('07', '07')
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ValueError(
            f"The 'patient_regex' parameter is not a regular expression: {error}. Got {regex!r}."
        ) from None
    if not pattern.groups:
        raise ValueError(
            "The 'patient_regex' parameter must have a group, such as '(p[0-9]+)_', that holds "
            f"the patient. Got {regex!r} instead."
        )
    group = pattern.groupindex.get("patient", 1)
    found = [match[group] if match else None for match in map(pattern.search, paths)]
    missing = f"'patient_regex' must find a patient in every path. {regex!r} finds none in"
    hint = "; --patient-regex '(.+)' makes each image a patient of its own"
    return _complete(found, deidentified or paths, missing, hint)


def by_standard(paths: Sequence[str]) -> Patients | None:
    """Read the patient from names that a standard gives; None unless every path has exactly one.

    >>> by_standard(["sub-01/ses-1/sub-01_ses-1_T1w.nii[0]", "sub-02_bold.nii[1]"]).names
    ('sub-01', 'sub-02')
    """
    for standard, (pattern, is_public) in STANDARDS.items():
        found = [set(re.findall(pattern, path)) for path in paths]
        if all(len(one) == 1 for one in found):
            names = tuple(one.pop().replace("_", "-") for one in found)
            note = f"Patients are read from names {standard}"
            note += "." if is_public else f"{_shared(paths, names)}."
            return Patients(names, True, note, EVERYWHERE if is_public else "")
    return None


def _shared(paths: Sequence[str], names: Sequence[str]) -> str:
    """Say so where one name is in several of the folders that divide a cohort."""
    folders = {(name, path.split("/")[0]) for path, name in zip(paths, names, strict=True)}
    several = sum(times > 1 for times in Counter(name for name, _ in folders).values())
    if not several or any(name in folder for name, folder in folders):
        return ""
    return (
        f", of which {count(several, 'name')} in several folders count as one patient each "
        "(--patient-regex tells them apart by their folders)"
    )


def by_table(
    paths: Sequence[str],
    table: Path,
    deidentified: Sequence[str] | None = None,
    options: TableOptions = TableOptions(),
) -> tuple[str, ...]:
    """Look each image up in a table with a column 'file' or 'path' and a column 'patient'.

    The table may write paths from another folder (`FilesByName`). A slice that it does not name
    has the patient of its volume.
    """
    name = f"'{printable(table.name)}'"
    columns, rows = read_table(table)
    options = replace(options, one_hot=())  # of labels
    if options.path_column not in columns:
        file = next((column for column in columns if is_called(column, "file")), None)
        options = replace(options, path_column=file)
    claimed = claim(name, columns, ("path", "patient"), table=options)
    files = FilesByName({*paths, *(volume_and_slice(path)[0] for path in paths)})
    patients: dict[str, str] = {}
    for line, row in rows:
        path = table_path(row[claimed["path"]], options.suffix)
        found, who = files.find(path), row[claimed["patient"]]
        who = "" if is_nobody(who) else who
        at = f"{name}, line {line}: '{printable(path)}'"
        if len(found) > 1:
            raise ValueError(
                f"{at} may be '{printable(found[0])}' or '{printable(found[1])}'; write its folder."
            )
        if found and patients.setdefault(found[0], who) != who:
            raise ValueError(f"{at} has the patient {who!r} here and {patients[found[0]]!r} above.")
    whose = [patients.get(path) or patients.get(volume_and_slice(path)[0]) for path in paths]
    hints = filter(None, (files.suffix_of(table_path(row[claimed["path"]])) for _, row in rows))
    hint = next((f"; --suffix {one} adds what its names lack" for one in hints), "")
    without = "".join(path for path, who in zip(paths, whose, strict=True) if not who)
    hint = hint or hint_at_encoding(table, without)
    return _complete(whose, deidentified or paths, f"{name} has no patient for", hint)


def _complete(
    found: Sequence[str | None], paths: Sequence[str], missing: str, hint: str = ""
) -> tuple[str, ...]:
    """Give the patients found, or name the first path without one in a sentence."""
    without = [path for path, patient in zip(paths, found, strict=True) if not patient]
    if without:
        n = f"{len(without)} of {count(len(paths), 'image')}"
        raise ValueError(f"{missing} '{printable(without[0])}' ({n}{hint}).")
    return tuple(patient for patient in found if patient)
