"""What a majority of the nodes has live, and how a node that has something else gets there."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ooni_common.database import Database, quoted
from ooni_common.errors import ConfigError, Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.swap.content import Content, content_of
from ooni_common.swap.shadow import Standing, make_shadow, standing_of
from ooni_common.swap.update import Table

log = logging.getLogger("ooni.swap")

SETTLE_SECONDS = 120  # that a replica gets to fetch what another one has
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

Standings = Mapping[Node, Standing | None]


@dataclass(frozen=True)
class Agreement:
    """What a table holds.

    Attributes:
        content: what the majority has, the same in each shard.
        models: shard → what the majority has there.
        odd: the nodes that have something else.
    """

    content: Content
    models: Mapping[int, Standing]
    odd: Sequence[Node]


def live_standings(nodes: Nodes, table: Table) -> dict[Node, Standing | None]:
    """Return what each node has live.

    Raises:
        Unavailable: no majority is left.
        ConfigError: see `standing_of`.
    """
    standings = nodes.each(lambda node: standing_of(node, table, table.name))
    for node, standing in standings.items():
        if node.name and standing and standing.replicas > nodes.size_of(node.shard):
            raise ConfigError(
                f"table {table.name} has {standing.replicas} replicas, and the cluster only"
                f" {nodes.size_of(node.shard)} nodes in shard {node.shard}: name a cluster with all"
                " of them, or drop those that are gone for good (SYSTEM DROP REPLICA)"
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
    odd = [node for node in nodes.up if not _is_like(standings.get(node), models[node.shard])]
    return Agreement(contents.pop(), models, odd)


def agreed_database(nodes: Nodes, table: Table) -> Database:
    """Return the connection to a node that has what the majority has, to read the table there.

    Raises:
        Unavailable, ConfigError: as `live_standings`.
    """
    agreement = agreement_of(nodes, live_standings(nodes, table))
    odd = agreement.odd if agreement else ()
    return next((node.database for node in nodes.up if node not in odd), nodes.first)


def _is_like(standing: Standing | None, model: Standing) -> bool:
    return standing is not None and (standing.path, standing.content) == (model.path, model.content)


def heal(nodes: Nodes, table: Table, agreement: Agreement) -> list[Node]:
    """Bring odd nodes of a replicated table to what the others have; return those that got there.

    Each gets a shadow under the others' path, which fetches their rows, and swaps it in on itself
    alone. A table that does not replicate is left to be loaded again.

    Raises:
        Unavailable: no majority is left.
    """

    def join(node: Node) -> None:
        model = agreement.models[node.shard]
        standing = standing_of(node, table, table.name)
        if standing and standing.path == model.path:
            wait_for(nodes, node, table, table.name, agreement.content)
            return
        make_shadow(node, table, model, model.path)
        wait_for(nodes, node, table, table.shadow, agreement.content)
        put_live(node.database, table)

    healable = [node for node in agreement.odd if agreement.models[node.shard].path]
    healed = list(nodes.each(join, among=[node for node in healable if node in nodes.up]))
    for node in healed:
        log.warning("%s: %s has what the others have again", table.name, node)
    return healed


def wait_for(nodes: Nodes, node: Node, table: Table, name: str, content: Content) -> None:
    """Return when a node has fetched all rows of a table.

    Raises:
        Unavailable: it has not after a while.
    """
    waited, pause = 0.0, _FIRST_PAUSE
    while (held := content_of(node.database, table.columns, name)) != content:
        if waited > SETTLE_SECONDS:
            raise Unavailable(
                f"{node}: after {SETTLE_SECONDS} s {name} has {held.rows:,} rows, checksum"
                f" {held.checksum:016x}, instead of {content.rows:,} rows, {content.checksum:016x}"
            )
        nodes.sleep(pause)
        waited += pause
        pause = min(2 * pause, _LONGEST_PAUSE)


def put_live(database: Database, table: Table) -> None:
    """Swap the shadow and the live table of one node; without a live one, the shadow becomes it."""
    if database.exists(table.name):
        exchange(database, table)
    else:
        database.query(f"RENAME TABLE {quoted(table.shadow)} TO {quoted(table.name)}")


def exchange(database: Database, table: Table) -> None:
    """Swap the shadow and the live table of one node."""
    database.query(f"EXCHANGE TABLES {quoted(table.shadow)} AND {quoted(table.name)}")
