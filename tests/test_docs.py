"""What the pages show runs: Python, commands, and every docstring's example."""

import doctest
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import conocc
from conocc import visualization
from test_cli import call
from test_layers import FILES, SOURCE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


GUIDE = "\n".join(page(name) for name in ("guide", "thresholds", "choosing"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


@pytest.mark.parametrize(
    "text",
    [README, page("python"), page("paper"), page("coming-from")],
    ids=["README", "python", "paper", "coming-from"],
)
def test_the_python_of_a_page_runs(text, tmp_path, monkeypatch):
    """All of it, but what imports a peer that is not installed."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    given = {"majority": (40, 32, 32), "new": (10, 32, 32)}
    names: dict[str, object] = {name: rng.normal(size=shape) for name, shape in given.items()}
    for block in blocks(text, "python"):
        if not re.search(r"^from (pyod|anomalib|monai)", block, flags=re.MULTILINE):
            exec(compile(block, "page", "exec"), names)
    assert len(names) > 5


FITTING = ["data", "fit", "evaluate", "score"]
DECIDING = ["calibrate", "evaluate", "score", "calibrate", "score", "evaluate"]
REPORTING = ["benchmark", "report", "card"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (README, [*FITTING, "review"]),
        (GUIDE, [*FITTING, "explain", "review", "export", *REPORTING, *DECIDING]),
    ],
    ids=["README", "guide"],
)
def test_the_commands_of_a_page_run(text, names, tmp_path, monkeypatch):
    """On made images, in the order of the page, to the letter."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    folders = {"my-images/benign": 8, "my-images/malignant": 8, "new-images": 8}
    for folder, n in {**folders, "more-images/benign": 60}.items():
        (tmp_path / folder).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("conocc ")]
    assert [command[0] for command in commands] == names
    for command in commands:
        code, said = call(*command)
        assert code == 0, said
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 9


def test_the_first_method_of_the_contributors_page_works(tmp_path):
    """It scores what is unlike its mean higher, and saves and thresholds as all methods do."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(block.splitlines()) <= 40
    names: dict[str, object] = {"__name__": "mean"}
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 16) + rng.normal(0, 0.1, (60, 16, 16))
    detector = names["Mean"](random_state=0).fit(ramp[:40])
    new = np.concatenate([ramp[40:], ramp[40:, :, ::-1]])
    assert detector.predict(new).tolist()[20:] == [-1] * 20
    assert (detector.predict(new)[:20] == 1).mean() > 0.5
    detector.save(tmp_path / "m.safetensors")
    again = names["Mean"].load(tmp_path / "m.safetensors")
    assert np.array_equal(again.anomaly_score(new), detector.anomaly_score(new))


def test_the_targets_that_the_pages_name_are_there():
    makefile = (ROOT / "Makefile").read_text()
    pages = README + (ROOT / "CONTRIBUTING.md").read_text()
    for target in set(re.findall(r"(?m)(?:^|`)make ([a-z]+)", pages)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_links_between_the_pages_lead_somewhere():
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)\)", prose):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone of the repository")
def test_the_repository_holds_what_belongs_there():
    """Commands that are tried in it leave tables, pictures and runs behind."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]
    folders = {path.relative_to(ROOT).parts[0] for path in files if path.parent != ROOT}
    assert folders == {
        ".ci",
        ".github",
        "benchmarks",
        "docs",
        "examples",
        "src",
        "tests",
        "torture",
    }
    own = {path.name for path in files if path.parent == ROOT and not path.name.startswith(".")}
    texts = {name for name in own if name.endswith(".md")}
    assert own - texts == {
        "CITATION.cff",
        "Dockerfile",
        "LICENSE",
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
    }
    large = {str(path): path.stat().st_size for path in files if path.stat().st_size > 2**18}
    assert not large


def test_tables_have_a_head_and_rows_of_one_length():
    """A bar in code or after a backslash does not end a cell."""
    for page in PAGES:
        for table in re.findall(r"(?:^\|.*\n?)+", page.read_text(encoding="utf-8"), re.MULTILINE):
            head, rule, *rows = [re.sub(r"`[^`]*`|\\\|", "", row) for row in table.splitlines()] + [
                ""
            ]
            assert re.fullmatch(r"[|: -]+", rule), f"{page.name}: {head}"
            for row in [rule, *rows[:-1]]:
                assert row.count("|") == head.count("|"), f"{page.name}: {row}"


def test_the_api_page_names_all_that_is_public():
    """Whatever `conocc` itself gives out, and each room that says what others may use."""
    listed = page("api")
    for name in {*conocc.__all__, *visualization.__all__} - {"__version__"}:
        assert re.search(rf"[.`]{name}\b", listed), name
    for name in re.findall(r"^   ~(conocc[\w.]+)$", listed, flags=re.MULTILINE):
        room, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(room), last), f"{name} is on the page alone."


def test_each_note_of_research_begins_with_three_figures():
    for note in (ROOT / "docs" / "research").glob("*.md"):
        if note.name != "index.md":
            head = note.read_text(encoding="utf-8").split("\n## ")[0]
            assert "**Three figures to remember:**\n\n- " in head, note.name


def test_a_reader_finds_each_answer_within_two_clicks():
    """The table of the reader's test: its links lead from the start page, its sentences stand."""

    def leads_to(path: Path) -> set[Path]:
        text = path.read_text(encoding="utf-8")
        inside = re.findall(r"\]\(([\w./-]+\.md)", text) + [
            f"{name}.md" for name in re.findall(r"^(?:\w.*<)?([\w/-]+)>?$", text, re.MULTILINE)
        ]
        return {(path.parent / name).resolve() for name in inside}

    once = {path for path in leads_to(ROOT / "docs" / "index.md") if path.exists()}
    reached = {1: once, 2: once.union(*map(leads_to, once))}
    test = ROOT / "docs" / "research" / "readers-test.md"
    rows = re.findall(
        r"^\| .+ \| (\d) \| \[.+\]\((.+)\) \| (.+) \|$", test.read_text(), re.MULTILINE
    )
    assert len(rows) == 10
    for clicks, name, sentence in rows:
        path = (test.parent / name).resolve()
        assert path in reached[int(clicks)], name
        assert sentence in re.sub(r"\*\*", "", path.read_text(encoding="utf-8")), sentence


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_examples_in_docstrings_hold(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    if parts[-1] == "__main__":
        return  # importing it runs the program
    module = importlib.import_module(".".join(["conocc", *parts]).removesuffix(".__init__"))
    assert doctest.testmod(module).failed == 0
