"""What commands of this folder share: a cohort that is asked for, and lines as they are known."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence

from conocc.data.cohort import Cohort
from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing


def asked(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, with a cohort, its ``--size`` and ``--majority``."""
    parser.add_argument("cohort")
    parser.add_argument("--size", type=int)
    parser.add_argument("--majority", action="append")
    return parser.parse_args()


def cohort_of(given: argparse.Namespace, times: int = 1) -> Cohort:
    """Load the cohort that was asked for, at so many times the size."""
    size = given.size and times * given.size
    return load_cohort(given.cohort, Preprocessing(size=size), majority=given.majority)


def write_lines(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Print CSV, each line as soon as it is known."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(heads)
    for line in lines:
        writer.writerow(line)
        sys.stdout.flush()
