"""The paper's folds, to the image; and no leak in any fold of any cohort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conocc import Cohort, load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.data.splits import joining_nobody
from conocc.experiments.cross_validation import folds, paper_folds, patient_folds


def cohort_of(minority, *, patient=None, digest=None, split=None) -> Cohort:
    minority = np.asarray(minority, dtype=bool)
    n = len(minority)
    names = np.array([f"{i:04d}.png" for i in range(n)])
    return Cohort(
        name="made",
        images=np.tile(np.float32([0, 1]), (n, 1, 1, 1)),
        minority=minority,
        patient=names if patient is None else np.array(patient, dtype=np.str_),
        split=np.full(n, "test") if split is None else np.asarray(split),
        path=names,
        digest=names if digest is None else np.array(digest, dtype=np.str_),
        label=np.where(minority, "b", "a"),
        preprocessing=Preprocessing(size=None),
        patients_known=patient is not None,
        notes=(),
    )


def classes(majority: int, minority: int) -> np.ndarray:
    return np.repeat([False, True], [majority, minority])


@pytest.mark.parametrize(
    ("majority", "minority", "k", "training", "twice", "never"),
    [(1946, 926, 2, 1020, 0, 94), (252, 52, 5, 200, 8, 0), (1575, 390, 4, 1185, 0, 15)],
    ids=["MRI", "FFDM", "ChestX"],
)
def test_the_papers_folds_have_the_papers_counts(majority, minority, k, training, twice, never):
    """Table 1 and section 3, to the image."""
    cohort = cohort_of(classes(majority, minority))
    made = paper_folds(cohort)
    assert len(made) == k
    times = np.zeros(majority + minority, int)
    for fold in made:
        assert len(fold.where(split="train")) == training
        assert len(fold.where(split="test", minority=False)) == minority
        assert len(fold.where(split="test", minority=True)) == minority
        times[fold.rows(split="test")] += 1
    assert (times[majority:] == k).all()
    assert ((times[:majority] == 2).sum(), (times[:majority] == 0).sum()) == (twice, never)


def test_the_papers_folds_are_refused_where_the_majority_is_no_majority():
    with pytest.raises(ValueError, match="at least twice as many .* has 19 and 10"):
        paper_folds(cohort_of(classes(19, 10)))
    with pytest.raises(ValueError, match="no minority images"):
        paper_folds(cohort_of(classes(19, 0)))


def test_the_papers_folds_of_known_patients_say_that_they_leak():
    """Two images a patient: some patient is on both sides of some fold, and a note says so."""
    patient = [f"p{i // 2}" for i in range(30)]
    notes = [
        note
        for f in folds(cohort_of(classes(20, 10), patient=patient), "paper")
        for note in f.notes
    ]
    assert any("LEAK" in note and "patient" in note for note in notes)


def test_another_seed_shuffles_otherwise_and_the_same_seed_alike():
    cohort = cohort_of(classes(40, 10))
    tested = [
        [f.rows(split="test").tolist() for f in paper_folds(cohort, seed=s)] for s in (0, 0, 1)
    ]
    assert tested[0] == tested[1] != tested[2]


@st.composite
def cohorts(draw):
    """Cohorts of a few patients with images of either class, some byte-identical."""
    n = draw(st.integers(8, 60))
    flags = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    patient = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    digest = draw(st.lists(st.integers(0, 200), min_size=n, max_size=n))
    return cohort_of(flags, patient=[f"p{p}" for p in patient], digest=[f"d{d}" for d in digest])


@settings(max_examples=150, deadline=None)
@given(cohort=cohorts(), k=st.integers(2, 5), seed=st.integers(0, 3))
def test_no_fold_of_patients_leaks(cohort, k, seed):
    """No patient and no image on both sides, no minority trained on, and every image tested once.

    But for what many share.
    """
    try:
        made = patient_folds(cohort, k, seed=seed)
    except ValueError as error:
        assert "fold" in str(error)  # noqa: PT017  (refused with a reason, which is all right)
        return
    tested = np.concatenate([fold.rows(split="test") for fold in made])
    never = np.setdiff1d(np.arange(len(cohort)), tested, assume_unique=True)
    assert len(set(tested.tolist())) == len(tested)
    assert joining_nobody(cohort.patient, cohort.digest)[never].all()
    for fold in made:
        assert not fold.leaks()
        train, test = fold.where(split="train"), fold.where(split="test")
        assert not train.minority.any()
        assert not set(train.patient) & set(test.patient)
        assert not set(train.digest) & set(test.digest)
        assert set(test.minority.tolist()) == {False, True}


@settings(max_examples=50, deadline=None)
@given(flags=st.lists(st.booleans(), min_size=6, max_size=80), seed=st.integers(0, 3))
def test_no_fold_of_the_paper_trains_on_what_it_tests(flags, seed):
    cohort = cohort_of(flags)
    try:
        made = folds(cohort, "paper", seed=seed)
    except ValueError:
        assert sum(flags) == 0 or len(flags) - sum(flags) < 2 * sum(flags)
        return
    for fold in made:
        assert set(fold.split.tolist()) <= {"train", "test"}
        assert not fold.minority[fold.split == "train"].any()


def test_folds_do_not_hang_on_the_split_that_the_cohort_was_loaded_with():
    """A cohort's rows lie by split; the folds are of patients, wherever their images lie."""
    flags, patient = classes(20, 20), [f"p{i % 10}" for i in range(40)]
    cohort = cohort_of(flags, patient=patient)
    turned = cohort.take(np.arange(40)[::-1])
    for a, b in zip(folds(cohort, 3), folds(turned, 3), strict=True):
        assert set(a.where(split="test").path) == set(b.where(split="test").path)


def test_folds_of_single_images_may_be_asked_for():
    cohort = cohort_of(classes(10, 10), patient=["one"] * 20)
    assert len(folds(cohort, 5, group="none")) == 5


@pytest.mark.parametrize(
    ("rule", "group", "said"),
    [
        ("paper", "patient", "single images"),
        ("papers", None, "'paper' or a number of folds. Got 'papers'"),
        (1, None, "at least 2 folds. Got 1"),
        (21, None, "10 images of the minority, too few for 21 folds"),
        (2, "patients", "'patient' or 'none'. Got 'patients'"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule, group, said):
    with pytest.raises(ValueError, match=said):
        folds(cohort_of(classes(30, 10)), rule, group=group)


def test_a_fold_with_one_class_is_refused(monkeypatch):
    """Should patients fall so that a fold tests one class, it has no AUC."""

    class Unlucky:
        def __init__(self, *args, **kwargs):
            pass

        def split(self, X, y, groups):
            yield np.flatnonzero(y), np.flatnonzero(~y)

    monkeypatch.setattr("conocc.experiments.model_selection.StratifiedGroupKFold", Unlucky)
    with pytest.raises(ValueError, match="Fold 1 of 2 would test majority images only"):
        patient_folds(cohort_of(classes(10, 10)), 2)


def test_a_fold_whose_images_are_all_trained_on_is_refused():
    """As where one image is in so many patients that it joins nobody."""
    patient = [f"p{i}" for i in range(20)]
    cohort = cohort_of(classes(10, 10), patient=patient, digest=["same"] * 20)
    with pytest.raises(ValueError, match="Fold 1 of 2 would test no images: the others"):
        patient_folds(cohort, 2)


def test_the_real_mri_patches_can_be_folded_by_patient_alone(data):
    """109 of 110 patients hold both classes, 1313 of one and 1262 of the other."""
    from conocc import load_cohort

    cohort = load_cohort(data / "lgg-mri-patches", majority="tumour")
    with pytest.raises(ValueError, match="has 1313 and 1262"):
        folds(cohort, "paper")
    for fold in folds(cohort, 5):
        assert not fold.leaks()
        assert len(np.unique(fold.where(split="test").patient)) >= 15


def test_a_fold_tells_its_own_split_alone():
    """What a phantom's notes say of the split that it was loaded with, a fold does not use."""
    cohort = load_cohort("phantom-ffdm", Preprocessing(size=16))
    assert any(note.startswith("The split is the cohort's own") for note in cohort.notes)
    fold = folds(cohort, 2)[0]
    assert not any(note.startswith(("The split", "train:", "test:")) for note in fold.notes)
    assert "Fold 1 of 2: by image." in fold.notes
    assert fold.notes[0] == cohort.notes[0]
