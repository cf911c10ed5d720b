"""
Fit and score
=============

Learn one class of images from its images alone, and score new ones.

The images are drawn: ``phantom-chestx`` looks like chest films, of no patient.
A result on them says that the software works, never that it would on patients.
"""

from matplotlib import pyplot as plt

from conocc import GaborMahalanobis
from conocc.data.phantoms import draw_phantom
from conocc.visualization import RocDisplay, ScoreDisplay

drawn = draw_phantom("phantom-chestx", size=64, train=200, test_majority=60, test_minority=60)
train, test = drawn.images[drawn.split == "train"], drawn.images[drawn.split == "test"]
minority = drawn.minority[drawn.split == "test"]

# %%
# Above are three films of the majority class, "normal", which is learned.
# Below are three of the minority class, "pneumonia", which training never sees.

figure, axes = plt.subplots(2, 3, figsize=(6, 4), layout="constrained")
for row, images in zip(axes, (train, test[minority]), strict=True):
    for ax, image in zip(row, images, strict=False):
        ax.imshow(image, cmap="gray")
        ax.axis("off")

# %%
# A detector is fitted to majority images, an array ``(n, height, width)``.
# Its ``anomaly_score`` is higher the less an image is like them.

detector = GaborMahalanobis(random_state=0).fit(train)
scores = detector.anomaly_score(test)
print(f"mean score of majority images {scores[~minority].mean():.0f}")
print(f"mean score of minority images {scores[minority].mean():.0f}")

# %%
# Where the classes of test images are known, two figures say how well they are told apart.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
ScoreDisplay.from_predictions(minority, scores, ax=left)
display = RocDisplay.from_predictions(minority, scores, ax=right)
