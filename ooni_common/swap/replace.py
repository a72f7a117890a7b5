"""Replacing tables, on one server or on each node of a cluster."""

import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ooni_common.errors import NotStored, Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.replicas import fresh_name, fresh_path
from ooni_common.swap.agreement import agreement_of, live_standings
from ooni_common.swap.content import Content, content_of, gathered
from ooni_common.swap.heal import heal, wait_for
from ooni_common.swap.losses import change_of, check_figures
from ooni_common.swap.shadow import (
    Standing,
    check_database,
    check_own,
    exchange,
    make_shadow,
    put_live,
)
from ooni_common.swap.update import Change, Table, Update

log = logging.getLogger("ooni.swap")

Critical = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Filled:
    """A table whose shadow has the new content, verified.

    Attributes:
        change: what the swap changes.
        shadows: node → the UUID of its shadow; none where the live tables have this content.
    """

    change: Change
    shadows: Mapping[Node, str]


def replace_tables(
    nodes: Nodes,
    updates: Sequence[Update],
    *,
    force: bool = False,
    critical: Critical = contextlib.nullcontext,
) -> list[Change]:
    """Replace the content of every table of `updates`, or of none.

    Args:
        nodes: where. One that fails does not take part any more; the next run brings it along.
        updates: all are filled and verified before the first is swapped.
        force: accept any loss.
        critical: wraps the swaps, so that the caller can hold signals back.

    Raises:
        DataRefused: too few, too many or other rows than sent, or too many disappear.
        Unavailable: the database failed; the message says whether any node was swapped.
        ConfigError: only a person can mend it: grants, columns, a kind of database.
    """
    nodes.each(check_database)
    filled = [_fill(nodes, update, force=force) for update in updates]
    with critical():
        swap(nodes, [one for one in filled if one.shadows])
    return [one.change for one in filled]


def _fill(nodes: Nodes, update: Update, *, force: bool) -> Filled:
    """Fill and verify the shadows; the live tables are not touched."""
    table = update.table
    standings = live_standings(nodes, table)
    if not any(standings.values()):
        log.info("creating table %s", table.name)
        nodes.each(lambda node: node.database.query(table.ddl(table.name)))
        standings = live_standings(nodes, table)
    agreement = agreement_of(nodes, standings)
    live = agreement.content if agreement else _largest(standings)
    if update.content:  # what is refused now leaves the shadow with what it can be rolled back to
        check_figures(update, live, update.content, force=force)
    if agreement and update.content == live:
        heal(nodes, table, agreement)
        return Filled(Change(table, live, live), {})
    models = agreement.models if agreement else _models(nodes, standings)
    content, shadows = _fill_shadows(nodes, update, models, standings)
    if not update.content:
        check_figures(update, live, content, force=force)
    if agreement and content == live:
        # Nobody could know before all rows were read.
        log.warning(
            "%s: has the same rows already; %s has them, too, now: nothing is left to roll back to",
            table.name,
            table.shadow,
        )
        heal(nodes, table, agreement)
        return Filled(Change(table, live, live), {})
    having_it = [
        node
        for node in _still(nodes, list(shadows))
        if (held := standings.get(node)) and held.content == live
    ]
    if not having_it:
        raise Unavailable(f"{table.name}: no node that takes part has what is to be replaced")

    def compare(node: Node) -> Change:
        return change_of(node.database, update, live, content, force=force)

    return Filled(nodes.on_one(compare, among=having_it), shadows)


def _largest(standings: dict[Node, Standing | None]) -> Content:
    """Return what is compared with where the nodes do not agree: the one with the most rows."""
    return max((s.content for s in standings.values() if s), key=lambda content: content.rows)


def _models(nodes: Nodes, standings: Mapping[Node, Standing | None]) -> dict[int, Standing]:
    """Return shard → what its new table is made like where the nodes do not agree."""
    held = {node.shard: standing for node, standing in standings.items() if standing}
    spare = next(iter(held.values()))  # for a shard that has no such table: its path has a macro
    return {shard: held.get(shard, spare) for shard in nodes.shards}


def _fill_shadows(
    nodes: Nodes,
    update: Update,
    models: Mapping[int, Standing],
    standings: Mapping[Node, Standing | None],
) -> tuple[Content, Mapping[Node, str]]:
    """Make fresh shadows, insert the rows, and wait until each has them; return their content.

    Beside it: node → UUID of its shadow.
    """
    table = update.table
    name = fresh_name()

    def make(node: Node) -> str:
        model = models[node.shard]
        path = fresh_path(model.statement, table.name, name)
        return make_shadow(node, table, model, path, standings.get(node))

    shadows = nodes.each(make)
    replicated = any(model.path for model in models.values())
    writers = _writers(_still(nodes, list(shadows)), replicated=replicated)
    content = _insert(nodes, {node: shadows[node] for node in writers}, update)
    _check_written(nodes, table, _still(nodes, writers), content, replicated=replicated)
    if replicated and len(_still(nodes, writers)) < len(writers):
        raise Unavailable(f"{table.shadow}: the node that the rows went to has failed")

    def wait(node: Node) -> None:
        wait_for(nodes, node, table, table.shadow, content)

    nodes.each(wait, among=_still(nodes, list(shadows)))
    return content, shadows


def _writers(targets: Sequence[Node], *, replicated: bool) -> list[Node]:
    """Return the nodes that rows are sent to: one of each shard, or all without replication."""
    if not replicated:
        return list(targets)
    # Any of them: a sick one must not be asked in each run.
    shuffled = random.sample(targets, len(targets))
    return list({node.shard: node for node in shuffled}.values())


def _still(nodes: Nodes, wanted: Sequence[Node]) -> list[Node]:
    return [node for node in wanted if node in nodes.up]


def _insert(nodes: Nodes, shadows: Mapping[Node, str], update: Update) -> Content:
    """Insert the rows into each of some shadows, given by UUID; return what they add up to."""
    table = update.table
    content = Content()
    for block in gathered(update.blocks):
        columns = block.columns

        def insert(node: Node, columns: Sequence[Sequence[Any]] = columns) -> None:
            check_own(node.database, table, shadows[node])
            node.database.insert(table.shadow, table.columns, columns)

        nodes.each(insert, among=_still(nodes, list(shadows)))
        content += block.content
        if content.rows >= update.bounds[1]:
            break
    return content


def _check_written(
    nodes: Nodes, table: Table, writers: list[Node], sent: Content, *, replicated: bool
) -> None:
    """Go on without the nodes that stored something else than they were sent.

    Raises:
        NotStored: too few are left; or it replicates, and so do the wrong rows.
        Unavailable, ConfigError: too few can be asked.
    """

    def stored_by(node: Node) -> Content:
        return content_of(node.database, table.columns, table.shadow)

    for node, stored in nodes.each(stored_by, among=writers).items():
        try:
            check_stored(table, sent, stored)
        except NotStored as error:
            if replicated or not nodes.suffice_without([node]):
                raise
            nodes.lose(node, Unavailable(str(error)))


def check_stored(table: Table, sent: Content, stored: Content) -> None:
    """Raise NotStored where a table holds something else than it was sent."""
    if sent != stored:
        raise NotStored(
            f"{table.shadow}: the database stored something else than it was sent:"
            f" {stored.rows:,} rows of {sent.rows:,}, checksum {stored.checksum:016x}"
            f" instead of {sent.checksum:016x}; compare the table's types with tables.sql"
        )


def swap(nodes: Nodes, filled: Sequence[Filled]) -> None:
    """Swap on one node after the other, all tables of a node together."""
    swapped: list[Node] = []

    def swap_on(node: Node) -> None:
        _swap_on(node, [one for one in filled if node in one.shadows])
        swapped.append(node)

    for node in _still(nodes, list({node: None for one in filled for node in one.shadows})):
        try:
            nodes.each(swap_on, among=[node])
        except Unavailable as error:
            if not swapped:
                raise
            names = ", ".join(map(str, swapped))
            raise Unavailable(
                f"{error}; only {names} was swapped: the next run loads again"
            ) from None


def _swap_on(node: Node, filled: Sequence[Filled]) -> None:
    """Swap every table of a node, verify all, and swap back if one fails."""
    done: list[Change] = []
    try:
        for one in filled:
            _exchange(node, one.change, one.shadows[node])
            done.append(one.change)
        for change in done:
            check_stored(change.table, change.live, _live(node, change.table))
    except BaseException:
        for change in done:
            _swap_back(node, change.table)
        raise


def _exchange(node: Node, change: Change, shadow: str) -> None:
    """Swap one table; a statement that failed may have been carried out."""
    try:
        put_live(node.database, change.table, shadow, change.live)
    except Unavailable:
        if _live(node, change.table) != change.live:
            raise


def _swap_back(node: Node, table: Table) -> None:
    try:
        exchange(node.database, table)
    except Unavailable as error:
        reason = f"{error}; the next run does it"
        log.error("%s: could not be swapped back on %s (%s)", table.name, node, reason)  # noqa: TRY400
    else:
        log.warning("%s: swapped back on %s", table.name, node)


def _live(node: Node, table: Table) -> Content:
    return content_of(node.database, table.columns, table.name)
