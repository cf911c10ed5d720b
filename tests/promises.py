"""Simulations of what thresholds promise; as a program, it prints a table of docs/research.

Majority scores have variance 1. Where patients are unequal they have 1, 2, 3, 10 or 40 images,
each as often, and most of the variance is between patients. Truths come from the law that the
scores are drawn from, not from a threshold's own sample.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import beta, chisquare, norm

from conocc.thresholds.conformal import (
    benjamini_hochberg,
    calibrate,
    one_image_a_patient,
    p_values,
    patient_maxima,
    promised_threshold,
)

REPEATS = 2000
BETWEEN = 0.7  # share of the variance of a score that is between patients


def patients_scores(rng, patients, shift=0.0):
    """Scores and patients of images of unequal patients; `shift` is the mean, or one a patient."""
    images = rng.choice([1, 2, 3, 10, 40], patients)
    patient = np.repeat(np.arange(patients), images)
    effect = (shift + rng.normal(scale=BETWEEN**0.5, size=patients))[patient]
    return effect + rng.normal(scale=(1 - BETWEEN) ** 0.5, size=patient.size), patient


def rates_by_independent_images(n, false_alarms, repeats=REPEATS):
    """False-alarm rates of thresholds on n independent images; exact."""
    rng = np.random.default_rng(n)
    thresholds = [
        promised_threshold(rng.normal(size=n), false_alarms=false_alarms) for _ in range(repeats)
    ]
    return norm.sf(thresholds)


def rates_by_image(patients, false_alarms, repeats=REPEATS):
    """False-alarm rates on an image, drawn, of a new patient, of thresholds by image; exact."""
    rng = np.random.default_rng(3)
    rate = np.empty(repeats)
    for repeat in range(repeats):
        scores, patient = patients_scores(rng, patients)
        calibration = calibrate(scores, patient=patient, random_state=repeat)
        rate[repeat] = norm.sf(calibration.threshold(false_alarms=false_alarms))
    return rate


def rates_by_patient(patients, false_alarms, repeats=REPEATS):
    """False-alarm rates on new patients, 200 000 of them, of thresholds by patient."""
    rng = np.random.default_rng(5)
    new = np.sort(patient_maxima(*patients_scores(rng, 200_000)[::-1])[1])
    rate = np.empty(repeats)
    for repeat in range(repeats):
        scores, patient = patients_scores(rng, patients)
        calibration = calibrate(scores, patient=patient)
        found = calibration.threshold(false_alarms=false_alarms, unit="patient")
        rate[repeat] = 1 - np.searchsorted(new, found, side="right") / new.size
    return rate


def rates_by_all_images(patients, false_alarms, repeats=REPEATS):
    """False-alarm rates of thresholds that take each patient's images for independent."""
    rng = np.random.default_rng(4)
    scores = [patients_scores(rng, patients)[0] for _ in range(repeats)]
    return norm.sf([promised_threshold(one, false_alarms=false_alarms) for one in scores])


def beta_law(n, false_alarms):
    """Law of the false-alarm rate of a threshold at 95 % on n calibration scores."""
    k = int(promised_threshold(np.arange(1.0, n + 1), false_alarms=false_alarms))
    return beta(n + 1 - k, k)


def majority_p_values(unit, repeats=5000, patients=9):
    """p-values of new majority images, or patients, each from a calibration of its own."""
    rng = np.random.default_rng(9)
    p = np.empty(repeats)
    for repeat in range(repeats):
        scores, patient = patients_scores(rng, patients + 1)
        is_new = patient == patients
        calibration = calibrate(scores[~is_new], patient=patient[~is_new], random_state=repeat)
        new = scores[is_new]
        score = new.max() if unit == "patient" else rng.choice(new)
        (p[repeat],) = calibration.p_values([score], unit=unit)
    return p


def uniformity(p, patients=9):
    """p of the chi-squared test that each of the values 1/(n + 1), ..., 1 is as frequent."""
    counts = np.bincount(np.rint(p * (patients + 1)).astype(int), minlength=patients + 2)[1:]
    assert counts.sum() == p.size
    return chisquare(counts).pvalue


def false_discoveries(unit, repeats=400, patients=300, rate=0.2):
    """Share of false among those flagged, of batches of 40 majority and 10 minority patients."""
    rng = np.random.default_rng(7)
    share = np.empty(repeats)
    minority = np.repeat([False, True], [40, 10])
    for repeat in range(repeats):
        scores, patient = patients_scores(rng, patients)
        kept = calibrate(scores, patient=patient, random_state=repeat).of(unit)
        scores, patient = patients_scores(rng, 50, 3.0 * minority)
        batch = scores[one_image_a_patient(patient, repeat)]
        if unit == "patient":
            batch = patient_maxima(patient, scores)[1]
        flagged = benjamini_hochberg(p_values(kept, batch), rate=rate)
        share[repeat] = (flagged & ~minority).sum() / max(flagged.sum(), 1)
    return share


def _table():
    least = [(59, 0.05), (29, 0.1), (14, 0.2)]  # as few patients as can promise it
    more = [(100, 0.05), (100, 0.1), (100, 0.2)]
    made = {
        "independent images": (rates_by_independent_images, [*least, *more]),
        "image, unequal patients": (rates_by_image, [*least, *more]),
        "patient, unequal patients": (rates_by_patient, [*least, *more]),
        "*all images, unequal patients*": (rates_by_all_images, least),
    }
    yield "| calibrated by | patients | promised rate | broken in | Beta law | mean | Beta law |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, (simulate, cases) in made.items():
        for n, false_alarms in cases:
            rate, law = simulate(n, false_alarms), beta_law(n, false_alarms)
            shares = np.mean(rate > false_alarms), law.sf(false_alarms), rate.mean(), law.mean()
            told = " | ".join(f"{100 * share:.2f} %" for share in shares)
            yield f"| {name} | {n} | {100 * false_alarms:.0f} % | {told} |"
    for unit in ("image", "patient"):
        share = false_discoveries(unit, repeats=REPEATS)
        yield (
            f"By {unit}: uniformity of 5000 p-values, p = {uniformity(majority_p_values(unit)):.2f}"
            f"; false discoveries {share.mean():.4f} ± {share.std() / REPEATS**0.5:.4f}, at most "
            "0.8 * 0.2 = 0.16."
        )


if __name__ == "__main__":
    print(*_table(), sep="\n")  # noqa: T201
