"""An HTTP proxy in front of a real server that goes wrong when it is told to.

    with FaultProxy("http://127.0.0.1:8123") as proxy:
        proxy.fail(cut_answer(after=1000), when=is_method("POST"), times=2)
        requests.post(proxy.url, …)

A fault is a function of an `Exchange`; what no rule is for passes unchanged.
"""

import contextlib
import http.client
import itertools
import ssl
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import urlsplit

from dev.servers import loopback
from dev.servers.loopback import LoopbackServer

PIECE = 64 * 1024
NOT_PASSED = ("connection", "transfer-encoding", "keep-alive")


@dataclass(frozen=True)
class Request:
    """A request as it came in."""

    method: str
    target: str


class Exchange:
    """One request, and the ways to answer it."""

    def __init__(self, handler: "_Handler", stopped: threading.Event) -> None:
        self.stopped = stopped
        self.hidden: list[str] = []  # headers of the answer that are not passed, in lower case
        self._handler = handler

    def body(self) -> Iterator[bytes]:
        """Yield the body of the request."""
        yield from self._handler.body()

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        """Answer in the place of the server, after the request was read."""
        for _ in self.body():
            pass
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.send_header("Content-Length", str(len(content)))
        self._handler.end_headers()
        if self._handler.command != "HEAD":
            self._handler.wfile.write(content)

    @contextlib.contextmanager
    def forwarded(self) -> Iterator[http.client.HTTPResponse]:
        """Let the server answer."""
        with self._handler.forwarded() as response:
            yield response

    def send_head(self, response: http.client.HTTPResponse) -> None:
        """Pass the status and the headers; the body follows in chunks unless it has a length."""
        self._handler.send_head(response, self.hidden)

    def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        self._handler.send_piece(data)

    def end(self) -> None:
        """End the body in good order."""
        self._handler.end_body()

    def cut(self) -> None:
        """Reset the connection; what was sent last may never arrive."""
        loopback.reset(self._handler)

    def break_off(self) -> None:
        """Close the connection before the end of the body; all that was sent arrives."""
        self._handler.close_connection = True


Fault = Callable[[Exchange], None]
Condition = Callable[[Request], bool]


def since(first: Condition) -> Condition:
    """All requests, from the first one that fulfils a condition on."""
    begun = threading.Event()

    def condition(request: Request) -> bool:
        if first(request):
            begun.set()
        return begun.is_set()

    return condition


def after(number: int, condition: Condition) -> Condition:
    """The requests that fulfil a condition, without the first ones."""
    seen = itertools.count()
    return lambda request: condition(request) and next(seen) >= number


class FaultProxy:
    """The proxy, on 127.0.0.1.

    Args:
        target: the server's address.
        tls: speak TLS with clients, by this context.
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = "https" if tls else "http"
        self.target = urlsplit(target)
        self._lock = threading.Lock()
        self._rules: list[list[Any]] = []  # condition, fault, times left
        self.requests: list[Request] = []
        self._stopped = threading.Event()
        self._http = LoopbackServer(partial(_Handler, self), tls=tls)

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopped.set()
        self._http.stop()

    @property
    def url(self) -> str:
        """The proxy's address."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_port}"

    def fail(self, fault: Fault, when: Condition, times: int = 1_000_000) -> None:
        """Go wrong in this way for so many of the requests that fulfil the condition."""
        with self._lock:
            self._rules.append([when, fault, times])

    def heal(self) -> None:
        """Forget all faults, and the requests so far."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def handle(self, handler: "_Handler", request: Request) -> None:
        """Answer one request."""
        with self._lock:
            self.requests.append(request)
            fault: Fault = passed
            for rule in self._rules:
                if rule[2] and rule[0](request):
                    rule[2] -= 1
                    fault = rule[1]
                    break
        fault(Exchange(handler, self._stopped))


def passed(exchange: Exchange) -> None:
    """Pass everything, as it is."""
    with exchange.forwarded() as response:
        exchange.send_head(response)
        while piece := response.read1(PIECE):
            exchange.send(piece)
        exchange.end()


def answers(status: int, content: bytes = b"", **headers: str) -> Fault:
    """Answer so, in the place of the server."""
    return lambda exchange: exchange.answer(status, content, **headers)


def s3_error(status: int, code: str) -> Fault:
    """Answer as S3 does when it refuses something."""
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>as told</Message></Error>'
    return answers(status, text.encode(), Content_Type="application/xml")


def cut_request(after: int) -> Fault:
    """Reset the connection when so many bytes of the request's body have come."""

    def fault(exchange: Exchange) -> None:
        come = 0
        for piece in exchange.body():
            come += len(piece)
            if come >= after:
                break
        exchange.cut()

    return fault


def lose_answer() -> Fault:
    """Let the server do what was asked, and reset the connection instead of saying so."""

    def fault(exchange: Exchange) -> None:
        with exchange.forwarded() as response:
            response.read()
        exchange.cut()

    return fault


def cut_answer(after: int) -> Fault:
    """Pass so many bytes of the answer's body, and reset the connection."""

    def fault(exchange: Exchange) -> None:
        _pass_until(exchange, after, lambda _response: exchange.cut())

    return fault


def stall_answer(after: int) -> Fault:
    """Pass so many bytes of the answer's body, and then nothing more."""

    def fault(exchange: Exchange) -> None:
        def stall(_response: http.client.HTTPResponse) -> None:
            exchange.stopped.wait()
            exchange.cut()

        _pass_until(exchange, after, stall)

    return fault


class Gate:
    """A fault that holds requests back until it is opened.

    Attributes:
        reached: whether a request has come.
    """

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        self._then: Fault = passed

    def __call__(self, exchange: Exchange) -> None:
        """Wait; the end of the proxy ends it."""
        self.reached.set()
        while not self._open.wait(0.02):
            if exchange.stopped.is_set():
                return exchange.cut()
        return self._then(exchange)

    def open(self, then: Fault = passed) -> None:
        """Let those that were held back, and all others, end so."""
        self._then = then
        self._open.set()


def end_with(text: bytes, after: int, *, cut: bool = False) -> Fault:
    """Pass so many bytes of the answer's body and this text; end it well or, `cut`, too early.

    `{tag}` in the text is the exception tag of the server's headers.
    """

    def fault(exchange: Exchange) -> None:
        def end(response: http.client.HTTPResponse) -> None:
            tag = response.headers.get("X-ClickHouse-Exception-Tag", "").encode()
            exchange.send(text.replace(b"{tag}", tag))
            (exchange.break_off if cut else exchange.end)()

        _pass_until(exchange, after, end)

    return fault


def without(header: str, fault: Fault) -> Fault:
    """Go wrong in this way, and leave out a header of the answer."""

    def hiding(exchange: Exchange) -> None:
        exchange.hidden.append(header.lower())
        fault(exchange)

    return hiding


def _pass_until(
    exchange: Exchange, after: int, then: Callable[[http.client.HTTPResponse], None]
) -> None:
    with exchange.forwarded() as response:
        exchange.send_head(response)
        passed_on = 0
        while passed_on < after and (piece := response.read1(min(PIECE, after - passed_on))):
            exchange.send(piece)
            passed_on += len(piece)
        then(response)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, proxy: FaultProxy, *arguments: Any) -> None:  # noqa: ANN401 (passed through)
        self._proxy = proxy
        self._chunked = False
        super().__init__(*arguments)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 (as in the base class)
        """Stay silent: the requests are in `FaultProxy.requests`."""

    def do_GET(self) -> None:
        """Answer as the rules say."""
        try:
            self._proxy.handle(self, Request(self.command, self.path))
        except (OSError, http.client.HTTPException):
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (as http.server calls them)

    def handle_expect_100(self) -> bool:
        """Ask for the body: boto3 waits for that."""
        self.send_response_only(100)
        self.end_headers()
        return True

    def body(self) -> Iterator[bytes]:
        """Yield the body of the request."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", "0"))
        while left and (piece := self.rfile.read1(min(left, PIECE))):
            left -= len(piece)
            yield piece

    @contextlib.contextmanager
    def forwarded(self) -> Iterator[http.client.HTTPResponse]:
        """Send the request to the server; give its answer."""
        target = self._proxy.target
        connection = http.client.HTTPConnection(target.hostname or "", target.port or 80)
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in (*NOT_PASSED, "expect")
        }
        has_body = "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        with contextlib.closing(connection):
            connection.request(
                self.command,
                self.path,
                body=self.body() if has_body else None,
                headers=headers,
                encode_chunked="Content-Length" not in headers,
            )
            yield connection.getresponse()

    def send_head(self, response: http.client.HTTPResponse, hidden: Collection[str]) -> None:
        """Pass the status and the headers."""
        self.send_response_only(response.status, response.reason)
        for name, value in response.headers.items():
            if name.lower() not in (*NOT_PASSED, *hidden):
                self.send_header(name, value)
        self._chunked = response.headers.get("Content-Length") is None
        if self._chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_piece(self, data: bytes) -> None:
        """Send a piece of the body."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end_body(self) -> None:
        """End the body in good order."""
        if self._chunked and self.command != "HEAD":
            self.wfile.write(b"0\r\n\r\n")
