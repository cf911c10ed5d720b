"""
Patches from boxes
==================

Cut squares around what a table of boxes marks, and as many of tissue that is not marked.

This is what ``conocc data patches`` does. The result is a folder that ``conocc fit`` takes.
"""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from conocc import OCSVM, load_cohort
from conocc.data.patches import Rules, cut_patches
from conocc.data.phantoms import power_law_texture

# %%
# Sixty drawn "mammograms" of thirty patients, each with a round lesion whose box is known.

rng = np.random.default_rng(0)
folder = Path(tempfile.mkdtemp())
(folder / "images").mkdir()
y, x = np.mgrid[:160, :160]
lines = ["path,x,y,width,height,patient"]
for i in range(60):
    picture = 110 + 25 * power_law_texture(rng, 160)
    left, top = rng.integers(20, 116, 2)
    lesion = (x - left - 12) ** 2 + (y - top - 12) ** 2 < 12**2
    drawn = np.clip(picture + 60 * lesion, 0, 255).astype(np.uint8)
    Image.fromarray(drawn).save(folder / "images" / f"{i}.png")
    lines.append(f"{i}.png,{left},{top},24,24,patient {i // 2}")
(folder / "boxes.csv").write_text("\n".join(lines) + "\n")

# %%
# Patches of 32 pixels, with a margin of 4 around each box, and as many from outside.

made = cut_patches(
    folder / "images",
    folder / "patches",
    boxes=folder / "boxes.csv",
    rules=Rules(size=32, margin=4, outside=True),
)
print(made.counts)

# %%
# The folder is a cohort, which knows its patients: none is in training and in the test.

cohort = load_cohort(folder / "patches", majority="inside", cache=False)
train, test = cohort.where(split="train"), cohort.where(split="test")
detector = OCSVM(random_state=0).fit(train.images, groups=train.patient)
scores = detector.anomaly_score(test.images)

figure, axes = plt.subplots(2, 4, figsize=(8, 4), layout="constrained")
for row, its in zip(axes, (~test.minority, test.minority), strict=True):
    for ax, i in zip(row, np.flatnonzero(its), strict=False):
        ax.imshow(test.images[i, 0], cmap="gray")
        ax.set_title(f"{test.label[i]}, {scores[i]:.2f}", fontsize=9)
        ax.axis("off")
