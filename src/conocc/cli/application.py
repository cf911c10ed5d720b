"""The application: its errors are sentences, its help needs no torch."""

from __future__ import annotations

import gc
import importlib
import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Parameter
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from conocc._version import __version__
from conocc.cli.options import OUTPUT
from conocc.io.progress import bar, without_bars
from conocc.io.words import count, named

logger = logging.getLogger("conocc")

FAILED = 1
MISUSED = 2  # a command, an option or its value is not known
SOME_FAILED = 3  # some files could not be read, or some fits failed
INTERRUPTED = 130
WIDEST = 10_000  # of a table's lines, in letters

# What each command that takes seconds imports first, while it says that it has begun.
SLOW = {
    **dict.fromkeys(("demo", "fit", "calibrate", "evaluate"), "conocc.experiments.run"),
    **dict.fromkeys(("benchmark", "crossval", "sweep"), "conocc.experiments.benchmark"),
    **{name: f"conocc.visualization.{name}" for name in ("report", "card", "explain", "review")},
    "score": "conocc.experiments.inference",
    "embed": "conocc.visualization.charts",
    "export": "conocc.deploy.onnx",
    "inspect": "conocc.data.load",
    "patches": "conocc.data.patches",
}
SILENT = {"--quiet", "-q", "--json"}
# Options that are called otherwise than the parameters which they set.
OPTIONS = {"n_jobs": "jobs", "random_state": "seed", "scored_by": "score"}
OTHERWISE = {"--jobs": "--threads"}  # in a command that has no such option


def printable(text: str) -> str:
    """Give a text without what would move the cursor, ring, colour, or cannot be encoded."""
    from conocc.data.index import printable

    return "\n".join(map(printable, text.split("\n")))


class Screen(Console):
    """A console to which names of files and folders can do nothing."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        with without_bars():
            super().print(*objects, **options)


class Log(logging.Handler):
    """The lines of a log, likewise; above a bar, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(printable(self.format(record)) + "\n")


def _default_shown(value: Any) -> Any:
    return None if value is False else value


for stream in ("stdout", "stderr"):
    if getattr(sys, stream) is None:  # closed, as by >&-
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115  (for as long as it runs)

# Words are wrapped on a terminal, and nowhere else.
out = Screen(soft_wrap=not sys.stdout.isatty(), highlight=False)
err = Screen(stderr=True, soft_wrap=not sys.stderr.isatty(), highlight=False)

app = App(
    name="conocc",
    help="One-class learning on medical images: train on the majority class, score the rest.",
    help_format="markdown",
    group_parameters=OUTPUT,
    version=__version__,
    console=Console(highlight=False),
    default_parameter=Parameter(negative="", show_default=_default_shown),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
data_app = App(name="data", help="Look at cohorts, cut patches, and see to the cache.")
app.command(data_app)
app.register_install_completion_command()


@app.command
def info() -> None:
    """Print versions and the machine, for a report of a fault: no patient, file or folder."""
    import platform
    from importlib.metadata import PackageNotFoundError, requires, version

    import torch

    out.print(f"conocc {__version__}, Python {platform.python_version()}, {platform.platform()}")
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    out.print(f"{count(torch.get_num_threads(), 'thread')}; CUDA: {', '.join(cards) or 'none'}")
    missing = []
    for name in dict.fromkeys(re.split(r"[^\w.-]", need)[0] for need in requires("conocc") or ()):
        try:
            out.print(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    out.print(f"Not installed, and needed for some extras alone: {', '.join(missing) or 'nothing'}")


def main() -> None:
    """Run the command line, and exit."""
    if "OMP_WAIT_POLICY" not in os.environ:  # before PyTorch is imported, which reads both
        # Its threads, waiting for each other, leave their core after microseconds.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
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
    logger.handlers[:] = [Log()]
    logger.setLevel(logging.INFO)
    given = sys.argv[1:] if arguments is None else arguments
    words = ["/dev/stdin" if word == "-" else word for word in given]  # - looks like an option
    # A shell leaves the ~ of --out=~/run as it is.
    words = [re.sub(r"^(--[\w-]+=)~(?=/)", lambda it: it[1] + str(Path.home()), w) for w in words]
    try:
        parts = [p for w in words for p in (w.split("=", 1) if w.startswith("--") else [w])]
        if any(not b.strip() and not a.endswith("-column") for a, b in pairwise(["", *parts])):
            raise ValueError("An empty word is no name and no value. Nothing was done.")
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        module = SLOW.get(command.__name__)
        with bar(f"conocc {command.__name__}", verbose=bool(module) and SILENT.isdisjoint(words)):
            if module:
                importlib.import_module(module)
            with _on_disk(command.__name__, bound.arguments, SILENT.isdisjoint(words)):
                code = command(*bound.args, **bound.kwargs) or 0
        sys.stdout.flush()
        return code
    except CycloptsError as error:
        return _say(f"{error} See '--help'.", MISUSED)
    except BrokenPipeError:  # such as 'head', which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError, MemoryError) as error:
        return _say(_with_options(_sentence(error), words), FAILED)
    except KeyboardInterrupt:
        err.print("Stopped. The same command goes on from what is saved.")
        return INTERRUPTED


def _on_disk(
    command: str, arguments: dict[str, Any], is_verbose: bool
) -> AbstractContextManager[None]:
    """Have places of a DICOMweb server on disk while a command works on them."""
    given = [arguments.get("cohort"), arguments.get("objects")]
    images = arguments.get("images")  # of 'plan' a number, of 'patches' a folder
    given += images if isinstance(images, list | tuple) else []
    if not any(str(word).startswith("dicomweb:") for word in given):
        return nullcontext()
    try:
        from conocc.data.dicomweb import as_folders
    except ImportError as error:
        raise ValueError("dicomweb: needs: pip install 'conocc[dicomweb]'.") from error
    if command not in ("inspect", "score", "review", "explain"):
        raise ValueError(
            f"'{command}' takes no place of a DICOMweb server: fetch images by --keep."
        )
    return as_folders(arguments, logger.info, verbose=int(is_verbose))


def _say(sentence: str, code: int) -> int:
    err.print(f"[red]Error:[/red] {escape(sentence)}")
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"Out of memory: {error}".rstrip(": ") + "."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: '{error.filename}'." if error.filename else f"{error.strerror}."
    return str(error)


def _with_options(sentence: str, words: Sequence[str]) -> str:
    """Call a parameter by its option, where it was given by one."""

    def called(found: re.Match[str]) -> str:
        option = "--" + OPTIONS.get(found[1], found[1].replace("_", "-"))
        given = [word.partition("=")[0] for word in words]
        option = option if option in given else OTHERWISE.get(option, option)
        return f"option {option}" if option in given else found[0]

    sentence = re.sub(r"\w+='[^']*' \((--\w[^)]*)\)", r"\1", sentence)  # as Python and as option
    return re.sub(r"'(\w+)' parameter(?: of \w+)?", called, sentence)


# --- what commands say ---------------------------------------------------------------------------


def show(table: Table) -> None:
    """Print a table, as wide as its figures need, and on no terminal as wide as its words too."""
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(cell_len(str(cell)) for cell in [column.header, *column.cells])
    needed = Measurement.get(out, out.options.update(max_width=WIDEST), table)
    width = max(out.width, needed.minimum) if out.is_terminal else needed.maximum
    Screen(highlight=False, width=width).print(table)


def say_all(sentences: Iterable[str], before: str = "") -> None:
    """Print sentences, a line each."""
    for sentence in sentences:
        out.print(f"{before}{escape(sentence)}")


def say_next(*words: object) -> None:
    """Say which command goes on from here."""
    out.print(f"Next: {escape(shlex.join(['conocc', *map(str, words)]))}")


def say_left_out(reasons: dict[str, int]) -> None:
    """Say how many images were left out, for each reason."""
    say_all(f"{count(n, 'image')} left out: {reason}." for reason, n in reasons.items() if n)


def say_failed(errors: Sequence[tuple[str, str]], table: Path, what: str, failed: int = 0) -> int:
    """Say why the first of some files failed, `failed` in all, and where all are; give the code."""
    if not (failed := failed or len(errors)):
        return 0
    for path, reason in errors[:5]:
        err.print(escape(named(path, reason)))
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


def write_unreadable(table: Path, errors: Sequence[tuple[str, str]], option: str = "--out") -> None:
    """Write paths and reasons, in the place of no other table, which the option leads to."""
    from conocc.data.index import printable
    from conocc.io.tables import ERROR_COLUMNS, refuse_other, write_csv

    refuse_other(table, ",".join(ERROR_COLUMNS), option)
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
