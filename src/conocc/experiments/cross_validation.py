"""Who trains on what: the paper's splits, as cohorts that differ in their `split` alone.

- Table 2: train on the majority images of the training split, test on the test split. That is
  the cohort as it was loaded.
- Table 3: `paper_folds`, on single images, or `patient_folds`, in which no patient is on both
  sides.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from conocc.data.cohort import SPLITS, Cohort
from conocc.data.splits import patient_groups, without_copies
from conocc.experiments.model_selection import OneClassKFold
from conocc.io.words import count

# How notes begin that tell of the split a cohort was loaded with, which folds do not use.
OF_SPLIT = ("The split ", "LEAK", *(f"{side}:" for side in SPLITS))


def folds(
    cohort: Cohort, rule: str | int, *, group: str | None = None, seed: int = 0
) -> list[Cohort]:
    """Make the folds of a cross-validation.

    Parameters
    ----------
    cohort
        All of its images take part, on whichever side of its split they were loaded.
    rule
        "paper" for `paper_folds`, or the number of folds of patients.
    group : {"patient", "none"}, optional
        "none" takes each image for a patient of its own, which the paper's rule does in any case.
        The default is "patient", but "none" for the paper's rule.
    seed
        Of the shuffle.

    Raises
    ------
    ValueError
        If the rule does not fit the cohort: the reason, and what to ask for instead.
    """
    if rule == "paper":
        if group == "patient":
            raise ValueError(
                "The paper's folds are of single images (group='none'); "
                "for folds of patients give their number instead of 'paper'."
            )
        return paper_folds(cohort, seed=seed)
    if isinstance(rule, str):
        raise ValueError(f"Folds are 'paper' or a number of folds. Got {rule!r} instead.")
    if group not in {None, "patient", "none"}:
        raise ValueError(f"The 'group' must be 'patient' or 'none'. Got {group!r} instead.")
    if group == "none":
        cohort = replace(cohort, patient=cohort.path, patients_known=False)
    return patient_folds(cohort, rule, seed=seed)


def paper_folds(cohort: Cohort, *, seed: int = 0) -> list[Cohort]:
    """Table 3: each fold tests as many majority images as there are minority images.

    The minority images are the same in each fold; the majority images are shuffled and taken in
    turn, and the others train. There are k = round(majority / minority) folds. Where k times the
    minority exceeds the majority, the last fold takes some images again; where it falls short,
    some are never tested.

    =======  ========  ========  =====  ========  ======  ============  ============
    data     majority  minority  folds  training  tested  tested twice  never tested
    =======  ========  ========  =====  ========  ======  ============  ============
    MRI      1946      926       2      1020      926     0             94
    FFDM     252       52        5      200       52      8             0
    ChestX   1575      390       4      1185      390     0             15
    =======  ========  ========  =====  ========  ======  ============  ============

    Raises
    ------
    ValueError
        If there are fewer than two majority images for each minority one.
    """
    majority, minority = cohort.rows(minority=False), cohort.rows(minority=True)
    if not len(minority):
        raise ValueError(f"Cohort '{cohort.name}' has no minority images to test on.")
    if len(majority) < 2 * len(minority):
        raise ValueError(
            f"The paper's folds need at least twice as many majority as minority images; cohort "
            f"'{cohort.name}' has {len(majority)} and {len(minority)}. "
            "Ask for a number of folds (of patients, where they are known) instead."
        )
    k = int(len(majority) / len(minority) + 0.5)
    shuffled = np.random.default_rng(seed).permutation(majority)
    endless = np.resize(shuffled, k * len(minority))  # from the start again, where it runs out
    made = []
    for i, tested in enumerate(endless.reshape(k, len(minority))):
        split = np.full(len(cohort), "train", dtype="U6")
        split[tested] = split[minority] = "test"
        made.append(_fold(cohort, split, i, k, "as many majority as minority images, by image"))
    return made


def patient_folds(cohort: Cohort, k: int, *, seed: int = 0) -> list[Cohort]:
    """Divide patients into k folds; each tests all images of its patients, of both classes.

    The majority images of the other patients train; their minority images are unused.
    Patients who share an image stay together, and the classes are spread over the
    folds as evenly as patients allow (`OneClassKFold`).

    Raises
    ------
    ValueError
        If there are not enough patients, or a fold would be left with one class.
    """
    if k < 2:
        raise ValueError(f"Cross-validation needs at least 2 folds. Got {k}.")
    content = cohort.content
    group = patient_groups(cohort.patient, content, cohort.without_contrast())
    for name, minority in (("majority", False), ("minority", True)):
        patients = len(np.unique(group[cohort.rows(minority=minority)]))
        if patients < k:
            raise ValueError(
                f"Cohort '{cohort.name}' has {count(patients, cohort.unit)} of the {name}, "
                f"too few for {k} folds. Ask for at most {patients}."
            )
    # The order in which images lie, which hangs on the split, must not change the folds.
    order = np.lexsort((cohort.path, group))
    y = np.where(cohort.minority, -1, 1)
    made = []
    pieces = OneClassKFold(k, random_state=seed).split(order, y[order], group[order])
    for i, (_, tested) in enumerate(pieces):
        rows = order[tested]
        split = np.where(cohort.minority, "unused", "train")
        split[rows] = "test"
        split = without_copies(split, content)
        if len(found := np.unique(cohort.minority[split == "test"])) < 2:
            one = "no" if not len(found) else "only minority" if found[0] else "only majority"
            raise ValueError(
                f"Fold {i + 1} of {k} would test {one} images: the others are identical to "
                "training images. Remove copies, or ask for fewer folds."
            )
        made.append(_fold(cohort, split, i, k, f"by {cohort.unit}"))
    return made


def _fold(cohort: Cohort, split: np.ndarray, i: int, k: int, rule: str) -> Cohort:
    """Give the cohort another split, and say what it is; a leak that it has is said too."""
    fold = replace(cohort, split=split, name=f"{cohort.name} fold {i + 1} of {k}")
    note = f"Fold {i + 1} of {k}: {rule}."
    kept = (one for one in cohort.notes if not one.startswith(OF_SPLIT))
    return replace(fold, notes=(*kept, note, *fold.leaks().sentences()))
