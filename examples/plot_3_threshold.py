"""
A threshold with a promise
==========================

Choose the threshold so that few majority images are flagged, and say how sure that is.

The promise needs majority images that were never trained on: the calibration images.
"""

from conocc import GaborMahalanobis
from conocc.data.phantoms import draw_phantom
from conocc.visualization import ScoreDisplay

drawn = draw_phantom("phantom-chestx", size=64, train=300, test_majority=100, test_minority=60)
images = drawn.images[drawn.split == "train"]
train, calibration = images[:200], images[200:]
test, minority = drawn.images[drawn.split == "test"], drawn.minority[drawn.split == "test"]

# %%
# Here each image is of a patient of its own; otherwise ``groups`` names the patients.

detector = GaborMahalanobis(random_state=0).fit(train).calibrate(calibration)
threshold = detector.threshold(false_alarms=0.05)  # in 95 of 100 calibrations, by default

# %%
# What was promised is about majority images alone, and here it can be checked.
# How many minority images are found only labelled images can tell.

flagged = detector.anomaly_score(test) > threshold
print(f"majority: {flagged[~minority].sum()} of {(~minority).sum()} flagged")
print(f"minority: {flagged[minority].sum()} of {minority.sum()} flagged")

# %%
# A promise that the calibration cannot give is refused, with the number that it takes.

try:
    detector.threshold(false_alarms=0.01)
except ValueError as error:
    print(error)

# %%
# A p-value tells of one image how rare so high a score is among majority images.

p = detector.p_value(test)
print(f"the most unusual image has p = {p.min():.3f}")

scored = detector.anomaly_score(test)
display = ScoreDisplay.from_predictions(
    minority, scored, threshold=threshold, calibration=detector.calibration_.scores
)
