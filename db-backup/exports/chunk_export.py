"""One chunk on its way from the database into its object, which may be one of several at once."""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from backup_config import Config
from exports.chunk_rows import LineBreaksInValues
from exports.lanes import Lane, Lanes
from exports.manifest import Export, ExportLayout
from exports.manifest_file import ManifestFile
from exports.plan import Step, types_of
from exports.reader import Reader
from exports.sizes import check_size, expected_size
from exports.stored import published
from ooni_common.errors import Unavailable
from ooni_common.run import Job
from parallel import BytesInFlight, in_parallel
from store import Bucket
from throttle import Progress, in_units
from upload_parts import ABORT_TIME, UploadEnded
from uploads import PART_SIZE, Upload, uploading

log = logging.getLogger("ooni.db_backup")

ZSTD = "application/zstd"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MOST_IN_FLIGHT = 8 * PART_SIZE  # bytes of all chunks together, beside those that a lane gathers
POLL = 0.02  # seconds

ShowProgress = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass
class Tally:
    """How many chunks were exported, and the bytes of their objects."""

    exported: int = 0
    uploaded: int = 0


@dataclass(eq=False)  # another one is never the same
class Flight:
    """A chunk on its way.

    Attributes:
        upload: of its object; None: not begun.
        announced: whether its object may come at any time.
    """

    upload: Upload | None = None
    announced: bool = False


class Flights:
    """The chunks that are on their way, which a stop ends together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: list[Flight] = []
        self._over = False

    @contextlib.contextmanager
    def one(self) -> Iterator[Flight]:
        """Give a flight.

        Raises:
            UploadEnded: none may begin any more.
        """
        flight = Flight()
        with self._lock:
            self.check()
            self._flights.append(flight)
        try:
            yield flight
        finally:
            with self._lock:
                self._flights.remove(flight)

    def begin(self, flight: Flight, upload: Upload) -> None:
        """Let it have an upload; raise UploadEnded if it must not."""
        with self._lock:
            self.check()
            flight.upload = upload

    def announce(self, flight: Flight) -> None:
        """Let its object come from now on; raise UploadEnded if it must not."""
        with self._lock:
            self.check()
            flight.announced = True

    def end(self) -> None:
        """Abort what is not announced, and wait for a while until all have ended.

        Another thread than theirs does it.
        """
        with self._lock:
            self._over = True
            uploads = [one.upload for one in self._flights if one.upload and not one.announced]
        for _ in in_parallel(Upload.end, uploads, max(len(uploads), 1)):
            pass
        deadline = time.monotonic() + ABORT_TIME
        while self._flights and time.monotonic() < deadline:
            time.sleep(POLL)

    def check(self) -> None:
        """Raise UploadEnded if they are over."""
        if self._over:
            raise UploadEnded


class ChunkExporter:
    """Exports chunks of a table, one at a time in each thread.

    Args:
        job: of the run.
        bucket: gets the objects.
        lanes: read the rows.
        file: of the manifest.
        tally: counts the exports.
        show: shows the progress of a chunk, given its name and the number of its rows.
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
        self._planned_nodes = nodes_of(file.reader)
        self._manifest = file.manifest
        self._file = file
        self._tally = tally
        self._show = show
        self._layout = ExportLayout(job.config.public_prefix)
        # A single thread waits for its own parts alone.
        self._in_flight = BytesInFlight(MOST_IN_FLIGHT) if lanes.count > 1 else None
        self.flights = Flights()

    def export(self, step: Step, place: str, *, may_grow: bool) -> None:
        """Export a chunk; once more, counting exactly, if its lines are not its rows.

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
                self._export(step, place, exact=exact)
            except LineBreaksInValues:
                exact = True
            except Unavailable as error:
                failures += 1
                if failures > self._job.config.retries:
                    raise
                log.warning("%s; trying again in %g s", error, self._job.config.retry_wait)
                time.sleep(self._job.config.retry_wait)
                self._lanes.look_again()
                if self._came(step.chunk.name):
                    return  # the answer was lost, and not the object
            else:
                return

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

    def _export(self, step: Step, place: str, *, exact: bool) -> None:
        self._file.check_room(step.chunk)
        chunk, manifest = step.chunk, self._manifest
        check_size(manifest, self._reader.policy, chunk, step.fingerprint.rows)
        key = self._layout.export(manifest.table, chunk.name)
        token = uuid.uuid4().hex
        with ExitStack() as reading, self.flights.one() as flight:
            lane = reading.enter_context(self._lanes.taken())
            self.flights.check()
            step = self._of_the_best_replicas(step, lane)
            # Lines can only be compared with what there is now.
            rows = step.fingerprint.rows if exact else lane.reader.count(chunk.condition)
            started, clock = now(), time.monotonic()
            expected = expected_size(manifest, chunk, rows)
            with (
                self._job.metrics.timer("upload_to_s3"),
                uploading(self._bucket, key, ZSTD, token, expected, self._in_flight) as upload,
            ):
                self.flights.begin(flight, upload)
                shown = self._show(f"{place} {self._layout.relative(key)}", rows)
                size, counter = lane.rows.send(chunk, upload, shown, exact=exact)
                lane.rows.check(chunk, rows, counter)
                upload.hand_over()
                if self._in_flight:
                    reading.close()  # while the store gets this chunk, another one is read
                written = upload.finish()
                export = Export(
                    chunk=chunk,
                    key=key,
                    query=lane.reader.select(chunk),
                    rows=counter.rows,
                    bytes=size,
                    compressed_bytes=written.size,
                    sha256=written.sha256,
                    token=token,
                    fingerprint=step.fingerprint,
                    storage=step.storage,
                    started=started,
                    finished=now(),
                    types=types_of(lane.reader),
                )
                self.flights.announce(flight)
                self._file.announce(export)
                etag = upload.publish()
            self._arrived(step, msgspec.structs.replace(export, etag=etag), clock)
            if counter.line_breaks:
                manifest.line_breaks = True

    def _arrived(self, step: Step, export: Export, began: float) -> None:
        """Take an export whose object is there, and say so."""
        self._file.arrived(export)
        with self._file.lock:
            self._tally.exported += 1
            self._tally.uploaded += export.compressed_bytes
        seconds = max(time.monotonic() - began, 0.001)
        log.info(
            "%s: %s: %s rows, %s of CSV as %s, in %.1f s (%s/s)",
            self._layout.relative(export.key),
            step.reason,
            f"{export.rows:,}",
            in_units(export.bytes),
            in_units(export.compressed_bytes),
            seconds,
            in_units(export.bytes / seconds),
        )

    def _of_the_best_replicas(self, step: Step, lane: Lane) -> Step:
        """Return a step as it is on the nodes that the rows come from.

        They may be other ones than those that were asked when it was planned, and lack rows.
        """
        replicas = lane.reader.replicas
        if not replicas:
            return step
        replicas.choose()
        if nodes_of(lane.reader) == self._planned_nodes:
            return step
        fingerprint = lane.reader.fingerprint(step.chunk.condition)
        return replace(step, fingerprint=fingerprint, storage="")


def nodes_of(reader: Reader) -> list[str]:
    """Return the names of the nodes that a table is read from."""
    return [node.name for node in reader.replicas.chosen] if reader.replicas else []


def now() -> str:
    """Return the time, UTC, as manifests have it."""
    return f"{datetime.now(UTC):{TIME_FORMAT}}"
