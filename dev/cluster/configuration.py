"""A server's configuration: ZooKeeper, macros, the cluster. It needs nothing of what is beside it.

An engine that has it and nothing else creates, attaches, renames and drops replicated tables as a
server does; rows it takes only as a node of the cluster.
"""

from collections.abc import Sequence

NAME = "oonidata_cluster"


def server_configuration(zookeeper: int, shards: Sequence[Sequence[int]], number: int) -> str:
    """Return it as XML.

    Args:
        zookeeper: its port.
        shards: by shard, the ports of its replicas.
        number: which of them, counted from 0 over all shards, this server is.
    """
    names = [(s, r) for s, ports in enumerate(shards, 1) for r in range(1, len(ports) + 1)]
    shard, replica = names[number]
    return f"""<clickhouse>
  <zookeeper>
    <node><host>127.0.0.1</host><port>{zookeeper}</port></node>
    <session_timeout_ms>3000</session_timeout_ms>
    <!-- Embedded engines have one UUID: they would end each other's session. -->
    <sessions_path>/clickhouse/sessions/{number}</sessions_path>
  </zookeeper>
  <macros>
    <cluster>{NAME}</cluster>
    <shard>{shard:02}</shard>
    <replica>{replica:02}</replica>
  </macros>
  <tcp_port>{[port for ports in shards for port in ports][number]}</tcp_port>
  <remote_servers><{NAME}>{"".join(map(_shard, shards))}</{NAME}></remote_servers>
</clickhouse>
"""


def _shard(ports: Sequence[int]) -> str:
    replicas = "".join(
        f"<replica><host>127.0.0.1</host><port>{port}</port></replica>" for port in ports
    )
    return f"<shard><internal_replication>true</internal_replication>{replicas}</shard>"
