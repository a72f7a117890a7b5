"""What is exported, for programs: index.json, of which the pages, the lists and the feed are made.

The structures below are its documentation; docs/exports-index.schema.json is made of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import msgspec

from exports.manifest import Export, RunManifest, TableManifest
from portal.about import OONI, About
from portal.comments import comments_of
from portal.dictionary import DESCRIPTIONS, meaning
from portal.places import Places
from portal.schema_changes import History, SchemaChange, TableHistory
from tables.inventory import merges_rows

CATALOGUE_FORMAT = 1
DIALECT = (
    "UTF-8, a header, commas, rows end with LF; texts and times in double quotes, a quote in a text"
    " is doubled; a missing value (NULL) is \\N without quotes; times are UTC; compressed with zstd"
)
MONTH = re.compile(r"[0-9]{4}(0[1-9]|1[0-2])")
DAY = re.compile(r"[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])")
ENGINE = re.compile(r"^ENGINE = (\w+)", re.MULTILINE)


class Licence(msgspec.Struct, frozen=True, kw_only=True):
    """Under which licence the data is: its name, its address, and who holds the rights."""

    name: str
    url: str
    owner: str


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the files: its name, its type in ClickHouse, and what it means, if known."""

    name: str
    type: str
    meaning: str


class ParquetFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that has the same rows as Parquet.

    Attributes:
        path: relative to index.json, as in SHA256SUMS.
        url: the same for requests: percent-encoded, and whole if base_url is known.
        bytes: of the file.
        sha256: of the file.
        changed: when this version of the file was there.
    """

    path: str
    url: str
    bytes: int
    sha256: str
    changed: str


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file with rows.

    Attributes:
        path: relative to index.json, as in SHA256SUMS.
        url: the same for requests: percent-encoded, and whole if base_url is known.
        period: the month (2026-11) or the day (2026-11-27) of its rows; "" if it has another range.
        rows: how many.
        bytes: of the CSV.
        compressed_bytes: of the file.
        sha256: of the file.
        read: when its rows were read from the database; UTC, ISO 8601.
        changed: when this version of the file was there.
        gone: since when the database has none of these rows any more; "" while it has.
        parquet: the same rows as Parquet; null if there is no such file.
    """

    path: str
    url: str
    period: str
    rows: int
    bytes: int
    compressed_bytes: int
    sha256: str
    read: str
    changed: str
    gone: str
    parquet: ParquetFile | None = None


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table.

    Attributes:
        name: in the database.
        description: "" if there is none.
        page: the page for people, relative to index.json.
        schema: its CREATE TABLE statement, relative to index.json.
        manifest: what the exporter keeps of it, relative to index.json.
        rows: in all files.
        bytes: of the CSV.
        compressed_bytes: of the files.
        first: the earliest period; "" if its files have none.
        last: the latest period.
        changed: when a file changed last; "" without files.
        replaces_rows: whether a file can have several versions of a row.
        columns: of the files, in their order.
        changes_since: since when changes of columns are recorded.
        column_changes: the newest first.
        files: in the order of their periods or ranges.
    """

    name: str
    description: str
    page: str
    schema: str
    manifest: str
    rows: int
    bytes: int
    compressed_bytes: int
    first: str
    last: str
    changed: str
    replaces_rows: bool
    columns: list[Column]
    changes_since: str
    column_changes: list[SchemaChange]
    files: list[File]

    @property
    def has_parquet(self) -> bool:
        """Whether any of its files is there as Parquet, too."""
        return any(file.parquet for file in self.files)


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All that is exported.

    Attributes:
        updated: when the exports changed last; UTC, ISO 8601.
        base_url: what paths are relative to, without a slash at the end; "": unknown.
        licence: of the data.
        citation: how to cite it.
        contact: "" if there is none.
        csv: the dialect of the files.
        snapshots: SHA256SUMS of each run that changed something, the newest first.
        tables: by name.
        unavailable: tables whose files are listed nowhere until their manifest is mended.
        tool: which wrote this.
        format: of this document; another number where a reader would have to be changed.
    """

    updated: str
    base_url: str
    licence: Licence
    citation: str
    contact: str
    csv: str
    snapshots: list[str]
    tables: list[Table]
    unavailable: list[str]
    tool: str
    format: int = CATALOGUE_FORMAT

    @property
    def newest(self) -> list[tuple[Table, File]]:
        """All files, those that changed last first."""
        files = [(table, file) for table in self.tables for file in table.files]
        return sorted(files, key=lambda pair: (pair[1].changed, pair[1].path), reverse=True)

    @property
    def parquet_files(self) -> list[ParquetFile]:
        """All files of Parquet."""
        files = [file for table in self.tables for file in table.files]
        return [file.parquet for file in files if file.parquet]

    @property
    def has_places(self) -> bool:
        """Whether any table says where a probe was, which is DB-IP's knowledge."""
        names = {column.name for table in self.tables for column in table.columns}
        return not names.isdisjoint({"probe_cc", "probe_asn"})

    @property
    def has_test_lists(self) -> bool:
        """Whether the lists of what probes test are among the tables."""
        return any(table.name == "citizenlab" for table in self.tables)

    @property
    def has_network_names(self) -> bool:
        """Whether the names of networks, which come from CAIDA, are among the tables."""
        return any(table.name == "asnmeta" for table in self.tables)


@dataclass(frozen=True)
class Sources:
    """What a catalogue is made of.

    Attributes:
        run: of this run, with the summaries of all tables.
        manifests: by table; those that can be used.
        places: where things are.
        about: what the operator says.
        history: of the columns.
        snapshots: the keys of those that are there, the newest first.
    """

    run: RunManifest
    manifests: Mapping[str, TableManifest]
    places: Places
    about: About
    history: History
    snapshots: Sequence[str]


def catalogue_of(sources: Sources) -> Catalogue:
    """Return all that is exported."""
    run, about = sources.run, sources.about
    return Catalogue(
        updated=run.finished,
        base_url=about.base_url,
        licence=Licence(name=about.licence, url=about.licence_url, owner=about.owner),
        citation=_citation(sources),
        contact=about.contact,
        csv=DIALECT,
        snapshots=[sources.places.relative(key) for key in sources.snapshots],
        tables=[_table(sources, name) for name in sorted(sources.manifests)],
        unavailable=sorted(run.tables.keys() - sources.manifests.keys()),
        tool=run.tool,
    )


def _citation(sources: Sources) -> str:
    """Return how to cite the exports as they are now."""
    when = datetime.fromisoformat(sources.run.finished)
    newest = sources.places.relative(sources.snapshots[0]) if sources.snapshots else ""
    base = sources.about.base_url
    where = f"{base}/{newest}" if base and newest else newest
    return (
        f"{sources.about.owner}. OONI database exports, snapshot of {when:%Y-%m-%d}."
        f" {OONI}.{f' Files and checksums: {where}.' if where else ''}"
    )


def _table(sources: Sources, name: str) -> Table:
    manifest, places = sources.manifests[name], sources.places
    layout, comments = places.layout, comments_of(manifest.schema)
    files = [_file(sources, export) for export in manifest.exports]
    periods = [file.period for file in files if file.period]
    history = sources.history.tables.get(name) or TableHistory(
        since=sources.run.finished, columns=[]
    )
    return Table(
        name=name,
        description=comments.table or DESCRIPTIONS.get(name, ""),
        page=places.relative(places.page(name)),
        schema=layout.relative(layout.schema(name)),
        manifest=layout.relative(layout.manifest(name)),
        rows=sum(file.rows for file in files),
        bytes=sum(file.bytes for file in files),
        compressed_bytes=sum(file.compressed_bytes for file in files),
        first=min(periods, default=""),
        last=max(periods, default=""),
        changed=max((file.changed for file in files), default=""),
        replaces_rows=_replaces_rows(manifest),
        columns=[
            Column(
                name=column,
                type=kind,
                meaning=comments.columns.get(column) or meaning(name, column),
            )
            for column, kind in manifest.columns
        ],
        changes_since=history.since,
        column_changes=history.changes,
        files=files,
    )


def _file(sources: Sources, export: Export) -> File:
    parquet = None
    if stored := export.parquet:
        parquet = ParquetFile(
            path=sources.places.relative(stored.key),
            url=_url(sources, stored.key),
            bytes=stored.compressed_bytes,
            sha256=stored.sha256,
            changed=stored.finished,
        )
    return File(
        path=sources.places.relative(export.key),
        url=_url(sources, export.key),
        period=_period(export),
        rows=export.rows,
        bytes=export.bytes,
        compressed_bytes=export.compressed_bytes,
        sha256=export.sha256,
        read=export.started,
        changed=export.finished,
        gone=export.dropped,
        parquet=parquet,
    )


def _url(sources: Sources, key: str) -> str:
    path, base = sources.places.relative(key), sources.about.base_url
    return f"{base}/{quote(path)}" if base else quote(path)


def _period(export: Export) -> str:
    """Return the month or the day of an export; the name of a range is a number, too."""
    name = export.chunk.name
    if export.chunk.bounds is None and MONTH.fullmatch(name):
        return f"{name[:4]}-{name[4:]}"
    if export.chunk.bounds is None and DAY.fullmatch(name):
        return f"{name[:4]}-{name[4:6]}-{name[6:]}"
    return ""


def _replaces_rows(manifest: TableManifest) -> bool:
    """Tell whether rows are there that the database will merge into one."""
    engine = ENGINE.search(manifest.schema)
    is_final = any(" FINAL" in export.query for export in manifest.exports)
    return bool(engine and merges_rows(engine[1])) and not is_final
