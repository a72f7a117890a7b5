"""Which servers save tables: of each shard of a cluster one, as its replicas have the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backup_config import Config
from backups.manifest import BackupLayout, BackupManifest
from backups.server import ServerBackups
from ooni_common.errors import ConfigError
from ooni_common.nodes import Node, Nodes
from tables.replicas import Replica, readable, replicas_of, tell_of_difference, tell_of_lag


@dataclass(frozen=True)
class ShardServers:
    """The servers of a shard.

    Attributes:
        main: writes the backup.
        present: the tables that it has.
        elsewhere: the tables that it has not → a server that has them. Their rows are saved as
            such, so that one BACKUP does.
    """

    main: ServerBackups
    present: frozenset[str]
    elsewhere: Mapping[str, ServerBackups]

    def of(self, table: str) -> ServerBackups | None:
        """Return the server that has a table; None: the shard does not have it."""
        return self.main if table in self.present else self.elsewhere.get(table)


def servers_of(nodes: Nodes, config: Config, names: Sequence[str]) -> list[ShardServers]:
    """Return the servers that save tables, of each shard.

    Raises:
        Unavailable, ConfigError: a shard has none that is up.
    """
    if not nodes.is_cluster:
        server = ServerBackups(nodes.first, config)
        return [ShardServers(server, frozenset(names), {})]
    replicas = {name: replicas_of(nodes, name) for name in names}
    return [_servers_of_shard(nodes, config, shard, replicas) for shard in nodes.shards]


def _servers_of_shard(
    nodes: Nodes, config: Config, shard: int, replicas: Mapping[str, Sequence[Replica]]
) -> ShardServers:
    """Choose the node that has most of the tables, of several such that which lacks least.

    Of several such, it is the one that defines them as most do; then the first in the cluster.
    """
    of_node: dict[Node, dict[str, Replica]] = {node: {} for node in nodes.of_shard(shard)}
    for name, placed in replicas.items():
        for replica in readable([replica for replica in placed if replica.node in of_node]):
            of_node[replica.node][name] = replica

    def merit(node: Node) -> tuple[int, int, int]:
        held = of_node[node]
        alike = (
            sum(one.definition == replica.definition for one in replicas[name])
            for name, replica in held.items()
        )
        return len(held), -sum(replica.lag for replica in held.values()), sum(alike)

    chosen = max(of_node, key=merit)
    for name, replica in of_node[chosen].items():
        tell_of_lag(name, replica)
        of_shard = [one for one in replicas[name] if one.node in of_node]
        tell_of_difference(name, replica, of_shard)
    elsewhere: dict[str, ServerBackups] = {}
    for node, held in of_node.items():
        for name in held.keys() - of_node[chosen].keys():
            elsewhere.setdefault(name, server_of(nodes, node, config))
    return ShardServers(
        server_of(nodes, chosen, config),
        frozenset(of_node[chosen]),
        dict(sorted(elsewhere.items())),
    )


def server_of(
    nodes: Nodes, node: Node, config: Config, collection: str | None = None
) -> ServerBackups:
    """Return what runs BACKUP and RESTORE on a node, with what belongs to its shard."""
    layout = BackupLayout(config.private_prefix)
    place = layout.of_shard(node.shard, len(nodes.shards))
    return ServerBackups(node.database, config, collection, layout=place)


def check_shards(nodes: Nodes, manifest: BackupManifest) -> None:
    """Raise ConfigError for a backup of other shards than there are."""
    saved, present = len(manifest.by_shard), len(nodes.shards)
    if saved != present:
        raise ConfigError(
            f"the backup {manifest.name} is of {saved} shards, and"
            f" {f'the cluster has {present}' if nodes.is_cluster else 'cluster is not set'}: set"
            " cluster to one with as many shards"
        )
