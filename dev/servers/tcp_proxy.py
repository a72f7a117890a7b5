"""A TCP proxy in front of a server that goes wrong after so many bytes.

    with TcpProxy(lambda: clickhouse.tcp) as proxy:
        proxy.fail(cut, after=1000, answers=True)
        Client("127.0.0.1", proxy.port)

A fault is given a piece of what passes, in which its byte is, and returns what is passed on in its
place; a ConnectionError ends the connection.
"""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable
from typing import Any, Self

from dev.servers.loopback import HOST, PIECE_BYTES, POLL_SECONDS

Fault = Callable[["TcpProxy", bytes], bytes]
Condition = Callable[[bytes], bool]


class TcpProxy:
    """The proxy, on a port of 127.0.0.1 that stays the same when the server's changes.

    Args:
        target: gives the port of the server.

    Attributes:
        port: where it listens.
        healed: is set when what stalls has to go on.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._rule: tuple[Fault, int, bool, Condition] | None = None
        self._passed = {False: 0, True: 0}
        self._connections: set[socket.socket] = set()
        self.healed = threading.Event()
        proxy = self

        class Forward(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy.forward(self.request)

        self._listener = socketserver.ThreadingTCPServer((HOST, 0), Forward)
        self._listener.daemon_threads = True
        self.port: int = self._listener.server_address[1]
        self._thread = threading.Thread(
            target=self._listener.serve_forever, args=(POLL_SECONDS,), name="tcp-proxy"
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.heal()
        self._listener.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            _end(connection)
        self._listener.server_close()

    def fail(
        self,
        fault: Fault,
        *,
        after: int,
        answers: bool,
        when: Condition = lambda _data: True,
    ) -> None:
        """Let one thing go wrong, once.

        Args:
            fault: what.
            after: bytes that pass before it, in one direction, on all connections together.
            answers: count and change what the server sends; otherwise what it is sent.
            when: tells of a piece whether it is the right one.
        """
        with self._lock:
            self._passed = {False: 0, True: 0}
            self.healed.clear()
            self._rule = (fault, after, answers, when)

    def heal(self) -> None:
        """Pass everything as it is, from now on; count from zero."""
        with self._lock:
            self._rule = None
            self._passed = {False: 0, True: 0}
        self.healed.set()

    def passed(self, *, answers: bool) -> int:
        """Return how many bytes have passed since the last call of `fail` or `heal`."""
        with self._lock:
            return self._passed[answers]

    def forward(self, client: socket.socket) -> None:
        """Pass on what comes on a connection, both ways, until it ends."""
        try:
            server = socket.create_connection((HOST, self._target()))
        except OSError:
            _end(client)
            return
        with server:
            self._connections |= {client, server}
            back = threading.Thread(
                target=self._copy, args=(server, client), kwargs={"answers": True}, daemon=True
            )
            back.start()
            self._copy(client, server, answers=False)
            back.join()
            self._connections -= {client, server}

    def _copy(self, source: socket.socket, target: socket.socket, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                fault = self._due(data, answers=answers)
                target.sendall(fault(self, data) if fault else data)
        _end(source)
        _end(target)

    def _due(self, data: bytes, *, answers: bool) -> Fault | None:
        with self._lock:
            self._passed[answers] += len(data)
            if self._rule is None or self._rule[2] != answers:
                return None
            fault, after, _, when = self._rule
            if self._passed[answers] <= after or not when(data):
                return None
            self._rule = None
            return fault


def cut(_proxy: TcpProxy, _data: bytes) -> bytes:
    """End the connection."""
    raise ConnectionAbortedError


def stall(proxy: TcpProxy, data: bytes) -> bytes:
    """Hold it back until the proxy is healed."""
    proxy.healed.wait()
    return data


def flip(_proxy: TcpProxy, data: bytes) -> bytes:
    """Change one bit in the middle of the piece."""
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def calling(action: Callable[[], Any]) -> Fault:
    """Return a fault that does something else at this moment, and passes everything."""

    def fault(_proxy: TcpProxy, data: bytes) -> bytes:
        action()
        return data

    return fault


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
