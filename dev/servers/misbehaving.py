"""An HTTP server that answers each path as it is told: right, wrong, slowly, or not at all.

    with MisbehavingServer() as server:
        url = server.route("/data.csv", sequence(status(503), body(b"a,b")))
        fetch(url)
        server.requests[0].headers["User-Agent"]

A behaviour is a function of an `Exchange`; the functions below the class make the usual ones.
"""

import gzip
import itertools
import ssl
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from http.client import responses
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal, Self

import trustme

from dev.samples.zeros import BLOCK_BYTES, deflate_zeros
from dev.servers import loopback
from dev.servers.loopback import LoopbackServer

MEGABYTE = 1024 * 1024
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"

Certificate = Literal["private-ca", "self-signed", "expired", "wrong-host"]


@dataclass(frozen=True)
class Request:
    """A request as it came in.

    Attributes:
        method: For example "GET".
        target: Path and query.
        headers: Names are compared without case.
    """

    method: str
    target: str
    headers: Message


class Exchange:
    """One request and the means to answer it.

    Attributes:
        request: The request.
        stopped: Is set when the server stops; a behaviour that waits, waits for it.
    """

    def __init__(self, handler: "_Handler", request: Request, stopped: threading.Event) -> None:
        self.request = request
        self.stopped = stopped
        self._handler = handler

    def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status line and these headers, and no others."""
        lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._handler.wfile.write(data)

    def send_all(self, pieces: Iterable[bytes]) -> None:
        """Send pieces until there are no more or the server stops."""
        for piece in pieces:
            if self.stopped.is_set():
                return
            self.send(piece)

    def close(self, *, reset: bool = False) -> None:
        """Close the connection after this answer, with `reset` at once and by a TCP reset."""
        if reset:
            loopback.reset(self._handler)
        self._handler.close_connection = True


Behaviour = Callable[[Exchange], None]


class MisbehavingServer:
    """An HTTP or HTTPS server on 127.0.0.1.

    Args:
        tls: Speak TLS, with a certificate of a private CA (for 127.0.0.1 and localhost), one signed
            by itself, one of the private CA that has expired or is for another host.
        port: TCP port; 0 takes a free one.

    Attributes:
        ca_file: The private CA's certificate (PEM), where there is TLS; it is there until the end.
    """

    def __init__(self, *, tls: Certificate | None = None, port: int = 0) -> None:
        self._lock = threading.Lock()
        self._routes: dict[str, Behaviour] = {}
        self._requests: list[Request] = []
        self._stopped = threading.Event()
        self._scheme = "https" if tls else "http"
        self._folder = tempfile.TemporaryDirectory(prefix="misbehaving-http-")
        self.ca_file = Path(self._folder.name) / "ca.pem"
        context = server_tls(tls, self.ca_file) if tls else None
        self._http = LoopbackServer(partial(_Handler, self), port=port, tls=context)

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopped.set()
        self._http.stop()
        self._folder.cleanup()

    def url(self, path: str = "/") -> str:
        """Give the URL of a path."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_port}{path}"

    def route(self, path: str, behaviour: Behaviour) -> str:
        """Answer this path (without its query) in this way from now on.

        Returns:
            The path's URL. Other paths are answered with 404.
        """
        with self._lock:
            self._routes[path] = behaviour
        return self.url(path)

    @property
    def requests(self) -> list[Request]:
        """All requests so far."""
        with self._lock:
            return list(self._requests)

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._requests.clear()

    def _answer(self, handler: "_Handler", request: Request) -> None:
        with self._lock:
            self._requests.append(request)
            behaviour = self._routes.get(request.target.partition("?")[0], status(404))
        behaviour(Exchange(handler, request, self._stopped))


def body(
    content: bytes,
    *,
    etag: str | None = None,
    last_modified: datetime | None = None,
    headers: Mapping[str, str] | None = None,
) -> Behaviour:
    """Answer 200 with this body, or 304 to a conditional request for what is unchanged.

    Args:
        content: The body.
        etag: The ETag, with its quotes.
        last_modified: Time of the last change, aware, to the second.
        headers: More headers.
    """
    all_headers = dict(headers or {})
    if etag:
        all_headers["ETag"] = etag
    if last_modified:
        all_headers["Last-Modified"] = _http_date(last_modified)

    def behave(exchange: Exchange) -> None:
        if _is_unchanged(exchange.request.headers, etag, last_modified):
            exchange.send_head(304, all_headers)
            return
        exchange.send_head(200, all_headers | {"Content-Length": str(len(content))})
        if exchange.request.method != "HEAD":
            exchange.send(content)

    return behave


def status(
    code: int, *, content: bytes = b"", headers: Mapping[str, str] | None = None
) -> Behaviour:
    """Answer with this status, for example `status(429, headers={"Retry-After": "1"})`."""
    all_headers = dict(headers or {}) | {"Content-Length": str(len(content))}

    def behave(exchange: Exchange) -> None:
        exchange.send_head(code, all_headers)
        exchange.send(content)

    return behave


def sequence(*behaviours: Behaviour) -> Behaviour:
    """Behave in one way after the other, request by request, and then always in the last one."""
    lock = threading.Lock()
    turns = itertools.chain(behaviours, itertools.repeat(behaviours[-1]))

    def behave(exchange: Exchange) -> None:
        with lock:
            turn = next(turns)
        turn(exchange)

    return behave


def needs_user_agent(behaviour: Behaviour, *, text: str = "") -> Behaviour:
    """Answer 403, as some hosts do, to a request whose User-Agent lacks `text` or is missing."""

    def behave(exchange: Exchange) -> None:
        agent = exchange.request.headers.get("User-Agent")
        (status(403) if agent is None or text not in agent else behaviour)(exchange)

    return behave


def short_body(content: bytes, *, declared: int) -> Behaviour:
    """Declare a Content-Length (bytes), send less, and close the connection."""
    return _broken_off({"Content-Length": str(declared)}, content)


def unfinished_chunks(content: bytes) -> Behaviour:
    """Send one chunk of a chunked body and close the connection without the last, empty one."""
    chunk = b"%x\r\n%b\r\n" % (len(content), content)
    return _broken_off({"Transfer-Encoding": "chunked"}, chunk)


def undeclared_body(content: bytes) -> Behaviour:
    """Send a body whose end is the end of the connection, as HTTP/1.0 did."""
    return _broken_off({"Connection": "close"}, content)


def gzipped(content: bytes) -> Behaviour:
    """Answer with a body in the content encoding gzip, asked for or not."""
    return body(gzip.compress(content, mtime=0), headers={"Content-Encoding": "gzip"})


def truncated_gzip(content: bytes, *, missing: int = 8) -> Behaviour:
    """Answer with a gzip body that lacks its last bytes, under a Content-Length that is right."""
    data = gzip.compress(content, mtime=0)[:-missing]
    return body(data, headers={"Content-Encoding": "gzip"})


def gzip_bomb(megabytes: int) -> Behaviour:
    """Answer with a gzip body of a thousandth of the size to which it grows."""

    def behave(exchange: Exchange) -> None:
        exchange.close()
        exchange.send_head(200, {"Content-Encoding": "gzip", "Connection": "close"})
        exchange.send_all(_gzip_zeros(megabytes * MEGABYTE))

    return behave


def zeros(size: int, *, declared: bool = True) -> Behaviour:
    """Answer with a body of that many zero bytes, with or without a Content-Length."""
    length = {"Content-Length": str(size)} if declared else {"Connection": "close"}

    def behave(exchange: Exchange) -> None:
        exchange.close()
        exchange.send_head(200, length)
        exchange.send_all(itertools.repeat(bytes(BLOCK_BYTES), size // BLOCK_BYTES))
        exchange.send(bytes(size % BLOCK_BYTES))

    return behave


def redirect(location: str, *, code: int = 302) -> Behaviour:
    """Answer with a redirect; one to its own URL makes a loop."""
    return status(code, headers={"Location": location})


def stall(content: bytes, *, after: int) -> Behaviour:
    """Declare and begin a body, and send nothing more after that many bytes."""

    def behave(exchange: Exchange) -> None:
        exchange.close()
        exchange.send_head(200, {"Content-Length": str(len(content))})
        exchange.send(content[:after])
        exchange.stopped.wait()

    return behave


def silence() -> Behaviour:
    """Accept the request and never answer."""

    def behave(exchange: Exchange) -> None:
        exchange.close()
        exchange.stopped.wait()

    return behave


def drip(content: bytes, *, interval: float) -> Behaviour:
    """Send a body byte by byte.

    Args:
        content: The body.
        interval: Seconds between two bytes.
    """

    def slowly(exchange: Exchange) -> Iterator[bytes]:
        for byte in content:
            yield bytes([byte])
            exchange.stopped.wait(interval)

    def behave(exchange: Exchange) -> None:
        exchange.send_head(200, {"Content-Length": str(len(content))})
        exchange.send_all(slowly(exchange))

    return behave


def cut(*, reset: bool = False) -> Behaviour:
    """Close the connection before any answer, with `reset` by a TCP reset."""

    def behave(exchange: Exchange) -> None:
        exchange.close(reset=reset)

    return behave


def raw(data: bytes) -> Behaviour:
    """Send these bytes in place of an HTTP answer, and close the connection."""

    def behave(exchange: Exchange) -> None:
        exchange.close()
        exchange.send(data)

    return behave


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, owner: MisbehavingServer, *arguments: Any) -> None:  # noqa: ANN401 - passed through
        self._owner = owner
        super().__init__(*arguments)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as in the base class
        """Stay silent: the requests are in `MisbehavingServer.requests`."""

    def do_GET(self) -> None:
        """Answer as the path is routed."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        request = Request(self.command, self.path, self.headers)
        self._owner._answer(self, request)  # noqa: SLF001 - the owner's other half

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - as http.server calls them


def _broken_off(headers: Mapping[str, str], content: bytes) -> Behaviour:
    def behave(exchange: Exchange) -> None:
        exchange.close()
        exchange.send_head(200, headers)
        exchange.send(content)

    return behave


def _is_unchanged(headers: Message, etag: str | None, last_modified: datetime | None) -> bool:
    """Decide as a server must: If-Modified-Since counts only without If-None-Match."""
    if (tags := headers.get("If-None-Match")) is not None:
        return etag is not None and etag in [tag.strip() for tag in tags.split(",")]
    since = headers.get("If-Modified-Since")
    if since is None or last_modified is None:
        return False
    return last_modified <= parsedate_to_datetime(since)


def _http_date(time: datetime) -> str:
    return format_datetime(time.astimezone(UTC), usegmt=True)


def _gzip_zeros(size: int) -> Iterator[bytes]:
    yield GZIP_HEADER
    checksum, block = 0, bytes(BLOCK_BYTES)
    for place, piece in enumerate(deflate_zeros(size)):
        yield piece
        left = size - place * BLOCK_BYTES
        checksum = zlib.crc32(block[:left] if left < BLOCK_BYTES else block, checksum)
    yield struct.pack("<II", checksum, size % 2**32)


def server_tls(kind: Certificate, ca_file: Path) -> ssl.SSLContext:
    """Return a server's context with a certificate of this kind; write the CA's to a file."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if kind == "self-signed":
        # An authority's certificate is signed by itself; of another one than the file names.
        other = trustme.CA()
        _load(context, other.cert_pem, other.private_key_pem)
        return context
    names = ["elsewhere.example"] if kind == "wrong-host" else ["127.0.0.1", "localhost"]
    end = datetime(2020, 1, 1, tzinfo=UTC) if kind == "expired" else None
    authority.issue_cert(*names, not_after=end).configure_cert(context)
    return context


def _load(context: ssl.SSLContext, certificate: trustme.Blob, key: trustme.Blob) -> None:
    with certificate.tempfile() as certificate_file, key.tempfile() as key_file:
        context.load_cert_chain(certificate_file, key_file)
