"""Restoring a table from its export, under a name that is free.

The rows go into a table beside it (tables/staging.py), which gets the name when it is complete.
"""

import hashlib
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
        in_utc = is_in_utc(database)
        inserted = []
        for export in exports:
            try:
                statement = insert_statement(staging, manifest.columns, export.types, in_utc=in_utc)
            except SchemaRefused as error:
                raise DataRefused(f"{export.key}: its columns in the manifest: {error}") from None
            inserted.append(_insert_all(database, http, bucket, export, statement, staging))
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


def _insert_all(
    database: Database,
    http: ClickHouseHTTP,
    bucket: Bucket,
    export: Export,
    statement: str,
    staging: Place,
) -> Inserted:
    """Insert the rows of an object into a table that merges nothing; return what they were.

    Raises:
        DataRefused: there are more or fewer than in the manifest.
    """
    settings = {**database.insert_settings, "optimize_on_insert": "0"}
    records, before = Records(), _count(database, staging)
    inserted = _insert(http, bucket, export, statement, settings, records)
    if inserted is None:  # a proxy keeps back what the server says of it
        inserted = _count(database, staging) - before
    if inserted != export.rows:
        raise DataRefused(
            f"{export.key}: {inserted:,} rows were inserted instead of {export.rows:,}"
        )
    log.info("%s: %s rows", export.key, f"{export.rows:,}")
    return Inserted(export, records)


def insert_statement(
    table: Place, columns: Sequence[tuple[str, str]], types: Sequence[str] = (), *, in_utc: bool
) -> str:
    """Return the INSERT that takes the rows of an export, in which all times are UTC.

    Args:
        table: where to.
        columns: names and types of the table's columns.
        types: those that the columns have in the file; empty: the same.
        in_utc: whether the server's zone is UTC. Where it is another one, a server before 26 takes
            times without a zone for its own, whatever the session's zone is.

    Raises:
        SchemaRefused: a type is none, or there are more or fewer types than columns.
    """
    names = ", ".join(quoted(name) for name, _ in columns)
    own = [checked_type(kind) for _, kind in columns]
    sent = [checked_type(kind) for kind in types] or own
    if len(sent) != len(own):
        raise SchemaRefused(f"there are {len(sent)} types of {len(own)} columns")
    if not in_utc:
        sent = [with_utc(kind) for kind in sent]
    into = f"INSERT INTO {table} ({names})"
    # To 24.8 and 25.5 only a text that is cast gives exactly the float that was written.
    values = [
        f"CAST({quoted(name)} AS {float_of(kind)})" if is_float(kind) else quoted(name)
        for (name, _), kind in zip(columns, sent, strict=True)
    ]
    if sent == own and not any(map(is_float, sent)):
        return f"{into} FORMAT CSVWithNames"
    structure = ", ".join(
        f"{quoted(name)} {_type_of_text(kind)}"
        for (name, _), kind in zip(columns, sent, strict=True)
    )
    return f"{into} SELECT {', '.join(values)} FROM input({literal(structure)}) FORMAT CSVWithNames"


def _type_of_text(kind: str) -> str:
    """Return the type of the text from which a value is cast; else the type itself."""
    if not is_float(kind):
        return kind
    return "Nullable(String)" if float_of(kind).startswith("Nullable(") else "String"


def _insert(
    http: ClickHouseHTTP,
    bucket: Bucket,
    export: Export,
    statement: str,
    settings: Mapping[str, str],
    records: Records,
) -> int | None:
    """Insert the rows of an object, and sum its records; return how many the server has written.

    None: it is not known.
    """
    text = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).stream_writer(
        cast("IO[bytes]", records), write_size=READ_SIZE
    )
    try:
        with progress(export.key, export.compressed_bytes, "B") as shown:

            def pieces() -> Iterator[bytes]:
                sent = 0
                for piece in _verified(bucket, export):
                    sent += len(piece)
                    shown.show(sent)
                    text.write(piece)
                    yield piece

            return http.insert(statement, pieces(), "zstd", settings=settings)
    except (_Damaged, NoSuchObject, zstandard.ZstdError):
        raise DataRefused(f"{export.key}: missing or damaged; see verify") from None
    except StatementFailed as error:
        if error.code not in NOT_TAKEN:
            raise
        raise DataRefused(
            f"{export.key}: the table does not take its rows; its schema in the manifest is another"
            f" one: {error}"
        ) from None


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
