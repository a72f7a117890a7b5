"""Replacing a table as a whole: readers see the old content or the new, at every instant.

The new rows go into a shadow table, are verified there, and one `EXCHANGE TABLES` puts them live.
The replaced content stays in the shadow, for a rollback.
"""

import contextlib
import functools
import itertools
import logging
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import msgspec
from clickhouse_cityhash.cityhash import CityHash64

from ooni_common.database import Database, literal, quoted
from ooni_common.errors import ConfigError, DataRefused, Unavailable

log = logging.getLogger("ooni.tables")

Row = Sequence[Any]
Critical = Callable[[], AbstractContextManager[None]]

BLOCK_ROWS = 65_536
SETTLE_TIME = 120  # seconds that replicas get to agree after an insert or a swap


class Content(msgspec.Struct, frozen=True):
    """What a table holds, in any order: the number of its rows and the sum of their hashes."""

    rows: int = 0
    checksum: int = 0

    def __add__(self, other: "Content") -> "Content":
        """Return the content of both together."""
        return Content(self.rows + other.rows, (self.checksum + other.checksum) % 2**64)


class Block:
    """Rows, column by column, as the driver inserts them fastest; at least one.

    Attributes:
        columns: a sequence of values for each column of the table.
    """

    def __init__(
        self, columns: Sequence[Sequence[Any]], texts: Sequence[Iterable[str]] | None = None
    ) -> None:
        """Take the values, and their texts as the database writes them where they are at hand."""
        self.columns = columns
        self._texts = texts

    @functools.cached_property
    def hashes(self) -> list[int]:
        """The hash of each row, as `contents` has the database compute it."""
        texts = self._texts or list(map(_texts, self.columns))
        return list(map(CityHash64, map("\0".join, zip(*texts, strict=True))))

    @functools.cached_property
    def content(self) -> Content:
        """What the rows add up to."""
        return Content(len(self.hashes), sum(self.hashes) % 2**64)

    @classmethod
    def joined(cls, blocks: Sequence["Block"]) -> "Block":
        """Return the rows of several blocks, which are not hashed again, as one."""
        if len(blocks) == 1:
            return blocks[0]
        columns = zip(*(block.columns for block in blocks), strict=True)
        joined = cls([list(itertools.chain.from_iterable(column)) for column in columns])
        joined.content = sum((block.content for block in blocks), start=Content())
        return joined


@dataclass(frozen=True)
class Table:
    """A table that is replaced as a whole.

    Attributes:
        name: the live table.
        shadow: the table that new rows go into.
        columns: name → type, in the order of the rows' values.
        engine: the text from `ENGINE` on, for a first run; later the live table's own is kept.
        identity: the columns by which a row is still the same row after a change of the others.
    """

    name: str
    shadow: str
    columns: Mapping[str, str]
    engine: str
    identity: tuple[str, ...]

    def ddl(self, name: str, on_cluster: str = "") -> str:
        """Return the statement that creates a table of this kind called `name`."""
        columns = ", ".join(f"{quoted(column)} {kind}" for column, kind in self.columns.items())
        return f"CREATE TABLE IF NOT EXISTS {quoted(name)}{on_cluster} ({columns}) {self.engine}"


@dataclass(frozen=True)
class LossLimit:
    """How many live rows may disappear: a share (0 to 1), of the table or per value of a column.

    A loss of up to `rows` rows is always accepted.
    """

    share: float
    rows: int = 0
    per: str = ""


@dataclass(frozen=True)
class Update:
    """The new content of a table and the limits that it must keep.

    Attributes:
        table: what to replace.
        blocks: the new rows; iterated once.
        bounds: the number of rows must lie between these, both excluded.
        limits: on the rows that disappear.
        content: what the rows add up to, when the caller knows it beforehand: then an update that
            changes nothing writes nothing.
    """

    table: Table
    blocks: Iterable[Block]
    bounds: tuple[int, int]
    limits: tuple[LossLimit, ...] = ()
    content: Content | None = None

    @classmethod
    def of_rows(
        cls,
        table: Table,
        rows: Iterable[Row],
        bounds: tuple[int, int],
        limits: tuple[LossLimit, ...] = (),
    ) -> "Update":
        """Return an update of rows that fit into memory, so that its content is known."""
        blocks = list(blocks_of(rows))
        content = sum((block.content for block in blocks), start=Content())
        return cls(table, blocks, bounds, limits, content)


@dataclass(frozen=True)
class Change:
    """What an update changed.

    Attributes:
        table: the table.
        live: its new content.
        previous: the content that it had before.
        difference: rows added and lost, for people.
    """

    table: Table
    live: Content
    previous: Content
    difference: str = ""

    @property
    def swapped(self) -> bool:
        """Whether the live table's content is another one now."""
        return self.live != self.previous

    def __str__(self) -> str:
        difference = self.difference if self.swapped else ", unchanged"
        return f"{self.table.name}: {self.live.rows:,} rows{difference}"


class UpdateState(msgspec.Struct, frozen=True):
    """What the live tables were loaded from, kept in the state directory.

    Attributes:
        source: the upstream's version, as the script names it (a commit, validators).
        live: table → content that was live after the last run.
        previous: table → content that this replaced.
    """

    source: dict[str, str] = {}
    live: dict[str, Content] = {}
    previous: dict[str, Content] = {}


def blocks_of(rows: Iterable[Row]) -> Iterator[Block]:
    """Yield the rows in blocks."""
    remaining = iter(rows)
    while block := list(itertools.islice(remaining, BLOCK_ROWS)):
        yield Block(list(zip(*block, strict=True)))


def gathered(blocks: Iterable[Block]) -> Iterator[Block]:
    """Join small blocks: an insert of one row costs a server nearly what one of 50,000 does."""
    few: list[Block] = []
    rows = 0
    for block in blocks:
        few.append(block)
        rows += block.content.rows
        if rows >= BLOCK_ROWS:
            yield Block.joined(few)
            few, rows = [], 0
    if few:
        yield Block.joined(few)


def contents(database: Database, table: Table, name: str) -> dict[str, Content]:
    """Return what the table `name` (live or shadow) holds, by node; "" without a cluster."""
    row_text = ", '\\0', ".join(_hashed_text(*column) for column in table.columns.items())
    figures = f"count(), sum(cityHash64(concat({row_text}, '')))"
    if not database.cluster:
        return {"": Content(*database.query(f"SELECT {figures} FROM {quoted(name)}")[0])}
    node = "concat(hostName(), ':', toString(tcpPort()))"
    every_node = f"clusterAllReplicas({literal(database.cluster)}, {{}})"
    nodes = database.query(f"SELECT {node} FROM {every_node.format('system.one')}")
    held = database.query(
        f"SELECT {node} AS node, {figures}"
        f" FROM {every_node.format(f'currentDatabase(), {quoted(name)}')} GROUP BY node"
    )
    # A node whose table is empty has no group.
    return {node: Content() for (node,) in nodes} | {row[0]: Content(*row[1:]) for row in held}


def agreed_content(database: Database, table: Table, name: str, *, settle: bool = False) -> Content:
    """Return what the table `name` (live or shadow) holds on every node.

    With `settle`, the replicas of a cluster get `SETTLE_TIME` to agree.

    Raises:
        Unavailable: the nodes hold different contents.
    """
    pauses = [1.0] * SETTLE_TIME if settle and database.cluster else []
    for pause in [*pauses, None]:
        held = contents(database, table, name)
        if len(set(held.values())) == 1:
            return next(iter(held.values()))
        if pause:
            database.sleep(pause)
    raise Unavailable(
        f"table {name}: its replicas differ ({_by_node(held)}); let the distributed DDL queue"
        " and the replication finish, or repair the odd one, before the next run"
    )


def replace_tables(
    database: Database,
    updates: Sequence[Update],
    *,
    force: bool = False,
    critical: Critical = contextlib.nullcontext,
) -> list[Change]:
    """Replace the content of every table of `updates`, or of none.

    Args:
        database: where.
        updates: all are filled and verified before the first is swapped.
        force: accept any loss.
        critical: wraps the swaps, so that the caller can hold signals back.

    Raises:
        DataRefused: too few, too many or other rows than sent, or too many disappear.
        Unavailable: the database failed; nothing was swapped, or the message says what was.
        ConfigError: the user lacks grants, or a table's columns are not as expected.
    """
    changes = [_fill_shadow(database, update, force=force) for update in updates]
    with critical():
        _swap(database, [change for change in changes if change.swapped])
    return changes


def preview_tables(
    database: Database, updates: Sequence[Update], *, force: bool = False
) -> Iterator[str]:
    """Say what `replace_tables` would do, as lines for people; write nothing that lasts.

    The new rows go into a temporary table of this connection, so that the same checks run.

    Raises:
        DataRefused, Unavailable, ConfigError: as `replace_tables`.
    """
    local = database.without_cluster()
    for update in updates:
        table = update.table
        exists = local.exists(table.name)
        if exists:
            _check_columns(local, table)
        _create_temporary_shadow(local, table, like_live=exists)
        content = _insert(local, update)
        _check_stored(table, content, agreed_content(local, table, table.shadow))
        _check_bounds(update, content)
        if not exists:
            yield f"{table.name}: would be created with {content.rows:,} rows"
            continue
        live = agreed_content(local, table, table.name)
        yield f"would change: {_change(local, update, live, content, force=force)}"
        yield from _sample_of_differences(local, table)


def roll_back(
    database: Database,
    tables: Sequence[Table],
    state: UpdateState,
    *,
    force: bool = False,
    critical: Critical = contextlib.nullcontext,
) -> list[Change]:
    """Swap back every table that the last update changed.

    Args:
        database: where.
        tables: the tables that are updated together.
        state: of the last run; tells a replaced content from one that a later run refused.
        force: swap whatever the shadows hold, if it is not empty.
        critical: as in `replace_tables`.

    Raises:
        DataRefused: a shadow does not hold what was live before, or that was no row at all.
    """
    changes = []
    for table in tables:
        if not (database.exists(table.name) and database.exists(table.shadow)):
            raise DataRefused(f"nothing to roll back to: {table.name} was never updated here")
        live = agreed_content(database, table, table.name)
        shadow = agreed_content(database, table, table.shadow)
        name = table.name
        replaced = state.previous if state.live.get(name) == live else state.live
        if not shadow.rows and name in replaced:
            raise DataRefused(f"nothing to roll back to: {name} was empty before its last update")
        if shadow.rows and (force or replaced.get(name) == shadow):
            changes.append(Change(table, live=shadow, previous=live))
        elif name in replaced:
            raise DataRefused(
                f"{table.shadow}: does not hold what was live in {name} before (it has"
                f" {shadow.rows:,} rows); --force swaps it in all the same"
            )
    if not changes:
        raise DataRefused("nothing to roll back to: no update is on record here")
    with critical():
        _swap(database, changes)
    return changes


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
    return UpdateState(dict(source), live, replaced or state.previous)


def is_current(database: Database, tables: Sequence[Table], state: UpdateState) -> bool:
    """Tell whether the live tables still hold what the last run left in them."""
    return all(
        table.name in state.live
        and database.exists(table.name)
        and set(contents(database, table, table.name).values()) == {state.live[table.name]}
        for table in tables
    )


def _fill_shadow(database: Database, update: Update, *, force: bool) -> Change:
    """Fill and verify the shadow; the live table is not touched."""
    table = update.table
    if not database.exists(table.name):
        log.info("creating table %s", table.name)
        database.query(table.ddl(table.name, database.on_cluster))
    _check_columns(database, table)
    live = agreed_content(database, table, table.name)
    if update.content == live:
        return Change(table, live, live)
    _prepare_shadow(database, table)
    content = _insert(database, update)
    _check_stored(table, content, agreed_content(database, table, table.shadow, settle=True))
    _check_bounds(update, content)
    return _change(database, update, live, content, force=force)


def _check_columns(database: Database, table: Table) -> None:
    present = {column[0] for column in database.structure(table.name)[0]}
    if missing := [column for column in table.columns if column not in present]:
        raise ConfigError(f"table {table.name} has no column {', '.join(missing)}; see tables.sql")


def _prepare_shadow(database: Database, table: Table) -> None:
    """Make the shadow an empty table with the live table's columns and engine."""
    shadow, on_cluster = quoted(table.shadow), database.on_cluster
    if database.exists(table.shadow):
        if database.structure(table.shadow) == database.structure(table.name):
            database.query(f"TRUNCATE TABLE {shadow}{on_cluster}")
            return
        log.info("making %s anew, because %s has changed", table.shadow, table.name)
        database.query(f"DROP TABLE {shadow}{on_cluster} SYNC")
    database.query(f"CREATE TABLE {shadow}{on_cluster} AS {quoted(table.name)}")


def _create_temporary_shadow(database: Database, table: Table, *, like_live: bool) -> None:
    if like_live:
        rest = f"ENGINE = Memory AS SELECT * FROM {quoted(table.name)} LIMIT 0"
    else:
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in table.columns.items())
        rest = f"({columns}) ENGINE = Memory"
    database.query(f"CREATE TEMPORARY TABLE {quoted(table.shadow)} {rest}")


def _insert(database: Database, update: Update) -> Content:
    """Insert the rows; return what they add up to."""
    total = Content()
    for block in gathered(update.blocks):
        database.insert(update.table.shadow, update.table.columns, block.columns)
        total += block.content
        if total.rows >= update.bounds[1]:
            break
    return total


def _check_stored(table: Table, sent: Content, stored: Content) -> None:
    if sent != stored:
        raise DataRefused(
            f"{table.shadow}: the database stored something else than it was sent:"
            f" {stored.rows:,} rows of {sent.rows:,}, checksum {stored.checksum:016x}"
            f" instead of {sent.checksum:016x}; compare the table's types with tables.sql"
        )


def _check_bounds(update: Update, content: Content) -> None:
    least, most = update.bounds
    if not least < content.rows < most:
        expected = f"between {least:,} and {most:,} are expected"
        raise DataRefused(f"{update.table.name}: {content.rows:,} rows; {expected}")


def _change(
    database: Database, update: Update, live: Content, content: Content, *, force: bool
) -> Change:
    """Compare the filled shadow with the live table; refuse a loss beyond the limits."""
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
    key = _as_text(per, table.columns[per]) if per else "''"
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


def _sample_of_differences(database: Database, table: Table, rows: int = 10) -> Iterator[str]:
    columns = ", ".join(_as_text(*column) for column in table.columns.items())
    for sign, left, right in (("-", table.name, table.shadow), ("+", table.shadow, table.name)):
        missing = (
            f"FROM {quoted(left)} WHERE ({columns}) NOT IN (SELECT {columns} FROM {quoted(right)})"
        )
        (count,) = database.query(f"SELECT count() {missing}")[0]
        for row in database.query(f"SELECT {columns} {missing} ORDER BY ALL LIMIT {rows}"):
            yield f"{sign} {' | '.join(map(str, row))}"
        if count > rows:
            yield f"{sign} … and {count - rows:,} more"


def _swap(database: Database, changes: Sequence[Change]) -> None:
    """Swap every table, verify all, and swap back what was swapped if anything fails."""
    try:
        for change in changes:
            _exchange(database, change.table)
        for change in changes:
            live = agreed_content(database, change.table, change.table.name, settle=True)
            _check_stored(change.table, change.live, live)
    except BaseException:
        for change in changes:
            _swap_back(database, change)
        raise


def _exchange(database: Database, table: Table) -> None:
    tables = f"{quoted(table.shadow)} AND {quoted(table.name)}"
    database.query(f"EXCHANGE TABLES {tables}{database.on_cluster}")


def _swap_back(database: Database, change: Change) -> None:
    """Undo one swap if it happened: a statement that failed may have been carried out."""
    table = change.table
    try:
        held = contents(database, table, table.name)
        if set(held.values()) == {change.live}:
            _exchange(database, table)
            log.warning("%s: swapped back", table.name)
        elif len(set(held.values())) > 1:
            log.error("%s: its replicas differ now: %s", table.name, _by_node(held))
    except Unavailable as error:
        log.error("%s: could not be swapped back (%s); the next run does it", table.name, error)  # noqa: TRY400


def _texts(column: Sequence[Any]) -> Iterable[str]:
    """Return the values as `_hashed_text` has the database write them."""
    first = column[0]
    if isinstance(first, str):
        return column
    if isinstance(first, float):
        rows = len(column)
        return map(str, struct.unpack(f"<{rows}I", struct.pack(f"<{rows}f", *column)))
    if isinstance(first, datetime):
        return map(_text_of_time, column)
    return map(_text_of_date if isinstance(first, date) else str, column)


def _text_of_date(value: date) -> str:
    return f"{value:%Y%m%d}"


def _text_of_time(value: datetime) -> str:
    return str(int(value.timestamp()))


def _hashed_text(column: str, kind: str) -> str:
    if kind == "Date":  # as it stands in the upstream's file, so that a block has the text at hand
        return f"formatDateTime({quoted(column)}, '%Y%m%d')"
    if kind.startswith("DateTime"):  # whatever the time zone
        return f"toString(toUnixTimestamp({quoted(column)}))"
    if kind == "Float32":  # by its bits, because there are many ways to write a number
        return f"toString(reinterpretAsUInt32({quoted(column)}))"
    return _as_text(column, kind)


def _as_text(column: str, kind: str) -> str:
    function = "toStringCutToZero" if kind.startswith("FixedString") else "toString"
    return f"{function}({quoted(column)})"


def _by_node(held: Mapping[str, Content]) -> str:
    return ", ".join(
        f"{node} {content.rows:,} rows {content.checksum:016x}"
        for node, content in sorted(held.items())
    )
