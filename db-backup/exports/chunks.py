"""The chunks of a table: how its rows are divided, and how many each has."""

import itertools
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from exports.fingerprint import Fingerprint
from exports.reader import Chunk, Reader, name_of_type
from ooni_common.database import ServerError, literal, quoted
from ooni_common.errors import ConfigError, DataRefused
from tables.blocks import Changes
from tables.digest import split_arguments
from tables.inventory import QUOTED, SourceTable, first_column

OF_A_CLUSTER = re.compile(r"cluster\('(?:[^'\\]|\\.)*', currentDatabase\(\), (`(?:[^`\\]|\\.)*`)\)")
TIMES = ("Date", "Date32", "DateTime", "DateTime64")
LOSSY_TYPE = re.compile(r"\b(Variant|Dynamic|JSON|Object|Geometry)\b(?! )")
STATE_TYPE = re.compile(r"\bAggregateFunction\(")
# What the server says of a value that is none of its type.
WRONG_VALUE = {6, 25, 26, 27, 32, 36, 38, 41, 53, 69, 70, 72, 117, 131, 321, 376, 407, 467, 675,
               676, 691}  # fmt: skip
MOST_OF_BOUNDS = 150_000  # characters; a statement can have 256 KiB
log = logging.getLogger("ooni.db_backup")

WHOLE_TABLE = Chunk("", "")
NO_TIME = "null"  # the chunk of the rows without a time


def of_one_server(query: str) -> str:
    """Return the query of a chunk that 2.0.1 asked of a cluster, as it is now."""
    return OF_A_CLUSTER.sub(r"\1", query)


class DamagedRanges(DataRefused):
    """The ranges in a manifest can't be those of the table; nothing else is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}; export the table again: ooni-db-backup export --force")


@dataclass(frozen=True)
class Kept:
    """What the parts of a table tell of its chunks, so that not all rows have to be counted.

    Attributes:
        chunks: that were exported, and all that the table had then.
        rows: of those that have no rows in any part that is not as it was, by name.
        grown: the names of all that have some.
    """

    chunks: Mapping[str, Chunk]
    rows: Mapping[str, int]
    grown: Collection[str]

    def count(self, chunk: Chunk) -> int | None:
        """Return the number of rows of a chunk; None: they are to be counted."""
        return self.rows.get(chunk.name) if self.chunks.get(chunk.name) == chunk else None


def survey(
    reader: Reader, exported: Sequence[Chunk], kept: Kept | None = None
) -> list[tuple[Chunk, int]]:
    """Return the chunks that a table has now, and the number of their rows.

    Args:
        reader: of the table.
        exported: the chunks of the last export. Ranges stay as they are, unless they have grown.
        kept: what the parts tell; None: nothing, so that all rows are counted.
    """
    if lossy := lossy_columns(reader.table):
        log.warning(
            "%s: CSV can't carry the types of these columns; whoever reads them back may get other"
            " values: %s",
            reader.table.name,
            ", ".join(lossy),
        )
    match reader.policy.chunk_by:
        case "month" | "day":
            return _by_time(reader, kept)
        case "range":
            return _by_range(reader, exported, kept)
    return [(WHOLE_TABLE, _count(reader, WHOLE_TABLE, kept))]


def digests(
    reader: Reader, chunks: Sequence[Chunk], *, whole: bool = False, stored: bool = False
) -> dict[str, Fingerprint]:
    """Return the fingerprints of chunks, by name, for which their rows are read.

    `whole` and `stored` are as in Reader.fingerprint.
    """

    def fingerprint(chunk: Chunk) -> Fingerprint:
        return reader.fingerprint(chunk.condition, whole=whole, stored=stored)

    if reader.policy.chunk_by not in ("month", "day"):
        return {chunk.name: fingerprint(chunk) for chunk in chunks}
    if not chunks:
        return {}
    time = _time(reader)
    numbers = [time.number(chunk.name) for chunk in chunks]
    read = reader.fingerprints(time.expression, numbers, whole=whole, stored=stored)
    # One that has vanished meanwhile has no rows.
    gone = [chunk for chunk in chunks if time.number(chunk.name) not in read]
    fingerprints = {time.chunk(number).name: figures for number, figures in read.items()}
    return fingerprints | {chunk.name: fingerprint(chunk) for chunk in gone}


def grown_chunks(reader: Reader, chunks: Sequence[Chunk], changes: Changes) -> set[str]:
    """Return the names of the chunks that have rows in the parts that have changed."""
    if not changes.any_parts:
        return set()
    if reader.policy.chunk_by in ("month", "day"):
        time = _time(reader)
        return {time.chunk(number).name for number in reader.counts(time.expression, changes)}
    return {chunk.name for chunk in chunks if reader.count(chunk.condition, changes)}


def check_chunks(reader: Reader) -> None:
    """Raise ConfigError where a table can't be divided in the way that the policy says."""
    check_columns(reader)
    if reader.policy.chunk_by in ("month", "day"):
        _time(reader)
    elif reader.policy.chunk_by == "range":
        _range_column(reader)


def rows_may_move(reader: Reader) -> bool:
    """Tell whether a row can replace one of another chunk, which has one less then.

    Only where valid rows alone are exported: the others stay in their chunks until they are merged.
    """
    match reader.policy.chunk_by:
        case "month" | "day":
            column = reader.policy.column
        case "range":
            column = _range_column(reader)
        case _:
            return False
    key = [first_column(one) for one in split_arguments(reader.table.key)]
    return reader.policy.final and column not in key


def lossy_columns(table: SourceTable) -> list[str]:
    """Return the columns whose values CSV can't carry back: their text is read as another type."""
    return [
        f"{column.name} ({column.type.partition('(')[0]})"
        for column in table.columns
        if LOSSY_TYPE.search(re.sub(QUOTED, "", column.type))
    ]


def check_columns(reader: Reader) -> None:
    """Check that the columns can be exported, and that those of the policy are there.

    Raises:
        DataRefused: a column has values that are the server's own: the same ones differ in bytes.
        ConfigError: the table has not the key or the version of the policy.
    """
    for column in reader.table.columns:
        if STATE_TYPE.search(re.sub(QUOTED, "", column.type)):
            raise DataRefused(
                f"{reader.table.name}: column {column.name} is {column.type}, which nobody else can"
                " read; export a table that has its values (finalizeAggregation), or make it 'none'"
            )
    selected = {column.name for column in reader.table.columns}
    if missing := {*reader.policy.key, reader.policy.version} - selected - {""}:
        others = reader.databases[0].query(  # SELECT * leaves out those that are computed
            "SELECT name FROM system.columns WHERE database = currentDatabase()"
            " AND table = %(table)s",
            {"table": reader.table.name},
        )
        for name in sorted(missing - {name for (name,) in others}):
            raise ConfigError(f"tables: {reader.table.name}: there is no column {name!r}")


@dataclass(frozen=True)
class _Time:
    """The month or the day by which rows are divided.

    Attributes:
        expression: its number, as SQL; 0 for rows without a time.
        value: the same, but NULL for these.
        column: as SQL, whose month or day it is.
        nullable: whether there can be rows without a time.
    """

    expression: str
    value: str
    column: str
    nullable: bool

    def chunk(self, number: int) -> Chunk:
        """Return the chunk of a month or a day."""
        if self.nullable and number == 0:
            return Chunk(NO_TIME, f"{self.column} IS NULL")
        return Chunk(str(number), f"{self.value} = {number}")

    @staticmethod
    def number(name: str) -> int:
        """Return the month or the day of a chunk, given its name."""
        return 0 if name == NO_TIME else int(name)


def _time(reader: Reader) -> _Time:
    """Return the month or the day that the policy of a table says.

    Raises:
        ConfigError: there is no such column, or it has no times.
    """
    function = "toYYYYMM" if reader.policy.chunk_by == "month" else "toYYYYMMDD"
    name = reader.policy.column
    kind = reader.column_type(name)
    if name_of_type(kind) not in TIMES:
        raise ConfigError(
            f"tables: {reader.table.name}: {name!r} is of type {kind}, not a date or time"
        )
    column = quoted(name)
    # The month of a time without a zone is that of the server's zone, whatever the session's is.
    value = f"{function}({column})"
    if reader.zoned_type(name) != kind:
        value = f"{function}({column}, 'UTC')"
    nullable = "Nullable(" in kind
    return _Time(f"ifNull({value}, 0)" if nullable else value, value, column, nullable)


def _count(reader: Reader, chunk: Chunk, kept: Kept | None) -> int:
    rows = kept.count(chunk) if kept else None
    return reader.count(chunk.condition) if rows is None else rows


def made_again(reader: Reader, exported: Sequence[Chunk]) -> list[Chunk] | None:
    """Return exported chunks as they are made now; None where the policy makes others.

    What a manifest says of them is only compared: no condition from a bucket is executed.
    """
    match reader.policy.chunk_by:
        case "month" | "day":
            if not all(chunk.name.isdigit() or chunk.name == NO_TIME for chunk in exported):
                return None
            time = _time(reader)
            chunks = [time.chunk(time.number(chunk.name)) for chunk in exported]
        case "range":
            chunks = _partition(reader, _range_column(reader), exported)
        case _:
            chunks = [WHOLE_TABLE]
    same = len(chunks) == len(exported) and all(chunk in exported for chunk in chunks)
    return chunks if same else None


def _by_time(reader: Reader, kept: Kept | None) -> list[tuple[Chunk, int]]:
    time = _time(reader)
    if kept is None:
        counts = reader.counts(time.expression)
    else:
        counts = {time.number(name): rows for name, rows in kept.rows.items()}
        if numbers := [time.number(name) for name in kept.grown]:
            counts |= reader.counts(time.expression, values=numbers)
    return [(time.chunk(number), rows) for number, rows in sorted(counts.items())]


def _by_range(
    reader: Reader, exported: Sequence[Chunk], kept: Kept | None
) -> list[tuple[Chunk, int]]:
    """Return the ranges of the first column of the key; one that has doubled is split."""
    column = _range_column(reader)
    ranges = _partition(reader, column, exported)
    number = 1 + max(int(chunk.name) for chunk in ranges)
    surveyed = []
    for chunk in ranges:
        rows = _count(reader, chunk, kept)
        if rows < 2 * reader.policy.rows_per_chunk:
            surveyed.append((chunk, rows))
            continue
        parts = _split(reader, column, chunk, rows, number)
        number += len(parts) - 1
        # The first one replaces the object that has all of them: the others have to be there.
        surveyed += [(part, reader.count(part.condition)) for part in reversed(parts)]
    return surveyed


def _partition(reader: Reader, column: str, exported: Sequence[Chunk]) -> list[Chunk]:
    """Return the exported ranges so that each row is in one of them.

    A run that was interrupted while it split a range may have left ranges that overlap, or a gap.
    Each begins at its lower bound, which no other one has, and ends where the next one begins.
    """
    numbers = {chunk.bounds[0]: int(chunk.name) for chunk in exported if chunk.bounds}
    numbers.setdefault(None, 1 + max(numbers.values(), default=-1))
    inner = [bound for bound in numbers if bound is not None]
    ordered = _ordered(reader, column, inner)
    if len(set(numbers.values())) < len(numbers):
        raise DamagedRanges(f"{reader.table.name}: its manifest has two ranges of one number")
    return [
        _range(reader, column, numbers[lower], (lower, upper))
        for lower, upper in itertools.pairwise([None, *ordered, None])
    ]


def _ordered(reader: Reader, column: str, bounds: Sequence[str]) -> list[str]:
    """Return the bounds of ranges in the order of their column.

    Raises:
        DamagedRanges: they aren't values of it, or not as the server writes these.
    """
    if sum(map(len, bounds)) > MOST_OF_BOUNDS:
        raise DamagedRanges(
            f"{reader.table.name}: its manifest has bounds too long for a statement"
        )
    try:
        ordered = reader.ordered(column, bounds)
    except ServerError as error:
        if error.code not in WRONG_VALUE:
            raise
        raise DamagedRanges(
            f"{reader.table.name}: its manifest has bounds that aren't values of the column"
            f" {column}: {error}"
        ) from None
    if sorted(ordered) != sorted(bounds):
        raise DamagedRanges(
            f"{reader.table.name}: its manifest has bounds that the server writes in another way"
        )
    return ordered


def _split(reader: Reader, column: str, chunk: Chunk, rows: int, number: int) -> list[Chunk]:
    """Split a range in parts of about the wanted size; the first one keeps its name."""
    sample = reader.sample(column, chunk.condition)
    parts = max(1, round(rows / reader.policy.rows_per_chunk))
    lower, upper = chunk.bounds or (None, None)
    inner = [sample[len(sample) * part // parts] for part in range(1, parts)] if sample else []
    bounds = [lower, *(bound for bound in dict.fromkeys(inner) if bound != lower), upper]
    numbers = [int(chunk.name), *range(number, number + len(bounds))]
    pairs = itertools.pairwise(bounds)
    return [
        _range(reader, column, number, pair) for number, pair in zip(numbers, pairs, strict=False)
    ]


def _range(
    reader: Reader, column: str, number: int, bounds: tuple[str | None, str | None]
) -> Chunk:
    kind = reader.zoned_type(column)

    def value(bound: str) -> str:
        return f"CAST({literal(bound)} AS {kind})"

    lower, upper = bounds
    conditions = [f"{quoted(column)} >= {value(lower)}"] if lower is not None else []
    conditions += [f"{quoted(column)} < {value(upper)}"] if upper is not None else []
    return Chunk(f"{number:05}", " AND ".join(conditions), bounds)


def _range_column(reader: Reader) -> str:
    """Return the first column of the key, by whose values the rows are divided."""
    first = reader.policy.key[0] if reader.policy.key else first_column(reader.table.key)
    kind = reader.column_type(first)
    # A row without a value, or with one that can't be compared, would be in no range.
    if "Nullable(" in kind or kind.startswith(("Float", "BFloat")):
        raise ConfigError(
            f"tables: {reader.table.name}: chunk_by = 'range' is not for a key of type {kind}"
        )
    return first
