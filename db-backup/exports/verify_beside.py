"""Verifying what is beside the objects with rows: that nothing is left over, and the documents."""

import logging
from collections.abc import Iterator, Mapping

from exports.manifest import (
    ExportLayout,
    RunManifest,
    TableManifest,
    named_keys,
    schema_file,
    summary,
)
from exports.publication import checksums
from exports.stored import TableManifests
from ooni_common.errors import DataRefused
from store.bucket import Bucket

log = logging.getLogger("ooni.db_backup")


def check_beside(bucket: Bucket, layout: ExportLayout, read: TableManifests) -> Iterator[str]:
    """Yield what is wrong with what is beside the objects of the manifests."""
    keys = {key for key in read.objects or () if key.startswith(layout.with_rows)}
    for key in sorted(keys - named_keys(read.sound.values())):
        yield f"{key}: no manifest names it"
    yield from _check_publication(bucket, layout, read)


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
