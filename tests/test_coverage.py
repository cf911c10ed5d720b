"""The benchmark of intervals: its truths are true, and its table has a line for each setting."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from conocc.metrics.ranking import METRICS

FILE = Path(__file__).parent.parent / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def coverage():
    spec = importlib.util.spec_from_file_location("coverage_of_intervals", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("area", [0.7, 0.95])
def test_the_truths_are_those_of_a_very_large_cohort(coverage, area):
    """Of 40 000 and 360 000 images: with an error of about 0.002."""
    design = coverage.Independent(40_000, 360_000)
    minority, score, _ = coverage.cohort(design, area, np.random.default_rng(0))
    for name, truth in coverage.truths(area, 0.1).items():
        assert METRICS[name](minority, score) == pytest.approx(truth, abs=0.01), name


def test_patients_share_their_variance_and_have_the_classes_asked_for(coverage):
    """Of 20 000 patients 80 % have majority images only; 60 % of the variance is between them."""
    design = coverage.Clustered(20_000, 0.8, 0.1)
    minority, score, patient = coverage.cohort(design, 0.5, np.random.default_rng(1))
    images = np.bincount(patient)
    found = np.bincount(patient, minority)
    assert (found[images > 3] == 0).mean() == pytest.approx(0.8, abs=0.02)
    first, second = np.flatnonzero(np.diff(patient) == 0), np.flatnonzero(np.diff(patient) == 0) + 1
    assert np.corrcoef(score[first], score[second])[0, 1] == pytest.approx(0.6, abs=0.02)


def test_the_table_has_a_line_for_each_setting(coverage, monkeypatch):
    monkeypatch.setattr(coverage, "DESIGNS", coverage.DESIGNS[::3])
    lines = list(coverage.lines(cohorts=2, n_resamples=5, jobs=1))
    assert len(lines) == 2 + len(coverage.DESIGNS) * len(coverage.AREAS)
    assert len({line.count("|") for line in lines}) == 1
