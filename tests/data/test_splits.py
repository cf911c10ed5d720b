"""Groups of patients, and the split by group: properties over random cohorts."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from conocc.data.splits import (
    joining_nobody,
    kept_for_calibration,
    patient_groups,
    split_by_patient,
)

images = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.booleans(), st.sampled_from("0123456789xyz")),
    min_size=1,
    max_size=30,
)
seeds = st.integers(0, 2**32)


def columns(rows):
    patient, minority, digest = zip(*rows, strict=True)
    return np.array(patient), np.array(minority), np.array(digest)


def reachable(rows):
    """Each image's group by brute force: widen a set until nothing more is linked to it."""
    having = {digest: {p for p, _, d in rows if d == digest} for _, _, digest in rows}
    worthless = {digest for digest, who in having.items() if len(who) > 3}
    groups = []
    for row in rows:
        group = {row[0]}
        for _ in rows:
            digests = {digest for patient, _, digest in rows if patient in group} - worthless
            group |= {patient for patient, _, digest in rows if digest in digests}
        groups.append(min(group))
    return groups


@given(images)
def test_groups_are_what_can_be_reached(rows):
    """Union-find against brute force."""
    patient, _, digest = columns(rows)
    assert patient_groups(patient, digest).tolist() == reachable(rows)


def test_a_patient_named_like_a_digest_is_not_that_image():
    assert patient_groups(["a", "b"], ["b", "c"]).tolist() == ["a", "b"]


def split_of(rows, seed, **options):
    """The split of these images, if a test is left of them."""
    patient, minority, digest = columns(rows)
    try:
        return split_by_patient(patient, minority, digest, seed=seed, **options)
    except ValueError as error:
        groups = set(patient_groups(patient, digest)[~minority])
        copies = joining_nobody(patient, digest)[~minority]
        if len(groups) > 1 and not copies.any():
            raise error
        reject()


@given(images, seeds)
def test_no_group_is_on_both_sides(rows, seed):
    """Neither a patient nor a byte-identical image is in training and in the test."""
    patient, _, digest = columns(rows)
    split = split_of(rows, seed)
    for column in (patient, digest):
        assert not set(column[split == "train"]) & set(column[split == "test"])


@given(images, seeds)
def test_all_images_are_accounted_for_and_no_minority_image_trains(rows, seed):
    """Unused are the minority images of groups that train, and copies of images that train."""
    patient, minority, digest = columns(rows)
    split = split_of(rows, seed)
    assert set(split) <= {"train", "test", "unused"}
    assert not minority[split == "train"].any()
    group = patient_groups(patient, digest)
    trains = np.isin(group, group[split == "train"])
    copies = ~trains & np.isin(digest, digest[split == "train"])
    assert ((split == "unused") == ((trains & minority) | copies)).all()


@given(images, seeds, st.randoms())
def test_the_order_of_the_images_does_not_matter(rows, seed, random):
    """The same images in another order fall on the same sides."""
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    split = split_of(rows, seed)
    again = split_by_patient(*columns([rows[i] for i in shuffled]), seed=seed)
    assert again.tolist() == split[shuffled].tolist()


@given(images, seeds, st.floats(0.05, 0.95))
def test_training_holds_its_share_and_not_a_group_more(rows, seed, test_size):
    """Without the last group taken, the share would not be reached; one group stays to test."""
    patient, minority, digest = columns(rows)
    split = split_of(rows, seed, test_size=test_size)
    group = patient_groups(patient, digest)
    names = set(group[~minority])
    trained = set(group[split == "train"])
    wanted = (1 - test_size) * (~minority).sum()
    got = (split == "train").sum()
    if len(trained) < len(names) - 1:
        assert got >= wanted - 1e-6
    if len(trained) > 1:
        assert any(got - (~minority & (group == name)).sum() < wanted for name in trained)
    assert len(names - trained) >= (len(names) > 1)
    assert not names or trained


def test_sixty_to_forty_exactly_where_every_image_is_a_patient():
    """0.6 of 10 images are 6, whatever 1 - 0.4 is in binary; 0.6 of 11 are 7, the next whole."""
    for n, expected in ((10, 6), (11, 7), (1341, 805)):
        names = [f"{i}.png" for i in range(n)]
        split = split_by_patient(names, [False] * n, names, seed=0)
        assert (split == "train").sum() == expected


def test_seeds_give_different_splits():
    names = [str(i) for i in range(40)]
    first, second = (split_by_patient(names, [False] * 40, names, seed=seed) for seed in (0, 1))
    assert (first != second).any()


def test_the_split_of_a_seed_never_changes():
    """It depends on SHA-256 alone, on no library's generator."""
    order = sorted("abcde", key=lambda name: hashlib.sha256(f"0:{name}".encode()).digest())
    split = split_by_patient(list("abcde"), [False] * 5, list("12345"), seed=0)
    assert {name for name, side in zip("abcde", split, strict=True) if side == "train"} == set(
        order[:3]
    )


def test_a_group_without_majority_images_is_tested():
    split = split_by_patient(["a", "b", "c"], [False, False, True], ["1", "2", "3"], seed=0)
    assert split[2] == "test"


def test_no_test_is_refused_unless_none_was_wanted():
    """One patient alone, or all of them one by their images."""
    one = (["a", "a"], [False, True], ["1", "2"])
    with pytest.raises(ValueError, match=r"for the test: there is one, of one patient\. Say who"):
        split_by_patient(*one, seed=0)
    joined = (list("abc"), [False] * 3, list("111"))
    with pytest.raises(ValueError, match="all 3 are identical, or of patients who share"):
        split_by_patient(*joined, seed=0)
    assert split_by_patient(*one, seed=0, test_size=0).tolist() == ["train", "unused"]


@given(images, seeds)
def test_all_or_nothing_may_train(rows, seed):
    patient, minority, digest = columns(rows)
    everything = split_by_patient(patient, minority, digest, seed=seed, test_size=0)
    assert (everything[~minority] == "train").all()
    nothing = split_by_patient(patient, minority, digest, seed=seed, test_size=1)
    assert (nothing == "test").all()


def test_what_many_share_joins_nobody_and_is_tested_on_one_side_only():
    """An empty slice that 30 patients have; and one of two patients, if it has no contrast."""
    patient = [f"p{i:02}" for i in range(30)] * 2
    digest = ["black"] * 30 + [f"own{i}" for i in range(30)]
    assert patient_groups(patient, digest).tolist() == patient
    assert joining_nobody(patient, digest).tolist() == [True] * 30 + [False] * 30
    split = split_by_patient(patient, [False] * 60, digest, seed=0)
    assert (split[30:] == "train").sum() == 18
    assert (split[30:] == "test").sum() == 12
    assert set(split[:30]) == {"train", "unused"}
    kept = kept_for_calibration(split, patient, digest, seed=0, share=0.5)
    assert set(kept[:30]) == {"train", "unused"}
    assert set(kept[30:]) == {"train", "calibration", "test"}
    with pytest.raises(ValueError, match="calibration are copies of images that train"):
        kept_for_calibration(["train"] * 4, list("abcd"), ["black"] * 4, seed=0, share=0.5)
    two = (["a", "b"], ["1", "1"])
    assert patient_groups(*two).tolist() == ["a", "a"]
    assert patient_groups(*two, blank=[True, True]).tolist() == ["a", "b"]


@pytest.mark.parametrize("test_size", [-0.1, 1.1, float("nan")])
def test_a_share_outside_its_range_is_refused(test_size):
    with pytest.raises(ValueError, match=r"'test_size' parameter must be in \[0, 1\]"):
        split_by_patient(["a"], [False], ["1"], seed=0, test_size=test_size)


# --- calibration -------------------------------------------------------------------------------

shares = st.floats(0.05, 0.95)


def training_groups(rows, seed):
    patient, _, digest = columns(rows)
    split = split_of(rows, seed)
    return split, len(set(patient_groups(patient, digest)[split == "train"]))


@given(images, seeds, shares)
def test_whole_patients_calibrate_and_nothing_but_training_images_moves(rows, seed, share):
    """No patient or identical image trains and calibrates; other sides stay as they were."""
    patient, _, digest = columns(rows)
    before, groups = training_groups(rows, seed)
    if groups < 2:
        with pytest.raises(
            ValueError, match=f"images of patients who are not known, are needed. Got {groups}"
        ):
            kept_for_calibration(before, patient, digest, seed=seed, share=share)
        return
    try:
        after = kept_for_calibration(before, patient, digest, seed=seed, share=share)
    except ValueError:
        assert joining_nobody(patient, digest).any()
        return
    for column in (patient, digest):
        assert not set(column[after == "train"]) & set(column[after == "calibration"])
    moved = np.isin(after, ["train", "calibration"]) != (before == "train")
    assert (after[moved] == "unused").all()
    assert np.isin(digest[moved], digest[after == "train"]).all()
    assert (after[before != "train"] == before[before != "train"]).all()


@given(images, seeds, shares)
def test_calibration_has_its_share_of_the_patients_and_not_one_more(rows, seed, share):
    """The next whole number; but one group trains."""
    patient, _, digest = columns(rows)
    before, groups = training_groups(rows, seed)
    if groups < 2 or joining_nobody(patient, digest).any():
        return
    after = kept_for_calibration(before, patient, digest, seed=seed, share=share)
    kept = len(set(patient_groups(patient, digest)[after == "calibration"]))
    assert kept == groups - 1 or share * groups - 1e-6 <= kept < share * groups + 1
    assert 1 <= kept < groups


def test_a_fifth_of_ten_patients_are_two_whatever_a_fifth_is_in_binary():
    """0.2 * 10 and 0.3 * 10 images, of which the latter is 3.0000…"""
    names = list("abcdefghij")
    for share, expected in ((0.2, 2), (0.3, 3), (0.25, 3)):
        split = kept_for_calibration(["train"] * 10, names, names, seed=0, share=share)
        assert (split == "calibration").sum() == expected


def test_calibration_is_cut_from_the_end_of_the_same_shuffle():
    """It depends on SHA-256 alone; who calibrates would have been the last to train."""
    order = sorted("abcde", key=lambda name: hashlib.sha256(f"3:{name}".encode()).digest())
    split = kept_for_calibration(["train"] * 5, list("abcde"), list("12345"), seed=3, share=0.4)
    assert {n for n, side in zip("abcde", split, strict=True) if side == "calibration"} == set(
        order[3:]
    )


def test_a_usual_share_is_kept_where_it_can_promise_something():
    """A fifth of 70 patients are 14; of 65, 13, too few for a promise."""
    for patients, kept in ((70, 14), (65, 0)):
        names = [str(i) for i in range(patients)]
        split = kept_for_calibration(["train"] * patients, names, names, seed=0, share="auto")
        assert (split == "calibration").sum() == kept


def test_nothing_but_copies_of_training_images_is_no_calibration():
    """An image of twenty patients joins none of them, and is all that the last one has."""
    patient = [str(i) for i in range(20)]
    with pytest.raises(ValueError, match=r"^All images kept for calibration are copies of images"):
        kept_for_calibration(["train"] * 20, patient, ["same"] * 20, seed=0, share=0.1)


def test_images_without_contrast_join_no_patients_for_calibration():
    """Two patients who share a blank image are two, and half of two is one."""
    given = ["train"] * 4, list("aabb"), ["1", "blank", "2", "blank"]
    blank = [False, True, False, True]
    split = kept_for_calibration(*given, seed=0, share=0.5, blank=blank)
    assert sorted(split.tolist()) == ["calibration", "train", "train", "unused"]
    with pytest.raises(ValueError, match="images of patients who are not known, are needed. Got 1"):
        kept_for_calibration(*given, seed=0, share=0.5)


def test_images_without_contrast_join_no_patients_for_the_test():
    """Of two patients who share a blank image one trains; else they are one, and none is left."""
    given = list("aabb"), [False] * 4, ["1", "blank", "2", "blank"]
    split = split_by_patient(*given, seed=0, test_size=0.5, blank=[False, True, False, True])
    assert sorted(split.tolist()) == ["test", "train", "train", "unused"]
    with pytest.raises(ValueError, match="no majority image for the test"):
        split_by_patient(*given, seed=0, test_size=0.5)
    own = joining_nobody(["a", "b"], ["1", "2"], blank=[True, False])
    assert not own.any()


def test_a_name_that_is_no_text_has_its_lot_too():
    """As the file system gives it; and what is not ASCII is hashed as UTF-8."""
    split = split_by_patient(["\udcff", "é"], [False] * 2, ["1", "2"], seed=0, test_size=0.5)
    assert sorted(split.tolist()) == ["test", "train"]


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), "AUTO"])
def test_a_share_to_calibrate_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"calibrate on must be in \(0, 1\)"):
        kept_for_calibration(["train"] * 2, ["a", "b"], ["1", "2"], seed=0, share=share)
