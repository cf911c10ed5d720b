"""What several commands take: groups of options, each declared once.

A group is a dataclass whose fields the command line library (cyclopts) takes as options. Where
the library has such a dataclass, its fields and defaults are taken from there, and the help alone
is written here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from cyclopts import Group, Parameter, Token, convert

from conocc.data.cohort_spec import CohortSpec
from conocc.data.columns import TableOptions
from conocc.data.patches import Rules
from conocc.data.preprocessing import Preprocessing
from conocc.thresholds.rule import Rule

if TYPE_CHECKING:
    from conocc.data.cohort import Cohort

# The groups of the help, in their order; what names none is of the output.
GROUPS = ("Output", "Method", "Decision", "Images", "Classes and patients", "Tables", "Work")
OUTPUT, METHOD, DECISION, IMAGES, CLASSES, TABLES, WORK = (
    Group(name, sort_key=place) for place, name in enumerate(GROUPS)
)


def flattened(group: Group) -> Parameter:
    """Have the fields of a dataclass taken as options of one group."""
    return Parameter(name="*", group=group)


def option(
    help: str, name: str | None = None, *, any_value: bool = False, **more: Any
) -> Parameter:
    """Describe an option; with `any_value`, what it is given may begin with a hyphen."""

    def converter(kind: type[Any], tokens: Sequence[Token]) -> Any:
        # cyclopts takes 'none' for no word at all, and rounds 64.7 to a whole number.
        if kind not in (int, float):
            return convert(kind, tokens)
        try:
            if math.isfinite(number := kind(tokens[0].value)):
                return number
        except ValueError:
            pass
        what = "whole number" if kind is int else "number"
        raise ValueError(f"'{tokens[0].value}' is no {what}. {help}") from None

    return Parameter(
        name=name, help=help, allow_leading_hyphen=any_value, converter=converter, **more
    )


def as_options(group: Group, kind: type[Any], /, **parameters: Parameter) -> type[Any]:
    """Give a dataclass whose fields are those of `kind` that are named, as options of a group.

    What the library makes of it is a `kind` with these values: of a cohort, one that is nowhere.
    """
    given = (ASKED.where,) if kind is CohortSpec else ()
    hints = get_type_hints(kind)
    chosen = [
        (field.name, Annotated[hints[field.name], parameters[field.name]], field.default)
        for field in fields(kind)
        if field.name in parameters
    ]
    # Its own module's: what comes from `types` is not taken apart.
    space = {"__module__": __name__, "__new__": lambda _, **values: kind(*given, **values)}
    return flattened(group)(make_dataclass(kind.__name__, chosen, kw_only=True, namespace=space))


_AXIS = option("Slices of volumes: axial, coronal or sagittal.")
_PATIENT_REGEX = option("Finds the patient in a path: its first group.", any_value=True)
_CLASSES = {
    "majority": option("Classes to learn: a,b or --majority a --majority b.", any_value=True),
    "minority": option("Classes to tell from it; all unnamed ones are left out.", any_value=True),
    "exclude": option("Classes to leave out.", any_value=True),
    "patient_regex": _PATIENT_REGEX,
}
_OF_TABLE = {
    "path_column": "Column, or array, of the images.",
    "label_column": "Column of the classes.",
    "patient_column": "Column of the patients.",
    "split_column": "Column of the split.",
    "one_hot": "Classes with a column of 0 and 1 each instead.",
    "suffix": "What a table's paths lack, such as .png.",
    "root": "Folder of the images that a table lists, where that is not its own.",
    "patients": "Table with the patient of each image.",
}


def _table_options(*names: str) -> type[Any]:
    given = {
        name: Parameter(help=help, allow_leading_hyphen=True, show_default=False)
        for name, help in _OF_TABLE.items()
        if name in names
    }
    return as_options(TABLES, TableOptions, **given)


# The cohort of a command, until it says where that is.
ASKED = CohortSpec("")

if TYPE_CHECKING:
    AxisOptions = Preprocessing
    PreprocessingOptions = Preprocessing
    RuleOptions = Rule
    PatchOptions = Rules
    PatientOptions = CohortSpec
    TableGroup = TableOptions
    BoxTableGroup = TableOptions
    ListGroup = TableOptions
    ClassOptions = CohortSpec
    SpecOptions = CohortSpec
else:
    AxisOptions = as_options(IMAGES, Preprocessing, axis=_AXIS)
    PreprocessingOptions = as_options(
        IMAGES,
        Preprocessing,
        size=option("Side in pixels that images are resized to."),
        colour=option("'grey', or 'rgb' to keep colour."),
        fit=option("How images become square: stretch, pad or crop."),
        voi=option("Window of DICOM: none, file (its own) or CENTER,WIDTH.", any_value=True),
        axis=_AXIS,
        frames=option("Of each volume or file of frames: all, middle, first, or how many."),
        scaled=Parameter(
            negative="--full", help="Decode JPEGs several times as large as needed at a fraction."
        ),
    )
    RuleOptions = as_options(
        DECISION,
        Rule,
        false_alarms=option("Flag at most this share of new majority images; needs calibration."),
        confidence=option("Certainty with which --false-alarms is kept."),
        unit=option("Of promise and p-values: 'image', or 'patient'."),
        fdr=option("Instead: at most this share of the images flagged in a batch is majority."),
    )
    PatchOptions = as_options(
        IMAGES,
        Rules,
        size=option("Side in pixels that patches are resized to."),
        margin=option("Pixels around a box."),
        outside=option("Cut as many patches of tissue outside the boxes."),
        least_tissue=option("Least share of tissue in a patch outside (Otsu's).", "--tissue"),
        min_area=option("Least pixels of a part of a mask."),
        seed=option("Seed of the patches outside."),
    )
    TableGroup = _table_options(*_OF_TABLE)
    BoxTableGroup = _table_options(
        "path_column", "label_column", "patient_column", "suffix", "patients"
    )
    ListGroup = _table_options("path_column", "suffix", "root")
    PatientOptions = as_options(CLASSES, CohortSpec, patient_regex=_PATIENT_REGEX)
    ClassOptions = as_options(CLASSES, CohortSpec, **_CLASSES)
    SpecOptions = as_options(
        CLASSES,
        CohortSpec,
        **_CLASSES,
        pseudonyms=option("Hide all names of patients, files and folders."),
        skip_unreadable=option("Leave out images that cannot be read, with a note."),
        split_seed=option("Seed of the split or the folds, where the cohort has none."),
        test_size=option("Share of the majority images to test on, where there is no split."),
    )

Device = Annotated[str, option("auto, cpu or cuda.", group=WORK)]
Epochs = Annotated[
    int | None, option("Passes over the training images; 1000 where there are any.", group=METHOD)
]
Method = Annotated[str, option("Which method; see 'conocc methods'.", group=METHOD)]
Seed = Annotated[int, option("Seed of the training.", group=METHOD)]
CohortArgument = Annotated[str, option("A folder, archive or manifest, or a phantom.")]
ImagesArgument = Annotated[list[Path], option("Files, folders, or tables that list files.")]
Keep = Annotated[
    Path | None,
    option("Keep images of a DICOMweb server in this folder; else they are deleted.", group=IMAGES),
]
RunArgument = Annotated[Path, option("A folder that 'fit' made.")]
Score = Annotated[
    str | None,
    option("By what reconstructions are scored: residual (Eq. 6) or correlation; the run's own."),
]
Threads = Annotated[int | None, option("Threads that decode; all cores.", group=WORK)]
SamePatients = Annotated[
    bool | None,
    Parameter(
        negative="--no-same-patients",
        help="Patients with a name that the run knows are the same people.",
        group=CLASSES,
    ),
]
Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"), help="Show no progress.", group=WORK)]


@flattened(WORK)
@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Where decoded images are kept."""

    cache: Annotated[Path | None, option("Folder that keeps decoded images.")] = None
    no_cache: Annotated[bool, option("Keep no decoded images.")] = False

    @property
    def kept_in(self) -> bool | str:
        """As `CohortSpec` takes it."""
        return False if self.no_cache else str(self.cache) if self.cache else True


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CohortOptions(CacheOptions):
    """How a cohort is read that no run knows yet."""

    preprocessing: PreprocessingOptions = ASKED.preprocessing
    asked: SpecOptions = ASKED
    table: TableGroup = ASKED.table

    def spec(self, where: str) -> CohortSpec:
        """Say all of the cohort at `where`."""
        return replace(
            self.asked,
            where=where,
            preprocessing=self.preprocessing,
            table=self.table.absolute(),
            cache=self.kept_in,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReadAsOptions(CacheOptions):
    """How a cohort is read as a run's own was: a table as that was, if it is the same one."""

    asked: ClassOptions = ASKED
    table: TableGroup = ASKED.table
    threads: Threads = None

    def load(self, run: str | Path, where: str, *, quiet: bool) -> Cohort:
        """Load the cohort at `where` as that of `run` was."""
        from conocc.detectors.file_scores import preprocessing_of
        from conocc.experiments.run import load_model, read_run

        noted = read_run(Path(run))["loading"]
        own = CohortSpec.from_dict(noted) if noted else ASKED
        is_own = self.table == ASKED.table and os.path.abspath(own.where) == os.path.abspath(where)
        spec = CohortSpec(
            where,
            preprocessing_of(load_model(run), run),
            majority=self.asked.majority or own.majority,
            minority=self.asked.minority or (own.minority if is_own else None),
            exclude=self.asked.exclude or (own.exclude if is_own else None),
            patient_regex=self.asked.patient_regex or own.patient_regex,
            table=own.table if is_own else self.table,
            pseudonyms=own.pseudonyms,
            skip_unreadable=own.skip_unreadable,
            test_size=1,  # which images were trained on says the run
            cache=self.kept_in,
        )
        try:
            return spec.load(n_jobs=self.threads, verbose=int(not quiet))
        except ValueError as error:
            if self.asked.majority or "'majority' parameter" not in str(error):
                raise
            own_words = f"'{where}' has no class {' or '.join(own.majority or ())}, the majority of"
            advice = "Name its own (--majority), or score its images without classes"
            raise ValueError(f"{own_words} '{run}'. {advice} ('conocc score').") from None


@flattened(WORK)
@dataclass(frozen=True, kw_only=True)
class ParallelOptions:
    """Where the work is done."""

    jobs: Annotated[int, option("Processes at a time on this machine; they divide its cores.")] = 1
    engine: Annotated[str, option("'processes' of this machine, or 'dask'.")] = "processes"
    address: Annotated[str | None, option("Of Dask's scheduler, tcp://HOST:PORT.")] = None


@flattened(METHOD)
@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """What is fitted."""

    method: Method = "conocc"
    epochs: Epochs = None
    gamma: Annotated[float | None, option("γ of Eq. 3, what compactness counts; 10.")] = None
    interval: Annotated[int | None, option("T, epochs between updates of the center μ; 60.")] = None
    lr: Annotated[float | None, option("λ, learning rate; 0.001 for ConOCC.")] = None
    scored_by: Annotated[
        str | None,
        option("By what reconstructions are scored: residual (Eq. 6) or correlation.", "--score"),
    ] = None
    encoder: Annotated[
        str | None, option("ONNX file: the method learns what that makes of an image.")
    ] = None
    layer: Annotated[
        str | None, option("Output or inner layer of the encoder; its only output.")
    ] = None
    seed: Seed = 0
    settings: Annotated[
        list[str] | None, option("NAME=VALUE, any other parameter of the method.", "--set")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StudyOptions(CohortOptions, ParallelOptions):
    """What all studies take."""

    out: Annotated[Path, option("Folder for the study; rows accumulate.", group=OUTPUT)]
    epochs: Epochs = None
    settings: Annotated[
        list[str] | None,
        option(
            "[METHOD.]NAME=VALUE, a parameter of the methods that have it, or of one; "
            "V1,V2 makes a fit of each.",
            "--set",
            group=METHOD,
        ),
    ] = None
    device: Device = "auto"
    dry_run: Annotated[bool, option("List the fits that are missing, and do none.")] = False
    retry_failed: Annotated[bool, option("Do failed fits again.")] = False
    quiet: Quiet = False
