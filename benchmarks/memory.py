"""What a large cohort costs: memory that does not grow with it, time that grows in proportion.

``python -m benchmarks.memory SIDE IMAGES FOLDER`` is one contestant: it trains an epoch on images
in a mapped file and scores them.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.contest import Contestant, clock, compete, serve, table

CASES = ((64, 10_000), (64, 50_000), (64, 200_000), (32, 10_000), (100, 10_000))
QUICK = ((32, 256),)
AT_ONCE = 1000
EVERY_S = 0.02


def section(*, quick: bool) -> str:
    """Measure and write the table."""
    cases = QUICK if quick else CASES
    heads = [
        "pixels",
        "images",
        "anonymous MiB",
        "above start",
        "fit of one epoch, s",
        "scoring, s",
    ]
    heads += ["µs an image in fit", "ns a pixel"]
    rows = []
    for side, n in cases:
        with tempfile.TemporaryDirectory() as folder:
            one = Contestant(
                f"{n} images", ["benchmarks.memory", str(side), str(n), folder], warm_up=False
            )
            compete([one], 1)
        (answer,) = one.answers
        each = answer["fit_s"] / n
        rows.append(
            [
                f"{side}×{side}",
                f"{n:,}".replace(",", " "),
                f"{answer['peak_mib']:.0f}",
                f"{answer['peak_mib'] - answer['start_mib']:.0f}",
                f"{answer['fit_s']:.1f}",
                f"{answer['score_s']:.1f}",
                f"{1e6 * each:.0f}",
                f"{1e9 * each / side**2:.0f}",
            ]
        )
    return table(heads, rows)


def anonymous_mib() -> float:
    """Memory that belongs to no file, in MiB (Linux: RssAnon)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 2**10


@contextmanager
def watched(peaks: list[float]) -> Iterator[None]:
    """Look at the anonymous memory all the while, and add the most of it to `peaks`."""
    done = threading.Event()
    seen = [anonymous_mib()]

    def watch() -> None:
        while not done.wait(EVERY_S):
            seen.append(anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        peaks.append(max(seen))


def written(path: Path, n: int, side: int) -> np.ndarray:
    """Write noise as a file of `n` images, and map it as the cache of a cohort does."""
    images = np.lib.format.open_memmap(path, "w+", np.float32, (n, 1, side, side))
    rng = np.random.default_rng(0)
    for start in range(0, n, AT_ONCE):
        block = images[start : start + AT_ONCE]
        block[:] = rng.random(block.shape, np.float32)
    images.flush()
    return np.load(path, mmap_mode="r")


def main(side: int, n: int, folder: Path) -> None:
    """Compete: memory in MiB, and seconds of an epoch and of scoring."""
    from conocc import ConOCC

    images = written(folder / "images.npy", n, side)
    detector = ConOCC(epochs=1, schedule="joint", random_state=0)
    detector.fit(images[:256])

    def measure() -> dict[str, float]:
        peaks: list[float] = []
        start_mib = anonymous_mib()
        with watched(peaks):
            start = clock()
            detector.fit(images)
            fitted = clock()
            detector.anomaly_score(images)
            scored = clock()
        return {
            "start_mib": start_mib,
            "peak_mib": peaks[0],
            "fit_s": fitted - start,
            "score_s": scored - fitted,
        }

    serve(measure)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
