"""Replicated tables: their path in ZooKeeper, and what a replica has yet to do."""

import logging
import re
import secrets
import time

from ooni_common.database import Database
from ooni_common.nodes import Node, Nodes

log = logging.getLogger("ooni.replicas")

UNKNOWN_LAG = 2**63  # of a replica without ZooKeeper

_TEXT = r"'(?:[^'\\]|\\.|'')*'"
# The first two arguments of a replicated engine: path and replica.
REPLICATED = re.compile(rf"(?<=\nENGINE = )(Replicated\w*\(\s*)({_TEXT})(\s*,\s*)({_TEXT})")
_RUN = re.compile(r"-\d{8}T\d{6}-[0-9a-f]{8}(?=/|$)")


def path_of(statement: str) -> str:
    """Return the path, with its macros; "" if the table does not replicate."""
    match = REPLICATED.search(statement)
    return match[2][1:-1] if match else ""


def with_path(statement: str, path: str) -> str:
    """Return the statement with another path; as it is if that is ""."""
    if not path:
        return statement
    return REPLICATED.sub(lambda match: f"{match[1]}'{path}'{match[3]}{match[4]}", statement, 1)


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


def least_lagging(nodes: Nodes, table: str) -> Database:
    """Return the connection to the node that lacks least of a table: one may be back just now.

    Raises:
        Unavailable, ConfigError: too few nodes are left.
    """
    if not nodes.is_cluster:
        return nodes.first

    def lag(node: Node) -> int | None:
        if not node.database.exists(table):
            return None
        ((database,),) = node.database.query("SELECT currentDatabase()")
        return lag_of(node.database, database, table)

    lags = {node: lag for node, lag in nodes.each(lag).items() if lag is not None}
    best = min(lags, key=lambda node: lags[node], default=nodes.up[0])
    if lags.get(best):
        log.warning("%s: %s, the best replica that is up, lacks rows", table, best)
    return best.database
