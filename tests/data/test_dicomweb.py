"""Images from a DICOMweb server, and objects to one: a small one that fails, and a real Orthanc."""

import json
import subprocess
import sys
import time

import pytest

pytest.importorskip("dicomweb_client", reason="the extra 'dicomweb' is not installed")
pytest.importorskip("highdicom", reason="the extra 'dicom-out' is not installed")

from torture.dicomweb import OTHERS, certificate, strike_once
from torture.folders import may_mount
from torture.orthanc import HAS_ORTHANC, PASSWORD, USER, Orthanc
from torture.pacs import FAULTS, STUDY, Pacs, made

from conocc.data import dicomweb
from conocc.data.dicomweb import Server
from test_cli import call


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of its own, nobody's passwords, and little patience."""
    for name in ("USER", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"CONOCC_DICOMWEB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("CONOCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dicomweb, "PAUSES_S", (0.01, 0.02))
    monkeypatch.setattr(dicomweb, "TIMEOUT_S", (0.3, 0.3))
    return tmp_path / "cache" / "dicomweb"


@pytest.fixture
def pacs():
    one = Pacs(3)
    yield one
    one.stop()


def test_images_of_a_server_are_inspected_scored_reviewed_and_answered(
    pacs, run, tmp_path, own_cache
):
    out = ("--out", tmp_path / "scores.csv", "--dicom-out", pacs.place(""))
    code, said = call("score", run, pacs.place(), *out)
    assert code == 0, said
    assert "Images of '127.0.0.1' are copied to" in said
    assert "7 objects sent to '127.0.0.1', which had 0 before" in said
    assert len(pacs.stored) == 7
    assert "Next: conocc review" in said
    assert str(own_cache) not in said.partition("Next:")[2].splitlines()[0]
    assert list(own_cache.iterdir()) == []
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 4
    assert "Doe" not in said
    code, said = call("score", run, pacs.place(), *out)
    assert "0 objects sent to '127.0.0.1', which had 7 before" in said
    assert set(pacs.sent.values()) == {1}
    code, said = call("review", run, pacs.place(), "--out", tmp_path / "review")
    assert (code, (tmp_path / "review" / "index.html").exists()) == (0, True), said
    code, said = call(
        "data", "inspect", pacs.place(), "--keep", tmp_path / "kept", "--test-size", 0
    )
    assert (code, len(list((tmp_path / "kept").iterdir()))) == (0, 3), said
    code, said = call("score", run, tmp_path / "kept", "--out", tmp_path / "again.csv")
    assert code == 0, said


def test_results_of_conocc_are_no_images_to_be_scored(pacs, run, tmp_path):
    call("score", run, pacs.place(), "--out", tmp_path / "a.csv", "--dicom-out", tmp_path / "to")
    (tmp_path / "to" / "x.dcm").write_bytes(made(0))
    code, said = call("score", run, tmp_path / "to", "--out", tmp_path / "b.csv")
    assert code == 0, said
    assert "7 conocc results" in said
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 2


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork, from 3.12 on
@pytest.mark.parametrize("fault", [*FAULTS[2:6], *OTHERS[:2], OTHERS[3]])
def test_whatever_fails_nothing_is_lost_or_there_twice(fault, tmp_path):
    if fault == "disk full" and not may_mount():
        pytest.skip("nothing may be mounted here")
    assert strike_once(fault, 1, tmp_path, certificate(tmp_path)) == "survived"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("dicomweb:ftp://host/web", "A DICOMweb place is dicomweb:https://HOST/PATH"),
        ("dicomweb:https://me:secret@host/web?x=1", "The address holds a password"),
        ("dicomweb:http://hospital.example/web?x=1", "do not go unencrypted"),
        ("dicomweb:https://localhost:1/web", "Say which images of the server"),
        ("dicomweb:https://localhost:1/web/studies/1.2", "it is not reached, or hung up"),
    ],
)
def test_a_place_that_cannot_be_is_refused_in_a_sentence(place, said, run, tmp_path):
    code, words = call("score", run, place, "--out", tmp_path / "scores.csv")
    assert code == 1
    assert said in " ".join(words.split())
    assert "secret" not in words
    assert not (tmp_path / "scores.csv").exists()


def test_another_command_refuses_a_server(pacs):
    code, said = call("fit", pacs.place(), "--majority", "x", "--out", "run")
    assert code == 1
    assert "takes no place of a DICOMweb server" in said


def test_who_asks_is_known_from_the_environment_or_netrc(pacs, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("torture.pacs._Handler._answer", _and_note(seen))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    (tmp_path / "netrc").chmod(0o600)
    Server(pacs.place()).fetch(tmp_path / "a")
    monkeypatch.setenv("CONOCC_DICOMWEB_USER", "you")
    Server(pacs.place()).fetch(tmp_path / "b")
    monkeypatch.setenv("CONOCC_DICOMWEB_TOKEN", "t0ken")
    Server(pacs.place()).fetch(tmp_path / "c")
    assert [word.partition(" ")[0] for word in dict.fromkeys(seen)] == ["Basic", "Basic", "Bearer"]


def _and_note(seen):
    from torture.pacs import _Handler

    answer = _Handler._answer

    def noting(self, *arguments):
        seen.append(self.headers["Authorization"])
        answer(self, *arguments)

    return noting


# --- a real PACS -----------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_ORTHANC, reason="there is no Orthanc (Debian: orthanc-dicomweb)")
def test_orthanc_gives_images_and_takes_reports(run, tmp_path, monkeypatch, own_cache):
    """Store 20 images, score them, be killed in the middle, go on, read the reports back."""
    monkeypatch.setattr(dicomweb, "TIMEOUT_S", (10, 60))
    server = Orthanc(tmp_path / "orthanc")
    try:
        for i in range(20):
            (tmp_path / "x.dcm").write_bytes(made(i))
            server.put(tmp_path / "x.dcm")
        place = f"{server.place}/studies/{STUDY}"
        code, said = call("score", run, place, "--out", tmp_path / "scores.csv")
        assert (code, "status 401" in said, PASSWORD in said) == (1, True, False)
        monkeypatch.setenv("CONOCC_DICOMWEB_USER", USER)
        monkeypatch.setenv("CONOCC_DICOMWEB_PASSWORD", PASSWORD)
        out = ("--out", tmp_path / "scores.csv", "--dicom-out", server.place)
        child = subprocess.Popen(
            [sys.executable, "-m", "conocc", "score", run, place, *map(str, out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while child.poll() is None and server.asked("/statistics")["CountInstances"] < 25:
            time.sleep(0.02)
        child.kill()
        child.wait()
        before = server.asked("/statistics")["CountInstances"]
        assert before >= 25
        code, said = call("score", run, place, *out)
        assert code == 0, said
        assert server.asked("/statistics")["CountInstances"] == 20 + 41
        assert server.asked("/statistics")["CountStudies"] == 1
        found = json.dumps([server.asked(f"/series/{one}") for one in server.asked("/series")])
        assert all(f": {kind}" in found for kind in ("report", "picture", "map"))
        assert list(own_cache.iterdir()) == []
        for path in tmp_path.glob("scores*"):
            assert PASSWORD not in path.read_text()
            assert "Doe" not in path.read_text()
        assert PASSWORD not in said
        assert "Doe" not in said
    finally:
        server.stop()


@pytest.mark.skipif(not HAS_ORTHANC, reason="there is no Orthanc (Debian: orthanc-dicomweb)")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork, from 3.12 on
@pytest.mark.parametrize("fault", ["half", "server killed"])
def test_whatever_fails_before_orthanc_nothing_is_lost_or_there_twice(fault, tmp_path):
    server = Orthanc(tmp_path / "orthanc")
    try:
        assert strike_once(fault, 1, tmp_path, orthanc=server) == "survived"
    finally:
        server.stop()
