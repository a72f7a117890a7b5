"""Removing from the exports what was deleted in the database, because nobody may have it any more.

Its chunk is exported again, in the place of the object, and what the bucket keeps of older versions
is deleted. Copies that others have made are out of reach: a public note asks them to follow.
"""

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from backup_config import Config
from databases import raise_first
from documents import TEXT, TOOL
from exports.clickhouse_http import ClickHouseHTTP
from exports.commands import damaged_manifest, public_bucket, reader_of, rows_of, with_chunks
from exports.export import Exporter
from exports.manifest import (
    Export,
    ExportLayout,
    RunManifest,
    TableManifest,
    named_keys,
    now,
)
from exports.plan import Plan, planned
from exports.prune import Unwanted, delete, leftovers_of
from exports.publication import publish
from exports.row_source import ChosenSource
from exports.stored import TableManifests, read_table_manifests
from ooni_common.errors import ScriptError, UsageError
from ooni_common.nodes import Nodes
from ooni_common.output import counted
from ooni_common.run import Job
from portal.about import about_of
from store.bucket import Bucket
from store.one_writer import writing

log = logging.getLogger("ooni.db_backup")

WHY = "its rows had to go"


@dataclass(frozen=True)
class Removal:
    """What is to be removed: chunks of a table, and what is said of that in public."""

    table: str
    chunks: Sequence[str]
    note: str = ""


def forget_rows(job: Job[Config], nodes: Nodes, removal: Removal, *, confirmed: bool) -> None:
    """Export chunks again whose rows were deleted, and leave nothing of the old objects.

    Args:
        job: of the command.
        nodes: have the table, without the rows that have to go.
        removal: what to remove.
        confirmed: do it; else show what that means.

    Raises:
        UsageError: the table has no such export.
        ScriptError: it failed; the next call does all of it again.
    """
    bucket, layout = public_bucket(job)
    read = read_table_manifests(bucket, layout, with_objects=True)
    manifest = _manifest_of(job.config, read, removal)
    exporter, plan = _planned(job, nodes, bucket, read, manifest, removal)
    _tell(removal, plan, confirmed=confirmed)
    if not confirmed:
        log.info("--confirm would export %s again", counted(len(plan.steps), "chunk"))
        return
    with writing(job, bucket, layout):
        deleted, versions = _replaced(job, bucket, read, removal, exporter, plan)
    log.info(
        "%s: %s exported again, %d deleted, and %d older versions of their objects",
        removal.table,
        counted(len(plan.steps) - deleted, "chunk"),
        deleted,
        versions,
    )
    for failure in exporter.parquet_failures():
        raise failure


def _tell(removal: Removal, plan: Plan, *, confirmed: bool) -> None:
    """Log what is done with each chunk, and warn of those that have lost no row."""
    for step in plan.steps:
        verb = "delete" if step.reason == "dropped" else "export again"
        log.info("%s: %s %s", removal.table, verb if confirmed else f"would {verb}", step)
        if step.last and step.fingerprint.rows >= step.last.rows:
            log.warning(
                "%s: %s: it has as many rows as before: was anything deleted in the table?",
                removal.table,
                step.chunk.name or "the whole table",
            )


def _replaced(
    job: Job[Config],
    bucket: Bucket,
    read: TableManifests,
    removal: Removal,
    exporter: Exporter,
    plan: Plan,
) -> tuple[int, int]:
    """Export the chunks again, say so in public, and delete all else that has their old rows.

    Returns:
        How many chunks were deleted, as they have no rows any more, and how many older versions of
        objects.
    """
    layout, manifest = exporter.layout, exporter.manifest
    old = [manifest.chunks[name] for name in removal.chunks if name in manifest.chunks]
    objects = {listed.key: listed for listed in bucket.listing(f"{layout.prefix}/")}
    was = [(stored.key, stored.sha256) for export in old for stored in export.stored]
    unnamed = sorted(_unnamed_parquet(layout, read, removal) & objects.keys())
    was += [(key, sha256) for key in unnamed if (sha256 := bucket.sha256(key))]
    try:
        raise_first(exporter.carry_out(plan, objects))
    except BaseException:
        with contextlib.suppress(ScriptError):  # what led here counts
            _add_note(bucket, layout, removal, was, manifest.exports)
        raise
    dropped = {step.chunk.name for step in plan.steps if step.reason == "dropped"}
    gone = [export for name, export in manifest.chunks.items() if name in dropped]
    new = [export for export in manifest.exports if export not in gone]
    _add_note(bucket, layout, removal, was, new)  # the page has a link to it
    bucket.delete_keys(sorted(_unnamed_parquet(layout, read, removal)))
    run = RunManifest(started=now(), finished=now(), tool=TOOL, server=manifest.server)
    about = about_of(job.config)
    publish(bucket, layout, read, run, about, objects)
    if gone:
        leftovers = [one for export in gone for one in leftovers_of(export, removal.table, WHY)]
        delete(bucket, layout, read, Unwanted(leftovers), run, about)
    keys = [layout.parquet(removal.table, name) for name in removal.chunks]
    keys += [export.key for export in old]
    return len(gone), sum(_delete_versions(bucket, key) for key in keys)


def _manifest_of(config: Config, read: TableManifests, removal: Removal) -> TableManifest:
    """Return the manifest of the table, which has all the chunks."""
    if removal.table in read.damaged:
        raise damaged_manifest(config, removal.table, read.damaged[removal.table])
    if removal.table not in read.sound:
        raise UsageError(f"{removal.table!r} has no export; see list")
    manifest = read.sound[removal.table]
    with_chunks(manifest, removal.chunks)  # all of them are there
    return manifest


def _planned(
    job: Job[Config],
    nodes: Nodes,
    bucket: Bucket,
    read: TableManifests,
    manifest: TableManifest,
    removal: Removal,
) -> tuple[Exporter, Plan]:
    """Return what exports the table, and its plan for the chunks."""
    reader = reader_of(job.config, nodes, removal.table)
    http = ClickHouseHTTP(job.config, job.user_agent)
    source = ChosenSource(job.config, nodes.first, http)
    exporter = Exporter(job, bucket, rows_of(job, reader, source), reader, manifest, http)
    exporter.recover()  # what a run that was interrupted has published is the old object
    plan = planned(reader, manifest, lambda _export: False, max_shrink=1, force=True)
    steps = [step for step in plan.steps if step.chunk.name in removal.chunks]
    if reader.policy.chunk_by == "range" and any(step.has_other_bounds for step in steps):
        # A range that is split now loses rows to new ones, which have to be there, too.
        steps = [one for one in plan.steps if one in steps or one.has_other_bounds or not one.last]
    # Chunks that are not among them may be missing from the manifest.
    chosen = replace(plan, steps=steps, surveyed=manifest.surveyed)
    return exporter, exporter.also_parquet(chosen, read.objects or {})


def _unnamed_parquet(layout: ExportLayout, read: TableManifests, removal: Removal) -> set[str]:
    """Return the keys that Parquet objects of the chunks may have, and that no manifest names.

    There may be some of a time when the configuration wanted them, or of a run that has failed.
    """
    keys = {layout.parquet(removal.table, name) for name in removal.chunks}
    return keys - named_keys(read.sound.values())


def _add_note(
    bucket: Bucket,
    layout: ExportLayout,
    removal: Removal,
    was: Iterable[tuple[str, str]],
    new: Iterable[Export],
) -> None:
    """Tell those who have copies, in a public file, which of them are to be replaced.

    Args:
        bucket: has the file.
        layout: where it is.
        removal: what it is about.
        was: key and SHA-256 of each object before.
        new: the exports that there are now; objects that are as they were need no note.
    """
    note = " ".join(removal.note.split())
    successors = {stored.key: stored.sha256 for one in new for stored in one.stored}
    lines = [
        f"{now()} {layout.relative(key)}: rows were removed."
        f" Of copies, delete the object with SHA-256 {sha256}"
        f"{f'; its successor has {successors[key]}' if key in successors else ''}."
        f"{f' {note}' if note else ''}\n"
        for key, sha256 in was
        if successors.get(key) != sha256
    ]
    content = bucket.get(layout.changes) or b""
    if lines:
        bucket.put(layout.changes, content + "".join(lines).encode(), TEXT)


def _delete_versions(bucket: Bucket, key: str) -> int:
    """Delete all versions of an object but the one that is there; return how many there were.

    A bucket that keeps no versions has none.
    """
    count = 0
    with bucket.errors(f"deleting older versions of {key}"):
        pages = bucket.client.get_paginator("list_object_versions").paginate(
            Bucket=bucket.target(key)["Bucket"], Prefix=key
        )
        for page in pages:
            for version in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                if version["Key"] == key and not version["IsLatest"]:
                    bucket.client.delete_object(
                        **bucket.target(key), VersionId=version["VersionId"]
                    )
                    count += 1
    return count
