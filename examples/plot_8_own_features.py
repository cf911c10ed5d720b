"""
Own features
============

Score vectors instead of images: radiomics, measurements, or what an encoder makes of an image.

Where ``X`` is a table ``(n, features)``, every method learns vectors; the networks are dense.
"""

import numpy as np
from matplotlib import pyplot as plt
from scipy.ndimage import gaussian_gradient_magnitude

from conocc import OCSVM, ConOCC
from conocc.data.phantoms import draw_phantom
from conocc.visualization import RocDisplay

drawn = draw_phantom("phantom-chestx", size=64, train=200, test_majority=80, test_minority=80)

# %%
# Here the features are the mean and the deviation of grey values and of edges, fine and coarse,
# in each of 4 x 4 tiles of the image.


def described(image):
    """Give 96 features of one image."""
    grey = (image - image.mean()) / image.std()
    maps = [grey, gaussian_gradient_magnitude(grey, 1), gaussian_gradient_magnitude(grey, 2)]
    tiles = np.stack(maps).reshape(3, 4, 16, 4, 16)
    return np.concatenate([tiles.mean((2, 4)).ravel(), tiles.std((2, 4)).ravel()])


features = np.array([described(image) for image in drawn.images])
train, test = features[drawn.split == "train"], features[drawn.split == "test"]
minority = drawn.minority[drawn.split == "test"]
print(f"{features.shape[1]} features an image")

# %%
# Each feature is scaled by its mean and deviation over the training images.

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for ax, detector in zip(
    axes, (OCSVM(random_state=0), ConOCC(epochs=30, interval=10, random_state=0)), strict=True
):
    detector.fit(train)
    name = type(detector).__name__
    RocDisplay.from_predictions(minority, detector.anomaly_score(test), name=name, ax=ax)
