"""Whether the replicas of the tables are writable, and are all nodes that a run reaches."""

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ooni_common.database import Database, StatementRefused
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

    Args:
        nodes: of the cluster, or the one server.
        held: what each has.

    Raises:
        ConfigError: there are others, which a swap would not reach.
    """
    counts: dict[str, int] = {}
    for node, replicas in held.items():
        for replica in replicas:
            counts[replica.table] = max(counts.get(replica.table, 0), len(replica.active))
            if len(replica.active) > 1 and not nodes.is_cluster:
                raise ConfigError(_alone(node, replica))
    for shard in nodes.shards if nodes.is_cluster else ():
        for replicas in _by_path(held[node] for node in nodes.of_shard(shard) if node in held):
            _refuse_strangers(replicas, nodes.size_of(shard), nodes.absent)
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
    return (
        f"table {replica.table} has {count} replicas, and `cluster` is not set: swapped on one node"
        " alone they would not belong together any more; set "
        + (names or "it to the name that system.clusters has")
    )


def _by_path(held: Iterable[Sequence[Replica]]) -> Iterable[list[Replica]]:
    """Return the replicas that share a path, path by path."""
    paths: dict[str, list[Replica]] = {}
    for replicas in held:
        for replica in replicas:
            paths.setdefault(replica.path, []).append(replica)
    return paths.values()


def _refuse_strangers(replicas: Sequence[Replica], size: int, absent: Collection[str]) -> None:
    """Refuse entries of replicas for which the shard has no node.

    Which of them belongs to an absent node, nobody can tell: no statement is given then.
    """
    model = replicas[0]
    if len(model.active) <= size:
        return
    own = {replica.name for replica in replicas}
    strangers = [name for name in model.active if name not in own]
    table = f"{written(model.database)}.{written(model.table)}"
    active = [name for name in strangers if model.active[name]]
    if absent:
        advice = (
            f"some of {_names(strangers)} belong to {', '.join(absent)}: look again when that is"
            " back"
        )
    elif active:
        advice = f"{_names(active)} has a running server: name a cluster that has it, too"
    else:
        statements = "; ".join(
            f"SYSTEM DROP REPLICA '{name}' FROM TABLE {table}" for name in strangers
        )
        advice = f"of those that are gone for good, drop the entries: {statements}"
    raise ConfigError(
        f"table {model.table} has {len(model.active)} replicas, and the cluster only {size} nodes"
        f" in that shard; {advice}"
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
