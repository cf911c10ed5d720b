"""
Compare the paper's methods
===========================

Fit several methods to the same images, and compare their ROC curves.

This is ``conocc benchmark`` in small: few images, few epochs, one seed.
The paper's 1000 epochs take minutes, and what the methods do on patients is told in the research
notes.
"""

from time import perf_counter

from matplotlib import pyplot as plt

from conocc import CAE, LRT, OCSVM, ConOCC, GaborMahalanobis
from conocc.data.phantoms import draw_phantom
from conocc.visualization import RocDisplay

drawn = draw_phantom("phantom-mri", train=100, test_majority=80, test_minority=80)
train, test = drawn.images[drawn.split == "train"], drawn.images[drawn.split == "test"]
minority = drawn.minority[drawn.split == "test"]

# %%
# All methods have one contract, so that a loop is all it takes.
# ``false_alarms=None`` sets no threshold, and so holds no images out.

methods = {
    "ConOCC": ConOCC(epochs=20, interval=5),
    "CAE": CAE(epochs=20),
    "OCSVM": OCSVM(),
    "GaborMahalanobis": GaborMahalanobis(),
    "LRT": LRT(),
}
figure, axes = plt.subplots(2, 3, figsize=(11, 7), layout="constrained")
for ax, (name, detector) in zip(axes.flat, methods.items(), strict=False):
    start = perf_counter()
    detector.set_params(random_state=0, false_alarms=None).fit(train)
    print(f"{name}: {perf_counter() - start:.1f} s")
    RocDisplay.from_predictions(minority, detector.anomaly_score(test), name=name, ax=ax)
axes.flat[-1].axis("off")

# %%
# The shaded bands are 95 % intervals: with 160 test images, small differences say nothing.
# ``conocc compare`` and ``conocc benchmark`` test differences on the same images, in pairs.
