"""Who scores, and who does a part of it: decoding alone, the network alone, PyOD's autoencoder.

``python -m benchmarks.scorers NAME FOLDER SIZE``, started by `benchmarks.scoring`; the folder holds
JPEG files in ``images`` and a run in ``run``. All rates are files, or images, a second.

Letters: n images, h and w pixels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.contest import serve, timed

CHUNK = 64
Work = Callable[[], object]


def files(folder: Path) -> list[str]:
    """List the JPEG files."""
    return sorted(str(path) for path in (folder / "images").iterdir())


def cores() -> int:
    """Count the cores that may be used."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def decoded(paths: list[str], size: int, spare: int) -> np.ndarray:
    """Decode and resize as one would with Pillow; with `spare`, by its scaled decoding."""
    images = np.empty((len(paths), size, size), np.float32)
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            if spare:
                image.draft("L", (spare * size, spare * size))
            images[i] = image.convert("L").resize((size, size), Image.Resampling.BILINEAR)
    return images


def _decoding(pool: Callable[[int], Executor], folder: Path, size: int) -> Work:
    from conocc.data.preprocessing import SPARE

    paths = files(folder)
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    # Fewer to a chunk where there are few files, so that no core goes without.
    if len(chunks) < 4 * cores():
        chunks = [paths[i :: 4 * cores()] for i in range(4 * cores())]
    decode = partial(decoded, size=size, spare=SPARE)
    executor = pool(cores())
    return lambda: list(executor.map(decode, chunks))


def threads(folder: Path, size: int) -> Work:
    """Decode on threads, of which Pillow lets all run at a time."""
    return _decoding(ThreadPoolExecutor, folder, size)


def processes(folder: Path, size: int) -> Work:
    """Decode in processes, which send the arrays."""
    return _decoding(ProcessPoolExecutor, folder, size)


def network(folder: Path, size: int) -> Work:
    """Score arrays through the public door."""
    from conocc.experiments.run import load_model

    detector = load_model(folder / "run")
    images = decoded(files(folder), size, spare=2)
    return lambda: detector.anomaly_score(images)


def conocc(folder: Path, size: int) -> Work:
    """From files to the table, as ``conocc score`` does it."""
    from conocc.experiments.inference import score_files

    return lambda: score_files(folder / "run", [folder / "images"], folder / "out" / "scores.csv")


def pyod(folder: Path, size: int) -> Work:
    """Score vectors by PyOD's own network."""
    from pyod.models.auto_encoder import AutoEncoder

    vectors = decoded(files(folder), size, spare=2).reshape(-1, size * size)
    detector = AutoEncoder(epoch_num=1, verbose=0, random_state=0).fit(vectors)
    return lambda: detector.decision_function(vectors)


SCORERS = {
    "threads": threads,
    "processes": processes,
    "network": network,
    "conocc": conocc,
    "pyod": pyod,
}


def main() -> None:
    """Do the work that is named, once for each line of the standard input."""
    name, folder, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    work = SCORERS[name](folder, size)
    n = len(files(folder))
    serve(lambda: timed(work, n))


if __name__ == "__main__":
    main()
