"""Three replicas over a real ZooKeeper, in the place of one server."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickhouse_driver import Client

from dev.chaos.scene import Scene
from dev.cluster.cluster import Cluster, Node
from dev.cluster.configuration import NAME
from dev.servers.tcp_proxy import TcpProxy

PATIENCE = 60  # seconds; nothing waits so long unless it is broken
POLL_SECONDS = 0.05
READ_ONLY = "SELECT count() FROM system.replicas WHERE is_readonly"


@dataclass(kw_only=True)
class Replicas(Scene):
    """A cluster of one shard; tools are given its name, and connect to each node.

    The proxy is on the way of the first connection, which asks where the nodes are.

    Attributes:
        cluster: the nodes, to be hurt.
    """

    cluster: Cluster

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, others: dict[str, Any]) -> Iterator["Replicas"]:
        """Start ZooKeeper and the nodes."""
        with (
            Cluster() as cluster,
            TcpProxy(lambda: cluster.nodes[0].tcp) as database,
            TcpProxy(lambda: cluster.nodes[0].http) as rows,
        ):
            yield cls(folder=folder, cluster=cluster, database=database, rows=rows, **others)

    @property
    def readers(self) -> tuple[int, ...]:
        """The numbers of the nodes that can be reached."""
        return tuple(number for number, node in enumerate(self.cluster.nodes) if node.is_reachable)

    def keys(self, database: str) -> dict[str, object]:
        """Return the address of the first node, or of another if that is away, and the cluster."""
        return {"db_uri": self.uri(database), "cluster": NAME}

    def uri(self, database: str, *, password: str = "", writes: bool = True) -> str:
        """Return the address of a database, through the proxy or on another node."""
        user = "write" if writes else "readonly"
        others = ",".join(f"127.0.0.1:{node.port}" for node in self.cluster.nodes[1:])
        login = f"{user}:{password or user}"
        address = f"127.0.0.1:{self.database.port}/{database}"
        return f"clickhouse://{login}@{address}?alt_hosts={others}"

    def direct_uri(self, database: str) -> str:
        """Return the address of a database on the first node, past the proxy."""
        return self.cluster.nodes[0].uri("write", "write", database)

    def client(self, database: str = "default", reader: int = 0) -> Client:
        """Return a client of a database on one of the nodes; close it."""
        return self.cluster.nodes[reader].client(database)

    def create_database(self, name: str) -> None:
        """Create a database on each node."""
        for node in self.cluster.nodes:
            node.execute(f"CREATE DATABASE {name} ENGINE = Atomic")

    def create_table(self, database: str, table: str, statement: str) -> None:
        """Create a table on each node, with the engine that replicates."""
        engine, parameters = statement.split("ENGINE = ReplacingMergeTree(", 1)
        path = f"/clickhouse/{{cluster}}/tables/{database}/{table}/{{shard}}"
        comma = "" if parameters.startswith(")") else ", "
        replicated = f"ENGINE = ReplicatedReplacingMergeTree('{path}', '{{replica}}'{comma}"
        for reader in self.readers:
            with self.client(database, reader) as client:
                client.execute(f"{engine}{replicated}{parameters}")

    def wait_for_rows(self, database: str, table: str) -> None:
        """Return when each node has all rows of a table."""
        for node in self.cluster.nodes:
            node.execute(f"SYSTEM SYNC REPLICA {database}.{table}")

    def mend_database(self) -> None:
        """Start what was killed; return when no table is read-only any more."""
        self.cluster.mend()
        for node in self.cluster.nodes:
            _wait_until_writable(node)


def _wait_until_writable(node: Node) -> None:
    end = time.monotonic() + PATIENCE
    while node.execute(READ_ONLY) != [(0,)]:
        if time.monotonic() > end:
            raise TimeoutError(f"{node.uri()}: tables are read-only after {PATIENCE} s")
        time.sleep(POLL_SECONDS)
