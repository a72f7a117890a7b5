"""Restoring a table from its export, under a name that is free.

The rows go into a table beside it (tables/staging.py), which gets the name when it is complete.
"""

import csv
import hashlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, cast

import zstandard

from exports.chunks import WRONG_VALUE
from exports.clickhouse_http import ClickHouseHTTP
from exports.comparison import Inserted, Records, compare, float_of, is_float
from exports.content import LARGEST_WINDOW
from exports.manifest import Export, TableManifest
from exports.stored import present_exports
from ooni_common.database import Database, StatementFailed, literal, quoted
from ooni_common.errors import ConfigError, DataRefused
from schemas.create_table import SETTINGS, create_statement
from schemas.refusals import blamed_on, refused_schema
from schemas.tokens import SchemaRefused
from schemas.types import checked_type
from store.bucket import READ_SIZE, Bucket, NoSuchObject
from tables.inventory import is_in_utc, read_table, with_utc
from tables.policy import TablePolicy
from tables.staging import Place, drop_leftovers, dropped_on_failure
from throttle import progress

# What the server says of rows that a table does not take, beside values that are none of its type:
# columns that are not there, or that it computes itself, and constraints.
NOT_TAKEN = {*WRONG_VALUE, 10, 16, 44, 469}
MOST_OF_HEADER = 4  # pieces of an object in which its first line has to end
MOST_NAMED = 10  # columns in a message
LONGEST_NAMED = 100  # characters of a column's name in a message

log = logging.getLogger("ooni.db_backup")


class _Damaged(Exception):
    """The object is not the one in the manifest."""


@dataclass(frozen=True)
class NewTable:
    """The table that an export becomes.

    Attributes:
        name: of the table; it is free.
        policy: what the configuration says of the original: its key and version.
        trusted: whether a schema is executed that does more than a table needs.
    """

    name: str
    policy: TablePolicy
    trusted: bool = False


def restore(
    database: Database,
    http: ClickHouseHTTP,
    bucket: Bucket,
    manifest: TableManifest,
    target: NewTable,
) -> int:
    """Create a table and fill it with what was exported; return its rows.

    Args:
        database: gets the table.
        http: of the same database.
        bucket: has the objects.
        manifest: of the table.
        target: the new table.

    Raises:
        ConfigError: there is a table of this name.
        DataRefused: an object is missing or damaged, or its rows are not those of the manifest; or
            its schema is none that is executed.
        Unavailable: the database or the bucket failed. In all cases nothing is left.
    """
    name = target.name
    if database.exists(name):
        raise ConfigError(f"there is a table {name} already; choose another name with --as")
    ((current,),) = database.query("SELECT currentDatabase()")
    place = Place(current, name)
    staging = place.staging(datetime.now(UTC))
    drop_leftovers(database, place)
    with dropped_on_failure(database, [staging]), blamed_on(f"the export of {manifest.table}"):
        _create(database, manifest, staging, trusted=target.trusted)
        exports = list(present_exports(bucket, manifest).values())
        inserter = _Inserter(database, http, bucket, staging, manifest.columns, is_in_utc(database))
        inserted = [inserter.insert(export) for export in exports]
        compare(database, http, target.policy, manifest, inserted, staging)
        if _merges(database, staging):
            database.query(f"SYSTEM START MERGES {staging}")
        database.query(f"RENAME TABLE {staging} TO {place}")
    return sum(export.rows for export in exports)


def _create(database: Database, manifest: TableManifest, staging: Place, *, trusted: bool) -> None:
    """Create the table, which merges nothing for now."""
    try:
        create = create_statement(manifest.schema, str(staging), trusted=trusted)
    except ValueError as error:
        raise refused_schema(manifest.table, manifest.schema, error) from None
    database.query(create, settings=database.settings_it_has(SETTINGS))
    if _merges(database, staging):  # rows that become one are not those of the export any more
        database.query(f"SYSTEM STOP MERGES {staging}")


def _merges(database: Database, table: Place) -> bool:
    return read_table(database, table.table).engine.endswith("MergeTree")


def _count(database: Database, table: Place) -> int:
    ((rows,),) = database.query(f"SELECT count() FROM {table}")
    return int(rows)


@dataclass(frozen=True)
class _Inserter:
    """Inserts the rows of objects into a table that merges nothing.

    Attributes:
        database: has the table.
        http: of the same database.
        bucket: has the objects.
        staging: the table.
        columns: names and types of its columns.
        in_utc: whether the server's zone is UTC.
    """

    database: Database
    http: ClickHouseHTTP
    bucket: Bucket
    staging: Place
    columns: Sequence[tuple[str, str]]
    in_utc: bool

    def insert(self, export: Export) -> Inserted:
        """Insert the rows of an object; return what they were.

        Raises:
            DataRefused: there are more or fewer than in the manifest, or the table can't take them.
        """
        records, before = Records(), _count(self.database, self.staging)
        inserted = self._send(export, records)
        if inserted is None:  # a proxy keeps back what the server says of it
            inserted = _count(self.database, self.staging) - before
        if inserted != export.rows:
            raise DataRefused(
                f"{export.key}: {inserted:,} rows were inserted instead of {export.rows:,}"
            )
        log.info("%s: %s rows", export.key, f"{export.rows:,}")
        return Inserted(export, records)

    def _send(self, export: Export, records: Records) -> int | None:
        """Send an object, and sum its records; return how many rows the server has written.

        None: it is not known.
        """
        settings = {**self.database.insert_settings, "optimize_on_insert": "0"}
        text = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).stream_writer(
            cast("IO[bytes]", records), write_size=READ_SIZE
        )
        try:
            with progress(export.key, export.compressed_bytes, "B") as shown:

                def read() -> Iterator[bytes]:
                    sent = 0
                    for piece in _verified(self.bucket, export):
                        sent += len(piece)
                        shown.show(sent)
                        text.write(piece)
                        yield piece

                pieces = read()
                beginning = _beginning(pieces, records)
                statement = self._statement(export, names_in(records.header))
                sent = itertools.chain(beginning, pieces)
                return self.http.insert(statement, sent, "zstd", settings=settings)
        except (_Damaged, NoSuchObject, zstandard.ZstdError):
            raise DataRefused(f"{export.key}: missing or damaged; see verify") from None
        except StatementFailed as error:
            if error.code not in NOT_TAKEN:
                raise
            raise DataRefused(
                f"{export.key}: the table does not take its rows; its schema in the manifest is"
                f" another one: {error}"
            ) from None

    def _statement(self, export: Export, names: Sequence[str]) -> str:
        """Return the INSERT for an object that has these columns; tell which the table lacks.

        An object whose rows the database has no more can be of a time when the table had others.
        """
        try:
            statement = insert_statement(
                self.staging, self.columns, export.types, names, in_utc=self.in_utc
            )
        except SchemaRefused as error:
            raise DataRefused(f"{export.key}: its columns in the manifest: {error}") from None
        known = {name for name, _ in self.columns}
        if left_out := [name for name in names if name not in known]:
            named = [name[:LONGEST_NAMED] for name in left_out[:MOST_NAMED]]
            log.warning(
                "%s: the table has no such columns any more, so their values are left out: %s",
                export.key,
                ", ".join(named) + (" …" if len(left_out) > MOST_NAMED else ""),
            )
        return statement


def _beginning(pieces: Iterator[bytes], records: Records) -> list[bytes]:
    """Return the pieces of an object up to that in which its first line ends."""
    beginning = []
    for piece in itertools.islice(pieces, MOST_OF_HEADER):
        beginning.append(piece)
        if records.header is not None:
            break
    return beginning


def names_in(header: bytes | None) -> list[str]:
    """Return the names of the columns in the first line of an object; none of an empty object.

    Raises:
        _Damaged: it is none.
    """
    try:
        (names,) = csv.reader([(header or b"").decode()], strict=True)
    except (ValueError, csv.Error):
        raise _Damaged from None
    return names


def insert_statement(
    table: Place,
    columns: Sequence[tuple[str, str]],
    types: Sequence[str] = (),
    names: Sequence[str] = (),
    *,
    in_utc: bool,
) -> str:
    """Return the INSERT that takes the rows of an export, in which all times are UTC.

    Columns that only the file has are left out; those that only the table has get their defaults.

    Args:
        table: where to.
        columns: names and types of the table's columns.
        types: those that the columns have in the file; empty: the same.
        names: of the columns in the file; empty: the same.
        in_utc: whether the server's zone is UTC. Where it is another one, a server before 26 takes
            times without a zone for its own, whatever the session's zone is.

    Raises:
        SchemaRefused: a type is none or isn't known, there are more or fewer types than columns, a
            name is there twice, or the table has no column of the file.
    """
    own = {name: checked_type(kind) for name, kind in columns}
    sent = _columns_sent(own, types, names or list(own))
    common = [name for name in sent if name in own]
    if not common:
        raise SchemaRefused("the table has none of them")
    if not in_utc:
        sent = {name: with_utc(kind) for name, kind in sent.items()}
    into = f"INSERT INTO {table} ({', '.join(map(quoted, common))})"
    same = list(sent.items()) == [(name, own[name]) for name in common]
    if same and not any(map(is_float, sent.values())):
        return f"{into} FORMAT CSVWithNames"
    # To 24.8 and 25.5 only a text that is cast gives exactly the float that was written.
    values = [
        f"CAST({quoted(name)} AS {float_of(sent[name])})" if is_float(sent[name]) else quoted(name)
        for name in common
    ]
    structure = ", ".join(f"{quoted(name)} {_type_of_text(kind)}" for name, kind in sent.items())
    select = f"SELECT {', '.join(values)} FROM input({literal(structure)})"
    # A column that nothing asks for, the server doesn't know in the header.
    if left_out := [quoted(name) for name in sent if name not in own]:
        select += f" WHERE NOT ignore({', '.join(left_out)})"
    return f"{into} {select} FORMAT CSVWithNames"


def _columns_sent(
    own: Mapping[str, str], types: Sequence[str], names: Sequence[str]
) -> dict[str, str]:
    """Return the columns of a file, in their order: their types by their names."""
    if not types and (unknown := [name for name in names if name not in own]):
        raise SchemaRefused(f"nothing tells the type of {unknown[0][:LONGEST_NAMED]!r}")
    sent = [checked_type(kind) for kind in types] or [own[name] for name in names]
    if len(sent) != len(names):
        raise SchemaRefused(f"there are {len(sent)} types of {len(names)} columns")
    if len(set(names)) < len(names):
        raise SchemaRefused("a name is there twice")
    return dict(zip(names, sent, strict=True))


def _type_of_text(kind: str) -> str:
    """Return the type of the text from which a value is cast; else the type itself."""
    if not is_float(kind):
        return kind
    return "Nullable(String)" if float_of(kind).startswith("Nullable(") else "String"


def _verified(bucket: Bucket, export: Export) -> Iterator[bytes]:
    """Yield an object; hold its last piece back until the checksum is known to be right."""
    digest = hashlib.sha256()
    last = b""
    for piece in bucket.stream(export.key):
        digest.update(piece)
        if last:
            yield last
        last = piece
    if digest.hexdigest() != export.sha256:
        raise _Damaged
    yield last
