"""
A pipeline and cross-validation in scikit-learn
===============================================

Every method is a scikit-learn outlier detector, and goes where these go.
"""

import numpy as np
from matplotlib import pyplot as plt
from scipy.ndimage import gaussian_filter
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from conocc import OCSVM, SCORERS, OneClassKFold
from conocc.data.phantoms import draw_phantom

drawn = draw_phantom("phantom-mri", train=150, test_majority=0, test_minority=60)
X, y = drawn.images, np.where(drawn.minority, -1, 1)
patients = np.arange(len(X)) // 2  # two images each

# %%
# `OneClassKFold` learns from the majority images of the other patients, and tests on the images of
# both classes of its own. ``SCORERS`` are the paper's figures, as scikit-learn's scorers.

folds = OneClassKFold(3)
found = cross_validate(OCSVM(), X, y, groups=patients, cv=folds, scoring=SCORERS)
for name in SCORERS:
    print(f"{name}: {found[f'test_{name}'].mean():.3f}")

# %%
# A pipeline: here images are smoothed before they are learned from.


def smoothed(images, sigma=1.0):
    """Blur each image by itself."""
    return gaussian_filter(images.astype(float), (0, sigma, sigma))


pipeline = make_pipeline(FunctionTransformer(smoothed), OCSVM())
search = GridSearchCV(
    pipeline,
    {"functiontransformer__kw_args": [{"sigma": s} for s in (0.25, 0.5, 1.0, 2.0)]},
    cv=folds,
    scoring=SCORERS,
    refit=False,
)
search.fit(X, y, groups=patients)

# %%
# A choice by these figures has seen the minority class: report it on other images.
# ``refit=False`` keeps the search from fitting a detector to images of both classes.

figure, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
sigma = [params["functiontransformer__kw_args"]["sigma"] for params in search.cv_results_["params"]]
ax.errorbar(
    sigma, search.cv_results_["mean_test_AUC"], search.cv_results_["std_test_AUC"], marker="o"
)
ax.set(xlabel="sigma of the blur, in pixels", ylabel="AUC, mean and deviation of 3 folds")
