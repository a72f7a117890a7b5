"""The native protocol: what clickhouse-driver and clickhouse-client speak on port 9000."""

import contextlib
import io
import itertools
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import BinaryIO

from dev.embedded_clickhouse import sql
from dev.embedded_clickhouse.blocks import (
    BLOCK_INFO,
    BlockCopier,
    Columns,
    Header,
    WireReader,
    check_insertable,
    text,
    varint,
)
from dev.embedded_clickhouse.engine import Chunk, Engine, Session
from dev.embedded_clickhouse.errors import Code, ConnectionLost, ServerError
from dev.embedded_clickhouse.frames import frame_reader, lz4_frames, zstd_frames
from dev.embedded_clickhouse.record import ExternalTable, Statement
from dev.embedded_clickhouse.watch import Watcher

# The newest revision whose blocks are those of chDB's `FORMAT Native`: 54454 adds a byte a column.
REVISION = 54453
_OLDEST_REVISION = 54429  # the first that sends settings as strings
_STAGE_COMPLETE = 2
_IMPORTANT = 1
_SECONDARY_QUERY = 2
_INTERFACE_TCP = 1
_INTERFACE_HTTP = 2
_HTTP_METHODS = b"GPHDO"
_FORMAT_OR_OUTFILE = re.compile(r"\b(format|outfile)\b", re.IGNORECASE)
_TOTALS = re.compile(r"\bwith\s+totals\b", re.IGNORECASE)


class ClientPacket(IntEnum):
    """Kinds of packets from the client."""

    HELLO = 0
    QUERY = 1
    DATA = 2
    CANCEL = 3
    PING = 4
    TABLES_STATUS = 5
    SCALAR = 7


class ServerPacket(IntEnum):
    """Kinds of packets to the client."""

    HELLO = 0
    DATA = 1
    EXCEPTION = 2
    PROGRESS = 3
    PONG = 4
    END_OF_STREAM = 5
    PROFILE_INFO = 6
    TABLES_STATUS = 9


@dataclass
class Query:
    """What a query packet holds.

    Attributes:
        query_id: the client's name for it; the engine has its own and shows this as `log_comment`.
        text: the statement.
        settings: name → value.
        important: names of the settings that must not be ignored when they are unknown.
        compressed: blocks are compressed, both ways.
    """

    query_id: str = ""
    text: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    important: set[str] = field(default_factory=set)
    compressed: bool = False


@dataclass
class _Totals:
    """What a result amounts to."""

    rows: int = 0
    blocks: int = 0
    size: int = 0
    rows_read: int = 0
    bytes_read: int = 0

    def profile(self) -> bytes:
        """Return the body of a profile packet: no limit applied."""
        counts = varint(self.rows) + varint(self.blocks) + varint(self.size)
        return counts + b"\0" + varint(0) + b"\0"


class _BrokenStream(ServerError):
    """The client's data cannot be read to its end: the connection is over."""


class NativeConnection:
    """One client's conversation.

    Args:
        connection: the connected socket.
        engine: what answers.
        watcher: notices a client that cancels or leaves while its query runs.
    """

    def __init__(self, connection: socket.socket, engine: Engine, watcher: Watcher) -> None:
        self._socket = connection
        self._engine = engine
        self._watcher = watcher
        self._reader = WireReader(connection.recv)
        self._revision = REVISION
        self._query = Query()

    def serve(self) -> None:
        """Talk until the client leaves or breaks the protocol."""
        try:
            session = self._greet()
            if session is not None:
                with contextlib.closing(session):
                    while self._serve_packet(session):
                        pass
        except ServerError as error:
            self._send_exception(error)

    def _serve_packet(self, session: Session) -> bool:
        """Answer one packet; False ends the conversation."""
        kind = self._reader.varint()
        if kind == ClientPacket.PING:
            self._send(varint(ServerPacket.PONG))
        elif kind == ClientPacket.QUERY:
            return self._serve_query(session)
        elif kind == ClientPacket.TABLES_STATUS:
            self._send_tables_status(session)
        elif kind == ClientPacket.CANCEL:
            pass  # it crossed the end of the query on the way
        else:
            message = f"Unexpected packet {kind} from client"
            self._send_exception(ServerError(Code.UNKNOWN_PACKET_FROM_CLIENT, message))
            return False
        return True

    def _send_tables_status(self, session: Session) -> None:
        """Answer another server that asks which of these tables are here, none of them late."""
        names = [(self._reader.text(), self._reader.text()) for _ in range(self._reader.varint())]
        present = [name for name in names if session.has_table(*name)]
        status = b"".join(text(database) + text(table) + b"\0" for database, table in present)
        self._send(varint(ServerPacket.TABLES_STATUS) + varint(len(present)) + status)

    def _greet(self) -> Session | None:
        """Exchange hellos; None when the client is turned away."""
        kind = self._reader.u8()
        if kind in _HTTP_METHODS:
            self._send(b"HTTP/1.0 400 Bad Request\r\n\r\nThis port speaks the native protocol.\r\n")
            return None
        if kind != ClientPacket.HELLO:
            return None
        self._reader.text()
        self._reader.varint()
        self._reader.varint()
        self._revision = min(REVISION, self._reader.varint())
        database, user, password = (self._reader.text() for _ in range(3))
        try:
            session = self._open_session(database, user, password)
        except ServerError as error:
            self._send_exception(error)
            return None
        self._send(self._hello())
        return session

    def _open_session(self, database: str, user: str, password: str) -> Session:
        if self._revision < _OLDEST_REVISION:
            message = f"The embedded server needs clients of revision {_OLDEST_REVISION} or later"
            raise ServerError(Code.NOT_IMPLEMENTED, message)
        return self._engine.open_session(self._engine.authenticate(user, password), database)

    def _hello(self) -> bytes:
        major, minor, patch = (int(part) for part in self._engine.version.split(".")[:3])
        numbers = varint(major) + varint(minor) + varint(REVISION)
        names = text(self._engine.timezone) + text(self._engine.display_name)
        return varint(ServerPacket.HELLO) + text("ClickHouse") + numbers + names + varint(patch)

    def _serve_query(self, session: Session) -> bool:
        """Run a query; False when the connection cannot be used any more."""
        external: dict[str, ExternalTable] = {}
        received = False
        try:
            self._query = self._read_query()
            self._read_external_tables(session, external)
            received = True
            self._answer(session, list(external.values()))
        except ServerError as error:
            self._send_exception(error)
            return received and not isinstance(error, _BrokenStream)
        finally:
            for name in external:
                with contextlib.suppress(ServerError):
                    session.run(f"DROP TEMPORARY TABLE IF EXISTS {sql.quote(name)}")
        return True

    def _read_query(self) -> Query:
        reader, revision = self._reader, self._revision
        query = Query(query_id=reader.text())
        from_server = self._skip_client_info()
        while name := reader.text():
            flags = reader.varint()
            query.settings[name] = reader.text()
            if flags & _IMPORTANT:
                query.important.add(name)
        secret = reader.binary() if revision >= 54441 else b""
        stage = reader.varint()
        query.compressed = bool(reader.varint())
        query.text = reader.text()
        if stage != _STAGE_COMPLETE or secret:
            message = (
                "The embedded server answers other servers with whole results only: "
                "distributed_group_by_no_merge = 1"
            )
            raise _BrokenStream(Code.NOT_IMPLEMENTED, message)
        if from_server:
            # They are the other server's own, not a client's wish.
            query.settings.clear()
            query.important.clear()
        return query

    def _skip_client_info(self) -> bool:
        """Read past who is asking; tell whether it is another server on behalf of a client."""
        reader, revision = self._reader, self._revision
        kind = reader.u8()
        if not kind:
            return False
        for _ in range(3):
            reader.text()  # initial user, query id, address
        if revision >= 54449:
            reader.take(8)  # start time
        interface = reader.u8()
        self._skip_interface(interface)
        reader.text()  # quota key
        if revision >= 54448:
            reader.varint()  # distributed depth
        if interface == _INTERFACE_TCP:
            reader.varint()  # patch
        if revision >= 54442 and reader.u8():
            reader.take(24)  # trace and span
            reader.text()
            reader.u8()
        if revision >= 54453:
            for _ in range(3):
                reader.varint()  # parallel replicas
        return kind == _SECONDARY_QUERY

    def _skip_interface(self, interface: int) -> None:
        if interface == _INTERFACE_TCP:
            for _ in range(3):
                self._reader.text()  # system user, host, client
            for _ in range(3):
                self._reader.varint()  # version, revision
        elif interface == _INTERFACE_HTTP:
            self._reader.u8()  # method
            self._reader.text()  # user agent
            if self._revision >= 54443:
                self._reader.text()  # forwarded for
            if self._revision >= 54447:
                self._reader.text()  # referer

    def _read_external_tables(self, session: Session, tables: dict[str, ExternalTable]) -> None:
        """Read the data that comes along with a query, into temporary tables; add these."""
        while True:
            with self._engine.spool_file() as spool:
                name, header = self._read_block(spool)
                if not header.columns:
                    return
                spool.flush()
                if name not in tables:
                    tables[name] = ExternalTable(name, header.columns, [])
                    _create_temporary(session, name, header)
                tables[name].rows.append(self._engine.recorder.keep(spool.name))
                source = f"FROM INFILE {sql.quote_string(spool.name)} COMPRESSION 'none'"
                session.run(f"INSERT INTO {sql.quote(name)} {source} FORMAT Native")

    def _read_block(self, spool: BinaryIO) -> tuple[str, Header]:
        """Read a data packet; return the table's name and the shape of the block."""
        while (kind := self._reader.varint()) == ClientPacket.SCALAR:
            self._reader.text()
            self._copy_block(io.BytesIO())
        if kind == ClientPacket.CANCEL:
            raise _BrokenStream(Code.QUERY_WAS_CANCELLED, "Query was cancelled")
        if kind != ClientPacket.DATA:
            message = f"Unexpected packet {kind} from client, expected Data"
            raise _BrokenStream(Code.UNEXPECTED_PACKET_FROM_CLIENT, message)
        return self._reader.text(), self._copy_block(spool)

    def _copy_block(self, spool: BinaryIO) -> Header:
        reader = self._reader
        if self._query.compressed:
            reader = WireReader(frame_reader(self._reader))
        try:
            reader.skip_block_info()
            return BlockCopier(reader, spool).copy()
        except ServerError as error:
            raise _BrokenStream(error.code, error.text) from error

    def _answer(self, session: Session, external: list[ExternalTable]) -> None:
        query = self._query
        insert = sql.parse_insert(query.text)
        if insert and insert.structure:
            message = "The embedded server takes rows for input(...) over HTTP only"
            raise ServerError(Code.NOT_IMPLEMENTED, message)
        readonly = query.settings.pop("readonly", "0") not in {"", "0"}
        session.check_statement(query.text, readonly=readonly)
        statement = session.recorded("native", query.text, query.settings)
        statement.tables = external
        takes_rows = insert and not insert.data.strip().rstrip(";")
        if not takes_rows:
            self._engine.recorder.write(statement)
        if sql.first_word(query.text) == "SET":
            session.run_set(query.text)
            self._send(varint(ServerPacket.END_OF_STREAM))
            return
        if query.query_id:
            query.settings.setdefault("log_comment", query.query_id)
        session.apply_settings(query.settings, ignore_unknown=not query.important)
        if insert and takes_rows:
            self._insert(session, insert, statement)
        else:
            self._select(session, self._without_format(session, session.with_grants(query.text)))

    def _without_format(self, session: Session, query: str) -> str:
        """Take off FORMAT, which is for clickhouse-client, and refuse what a result would lack."""
        word = sql.first_word(query)
        if word in sql.SELECTS:
            self._refuse_totals(session, query)
        if word == "INSERT" or not _FORMAT_OR_OUTFILE.search(query):
            return query
        output = sql.split_output(session.format_query(query))
        return f"{output.query} {output.settings}" if output.format_name else query

    def _refuse_totals(self, session: Session, query: str) -> None:
        refused = self._query.settings.get("extremes", "0") != "0"
        if _TOTALS.search(query):
            outer = [token for token in sql.tokens(session.format_query(query)) if not token.depth]
            words = [token.text for token in outer]
            refused = refused or ("WITH", "TOTALS") in set(itertools.pairwise(words))
        if refused:
            message = "The embedded server cannot send totals and extremes by the native protocol"
            raise ServerError(Code.NOT_IMPLEMENTED, message)

    def _insert(self, session: Session, insert: sql.Insert, statement: Statement) -> None:
        """Take the client's blocks into a file, and the file into the table once it is complete."""
        columns = session.insert_columns(insert)
        for _, type_name in columns:
            check_insertable(type_name)
        self._send_block(Header(columns, 0).encode())
        rows = 0
        with self._engine.spool_file() as spool:
            while True:
                _, header = self._read_block(spool)
                if not header.columns:
                    break
                rows += header.rows
            spool.flush()
            if rows:
                statement.rows = self._engine.recorder.keep(spool.name)
                self._engine.recorder.write(statement)
                session.run(insert.from_file(spool.name, "Native"))
        self._send(self._progress(0, 0, rows) + varint(ServerPacket.END_OF_STREAM))

    def _select(self, session: Session, query: str) -> None:
        """Run a statement and send its result as it comes."""
        with self._watcher.watch(self._socket, session.mark, self._reader) as watch:
            try:
                total = self._send_result(session, query)
            except ServerError:
                # The client itself has ended the query: to it that isn't a failure.
                if not watch.fired:
                    raise
                total = _Totals()
        self._send(
            varint(ServerPacket.PROFILE_INFO)
            + total.profile()
            + self._progress(total.rows_read, total.bytes_read, 0)
            + varint(ServerPacket.END_OF_STREAM)
        )

    def _send_result(self, session: Session, query: str) -> "_Totals":
        total = _Totals()
        selects = sql.first_word(query) in sql.SELECTS
        columns = session.describe_result(query) if selects else ()
        with contextlib.closing(session.stream(query)) as chunks:
            for chunk in chunks:
                total.rows_read += chunk.rows_read
                total.bytes_read += chunk.bytes_read
                total.rows += chunk.rows
                for block in _with_time_zones(_blocks(chunk), columns):
                    if not total.blocks:
                        self._send_block(_header(block).encode())
                    self._send_block(block)
                    total.blocks += 1
                    total.size += len(block)
        if not total.blocks and columns:
            self._send_block(Header(columns, 0).encode())
        return total

    def _progress(self, rows_read: int, bytes_read: int, rows_written: int) -> bytes:
        read = varint(rows_read) + varint(bytes_read) + varint(0)
        return varint(ServerPacket.PROGRESS) + read + varint(rows_written) + varint(0)

    def _send_block(self, block: bytes) -> None:
        payload = BLOCK_INFO + block
        if self._query.compressed:
            zstd = self._query.settings.get("network_compression_method", "").lower() == "zstd"
            payload = zstd_frames(payload) if zstd else lz4_frames(payload)
        self._send(varint(ServerPacket.DATA) + text("") + payload)

    def _send_exception(self, error: ServerError) -> None:
        code = varint(ServerPacket.EXCEPTION) + struct.pack("<i", error.code)
        message = text("DB::Exception") + text(f"DB::Exception: {error.text}")
        self._send(code + message + text("") + b"\0")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ConnectionLost from error


def _create_temporary(session: Session, name: str, header: Header) -> None:
    columns = ", ".join(f"{sql.quote(column)} {kind}" for column, kind in header.columns)
    session.run(f"CREATE TEMPORARY TABLE {sql.quote(name)} ({columns}) ENGINE = Memory")


def _blocks(chunk: Chunk) -> Iterator[bytes]:
    """Split a chunk into its blocks; nearly always it is one."""
    head = WireReader(io.BytesIO(chunk.data).read)
    if not chunk.data or (head.varint() and head.varint() == chunk.rows):
        if chunk.data:
            yield chunk.data
        return
    reader = WireReader(io.BytesIO(chunk.data).read)
    copied = 0
    while copied < len(chunk.data):
        block = io.BytesIO()
        BlockCopier(reader, block).copy()
        copied += block.tell()
        yield block.getvalue()


def _with_time_zones(blocks: Iterator[bytes], columns: Columns) -> Iterator[bytes]:
    """Give DateTime columns their time zones back, which chDB's Native format leaves out."""
    zones = {index: kind for index, (_, kind) in enumerate(columns) if kind.startswith("DateTime(")}
    for block in blocks:
        if not zones:
            yield block
            continue
        typed = io.BytesIO()
        BlockCopier(WireReader(io.BytesIO(block).read), typed, zones).copy()
        yield typed.getvalue()


def _header(block: bytes) -> Header:
    """Return the columns of a result, from its first block.

    Raises:
        ServerError: a type whose values the client would not read as they are meant.
    """
    return BlockCopier(WireReader(io.BytesIO(block).read), io.BytesIO()).copy()
