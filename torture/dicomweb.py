"""Faults of a DICOMweb server, and of those who ask it: nothing lost, nothing twice, one sentence.

``python -m torture.dicomweb --count 500`` has a child fetch six images from a small server and
send four objects to it, while the server fails in one of the ways of `torture.pacs`, is killed,
has a wrong certificate, or the child is killed or its disk is full. The same is then done again,
without a fault: each image must lie there whole and each object be stored, neither asked for nor
sent again if it had come, with no temporary file or lock beside them; and the child that was
struck must have ended well or with one sentence. With ``--orthanc``, a real Orthanc is behind the
small server, which passes on what is asked and has the faults befall the answers; it is Orthanc
that is killed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from conocc.cli.application import _sentence
from conocc.data import dicomweb
from torture.folders import full_disk, may_mount
from torture.orthanc import Orthanc
from torture.pacs import FAULTS, SERIES, STUDY, Pacs, made

IMAGES, OBJECTS = 6, 4
OTHERS = ("server killed", "wrong certificate", "client killed", "disk full")
PATIENCE_S = 60.0


def _work(place: str, folder: Path, objects: Path, timeout_s: float, said: Any) -> None:
    """Do what a command does with a server; send the sentence of an error, if there is one."""
    dicomweb.PAUSES_S, dicomweb.TIMEOUT_S = (0.02, 0.04), (timeout_s, timeout_s)
    try:
        server = dicomweb.Server(place)
        server.fetch(folder)
        dicomweb.Server(place.partition("/studies")[0]).store(objects)
        said.send("")
    except (ValueError, OSError) as error:
        said.send(_sentence(error))


def _child(*arguments: Any) -> tuple[Any, Any]:
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_work, args=(*arguments, there))
    child.start()
    there.close()
    return child, here


def _heard(child: Any, here: Any) -> str | None:
    """Give what a child said; None for one that said nothing."""
    try:
        return here.recv() if here.poll(PATIENCE_S) else "It never ended."
    except EOFError:
        return None
    finally:
        child.join(PATIENCE_S)


def certificate(folder: Path) -> Path:
    """Make a certificate that nobody has signed."""
    key, own, both = (folder / name for name in ("key", "own", "both"))
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1"
    files = ["-keyout", key, "-out", own]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + own.read_bytes())
    return both


def strike_once(
    fault: str,
    seed: int,
    scratch: Path,
    signed: Path | None = None,
    orthanc: Orthanc | None = None,
) -> str:
    """Strike once, begin again; "survived", or what was wrong."""
    rng = random.Random(seed)
    first, n = rng.randrange(2 * (IMAGES + OBJECTS)), rng.choice((1, 1, 2, 99))
    calls = iter(range(10**6))
    pacs = Pacs(
        IMAGES,
        lambda: fault if fault in FAULTS and first <= next(calls) < first + n else None,
        orthanc,
    )
    own = f"/studies/{STUDY}/series/{SERIES}"
    timeout_s, moment_s = (0.9, 1.5) if orthanc else (0.3, 0.15)
    folder, objects = scratch / f"{seed}", scratch / f"{seed}-out"
    folder.mkdir()
    objects.mkdir()
    for i in range(OBJECTS):
        (objects / f"{i}.dcm").write_bytes(made(50 + i, series=f"{SERIES}.1"))
    if orthanc:
        for one in orthanc.asked("/instances"):
            orthanc.asked(f"/instances/{one}", method="DELETE")
        for data in pacs.images.values():
            orthanc.asked("/instances", data)
    try:
        with full_disk(folder, 4096 * rng.randint(1, 8)) if fault == "disk full" else nullcontext():
            if fault == "wrong certificate":
                pacs.stop()
                pacs.start(signed)
            scheme = "https" if fault == "wrong certificate" else "http"
            child, here = _child(pacs.place(own, scheme), folder, objects, timeout_s)
            if fault in ("server killed", "client killed"):
                time.sleep(rng.random() * moment_s)
                if fault == "client killed":
                    os.kill(child.pid, signal.SIGKILL)
                else:
                    (orthanc or pacs).stop()
            said = _heard(child, here)
            before = {path.name: path.read_bytes() for path in folder.glob("*.dcm")}
        if fault == "disk full":  # what it held moves to a disk with room
            for name, data in before.items():
                (folder / name).write_bytes(data)
        if fault == "server killed":
            (orthanc or pacs).start()
        if fault == "wrong certificate":
            pacs.stop()
            pacs.start()
        while pacs.busy:  # with what was asked before
            time.sleep(0.01)
        pacs.fault = lambda: None
        asked, sent = Counter(pacs.asked), Counter(pacs.sent)
        again = _heard(*_child(pacs.place(own), folder, objects, PATIENCE_S))
        wrong = _wrong(pacs, folder, before, said, again, asked, sent, fault)
        return "; ".join(wrong) or "survived"
    finally:
        pacs.stop()


def _wrong(
    pacs: Pacs,
    folder: Path,
    before: dict[str, bytes],
    said: str | None,
    again: str | None,
    asked: Counter[str],
    sent: Counter[str],
    fault: str,
) -> Iterator[str]:
    whole = {f"{sop}.dcm": data for sop, data in pacs.images.items()}
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    if not before.items() <= whole.items():
        yield "an image was there that was not whole"
    if again != "":
        yield f"the second time: {again}"
    if left != whole:
        yield f"in the folder: {sorted(left)}"
    if any((pacs.asked - asked)[name.removesuffix(".dcm")] for name in before):
        yield "an image was fetched that was there"
    if any((pacs.sent - sent)[sop] for sop in sent):
        yield f"sent again {dict(pacs.sent - sent)}"
    there = len(pacs.behind.asked("/instances")) - IMAGES if pacs.behind else len(pacs.stored)
    if there != OBJECTS:
        yield f"stored {there}"
    if fault != "client killed" and (said is None or "\n" in said or "Traceback" in said):
        yield f"it said {said!r}"
    if said and "127.0.0.1:" in said:
        yield f"it said the address: {said}"


def torture(
    count: int, seed: int, scratch: Path, orthanc: Orthanc | None = None
) -> Counter[tuple[str, str]]:
    """Strike `count` times, with each kind of fault in turn."""
    kinds = [*FAULTS, *OTHERS]
    if not may_mount():
        kinds.remove("disk full")
        print("A full disk is not tried: nothing may be mounted here.")
    signed = certificate(scratch)
    results = Counter[tuple[str, str]]()
    for i in range(count):
        fault = kinds[i % len(kinds)]
        result = strike_once(fault, seed * 10**6 + i, scratch, signed, orthanc)
        results[fault, result] += 1
        if result != "survived":
            print(f"{fault}, strike {i}: {result}")
    return results


def main() -> int:
    """Strike, and print how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--orthanc", action="store_true", help="before a real Orthanc")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        behind = Orthanc(Path(scratch) / "orthanc") if options.orthanc else None
        try:
            results = torture(options.count, options.seed, Path(scratch), behind)
        finally:
            behind.stop() if behind else None
    print("| fault | strikes | survived |\n|---|---|---|")
    for fault in dict.fromkeys(fault for fault, _ in results):
        total = sum(n for (kind, _), n in results.items() if kind == fault)
        print(f"| {fault} | {total} | {results[fault, 'survived']} |")
    good = sum(n for (_, result), n in results.items() if result == "survived")
    print(f"{good} of {options.count} survived.")
    return int(good < options.count)


if __name__ == "__main__":
    sys.exit(main())
