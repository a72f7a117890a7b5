"""What has to be done with each chunk of a table, decided without changing anything.

From cheap to sure: what the parts of the table tell (evidence.py), the number of rows, and the
digest of all rows where the number is the same. So rows are read twice where nothing else can tell,
and where they are exported once.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from exports.chunk_digests import read_digests
from exports.chunk_failures import ChunkFailures, with_chunk
from exports.chunks import DamagedRanges, check_columns, digests, of_one_server, survey
from exports.evidence import Evidence
from exports.fingerprint import Fingerprint, counted
from exports.losses import has_shrunk
from exports.manifest import Export, TableManifest
from exports.reader import Chunk, Reader
from exports.steps import Reason, Step
from ooni_common.database import ServerError, StatementFailed
from ooni_common.errors import ScriptError, Unavailable
from ooni_common.output import counted as counted_things
from tables.blocks import Changes, Storage
from tables.inventory import merges_rows, without_zones
from tables.parts import read_snapshot
from throttle import in_units

log = logging.getLogger("ooni.db_backup")


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
        missed: why chunks could not be read, by which it was to be decided about them or for the
            rotation, where that is the fault of these.
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
    steps = planner.decided(planner.steps(surveyed))
    missed = [step.failure for step in steps if step.failure]
    present = {step.chunk.name for step in steps}
    steps += [
        planner.absent(export) for export in manifest.exports if export.chunk.name not in present
    ]
    storage = evidence.snapshot.storage if evidence.snapshot else None
    read = reader.bytes_read - before
    return Plan(steps, storage, evidence.surveyed, read, missed=missed)


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

    def steps(self, surveyed: Sequence[tuple[Chunk, int]]) -> list[Step]:
        """Return what is to be done with chunks of so many rows, as far as that can be told.

        Raises:
            ServerError: it is not a chunk's fault that nobody can tell.
        """
        steps: list[Step] = []
        failures = ChunkFailures()
        for chunk, rows in surveyed:
            try:
                step = self.step(chunk, rows)
            except StatementFailed as error:
                last = self.manifest.chunks.get(chunk.name)
                step = self._unread(Step(chunk, counted(rows), "unread", last), error)
            failures.add(step.failure)
            failures.raise_fatal()
            steps.append(step)
        return steps

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
        """Return steps with the digests that it takes to decide, or that the next run needs.

        A chunk that can't be read holds up no other one: what was exported of it stays, or it is
        exported without a digest.

        Raises:
            ServerError: it is not the fault of the chunks about which it can't be decided.
        """
        undecided = [step for step in steps if step.reason == "undecided"]
        exported = [step for step in steps if step.exports and self._next_run_needs_digests]
        told = self.evidence.snapshot is not None
        found = read_digests(undecided if told else [*undecided, *exported], self._read)
        decided = [self._decided(step, *found) for step in steps]
        failures = ChunkFailures()
        for before, step in zip(steps, decided, strict=True):
            if before in undecided:
                failures.add(step.failure)
        failures.raise_fatal()
        if not told:
            return decided
        # All that is exported can be the whole table: a statement for each chunk, as for its rows.
        found = read_digests(exported, self._read, one_by_one=True)
        return [self._decided(step, *found) for step in decided]

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

    def _decided(
        self, step: Step, read: Mapping[str, Fingerprint], unread: Mapping[str, ServerError]
    ) -> Step:
        """Return a step with the fingerprint that was read, if it was, and what follows from it."""
        if error := unread.get(step.chunk.name):
            return self._unread(step, error)
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

    def _unread(self, step: Step, error: ServerError) -> Step:
        """Return a step without the digest that could not be read."""
        table = self.reader.table.name
        if step.exports:
            log.warning("%s", with_chunk(error, table, step.chunk, "its export has no digest"))
            return step
        error = with_chunk(error, table, step.chunk, "not compared, and its export stays")
        return replace(step, reason="unread", failure=error)

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
