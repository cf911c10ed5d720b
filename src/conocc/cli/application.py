"""The application: its errors are sentences, its help needs no torch."""

from __future__ import annotations

import gc
import io
import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from conocc._version import __version__

logger = logging.getLogger("conocc")

FAILED = 1
MISUSED = 2  # a command, an option or its value is not known
SOME_FAILED = 3  # some files could not be read, or some fits failed
INTERRUPTED = 130


def printable(text: str) -> str:
    """Give a text without what would move the cursor, ring, colour, or cannot be encoded."""
    from conocc.data.index import printable

    return "\n".join(map(printable, text.split("\n")))


class Screen(Console):
    """A console to which names of files and folders can do nothing."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


class Lines(logging.Formatter):
    """The lines of a log, likewise."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _default_shown(value: Any) -> Any:
    return None if value is False else value


out = Screen(soft_wrap=True, highlight=False)
err = Screen(stderr=True, soft_wrap=True, highlight=False)

app = App(
    name="conocc",
    help="One-class learning on medical images: train on the majority class, score the rest.",
    help_format="plaintext",
    version=__version__,
    console=Console(highlight=False),
    default_parameter=Parameter(negative="", show_default=_default_shown),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
data_app = App(name="data", help="Look at cohorts, cut patches, and see to the cache.")
app.command(data_app)


@app.command
def info() -> None:
    """Print versions and the machine, for a report of a fault: no patient, file or folder."""
    import platform
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    import torch

    out.print(f"conocc {__version__}, Python {platform.python_version()}, {platform.platform()}")
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    out.print(f"{torch.get_num_threads()} threads; CUDA: {', '.join(cards) or 'none'}")
    missing = []
    for name in dict.fromkeys(re.split(r"[^\w.-]", need)[0] for need in requires("conocc") or ()):
        try:
            out.print(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    out.print(f"Not installed, and needed for some extras alone: {', '.join(missing) or 'nothing'}")


def main() -> None:
    """Run the command line, and exit."""
    try:
        sys.exit(run())
    finally:
        # Or Python would search all that PyTorch has imported for garbage, for half a second.
        gc.freeze()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command, that of this process or another one, and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # γ and – on a terminal that has none
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines("%(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    given = sys.argv[1:] if arguments is None else arguments
    words = ["/dev/stdin" if word == "-" else word for word in given]  # - looks like an option
    try:
        return app(words, exit_on_error=False, print_error=False) or 0
    except CycloptsError as error:
        return _say(f"{error} See '--help'.", MISUSED)
    except (ValueError, OSError, MemoryError) as error:
        return _say(_sentence(error), FAILED)
    except KeyboardInterrupt:
        err.print("Stopped. The same command goes on from what is saved.")
        return INTERRUPTED


def _say(sentence: str, code: int) -> int:
    err.print(f"[red]Error:[/red] {escape(sentence)}")
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"Out of memory: {error}".rstrip(": ") + "."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: '{error.filename}'." if error.filename else f"{error.strerror}."
    return str(error)


# --- what commands say ---------------------------------------------------------------------------


def say_start(quiet: bool = False) -> None:
    """Say on a terminal that the command has begun: importing PyTorch takes seconds."""
    if err.is_terminal and not quiet:
        err.print("Starting …")


def say_all(sentences: Iterable[str], before: str = "") -> None:
    """Print sentences, a line each."""
    for sentence in sentences:
        out.print(f"{before}{escape(sentence)}")


def say_left_out(reasons: dict[str, int]) -> None:
    """Say how many images were left out, for each reason."""
    say_all(f"{number} images left out: {reason}." for reason, number in reasons.items() if number)


def say_failed(reasons: Sequence[str], failed: int, table: Path, what: str) -> int:
    """Say the first reasons why some files failed, and where all are; give the exit code."""
    if not failed:
        return 0
    for reason in reasons[:5]:
        err.print(escape(reason))
    err.print(f"{failed} could not be {what}; all are in {escape(str(table))}")
    return SOME_FAILED


@contextmanager
def unreadable_listed(folder: Path) -> Iterator[None]:
    """Have images of a cohort that cannot be read end the command with a list of them all."""
    from conocc.data.decoding import UnreadableImagesError

    try:
        yield
    except UnreadableImagesError as error:
        table = folder / "unreadable.csv"
        write_unreadable(table, [error.errors[i] for i in sorted(error.errors)])
        raise ValueError(
            f"{error} All are in '{table}', with the reasons. Mend or remove them, or leave them "
            "out (--skip-unreadable)."
        ) from None


def write_unreadable(table: Path, errors: Sequence[tuple[str, str]]) -> None:
    """Write paths and reasons, in the place of no other table."""
    from conocc.data.index import printable
    from conocc.io.tables import ERROR_COLUMNS, refuse_other, write_csv

    refuse_other(table, ",".join(ERROR_COLUMNS))
    write_csv(table, ERROR_COLUMNS, ((printable(path), reason) for path, reason in errors))


def command_line() -> str:
    """Say what was typed, as a shell would take it again.

    Raises
    ------
    ValueError
        If a name in it is not valid Unicode, so that no file could note it.
    """
    for word in sys.argv[1:]:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"'{word}' is not valid Unicode, so that no file could note it. Rename it."
            ) from None
    return shlex.join(["conocc", *sys.argv[1:]])
