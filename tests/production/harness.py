"""Waiting for replicas, in a test."""

import time
from collections.abc import Callable

from clickhouse_driver import errors

from dev.cluster.cluster import Cluster, Node
from dev.cluster.configuration import NAME

PATIENCE = 60  # seconds; nothing waits so long unless it is broken
POLL_SECONDS = 0.05


def wait_for(condition: Callable[[], bool], wanted: str) -> None:
    """Return when the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} s for {wanted}"
        time.sleep(POLL_SECONDS)


def wait_until_writable(*nodes: Node) -> None:
    """Return when no replicated table of the nodes is read-only any more."""
    query = "SELECT count() FROM system.replicas WHERE is_readonly"
    for node in nodes:
        wait_for(lambda node=node: node.execute(query) == [(0,)], "writable tables")  # type: ignore[misc]


def everywhere(cluster: Cluster, *statements: str) -> None:
    """Run statements on each node, one node after the other."""
    for node in cluster.nodes:
        for statement in statements:
            node.execute(statement)


def forget_replicas(cluster: Cluster) -> None:
    """Remove from ZooKeeper what is left of tables whose last node died before it could do that."""
    node = cluster.nodes[0]
    tables = f"/clickhouse/{NAME}/tables/ooni"
    for table in _children(node, tables):
        for shard in _children(node, f"{tables}/{table}"):
            path = f"{tables}/{table}/{shard}"
            for replica in _children(node, f"{path}/replicas"):
                node.execute(f"SYSTEM DROP REPLICA '{replica}' FROM ZKPATH '{path}'")


def _children(node: Node, path: str) -> list[str]:
    try:
        rows = node.execute(
            "SELECT name FROM system.zookeeper WHERE path = %(path)s", {"path": path}
        )
    except errors.ServerException:  # there is no such path
        return []
    return [name for (name,) in rows]
