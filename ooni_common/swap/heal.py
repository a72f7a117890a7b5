"""How a node that has something else than the majority gets what the majority has."""

import logging

from ooni_common.database import Database, quoted
from ooni_common.errors import Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.replicas import path_literal
from ooni_common.swap.agreement import Agreement
from ooni_common.swap.content import Content, blocks_of, content_of
from ooni_common.swap.shadow import make_shadow, put_live, standing_of
from ooni_common.swap.update import Table

log = logging.getLogger("ooni.swap")

SETTLE_SECONDS = 120  # that a replica gets to fetch what another one has
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


def heal(nodes: Nodes, table: Table, agreement: Agreement) -> list[Node]:
    """Bring odd nodes to what the others have; return those that got there.

    Each gets a shadow, and swaps it in on itself alone. Under the others' path it fetches their
    rows by itself; where nothing replicates, they are copied.

    Raises:
        Unavailable: no majority is left.
    """

    def join(node: Node) -> None:
        model = agreement.models[node.shard]
        own = standing_of(node, table, table.name)
        if own and own.path and own.path == model.path:
            wait_for(nodes, node, table, table.name, agreement.content)
            return
        # Under the path that the others share.
        shadow = make_shadow(node, table, model, path_literal(model.path), own)
        if not model.path:
            source = next(member for member in agreement.members if member.shard == node.shard)
            _copy(source.database, node.database, table)
        wait_for(nodes, node, table, table.shadow, agreement.content)
        put_live(node.database, table, shadow, agreement.content)

    odd = [node for node in agreement.odd if node in nodes.up]
    healed = list(nodes.each(join, among=odd))
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


def _copy(source: Database, target: Database, table: Table) -> None:
    """Insert the live rows of one node into the shadow of another."""
    columns = ", ".join(map(quoted, table.columns))
    for block in blocks_of(source.rows(f"SELECT {columns} FROM {quoted(table.name)}")):
        target.insert(table.shadow, table.columns, block.columns)
