"""How fast files are scored, beside decoding alone, the network alone, and PyOD's autoencoder.

What the cores can do when decoding, a files a second, and the network, b images a second, share
them is 1 / (1/a + 1/b). ``python -m benchmarks.scoring`` prints this section alone.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from benchmarks.contest import Contestant, compete, table
from conocc.data.preprocessing import Preprocessing

REPEATS = 7


class Files(NamedTuple):
    """JPEG files of a phantom: their side, how many are drawn, and how many names each has."""

    side: int
    drawn: int
    copies: int
    size: int  # that they are scored at


SETS = (Files(224, 128, 256, 64), Files(224, 128, 128, 100), Files(2000, 8, 96, 64))
NAMES = {
    "conocc": "`conocc score`, files to CSV",
    "threads": "Pillow, decoding and resizing alone, threads",
    "processes": "the same, processes",
    "network": "the network alone, on decoded arrays",
    "pyod": "PyOD's AutoEncoder, on decoded arrays",
}


def section(*, quick: bool) -> str:
    """Measure and write the tables."""
    sets = (Files(224, 8, 8, 64),) if quick else SETS
    return "\n\n".join(text(some, rows(measure(some, 1 if quick else REPEATS))) for some in sets)


def measure(files: Files, repeats: int) -> dict[str, Contestant]:
    """Let all compete on files of one kind, taking turns."""
    with tempfile.TemporaryDirectory() as name:
        # Elsewhere: what this process has held in memory counts as its children's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
            elsewhere.submit(make, files, Path(name)).result()
        contestants = {
            who: Contestant(who, ["benchmarks.scorers", who, name, str(files.size)])
            for who in NAMES
        }
        compete(list(contestants.values()), repeats)
    return contestants


def make(files: Files, folder: Path) -> None:
    """Write the JPEG files, and fit a model for a moment: what it learned changes no time."""
    from PIL import Image

    from conocc import load_cohort
    from conocc.data.phantoms import draw_phantom
    from conocc.experiments.run import fit_run

    (folder / "images").mkdir()
    drawn = draw_phantom(
        "phantom-chestx", size=files.side, train=files.drawn, test_majority=0, test_minority=0
    )
    for i, image in enumerate(drawn.images):
        # Twelve bits to eight.
        first = folder / "images" / f"{i}-0.jpg"
        Image.fromarray((image >> 4).astype("uint8")).save(first, quality=90)
        for copy in range(1, files.copies):
            os.link(first, first.with_name(f"{i}-{copy}.jpg"))
    cohort = load_cohort("phantom-chestx", Preprocessing(size=files.size))
    params = {"epochs": 1, "schedule": "joint", "random_state": 0}
    fit_run(cohort, "conocc", params, folder / "run", command="")


def rows(contestants: dict[str, Contestant]) -> list[list[str]]:
    """Write medians, and what of the possible is reached."""
    rate = {name: contestants[name].median("rate") for name in NAMES}
    decoding = max(rate["threads"], rate["processes"])
    possible = 1 / (1 / decoding + 1 / rate["network"])
    written = []
    for name, printable in NAMES.items():
        peak = max(answer["peak_mib"] for answer in contestants[name].answers)
        mib = "" if name == "processes" else f"{peak:.0f}"
        written.append([printable, f"{rate[name]:.0f}", f"{rate[name] / rate['conocc']:.2f}", mib])
    printable = "what decoding and network can do together"
    written.insert(1, [printable, f"{possible:.0f}", f"{possible / rate['conocc']:.2f}", ""])
    return written


def text(files: Files, written: list[list[str]]) -> str:
    """Head a table."""
    n = files.drawn * files.copies
    heads = ["", "files/s", "of `conocc score`", "peak MiB"]
    return (
        f"{n} JPEG files of {files.side}×{files.side} pixels, scored at {files.size}×{files.size}:"
        f"\n\n{table(heads, written)}"
    )


def main() -> None:
    """Print the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see whether it runs")
    print(section(quick=parser.parse_args().quick))


if __name__ == "__main__":
    main()
