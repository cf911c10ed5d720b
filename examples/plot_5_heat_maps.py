"""
Heat maps
=========

See what in an image is unusual to a method.

A heat map shows where the model finds a difference, which need not be where a disease is.
"""

import numpy as np
from matplotlib import pyplot as plt

from conocc import ConOCC, GaborMahalanobis
from conocc.data.phantoms import draw_phantom
from conocc.visualization import ExplanationDisplay

drawn = draw_phantom("phantom-chestx", size=64, train=250, test_majority=20, test_minority=20)
train, calibration = np.split(drawn.images[drawn.split == "train"], [150])
test, minority = drawn.images[drawn.split == "test"], drawn.minority[drawn.split == "test"]

# %%
# Methods that reconstruct, such as `ConOCC`, show the image less its reconstruction; `LRT` and
# `GaborMahalanobis` show what each place adds to the score. The scale is that of majority images
# which were not trained on, so that most images like them look calm.

conocc = ConOCC(epochs=10, interval=3, false_alarms=None, random_state=0).fit(train)
conocc.calibrate(calibration)
gabor = GaborMahalanobis(false_alarms=None, random_state=0).fit(train)
gabor.calibrate(calibration)
scores = gabor.anomaly_score(test)

# %%
# Of each class, the image that is in the middle by the scores of `GaborMahalanobis`: above one of
# the majority, below one of the minority, whose clouds lie in the lung on the right.
# Gabor filters are wide, so that their map is coarse. After ten epochs a network draws little.


def middle(images, scores):
    """Give the image with the median score."""
    return images[scores.argsort()[len(scores) // 2]]


shown = {
    "majority": middle(test[~minority], scores[~minority]),
    "minority": middle(test[minority], scores[minority]),
}
methods = {"ConOCC": conocc, "GaborMahalanobis": gabor}
figure, axes = plt.subplots(2, 3, figsize=(12, 7), layout="constrained")
for row, (name, image) in zip(axes, shown.items(), strict=True):
    row[0].imshow(image, cmap="gray")
    row[0].set_title(name)
    row[0].axis("off")
    for ax, (method, detector) in zip(row[1:], methods.items(), strict=True):
        ExplanationDisplay.from_estimator(detector, image, ax=ax)
        ax.set_title(method)
