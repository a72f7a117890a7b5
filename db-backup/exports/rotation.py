"""The rotation: each run looks at some chunks whose rows nothing says have changed.

What the parts of a table can't tell, such as what a row policy hides, is only seen by reading
keys. RUNS runs look at all chunks, those first whose rows were read longest ago, be it by a look or
for an export. The manifest says when. A run that was killed does not count: the next one looks at
as many chunks.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from documents import Number
from exports.chunk_digests import read_digests
from exports.chunk_failures import with_chunk
from exports.chunks import digests, grown_chunks
from exports.fingerprint import Fingerprint
from exports.manifest import Export, TableManifest, now
from exports.plan import Plan
from exports.reader import Chunk, Reader
from exports.steps import Reason, Step
from ooni_common.state import read_state, write_state
from tables.blocks import Storage
from tables.parts import read_snapshot

RUNS = 26  # half a year of weekly ones
NOT_READ = "the rotation could not read it"


class RotationState(msgspec.Struct):
    """How many runs each table has had, by its name."""

    runs: dict[str, Number] = {}


class Rotation:
    """Says which chunks a run looks at.

    Args:
        state_dir: where the number of runs is kept. If it is lost, a table of fewer than RUNS
            chunks waits a while longer.
    """

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "rotation.json"
        self._state = read_state(self._file, RotationState)

    def share(self, table: str, chunks: int) -> int:
        """Return how many chunks of a table this run looks at.

        Of few chunks it is one now and then; not those of all tables in the same run.
        """
        if chunks >= RUNS:
            return math.ceil(chunks / RUNS)
        run = self._state.runs.get(table, 0) + zlib.crc32(table.encode()) % RUNS
        return chunks * (run + 1) // RUNS - chunks * run // RUNS

    def end_run(self, table: str) -> None:
        """Count a run that has done all with a table.

        Raises:
            ConfigError: it can't be written.
        """
        runs = (self._state.runs.get(table, 0) + 1) % RUNS
        self._state.runs[table] = runs
        write_state(self._file, self._state)


def looked_at(
    reader: Reader, manifest: TableManifest, plan: Plan, share: int, max_shrink: float
) -> Plan:
    """Return a plan with what a look at some chunks has shown.

    Args:
        reader: of the table.
        manifest: of its last export.
        plan: what was decided without looking.
        share: how many chunks are looked at.
        max_shrink: the share of its rows (0 to 1) that a chunk may have lost.
    """
    # Where parts tell nothing, all rows were read; a replica that is behind has not all of them.
    if plan.storage is None or any(step.reason == "behind" for step in plan.steps):
        return plan
    before = reader.bytes_read
    looks = due(plan.steps, manifest.looks, share)
    # What is not looked at as the server seems to be at fault is left for another run.
    asked = [*looks, *_affordable(plan.steps)]
    read, unread = read_digests(asked, lambda steps: _digests(reader, steps))
    first = [
        step.chunk
        for step in looks
        if step.last
        and step.chunk.name in read
        and _is_first(read[step.chunk.name], step.last.fingerprint)
    ]
    late = _changed_since(reader, plan.storage, first)
    missed = [step for step in looks if step.chunk.name in unread]
    failures = [
        with_chunk(unread[step.chunk.name], reader.table.name, step.chunk, NOT_READ)
        for step in missed
    ]

    def after(step: Step) -> Step:
        if step in missed:  # it has had its turn, or the others would never have theirs
            return replace(step, looked=True)
        if step.chunk.name in late:
            return step
        return _after_look(reader, plan, step, read, max_shrink)

    return replace(
        plan,
        steps=[after(step) for step in plan.steps],
        looks=len(looks) - len(missed),
        looked=reader.bytes_read - before,
        missed=[*plan.missed, *failures],
    )


def _digests(reader: Reader, steps: Sequence[Step]) -> dict[str, Fingerprint]:
    """Return the digests of chunks, by name, each of the columns that its last one is of."""
    whole = [step for step in steps if step.last and step.last.fingerprint.whole is not None]
    read = digests(reader, [step.chunk for step in steps if step not in whole])
    return read | digests(reader, [step.chunk for step in whole], whole=True)


def due(steps: Sequence[Step], looks: Mapping[str, str], share: int) -> list[Step]:
    """Return those of the unchanged chunks whose rows were read longest ago.

    Args:
        steps: of all chunks.
        looks: when chunks were last looked at, by name.
        share: how many are wanted.
    """
    unchanged = [(step, step.last) for step in steps if step.reason == "unchanged" and step.last]
    present = now()

    def read_at(pair: tuple[Step, Export]) -> tuple[str, bool, str]:
        step, last = pair
        looked = looks.get(step.chunk.name, "")
        if looked > present:  # of a clock that was wrong: it would never be its turn again
            looked = ""
        return max(looked, last.finished), looked >= last.finished, step.chunk.name

    return [step for step, _ in sorted(unchanged, key=read_at)[:share]]


def _changed_since(reader: Reader, storage: Storage, chunks: Sequence[Chunk]) -> set[str]:
    """Return the names of the chunks whose rows may have changed since their blocks were listed.

    A digest that is compared with none would say of a row that came after the blocks were listed
    that it was exported; so these are looked at another time.
    """
    if not chunks:
        return set()
    snapshot = read_snapshot(reader.databases, reader.table)
    changes = snapshot.changes(storage) if snapshot else None
    names = {chunk.name for chunk in chunks}
    if not changes or changes.mutated or not (changes.complete and changes.adds_up):
        return names
    return names & grown_chunks(reader, chunks, changes)


def _affordable(steps: Sequence[Step]) -> list[Step]:
    """Return the chunks that are exported, for a digest, unless that would cost too much.

    A chunk without one gets it at its first look. So of the first export of a table there are none.
    """
    exported = [step for step in steps if step.exports and not step.fingerprint.is_read]
    rows = sum(step.fingerprint.rows for step in exported)
    return exported if rows * RUNS <= sum(step.fingerprint.rows for step in steps) else []


def _after_look(
    reader: Reader, plan: Plan, step: Step, read: Mapping[str, Fingerprint], max_shrink: float
) -> Step:
    seen = read.get(step.chunk.name)
    if seen is None:
        return step
    if step.exports or step.last is None:
        return replace(step, fingerprint=seen)
    last = step.last.fingerprint
    if _is_as(seen, last):
        seen = msgspec.structs.replace(seen, whole=last.whole)
        return replace(step, fingerprint=seen, looked=True)
    reason: Reason = "found by rotation"
    if _rows_after_merges(reader, seen) < _rows_after_merges(reader, last) * (1 - max_shrink):
        reason = "shrunk"
    storage = plan.storage.name if plan.storage else ""
    return replace(step, fingerprint=seen, reason=reason, storage=storage)


def _is_as(seen: Fingerprint, last: Fingerprint) -> bool:
    """Tell whether rows are those that were exported, as far as the two fingerprints can tell."""
    if not _is_first(seen, last):
        return seen.same_as(last)
    if seen.merged is None:
        return seen.rows == last.rows
    return seen.rows <= last.rows


def _is_first(seen: Fingerprint, last: Fingerprint) -> bool:
    """Tell whether a digest is a chunk's first, with nothing to compare it to."""
    return not last.is_read or (seen.merged is None) != (last.merged is None)


def _rows_after_merges(reader: Reader, fingerprint: Fingerprint) -> int:
    keys = fingerprint.keys if reader.merges else None
    return fingerprint.rows if keys is None else keys
