"""The manifest of a table in the bucket, with what is pending and the schema beside it: written."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping

import msgspec

from documents import JSON, LARGEST_MANIFEST, SQL, TOOL, encoded, weight
from exports.fingerprint import counted
from exports.manifest import (
    Export,
    ExportLayout,
    PendingExport,
    TableManifest,
    as_stamp,
    schema_file,
)
from exports.reader import Chunk, Reader
from ooni_common.errors import DataRefused, ScriptError
from store.bucket import Bucket, Listed

log = logging.getLogger("ooni.db_backup")

INTERVAL = 60  # seconds at least between two versions of a manifest
ROOM_FOR_EXPORT = 16 * 1024  # bytes of a manifest, beside the query


class ManifestFile:
    """Writes the manifest of one table, and what is about to become of its objects.

    Several threads can announce exports and let them arrive. Whoever else changes the manifest
    meanwhile holds `lock`.

    Args:
        bucket: has it.
        layout: where things are in the bucket.
        reader: of the table.
        manifest: as it was read; others bring it up to date.
        clock: gives seconds.

    Attributes:
        lock: of the manifest.
    """

    def __init__(
        self,
        bucket: Bucket,
        layout: ExportLayout,
        reader: Reader,
        manifest: TableManifest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._layout = layout
        self._reader = reader
        self._manifest = manifest
        self._clock = clock
        self.lock = threading.RLock()
        self._key = layout.manifest(manifest.table)
        self._before = msgspec.json.encode(manifest)
        self._published = what_is_published(manifest)
        self._size = weight(self._before)  # of the manifest at most, with what came since
        self._told = 0  # bytes of what is about to come, since it was written
        self._written_at: float | None = None  # by this run
        self._storages: set[str] = set()  # the names of those in it, as it was written
        self._pending: set[str] = set()  # the keys of the objects that say what is about to come
        self._schema = manifest.schema  # of the file in the bucket
        self._schema_is_written = False
        ((self._server,),) = reader.database.query("SELECT version()")

    @property
    def manifest(self) -> TableManifest:
        """The manifest, as it is now."""
        return self._manifest

    @property
    def reader(self) -> Reader:
        """The reader of the table, as it was planned."""
        return self._reader

    def take_over(self, pending: Iterable[str]) -> None:
        """Write what a run has found out of the pending exports that an earlier one has left.

        Args:
            pending: the keys of all of the table.
        """
        self._pending.update(pending)
        if self._pending:
            self.finish()

    def announce(self, export: Export) -> None:
        """Say what an object is about to be; the first time, write the manifest before that.

        That one has the blocks of the table, by which the next run sees what has changed since;
        one that was written before they were known has not.

        Raises:
            DataRefused: with it, the manifest would be too large to be read back.
        """
        name, table = export.chunk.name, self._manifest.table
        key = self._layout.pending_export(table, name)
        content = encoded(PendingExport(table=table, export=export), key)
        with self.lock:
            if self._written_at is None or not self._has(export.storage):
                self.write()
            self._check_size(weight(content), export.chunk)
            self._manifest.pending[name] = export
            self._pending.add(key)
            self._told += len(content)
            self._size += weight(content)
        self._bucket.put(key, content, JSON)

    def _has(self, storage: str) -> bool:
        """Tell whether the manifest, as it was written, has the blocks that an export refers to."""
        return not storage or storage in self._storages

    def arrived(self, export: Export) -> None:
        """Take an export whose object is there; write the manifest, if it is time."""
        with self.lock:
            del self._manifest.pending[export.chunk.name]
            self._manifest.chunks[export.chunk.name] = export
            if self._is_due:
                self.write()

    @property
    def _is_due(self) -> bool:
        """Whether the manifest is to be written, which all of it costs each time.

        So it doubles at least in between: together they are no more than three times the last one.
        """
        if self._written_at is None or self._clock() - self._written_at < INTERVAL:
            return False
        return 2 * self._told >= self._size

    def write(self) -> None:
        """Write the manifest, and before that the schema, where it has changed.

        Raises:
            Unavailable: it can't be read back as it was written.
        """
        self._describe()
        manifest = self._manifest
        # The same bytes, in whichever order the exports came.
        manifest.chunks = dict(sorted(manifest.chunks.items()))
        same = bool(manifest.generation) and what_is_published(manifest) == self._published
        if not same:
            manifest.generation = uuid.uuid4().hex
        manifest.tool, manifest.server = TOOL, self._server
        manifest.begun = manifest.begun or as_stamp(self._bucket.time())
        if manifest.schema != self._schema:
            self._bucket.put(self._layout.schema(manifest.table), schema_file(manifest), SQL)
            self._schema, self._schema_is_written = manifest.schema, True
        content = encoded(manifest, self._key, LARGEST_MANIFEST)
        self._bucket.put_document(self._key, content, JSON, was_read=same)
        self._before = msgspec.json.encode(manifest)
        self._published = what_is_published(manifest)
        self._size, self._told = weight(self._before), 0
        self._written_at = self._clock()
        self._storages = set(manifest.storages)
        self._delete_taken()

    def finish(self) -> None:
        """Write the manifest where it has changed, without the blocks of storages that none has."""
        self._describe()
        used = {export.storage for export in self._manifest.chunks.values()}
        used.add(self._manifest.surveyed)
        used |= {export.storage for export in self._manifest.pending.values()}
        for name in self._manifest.storages.keys() - used:
            del self._manifest.storages[name]
        if msgspec.json.encode(self._manifest) != self._before:
            self.write()
        else:
            self._delete_taken()

    def _delete_taken(self) -> None:
        """Delete what says what was about to come, where the manifest says what has.

        What stays does no harm: it says the same, or of an object that never came.
        """
        table = self._manifest.table
        coming = {self._layout.pending_export(table, name) for name in self._manifest.pending}
        if not (taken := self._pending - coming):
            return
        self._pending &= coming
        try:
            self._bucket.delete_keys(sorted(taken))
        except ScriptError as error:
            log.warning("%s; %d objects of pending exports stay", error, len(taken))

    def mend_schema(self, objects: Mapping[str, Listed]) -> None:
        """Write the schema where the manifest has been written already, and it is lost."""
        key, content = self._layout.schema(self._manifest.table), schema_file(self._manifest)
        listed = objects.get(key)
        if self._schema_is_written or not self._manifest.generation:
            return
        if listed is None or listed.size != len(content):
            log.warning("%s: gone, or not what was written; writing it again", key)
            self._bucket.put(key, content, SQL)

    def check_room(self, chunk: Chunk) -> None:
        """Raise DataRefused where the manifest would be too large to be read back, with a chunk."""
        texts = f"{self._reader.select(chunk)}{chunk.condition}".encode()
        with self.lock:
            self._check_size(weight(texts) + ROOM_FOR_EXPORT, chunk)

    def _check_size(self, needed: int, chunk: Chunk) -> None:
        if needed + self._size > LARGEST_MANIFEST:  # with all that it had before, perhaps
            self._size = weight(msgspec.json.encode(self._manifest))
        if needed + self._size > LARGEST_MANIFEST:
            raise DataRefused(
                f"{self._manifest.table}: {chunk.name}: not exported: its manifest would have more"
                f" than the {LARGEST_MANIFEST:,} bytes that are read back; divide it into fewer"
                " chunks"
            )

    def _describe(self) -> None:
        table, manifest = self._reader.table, self._manifest
        manifest.schema = table.create
        manifest.columns = [(column.name, column.type) for column in table.columns]


def what_is_published(manifest: TableManifest) -> bytes:
    """Return what others are told of a table: all but how to tell whether it has changed."""
    exports = {
        name: msgspec.structs.replace(export, fingerprint=counted(export.rows), storage="")
        for name, export in manifest.chunks.items()
    }
    return msgspec.json.encode(
        msgspec.structs.replace(
            manifest, chunks=exports, pending={}, storages={}, surveyed="", looks={}, begun=""
        )
    )
