"""What has to be done with each chunk of a table, decided without changing anything.

From cheap to sure: what the parts of the table tell, the number of rows, and the digest of all rows
where the number is the same. So rows are read twice where nothing else can tell, and where they are
exported once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from exports.chunks import (
    DamagedRanges,
    check_columns,
    digests,
    grown_chunks,
    of_one_server,
    survey,
)
from exports.manifest import Export, TableManifest
from exports.reader import Chunk, Fingerprint, Reader, counted
from exports.storage import Changes, Snapshot, Storage, read_snapshot
from inventory import merges_rows, without_zones
from ooni_common.errors import Unavailable

Reason = Literal[
    "new",
    "changed",
    "with other columns",
    "again, by --force",
    "with an older digest",
    "lost from the bucket",
    "unchanged",
    "shrunk",
    "dropped",
    "undecided",
]
EXPORTED: tuple[Reason, ...] = (
    "new",
    "changed",
    "with other columns",
    "again, by --force",
    "with an older digest",
    "lost from the bucket",
)


@dataclass(frozen=True)
class Step:
    """What is to be done with one chunk, and why.

    Attributes:
        chunk: which rows.
        fingerprint: of them.
        reason: of what is done.
        last: the export of before.
        storage: the name of the blocks that the table had before; "" if not known.
    """

    chunk: Chunk
    fingerprint: Fingerprint
    reason: Reason
    last: Export | None
    storage: str = ""

    @property
    def exports(self) -> bool:
        """Whether its rows are read."""
        return self.reason in EXPORTED

    def __str__(self) -> str:
        rows = f"{self.fingerprint.rows:,} rows"
        if self.last and self.last.rows != self.fingerprint.rows:
            rows += f" ({self.fingerprint.rows - self.last.rows:+,})"
        name = self.chunk.name or "the whole table"
        return f"{name}: {self.reason}, {rows}"


@dataclass(frozen=True)
class Plan:
    """What is to be done with a table.

    Attributes:
        steps: chunk by chunk.
        storage: the blocks that the table had before anything else was asked; None: not known.
    """

    steps: list[Step]
    storage: Storage | None


def plan(
    reader: Reader,
    manifest: TableManifest,
    is_lost: Callable[[Export], bool],
    *,
    max_shrink: float,
    force: bool = False,
) -> Plan:
    """Decide what has to be done with each chunk of a table.

    Args:
        reader: of the table.
        manifest: of its last export.
        is_lost: tells whether the object of an export is gone, or another one.
        max_shrink: the share of its rows (0 to 1) that a chunk may have lost; one that has lost
            more is not exported, so that its object keeps them.
        force: export everything, whatever is lost.

    Raises:
        DataRefused: a column's values can't be compared, or exported.
        ConfigError: the table can't be divided as the policy says.
    """
    check_columns(reader)
    reader.check()
    evidence = _Evidence(reader, manifest, read_snapshot(reader.databases, reader.table))
    exported = [export.chunk for export in manifest.exports]
    try:
        surveyed = survey(reader, exported)
    except DamagedRanges:
        if not force:
            raise
        surveyed = survey(reader, [])
    evidence.chunks = [chunk for chunk, _ in surveyed]
    planner = _Planner(reader, manifest, evidence, is_lost, max_shrink, force)
    steps = [planner.step(chunk, rows) for chunk, rows in surveyed]
    # Where nothing else tells of changes, the next run has to find a digest.
    asks = [
        step.chunk
        for step in steps
        if step.reason == "undecided" or (step.exports and not evidence.snapshot)
    ]
    read = digests(reader, asks)
    steps = [_decided(step, read) for step in steps]
    present = {step.chunk.name for step in steps}
    steps += [
        Step(export.chunk, counted(0), "dropped", export)
        for export in manifest.exports
        if export.chunk.name not in present
    ]
    return Plan(steps, evidence.snapshot.storage if evidence.snapshot else None)


def planned(
    reader: Reader,
    manifest: TableManifest,
    is_lost: Callable[[Export], bool],
    *,
    max_shrink: float,
    force: bool,
) -> Plan:
    """Plan as `plan` does; when a node of a cluster fails, with another one of its shard.

    Raises:
        Unavailable: a shard has none left, or it is not the nodes that fail.
    """
    while True:
        try:
            return plan(reader, manifest, is_lost, max_shrink=max_shrink, force=force)
        except Unavailable:
            if not (reader.replicas and reader.replicas.lost_any()):
                raise


class _Evidence:
    """What the parts of a table tell of the rows that were exported.

    Attributes:
        snapshot: of the parts; None where they don't tell.
        chunks: that the table has now.
    """

    def __init__(self, reader: Reader, manifest: TableManifest, snapshot: Snapshot | None) -> None:
        self._reader = reader
        self._manifest = manifest
        self.snapshot = snapshot
        self.chunks: Sequence[Chunk] = ()
        self._changes: dict[str, Changes | None] = {}
        self._grown: dict[str, set[str]] = {}

    @property
    def storage(self) -> str:
        """The name of the blocks that the table has; "" if not known."""
        return self.snapshot.storage.name if self.snapshot else ""

    def changes(self, export: Export) -> Changes | None:
        """Return what has changed in the table since an export; None: it is not known."""
        name = export.storage
        if name not in self._changes:
            earlier = self._manifest.storages.get(name)
            self._changes[name] = self.snapshot.changes(earlier) if self.snapshot else None
        return self._changes[name]

    def has_new_rows(self, export: Export, changes: Changes) -> bool:
        """Tell whether a chunk has rows in the parts that were not as they are."""
        if export.storage not in self._grown:
            grown = grown_chunks(self._reader, self.chunks, changes)
            self._grown[export.storage] = grown
        return export.chunk.name in self._grown[export.storage]


@dataclass(frozen=True)
class _Planner:
    """Decides about chunks, as far as that can be done without reading all their rows."""

    reader: Reader
    manifest: TableManifest
    evidence: _Evidence
    is_lost: Callable[[Export], bool]
    max_shrink: float
    force: bool

    def step(self, chunk: Chunk, rows: int) -> Step:
        """Return what is to be done with a chunk of so many rows, if that can be told."""
        last = self.manifest.chunks.get(chunk.name)
        reason = self._reason(chunk, rows, last) if last else "new"
        fingerprint, storage = counted(rows), self.evidence.storage
        if last and reason == "unchanged":
            if rows == last.fingerprint.rows:
                fingerprint = last.fingerprint
            changes = self.evidence.changes(last)
            if changes and changes.complete and not changes.any_parts:
                storage = last.storage  # as good, and the manifest stays as it is
        return Step(chunk, fingerprint, reason, last, storage)

    def _reason(self, chunk: Chunk, rows: int, last: Export) -> Reason:
        if self.force:
            return "again, by --force"
        if self.is_lost(last):
            return "lost from the bucket"
        changes = self.evidence.changes(last)
        if chunk == last.chunk and self._has_shrunk(chunk, rows, last, changes):
            return "shrunk"
        if reason := self._another_question(chunk, last):
            return reason
        same = rows == last.fingerprint.rows
        merged = changes and changes.complete and merges_rows(self.reader.table.engine)
        if changes and (same or merged) and not self.evidence.has_new_rows(last, changes):
            return "unchanged"
        return "undecided" if same else "changed"

    def _another_question(self, chunk: Chunk, last: Export) -> Reason | None:
        """Return why a chunk is exported, whatever its rows are."""
        if self.reader.select(chunk) != of_one_server(last.query):
            return "with other columns" if chunk == last.chunk else "changed"
        if types_of(self.reader) != types_of_export(last, self.manifest):
            return "with other columns"
        if not self.reader.trusts(last.fingerprint):
            return "with an older digest"
        return "changed" if last.dropped else None

    def _has_shrunk(self, chunk: Chunk, rows: int, last: Export, changes: Changes | None) -> bool:
        """Tell whether too many rows are gone; those that the server has merged are not."""
        before = last.fingerprint
        if rows >= before.rows or (changes and changes.keeps_rows):
            return False
        if not self.reader.merges:
            return rows < before.rows * (1 - self.max_shrink)
        keys = before.rows if before.keys is None else before.keys
        return (self.reader.fingerprint(chunk.condition).keys or 0) < keys * (1 - self.max_shrink)


def _decided(step: Step, read: Mapping[str, Fingerprint]) -> Step:
    """Return a step with the fingerprint that was read, if it was, and what follows from it."""
    if step.chunk.name not in read:
        return step
    fingerprint = read[step.chunk.name]
    reason = step.reason
    if reason == "undecided":
        same = step.last is not None and fingerprint.same_as(step.last.fingerprint)
        reason = "unchanged" if same else "changed"
    return replace(step, fingerprint=fingerprint, reason=reason)


def types_of(reader: Reader) -> tuple[str, ...]:
    """Return the types of a table's columns in a file: the same rows are another text in others."""
    return tuple(without_zones(column.type) for column in reader.table.columns)


def types_of_export(export: Export, manifest: TableManifest) -> tuple[str, ...]:
    """Return the types that the columns of an export had."""
    return export.types or tuple(kind for _, kind in manifest.columns)


def shrunk(steps: Sequence[Step]) -> list[Step]:
    """Return the steps of chunks that have lost too many rows."""
    return [step for step in steps if step.reason == "shrunk"]
