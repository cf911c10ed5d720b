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


def patient_groups(patient: Sequence[str] | Strings, digest: Sequence[str] | Strings) -> Strings:
    """Name the group of each image: patients who share a byte-identical image are one.

    Parameters
    ----------
    patient, digest : array-like of str, shape (n,)

    Returns
    -------
    ndarray of str, shape (n,)
        Each group is named by its alphabetically first patient, so that names depend neither
        on the order of the images nor on anybody outside the group.

    >>> patient_groups(["b", "b", "a", "c"], ["1", "2", "2", "3"]).tolist()
    ['a', 'a', 'a', 'c']
    """
    names, person = np.unique(np.asarray(patient, dtype=np.str_), return_inverse=True)
    digests, image = np.unique(np.asarray(digest, dtype=np.str_), return_inverse=True)
    # Patients and digests are the nodes of a graph; each image joins its two.
    nodes = names.size + digests.size
    links = coo_array((np.ones(person.size), (person, names.size + image)), shape=(nodes, nodes))
    component = connected_components(links, directed=False)[1][: names.size]
    first, group = np.unique(component, return_index=True, return_inverse=True)[1:]
    return names[first[group]][person]


def split_by_patient(
    patient: Sequence[str] | Strings,
    minority: Sequence[bool] | Bools,
    digest: Sequence[str] | Strings,
    *,
    seed: int,
    test_size: float = 0.4,
) -> Strings:
    """Split a cohort into "train", "test" and "unused" so that no patient is on both sides.

    The rule, whole:

    1. Patients who share a byte-identical image are one group (`patient_groups`).
    2. The groups that hold majority images are put in the order of the SHA-256 of
       ``"seed:name"``: a shuffle that depends neither on the order of the images nor on a
       library's generator, and in which a group added later does not reshuffle the others.
    3. Groups are taken into training in that order until it holds at least ``1 - test_size`` of
       the majority images; but one group, if there are two, is left for the test.
    4. Majority images of these groups are "train", their minority images "unused".
       Every other image is "test"; so are all groups without majority images.

    Parameters
    ----------
    patient, digest : array-like of str, shape (n,)
    minority : array-like of bool, shape (n,)
    seed : int
    test_size : float in (0, 1)

    Returns
    -------
    ndarray of str, shape (n,)

    >>> split_by_patient(["a", "a", "b"], [False, True, False], ["1", "2", "3"], seed=2).tolist()
    ['train', 'unused', 'test']
    """
    if not 0 < test_size < 1:
        raise ValueError(
            f"The 'test_size' parameter must be in the range (0, 1). Got {test_size!r} instead."
        )
    group = patient_groups(patient, digest)
    majority = ~np.asarray(minority, dtype=bool)
    names, images = _shuffled(group[majority], seed)
    reached = np.cumsum(images)
    wanted = (1 - test_size) * majority.sum()
    enough = int(np.searchsorted(reached, wanted - ROUNDING)) + 1
    training = names[: max(1, min(enough, len(names) - 1))]
    in_training = np.isin(group, training)
    split = np.where(in_training, "train", "test")
    return np.where(in_training & ~majority, "unused", split).astype(np.str_)


def kept_for_calibration(
    split: Sequence[str] | Strings,
    patient: Sequence[str] | Strings,
    digest: Sequence[str] | Strings,
    *,
    seed: int,
    share: float,
) -> Strings:
    """Move whole training patients of a split to the side "calibration".

    Groups and their order are those of `split_by_patient`. The last of the groups that train,
    at least a `share` of them and at least one, calibrate instead; one is left to train.
    The share is of patients, not of images, because a threshold's promise counts patients.

    Parameters
    ----------
    split, patient, digest : array-like of str, shape (n,)
    seed : int
    share : float in (0, 1)

    Returns
    -------
    ndarray of str, shape (n,)

    Raises
    ------
    ValueError
        If `share` is outside its range, or fewer than two groups train.

    >>> split = ["train", "train", "train", "unused", "test"]
    >>> kept_for_calibration(split, list("aabbc"), list("12345"), seed=0, share=0.2).tolist()
    ['train', 'train', 'calibration', 'unused', 'test']
    """
    if not 0 < share < 1:
        raise ValueError(
            "The share of training patients to calibrate on must be in the range (0, 1). "
            f"Got {share!r} instead."
        )
    split = np.asarray(split, dtype=np.str_)
    group = patient_groups(patient, digest)
    names, _ = _shuffled(group[split == "train"], seed)
    if len(names) < 2:
        raise ValueError(
            "To keep training patients for calibration there must be at least two of them. "
            f"Got {len(names)}."
        )
    number = min(math.ceil(share * len(names) - ROUNDING), len(names) - 1)
    calibrating = (split == "train") & np.isin(group, names[-number:])
    return np.where(calibrating, "calibration", split).astype(np.str_)


# 0.6 * 10 is 6.000…1 in floating point, and must not ask for a seventh.
ROUNDING = 1e-9


def _shuffled(group: Strings, seed: int) -> tuple[Strings, npt.NDArray[np.intp]]:
    """Put groups in the order of their lots; with how many images each has."""
    names, images = np.unique(group, return_counts=True)
    order = sorted(range(len(names)), key=lambda i: _lot(seed, str(names[i])))
    return names[order], images[order]


def _lot(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "backslashreplace")).digest()
