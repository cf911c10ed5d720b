"""What a GPU does: ``python -m benchmarks.gpu OUT --data DATA``, at most 25 minutes.

========= =========================================================================================
contract  what every method promises (``tests/detectors/test_contract.py``), kept on the card
equality  every method, fitted on the CPU, scores as there on the card; fitted on the card twice,
          it has the same bits
training  images a second of ``ConOCC.fit``, Keras and textbook PyTorch on the same card
protocol  the paper's protocol at 1000 epochs on the cohorts in ``DATA``, several fits at once
========= =========================================================================================

Each leaves its part in ``OUT``, and ``OUT/gpu.md`` holds them all; started again, the command does
what is missing. ``--device cpu --quick`` shows in half a minute that all of it runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.contest import Contestant, compete, table
from conocc.data.phantoms import draw_phantom
from conocc.detectors import METHODS, load, method_class
from conocc.detectors.persistence import learned
from conocc.experiments.tables import write_tables

SAME = 1e-4  # by so much of their spread scores of two devices may differ
IMAGES, EPOCHS, SIDES = 4096, 5, (32, 64, 100)
CONTRACT = Path(__file__).parents[1] / "tests" / "detectors" / "test_contract.py"
CONTRACT_S = 480  # at most
FITS = {
    "random_state": 0,
    "epochs": 3,
    "search_steps": 5,
    "pretrain_epochs": 2,
    "interval": 1,
    "false_alarms": None,
}
SCORES = ("--set", "scored_by=residual,correlation")
BOTH = ("--set", "cae.lr=1e-3,1e-4", *SCORES)
OTHERS = ("--set", "sae.lr=1e-3,1e-4", "--set", "dagmm.bottleneck=256,2")
COHORTS = {
    "chest_xray": ("--size", "100"),
    "lgg-mri-patches": ("--size", "32", "--majority", "tumour"),
    "busi": ("--size", "64", "--majority", "benign", "--majority", "malignant"),
}
STUDIES = [(cohort, "conocc,cae", BOTH) for cohort in COHORTS] + [
    (cohort, "ocsvm,cocsvm,sae,dagmm,dsvdd,lrt,gabor_mahalanobis,anogan", OTHERS)
    for cohort in COHORTS
]


def contract(given: Any) -> str:
    """Run the contract's tests with the card in sight, which each detector then takes."""
    spread = ["-n", "auto"] if find_spec("xdist") else []
    which = ["-k", "cae and identical"] if given.quick else spread
    command = [sys.executable, "-m", "pytest", "-q", *which, "--tb=line", str(CONTRACT)]
    limits: Any = {"timeout": min(CONTRACT_S, given.left()), "cwd": CONTRACT.parents[2]}
    done = subprocess.run(command, capture_output=True, text=True, **limits)
    said = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "/"))]
    return "\n".join([done.stdout.strip().splitlines()[-1], "", *(f"- {line}" for line in said)])


def made(method: str, **params: Any) -> Any:
    """Make a detector that is trained for a moment."""
    known = method_class(method)().get_params()
    return method_class(method)(**{k: v for k, v in FITS.items() if k in known}, **params)


def equality(given: Any) -> str:
    """Compare the scores of each method on both devices, and two fits on the card."""
    size = 16 if given.quick else 64
    drawn = draw_phantom("phantom-mri", size=size, train=60, test_majority=20, test_minority=20)
    x, new = drawn.images[:60], drawn.images[60:]
    rows, variants = [], [(method, {}) for method in METHODS] + [("anogan", {"codes": "encoder"})]
    for method, params in variants:
        with tempfile.TemporaryDirectory() as folder:
            made(method, device="cpu", **params).fit(x).save(f"{folder}/model")
            scores = [
                load(f"{folder}/model").set_params(device=device).anomaly_score(new)
                for device in ("cpu", given.device)
            ]
        off = float(np.abs(scores[1] - scores[0]).max() / (scores[0].std() or 1.0))
        fits = [learned(made(method, device=given.device, **params).fit(x))[0] for _ in range(2)]
        same = all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])
        name = " ".join([method, *params.values()])
        rows.append([name, f"{off:.1e}", "yes" if off < SAME else "NO", "yes" if same else "NO"])
    heads = ["", "scores differ by (of their deviation)", "enough alike", "twice the same bits"]
    return table(heads, rows)


def training(given: Any) -> str:
    """Let all that are installed train on the device, in turns."""
    names = ["conocc", "pytorch"] + ["keras"] * all(map(find_spec, ("keras", "jax")))
    n, epochs, repeats = (64, 1, 1) if given.quick else (IMAGES, EPOCHS, 3)
    rows = []
    for side in SIDES[:1] if given.quick else SIDES:
        module, sizes = "benchmarks.contestants", [str(side), str(n), str(epochs), given.device]
        contestants = [Contestant(name, [module, name, *sizes]) for name in names]
        compete(contestants, repeats)
        rates = [contestant.median("rate") for contestant in contestants]
        rows.append([f"{side}×{side}", *(f"{rate:.0f}" for rate in rates)])
    return table(["images a second", *names], rows)


def protocol(given: Any) -> str:
    """Fit as the paper does, as long as there is time; what was fitted stays."""
    studies = [(Path(given.data or "") / name, *rest) for name, *rest in STUDIES]
    studies = [study for study in studies if given.data and study[0].is_dir()]
    if given.quick:
        studies = [(Path("phantom-ffdm"), "cae", SCORES)]
    found = []
    for where, methods, more in studies:
        folder = given.out / f"{where.name}-{methods.partition(',')[0]}"
        epochs, runs = ("1", "1") if given.quick else ("1000", "3")
        command = [sys.executable, "-m", "conocc", "benchmark", str(where), "--methods", methods]
        command += ["--size", "16"] if given.quick else COHORTS[where.name]
        command += ["--epochs", epochs, "--runs", runs, "--jobs", str(given.jobs), *more]
        command += ["--quiet", "--out", str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            late, ended = False, process.wait(max(given.left(), 1)) == 0
        except subprocess.TimeoutExpired:
            process.terminate()
            late, ended = True, process.wait() == 0
            if any(folder.glob("rows/*.json")):
                write_tables(folder)
        said = "" if ended else "Not all fits are done.\n\n"
        made = folder / "tables" / "benchmark.md"
        found.append(f"{folder.name}:\n\n{said}{made.read_text() if made.exists() else ''}")
        if late:
            raise TimeoutError("\n".join(found))
    return "\n".join(found) or "No cohorts were given (--data)."


SECTIONS: dict[str, Callable[[Any], str]] = {
    each.__name__: each for each in (contract, equality, training, protocol)
}


def main(arguments: list[str] | None = None) -> None:
    """Do what is missing, and write all that is there into one page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], metavar="SECTION")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--data", help="a folder of real cohorts")
    parser.add_argument("--jobs", type=int, default=6, help="fits at once (default: 6)")
    parser.add_argument("--minutes", type=float, default=25.0, help="at most (default: 25)")
    parser.add_argument("--quick", action="store_true", help="only see whether it runs")
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    given.left = lambda: 60 * given.minutes - (time.monotonic() - begun)
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        parser.error("torch finds no CUDA device. See that all of it runs: --device cpu --quick")
    given.out.mkdir(parents=True, exist_ok=True)
    parts = {name: given.out / f"{name}.md" for name in SECTIONS}
    unfinished = {}
    for name in given.sections or SECTIONS:
        if parts[name].exists() or given.left() < 0:
            continue
        try:
            parts[name].write_text(SECTIONS[name](given) + "\n", encoding="utf-8")
            print(f"{name}: done, {given.left() / 60:.1f} minutes left", flush=True)
        except (subprocess.TimeoutExpired, TimeoutError) as error:
            unfinished[name] = f"Not done in time.\n\n{error}"
            print(f"{name}: not done in time", flush=True)
    card = torch.cuda.get_device_name() if given.device == "cuda" else "no card"
    text = [f"# On a GPU\n\n{card}; {machine.section(quick=True)}"]
    for name, part in parts.items():
        words = part.read_text(encoding="utf-8") if part.exists() else unfinished.get(name)
        text += [f"## {name}\n\n{words}"] if words else []
    (given.out / "gpu.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
