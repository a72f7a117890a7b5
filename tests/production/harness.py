"""Waiting for replicas, in a test."""

import time
from collections.abc import Callable, Iterable

from clickhouse_driver import errors

from dev.cluster.cluster import Cluster, Node
from dev.cluster.configuration import NAME

PATIENCE = 180  # seconds; nothing waits so long unless it is broken; a slow machine took 60
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


def forget_replicas(cluster: Cluster, tables: Iterable[str]) -> None:
    """Remove from ZooKeeper what is left of tables whose node died before it could do that."""
    for table in tables:
        path = f"/clickhouse/{NAME}/tables/ooni/{table}/01"
        wait_for(lambda path=path: _is_forgotten(cluster, path), f"the end of {path}")  # type: ignore[misc]


def _is_forgotten(cluster: Cluster, path: str) -> bool:
    """Drop the replicas of a path, those that are not active any more; tell whether it is gone."""
    for replica in range(1, len(cluster.nodes) + 1):
        drop = f"SYSTEM DROP REPLICA '{replica:02}' FROM ZKPATH '{path}'"
        try:
            cluster.nodes[0].execute(drop)
        except errors.ServerException as error:
            if "does not look like a table path" in error.message:
                return True
    return False
