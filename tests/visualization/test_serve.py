"""The served review page: who is refused, what is kept, and two readers at once."""

import asyncio
import http.client
import json
import os
import queue
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("starlette", reason="the extra 'serve' is not installed")

from fitted_runs import fitted, pixels

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/(\w+)/")


class Server:
    """A process of 'conocc review --serve'."""

    def __init__(self, run, images, out, config):
        self.command = [sys.executable, "-m", "conocc", "review", run, images, "--out", out]
        self.environment = {**os.environ, "CONOCC_CONFIG": str(config)}
        self.log = run / "verdicts.db"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [*map(str, self.command), "--serve"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )
        lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=lambda: [*map(lines.put, self.process.stdout)])
        self.reader.start()
        said = ""
        while (found := ADDRESS.search(said)) is None:
            said += lines.get(timeout=120)
        self.address, self.port, self.token = found[0], int(found[1]), found[2]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()

    def ask(self, path, method="GET", body=None, **headers):
        """One request as it is, to any path; -> status, text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"/{self.token}/{path}", body, headers)
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found

    def state(self):
        return json.loads(self.ask("state")[1])

    def wait(self, done):
        end = time.monotonic() + 60
        while not done():
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    (root / "new").mkdir()
    for i in range(3):
        Image.fromarray(pixels(i).astype(np.uint8)).save(root / "new" / f"plain{i}.png")
    server = Server(fitted(root), root / "new", root / "review", root / "config")
    yield server
    server.kill()


def png(path, seed) -> bytes:
    Image.fromarray(pixels(seed).astype(np.uint8)).save(path)
    return path.read_bytes()


def test_who_asks_from_elsewhere_is_refused_in_a_sentence(server):
    for path, headers, said in (
        ("", {"Host": "example.org"}, "answers to 127.0.0.1 alone"),
        ("", {"Host": f"127.0.0.1.example.org:{server.port}"}, "answers to 127.0.0.1 alone"),
        ("state", {"Origin": "http://example.org"}, "its own page alone"),
        ("state", {"Origin": "null"}, "its own page alone"),
        ("state", {"Origin": f"https://127.0.0.1:{server.port}"}, "its own page alone"),
    ):
        status, text = server.ask(path, **headers)
        assert (status, said in text) == (403, True), text
    token, server.token = server.token, "guessed"
    try:
        assert server.ask("") == (
            403,
            "The address lacks the token that 'conocc review --serve' printed.",
        )
    finally:
        server.token = token
    assert server.ask("", Origin=f"http://127.0.0.1:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "name", ["..%2Fx.png", "../x.png", "a/b.png", "%2e%2e", ".x", "a%5Cb", "a%00b"]
)
def test_no_name_leads_out_of_the_folder(server, name):
    status, text = server.ask(f"files/{name}", "PUT", b"no")
    assert status == 400
    assert "is no name of a file, without a folder" in text
    assert server.ask(f"images/{name}")[0] == 404


def test_two_gigabytes_are_refused_before_they_are_sent(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("PUT", f"/{server.token}/files/large.png")
    connection.putheader("Content-Length", str(2 * 2**30))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert answer.read().decode() == "'large.png' is larger than 1 GiB. Nothing was kept of it."
    connection.close()


def test_an_image_that_is_dropped_is_scored_and_none_is_replaced(server, tmp_path):
    data = png(tmp_path / "x.png", 7)
    assert server.ask("files/Gr%C3%B6%C3%9Fe%201.png", "PUT", data)[0] == 200
    status, text = server.ask("files/Gr%C3%B6%C3%9Fe%201.png", "PUT", b"other")
    assert (status, "There is a file" in text) == (409, True)
    server.wait(lambda: len((server.state()["page"] or {"cases": []})["cases"]) == 4)
    (case,) = (c for c in server.state()["page"]["cases"] if c["path"].endswith("Größe 1.png"))
    status, text = server.ask(f"images/{case['file']}.js")
    assert (status, case["id"] in text) == (200, True)


@pytest.mark.parametrize("body", ["{", "1", "[1]", "[{}]"])
def test_what_is_no_verdict_is_refused_and_nothing_kept(server, body):
    assert server.ask("verdicts", "POST", body) == (
        400,
        "These are no verdicts. Nothing was kept.",
    )
    assert server.state()["verdicts"] == []


@pytest.fixture
def service(run, tmp_path):
    from conocc.visualization.review import Batch
    from conocc.visualization.serve import Service, Verdicts

    batch = Batch(run, [tmp_path / "new"], tmp_path / "out")
    batch.out.mkdir()
    return Service(batch, Verdicts(tmp_path / "verdicts.db"))


def dropped(service, receive):
    """Drop a file whose size nobody said before; -> status and sentence."""
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    scope = {"type": "http", "headers": [], "path_params": {"name": "a.png"}}
    with pytest.raises(HTTPException) as refused:
        asyncio.run(service.drop(Request(scope, receive)))
    return refused.value.status_code, refused.value.detail


def test_what_turns_out_too_large_is_not_kept(service, monkeypatch):
    monkeypatch.setattr("conocc.visualization.serve.LARGEST", 5)

    async def receive():
        return {"type": "http.request", "body": b"four", "more_body": True}

    status, said = dropped(service, receive)
    assert (status, "'a.png' is larger than" in said) == (413, True)
    assert list(service.dropped.iterdir()) == []


def test_of_two_that_drop_one_name_the_first_is_kept(service):
    async def receive():
        (service.dropped / "a.png").write_bytes(b"first")
        return {"type": "http.request", "body": b"second"}

    status, said = dropped(service, receive)
    assert (status, said) == (409, "There is a file 'a.png' already. Rename the new one.")
    assert [path.read_bytes() for path in service.dropped.iterdir()] == [b"first"]


def test_what_cannot_be_looked_for_is_said_and_looked_for_again(service, tmp_path):
    service.look()
    assert "new" in service.trouble
    (tmp_path / "new").mkdir()
    png(tmp_path / "new" / "x.png", 3)
    service.look()
    assert (service.trouble, len(service.shown["cases"])) == ("", 1)


def test_a_server_of_what_is_not_there_does_not_start(run, tmp_path):
    from conocc.visualization.review import Batch
    from conocc.visualization.serve import serve

    with pytest.raises(ValueError, match="nowhere"):
        serve(Batch(run, [tmp_path / "nowhere"], tmp_path / "out"), announce=pytest.fail)


def test_where_a_port_is_taken_another_is_free():
    from conocc.visualization.serve import _listening

    with _listening(0) as first, _listening(first.getsockname()[1]) as second:
        assert first.getsockname() != second.getsockname()


class Writers:
    """Four programs that write verdicts, and note what was answered."""

    def __init__(self, server):
        self.server, self.kept = server, []
        self.threads = [threading.Thread(target=self.write, args=(who,)) for who in "abcd"]
        for thread in self.threads:
            thread.start()

    def write(self, who):
        try:
            for i in range(200):
                said = {"id": f"image {i % 50}", "verdict": "majority", "who": who, "time": str(i)}
                if self.server.ask("verdicts", "POST", json.dumps([said]))[0] == 200:
                    self.kept.append(said)
        except (OSError, http.client.HTTPException):
            pass  # it was killed


def logged(server, query) -> list[tuple]:
    log = sqlite3.connect(server.log)
    rows = list(log.execute(query))
    log.close()
    return rows


def test_a_log_of_another_program_is_left_alone(tmp_path):
    from conocc.visualization.serve import Verdicts

    for name, data in (("text", b"mine, and no database at all" * 50), ("other", None)):
        path = tmp_path / name
        if data:
            path.write_bytes(data)
        else:
            with sqlite3.connect(path) as other:
                other.execute("CREATE TABLE mine (x)")
            other.close()
        before = path.read_bytes()
        with pytest.raises(ValueError, match="Verdicts cannot be kept in"):
            Verdicts(path)
        assert path.read_bytes() == before


def test_no_connection_that_a_program_opens_takes_the_port_of_a_folder():
    from conocc.visualization.serve import PORTS

    # Linux gives them from 32768 on, macOS and Windows from 49152 on.
    assert 1024 < PORTS[0] < PORTS[-1] < 32768


def test_two_readers_and_four_programs_lose_nothing_when_the_server_dies(server, browser):
    def js(script, *args):
        return browser.execute_script(script, *args)

    def soon(script):
        server.wait(lambda: js(f"return {script}"))

    browser.get("about:blank")
    browser.get_log("browser")
    size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    first = browser.current_window_handle
    browser.get(server.address)
    soon("Boolean(shown)")
    assert browser.get_log("browser") == []
    js("$('who').value = 'Ada'; $('who').dispatchEvent(new Event('input')); judge(1)")
    soon("!Object.values(verdicts).some((one) => one.unsent)")
    writers = Writers(server)
    server.wait(lambda: len(writers.kept) > 100)
    server.kill()
    for thread in writers.threads:
        thread.join()
    js("go(1); judge(3)")
    soon("!$('trouble').hidden && $('trouble').textContent === SILENT")
    address = server.address
    server.start()
    assert server.address == address
    answered = {(said["id"], said["who"], said["time"]) for said in writers.kept}
    assert answered <= set(logged(server, "SELECT id, who, time FROM verdicts"))
    soon("$('trouble').hidden && !Object.values(verdicts).some((one) => one.unsent)")
    ids = js("return visible.slice(0, 2).map(({id}) => id)")
    # Another reader, in a browser that knows nothing.
    js("localStorage.clear()")
    browser.switch_to.new_window("window")
    browser.get(server.address)
    soon("Boolean(shown)")
    soon(f"verdicts['{ids[1]}']?.verdict === 'unusable'")
    js("open(entries.find(({id}) => id === arguments[0]))", ids[1])
    assert "verdict by Ada" in js("return $('facts').textContent")
    js("$('who').value = 'Grace'; judge(4)")
    query = f"SELECT who, verdict FROM verdicts WHERE id = '{ids[1]}' ORDER BY seq"
    both = [("Ada", "unusable"), ("Grace", "second look")]
    server.wait(lambda: logged(server, query) == both)
    browser.close()
    browser.switch_to.window(first)
    soon(f"verdicts['{ids[1]}'].who === 'Grace' && verdicts['{ids[1]}'].verdict === 'second look'")
