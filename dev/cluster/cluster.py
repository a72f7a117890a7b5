"""A cluster for tests: started, hurt and ended from here.

Tables with Replicated engines, their paths in ZooKeeper, part exchange, quorum, SYNC REPLICA,
`remote`, `clusterAllReplicas` and Distributed tables are the engine's own. ON CLUSTER is not there.
"""

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any, Self

import clickhouse_driver

from dev.cluster.configuration import server_configuration
from dev.cluster.faults import Faults, StatementFault
from dev.cluster.node import NodeConfig
from dev.cluster.zookeeper import ZooKeeper
from dev.embedded_clickhouse.lifetime import Startable
from dev.embedded_clickhouse.process import EmbeddedClickHouse


class Node(EmbeddedClickHouse):
    """One server of the cluster; `kill` and `start` take it away and bring it back.

    After a start its replicated tables are read-only for a second, as on a server.

    Args:
        config: where it is.

    Attributes:
        port: for the native protocol, also while it is not running.
    """

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config.folder)
        self.port = config.tcp
        self._config = config
        self._faults = Faults()

    @property
    def is_reachable(self) -> bool:
        """Whether it runs and its clients' connections are not cut."""
        return self.pid != 0 and not self._faults.cut

    def client(self, database: str = "default") -> clickhouse_driver.Client:
        """Return a client of this node; close it."""
        return clickhouse_driver.Client.from_url(self.uri(database=database))

    def execute(self, query: str, *arguments: object) -> Any:  # noqa: ANN401 - rows of any kind
        """Run one query on a connection of its own."""
        with self.client() as client:
            return client.execute(query, *arguments)

    def serve_parts_after(self, seconds: float) -> None:
        """Let the others wait for each part that they fetch from this node."""
        self._faults.serve_parts_after = seconds
        self._faults.save(self._config.faults)

    def refuse_parts(self) -> None:
        """Let each fetch from this node fail."""
        self.serve_parts_after(-1)

    def fail(self, pattern: str, code: int, message: str = "injected") -> None:
        """Answer statements in which this regular expression is found with an exception."""
        self._add(StatementFault(pattern, code, message))

    def delay(self, pattern: str, seconds: float) -> None:
        """Let statements in which this regular expression is found wait before they run."""
        self._add(StatementFault(pattern, delay=seconds))

    def cut(self) -> None:
        """Close the clients' connections, and each new one, while the node itself goes on."""
        self._faults.cut = True
        self._faults.save(self._config.faults)

    def mend(self) -> None:
        """End all faults."""
        self._faults = Faults()
        self._faults.save(self._config.faults)

    def _add(self, fault: StatementFault) -> None:
        self._faults.statements.append(fault)
        self._faults.save(self._config.faults)

    def _command(self) -> list[str]:
        return self._module_command("dev.cluster.node", self._config.argument())


class Cluster(Startable):
    """Nodes in shards of replicas, and their ZooKeeper; everything is gone when it is closed.

    Args:
        shards: how many.
        replicas: of each shard.

    Attributes:
        nodes: by shard, then by replica.
        zookeeper: to be killed and started.
    """

    def __init__(self, shards: int = 1, replicas: int = 3) -> None:
        count = shards * replicas
        # The data path must be short: see memory.py.
        self._folder = Path(tempfile.mkdtemp(prefix="", dir="/tmp"))
        port, *ports = free_ports(1 + 3 * count)
        self.zookeeper = ZooKeeper(self._folder / "zookeeper", port)
        self._configs = [
            NodeConfig(str(self._folder / str(number)), *ports[3 * number : 3 * number + 3])
            for number in range(count)
        ]
        self._shards = shards
        self.nodes = [Node(config) for config in self._configs]

    def start(self) -> Self:
        """Start ZooKeeper and the nodes.

        Raises:
            ZooKeeperError: it is not installed, or does not start.
            StartError: a node does not start.
        """
        try:
            self.zookeeper.start()
            for number, config in enumerate(self._configs):
                config.engine.parent.mkdir()
                config.engine.write_text(self._configuration(number))
            for node in self.nodes:
                node.start()
        except BaseException:
            self.stop()
            raise
        return self

    def mend(self) -> None:
        """End all faults, and start again what was killed."""
        if not self.zookeeper.running:
            self.zookeeper.start()
        for node in self.nodes:
            node.mend()
            if not node.pid:
                node.start()

    def stop(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.kill()
        self.zookeeper.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configuration(self, number: int) -> str:
        replicas = len(self.nodes) // self._shards
        ports = [node.port for node in self.nodes]
        shards = [ports[first : first + replicas] for first in range(0, len(ports), replicas)]
        return server_configuration(self.zookeeper.port, shards, number)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has now; they are kept over restarts of their nodes."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports
