"""The HTTP interface."""

import socket

from dev.embedded_clickhouse.engine import Engine
from dev.embedded_clickhouse.watch import Watcher


class HTTPConnection:
    """One client's connection."""

    def __init__(self, connection: socket.socket, engine: Engine, watcher: Watcher) -> None:
        self._socket = connection
        self._engine = engine
        self._watcher = watcher

    def serve(self) -> None:
        """Answer requests until the client leaves."""
