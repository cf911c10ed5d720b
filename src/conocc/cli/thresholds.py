"""Thresholds at the command line: calibrating a run, and saying what its decisions promise."""

from __future__ import annotations

from typing import Any

from conocc.cli.application import app, out
from conocc.cli.options import (
    Cache,
    CohortArgument,
    Jobs,
    Majority,
    NoCache,
    PatientRegex,
    Quiet,
    RunArgument,
    command_line,
    read_cohort_as,
)


@app.command()
def calibrate(
    run: RunArgument,
    cohort: CohortArgument,
    majority: Majority = None,
    patient_regex: PatientRegex = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Calibrate a run's threshold on majority images that it was not trained on.

    Only majority images count; images and patients of the run's training and test split are left
    out. 'score' and 'evaluate' then take --false-alarms and --fdr.
    """
    from conocc.experiments.run import calibrate_run

    command = command_line()
    loaded = read_cohort_as(str(run), cohort, cache, no_cache, jobs, quiet, majority, patient_regex)
    print_calibration(calibrate_run(run, loaded, command=command))


def print_calibration(found: dict[str, Any]) -> None:
    """Print what `calibrate_run` returned, or a fit noted of its own calibration."""
    known = "patients not known"
    if found["patients"] is not None:
        known = f"{found['patients']} patients"
    out.print(f"Calibrated on {found['images']} majority images, {known}.")
    for reason, number in found["left_out"].items():
        if number:
            out.print(f"{number} images left out: {reason}.")
