"""Which way the rows of exports come: HTTP where failures are certain, else the native protocol."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from backup_config import Config
from exports.clickhouse_http import NO_TAG, ClickHouseHTTP
from exports.clickhouse_native import ClickHouseNative
from exports.csv_rows import RowSource, RowStream
from ooni_common.database import Database
from ooni_common.errors import ScriptError, Unavailable
from tables.replicas import TableReplicas

log = logging.getLogger("ooni.db_backup")

# Older ones send no tag with CSV: what a failure in mid-stream says could stand in a row as well.
FIRST_WITH_TAGS = (25, 11)


@dataclass(frozen=True)
class Choice:
    """A way, and why it is taken, as a line for people."""

    source: RowSource
    reason: str


def tags_failures(version: str) -> bool:
    """Tell whether a server of this version marks failures in mid-stream over HTTP."""
    return tuple(map(int, version.split(".")[:2])) >= FIRST_WITH_TAGS


def choose(version: str, config: Config, database: Database, http: ClickHouseHTTP) -> Choice:
    """Choose the way: HTTP, which is faster, where failures are certain there and it is reachable.

    An address that is configured is taken for reachable: if it is not, that is a failure.

    Args:
        version: of the server.
        config: says whether HTTP is meant to work.
        database: the connection over the native protocol.
        http: the interface.
    """
    native = ClickHouseNative((database,), config)
    if not tags_failures(version):
        oldest = ".".join(map(str, FIRST_WITH_TAGS))
        return Choice(
            native,
            f"rows come over the native protocol: over HTTP, ClickHouse {version} does not mark"
            f" failures in mid-stream ({oldest} does)",
        )
    if not config.http_url.reveal():
        try:
            _, tagged = http.probed()
        except ScriptError as error:
            return Choice(native, f"rows come over the native protocol; {http.address}: {error}")
        if not tagged:
            return Choice(native, f"rows come over the native protocol; {http.address}: {NO_TAG}")
    return Choice(http, f"rows come over HTTP, from {http.address}")


def reachable(http: ClickHouseHTTP) -> ClickHouseHTTP:
    """Return the interface if it answers: only over HTTP a server takes rows as CSV.

    Raises:
        Unavailable, ConfigError: it does not.
    """
    try:
        http.version()
    except Unavailable as error:
        raise Unavailable(
            f"{error}; restoring an export needs the HTTP interface, at {http.address}: set"
            " http_url, or let this host reach it"
        ) from None
    return http


class ChosenSource:
    """The way that `choose` chooses when the first rows are wanted; it is logged then."""

    def __init__(self, config: Config, database: Database, http: ClickHouseHTTP) -> None:
        self._config = config
        self._database = database
        self._http = http

    @contextlib.contextmanager
    def rows(
        self, select: str, names: Sequence[str], *, exact: bool = False
    ) -> Iterator[RowStream]:
        """Run a query, as RowSource has it."""
        with self._source.rows(select, names, exact=exact) as rows:
            yield rows

    def over(self, database: Database) -> RowSource:
        """Return the same way for another thread, which has a connection of its own."""
        if isinstance(self._source, ClickHouseNative):
            return ClickHouseNative((database,), self._config)
        return self._source

    @cached_property
    def _source(self) -> RowSource:
        ((version,),) = self._database.query("SELECT version()")
        choice = choose(version, self._config, self._database, self._http)
        log.info("%s", choice.reason)
        return choice.source


class ReplicaSource:
    """The rows of a table from the very nodes that have counted them, so over their connections.

    HTTP would reach another node, which may lack rows.
    """

    def __init__(self, config: Config, replicas: TableReplicas) -> None:
        self._config = config
        self._replicas = replicas

    @contextlib.contextmanager
    def rows(
        self, select: str, names: Sequence[str], *, exact: bool = False
    ) -> Iterator[RowStream]:
        """Run a query on each shard, as RowSource has it."""
        native = ClickHouseNative(self._replicas.databases, self._config)
        with native.rows(select, names, exact=exact) as rows:
            yield rows
