"""A small DICOMweb server for tests, which does at will what servers do when they fail."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import requests
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from torture.orthanc import PASSWORD, USER, Orthanc

STUDY, SERIES = "1.2.3", "1.2.3.9"
BOUNDARY = b"edge"
SLOW_S = 1.0  # longer than anybody waits who asks here
FAULTS = ("status 500", "status 503", "hung up", "half", "cut", "slow", "another", "no list")


def made(seed: int, name: str = "Doe^Jane", series: str = SERIES) -> bytes:
    """Make a CT image of 20 x 24 pixels of noise."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{STUDY}.{100 + seed}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = STUDY, series, "CT"
    ds.PatientName, ds.PatientID = name, "0815"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = 20, 24, 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = np.random.default_rng(seed).integers(0, 255, (20, 24), np.uint8).tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


class Pacs:
    """Images by their SOP Instance UIDs; `fault` is asked before each answer.

    With a real server behind it, what is asked goes there, and faults befall its answers.
    """

    def __init__(
        self,
        n: int,
        fault: Callable[[], str | None] = lambda: None,
        behind: Orthanc | None = None,
    ) -> None:
        self.behind, self.busy = behind, 0
        self.images = {f"{STUDY}.{100 + i}": made(i) for i in range(n)}
        self.stored: dict[str, bytes] = {}
        self.fault, self.asked, self.sent = fault, Counter[str](), Counter[str]()
        self.port, self.certificate, self.httpd = 0, None, None
        self.start()

    def start(self, certificate: Path | None = None) -> None:
        """Listen, on the same port as before; with a certificate, by TLS."""
        handler = type("Handler", (_Handler,), {"pacs": self})
        self.httpd = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.httpd.handle_error = lambda *_: None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.httpd.socket = context.wrap_socket(self.httpd.socket, server_side=True)
        self.port = self.httpd.server_port
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()

    def passed_on(self, request: _Handler, body: bytes | None = None) -> tuple[bytes, str]:
        """Ask the server behind as was asked here; give its answer, and of what type it is."""
        address = f"{self.behind.address}/dicom-web/{request.path.removeprefix('/web/')}"
        names = ("Accept", "Content-Type")
        answer = requests.request(
            request.command,
            address,
            headers={name: request.headers[name] for name in names if name in request.headers},
            data=body,
            auth=(USER, PASSWORD),
            timeout=20,
        )
        answer.raise_for_status()
        return answer.content, answer.headers["Content-Type"]

    def place(self, rest: str = f"/studies/{STUDY}", scheme: str = "http") -> str:
        return f"dicomweb:{scheme}://127.0.0.1:{self.port}/web{rest}"


class _Handler(BaseHTTPRequestHandler):
    pacs: Pacs
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        self.pacs.busy += 1
        try:
            super().handle()
        finally:
            self.pacs.busy -= 1

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        words = parts.path.removeprefix("/web/").split("/")
        known = {**self.pacs.images, **self.pacs.stored}
        if words[-2:-1] == ["instances"]:
            self.pacs.asked[words[-1]] += 1
            fault = self.pacs.fault()
            if self.pacs.behind and fault != "another":
                self._answer(*self.pacs.passed_on(self), fault)
                return
            data = made(99) if fault == "another" else known[words[-1]]
            head = b"--%b\r\nContent-Type: application/dicom\r\n\r\n" % BOUNDARY
            body = head + data + b"\r\n--" + BOUNDARY + b"--\r\n"
            kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}'
            self._answer(body, kind, fault)
            return
        asked = dict(parse_qsl(parts.query))
        if sop := asked.get("SOPInstanceUID"):
            known = {sop: known[sop]} if sop in known else {}
        elif words[0] == "studies":
            known = self.pacs.images
        listed = [
            {
                "0020000D": {"vr": "UI", "Value": [STUDY]},
                "0020000E": {"vr": "UI", "Value": [SERIES]},
                "00080018": {"vr": "UI", "Value": [sop]},
            }
            for sop in known
        ]
        fault, body, kind = self.pacs.fault(), json.dumps(listed).encode(), "application/dicom+json"
        if self.pacs.behind:
            body, kind = self.pacs.passed_on(self)
        self._answer(b'{"no": "list"}' if fault == "no list" else body, kind, fault)

    def do_POST(self) -> None:
        body, answer, kind = self._body(), b"{}", "application/dicom+json"
        fault = self.pacs.fault()
        if self.pacs.behind and fault not in ("status 500", "status 503"):
            answer, kind = self.pacs.passed_on(self, body)
        if fault not in ("status 500", "status 503"):  # others lose the answer alone
            edge = re.search(rb"--[^\r]+", body)[0]
            for part in body.split(edge)[1:-1]:
                data = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
                sop = str(dcmread(BytesIO(data), specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
                self.pacs.sent[sop] += 1
                self.pacs.stored.setdefault(sop, data)
        self._answer(answer, kind, fault)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes, kind: str, fault: str | None) -> None:
        if fault == "hung up":
            self.close_connection = True
            return
        if fault == "slow":
            time.sleep(SLOW_S)
        status = int(fault[-3:]) if fault in ("status 500", "status 503") else 200
        length = len(body)
        if fault == "cut":  # of the length that is said
            body, length = body[: length // 2], length // 2
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body[: length // 2] if fault == "half" else body)
        if fault == "half":
            self.close_connection = True
