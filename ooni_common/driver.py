"""The driver, with a look at the server before anything is sent to it.

In a module of its own, because the driver takes longest to import of all.
"""

import contextlib
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock, RowOrientedBlock
from clickhouse_driver.errors import UnknownTypeError
from clickhouse_driver.protocol import ServerPacketTypes
from clickhouse_driver.reader import read_binary_str, read_binary_uint8
from clickhouse_driver.streams.native import BlockInputStream
from clickhouse_driver.varint import read_varint

from ooni_common.errors import ConfigError, Unavailable

OLDEST_SERVER = (24, 8)  # with older ones nothing is tried
PIECE_SIZE = 1024 * 1024  # bytes, about
WITH_SERIALIZATIONS = 54454  # the first protocol revision in which columns name theirs


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
            self._connect(settings)
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

    def _connect(self, settings: Any) -> None:
        """Connect to the first host that greets.

        A proxy whose server is away accepts a connection and closes it. The driver tries its other
        hosts only where the connection itself fails.
        """
        hosts = self.connection.hosts
        for left in reversed(range(len(hosts))):
            try:
                super().establish_connection(settings)
            except EOFError:
                self.disconnect()
                if not left:
                    raise
                hosts.rotate(-1)
            else:
                return

    def interrupt(self) -> None:
        """Let a statement fail that another thread waits for; that thread closes the connection."""
        self.connection.disable_reconnect = True  # after its ping
        if waiting := self.connection.socket:
            with contextlib.suppress(OSError):  # it was closed just now
                waiting.shutdown(socket.SHUT_RDWR)

    def texts(
        self, query: str, settings: Mapping[str, Any]
    ) -> Generator[tuple[bytes, int], None, None]:
        """Run a query whose only column is a String; yield its values, joined, and how many.

        Memory is bounded, whatever the size of the server's blocks. Closing the iterator before its
        end cancels the query.
        """
        with self.disconnect_on_error(query, settings):
            connection = self.connection
            connection.block_in = _TextStream(connection.block_in)
            try:
                connection.send_query(query)
                connection.send_external_tables(None)
                while packet := self.receive_packet():
                    if packet is not True and packet.type == ServerPacketTypes.DATA:
                        yield from packet.block
            finally:
                if connection.is_query_executing:
                    with contextlib.suppress(OSError):
                        connection.send_cancel()
                    self.disconnect()
                else:
                    connection.block_in = connection.block_in.replaced

    def process_ordinary_query(
        self, query: str, params: Any = None, *, external_tables: Any = None, **options: Any
    ) -> Any:
        """Run a statement.

        An external table can have "columns" in the place of "data": values by column. The driver
        takes rows alone, and makes columns of them again.
        """
        by_column = [table for table in external_tables or () if "columns" in table]
        if not by_column:
            return super().process_ordinary_query(
                query, params, external_tables=external_tables, **options
            )
        self.connection.send_query(query)
        for table in by_column:
            block = ColumnOrientedBlock(table["structure"], table["columns"])
            self.connection.send_data(block, table_name=table["name"])
        self.connection.send_data(RowOrientedBlock())  # the end of the tables
        return self.receive_result()


def refuse_old_server(version: Sequence[int]) -> None:
    """Raise ConfigError for a server that is older than what the tools are made for."""
    if tuple(version[:2]) < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise ConfigError(
            f"database: ClickHouse {'.'.join(map(str, version))} is too old; {oldest} is the oldest"
            " supported version; upgrade the server"
        )


class _TextStream:
    """Reads blocks of texts piece by piece, where the driver's own stream returns whole blocks.

    A block has as many rows as the server likes, usually 65,409, of any size.
    """

    def __init__(self, replaced: BlockInputStream) -> None:
        self.replaced = replaced
        self._input = replaced.fin
        self._revision = replaced.context.server_info.used_revision

    def read(self, use_numpy: object = None) -> Iterator[tuple[bytes, int]]:
        """Return a block, which is to be read before the next packet, as the driver asks for it."""
        BlockInfo().read(self._input)
        columns, rows = read_varint(self._input), read_varint(self._input)
        for _ in range(columns):
            read_binary_str(self._input)  # its name
            kind = read_binary_str(self._input)
            special = self._revision >= WITH_SERIALIZATIONS and read_binary_uint8(self._input)
            if columns > 1 or kind != "String" or special:
                raise UnknownTypeError(f"{columns} columns of {kind} instead of one of String")
        return self._values(rows)

    def _values(self, rows: int) -> Iterator[tuple[bytes, int]]:
        source = self._input
        while rows:
            values, size = [], 0
            while rows and size < PIECE_SIZE:
                length = read_varint(source)
                values.append(source.read(length))
                size += length
                rows -= 1
            yield b"".join(values), len(values)
