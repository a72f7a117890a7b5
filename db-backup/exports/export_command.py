"""Making exports: what has changed in tables becomes objects, and the pages tell of it."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

from backup_config import Config
from documents import TOOL
from exports.chunk_rows import RowsDiffer
from exports.clickhouse_http import ClickHouseHTTP
from exports.commands import (
    beginning_of,
    damaged_manifest,
    public_bucket,
    reader_of,
    rows_of,
    vanished_tables,
    warn_of_stale_exports,
)
from exports.export import Exporter
from exports.manifest import ExportLayout, RunManifest, TableManifest, now
from exports.plan import Plan, planned, tell
from exports.publication import publish
from exports.rotation import Rotation, looked_at
from exports.row_source import ChosenSource
from exports.steps import Step
from exports.stored import TableManifests, read_table_manifests
from ooni_common.database import StatementFailed
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.nodes import Nodes
from ooni_common.output import counted
from ooni_common.run import Job
from portal.about import about_of
from store.bucket import Bucket, Listed
from store.one_writer import writing
from store.uploads import end_interrupted_uploads
from tables.replicas import TableAway
from throttle import in_units

log = logging.getLogger("ooni.db_backup")


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

    failures: list[ScriptError] = field(default_factory=list)
    uploaded: int = 0
    exported: int = 0
    skipped: int = 0
    decided: int = 0
    looked: int = 0
    read: int = 0
    published: bool = False
    coming: set[str] = field(default_factory=set)

    def add(self, exporter: Exporter) -> None:
        """Add what was exported of a table, and why there is no Parquet of it."""
        self.failures += exporter.parquet_failures()
        self.read += exporter.tally.read
        self.exported += exporter.tally.exported
        self.uploaded += exporter.tally.uploaded


def export_tables(
    job: Job[Config],
    nodes: Nodes,
    names: Sequence[str],
    existing: Collection[str] | None = None,
) -> Outcome:
    """Export what has changed in these tables, publish what there is then, and log it.

    What was exported is published also where tables have failed.

    Args:
        job: of the run.
        nodes: of the cluster.
        names: the tables.
        existing: all tables of the database; None: it is not known, or not asked, what is gone.
    """
    bucket, layout = public_bucket(job)
    started, outcome = now(), Outcome()
    with job.metrics.timer("run_export"), writing(job, bucket, layout):
        if not job.dry_run:
            for prefix in layout.with_rows:
                end_interrupted_uploads(bucket, prefix)
        read = read_table_manifests(bucket, layout, with_objects=True)
        warn_of_stale_exports(job.config, read.sound)
        ((server,),) = nodes.first.query("SELECT version()")
        export_each(job, nodes, names, bucket, read, outcome)
        outcome.failures += [
            damaged_manifest(job.config, name, reason)
            for name, reason in read.damaged.items()
            if name not in names
        ]
        if existing is not None and (vanished := vanished_tables(job.config, read, existing)):
            outcome.failures.append(vanished)
        send_metrics(job, outcome)
        if not job.dry_run:
            run = RunManifest(started=started, finished=now(), tool=TOOL, server=server)
            about = about_of(job.config)
            with suppress(ScriptError) if outcome.failures else nullcontext():
                outcome.published = publish(bucket, layout, read, run, about, read.objects)
    log_outcome(job, outcome)
    return outcome


def export_each(
    job: Job[Config],
    nodes: Nodes,
    names: Sequence[str],
    bucket: Bucket,
    read: TableManifests,
    outcome: Outcome,
) -> None:
    """Export what has changed in each table.

    A table that fails does not keep the others from being done; a database or a store that does not
    answer does.
    """
    layout, objects = ExportLayout(job.config.public_prefix), read.objects or {}
    http = ClickHouseHTTP(job.config, job.user_agent)
    source = ChosenSource(job.config, nodes.first, http)
    for name in names:
        if name in read.damaged and not job.force:
            outcome.failures.append(damaged_manifest(job.config, name, read.damaged[name]))
            continue
        manifest = read.sound.get(name) or beginning_of(bucket, layout, read, name)
        try:
            reader = reader_of(job.config, nodes, name)
            rows = rows_of(job, reader, source)
            exporter = Exporter(job, bucket, rows, reader, manifest, http)
            export_table(job, exporter, read.sound, objects, outcome)
        except (DataRefused, ConfigError, StatementFailed, RowsDiffer, TableAway) as error:
            outcome.failures.append(error)
        except ScriptError as error:
            outcome.failures.append(error)
            break


def export_table(
    job: Job[Config],
    exporter: Exporter,
    manifests: dict[str, TableManifest],
    objects: Mapping[str, Listed],
    outcome: Outcome,
) -> None:
    """Export what has changed in one table, or is lost; its manifest is added to the others."""
    manifest = exporter.manifest
    name, qualified = manifest.table, job.config.qualifier + manifest.table
    exporter.recover()
    exporter.throttle.wait()
    rotation = Rotation(job.config.state_dir)
    share = rotation.share(qualified, len(manifest.chunks))
    plan = plan_of(job, exporter, share, objects)
    outcome.decided += plan.decided
    outcome.looked += plan.looked
    outcome.failures += plan.missed
    plan = exporter.also_parquet(plan, objects)
    if owner := owner_of_its_names(name, plan.steps, manifests, exporter.layout):
        raise DataRefused(f"{name!r}: its objects would have the names of those of {owner!r}")
    outcome.skipped += sum(step.reason == "unchanged" for step in plan.steps)
    tell_of_older_digests(name, plan.steps)
    if job.dry_run:
        dry_run(exporter, plan.steps, outcome)
        return
    failures: list[ScriptError] = []
    try:
        with job.metrics.timer(f"table_{metric_name(qualified)}_backup_time_ms"):
            failures = exporter.carry_out(plan, objects)
        rotation.end_run(qualified)
    finally:
        outcome.add(exporter)
        outcome.failures += failures
        if exporter.tally.read:
            log.info("%s: %s of CSV read to export", name, in_units(exporter.tally.read))
        if manifest.generation:
            manifests[name] = manifest


def plan_of(
    job: Job[Config], exporter: Exporter, share: int, objects: Mapping[str, Listed]
) -> Plan:
    """Return what is to be done with a table, and log what it has cost to decide.

    Args:
        job: of the run.
        exporter: of the table.
        share: how many chunks the rotation looks at.
        objects: in the bucket, by key.
    """
    reader, manifest, max_shrink = exporter.reader, exporter.manifest, job.config.max_shrink
    plan = planned(
        reader,
        manifest,
        lambda export: exporter.is_lost(export, objects),
        max_shrink=max_shrink,
        force=job.force,
        look=lambda plan: looked_at(reader, manifest, plan, share, max_shrink),
    )
    tell(manifest.table, plan)
    return plan


def tell_of_older_digests(table: str, steps: Sequence[Step]) -> None:
    """Log how many chunks are exported only because version 2.0.0 has exported them."""
    if renewed := sum(step.reason == "with an older digest" for step in steps):
        log.info(
            "%s: %s to export once more: the digest of version 2.0.0 missed some rows or columns,"
            " so nobody knows whether they have changed",
            table,
            counted(renewed, "chunk"),
        )


def dry_run(exporter: Exporter, steps: Sequence[Step], outcome: Outcome) -> None:
    """Log what would be done with a table, and note what would come of it."""
    table = exporter.manifest.table
    exported = [step.chunk.name for step in steps if step.exports]
    outcome.exported += len(exported)
    for key_of in (exporter.layout.export, exporter.layout.parquet):
        outcome.coming |= {key_of(table, chunk) for chunk in exported}
    outcome.failures += exporter.without_parquet.values()
    for step in steps:
        log.info("%s: would %s %s", table, "export" if step.exports else "keep", step)


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


def send_metrics(job: Job[Config], outcome: Outcome) -> None:
    """Send the figures of all tables together."""
    job.metrics.gauge("uploaded_bytes_tot", outcome.uploaded)
    job.metrics.gauge("skipped_chunks", outcome.skipped)
    job.metrics.gauge("bytes_to_decide", outcome.decided)
    job.metrics.gauge("bytes_of_rotation", outcome.looked)
    job.metrics.gauge("bytes_to_export", outcome.read)


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
