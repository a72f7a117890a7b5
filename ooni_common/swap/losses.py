"""Whether an update may make so many rows disappear, and what it would change."""

import logging
from collections.abc import Iterator

from ooni_common.database import Database, quoted
from ooni_common.errors import DataRefused
from ooni_common.swap.content import Content, as_text
from ooni_common.swap.update import Change, LossLimit, Table, Update

SHOWN = 10  # rows that are lost or new
log = logging.getLogger("ooni.swap")


def check_figures(update: Update, live: Content, content: Content, *, force: bool) -> None:
    """Raise DataRefused where the number of rows alone shows that something is wrong.

    Args:
        update: has the limits.
        live: what is to be replaced.
        content: by what.
        force: accept any loss.
    """
    least, most = update.bounds
    if not least < content.rows < most:
        expected = f"between {least:,} and {most:,} are expected"
        raise DataRefused(f"{update.table.name}: {content.rows:,} rows; {expected}")
    for limit in update.limits:
        if limit.net:
            _check_loss(update.table, limit, live.rows - content.rows, live.rows, force=force)


def change_of(
    database: Database, update: Update, live: Content, content: Content, *, force: bool
) -> Change:
    """Compare the filled shadow with the live table.

    Raises:
        DataRefused: a loss is beyond the limits.
    """
    lost = _lost_by_identity(database, update.table)
    for limit in update.limits:
        if not limit.net:
            _check_loss(update.table, limit, lost, live.rows, force=force)
    added = content.rows - (live.rows - lost)
    return Change(update.table, content, live, difference=f" (+{added:,} -{lost:,})")


def _lost_by_identity(database: Database, table: Table) -> int:
    """Return how many live rows are not in the shadow."""
    identity = ", ".join(map(quoted, table.identity))
    ((lost,),) = database.query(
        f"SELECT countIf(({identity}) NOT IN (SELECT {identity} FROM {quoted(table.shadow)}))"
        f" FROM {quoted(table.name)}"
    )
    return int(lost)


def _check_loss(table: Table, limit: LossLimit, lost: int, rows: int, *, force: bool) -> None:
    if lost <= limit.rows or lost <= rows * limit.share:
        return
    message = (
        f"{table.name}: {lost:,} of {rows:,} rows would disappear, more than {limit.share:.0%}"
    )
    if not force:
        raise DataRefused(f"{message}; look at the upstream, or accept it with --force")
    log.warning("%s; accepted by --force", message)


def sample_of_differences(database: Database, table: Table) -> Iterator[str]:
    """Yield some of the rows that the live table or the shadow alone has, as lines for people."""
    columns = ", ".join(as_text(*column) for column in table.columns.items())
    for sign, left, right in (("-", table.name, table.shadow), ("+", table.shadow, table.name)):
        missing = (
            f"FROM {quoted(left)} WHERE ({columns}) NOT IN (SELECT {columns} FROM {quoted(right)})"
        )
        (count,) = database.query(f"SELECT count() {missing}")[0]
        for row in database.query(f"SELECT {columns} {missing} ORDER BY ALL LIMIT {SHOWN}"):
            yield f"{sign} {' | '.join(map(str, row))}"
        if count > SHOWN:
            yield f"{sign} … and {count - SHOWN:,} more"
