"""Restoring tables from a backup: what is wanted, and how one server gets it.

What is needed first is made first. How a single table is restored is in table_restore.py.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from backups.comparison import Rows, is_empty, is_merged, rows_of
from backups.definitions import Definitions, creation_order, is_table
from backups.manifest import BackupManifest, SavedTable
from backups.server import ServerBackups
from backups.server_manifest import Looked
from backups.table_restore import Filling, attach, check_exchange, fill, put_in_place
from ooni_common.database import ServerError, StatementFailed, StatementRefused, quoted
from ooni_common.doctor import worst_of
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from tables.inventory import is_replicated
from tables.staging import Place, drop, drop_leftovers, dropped_on_failure, exists

log = logging.getLogger("ooni.db_backup")


@dataclass(frozen=True)
class Wanted:
    """What is to be restored.

    Attributes:
        manifest: of the backup.
        places: where each table goes.
        database: where they go.
        replace: put it in the place of what is there, and keep that under another name.
        everything: views and dictionaries, too, and the tables that have no rows in the backup.
        trusted: whether definitions are executed that do more than a table needs.
        skipped: names that are left out.
        rows: whether rows are restored, and not only what has them.
        structure: whether tables are made; otherwise those that are there are filled.
        looked: the server's manifests that were looked at; None: none were.
        partitions: the IDs of those that are restored; empty: all.
    """

    manifest: BackupManifest
    places: Mapping[str, Place]
    database: str
    replace: bool = False
    everything: bool = False
    trusted: bool = False
    skipped: frozenset[str] = frozenset()
    rows: bool = True
    structure: bool = True
    looked: Looked | None = None
    partitions: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What is to be restored, in the order in which it can be made."""
        if not self.everything:
            return list(self.places)
        order = creation_order(self.manifest)
        # A table of one node alone can be in no definitions of the backup.
        more = [name for name in self.places if name not in self.manifest.definitions]
        return [name for name in (*order, *more) if name not in self.skipped]

    @property
    def filling(self) -> Filling:
        """How tables are filled."""
        return Filling(self.trusted, self.looked, self.partitions)

    def place(self, name: str) -> Place:
        """Return where something goes."""
        return self.places.get(name) or Place(self.database, name)

    def fills(self, saved: SavedTable) -> bool:
        """Tell whether a table is made first and filled then: it has its own path, or view."""
        own = saved.is_view or is_replicated(saved.engine)
        return not self.structure or (self.everything and own)


@dataclass
class Restored:
    """What has become of the tables.

    Attributes:
        lines: of what was done, one for each table.
        failures: of single tables; the others are restored.
    """

    lines: list[str] = field(default_factory=list)
    failures: list[ScriptError] = field(default_factory=list)

    def add_failure(self, place: Place, error: ScriptError) -> None:
        """Add why one table was not restored; what the server says need not name it."""
        if isinstance(error, ServerError):
            error.args = (f"{place}: {error}", *error.args[1:])
        self.failures.append(error)


def report(restored: Restored) -> None:
    """Log what was restored.

    Raises:
        ScriptError: the worst of what has failed; the rest is logged.
    """
    for line in restored.lines:
        log.info("restored %s", line)
    if restored.failures:
        worst = worst_of(restored.failures)
        for failure in restored.failures:
            if failure is not worst:
                log.error("%s", failure)
        raise worst


def not_made(place: Place) -> DataRefused:
    """Return the refusal to fill what a person has to make."""
    return DataRefused(
        f"{place}: its rows are not restored, as it was not made: make it, and restore again, or"
        " add --trust-definitions"
    )


def in_the_way(tables: Sequence[str], wanted: Wanted) -> ConfigError:
    """Return the refusal to touch tables that are there."""
    advice = "use --as, --to-database, or --replace, which keeps the old content under another name"
    if wanted.partitions:
        advice = "use --as or --to-database"
    return ConfigError(f"there already: {', '.join(tables)}; {advice}")


def restore_tables(server: ServerBackups, wanted: Wanted, restored: Restored) -> None:
    """Restore tables on one server; one that fails keeps no other from being restored.

    Args:
        server: which does it.
        wanted: what is to be restored.
        restored: is told what has become of the tables.

    Raises:
        ConfigError: there are tables of these names. Nothing is done, then.
        Unavailable: the database or the store failed. What was done by then stays, and the next
            restore goes on.
    """
    _Restore(server, wanted, restored).run()


class _Restore:
    def __init__(self, server: ServerBackups, wanted: Wanted, restored: Restored) -> None:
        self._server = server
        self._database = server.database
        self._wanted = wanted
        self._manifest = wanted.manifest
        self._started = server.clock()
        self._restored = restored
        self._definitions = Definitions(
            server.database, wanted.manifest, wanted.database, trusted=wanted.trusted
        )

    def run(self) -> None:
        wanted = self._wanted
        self._database.query(f"CREATE DATABASE IF NOT EXISTS {quoted(wanted.database)}")
        present = self._present()
        for place in wanted.places.values():
            drop_leftovers(self._database, place)
        for name in wanted.names:
            self._try(name, present.get(name, Rows.NONE))

    def _try(self, name: str, present: Rows) -> None:
        try:
            if line := self._restore(name, present):
                self._restored.lines.append(line)
        except (DataRefused, StatementFailed, StatementRefused) as error:
            self._restored.add_failure(self._wanted.place(name), error)

    def _restore(self, name: str, present: Rows) -> str:
        """Restore one table, view or dictionary; return what was done."""
        wanted, saved = self._wanted, self._manifest.tables.get(name)
        place = wanted.place(name)
        if saved is None or not wanted.rows:
            return self._make(name, place)
        if present is Rows.FEWER:
            present = settled(self._server, wanted, name, place, self._started)
        if present.is_good:
            log.info("%s is there already, %s", place, present.value)
            return ""
        if wanted.fills(saved):
            if not exists(self._database, place) and not self._make(name, place):
                raise not_made(place)
            return self._fill(name, saved, place)
        staging = place.staging(self._started)
        with dropped_on_failure(self._database, [staging]):
            self._fill_beside(name, staging)
        return put_in_place(self._database, saved, staging, place, self._started)

    def _make(self, name: str, place: Place) -> str:
        """Make what is not there yet, without rows; return what was done."""
        if not self._wanted.structure or exists(self._database, place):
            return ""
        if not self._definitions.make(name):
            return ""
        rows = "without rows, " if is_table(self._manifest.definitions[name]) else ""
        return f"{place}: {rows}its definition"

    def _fill(self, name: str, saved: SavedTable, place: Place) -> str:
        """Fill a table that is there and empty."""
        staging = place.staging(self._started)
        with dropped_on_failure(self._database, [staging]):
            self._fill_beside(name, staging)
        return attach(self._database, saved, place, self._started)

    def _fill_beside(self, name: str, staging: Place) -> None:
        """Fill a plain table, and compare its rows."""
        fill(self._server, self._manifest, name, staging, self._wanted.filling)

    def _present(self) -> dict[str, Rows]:
        """Return what is there in the place of each table.

        Raises:
            ConfigError: there are tables of these names, and they are others, or can't be replaced.
        """
        present, refused = {}, []
        for name, place in self._wanted.places.items():
            if not self._wanted.rows or not exists(self._database, place):
                continue
            rows = self._rows_of(name, place)
            if rows is Rows.OTHER and not self._wanted.replace:
                refused.append(str(place))
            elif rows is Rows.OTHER:
                self._check_replaceable(self._manifest.tables[name], place)
            present[name] = rows
        if refused:
            raise in_the_way(refused, self._wanted)
        return present

    def _rows_of(self, name: str, place: Place) -> Rows:
        wanted, saved = self._wanted, self._manifest.tables[name]
        if not wanted.everything and wanted.structure:
            return Rows.OTHER
        rows = rows_of(self._server, saved, place, replace=wanted.replace)
        if rows is Rows.OTHER and not wanted.structure and is_empty(self._database, place):
            return Rows.NONE
        return rows

    def _check_replaceable(self, saved: SavedTable, place: Place) -> None:
        """Raise ConfigError if a table can't be replaced as a whole."""
        if not (saved.is_view or is_replicated(saved.engine)):
            check_exchange(self._database, place)
            return
        kind = "a materialized view" if saved.is_view else "replicated"
        raise ConfigError(
            f"{place} is {kind} and can't be replaced as a whole; restore it under another name"
            " (--as), and then REPLACE its partitions"
            + ("" if saved.is_view else "; or set cluster")
        )


def settled(
    server: ServerBackups,
    wanted: Wanted,
    name: str,
    place: Place,
    started: datetime,
    manifest: BackupManifest | None = None,
) -> Rows:
    """Say of a table with fewer rows than the backup that merges have made it so.

    The rows of the backup are restored beside it, and compared with what is left after all merges.

    Args:
        server: that has it.
        wanted: what is to be restored.
        name: of the table.
        place: where it is.
        started: the time of the run, UTC.
        manifest: of the shard, where there are several.

    Raises:
        DataRefused: rows are missing, or nobody can tell.
    """
    manifest = manifest or wanted.manifest
    saved, staging = manifest.tables[name], place.staging(started)
    with dropped_on_failure(server.database, [staging]):
        fill(server, manifest, name, staging, wanted.filling)
        try:
            merged = is_merged(server, saved, place, staging)
            reason = "rows are missing, or are others"
        except DataRefused as error:
            merged, reason = (
                False,
                f"it has fewer rows, and nobody can tell whether by merges ({error})",
            )
    drop(server.database, staging)
    if not merged:
        raise DataRefused(
            f"{place} is not as in the backup: {reason}; --replace restores it, and keeps the old"
            " content under another name"
        )
    return Rows.MERGED
