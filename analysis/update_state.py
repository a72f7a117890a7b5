"""What the live tables were loaded from, and the way back to what they had before."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ooni_common.errors import DataRefused, Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.swap.agreement import agreement_of, fullest, live_standings
from ooni_common.swap.content import Content
from ooni_common.swap.heal import heal
from ooni_common.swap.replace import Critical, Filled, swap
from ooni_common.swap.shadow import Standing, standing_of
from ooni_common.swap.update import Change, Table


class UpdateState(msgspec.Struct, frozen=True):
    """What the live tables were loaded from, kept in the state directory.

    Attributes:
        source: the upstream's version, as the script names it (a commit, validators).
        live: table → content that was live after the last run.
        previous: table → content that this replaced.
        rolled_back: the tables of which --rollback has put something away, which is not to be
            loaded again. An older file says only whether it has, of all tables.
    """

    source: dict[str, str] = {}
    live: dict[str, Content] = {}
    previous: dict[str, Content] = {}
    rolled_back: frozenset[str] | bool = frozenset()

    @property
    def tables_rolled_back(self) -> frozenset[str]:
        """The tables that have what was there before an update, and keep it."""
        if isinstance(self.rolled_back, bool):
            return frozenset(self.live if self.rolled_back else ())
        return self.rolled_back


def next_state(
    state: UpdateState, source: Mapping[str, str], changes: Sequence[Change]
) -> UpdateState:
    """Return the state after a run that loaded `source`; tables without a change keep theirs."""
    live = state.live | {change.table.name: change.live for change in changes}
    replaced = {change.table.name: change.previous for change in changes if change.swapped}
    # Also what a run replaced that was killed before it could write its state.
    replaced |= {
        name: content
        for name, content in state.live.items()
        if name not in replaced and content != live[name]
    }
    rolled_back = state.tables_rolled_back - {change.table.name for change in changes}
    return UpdateState(dict(source), live, replaced or state.previous, rolled_back)


def rolled_back_state(state: UpdateState, changes: Sequence[Change]) -> UpdateState:
    """Return the state after a rollback; a second one undoes the first."""
    after = next_state(state, state.source, changes)
    swapped = {change.table.name for change in changes}
    return msgspec.structs.replace(after, rolled_back=state.tables_rolled_back ^ swapped)


def kept_by_rollback(state: UpdateState, tables: Sequence[Table]) -> dict[str, str]:
    """Return what `source` says of the tables that were rolled back.

    What belongs to one of several tables begins with its name; all else belongs to every table.
    """
    rolled_back = state.tables_rolled_back
    if not rolled_back:
        return {}
    others = tuple(f"{table.name}." for table in tables if table.name not in rolled_back)
    return {key: value for key, value in state.source.items() if not key.startswith(others)}


def is_current(nodes: Nodes, tables: Sequence[Table], state: UpdateState) -> bool:
    """Tell whether a majority still holds what the last run left in the live tables."""
    for table in tables:
        agreement = agreement_of(nodes, live_standings(nodes, table))
        if not agreement or agreement.content != state.live.get(table.name):
            return False
    return True


def live_contents(nodes: Nodes, tables: Sequence[Table]) -> dict[str, Content]:
    """Return table → what is live: of the majority, or of the node with the most rows.

    Raises:
        Unavailable, ConfigError: as `live_standings`.
    """
    return {table.name: _live_content(nodes, table) for table in tables}


def _live_content(nodes: Nodes, table: Table) -> Content:
    standings = live_standings(nodes, table)
    if agreement := agreement_of(nodes, standings):
        return agreement.content
    standing = standings[fullest(standings)]
    return standing.content if standing else Content()


def heal_tables(nodes: Nodes, tables: Sequence[Table]) -> list[Node]:
    """Bring the nodes that hold something else to what the majority has; return them."""
    healed: list[Node] = []
    for table in tables:
        agreement = agreement_of(nodes, live_standings(nodes, table))
        if agreement and agreement.odd:
            healed += heal(nodes, table, agreement)
    return healed


def roll_back(
    nodes: Nodes,
    tables: Sequence[Table],
    state: UpdateState,
    *,
    force: bool = False,
    critical: Critical = contextlib.nullcontext,
) -> list[Change]:
    """Swap back every table that the last update changed.

    Args:
        nodes: where; one whose shadow holds something else is brought along afterwards.
        tables: the tables that are updated together.
        state: of the last run; tells a replaced content from one that a later run refused.
        force: as in `to_roll_back`.
        critical: as in `replace_tables`.

    Raises:
        DataRefused: as in `to_roll_back`; nothing was changed.
        Unavailable: no majority of the nodes is rolled back.
    """
    filled = to_roll_back(nodes, tables, state, force=force)
    with critical():
        swap(nodes, filled)
    for one in filled:
        agreement = agreement_of(nodes, live_standings(nodes, one.change.table))
        if not agreement or agreement.content != one.change.live:
            raise Unavailable(f"{one.change.table.name}: no majority of the nodes is rolled back")
    heal_tables(nodes, tables)
    return [one.change for one in filled]


def to_roll_back(
    nodes: Nodes, tables: Sequence[Table], state: UpdateState, *, force: bool = False
) -> list[Filled]:
    """Return what a rollback swaps; change nothing.

    Args:
        nodes: where.
        tables: the tables that are updated together.
        state: of the last run.
        force: swap whatever the shadows hold, if it is not empty; also those of all tables, where
            no update is on record.

    Raises:
        DataRefused: a shadow does not hold what was live before, or that was no row at all.
    """
    pairs = [_pair_of(nodes, table, state) for table in tables]
    changed = [pair for pair in pairs if pair.table.name in pair.replaced]
    if not changed and force:
        changed = [pair for pair in pairs if pair.shadow.rows]
    if not changed:
        raise DataRefused("nothing to roll back to: no update is on record here")
    return [_filled(nodes, pair, force=force) for pair in changed]


@dataclass(frozen=True)
class _Pair:
    """A table and its shadow, and what they hold.

    Attributes:
        table: which one.
        live: what most nodes have live.
        shadow: what most of them have in the shadow.
        shadows: what each node has there.
        replaced: table → content that the last update replaced.
    """

    table: Table
    live: Content
    shadow: Content
    shadows: Mapping[Node, Standing | None]
    replaced: Mapping[str, Content]


def _pair_of(nodes: Nodes, table: Table, state: UpdateState) -> _Pair:
    agreement = agreement_of(nodes, live_standings(nodes, table))
    shadows = nodes.each(lambda node: standing_of(node, table, table.shadow))
    shadow = _of_most(shadows)
    if agreement is None or shadow is None:
        raise DataRefused(f"nothing to roll back to: {table.name} was never updated here")
    live = agreement.content
    replaced = state.previous if state.live.get(table.name) == live else state.live
    return _Pair(table, live, shadow, shadows, replaced)


def _filled(nodes: Nodes, pair: _Pair, *, force: bool) -> Filled:
    table, name, shadow = pair.table, pair.table.name, pair.shadow
    if not shadow.rows:
        raise DataRefused(f"nothing to roll back to: {name} was empty before its last update")
    if not force and pair.replaced.get(name) != shadow:
        raise DataRefused(
            f"{table.shadow}: does not hold what was live in {name} before (it has"
            f" {shadow.rows:,} rows); --force swaps it in all the same"
        )
    at = {
        node: standing.uuid
        for node, standing in pair.shadows.items()
        if standing and standing.content == shadow
    }
    for shard in nodes.shards:
        if not nodes.is_majority(shard, sum(node.shard == shard for node in at)):
            raise DataRefused(
                f"{table.shadow}: only {len(at)} nodes hold what was live in {name} before,"
                " which is no majority; nothing was rolled back"
            )
    return Filled(Change(table, live=shadow, previous=pair.live), at)


def _of_most(standings: Mapping[Node, Standing | None]) -> Content | None:
    contents = [standing.content for standing in standings.values() if standing]
    return max(contents, key=contents.count) if contents else None
