"""How the rows of a table are read, counted and told from earlier ones: the questions about it."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import msgspec

from exports.fingerprint import Fingerprint, combined, of_merged
from ooni_common.database import Database, literal, quoted
from ooni_common.errors import ConfigError, DataRefused
from tables.blocks import Changes
from tables.digest import (
    SCHEME,
    Expression,
    digest,
    expressions,
    is_sound,
    row_hash,
    split_arguments,
)
from tables.inventory import SourceTable, merges_rows, with_utc, without_zones
from tables.policy import TablePolicy
from tables.replicas import TableReplicas

SAMPLED = 10_000  # keys that are looked at to find the bounds of ranges
SAMPLED_OF_SHARDS = 2_000  # of all together: they are sorted by a statement that has them
NOT_AS_DEMANDED = 395  # a code of ClickHouse: throwIf
# Merges never make one row of those of several partitions.
AS_MERGES = "do_not_merge_across_partitions_select_final = 1"
# A whole table, those without a time, a range (00001), a month (202501), a day (20250131).
CHUNK_NAME = r"(|null|[0-9]{5,8})"
ChunkName = Annotated[str, msgspec.Meta(pattern=rf"^{CHUNK_NAME}\Z")]


class Chunk(msgspec.Struct, frozen=True):
    """A part of a table that becomes one object.

    Attributes:
        name: what tells it from the others in the name of the object; "" for a whole table.
        condition: of its rows, as SQL; "" for all.
        bounds: of a range: the lower one belongs to it, the upper one does not; None: unbounded.
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
    def bytes_read(self) -> int:
        """How many bytes of columns the servers have read so far, as they say."""
        return sum(database.bytes_read for database in self.databases)

    @property
    def _source(self) -> str:
        """What to select from."""
        return self._source_of(merged=self.policy.final)

    def _source_of(self, *, merged: bool) -> str:
        source = quoted(self.table.name)
        return f"{source} FINAL" if merged or self.policy.final else source

    @property
    def _key(self) -> str:
        return ", ".join(map(quoted, self.policy.key)) or self.table.key

    @property
    def _version(self) -> str:
        return quoted(self.policy.version) if self.policy.version else self.table.version

    def select(self, chunk: Chunk, demand: str = "", types: Mapping[str, str] | None = None) -> str:
        """Return the query of a chunk's rows, in the order of the key.

        Args:
            chunk: which rows.
            demand: fails with NOT_AS_DEMANDED at the first of them of which this is not true, as
                SQL; rows of other chunks may be anything.
            types: of columns that are to have others.
        """
        order = f" ORDER BY {self._key}" if self._key else ""
        where = _where(chunk.condition)
        if demand:
            ours = f"ifNull({chunk.condition}, 0) AND " if chunk.condition else ""
            check = f"throwIf({ours}NOT ({demand})) = 0"
            where = _where(f"{chunk.condition} AND {check}" if chunk.condition else check)
        return f"SELECT {self._selected(types)} FROM {self._source}{where}{order}"

    def select_unordered(self, types: Mapping[str, str] | None = None) -> str:
        """Return the query of all rows, as `select`, in whatever order is quick."""
        return f"SELECT {self._selected(types)} FROM {self._source}"

    def count(self, condition: str, changes: Changes | None = None) -> int:
        """Return the number of rows under a condition; with changes, in the parts these name."""
        counts = self._ask_parts("count()", condition, "", changes)
        return sum(count for ((count,),) in counts)

    def counts_of(self, conditions: Sequence[str], chunk: Chunk) -> list[int]:
        """Return the number of rows of a chunk under each of some conditions."""
        selected = ", ".join(f"countIf({condition})" for condition in conditions)
        shards = self._ask_parts(f"tuple({selected})", chunk.condition, "", None)
        return [sum(counts) for counts in zip(*(row for ((row,),) in shards), strict=True)]

    def counts(
        self,
        expression: str,
        changes: Changes | None = None,
        values: Collection[int] | None = None,
    ) -> dict[int, int]:
        """Return the number of rows for each value of an expression of integers, or for some.

        With changes, in the parts that these name.
        """
        counts: dict[int, int] = {}
        selected, group = f"toInt64({expression}), count()", f" GROUP BY toInt64({expression})"
        condition = "" if values is None else _among(expression, values)
        for shard in self._ask_parts(selected, condition, group, changes):
            for value, count in shard:
                counts[value] = counts.get(value, 0) + count
        return dict(sorted(counts.items()))

    @property
    def digests_merged(self) -> bool:
        """Whether digests are of the rows that merges will leave, though all are exported.

        Else a merge that drops some would be a change.
        """
        return merges_rows(self.table.engine) and not self.policy.final

    def fingerprint(
        self, condition: str, *, whole: bool = False, stored: bool = False
    ) -> Fingerprint:
        """Return the fingerprint of the rows under a condition.

        Args:
            condition: as SQL; "" for all rows.
            whole: of all columns, too.
            stored: of all rows that are stored, also where merges will drop some.
        """
        merged = self.digests_merged and not stored
        sql = (
            f"SELECT {self._figures_of(whole=whole)} FROM {self._source_of(merged=merged)}"
            f"{_where(condition)}"
        )
        answers = self._ask_shards(sql, AS_MERGES if merged else "")
        read = combined([Fingerprint(*figures) for (figures,) in answers])
        return of_merged(read, self.count(condition)) if merged else read

    def fingerprints(
        self,
        expression: str,
        values: Collection[int],
        *,
        whole: bool = False,
        stored: bool = False,
    ) -> dict[int, Fingerprint]:
        """Return those of the rows for these values of an expression of integers, as above."""
        merged = self.digests_merged and not stored
        # No alias: it would stand for a column of the same name wherever that is hashed.
        shards = self._ask_shards(
            f"SELECT toInt64({expression}), {self._figures_of(whole=whole)}"
            f" FROM {self._source_of(merged=merged)}"
            f" WHERE {_among(expression, values)} GROUP BY toInt64({expression})",
            AS_MERGES if merged else "",
        )
        fingerprints: dict[int, list[Fingerprint]] = {}
        for chunk, *figures in itertools.chain.from_iterable(shards):
            fingerprints.setdefault(chunk, []).append(Fingerprint(*figures))
        read = {chunk: combined(shards) for chunk, shards in fingerprints.items()}
        if not merged:
            return read
        rows = self.counts(expression, values=values)
        return {chunk: of_merged(one, rows.get(chunk, 0)) for chunk, one in read.items()}

    def check(self) -> None:
        """Raise DataRefused for a column whose values can't be compared."""
        _ = self._figures

    @property
    def merges(self) -> bool:
        """Whether of rows with the same key only one counts."""
        return bool(self._key) and bool(self._version or merges_rows(self.table.engine))

    def trusts(self, fingerprint: Fingerprint) -> bool:
        """Tell whether an earlier fingerprint has seen every row and every value."""
        by_time = self.policy.chunk_by in ("month", "day")
        return is_sound(self._hashed, fingerprint.scheme, ("chunk",) if by_time else ())

    def sample(self, column: str, condition: str) -> list[str]:
        """Return values of a column, in their order, from rows all over the table."""
        conditions = [condition] if condition else []
        if name_of_type(self.column_type(column)) == "String":
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
        """Return the type of a column as it is exported: all its times are UTC."""
        kind = without_zones(self.column_type(column))
        return kind if self.in_utc else with_utc(kind)

    def _value(self, column: str, types: Mapping[str, str] | None = None) -> str:
        """Return a column as SQL, with all its times in UTC."""
        kind = (types or {}).get(column) or self.zoned_type(column)
        if kind == self.column_type(column):
            return quoted(column)
        return f"CAST({quoted(column)} AS {kind})"

    def _selected(self, types: Mapping[str, str] | None) -> str:
        """Return the columns as SQL, each under its name."""
        names = [column.name for column in self.table.columns]
        values = {name: self._value(name, types) for name in names}
        return ", ".join(
            value if value == quoted(name) else f"{value} AS {quoted(name)}"
            for name, value in values.items()
        )

    def _ask_parts(
        self, selected: str, condition: str, group: str, changes: Changes | None
    ) -> list[list[tuple[Any, ...]]]:
        """Return the answer of each shard about its rows, or about those in the parts named."""
        if changes is None:
            return self._ask_shards(
                f"SELECT {selected} FROM {self._source}{_where(condition)}{group}"
            )
        settings = f" SETTINGS {self.settings}" if self.settings else ""
        answers = []
        for database, parts in zip(self.databases, changes.parts, strict=True):
            if not parts:
                continue
            named = f"_part IN ({', '.join(map(literal, parts))})"
            where = _where(f"{named} AND {condition}" if condition else named)
            sql = f"SELECT {selected} FROM {quoted(self.table.name)}{where}{group}{settings}"
            answers.append(database.query(sql))
        return answers

    def _ask_shards(self, sql: str, setting: str = "") -> list[list[tuple[Any, ...]]]:
        """Return the answer of each shard."""
        settings = ", ".join(filter(None, (self.settings, setting)))
        clause = f" SETTINGS {settings}" if settings else ""
        return [database.query(f"{sql}{clause}") for database in self.databases]

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
        keys = f"uniqCombined64({row_hash(self._keys)})" if self.merges else "count()"
        return f"count(), {highest}, {hashed}, {keys}, {literal(SCHEME)}"

    def _figures_of(self, *, whole: bool) -> str:
        """Return what makes a fingerprint, as SQL, and the digest of all columns, if asked."""
        if not (whole and self.has_version):
            return self._figures
        try:
            return f"{self._figures}, {digest(self._all)}"
        except DataRefused:  # a type that can't be compared, in a column that is not of the key
            return self._figures

    @property
    def has_version(self) -> bool:
        """Whether key and version tell whether a row is the same, unless cells were changed."""
        return bool(self._version and self._key)

    @cached_property
    def _hashed(self) -> list[Expression]:
        """What tells whether a row is the same: its key and version, or all of it."""
        if self.has_version:
            return self._keys + self._typed([self._version])
        return self._all

    @cached_property
    def _all(self) -> list[Expression]:
        return self._typed([quoted(column.name) for column in self.table.columns])

    @cached_property
    def _keys(self) -> list[Expression]:
        return self._typed(split_arguments(self._key))

    def _typed(self, texts: Sequence[str]) -> list[Expression]:
        return expressions(self.databases[0], texts, self._source)


def name_of_type(kind: str) -> str:
    """Return the name of a type without LowCardinality, Nullable and parameters."""
    for wrapper in ("LowCardinality(", "Nullable("):
        kind = kind.removeprefix(wrapper)
    return kind.partition("(")[0].rstrip(")")


def _among(expression: str, values: Collection[int]) -> str:
    """Return the condition that an expression of integers has one of some values."""
    return f"toInt64({expression}) IN ({', '.join(map(str, sorted(values)))})"


def _where(condition: str) -> str:
    return f" WHERE {condition}" if condition else ""
