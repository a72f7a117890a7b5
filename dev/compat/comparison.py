"""What comes out differently on another version, and what never works on an embedded engine."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from dev.compat.histories import History
from dev.compat.kinds import is_of_a_tool, kind_of
from dev.compat.replay import Outcome
from dev.engines import PINNED

LISTED = Path(__file__).with_name("listed.toml")


class Deviation(msgspec.Struct, frozen=True, order=True):
    """That a kind of statement does not do on a version what it does on the pinned one.

    Attributes:
        version: on which; the pinned one for what fails there wherever it is sent.
        outcome: "rows" that differ, or "error N"; "no error" where the pinned engine has one.
        kind: of which statements.
        example: what is seen, in short.
    """

    version: str
    outcome: str
    kind: str
    example: str = ""


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """What is listed: deviations, and why these are as they are.

    Attributes:
        kinds: regular expressions; each has to be found in the kind of a deviation.
        versions: on each of which there has to be one.
        outcome: as a deviation's.
        reason: for people.
        rare: seen in the record of all tests alone, and not missed in that of a few.
    """

    kinds: list[str]
    versions: list[str]
    outcome: str
    reason: str
    rare: bool = False


class Volatile(msgspec.Struct, forbid_unknown_fields=True):
    """Statements whose rows are others each time, and why; they are not compared."""

    kinds: list[str]
    reason: str


class Listed(msgspec.Struct, forbid_unknown_fields=True):
    """The file of what is listed."""

    entry: list[Entry]
    volatile: list[Volatile]


def read_listed(path: Path = LISTED) -> Listed:
    """Return what is listed."""
    return msgspec.toml.decode(path.read_bytes(), type=Listed)


class Comparison:
    """Collects the outcomes of histories on all versions.

    Attributes:
        kinds: of the statements of the tools that were run.
        kinds_without_error: version → which of them ran there without an error at least once.
    """

    def __init__(self, listed: Listed) -> None:
        self._listed = listed
        self._volatile = re.compile(
            "|".join(pattern for one in listed.volatile for pattern in one.kinds) or r"(?!)"
        )
        self.kinds: set[str] = set()
        self.kinds_without_error: dict[str, set[str]] = {}
        self._deviations: dict[tuple[str, str, str], Deviation] = {}
        self._failures: dict[str, Outcome] = {}

    def add(self, history: History, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        """Compare what came out of each statement of a history."""
        for place, statement in enumerate(history.statements):
            if statement.ended:
                continue
            kind = kind_of(statement)
            if not is_of_a_tool(statement):
                kind = f"(a test) {kind}"
            by_version = {version: all_of_it[place] for version, all_of_it in outcomes.items()}
            self._compare(kind, by_version, of_a_tool=is_of_a_tool(statement))

    def _compare(self, kind: str, outcomes: Mapping[str, Outcome], *, of_a_tool: bool) -> None:
        pinned = outcomes[PINNED]
        if of_a_tool:
            self.kinds.add(kind)
            for version, outcome in outcomes.items():
                if not outcome.code:
                    self.kinds_without_error.setdefault(version, set()).add(kind)
            if pinned.code:
                self._failures.setdefault(kind, pinned)
        for version, outcome in outcomes.items():
            if outcome.code != pinned.code:
                told = f"error {outcome.code}" if outcome.code else "no error"
                self._note(version, told, kind, outcome.message or pinned.message)
            elif of_a_tool and outcome.lines != pinned.lines and not self._volatile.search(kind):
                self._note(version, "rows", kind, _difference(outcome, pinned))

    def _note(self, version: str, outcome: str, kind: str, example: str) -> None:
        deviation = Deviation(version, outcome, kind, example[:300])
        self._deviations.setdefault((version, outcome, kind), deviation)

    def deviations(self) -> list[Deviation]:
        """Return what was seen."""
        never = [
            Deviation(PINNED, f"error {outcome.code}", kind, outcome.message[:300])
            for kind, outcome in self._failures.items()
            if kind not in self.kinds_without_error.get(PINNED, ())
        ]
        return sorted([*self._deviations.values(), *never])

    def unlisted(self) -> list[Deviation]:
        """Return what no entry explains."""
        entries = self._listed.entry
        return [one for one in self.deviations() if not any(_fits(one, entry) for entry in entries)]

    def superfluous(self) -> list[str]:
        """Return what is listed and was not seen."""
        seen = self.deviations()
        return [
            *_unseen_entries([entry for entry in self._listed.entry if not entry.rare], seen),
            *(
                f"volatile: {pattern}"
                for volatile in self._listed.volatile
                for pattern in volatile.kinds
                if not any(re.search(pattern, kind) for kind in self.kinds)
            ),
        ]


def _fits(deviation: Deviation, entry: Entry) -> bool:
    return (
        deviation.version in entry.versions
        and deviation.outcome == entry.outcome
        and any(re.search(pattern, deviation.kind) for pattern in entry.kinds)
    )


def _unseen_entries(entries: Iterable[Entry], seen: Sequence[Deviation]) -> list[str]:
    unseen = []
    for entry in entries:
        fitting = [one for one in seen if _fits(one, entry)]
        versions = {one.version for one in fitting}
        unseen += [
            f"{entry.outcome} on {version}: {entry.kinds}"
            for version in entry.versions
            if version not in versions
        ]
        unseen += [
            f"{entry.outcome}: {pattern}"
            for pattern in entry.kinds
            if not any(re.search(pattern, one.kind) for one in fitting)
        ]
    return unseen


def _difference(outcome: Outcome, pinned: Outcome) -> str:
    """Return the first lines that only one of them has."""
    here = next((line for line in outcome.lines if line not in pinned.lines), b"(fewer)")
    there = next((line for line in pinned.lines if line not in outcome.lines), b"(fewer)")
    return (
        f"{here.decode(errors='replace')[:140]} | {PINNED}: {there.decode(errors='replace')[:140]}"
    )
