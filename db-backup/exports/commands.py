"""The public exports, as the commands need them."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace

import msgspec

from backup_config import Config
from documents import TOOL
from exports.chunk_rows import RowsDiffer
from exports.clickhouse_http import ClickHouseHTTP
from exports.csv_rows import RowSource
from exports.export import Exporter
from exports.manifest import ExportLayout, RunManifest, TableManifest, now
from exports.plan import Step, planned, tell
from exports.publication import publish
from exports.reader import Reader
from exports.rotation import Rotation, looked_at
from exports.row_source import ChosenSource, ReplicaSource
from exports.stored import TableManifests, read_table_manifest, read_table_manifests
from ooni_common.database import StatementFailed
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.nodes import Nodes
from ooni_common.output import counted
from ooni_common.replicas import without_replica
from ooni_common.run import Job
from portal.about import about_of
from store.bucket import Bucket, Listed
from store.one_writer import writing
from store.uploads import end_interrupted_uploads
from tables.inventory import check_names, is_in_utc, read_table
from tables.replicas import TableReplicas
from throttle import in_units

log = logging.getLogger("ooni.db_backup")

LOCK = "db-backup.lock"  # in the state directory, since the first run


@dataclass
class Outcome:
    """What became of the tables of a run.

    Attributes:
        failures: what could not be done.
        uploaded: bytes of objects.
        exported: how many chunks.
        skipped: how many chunks, as they were unchanged.
        decided: bytes of columns that the server has read to decide.
        looked: bytes of columns that it has read for the rotation.
        read: bytes of CSV that were exported.
        published: whether the pages were written.
        coming: the keys that objects would get if this were no dry run.
    """

    failures: list[ScriptError]
    uploaded: int = 0
    exported: int = 0
    skipped: int = 0
    decided: int = 0
    looked: int = 0
    read: int = 0
    published: bool = False
    coming: set[str] = field(default_factory=set)


def export_tables(
    job: Job[Config],
    nodes: Nodes,
    names: Sequence[str],
    existing: Collection[str] | None = None,
) -> Outcome:
    """Export what has changed in these tables, publish what there is then, and log it.

    A table that fails does not keep the others from being done; a database or a store that does not
    answer does. What was exported is published in any case.

    Args:
        job: of the run.
        nodes: of the cluster.
        names: the tables.
        existing: all tables of the database; None: it is not known, or not asked, what is gone.
    """
    bucket, layout = public_bucket(job)
    started = now()
    with job.metrics.timer("run_export"), writing(job, bucket, layout):
        if not job.dry_run:
            for prefix in layout.with_rows:
                end_interrupted_uploads(bucket, prefix)
        read = read_table_manifests(bucket, layout, with_objects=True)
        manifests, objects = read.sound, read.objects or {}
        warn_of_stale_exports(job.config, manifests)
        ((server,),) = nodes.first.query("SELECT version()")
        http = ClickHouseHTTP(job.config, job.user_agent)
        source = ChosenSource(job.config, nodes.first, http)
        outcome = Outcome([])
        for name in names:
            if name in read.damaged and not job.force:
                outcome.failures.append(damaged_manifest(job.config, name, read.damaged[name]))
                continue
            manifest = manifests.get(name) or beginning_of(bucket, layout, read, name)
            try:
                reader = reader_of(job.config, nodes, name)
                rows = rows_of(job, reader, source)
                exporter = Exporter(job, bucket, rows, reader, manifest, http)
                export_table(job, exporter, manifests, objects, outcome)
            except (DataRefused, ConfigError, StatementFailed, RowsDiffer) as error:
                outcome.failures.append(error)
            except ScriptError as error:
                outcome.failures.append(error)
                break
        outcome.failures += [
            damaged_manifest(job.config, name, reason)
            for name, reason in read.damaged.items()
            if name not in names
        ]
        if existing is not None and (vanished := vanished_tables(job.config, read, existing)):
            outcome.failures.append(vanished)
        job.metrics.gauge("uploaded_bytes_tot", outcome.uploaded)
        job.metrics.gauge("skipped_chunks", outcome.skipped)
        job.metrics.gauge("bytes_to_decide", outcome.decided)
        job.metrics.gauge("bytes_of_rotation", outcome.looked)
        job.metrics.gauge("bytes_to_export", outcome.read)
        if not job.dry_run:
            run_manifest = RunManifest(started=started, finished=now(), tool=TOOL, server=server)
            with suppress(ScriptError) if outcome.failures else nullcontext():
                outcome.published = publish(
                    bucket, layout, read, run_manifest, about_of(job.config), objects
                )
    log_outcome(job, outcome)
    return outcome


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


def export_table(
    job: Job[Config],
    exporter: Exporter,
    manifests: dict[str, TableManifest],
    objects: Mapping[str, Listed],
    outcome: Outcome,
) -> None:
    """Export what has changed in one table, or is lost; its manifest is added to the others."""
    reader, manifest = exporter.reader, exporter.manifest
    name = manifest.table
    exporter.recover()
    exporter.throttle.wait()
    rotation = Rotation(job.config.state_dir)
    share = rotation.share(job.config.qualifier + name, len(manifest.chunks))
    plan = planned(
        reader,
        manifest,
        lambda export: exporter.is_lost(export, objects),
        max_shrink=job.config.max_shrink,
        force=job.force,
        look=lambda plan: looked_at(reader, manifest, plan, share, job.config.max_shrink),
    )
    tell(name, plan)
    outcome.decided += plan.decided
    outcome.looked += plan.looked
    plan = exporter.also_parquet(plan, objects)
    steps = plan.steps
    if owner := owner_of_its_names(name, steps, manifests, exporter.layout):
        raise DataRefused(f"{name!r}: its objects would have the names of those of {owner!r}")
    outcome.skipped += sum(step.reason == "unchanged" for step in steps)
    if renewed := sum(step.reason == "with an older digest" for step in steps):
        log.info(
            "%s: %s to export once more: the digest of version 2.0.0 missed some rows or columns,"
            " so nobody knows whether they have changed",
            name,
            counted(renewed, "chunk"),
        )
    if job.dry_run:
        exported = [step.chunk.name for step in steps if step.exports]
        outcome.exported += len(exported)
        for key_of in (exporter.layout.export, exporter.layout.parquet):
            outcome.coming |= {key_of(name, chunk) for chunk in exported}
        for error in exporter.without_parquet.values():
            outcome.failures.append(error)
        for step in steps:
            log.info("%s: would %s %s", name, "export" if step.exports else "keep", step)
        return
    try:
        with job.metrics.timer(f"table_{metric_name(job.config.qualifier + name)}_backup_time_ms"):
            exporter.carry_out(plan, objects)
        rotation.end_run(job.config.qualifier + name)
    finally:
        outcome.failures += exporter.parquet_failures()
        if exporter.tally.read:
            log.info("%s: %s of CSV read to export", name, in_units(exporter.tally.read))
        outcome.read += exporter.tally.read
        outcome.exported += exporter.tally.exported
        outcome.uploaded += exporter.tally.uploaded
        if manifest.generation:
            manifests[name] = manifest


def owner_of_its_names(
    table: str, steps: Sequence[Step], manifests: Mapping[str, TableManifest], layout: ExportLayout
) -> str:
    """Return the other table that has objects of the names that this one would write; "" for none.

    A table `a_b` and a chunk `b` of a table `a` have the same name.
    """
    names = {layout.export(table, step.chunk.name) for step in steps}
    for owner, manifest in manifests.items():
        if owner != table and any(export.key in names for export in manifest.exports):
            return owner
    return ""


def metric_name(table: str) -> str:
    """Return a table's name without what statsd would misread."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", table)


def log_outcome(job: Job[Config], outcome: Outcome) -> None:
    """Log what was done."""
    if job.dry_run:
        exported = counted(outcome.exported, "chunk")
        log.info("would export %s; unchanged: %d", exported, outcome.skipped)
    elif outcome.exported or outcome.published:
        log.info(
            "%s exported (%s); unchanged: %d",
            counted(outcome.exported, "chunk"),
            in_units(outcome.uploaded),
            outcome.skipped,
        )
    elif not outcome.failures:
        log.info("nothing to do: %s unchanged", counted(outcome.skipped, "chunk"))


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
