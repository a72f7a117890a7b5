"""An HTTP server on the loopback interface that serves the files of a folder, as an upstream does.

    with SampleUpstream(folder) as upstream:
        url = upstream.url("fingerprints_dns.csv")
        fetch(url)
        upstream.requests[0].status

It keeps to the rules; `misbehaving` is for upstreams that do not. A file can change at any
time, best by renaming another one over it.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from dev.servers.loopback import HOST, LoopbackServer

PIECE_BYTES = 256 * 1024


@dataclass
class Request:
    """A request and how it was answered.

    Attributes:
        method: For example "GET".
        path: With its query, as it came in.
        status: For example 304.
        sent: Bytes of the body that were sent, so far or until the client went away.
    """

    method: str
    path: str
    status: int
    sent: int = 0


class SampleUpstream:
    """A server of files on 127.0.0.1.

    Files get a strong ETag, of their content, and Last-Modified; conditional requests for what is
    unchanged are answered with 304, requests for what is no file below the folder with 404.

    Args:
        folder: The files; they are read anew for each request.
        port: TCP port; 0 takes a free one.
    """

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self._folder = folder.resolve()
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._http = LoopbackServer(partial(_Handler, self._find, self._note), port=port)

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.stop()

    def url(self, name: str = "") -> str:
        """Give the URL of a file, by its path below the folder."""
        return f"http://{HOST}:{self._http.server_port}/{quote(name)}"

    @property
    def requests(self) -> list[Request]:
        """All requests so far, as they are now; the one whose answer was just read is complete."""
        with self._lock:
            return [replace(request) for request in self._requests]

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._requests.clear()

    def _note(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def _find(self, target: str) -> BufferedReader | None:
        """Open the file that a request is for, but none outside the folder."""
        name = unquote(urlsplit(target).path).lstrip("/")
        try:
            path = (self._folder / name).resolve()
            return path.open("rb") if path.is_relative_to(self._folder) else None
        except (OSError, ValueError):
            # Absent, a folder, not readable; a NUL byte in the name.
            return None


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(
        self,
        find: Callable[[str], BufferedReader | None],
        note: Callable[[Request], None],
        *arguments: Any,  # noqa: ANN401 - passed through
    ) -> None:
        self._find = find
        self._note = note
        super().__init__(*arguments)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as in the base class
        """Stay silent: the requests are in `SampleUpstream.requests`."""

    def do_GET(self) -> None:
        """Send the file, or what is to be said instead."""
        file = self._find(self.path)
        if file is None:
            self._send_head(404, {"Content-Length": "0"})
            return
        with file:
            self._answer(file)

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it

    def do_POST(self) -> None:
        """Refuse to change anything."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._send_head(405, {"Allow": "GET, HEAD", "Content-Length": "0"})

    do_PUT = do_DELETE = do_POST  # noqa: N815 - as http.server calls them

    def _answer(self, file: BufferedReader) -> None:
        status = os.fstat(file.fileno())
        # Not from size and time: two changes in one tick of the clock would look like none.
        etag = f'"{hashlib.file_digest(file, "blake2b").hexdigest()[:32]}"'
        changed = datetime.fromtimestamp(int(status.st_mtime), UTC)
        headers = {"ETag": etag, "Last-Modified": format_datetime(changed, usegmt=True)}
        if _is_unchanged(self.headers, etag, changed):
            self._send_head(304, headers)
            return
        headers["Content-Type"] = "application/octet-stream"
        headers["Content-Length"] = str(status.st_size)
        request = self._send_head(200, headers)
        if self.command != "HEAD":
            file.seek(0)
            self._send_body(file, status.st_size, request)

    def _send_head(self, status: int, headers: Mapping[str, str]) -> Request:
        # Noted before the answer: who has read it must find it among the requests.
        request = Request(self.command, self.path, status)
        self._note(request)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        return request

    def _send_body(self, file: BufferedReader, size: int, request: Request) -> None:
        while request.sent < size:
            piece = file.read(min(PIECE_BYTES, size - request.sent))
            if not piece:
                # The file has become shorter, and the client must notice.
                self.close_connection = True
                return
            request.sent += len(piece)
            try:
                self.wfile.write(piece)
            except OSError:
                request.sent -= len(piece)
                raise


def _is_unchanged(headers: Message, etag: str, changed: datetime) -> bool:
    """Decide as a server must: If-Modified-Since counts only without If-None-Match."""
    if (tags := headers.get("If-None-Match")) is not None:
        known = [tag.strip().removeprefix("W/") for tag in tags.split(",")]
        return etag in known or "*" in known
    try:
        # These dates are all in GMT, whatever they call it.
        since = parsedate_to_datetime(headers.get("If-Modified-Since", "")).replace(tzinfo=UTC)
    except ValueError:
        return False
    return changed <= since
