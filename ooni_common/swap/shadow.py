"""What a node has under a table's name, and the fresh shadow table beside it."""

import re
import secrets
import time
from dataclasses import dataclass

from ooni_common.database import Database, quoted
from ooni_common.errors import ConfigError, Unavailable
from ooni_common.nodes import Node
from ooni_common.swap.content import Content, content_of
from ooni_common.swap.update import Table

# The first argument of a replicated engine.
_PATH = re.compile(r"(?<=\nENGINE = )(Replicated\w*\(\s*)'((?:[^'\\]|\\.|'')*)'")
_RUN = re.compile(r"-\d{8}T\d{6}-[0-9a-f]{8}(?=/|$)")
_OTHER_MACRO = re.compile(r"\{(?!table\}|database\})")
_WITHOUT_EXCHANGE = {"Ordinary", "Replicated", "Lazy", "Memory"}


@dataclass(frozen=True)
class Standing:
    """What a node has under a table's name.

    Attributes:
        statement: the one that creates it.
        path: of the table in ZooKeeper, which its replicas share; "" if it does not replicate.
        content: the rows.
        replicas: how many share the path, absent ones included.
    """

    statement: str
    path: str
    content: Content
    replicas: int = 1


def standing_of(node: Node, table: Table, name: str) -> Standing | None:
    """Return what a node has under a name, None for nothing.

    Raises:
        ConfigError: it has no column that is needed, or more replicas than may be swapped alone.
    """
    database = node.database
    if not database.exists(name):
        return None
    _check_columns(database, table, name)
    statement = database.query(f"SHOW CREATE TABLE {quoted(name)}")[0][0]
    replicas = database.query(
        "SELECT zookeeper_path, total_replicas, is_readonly FROM system.replicas"
        " WHERE database = currentDatabase() AND table = %(table)s",
        {"table": name},
    )
    path, count, readonly = replicas[0] if replicas else ("", 1, 0)
    if readonly or not count:
        raise Unavailable(f"table {name} is read-only: the server has no session with ZooKeeper")
    if count > 1 and not node.name:
        raise ConfigError(
            f"table {name} has {count} replicas, and `cluster` is not set: swapped on one node"
            " alone they would not belong together any more; set it to the name that"
            " system.clusters has"
        )
    return Standing(statement, path, content_of(database, table.columns, name), count)


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


def fresh_name() -> str:
    """Return what no path in ZooKeeper has ever had in it."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def fresh_path(statement: str, table: str, name: str) -> str:
    """Return a path for a fresh table like that of a statement; "" if it does not replicate.

    It keeps the pattern of the other: what an earlier run has added is replaced.
    """
    match = _PATH.search(statement)
    if not match:
        return ""
    path = _RUN.sub("", match[2])
    if "{uuid}" in path:
        return path.replace("{uuid}", f"{table}-{name}")
    parts = path.split("/")
    for index in reversed(range(1, len(parts))):
        if parts[index] and "{" not in parts[index].replace("{table}", "").replace(
            "{database}", ""
        ):
            parts[index] += f"-{name}"
            return "/".join(parts)
    return f"/clickhouse/tables/{table}-{name}/{{shard}}"


def as_another(standing: Standing, name: str, path: str) -> str:
    """Return the statement that creates a table like this one, under another name and path."""
    _, _, rest = standing.statement.partition("\n")
    rest = _PATH.sub(lambda match: f"{match[1]}'{path}'", rest, count=1) if path else rest
    return f"CREATE TABLE {quoted(name)}\n{rest}"


def make_shadow(node: Node, table: Table, like: Standing, path: str) -> None:
    """Put an empty table in the place of a node's shadow.

    Args:
        node: where.
        table: whose shadow.
        like: what it has the columns, the engine and the settings of.
        path: in ZooKeeper, if it replicates.
    """
    node.database.query(f"DROP TABLE IF EXISTS {quoted(table.shadow)} SYNC")
    node.database.query(as_another(like, table.shadow, path))


def _check_columns(database: Database, table: Table, name: str) -> None:
    present = {column[0] for column in database.structure(name)[0]}
    if missing := [column for column in table.columns if column not in present]:
        raise ConfigError(f"table {name} has no column {', '.join(missing)}; see tables.sql")
