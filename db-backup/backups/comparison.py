"""Comparing the rows of a table that is there with those that a backup has of it."""

import logging
from enum import Enum

from backups.contents import (
    ALIASES_OF_2_0_0,
    PARTITION,
    ContentSource,
    Partitions,
    columns_of,
    read_content,
)
from backups.manifest import SavedTable
from backups.server import ServerBackups
from ooni_common.database import Database, literal
from schemas.refusals import NotUnderstood, blamed_on
from tables.digest import digest, is_sound
from tables.inventory import is_replicated, merges_rows, storage_of
from tables.staging import Place

log = logging.getLogger("ooni.db_backup")


class Rows(Enum):
    """What a table has, compared with a backup; with what is said of it to people."""

    SAME = "with the rows of the backup"
    MERGED = "with the rows of the backup, of which those with the same key have become one"
    FEWER = "with fewer rows than the backup"  # those of MERGED or of MISSING: see is_merged
    MISSING = "with fewer rows than the backup, and not only because some have become one"
    NONE = "without rows"  # made by a run that was interrupted before it had filled it
    LAGS = "with rows that are still to come"
    OTHER = "with other rows"

    @property
    def is_good(self) -> bool:
        """Whether nothing is left to restore."""
        return self in (Rows.SAME, Rows.MERGED)


def content_of(server: ServerBackups, saved: SavedTable, place: Place, engine: str) -> Partitions:
    """Return what a table has, with checksums of the scheme of a saved one, to compare it."""
    database = server.database
    sums = ""
    if saved.has_checksums:
        columns = columns_of(database, place.database, place.table, saved.columns)
        if is_sound(columns, saved.scheme, ALIASES_OF_2_0_0):
            sums = digest(columns, saved.scheme)
        else:
            log.warning(
                "%s: rows are only counted: the checksums of version 2.0.0 missed some of them",
                place,
            )
    source = ContentSource(place.database, place.table, engine, sums)
    return read_content(database, source, settings=server.config.settings_clause)


def compared(saved: SavedTable, content: Partitions) -> bool:
    """Tell whether rows were compared with saved ones, and not only counted."""
    return all(
        partition.checksum and content[name].checksum
        for name, partition in saved.partitions.items()
        if name in content
    )


def rows_of(server: ServerBackups, saved: SavedTable, place: Place, *, replace: bool) -> Rows:
    """Say which rows a table has that is there.

    Args:
        server: that has it.
        saved: what the backup has.
        place: the table.
        replace: whoever says so wants the rows of the backup, also where they were only merged.
    """
    storage = _storage(server.database, place)
    if not _has_columns(server.database, saved, storage):
        return Rows.OTHER
    try:
        with blamed_on(str(storage)):
            content = content_of(server, saved, storage, saved.engine)
    except NotUnderstood:  # it has no partitions, say: it is of another engine
        return Rows.OTHER
    rows = sum(partition.rows for partition in content.values())
    if saved.rows and not rows and (saved.is_view or is_replicated(saved.engine)):
        return Rows.NONE
    if not saved.findings(content) and not saved.later and compared(saved, content):
        return Rows.SAME
    if merges_rows(saved.engine) and 0 < rows <= saved.rows and not replace:
        return Rows.FEWER
    return Rows.OTHER


def is_empty(database: Database, place: Place) -> bool:
    """Tell whether a table has no rows."""
    return not database.query(f"SELECT 1 FROM {_storage(database, place)} LIMIT 1")


def is_merged(server: ServerBackups, saved: SavedTable, place: Place, restored: Place) -> bool:
    """Tell whether a table has what merges leave of the rows of a backup.

    Args:
        server: that has both.
        saved: what the backup has.
        place: the table.
        restored: the table that was filled with the rows of the backup.

    Raises:
        DataRefused: a type can't be hashed, so that nobody can tell.
    """
    storage = _storage(server.database, place)
    return _merged(server, saved, storage) == _merged(server, saved, restored)


def _merged(server: ServerBackups, saved: SavedTable, place: Place) -> list[tuple[object, ...]]:
    """Return what a table has after all merges: partition, rows and their digest."""
    sums = digest(columns_of(server.database, place.database, place.table, saved.columns))
    # As merges do, which never make one row of those of several partitions.
    settings = ["do_not_merge_across_partitions_select_final = 1", server.config.settings_clause]
    return server.database.query(
        f"SELECT {PARTITION}, count(), {sums} FROM {place} FINAL GROUP BY {PARTITION}"
        f" ORDER BY {PARTITION} SETTINGS {', '.join(filter(None, settings))}"
    )


def _storage(database: Database, place: Place) -> Place:
    """Return the table that has the rows: of a view, a hidden one."""
    return Place(place.database, storage_of(database, place.table, place.database))


def _has_columns(database: Database, saved: SavedTable, place: Place) -> bool:
    rows = database.query(
        f"SELECT name FROM system.columns WHERE database = {literal(place.database)}"
        f" AND table = {literal(place.table)}"
    )
    return {name for (name,) in rows}.issuperset(saved.columns)
