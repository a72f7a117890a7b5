"""The manifest of a table in the bucket, and the schema beside it: written, and read back."""

import logging
import uuid
from collections.abc import Mapping

import msgspec

from documents import JSON, LARGEST_DOCUMENT, SQL, TOOL, encoded
from exports.manifest import ExportLayout, TableManifest, schema_file
from exports.reader import Chunk, Reader
from ooni_common.errors import DataRefused, Unavailable
from store import Bucket, Listed

log = logging.getLogger("ooni.db_backup")

ROOM_FOR_EXPORT = 16 * 1024  # bytes of a manifest, beside the query


class ManifestFile:
    """Writes the manifest of one table.

    Args:
        bucket: has it.
        layout: where things are in the bucket.
        reader: of the table.
        manifest: as it was read; others bring it up to date.
    """

    def __init__(
        self, bucket: Bucket, layout: ExportLayout, reader: Reader, manifest: TableManifest
    ) -> None:
        self._bucket = bucket
        self._layout = layout
        self._reader = reader
        self._manifest = manifest
        self._key = layout.manifest(manifest.table)
        self._before = msgspec.json.encode(manifest)
        self._written = b""
        self._schema = manifest.schema  # of the file in the bucket
        self._schema_is_written = False
        ((self._server,),) = reader.database.query("SELECT version()")

    def write(self) -> None:
        """Write the manifest, and before that the schema, where it has changed."""
        self._describe()
        manifest = self._manifest
        manifest.generation = uuid.uuid4().hex
        manifest.tool, manifest.server = TOOL, self._server
        if manifest.schema != self._schema:
            self._bucket.put(self._layout.schema(manifest.table), schema_file(manifest), SQL)
            self._schema, self._schema_is_written = manifest.schema, True
        self._written = encoded(manifest, self._key)
        self._bucket.put(self._key, self._written, JSON)
        self._before = msgspec.json.encode(manifest)

    def write_if_changed(self) -> None:
        """Write the manifest where it has changed, without the blocks of storages that none has."""
        self._describe()
        used = {export.storage for export in self._manifest.chunks.values()}
        used |= {export.storage for export in self._manifest.pending.values()}
        for name in self._manifest.storages.keys() - used:
            del self._manifest.storages[name]
        if msgspec.json.encode(self._manifest) != self._before:
            self.write()

    def read_back(self) -> None:
        """Raise Unavailable where the manifest that was written can't be read back."""
        if self._written and self._bucket.get(self._key) != self._written:
            raise Unavailable(f"{self._bucket.url}/{self._key}: it is not what was written")

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
        table = self._manifest.table
        room = LARGEST_DOCUMENT - len(msgspec.json.encode(self._manifest))
        if len(self._reader.select(chunk)) + len(chunk.condition) + ROOM_FOR_EXPORT > room:
            raise DataRefused(
                f"{table}: {chunk.name}: not exported: its manifest would have more than the"
                f" {LARGEST_DOCUMENT:,} bytes that are read back; divide it into fewer chunks"
            )

    def _describe(self) -> None:
        table, manifest = self._reader.table, self._manifest
        manifest.schema = table.create
        manifest.columns = [(column.name, column.type) for column in table.columns]
