"""Restoring one table: its rows go into one beside it (tables/staging.py), and are compared there.

Only then the table gets its name: by RENAME, or in the place of one that is there by EXCHANGE,
which keeps the old content.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backups.comparison import compared, content_of
from backups.contents import Partitions
from backups.definitions import make_table
from backups.manifest import BackupManifest, SavedTable
from backups.server import ServerBackups
from backups.server_manifest import Looked
from ooni_common.database import Database, StatementFailed, StatementRefused
from ooni_common.errors import ConfigError, DataRefused
from ooni_common.server_errors import CODES_OF_LACKS
from schemas.refusals import blamed_on
from tables.inventory import storage_of
from tables.staging import Place, drop, dropped_on_failure, exists

log = logging.getLogger("ooni.db_backup")

# What the server may say of a definition in a backup: the other tables can be restored.
CODES_OF_DEFINITIONS = {36, 48, 56, 80, 115, 344}
# In what the store says; "404" alone could be a part of the time that is a backup's name.
GONE = r"HTTP response code: 404\b|\b(NOT_FOUND|NO_SUCH_KEY|NoSuchKey)\b"


@dataclass(frozen=True)
class Filling:
    """How a table is filled.

    Attributes:
        trusted: whether a schema is executed that does more than a table needs.
        looked: the server's manifests, as they were when they were checked; None: they were not.
        partitions: the IDs of those whose rows are wanted; empty: all. The manifest has no others.
    """

    trusted: bool = False
    looked: Looked | None = None
    partitions: Sequence[str] = ()


def fill(
    server: ServerBackups,
    manifest: BackupManifest,
    name: str,
    place: Place,
    how: Filling = Filling(),
) -> None:
    """Make a table of the rows of one in a backup, and compare them with the manifest.

    Args:
        server: which does it.
        manifest: of the backup.
        name: of the table in it.
        place: where the rows go; there is nothing.
        how: it is filled.

    Raises:
        DataRefused: they are other rows, or they can't be restored; or a manifest was changed.
        Unavailable: the database or the store failed.
        ConfigError: the server refuses it until a person mends something.
    """
    where, saved = f"{manifest.name}: {name}", manifest.tables[name]
    try:
        with blamed_on(f"{where}: it can't be restored"):
            content = _filled(server, manifest, name, place, how)
    except (StatementFailed, StatementRefused) as error:
        if not (error.code in CODES_OF_DEFINITIONS or _is_fault_of_backup(error)):
            raise
        raise DataRefused(f"{where}: it can't be restored: {error}") from None
    if how.looked and saved.method != "rows":
        how.looked.check_unchanged()
    if findings := saved.findings(content):
        raise DataRefused(f"{where}: {'; '.join(findings)}")
    proof = "as backed up" if compared(saved, content) else "as many as were backed up"
    log.info("%s: %s rows, %s", where, f"{saved.rows:,}", proof)


def _is_fault_of_backup(error: StatementFailed | StatementRefused) -> bool:
    """Tell a backup that is damaged from a server that lacks something, or refuses us."""
    if isinstance(error, StatementRefused):
        return False
    return error.code not in CODES_OF_LACKS or bool(re.search(GONE, error.said))


def _filled(
    server: ServerBackups, manifest: BackupManifest, name: str, place: Place, how: Filling
) -> Partitions:
    """Make a table of the rows of one in a backup; return what it has."""
    database, saved = server.database, manifest.tables[name]
    make_table(database, manifest, saved.storage_schema, place, trusted=how.trusted)
    merges = saved.engine.endswith("MergeTree")
    if merges:  # rows that become one are not those of the manifest any more
        database.query(f"SYSTEM STOP MERGES {place}")
    if saved.method == "rows":
        if saved.rows:
            key = server.layout.rows(manifest.name, name)
            server.load_rows(place.database, place.table, saved.columns, key)
    else:
        part = manifest.parts[saved.method]
        source = (manifest.database, name)
        tables = {source: (place.database, place.table)}
        server.restore(tables, part.path, has_base=bool(part.base), partitions=how.partitions)
    content = content_of(server, saved, place, _plain(saved.engine))
    if merges:
        database.query(f"SYSTEM START MERGES {place}")
    return content


def _plain(engine: str) -> str:
    """Return an engine without replication."""
    return engine.removeprefix("Replicated").removeprefix("Shared")


def check_exchange(database: Database, place: Place) -> None:
    """Raise ConfigError if a database can't exchange tables."""
    ((engine,),) = database.query(
        "SELECT engine FROM system.databases WHERE name = %(name)s", {"name": place.database}
    )
    if engine in ("Ordinary", "Memory"):
        raise ConfigError(
            f"{place} can't be replaced: a database of the engine {engine} exchanges no tables;"
            " restore it under another name (--as)"
        )


def put_in_place(
    database: Database, saved: SavedTable, staging: Place, place: Place, started: datetime
) -> str:
    """Give a table that is complete its name.

    One that is there swaps names with it in one statement. By then the new one has the name under
    which the old rows are kept: whatever ends this, and whenever, they have a name that no restore
    drops.
    """
    kept = place.kept(started)
    if not exists(database, place):
        database.query(f"RENAME TABLE {staging} TO {place}")
        return f"{place}: {saved.rows:,} rows"
    while exists(database, kept):  # of a run that was killed within the same second
        started += timedelta(seconds=1)
        kept = place.kept(started)
    database.query(f"RENAME TABLE {staging} TO {kept}")
    try:
        database.query(f"EXCHANGE TABLES {kept} AND {place}")
    except BaseException:
        log.warning("the swap failed; %s has the restored rows or the previous ones: look", kept)
        raise
    return f"{place}: {saved.rows:,} rows; what was there is {kept} now"


def attach(database: Database, saved: SavedTable, place: Place, started: datetime) -> str:
    """Move the rows of a complete table into the one that the server has made."""
    staging = place.staging(started)
    target = Place(place.database, storage_of(database, place.table, place.database))
    with dropped_on_failure(database, [staging]):  # where the table has other columns, or keys
        if saved.engine.endswith("MergeTree"):
            database.query(f"ALTER TABLE {target} ATTACH PARTITION ALL FROM {staging}")
        else:
            database.query(f"INSERT INTO {target} SELECT * FROM {staging}")
    drop(database, staging)
    return f"{place}: {saved.rows:,} rows"
