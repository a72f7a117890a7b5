"""How the rows of a table are saved, and what is refused because they can't be."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backups.contents import ALIASES_OF_2_0_0, PARTITION, ContentSource
from backups.manifest import SavedAs, SavedTable
from backups.server import ServerBackups
from backups.shards import ShardServers
from ooni_common.database import Database, quoted
from ooni_common.errors import ConfigError, DataRefused
from tables.digest import Expression, digest, is_sound
from tables.inventory import (
    BACKED_UP,
    NOT_BACKED_UP,
    UNREADABLE_ENGINES,
    WITHOUT_OWN_ROWS,
    Column,
    SourceTable,
    read_table,
    refreshes_itself,
    storage_of,
)

log = logging.getLogger("ooni.db_backup")


@dataclass(frozen=True)
class Saving:
    """A table that is to be saved.

    Attributes:
        name: of the table.
        server: which has it.
        method: how its rows are saved.
        source: the table that has the rows.
        keeper: the same, as the database describes it.
        schema: SHOW CREATE of the table.
    """

    name: str
    server: ServerBackups
    method: SavedAs
    source: ContentSource
    keeper: SourceTable
    schema: str

    @property
    def columns(self) -> Sequence[Column]:
        """The columns that are saved."""
        return self.keeper.columns

    @property
    def storage_schema(self) -> str:
        """SHOW CREATE of the table that has the rows."""
        return self.keeper.create

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    def proves(self, earlier: SavedTable) -> bool:
        """Tell whether the checksums of an earlier backup have seen every row of this table."""
        if not earlier.has_checksums:
            return True
        return is_sound(hashed(self.columns), earlier.scheme, ALIASES_OF_2_0_0)


def saving_of(servers: ShardServers, database: str, name: str) -> Saving | None:
    """Return how a table is saved; None if the shard has no rows of it."""
    server = servers.of(name)
    if server is None:
        return None
    policy = server.config.policy_of(name)
    if policy is None:
        raise ConfigError(f"{name!r} is not listed")
    table = read_table(server.database, name)
    storage = storage_of(server.database, name)
    keeper = table if storage == name else read_table(server.database, storage)
    _check_engine(name, keeper.engine)
    if refreshes_itself(table.create):
        log.info("%s recomputes its rows; only its definition is saved", name)
        return None
    if keeper.engine in NOT_BACKED_UP or (
        name in servers.elsewhere and BACKED_UP.fullmatch(keeper.engine)
    ):
        method: SavedAs = "rows"
    elif BACKED_UP.fullmatch(keeper.engine):
        method = policy.method
    else:
        log.info("%s: the engine %s has no rows of its own", name, keeper.engine)
        return None
    if PARTITION in {
        column.name for column in keeper.columns
    }:  # then nobody can ask for the rows of a partition
        raise DataRefused(f"{name!r}: its column {PARTITION} hides the server's own; rename it")
    try:
        digest_of_rows = digest(hashed(keeper.columns)) if policy.checksum else ""
    except DataRefused as error:
        raise DataRefused(f"{name!r}: {error}, or set checksum = false for the table") from None
    source = ContentSource(database, storage, keeper.engine, digest_of_rows)
    return Saving(name, server, method, source, keeper, table.create)


def hashed(columns: Iterable[Column]) -> list[Expression]:
    """Return columns as what is hashed of each row."""
    return [Expression(quoted(column.name), column.type) for column in columns]


def check_engine(database: Database, name: str) -> None:
    """Raise DataRefused if the rows of a table can't be saved in any way."""
    _check_engine(name, read_table(database, storage_of(database, name)).engine)


def _check_engine(name: str, engine: str) -> None:
    if engine in UNREADABLE_ENGINES:
        raise DataRefused(
            f"{name!r}: nobody can read the rows of the engine {engine}, and the server's BACKUP"
            " leaves them out; make it 'none', and keep its rows in another table"
        )
    saved = BACKED_UP.fullmatch(engine) or engine in NOT_BACKED_UP
    if not saved and not WITHOUT_OWN_ROWS.fullmatch(engine):
        raise DataRefused(
            f"{name!r}: rows of the engine {engine} can't be saved; make it 'none', and keep its"
            " rows in another table"
        )
