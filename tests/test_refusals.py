"""A refusal is remembered: of one version of the upstream, by one judge, in a bounded file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import refusals
from citizenlab_test_lists_updater import Config
from ooni_common.config import SecretUrl
from ooni_common.errors import ConfigError, DataRefused, NotStored, RefusedBefore, Unavailable
from ooni_common.metrics import Metrics
from ooni_common.run import Job
from ooni_common.stop_signals import StopSignals
from ooni_common.swap.content import Content
from refusals import DAY, Refusals, RefusedForNow

SOURCE = {"commit": "1" * 40}


class Runs:
    """Runs of one script, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_767_225_600.0
        self.file = folder / "lists.refusal.json"
        self.job: Job[Config] = Job(
            config=Config(),
            metrics=Metrics("lists", ""),
            signals=StopSignals(),
            user_agent="",
            state_file=folder / "lists.json",
            clock=lambda: self.now,
        )

    def next(self, **changes: Any) -> Refusals:
        """Return what a run with another job, in place of the usual one, remembers."""
        return Refusals(replace(self.job, **changes))

    def refuse(self, error: Exception | None = None, **changes: Any) -> None:
        """Run, and fail."""
        error = error or DataRefused("a.csv:7: a merge conflict marker")
        with pytest.raises(type(error)), self.next(**changes).remembered(SOURCE):
            raise error


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_a_refusal_is_of_one_version_of_the_upstream(runs: Runs) -> None:
    assert runs.next().source == {}
    runs.refuse()
    assert runs.next().source == SOURCE


def test_the_verdict_is_logged_once_a_day_with_the_first_date(runs: Runs) -> None:
    runs.refuse()
    told = []
    for _ in range(30 * 48):
        runs.now += DAY / 48
        told.append(runs.next().again())
    logged = [error for error in told if not isinstance(error, RefusedBefore)]
    assert len(logged) == 30
    assert {error.status for error in told} == {65}
    assert str(logged[-1]) == (
        "a.csv:7: a merge conflict marker (refused since 2026-01-01 00:00 UTC); upstream has"
        " nothing new, and --dry-run shows all findings"
    )


def test_who_reads_along_is_told_each_time(runs: Runs) -> None:
    runs.refuse()
    error = runs.next(attended=True).again()
    assert not isinstance(error, RefusedBefore)
    assert isinstance(runs.next().again(), RefusedBefore)


def test_a_clock_that_was_put_back_does_not_silence_the_verdict(runs: Runs) -> None:
    runs.refuse()
    runs.now -= 400 * DAY
    assert not isinstance(runs.next().again(), RefusedBefore)
    assert isinstance(runs.next().again(), RefusedBefore)


def test_another_version_of_the_tool_judges_again(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.refuse()
    monkeypatch.setattr(refusals, "__version__", "99")
    assert runs.next().source == {}


@pytest.mark.parametrize(
    ("keys", "again"),
    [
        ({"max_rejected_rows": 7}, True),
        ({"min_rows": 1}, True),
        ({"db_uri": SecretUrl("clickhouse://citizenlab:other@localhost/default")}, True),
        ({}, False),
    ],
)
def test_another_configuration_judges_again(
    runs: Runs, keys: dict[str, Any], *, again: bool
) -> None:
    runs.refuse()
    assert (runs.next(config=Config(**keys)).source == {}) is again


def test_a_refusal_is_of_what_was_to_be_replaced(runs: Runs) -> None:
    live = {"lists": Content(100, 1)}
    with pytest.raises(DataRefused), Refusals(runs.job, lambda: live).remembered(SOURCE):
        raise DataRefused("lists: 30 of 100 rows would disappear")
    assert Refusals(runs.job, lambda: live).source == SOURCE
    assert Refusals(runs.job, dict).source == {}
    assert Refusals(runs.job, lambda: {"lists": Content()}).source == {}
    assert runs.next().source == SOURCE  # doctor looks at no table


def test_where_nobody_can_tell_what_was_live_nothing_is_remembered(runs: Runs) -> None:
    def away() -> dict[str, Content]:
        raise Unavailable("database: connection refused")

    with pytest.raises(DataRefused), Refusals(runs.job, away).remembered(SOURCE):
        raise DataRefused("lists: 30 of 100 rows would disappear")
    assert runs.next().source == {}


def test_what_is_loaded_later_ends_a_refusal(runs: Runs) -> None:
    runs.refuse()
    with runs.next().remembered({"commit": "2" * 40}):
        pass
    assert runs.next().source == {}
    assert not runs.file.exists()


@pytest.mark.parametrize("error", [Unavailable("down"), ConfigError("x"), NotStored("t: 1 of 2")])
def test_what_is_not_the_upstreams_fault_is_not_remembered(runs: Runs, error: Exception) -> None:
    runs.refuse(error)
    assert runs.next().source == {}


@pytest.mark.parametrize("flag", ["dry_run", "force"])
def test_a_dry_run_and_force_remember_nothing_and_look_at_nothing(runs: Runs, flag: str) -> None:
    runs.refuse(None, **{flag: True})
    assert runs.next().source == {}
    runs.refuse()
    before = runs.file.read_bytes()
    runs.refuse(None, **{flag: True})
    assert runs.next(**{flag: True}).source == {}
    assert runs.file.read_bytes() == before


def test_what_force_loads_is_refused_no_more(runs: Runs) -> None:
    runs.refuse()
    with runs.next(dry_run=True).remembered(SOURCE):
        pass
    assert runs.next().source == SOURCE
    with runs.next(force=True).remembered(SOURCE):
        pass
    assert runs.next().source == {}


def test_what_will_be_accepted_later_is_judged_again_then(runs: Runs) -> None:
    runs.refuse(RefusedForNow("12 rows are refused", runs.now + 3 * DAY))
    assert runs.next().source == SOURCE
    runs.now += 3 * DAY
    assert runs.next().source == {}


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[]", '{"since": "long"}'])
def test_a_damaged_memory_costs_one_run(runs: Runs, content: str) -> None:
    runs.refuse()
    runs.file.write_text(content)
    assert runs.next().source == {}
    runs.refuse()
    assert runs.next().source == SOURCE


def test_a_folder_in_the_place_of_the_memory_costs_the_memory_alone(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.file.mkdir()
    runs.refuse()
    assert "a folder is in the place of a file" in caplog.text


def test_no_secret_is_kept(runs: Runs) -> None:
    secret = Config(db_uri=SecretUrl("clickhouse://citizenlab:hunter2000@localhost/default"))
    runs.refuse(config=secret)
    kept = json.loads(runs.file.read_text())
    assert kept.keys() == {"source", "judge", "verdict", "since", "logged", "until", "live"}
    assert "hunter2000" not in runs.file.read_text()
