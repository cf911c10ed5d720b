"""What is given to a detector: arrays of any kind, labels and groups, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

import conocc
from conocc.detectors.input_validation import as_array, majority_only

X = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
IMAGES = np.random.default_rng(0).normal(size=(20, 16, 16)).cumsum(1)


@pytest.mark.parametrize(
    "given",
    [
        *(X.tolist(), list(X), X.astype(object), pd.Series(list(X))),
        *(torch.tensor(X, requires_grad=True), torch.tensor(X).bfloat16()),
    ],
)
def test_images_of_other_kinds_are_the_same_images(given):
    """Twelve whole numbers, which bfloat16 holds too."""
    assert np.array_equal(as_array(given), X)


@pytest.mark.parametrize("given", [["a.png"], (x for x in X), {"images": X}, "a.png", None])
def test_what_holds_no_numbers_is_refused_in_a_sentence(given):
    with pytest.raises(ValueError, match=rf"X must be numbers.* Got {type(given).__name__} inst"):
        as_array(given)


def test_images_of_several_sizes_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="X is no array of images of one size, or of vectors: "):
        as_array([X[0], X[0, :1]])
    with pytest.raises(ValueError, match=r"X has shape \(1, 1, 3, 2, 2\); it must be .* of images"):
        as_array(X[None, None])
    with pytest.raises(ValueError, match="X is no array of images of one size, or of vectors: "):
        as_array(torch.empty(3, 2, 2, device="meta"))


def test_categories_of_a_table_are_no_features():
    """They crashed, since 'a' is not lower than 1."""
    frame = pd.DataFrame({"a": pd.Categorical(list("xyxyx")), "b": range(5)})
    with pytest.raises(ValueError, match="X must hold real numbers; got an array of object"):
        conocc.GaborMahalanobis().fit(frame)


def test_the_mark_of_the_minority_may_be_text():
    """It was said that '-1' is not -1, and the minority was learned."""
    assert len(majority_only(X, np.array(["1", "-1", "1"]), None, refuse=False)[0]) == 2


@pytest.mark.parametrize("kind", [np.array, list, pd.Series, torch.tensor, torch.BoolTensor])
@pytest.mark.parametrize("marks", [[True, False, True], [True] * 3, [False] * 3])
def test_true_and_false_mark_no_class(kind, marks):
    """All images were learned, with a warning where both were there; of one value in silence."""
    for y in (
        kind(marks),
        np.array(marks, object),
        pd.array(marks, "boolean"),
        np.array(marks, str),
    ):
        with pytest.raises(
            ValueError, match=r"y holds True or False, .* np.where\(is_minority, -1,"
        ):
            majority_only(X, y, None, refuse=False)


@pytest.mark.parametrize(
    "again", [[1.0, 2.0], np.float32([1, 2]), ["1", "2"], [b"1", b"2"], np.uint8([1, 2])]
)
def test_a_patient_is_the_same_as_a_number_of_any_kind(again):
    """A column with gaps has 1.0 for 1: such a patient was calibrated on after the training."""
    fitted = conocc.GaborMahalanobis(random_state=0).fit(IMAGES[:10], groups=[1, 2] * 5)
    assert fitted.knows_patients(again).all()
    assert not fitted.knows_patients([1.5, 3.0]).any()
    with pytest.raises(ValueError, match="2 of the 2 patients to calibrate on were trained on"):
        fitted.calibrate(IMAGES[10:12], groups=again)


def test_names_of_columns_end_with_the_fit_that_had_them(tmp_path):
    frame = pd.DataFrame(IMAGES[:, :3, 0], columns=list("abc"))
    fitted = conocc.GaborMahalanobis(random_state=0).fit(frame)
    fitted.save(tmp_path / "model")
    again = conocc.load(tmp_path / "model")
    assert isinstance(again.feature_names_in_, np.ndarray)
    assert np.array_equal(again.predict(frame), fitted.predict(frame))
    fitted.fit(IMAGES)
    assert not {"feature_names_in_", "n_features_in_"} & vars(fitted).keys()


def test_the_order_of_bytes_changes_no_score():
    """Big-endian float64 was rounded to float32: of 1e9 and noise the noise was lost."""
    images = 1e9 + IMAGES
    fitted = conocc.GaborMahalanobis(random_state=0).fit(images)
    other = conocc.GaborMahalanobis(random_state=0).fit(images.astype(">f8"))
    assert fitted.offset_ == other.offset_
    assert np.array_equal(fitted.anomaly_score(images), other.anomaly_score(images.astype(">f8")))


@pytest.mark.parametrize("missing", [np.nan, None, ""])
def test_images_without_a_label_or_a_patient_are_not_taken_in_silence(missing):
    with pytest.raises(ValueError, match="'y' parameter has no value for 1 of 3 images, the first"):
        majority_only(X, np.array([1, missing, -1], object), None, refuse=False)
    with pytest.raises(ValueError, match="'groups' parameter .* row 1"):
        majority_only(X, None, np.array(["ann", missing, "bob"], object), refuse=False)


def test_labels_may_be_a_column():
    kept, groups = majority_only(X, [[1], [1], [-1]], [["a"], ["b"], ["b"]], refuse=False)
    assert len(kept) == 2
    assert groups.tolist() == ["a", "b"]


@pytest.mark.parametrize("groups", ["ann", {"ann": 1}, np.ones((3, 2)), (g for g in "abc"), "ab"])
def test_patients_that_are_no_column_are_refused_by_their_own_name(groups):
    """It was said of y, which nobody had given."""
    with pytest.raises(ValueError, match="'groups' parameter must have one value an image. Got"):
        majority_only(X, None, groups, refuse=False)
