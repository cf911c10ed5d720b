"""What is given to a detector: arrays of any kind, labels and groups, and what is refused."""

import numpy as np
import pytest
import torch

from conocc.detectors.input_validation import as_array, majority_only

X = np.arange(12, dtype=np.float32).reshape(3, 2, 2)


@pytest.mark.parametrize(
    "given",
    [X.tolist(), torch.tensor(X, requires_grad=True), torch.tensor(X).bfloat16(), list(X)],
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
