"""What a backup will have: what has changed since the last good one, on each shard."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from backups.contents import (
    Partitions,
    differences,
    read_content,
)
from backups.coverage import Coverage, read_coverage
from backups.manifest import BackupKind, BackupManifest, SavedAs, SavedTable
from backups.saving import Saving, saving_of
from backups.server import ServerBackups
from backups.shards import ShardServers
from backups.stored import Backup, good_backups
from ooni_common.database import Database, ServerError, StatementFailed, StatementRefused
from ooni_common.errors import DataRefused, ScriptError
from ooni_common.output import counted
from ooni_common.replicas import without_replica
from tables.digest import SCHEME
from tables.inventory import (
    all_names,
    definitions,
    loaded_first,
    merges_rows,
    read_table,
)

log = logging.getLogger("ooni.db_backup")

T = TypeVar("T")

NOT_GRANTED = 497
FAILURES_OF_THE_SERVER = 3  # so many tables that fail one after another are hardly to blame


@dataclass(frozen=True)
class ShardPlan:
    """What a backup will have of a shard.

    Attributes:
        server: which makes it.
        savings: the tables.
        definitions: the CREATE statement of everything in the database, by name.
        needed: what the server has to load before a table, by its name.
        access: the statements that create users, roles and grants; "" if they may not be seen.
        coverage: what the parts of each table tell, before its content was read.
        content: of each table, before.
        elsewhere: the tables that another server of the shard has, and this one has not.
        base: what the last good backup has of it, if that could be the base.
    """

    server: ServerBackups
    savings: Sequence[Saving]
    definitions: Mapping[str, str]
    needed: Mapping[str, Collection[str]]
    access: str
    coverage: Mapping[str, Coverage]
    content: Mapping[str, Partitions]
    elsewhere: Collection[str]
    base: BackupManifest | None

    def tables(self, method: SavedAs) -> list[str]:
        """Return the tables that are saved in one way."""
        return [saving.name for saving in self.savings if saving.method == method]

    def without_vanished(self) -> "ShardPlan":
        """Return the plan without the definitions of what was dropped since, but private tables.

        These are to be saved, so a backup without one is none.
        """
        left = {*all_names(self.server.database), *self.elsewhere}
        vanished = {name for name in self.definitions if name not in left and not self._saves(name)}
        for name in sorted(vanished):
            log.warning("%s was dropped meanwhile; its definition is not in this backup", name)
        kept = {name: one for name, one in self.definitions.items() if name not in vanished}
        return replace(self, definitions=kept)

    def _saves(self, name: str) -> bool:
        policy = self.server.config.policy_of(name)
        return policy is not None and policy.backed_up

    def without(self, names: Collection[str]) -> "ShardPlan":
        """Return the plan without some tables."""
        return replace(
            self,
            savings=[one for one in self.savings if one.name not in names],
            coverage={name: one for name, one in self.coverage.items() if name not in names},
            content={name: one for name, one in self.content.items() if name not in names},
        )


@dataclass(frozen=True)
class Plan:
    """What a backup will have.

    Attributes:
        database: its name.
        shards: what of each; of a server of its own, it is one.
        refused: why tables are left out: their rows can't be saved in any way, or not be read.
        base: the last good backup; None: there is none that could be the base.
        reason: why a backup is made; "": nothing has changed.
        kind: whether it starts a chain.
    """

    database: str
    shards: Sequence[ShardPlan]
    refused: Sequence[ScriptError]
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

    Raises:
        StatementFailed, StatementRefused: several tables in a row can't be read, or none at all.
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
    refused: dict[str, ScriptError] = {}
    shards = _left(
        [
            _plan_shard(shard, database, names, base, refused)
            for shard, base in zip(servers, bases, strict=True)
        ],
        refused,
    )
    kind: BackupKind = "full"
    incremental = any(shard.tables("incremental") for shard in shards)
    if last and bases[0] and incremental and not full and last.number < main.config.full_every:
        kind = "incremental"
    reason = _reason(backups, last, shards, asked=full or force)
    if reason:
        shards = _left([_as_merged(shard, refused) for shard in shards], refused)
    return Plan(database, shards, list(refused.values()), last, reason, kind)


def _reason(
    backups: Sequence[Backup],
    last: BackupManifest | None,
    shards: Sequence[ShardPlan],
    *,
    asked: bool,
) -> str:
    """Return why a backup is made; "" if nothing has changed since the last good one."""
    if last is None:
        return "the first one"
    newest = next((one for one in reversed(backups) if one.state in ("good", "damaged")), None)
    if newest and newest.state == "damaged":
        return f"the newest one, {newest.name}, is damaged"
    if asked:
        return "as it was asked for"
    if shards[0].base is None:
        return f"the cluster has {len(shards)} shards, and had {len(last.by_shard)}"
    changes = (_change(shard.base, shard) for shard in shards if shard.base)
    return next(filter(None, changes), "")


def _plan_shard(
    servers: ShardServers,
    database: str,
    names: Sequence[str],
    base: BackupManifest | None,
    refused: dict[str, ScriptError],
) -> ShardPlan:
    """Find out what is to be done on a shard; add what can't be saved to `refused`."""
    savings = []
    for name in names:
        try:
            saving = saving_of(servers, database, name)
        except DataRefused as error:
            refused[name] = error
        else:
            savings += [saving] if saving else []
    coverage = _of_each(savings, lambda saving: _coverage(saving, base), refused)
    content = _of_each(
        [saving for saving in savings if saving.name in coverage],
        lambda saving: _content(saving, base, coverage[saving.name].unchanged),
        refused,
    )
    created = definitions(servers.main.database)
    for name, server in servers.elsewhere.items():
        created[name] = read_table(server.database, name).create
    return ShardPlan(
        server=servers.main,
        savings=savings,
        definitions=created,
        needed=loaded_first(servers.main.database),
        access=access(servers.main.database),
        coverage=coverage,
        content=content,
        elsewhere=servers.elsewhere.keys(),
        base=base,
    )


def _of_each(
    savings: Iterable[Saving], read: Callable[[Saving], T], refused: dict[str, ScriptError]
) -> dict[str, T]:
    """Return what is read of each table; one that can't be read keeps no other from being saved.

    Raises:
        StatementFailed: so many in a row can't be read that it is the server.
    """
    results = {}
    in_a_row = 0
    for saving in savings:
        try:
            results[saving.name] = read(saving)
            in_a_row = 0
        except (StatementFailed, StatementRefused) as error:
            in_a_row += isinstance(error, StatementFailed)
            if in_a_row == FAILURES_OF_THE_SERVER:
                raise
            error.args = (f"{saving.name!r}: not in this backup: {error}", *error.args[1:])
            refused[saving.name] = error
    return results


def _left(shards: Sequence[ShardPlan], refused: Mapping[str, ScriptError]) -> list[ShardPlan]:
    """Return the plans without what one of the shards has refused.

    Raises:
        StatementFailed, StatementRefused: nothing is left, which is hardly the fault of the tables.
    """
    left = [shard.without(refused) for shard in shards]
    unread = [error for error in refused.values() if isinstance(error, ServerError)]
    if unread and not any(shard.savings for shard in left):
        raise unread[0]
    return left


def _coverage(saving: Saving, last: BackupManifest | None) -> Coverage:
    """Return what the parts of a table tell."""
    saved = last.tables.get(saving.name) if last else None
    return read_coverage(saving.server.database, saving.keeper, saved)


def _as_merged(shard: ShardPlan, refused: dict[str, ScriptError]) -> ShardPlan:
    """Return a plan with the rows that a backup will have of partitions that were not read.

    Merges drop some. And a manifest has to say what there is, also where the blocks tell wrongly
    that nothing has changed: else nothing could be restored that the server has saved.
    """
    merged = _of_each(
        [saving for saving in shard.savings if shard.coverage[saving.name].unchanged],
        lambda saving: _content(saving, shard.base, ()),
        refused,
    )
    return replace(shard, content={**shard.content, **merged})


def _content(saving: Saving, last: BackupManifest | None, covered: Collection[str]) -> Partitions:
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
    settings = server.config.settings_clause
    return read_content(server.database, saving.source, unchanged, settings, covered)


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
        if _has_changed(last.tables[name], content[name], shard.coverage[name].unchanged)
    ]
    if changed:
        return f"changed: {', '.join(changed)}"
    if shard.definitions.keys() != last.definitions.keys() or not all(
        same_definition(create, last.definitions[name])
        for name, create in shard.definitions.items()
    ):
        return "changed definitions"
    return "changed users, roles or grants" if shard.access != last.access else ""


def _has_changed(saved: SavedTable, content: Partitions, unchanged: Collection[str]) -> bool:
    """Tell whether a table has other rows than a backup.

    Args:
        saved: what the backup has.
        content: of the table now.
        unchanged: the partitions whose rows are those of before the backup, but for merges.
    """
    # While the backup was made, other rows may have come and gone again.
    later = saved.later.keys() - (unchanged if merges_rows(saved.engine) else ())
    return bool(later or differences(saved.partitions, content).keys() - unchanged)


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
