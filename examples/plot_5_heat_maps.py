"""
Heat maps
=========

See what in an image is unusual to a method.

A heat map shows where the model finds a difference, which need not be where a disease is.
"""

from matplotlib import pyplot as plt

from conocc import LRT, ConOCC
from conocc.data.phantoms import draw_phantom
from conocc.visualization import ExplanationDisplay

drawn = draw_phantom("phantom-chestx", size=48, train=100, test_majority=20, test_minority=20)
train = drawn.images[drawn.split == "train"]
test, minority = drawn.images[drawn.split == "test"], drawn.minority[drawn.split == "test"]

# %%
# Methods that reconstruct show the image less its reconstruction; `LRT` and `GaborMahalanobis`
# show what each place adds to the score. The scale is that of majority images, so that an image
# like them looks calm.

conocc = ConOCC(epochs=8, interval=3, false_alarms=None, random_state=0).fit(train)
lrt = LRT(false_alarms=None, random_state=0).fit(train)

scores = lrt.anomaly_score(test)
calm, striking = test[~minority][0], test[minority][scores[minority].argmax()]

# %%
# Above is a majority image, below the minority image that scores highest by `LRT`.

figure, axes = plt.subplots(2, 3, figsize=(12, 7), layout="constrained")
for row, (name, image) in zip(axes, {"majority": calm, "minority": striking}.items(), strict=True):
    row[0].imshow(image, cmap="gray")
    row[0].set_title(name)
    row[0].axis("off")
    for ax, (method, detector) in zip(row[1:], {"ConOCC": conocc, "LRT": lrt}.items(), strict=True):
        ExplanationDisplay.from_estimator(detector, image, ax=ax)
        ax.set_title(method)
