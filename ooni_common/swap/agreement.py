"""What a majority of the nodes has live."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ooni_common.database import Database
from ooni_common.errors import ConfigError
from ooni_common.nodes import Node, Nodes
from ooni_common.swap.content import Content
from ooni_common.swap.shadow import Standing, standing_of
from ooni_common.swap.update import Table

Standings = Mapping[Node, Standing | None]


@dataclass(frozen=True)
class Agreement:
    """What a table holds.

    Attributes:
        content: what the majority has, the same in each shard.
        models: shard → what the majority has there.
        members: the nodes that have it.
        odd: the nodes that have something else.
    """

    content: Content
    models: Mapping[int, Standing]
    members: Sequence[Node]
    odd: Sequence[Node]


def live_standings(nodes: Nodes, table: Table) -> dict[Node, Standing | None]:
    """Return what each node has live.

    Raises:
        Unavailable: no majority is left.
        ConfigError: see `standing_of`.
    """
    standings = nodes.each(lambda node: standing_of(node, table, table.name))
    for node, standing in standings.items():
        if node.name and standing and standing.running > nodes.size_of(node.shard):
            raise ConfigError(
                f"table {table.name} has {standing.running} replicas that are running, and the"
                f" cluster only {nodes.size_of(node.shard)} nodes in shard {node.shard}: name a"
                " cluster with all of them"
            )
    return standings


def agreement_of(nodes: Nodes, standings: Standings) -> Agreement | None:
    """Return what a majority of each shard's nodes has, None where there is no such thing."""
    models: dict[int, Standing] = {}
    for shard in nodes.shards:
        held = {node: standings[node] for node in nodes.of_shard(shard) if node in standings}
        votes = Counter((s.path, s.content) for s in held.values() if s)
        if not votes:
            return None
        winner, count = votes.most_common(1)[0]
        if not nodes.is_majority(shard, count):
            return None
        models[shard] = next(s for s in held.values() if s and (s.path, s.content) == winner)
    contents = {model.content for model in models.values()}
    if len(contents) != 1:
        return None
    members = [node for node in nodes.up if _is_like(standings.get(node), models[node.shard])]
    odd = [node for node in nodes.up if node not in members]
    return Agreement(contents.pop(), models, members, odd)


def agreed_database(nodes: Nodes, table: Table, left: Content | None = None) -> Database:
    """Return the connection to a node that has what the majority has, to read the table there.

    Args:
        nodes: where the table is.
        table: which.
        left: what the last run left in it. Where no majority agrees, a node that has this is read,
            or else the one with the most rows: one may have been away, or have lost its disk.

    Raises:
        Unavailable, ConfigError: as `live_standings`.
    """
    if not nodes.is_cluster:
        return nodes.first
    standings = live_standings(nodes, table)
    if agreement := agreement_of(nodes, standings):
        return agreement.members[0].database
    current = [
        node for node, standing in standings.items() if standing and standing.content == left
    ]
    return (current[0] if current else fullest(standings)).database


def fullest(standings: Standings) -> Node:
    """Return the node that has the most rows: where nodes do not agree, that is compared with."""

    def rows(node: Node) -> int:
        standing = standings[node]
        return standing.content.rows if standing else -1

    return max(standings, key=rows)


def _is_like(standing: Standing | None, model: Standing) -> bool:
    return standing is not None and (standing.path, standing.content) == (model.path, model.content)
