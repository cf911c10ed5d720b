"""A real PACS for tests: Orthanc with its DICOMweb plugin, on a free port of the loopback."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

ORTHANC = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
HAS_ORTHANC = ORTHANC is not None and PLUGIN.exists()
USER, PASSWORD = "reader", "planted-secret-0815"


def free_port() -> int:
    """Give a port of the loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Orthanc:
    """A server whose images lie in a folder; it can be stopped, and started on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        folder.mkdir(parents=True)
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def place(self) -> str:
        return f"dicomweb:{self.address}/dicom-web"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = [str(ORTHANC), str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(200):
            try:
                self.asked("/system")
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def asked(self, path: str, data: bytes | None = None, method: str | None = None):
        request = urllib.request.Request(f"{self.address}{path}", data, method=method)
        known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {known}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def put(self, path: Path) -> None:
        self.asked("/instances", path.read_bytes())
