"""Exporting: what has changed in a table becomes objects in the bucket, as it was planned."""

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from backup_config import Config
from digest import SCHEME
from exports.chunk_rows import ChunkRows, LineBreaksInValues
from exports.csv_rows import RowSource
from exports.manifest import Export, ExportLayout, TableManifest
from exports.manifest_file import ManifestFile
from exports.plan import Plan, Step, shrunk, types_of
from exports.reader import Reader
from exports.sizes import check_size, expected_size
from ooni_common.errors import DataRefused, ScriptError, Unavailable
from ooni_common.run import Job
from store import Bucket, Listed
from throttle import Throttle, in_units
from uploads import uploading

log = logging.getLogger("ooni.db_backup")

ZSTD = "application/zstd"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._bucket = bucket
        self._rows = ChunkRows(job.config, source, reader)
        self.reader = reader
        self.manifest = manifest
        self.layout = ExportLayout(job.config.public_prefix)
        self.throttle = Throttle(lambda: reader.databases, job.config)
        self.exported = 0
        self.uploaded = 0
        self._file = ManifestFile(bucket, self.layout, reader, manifest, clock)
        self._place = ""  # of the chunk among those that are exported

    def recover(self) -> None:
        """Take over what an interrupted run has published."""
        for name, export in list(self.manifest.pending.items()):
            if self._bucket.is_from(export.key, export.origin):
                log.info("%s: taken over from a run that was interrupted", export.key)
                self.manifest.chunks[name] = export
            del self.manifest.pending[name]

    def is_lost(self, export: Export, objects: Mapping[str, Listed]) -> bool:
        """Tell whether the object of an export is gone, or another one.

        Args:
            export: of the table.
            objects: in the bucket, by key. What the store calls a version may be something else in
                a copy of the bucket: then the origin of the object decides.
        """
        listed = objects.get(export.key)
        if listed is None or listed.size != export.compressed_bytes:
            return True
        if not export.etag or listed.etag in ("", export.etag):
            return False
        return not self._bucket.is_from(export.key, export.origin)

    def carry_out(self, plan: Plan, objects: Mapping[str, Listed]) -> None:
        """Do what was planned, and write the manifest, if anything has changed.

        Args:
            plan: for this table.
            objects: in the bucket, by key.

        Raises:
            DataRefused: chunks have lost too many rows, or rows are lost in the bucket and in the
                database; all else is done.
        """
        steps = plan.steps
        self.recover()
        pending = self.layout.pending_of(self.manifest.table)
        self._file.take_over(key for key in objects if key.startswith(pending))
        if plan.storage:
            self.manifest.storages[plan.storage.name] = plan.storage
        lost = self._lost_for_ever(steps, objects)
        try:
            sick = self._take_steps(steps, objects)
        except ScriptError:
            with contextlib.suppress(ScriptError):  # where that fails, the next run does it
                self.recover()
                self._file.finish()
            raise
        self._file.finish()
        self._file.mend_schema(objects)
        if sick:
            raise DataRefused("; ".join(map(str, sick)))
        if refused := shrunk(steps):
            raise DataRefused(
                f"{self.manifest.table}: {', '.join(map(str, refused))}: too many rows are gone"
                " (max_shrink), so what was exported stays; --force exports what is left"
            )
        if lost:
            raise DataRefused(
                f"{', '.join(lost)}: gone, or not the object that was exported, and the database"
                f" has these rows no more; forget them: export --force {self.manifest.table}"
            )

    def _lost_for_ever(self, steps: Sequence[Step], objects: Mapping[str, Listed]) -> list[str]:
        """Return the lost objects whose rows the database has no more; --force forgets them."""
        lost = [
            step.last
            for step in steps
            if step.reason == "dropped" and step.last and self.is_lost(step.last, objects)
        ]
        if not self._job.force:
            return [export.key for export in lost]
        for export in lost:
            log.warning("%s: lost, and forgotten", export.key)
            del self.manifest.chunks[export.chunk.name]
        return []

    def _take_steps(
        self, steps: Sequence[Step], objects: Mapping[str, Listed]
    ) -> list[DataRefused]:
        """Do all steps; return why chunks were refused that keep no other one from being done."""
        sick = []
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
                try:
                    self._export_with_retries(step, may_grow=step.chunk.name == newest)
                except DataRefused as error:
                    # A range that was split shrinks last, when all that it gives away is there.
                    if self.reader.policy.chunk_by == "range":
                        raise
                    sick.append(error)
                self.throttle.rest(time.monotonic() - started)
            elif step.last and step.reason == "unchanged":
                listed = objects.get(step.last.key)
                self.manifest.chunks[step.chunk.name] = msgspec.structs.replace(
                    step.last,
                    chunk=step.chunk,
                    types=types_of(self.reader),
                    # One of 2.0.0 that was sound gets the name of today's scheme.
                    fingerprint=msgspec.structs.replace(step.fingerprint, scheme=SCHEME),
                    storage=step.storage,
                    etag=listed.etag if listed else step.last.etag,
                )
        return sick

    def _mark_dropped(self, step: Step) -> None:
        if step.last is None or step.last.dropped or step.chunk.name not in self.manifest.chunks:
            return
        log.warning(
            "%s is not among the chunks of the table any more; what was exported stays",
            self.layout.relative(step.last.key),
        )
        stamp = f"{datetime.fromtimestamp(self._bucket.time(), UTC):{TIME_FORMAT}}"
        self.manifest.chunks[step.chunk.name] = msgspec.structs.replace(
            step.last, dropped=stamp, storage=""
        )

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
        self._file.check_room(step.chunk)
        check_size(self.manifest, self.reader.policy, step.chunk, step.fingerprint.rows)
        step = self._of_the_best_replicas(step)
        chunk, key = step.chunk, self.layout.export(self.manifest.table, step.chunk.name)
        token = uuid.uuid4().hex
        # Lines can only be compared with what there is now.
        rows = step.fingerprint.rows if exact else self.reader.count(chunk.condition)
        started, clock = now(), time.monotonic()
        with (
            self._job.metrics.timer("upload_to_s3"),
            uploading(
                self._bucket, key, ZSTD, token, expected_size(self.manifest, chunk, rows)
            ) as upload,
        ):
            name = f"{self._place} {self.layout.relative(key)}"
            size, counter = self._rows.send(chunk, rows, upload, name, exact=exact)
            self._rows.check(chunk, rows, counter)
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
                fingerprint=step.fingerprint,
                storage=step.storage,
                started=started,
                finished=now(),
                types=types_of(self.reader),
            )
            self._file.announce(export)
            etag = upload.publish()
        self._file.arrived(msgspec.structs.replace(export, etag=etag))
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

    def _of_the_best_replicas(self, step: Step) -> Step:
        """Return a step as it is on the nodes that the rows come from.

        They may be other ones than those that were asked when it was planned, and lack rows.
        """
        replicas = self.reader.replicas
        if not replicas:
            return step
        planned = list(replicas.chosen)
        replicas.choose()
        if replicas.chosen == planned:
            return step
        fingerprint = self.reader.fingerprint(step.chunk.condition)
        return replace(step, fingerprint=fingerprint, storage="")


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


def now() -> str:
    """Return the time, UTC, as manifests have it."""
    return f"{datetime.now(UTC):{TIME_FORMAT}}"
