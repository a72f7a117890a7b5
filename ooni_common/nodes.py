"""The servers that a table is on: one, or every node of a cluster."""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ooni_common.config import DatabaseConfig, host_and_port
from ooni_common.database import Database, ServerError, connected, connected_to
from ooni_common.errors import ConfigError, Unavailable

log = logging.getLogger("ooni.nodes")

T = TypeVar("T")

SECURE_PORT = 9440  # the driver's, too
_SEVERAL_SHARDS = (
    "nodes: these are of several shards, and must be the replicas of one; set cluster instead"
)


@dataclass(frozen=True)
class Node:
    """A server.

    Attributes:
        name: host and port, as the cluster has them; "" for a server of its own.
        shard: which of the cluster's shards it belongs to.
        database: its connection.
    """

    name: str
    shard: int
    database: Database

    def __str__(self) -> str:
        return self.name or "the server"


class Nodes:
    """All servers of a table, some of which may be absent.

    Args:
        sizes: shard → how many nodes it has, absent ones included.
        up: those that are connected.
        absent: name → why it is not.
        sleep: waits for so many seconds.
        one_suffices: for what any node of a shard can do, there need be no majority of them.

    Attributes:
        up: the nodes that take part; one that fails does not any more.
        absent: name → why it does not take part.
    """

    def __init__(
        self,
        sizes: Mapping[int, int],
        up: list[Node],
        absent: Mapping[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        *,
        one_suffices: bool = False,
    ) -> None:
        self.up = list(up)
        self.absent = dict(absent or {})
        self.sleep = sleep
        self._sizes = sizes
        self._one_suffices = one_suffices

    @classmethod
    def one(cls, database: Database) -> "Nodes":
        """Return a server of its own."""
        return cls({1: 1}, [Node("", 1, database)])

    @property
    def first(self) -> Database:
        """The connection for what one node can answer for all."""
        return self.up[0].database

    @property
    def is_cluster(self) -> bool:
        """Whether there are other nodes, and a single one must not be swapped alone."""
        return bool(self.up[0].name)

    def of_shard(self, shard: int) -> list[Node]:
        """Return the nodes of a shard that take part."""
        return [node for node in self.up if node.shard == shard]

    @property
    def shards(self) -> list[int]:
        """The numbers of the shards."""
        return sorted(self._sizes)

    def is_majority(self, shard: int, count: int) -> bool:
        """Tell whether so many are more than half of a shard's nodes, absent ones included."""
        return 2 * count > self._sizes[shard]

    def each(self, work: Callable[[Node], T], among: list[Node] | None = None) -> dict[Node, T]:
        """Do the same on each node; one on which it is impossible now does not take part any more.

        Args:
            work: is given the node.
            among: the nodes, if not all that take part.

        Raises:
            Unavailable, ConfigError: no majority is left.
            DataRefused: what one of them said.
        """
        results: dict[Node, T] = {}
        for node in list(self.up if among is None else among):
            try:
                results[node] = work(node)
            except (Unavailable, ConfigError) as error:
                self.lose(node, error)
        return results

    def on_one(self, work: Callable[[Node], T], among: Sequence[Node] | None = None) -> T:
        """Do what one node can do for all; one on which it is impossible now is lost as by `each`.

        Args:
            work: is given the node.
            among: the nodes that can, if not all that take part; the first one is asked first.

        Raises:
            Unavailable, ConfigError: no majority is left, or none of them.
            DataRefused: what one of them said.
        """
        reason = "there is none"
        for node in list(self.up if among is None else among):
            try:
                return work(node)
            except (Unavailable, ConfigError) as error:
                self.lose(node, error)
                reason = f"{node}: {error}"
        raise Unavailable(f"none of the nodes that could do it takes part any more ({reason})")

    def lose(self, node: Node, error: Unavailable | ConfigError) -> None:
        """Go on without a node.

        Raises:
            Unavailable, ConfigError: too few of its shard are left.
        """
        if not node.name:
            raise error
        self.up = [other for other in self.up if other is not node]
        self.absent[node.name] = str(error)
        log.warning("%s does not take part any more: %s", node, error)
        if isinstance(error, ConfigError) and not self.suffice_without(()):
            raise ConfigError(f"{node}: {error}")
        self.check()

    def size_of(self, shard: int) -> int:
        """Return how many nodes a shard has, absent ones included."""
        return self._sizes[shard]

    def check(self) -> None:
        """Raise Unavailable where half of a shard's nodes, or more, do not take part.

        Where one suffices: where none does.
        """
        for shard, size in self._sizes.items():
            if not self._are_enough(shard):
                missing = "; ".join(f"{name}: {why}" for name, why in self.absent.items())
                verdict = "too few" if self._one_suffices else "no majority"
                raise Unavailable(
                    f"{len(self.of_shard(shard))} of the {size} nodes of shard {shard} take part,"
                    f" which is {verdict} ({missing})"
                )

    def suffice_without(self, failed: Collection[Node]) -> bool:
        """Tell whether enough nodes of each shard are left without some of them."""
        return all(self._are_enough(shard, failed) for shard in self._sizes)

    def _are_enough(self, shard: int, failed: Collection[Node] = ()) -> bool:
        count = sum(node not in failed for node in self.of_shard(shard))
        return count > 0 if self._one_suffices else self.is_majority(shard, count)


@contextmanager
def connected_nodes(config: DatabaseConfig, *, one_suffices: bool = False) -> Iterator[Nodes]:
    """Connect to the server of `config`, or to each node of its cluster.

    Args:
        config: has the address of one, and the name of the cluster.
        one_suffices: as in Nodes.

    Raises:
        Unavailable: too few of a shard's nodes can be reached.
        ConfigError: the server knows no such cluster.
    """
    with ExitStack() as stack:
        database = stack.enter_context(connected(config))
        if not config.cluster and not config.nodes:
            yield Nodes.one(database)
            return
        sizes: Counter[int] = Counter()
        up: list[Node] = []
        absent: dict[str, str] = {}
        identities: dict[tuple[object, ...], str] = {}
        for host, port, shard in _addresses(database, config):
            name = f"{host}:{port}"
            sizes[shard] += 1
            try:
                node = Node(name, shard, stack.enter_context(connected_to(config, host, port)))
                identity = node.database.query("SELECT serverUUID(), hostName(), tcpPort()")[0]
            except (Unavailable, ConfigError) as error:
                absent[name] = str(error)
                log.warning("%s is absent: %s", name, error)
                continue
            if identity in identities:
                raise ConfigError(
                    f"{'nodes' if config.nodes else f'cluster {config.cluster}'}: {name} is the"
                    f" same server as {identities[identity]}; each must stand there once"
                )
            identities[identity] = name
            up.append(node)
        nodes = Nodes(sizes, up, absent, one_suffices=one_suffices)
        nodes.check()
        if config.nodes:
            check_one_shard(nodes.each(_shards_of), len(config.nodes))
        yield nodes


@dataclass(frozen=True)
class ShardsOfNode:
    """Which shards a node says that it belongs to.

    Attributes:
        macro: the macro `shard` of its configuration; "" for none.
        clusters: name of a cluster → how many entries it has, and the shards that are the node.
    """

    macro: str
    clusters: Mapping[str, tuple[int, frozenset[int]]]


def check_one_shard(told: Mapping[Node, ShardsOfNode], count: int) -> None:
    """Check that nodes which were named one by one are the replicas of one shard.

    Args:
        told: what those that are up say.
        count: how many there are, absent ones included.

    Raises:
        ConfigError: they are not, so that the rows of one shard would stand for all.
    """
    macros = {node: shards.macro for node, shards in told.items() if shards.macro}
    if len(set(macros.values())) > 1:
        listed = ", ".join(f"{node} has {macro}" for node, macro in macros.items())
        raise ConfigError(f"{_SEVERAL_SHARDS} (macro shard: {listed})")
    if macros or not told:
        return
    # A cluster of fewer entries is another one; each server may have a `default` of its own.
    common = set.intersection(
        *(
            {name for name, (entries, own) in shards.clusters.items() if entries >= count and own}
            for shards in told.values()
        )
    )
    shared = [
        frozenset.intersection(*(shards.clusters[name][1] for shards in told.values()))
        for name in sorted(common)
    ]
    if shared and not any(shared):
        raise ConfigError(f"{_SEVERAL_SHARDS} (system.clusters: {', '.join(sorted(common))})")


def _shards_of(node: Node) -> ShardsOfNode:
    try:
        ((macro,),) = node.database.query("SELECT getMacro('shard')")
    except ServerError as error:
        log.debug("%s: %s", node, error)
        macro = ""
    rows: Sequence[tuple[Any, ...]] = ()
    if not macro:
        with contextlib.suppress(ServerError):  # the user may not look
            rows = node.database.query(
                "SELECT cluster, count(), groupArrayIf(shard_num, is_local) FROM system.clusters"
                " GROUP BY cluster"
            )
    return ShardsOfNode(macro, {name: (count, frozenset(own)) for name, count, own in rows})


def _addresses(database: Database, config: DatabaseConfig) -> list[tuple[str, int, int]]:
    """Return host, native port and shard of each node."""
    if config.nodes:
        return [(*address, 1) for node in config.nodes if (address := host_and_port(node))]
    rows = database.query(
        "SELECT host_name, port, shard_num FROM system.clusters WHERE cluster = %(cluster)s"
        " ORDER BY shard_num, replica_num",
        {"cluster": config.cluster},
    )
    if not rows:
        names = database.query("SELECT DISTINCT cluster FROM system.clusters ORDER BY cluster")
        listed = ", ".join(name for (name,) in names) or "none"
        raise ConfigError(
            f"cluster: the server has no cluster {config.cluster!r}; it has: {listed}"
        )
    uri = urlsplit(config.db_uri.reveal())
    if uri.scheme == "clickhouses":  # the servers' own port may be one without TLS
        return [(host, uri.port or SECURE_PORT, shard) for host, _, shard in rows]
    return [(host, port, shard) for host, port, shard in rows]
