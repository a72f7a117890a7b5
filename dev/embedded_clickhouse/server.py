"""The listening sockets: a thread for each client, and an orderly end."""

import contextlib
import socket
import socketserver
import sys
import threading
import traceback
from collections.abc import Callable

from dev.embedded_clickhouse.engine import Engine
from dev.embedded_clickhouse.errors import ConnectionLost
from dev.embedded_clickhouse.http import Context, HTTPSessions, serve_http
from dev.embedded_clickhouse.native import NativeConnection
from dev.embedded_clickhouse.watch import Watcher

HOST = "127.0.0.1"
_SHUTDOWN_POLL_SECONDS = 0.05


class ListenError(Exception):
    """A port cannot be listened on; the text says which and why in one line."""


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, serve: Callable[[socket.socket], None]) -> None:
        super().__init__((HOST, port), socketserver.BaseRequestHandler)
        self._serve = serve
        self._clients: set[socket.socket] = set()

    def finish_request(self, request: object, _address: object) -> None:
        """Talk to one client, in its own thread."""
        if isinstance(request, socket.socket):
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clients.add(request)
            with contextlib.suppress(ConnectionLost, OSError):
                self._serve(request)
            self._clients.discard(request)

    def cut(self) -> None:
        """Close every client's connection, in the middle of whatever it does."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, _request: object, _address: object) -> None:
        """Note what must not happen; the other clients go on."""
        traceback.print_exc(file=sys.stderr)


class Server:
    """Both protocols in front of one engine.

    Args:
        engine: what answers.
        tcp: port for the native protocol; 0 takes a free one.
        http: port for HTTP; 0 takes a free one.

    Attributes:
        tcp: the port in use.
        http: the port in use.

    Raises:
        ListenError: a port is taken.
    """

    def __init__(self, engine: Engine, tcp: int = 0, http: int = 0) -> None:
        self._engine = engine
        watcher = Watcher(engine.kill)
        sessions = HTTPSessions(engine)
        self._listeners = [
            _listen(tcp, lambda client: NativeConnection(client, engine, watcher).serve()),
            _listen(http, lambda client: serve_http(client, Context(engine, watcher, sessions))),
        ]
        self.tcp, self.http = (listener.server_address[1] for listener in self._listeners)

    def start(self) -> None:
        """Accept connections, in the background."""
        for listener in self._listeners:
            arguments = (_SHUTDOWN_POLL_SECONDS,)
            threading.Thread(target=listener.serve_forever, args=arguments, daemon=True).start()

    def cut(self) -> None:
        """Close the connections of all clients; new ones are accepted."""
        for listener in self._listeners:
            listener.cut()

    def stop(self) -> None:
        """Stop accepting, end what runs, close the engine."""
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()
        self._engine.close()


def _listen(port: int, serve: Callable[[socket.socket], None]) -> _Listener:
    try:
        return _Listener(port, serve)
    except OSError as error:
        raise ListenError(f"port {port}: {error.strerror}") from error
