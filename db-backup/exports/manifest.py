"""The manifests: what was exported, when, and how to tell whether it is whole.

    <prefix>/csv/<table>_<chunk>.csv.zstd   the rows
    <prefix>/schema/<table>.sql             SHOW CREATE TABLE
    <prefix>/manifest/<table>.json          TableManifest, the one that counts
    <prefix>/manifest.json                  RunManifest, of all tables
    <prefix>/SHA256SUMS, index.html         made from the manifests
    <prefix>/CHANGES.txt                    what was removed (forget.py)

An object can't change at the same instant as the manifest that names it. So the manifest is written
first, with the new export under `pending`: the object is the one in `chunks` or the one in
`pending`, and its token tells which. The next run moves what arrived to `chunks`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from documents import LARGEST_DOCUMENT, Number, decoded_manifest
from exports.reader import CHUNK_NAME, Chunk, Fingerprint
from exports.storage import Storage
from ooni_common.errors import DataRefused
from store import Bucket, Layout, Origin, escaped

MANIFEST_FORMAT = 1
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
        pending: what was about to replace it, or to come, when a run was interrupted.
        storages: the blocks that the table had, by the name by which exports refer to them.
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
    line_breaks: bool = False
    tool: str = ""
    server: str = ""
    format: int = MANIFEST_FORMAT

    @property
    def exports(self) -> list[Export]:
        """What is there, in the order of the chunks."""
        return [self.chunks[name] for name in sorted(self.chunks)]


class TableSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A table in the manifest of all."""

    generation: str
    chunks: Number
    rows: Number
    bytes: Number
    compressed_bytes: Number


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """All tables, by name, as the last run that changed something has left them."""

    started: str
    finished: str
    tool: str
    server: str
    tables: dict[str, TableSummary] = {}
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


@dataclass(frozen=True)
class TableManifests:
    """The manifests of all tables.

    Attributes:
        sound: by the name of the table.
        damaged: table → why its manifest can't be used.
        run: the manifest of all; None if there is none, or a damaged one.
        run_damage: why that can't be used; "" if it can, or there is none.
    """

    sound: dict[str, TableManifest]
    damaged: dict[str, str]
    run: RunManifest | None = None
    run_damage: str = ""


def read_run_manifest(bucket: Bucket, layout: ExportLayout) -> RunManifest | None:
    """Read the manifest of all tables; None if there is none.

    Raises:
        DataRefused: it is damaged.
    """
    content = bucket.get(layout.run)
    where = f"{bucket.url}/{layout.run}:"
    return None if content is None else decoded_manifest(content, RunManifest, where)


def read_table_manifest(bucket: Bucket, layout: ExportLayout, table: str) -> TableManifest | None:
    """Read the manifest of a table; None if there is none.

    Raises:
        DataRefused: it is damaged, or names objects that are not this table's.
    """
    key = layout.manifest(table)
    where = f"{bucket.url}/{key}:"
    content = bucket.get(key)
    if content is None:
        return None
    manifest = decoded_manifest(content, TableManifest, where)
    if manifest.table != table:
        raise DataRefused(f"{where} damaged: it is of the table {manifest.table!r}")
    for exports in (manifest.chunks, manifest.pending):
        for name, export in exports.items():
            if export.chunk.name != name or export.key != layout.export(table, name):
                raise DataRefused(f"{where} damaged: the chunk {name!r} is not in {export.key!r}")
    try:
        msgspec.convert(msgspec.to_builtins(summary(manifest)), TableSummary)
    except msgspec.ValidationError as error:
        raise DataRefused(f"{where} damaged: all its chunks together: {error}") from None
    # What it lacks is added when it is written.
    if len(msgspec.json.encode(manifest)) > LARGEST_DOCUMENT:
        raise DataRefused(f"{where} damaged: it would be too large to be written")
    return manifest


def read_table_manifests(bucket: Bucket, layout: ExportLayout) -> TableManifests:
    """Read the manifests of all tables; a damaged one is a finding of its own table."""
    try:  # first: of what it names nothing may come later
        run, run_damage = read_run_manifest(bucket, layout), ""
    except DataRefused as error:
        run, run_damage = None, str(error)
    sound, damaged = {}, {}
    for table in sorted(exported_tables(bucket, layout)):
        try:
            manifest = read_table_manifest(bucket, layout, table)
        except DataRefused as error:
            damaged[table] = str(error)
            continue
        if manifest:
            sound[table] = manifest
    for table in set(run.tables if run else ()) - sound.keys():
        damaged.setdefault(table, f"{bucket.url}/{layout.manifest(table)}: it is lost")
    return TableManifests(sound, damaged, run, run_damage)


def exported_tables(bucket: Bucket, layout: ExportLayout) -> set[str]:
    """Return the names of the tables that have a manifest, damaged or not."""
    return {layout.table_of(listed.key) for listed in bucket.listing(layout.manifests)}


def named_keys(manifests: Iterable[TableManifest]) -> set[str]:
    """Return the keys of the objects that manifests name, also of those that are pending."""
    return {
        export.key
        for manifest in manifests
        for export in (*manifest.exports, *manifest.pending.values())
    }


def present_exports(bucket: Bucket, manifest: TableManifest) -> dict[str, Export]:
    """Return the exports of a table by chunk, as they are when a run was interrupted, too."""
    pending = {
        name: export
        for name, export in manifest.pending.items()
        if bucket.is_from(export.key, export.origin)
    }
    return dict(sorted((manifest.chunks | pending).items()))


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
