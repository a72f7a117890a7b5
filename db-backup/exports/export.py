"""Exporting: what has changed in a table becomes objects in the bucket.

`plan` decides chunk by chunk, without changing anything; `Exporter` carries a plan out.
"""

import contextlib
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec
import zstandard

from backup_config import Config
from digest import SCHEME
from exports.chunks import Chunk, Fingerprint, Reader, of_one_server, survey
from exports.csv_rows import Counter, RowSource
from exports.manifest import Export, ExportLayout, TableManifest
from inventory import merges_rows
from ooni_common.errors import DataRefused, ScriptError, Unavailable
from ooni_common.run import Job
from store import JSON, SQL, TOOL, Bucket, encoded
from throttle import Bandwidth, Throttle, in_units, progress
from uploads import Upload, uploading

log = logging.getLogger("ooni.db_backup")

ZSTD = "application/zstd"
COMPRESSED_AT_ONCE = 4 * 1024 * 1024  # bytes; several times as much is in memory

Reason = Literal[
    "new",
    "changed",
    "with other columns",
    "again, by --force",
    "with an older digest",
    "lost from the bucket",
    "unchanged",
    "shrunk",
    "dropped",
]
EXPORTED: tuple[Reason, ...] = (
    "new",
    "changed",
    "with other columns",
    "again, by --force",
    "with an older digest",
    "lost from the bucket",
)


class RowsDiffer(Unavailable):
    """Other rows have come than the database counts, which is a matter of this table alone."""


class LineBreaksInValues(Exception):
    """The lines of a chunk are not as many as its rows."""


@dataclass(frozen=True)
class Step:
    """What is to be done with one chunk, and why."""

    chunk: Chunk
    fingerprint: Fingerprint
    reason: Reason
    last: Export | None

    @property
    def exports(self) -> bool:
        """Whether its rows are read."""
        return self.reason in EXPORTED

    def __str__(self) -> str:
        rows = f"{self.fingerprint.rows:,} rows"
        if self.last and self.last.rows != self.fingerprint.rows:
            rows += f" ({self.fingerprint.rows - self.last.rows:+,})"
        name = self.chunk.name or "the whole table"
        return f"{name}: {self.reason}, {rows}"


def plan(
    reader: Reader,
    manifest: TableManifest,
    sizes: Mapping[str, int],
    *,
    max_shrink: float,
    force: bool = False,
) -> list[Step]:
    """Decide what has to be done with each chunk of a table.

    Args:
        reader: of the table.
        manifest: of its last export.
        sizes: of the objects in the bucket, by key.
        max_shrink: the share of its rows (0 to 1) that a chunk may have lost; one that has lost
            more is not exported, so that its object keeps them.
        force: export everything, whatever is lost.
    """
    ranges = [export.chunk for export in manifest.exports]
    steps = []
    for chunk, fingerprint in survey(reader, ranges):
        last = manifest.chunks.get(chunk.name)
        reason: Reason = "changed"
        if last is None:
            reason = "new"
        elif force:
            reason = "again, by --force"
        elif sizes.get(last.key) != last.compressed_bytes:
            reason = "lost from the bucket"
        elif chunk == last.chunk and has_shrunk(fingerprint, last.fingerprint, max_shrink):
            reason = "shrunk"
        elif reader.select(chunk) != of_one_server(last.query):
            reason = "with other columns" if chunk == last.chunk else "changed"
        elif types_of(reader) != types_of_export(last, manifest):
            reason = "with other columns"
        elif not reader.trusts(last.fingerprint):
            reason = "with an older digest"
        elif fingerprint.same_as(last.fingerprint) and not last.dropped:
            reason = "unchanged"
        steps.append(Step(chunk, fingerprint, reason, last))
    present = {step.chunk.name for step in steps}
    return steps + [
        Step(export.chunk, Fingerprint(0, "", "0", 0, SCHEME), "dropped", export)
        for export in manifest.exports
        if export.chunk.name not in present
    ]


def planned(
    reader: Reader,
    manifest: TableManifest,
    sizes: Mapping[str, int],
    *,
    max_shrink: float,
    force: bool,
) -> list[Step]:
    """Plan as `plan` does; when a node of a cluster fails, with another one of its shard.

    Raises:
        Unavailable: a shard has none left, or it is not the nodes that fail.
    """
    while True:
        try:
            return plan(reader, manifest, sizes, max_shrink=max_shrink, force=force)
        except Unavailable:
            if not (reader.replicas and reader.replicas.lost_any()):
                raise


def types_of(reader: Reader) -> tuple[str, ...]:
    """Return the types of a table's columns: the same rows are another text in another type."""
    return tuple(column.type for column in reader.table.columns)


def types_of_export(export: Export, manifest: TableManifest) -> tuple[str, ...]:
    """Return the types that the columns of an export had."""
    return export.types or tuple(kind for _, kind in manifest.columns)


def has_shrunk(after: Fingerprint, before: Fingerprint, max_shrink: float) -> bool:
    """Tell whether too many rows are gone; rows that the server has merged are not."""
    keys_after, keys_before = after.keys or 0, before.keys or 0
    return keys_after < keys_before * (1 - max_shrink) and after.rows < before.rows


class Exporter:
    """Exports the chunks of one table.

    Attributes:
        reader: of the table.
        manifest: of its last export, brought up to date chunk by chunk.
        layout: where things are in the bucket.
        throttle: lets chunks begin.
        exported: chunks, so far.
        uploaded: bytes of their objects.
    """

    def __init__(
        self,
        job: Job[Config],
        bucket: Bucket,
        source: RowSource,
        reader: Reader,
        manifest: TableManifest,
    ) -> None:
        self._job = job
        self._bucket = bucket
        self._source = source
        self._bandwidth = Bandwidth(job.config.max_bandwidth)
        self.reader = reader
        self.manifest = manifest
        self.layout = ExportLayout(job.config.public_prefix)
        self.throttle = Throttle(lambda: reader.databases, job.config)
        self.exported = 0
        self.uploaded = 0
        self._key = self.layout.manifest(manifest.table)
        self._written = encoded(manifest, self._key)
        self._wrote = False
        self._schema = manifest.schema  # of the file in the bucket
        ((self._server,),) = reader.database.query("SELECT version()")
        self._place = ""  # of the chunk among those that are exported

    def recover(self) -> None:
        """Take over what an interrupted run has published."""
        for name, export in list(self.manifest.pending.items()):
            if self._bucket.token(export.key) == export.token:
                log.info("%s: taken over from a run that was interrupted", export.key)
                self.manifest.chunks[name] = export
            del self.manifest.pending[name]

    def carry_out(self, steps: list[Step]) -> None:
        """Do what was planned, and write the manifest, if anything has changed.

        Raises:
            DataRefused: chunks have lost too many rows; all else is done.
        """
        try:
            self._take_steps(steps)
        except ScriptError:
            with contextlib.suppress(ScriptError):  # where that fails, the next run does it
                self.recover()
                self._write_if_changed()
            raise
        self._write_if_changed()
        self._read_back()
        shrunk = [step for step in steps if step.reason == "shrunk"]
        if shrunk:
            raise DataRefused(
                f"{self.manifest.table}: {', '.join(map(str, shrunk))}: too many rows are gone"
                " (max_shrink), so what was exported stays; --force exports what is left"
            )

    def _take_steps(self, steps: list[Step]) -> None:
        for step in steps:
            if step.reason == "lost from the bucket" and step.last:
                log.warning("%s: gone, or not the object that was exported", step.last.key)
        newest = max((step.chunk.name for step in steps if step.exports), default="")
        total = sum(step.exports for step in steps)
        number = 0
        for step in steps:
            if step.reason == "dropped":
                self._mark_dropped(step)
            elif step.exports:
                self.throttle.wait()
                number += 1
                self._place = f"{number}/{total}"
                started = time.monotonic()
                self._export_with_retries(step, may_grow=step.chunk.name == newest)
                self.throttle.rest(time.monotonic() - started)
            elif step.last and step.reason == "unchanged":
                self.manifest.chunks[step.chunk.name] = msgspec.structs.replace(
                    step.last,
                    chunk=step.chunk,
                    types=types_of(self.reader),
                    # One of 2.0.0 that was sound gets the name of today's scheme.
                    fingerprint=msgspec.structs.replace(step.last.fingerprint, scheme=SCHEME),
                )

    def _mark_dropped(self, step: Step) -> None:
        if step.last is None or step.last.dropped:
            return
        log.warning(
            "%s is not among the chunks of the table any more; what was exported stays",
            self.layout.relative(step.last.key),
        )
        self.manifest.chunks[step.chunk.name] = msgspec.structs.replace(step.last, dropped=now())

    def _export_with_retries(self, step: Step, *, may_grow: bool) -> None:
        """Export a chunk; once more, counting exactly, if its lines are not its rows.

        Rows that come while it is read look like line breaks in values. So a chunk that may grow is
        counted exactly from the start: it would be read twice each time.
        """
        failures = 0
        grows = may_grow or step.reason in ("changed", "lost from the bucket")
        exact = self.manifest.line_breaks or grows
        while True:
            try:
                self._export(step, exact=exact)
            except LineBreaksInValues:
                exact = True
            except Unavailable as error:
                failures += 1
                if failures > self._job.config.retries:
                    raise
                log.warning("%s; trying again in %g s", error, self._job.config.retry_wait)
                time.sleep(self._job.config.retry_wait)
                self.recover()
                if self.manifest.chunks.get(step.chunk.name) is not step.last:
                    return  # the answer was lost, and not the object
            else:
                return

    def _export(self, step: Step, *, exact: bool) -> None:
        table, chunk = self.manifest.table, step.chunk
        if self.reader.replicas:
            self.reader.replicas.choose()
        key, token = self.layout.export(table, chunk.name), uuid.uuid4().hex
        fingerprint = self.reader.fingerprint(chunk.condition)
        started, clock = now(), time.monotonic()
        with (
            self._job.metrics.timer("upload_to_s3"),
            uploading(self._bucket, key, ZSTD, token) as upload,
        ):
            size, counter = self._stream(chunk, fingerprint.rows, upload, exact=exact)
            self._check_rows(chunk, fingerprint, counter)
            written = upload.finish()
            export = Export(
                chunk=chunk,
                key=key,
                query=self.reader.select(chunk),
                rows=counter.rows,
                bytes=size,
                compressed_bytes=written.size,
                sha256=written.sha256,
                token=token,
                fingerprint=fingerprint,
                started=started,
                finished=now(),
                types=types_of(self.reader),
            )
            self.manifest.pending[chunk.name] = export
            self._describe()
            self._write_manifest()
            upload.publish()
        self.manifest.chunks[chunk.name] = self.manifest.pending.pop(chunk.name)
        self.manifest.line_breaks |= counter.line_breaks
        self.exported += 1
        self.uploaded += written.size
        seconds = max(time.monotonic() - clock, 0.001)
        log.info(
            "%s: %s: %s rows, %s of CSV as %s, in %.1f s (%s/s)",
            self.layout.relative(key),
            step.reason,
            f"{export.rows:,}",
            in_units(size),
            in_units(written.size),
            seconds,
            in_units(size / seconds),
        )

    def _stream(
        self, chunk: Chunk, rows: int, upload: Upload, *, exact: bool
    ) -> tuple[int, Counter]:
        """Read, compress and upload a chunk; return the size of its CSV in bytes, and its rows."""
        compressor = compressor_of(self._job.config.compression_level)
        size = 0

        def send(data: bytes) -> None:
            if data:
                self._bandwidth.spend(len(data))
                upload.write(data)

        names = [column.name for column in self.reader.table.columns]
        name = f"{self._place} {self.layout.relative(upload.key)}"
        with (
            progress(name, rows, "rows") as shown,
            self._source.rows(self.reader.select(chunk), names, exact=exact) as stream,
        ):
            for piece in stream:
                size += len(piece)
                send(compressor.compress(piece))
                shown.show(stream.counter.rows, in_units(size))
        send(compressor.flush())
        return size, stream.counter

    def _check_rows(self, chunk: Chunk, before: Fingerprint, counter: Counter) -> None:
        """Check that all rows have arrived.

        Raises:
            LineBreaksInValues: they have to be counted exactly.
            RowsDiffer: rows are missing, or there are too many.
        """
        if counter.complete and counter.rows == before.rows:
            return
        if not counter.exact:
            raise LineBreaksInValues
        after = self.reader.fingerprint(chunk.condition)
        least, most = sorted((before.rows, after.rows))
        # Rows that came may have been merged with others since.
        enough = counter.rows >= least
        fits = enough if merges_rows(self.reader.table.engine) else enough and counter.rows <= most
        if not (counter.complete and fits):
            raise RowsDiffer(
                f"{self.manifest.table}: {chunk.name}: {counter.rows:,} rows arrived, and the"
                f" database counts {before.rows:,}"
            )

    def _write_if_changed(self) -> None:
        self._describe()
        if encoded(self.manifest, self._key) != self._written:
            self._write_manifest()

    def _read_back(self) -> None:
        """Raise Unavailable where the manifest that was written can't be read back."""
        if self._wrote and self._bucket.get(self._key) != self._written:
            raise Unavailable(f"{self._bucket.url}/{self._key}: it is not what was written")

    def _describe(self) -> None:
        table, manifest = self.reader.table, self.manifest
        manifest.schema = table.create
        manifest.columns = [(column.name, column.type) for column in table.columns]

    def _write_manifest(self) -> None:
        manifest = self.manifest
        manifest.generation = uuid.uuid4().hex
        manifest.tool, manifest.server = TOOL, self._server
        if manifest.schema != self._schema:
            schema = f"{manifest.schema};\n".encode()
            self._bucket.put(self.layout.schema(manifest.table), schema, SQL)
            self._schema = manifest.schema
        self._written = encoded(manifest, self._key)
        self._bucket.put(self._key, self._written, JSON)
        self._wrote = True


def compressor_of(level: int) -> "zstandard.ZstdCompressionObj":
    """Return a compressor with one thread of its own, so that the next piece is read meanwhile."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, threads=1, job_size=COMPRESSED_AT_ONCE, write_checksum=1, write_content_size=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj()


def owner_of_its_names(
    table: str, steps: list[Step], manifests: Mapping[str, TableManifest], layout: ExportLayout
) -> str:
    """Return the other table that has objects of the names that this one would write; "" for none.

    A table `a_b` and a chunk `b` of a table `a` have the same name.
    """
    names = {layout.export(table, step.chunk.name) for step in steps}
    for owner, manifest in manifests.items():
        if owner != table and any(export.key in names for export in manifest.exports):
            return owner
    return ""


def now() -> str:
    """Return the time, UTC, as manifests have it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
