"""Verifying that the exports in the bucket are what their manifests say."""

import hashlib
import logging
from collections.abc import Collection, Iterator

import zstandard

from exports.csv_rows import RowCounter
from exports.manifest import (
    Export,
    ExportLayout,
    RunManifest,
    TableManifest,
    checksums,
    named_keys,
    present_exports,
    read_manifest,
    read_table_manifests,
    summary,
)
from store import Bucket, NoSuchObject
from throttle import in_units, progress

log = logging.getLogger("ooni.db_backup")


def verify(
    bucket: Bucket, layout: ExportLayout, tables: Collection[str] = (), *, quick: bool = False
) -> Iterator[str]:
    """Yield what is wrong with the exports: a line each.

    Args:
        bucket: has them.
        layout: where they are in it.
        tables: only these; empty: everything there is.
        quick: look at sizes and origins only; read no rows.
    """
    manifests = read_table_manifests(bucket, layout)
    for table in sorted(set(tables) - manifests.keys()):
        yield f"{table}: it has no manifest"
    for name in sorted(manifests.keys() & set(tables or manifests)):
        manifest = manifests[name]
        for chunk, export in present_exports(bucket, manifest).items():
            findings = list(_check(bucket, export, quick=quick))
            if findings:  # unless a run was at work meanwhile
                fresh = read_manifest(bucket, layout.manifest(name), TableManifest)
                if fresh and fresh.generation != manifest.generation:
                    present = present_exports(bucket, fresh)
                    findings = list(_check(bucket, present.get(chunk, export), quick=quick))
            yield from findings
    if not tables:
        yield from (f"{key}: no manifest names it" for key in _unknown(bucket, layout, manifests))
        yield from _check_publication(bucket, layout)


def _unknown(
    bucket: Bucket, layout: ExportLayout, manifests: dict[str, TableManifest]
) -> list[str]:
    """Return the keys of the objects with rows that no manifest names."""
    keys = {listed.key for listed in bucket.listing(layout.exports)}
    unknown = keys - named_keys(manifests.values())
    if unknown:  # unless a run has named them meanwhile
        unknown -= named_keys(read_table_manifests(bucket, layout).values())
    return sorted(unknown)


def _check(bucket: Bucket, export: Export, *, quick: bool) -> Iterator[str]:
    head = bucket.look(export.key)
    if head is None:
        yield f"{export.key}: missing"
    elif head.size != export.compressed_bytes:
        yield f"{export.key}: {head.size:,} bytes instead of {export.compressed_bytes:,}"
    elif head.token != export.token:
        yield f"{export.key}: it is not the object that was uploaded"
    elif not quick:
        try:
            findings = list(_check_content(bucket, export))
        except NoSuchObject:
            findings = [f"{export.key}: missing: it was deleted while it was verified"]
        if not findings:
            log.info(
                "%s: %s rows, %s: as exported",
                export.key,
                f"{export.rows:,}",
                in_units(export.compressed_bytes),
            )
        yield from findings


def _check_content(bucket: Bucket, export: Export) -> Iterator[str]:
    """Read an object as a whole: its checksum, its compression, its rows."""
    digest, counter, size = hashlib.sha256(), RowCounter(exact=True), 0
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    fault, read = "", 0
    with progress(export.key, export.compressed_bytes, "B") as shown:
        for piece in bucket.stream(export.key):
            read += len(piece)
            shown.show(read)
            digest.update(piece)
            if fault or decompressor.eof:
                continue
            try:
                rows = decompressor.decompress(piece)
            except zstandard.ZstdError as error:
                fault = str(error)
                continue
            counter.add(rows)
            size += len(rows)
    if digest.hexdigest() != export.sha256:
        yield f"{export.key}: SHA-256 {digest.hexdigest()} instead of {export.sha256}"
    if fault or not decompressor.eof:
        yield f"{export.key}: it can't be decompressed: {fault or 'it ends too early'}"
    elif counter.rows != export.rows:
        yield f"{export.key}: {counter.rows:,} rows instead of {export.rows:,}"
    elif size != export.bytes:
        yield f"{export.key}: {size:,} bytes of CSV instead of {export.bytes:,}"


def _check_publication(bucket: Bucket, layout: ExportLayout) -> Iterator[str]:
    """Check what is made from the manifests of the tables, unless a run is still at it."""
    manifests = read_table_manifests(bucket, layout)
    run = read_manifest(bucket, layout.run, RunManifest)
    if run is None:
        if manifests:
            log.warning("%s: not there yet: the first run is not complete", layout.run)
        return
    for table in sorted(run.tables.keys() - manifests.keys()):
        yield f"{layout.run}: it names the table {table!r}, which has no manifest"
    generations = {table: figures.generation for table, figures in run.tables.items()}
    if generations != {table: manifest.generation for table, manifest in manifests.items()}:
        log.warning("%s: older than the exports: the last run is not complete", layout.run)
        return
    for table, manifest in manifests.items():
        if summary(manifest) != run.tables[table]:
            yield f"{layout.run}: it differs from {layout.manifest(table)}"
        if bucket.get(layout.schema(table)) != f"{manifest.schema};\n".encode():
            yield f"{layout.schema(table)}: it is not the schema of the manifest"
    if bucket.get(layout.sums) != checksums(manifests.values(), layout):
        yield f"{layout.sums}: it differs from the manifests"
    if bucket.get(layout.index) is None:
        yield f"{layout.index}: missing"
