"""Nothing that is read from disk is executed: the source is searched, and every loader tried."""

from __future__ import annotations

import ast
import io
import json
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import conocc
from conftest import quick
from conocc import load_cohort
from conocc.data.cache import lookup
from conocc.detectors import load
from conocc.experiments.artifacts import Embedding, Gallery
from conocc.experiments.tables import read_row
from conocc.visualization.report import write_report
from made_images import read_image
from made_runs import write_run

# Modules that run what they read, or exist to run something.
FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "runpy", "code", "imp"}
FORBIDDEN |= {"subprocess", "pty", "codeop", "jsonpickle"}
# Calls that do, by the last part of their names.
CALLS = {"eval", "exec", "compile", "__import__", "read_pickle", "system", "popen", "from_string"}


def called(node: ast.Call) -> tuple[str, str]:
    """The name before the dot of what is called, if it is a plain one, and the name after it."""
    if isinstance(node.func, ast.Attribute):
        value = node.func.value
        return (value.id if isinstance(value, ast.Name) else "?"), node.func.attr
    return "", node.func.id if isinstance(node.func, ast.Name) else ""


def faults(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = [module] if module else [alias.name for alias in node.names]
            found += [f"{where} imports {n}" for n in names if n.split(".")[0] in FORBIDDEN]
        if isinstance(node, ast.Call):
            owner, name = called(node)
            # `network.eval()` and `re.compile` are other things.
            if name in CALLS and (owner, name) != ("re", "compile") and not is_method(node, name):
                found.append(f"{where} calls {name}")
            if (owner, name) in {("torch", "load"), ("joblib", "load")}:
                found.append(f"{where} calls {owner}.load")
            if (owner, name) == ("np", "load") and not without_pickles(node):
                found.append(f"{where} calls np.load without allow_pickle=False")
    return found


def is_method(node: ast.Call, name: str) -> bool:
    return name == "eval" and isinstance(node.func, ast.Attribute) and not node.args


def without_pickles(node: ast.Call) -> bool:
    return any(
        word.arg == "allow_pickle"
        and isinstance(word.value, ast.Constant)
        and word.value.value is False
        for word in node.keywords
    )


def test_the_source_has_nothing_that_executes_what_it_reads():
    sources = sorted(Path(conocc.__file__).parent.rglob("*.py"))
    assert len(sources) > 80
    assert [fault for path in sources for fault in faults(path)] == []


def test_the_search_finds_what_it_is_for(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "import pickle, os\nimport numpy as np\nimport torch\n"
        "np.load('x')\nnp.load('x', allow_pickle=True)\ntorch.load('x')\n"
        "eval('1')\nos.system('ls')\n"
    )
    assert len(faults(path)) == 6


# --- every loader is tried ---------------------------------------------------------------------


class Planted:
    """Whoever unpickles it makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def planted(tmp_path):
    """The thing itself; that nothing made its file is asserted at the end."""
    mark = tmp_path / "executed"
    pickle.loads(pickle.dumps(Planted(mark)))
    assert mark.exists(), "it must do harm where it is unpickled"
    mark.unlink()
    yield Planted(mark)
    assert not mark.exists()


def array_of(planted: Planted, n: int = 4) -> bytes:
    """An NPY file whose values are objects."""
    file = io.BytesIO()
    np.save(file, np.array([planted] * n, dtype=object), allow_pickle=True)
    return file.getvalue()


def with_member(path: Path, name: str, content: bytes) -> None:
    """Put another member in the place of one of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for one, own in {**members, name: content}.items():
            archive.writestr(one, own)


@pytest.mark.parametrize("name", ["images", "labels", "patient", "split"])
def test_an_archive_of_objects_is_refused(planted, name, tmp_path):
    path = tmp_path / "set.npz"
    n = 4
    arrays = {"labels": np.arange(n), "patient": np.arange(n), "split": np.array(["train"] * n)}
    np.savez(path, images=np.zeros((n, 16, 16)), **arrays)
    with_member(path, f"{name}.npy", array_of(planted))
    with pytest.raises(ValueError, match="holds Python objects"):
        load_cohort(path, majority="0", cache=False)


def test_an_image_of_objects_is_refused(planted, tmp_path):
    (tmp_path / "x.npy").write_bytes(array_of(planted))
    with pytest.raises(ValueError, match="Cannot read"):
        read_image(tmp_path / "x.npy")


def test_a_pickle_is_no_image_model_row_or_run(planted, tmp_path):
    run = write_run(tmp_path / "run")
    torch.save({"planted": planted}, tmp_path / "torch")
    for content in (pickle.dumps(planted), (tmp_path / "torch").read_bytes()):
        for name in ("x.png", "x.npy", "x.safetensors", "x.json"):
            (tmp_path / name).write_bytes(content)
        (run / "run.json").write_bytes(content)
        (run / "metrics.json").write_bytes(content)
        for read, path in (
            (read_image, tmp_path / "x.png"),
            (read_image, tmp_path / "x.npy"),
            (load, tmp_path / "x.safetensors"),
            (read_row, tmp_path / "x.json"),
            (write_report, run),
        ):
            with pytest.raises(ValueError, match="Cannot read"):
                read(path)


@pytest.mark.parametrize(("kind", "file"), [(Gallery, "gallery"), (Embedding, "embedding")])
def test_evidence_of_objects_is_refused(planted, kind, file, tmp_path):
    path = write_run(tmp_path / "run") / f"{file}.npz"
    for name in ("format", "minority"):
        with_member(path, f"{name}.npy", array_of(planted))
        with pytest.raises(ValueError, match="Cannot read"):
            kind.load(path)


def test_a_checkpoint_of_objects_is_refused_or_left(planted, images, tmp_path):
    for content in (pickle.dumps(planted), array_of(planted)):
        (tmp_path / "checkpoint").write_bytes(content)
        with pytest.raises(ValueError, match="checkpoint"):
            quick("cae", epochs=1).fit(images, checkpoint=tmp_path / "checkpoint")


def test_a_cache_of_objects_is_not_used(planted, tmp_path, monkeypatch):
    """Even with the checksum that is right."""
    content = array_of(planted)
    (tmp_path / "k.npy").write_bytes(content)
    facts = {"bytes": len(content), "crc32": zlib.crc32(content), "facts": {}}
    (tmp_path / "k.json").write_text(json.dumps(facts))
    assert lookup(tmp_path, "k", 4) is None
