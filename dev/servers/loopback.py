"""The base of the HTTP servers: on 127.0.0.1, in threads of this process, and gone with their end.

A server is a class with an `answer`:

    class Teapot(LoopbackServer):
        def answer(self, exchange: Exchange) -> None:
            exchange.answer(418)

    with Teapot() as server:
        fetch(server.address)
        server.requests[0].status

The standard library's server waits for every client that keeps its connection open. This one shuts
the connections down first, so that stopping it is quick and leaves no thread.
"""

import os
import socket
import ssl
import struct
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, Self

HOST = "127.0.0.1"
PIECE_BYTES = 64 * 1024
POLL_SECONDS = 0.02
NO_LINGER = struct.pack("ii", 1, 0)


@dataclass
class Request:
    """A request, and how it was answered.

    Attributes:
        method: For example "GET".
        target: Path and query.
        headers: Names are compared without case.
        status: Of the answer; 0 until it begins.
        sent: Bytes of the answer's body so far.
    """

    method: str
    target: str
    headers: Message
    status: int = 0
    sent: int = 0


class Exchange:
    """One request and the means to answer it.

    Attributes:
        handler: The connection, for what has no method here.
        request: The request.
        stopped: Is set when the server stops; what waits, waits for it.
    """

    def __init__(
        self, handler: BaseHTTPRequestHandler, request: Request, stopped: threading.Event
    ) -> None:
        self.handler = handler
        self.request = request
        self.stopped = stopped
        self._chunked = False

    def body(self) -> Iterator[bytes]:
        """Yield the body of the request; it can be read once.

        Raises:
            ConnectionAbortedError: the client has gone in the middle of it.
        """
        file: Any = self.handler.rfile
        if "chunked" in self.request.headers.get("Transfer-Encoding", "").lower():
            while size := int(file.readline().split(b";")[0] or b"-1", 16):
                if size < 0:
                    raise ConnectionAbortedError
                yield file.read(size)
                file.readline()
            while file.readline().strip():
                pass  # trailers
            return
        left = int(self.request.headers.get("Content-Length", "0"))
        while left and (piece := file.read1(min(left, PIECE_BYTES))):
            left -= len(piece)
            yield piece
        if left:  # whoever passes it on must not wait for an answer to half of it
            raise ConnectionAbortedError

    def answer(
        self, status: int, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer."""
        self.send_head(status, {**(headers or {}), "Content-Length": str(len(content))})
        self.send(content)

    def send_head(self, status: int, headers: Mapping[str, str], reason: str | None = None) -> None:
        """Send the status line and these headers, and no others."""
        # Noted before the answer: who has read it must see it among the requests.
        self.request.status = status
        self._chunked = headers.get("Transfer-Encoding") == "chunked"
        self.handler.send_response_only(status, reason)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def send(self, data: bytes) -> None:
        """Send a piece of the body: a chunk, where the headers say that it comes in chunks."""
        if data and self.request.method != "HEAD":
            self.request.sent += len(data)
            self.handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def send_all(self, pieces: Iterable[bytes]) -> None:
        """Send pieces until there are no more or the server stops."""
        for piece in pieces:
            if self.stopped.is_set():
                return
            self.send(piece)

    def end(self) -> None:
        """End the body in good order."""
        if self._chunked and self.request.method != "HEAD":
            self.handler.wfile.write(b"0\r\n\r\n")

    def close(self) -> None:
        """Close the connection after this answer; all that was sent arrives."""
        self.handler.close_connection = True

    def cut(self) -> None:
        """Reset the connection at once; what was sent last may never arrive."""
        self.close()
        connection = self.handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        # Past the server, which would end the connection in good order first.
        os.close(connection.detach())


class LoopbackServer(ThreadingTCPServer, ABC):
    """An HTTP server on 127.0.0.1 that remembers the requests.

    Args:
        tls: Speak TLS with this server-side context.
        host: The address of this machine, for example ::1.

    Attributes:
        stopped: Is set when the server stops.
    """

    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, tls: ssl.SSLContext | None = None, *, host: str = HOST) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.stopped = threading.Event()
        self._tls = tls
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._connections: set[socket.socket] = set()
        super().__init__((host, 0), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(POLL_SECONDS,), name=type(self).__name__
        )

    def __enter__(self) -> Self:
        """Serve in a thread."""
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the port and every connection, and wait for all threads to end."""
        self.stopped.set()
        self.shutdown()
        with self._changed:
            for connection in self._connections:
                _shut_down(connection)
        self._thread.join()
        self.server_close()

    @property
    def address(self) -> str:
        """The URL without a path."""
        host, port = self.server_address[:2]
        name = f"[{host!s}]" if self.address_family == socket.AF_INET6 else HOST
        return f"{'https' if self._tls else 'http'}://{name}:{port}"

    @property
    def requests(self) -> list[Request]:
        """All requests so far, also those that got no answer."""
        with self._changed:
            return list(self._requests)

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._changed:
            self._requests.clear()

    def wait_for_requests(self, count: int, *, timeout: float = 60) -> None:
        """Wait until that many requests have come in.

        Raises:
            TimeoutError: They had not after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                raise TimeoutError(f"{len(self._requests)} of {count} requests after {timeout} s")

    @abstractmethod
    def answer(self, exchange: Exchange) -> None:
        """Answer one request; an OSError ends the connection."""

    def note(self, request: Request) -> None:
        """Remember a request that has come in."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; the TLS handshake is left to its own thread, which reads first."""
        connection, address = super().get_request()
        if self._tls:
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as in the base class)
        """Note the connection before its thread starts, so that the end cannot miss it."""
        with self._changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 (as in the base class)
        """Close one connection."""
        with self._changed:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as in the base class)
        """Pass over clients and servers that went away; show everything else."""
        if not self.stopped.is_set() and not isinstance(sys.exception(), OSError | HTTPException):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopbackServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 (as in the base class)
        """Stay silent: the requests are in `LoopbackServer.requests`."""

    def do_GET(self) -> None:
        """Let the server answer."""
        request = Request(self.command, self.path, self.headers)
        self.server.note(request)
        self.server.answer(Exchange(self, request, self.server.stopped))

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (as http.server calls them)


def _shut_down(connection: socket.socket) -> None:
    """Wake whoever reads or writes the connection; its thread closes it."""
    try:
        # Not the SSLSocket's own method: it would drop the TLS state under a thread that uses it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return
