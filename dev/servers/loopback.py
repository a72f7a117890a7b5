"""An HTTP server on the loopback interface, in threads of this process, that ends with all of them.

The standard library's server leaves a thread behind for every connection that a client keeps open.
This one closes the connections first, so that stopping it is quick and leaves nothing.
"""

import os
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

HOST = "127.0.0.1"
POLL_SECONDS = 0.02
NO_LINGER = struct.pack("ii", 1, 0)


class LoopbackServer(ThreadingHTTPServer):
    """A threading HTTP server on 127.0.0.1 that can be stopped while clients are connected.

    Args:
        handler: Makes the request handler of one connection, as `http.server` calls it.
        port: TCP port; 0 takes a free one.
        tls: Speak TLS with this server-side context.
    """

    daemon_threads = False
    request_queue_size = 64

    def __init__(
        self,
        handler: Callable[[Any, Any, Any], BaseHTTPRequestHandler],
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._stopping = False
        self._thread = threading.Thread(
            target=self.serve_forever, args=(POLL_SECONDS,), name="loopback-server"
        )
        super().__init__((HOST, port), handler)

    def server_bind(self) -> None:
        """Bind without the reverse DNS lookup that `HTTPServer` does."""
        TCPServer.server_bind(self)
        self.server_name = HOST
        self.server_port = self.server_address[1]

    def start(self) -> None:
        """Serve in a thread until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection, and wait for all threads to end."""
        self.shutdown()
        with self._lock:
            self._stopping = True
            for connection in self._connections:
                _shut_down(connection)
        self._thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """Note the connection before its thread starts, so that `stop` cannot miss it."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """Serve one connection, after the TLS handshake where there is one."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        # Wrapping takes the file descriptor over from `request`, which is of no use after that.
        with self._tls.wrap_socket(
            request, server_side=True, do_handshake_on_connect=False
        ) as connection:
            self._note(connection)
            try:
                connection.do_handshake()
                super().finish_request(connection, client_address)
            finally:
                self._forget(connection)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as in the base class
        """Close one connection."""
        self._forget(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """Pass over clients that went away; report everything else on standard error."""
        with self._lock:
            stopping = self._stopping
        if not stopping and not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def _note(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)
            if self._stopping:
                _shut_down(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)


def reset(handler: BaseHTTPRequestHandler) -> None:
    """End a handler's connection by a TCP reset, at once."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    # Past the server, which would end the connection in good order first.
    os.close(handler.connection.detach())


def _shut_down(connection: socket.socket) -> None:
    """Wake whoever reads or writes the connection; the owner closes it."""
    try:
        # Not the SSLSocket's own method: it would drop the TLS state under a thread that uses it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return
