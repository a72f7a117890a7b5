"""Making a backup: what has changed since the last good one, and all that is needed to restore it.

The manifest is written last: whatever ends this before, there is no backup.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from backups.contents import (
    ALIASES_OF_2_0_0,
    PARTITION,
    ContentSource,
    Partitions,
    differences,
    read_content,
)
from backups.manifest import (
    NAME_FORMAT,
    Backup,
    BackupKind,
    BackupLayout,
    BackupManifest,
    SavedAs,
    SavedTable,
    ServerBackup,
    good_backups,
    needed_objects,
)
from backups.prune import delete_backup
from backups.server import ServerBackups
from digest import SCHEME, Expression, digest, is_sound
from inventory import (
    BACKED_UP,
    NOT_BACKED_UP,
    UNREADABLE_ENGINES,
    Column,
    definitions,
    read_table,
    refreshes_itself,
    storage_of,
)
from ooni_common.database import Database, StatementRefused, quoted
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from store import JSON, SQL, TOOL, Bucket, encoded
from throttle import in_units

log = logging.getLogger("ooni.db_backup")

NOT_GRANTED = 497


@dataclass(frozen=True)
class Saving:
    """A table that is to be saved.

    Attributes:
        name: of the table.
        method: how its rows are saved.
        source: the table that has the rows.
        columns: those that are saved.
        schema: SHOW CREATE of the table.
        storage_schema: SHOW CREATE of the one that has the rows.
    """

    name: str
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
class Plan:
    """What a backup will have.

    Attributes:
        database: its name.
        savings: the tables.
        definitions: the CREATE statement of everything in the database, by name.
        access: the statements that create users, roles and grants; "" if they may not be seen.
        content: of each table, before.
        refused: tables whose rows can't be saved in any way, and why.
        base: the last good backup; None: there is none that could be the base.
        reason: why a backup is made; "": nothing has changed.
        kind: whether it starts a chain.
    """

    database: str
    savings: Sequence[Saving]
    definitions: Mapping[str, str]
    access: str
    content: Mapping[str, Partitions]
    refused: Sequence[DataRefused]
    base: BackupManifest | None
    reason: str
    kind: BackupKind

    def tables(self, method: SavedAs) -> list[str]:
        """Return the tables that are saved in one way."""
        return [saving.name for saving in self.savings if saving.method == method]

    def __str__(self) -> str:
        rows = sum(part.rows for content in self.content.values() for part in content.values())
        base = f" on {self.base.name}" if self.kind == "incremental" and self.base else ""
        return f"{self.kind} backup{base}: {len(self.savings)} tables, {rows:,} rows"


def plan_backup(
    server: ServerBackups,
    names: Sequence[str],
    backups: Sequence[Backup],
    *,
    full: bool = False,
    force: bool = False,
) -> Plan:
    """Find out what is to be done; change nothing.

    Args:
        server: which does it.
        names: the private tables.
        backups: what there is.
        full: begin a chain, whatever there is.
        force: also if nothing has changed.
    """
    ((database,),) = server.database.query("SELECT currentDatabase()")
    savings, refused = _savings(server, database, names)
    good = [
        manifest
        for manifest in good_backups(backups)
        if (manifest.database, manifest.collection) == (database, server.collection)
    ]
    last = good[-1] if good else None
    incremental = any(saving.method == "incremental" for saving in savings)
    kind: BackupKind = "full"
    if last and incremental and not full and last.number < server.config.full_every:
        kind = "incremental"
    content = {saving.name: _content(server, saving, last) for saving in savings}
    created, rights = definitions(server.database), access(server.database)
    if last is None:
        reason = "the first one"
    elif full or force:
        reason = "as it was asked for"
    else:
        reason = _change(last, savings, content, created, rights)
    return Plan(database, savings, created, rights, content, refused, last, reason, kind)


def back_up(
    server: ServerBackups, bucket: Bucket, plan: Plan, backups: Sequence[Backup]
) -> BackupManifest:
    """Make a backup as planned, and return its manifest, which is in the bucket then.

    Raises:
        DataRefused: the store does not encrypt as it should.
        Unavailable, ConfigError: it failed. In all cases there is no backup.
    """
    started = _free_time(server, backups)
    name = f"{started:{NAME_FORMAT}}"
    base = plan.base if plan.kind == "incremental" else None
    with _removed_unless_complete(bucket, server.layout, name):
        parts = _make_server_backups(server, plan, name, base)
        for table in plan.tables("rows"):
            _save_rows(server, plan, name, table)
        _put_text(bucket, server.layout, plan, name)
        saved = {
            saving.name: _saved(server, saving, plan.content[saving.name])
            for saving in plan.savings
        }
        ((version,),) = server.database.query("SELECT version()")
        objects = bucket.listing(f"{server.layout.data(name)}rows/")
        manifest = BackupManifest(
            name=name,
            kind=plan.kind,
            base=base.name if base else "",
            chain=base.chain if base else name,
            number=base.number + 1 if base else 1,
            database=plan.database,
            collection=server.collection,
            tables=saved,
            definitions=dict(plan.definitions),
            parts=parts,
            rows_bytes=sum(listed.size for listed in objects),
            access=plan.access,
            started=f"{started:%Y-%m-%dT%H:%M:%SZ}",
            finished=f"{server.clock():%Y-%m-%dT%H:%M:%SZ}",
            tool=TOOL,
            server=version,
        )
        _check_objects(server, bucket, manifest)
        key = server.layout.manifest(name)
        bucket.put(key, encoded(manifest, key), JSON)
    return manifest


def _savings(
    server: ServerBackups, database: str, names: Sequence[str]
) -> tuple[list[Saving], list[DataRefused]]:
    """Return how tables are saved, and why others can't be."""
    savings, refused = [], []
    for name in names:
        try:
            saving = _saving(server, database, name)
        except DataRefused as error:
            refused.append(error)
        else:
            savings += [saving] if saving else []
    return savings, refused


def _saving(server: ServerBackups, database: str, name: str) -> Saving | None:
    """Return how a table is saved; None if it has no rows of its own."""
    policy = server.config.policy_of(name)
    if policy is None:
        raise ConfigError(f"{name!r} is not listed")
    table = read_table(server.database, name)
    storage = storage_of(server.database, name)
    keeper = table if storage == name else read_table(server.database, storage)
    _check_engine(name, keeper.engine)
    if refreshes_itself(table.create):
        log.info("%s computes its rows anew; its definition is saved", name)
        return None
    if keeper.engine in NOT_BACKED_UP:
        method: SavedAs = "rows"
    elif BACKED_UP.fullmatch(keeper.engine):
        method = policy.method
    else:
        log.info("%s: the engine %s keeps no rows; its definition is saved", name, keeper.engine)
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
    return Saving(name, method, source, keeper.columns, table.create, keeper.create)


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


def _content(server: ServerBackups, saving: Saving, last: BackupManifest | None) -> Partitions:
    """Return what a table has; partitions that are as in the last backup are not read."""
    unchanged: Partitions = {}
    saved = last.tables.get(saving.name) if last else None
    # A column with another DEFAULT has other values in the very same parts.
    as_before = saved and saved.storage_schema == saving.storage_schema
    if saved and as_before and saved.scheme == SCHEME:
        unchanged = {
            name: partition
            for name, partition in saved.partitions.items()
            if name not in saved.later and bool(partition.checksum) == bool(saving.source.digest)
        }
    server.throttle.wait()
    return read_content(server.database, saving.source, unchanged, server.config.settings_clause)


def _change(
    last: BackupManifest,
    savings: Sequence[Saving],
    content: Mapping[str, Partitions],
    created: Mapping[str, str],
    access: str,
) -> str:
    """Return what has changed since a backup; "" for nothing."""
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
    if created != last.definitions:
        return "changed definitions"
    return "changed users, roles or grants" if access != last.access else ""


def _make_server_backups(
    server: ServerBackups, plan: Plan, name: str, base: BackupManifest | None
) -> dict[str, ServerBackup]:
    """Let the server write its backups."""
    groups: dict[str, list[str]] = {
        "definitions": list(plan.definitions),
        "full": plan.tables("full"),
        "incremental": plan.tables("incremental"),
    }
    parts: dict[str, ServerBackup] = {}
    for kind, tables in groups.items():
        if not tables:
            continue
        server.throttle.wait()
        path = server.layout.server_backup(name, kind)
        below = base.parts.get(kind) if base and kind == "incremental" else None
        started = server.clock()
        written = server.back_up(
            tables,
            path,
            below.path if below else "",
            structure_only=kind == "definitions",
        )
        parts[kind] = ServerBackup(
            path=path,
            base=below.path if below else "",
            tables=tuple(tables),
            bytes=written.bytes,
            total_bytes=written.total_bytes,
        )
        log.info(
            "%s: %s: %d tables: %s written, in %.1f s",
            name,
            kind,
            len(tables),
            in_units(written.bytes),
            (server.clock() - started).total_seconds(),
        )
    return parts


def _save_rows(server: ServerBackups, plan: Plan, name: str, table: str) -> None:
    saving = next(saving for saving in plan.savings if saving.name == table)
    if not plan.content[table]:
        return  # there are no rows
    key = server.layout.rows(name, table)
    server.save_rows(saving.source.table, saving.column_names, key)
    log.info("%s: rows of %s (%s)", name, table, saving.source.engine)


def _put_text(bucket: Bucket, layout: BackupLayout, plan: Plan, name: str) -> None:
    """Write for people what the server's backup has of definitions, and the access rights."""
    schema = "\n\n".join(f"{create};" for create in plan.definitions.values())
    bucket.put(layout.schema(name), f"{schema}\n".encode(), SQL)
    if plan.access:
        bucket.put(layout.access(name), plan.access.encode(), SQL)


def _saved(server: ServerBackups, saving: Saving, content: Partitions) -> SavedTable:
    """Describe a table, and the partitions that were changed while it was saved."""
    after = read_content(server.database, saving.source, content, server.config.settings_clause)
    later = differences(content, after)
    if later:
        log.info(
            "%s: changed meanwhile; of %d partitions only the number of rows can be verified",
            saving.name,
            len(later),
        )
    return SavedTable(
        method=saving.method,
        engine=saving.source.engine,
        schema=saving.schema,
        storage_schema=saving.storage_schema,
        columns=saving.column_names,
        scheme=SCHEME,
        partitions=content,
        later=later,
    )


def _check_objects(server: ServerBackups, bucket: Bucket, manifest: BackupManifest) -> None:
    """Check that the server has written all that is needed, and that it is encrypted."""
    wanted = server.config.private_sse
    for key in needed_objects(server.layout, manifest):
        head = bucket.look(key)
        if head is None:
            raise ConfigError(
                f"{bucket.url}/{key}: the server has not written it there; if it has a named"
                " collection, doctor tells whether that is of this bucket; else try again"
            )
        if wanted not in ("", head.encryption):
            raise DataRefused(not_encrypted(bucket, wanted))


def not_encrypted(bucket: Bucket, wanted: str) -> str:
    """Say that the objects of the server are not encrypted, and what to do."""
    return (
        f"{bucket.url}: what the server writes is not encrypted with {wanted} (private_sse); set"
        " the default encryption of the bucket"
    )


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


def _free_time(server: ServerBackups, backups: Sequence[Backup]) -> datetime:
    """Return the time now; later than the start of every backup there is."""
    now = server.clock()
    if backups and backups[-1].started >= now.replace(microsecond=0):
        ahead = (backups[-1].started - now).total_seconds()
        if ahead > 60:
            raise ConfigError(
                f"the backup {backups[-1].name} is {ahead:.0f} s ahead of this machine's clock;"
                " check its NTP"
            )
        server.sleep(ahead + 1)
        now = server.clock()
    return now


@contextlib.contextmanager
def _removed_unless_complete(bucket: Bucket, layout: BackupLayout, name: str) -> Iterator[None]:
    """Delete what was written of a backup that failed; what can't be, prune deletes later."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(ScriptError):
            delete_backup(bucket, layout, name)
        raise
