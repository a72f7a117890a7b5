"""What has to be done with each chunk of a table, decided without changing anything.

From cheap to sure: what the parts of the table tell (evidence.py), the number of rows, and the
digest of all rows where the number is the same. So rows are read twice where nothing else can tell,
and where they are exported once.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import msgspec

from exports.chunks import DamagedRanges, check_columns, digests, of_one_server, survey
from exports.evidence import Evidence
from exports.fingerprint import Fingerprint, counted
from exports.losses import has_shrunk
from exports.manifest import Export, TableManifest
from exports.reader import Chunk, Reader
from ooni_common.errors import ScriptError, Unavailable
from ooni_common.output import counted as counted_things
from tables.blocks import Changes, Storage
from tables.inventory import merges_rows, without_zones
from tables.parts import read_snapshot
from throttle import in_units

log = logging.getLogger("ooni.db_backup")

ReasonToExport = Literal[
    "new",
    "changed",
    "with other columns",
    "again, by --force",
    "with an older digest",
    "lost from the bucket",
    "lacks Parquet",
    "found by rotation",
]
Reason = ReasonToExport | Literal["unchanged", "shrunk", "dropped", "behind", "undecided"]


@dataclass(frozen=True)
class Step:
    """What is to be done with one chunk, and why.

    Attributes:
        chunk: which rows.
        fingerprint: of them.
        reason: of what is done.
        last: the export of before.
        storage: the name of the blocks that the table had before; "" if not known.
        looked: whether it has had its turn in the rotation, which has seen no change.
    """

    chunk: Chunk
    fingerprint: Fingerprint
    reason: Reason
    last: Export | None
    storage: str = ""
    looked: bool = False

    @property
    def exports(self) -> bool:
        """Whether its rows are read."""
        return self.reason in get_args(ReasonToExport)

    @property
    def has_other_bounds(self) -> bool:
        """Whether its object is of other bounds, and may have rows of new chunks."""
        return self.last is not None and self.last.chunk != self.chunk

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
        surveyed: the name of blocks of which no chunk is missing when all of it is done.
        decided: how many bytes of columns the server has read to decide.
        looks: at how many chunks the rotation has looked.
        looked: how many bytes that has read.
        missed: why it could not look at others, which was the fault of these.
    """

    steps: list[Step]
    storage: Storage | None
    surveyed: str = ""
    decided: int = 0
    looks: int = 0
    looked: int = 0
    missed: Sequence[ScriptError] = ()

    def begin(self, manifest: TableManifest) -> None:
        """Let a manifest have the blocks that its exports will refer to."""
        if self.storage:
            manifest.storages[self.storage.name] = self.storage

    def complete(self, manifest: TableManifest) -> None:
        """Let a manifest say that no chunk is missing."""
        manifest.surveyed = self.surveyed
        manifest.looks = {
            name: looked
            for name, looked in sorted(manifest.looks.items())
            if (export := manifest.chunks.get(name)) and export.finished <= looked
        }


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
    before = reader.bytes_read
    evidence = Evidence(reader, manifest, read_snapshot(reader.databases, reader.table))
    surveyed = _surveyed(reader, manifest, evidence, force=force)
    planner = _Planner(reader, manifest, evidence, is_lost, max_shrink, force)
    steps = planner.decided([planner.step(chunk, rows) for chunk, rows in surveyed])
    present = {step.chunk.name for step in steps}
    steps += [
        planner.absent(export) for export in manifest.exports if export.chunk.name not in present
    ]
    storage = evidence.snapshot.storage if evidence.snapshot else None
    return Plan(steps, storage, evidence.surveyed, reader.bytes_read - before)


def _surveyed(
    reader: Reader, manifest: TableManifest, evidence: Evidence, *, force: bool
) -> list[tuple[Chunk, int]]:
    """Return the chunks and the number of their rows, counted as far as the parts don't tell."""
    exported = [export.chunk for export in manifest.exports]
    try:
        surveyed = survey(reader, exported, None if force else evidence.kept())
    except DamagedRanges:
        if not force:
            raise
        surveyed = survey(reader, [])
    evidence.chunks = evidence.chunks or [chunk for chunk, _ in surveyed]
    return surveyed


def tell(table: str, plan: Plan) -> None:
    """Log what it has cost to decide, and what stays as it is because a replica is behind."""
    log.info("%s: %s read to decide", table, in_units(plan.decided))
    if plan.looked:
        looks = counted_things(plan.looks, "chunk")
        log.info("%s: %s read for the rotation: %s", table, in_units(plan.looked), looks)
    if behind := sum(step.reason == "behind" for step in plan.steps):
        log.warning(
            "%s: this replica has yet to fetch parts that were exported; until then %s as exported",
            table,
            "1 chunk stays" if behind == 1 else f"{behind} chunks stay",
        )


def planned(
    reader: Reader,
    manifest: TableManifest,
    is_lost: Callable[[Export], bool],
    *,
    max_shrink: float,
    force: bool,
    look: Callable[[Plan], Plan] = lambda plan: plan,
) -> Plan:
    """Plan as `plan` does; when a node of a cluster fails, with another one of its shard.

    `look` changes the plan by what a look at some chunks shows (rotation.py).

    Raises:
        Unavailable: a shard has none left, or it is not the nodes that fail.
    """
    while True:
        try:
            return look(plan(reader, manifest, is_lost, max_shrink=max_shrink, force=force))
        except Unavailable:
            if not (reader.replicas and reader.replicas.lost_any()):
                raise


@dataclass(frozen=True)
class _Planner:
    """Decides about chunks, as far as that can be done without reading all their rows."""

    reader: Reader
    manifest: TableManifest
    evidence: Evidence
    is_lost: Callable[[Export], bool]
    max_shrink: float
    force: bool

    def step(self, chunk: Chunk, rows: int) -> Step:
        """Return what is to be done with a chunk of so many rows, if that can be told."""
        last = self.manifest.chunks.get(chunk.name)
        reason = self._reason(chunk, rows, last) if last else "new"
        fingerprint, storage = counted(rows), self.evidence.storage
        if last and reason == "unchanged":
            if rows == last.fingerprint.rows or last.fingerprint.merged is not None:
                fingerprint = msgspec.structs.replace(last.fingerprint, rows=rows)
            changes = self.evidence.changes(last)
            if changes and changes.same_parts:
                storage = last.storage  # as good, and the manifest stays as it is
        return Step(chunk, fingerprint, reason, last, storage)

    def absent(self, export: Export) -> Step:
        """Return what is to be done with the export of a chunk that has no rows any more."""
        changes = self.evidence.changes(export)
        reason: Reason = "behind" if changes and changes.behind and not self.force else "dropped"
        return Step(export.chunk, counted(0), reason, export)

    def decided(self, steps: Sequence[Step]) -> list[Step]:
        """Return steps with the digests that it takes to decide, or that the next run needs."""
        needed = self._next_run_needs_digests
        asks = [step for step in steps if step.reason == "undecided" or (step.exports and needed)]
        read = self._read(asks)
        return [self._decided(step, read) for step in steps]

    @property
    def _next_run_needs_digests(self) -> bool:
        """Whether parts won't tell enough of what is exported now.

        Where rows expire in merges, only the number of keys tells how many of them were merged.
        """
        snapshot = self.evidence.snapshot
        return snapshot is None or (snapshot.expires and self.reader.merges)

    def _read(self, steps: Sequence[Step]) -> dict[str, Fingerprint]:
        """Return the digests of chunks, by name, each of what its last one is of."""
        kinds: dict[tuple[bool, bool], list[Chunk]] = {}
        for step in steps:
            kind = (self._asks_all_columns(step), self._asks_stored_rows(step))
            kinds.setdefault(kind, []).append(step.chunk)
        read: dict[str, Fingerprint] = {}
        for (whole, stored), chunks in kinds.items():
            read |= digests(self.reader, chunks, whole=whole, stored=stored)
        return read

    def _asks_stored_rows(self, step: Step) -> bool:
        """Tell whether a digest is compared with one of before 2.0.2, which is of all rows."""
        last = step.last.fingerprint if step.last and step.reason == "undecided" else None
        return last is not None and last.is_read and last.merged is None

    def _asks_all_columns(self, step: Step) -> bool:
        """Tell whether the digest of key and version does not suffice."""
        if not (step.last and self.reader.has_version):
            return False
        return self.evidence.may_have_other_cells(step.last)

    def _decided(self, step: Step, read: Mapping[str, Fingerprint]) -> Step:
        """Return a step with the fingerprint that was read, if it was, and what follows from it."""
        if step.chunk.name not in read:
            return step
        fingerprint, reason = read[step.chunk.name], step.reason
        if reason == "undecided" and step.last:
            same = fingerprint.same_as(step.last.fingerprint)
            if self._asks_all_columns(step):
                same = same and fingerprint.whole is not None
            elif same:  # as nothing was mutated, all columns are what they were
                whole = step.last.fingerprint.whole
                fingerprint = msgspec.structs.replace(fingerprint, whole=whole)
            reason = "unchanged" if same else "changed"
        return replace(step, fingerprint=fingerprint, reason=reason)

    def _reason(self, chunk: Chunk, rows: int, last: Export) -> Reason:
        if self.force:
            return "again, by --force"
        if self.is_lost(last):
            return "lost from the bucket"
        changes = self.evidence.changes(last)
        reason = self._loss(chunk, rows, last, changes) or self._another_question(chunk, last)
        if reason:
            return reason
        same = rows == last.fingerprint.rows
        # Where only valid rows are counted, merges drop none of them.
        merges = merges_rows(self.reader.table.engine) and not self.reader.policy.final
        merged = changes and changes.complete and not changes.expires and merges
        if changes and (same or merged) and not self.evidence.has_new_rows(last):
            return "unchanged"
        return "undecided" if same or self._may_be_merged(rows, last) else "changed"

    def _may_be_merged(self, rows: int, last: Export) -> bool:
        """Tell whether a chunk may have fewer rows because of merges, as its digest will tell."""
        merged = last.fingerprint.merged is not None and self.reader.digests_merged
        return merged and rows < last.fingerprint.rows

    def _loss(
        self, chunk: Chunk, rows: int, last: Export, changes: Changes | None
    ) -> Reason | None:
        """Return why a chunk is not exported, as rows are gone, or may be."""
        if (
            changes
            and changes.behind
            and (rows < last.fingerprint.rows or self.evidence.has_new_rows(last))
        ):
            return "behind"
        if chunk == last.chunk and self._has_shrunk(chunk, rows, last, changes):
            return "shrunk"
        return None

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
        if changes and changes.keeps_rows:
            return False
        return has_shrunk(self.reader, chunk, rows, last.fingerprint, self.max_shrink)


def types_of(reader: Reader) -> tuple[str, ...]:
    """Return the types of a table's columns in a file: the same rows are another text in others."""
    return tuple(without_zones(column.type) for column in reader.table.columns)


def types_of_export(export: Export, manifest: TableManifest) -> tuple[str, ...]:
    """Return the types that the columns of an export had."""
    return export.types or tuple(kind for _, kind in manifest.columns)


def shrunk(steps: Sequence[Step]) -> list[Step]:
    """Return the steps of chunks that have lost too many rows."""
    return [step for step in steps if step.reason == "shrunk"]
