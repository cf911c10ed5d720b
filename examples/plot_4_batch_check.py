"""
Is this batch like the calibration?
===================================

A promise holds for images like those of the calibration.
Compare a batch of new images with them by its scores alone, without a label.
"""

import numpy as np
from matplotlib import pyplot as plt

from conocc import GaborMahalanobis
from conocc.data.phantoms import draw_phantom
from conocc.thresholds.batch import check_batch

drawn = draw_phantom("phantom-chestx", size=48, train=400, test_majority=60, test_minority=0)
images = drawn.images[drawn.split == "train"]
detector = GaborMahalanobis(random_state=0).fit(images[:200]).calibrate(images[200:])
known = detector.calibration_.scores

# %%
# One batch is like the calibration. The other comes from "another scanner": its films are noisier.

alike = drawn.images[drawn.split == "test"]
noise = np.random.default_rng(0).normal(0, 150, alike.shape)
batches = {"alike": alike, "another scanner": alike + noise}

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained", sharex=True)
for ax, (name, batch) in zip(axes, batches.items(), strict=True):
    scores = detector.anomaly_score(batch)
    check = check_batch(known, scores)
    print(f"{name}: differs = {check.differs}")
    print(*check.words(), sep="\n")
    ax.hist([known, scores], bins=20, density=True, label=["calibration", name])
    ax.set(xlabel="anomaly score", yticks=[])
    ax.legend()

# %%
# What to do then: look at the images, and calibrate on majority images of the new place.
# Nothing has to be trained again. ``conocc score`` makes this comparison of each batch by itself.
