"""The machine: what it is, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.contest import serve, timed

SIDE = 2048
PRODUCTS = 4
PACKAGES = ("torch", "numpy", "keras", "jax")


def processor() -> str:
    """Name of the processor, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def section(*, quick: bool) -> str:
    """Describe the machine and the versions, one sentence a line."""
    import torch

    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{processor()}, {cores} cores, {torch.backends.cpu.get_cpu_capability()}; "
        f"{platform.system()}, Python {platform.python_version()}, {', '.join(versions)}."
    )


def main() -> None:
    """Compete by matrix products in single precision: operations a second.

    The faster of the two libraries at hand counts: on some processors they are far apart.
    """
    import numpy as np
    import torch

    a, out = torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)
    by_torch = partial(torch.mm, a, a, out=out)
    by_numpy = partial(np.matmul, a.numpy(), a.numpy(), out=out.numpy())

    def several(product: Callable[[], object]) -> None:
        for _ in range(PRODUCTS):
            product()

    def measure() -> dict[str, float]:
        answers = [
            timed(partial(several, product), PRODUCTS * 2 * SIDE**3)
            for product in (by_torch, by_numpy)
        ]
        return max(answers, key=lambda answer: answer["rate"])

    serve(measure)


if __name__ == "__main__":
    main()
