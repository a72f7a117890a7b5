"""Restoring tables from a backup, and verifying a backup by restoring it.

The rows go into a table beside the one that is wanted (staging.py). They are compared with the
manifest there, and only then the table gets its name: by RENAME, or in the place of one that is
there by EXCHANGE, which keeps the old content. To verify, they go into a database of their own.
"""

import logging
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from backups.comparison import Rows, compared, content_of, is_merged, rows_of
from backups.contents import Partitions
from backups.manifest import BackupManifest, SavedTable
from backups.server import ServerBackups
from inventory import is_replicated, renamed, storage_of
from ooni_common.database import Database, StatementFailed, StatementRefused, literal, quoted
from ooni_common.doctor import worst_of
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.server_errors import CODES_OF_LACKS
from staging import Place, drop, drop_leftovers, dropped_on_failure, exists

log = logging.getLogger("ooni.db_backup")

# Types that 24.8 makes columns of only where that is allowed.
NEWER_TYPES = {f"allow_experimental_{kind}_type": "1" for kind in ("variant", "dynamic", "json")}

# What the server may say of a definition in a backup: the other tables can be restored.
CODES_OF_DEFINITIONS = {36, 48, 56, 80, 115, 344}
# In what the store says; "404" alone could be a part of the time that is a backup's name.
GONE = r"HTTP response code: 404\b|\b(NOT_FOUND|NO_SUCH_KEY|NoSuchKey)\b"
SCRATCH = "ooni_verify_"  # how the names of databases begin in which backups are verified


def verify_backup(
    server: ServerBackups, manifest: BackupManifest, tables: Sequence[str]
) -> list[str]:
    """Restore the tables of a backup, one after the other, and return what is wrong with them.

    Args:
        server: which does it. Nobody else may verify at the same time.
        manifest: of the backup.
        tables: only these.
    """
    database = server.database
    drop_scratches(database)
    scratch = f"{SCRATCH}{uuid.uuid4().hex[:8]}"
    database.query(f"CREATE DATABASE {quoted(scratch)}")
    findings: list[str] = []
    try:
        for name in tables:
            place = Place(scratch, name)
            try:
                fill(server, manifest, name, place)
            except DataRefused as error:
                findings.append(str(error))
            finally:
                drop(database, place)
    finally:
        database.close()  # it may have been interrupted while it waited for an answer
        drop_scratches(database)
    return findings


@dataclass(frozen=True)
class Wanted:
    """What is to be restored.

    Attributes:
        manifest: of the backup.
        places: where each table goes.
        database: where they go.
        replace: put it in the place of what is there, and keep that under another name.
        everything: views and dictionaries, too, and the tables that have no rows in the backup.
    """

    manifest: BackupManifest
    places: Mapping[str, Place]
    database: str
    replace: bool = False
    everything: bool = False


@dataclass
class Restored:
    """What has become of the tables.

    Attributes:
        lines: of what was done, one for each table.
        failures: of single tables; the others are restored.
    """

    lines: list[str] = field(default_factory=list)
    failures: list[ScriptError] = field(default_factory=list)


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


def restore_tables(server: ServerBackups, wanted: Wanted) -> Restored:
    """Restore tables.

    Raises:
        ConfigError: there are tables of these names.
        DataRefused: what was restored is not what was saved. Nothing is left of it, then.
        Unavailable: the database or the store failed. A table that was complete by then may be
            left beside its place; the next restore drops it.
    """
    database, manifest = server.database, wanted.manifest
    database.query(f"CREATE DATABASE IF NOT EXISTS {quoted(wanted.database)}")
    absent, doubtful = _absent(server, wanted)
    started = server.clock()
    for place in wanted.places.values():
        drop_leftovers(database, place)
    restored = Restored()
    for name, place in doubtful.items():
        try:
            rows = settled(server, manifest, name, place, started)
        except DataRefused as error:
            restored.failures.append(error)
        else:
            log.info("%s is there already, %s", place, rows.value)
    with dropped_on_failure(database, [place.staging(started) for place in absent.values()]):
        for name, place in absent.items():
            fill(server, manifest, name, place.staging(started))
    later = {name for name in absent if wanted.everything and _needs_definition(manifest, name)}
    restored.lines += [
        put_in_place(database, manifest.tables[name], place.staging(started), place, started)
        for name, place in absent.items()
        if name not in later
    ]
    if wanted.everything:
        restored.lines += restore_definitions(server, wanted)
    restored.lines += [
        attach(database, manifest.tables[name], absent[name], started) for name in sorted(later)
    ]
    return restored


def settled(
    server: ServerBackups, manifest: BackupManifest, name: str, place: Place, started: datetime
) -> Rows:
    """Say of a table with fewer rows than the backup that merges have made it so.

    The rows of the backup are restored beside it, and compared with what is left after all merges.

    Raises:
        DataRefused: rows are missing, or nobody can tell.
    """
    saved, staging = manifest.tables[name], place.staging(started)
    with dropped_on_failure(server.database, [staging]):
        fill(server, manifest, name, staging)
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


def fill(server: ServerBackups, manifest: BackupManifest, name: str, place: Place) -> None:
    """Make a table of the rows of one in a backup, and compare them with the manifest.

    Raises:
        DataRefused: they are other rows, or they can't be restored.
        Unavailable: the database or the store failed.
        ConfigError: the server refuses it until a person mends something.
    """
    where, saved = f"{manifest.name}: {name}", manifest.tables[name]
    try:
        content = _filled(server, manifest, name, place)
    except (StatementFailed, StatementRefused) as error:
        if not (error.code in CODES_OF_DEFINITIONS or _is_fault_of_backup(error)):
            raise
        raise DataRefused(f"{where}: it can't be restored: {error}") from None
    except ValueError as error:
        raise DataRefused(f"{where}: the schema in the manifest: {error}") from None
    if findings := saved.findings(content):
        raise DataRefused(f"{where}: {'; '.join(findings)}")
    proof = "as backed up" if compared(saved, content) else "as many as were backed up"
    log.info("%s: %s rows, %s", where, f"{saved.rows:,}", proof)


def _is_fault_of_backup(error: StatementFailed | StatementRefused) -> bool:
    """Tell a backup that is damaged from a server that lacks something, or refuses us."""
    if isinstance(error, StatementRefused):
        return False
    return error.code not in CODES_OF_LACKS or bool(re.search(GONE, error.said))


def _filled(server: ServerBackups, manifest: BackupManifest, name: str, place: Place) -> Partitions:
    """Make a table of the rows of one in a backup; return what it has."""
    database, saved = server.database, manifest.tables[name]
    create = renamed(saved.storage_schema, f"{place}")
    database.query(create, settings=database.settings_it_has(NEWER_TYPES))
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
        server.restore(tables, part.path, has_base=bool(part.base))
    content = content_of(server, saved, place, _plain(saved.engine))
    if merges:
        database.query(f"SYSTEM START MERGES {place}")
    return content


def _plain(engine: str) -> str:
    """Return an engine without replication."""
    return engine.removeprefix("Replicated").removeprefix("Shared")


def _absent(server: ServerBackups, wanted: Wanted) -> tuple[dict[str, Place], dict[str, Place]]:
    """Return what is to be restored: with `everything`, not the tables that are there already.

    Beside it: the tables of which that is not known.

    Raises:
        ConfigError: there are tables of these names, and they are others, or can't be replaced.
    """
    absent, doubtful, refused = {}, {}, []
    for name, place in wanted.places.items():
        saved = wanted.manifest.tables[name]
        present = Rows.NONE
        if exists(server.database, place):
            present = Rows.OTHER
            if wanted.everything:
                present = rows_of(server, saved, place, replace=wanted.replace)
        if present is Rows.NONE:
            absent[name] = place
        elif present is Rows.FEWER:
            doubtful[name] = place
        elif present.is_good:
            log.info("%s is there already, %s", place, present.value)
        elif wanted.replace and (saved.is_view or is_replicated(saved.engine)):
            kind = "a materialized view" if saved.is_view else "replicated"
            raise ConfigError(
                f"{place} is {kind} and can't be replaced as a whole; restore it under another name"
                " (--as), and then REPLACE its partitions"
                + ("" if saved.is_view else "; or set cluster")
            )
        elif wanted.replace:
            check_exchange(server.database, place)
            absent[name] = place
        else:
            refused.append(str(place))
    if refused:
        raise ConfigError(
            f"there already: {', '.join(refused)}; use --as, --to-database, or --replace, which"
            " keeps the old content under another name"
        )
    return absent, doubtful


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


def _needs_definition(manifest: BackupManifest, name: str) -> bool:
    """Tell whether the server has to make a table: its path in Keeper, or its view, is its own."""
    saved = manifest.tables[name]
    return saved.is_view or is_replicated(saved.engine)


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
        log.warning("%s may have the rows that were restored, and not those of before", kept)
        raise
    return f"{place}: {saved.rows:,} rows; what was there is {kept} now"


def attach(database: Database, saved: SavedTable, place: Place, started: datetime) -> str:
    """Move the rows of a complete table into the one that the server has made."""
    staging = place.staging(started)
    target = Place(place.database, storage_of(database, place.table, place.database))
    if saved.engine.endswith("MergeTree"):
        database.query(f"ALTER TABLE {target} ATTACH PARTITION ALL FROM {staging}")
    else:
        database.query(f"INSERT INTO {target} SELECT * FROM {staging}")
    drop(database, staging)
    return f"{place}: {saved.rows:,} rows"


def restore_definitions(
    server: ServerBackups, wanted: Wanted, failed: Collection[str] = ()
) -> list[str]:
    """Let the server make what is not there yet: views, dictionaries, replicated tables.

    Args:
        server: which does it.
        wanted: what is to be restored.
        failed: the tables whose rows are not there; they are not made without.
    """
    database, manifest = server.database, wanted.manifest
    part = manifest.parts.get("definitions")
    if part is None:
        return []
    places = {name: Place(wanted.database, name) for name in part.tables}
    missing = [name for name, place in places.items() if not exists(database, place)]
    for name in set(missing) & set(failed):
        missing.remove(name)
        del places[name]
    if not missing:
        return []
    # All of them, also those that are there: so the server knows what their names are now.
    server.restore(
        {(manifest.database, name): (wanted.database, name) for name in places},
        part.path,
        structure_only=True,
    )
    empty = [
        name
        for name in missing
        if name not in manifest.tables and manifest.definitions[name].startswith("CREATE TABLE")
    ]
    if empty:
        log.warning("without rows, as the backup has none of them: %s", ", ".join(empty))
    return [f"{places[name]}: its definition" for name in missing if name not in manifest.tables]


def drop_scratches(database: Database) -> None:
    """Drop the databases of verifications, also of those that were killed."""
    rows = database.query(
        f"SELECT name FROM system.databases WHERE startsWith(name, {literal(SCRATCH)})"
    )
    for (name,) in rows:
        database.query(f"DROP DATABASE IF EXISTS {quoted(name)} SYNC")
