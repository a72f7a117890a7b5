"""What parts tell of rows, after whatever has happened to a table.

A table is made up here that knows its rows: blocks come, are merged, changed by mutations, dropped.
What its parts call unchanged has to be unchanged.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from tables.blocks import Part, ShardParts, Snapshot

SEEDS = 600
STEPS = 8  # before a snapshot is taken, and after it
PARTITIONS = ("202401", "202402")
ROWS = 5  # of a block
FIRST = 120  # number of a block


@dataclass
class Stored:
    """A part; of each of its blocks, what was inserted and which mutation changed it last."""

    part: Part
    rows: dict[int, tuple[int, int]]


@dataclass
class Table:
    """A table of two partitions.

    Attributes:
        draw: decides what happens.
        replicated: each partition counts its blocks, and some are late; else the table does.
        merges_rows: an insert has parts of level 1, and rows are merged.
        now: seconds.
        started: when the server was.
        stored: the parts.
        taken: the highest number that was given to a block or a mutation, by partition.
        late: blocks that have a number, and are not here yet.
        inserted: how many blocks.
        drops, mutations: how many there were.
    """

    draw: random.Random
    replicated: bool
    merges_rows: bool
    now: int = 0
    started: int = 0
    stored: list[Stored] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTITIONS, FIRST - 1))
    late: list[tuple[str, int]] = field(default_factory=list)
    inserted: int = 0
    drops: int = 0
    mutations: int = 0

    def number(self, partition: str) -> int:
        """Return the next number of a partition, or of the table."""
        counted = (partition,) if self.replicated else PARTITIONS
        for name in counted:
            self.taken[name] += 1
        return self.taken[partition]

    def put(self, partition: str, number: int) -> None:
        """Let a block be here."""
        self.inserted += 1
        name = f"{partition}_{number}_{number}_{int(self.merges_rows)}"
        part = Part(partition, name, number, number, number, self.now, ROWS)
        self.add(Stored(part, {number: (self.inserted, 0)}))

    def add(self, one: Stored) -> None:
        """Put a part in its place."""
        self.stored.append(one)
        self.stored.sort(key=lambda stored: (stored.part.partition, stored.part.first))

    def insert(self) -> None:
        """Give a block its number; it is here, or late."""
        partition = self.draw.choice(PARTITIONS)
        number = self.number(partition)
        if self.replicated and self.draw.random() < 0.3:
            self.late.append((partition, number))
        else:
            self.put(partition, number)

    def fetch(self) -> None:
        """Let a late block be here."""
        if self.late:
            self.put(*self.late.pop(self.draw.randrange(len(self.late))))

    def merge(self) -> None:
        """Make a part of some, between which no block is late."""
        partition = self.draw.choice(PARTITIONS)
        here = [one for one in self.stored if one.part.partition == partition]
        start = self.draw.randrange(len(here) + 1)
        merged = here[start : start + self.draw.randint(1, 3)]
        if len({one.part.mutation for one in merged}) != 1:
            return
        first, last = merged[0].part.first, merged[-1].part.last
        if any(late == partition and first < number < last for late, number in self.late):
            return
        version, mutation = merged[0].part.version, merged[0].part.mutation
        level = 1 + max(int(one.part.name.split("_")[3]) for one in merged)
        name = f"{partition}_{first}_{last}_{level}" + (f"_{version}" if mutation else "")
        rows = {number: row for one in merged for number, row in one.rows.items()}
        part = Part(partition, name, first, last, version, self.now, ROWS * len(rows))
        self.stored = [one for one in self.stored if one not in merged]
        self.add(Stored(part, rows))

    def mutate(self) -> None:
        """Change all rows that are here."""
        self.mutations += 1
        if self.replicated:
            numbers = {partition: self.number(partition) for partition in PARTITIONS}
        else:
            numbers = dict.fromkeys(PARTITIONS, self.number(PARTITIONS[0]))
        for one in self.stored:
            number = numbers[one.part.partition]
            name = "_".join([*one.part.name.split("_")[:4], str(number)])
            one.part = replace(one.part, name=name, version=number, modified=self.now)
            one.rows = {block: (row, number) for block, (row, _) in one.rows.items()}

    def drop(self) -> None:
        """Drop a part."""
        if self.stored:
            self.drops += 1
            self.stored.pop(self.draw.randrange(len(self.stored)))

    def restart(self) -> None:
        """Start the server again, which counts from the highest number that it has."""
        self.started = self.now
        if not self.replicated:
            highest = max((one.part.last for one in self.stored), default=FIRST - 1)
            self.taken = dict.fromkeys(PARTITIONS, highest)

    def go_on(self, *what: Callable[["Table"], None]) -> None:
        """Let something happen, some times."""
        for _ in range(self.draw.randint(0, STEPS)):
            self.now += 1
            self.draw.choice(what)(self)
        self.now += 1

    def shard(self) -> ShardParts:
        """Return what system.parts tells of it."""
        return ShardParts(
            "uuid",
            "/path" if self.replicated else "",
            self.now,
            "columns",
            [one.part for one in self.stored],
            merges_rows=self.merges_rows,
            started=self.started,
        )

    def rows(self, partition: str = "") -> set[tuple[int, int]]:
        """Return the rows of all, or of a partition."""
        return {
            row
            for one in self.stored
            if partition in ("", one.part.partition)
            for row in one.rows.values()
        }


HAPPENS = (Table.insert, Table.insert, Table.fetch, Table.merge, Table.merge, Table.mutate)
KINDS = pytest.mark.parametrize(
    ("replicated", "merges_rows"), [(False, False), (False, True), (True, False), (True, True)]
)


@KINDS
def test_parts_tell_of_every_change(*, replicated: bool, merges_rows: bool) -> None:
    # Where rows are merged, nothing tells that a part between two others was dropped.
    happens = HAPPENS if merges_rows else (*HAPPENS, Table.drop)
    seen = set()
    for seed in range(SEEDS):
        table = Table(random.Random(seed), replicated, merges_rows)
        table.go_on(*happens)
        before, rows = table.shard(), table.rows()
        table.go_on(*happens)
        changes = Snapshot((table.shard(),)).changes(Snapshot((before,)).storage)
        assert changes is not None
        new = {one.part.name for one in table.stored if not set(one.rows.values()) <= rows}
        were, are = dict(rows), dict(table.rows())
        gone = were.keys() - are.keys()
        changed = any(were[one] != are[one] for one in were.keys() & are.keys())
        assert new <= set(changes.parts[0]), seed
        assert changes.mutated == changed, seed
        if gone:
            assert not (changes.complete and changes.adds_up), seed
        if not table.drops and table.mutations < 2:
            assert (changes.complete, set(changes.parts[0])) == (True, new), seed
        seen.add((bool(new), bool(gone), changed, changes.same_parts))
    assert {(False, False, False, True), (True, False, False, False)} < seen


@KINDS
def test_parts_tell_which_partitions_are_unchanged(*, replicated: bool, merges_rows: bool) -> None:
    happens = HAPPENS if merges_rows else (*HAPPENS, Table.drop)
    numbers = set()
    for seed in range(SEEDS):
        table = Table(random.Random(seed), replicated, merges_rows)
        table.go_on(*happens)
        before = table.shard()
        rows = {partition: table.rows(partition) for partition in PARTITIONS}
        table.go_on(*happens, Table.restart)
        unchanged = table.shard().unchanged_partitions(before.storage)
        numbers.add(len(unchanged))
        for partition in unchanged:
            assert table.rows(partition) == rows[partition], seed
        was = [part for part in before.parts if part.partition in PARTITIONS]
        counts = replicated or table.started <= before.taken
        for partition in {part.partition for part in was} if counts else ():
            parts = [part for part in table.shard().parts if part.partition == partition]
            if parts == [part for part in was if part.partition == partition]:
                assert partition in unchanged, seed
    assert numbers == {0, 1, 2}


@KINDS
def test_what_a_manifest_remembers_is_small_and_complete(
    *, replicated: bool, merges_rows: bool
) -> None:
    for seed in range(SEEDS):
        table = Table(random.Random(seed), replicated, merges_rows)
        table.go_on(*HAPPENS, Table.drop)
        storage = table.shard().storage
        blocks = {
            partition: {number for first, last, _ in spans for number in range(first, last + 1)}
            for partition, spans in storage.partitions.items()
        }
        covered: dict[str, set[int]] = {}
        for one in table.stored:
            numbers = range(one.part.first, one.part.last + 1)
            covered.setdefault(one.part.partition, set()).update(numbers)
        assert blocks == covered, seed
        assert storage.rows == {name: ROWS * len(table.rows(name)) for name in covered}
        for partition, spans in storage.partitions.items():
            parts = [one.part for one in table.stored if one.part.partition == partition]
            assert len(spans) <= len(parts)
            gaps = [a.last + 1 for a, b in itertools.pairwise(parts) if b.first > a.last + 1]
            if not table.mutations:
                assert len(spans) == len(gaps) + 1, seed
