"""The driver, with a look at the server before anything is sent to it.

In a module of its own, because the driver takes longest to import of all.
"""

from collections.abc import Sequence
from typing import Any

from clickhouse_driver import Client

from ooni_common.errors import ConfigError, Unavailable

OLDEST_SERVER = (24, 8)  # with older ones nothing is tried


class Driver(Client):  # type: ignore[misc] # untyped
    """A client that works with servers of supported versions only, and with one of them."""

    _server = ""

    def establish_connection(self, settings: Any) -> None:
        """Connect unless connected, as before each statement; the handshake has the version.

        A server that hangs accepts the connection and does not greet: what it has for that is the
        time to connect, not that of a statement.

        Raises:
            ConfigError: the server is too old.
            Unavailable: it is another one than before, as behind a proxy to several.
        """
        connection = self.connection
        limit = connection.send_receive_timeout
        connection.send_receive_timeout = connection.connect_timeout
        try:
            super().establish_connection(settings)
        finally:
            connection.send_receive_timeout = limit
        connection.socket.settimeout(limit)
        server = connection.server_info
        refuse_old_server(server.version_tuple())
        self._server = self._server or server.display_name
        if server.display_name != self._server:
            self.disconnect()
            raise Unavailable(
                f"database: the connection was lost, and the next one reached {server.display_name}"
                f" instead of {self._server}; name one server in db_uri, or set cluster"
            )


def refuse_old_server(version: Sequence[int]) -> None:
    """Raise ConfigError for a server that is older than what the tools are made for."""
    if tuple(version[:2]) < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise ConfigError(
            f"database: ClickHouse {'.'.join(map(str, version))} is too old; {oldest} is the oldest"
            " supported version; upgrade the server"
        )
