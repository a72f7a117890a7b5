"""Making a backup as it was planned, with all that is needed to restore it.

The manifest is written last: whatever ends this before, there is no backup.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from backups.contents import differences, read_content
from backups.manifest import (
    NAME_FORMAT,
    SERVER_MANIFEST,
    BackupLayout,
    BackupManifest,
    SavedTable,
    ServerBackup,
    of_all_shards,
)
from backups.plan import Plan, ShardPlan
from backups.prune import delete_backup
from backups.saving import Saving
from backups.server import ServerBackups
from backups.signature import signature_of
from backups.stored import Backup, needed_objects
from documents import JSON, LARGEST_DOCUMENT, SQL, TEXT, TOOL, encoded
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.output import counted
from schemas.references import in_order
from store.bucket import Bucket
from store.doctor import NO_ETAG
from tables.digest import SCHEME
from throttle import in_units

log = logging.getLogger("ooni.db_backup")

MOST_RUNS = 2**62  # a number that somebody else has written must not be one that can't be increased


def back_up(
    bucket: Bucket,
    layout: BackupLayout,
    plan: Plan,
    backups: Sequence[Backup],
    *,
    runs: int = 0,
    key: bytes = b"",
) -> BackupManifest:
    """Make a backup as planned, and return its manifest, which is in the bucket then.

    Args:
        bucket: where it goes.
        layout: where in it.
        plan: what it has.
        backups: what there is.
        runs: the highest run number that is known here.
        key: by which its manifest is signed; empty: it is not.

    Raises:
        DataRefused: the store does not encrypt as it should.
        Unavailable, ConfigError: it failed. In all cases there is no backup.
    """
    _check_room(plan)
    server = plan.shards[0].server
    started = _free_time(server, backups)
    name = f"{started:{NAME_FORMAT}}"
    with _removed_unless_complete(bucket, layout, name):
        shards = [_back_up_shard(bucket, plan, shard, started) for shard in plan.shards]
        numbers = [
            backup.manifest.run
            for backup in backups
            if backup.manifest and (backup.signature == "valid" or not key)
        ]
        run = min(max([runs, *numbers]) + 1, MOST_RUNS)
        manifest = msgspec.structs.replace(of_all_shards(shards), run=run)
        _check_objects(server, bucket, layout, manifest)
        content = encoded(manifest, layout.manifest(name))
        if key:
            bucket.put(layout.signature(name), signature_of(key, content), TEXT)
        bucket.put_document(layout.manifest(name), content, JSON)
    return manifest


def _check_room(plan: Plan) -> None:
    """Raise DataRefused where the manifest would be too large to be read back."""
    size = 0
    for shard in plan.shards:
        size += len(msgspec.json.encode([shard.content, shard.definitions, shard.access]))
        size += len(msgspec.json.encode([one.storage for one in shard.coverage.values()]))
        for saving in shard.savings:
            size += len(msgspec.json.encode([saving.schema, saving.storage_schema]))
    if len(plan.shards) > 1:  # it also says what they are together
        size *= 2
    if size > LARGEST_DOCUMENT:
        raise DataRefused(
            f"no backup is made: its manifest would have {size:,} bytes, more than the"
            f" {LARGEST_DOCUMENT:,} that are read back; back up fewer tables or partitions"
        )


def _back_up_shard(
    bucket: Bucket, plan: Plan, shard: ShardPlan, started: datetime
) -> BackupManifest:
    """Save what the plan has of a shard; return the manifest of that."""
    server, name = shard.server, f"{started:{NAME_FORMAT}}"
    base = shard.base if plan.kind == "incremental" else None
    server.throttle.wait()
    shard = shard.without_vanished()  # that may have taken hours
    parts = _make_server_backups(bucket, shard, name, base)
    for saving in shard.savings:
        if saving.method == "rows":
            _save_rows(shard, saving, name)
    _put_text(bucket, shard, name)
    saved = {saving.name: _saved(saving, shard) for saving in shard.savings}
    ((version,),) = server.database.query("SELECT version()")
    objects = bucket.listing(server.layout.all_rows(name))
    return BackupManifest(
        name=name,
        kind=plan.kind,
        base=base.name if base else "",
        chain=base.chain if base else name,
        number=base.number + 1 if base else 1,
        database=plan.database,
        collection=server.collection,
        tables=saved,
        definitions=dict(shard.definitions),
        order=tuple(in_order(shard.definitions, plan.database, shard.needed)),
        parts=parts,
        rows_bytes=sum(listed.size for listed in objects),
        access=shard.access,
        started=f"{started:%Y-%m-%dT%H:%M:%SZ}",
        finished=f"{server.clock():%Y-%m-%dT%H:%M:%SZ}",
        tool=TOOL,
        server=version,
    )


def _make_server_backups(
    bucket: Bucket, shard: ShardPlan, name: str, base: BackupManifest | None
) -> dict[str, ServerBackup]:
    """Let the server write its backups."""
    server = shard.server
    groups: dict[str, list[str]] = {
        "definitions": [table for table in shard.definitions if table not in shard.elsewhere],
        "full": shard.tables("full"),
        "incremental": shard.tables("incremental"),
    }
    parts: dict[str, ServerBackup] = {}
    for kind, tables in groups.items():
        if not tables:
            continue
        if parts:  # for the first one, the plan has waited
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
            sha256=bucket.sha256(path + SERVER_MANIFEST) or "",
        )
        log.info(
            "%s: %s: %s: %s written, in %.1f s",
            name,
            kind,
            counted(len(tables), "table"),
            in_units(written.bytes),
            (server.clock() - started).total_seconds(),
        )
    return parts


def _save_rows(shard: ShardPlan, saving: Saving, name: str) -> None:
    if not shard.content[saving.name]:
        return  # there are no rows
    key = shard.server.layout.rows(name, saving.name)
    saving.server.save_rows(saving.source.table, saving.column_names, key)
    log.info("%s: rows of %s (%s)", name, saving.name, saving.source.engine)


def _put_text(bucket: Bucket, shard: ShardPlan, name: str) -> None:
    """Write for people what the server's backup has of definitions, and the access rights."""
    layout = shard.server.layout
    schema = "\n\n".join(f"{create};" for create in shard.definitions.values())
    bucket.put(layout.schema(name), f"{schema}\n".encode(), SQL)
    if shard.access:
        bucket.put(layout.access(name), shard.access.encode(), SQL)


def _saved(saving: Saving, shard: ShardPlan) -> SavedTable:
    """Describe a table, and the partitions that were changed while it was saved."""
    server, content = saving.server, shard.content[saving.name]
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
        storage=shard.coverage[saving.name].storage,
    )


def _check_objects(
    server: ServerBackups, bucket: Bucket, layout: BackupLayout, manifest: BackupManifest
) -> None:
    """Check that the server has written all that is needed, and that it is encrypted."""
    wanted = server.config.private_sse
    for key in needed_objects(layout, manifest):
        head = bucket.look(key)
        if head is None:
            raise ConfigError(
                f"{bucket.url}/{key}: the server has not written it there; if it has a named"
                " collection, doctor tells whether that is of this bucket; else try again"
            )
        if not head.etag:
            raise ConfigError(f"{bucket.url}/{key}: {NO_ETAG}")
        if wanted not in ("", head.encryption):
            raise DataRefused(not_encrypted(bucket, wanted))


def not_encrypted(bucket: Bucket, wanted: str) -> str:
    """Say that the objects of the server are not encrypted, and what to do."""
    return (
        f"{bucket.url}: what the server writes is not encrypted with {wanted} (private_sse); set"
        " the default encryption of the bucket"
    )


def _free_time(server: ServerBackups, backups: Sequence[Backup]) -> datetime:
    """Return the time now; later than the start of every backup there is."""
    now = server.clock()
    backups = [backup for backup in backups if not backup.in_future]
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
