"""The manifests: what was exported, when, and how to tell whether it is whole.

    <prefix>/csv/<table>_<chunk>.csv.zstd   the rows
    <prefix>/parquet/<table>_<chunk>.parquet  the same rows, where `formats` says so
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
that follows an interrupted one begins with that. 2.0.1 had what is about to come in the manifest.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from documents import Number
from exports.fingerprint import Fingerprint
from exports.reader import CHUNK_NAME, Chunk
from store.bucket import Layout, Origin, escaped
from tables.blocks import Storage

MANIFEST_FORMAT = 1
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
WHOLE = "whole"  # names the pending export of a whole table, as no chunk is called
MOST_COLUMNS = 10_000  # of a table; more would only fill the memory


class ParquetObject(msgspec.Struct, frozen=True, kw_only=True):
    """The object that has the rows of an export as Parquet.

    Attributes:
        key: of the object.
        compressed_bytes: of the object.
        sha256: of the object.
        token: of the upload, in the object's metadata.
        etag: what the store calls this version of the object; "" if not known.
        started: when the rows were read, UTC, ISO 8601.
        finished: when they were all uploaded.
        binary_columns: the columns whose texts are bytes in it, sorted.
    """

    key: str
    compressed_bytes: Number
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    token: str
    etag: str = ""
    started: str
    finished: str
    binary_columns: Annotated[tuple[str, ...], Meta(max_length=MOST_COLUMNS)] = ()

    @property
    def origin(self) -> Origin:
        """What tells it from others."""
        return Origin(self.token, self.compressed_bytes, self.sha256, self.etag)


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """One object with the rows of one chunk, and perhaps another one with the same rows.

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
        parquet: the same rows as Parquet; None if there are none. 2.0.1 does not know this key and
            drops it; the next run makes the object again.
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
    parquet: ParquetObject | None = None

    @property
    def stored(self) -> "list[Export | ParquetObject]":
        """What it has objects of."""
        return [self, self.parquet] if self.parquet else [self]

    @property
    def origin(self) -> Origin:
        """What tells its object from others."""
        return Origin(self.token, self.compressed_bytes, self.sha256, self.etag)


class TableManifest(msgspec.Struct, kw_only=True):
    """The exports of one table, by the name of their chunk.

    Attributes:
        table: its name.
        generation: another one each time that the manifest is written, unless it only tells more
            of how to see what changes.
        schema: the CREATE TABLE statement.
        columns: names and types of the columns of the files.
        chunks: what is there.
        pending: what is about to replace it, or to come. When it is read, it has what has an object
            of its own, too (stored.py).
        storages: the blocks that the table had, by the name by which exports refer to them.
        surveyed: the name of the blocks of which no chunk is missing here: a run has ended well
            that had counted them all; "" if that is not known. 2.0.1 has neither.
        looks: when rows of chunks were read by the rotation, since they were exported: UTC, ISO
            8601, by the name of the chunk. 2.0.1 has none.
        line_breaks: whether values have line breaks, so that rows have to be counted exactly.
        begun: since when nothing that it named was lost, by the clock of the store: UTC, ISO 8601.
            Of an object that is older nobody knows whether a manifest before this one named it.
            "" if not known; 2.0.1 has none.
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
    looks: dict[str, str] = {}
    line_breaks: bool = False
    begun: str = ""
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


class TableSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A table in the manifest of all."""

    generation: str
    chunks: Number
    rows: Number
    bytes: Number
    compressed_bytes: Number
    parquet_bytes: Number = 0


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """All tables, by name, as the last run that changed something has left them.

    `edition` tells what the pages were made with (portal/about.py); 2.0.1 writes none.
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

    def parquet(self, table: str, chunk: str) -> str:
        """Return the key of the object that has the same rows as Parquet."""
        name = f"{escaped(table)}_{chunk}" if chunk else escaped(table)
        return f"{self.parquets}{name}.parquet"

    def may_be_of(self, table: str, key: str) -> bool:
        """Tell whether a table could have an object with rows under this key."""
        name = key.rpartition("/")[2].removesuffix(".csv.zstd").removesuffix(".parquet")
        chunk = name.removeprefix(escaped(table)).removeprefix("_")
        return key in (self.export(table, chunk), self.parquet(table, chunk)) and (
            re.fullmatch(CHUNK_NAME, chunk) is not None
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
        """What the keys of all objects with rows as CSV start with."""
        return f"{self.prefix}/csv/"

    @property
    def parquets(self) -> str:
        """What the keys of all objects with rows as Parquet start with."""
        return f"{self.prefix}/parquet/"

    @property
    def with_rows(self) -> tuple[str, str]:
        """What the keys of all objects with rows start with."""
        return self.exports, self.parquets

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


def now() -> str:
    """Return the time, UTC, as manifests have it."""
    return f"{datetime.now(UTC):{TIME_FORMAT}}"


def as_stamp(seconds: float) -> str:
    """Return a Unix time as manifests have it."""
    return f"{datetime.fromtimestamp(seconds, UTC):{TIME_FORMAT}}"


def named_keys(manifests: Iterable[TableManifest]) -> set[str]:
    """Return the keys of the objects that manifests name, also of those that are pending."""
    return {
        stored.key
        for manifest in manifests
        for export in (*manifest.exports, *manifest.pending.values())
        for stored in export.stored
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
        parquet_bytes=sum(one.parquet.compressed_bytes for one in exports if one.parquet),
    )
