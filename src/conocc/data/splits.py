"""Who may train on what: groups of patients that belong together, and the split by group."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Strings = npt.NDArray[np.str_]
Bools = npt.NDArray[np.bool_]
Names = Sequence[str] | Strings
Flags = Sequence[bool] | Bools


# An image that so many share is more likely an empty slice, a test pattern or a placeholder.
MOST_SHARING = 3


def patient_groups(patient: Names, digest: Names, blank: Flags | None = None) -> Strings:
    """Name the group of each image: patients who share an identical image are one.

    An image without contrast, or that more than `MOST_SHARING` patients have, joins nobody.

    Parameters
    ----------
    patient, digest : array-like of str, shape (n,)
    blank : array-like of bool, shape (n,), optional
        Whether an image has no contrast.

    Returns
    -------
    ndarray of str, shape (n,)
        Each group is named by its alphabetically first patient, so that names depend neither
        on the order of the images nor on anybody outside the group.

    >>> patient_groups(["b", "b", "a", "c"], ["1", "2", "2", "3"]).tolist()
    ['a', 'a', 'a', 'c']
    """
    names, person = np.unique(np.asarray(patient, dtype=np.str_), return_inverse=True)
    image = np.unique(np.asarray(digest, dtype=np.str_), return_inverse=True)[1]
    joins = ~joining_nobody(patient, digest, blank)
    # Patients and digests are the nodes of a graph; each image joins its two.
    nodes = names.size + image.size
    ends = person[joins], names.size + image[joins]
    links = coo_array((np.ones(joins.sum()), ends), shape=(nodes, nodes))
    component = connected_components(links, directed=False)[1][: names.size]
    first, group = np.unique(component, return_index=True, return_inverse=True)[1:]
    return names[first[group]][person]


def joining_nobody(patient: Names, digest: Names, blank: Flags | None = None) -> Bools:
    """Tell which images several patients have without being one, see `patient_groups`; -> (n,).

    >>> joining_nobody(list("abcdea"), ["1", "1", "1", "1", "2", "3"]).tolist()
    [True, True, True, True, False, False]
    """
    person, image = (np.unique(np.asarray(x), return_inverse=True)[1] for x in (patient, digest))
    pairs = np.unique(np.stack([person, image]), axis=1)
    sharing = np.bincount(pairs[1])[image]
    flat = False if blank is None else np.asarray(blank, dtype=bool)
    return (sharing > MOST_SHARING) | ((sharing > 1) & flat)


def without_copies(split: Strings, digest: Strings, side: str = "test") -> Strings:
    """Put aside, as "unused", images on one side that are identical to one that trains."""
    copies = (split == side) & np.isin(digest, digest[split == "train"])
    return np.where(copies, "unused", split).astype(np.str_)


def split_by_patient(
    patient: Names,
    minority: Flags,
    digest: Names,
    *,
    seed: int,
    test_size: float = 0.4,
    blank: Flags | None = None,
) -> Strings:
    """Split a cohort into "train", "test" and "unused" so that no patient is on both sides.

    The rule, whole:

    1. Patients who share an identical image are one group (`patient_groups`).
    2. The groups that hold majority images are put in the order of the SHA-256 of
       ``"seed:name"``: a shuffle that depends neither on the order of the images nor on a
       library's generator, and in which a group added later does not reshuffle the others.
    3. Groups are taken into training in that order until it holds at least ``1 - test_size`` of
       the majority images; but one group is left for the test.
    4. Majority images of these groups are "train", their minority images "unused".
       Every other image is "test"; so are all groups without majority images.
    5. A test image that is identical to one that trains, of a group that it does not join, is
       "unused".

    With a `test_size` of 0 all majority images train, and with 1 all images are "test".

    Parameters
    ----------
    patient, digest : array-like of str, shape (n,)
    minority : array-like of bool, shape (n,)
    seed : int
    test_size : float in [0, 1]
    blank : array-like of bool, shape (n,), optional
        See `patient_groups`.

    Returns
    -------
    ndarray of str, shape (n,)

    Raises
    ------
    ValueError
        If `test_size` is outside its range, or no majority image is left for the test.

    >>> split_by_patient(["a", "a", "b"], [False, True, False], ["1", "2", "3"], seed=2).tolist()
    ['train', 'unused', 'test']
    """
    if not 0 <= test_size <= 1:
        raise ValueError(f"The 'test_size' parameter must be in [0, 1]. Got {test_size!r}.")
    group = patient_groups(patient, digest, blank)
    majority = ~np.asarray(minority, dtype=bool)
    names, images = _shuffled(group[majority], seed)
    reached = np.cumsum(images)
    wanted = (1 - test_size) * majority.sum()
    enough = int(np.searchsorted(reached, wanted - ROUNDING)) + 1 if test_size < 1 else 0
    training = names[: max(test_size < 1, min(enough, len(names) - (test_size > 0)))]
    in_training = np.isin(group, training)
    split = np.where(in_training, np.where(majority, "train", "unused"), "test")
    split = without_copies(split, np.asarray(digest, dtype=np.str_))
    if 0 < test_size < 1 and majority.any() and not (majority & (split == "test")).any():
        alone = len(np.unique(np.asarray(patient)[majority])) == 1
        whose = "of one patient" if alone else "identical, or of patients who share identical ones"
        n = int(majority.sum())
        raise ValueError(
            f"A split leaves no majority image for the test: "
            f"{f'all {n} are' if n > 1 else 'there is one,'} {whose}. Say who the patients are "
            "(--patient-regex, or a table), give the images a split of their own, or train on all "
            "of them (test_size=0, --test-size 0)."
        )
    return split


def kept_for_calibration(
    split: Names,
    patient: Names,
    digest: Names,
    *,
    seed: int,
    share: float | str,
    blank: Flags | None = None,
) -> Strings:
    """Move whole training patients of a split to the side "calibration".

    Groups and their order are those of `split_by_patient`. The last of the groups that train,
    at least a `share` of them and at least one, calibrate instead; one is left to train.
    The share is of patients, not of images, because a threshold's promise counts patients.
    An image of theirs that is identical to one that trains is "unused".

    Parameters
    ----------
    split, patient, digest : array-like of str, shape (n,)
    seed : int
    share : float in (0, 1), or "auto"
        "auto" is `USUAL_SHARE`, but none where that is fewer than `FEWEST_PATIENTS`.
    blank : array-like of bool, shape (n,), optional
        See `patient_groups`.

    Returns
    -------
    ndarray of str, shape (n,)

    Raises
    ------
    ValueError
        If `share` is outside its range, fewer than two groups train, or nothing but copies of
        training images would calibrate.

    >>> split = ["train", "train", "train", "unused", "test"]
    >>> kept_for_calibration(split, list("aabbc"), list("12345"), seed=0, share=0.2).tolist()
    ['train', 'train', 'calibration', 'unused', 'test']
    """
    wanted = USUAL_SHARE if share == "auto" else share
    if isinstance(wanted, str) or not 0 < wanted < 1:
        raise ValueError(
            f"The share of the training split to calibrate on must be in (0, 1). Got {share!r}."
        )
    split = np.asarray(split, dtype=np.str_)
    group = patient_groups(patient, digest, blank)
    names, _ = _shuffled(group[split == "train"], seed)
    number = math.ceil(wanted * len(names) - ROUNDING)
    if share == "auto" and number < FEWEST_PATIENTS:
        return split
    if len(names) < 2:
        raise ValueError(
            "To keep some of the training split for calibration, two patients, or images of "
            f"patients who are not known, are needed. Got {len(names)}."
        )
    calibrating = (split == "train") & np.isin(group, names[-min(number, len(names) - 1) :])
    split = np.where(calibrating, "calibration", split)
    split = without_copies(split, np.asarray(digest, dtype=np.str_), "calibration")
    if "calibration" not in split:
        raise ValueError("All images kept for calibration are copies of images that train.")
    return split


# Of the training patients, where nobody asks for a share. Fewer than so many patients promise not
# even 20 % false alarms with 95 % certainty (`conocc.thresholds.conformal.needed`).
USUAL_SHARE, FEWEST_PATIENTS = 0.2, 14

# 0.6 * 10 is 6.000…1 in floating point, and must not ask for a seventh.
ROUNDING = 1e-9


def _shuffled(group: Strings, seed: int) -> tuple[Strings, npt.NDArray[np.intp]]:
    """Put groups in the order of their lots; with how many images each has."""
    names, images = np.unique(group, return_counts=True)
    drawn = [f"{seed}:{name}".encode("utf-8", "backslashreplace") for name in names]
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(drawn[i]).digest())
    return names[order], images[order]
