"""Retention: a year of daily runs keeps what the configuration says, and all of it can be restored.

Also deleting a backup by its name.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

import backups.server
from backup_config import Period
from backups.manifest import NAME_FORMAT, BackupManifest
from backups.prune import of_schedule, unwanted
from backups.retention import scheduled
from backups.stored import Backup, start_of
from db_backup_harness import BackupTool

DAY = timedelta(days=1)
DAYS = int(os.environ.get("OONI_TEST_BACKUP_DAYS", "40"))
KEEP: dict[Period, int] = {"daily": 7, "weekly": 4, "monthly": 12, "yearly": 3}


def made(started: datetime, base: str = "") -> Backup:
    """Return a good backup; a manifest with the two fields that count."""
    manifest = cast("BackupManifest", SimpleNamespace(tables={"t": None}, base=base))
    return Backup(f"{started:{NAME_FORMAT}}", "good", "", manifest)


def expected(days: Sequence[datetime], keep: Mapping[Period, int]) -> set[datetime]:
    """Return the days whose backups stay, counted in another way than the tool does."""
    period_of = {
        "daily": lambda day: day.toordinal(),
        "weekly": lambda day: (day.toordinal() - 1) // 7,  # day 1 was a Monday
        "monthly": lambda day: day.year * 12 + day.month,
        "yearly": lambda day: day.year,
    }
    wanted = {max(days)}
    for period, count in keep.items():
        periods = sorted({period_of[period](day) for day in days})[-count:]
        wanted |= {max(day for day in days if period_of[period](day) == one) for one in periods}
    return wanted


def daily_runs(start: datetime, days: int, full_every: int) -> Iterator[list[Backup]]:
    """Yield what there is after each of the daily runs of so many days."""
    there: list[Backup] = []
    for day in range(days):
        base = there[-1].name if day % full_every else ""
        there.append(made(start + day * DAY, base))
        gone = unwanted(there, of_schedule(there, there, KEEP))
        names = {one.backup.name for one in gone}
        there = [backup for backup in there if backup.name not in names]
        yield there


@pytest.mark.long
@pytest.mark.parametrize("full_every", [1, 5, 30])
@pytest.mark.parametrize(
    "start", [datetime(2024, 2, 1, 23, tzinfo=UTC), datetime(2025, 7, 3, tzinfo=UTC)]
)
def test_of_thirteen_months_of_daily_runs_the_configured_ones_are_kept_and_what_they_need(
    start: datetime, full_every: int
) -> None:
    for day, there in enumerate(daily_runs(start, 400, full_every)):
        assert len(there) <= sum(KEEP.values()) + 26 * (full_every - 1)
        if day % 9 and day < 390:
            continue
        names = {backup.name for backup in there}
        wanted = expected([start + number * DAY for number in range(day + 1)], KEEP)
        needed = {f"{one:{NAME_FORMAT}}" for one in wanted}
        for backup in reversed(there):
            if backup.name in needed and backup.base:
                needed.add(backup.base)
        assert names == needed


def test_days_without_a_backup_do_not_count() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    days = [start, start + DAY, start + 40 * DAY]
    assert list(scheduled(map(made, days), {"daily": 2})) == [
        f"{day:{NAME_FORMAT}}" for day in reversed(days[1:])
    ]


@pytest.mark.parametrize(
    ("period", "days", "kept"),
    [
        (
            "daily",
            ["2026-01-04 01", "2026-01-04 23", "2026-01-05 00"],
            {2: "2026-01-05", 1: "2026-01-04"},
        ),
        # Monday, Thursday of the next year, Sunday: one week; Monday: the next one.
        (
            "weekly",
            ["2025-12-29 12", "2026-01-01 12", "2026-01-04 12", "2026-01-05 12"],
            {3: "2026-W02", 2: "2026-W01"},
        ),
        (
            "monthly",
            ["2025-01-31 12", "2026-01-01 12", "2026-01-31 23", "2026-02-01 00"],
            {3: "2026-02", 2: "2026-01", 0: "2025-01"},
        ),
        ("yearly", ["2025-01-01 12", "2025-12-31 23", "2026-01-01 00"], {2: "2026", 1: "2025"}),
    ],
)
def test_of_a_period_the_newest_is_kept_and_named(
    period: Period, days: list[str], kept: dict[int, str]
) -> None:
    there = [made(datetime.strptime(f"{day} +0000", "%Y-%m-%d %H %z")) for day in days]
    reasons = {there[place].name: [text] for place, text in kept.items()}
    reasons[there[-1].name].insert(0, "the newest")
    assert scheduled(there, {period: 9}) == reasons


def test_the_newest_is_kept_whatever_the_schedule_says() -> None:
    newest = made(datetime(2026, 1, 1, tzinfo=UTC))
    young = of_schedule([newest], [newest], {})
    assert unwanted([newest], young, keeps_last=lambda _table: False) == []


def test_what_somebody_else_put_into_the_bucket_takes_no_place() -> None:
    """Else whoever can write there could have ours deleted, by backups that are worth nothing."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ours = [made(start + day * DAY) for day in range(3)]
    foreign = [made(start + day * DAY + timedelta(hours=12)) for day in range(9)]
    there = sorted([*ours, *foreign], key=lambda backup: backup.name)
    gone = {one.backup.name for one in unwanted(there, of_schedule(there, ours, {"daily": 2}))}
    assert gone.isdisjoint(backup.name for backup in ours[1:])
    assert ours[0].name in gone


# --- with real backups ---


class Clock:
    """The clock of the tool, set by hand."""

    def __init__(self, time: datetime) -> None:
        self.time = time

    def now(self, _zone: object) -> datetime:
        """Return its time."""
        self.time += timedelta(seconds=1)
        return self.time


def run_daily(tool: BackupTool, clock: Clock, days: int) -> set[datetime]:
    """Run once a day, with a new row each time; return the days."""
    tool.database.execute("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
    run_on = set()
    for number in range(days):
        tool.database.execute(f"INSERT INTO t VALUES ({number})")
        clock.time = clock.time.replace(hour=3, minute=0, second=0) + DAY
        run_on.add(clock.time)
        status, log = tool.run("run")
        assert status == 0, log
    return run_on


def days_of(tool: BackupTool) -> list[datetime]:
    """Return when the backups in the bucket were made, at three o'clock."""
    return [start_of(one.name).replace(minute=0, second=0) for one in tool.backups()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that begins a year before this machine's."""
    clock = Clock(datetime.now(UTC).replace(microsecond=0) - 366 * DAY)
    monkeypatch.setattr(backups.server, "datetime", clock)
    return clock


def check_daily_runs(tool: BackupTool, clock: Clock, days: int) -> None:
    """Run so many days with a schedule; what it wants is there, and every backup restores."""
    keep: dict[Period, int] = {"daily": 3, "weekly": 2, "monthly": 12, "yearly": 2}
    tool.keep_private(tables={"t": "private"}, action="backup", full_every=2, keep=keep)
    run_on = run_daily(tool, clock, days)
    kept = set(days_of(tool))
    wanted = expected(sorted(run_on), keep)
    assert wanted <= kept
    bases = {start_of(one.base).replace(minute=0, second=0) for one in tool.backups() if one.base}
    assert kept - wanted <= bases
    first = min(run_on)
    for manifest in tool.backups():
        assert tool.run("restore", "t", "--from", manifest.name)[0] == 0
        rows = tool.database.execute("SELECT count() FROM t_restored")[0][0]
        day = start_of(manifest.name).replace(minute=0, second=0)
        assert rows == (day - first).days + 1
        tool.database.execute("DROP TABLE t_restored SYNC")


@pytest.mark.long
@pytest.mark.timeout(7200)  # of a year, on a busy machine: 365 runs, and a restore of each backup
def test_weeks_or_a_year_of_daily_runs(backup_tool: BackupTool, clock: Clock) -> None:
    check_daily_runs(backup_tool, clock, DAYS)


@pytest.mark.long
def test_nothing_is_deleted_without_a_schedule_or_while_a_table_is_not_saved(
    backup_tool: BackupTool, clock: Clock
) -> None:
    backup_tool.keep_private(tables={"t": "private"}, action="backup", full_every=1)
    run_daily(backup_tool, clock, 3)
    backup_tool.database.execute("CREATE TABLE s (a UInt8) ENGINE = Set")
    backup_tool.database.execute("INSERT INTO t VALUES (99)")
    clock.time += DAY
    tables = {"t": "private", "s": "private"}
    assert backup_tool.run("run", keep={"daily": 1}, tables=tables)[0] != 0
    assert len(backup_tool.backups()) == 4
    clock.time += DAY
    status, log = backup_tool.run("run", "--dry-run", tables={"t": "private", "s": "none"})
    assert (status, log.count("would delete the backup")) == (0, 3)
    assert backup_tool.run("run")[0] == 0
    assert len(backup_tool.backups()) == 1


# --- delete ---


@pytest.mark.long
def test_deleting_one_by_name(backup_tool: BackupTool, clock: Clock) -> None:
    backup_tool.keep_private(tables={"t": "private"}, action="backup", full_every=2)
    run_daily(backup_tool, clock, 4)
    full, incremental, next_full, last = [one.name for one in backup_tool.backups()]
    status, log = backup_tool.run("delete", full, "--confirm")
    assert (status, f"{incremental}: of no use without" in log) == (2, True)
    status, log = backup_tool.run("delete", full, incremental)
    assert (status, log.count("would delete the backup")) == (0, 2)
    assert len(backup_tool.backups()) == 4
    assert backup_tool.run("delete", full, incremental, "--confirm")[0] == 0
    assert [one.name for one in backup_tool.backups()] == [next_full, last]
    assert not [key for key in backup_tool.kept() if full in key or incremental in key]
    status, log = backup_tool.run("delete", next_full, last, "--confirm")
    assert (status, "no other good backup has 't'" in log) == (65, True)
    assert backup_tool.run("verify")[0] == 0
    assert backup_tool.run("delete", next_full, last, "--confirm", "--force")[0] == 0
    assert not backup_tool.backups()
    assert backup_tool.run("delete", "20260101T000000Z")[0] == 2
