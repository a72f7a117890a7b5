"""What replacing tables would change, without changing anything."""

from collections.abc import Iterator, Sequence

from ooni_common.database import Database, quoted
from ooni_common.nodes import Nodes
from ooni_common.swap.agreement import agreement_of, fullest, live_standings
from ooni_common.swap.content import Content, content_of, gathered
from ooni_common.swap.losses import change_of, check_figures, sample_of_differences
from ooni_common.swap.replace import check_stored
from ooni_common.swap.update import Table, Update


def preview_tables(
    nodes: Nodes, updates: Sequence[Update], *, force: bool = False
) -> Iterator[str]:
    """Say what `replace_tables` would do, as lines for people; write nothing that lasts.

    The new rows go into a temporary table of one node, so that the same checks run.

    Raises:
        DataRefused, Unavailable, ConfigError: as `replace_tables`.
    """
    for update in updates:
        table = update.table
        standings = live_standings(nodes, table)
        agreement = agreement_of(nodes, standings)
        for node in agreement.odd if agreement else ():
            yield f"{table.name}: {node} has something else than the others, and would get theirs"
        node = agreement.members[0] if agreement else fullest(standings)
        database, standing = node.database, standings[node]
        _create_temporary_shadow(database, table, like_live=standing is not None)
        content = Content()
        for block in gathered(update.blocks):
            database.insert(table.shadow, table.columns, block.columns)
            content += block.content
            if content.rows >= update.bounds[1]:
                break
        check_stored(table, content, content_of(database, table.columns, table.shadow))
        live = standing.content if standing else Content()
        check_figures(update, live, content, force=force)
        if standing is None:
            yield f"{table.name}: would be created with {content.rows:,} rows"
            continue
        change = change_of(database, update, live, content, force=force)
        yield f"would change: {change}" if change.swapped else str(change)
        yield from sample_of_differences(database, table)


def _create_temporary_shadow(database: Database, table: Table, *, like_live: bool) -> None:
    if like_live:
        rest = f"ENGINE = Memory AS SELECT * FROM {quoted(table.name)} LIMIT 0"
    else:
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in table.columns.items())
        rest = f"({columns}) ENGINE = Memory"
    database.query(f"CREATE TEMPORARY TABLE {quoted(table.shadow)} {rest}")
