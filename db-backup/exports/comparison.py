"""Whether a restored table has the rows of its exports.

An export that was read once has no digest of its rows, and a digest may be of key and version
alone. So the records of the objects are summed while they go to the server, and those of the table
when it has all of them, in the same format. The sum does not depend on their order.

Its hash is Python's own of bytes: SipHash with a key that each process draws. It is the fastest
that there is (0.8 s of CPU for a million records of 560 bytes), and nobody can make up rows that
cancel each other out. Both sums are of this process, so it need not last.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from exports.chunks import lossy_columns
from exports.clickhouse_http import ClickHouseHTTP
from exports.csv_rows import LINE_BREAK, QUOTE, header_of
from exports.fingerprint import combined
from exports.manifest import Export, TableManifest
from exports.reader import Reader
from ooni_common.database import Database
from ooni_common.errors import DataRefused
from tables.digest import FLOAT, SCHEME, bare_type, without_names
from tables.inventory import Column, is_in_utc, read_table, without_zones
from tables.policy import TablePolicy
from tables.staging import Place
from throttle import progress

log = logging.getLogger("ooni.db_backup")

LONGEST_RECORD = 256 * 1024 * 1024  # bytes; those of a longer one are not kept to be hashed
NO_LIMIT = {"max_execution_time": 0}  # that of the configuration is for one chunk
# 24.8 and 25.5 read this number as the one beside it.
FLOAT_TO_READ = "-1.5432835417340557e88"
GEOMETRY = ("Point", "Ring", "LineString", "MultiLineString", "Polygon", "MultiPolygon")


class Records:
    """The records of a CSV document with a header, as they come: their number, and their sum.

    Args:
        longest: bytes of a record; a longer one is not hashed.

    Attributes:
        header: the first one, without its line break; None before it is complete.
        count: of the others.
        sum: of their hashes.
        whole: whether each was short enough to be hashed.
    """

    def __init__(self, longest: int = LONGEST_RECORD) -> None:
        self._longest = longest
        self.header: bytes | None = None
        self.count = 0
        self.sum = 0
        self.whole = True
        self._begun = bytearray()
        self._quoted = False

    def write(self, piece: bytes) -> int:
        """Take the next bytes of the document; return how many, as files do."""
        *ends, rest = bytes(piece).split(LINE_BREAK)
        for end in ends:
            self._quoted ^= end.count(QUOTE) % 2 == 1  # a quote within quotes is written twice
            if self._quoted:  # the line break is one of a value
                self._keep(end + LINE_BREAK)
            elif self._begun:
                self._keep(end)
                self._take(bytes(self._begun))
                self._begun.clear()
            else:
                self._take(end)
        self._quoted ^= rest.count(QUOTE) % 2 == 1
        self._keep(rest)
        return len(piece)

    def same_as(self, records: "Sequence[Records]") -> bool:
        """Tell whether the records are those of other documents."""
        return (self.count, self.sum) == (
            sum(one.count for one in records),
            sum(one.sum for one in records),
        )

    def _keep(self, piece: bytes) -> None:
        if len(self._begun) + len(piece) > self._longest:
            self.whole = False
            self._begun.clear()
        self._begun += piece

    def _take(self, record: bytes) -> None:
        if self.header is None:
            self.header = record
            return
        self.count += 1
        self.sum += hash(record)


@dataclass(frozen=True)
class Inserted:
    """An object whose rows were sent to the server, and its records."""

    export: Export
    records: Records


def compare(
    database: Database,
    http: ClickHouseHTTP,
    policy: TablePolicy,
    manifest: TableManifest,
    inserted: Sequence[Inserted],
    staging: Place,
) -> None:
    """Compare the rows of a table with those of its exports, and say how sure that is.

    Args:
        database: has the table.
        http: of the same database.
        policy: of the original table.
        manifest: of its exports.
        inserted: all of them.
        staging: the table.

    Raises:
        DataRefused: the rows are others.
    """
    table = read_table(database, staging.table)
    columns = {column.name: column for column in table.columns}
    exported = [columns[name] for name, _ in manifest.columns if name in columns]
    table = replace(table, columns=tuple(exported))
    # The rows are those of the export: FINAL has been there before.
    policy = msgspec.structs.replace(policy, final=False)
    reader = Reader(database, table, policy, in_utc=is_in_utc(database))
    if lossy := lossy_columns(table):
        log.warning(
            "%s: rows are only counted: CSV can't carry %s", manifest.table, ", ".join(lossy)
        )
        return
    _compare_digests(reader, manifest, inserted)
    if inserted:
        _compare_records(http, reader, manifest, inserted)


def _compare_digests(reader: Reader, manifest: TableManifest, inserted: Sequence[Inserted]) -> None:
    """Compare the digest of all rows with those in the manifest, where it has them all."""
    types = types_of_columns(manifest)
    exports = [one.export for one in inserted]
    header = header_of([name for name, _ in manifest.columns]).removesuffix(LINE_BREAK)
    same_names = all(one.records.header == header for one in inserted)
    comparable = same_names and all(
        export.fingerprint.scheme == SCHEME
        and export.fingerprint.is_read
        and export.fingerprint.rows == export.rows
        and export.fingerprint.merged is None  # of some of the rows only
        and export.types == types
        for export in exports
    )
    if not (exports and comparable):
        return
    wanted = combined([export.fingerprint for export in exports])
    if reader.fingerprint("", stored=True).hash != wanted.hash:
        raise DataRefused(
            f"{manifest.table}: as many rows as were exported, but other ones; see verify"
        )


def _compare_records(
    http: ClickHouseHTTP, reader: Reader, manifest: TableManifest, inserted: Sequence[Inserted]
) -> None:
    """Compare the text of all rows with that of the objects."""
    types = types_of_columns(manifest)
    as_exported = all(one.export.types in ((), types) for one in inserted)
    stored = read_records(http, reader, sum(one.export.rows for one in inserted))
    # Objects of a table that had other columns at the time have another text, too.
    if not as_exported or {one.records.header for one in inserted} != {stored.header}:
        log.warning(
            "%s: rows are only counted: some were exported when the table had other columns",
            manifest.table,
        )
    elif not all(records.whole for records in [stored, *(one.records for one in inserted)]):
        log.warning(
            "%s: rows are only counted: some have more than %d bytes",
            manifest.table,
            LONGEST_RECORD,
        )
    elif stored.same_as([one.records for one in inserted]):
        log.info("%s: the rows are those that were exported", manifest.table)
    elif (inexact := composite_floats(reader.table.columns)) and not reads_floats(reader.database):
        log.warning(
            "%s: rows are only counted: this server reads numbers in these columns with an error"
            " in their last digit: %s",
            manifest.table,
            ", ".join(inexact),
        )
    else:
        raise DataRefused(
            f"{manifest.table}: the server stored other rows than those that were sent to it"
            f" ({stored.count:,} of {sum(one.records.count for one in inserted):,}); its schema"
            " in the manifest loses or changes them, or the server does"
        )


def types_of_columns(manifest: TableManifest) -> tuple[str, ...]:
    """Return the types that a table's columns have in a file."""
    return tuple(without_zones(kind) for _, kind in manifest.columns)


def read_records(http: ClickHouseHTTP, reader: Reader, rows: int) -> Records:
    """Read a table as it would be exported.

    Args:
        http: of the database that has it.
        reader: of the table.
        rows: how many it should have.
    """
    records = Records()
    names = [column.name for column in reader.table.columns]
    with (
        progress(f"reading {reader.table.name}", rows, "rows") as shown,
        http.rows(reader.select_unordered(), names, settings=NO_LIMIT) as stream,
    ):
        for piece in stream:
            records.write(piece)
            shown.show(records.count)
    return records


def composite_floats(columns: Sequence[Column]) -> list[str]:
    """Return the names of the columns that have floats within other types."""
    return [
        column.name
        for column in columns
        if not is_float(column.type)
        and (FLOAT.search(without_names(column.type)) or column.type.startswith(GEOMETRY))
    ]


def is_float(kind: str) -> bool:
    """Tell whether a type is a float, Nullable or not."""
    return float_of(kind) != ""


def float_of(kind: str) -> str:
    """Return the type itself where it is a float, Nullable or not, else ""."""
    bare = bare_type(kind)
    return bare if bare.removeprefix("Nullable(").rstrip(")") in ("Float32", "Float64") else ""


def reads_floats(database: Database) -> bool:
    """Tell whether the server reads a float within another type as it is written."""
    ((number,),) = database.query(
        f"SELECT toString(x) FROM format('CSV', 'x Float64', '{FLOAT_TO_READ}')"
        " SETTINGS precise_float_parsing = 1"
    )
    return bool(number == FLOAT_TO_READ)
