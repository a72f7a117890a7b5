"""The chunks of a table: how they are told apart, and what tells that one has changed."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import msgspec

from backup_config import TablePolicy
from digest import (
    FIRST_SCHEME,
    SCHEME,
    Expression,
    digest,
    expressions,
    is_sound,
    row_hash,
    split_arguments,
    sum_of_digests,
)
from inventory import QUOTED, SourceTable, first_column, merges_rows, with_utc
from ooni_common.database import Database, literal, quoted
from ooni_common.errors import ConfigError, DataRefused
from store import Number
from table_replicas import TableReplicas

SAMPLED = 10_000  # keys that are looked at to find the bounds of ranges
SAMPLED_OF_SHARDS = 2_000  # of all together: they are sorted by a statement that has them
OF_A_CLUSTER = re.compile(r"cluster\('(?:[^'\\]|\\.)*', currentDatabase\(\), (`(?:[^`\\]|\\.)*`)\)")
TIMES = ("Date", "Date32", "DateTime", "DateTime64")
STATE_TYPE = re.compile(r"\bAggregateFunction\(")
# A whole table, those without a time, a range (00001), a month (202501), a day (20250131).
ChunkName = Annotated[str, msgspec.Meta(pattern=r"^(|null|[0-9]{5,8})$")]
NO_TIME = "null"  # the chunk of the rows without a time


class Fingerprint(msgspec.Struct, frozen=True):
    """What tells whether the rows of a chunk are the same as before.

    Attributes:
        rows: how many.
        version: the highest value of the version column, as text; "" without one.
        hash: the digest of each row's key and version, or of all of it (digest.py).
        keys: how many rows there are when those with the same key have become one, about; it says
            how many are lost, and nothing of whether they are the same.
        scheme: of the digest. In the first one, `version`, `hash` and `keys` can be None, where
            each row has a NULL.
    """

    rows: Number
    version: str | None
    hash: str | None
    keys: Number | None
    scheme: str = FIRST_SCHEME

    def same_as(self, other: "Fingerprint") -> bool:
        """Tell whether the rows are the same."""
        return (self.rows, self.version, self.hash) == (other.rows, other.version, other.hash)


def combined(fingerprints: Sequence[Fingerprint]) -> Fingerprint:
    """Return the fingerprint of the rows of several shards, at least one."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    versions = sorted({one.version or "" for one in fingerprints} - {""}, key=_as_version)
    return Fingerprint(
        rows=sum(one.rows for one in fingerprints),
        version=versions[-1] if versions else "",
        hash=sum_of_digests(one.hash for one in fingerprints),
        keys=sum(one.keys or 0 for one in fingerprints),
        scheme=fingerprints[0].scheme,
    )


def _as_version(text: str) -> tuple[int, str]:
    """Return what sorts versions: numbers by their value, times as they are written."""
    return (int(text), "") if text.isdecimal() else (0, text)


class Chunk(msgspec.Struct, frozen=True):
    """A part of a table that becomes one object.

    Attributes:
        name: what tells it from the others in the name of the object; "" for a whole table.
        condition: of its rows, as SQL; "" for all.
        bounds: of a range: the lower one belongs to it, the upper one does not; None is no bound.
    """

    name: ChunkName
    condition: str
    bounds: tuple[str | None, str | None] | None = None


@dataclass(frozen=True)
class Reader:
    """Asks the database about one table, and says how its rows are read.

    Attributes:
        database: for what does not depend on the rows.
        table: what it is.
        policy: what the configuration says of it.
        settings: of the questions, as SQL; "" for none.
        in_utc: whether the server's zone is UTC, which times without a zone have. Elsewhere each
            expression names the zone. With UTC none does, so that chunks of before stay the same.
        replicas: of a cluster, those that have the rows; None: `database` has them.
    """

    database: Database
    table: SourceTable
    policy: TablePolicy
    settings: str = ""
    in_utc: bool = True
    replicas: TableReplicas | None = None

    @property
    def databases(self) -> Sequence[Database]:
        """The connections to the rows: to one node of each shard."""
        return self.replicas.databases if self.replicas else (self.database,)

    @property
    def _source(self) -> str:
        """What to select from."""
        source = quoted(self.table.name)
        return f"{source} FINAL" if self.policy.final else source

    @property
    def _key(self) -> str:
        return ", ".join(map(quoted, self.policy.key)) or self.table.key

    @property
    def _version(self) -> str:
        return quoted(self.policy.version) if self.policy.version else self.table.version

    def select(self, chunk: Chunk) -> str:
        """Return the query of a chunk's rows, in the order of the key."""
        order = f" ORDER BY {self._key}" if self._key else ""
        return f"SELECT {self._selected} FROM {self._source}{_where(chunk.condition)}{order}"

    def fingerprint(self, condition: str) -> Fingerprint:
        """Return the fingerprint of the rows under a condition."""
        sql = f"SELECT {self._figures} FROM {self._source}{_where(condition)}"
        return combined([Fingerprint(*figures) for (figures,) in self._ask_shards(sql)])

    def fingerprints(self, expression: str) -> dict[int, Fingerprint]:
        """Return the fingerprint of the rows for each value of an expression of integers."""
        # No alias: it would stand for a column of the same name wherever that is hashed.
        shards = self._ask_shards(
            f"SELECT toInt64({expression}), {self._figures} FROM {self._source}"
            f" GROUP BY toInt64({expression}) ORDER BY toInt64({expression})"
        )
        fingerprints: dict[int, list[Fingerprint]] = {}
        for chunk, *figures in itertools.chain.from_iterable(shards):
            fingerprints.setdefault(chunk, []).append(Fingerprint(*figures))
        return {chunk: combined(fingerprints[chunk]) for chunk in sorted(fingerprints)}

    def trusts(self, fingerprint: Fingerprint) -> bool:
        """Tell whether an earlier fingerprint has seen every row and every value."""
        by_time = self.policy.chunk_by in ("month", "day")
        return is_sound(self._hashed, fingerprint.scheme, ("chunk",) if by_time else ())

    def sample(self, column: str, condition: str) -> list[str]:
        """Return values of a column, in their order, from rows all over the table."""
        conditions = [condition] if condition else []
        if _name_of_type(self.column_type(column)) == "String":
            conditions.append(f"isValidUTF8({quoted(column)})")  # for JSON
        where = _where(" AND ".join(conditions))
        count = len(self.databases)
        size = SAMPLED if count == 1 else SAMPLED_OF_SHARDS // count
        shards = self._ask_shards(
            "SELECT arrayMap(value -> toString(value), arraySort(groupArraySample"
            f"({size}, 1)({self._value(column)}))) FROM {self._source}{where}"
        )
        values = [value for ((sampled,),) in shards for value in sampled]
        return values if count == 1 else self.ordered(column, values)

    def ordered(self, column: str, values: Sequence[str]) -> list[str]:
        """Return values of a column, given as text, in the order of its type."""
        kind = self.zoned_type(column)
        listed = ", ".join(f"CAST({literal(value)} AS {kind})" for value in values)
        settings = f" SETTINGS {self.settings}" if self.settings else ""
        ((ordered,),) = self.databases[0].query(
            f"SELECT arrayMap(value -> toString(value), arraySort([{listed}])){settings}"
        )
        return list(ordered)

    def column_type(self, name: str) -> str:
        """Return the type of a column.

        Raises:
            ConfigError: there is none of this name.
        """
        types = {column.name: column.type for column in self.table.columns}
        if name not in types:
            raise ConfigError(f"tables: {self.table.name}: there is no column {name!r}")
        return types[name]

    def zoned_type(self, column: str) -> str:
        """Return the type of a column, with UTC as the zone of times that have none."""
        kind = self.column_type(column)
        return kind if self.in_utc else with_utc(kind)

    def _value(self, column: str) -> str:
        """Return a column as SQL, with UTC as the zone of times that have none."""
        kind = self.zoned_type(column)
        if kind == self.column_type(column):
            return quoted(column)
        return f"CAST({quoted(column)} AS {kind})"

    @property
    def _selected(self) -> str:
        """The columns as SQL, each under its name."""
        names = [column.name for column in self.table.columns]
        values = {name: self._value(name) for name in names}
        return ", ".join(
            value if value == quoted(name) else f"{value} AS {quoted(name)}"
            for name, value in values.items()
        )

    def _ask_shards(self, sql: str) -> list[list[tuple[Any, ...]]]:
        """Return the answer of each shard."""
        settings = f" SETTINGS {self.settings}" if self.settings else ""
        return [database.query(f"{sql}{settings}") for database in self.databases]

    @cached_property
    def _figures(self) -> str:
        """What makes a fingerprint, as SQL."""
        version = self._version
        # A manifest has no text that isn't UTF-8.
        highest = f"ifNull(toValidUTF8(toString(max({version}))), '')" if version else "''"
        try:
            hashed = digest(self._hashed)
        except DataRefused as error:
            raise DataRefused(f"{self.table.name}: {error}") from None
        merged = self._key and (version or merges_rows(self.table.engine))
        keys = f"uniqCombined64({row_hash(self._keys)})" if merged else "count()"
        return f"count(), {highest}, {hashed}, {keys}, {literal(SCHEME)}"

    @cached_property
    def _hashed(self) -> list[Expression]:
        """What tells whether a row is the same: its key and version, or all of it."""
        if self._version and self._key:
            return self._keys + self._typed([self._version])
        return self._typed([quoted(column.name) for column in self.table.columns])

    @cached_property
    def _keys(self) -> list[Expression]:
        return self._typed(split_arguments(self._key))

    def _typed(self, texts: Sequence[str]) -> list[Expression]:
        return expressions(self.databases[0], texts, self._source)


def of_one_server(query: str) -> str:
    """Return the query of a chunk that 2.0.x asked of a cluster, as it is now."""
    return OF_A_CLUSTER.sub(r"\1", query)


def survey(reader: Reader, exported: Sequence[Chunk]) -> list[tuple[Chunk, Fingerprint]]:
    """Return the chunks that a table has now, and their fingerprints.

    Args:
        reader: of the table.
        exported: the chunks of the last export. Ranges stay as they are, unless they have grown.
    """
    _check_columns(reader)
    match reader.policy.chunk_by:
        case "month":
            return _by_time(reader, "toYYYYMM")
        case "day":
            return _by_time(reader, "toYYYYMMDD")
        case "range":
            return _by_range(reader, exported)
    return [(Chunk("", ""), reader.fingerprint(""))]


def check_chunks(reader: Reader) -> None:
    """Raise ConfigError where a table can't be divided in the way that the policy says."""
    _check_columns(reader)
    if reader.policy.chunk_by in ("month", "day"):
        _time_column(reader)
    elif reader.policy.chunk_by == "range":
        _range_column(reader)


def _check_columns(reader: Reader) -> None:
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


def _time_column(reader: Reader) -> tuple[str, str]:
    """Return the name and the type of the column by whose month or day the rows are divided."""
    name = reader.policy.column
    kind = reader.column_type(name)
    if _name_of_type(kind) not in TIMES:
        raise ConfigError(
            f"tables: {reader.table.name}: {name!r} is of type {kind}, not a date or time"
        )
    return name, kind


def _by_time(reader: Reader, function: str) -> list[tuple[Chunk, Fingerprint]]:
    name, kind = _time_column(reader)
    column = quoted(name)
    # The month of a time without a zone is that of the server's zone, whatever the session's is.
    value = f"{function}({column})"
    if reader.zoned_type(name) != kind:
        value = f"{function}({column}, 'UTC')"
    nullable = "Nullable(" in kind
    fingerprints = reader.fingerprints(f"ifNull({value}, 0)" if nullable else value)

    def chunk(number: int) -> Chunk:
        if nullable and number == 0:
            return Chunk(NO_TIME, f"{column} IS NULL")
        return Chunk(str(number), f"{value} = {number}")

    return [(chunk(number), fingerprint) for number, fingerprint in fingerprints.items()]


def _by_range(reader: Reader, exported: Sequence[Chunk]) -> list[tuple[Chunk, Fingerprint]]:
    """Return the ranges of the first column of the key; one that has doubled is split."""
    column = _range_column(reader)
    ranges = _partition(reader, column, exported)
    number = 1 + max(int(chunk.name) for chunk in ranges)
    surveyed = []
    for chunk in ranges:
        fingerprint = reader.fingerprint(chunk.condition)
        if fingerprint.rows < 2 * reader.policy.rows_per_chunk:
            surveyed.append((chunk, fingerprint))
            continue
        parts = _split(reader, column, chunk, fingerprint.rows, number)
        number += len(parts) - 1
        # The first one replaces the object that has all of them: the others have to be there.
        surveyed += [(part, reader.fingerprint(part.condition)) for part in reversed(parts)]
    return surveyed


def _partition(reader: Reader, column: str, exported: Sequence[Chunk]) -> list[Chunk]:
    """Return the exported ranges so that each row is in one of them.

    A run that was interrupted while it split a range may have left ranges that overlap, or a gap.
    Each begins at its lower bound, which no other one has, and ends where the next one begins.
    """
    numbers = {chunk.bounds[0]: int(chunk.name) for chunk in exported if chunk.bounds}
    numbers.setdefault(None, 1 + max(numbers.values(), default=-1))
    inner = [bound for bound in numbers if bound is not None]
    bounds = [None, *reader.ordered(column, inner), None]
    return [
        _range(reader, column, numbers[lower], (lower, upper))
        for lower, upper in itertools.pairwise(bounds)
    ]


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


def _name_of_type(kind: str) -> str:
    """Return the name of a type without LowCardinality, Nullable and parameters."""
    for wrapper in ("LowCardinality(", "Nullable("):
        kind = kind.removeprefix(wrapper)
    return kind.partition("(")[0].rstrip(")")


def _where(condition: str) -> str:
    return f" WHERE {condition}" if condition else ""
