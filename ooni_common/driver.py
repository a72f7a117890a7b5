"""The driver, with a look at the server before anything is sent to it.

In a module of its own, because the driver takes longest to import of all.
"""

from collections.abc import Sequence
from typing import Any

from clickhouse_driver import Client

from ooni_common.errors import ConfigError

OLDEST_SERVER = (24, 8)  # with older ones nothing is tried


class Driver(Client):  # type: ignore[misc] # untyped
    """A client that works with servers of supported versions only."""

    def establish_connection(self, settings: Any) -> None:
        """Connect unless connected, as before each statement; the handshake has the version.

        Raises:
            ConfigError: the server is too old.
        """
        super().establish_connection(settings)
        refuse_old_server(self.connection.server_info.version_tuple())


def refuse_old_server(version: Sequence[int]) -> None:
    """Raise ConfigError for a server that is older than what the tools are made for."""
    if tuple(version[:2]) < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise ConfigError(
            f"database: ClickHouse {'.'.join(map(str, version))} is too old; {oldest} is the oldest"
            " supported version; upgrade the server"
        )
