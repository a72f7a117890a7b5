"""The chaos run: its schedule, what it takes for a violation, and some steps of it."""

import itertools
import math
from pathlib import Path

import pytest

from dev.chaos import kinds, schedule
from dev.chaos.kinds.kind import EVERYBODY
from dev.chaos.loop import run_steps
from dev.chaos.play import violations_of
from dev.chaos.tool import Outcome
from dev.chaos.versions import Versions

POSSIBLE = {"killed": ["geoip", "backup"], "bomb": ["geoip"], "away": ["backup", "detector"]}
QUICK = ("citizenlab", "fingerprints", "asnmeta", "geoip")
STEADY = (
    "configuration damaged",
    "database missing",
    "state: gone",
    "upstream: a hostile tree",
    "upstream: half of it",
)


def drawn(seed: int, count: int = 12) -> list[schedule.Step]:
    return list(itertools.islice(schedule.drawn(seed, POSSIBLE), count))


def test_a_schedule_follows_from_its_seed_alone() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1, 5) == drawn(1)[:5]


def test_every_kind_comes_once_before_one_comes_again() -> None:
    steps = drawn(7)
    for first in range(0, len(steps), len(POSSIBLE)):
        assert {step.kind for step in steps[first : first + len(POSSIBLE)]} == POSSIBLE.keys()
    assert all(step.actor in POSSIBLE[step.kind] for step in steps)
    assert [step.number for step in steps] == list(range(1, 13))


def test_a_schedule_that_was_written_is_read_as_it_was(tmp_path: Path) -> None:
    schedule.write(tmp_path / "steps", drawn(3))
    assert schedule.read(tmp_path / "steps") == drawn(3)


def test_at_least_25_kinds_have_names_of_their_own() -> None:
    names = [kind.name for kind in kinds.ALL]
    assert len(names) == len(set(names)) >= 25
    assert all(set(kind.actors) <= set(EVERYBODY) for kind in kinds.ALL)


def test_readers_may_see_versions_in_their_order_and_no_others() -> None:
    versions = Versions[str]("a table")
    versions.add("first")
    versions.add("second")
    assert not versions.violation(None, current=False)
    assert "is gone" in versions.violation(None, current=True)
    assert not versions.violation("first", current=False)
    assert "the newest is 1" in versions.violation("first", current=True)
    assert "never had such a version" in versions.violation("half", current=False)
    assert not versions.violation("second", current=True)
    assert "version 0 after 1" in versions.violation("first", current=False)
    assert "is gone" in versions.violation(None, current=False)
    versions.forget_seen()
    assert not versions.violation("first", current=False)


@pytest.mark.parametrize(
    ("status", "output", "violation"),
    [
        (0, "", ""),
        (69, "error: no answer", ""),
        (69, "error: no answer\n\n", ""),
        (69, "", "does not say why"),
        (65, "error: refused", "exit status 65"),
        (70, "error", "a bug"),
        (0, "Traceback (most recent call last):\n", "a bug"),
        (-9, "", ""),
    ],
)
def test_how_a_run_may_end(status: int, output: str, violation: str) -> None:
    said = list(violations_of(Outcome(status, output, frozenset(), 1), {0, 69, -9}))
    assert violation in "".join(said)
    assert bool(said) == bool(violation)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_steps_that_end_alike_on_every_machine_show_no_violation() -> None:
    """What depends on the moment is for `make chaos`, which tells how to play a failure again."""
    possible = {
        kind.name: [actor for actor in kind.actors if actor in QUICK]
        for kind in kinds.ALL
        if kind.name in STEADY
    }
    steps = list(itertools.islice(schedule.drawn(20, possible), len(STEADY)))
    report = run_steps(steps, seconds=math.inf)
    assert report.violations == []
    assert report.steps.total() == len(STEADY)
