"""Restoring a table from its export, under a name that is free.

The rows go into a table beside it (staging.py), which gets the name when it is complete.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from exports.clickhouse_http import ClickHouseHTTP
from exports.manifest import Export, TableManifest, present_exports
from inventory import is_in_utc, with_utc
from ooni_common.database import Database, literal, quoted
from ooni_common.errors import ConfigError, DataRefused
from schemas.create_table import SETTINGS, create_statement
from schemas.refusals import refused_schema
from schemas.types import checked_type
from staging import Place, drop_leftovers, dropped_on_failure
from store import Bucket, NoSuchObject
from throttle import progress

log = logging.getLogger("ooni.db_backup")


class _Damaged(Exception):
    """The object is not the one in the manifest."""


def restore(
    database: Database,
    http: ClickHouseHTTP,
    bucket: Bucket,
    manifest: TableManifest,
    name: str,
    *,
    trusted: bool = False,
) -> int:
    """Create a table and fill it with what was exported; return its rows.

    Args:
        database: gets the table.
        http: of the same database.
        bucket: has the objects.
        manifest: of the table.
        name: of the new table.
        trusted: whether a schema is executed that does more than a table needs.

    Raises:
        ConfigError: there is a table of this name.
        DataRefused: an object is missing or damaged, or its rows are not those of the manifest; or
            its schema is none that is executed.
        Unavailable: the database or the bucket failed. In all cases nothing is left.
    """
    if database.exists(name):
        raise ConfigError(f"there is a table {name} already; choose another name with --as")
    ((current,),) = database.query("SELECT currentDatabase()")
    place = Place(current, name)
    staging = place.staging(datetime.now(UTC))
    drop_leftovers(database, place)
    with dropped_on_failure(database, [staging]):
        try:
            create = create_statement(manifest.schema, str(staging), trusted=trusted)
            statement = insert_statement(staging, manifest, in_utc=is_in_utc(database))
        except ValueError as error:
            raise refused_schema(manifest.table, manifest.schema, error) from None
        database.query(create, settings=database.settings_it_has(SETTINGS))
        settings = database.insert_settings
        rows = 0
        for export in present_exports(bucket, manifest).values():
            inserted = _insert(http, bucket, export, statement, settings)
            if inserted != export.rows:
                raise DataRefused(
                    f"{export.key}: {inserted:,} rows were inserted instead of {export.rows:,}"
                )
            rows += inserted
            log.info("%s: %s rows", export.key, f"{export.rows:,}")
        database.query(f"RENAME TABLE {staging} TO {place}")
    return rows


def insert_statement(table: Place, manifest: TableManifest, *, in_utc: bool) -> str:
    """Return the INSERT that takes the rows of an export, in which all times are UTC.

    Args:
        table: where to.
        manifest: knows the columns.
        in_utc: whether the server's zone is UTC. Where it is another one, a server before 26 takes
            times without a zone for its own, whatever the session's zone is.

    Raises:
        SchemaRefused: a type is none.
    """
    columns = ", ".join(quoted(column) for column, _ in manifest.columns)
    into = f"INSERT INTO {table} ({columns})"
    listed = {column: checked_type(kind) for column, kind in manifest.columns}
    types = {column: with_utc(kind) for column, kind in listed.items()}
    if in_utc or types == listed:
        return f"{into} FORMAT CSVWithNames"
    structure = ", ".join(f"{quoted(column)} {kind}" for column, kind in types.items())
    return f"{into} SELECT {columns} FROM input({literal(structure)}) FORMAT CSVWithNames"


def _insert(
    http: ClickHouseHTTP,
    bucket: Bucket,
    export: Export,
    statement: str,
    settings: Mapping[str, str],
) -> int:
    try:
        with progress(export.key, export.compressed_bytes, "B") as shown:

            def pieces() -> Iterator[bytes]:
                sent = 0
                for piece in _verified(bucket, export):
                    sent += len(piece)
                    shown.show(sent)
                    yield piece

            return http.insert(statement, pieces(), "zstd", settings=settings)
    except (_Damaged, NoSuchObject):
        raise DataRefused(f"{export.key}: missing or damaged; see verify") from None


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
