"""The command line: parse, call one function of a room above, print.

Rooms that need torch are imported in the command that uses them, so that ``--help`` is quick.
"""

import gc
import sys

# The commands, which the application lists.
from conocc.cli import pages, patches, pictures, runs, studies, thresholds
from conocc.cli.application import INTERRUPTED, SOME_FAILED, STOPPED, app, err

__all__ = [
    "INTERRUPTED",
    "SOME_FAILED",
    "app",
    "main",
    "pages",
    "patches",
    "pictures",
    "runs",
    "studies",
    "thresholds",
]


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:  # before a command was reached
        err.print(STOPPED)
        sys.exit(INTERRUPTED)
    finally:
        # Or Python would search all that PyTorch has imported for garbage, for half a second.
        gc.freeze()
