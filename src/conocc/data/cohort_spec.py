"""What cohort is loaded and how, as plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from conocc.data.columns import TableOptions
from conocc.data.preprocessing import Preprocessing

if TYPE_CHECKING:
    from conocc.data.cohort import Cohort


@dataclass(frozen=True)
class CohortSpec:
    """What `load_cohort` is to load, as plain values: it goes into files and to other processes.

    Parameters
    ----------
    where : str
        A folder, an archive or a manifest (`conocc.data.layouts`), or the name of a phantom
        (`conocc.data.phantoms`).
    preprocessing : Preprocessing
        How files become arrays. Without a size, a phantom has its natural one, and files must
        all have one shape.
    majority : tuple of str, optional
        The class or classes to learn, where the layout does not know it by name.
        It is never guessed from counts.
    minority : tuple of str, optional
        The classes to tell from it, where not all others are: those are left out.
    exclude : tuple of str, optional
        Classes to leave out.
    patient_regex : str, optional
        Searched in each path; its group named 'patient', or its first, is the patient.
    table : TableOptions
        How a manifest, or a table of patients, is read.
    pseudonyms : bool, default=False
        Whether pseudonyms stand for all patients and for all names of files and folders, and not
        only for those that DICOM tells (`conocc.data.pseudonyms`). Classes keep their names.
    skip_unreadable : bool, default=False
        Whether images that cannot be read are left out, with a note, or end the loading.
    split_seed, test_size
        Of the split by patient that is made where the layout gives none
        (`conocc.data.splits.split_by_patient` has the rule). With 0 all majority images train,
        with 1 none does.
    calibration_size : float in (0, 1), or "auto", optional
        Share of the training patients that are kept out of training, for a threshold; "auto" is a
        fifth, where that can promise at most 20 % false alarms, and else none. Drawn with
        `split_seed` (`conocc.data.splits.kept_for_calibration` has the rule).
    cache : bool or str, default=True
        Where decoded images are kept: the user's cache folder, another one, or nowhere.
    """

    where: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    majority: tuple[str, ...] | None = None
    minority: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    patient_regex: str | None = None
    table: TableOptions = TableOptions()
    pseudonyms: bool = False
    skip_unreadable: bool = False
    split_seed: int = 0
    test_size: float = 0.4
    calibration_size: float | str | None = None
    cache: bool | str = True

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, for JSON."""
        return {**asdict(self), "preprocessing": self.preprocessing.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CohortSpec:
        """Read what `to_dict` gave, after JSON too."""
        read = {name: values.get(name) for name in ("majority", "minority", "exclude")}
        read = {name: None if some is None else tuple(some) for name, some in read.items()}
        read["preprocessing"] = Preprocessing.from_dict(values["preprocessing"])
        read["table"] = TableOptions.from_dict(values["table"])
        return cls(**{**values, **read})

    def absolute(self) -> CohortSpec:
        """Name folders from the root: another process may have another working directory."""
        from conocc.data.phantoms import PHANTOMS

        where = self.where if self.where in PHANTOMS else os.path.abspath(self.where)
        cache = os.path.abspath(self.cache) if isinstance(self.cache, str) else self.cache
        return replace(self, where=where, cache=cache, table=self.table.absolute())

    def load(self, *, n_jobs: int | None = None, verbose: int = 0) -> Cohort:
        """Load the cohort; see `load_cohort`."""
        from conocc.data.load import load_cohort

        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return load_cohort(**values, n_jobs=n_jobs, verbose=verbose)
