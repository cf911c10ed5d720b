"""The review page over images that grow, for several readers: ``conocc review --serve``.

Only this machine may ask, only from the page itself, and only who knows the token in its address.
What readers say goes into a log in SQLite, a line a verdict, with who and when: none is ever
replaced, and the last one on an image counts. A verdict is answered once it is on the disk.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route

from conocc.data.index import printable
from conocc.data.pseudonyms import pseudonym
from conocc.experiments.run import model_path
from conocc.io.files import atomic_write
from conocc.visualization.html import rendered
from conocc.visualization.review import IMAGES, Batch, is_picture

logger = logging.getLogger("conocc")

LOG, DROPPED = "verdicts.db", "dropped"
MARK = 0x636F6E6F  # by which SQLite tells whose file it is
COLUMNS = ("id", "path", "verdict", "note", "who", "time")
LARGEST = 2**30  # bytes of a file that is dropped
LONGEST = 10_000  # letters of a note
PORTS = range(20000, 32768)  # which no system takes for connections that programs open
LOOK_S = 3.0  # at most so often is the disk looked at for new images
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Verdicts:
    """A log of verdicts in a file of SQLite.

    Raises
    ------
    ValueError
        If the file cannot be written, or is another program's.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._log = sqlite3.connect(path, timeout=30, check_same_thread=False)
            mark, tables = self._log.execute(
                "SELECT application_id, (SELECT count(*) FROM sqlite_master) "
                "FROM pragma_application_id"
            ).fetchone()
            if tables and mark != MARK:
                raise sqlite3.DatabaseError("it is of another program")
            with self._log:
                self._log.execute(f"PRAGMA application_id = {MARK}")
                self._log.execute("PRAGMA synchronous = FULL")
                self._log.execute(
                    "CREATE TABLE IF NOT EXISTS verdicts (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
                    f"{' TEXT, '.join(COLUMNS)} TEXT, UNIQUE (id, who, time))"
                )
        except sqlite3.Error as error:
            raise ValueError(f"Verdicts cannot be kept in '{path}': {error}.") from error

    def add(self, said: Iterable[dict[str, Any]]) -> None:
        """Write verdicts, all or none; one that was sent twice is there once."""
        rows = [[str(one.get(name) or "")[:LONGEST] for name in COLUMNS] for one in said]
        with self._lock, self._log:
            marks = ", ".join("?" * len(COLUMNS))
            into = f"verdicts ({', '.join(COLUMNS)}) VALUES ({marks})"
            self._log.executemany(f"INSERT OR IGNORE INTO {into}", rows)

    def since(self, seq: int) -> list[dict[str, Any]]:
        """Give the last verdict on each image on which there is one after number `seq`."""
        query = f"SELECT max(seq), {', '.join(COLUMNS)} FROM verdicts WHERE seq > ? GROUP BY id"  # noqa: S608
        with self._lock, closing(self._log.execute(query, [seq])) as found:
            return [dict(zip(("seq", *COLUMNS), row, strict=True)) for row in found]


class Guard:
    """Refuses, in a sentence, who asks from elsewhere, and who does not know the token."""

    def __init__(self, app: Any, token: str, port: int) -> None:
        self.app, self.token = app, token
        self.hosts = {f"{host}:{port}" for host in ("127.0.0.1", "localhost")}

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin", "").removeprefix("http://")
        given = scope["path"].split("/")[1]
        refused = None
        if headers.get("host") not in self.hosts:
            refused = "This server answers to 127.0.0.1 alone."
        elif origin and origin not in self.hosts:
            refused = "This server answers its own page alone, and no other one."
        elif not secrets.compare_digest(given.encode(), self.token.encode()):
            refused = "The address lacks the token that 'conocc review --serve' printed."
        app = PlainTextResponse(refused, 403, HEADERS) if refused else self.app
        await app(scope, receive, send)


class Service:
    """What the page asks for."""

    def __init__(self, batch: Batch, verdicts: Verdicts) -> None:
        self.batch, self.verdicts = batch, verdicts
        self.own = list(batch.where)
        self.dropped = batch.out / DROPPED
        self.dropped.mkdir(parents=True, exist_ok=True)
        self.revision, self.trouble = 0, ""
        self.shown: dict[str, Any] = {}
        self.asked = threading.Event()

    def look(self) -> None:
        """Score what is new, and make the page of it."""
        files = [path for path in self.dropped.iterdir() if not path.name.startswith(".")]
        self.batch.where = [*self.own, *([self.dropped] if files else [])]
        try:
            changed = self.batch.update()
            self.trouble = ""
        except Exception as error:  # or nothing would ever be looked at again
            changed, self.trouble = False, printable(error)
        if changed or not self.revision:
            self.shown = self.batch.write() if self.batch.cases else self.batch.page()
            self.revision += 1

    def watch(self) -> None:
        """Look again and again, for as long as any page asks; what is left aside was said."""
        logger.setLevel(logging.WARNING)
        while self.asked.wait():
            self.asked.clear()
            self.look()
            threading.Event().wait(LOOK_S)

    def page(self, request: Request) -> HTMLResponse:
        page = {**self.shown, "revision": self.revision}
        return HTMLResponse(rendered("review.html", {"page": page}, assets="review"), 200, HEADERS)

    def state(self, request: Request) -> JSONResponse:
        self.asked.set()
        seq, revision = (int(request.query_params.get(name, 0)) for name in ("since", "revision"))
        new = self.shown if revision != self.revision else None
        said = self.verdicts.since(seq)
        return JSONResponse(
            {"revision": self.revision, "page": new, "verdicts": said, "trouble": self.trouble},
            headers=HEADERS,
        )

    def picture(self, request: Request) -> FileResponse:
        name = request.path_params["name"]
        if not is_picture(name) or not (self.batch.out / IMAGES / name).is_file():
            raise HTTPException(404, f"There is no picture '{printable(name)}'.")
        return FileResponse(self.batch.out / IMAGES / name, headers=HEADERS)

    async def say(self, request: Request) -> JSONResponse:
        paths = {case["id"]: case["path"] for case in self.shown["cases"]}
        try:
            said = [{**one, "path": paths.get(one["id"], "")} for one in await request.json()]
        except (ValueError, TypeError, KeyError):
            raise HTTPException(400, "These are no verdicts. Nothing was kept.") from None
        self.verdicts.add(said)
        return JSONResponse({"kept": len(said)}, headers=HEADERS)

    async def drop(self, request: Request) -> JSONResponse:
        """Put a file beside the others, whole or not at all, in the place of no other."""
        name = request.path_params["name"]
        path = self.dropped / name
        if name != path.name or name.startswith(".") or "\\" in name or not name.isprintable():
            raise HTTPException(400, f"'{printable(name)}' is no name of a file, without a folder.")
        too_large = f"'{name}' is larger than {LARGEST >> 30} GiB. Nothing was kept of it."
        there = f"There is a file '{name}' already. Rename the new one."
        if int(request.headers.get("content-length", 0)) > LARGEST:
            raise HTTPException(413, too_large)
        if path.exists():
            raise HTTPException(409, there)
        with atomic_write(path) as temporary:
            size = 0
            with temporary.open("wb") as file:
                async for some in request.stream():
                    size += len(some)
                    if size > LARGEST:
                        raise HTTPException(413, too_large)
                    file.write(some)
            if path.exists():  # by now
                raise HTTPException(409, there)
        self.asked.set()
        return JSONResponse({"kept": name}, headers=HEADERS)


async def _sentence(request: Request, error: Exception) -> PlainTextResponse:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, HEADERS)


def log_of(batch: Batch) -> Path:
    """Name the log of verdicts: beside the run's model, or where nobody may write, the page."""
    beside = model_path(batch.run).absolute().parent
    return (beside if os.access(beside, os.W_OK) else batch.out) / LOG


def serve(batch: Batch, *, announce: Callable[[str], None]) -> None:
    """Serve a batch on this machine until Ctrl-C; `announce` is given the address.

    The address of a folder is the same each time, where its port is free: a page that is open
    goes on when the server is back. Its token comes from the user's own key.
    Killed at any time, and started again, it has all that it answered to have kept.

    Raises
    ------
    ValueError
        If verdicts cannot be kept, or images not be looked for.
    """
    batch.out.mkdir(parents=True, exist_ok=True)
    service = Service(batch, Verdicts(log_of(batch)))
    service.look()
    if service.trouble:
        raise ValueError(service.trouble)
    token = pseudonym(f"review server of {batch.out.absolute()}")
    with _listening(PORTS[int(token[1:], 16) % len(PORTS)]) as listening:
        port = listening.getsockname()[1]
        routes = [
            Route("/{token}/", service.page),
            Route("/{token}/state", service.state),
            Route("/{token}/images/{name:path}", service.picture),
            Route("/{token}/verdicts", service.say, methods=["POST"]),
            Route("/{token}/files/{name:path}", service.drop, methods=["PUT"]),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _sentence})
        threading.Thread(target=service.watch, daemon=True).start()
        announce(f"http://127.0.0.1:{port}/{token}/")
        config = uvicorn.Config(Guard(app, token, port), log_config=None, lifespan="off")
        uvicorn.Server(config).run(sockets=[listening])


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:  # taken
        return socket.create_server(("127.0.0.1", 0))
