"""Verifying that the exports in the bucket are what their manifests say."""

import logging
import random
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from exports.content import check_csv, check_parquet
from exports.manifest import (
    Export,
    ExportLayout,
    ParquetObject,
    RunManifest,
    TableManifest,
    named_keys,
    schema_file,
    summary,
)
from exports.publication import checksums
from exports.stored import (
    TableManifests,
    present_exports,
    read_table_manifest,
    read_table_manifests,
)
from ooni_common.errors import DataRefused
from parallel import in_parallel
from store import Bucket, Listed, NoSuchObject, ObjectHead
from throttle import Bandwidth, Progress, in_units, progress

log = logging.getLogger("ooni.db_backup")

Stored = Export | ParquetObject


@dataclass(frozen=True)
class Effort:
    """How much is done to verify exports.

    Attributes:
        quick: read no rows. Where the listing has size and ETag of an export, nothing else is
            asked; else its origin is looked at.
        sample: of how many objects the rows are read; None: of all.
        jobs: how many objects are looked at at once.
        bandwidth: at which they are read, all together.
    """

    quick: bool
    sample: int | None
    jobs: int
    bandwidth: Bandwidth


def verify(
    bucket: Bucket,
    layout: ExportLayout,
    read: TableManifests,
    tables: Collection[str],
    effort: Effort,
) -> Iterator[str]:
    """Yield what is wrong with the exports: a line each.

    Args:
        bucket: has them.
        layout: where they are in it.
        read: the manifests of all tables.
        tables: only these; empty: everything there is.
        effort: how much is done for it.
    """
    manifests, wanted = read.sound, set(tables or read.damaged)
    skipped = frozenset[str]()
    if effort.sample is not None:
        skipped = _skipped(manifests, tables, effort.sample)
    yield from (reason for table, reason in read.damaged.items() if table in wanted)
    for table in sorted(set(tables) - manifests.keys() - read.damaged.keys()):
        yield f"{table}: it has no manifest"
    checks = list(_checks(bucket, read, tables, skipped, quick=effort.quick))
    total = sum(check.stored.compressed_bytes for check in checks if not check.quick)
    with progress("exports", total, "B") as shown:
        checker = _Checker(bucket, layout, effort.bandwidth, shown)
        for findings in in_parallel(checker.check, checks, effort.jobs):
            yield from findings
    if checker.unmarked:
        log.warning(
            "the store has no metadata of %d objects, by which uploads are told apart: %s",
            len(checker.unmarked),
            "size and ETag decided" if effort.quick or skipped else "their checksums decided",
        )
    if not tables and not read.damaged:  # else nobody knows what the damaged ones name
        findings = list(_check_everything(bucket, layout, read))
        if findings:  # unless a run was at work meanwhile
            fresh_ones = read_table_manifests(bucket, layout, with_objects=True)
            if fresh_ones != read and not fresh_ones.damaged:
                findings = list(_check_everything(bucket, layout, fresh_ones))
        yield from findings


@dataclass(frozen=True)
class _Check:
    """An object of an export to be looked at, and the manifest that names it."""

    manifest: TableManifest
    export: Export
    stored: Stored
    quick: bool


def _checks(
    bucket: Bucket,
    read: TableManifests,
    tables: Collection[str],
    skipped: Collection[str],
    *,
    quick: bool,
) -> Iterator[_Check]:
    """Yield what is to be looked at: not what the listing proves, where no rows are to be read."""
    for name in sorted(read.sound.keys() & set(tables or read.sound)):
        manifest = read.sound[name]
        for export in present_exports(bucket, manifest).values():
            for stored in export.stored:
                looks_only = quick or stored.key in skipped
                if not (looks_only and _is_as_listed(stored, read.objects or {})):
                    yield _Check(manifest, export, stored, looks_only)


def _skipped(
    manifests: Mapping[str, TableManifest], tables: Collection[str], sample: int
) -> frozenset[str]:
    """Return the keys of the objects that are not in a sample of so many."""
    named = [manifest for table, manifest in manifests.items() if not tables or table in tables]
    exports = [export for manifest in named for export in manifest.exports]
    keys = sorted(stored.key for export in exports for stored in export.stored)
    chosen = random.SystemRandom().sample(keys, min(sample, len(keys)))
    return frozenset(keys) - set(chosen)


def _check_everything(bucket: Bucket, layout: ExportLayout, read: TableManifests) -> Iterator[str]:
    """Yield what is wrong with what is beside the objects of the manifests."""
    keys = {key for key in read.objects or () if key.startswith(layout.with_rows)}
    for key in sorted(keys - named_keys(read.sound.values())):
        yield f"{key}: no manifest names it"
    yield from _check_publication(bucket, layout, read)


def _is_as_listed(export: Stored, objects: Mapping[str, Listed]) -> bool:
    """Tell whether a listing has the very version of an object that was uploaded."""
    listed = objects.get(export.key)
    if listed is None or listed.size != export.compressed_bytes:
        return False
    return listed.etag == export.etag != ""


def _written_since(
    bucket: Bucket, layout: ExportLayout, manifest: TableManifest, chunk: str
) -> Export | None:
    """Return the export of a chunk, if a run has been at work since a manifest was read."""
    fresh = read_table_manifest(bucket, layout, manifest.table)
    if fresh is None:
        return None
    if (fresh.generation, fresh.pending) == (manifest.generation, manifest.pending):
        return None
    return present_exports(bucket, fresh).get(chunk)


def _is_another(head: ObjectHead, export: Stored, *, quick: bool) -> bool:
    """Tell whether the store says that an object is not the one that was uploaded.

    Where it has no metadata, the name of the version can say so, and the content must.
    """
    if head.token:
        return head.token != export.token
    return quick and "" not in (head.etag, export.etag) and head.etag != export.etag


class _Checker:
    """Looks at exports, some of them at once.

    Args:
        bucket: should have them.
        layout: where.
        bandwidth: of all together.
        shown: the progress over all.

    Attributes:
        unmarked: the keys of objects of which the store has no metadata, so that other things
            decide.
    """

    def __init__(
        self, bucket: Bucket, layout: ExportLayout, bandwidth: Bandwidth, shown: Progress
    ) -> None:
        self._bucket = bucket
        self._layout = layout
        self._bandwidth = bandwidth
        self._shown = shown
        self._done = 0
        self._lock = threading.Lock()
        self.unmarked: list[str] = []

    def check(self, check: _Check) -> list[str]:
        """Return what is wrong with an object, unless a run has replaced it meanwhile."""
        export, stored = check.export, check.stored
        findings = list(self._check(export, stored, quick=check.quick))
        if findings:
            name = export.chunk.name
            again = _written_since(self._bucket, self._layout, check.manifest, name)
            if again:
                anew = [one for one in again.stored if one.key == stored.key]
                findings = [
                    finding
                    for one in anew
                    for finding in self._check(again, one, quick=check.quick)
                ]
        return findings

    def _check(self, whole: Export, export: Stored, *, quick: bool) -> Iterator[str]:
        head = self._bucket.look(export.key)
        if head is None:
            yield f"{export.key}: missing"
        elif head.size != export.compressed_bytes:
            yield f"{export.key}: {head.size:,} bytes instead of {export.compressed_bytes:,}"
        elif _is_another(head, export, quick=quick):
            yield f"{export.key}: it is not the object that was uploaded"
        else:
            if not head.token:
                self.unmarked.append(export.key)
            if not quick:
                yield from self._read(whole, export)

    def _read(self, whole: Export, export: Stored) -> Iterator[str]:
        try:
            pieces = self._pieces(export)
            if isinstance(export, Export):
                findings = list(check_csv(pieces, export))
            else:
                findings = list(check_parquet(pieces, export, whole.rows))
        except NoSuchObject:
            findings = [f"{export.key}: missing: it was deleted while it was verified"]
        if not findings:
            log.info(
                "%s: %s rows, %s: as exported",
                export.key,
                f"{whole.rows:,}",
                in_units(export.compressed_bytes),
            )
        yield from findings

    def _pieces(self, export: Stored) -> Iterator[bytes]:
        for piece in self._bucket.stream(export.key):
            self._bandwidth.spend(len(piece))
            yield piece
            with self._lock:
                self._done += len(piece)
                self._shown.show(self._done, export.key)


def _check_publication(bucket: Bucket, layout: ExportLayout, read: TableManifests) -> Iterator[str]:
    """Check what is made from the manifests of the tables, unless a run is still at it."""
    run = read.run
    if read.run_damage:
        yield read.run_damage
    if run is None:
        if read.sound and not read.run_damage:
            log.warning("%s: not there yet: the first run is not complete", layout.run)
        return
    generations = {table: figures.generation for table, figures in run.tables.items()}
    if generations != {table: manifest.generation for table, manifest in read.sound.items()}:
        log.warning("%s: older than the exports: the last run is not complete", layout.run)
        return
    yield from _check_documents(bucket, layout, read.sound, run)


def _check_documents(
    bucket: Bucket, layout: ExportLayout, manifests: Mapping[str, TableManifest], run: RunManifest
) -> Iterator[str]:
    for table, manifest in manifests.items():
        if summary(manifest) != run.tables[table]:
            yield f"{layout.run}: it differs from {layout.manifest(table)}"
        if _document(bucket, layout.schema(table)) != schema_file(manifest):
            yield f"{layout.schema(table)}: it is not the schema of the manifest"
    if _document(bucket, layout.sums) != checksums(manifests.values(), layout):
        yield f"{layout.sums}: it differs from the manifests"
    if _document(bucket, layout.index) is None:
        yield f"{layout.index}: missing"


def _document(bucket: Bucket, key: str) -> bytes | None:
    """Return a small object; None also for one that is too large to be what was written."""
    try:
        return bucket.get(key)
    except DataRefused:
        return None
