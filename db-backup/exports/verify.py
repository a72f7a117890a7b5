"""Verifying that the exports in the bucket are what their manifests say."""

import hashlib
import io
import logging
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import IO, cast

import zstandard

from exports.csv_rows import RowCounter
from exports.manifest import (
    Export,
    ExportLayout,
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
from store import READ_SIZE, Bucket, Listed, NoSuchObject, ObjectHead
from throttle import in_units, progress

log = logging.getLogger("ooni.db_backup")

LARGEST_WINDOW = 128 * 1024 * 1024  # bytes that a decompressor keeps; level 22 has as many


def verify(
    bucket: Bucket,
    layout: ExportLayout,
    read: TableManifests,
    tables: Collection[str] = (),
    *,
    quick: bool = False,
    sample: int | None = None,
) -> Iterator[str]:
    """Yield what is wrong with the exports: a line each.

    Args:
        bucket: has them.
        layout: where they are in it.
        read: the manifests of all tables.
        tables: only these; empty: everything there is.
        quick: read no rows. Where the listing has size and ETag of an export, nothing else is
            asked; else its origin is looked at.
        sample: of how many objects the rows are read; None: of all.
    """
    manifests, wanted = read.sound, set(tables or read.damaged)
    skipped = frozenset[str]() if sample is None else _skipped(manifests, tables, sample)
    unmarked: list[str] = []
    yield from (reason for table, reason in read.damaged.items() if table in wanted)
    for table in sorted(set(tables) - manifests.keys() - read.damaged.keys()):
        yield f"{table}: it has no manifest"
    for name in sorted(manifests.keys() & set(tables or manifests)):
        manifest = manifests[name]
        for chunk, export in present_exports(bucket, manifest).items():
            looks_only = quick or export.key in skipped
            if looks_only and _is_as_listed(export, read.objects or {}):
                continue
            findings = list(_check(bucket, export, unmarked, quick=looks_only))
            if findings and (again := _written_since(bucket, layout, manifest, chunk)):
                findings = list(_check(bucket, again, unmarked, quick=looks_only))
            yield from findings
    if unmarked:
        log.warning(
            "the store has no metadata of %d objects, by which uploads are told apart: %s",
            len(unmarked),
            "size and ETag decided" if quick or skipped else "their checksums decided",
        )
    if not tables and not read.damaged:  # else nobody knows what the damaged ones name
        findings = list(_check_everything(bucket, layout, read))
        if findings:  # unless a run was at work meanwhile
            fresh_ones = read_table_manifests(bucket, layout, with_objects=True)
            if fresh_ones != read and not fresh_ones.damaged:
                findings = list(_check_everything(bucket, layout, fresh_ones))
        yield from findings


def _skipped(
    manifests: Mapping[str, TableManifest], tables: Collection[str], sample: int
) -> frozenset[str]:
    """Return the keys of the objects that are not in a sample of so many."""
    named = [manifest for table, manifest in manifests.items() if not tables or table in tables]
    keys = sorted(export.key for manifest in named for export in manifest.exports)
    chosen = random.SystemRandom().sample(keys, min(sample, len(keys)))
    return frozenset(keys) - set(chosen)


def _check_everything(bucket: Bucket, layout: ExportLayout, read: TableManifests) -> Iterator[str]:
    """Yield what is wrong with what is beside the objects of the manifests."""
    keys = {key for key in read.objects or () if key.startswith(layout.exports)}
    for key in sorted(keys - named_keys(read.sound.values())):
        yield f"{key}: no manifest names it"
    yield from _check_publication(bucket, layout, read)


def _is_as_listed(export: Export, objects: Mapping[str, Listed]) -> bool:
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


def _check(bucket: Bucket, export: Export, unmarked: list[str], *, quick: bool) -> Iterator[str]:
    """Yield what is wrong with an object.

    Args:
        bucket: should have it.
        export: what it should be.
        unmarked: gets its key, where the store has no metadata of it, so that other things decide.
        quick: do not read it.
    """
    head = bucket.look(export.key)
    if head is None:
        yield f"{export.key}: missing"
    elif head.size != export.compressed_bytes:
        yield f"{export.key}: {head.size:,} bytes instead of {export.compressed_bytes:,}"
    elif _is_another(head, export, quick=quick):
        yield f"{export.key}: it is not the object that was uploaded"
    else:
        if not head.token:
            unmarked.append(export.key)
        if not quick:
            yield from _read(bucket, export)


def _is_another(head: ObjectHead, export: Export, *, quick: bool) -> bool:
    """Tell whether the store says that an object is not the one that was uploaded.

    Where it has no metadata, the name of the version can say so, and the content must.
    """
    if head.token:
        return head.token != export.token
    return quick and "" not in (head.etag, export.etag) and head.etag != export.etag


def _read(bucket: Bucket, export: Export) -> Iterator[str]:
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
    counter, size, fault = RowCounter(exact=True), 0, ""
    with progress(export.key, export.compressed_bytes, "B") as shown:
        source = _HashedObject(bucket.stream(export.key), shown.show)
        # However little it is in the bucket: no more is taken at once, nor than there should be.
        reader = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).stream_reader(
            cast("IO[bytes]", source)
        )
        try:
            while size <= export.bytes and (rows := reader.read(READ_SIZE)):
                counter.add(rows)
                size += len(rows)
        except zstandard.ZstdError as error:
            fault = str(error)
        source.read_rest()
    if source.sha256 != export.sha256:
        yield f"{export.key}: SHA-256 {source.sha256} instead of {export.sha256}"
    if fault:
        yield f"{export.key}: it can't be decompressed: {fault}"
    elif size > export.bytes:
        yield f"{export.key}: more than the {export.bytes:,} bytes of CSV that were exported"
    elif size != export.bytes:
        yield f"{export.key}: {size:,} bytes of CSV instead of {export.bytes:,}"
    elif counter.rows != export.rows:
        yield f"{export.key}: {counter.rows:,} rows instead of {export.rows:,}"


class _HashedObject(io.RawIOBase):
    """An object as a file, which is hashed while it is read.

    Args:
        pieces: of it.
        show: is told how many bytes were read.
    """

    def __init__(self, pieces: Iterator[bytes], show: Callable[[int], object]) -> None:
        self._pieces = pieces
        self._show = show
        self._digest = hashlib.sha256()
        self._rest = b""
        self._read = 0

    @property
    def sha256(self) -> str:
        """Of what was read up to now."""
        return self._digest.hexdigest()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most so many; none at the end."""
        if not self._rest:
            self._rest = next(self._pieces, b"")
            self._digest.update(self._rest)
            self._read += len(self._rest)
            self._show(self._read)
        end = len(self._rest) if size < 0 else size
        piece, self._rest = self._rest[:end], self._rest[end:]
        return piece

    def read_rest(self) -> None:
        """Read up to the end."""
        self._rest = b""
        while self.read():
            pass


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
