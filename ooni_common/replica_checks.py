"""Whether the replicas of the tables are writable, and are all nodes that a run reaches."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ooni_common.database import Database, StatementRefused, literal
from ooni_common.doctor import Note
from ooni_common.errors import ConfigError, Unavailable
from ooni_common.grants import written
from ooni_common.nodes import Node, Nodes
from ooni_common.swap.update import Table

ACCESS_DENIED = 497  # ClickHouse's error code


@dataclass(frozen=True)
class Replica:
    """A node's replica of a table.

    Attributes:
        database: the table's.
        table: its name.
        path: in ZooKeeper, which all replicas share.
        name: which of them this one is.
        active: name → whether its server has a session, for all replicas of the path.
    """

    database: str
    table: str
    path: str
    name: str
    active: Mapping[str, bool]


def replicas_of(node: Node, tables: Sequence[Table]) -> list[Replica]:
    """Return the replicas that a node has of the live tables; none of those that don't replicate.

    Raises:
        Unavailable: one is read-only.
    """
    rows = _looked_up(
        node.database,
        "SELECT database, table, zookeeper_path, replica_name, mapKeys(replica_is_active),"
        " mapValues(replica_is_active), total_replicas, is_readonly FROM system.replicas"
        " WHERE database = currentDatabase() AND table IN %(tables)s ORDER BY table",
        {"tables": [table.name for table in tables]},
    )
    replicas = []
    for database, table, path, name, names, active, count, readonly in rows:
        if readonly or not count:
            raise Unavailable(
                f"table {table} is read-only: the server has no session with ZooKeeper"
            )
        sessions = dict(zip(names, map(bool, active), strict=True))
        replicas.append(Replica(database, table, path, name, sessions))
    return replicas


def _looked_up(
    database: Database, query: str, parameters: Mapping[str, object]
) -> list[tuple[Any, ...]]:
    """Run a query on system.replicas.

    Raises:
        ConfigError: the user may not; with the statement that allows it.
    """
    try:
        return database.query(query, parameters)
    except StatementRefused as error:
        if error.code != ACCESS_DENIED:
            raise
        ((user,),) = database.query("SELECT currentUser()")
        raise ConfigError(
            "the user of db_uri may not see which replicas there are; run:"
            f" GRANT SELECT ON system.replicas TO {written(user)}"
        ) from None


def check_replicas(nodes: Nodes, held: Mapping[Node, Sequence[Replica]]) -> str:
    """Say how many replicas the live tables have.

    Entries in ZooKeeper of replicas that are gone stop nothing: a swap makes a fresh path, which
    has none of them. They are noted, with the statement that removes them.

    Args:
        nodes: of the cluster, or the one server.
        held: what each has.

    Raises:
        ConfigError: others are running, which a swap would not reach.
    """
    counts: dict[str, int] = {}
    for node, replicas in held.items():
        for replica in replicas:
            counts[replica.table] = max(counts.get(replica.table, 0), len(replica.active))
            if len(replica.active) > 1 and not nodes.is_cluster:
                raise ConfigError(_alone(node, replica))
    notes: dict[str, None] = {}
    for shard in nodes.shards if nodes.is_cluster else ():
        for path in dict.fromkeys(replica.path for replica in _of_shard(nodes, shard, held)):
            if note := _strangers(nodes, shard, path, held):
                notes[note] = None
    if notes:
        return Note("; ".join(notes))
    if not counts:
        return "no table replicates"
    return ", ".join(
        f"{table}: {count} replica{'s' * (count != 1)}" for table, count in counts.items()
    )


def _alone(node: Node, replica: Replica) -> str:
    count = len(replica.active)
    fitting: Sequence[tuple[str]] = ()
    with contextlib.suppress(ConfigError, Unavailable):  # it may not look
        fitting = node.database.query(
            "SELECT cluster FROM system.clusters GROUP BY cluster HAVING count() >= %(count)s"
            " ORDER BY cluster",
            {"count": count},
        )
    names = " or ".join(f'cluster = "{name}"' for (name,) in fitting)
    others = [name for name in replica.active if name != replica.name]
    gone = ""
    if not any(replica.active[name] for name in others):
        gone = f"; or, if those are gone for good: {_statements(replica, others)}"
    return (
        f"table {replica.table} has {count} replicas, and `cluster` is not set: swapped on one node"
        " alone they would not belong together any more; set "
        + (names or "it to the name that system.clusters has")
        + gone
    )


def _of_shard(nodes: Nodes, shard: int, held: Mapping[Node, Sequence[Replica]]) -> list[Replica]:
    return [replica for node in nodes.of_shard(shard) for replica in held.get(node, ())]


def _strangers(nodes: Nodes, shard: int, path: str, held: Mapping[Node, Sequence[Replica]]) -> str:
    """Say which replicas of a path are none of the shard's nodes; "" for none.

    Which of them belongs to a node that is absent, or could not say what it has, nobody can tell:
    no statement is given then.

    Raises:
        ConfigError: more of them are running than there are such nodes.
    """
    of_shard = _of_shard(nodes, shard, held)
    model = next(replica for replica in of_shard if replica.path == path)
    silent = [node.name for node in nodes.of_shard(shard) if node not in held]
    size = nodes.size_of(shard)
    absent = size - len(nodes.of_shard(shard)) + len(silent)
    if len(model.active) <= size:
        return ""
    # Where paths are crossed, a node's replica of this one is that of its shadow.
    own = {replica.name for replica in of_shard}
    strangers = [name for name in model.active if name not in own]
    running = [name for name in strangers if model.active[name]]
    text = (
        f"table {model.table} has {len(model.active)} replicas, and the cluster only {size} nodes"
        " in that shard; "
    )
    if len(running) > absent:
        text += f"{_names(running)} has a running server: name a cluster that has it, too"
        raise ConfigError(text)
    if absent:
        return (
            f"{text}some of {_names(strangers)} belong to"
            f" {', '.join([*nodes.absent, *silent])}: look again when that is back"
        )
    return f"{text}of those that are gone for good, drop the entries: " + _statements(
        model, strangers
    )


def _statements(model: Replica, names: Sequence[str]) -> str:
    table = f"{written(model.database)}.{written(model.table)}"
    return "; ".join(f"SYSTEM DROP REPLICA {literal(name)} FROM TABLE {table}" for name in names)


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
