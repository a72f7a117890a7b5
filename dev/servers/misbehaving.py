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
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Literal

import trustme

from dev.samples.zeros import BLOCK_BYTES, deflate_zeros
from dev.servers.loopback import Exchange, LoopbackServer

MEGABYTE = 1024 * 1024
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"

Behaviour = Callable[[Exchange], None]
Certificate = Literal["private-ca", "self-signed", "expired", "wrong-host"]


class MisbehavingServer(LoopbackServer):
    """An HTTP or HTTPS server on 127.0.0.1.

    Args:
        tls: Speak TLS, with a certificate of a private CA (for 127.0.0.1 and localhost), one signed
            by itself, one of the private CA that has expired or is for another host.

    Attributes:
        ca_file: The private CA's certificate (PEM), where there is TLS; it is there until the end.
    """

    def __init__(self, *, tls: Certificate | None = None) -> None:
        self._routes: dict[str, Behaviour] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="misbehaving-http-")
        self.ca_file = Path(self._folder.name) / "ca.pem"
        super().__init__(server_tls(tls, self.ca_file) if tls else None)

    def __exit__(self, *exception: object) -> None:
        """End the server."""
        super().__exit__(*exception)
        self._folder.cleanup()

    def url(self, path: str = "/") -> str:
        """Give the URL of a path."""
        return self.address + path

    def route(self, path: str, behaviour: Behaviour) -> str:
        """Answer this path (without its query) in this way from now on.

        Returns:
            The path's URL. Other paths are answered with 404.
        """
        self._routes[path] = behaviour
        return self.url(path)

    def answer(self, exchange: Exchange) -> None:
        """Answer as the path is routed."""
        for _ in exchange.body():
            pass
        path = exchange.request.target.partition("?")[0]
        self._routes.get(path, status(404))(exchange)


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
        exchange.answer(200, content, all_headers)

    return behave


def status(
    code: int, *, content: bytes = b"", headers: Mapping[str, str] | None = None
) -> Behaviour:
    """Answer with this status, for example `status(429, headers={"Retry-After": "1"})`."""
    return lambda exchange: exchange.answer(code, content, headers)


def sequence(*behaviours: Behaviour) -> Behaviour:
    """Behave in one way after the other, request by request, and then always in the last one."""
    lock = threading.Lock()
    turns = itertools.chain(behaviours, itertools.repeat(behaviours[-1]))

    def behave(exchange: Exchange) -> None:
        with lock:
            turn = next(turns)
        turn(exchange)

    return behave


def short_body(content: bytes, *, declared: int) -> Behaviour:
    """Declare a Content-Length (bytes), send less, and close the connection."""
    return _broken_off({"Content-Length": str(declared)}, content)


def unfinished_chunks(content: bytes) -> Behaviour:
    """Send one chunk of a chunked body and close the connection without the last, empty one."""
    return _broken_off({"Transfer-Encoding": "chunked"}, content)


def undeclared_body(content: bytes) -> Behaviour:
    """Send a body whose end is the end of the connection, as HTTP/1.0 did."""
    return _broken_off({"Connection": "close"}, content)


def gzipped(content: bytes) -> Behaviour:
    """Answer with a body in the content encoding gzip, asked for or not."""
    return body(gzip.compress(content, mtime=0), headers={"Content-Encoding": "gzip"})


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
    return lambda exchange: exchange.cut() if reset else exchange.close()


def raw(data: bytes) -> Behaviour:
    """Send these bytes in place of an HTTP answer, and close the connection."""

    def behave(exchange: Exchange) -> None:
        exchange.close()
        exchange.send(data)

    return behave


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
        stranger = trustme.CA()
        _load(context, stranger.cert_pem, stranger.private_key_pem)
        return context
    names = ["elsewhere.example"] if kind == "wrong-host" else ["127.0.0.1", "localhost"]
    end = datetime(2020, 1, 1, tzinfo=UTC) if kind == "expired" else None
    authority.issue_cert(*names, not_after=end).configure_cert(context)
    return context


def _load(context: ssl.SSLContext, certificate: trustme.Blob, key: trustme.Blob) -> None:
    with certificate.tempfile() as certificate_file, key.tempfile() as key_file:
        context.load_cert_chain(certificate_file, key_file)
