"""The command line: parse, call one function of a room above, print.

Rooms that need torch are imported in the command that uses them, so that ``--help`` is quick.
"""

# The commands, which the application lists.
from conocc.cli import cohorts, pages, runs, studies
from conocc.cli.application import INTERRUPTED, SOME_FAILED, main, run

__all__ = ["INTERRUPTED", "SOME_FAILED", "cohorts", "main", "pages", "run", "runs", "studies"]
