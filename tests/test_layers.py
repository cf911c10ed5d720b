"""Who may import whom: a room knows the layers below it, and nothing above or beside."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import conocc

LAYERS = [
    {"_version"},
    {"equations", "networks", "metrics", "io"},
    {"training", "thresholds", "data"},
    {"detectors"},
    {"experiments"},
    {"visualization"},
    {"deploy"},
    {"cli"},
    {"__init__", "__main__"},
]
LAYER = {room: i for i, rooms in enumerate(LAYERS) for room in rooms}
SOURCE = Path(conocc.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Names of the rooms that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "conocc":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("conocc."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("conocc.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_from_layers_below(path):
    room = room_of(path)
    for other in imported(path) - {room}:
        assert LAYER[other] < LAYER[room], f"{room} may not import {other}"


def test_importing_conocc_and_asking_for_help_take_no_torch():
    program = (
        "import sys, conocc\n"
        "from conocc.cli import run\n"
        "assert run(['--help']) == run(['fit', '--help']) == 0\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_every_method_is_importable_from_the_package_itself():
    from conocc.detectors import METHODS

    for method in METHODS.values():
        kind = getattr(conocc, method.class_name)
        assert method.class_name in conocc.__all__
        assert kind.__module__ == f"conocc.detectors.{method.module}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'ConOC'"):
        conocc.ConOC  # noqa: B018


def test_nothing_is_printed_by_the_library():
    """Only the command line prints; rooms log."""
    for path in FILES:
        calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
        prints = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert not prints or room_of(path) == "cli", path
