"""Making what a backup has the definition of: the tool does it, one statement after the other.

The server could make all of it from the backup, but would execute what the bucket has as it stands
there. Tables are made of what was understood in their statements. Views and dictionaries do what
somebody has written; they are made where the manifest is signed, or somebody trusts it. What reads
from a queue is never made: it would take messages that others wait for.
"""

import re
from collections.abc import Sequence

from backups.manifest import BackupManifest
from ooni_common.database import Database, StatementFailed, StatementRefused
from ooni_common.errors import DataRefused
from ooni_common.replicas import path_of
from schemas.create_table import SETTINGS, create_statement, create_table
from schemas.references import in_order, moved, references
from schemas.refusals import blamed_on, refused_schema, show_statement
from schemas.tokens import SchemaRefused
from tables.staging import Place, drop

HIDDEN = "'[HIDDEN]'"  # what SHOW CREATE has in the place of a password
CONSUMERS = re.compile(
    r"\nENGINE = (Kafka|RabbitMQ|NATS|S3Queue|AzureQueue|FileLog|MaterializedPostgreSQL)\b"
)


def creation_order(manifest: BackupManifest) -> Sequence[str]:
    """Return the names of all that a backup has a definition of, as they can be made."""
    if sorted(manifest.order) == sorted(manifest.definitions):
        return manifest.order
    return in_order(manifest.definitions, manifest.database)


def is_table(definition: str) -> bool:
    """Tell whether a definition is that of a table; the others are views and dictionaries."""
    return definition.startswith("CREATE TABLE")


def make_table(
    database: Database,
    manifest: BackupManifest,
    schema: str,
    place: Place,
    *,
    trusted: bool,
    replicated: bool = False,
) -> None:
    """Make an empty table.

    Args:
        database: the connection.
        manifest: of the backup.
        schema: what SHOW CREATE said of the original table.
        place: where the new one goes.
        trusted: whether a schema is executed that does more than a table needs.
        replicated: whether it gets the path in ZooKeeper that is in its schema.

    Raises:
        DataRefused: it can't be made, or it became another one, or a replica of a live one.
    """
    path = path_of(schema) if replicated else ""
    try:
        create = create_statement(schema, str(place), path, trusted=trusted)
    except SchemaRefused as error:
        raise refused_schema(place.table, schema, error) from None
    except ValueError as error:
        raise DataRefused(f"{place}: the schema in the manifest: {error}") from None
    create = moved(create, manifest.database, place.database, manifest.definitions)
    database.query(create, settings=database.settings_it_has(SETTINGS))
    try:
        _check_columns(database, schema, place)
        if path:
            _check_alone(database, place)
    except DataRefused:
        drop(database, place)  # it was made just now
        raise


class Definitions:
    """Makes what a backup has a definition of, in the order in which it can be made.

    Args:
        database: the connection.
        manifest: of the backup.
        target: the database in which it is made.
        trusted: whether definitions are executed that do more than a table needs.
        replicated: whether tables that replicate do so, or are plain ones.
    """

    def __init__(
        self,
        database: Database,
        manifest: BackupManifest,
        target: str,
        *,
        trusted: bool,
        replicated: bool = True,
    ) -> None:
        self._database = database
        self._manifest = manifest
        self._target = target
        self._trusted = trusted
        self._replicated = replicated
        self._left_out: set[str] = set()

    def make(self, name: str) -> bool:
        """Make one, without rows; return whether it was made, and not only shown.

        Raises:
            DataRefused: the server can't make it.
        """
        if name not in self._manifest.definitions:
            raise DataRefused(f"{self._manifest.name}: {name}: it has no definition")
        definition, place = self._manifest.definitions[name], Place(self._target, name)
        if reason := self._reason_to_leave_out(name, definition):
            self._left_out.add(name)
            show_statement(f"{name} ({reason})", definition)
            return False
        where = f"{self._manifest.name}: {name}: it can't be made"
        try:
            with blamed_on(where):
                self._make(definition, place)
        except (StatementFailed, StatementRefused) as error:
            self._left_out.add(name)
            raise DataRefused(f"{where}: {error}") from None
        except DataRefused:
            self._left_out.add(name)
            raise
        return True

    def _make(self, definition: str, place: Place) -> None:
        database, manifest = self._database, self._manifest
        if is_table(definition):
            make_table(
                database,
                manifest,
                definition,
                place,
                trusted=self._trusted,
                replicated=self._replicated,
            )
            return
        statement = moved(definition, manifest.database, self._target, manifest.definitions)
        database.query(statement, settings=database.settings_it_has(SETTINGS))

    def _reason_to_leave_out(self, name: str, definition: str) -> str:
        """Return why something is only shown to a person; "" if it is made."""
        if CONSUMERS.search(definition):
            return "it takes messages from a queue as soon as it is there"
        if HIDDEN in definition:
            return "it has a password, which nobody may read"
        if not (is_table(definition) or self._trusted):
            return "its definition is not signed"
        manifest = self._manifest
        named = references(definition, manifest.database, manifest.definitions) - {name}
        needed = sorted(named & self._left_out)
        return f"it needs {', '.join(needed)}" if needed else ""


def _check_alone(database: Database, place: Place) -> None:
    """Check that no other server has a table with the path in ZooKeeper of a new one.

    Raises:
        DataRefused: one has: the rows that are restored would be added to that table's.
    """
    rows = database.query(
        "SELECT zookeeper_path, arrayFilter((name, active) -> active AND name != replica_name,"
        " mapKeys(replica_is_active), mapValues(replica_is_active)) FROM system.replicas"
        " WHERE database = %(database)s AND table = %(table)s",
        {"database": place.database, "table": place.table},
    )
    for path, others in rows:
        if others:
            raise DataRefused(
                f"{place}: its path {path} is that of a table that other servers have"
                f" ({', '.join(others)}); set cluster, or restore it by itself under another name"
            )


def _check_columns(database: Database, schema: str, place: Place) -> None:
    """Check that a table has the columns of a schema.

    Raises:
        DataRefused: it has others.
    """
    ((made,),) = database.query(f"SHOW CREATE TABLE {place}")
    try:
        wanted, columns = create_table(schema).columns, create_table(str(made)).columns
    except SchemaRefused:
        return  # a trusted one
    for one in (*wanted, *columns):
        if one not in wanted or one not in columns:
            raise DataRefused(f"{place}: the server made other columns of its schema: {one}")
