"""An HTTP proxy in front of a real server that goes wrong when it is told to.

    with FaultProxy("http://127.0.0.1:8123") as proxy:
        proxy.fail(cut_answer(after=1000), lambda request: request.method == "POST", times=2)
        requests.post(proxy.url, …)

A fault is a function of an `Exchange`; what no rule is for passes unchanged.
"""

import contextlib
import http.client
import itertools
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from dev.servers import loopback
from dev.servers.loopback import HOST, PIECE_BYTES, LoopbackServer, Request

NOT_PASSED = ("connection", "transfer-encoding", "keep-alive")
ALWAYS = 1_000_000


class Exchange(loopback.Exchange):
    """One request, and the ways to answer it.

    Attributes:
        hidden: Headers of the server's answer that are not passed, in lower case.
        renamed: Headers that are passed under another name: in lower case → this.
        changed: What the server is sent for a piece of the request's body.
    """

    def __init__(self, exchange: loopback.Exchange, target: SplitResult) -> None:
        super().__init__(exchange.handler, exchange.request, exchange.stopped)
        self.hidden: list[str] = []
        self.renamed: dict[str, str] = {}
        self.changed: Callable[[bytes], bytes] = bytes
        self._target = target

    @contextlib.contextmanager
    def forwarded(self) -> Iterator[http.client.HTTPResponse]:
        """Let the server answer."""
        headers = {
            name: value
            for name, value in self.request.headers.items()
            if name.lower() not in (*NOT_PASSED, "expect")
        }
        lengths = ("Content-Length", "Transfer-Encoding")
        has_body = any(name in self.request.headers for name in lengths)
        connection = http.client.HTTPConnection(self._target.hostname or "", self._target.port)
        with contextlib.closing(connection):
            connection.request(
                self.request.method,
                self.request.target,
                body=map(self.changed, self.body()) if has_body else None,
                headers=headers,
                encode_chunked="Content-Length" not in headers,
            )
            yield connection.getresponse()

    def pass_head(self, response: http.client.HTTPResponse) -> None:
        """Pass the status and the headers; the body follows in chunks unless it has a length."""
        headers = {
            self.renamed.get(name.lower(), name): value
            for name, value in response.headers.items()
            if name.lower() not in (*NOT_PASSED, *self.hidden)
        }
        if "Content-Length" not in response.headers:
            headers["Transfer-Encoding"] = "chunked"
        self.send_head(response.status, headers, response.reason)


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


@dataclass
class _Rule:
    condition: Condition
    fault: Fault
    times: int


class FaultProxy(LoopbackServer):
    """The proxy, on 127.0.0.1.

    Args:
        target: the server's address.
        tls: speak TLS with clients, by this context.
        host: the address of this machine.
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None, *, host: str = HOST) -> None:
        super().__init__(tls, host=host)
        self._target = urlsplit(target)
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The proxy's address."""
        return self.address

    def fail(self, fault: Fault, when: Condition, times: int = ALWAYS) -> None:
        """Go wrong in this way for so many of the requests that fulfil the condition."""
        with self._lock:
            self._rules.append(_Rule(when, fault, times))

    def heal(self) -> None:
        """Forget all faults, and the requests so far."""
        with self._lock:
            self._rules.clear()
        self.clear()

    def answer(self, exchange: loopback.Exchange) -> None:
        """Answer as the first rule says that is for this request."""
        fault = self._fault(exchange.request)
        fault(Exchange(exchange, self._target))

    def _fault(self, request: Request) -> Fault:
        with self._lock:
            for rule in self._rules:
                if rule.times and rule.condition(request):
                    rule.times -= 1
                    return rule.fault
        return passed


def passed(exchange: Exchange) -> None:
    """Pass everything, as it is."""
    with exchange.forwarded() as response:
        exchange.pass_head(response)
        while piece := response.read1(PIECE_BYTES):
            exchange.send(piece)
        exchange.end()


def answers(status: int, content: bytes = b"", headers: Mapping[str, str] | None = None) -> Fault:
    """Answer so, in the place of the server."""

    def fault(exchange: Exchange) -> None:
        for _ in exchange.body():
            pass
        exchange.answer(status, content, headers)

    return fault


def s3_error(status: int, code: str) -> Fault:
    """Answer as S3 does when it refuses something."""
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>as told</Message></Error>'
    return answers(status, text.encode(), {"Content-Type": "application/xml"})


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


def flip_request(at: float) -> Fault:
    """Change a bit of the request's body, and pass everything.

    Args:
        at: how far into its first piece, from 0 to 1.
    """

    def fault(exchange: Exchange) -> None:
        pieces = itertools.count()

        def changed(piece: bytes) -> bytes:
            content = bytearray(piece)
            if content and not next(pieces):
                content[int(at * len(content))] ^= 1
            return bytes(content)

        exchange.changed = changed
        passed(exchange)

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
            (exchange.close if cut else exchange.end)()

        _pass_until(exchange, after, end)

    return fault


def without(header: str, fault: Fault) -> Fault:
    """Go wrong in this way, and leave out a header of the answer."""

    def hiding(exchange: Exchange) -> None:
        exchange.hidden.append(header.lower())
        fault(exchange)

    return hiding


def renaming(header: str, name: str) -> Fault:
    """Pass everything, with a header under another name."""

    def fault(exchange: Exchange) -> None:
        exchange.renamed[header.lower()] = name
        passed(exchange)

    return fault


def _pass_until(
    exchange: Exchange, after: int, then: Callable[[http.client.HTTPResponse], None]
) -> None:
    with exchange.forwarded() as response:
        exchange.pass_head(response)
        passed_on = 0
        while passed_on < after and (piece := response.read1(min(PIECE_BYTES, after - passed_on))):
            exchange.send(piece)
            passed_on += len(piece)
        then(response)
