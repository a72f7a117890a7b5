"""The manifests: what was exported, when, and how to tell whether it is whole.

    <prefix>/csv/<table>_<chunk>.csv.zstd   the rows
    <prefix>/schema/<table>.sql             SHOW CREATE TABLE
    <prefix>/manifest/<table>.json          TableManifest, the one that counts
    <prefix>/manifest.json                  RunManifest, of all tables
    <prefix>/SHA256SUMS, index.html …       made from the manifests (portal/places.py)
    <prefix>/CHANGES.txt                    what was removed (forget.py)

    <prefix>/pending/<table>/<chunk>.json   PendingExport

An object can't change at the same instant as the manifest that names it, and a manifest of many
chunks is too large to be written for each of them. So a small object says first what is about to
come: the object with the rows is the one in `chunks` or that one, and its token tells which. The
manifest takes what has come now and then, and at the end of a run; then the small objects go. A run
that follows an interrupted one begins with that. 2.0 had what is about to come in the manifest.
"""

import re
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from documents import Number
from exports.reader import CHUNK_NAME, Chunk, Fingerprint
from exports.storage import Storage
from store import Layout, Origin, escaped

MANIFEST_FORMAT = 1
WHOLE = "whole"  # names the pending export of a whole table, as no chunk is called
MOST_COLUMNS = 10_000  # of a table; more would only fill the memory


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """One object with the rows of one chunk.

    Attributes:
        chunk: which rows.
        key: of the object.
        query: what the rows are the result of.
        rows: how many.
        bytes: of the CSV, before compression.
        compressed_bytes: of the object.
        sha256: of the object.
        token: of the upload, in the object's metadata.
        fingerprint: of the rows, before they were read.
        storage: the name of the blocks that the table had before they were read; "" if not known.
        etag: what the store calls this version of the object; "" if not known.
        started: when they were read, UTC, ISO 8601.
        finished: when they were all uploaded.
        types: of its columns; empty in those of 2.0.0, which have the types of their manifest.
        dropped: since when the database has none of these rows any more; "" while it has.
    """

    chunk: Chunk
    key: str
    query: str
    rows: Number
    bytes: Number
    compressed_bytes: Number
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    token: str
    fingerprint: Fingerprint
    started: str
    finished: str
    types: Annotated[tuple[str, ...], Meta(max_length=MOST_COLUMNS)] = ()
    dropped: str = ""
    storage: str = ""
    etag: str = ""

    @property
    def origin(self) -> Origin:
        """What tells its object from others."""
        return Origin(self.token, self.compressed_bytes, self.sha256, self.etag)


class TableManifest(msgspec.Struct, kw_only=True):
    """The exports of one table, by the name of their chunk.

    Attributes:
        table: its name.
        generation: another one each time that the manifest is written.
        schema: the CREATE TABLE statement.
        columns: names and types of the columns of the files.
        chunks: what is there.
        pending: what is about to replace it, or to come. When it is read, it has what has an object
            of its own, too (stored.py).
        storages: the blocks that the table had, by the name by which exports refer to them.
        surveyed: the name of the blocks of which no chunk is missing here: a run has ended well
            that had counted them all; "" if that is not known. 2.0 has neither.
        line_breaks: whether values have line breaks, so that rows have to be counted exactly.
        tool: name and version.
        server: the database's version.
        format: of this document.
    """

    table: str
    generation: str = ""
    schema: str = ""
    columns: Annotated[list[tuple[str, str]], Meta(max_length=MOST_COLUMNS)] = []
    chunks: dict[str, Export] = {}
    pending: dict[str, Export] = {}
    storages: dict[str, Storage] = {}
    surveyed: str = ""
    line_breaks: bool = False
    tool: str = ""
    server: str = ""
    format: int = MANIFEST_FORMAT

    @property
    def exports(self) -> list[Export]:
        """What is there, in the order of the chunks."""
        return [self.chunks[name] for name in sorted(self.chunks)]


class PendingExport(msgspec.Struct, frozen=True, kw_only=True):
    """What an object of a table is about to be, before it is."""

    table: str
    export: Export
    format: int = MANIFEST_FORMAT


class TableSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A table in the manifest of all."""

    generation: str
    chunks: Number
    rows: Number
    bytes: Number
    compressed_bytes: Number


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """All tables, by name, as the last run that changed something has left them.

    `edition` tells what the pages were made with (portal/about.py); 2.0 writes none.
    """

    started: str
    finished: str
    tool: str
    server: str
    tables: dict[str, TableSummary] = {}
    edition: str = ""
    format: int = MANIFEST_FORMAT


class ExportLayout(Layout):
    """Where things are in the bucket of the exports."""

    def export(self, table: str, chunk: str) -> str:
        """Return the key of an object with rows."""
        name = f"{escaped(table)}_{chunk}" if chunk else escaped(table)
        return f"{self.exports}{name}.csv.zstd"

    def may_be_of(self, table: str, key: str) -> bool:
        """Tell whether a table could have an object with rows under this key."""
        name = key.removeprefix(f"{self.exports}{escaped(table)}").removesuffix(".csv.zstd")
        return key == self.export(table, name.removeprefix("_")) and (
            re.fullmatch(CHUNK_NAME, name.removeprefix("_")) is not None
        )

    @property
    def pending(self) -> str:
        """What the keys of all pending exports start with."""
        return f"{self.prefix}/pending/"

    def pending_of(self, table: str) -> str:
        """Return what the keys of the pending exports of a table start with."""
        return f"{self.pending}{escaped(table)}/"

    def pending_export(self, table: str, chunk: str) -> str:
        """Return the key of a pending export."""
        return f"{self.pending_of(table)}{chunk or WHOLE}.json"

    def schema(self, table: str) -> str:
        """Return the key of a table's schema."""
        return f"{self.prefix}/schema/{escaped(table)}.sql"

    def table_of(self, manifest: str) -> str:
        """Return the table whose manifest has this key."""
        return unquote(manifest.removeprefix(self.manifests).removesuffix(".json"))

    def relative(self, key: str) -> str:
        """Return a key as seen from the index."""
        return key.removeprefix(f"{self.prefix}/")

    @property
    def exports(self) -> str:
        """What the keys of all objects with rows start with."""
        return f"{self.prefix}/csv/"

    @property
    def run(self) -> str:
        """The key of the manifest of all tables."""
        return f"{self.prefix}/manifest.json"

    @property
    def sums(self) -> str:
        """The key of the checksums."""
        return f"{self.prefix}/SHA256SUMS"

    @property
    def changes(self) -> str:
        """The key of the notes of what was removed from the exports."""
        return f"{self.prefix}/CHANGES.txt"

    @property
    def index(self) -> str:
        """The key of the page."""
        return f"{self.prefix}/index.html"


def named_keys(manifests: Iterable[TableManifest]) -> set[str]:
    """Return the keys of the objects that manifests name, also of those that are pending."""
    return {
        export.key
        for manifest in manifests
        for export in (*manifest.exports, *manifest.pending.values())
    }


def schema_file(manifest: TableManifest) -> bytes:
    """Return a table's schema, as it is beside the exports."""
    return f"{manifest.schema};\n".encode()


def summary(manifest: TableManifest) -> TableSummary:
    """Return what the manifest of all says of a table."""
    exports = manifest.exports
    return TableSummary(
        generation=manifest.generation,
        chunks=len(exports),
        rows=sum(export.rows for export in exports),
        bytes=sum(export.bytes for export in exports),
        compressed_bytes=sum(export.compressed_bytes for export in exports),
    )
