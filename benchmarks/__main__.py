"""Measure all sections, or those that are named, into docs/research/performance.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import machine, memory, scoring, training
from benchmarks.contest import share_one_core

SECTIONS = {
    "machine": machine.section,
    "training": training.section,
    "memory": memory.section,
    "scoring": scoring.section,
}
PAGE = Path(__file__).parents[1] / "docs" / "research" / "performance.md"


def written(page: str, name: str, text: str) -> str:
    """Put a section's text between its two markers in the page."""
    begin, end = (f"<!-- {which} {name} -->" for which in ("begin", "end"))
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"The page lacks the markers '{begin}' and '{end}' of a section.")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], metavar="SECTION")
    parser.add_argument(
        "--one-core",
        action="store_true",
        help="one core, and the processor's seconds: for a machine that does other things too",
    )
    parser.add_argument("--quick", action="store_true", help="only see whether it runs")
    arguments = parser.parse_args()
    if arguments.one_core:
        share_one_core()
    for name in arguments.sections or SECTIONS:
        text = SECTIONS[name](quick=arguments.quick)
        print(f"{name}:\n\n{text}\n")
        if not arguments.quick:
            page = PAGE.read_text(encoding="utf-8")
            PAGE.write_text(written(page, name, text), encoding="utf-8")


if __name__ == "__main__":
    main()
