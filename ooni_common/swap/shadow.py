"""What a node has under a table's name, and the fresh shadow table beside it."""

import re
from dataclasses import dataclass

from ooni_common.database import Database, quoted
from ooni_common.errors import ConfigError, Unavailable
from ooni_common.nodes import Node
from ooni_common.replicas import create_replica, replica_argument, shared_path, with_path
from ooni_common.swap.content import Content, content_of
from ooni_common.swap.update import Table

# Of another type, a value can be NULL, or be written in several ways: the content misses it.
_PLAIN_TYPE = re.compile(
    r"(LowCardinality\()?(U?Int\d+|Float(32|64)|Bool|(Fixed)?String(\(\d+\))?|UUID"
    r"|Date(32)?|DateTime(64)?(\(.*\))?|Enum(8|16)\(.*\))\)?",
    re.DOTALL,
)
_WITH_ROWS = {"EmbeddedRocksDB", "Memory", "Log", "TinyLog", "StripeLog"}
_WITHOUT_EXCHANGE = {"Ordinary", "Replicated", "Lazy", "Memory"}


_IDENTITY = (
    "SELECT engine, toString(uuid) FROM system.tables"
    " WHERE database = currentDatabase() AND name = %(table)s"
)


@dataclass(frozen=True)
class Standing:
    """What a node has under a table's name.

    Attributes:
        statement: the one that creates it.
        path: of the table in ZooKeeper, which its replicas share; "" if it does not replicate.
        content: the rows.
        uuid: of the table: two under one name differ in it.
        running: how many replicas of the path have a server that is up.
    """

    statement: str
    path: str
    content: Content
    uuid: str = ""
    running: int = 1


def standing_of(node: Node, table: Table, name: str) -> Standing | None:
    """Return what a node has under a name, None for nothing.

    Raises:
        ConfigError: it has no column that is needed, or more replicas than may be swapped alone.
    """
    database = node.database
    rows = database.query(_IDENTITY, {"table": name})
    if not rows:
        return None
    engine, uuid = rows[0]
    check_engine(name, engine)
    _check_columns(database, table, name)
    statement = database.query(f"SHOW CREATE TABLE {quoted(name)}")[0][0]
    path, count, running = _replication_of(database, name, statement)
    if count > 1 and not node.name:
        raise ConfigError(
            f"table {name} has {count} replicas, and `cluster` is not set: swapped on one node"
            " alone they would not belong together any more; set it to the name that"
            " system.clusters has"
        )
    return Standing(statement, path, content_of(database, table.columns, name), uuid, running)


def check_engine(name: str, engine: str) -> None:
    """Raise ConfigError for what has no rows of its own: they can't be replaced."""
    if not engine.endswith("MergeTree") and engine not in _WITH_ROWS:
        raise ConfigError(
            f"{name} has no rows of its own (engine {engine}): rename it, and make a"
            " table in its place, as tables.sql has it"
        )


def _replication_of(database: Database, name: str, statement: str) -> tuple[str, int, int]:
    """Return a table's path in ZooKeeper, "" for none, its replicas, and those that are running."""
    rows = database.query(
        "SELECT zookeeper_path, total_replicas, active_replicas, is_readonly FROM system.replicas"
        " WHERE database = currentDatabase() AND table = %(table)s",
        {"table": name},
    )
    if not rows:
        return "", 1, 1
    path, count, running, readonly = rows[0]
    if readonly or not count:
        raise Unavailable(f"table {name} is read-only: the server has no session with ZooKeeper")
    return shared_path(statement, path), count, running


def check_database(node: Node) -> None:
    """Raise ConfigError for a database whose tables can't be swapped on a node."""
    rows = node.database.query(
        "SELECT name, engine FROM system.databases WHERE name = currentDatabase()"
    )
    for name, engine in rows:
        if engine in _WITHOUT_EXCHANGE:
            raise ConfigError(
                f"database {name} on {node} has the engine {engine}: its tables can't be swapped on"
                " one node; make one with ENGINE = Atomic, and move them there"
            )


def as_another(model: Standing, name: str, path: str, own: Standing | None = None) -> str:
    """Return the statement that creates a table like another one.

    Args:
        model: the other one.
        name: of the new table.
        path: of the new table in ZooKeeper, as a literal has it; "" if it does not replicate.
        own: what the node has itself: where replicas have their names without a macro, a model from
            another node has that node's.
    """
    replica = replica_argument(model.statement, own.statement if own else "")
    _, _, rest = with_path(model.statement, path, replica).partition("\n")
    return f"CREATE TABLE {quoted(name)}\n{rest}"


def make_shadow(
    node: Node, table: Table, model: Standing, path: str, own: Standing | None = None
) -> str:
    """Put an empty table in the place of a node's shadow; return its UUID.

    Args:
        node: where.
        table: whose shadow.
        model: what it has the columns, the engine and the settings of.
        path: in ZooKeeper, as a literal has it, if it replicates.
        own: what the node has live.
    """
    node.database.query(f"DROP TABLE IF EXISTS {quoted(table.shadow)} SYNC")
    create_replica(node, as_another(model, table.shadow, path, own))
    return _uuid_of(node.database, table.shadow)


def check_own(database: Database, table: Table, shadow: str) -> None:
    """Raise Unavailable where the shadow has another UUID than `shadow`: it is another run's."""
    if _uuid_of(database, table.shadow) != shadow:
        raise changed_shadow(table)


def changed_shadow(table: Table) -> Unavailable:
    """Return what is said where the shadow holds something else than this run has put there."""
    return Unavailable(
        f"{table.shadow} is not what was filled any more: another run is at work on the same"
        " tables (run this tool on one host only), or the server has lost parts of it"
    )


def put_live(database: Database, table: Table, shadow: str, content: Content) -> None:
    """Swap the shadow and the live table of one node; without a live one, the shadow becomes it.

    Args:
        database: the node's.
        table: which.
        shadow: the UUID of the shadow that was filled.
        content: of it.

    Raises:
        Unavailable: it is another run's, or another run has added rows to it.
    """
    check_own(database, table, shadow)
    if content_of(database, table.columns, table.shadow) != content:
        raise changed_shadow(table)
    if database.exists(table.name):
        exchange(database, table)
    else:
        database.query(f"RENAME TABLE {quoted(table.shadow)} TO {quoted(table.name)}")


def exchange(database: Database, table: Table) -> None:
    """Swap the shadow and the live table of one node."""
    database.query(f"EXCHANGE TABLES {quoted(table.shadow)} AND {quoted(table.name)}")


def _uuid_of(database: Database, name: str) -> str:
    rows = database.query(_IDENTITY, {"table": name})
    return str(rows[0][1]) if rows else ""


def _check_columns(database: Database, table: Table, name: str) -> None:
    types = database.types_of(name)
    if missing := [column for column in table.columns if column not in types]:
        raise ConfigError(f"table {name} has no column {', '.join(missing)}; see tables.sql")
    for column, wanted in table.columns.items():
        if not _PLAIN_TYPE.fullmatch(types[column]):
            raise ConfigError(
                f"table {name}: column {column} is {types[column]}, whose values can't be verified;"
                f" run: ALTER TABLE {name} MODIFY COLUMN {column} {wanted}"
            )
