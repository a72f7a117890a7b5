"""The driver, with a look at the server before anything is sent to it.

In a module of its own, because the driver takes longest to import of all.
"""

from typing import Any

from clickhouse_driver import Client

from ooni_common.database import refuse_old_server


class Driver(Client):  # type: ignore[misc] # untyped
    """A client that works with servers of supported versions only."""

    def establish_connection(self, settings: Any) -> None:
        """Connect unless connected, as before each statement; the handshake has the version.

        Raises:
            ConfigError: the server is too old.
        """
        super().establish_connection(settings)
        refuse_old_server(self.connection.server_info.version_tuple())
