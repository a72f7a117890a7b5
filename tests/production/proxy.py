"""The TCP proxy in front of OONI's replicas: each connection goes to the next one."""

import contextlib
import itertools
import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

POLL_SECONDS = 0.02


@contextmanager
def round_robin(ports: Sequence[int]) -> Iterator[int]:
    """Forward connections to these ports in turn; give the port to connect to."""
    targets = itertools.cycle(ports)

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", next(targets))) as server:
                back = threading.Thread(target=_copy, args=(server, self.request))
                back.start()
                _copy(self.request, server)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forward) as listener:
        listener.daemon_threads = True
        thread = threading.Thread(target=listener.serve_forever, args=(POLL_SECONDS,))
        thread.start()
        yield listener.server_address[1]
        listener.shutdown()
        thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, until it ends; then end the other side, too."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
