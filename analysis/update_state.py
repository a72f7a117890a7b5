"""What the live tables were loaded from, and the way back to what they had before."""

import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from ooni_common.errors import DataRefused, Unavailable
from ooni_common.nodes import Node, Nodes
from ooni_common.swap.agreement import agreement_of, live_standings
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
        rolled_back: whether `previous` was put away by --rollback, and is not to be loaded again.
    """

    source: dict[str, str] = {}
    live: dict[str, Content] = {}
    previous: dict[str, Content] = {}
    rolled_back: bool = False


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
    rolled_back = state.rolled_back and not changes
    return UpdateState(dict(source), live, replaced or state.previous, rolled_back)


def rolled_back_state(state: UpdateState, changes: Sequence[Change]) -> UpdateState:
    """Return the state after a rollback; a second one undoes the first."""
    after = next_state(state, state.source, changes)
    return msgspec.structs.replace(after, rolled_back=not state.rolled_back)


def is_current(nodes: Nodes, tables: Sequence[Table], state: UpdateState) -> bool:
    """Tell whether a majority still holds what the last run left in the live tables."""
    for table in tables:
        agreement = agreement_of(nodes, live_standings(nodes, table))
        if not agreement or agreement.content != state.live.get(table.name):
            return False
    return True


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
        force: swap whatever the shadows hold, if it is not empty.
        critical: as in `replace_tables`.

    Raises:
        DataRefused: a shadow does not hold what was live before, or that was no row at all.
    """
    filled = [one for table in tables if (one := _to_roll_back(nodes, table, state, force=force))]
    if not filled:
        raise DataRefused("nothing to roll back to: no update is on record here")
    with critical():
        swap(nodes, filled)
    for one in filled:
        agreement = agreement_of(nodes, live_standings(nodes, one.change.table))
        if not agreement or agreement.content != one.change.live:
            raise Unavailable(f"{one.change.table.name}: no majority of the nodes is rolled back")
    heal_tables(nodes, tables)
    return [one.change for one in filled]


def _to_roll_back(nodes: Nodes, table: Table, state: UpdateState, *, force: bool) -> Filled | None:
    """Return what is to be swapped of a table, None if the last update did not change it."""
    agreement = agreement_of(nodes, live_standings(nodes, table))
    shadows = nodes.each(lambda node: standing_of(node, table, table.shadow))
    shadow = _of_most(shadows)
    if agreement is None or shadow is None:
        raise DataRefused(f"nothing to roll back to: {table.name} was never updated here")
    live, name = agreement.content, table.name
    replaced = state.previous if state.live.get(name) == live else state.live
    if not shadow.rows and name in replaced:
        raise DataRefused(f"nothing to roll back to: {name} was empty before its last update")
    if shadow.rows and (force or replaced.get(name) == shadow):
        at = {
            node: standing.uuid
            for node, standing in shadows.items()
            if standing and standing.content == shadow
        }
        for shard in nodes.shards:
            if not nodes.is_majority(shard, sum(node.shard == shard for node in at)):
                raise DataRefused(
                    f"{table.shadow}: only {len(at)} nodes hold what was live in {name} before,"
                    " which is no majority; nothing was rolled back"
                )
        return Filled(Change(table, live=shadow, previous=live), at)
    if name in replaced:
        raise DataRefused(
            f"{table.shadow}: does not hold what was live in {name} before (it has"
            f" {shadow.rows:,} rows); --force swaps it in all the same"
        )
    return None


def _of_most(standings: dict[Node, Standing | None]) -> Content | None:
    contents = [standing.content for standing in standings.values() if standing]
    return max(contents, key=contents.count) if contents else None
