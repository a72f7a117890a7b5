"""The public exports, as the commands need them."""

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace

import msgspec

from backup_config import Config
from exports.csv_rows import RowSource
from exports.manifest import ExportLayout, TableManifest
from exports.reader import Reader
from exports.row_source import ReplicaSource
from exports.stored import TableManifests, read_table_manifest
from ooni_common.errors import ConfigError, DataRefused
from ooni_common.nodes import Nodes
from ooni_common.replicas import without_replica
from ooni_common.run import Job
from store.bucket import Bucket
from tables.inventory import check_names, is_in_utc, read_table
from tables.replicas import TableReplicas

log = logging.getLogger("ooni.db_backup")

LOCK = "db-backup.lock"  # in the state directory, since the first run


def beginning_of(
    bucket: Bucket, layout: ExportLayout, read: TableManifests, table: str
) -> TableManifest:
    """Return the manifest of a table that has none, or whose damage is given up by --force.

    If it is what is pending that is damaged, the manifest itself is kept: it may name objects whose
    rows the database has no more. What is pending then may be such an object, too.
    """
    if table in read.damaged:
        with suppress(DataRefused):
            if kept := read_table_manifest(bucket, layout, table, ()):
                return msgspec.structs.replace(kept, begun="")
    return TableManifest(table=table)


def damaged_manifest(config: Config, table: str, reason: str) -> DataRefused:
    """Return what is said of a table whose manifest can't be used."""
    policy = config.policy_of(table)
    if policy is None or policy.exported:
        return DataRefused(
            f"{reason}; export the table again: ooni-db-backup export --force {table}"
        )
    if policy.policy == "gone":
        return DataRefused(
            f'{reason}; put an older version of it there, or list {table!r} as "none" and let'
            " prune --confirm delete what it named"
        )
    return DataRefused(f"{reason}; prune --confirm deletes what it named: {table!r} isn't public")


def vanished_tables(
    config: Config, manifests: TableManifests, existing: Collection[str]
) -> DataRefused | None:
    """Return what is said of tables that have exports, and that the database has no more.

    Args:
        config: says which of them are public, or gone. One that it names is reported elsewhere.
        manifests: of the exports.
        existing: the tables of the database.
    """
    vanished = [
        table
        for table in sorted({*manifests.sound, *manifests.damaged} - set(existing))
        if table not in config.named_tables
        and (policy := config.policy_of(table))
        and policy.exported
    ]
    if not vanished:
        return None
    return DataRefused(
        f"tables that have exports, but the database has not: {', '.join(map(repr, vanished))};"
        ' if they are gone for good, list them as "gone": what was exported stays'
    )


def public_bucket(job: Job[Config]) -> tuple[Bucket, ExportLayout]:
    """Return the bucket of the exports, and where they are in it."""
    bucket = Bucket(job.config.store("public"), job.user_agent)
    return bucket, ExportLayout(job.config.public_prefix)


def reader_of(config: Config, nodes: Nodes, name: str) -> Reader:
    """Return what reads a table as its policy says."""
    policy = config.policy_of(name)
    if policy is None:
        raise ConfigError(f"{name!r} is not listed")
    replicas = TableReplicas(nodes, name) if nodes.is_cluster else None
    database = replicas.databases[0] if replicas else nodes.first
    table, in_utc = read_table(database, name), is_in_utc(database)
    if replicas:  # the next run may read another node
        table = replace(table, create=without_replica(table.create))
    return Reader(database, table, policy, config.settings_clause, in_utc=in_utc, replicas=replicas)


def rows_of(job: Job[Config], reader: Reader, source: RowSource) -> RowSource:
    """Return what the rows come from; `source` is that of a server of its own."""
    return ReplicaSource(job.config, reader.replicas) if reader.replicas else source


def warn_of_stale_exports(config: Config, manifests: Mapping[str, TableManifest]) -> None:
    """Warn of exports of tables that are not public now: they can still be downloaded."""
    for name in manifests:
        policy = config.policy_of(name)
        if policy is None or not (policy.exported or policy.policy == "gone"):
            log.warning("%s: not public any more, but its exports are still in the bucket", name)


def with_chunks(manifest: TableManifest, names: Collection[str]) -> TableManifest:
    """Return the manifest of a table with some of its chunks.

    Raises:
        UsageError: there is no such chunk.
    """
    check_names(names, [*manifest.chunks, *manifest.pending], f"chunk of {manifest.table}:")
    chunks, pending = (
        {name: export for name, export in exports.items() if name in names}
        for exports in (manifest.chunks, manifest.pending)
    )
    return msgspec.structs.replace(manifest, chunks=chunks, pending=pending)
