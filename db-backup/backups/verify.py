"""Verifying a backup by restoring all of it into a database of its own."""

import uuid
from collections.abc import Callable, Sequence
from functools import partial

from backups.definitions import Definitions, creation_order
from backups.manifest import BackupManifest
from backups.server import ServerBackups
from backups.server_manifest import Looked
from backups.table_restore import Filling, fill
from ooni_common.database import Database, literal, quoted
from ooni_common.errors import DataRefused
from tables.staging import Place, drop

SCRATCH = "ooni_verify_"  # how the names of databases begin in which backups are verified


def verify_backup(
    server: ServerBackups,
    manifest: BackupManifest,
    tables: Sequence[str],
    *,
    trusted: bool = False,
    looked: Looked | None = None,
) -> list[str]:
    """Restore a backup into a database of its own, and return what is wrong with it.

    All that it has a definition of is made there, in the order in which a restore makes it; then
    tables are filled, compared and emptied, one after the other.

    Args:
        server: which does it. Nobody else may verify at the same time.
        manifest: of the backup.
        tables: only the rows of these.
        trusted: whether definitions are executed that do more than a table needs.
        looked: the server's manifests, as they were when they were checked.
    """
    database = server.database
    drop_scratches(database)
    scratch = f"{SCRATCH}{uuid.uuid4().hex[:8]}"
    database.query(f"CREATE DATABASE {quoted(scratch)}")
    findings: list[str] = []
    definitions = Definitions(database, manifest, scratch, trusted=trusted, replicated=False)

    def check(work: Callable[[], object]) -> None:
        try:
            work()
        except DataRefused as error:
            findings.append(str(error))

    def rows(name: str) -> None:
        place = Place(scratch, name).staging(server.clock())
        try:
            fill(server, manifest, name, place, Filling(trusted, looked))
        finally:
            drop(database, place)

    try:
        for name in creation_order(manifest):
            check(partial(definitions.make, name))
        for name in tables:
            check(partial(rows, name))
    finally:
        database.close()  # it may have been interrupted while it waited for an answer
        drop_scratches(database)
    return findings


def drop_scratches(database: Database) -> None:
    """Drop the databases of verifications, also of those that were killed."""
    rows = database.query(
        f"SELECT name FROM system.databases WHERE startsWith(name, {literal(SCRATCH)})"
    )
    for (name,) in rows:
        database.query(f"DROP DATABASE IF EXISTS {quoted(name)} SYNC")
