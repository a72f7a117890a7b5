"""Which node of each shard has what a table is read from.

Replicas of a table have the same rows, once they have fetched them. So of each shard one is asked,
over a connection of its own: the one that lacks the least, for the figures and for the rows.
`cluster()` and Distributed tables would let the server choose, for each question another one.

Its definition is what is published and saved. Of replicas that lack equally little, one is asked
whose definition most of them have, the first in the order of the cluster: so a node that differs,
in its settings perhaps, changes nothing while the others are there; and it is told.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ooni_common.database import Database
from ooni_common.errors import ConfigError, DataRefused, Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.replicas import UNKNOWN_LAG, lag_of, without_replica
from tables.inventory import WITHOUT_DATA

log = logging.getLogger("ooni.db_backup")


class TableAway(Unavailable):
    """The nodes that have a table are away; there may be others that have other tables."""


@dataclass(frozen=True)
class Replica:
    """A node that has a table.

    Attributes:
        node: where it is.
        engine: of the table.
        lag: how many entries of the replicas' log it has yet to carry out, merges left out: rows
            that it has not fetched, partitions not dropped, cells not changed.
        definition: the statement that creates it, without the name of the replica.
    """

    node: Node
    engine: str
    lag: int
    definition: str = ""


class TableReplicas:
    """The nodes that a table is read from, one of each shard.

    Args:
        nodes: of the cluster.
        table: its name, in the current database.

    Attributes:
        chosen: the nodes.
    """

    def __init__(self, nodes: Nodes, table: str) -> None:
        self._nodes = nodes
        self._table = table
        self._told: set[str] = set()
        self.chosen: list[Node] = []
        self.choose()

    @property
    def databases(self) -> list[Database]:
        """The connections to the nodes."""
        return [node.database for node in self.chosen]

    def choose(self) -> None:
        """Choose among the nodes that are up now.

        Raises:
            TableAway: of a shard no node that has the table is up.
            DataRefused: no node has it.
        """
        replicas = replicas_of(self._nodes, self._table)
        if not replicas:
            check_presence(self._nodes, self._table)
            raise DataRefused(f"{self._table!r}: the table is gone")
        if replicas[0].engine == "Distributed":  # which reads the shards itself
            self.chosen = [replicas[0].node]
            return
        self.chosen = []
        for shard in self._nodes.shards:
            of_shard = [replica for replica in replicas if replica.node.shard == shard]
            if of_shard:
                best = best_of(of_shard)
                if best.node.name not in self._told:
                    self._told.add(best.node.name)
                    tell_of_lag(self._table, best)
                    tell_of_difference(self._table, best, of_shard)
                self.chosen = [*self.chosen, best.node]
            else:
                check_presence(self._nodes, self._table, shard)
        _check_columns(self._table, self.chosen)

    def lost_any(self) -> bool:
        """Choose once more; tell whether nodes that were up are not any more."""
        up = len(self._nodes.up)
        self.choose()
        return len(self._nodes.up) < up


def best_of(replicas: Sequence[Replica]) -> Replica:
    """Return the replica of a shard that is read."""
    replicas = readable(replicas)
    least = min(replica.lag for replica in replicas)
    definitions = Counter(replica.definition for replica in replicas)
    complete = [replica for replica in replicas if replica.lag == least]
    return max(complete, key=lambda replica: definitions[replica.definition])


def tell_of_difference(table: str, chosen: Replica, replicas: Sequence[Replica]) -> None:
    """Warn of nodes of a shard on which a table is defined in another way than where it is read."""
    odd = [str(one.node) for one in replicas if one.definition != chosen.definition]
    if odd:
        log.warning(
            "%s is defined in another way on %s than on %s, whose definition is saved; compare"
            " SHOW CREATE TABLE there",
            table,
            ", ".join(odd),
            chosen.node,
        )


def _check_columns(table: str, nodes: Sequence[Node]) -> None:
    """Raise ConfigError where the shards of a table have other columns: they are read alike."""
    if len(nodes) < 2:
        return
    columns = {
        node: node.database.query(
            "SELECT name, type FROM system.columns"
            " WHERE database = currentDatabase() AND table = %(table)s ORDER BY position",
            {"table": table},
        )
        for node in nodes
    }
    model, *others = nodes
    for node in others:
        if different := set(columns[node]) ^ set(columns[model]):
            listed = ", ".join(sorted({name for name, _ in different}))
            raise ConfigError(
                f"{table}: columns on {node} differ from those on {model}: {listed}; ALTER TABLE on"
                " one of these shards"
            )


def tell_of_lag(table: str, replica: Replica) -> None:
    """Warn of a replica that lacks rows, where none that is up lacks less."""
    if not replica.lag:
        return
    entries = "1 entry" if replica.lag == 1 else f"{replica.lag} entries"
    log.warning(
        "%s: %s, the best replica that is up, lacks rows that others have written (%s); the next"
        " run takes them along",
        table,
        replica.node,
        entries if replica.lag < UNKNOWN_LAG else "it has no connection to ZooKeeper",
    )


def replicas_of(nodes: Nodes, table: str) -> list[Replica]:
    """Return the nodes that have a table of the current database, in the order of the cluster.

    Raises:
        Unavailable, ConfigError: too few nodes are left.
    """
    replicas = nodes.each(lambda node: _replica_of(node, table))
    return [replica for node, replica in replicas.items() if replica and node in nodes.up]


def readable(replicas: Sequence[Replica]) -> list[Replica]:
    """Return those that have rows; all of them, if none has: a view may stand for the table."""
    with_rows = [replica for replica in replicas if replica.engine not in WITHOUT_DATA]
    return with_rows or list(replicas)


def _replica_of(node: Node, table: str) -> Replica | None:
    engines = node.database.query(
        "SELECT engine, database, create_table_query FROM system.tables"
        " WHERE database = currentDatabase() AND name = %(table)s",
        {"table": table},
    )
    for engine, database, create in engines:
        lag = lag_of(node.database, database, table)
        return Replica(node, engine, lag, without_replica(create))
    return None


def database_with(nodes: Nodes, table: str) -> Database:
    """Return the connection to a node that has a table."""
    return TableReplicas(nodes, table).databases[0] if nodes.is_cluster else nodes.first


def check_presence(nodes: Nodes, table: str, shard: int | None = None) -> None:
    """Raise TableAway where a table that no node has may be on one that is absent.

    Args:
        nodes: of the cluster.
        table: its name.
        shard: only this one.
    """
    shards = nodes.shards if shard is None else [shard]
    if any(len(nodes.of_shard(number)) < nodes.size_of(number) for number in shards):
        where = "" if shard is None else f" of shard {shard}"
        missing = "; ".join(f"{name}: {why}" for name, why in nodes.absent.items())
        raise TableAway(f"{table}: no node{where} that is up has it ({missing})")
