"""What the parts of a table tell of its rows, so that rows need not be read to know them unchanged.

Every insert writes a part with a number of its own, its block; a merge makes one part of several,
which has their blocks; a mutation writes each part again, with a version that is the number of the
mutation. So a part whose blocks were all there, and which no later mutation has written, has the
same rows as before, however it was merged and whichever replica answers.

The server does not say so of everything. A table with a TTL loses rows while parts are merged: of
these, parts only tell where rows have come, and all are counted. An UPDATE that writes patches
changes rows of other parts: of these, and of other engines than MergeTree, nothing is told here,
and the digest of the rows decides (chunks.py).
"""

import bisect
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

import msgspec
from msgspec import Meta

from documents import Number

# Of neighbouring parts: the first and the last block, and the version.
Span = tuple[Number, Number, Number]
Spans = Annotated[tuple[Span, ...], Meta(max_length=10_000)]


class ShardStorage(msgspec.Struct, frozen=True):
    """The blocks that a table has on one shard.

    Attributes:
        table: its UUID; in a database that gives none, since when it is defined as it is.
        path: in ZooKeeper, of a replicated table: replicas can have UUIDs of their own.
        taken: when, as Unix time.
        columns: a hash of the engine, and of names, types and defaults.
        partitions: by ID, the blocks, in their order.
        rows: by ID, how many the parts had; nothing where that was not noted.
    """

    table: str
    path: str
    taken: Number
    columns: str
    partitions: dict[str, Spans]
    rows: dict[str, Number] = {}


class Storage(msgspec.Struct, frozen=True):
    """The blocks that a table has; what a manifest remembers of its parts."""

    shards: Annotated[tuple[ShardStorage, ...], Meta(max_length=1000)]

    @property
    def name(self) -> str:
        """Return what tells it from others."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


@dataclass(frozen=True)
class Part:
    """A part of a table: its blocks, from the first to the last, its version, since when, rows."""

    partition: str
    name: str
    first: int
    last: int
    version: int
    modified: int
    rows: int = 0

    @property
    def mutation(self) -> int:
        """The number of the mutation that has written it; 0 for none."""
        return 0 if self.version == self.first else self.version

    @property
    def is_one_block(self) -> bool:
        """Whether no merge has made it of several: it was inserted, or attached, as one."""
        return self.first == self.last

    def is_insert(self, level: int) -> bool:
        """Tell whether it is as it was inserted, where inserts have parts of up to this level."""
        name = f"{self.partition}_{self.first}_{self.last}_"
        return self.is_one_block and self.name in {f"{name}{one}" for one in range(level + 1)}


@dataclass(frozen=True)
class Changes:
    """How the parts differ from those of before.

    Attributes:
        parts: on each shard, the names of those that may have rows that were not there.
        complete: whether all blocks of before are there: none was dropped.
        mutated: whether rows of before were changed or deleted.
        behind: whether blocks are missing on a replica that has yet to carry out some of the log of
            all of them, so that it may never have had them.
        expires: whether merges may delete rows or change cells, as a TTL says.
        adds_up: whether the earlier parts still have as many rows. A merge can hide that a part
            between two others was dropped; of one with new rows nobody knows.
    """

    parts: tuple[tuple[str, ...], ...]
    complete: bool
    mutated: bool
    behind: bool = False
    adds_up: bool = True
    expires: bool = False

    @property
    def any_parts(self) -> bool:
        """Whether there may be other rows than before."""
        return any(self.parts)

    @property
    def keeps_rows(self) -> bool:
        """Whether rows can only have been added, or merged with others of the same key."""
        return self.complete and not self.mutated and not self.expires

    @property
    def same_parts(self) -> bool:
        """Whether the parts tell of no change."""
        return self.complete and self.adds_up and not self.any_parts


@dataclass(frozen=True)
class ShardParts:
    """The parts of a table on one shard, in the order of their blocks.

    Attributes:
        lag: how many entries of the replicas' log were to be carried out, before they were listed.
        merges_rows: whether there can be fewer rows after a merge.
        started: when the server was, as Unix time by its own clock.
    """

    table: str
    path: str
    taken: int
    columns: str
    parts: Sequence[Part]
    lag: int = 0
    merges_rows: bool = False
    started: int = 0

    @cached_property
    def storage(self) -> ShardStorage:
        """What a manifest remembers of them."""
        partitions: dict[str, list[Span]] = {}
        rows: dict[str, int] = {}
        for part in self.parts:
            rows[part.partition] = rows.get(part.partition, 0) + part.rows
            spans = partitions.setdefault(part.partition, [])
            if spans and _continues(spans[-1], part):
                spans[-1] = (spans[-1][0], part.last, spans[-1][2])
            else:
                spans.append((part.first, part.last, part.version))
        return ShardStorage(
            self.table,
            self.path,
            self.taken,
            self.columns,
            {name: tuple(partitions[name]) for name in sorted(partitions)},
            {name: rows[name] for name in sorted(rows)},
        )

    def is_of(self, earlier: ShardStorage) -> bool:
        """Tell whether this is the table that had the blocks, on whichever replica.

        A table that was made again under the path of another one has none of its parts.
        """
        if self.columns != earlier.columns:
            return False
        return self.table == earlier.table or (
            self.path == earlier.path != ""
            and any(
                part.modified <= earlier.taken and _within(part, earlier) for part in self.parts
            )
        )

    def new_since(self, earlier: ShardStorage) -> list[Part]:
        """Return the parts with blocks, or written by a mutation, that were not there."""
        return [part for part in self.parts if self._is_new(part, earlier)]

    def is_mutated(self, part: Part, earlier: ShardStorage) -> bool:
        """Tell whether a later mutation has written blocks that were there."""
        return any(part.mutation > version for _, _, version in _within(part, earlier))

    def _is_new(self, part: Part, earlier: ShardStorage) -> bool:
        spans = _within(part, earlier)
        if not spans or part.last > earlier.partitions[part.partition][-1][1]:
            return True
        if self.is_mutated(part, earlier) or self._is_again(part, earlier):
            return True
        # A replica gives blocks their numbers before it has them: one that came later can lie
        # between two that were there. A mutation takes a number, too, which no block has.
        numbers = {part.mutation, *(version for _, _, version in spans)}
        return self.path != "" and any(
            gap not in numbers or gap + 1 != end for gap, end in _gaps(part, spans)
        )

    def _is_again(self, part: Part, earlier: ShardStorage) -> bool:
        """Tell whether a part was inserted with the number of a block that was dropped.

        Replicas give no number twice. A part that was merged alone (OPTIMIZE FINAL) has a higher
        level, and its rows are the same.
        """
        # Engines that merge rows do so with those of an insert (optimize_on_insert).
        level = 1 if self.merges_rows else 0
        return self.path == "" and part.modified > earlier.taken and part.is_insert(level)

    def unchanged_partitions(self, earlier: ShardStorage) -> list[str]:
        """Return the IDs of the partitions whose rows are as they were, but for merges.

        A server counts from the highest number that it has when it starts. What was inserted since
        and merged, nobody tells from what was dropped before.
        """
        if self.path == "" and self.started > earlier.taken:
            return []
        parts: dict[str, list[Part]] = {}
        for part in self.parts:
            parts.setdefault(part.partition, []).append(part)
        return [
            name
            for name, spans in earlier.partitions.items()
            if replace(self, parts=parts.get(name, [])).has_same_rows(
                msgspec.structs.replace(
                    earlier, partitions={name: spans}, rows={name: earlier.rows.get(name, 0)}
                )
            )
        ]

    def has_same_rows(self, earlier: ShardStorage) -> bool:
        """Tell whether the rows are as they were, but for merges.

        Where there are no replicas, a number of a block that was dropped can be used again, also by
        a part of another table, of whatever level.
        """
        again = self.path == "" and any(
            part.is_one_block and part.modified > earlier.taken for part in self.parts
        )
        new = self.new_since(earlier)
        return not (again or new) and self.is_complete(earlier) and self.adds_up(earlier, new)

    def adds_up(self, earlier: ShardStorage, new: Collection[Part]) -> bool:
        """Tell whether the parts that are not new have the rows that there were."""
        if self.merges_rows:
            return True
        rows = dict(earlier.rows)
        for part in self.parts:
            if part not in new:
                rows[part.partition] = rows.get(part.partition, 0) - part.rows
            elif _within(part, earlier):
                return False
        return not any(rows.values())

    def is_complete(self, earlier: ShardStorage) -> bool:
        """Tell whether all blocks of before are in the parts."""
        covered: dict[str, list[tuple[int, int]]] = {}
        for part in self.parts:
            if self._is_again(part, earlier):
                continue
            spans = covered.setdefault(part.partition, [])
            if spans and part.first <= spans[-1][1] + 1:
                spans[-1] = (spans[-1][0], max(spans[-1][1], part.last))
            else:
                spans.append((part.first, part.last))
        for partition, wanted in earlier.partitions.items():
            spans = covered.get(partition, [])
            for first, last, _ in wanted:
                place = bisect.bisect_right(spans, (first, 2**63)) - 1
                if place < 0 or spans[place][1] < last:
                    return False
        return True


@dataclass(frozen=True)
class Snapshot:
    """The parts of a table at one time, shard by shard.

    Attributes:
        shards: one after the other.
        expires: whether the table has a TTL.
    """

    shards: tuple[ShardParts, ...]
    expires: bool = False

    @cached_property
    def storage(self) -> Storage:
        """What a manifest remembers of them."""
        return Storage(tuple(shard.storage for shard in self.shards))

    def changes(self, earlier: Storage | None) -> Changes | None:
        """Return how the parts differ from those of before; None: they can't be compared."""
        if earlier is None or len(earlier.shards) != len(self.shards):
            return None
        pairs = list(zip(self.shards, earlier.shards, strict=True))
        if not all(now.is_of(then) for now, then in pairs):
            return None
        new = [now.new_since(then) for now, then in pairs]
        complete = [now.is_complete(then) for now, then in pairs]
        return Changes(
            parts=tuple(tuple(part.name for part in parts) for parts in new),
            complete=all(complete),
            expires=self.expires,
            behind=any(
                shard.lag and not whole for shard, whole in zip(self.shards, complete, strict=True)
            ),
            adds_up=all(
                now.adds_up(then, frozenset(parts))
                for (now, then), parts in zip(pairs, new, strict=True)
            ),
            mutated=any(
                now.is_mutated(part, then)
                for (now, then), parts in zip(pairs, new, strict=True)
                for part in parts
            ),
        )


def _continues(span: Span, part: Part) -> bool:
    """Tell whether a part goes on where a span ends, and the same mutations have written both."""
    first, last, version = span
    same = part.mutation == 0 and version == first
    return part.first == last + 1 and (same or part.version == version != first)


def _within(part: Part, earlier: ShardStorage) -> Sequence[Span]:
    """Return the blocks of before that are among those of a part."""
    spans = earlier.partitions.get(part.partition, ())
    place = max(bisect.bisect_right(spans, (part.first, 2**63, 2**63)) - 1, 0)
    within = []
    for span in spans[place:]:
        if span[0] > part.last:
            break
        if span[1] >= part.first:
            within.append(span)
    return within


def _gaps(part: Part, spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Return where none of the spans is, within the blocks of a part: from, and up to, without."""
    gaps, following = [], part.first
    for first, last, _ in spans:
        if first > following:
            gaps.append((following, first))
        following = max(following, last + 1)
    if following <= part.last:
        gaps.append((following, part.last + 1))
    return gaps
