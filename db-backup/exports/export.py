"""Exporting: what has changed in a table becomes objects in the bucket, as it was planned."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec

from backup_config import Config
from exports.chunk_export import ChunkExporter, ShowProgress
from exports.chunk_failures import ChunkFailures, summed_up, with_chunk
from exports.clickhouse_http import ClickHouseHTTP
from exports.csv_rows import RowSource
from exports.flights import Flights
from exports.lanes import Forms, Lanes, lanes_of
from exports.manifest import Export, ExportLayout, ParquetObject, TableManifest, as_stamp, now
from exports.manifest_file import ManifestFile
from exports.parquet_plan import merged_since, with_parquet
from exports.parquet_rows import ParquetFormat, binary_columns_of, parquet_format
from exports.plan import Plan, shrunk, types_of
from exports.reader import Reader
from exports.steps import Step
from exports.stored import published
from exports.tally import Tally
from ooni_common.database import StatementFailed
from ooni_common.errors import DataRefused, ScriptError
from ooni_common.run import Job
from parallel import as_they_end, jobs_at_once
from store.bucket import Bucket, Listed
from tables.digest import SCHEME
from tables.policy import has_parquet
from throttle import Throttle, Together, progress

log = logging.getLogger("ooni.db_backup")

THREADS_OF_A_LANE = 4  # while one reads a chunk, others wait for the store to take theirs
MOST_THREADS = 80  # fewer than there can be connections to the store


class Exporter:
    """Exports the chunks of one table.

    Attributes:
        reader: of the table.
        manifest: of its last export, brought up to date chunk by chunk.
        layout: where things are in the bucket.
        throttle: lets chunks begin.
        tally: of the exports, so far.
        without_parquet: why there are no Parquet objects, by chunk, or "" for all.
    """

    def __init__(
        self,
        job: Job[Config],
        bucket: Bucket,
        source: RowSource,
        reader: Reader,
        manifest: TableManifest,
        http: ClickHouseHTTP,
    ) -> None:
        self._http = http
        self._form: ParquetFormat | None = None
        self.without_parquet: dict[str, ScriptError] = {}
        self._job = job
        self._bucket = bucket
        self._source = source
        self.reader = reader
        self.manifest = manifest
        self.layout = ExportLayout(job.config.public_prefix)
        self.throttle = Throttle(lambda: reader.databases, job.config)
        self.tally = Tally()
        self._file = ManifestFile(bucket, self.layout, reader, manifest)

    def recover(self) -> None:
        """Take over what an interrupted run has published."""
        came = published(self._bucket, self.manifest)
        for export in came.values():
            taken = "would be taken" if self._job.dry_run else "taken"
            log.info("%s: %s over from a run that was interrupted", export.key, taken)
        self.manifest.chunks.update(came)
        self.manifest.pending.clear()

    def also_parquet(self, plan: Plan, objects: Mapping[str, Listed]) -> Plan:
        """Return a plan by which chunks have Parquet objects, too, if the configuration says so.

        Where the table can't be written as Parquet, that is a failure of the run, and CSV goes on.
        """
        wanted = has_parquet(self.reader.policy, self._job.config.formats)

        def planned(form: ParquetFormat | None) -> Plan:
            steps = with_parquet(
                plan.steps,
                lambda parquet: self.is_lost(parquet, objects),
                binary_columns_of(self.reader),
                makes=form is not None,
                keeps=wanted,
            )
            return replace(plan, steps=steps)

        if not wanted:
            return planned(None)
        form = parquet_format(self._http, self.reader)
        also = planned(form)
        if any(step.exports for step in also.steps):
            try:
                form.check(self.reader)
            except ScriptError as error:
                log.warning("%s", error)
                self.without_parquet[""] = error
                return planned(None)
            self._form = form
            also = replace(also, steps=merged_since(also.steps, self.reader))
        return also

    def is_lost(self, export: Export | ParquetObject, objects: Mapping[str, Listed]) -> bool:
        """Tell whether an object of an export is gone, or another one.

        Args:
            export: of the table, or its Parquet object.
            objects: in the bucket, by key. What the store calls a version may be something else in
                a copy of the bucket: then the origin of the object decides.
        """
        listed = objects.get(export.key)
        if listed is None or listed.size != export.compressed_bytes:
            return True
        if not export.etag or listed.etag in ("", export.etag):
            return False
        return not self._bucket.is_from(export.key, export.origin)

    def carry_out(self, plan: Plan, objects: Mapping[str, Listed]) -> list[ScriptError]:
        """Do what was planned, and write the manifest, if anything has changed.

        Args:
            plan: for this table.
            objects: in the bucket, by key.

        Returns:
            What could not be done while all else was: chunks that can't be read or exported, that
            have lost too many rows, or whose rows are lost in the bucket and in the database.
        """
        steps = plan.steps
        self.recover()
        pending = self.layout.pending_of(self.manifest.table)
        self._file.take_over(key for key in objects if key.startswith(pending))
        plan.begin(self.manifest)
        lost = self._lost_for_ever(steps, objects)
        try:
            sick = self._take_steps(steps, objects)
        except ScriptError:
            with contextlib.suppress(ScriptError):  # where that fails, the next run does it
                self.recover()
                self._file.finish()
            raise
        if not sick:
            plan.complete(self.manifest)
        self._file.finish()
        self._file.mend_schema(objects)
        failures = summed_up(sick)
        if gone := shrunk(steps):
            failures.append(
                DataRefused(
                    f"{self.manifest.table}: {', '.join(map(str, gone))}: too many rows are gone"
                    " (max_shrink), so what was exported stays; --force exports what is left"
                )
            )
        if lost:
            failures.append(
                DataRefused(
                    f"{', '.join(lost)}: gone, or not the object that was exported, and the"
                    " database has these rows no more; forget them:"
                    f" export --force {self.manifest.table}"
                )
            )
        return failures

    def parquet_failures(self) -> list[ScriptError]:
        """Return the first reason why there are no Parquet objects; the others were logged."""
        reasons = list(self.without_parquet.values())
        if len(reasons) > 1:
            log.error("%s: %d chunks have no Parquet object", self.manifest.table, len(reasons))
        return reasons[:1]

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
            self.manifest.begun = ""  # its Parquet object may be the last copy
            del self.manifest.chunks[export.chunk.name]
        return []

    def _take_steps(
        self, steps: Sequence[Step], objects: Mapping[str, Listed]
    ) -> list[ScriptError]:
        """Do all steps; return the failures that are a matter of their chunks alone."""
        for step in steps:
            if step.reason == "lost from the bucket" and step.last:
                log.warning("%s: gone, or not the object that was exported", step.last.key)
            self._name_parquet(step)
            if step.reason == "dropped":
                self._mark_dropped(step)
            elif step.reason in ("unchanged", "lacks Parquet") and step.last:
                self._keep(step, step.last, objects)
        return self._export([step for step in steps if step.exports])

    def _name_parquet(self, step: Step) -> None:
        """Let the manifest name no Parquet object that is lost, or that nobody wants any more."""
        name = step.chunk.name
        export = self.manifest.chunks.get(name)
        if step.last and export and export.parquet and not step.last.parquet:
            log.warning("%s: no manifest names it any more", export.parquet.key)
            self.manifest.chunks[name] = msgspec.structs.replace(export, parquet=None)

    def _keep(self, step: Step, last: Export, objects: Mapping[str, Listed]) -> None:
        """Let the manifest have an export that is as it was, by what is said of it today."""
        listed, parquet = objects.get(last.key), last.parquet
        if parquet and (seen := objects.get(parquet.key)):
            parquet = msgspec.structs.replace(parquet, etag=seen.etag)
        if step.looked:
            self.manifest.looks[step.chunk.name] = now()
        self.manifest.chunks[step.chunk.name] = msgspec.structs.replace(
            last,
            chunk=step.chunk,
            types=types_of(self.reader),
            # One of 2.0.0 that was sound gets the name of today's scheme.
            fingerprint=msgspec.structs.replace(step.fingerprint, scheme=SCHEME),
            # Where the parts tell nothing now, they may tell later what has changed since.
            storage=step.storage or last.storage,
            etag=listed.etag if listed else last.etag,
            parquet=parquet,
        )

    def _mark_dropped(self, step: Step) -> None:
        if step.last is None or step.last.dropped or step.chunk.name not in self.manifest.chunks:
            return
        log.warning(
            "%s is not among the chunks of the table any more; what was exported stays",
            self.layout.relative(step.last.key),
        )
        self.manifest.chunks[step.chunk.name] = msgspec.structs.replace(
            step.last, dropped=as_stamp(self._bucket.time()), storage=""
        )

    def _export(self, steps: Sequence[Step]) -> list[ScriptError]:
        """Export chunks, several at once; return why some were not."""
        if not steps:
            return []
        config, total = self._job.config, len(steps)
        jobs = jobs_at_once(config.jobs)
        count = min(jobs, total)
        forms = Forms(self._source, self._form)
        newest = max(step.chunk.name for step in steps)
        numbered = list(enumerate(steps, 1))
        # A range that was split shrinks last, when all that it gives away is there.
        shrinking = [one for one in numbered if one[1].has_other_bounds]
        others = [one for one in numbered if not one[1].has_other_bounds]
        with (
            lanes_of(config, self.reader, forms, self.throttle, count, jobs // count) as lanes,
            self._showing(steps, lanes.count) as show,
        ):
            exporter = ChunkExporter(self._job, self._bucket, lanes, self._file, self.tally, show)

            def attempt(one: tuple[int, Step]) -> ScriptError | None:
                number, step = one
                try:
                    exporter.export(step, f"{number}/{total}", may_grow=step.chunk.name == newest)
                except StatementFailed as error:
                    return with_chunk(error, self.manifest.table, step.chunk, "not exported")
                except ScriptError as error:
                    return error
                return None

            sick = self._attempt(attempt, others, exporter.flights, lanes)
            if not sick or self.reader.policy.chunk_by != "range":
                sick += self._attempt(attempt, shrinking, exporter.flights, lanes)
            lanes.rest()
        self.without_parquet |= exporter.failures.by_chunk
        return sick

    def _attempt(
        self,
        attempt: Callable[[tuple[int, Step]], ScriptError | None],
        steps: Sequence[tuple[int, Step]],
        flights: Flights,
        lanes: Lanes,
    ) -> list[ScriptError]:
        """Export chunks; return the failures that are a matter of their chunks alone.

        After another failure, or several in a row, no chunk is begun, and those that are at work
        are completed.

        Raises:
            ScriptError: the first failure that is not a matter of its chunk alone.
        """
        failures = ChunkFailures()
        wanted = (one for one in steps if not failures.fatal)
        threads = 1 if lanes.count == 1 else min(THREADS_OF_A_LANE * lanes.count, MOST_THREADS)
        try:
            for error in as_they_end(attempt, wanted, min(threads, max(len(steps), 1))):
                failures.add(error)
                if error and not isinstance(error, DataRefused):
                    self._bucket.guard()  # where nothing may be written any more, all of them end
        except BaseException:
            flights.end()
            raise
        failures.raise_fatal()
        return failures.sick

    @contextlib.contextmanager
    def _showing(self, steps: Sequence[Step], lanes: int) -> Iterator[ShowProgress]:
        """Give what shows the progress of each chunk; of several at once, that of all together."""
        if lanes == 1:
            yield lambda name, rows: progress(name, rows, "rows")
            return
        rows = sum(step.fingerprint.rows for step in steps)
        with progress(self.manifest.table, rows, "rows") as shown:
            together = Together(shown, len(steps))
            yield lambda _name, _rows: together.of_one()
