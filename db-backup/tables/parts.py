"""The parts that a table has now, as system.parts tells of them."""

import hashlib
import re
from collections.abc import Iterable

from ooni_common.database import Database, StatementRefused, literal
from ooni_common.replicas import lag_of
from tables.blocks import Part, ShardParts, Snapshot
from tables.inventory import QUOTED, SourceTable, is_replicated, merges_rows

OWN_COLUMNS = {"_part"}  # a column of the table of this name would hide the server's own
NO_TABLE = "00000000-0000-0000-0000-000000000000"  # of databases that give tables no UUID
TTL = re.compile(r"\bTTL\b")
# The clause of the table, if it only deletes rows: those of columns, and GROUP BY, change cells.
EXPIRING_ROWS = re.compile(r"^TTL (?!.*\bGROUP BY\b)", re.MULTILINE | re.DOTALL)
FOLDER = r"/store/\w{3}/([0-9a-f-]{36})/"


def read_snapshot(databases: Iterable[Database], table: SourceTable) -> Snapshot | None:
    """Return the parts that a table has; None where they do not tell of its rows.

    Args:
        databases: the connections, one to each shard.
        table: what it is.
    """
    create = re.sub(QUOTED, "", table.create)
    expires = bool(EXPIRING_ROWS.search(create))
    if not table.engine.endswith("MergeTree") or len(TTL.findall(create)) > expires:
        return None
    if OWN_COLUMNS & {column.name for column in table.columns}:
        return None
    try:
        shards = [_read_parts(database, table) for database in databases]
    except StatementRefused:  # the user may not see them
        return None
    complete = tuple(shard for shard in shards if shard)
    if len(complete) < len(shards):
        return None
    return Snapshot(complete, expires=expires)


def _read_parts(database: Database, table: SourceTable) -> ShardParts | None:
    lag = 0
    if is_replicated(table.engine):  # first: what is fetched meanwhile is not lag
        ((current,),) = database.query("SELECT currentDatabase()")
        lag = lag_of(database, current, table.name)
    found = _identity_and_times(database, table)
    if found is None:
        return None
    identity, taken, started = found
    path = _path_of_replicas(database, table)
    if path is None:
        return None
    columns = database.query(
        "SELECT name, type, default_kind, default_expression FROM system.columns"
        f" WHERE {_is('table')} ORDER BY position",
        {"table": table.name},
    )
    parts = _active_parts(database, table)
    if any(part.name.startswith("patch-") or part.first < 0 for part in parts):
        return None
    return ShardParts(
        table=identity,
        path=path,
        taken=taken,
        columns=hashlib.sha256(repr([table.engine, *columns]).encode()).hexdigest()[:16],
        parts=parts,
        lag=lag,
        merges_rows=merges_rows(table.engine),
        started=started,
    )


def _is(column: str) -> str:
    """Return the condition that finds a table in one of the system's; `column` has its name."""
    return f"database = currentDatabase() AND {column} = %(table)s"


def _identity_and_times(database: Database, table: SourceTable) -> tuple[str, int, int] | None:
    """Return what tells a table from others of its name, the server's time, and that of its start.

    None where there is no such table, or where nothing tells it from another one.
    """
    tables = database.query(
        # In some databases without UUIDs, the folder of a table is named by one.
        f"SELECT if(uuid = {literal(NO_TABLE)}, extract(toString(data_paths), {literal(FOLDER)}),"
        " toString(uuid)), toUnixTimestamp(metadata_modification_time), toUnixTimestamp(now()),"
        " toUnixTimestamp(now()) - uptime()"
        f" FROM system.tables WHERE {_is('name')}",
        {"table": table.name},
    )
    if not tables:
        return None
    ((uuid, defined, taken, started),) = tables
    if not uuid and not 0 < defined < taken:  # in the same second there can be another one
        return None
    return uuid or f"of {defined}", taken, started


def _path_of_replicas(database: Database, table: SourceTable) -> str | None:
    """Return the path of a table in ZooKeeper; "" if it has no replicas, None if it isn't known."""
    if not is_replicated(table.engine):
        return ""
    paths = database.query(
        f"SELECT zookeeper_path FROM system.replicas WHERE {_is('table')}", {"table": table.name}
    )
    return (paths[0][0] or None) if paths else None


def _active_parts(database: Database, table: SourceTable) -> list[Part]:
    rows = database.query(
        "SELECT partition_id, name, min_block_number, max_block_number, data_version,"
        " toUnixTimestamp(modification_time), rows"
        # A part without rows stands for some that were dropped.
        f" FROM system.parts WHERE active AND rows > 0 AND {_is('table')}"
        " ORDER BY partition_id, min_block_number",
        {"table": table.name},
    )
    return [Part(*row) for row in rows]
