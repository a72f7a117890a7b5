"""One chunk on its way from the database into its object, which may be one of several at once."""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

import msgspec

from backup_config import Config
from exports.chosen_nodes import ChosenNodes
from exports.chunk_rows import LineBreaksInValues
from exports.fingerprint import counted
from exports.flights import Flight, Flights
from exports.lanes import Lane, Lanes
from exports.losses import has_shrunk
from exports.manifest import Export, ExportLayout, ParquetObject, now
from exports.manifest_file import ManifestFile
from exports.parquet_failures import ParquetFailures
from exports.parquet_upload import Beside, RowsChanged, uploading_parquet
from exports.plan import types_of
from exports.reader import Chunk, Reader
from exports.sizes import check_size, expected_size
from exports.steps import Step
from exports.stored import published
from exports.tally import Tally, tell_of_export
from ooni_common.errors import ScriptError, Unavailable
from ooni_common.run import Job
from parallel import BytesInFlight
from store.bucket import Bucket
from store.uploads import PART_SIZE, Written, uploading
from throttle import Progress

log = logging.getLogger("ooni.db_backup")

ZSTD = "application/zstd"
MOST_IN_FLIGHT = 8 * PART_SIZE  # bytes of all chunks together, beside those that a lane gathers
# How many times as large as the CSV's object one of Parquet is taken to be, at most.
PARQUET_SHARE = 2

ShowProgress = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class SentChunk:
    """What was sent of a chunk.

    Attributes:
        key: of its object.
        token: of the upload.
        started: when.
        rows: how many.
        size: in bytes, of all rows as CSV.
        written: size and SHA-256 of the object.
    """

    key: str
    token: str
    started: str
    rows: int
    size: int
    written: Written

    def export(self, step: Step, reader: Reader, parquet: ParquetObject | None) -> Export:
        """Return what the manifest says of it."""
        return Export(
            chunk=step.chunk,
            key=self.key,
            query=reader.select(step.chunk),
            rows=self.rows,
            bytes=self.size,
            compressed_bytes=self.written.size,
            sha256=self.written.sha256,
            token=self.token,
            fingerprint=step.fingerprint,
            storage=step.storage,
            started=self.started,
            finished=now(),
            types=types_of(reader),
            parquet=parquet,
        )


class ChunkExporter:
    """Exports chunks of a table, one at a time in each thread.

    Args:
        job: of the run.
        bucket: gets the objects.
        lanes: read the rows.
        file: of the manifest.
        tally: counts the exports.
        show: shows the progress of a chunk, given its name and the number of its rows.

    Attributes:
        flights: the chunks that are on their way.
        failures: why chunks have got no Parquet object.
    """

    def __init__(
        self,
        job: Job[Config],
        bucket: Bucket,
        lanes: Lanes,
        file: ManifestFile,
        tally: Tally,
        show: ShowProgress,
    ) -> None:
        self._job = job
        self._bucket = bucket
        self._lanes = lanes
        self._reader = file.reader
        self._nodes = ChosenNodes(file)
        self._manifest = file.manifest
        self._file = file
        self._tally = tally
        self._show = show
        self._layout = ExportLayout(job.config.public_prefix)
        # A single thread waits for its own parts alone.
        self._in_flight = BytesInFlight(MOST_IN_FLIGHT) if lanes.count > 1 else None
        self.flights = Flights()
        self.failures = ParquetFailures(bucket, file)

    def export(self, step: Step, place: str, *, may_grow: bool) -> None:
        """Export a chunk; once more, counting exactly, if its lines are not its rows.

        If its Parquet object fails, the CSV goes on, and the object is tried again alone. Where the
        database or the store does not answer, that ends all Parquet of the table for this run.

        Rows that come while it is read look like line breaks in values. So a chunk that may grow is
        counted exactly from the start: it would be read twice each time.

        Args:
            step: what was planned for it.
            place: among those that are exported, for people.
            may_grow: whether rows may come while it is read.
        """
        failures = 0
        grows = may_grow or step.reason in ("changed", "lost from the bucket")
        exact = self._manifest.line_breaks or grows
        while True:
            try:
                step, failure = self._attempt(step, place, exact=exact)
            except LineBreaksInValues:
                exact = True
                continue
            except Unavailable as error:
                if failures >= self._job.config.retries:
                    raise
                failure = error
            if failure is None:
                return
            if isinstance(failure, RowsChanged) and not failure.few:
                step = replace(step, reason="changed", fingerprint=counted(failure.rows))
                exact = True
                continue
            failures += 1
            if not self.failures.may_pass(failure) or failures > self._job.config.retries:
                self.failures.note(step, failure)
                return
            self._wait_after(failure)
            left = self._still_to_do(step)
            if left is None:
                return
            step = left

    def _attempt(self, step: Step, place: str, *, exact: bool) -> tuple[Step, ScriptError | None]:
        """Do a step; return what is left of it to do, and why."""
        if step.reason == "lacks Parquet":
            return step, self._add_parquet(step)
        failure = self._export(step, place, exact=exact)
        return replace(step, reason="lacks Parquet") if failure else step, failure

    def _still_to_do(self, step: Step) -> Step | None:
        """Return what is left of a step after a failure: perhaps only its answer was lost."""
        if step.reason == "lacks Parquet" or not self._came(step.chunk.name):
            return step
        return replace(step, reason="lacks Parquet") if self._lacks_parquet(step.chunk) else None

    def _wait_after(self, failure: ScriptError) -> None:
        log.warning("%s; trying again in %g s", failure, self._job.config.retry_wait)
        time.sleep(self._job.config.retry_wait)
        self._lanes.look_again()

    def _lacks_parquet(self, chunk: Chunk) -> bool:
        """Tell whether a chunk that was exported has yet to get a Parquet object."""
        with self._file.lock:
            return self._lanes.make_parquet and not self._manifest.chunks[chunk.name].parquet

    def _came(self, name: str) -> bool:
        """Tell whether an object came though it seemed to fail; it is pending no more."""
        with self._file.lock:
            pending = {key: one for key, one in self._manifest.pending.items() if key == name}
        came = published(self._bucket, msgspec.structs.replace(self._manifest, pending=pending))
        with self._file.lock:
            self._manifest.pending.pop(name, None)
            self._manifest.chunks.update(came)
        for export in came.values():
            log.info("%s: taken over from a run that was interrupted", export.key)
        return bool(came)

    def _export(self, step: Step, place: str, *, exact: bool) -> ScriptError | None:
        """Export a chunk; return why it has no Parquet object, if it should have one."""
        self._file.check_room(step.chunk)
        chunk, manifest = step.chunk, self._manifest
        check_size(manifest, self._reader.policy, chunk, step.fingerprint.rows)
        key = self._layout.export(manifest.table, chunk.name)
        token = uuid.uuid4().hex
        with ExitStack() as reading, self.flights.one() as flight:
            lane = reading.enter_context(self._lanes.taken())
            self.flights.check()
            step = self._nodes.step(step, lane.reader)
            # Lines can only be compared with what there is now.
            rows = step.fingerprint.rows if exact else lane.reader.count(chunk.condition)
            started, clock = now(), time.monotonic()
            expected = expected_size(manifest, chunk, rows)
            with (
                self._job.metrics.timer("upload_to_s3"),
                uploading(self._bucket, key, ZSTD, token, expected, self._in_flight) as upload,
                self._parquet_of(chunk, lane, flight, expected) as beside,
            ):
                self.flights.begin(flight, upload)
                shown = self._show(f"{place} {self._layout.relative(key)}", rows)
                size, counter = lane.rows.send(chunk, upload, shown, exact=exact)
                lane.rows.check(chunk, rows, counter)
                # While it holds nothing that others wait for.
                parquet, failure = beside.finished(counter.rows)
                upload.hand_over()
                if self._in_flight:
                    reading.close()  # while the store gets this chunk, another one is read
                sent = SentChunk(key, token, started, counter.rows, size, upload.finish())
                export = sent.export(step, lane.reader, parquet)
                self.flights.announce(flight)
                self._file.announce(export)
                etag = upload.publish()
                if parquet:
                    parquet, failure = beside.published(parquet)
            arrived = msgspec.structs.replace(export, etag=etag, parquet=parquet)
            self._arrived(step, arrived, clock)
            if counter.line_breaks:
                manifest.line_breaks = True
        return failure

    def _add_parquet(self, step: Step) -> ScriptError | None:
        """Give a chunk its Parquet object, with the rows that its CSV has; return why that failed.

        The CSV isn't read again.
        """
        chunk, clock = step.chunk, time.monotonic()
        with self._file.lock:
            export = self._manifest.chunks[chunk.name]
        try:
            with self._lanes.taken() as lane, self.flights.one() as flight:
                rows = lane.reader.count(chunk.condition)
                if rows != export.rows:
                    return RowsChanged(export, rows, few=self._are_few(lane.reader, export, rows))
                with (
                    self._job.metrics.timer("upload_to_s3"),
                    self._parquet_of(chunk, lane, flight, export.compressed_bytes) as beside,
                ):
                    parquet, failure = beside.finished(rows)
                    if parquet is None:
                        return failure
                    export = msgspec.structs.replace(export, parquet=parquet)
                    self.flights.announce(flight)
                    self._file.announce(export)
                    parquet, failure = beside.published(parquet)
                self._arrived(step, msgspec.structs.replace(export, parquet=parquet), clock)
        except ScriptError as error:
            return error
        return failure

    def _are_few(self, reader: Reader, export: Export, rows: int) -> bool:
        """Tell whether a chunk of so many rows can't just replace its export."""
        shrink = self._job.config.max_shrink
        return not rows or has_shrunk(reader, export.chunk, rows, export.fingerprint, shrink)

    @contextmanager
    def _parquet_of(
        self, chunk: Chunk, lane: Lane, flight: Flight, expected: int
    ) -> Iterator[Beside]:
        """Give the Parquet object of a chunk on its way, if there is to be one."""
        if not lane.parquet or self.failures.ended:
            yield Beside(None, self.failures.ended)
            return
        try:
            http = lane.parquet.interface()
        except ScriptError as error:
            yield Beside(None, error)
            return
        key = self._layout.parquet(self._manifest.table, chunk.name)
        size = PARQUET_SHARE * expected
        with uploading_parquet(self._bucket, key, lane.parquet, http, chunk, size) as upload:
            self.flights.begin(flight, upload.upload)
            yield Beside(upload)

    def _arrived(self, step: Step, export: Export, began: float) -> None:
        """Take an export whose object is there, and say so."""
        self._file.arrived(export)
        with self._file.lock:
            self._tally.add(step, export)
        tell_of_export(step, export, self._layout, time.monotonic() - began)
