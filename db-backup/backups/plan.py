"""What a backup will have: what has changed since the last good one, on each shard."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from backups.contents import (
    ALIASES_OF_2_0_0,
    PARTITION,
    ContentSource,
    Partitions,
    differences,
    read_content,
)
from backups.manifest import BackupKind, BackupManifest, SavedAs, SavedTable
from backups.server import ServerBackups
from backups.shards import ShardServers
from backups.stored import Backup, good_backups
from digest import SCHEME, Expression, digest, is_sound
from inventory import (
    BACKED_UP,
    NOT_BACKED_UP,
    UNREADABLE_ENGINES,
    WITHOUT_OWN_ROWS,
    Column,
    definitions,
    loaded_first,
    read_table,
    refreshes_itself,
    storage_of,
)
from ooni_common.database import Database, StatementRefused, quoted
from ooni_common.errors import ConfigError, DataRefused
from ooni_common.output import counted
from ooni_common.replicas import without_replica

log = logging.getLogger("ooni.db_backup")

NOT_GRANTED = 497


@dataclass(frozen=True)
class Saving:
    """A table that is to be saved.

    Attributes:
        name: of the table.
        server: which has it.
        method: how its rows are saved.
        source: the table that has the rows.
        columns: those that are saved.
        schema: SHOW CREATE of the table.
        storage_schema: SHOW CREATE of the one that has the rows.
    """

    name: str
    server: ServerBackups
    method: SavedAs
    source: ContentSource
    columns: Sequence[Column]
    schema: str
    storage_schema: str

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    def proves(self, earlier: SavedTable) -> bool:
        """Tell whether the checksums of an earlier backup have seen every row of this table."""
        if not earlier.has_checksums:
            return True
        return is_sound(hashed(self.columns), earlier.scheme, ALIASES_OF_2_0_0)


@dataclass(frozen=True)
class ShardPlan:
    """What a backup will have of a shard.

    Attributes:
        server: which makes it.
        savings: the tables.
        definitions: the CREATE statement of everything in the database, by name.
        needed: what the server has to load before a table, by its name.
        access: the statements that create users, roles and grants; "" if they may not be seen.
        content: of each table, before.
        elsewhere: the tables that another server of the shard has, and this one has not.
        base: what the last good backup has of it, if that could be the base.
    """

    server: ServerBackups
    savings: Sequence[Saving]
    definitions: Mapping[str, str]
    needed: Mapping[str, Collection[str]]
    access: str
    content: Mapping[str, Partitions]
    elsewhere: Collection[str]
    base: BackupManifest | None

    def tables(self, method: SavedAs) -> list[str]:
        """Return the tables that are saved in one way."""
        return [saving.name for saving in self.savings if saving.method == method]


@dataclass(frozen=True)
class Plan:
    """What a backup will have.

    Attributes:
        database: its name.
        shards: what of each; of a server of its own, it is one.
        refused: tables whose rows can't be saved in any way, and why.
        base: the last good backup; None: there is none that could be the base.
        reason: why a backup is made; "": nothing has changed.
        kind: whether it starts a chain.
    """

    database: str
    shards: Sequence[ShardPlan]
    refused: Sequence[DataRefused]
    base: BackupManifest | None
    reason: str
    kind: BackupKind

    def __str__(self) -> str:
        tables = {saving.name for shard in self.shards for saving in shard.savings}
        contents = [content for shard in self.shards for content in shard.content.values()]
        rows = sum(part.rows for content in contents for part in content.values())
        base = f" on {self.base.name}" if self.kind == "incremental" and self.base else ""
        return f"{self.kind} backup{base}: {counted(len(tables), 'table')}, {counted(rows, 'row')}"


def plan_backup(
    servers: Sequence[ShardServers],
    names: Sequence[str],
    backups: Sequence[Backup],
    *,
    full: bool = False,
    force: bool = False,
) -> Plan:
    """Find out what is to be done; change nothing.

    Args:
        servers: of each shard, which do it.
        names: the private tables.
        backups: what there is.
        full: begin a chain, whatever there is.
        force: also if nothing has changed.
    """
    main = servers[0].main
    ((database,),) = main.database.query("SELECT currentDatabase()")
    good = [
        manifest
        for manifest in good_backups(backups)
        if (manifest.database, manifest.collection) == (database, main.collection)
    ]
    last = good[-1] if good else None
    bases: Sequence[BackupManifest | None] = [None] * len(servers)
    if last and len(last.by_shard) == len(servers):
        bases = last.by_shard
    refused: dict[str, DataRefused] = {}
    shards = [
        _plan_shard(shard, database, names, base, refused)
        for shard, base in zip(servers, bases, strict=True)
    ]
    kind: BackupKind = "full"
    incremental = any(shard.tables("incremental") for shard in shards)
    if last and bases[0] and incremental and not full and last.number < main.config.full_every:
        kind = "incremental"
    newest = next((one for one in reversed(backups) if one.state in ("good", "damaged")), None)
    if last is None:
        reason = "the first one"
    elif newest and newest.state == "damaged":
        reason = f"the newest one, {newest.name}, is damaged"
    elif full or force:
        reason = "as it was asked for"
    elif bases[0] is None:
        reason = f"the cluster has {len(servers)} shards, and had {len(last.by_shard)}"
    else:
        changes = (_change(shard.base, shard) for shard in shards if shard.base)
        reason = next(filter(None, changes), "")
    return Plan(database, shards, list(refused.values()), last, reason, kind)


def _plan_shard(
    servers: ShardServers,
    database: str,
    names: Sequence[str],
    base: BackupManifest | None,
    refused: dict[str, DataRefused],
) -> ShardPlan:
    """Find out what is to be done on a shard; add what can't be saved to `refused`."""
    savings = []
    for name in names:
        try:
            saving = _saving(servers, database, name)
        except DataRefused as error:
            refused[name] = error
        else:
            savings += [saving] if saving else []
    content = {saving.name: _content(saving, base) for saving in savings}
    created = definitions(servers.main.database)
    for name, server in servers.elsewhere.items():
        created[name] = read_table(server.database, name).create
    return ShardPlan(
        server=servers.main,
        savings=savings,
        definitions=created,
        needed=loaded_first(servers.main.database),
        access=access(servers.main.database),
        content=content,
        elsewhere=servers.elsewhere.keys(),
        base=base,
    )


def _saving(servers: ShardServers, database: str, name: str) -> Saving | None:
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
    return Saving(name, server, method, source, keeper.columns, table.create, keeper.create)


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


def _content(saving: Saving, last: BackupManifest | None) -> Partitions:
    """Return what a table has; partitions that are as in the last backup are not read."""
    unchanged: Partitions = {}
    saved = last.tables.get(saving.name) if last else None
    # A column with another DEFAULT has other values in the very same parts.
    as_before = saved and same_definition(saved.storage_schema, saving.storage_schema)
    if saved and as_before and saved.scheme == SCHEME:
        unchanged = {
            name: partition
            for name, partition in saved.partitions.items()
            if name not in saved.later and bool(partition.checksum) == bool(saving.source.digest)
        }
    server = saving.server
    server.throttle.wait()
    return read_content(server.database, saving.source, unchanged, server.config.settings_clause)


def _change(last: BackupManifest, shard: ShardPlan) -> str:
    """Return what has changed since a backup; "" for nothing."""
    savings, content = shard.savings, shard.content
    names = {saving.name for saving in savings}
    if new := sorted(names - last.tables.keys()):
        return f"new tables: {', '.join(new)}"
    if gone := sorted(last.tables.keys() - names):
        return f"tables are gone: {', '.join(gone)}"
    if unproven := [
        saving.name for saving in savings if not saving.proves(last.tables[saving.name])
    ]:
        return (
            "the checksums of version 2.0.0 missed some rows or columns, so nobody knows whether"
            f" these have changed: {', '.join(unproven)}"
        )
    changed = [
        name
        for name in sorted(names)
        if last.tables[name].later or differences(last.tables[name].partitions, content[name])
    ]
    if changed:
        return f"changed: {', '.join(changed)}"
    if shard.definitions.keys() != last.definitions.keys() or not all(
        same_definition(create, last.definitions[name])
        for name, create in shard.definitions.items()
    ):
        return "changed definitions"
    return "changed users, roles or grants" if shard.access != last.access else ""


def same_definition(first: str, second: str) -> bool:
    """Tell whether two statements create the same table, be it on two nodes."""
    return without_replica(first) == without_replica(second)


def access(database: Database) -> str:
    """Return the statements that create users, roles and grants; "" if they may not be seen.

    The server leaves passwords out of them.
    """
    try:
        rows = database.query("SHOW ACCESS")
    except StatementRefused as error:
        if error.code != NOT_GRANTED:
            raise
        return ""
    return "".join(f"{statement};\n" for (statement,) in rows)
