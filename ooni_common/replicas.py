"""Replicated tables: their path in ZooKeeper, and what a replica has yet to do."""

import logging
import re
import secrets
import time

from ooni_common.database import Database, StatementRefused, literal
from ooni_common.nodes import Node
from ooni_common.server_errors import REPLICA_IN_ZOOKEEPER

log = logging.getLogger("ooni.replicas")

UNKNOWN_LAG = 2**63  # of a replica without ZooKeeper
REPLICA_EXISTS = 253  # ClickHouse's error code

_TEXT = r"'(?:[^'\\]|\\.|'')*'"
# The first two arguments of a replicated engine: path and replica.
REPLICATED = re.compile(rf"(?<=\nENGINE = )(Replicated\w*\(\s*)({_TEXT})(\s*,\s*)({_TEXT})")
_REPLICA = re.compile(rf"(\sENGINE = Replicated\w*\(\s*{_TEXT}\s*,\s*){_TEXT}")
_AUXILIARY = re.compile(r"'([^/:']+:)/")  # before a path: the name of another ZooKeeper
_RUN = re.compile(r"-\d{8}T\d{6}-[0-9a-f]{8}(?=/|$)")


def path_of(statement: str) -> str:
    """Return the path, with its macros; "" if the table does not replicate."""
    match = REPLICATED.search(statement)
    return match[2][1:-1] if match else ""


def with_path(statement: str, path: str, replica: str = "") -> str:
    """Return the statement with another path; as it is if that is "".

    Args:
        statement: that creates the table.
        path: as it stands within the quotes of a literal.
        replica: the name of the replica, as SQL; "": it stays.
    """
    if not path:
        return statement
    return REPLICATED.sub(
        lambda match: f"{match[1]}'{path}'{match[3]}{replica or match[4]}", statement, count=1
    )


def path_literal(path: str) -> str:
    """Return a path as it stands within the quotes of a literal."""
    return literal(path)[1:-1]


def shared_path(statement: str, path: str) -> str:
    """Return what names a table in all ZooKeepers there are.

    Args:
        statement: that creates it.
        path: of it, as system.replicas has it: without the name of the ZooKeeper.
    """
    arguments = REPLICATED.search(statement)
    auxiliary = _AUXILIARY.match(arguments[2]) if arguments else None
    return (auxiliary[1] if auxiliary else "") + path


def without_replica(statement: str) -> str:
    """Return a statement as it is on every node: with the macro where replicas have own names."""
    return _REPLICA.sub(lambda match: f"{match[1]}'{{replica}}'", statement)


def replica_argument(model: str, own: str = "") -> str:
    """Return how a node names its replica of a table, as SQL.

    Args:
        model: the statement of that table, which may be another node's: its macro fits everywhere,
            a name in it is that of one node.
        own: a statement of the node itself, which has its name where replicas have them without a
            macro; "" for none.
    """
    match = REPLICATED.search(model)
    if match and "{" in match[4]:
        return match[4]
    match = REPLICATED.search(own)
    return match[4] if match else "'{replica}'"


def create_replica(node: Node, statement: str) -> None:
    """Create a table; where it replicates, in the place of one that a lost disk had.

    Of that, ZooKeeper still has the replica. The server refuses to forget one that it has, or that
    is active.
    """
    try:
        node.database.query(statement)
    except StatementRefused as error:
        stale = re.search(REPLICA_IN_ZOOKEEPER, error.said)
        if error.code != REPLICA_EXISTS or not stale:
            raise
        replica = literal(stale["replica"])
        log.warning("%s: ZooKeeper still has its replica %s of %s", node, replica, stale["path"])
        node.database.query(f"SYSTEM DROP REPLICA {replica} FROM ZKPATH {literal(stale['path'])}")
        node.database.query(statement)


def fresh_name() -> str:
    """Return what no path in ZooKeeper has ever had in it."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def fresh_path(statement: str, table: str, name: str) -> str:
    """Return a path for a fresh table like that of a statement; "" if it does not replicate.

    It keeps the pattern of the other: what an earlier run has added is replaced.
    """
    table = re.sub(r"[^\w.-]", "_", table)  # it becomes a part of a path, within a literal
    path = _RUN.sub("", path_of(statement))
    if not path:
        return ""
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


def lag_of(connection: Database, database: str, table: str) -> int:
    """Return how many entries of the replicas' log a table has yet to carry out.

    Without merges: they are rows that it has not fetched, partitions not dropped, cells not
    changed. 0 for a table that does not replicate.
    """
    rows = connection.query(
        # log_pointer is the next entry to read; an empty log has 0 for both.
        "SELECT is_readonly OR is_session_expired, queue_size - merges_in_queue"
        " + if(log_max_index = 0, 0, greatest(toInt64(log_max_index + 1) - log_pointer, 0))"
        " FROM system.replicas WHERE database = %(database)s AND table = %(table)s",
        {"database": database, "table": table},
    )
    for is_cut_off, lag in rows:
        return UNKNOWN_LAG if is_cut_off else int(lag)
    return 0
