"""Damaged files that seek code not run yet, by atheris, through the loaders of `mutations`.

``python -m torture.guided --seconds 600`` needs the extra ``torture``. Half of the time goes to
images, the other loaders share the rest; each is fuzzed from its whole files, in a process of its
own that is started anew when it dies. What a damaged file must not do there it must not do here;
what did is kept in ``--keep``, one file for each place in the code, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

INSTRUMENTED = ["conocc", "PIL", "pydicom", "nibabel", "tifffile"]
SECONDS = 10  # for one file
MEBIBYTES = 3072  # with the imports
LARGEST = 1 << 16  # bytes of a file
LOADERS = (
    *("image", "volume", "cohort", "manifest", "model"),
    *("header", "gallery", "embedding", "row", "run"),
)


# --- one loader, in a process that libFuzzer ends ------------------------------------------------


def fuzz(loader: str, seconds: int, scratch: Path, keep: Path) -> None:
    """Fuzz a loader. A file's first byte chooses the name that it is read under."""
    import atheris

    warnings.simplefilter("error")
    with atheris.instrument_imports(include=INSTRUMENTED):
        from torture import mutations
        from torture.samples import samples

        whole = [sample for sample in samples(scratch) if sample.loader == loader]
        read = mutations.LOADERS[loader]
        folder, corpus = scratch / loader, scratch / "corpus"
        folder.mkdir(exist_ok=True)
        corpus.mkdir(exist_ok=True)
        names = sorted({sample.name for sample in whole})[:256]
        for i, sample in enumerate(whole):
            (folder / sample.name).write_bytes(sample.data)
            with suppress(ValueError, OSError):  # some real files are no images
                read(folder / sample.name)  # what it imports is instrumented too
            (folder / sample.name).unlink()
            first = bytes([names.index(sample.name)])
            (corpus / f"whole-{i}").write_bytes(first + sample.data)

    def one_file(data: bytes) -> None:
        path = folder / names[data[0] % len(names) if data else 0]
        path.write_bytes(data[1:])
        _must_be_good(read, path, data[1:], keep)

    options = [f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEBIBYTES}"]
    options += [f"-max_len={LARGEST}", f"-artifact_prefix={keep}/{loader}-", "-print_final_stats=1"]
    atheris.Setup(["guided", *options, str(corpus)], one_file)
    atheris.Fuzz()


def _must_be_good(read: Callable[[Path], None], path: Path, data: bytes, keep: Path) -> None:
    """Read a file; keep it if that is neither a success nor one sentence."""
    try:
        read(path)
    except (ValueError, OSError, MemoryError) as error:
        if "\n" not in str(error).strip() and str(error):
            return
        _keep(error, path, data, keep)
    except Exception as error:
        _keep(error, path, data, keep)


def _keep(error: Exception, path: Path, data: bytes, keep: Path) -> None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{type(error).__name__}-{Path(frame.filename).stem}-{frame.lineno}"
    kept = keep / f"{path.parent.name}-{place}{path.suffix}"
    if not kept.exists():
        kept.write_bytes(data)
        kept.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))


# --- the command -------------------------------------------------------------------------------


def fuzz_in_child(loader: str, seconds: float, keep: Path) -> tuple[int, int]:
    """Fuzz a loader for so long, in one process after the other; count files and coverage."""
    end = time.monotonic() + seconds
    files = covered = 0
    while (left := int(end - time.monotonic())) > 0:
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "torture.guided", "--loader", loader]
            command += ["--seconds", str(left), "--keep", str(keep), "--scratch", scratch]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        found = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        if found is None:
            raise RuntimeError(f"The fuzzer of {loader} did not start: {done.stderr[-500:]}")
        files += int(found[1])
        covered = max([covered, *map(int, re.findall(r"cov: (\d+)", done.stderr))])
    return files, covered


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600, help="For all loaders together.")
    parser.add_argument("--loader", choices=LOADERS, help="One alone.")
    parser.add_argument("--keep", type=Path, default=Path("torture-kept/guided"))
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.keep.mkdir(parents=True, exist_ok=True)
    if asked.scratch:
        fuzz(asked.loader, asked.seconds, asked.scratch, asked.keep)
    others = len(LOADERS) - 1
    print("| loader | seconds | files | places covered |\n|---|---|---|---|")
    for loader in [asked.loader] if asked.loader else LOADERS:
        share = 1 if asked.loader else 1 / 2 if loader == "image" else 1 / 2 / others
        files, covered = fuzz_in_child(loader, share * asked.seconds, asked.keep)
        print(f"| {loader} | {share * asked.seconds:.0f} | {files} | {covered} |", flush=True)
    kept = sorted(path for path in asked.keep.iterdir() if path.suffix != ".txt")
    for path in kept:
        print(f"Kept: {path}")
    return int(bool(kept))


if __name__ == "__main__":
    sys.exit(main())
