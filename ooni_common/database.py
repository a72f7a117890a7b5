"""The database: connecting, running statements, and its errors as ours."""

import contextlib
import functools
import logging
import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import msgspec

from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.errors import ConfigError, NotStored, ScriptError, Unavailable
from ooni_common.server_errors import in_one_line, meaning_of

log = logging.getLogger("ooni.database")

CONNECT_TIMEOUT = 10  # seconds
STATEMENT_TIMEOUT = 300  # seconds without an answer
EXTERNAL_TABLE = "_rows_to_insert"
FIRST_DAY = date(1970, 1, 1).toordinal()  # day 0 of the database
CODES_OF_BUGS = {46, 47, 62}  # unknown function, unknown identifier, syntax
# For literals, and for the functions and formats that ask for it. What a function makes of a column
# without a zone of its own is in the zone of the server nevertheless: such SQL names the zone.
# A settings profile of the user must not cut results short, nor add to them, without an error.
SESSION = {
    "session_timezone": "UTC",
    "limit": "0",
    "offset": "0",
    "extremes": "0",
    "read_overflow_mode": "throw",
    "result_overflow_mode": "throw",
    "timeout_overflow_mode": "throw",
}
# Such a column of a new table would have the zone of the session that made it until the server is
# restarted, and then another one: keys and partitions must not change theirs.
MAKES_COLUMNS = re.compile(r"\s*(CREATE|ALTER|ATTACH|RESTORE)\b", re.IGNORECASE)
ZONE_OF_SERVER = {"session_timezone": ""}
# A replicated table drops a block that it has seen before, even before a TRUNCATE. The setting that
# ends this has several names: 24.8 knows only insert_deduplicate, which 26.9 ignores.
INSERT_AS_SENT = {
    "async_insert": "0",
    "insert_deduplicate": "0",
    "insert_select_deduplicate": "0",
    "deduplicate_insert": "disable",
    "deduplicate_insert_select": "disable",
    # Without ZooKeeper a replicated table would try for minutes; another run does it better.
    "insert_keeper_max_retries": "5",
}


Texts = Generator[tuple[bytes, int], None, None]  # values, joined, and how many they are


class ServerError(ScriptError):
    """What the server said in place of a result.

    Attributes:
        code: ClickHouse's error code.
        said: the server's own text, whole, in one line.
    """

    def __init__(self, message: str, code: int, said: str) -> None:
        super().__init__(message)
        self.code = code
        self.said = said


class StatementFailed(ServerError, Unavailable):
    """The server failed at a statement; another time it may succeed."""


class StatementRefused(ServerError, ConfigError):
    """The server refuses a statement until a person mends something."""


class Client(Protocol):
    """What is used of clickhouse_driver.Client."""

    def execute(self, query: str, params: Any = ..., **options: Any) -> Any:
        """Run a statement and return its rows."""

    def disconnect(self) -> None:
        """Close the connection."""


class StreamingClient(Protocol):
    """What is used of ooni_common.driver.Driver beside it."""

    def texts(self, query: str, settings: Mapping[str, Any]) -> Texts:
        """Run a query whose only column is a String; yield its values, joined, and how many."""

    def execute_iter(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Run a query; yield its rows block by block."""

    def interrupt(self) -> None:
        """Let a statement fail that another thread waits for."""


class Database:
    """Statements on one database of one server.

    Attributes:
        bytes_read: how many bytes of columns the server has read for `query` so far, as it says.
    """

    def __init__(
        self,
        client: Client,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self.sleep = sleep
        self.bytes_read = 0

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        tables: Sequence[Mapping[str, Any]] = (),
        settings: Mapping[str, str] | None = None,
    ) -> list[tuple[Any, ...]]:
        """Run one statement; return its rows.

        Args:
            sql: the statement, in which `%(name)s` stands for a value of `params`.
            params: the values.
            tables: tables that exist for this statement alone: name, structure, data, as the
                driver's `external_tables` are.
            settings: of the session, for this statement alone.
        """
        log.debug("%s", sql)
        options: dict[str, Any] = {"external_tables": list(tables)} if tables else {}
        if MAKES_COLUMNS.match(sql):
            settings = {**ZONE_OF_SERVER, **(settings or {})}
        if settings:
            options["settings"] = dict(settings)
        with _database_errors():
            rows: list[tuple[Any, ...]] = self._client.execute(sql, params, **options)
        if told := getattr(self._client, "last_query", None):
            self.bytes_read += told.progress.bytes
        return rows

    def texts(self, sql: str, settings: Mapping[str, Any]) -> Texts:
        """Run a query of one column of text, in mid-stream of which no other statement can run.

        Args:
            sql: the query.
            settings: for it alone.

        Yields:
            Values one after the other, about a megabyte at a time, and how many they are. Closing
            the iterator before its end cancels the query.
        """
        log.debug("%s", sql)
        with _database_errors():
            yield from cast("StreamingClient", self._client).texts(sql, settings)

    def rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Run a query and yield its rows; in mid-stream no other statement can run."""
        log.debug("%s", sql)
        with _database_errors():
            yield from cast("StreamingClient", self._client).execute_iter(sql)

    def insert(
        self, table: str, columns: Mapping[str, str], values: Sequence[Sequence[Any]]
    ) -> None:
        """Insert one block.

        Args:
            table: where to.
            columns: name → type.
            values: column by column.
        """
        into = f"INSERT INTO {quoted(table)} ({', '.join(map(quoted, columns))})"
        settings = dict(self.insert_settings)
        with _database_errors():
            if "Date" in columns.values():
                select, external = _dates_as_days(columns, values)
                self._client.execute(
                    f"{into} {select}", external_tables=[external], settings=settings
                )
            else:
                self._client.execute(f"{into} VALUES", values, columnar=True, settings=settings)

    @functools.cached_property
    def insert_settings(self) -> Mapping[str, str]:
        """The settings with which this server stores a block as it was sent, once for each time."""
        return self.settings_it_has(INSERT_AS_SENT)

    def settings_it_has(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Return those of the settings that this server has; others would be an error there."""
        rows = self.query(
            "SELECT name FROM system.settings WHERE name IN %(names)s", {"names": tuple(wanted)}
        )
        return {name: wanted[name] for (name,) in rows}

    def exists(self, table: str) -> bool:
        """Tell whether the database has the table."""
        return bool(self.query(f"EXISTS TABLE {quoted(table)}")[0][0])

    def types_of(self, table: str) -> dict[str, str]:
        """Return the types of a table's columns by their names, nothing for no such table."""
        rows = self.query(
            "SELECT name, type FROM system.columns"
            " WHERE database = currentDatabase() AND table = %(table)s ORDER BY position",
            {"table": table},
        )
        return dict(rows)

    def close(self) -> None:
        """Close the connection; no other thread may be using it."""
        self._client.disconnect()

    def interrupt(self) -> None:
        """Let a statement fail that another thread waits for; that thread closes the connection."""
        cast("StreamingClient", self._client).interrupt()


@contextlib.contextmanager
def connected(config: DatabaseConfig) -> Iterator[Database]:
    """Connect to the database of `config` (at its first statement).

    The statements raise ConfigError, before they are sent, where the server is too old.
    """
    # The driver computes a table of every date at its import unless told not to: half its time.
    os.environ.setdefault("CLICKHOUSE_DRIVER_LASY_DATE_LUT", "1")
    from ooni_common.driver import Driver  # noqa: PLC0415 (--help must not wait for it)

    try:
        client = Driver.from_url(_with_defaults(config.db_uri))
    except ValueError as error:
        raise ConfigError(f"db_uri {config.db_uri}: {error}") from None
    client.settings |= SESSION
    with contextlib.closing(Database(client)) as database:
        yield database


@contextlib.contextmanager
def connected_to(config: DatabaseConfig, host: str, port: int) -> Iterator[Database]:
    """Connect to another node as `connected` does to the one of `db_uri`, with the same login.

    Raises:
        ConfigError: its host can't be looked up, as system.clusters may have it.
    """
    parts = urlsplit(config.db_uri.reveal())
    login, at, _ = parts.netloc.rpartition("@")
    host = f"[{host}]" if ":" in host else host
    query = "&".join(part for part in parts.query.split("&") if not part.startswith("alt_hosts="))
    uri = parts._replace(netloc=f"{login}{at}{host}:{port}", query=query).geturl()
    try:
        node = msgspec.structs.replace(config, db_uri=SecretUrl(uri), cluster="")
    except ValueError:
        raise ConfigError(f"{host!a} is not the name of a host, or {port} not a port") from None
    with connected(node) as database:
        yield database


def quoted(identifier: str) -> str:
    """Return an identifier as SQL writes it."""
    escaped = _escaped(identifier, "`")
    return f"`{escaped}`"


def literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    escaped = _escaped(text, "'")
    return f"'{escaped}'"


def _escaped(text: str, quote: str) -> str:
    # To 24.8, a statement ends at a NUL.
    return text.replace("\\", "\\\\").replace(quote, f"\\{quote}").replace("\0", "\\0")


def _dates_as_days(
    columns: Mapping[str, str], values: Sequence[Sequence[Any]]
) -> tuple[str, dict[str, Any]]:
    """Return a SELECT of the rows, and the external table that it reads them from.

    The driver takes as long for a date as for the other five columns of `asnmeta`; so the server
    gets the number of its day, and makes a date of it.
    """
    structure, selected = [], []
    sent: list[Sequence[Any]] = []
    for (name, kind), column in zip(columns.items(), values, strict=True):
        if kind == "Date":
            structure.append((name, "UInt16"))
            selected.append(f"toDate({quoted(name)})")
            sent.append([day - FIRST_DAY for day in map(date.toordinal, column)])
        else:
            # The driver reads an Enum's definition only as the server writes it.
            structure.append((name, "String" if kind.startswith("Enum") else kind))
            selected.append(quoted(name))
            sent.append(column)
    select = f"SELECT {', '.join(selected)} FROM {EXTERNAL_TABLE}"
    return select, {"name": EXTERNAL_TABLE, "structure": structure, "columns": sent}


def _with_defaults(db_uri: SecretUrl) -> str:
    """Return the URI with timeouts, because the driver's own would hang a job for hours."""
    uri = db_uri.reveal()
    defaults = {"connect_timeout": CONNECT_TIMEOUT, "send_receive_timeout": STATEMENT_TIMEOUT}
    missing = [f"{name}={value}" for name, value in defaults.items() if f"{name}=" not in uri]
    return "".join([uri, "&" if "?" in uri else "?", "&".join(missing)])


def server_error(code: int, message: str) -> StatementFailed | StatementRefused:
    """Return what an exception of the server means to the operator.

    Args:
        code: ClickHouse's.
        message: its text, with a stack trace or without.
    """
    log.debug("the server said: %s", message)
    meaning = meaning_of(code, message)
    kind = StatementRefused if meaning.refused else StatementFailed
    return kind(meaning.line, meaning.code, meaning.said)


@contextlib.contextmanager
def _database_errors() -> Iterator[None]:
    """Turn the driver's errors into ours: one line, typed by what the operator does."""
    from clickhouse_driver import errors  # noqa: PLC0415 (as in connected)

    try:
        yield
    except errors.ServerException as error:
        if error.code in CODES_OF_BUGS:
            raise
        raise server_error(error.code, error.message) from None
    except errors.TypeMismatchError as error:
        raise NotStored(f"database: {error.message.rpartition('. ')[2]}") from None
    except UnicodeDecodeError:  # the server cuts a long text off, also within a letter
        raise Unavailable("database: it reported an error whose text can't be read") from None
    except (errors.Error, EOFError, OSError) as error:
        reason = getattr(error, "message", "") or str(error) or type(error).__name__
        raise Unavailable(f"database: {in_one_line(reason)}") from None
