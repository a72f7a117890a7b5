"""Whether an update may make so many rows disappear, and what it would change."""

import logging
from collections.abc import Iterator
from typing import Any

from ooni_common.database import Database, quoted
from ooni_common.errors import DataRefused
from ooni_common.swap.content import Content, as_text
from ooni_common.swap.update import Change, LossLimit, Table, Update

log = logging.getLogger("ooni.swap")


def check_bounds(update: Update, content: Content) -> None:
    """Raise DataRefused where there are too few rows, or too many."""
    least, most = update.bounds
    if not least < content.rows < most:
        expected = f"between {least:,} and {most:,} are expected"
        raise DataRefused(f"{update.table.name}: {content.rows:,} rows; {expected}")


def change_of(
    database: Database, update: Update, live: Content, content: Content, *, force: bool
) -> Change:
    """Compare the filled shadow with the live table.

    Raises:
        DataRefused: a loss is beyond the limits.
    """
    table = update.table
    kinds = dict.fromkeys(["", *(limit.per for limit in update.limits)])
    losses = {per: _losses(database, table, per) for per in kinds}
    for limit in update.limits:
        for value, rows, lost in losses[limit.per]:
            if lost > limit.rows and lost > rows * limit.share:
                _report_loss(table, limit, value, f"{lost:,} of {rows:,} rows", force=force)
    ((_, _, lost),) = losses[""] or [("", 0, 0)]
    added = content.rows - (live.rows - lost)
    return Change(table, content, live, difference=f" (+{added:,} -{lost:,})")


def _losses(database: Database, table: Table, per: str = "") -> list[tuple[Any, ...]]:
    """Return (value of `per`, live rows, live rows that are not in the shadow by identity)."""
    key = as_text(per, table.columns[per]) if per else "''"
    identity = ", ".join(map(quoted, table.identity))
    return database.query(
        f"SELECT {key} AS key, count(),"
        f" countIf(({identity}) NOT IN (SELECT {identity} FROM {quoted(table.shadow)}))"
        f" FROM {quoted(table.name)} GROUP BY key ORDER BY key"
    )


def _report_loss(table: Table, limit: LossLimit, value: str, loss: str, *, force: bool) -> None:
    of = f" of {limit.per} {value!r}" if limit.per else ""
    message = f"{table.name}: {loss}{of} would disappear, more than {limit.share:.0%}"
    if not force:
        raise DataRefused(f"{message}; look at the upstream, or accept it with --force")
    log.warning("%s; accepted by --force", message)


def sample_of_differences(database: Database, table: Table, rows: int = 10) -> Iterator[str]:
    """Yield some of the rows that the live table or the shadow alone has, as lines for people."""
    columns = ", ".join(as_text(*column) for column in table.columns.items())
    for sign, left, right in (("-", table.name, table.shadow), ("+", table.shadow, table.name)):
        missing = (
            f"FROM {quoted(left)} WHERE ({columns}) NOT IN (SELECT {columns} FROM {quoted(right)})"
        )
        (count,) = database.query(f"SELECT count() {missing}")[0]
        for row in database.query(f"SELECT {columns} {missing} ORDER BY ALL LIMIT {rows}"):
            yield f"{sign} {' | '.join(map(str, row))}"
        if count > rows:
            yield f"{sign} … and {count - rows:,} more"
