"""`Cohort`: images with class, patient and side of the split.

Letters: n images, c channels, h and w pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from conocc.data.acquisition import CONTRAST, FACTS, OF_FILES
from conocc.data.decoding import pixels
from conocc.data.image_io.stack import volume_and_slice
from conocc.data.index import count, printable
from conocc.data.near_copies import near_copies
from conocc.data.preprocessing import Preprocessing
from conocc.io.pictures import data_url, png, sheet

if TYPE_CHECKING:
    import pandas as pd

Images = npt.NDArray[np.float32]
Strings = npt.NDArray[np.str_]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

# The sides of the split, in the order in which a cohort's images lie.
SPLITS = ("train", "calibration", "test", "unused")
# The sides that must know nothing of the minority class.
MAJORITY_ONLY = ("train", "calibration")


# The cohort


@dataclass(frozen=True)
class Leaks:
    """What is on more than one side of the split: patients, and identical images.

    Attributes
    ----------
    patients : tuple of str
    images : tuple of tuple of str
        The paths of each set of identical images.
    near_copies : tuple of (path, path)
        Where patients are not known, each other image that is nearly one that trains, and that one.
    """

    patients: tuple[str, ...]
    images: tuple[tuple[str, ...], ...]
    near_copies: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.patients or self.images or self.near_copies)

    def sentences(self) -> tuple[str, ...]:
        """Say it to people: one sentence a kind, none if there is none."""
        found = {}
        if self.patients:
            found[count(len(self.patients), "patient")] = repr(printable(self.patients[0]))
        if self.images:
            same = " = ".join(f"'{printable(path)}'" for path in self.images[0])
            found[f"{count(len(self.images), 'image')} identical"] = same
        sides = "on more than one side of the split"
        said = [f"LEAK: {what} {sides} ({first} …)." for what, first in found.items()]
        if self.near_copies:
            first = " and ".join(f"'{printable(path)}'" for path in self.near_copies[0])
            said.append(
                f"LEAK: {count(len(self.near_copies), 'image')} nearly identical to one that "
                f"trains ({first} …), as if of one patient: figures come out too good. Say who "
                "the patients are (--patient-regex, or a table)."
            )
        return tuple(said)


@dataclass(frozen=True, eq=False, repr=False)
class Cohort:
    """A data set, frozen: arrays of equal length, one row an image.

    A loaded cohort is ordered by split, class and path, so that each side of the split is one
    run of rows, and `where` a view that reads nothing from disk.

    Parameters
    ----------
    name : str
        Of a loaded cohort, as it can be printed on one line.
    images : ndarray of float32, shape (n, c, h, w), or (n, d) of features
        Possibly a read-only memory map.
    minority : ndarray of bool, shape (n,)
    patient : ndarray of str, shape (n,)
        Where patients are not known, each image is its own, named by its path.
    split : ndarray of str, shape (n,)
        One of `SPLITS`. Training and calibration images are of the majority class.
    path : ndarray of str, shape (n,)
        Relative to the cohort's folder, with forward slashes. Where it repeats what a DICOM file
        says of its patient, pseudonyms stand for that.
    digest : ndarray of str, shape (n,)
        SHA-256, in hexadecimal, of the file's bytes.
    label : ndarray of str, shape (n,)
        The class as the cohort names it.
    preprocessing : Preprocessing
        How the files were read.
    patients_known : bool
    notes : tuple of str
        What was decided and found: sentences for people.
    namespace : str
        Where names of patients hold: those of two cohorts are compared if this is the same, as
        it is for PatientIDs and public names, or one table, or one folder.
    key : str
        The fingerprint of the key with which names of patients are hashed, "" where none is.
    acquisition : ndarray of float64, shape (n, 6), or None
        What `conocc.data.acquisition.FACTS` names, of each image; None where it is not known.
    unreadable, no_images : tuple of (path, reason)
        Images that were left out since they cannot be read, and files of no format beside them.
    facts : mapping of str to ndarray of str objects, shape (n,)
        Further columns of a table, such as the scanner: results may be told apart by them.

    Raises
    ------
    ValueError
        If the arrays differ in length or have the wrong type or shape, a split is unknown, or a
        minority image is in training or calibration.

    Examples
    --------
    >>> cohort = Cohort(
    ...     name="two",
    ...     images=np.zeros((2, 1, 16, 16), np.float32),
    ...     minority=np.array([False, True]),
    ...     patient=np.array(["a", "b"]),
    ...     split=np.array(["train", "test"]),
    ...     path=np.array(["a.png", "b.png"]),
    ...     digest=np.array(["00", "01"]),
    ...     label=np.array(["good", "bad"]),
    ...     preprocessing=Preprocessing(size=16),
    ...     patients_known=True,
    ...     notes=(),
    ... )
    >>> len(cohort), len(cohort.where(split="test"))
    (2, 1)
    """

    name: str
    images: Images
    minority: Bools
    patient: Strings
    split: Strings
    path: Strings
    digest: Strings
    label: Strings
    preprocessing: Preprocessing
    patients_known: bool
    notes: tuple[str, ...]
    namespace: str = ""
    key: str = ""
    acquisition: npt.NDArray[np.float64] | None = None
    unreadable: tuple[tuple[str, str], ...] = ()
    no_images: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, npt.NDArray[np.object_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        images = np.asanyarray(self.images)
        if images.ndim not in (2, 4) or images.dtype != np.float32:
            raise ValueError(
                "The 'images' of a cohort must be float32 of shape (n, c, h, w) or (n, d). Got "
                f"{images.dtype} of shape {images.shape} instead."
            )
        for name, kind in COLUMNS.items():
            column = np.asarray(getattr(self, name))
            if column.shape != (len(images),) or column.dtype.kind != kind:
                raise ValueError(
                    f"The '{name}' of a cohort must be {'bool' if kind == 'b' else 'str'}, one "
                    f"value for each of {count(len(images), 'image')}. Got shape {column.shape} of "
                    f"{column.dtype} instead."
                )
            self._freeze(name, column)
        self._freeze("images", images)
        object.__setattr__(self, "notes", tuple(self.notes))
        if unknown := sorted(set(self.split.tolist()) - set(SPLITS)):
            raise ValueError(
                f"The 'split' of a cohort must be one of {', '.join(SPLITS)}. Got {unknown[0]!r}."
            )
        forbidden = np.flatnonzero(self.minority & np.isin(self.split, MAJORITY_ONLY))
        if forbidden.size:
            i = forbidden[0]
            raise ValueError(
                f"Minority images must not be in {self.split[i]}: '{printable(self.path[i])}' is "
                f"({forbidden.size} of {count(len(self), 'image')})."
            )

    def _freeze(self, name: str, array: np.ndarray[Any, Any]) -> None:
        # A view, so that the caller's own array stays as writable as it was.
        view = array.view()
        view.flags.writeable = False
        object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        # Patients and pixels do not belong into tracebacks.
        size = pixels(self.images.shape[1:])
        return f"<Cohort {self.name!r}: {count(len(self), 'image')} of {size}>"

    def _repr_html_(self) -> str:
        """Show counts and some images of each class in a notebook; no name of a file or patient."""
        parts = [f"<p>{escape(repr(self))}</p>", self.counts().to_html(index=False)]
        for minority, name in enumerate(("majority", "minority")):
            chosen = self.rows(minority=bool(minority))
            if len(chosen):
                some = chosen[np.linspace(0, len(chosen) - 1, min(8, len(chosen))).astype(int)]
                step = max(1, max(self.images.shape[2:]) // 96)
                drawn = sheet(np.stack([self.images[i][:, ::step, ::step] for i in some]))
                shown = data_url(png(drawn), "png")
                parts.append(f'<p>{name}:<br><img alt="some {name} images" src="{shown}"></p>')
        return "\n".join(parts)

    @property
    def groups(self) -> Strings | None:
        """Whose images belong together: of a patient, or, where these are not known, of a file.

        None if each image stands alone.
        """
        if self.patients_known:
            return self.patient
        files = np.array([volume_and_slice(path)[0] for path in self.path.tolist()], dtype=np.str_)
        return files if (files != self.path).any() else None

    @property
    def unit(self) -> str:
        """What counts as one: a patient; where these are not known, an image, or a file of many."""
        return "patient" if self.patients_known else "image" if self.groups is None else "file"

    @property
    def content(self) -> Strings:
        """What tells images apart: the digest, or of images with equal pixels that of one; (n,)."""
        return content_of(self.digest, self.images, self.acquisition)

    def rows(self, *, split: str | None = None, minority: bool | None = None) -> Rows:
        """Positions of the images on one side of the split, of one class, or both; ascending."""
        if split is not None and split not in SPLITS:
            raise ValueError(f"The 'split' must be one of {', '.join(SPLITS)}. Got {split!r}.")
        on_side = split is None or self.split == split
        of_class = minority is None or self.minority == minority
        return np.flatnonzero(np.broadcast_to(on_side & of_class, len(self)))

    def take(self, rows: npt.ArrayLike) -> Cohort:
        """Return the cohort of these images, in this order, with the same notes.

        A run of consecutive rows is a view; other rows are copied into memory.
        """
        rows = np.asarray(rows)
        if rows.dtype.kind == "b" and rows.shape == (len(self),):
            rows = np.flatnonzero(rows)
        is_list = rows.ndim == 1 and rows.dtype.kind in "iu"
        usable = not rows.size or (is_list and 0 <= rows.min() <= rows.max() < len(self))
        if not usable:
            raise ValueError(
                f"The 'rows' parameter must be positions from 0 to {len(self) - 1}, or one truth "
                f"value for each image. Got {rows.dtype} of shape {rows.shape} instead."
            )
        chosen: Any = rows.astype(np.intp)
        if (np.diff(chosen) == 1).all():
            chosen = slice(int(chosen[0]), int(chosen[-1]) + 1) if chosen.size else slice(0, 0)
        columns = {name: getattr(self, name)[chosen] for name in ("images", *COLUMNS)}
        facts = {name: column[chosen] for name, column in self.facts.items()}
        acquisition = None if self.acquisition is None else self.acquisition[chosen]
        return replace(self, **columns, facts=facts, acquisition=acquisition)

    def where(self, *, split: str | None = None, minority: bool | None = None) -> Cohort:
        """Return the cohort of the images on one side of the split, of one class, or both."""
        return self.take(self.rows(split=split, minority=minority))

    def table(self) -> pd.DataFrame:
        """One row an image: path, digest, patient, label, minority, split."""
        import pandas as pd

        names = ("path", "digest", "patient", "label", "minority", "split")
        return pd.DataFrame({name: getattr(self, name) for name in names})

    def counts(self) -> pd.DataFrame:
        """Count by split and class: split, class, images and, if they are known, patients."""
        import pandas as pd

        found = [
            (split, kind, rows.size, len(np.unique(self.patient[rows])))
            for split in SPLITS
            for minority, kind in ((False, "majority"), (True, "minority"))
            if (rows := self.rows(split=split, minority=minority)).size
        ]
        table = pd.DataFrame(found, columns=["split", "class", "images", "patients"])
        return table if self.patients_known else table.drop(columns="patients")

    def without_contrast(self) -> Bools:
        """Tell which images have one value in all pixels, and are no evidence; -> (n,) bool."""
        if self.acquisition is not None:
            return np.asarray(self.acquisition[:, CONTRAST] == 0)
        return np.array([image.min() == image.max() for image in self.images], dtype=bool)

    def leaks(self) -> Leaks:
        """Find patients and images on more than one side; "unused" is no side."""
        used = np.flatnonzero(self.split != "unused")
        split, content = self.split[used], self.content[used]
        paths: dict[str, list[str]] = {one: [] for one in on_several(content, split)}
        for i, one in zip(used, content, strict=True):
            if one in paths:
                paths[one].append(str(self.path[i]))
        patients = on_several(self.patient[used], split)
        near: dict[int, int] = {}
        if not self.patients_known:
            trains, told = split == "train", np.isin(content, [*paths])
            near = near_copies(self.images, used[~trains & ~told], used[trains])
        alike = tuple((str(self.path[i]), str(self.path[j])) for i, j in near.items())
        return Leaks(tuple(patients), tuple(map(tuple, paths.values())), alike)


# The columns beside the images, and the kind of their type.
COLUMNS = {"minority": "b", "patient": "U", "split": "U", "path": "U", "digest": "U", "label": "U"}


def content_of(
    digest: Strings, images: Images, acquisition: npt.NDArray[np.float64] | None
) -> Strings:
    """Name images with equal pixels alike, by the digest of one of them; -> (n,).

    A file of another format, or written anew without loss, has other bytes and the same pixels.
    Only images whose facts agree are compared, so that this reads next to nothing; where no facts
    are known, digests decide.
    """
    if acquisition is None or not acquisition.size:
        return digest
    seen = acquisition[:, [name not in OF_FILES for name in FACTS]]
    kind, times = np.unique(seen, axis=0, return_inverse=True, return_counts=True)[1:]
    content, first = digest.copy(), dict[bytes, str]()
    for i in np.flatnonzero(times[kind] > 1):
        pixels = sha256((images[i] + 0).tobytes()).digest()  # -0.0 is 0.0
        content[i] = first.setdefault(pixels, digest[i])
    return content


def on_several(key: Strings, side_of: Strings | Bools) -> list[str]:
    """Return the keys that occur on more than one side, sorted."""
    pairs = set(zip(key.tolist(), side_of.tolist(), strict=True))
    times = Counter(name for name, _ in pairs)
    return sorted(name for name, n in times.items() if n > 1)
