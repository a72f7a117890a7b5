"""The chaos run: its schedule, what it takes for a violation, and some steps of it."""

import contextlib
import hashlib
import itertools
import json
import math
from pathlib import Path

import pytest

from dev.chaos import kinds, schedule
from dev.chaos.actors.backup import MANIFESTS, PENDING, damaged_objects
from dev.chaos.actors.page import check_page
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


def test_steps_are_dealt_out_in_turn_and_one_is_replayed_with_those_of_its_stream() -> None:
    steps = list(itertools.islice(schedule.drawn(5, POSSIBLE, streams=2), 12))
    assert [step.stream for step in steps] == [1, 0] * 6
    alone = [(step.kind, step.actor, step.draws) for step in drawn(5)]
    assert [(step.kind, step.actor, step.draws) for step in steps] == alone
    assert [step.number for step in schedule.up_to(steps, 6)] == [2, 4, 6]


def test_a_schedule_that_was_written_is_read_as_it_was(tmp_path: Path) -> None:
    schedule.write(tmp_path / "steps", drawn(3))
    assert schedule.read(tmp_path / "steps") == drawn(3)


def test_at_least_25_kinds_have_names_of_their_own() -> None:
    for bed in kinds.BEDS.values():
        names = [kind.name for kind in bed]
        assert len(names) == len(set(names)) >= 25
        assert all(kind.actors and set(kind.actors) <= set(EVERYBODY) for kind in bed)


def test_what_may_happen_on_replicas_too_is_a_kind() -> None:
    assert set(kinds.ON_REPLICAS_TOO) <= {kind.name for kind in kinds.ALL}


def test_readers_may_see_versions_in_their_order_and_no_others() -> None:
    versions = Versions[str]("a table")
    versions.add("first")
    versions.add("second")
    assert not versions.violation(None, current=False)
    assert "is gone" in versions.violation(None, current=True)
    assert not versions.violation("first", current=False)
    assert "but 1 is wanted" in versions.violation("first", current=True)
    assert "never had such a version" in versions.violation("half", current=False)
    assert not versions.violation("second", current=True)
    assert "version 0 after 1" in versions.violation("first", current=False)
    assert "is gone" in versions.violation(None, current=False)
    assert not versions.violation("first", current=False, reader=1)
    versions.forget_seen()
    assert not versions.violation("first", current=False)


def test_after_a_rollback_the_former_version_is_wanted_until_there_is_another_one() -> None:
    versions = Versions[str]("a table")
    versions.add("first")
    versions.add("second")
    assert not versions.violation("second", current=True)
    versions.roll_back()
    versions.add("second", alone=True)
    assert not versions.violation("first", current=True)
    assert "but 0 is wanted" in versions.violation("second", current=True)
    versions.add("third")
    assert not versions.violation("third", current=True)
    assert "version 0 after 3" in versions.violation("first", current=False)


def test_what_replaced_a_version_that_was_rolled_back_to_gives_it_back() -> None:
    versions = Versions[str]("a table")
    for version in ("first", "second"):
        versions.add(version)
    versions.roll_back()
    versions.add("third")
    versions.roll_back()
    assert not versions.violation("first", current=True)
    assert "but 0 is wanted" in versions.violation("second", current=True)


def test_what_may_end_a_rollback_lets_the_newest_be_right_too() -> None:
    versions = Versions[str]("a table")
    for version in ("first", "second", "third"):
        versions.add(version)
    versions.roll_back()
    versions.loosen_rollback()
    assert not versions.violation("second", current=True)
    assert not versions.violation("third", current=True)
    assert "version 1 after 2" in versions.violation("second", current=True)
    versions.forget_seen()
    assert "but 1 or 2 is wanted" in versions.violation("first", current=True)


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("<html><p>It<br>is <svg><path d='M0'/></svg></p></html>", ""),
        ("<html><p>It is", "ends within"),
        ("<html><p>It <b>is</p></b></html>", "</p> ends"),
        ("", "ends within"),
    ],
)
def test_a_page_is_whole(page: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) if fault else contextlib.nullcontext():
        check_page(page)


def test_an_export_that_is_not_as_its_manifest_says_is_damaged() -> None:
    export = {"key": "a.csv.zstd", "sha256": hashlib.sha256(b"rows").hexdigest(), "rows": 1}
    manifest = {"table": "a", "chunks": {"": export}, "pending": {}}
    objects = {f"{MANIFESTS}a.json": json.dumps(manifest).encode(), "a.csv.zstd": b"rows"}
    assert list(damaged_objects(objects)) == []
    objects["a.csv.zstd"] = b"other rows"
    assert list(damaged_objects(objects)) == ["a.csv.zstd"]
    newer = export | {"sha256": hashlib.sha256(b"other rows").hexdigest()}
    objects[f"{PENDING}a/all.json"] = json.dumps({"export": newer}).encode()
    assert list(damaged_objects(objects)) == []
    objects[f"{MANIFESTS}b.json"] = b'{"table": "b'
    assert list(damaged_objects(objects)) == [f"{MANIFESTS}b.json"]


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
    steps = list(itertools.islice(schedule.drawn(20, possible, streams=2), len(STEADY)))
    report = run_steps(steps, seconds=math.inf)
    assert report.violations == []
    assert report.steps.total() == len(STEADY)
