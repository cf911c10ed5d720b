"""The application: its errors are sentences, its help needs no torch."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text
from typer.core import TyperGroup

from conocc._version import __version__

logger = logging.getLogger("conocc")

SOME_FAILED = 3  # exit code when some files could not be read, or some fits failed
INTERRUPTED = 130
STOPPED = "Stopped. The same command goes on from what is saved."


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


out = Screen(soft_wrap=True, highlight=False)
err = Screen(stderr=True, soft_wrap=True, highlight=False)


class Sentences(TyperGroup):
    """Commands whose errors are one sentence on stderr, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, MemoryError) as error:
            err.print(f"[red]Error:[/red] {escape(_sentence(error))}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            err.print(STOPPED)
            raise typer.Exit(INTERRUPTED) from None


def _sentence(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"Out of memory: {error}".rstrip(": ") + "."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: '{error.filename}'." if error.filename else f"{error.strerror}."
    return str(error)


def say_start(quiet: bool = False) -> None:
    """Say on a terminal that the command has begun: importing PyTorch takes seconds."""
    if err.is_terminal and not quiet:
        err.print("Starting …")


app = typer.Typer(
    cls=Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One-class learning on medical images: train on the majority class, score the rest.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at cohorts.")
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines("%(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
