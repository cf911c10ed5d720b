"""Progress is shown on stderr to whoever asks for it, with no logging set up."""

import contextlib
import os
import pty
import re
import subprocess
import sys

from conocc.io import progress
from conocc.io.progress import bar


def test_without_verbose_nothing_is_shown(capsys):
    with bar("Training", 2, verbose=0) as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_a_script_without_a_terminal_shows_lines():
    """A program that sets up no logging, as in a notebook or under SLURM."""
    program = (
        "from conocc.io.progress import bar\n"
        "with bar('Training', 4, verbose=1, done=1) as advance:\n"
        "    advance(2)\n"
        "    advance(1, 'loss 1.5')\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("", "Training 1/4\nTraining 4/4 loss 1.5, 0 s left\n")


def test_a_line_every_half_minute_is_enough(capsys, monkeypatch):
    seconds = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    with bar("Reading", 10, verbose=1) as advance:
        for _ in range(5):
            advance()
    assert capsys.readouterr().err == (
        "Reading 0/10\nReading 2/10, 160 s left\nReading 4/10, 120 s left\n"
    )


def test_on_a_terminal_inner_bars_stand_below_outer_ones_and_make_way_for_words():
    """A terminal of its own, since a bar looks whether it speaks to one."""
    program = (
        "from conocc.io.progress import bar, without_bars\n"
        "with bar('outer', verbose=1):\n"
        "    with bar('inner', 3, verbose=1) as advance:\n"
        "        advance(2, 'loss 1.5')\n"
        "        __import__('time').sleep(0.3)\n"
        "    with without_bars():\n"
        "        print('words')\n"
        "    try:\n"
        "        with bar('failing', 3, verbose=1):\n"
        "            raise ValueError\n"
        "    except ValueError:\n"
        "        __import__('time').sleep(0.3)\n"
    )
    said = on_terminal(program)
    assert "outer" in said
    assert "2/3 loss 1.5" in said
    assert [line.strip() for line in said.splitlines() if "words" in line] == ["words"]
    assert "failing" not in said.splitlines()[-1]


def on_terminal(program: str) -> str:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        parts = []
        with contextlib.suppress(OSError):  # the end of a terminal, under Linux
            while part := os.read(ours, 65536):
                parts.append(part)
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(parts).decode())
