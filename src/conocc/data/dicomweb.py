"""Images from a DICOMweb server, as files in a private folder, and DICOM objects to such a server.

``dicomweb:https://HOST/PATH/studies/STUDY``, the same with ``/series/SERIES``, and
``dicomweb:https://HOST/PATH?KEYWORD=VALUE`` name images; ``dicomweb:https://HOST/PATH`` a server.
Who asks is known by ``CONOCC_DICOMWEB_USER`` and ``CONOCC_DICOMWEB_PASSWORD``, by
``CONOCC_DICOMWEB_TOKEN``, or by netrc.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread

from conocc.data.cache import own_cache
from conocc.data.decoding import prefetch
from conocc.data.image_io.dicom_header import read_header, text
from conocc.io.files import atomic_write, folder_lock, refuse_made
from conocc.io.progress import bar
from conocc.io.words import count

logger = logging.getLogger("conocc")
logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL + 1)  # it quotes addresses

PREFIX = "dicomweb:"
PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # before a request is sent again
TIMEOUT_S = (10.0, 60.0)  # to be connected; between two pieces of an answer
CONNECTIONS = 4
_UID = r"[0-9.]{1,64}"
# A path of the command line has lost one of two slashes.
_PLACE = re.compile(
    rf"dicomweb:(https?):/+([^?#]+?)(?:/studies/({_UID})(?:/series/({_UID}))?)?/*(?:\?(.*))?"
)
_WHOLE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_AGAIN = {408, 425, 429, *range(500, 600)}  # status of an answer that may be another next time


class Server:
    """A server, and which of its images are meant; `place` is as in the head of this file.

    Raises
    ------
    ValueError
        If it is no such place, holds a password, or is reached without encryption.
    """

    def __init__(self, place: str) -> None:
        found = _PLACE.fullmatch(place)
        host = urlsplit(f"https://{found[2]}").hostname if found else None
        if found is None or not host:
            raise ValueError(
                "A DICOMweb place is dicomweb:https://HOST/PATH, with /studies/UID, /series/UID or "
                "?KEYWORD=VALUE behind it. Nothing was done."
            )
        if "@" in found[2]:  # and the address is not repeated
            raise ValueError(
                "The address holds a password. Put it into netrc, or CONOCC_DICOMWEB_USER and "
                "CONOCC_DICOMWEB_PASSWORD into the environment. Nothing was sent."
            )
        if found[1] == "http" and host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(
                f"Patients' images and passwords do not go unencrypted: '{host}' must be reached "
                "by https, or through a tunnel to this machine. Nothing was sent."
            )
        self.host, self.base = host, f"{found[1]}://{found[2].rstrip('/')}"
        self.study, self.series, query = found[3], found[4], found[5]
        self.filters = dict(parse_qsl(query or ""))
        self.session = requests.Session()
        user, password, token = (
            os.environ.get(f"CONOCC_DICOMWEB_{name}") for name in ("USER", "PASSWORD", "TOKEN")
        )
        if token:  # by a function, or netrc would go before it
            self.session.auth = partial(_with_token, token)
        elif user:
            self.session.auth = (user, password or "")
        self.client = DICOMwebClient(self.base, self.session, timeout=TIMEOUT_S)
        self.client.set_http_retry_params(retry=False)
        named = hashlib.sha256(place.encode()).hexdigest()[:16]
        self.folder = own_cache() / "dicomweb" / named

    def fetch(self, folder: Path, *, verbose: int = 0) -> None:
        """Fetch all images that are not in a folder yet, each whole or not at all.

        Raises
        ------
        ConnectionError
            If the server does not give them, also when asked again.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with folder_lock(folder):
            found = self._again(self._search)
            if not found:
                raise ValueError(f"'{self.host}' has no image of this study, series or query.")
            todo = [uids for sop, uids in found.items() if not (folder / f"{sop}.dcm").exists()]
            with bar("Fetching images", len(todo), verbose=verbose) as advance:
                one = partial(self._fetch_one, folder)
                for _ in prefetch(one, todo, n_jobs=CONNECTIONS, handful=1):
                    advance()

    def store(self, folder: Path, *, verbose: int = 0) -> str:
        """Send the objects of a folder that the server does not have; say how many."""
        paths = sorted(folder.glob("*.dcm"))
        new = 0
        with bar("Sending objects", len(paths), verbose=verbose) as advance:
            for path in paths:
                new += self._again(self._store_one, path)
                advance()
        return f"{count(new, 'object')} sent to '{self.host}', which had {len(paths) - new} before."

    def _search(self) -> dict[str, Any]:
        """List the images, each with the UIDs of its study, its series and itself."""
        own = {"0020000D": self.study, "0020000E": self.series, "00080018": None}
        found: dict[str, Any] = {}
        while True:  # until a page has nothing new, since some servers give the first one again
            page = self.client.search_for_instances(
                self.study, self.series, search_filters=self.filters, offset=len(found)
            )
            listed: list[Any] = [
                tuple(one[tag]["Value"][0] if tag in one else own[tag] for tag in own)
                for one in page
            ]
            if not all(re.fullmatch(_UID, str(uid)) for uids in listed for uid in uids):
                raise ValueError("its list of images is damaged")
            if {uids[-1] for uids in listed} <= found.keys():
                return found
            found |= {uids[-1]: uids for uids in listed}

    def _fetch_one(self, folder: Path, uids: tuple[str, ...]) -> None:
        data = self._again(self._instance, *uids)
        with atomic_write(folder / f"{uids[-1]}.dcm", mode=0o600) as temporary:
            temporary.write_bytes(data)

    def _instance(self, study: str, series: str, sop: str) -> bytes:
        url = f"{self.base}/studies/{study}/series/{series}/instances/{sop}"
        answer = self.session.get(url, headers={"Accept": _WHOLE}, timeout=TIMEOUT_S)
        answer.raise_for_status()
        boundary = re.search(r'boundary="?([^";]+)', answer.headers.get("Content-Type", ""))
        marker = b"--" + (boundary[1].encode() if boundary else b"")
        start, end = answer.content.find(b"\r\n\r\n") + 4, answer.content.rfind(b"\r\n" + marker)
        data = answer.content[start:end]
        is_whole = answer.content[end:].startswith(b"\r\n" + marker + b"--")
        if not is_whole or text(read_header(data), "SOPInstanceUID") != sop:
            raise ValueError("it sent a part of an image, or another one")
        return data

    def _store_one(self, path: Path) -> bool:
        """Send an object, unless it is there, as after an answer that was lost."""
        ds = dcmread(path)
        uids = {word: ds[word].value for word in ("StudyInstanceUID", "SOPInstanceUID")}
        if self.client.search_for_instances(search_filters=uids):
            return False
        if self.client.store_instances([ds]).get("FailedSOPSequence"):
            raise ValueError("it does not take an object")
        return True

    def _again(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Do what may fail for a moment, up to five times; its errors quote no address."""
        for pause in (*PAUSES_S, None):
            try:
                return action(*arguments)
            except requests.exceptions.SSLError:
                raise ConnectionError(
                    f"The certificate of '{self.host}' cannot be trusted. REQUESTS_CA_BUNDLE names "
                    "a file with that of your hospital, if it has its own."
                ) from None
            except requests.HTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                reason = f"it answers with status {status}"
                if status in (401, 403):
                    reason += ": set CONOCC_DICOMWEB_USER and CONOCC_DICOMWEB_PASSWORD, or netrc"
                pause = pause if status in _AGAIN else None
            except requests.Timeout:
                reason = "it does not answer in time"
            except requests.ConnectionError:
                reason = "it is not reached, or hung up"
            except (requests.RequestException, LookupError, TypeError, AttributeError):
                reason = "its answer is damaged"
            except ValueError as error:
                reason = str(error)
            if pause is None:
                break
            time.sleep(pause)
        raise ConnectionError(
            f"'{self.host}' does not do what it is asked: {reason}. What was done stays; the same "
            "command goes on."
        )


def _with_token(token: str, request: requests.PreparedRequest) -> requests.PreparedRequest:
    request.headers["Authorization"] = f"Bearer {token}"
    return request


@contextmanager
def as_folders(
    arguments: MutableMapping[str, Any], say: Callable[[str], None], *, verbose: int = 0
) -> Iterator[None]:
    """Put folders in the place of DICOMweb places among the arguments of a command.

    Images (``images``, ``cohort``) are fetched before; ``objects`` are sent once the block ended
    well. The folders are private and stay until then, so that the same command goes on;
    those of images also if ``keep`` names one.
    """
    keep, folders = arguments.get("keep"), list[Path]()

    def folder_of(word: Any) -> Any:
        if not str(word).startswith(PREFIX):
            return word
        server = Server(str(word))
        if not (server.study or server.filters):
            raise ValueError(
                "Say which images of the server: /studies/UID, /studies/UID/series/UID, or a query "
                "such as ?Modality=CT&StudyDate=20260101-20260131. Nothing was done."
            )
        folder = Path(keep or server.folder)
        refuse_made(folder)
        say(
            f"Images of '{server.host}' are copied to '{folder}', with their patients' names"
            f"{'' if keep else '; they are deleted once the command has ended well'}."
        )
        server.fetch(folder, verbose=verbose)
        folders.extend([] if keep else [folder])
        return type(word)(folder)

    if "images" in arguments:
        arguments["images"] = [folder_of(word) for word in arguments["images"]]
    if "cohort" in arguments:
        arguments["cohort"] = folder_of(arguments["cohort"])
    target = None
    if str(objects := arguments.get("objects")).startswith(PREFIX):
        target = Server(str(objects))
        arguments["objects"] = target.folder.with_name(f"{target.folder.name}-out")
        folders.append(arguments["objects"])
    yield
    if target:
        say(target.store(arguments["objects"], verbose=verbose))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
