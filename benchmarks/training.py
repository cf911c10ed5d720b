"""How fast it trains, beside Keras, a textbook loop, and the machine's matrix products."""

from __future__ import annotations

from benchmarks.contest import Contestant, compete, table
from benchmarks.operations import training_operations

SIDES = (32, 64, 100)
IMAGES = 256
REPEATS = 5
# Whole epochs of one measurement: seconds, so that what a fit does once weighs little.
EPOCHS = {32: 60, 64: 20, 100: 10}
NAMES = {
    "conocc": "`ConOCC.fit`",
    "keras": "Keras on JAX",
    "pytorch": "PyTorch, textbook",
}


def section(*, quick: bool) -> str:
    """Measure and write the table."""
    heads = [
        "",
        "images/s",
        "faster than Keras",
        "than PyTorch",
        "share of matrix rate",
        "peak MiB",
    ]
    tables = []
    for side in (32,) if quick else SIDES:
        contestants = contest(side, 1 if quick else EPOCHS[side], 1 if quick else REPEATS)
        tables.append(f"{side}×{side} pixels:\n\n{table(heads, rows(contestants, side))}")
    return "\n\n".join(tables)


def contest(side: int, epochs: int, repeats: int) -> dict[str, Contestant]:
    """Let all compete at one size, taking turns."""
    contestants = {
        name: Contestant(
            name, ["benchmarks.contestants", name, str(side), str(IMAGES), str(epochs)]
        )
        for name in NAMES
    }
    contestants["machine"] = Contestant("machine", ["benchmarks.machine"])
    compete(list(contestants.values()), repeats)
    return contestants


def rows(contestants: dict[str, Contestant], side: int) -> list[list[str]]:
    """Write medians, ratios and shares, a row for each that trained."""
    machine = contestants["machine"].median("rate")
    rate = {name: contestants[name].median("rate") for name in NAMES}
    written: list[list[str]] = []
    for name, printable in NAMES.items():
        by_keras, by_pytorch = (rate[name] / rate[peer] for peer in ("keras", "pytorch"))
        share = rate[name] * training_operations(side) / machine
        peak = max(answer["peak_mib"] for answer in contestants[name].answers)
        written.append(
            [
                printable,
                f"{rate[name]:.0f}",
                f"{by_keras:.1f}×",
                f"{by_pytorch:.1f}×",
                f"{100 * share:.0f} %",
                f"{peak:.0f}",
            ]
        )
    written.append([f"matrix products, {machine / 1e9:.0f} GFLOP/s", "", "", "", "100%", ""])
    return written
