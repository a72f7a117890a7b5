"""What a run deletes of the exports by itself: what no manifest names, and older snapshots."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import exports.prune
from backup_config import Config
from db_backup_harness import CSV, LAYOUT, BackupTool, bucket_of
from one_writer import only_writer
from portal.places import Places

DAYS = 30
PLACES = Places(LAYOUT)
STRAY = f"{CSV}t_202601.csv.zstd"
Pass = Callable[[int], None]


@pytest.fixture
def days_pass(monkeypatch: pytest.MonkeyPatch) -> Pass:
    """Let so many days pass for who asks how old an object is."""

    def set_clock(days: int) -> None:
        class Clock:
            @staticmethod
            def now(zone: object) -> datetime:
                assert zone is UTC
                return datetime.now(UTC) + timedelta(days=days)

        monkeypatch.setattr(exports.prune, "datetime", Clock)

    return set_clock


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """The tool with two tables that are exported, and an object that no manifest names."""
    for name in ("t", "u"):
        backup_tool.database.execute(
            f"CREATE TABLE {name} (n UInt32) ENGINE = MergeTree ORDER BY n"
        )
        backup_tool.database.execute(f"INSERT INTO {name} SELECT number FROM numbers(10)")
    backup_tool.configure(tables={"t": "public", "u": "public"})
    assert backup_tool.run("run")[0] == 0
    backup_tool.put(STRAY, b"of a time when t had months")
    return backup_tool


@pytest.mark.long
def test_an_object_that_nothing_names_goes_when_it_is_old_enough(
    tool: BackupTool, days_pass: Pass
) -> None:
    tool.put(f"{CSV}notes.txt", b"somebody else's")
    days_pass(DAYS + 1)
    with tool.unchanged():
        assert tool.run("run")[0] == 0  # it is off until it is set
        status, log = tool.run("run", "--dry-run", prune_after_days=DAYS)
        assert (status, f"would delete {STRAY}" in log) == (0, True)
        assert tool.run("export")[0] == 0
    days_pass(DAYS - 1)
    with tool.unchanged():
        assert tool.run("run")[0] == 0
    days_pass(DAYS + 1)
    status, log = tool.run("run")
    assert (status, "1 object deleted (prune_after_days" in log) == (0, True)
    assert tool.exports() == ["notes.txt", "t.csv.zstd", "u.csv.zstd"]
    tool.client.delete_object(Bucket=tool.bucket_name, Key=f"{CSV}notes.txt")
    assert tool.run("verify", "--quick")[0] == 0


def test_what_somebody_has_to_confirm_is_left_to_them(tool: BackupTool, days_pass: Pass) -> None:
    """Of a table that is not public any more, or gone, the export may be the last copy."""
    tool.database.execute("DROP TABLE u SYNC")
    days_pass(DAYS + 1)
    tables = {"t": "none", "u": "gone"}
    assert tool.run("run", prune_after_days=DAYS, tables=tables)[0] == 0
    assert tool.exports() == ["t.csv.zstd", "u.csv.zstd"]
    status, log = tool.run("prune")
    assert (status, "t is not public any more" in log) == (0, True)


def test_while_a_manifest_is_damaged_nothing_is_deleted(tool: BackupTool, days_pass: Pass) -> None:
    tool.put(LAYOUT.manifest("u"), b"{")
    days_pass(DAYS + 1)
    assert tool.run("run", prune_after_days=DAYS)[0] == 65
    assert STRAY in tool.objects()


@pytest.mark.long
def test_while_another_host_is_at_work_nothing_is_deleted(
    tool: BackupTool, days_pass: Pass, tmp_path: Path
) -> None:
    days_pass(DAYS + 1)
    other = tmp_path / "another host"
    other.mkdir()
    with only_writer(bucket_of(tool), LAYOUT, other), tool.unchanged():
        assert tool.run("run", prune_after_days=DAYS)[0] == 75
    assert tool.run("run")[0] == 0
    assert STRAY not in tool.objects()


def test_a_clock_that_is_wrong_deletes_nothing(
    tool: BackupTool, days_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    days_pass(DAYS + 1)
    monkeypatch.setattr("store.Bucket.time", lambda _bucket: 0.0)
    status, log = tool.run("run", prune_after_days=DAYS)
    assert (status, "nothing is deleted by age; check its NTP" in log) == (78, True)
    assert STRAY in tool.objects()


def test_less_than_a_day_is_refused() -> None:
    with pytest.raises(ValueError, match="prune_after_days"):
        Config(prune_after_days=0.5)


# --- snapshots ---


def snapshots(tool: BackupTool) -> list[str]:
    """Return the names of the snapshots, the newest first."""
    return PLACES.snapshots_among(tool.objects())


def test_only_so_many_snapshots_stay_and_the_catalogue_has_no_others(tool: BackupTool) -> None:
    for number in range(5):
        tool.put(PLACES.snapshot(f"2025-01-0{number + 1}T00:00:00Z"), b"")
    tool.put(f"{PLACES.snapshots}notes.txt", b"somebody else's")
    tool.database.execute("INSERT INTO t VALUES (77)")
    assert tool.run("run", keep_snapshots=3)[0] == 0
    kept = snapshots(tool)
    assert tool.get(kept[0]) == tool.get(LAYOUT.sums)
    # Of the two runs, there is one snapshot if they ended within a second.
    newest = [PLACES.snapshot(f"2025-01-0{day}T00:00:00Z") for day in (5, 4)]
    assert (len(kept), kept[1:]) in [(3, newest), (3, [kept[1], newest[0]])]
    listed = json.loads(tool.get(PLACES.catalogue))["snapshots"]
    assert [f"{LAYOUT.prefix}/{name}" for name in listed] == kept
    assert f"{PLACES.snapshots}notes.txt" in tool.objects()
    assert "the newest 3 stay" in tool.get(LAYOUT.index).decode()
    with tool.unchanged():
        assert tool.run("run")[0] == 0
