"""What a run deletes of the exports by itself: what no manifest names, and older snapshots."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import exports.prune
from backup_config import Config
from db_backup_harness import CSV, LAYOUT, BackupTool, bucket_of
from portal.places import Places
from store.one_writer import only_writer

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
    let_begin_long_ago(backup_tool, "t")
    backup_tool.put(STRAY, b"of a time when t had months")
    return backup_tool


def let_begin_long_ago(tool: BackupTool, table: str) -> None:
    """Let a manifest say that it has begun before all objects came."""
    key = LAYOUT.manifest(table)
    begun = re.sub(rb'("begun": ?)"[^"]+"', rb'\1"2020-01-01T00:00:00Z"', tool.get(key))
    assert b"2020-01-01" in begun
    tool.put(key, begun)


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
    """Of a table that is not public any more, or gone, an export may be the last copy."""
    gone = f"{CSV}u_202601.csv.zstd"
    let_begin_long_ago(tool, "u")
    tool.put(gone, b"perhaps named by a newer manifest than the one that was put back")
    tool.database.execute("DROP TABLE u SYNC")
    days_pass(DAYS + 1)
    tables = {"t": "none", "u": "gone"}
    assert tool.run("run", prune_after_days=DAYS, tables=tables)[0] == 0
    assert {STRAY, gone} < set(tool.objects())
    status, log = tool.run("prune", "--older-than", f"{DAYS}")
    assert (status, "t is not public any more" in log) == (0, True)
    assert all(f"would delete {key}" in log for key in (STRAY, gone))


@pytest.mark.parametrize("lost", [[LAYOUT.manifest("t")], [LAYOUT.manifest("t"), LAYOUT.run]])
def test_what_a_lost_manifest_may_have_named_is_left_to_somebody(
    tool: BackupTool, days_pass: Pass, lost: list[str]
) -> None:
    """The database may have these rows no more; the new manifest does not know of them."""
    for key in lost:
        tool.client.delete_object(Bucket=tool.bucket_name, Key=key)
    days_pass(DAYS + 1)
    # Where the manifest of all is lost, too, nothing tells that this one was there.
    assert tool.run("run", prune_after_days=DAYS)[0] == (65 if len(lost) == 1 else 0)
    assert tool.run("export", "--force", "t")[0] == 0
    days_pass(10 * DAYS)
    assert tool.run("run")[0] == 0
    assert STRAY in tool.objects()
    assert f"would delete {STRAY}" in tool.run("prune")[1]


@pytest.mark.parametrize("begun", ["", "9999-01-01T00:00:00Z"])
def test_while_nobody_knows_since_when_a_manifest_is_whole_nothing_goes(
    tool: BackupTool, days_pass: Pass, begun: str
) -> None:
    key = LAYOUT.manifest("t")
    tool.put(key, tool.get(key).replace(b"2020-01-01T00:00:00Z", begun.encode()))
    days_pass(DAYS + 1)
    with tool.unchanged():
        assert tool.run("run", prune_after_days=DAYS)[0] == 0


@pytest.mark.long
def test_a_dry_run_shows_nothing_that_the_run_would_export(
    backup_tool: BackupTool, days_pass: Pass
) -> None:
    execute, stray = backup_tool.database.execute, f"{CSV}m_202601.csv.zstd"
    execute("CREATE TABLE m (t DateTime) ENGINE = MergeTree ORDER BY t")
    execute("INSERT INTO m VALUES ('2026-02-05 00:00:00')")
    by_month = {"policy": "public", "chunk_by": "month", "column": "t"}
    assert backup_tool.run("run", tables={"m": by_month}, prune_after_days=DAYS)[0] == 0
    let_begin_long_ago(backup_tool, "m")
    backup_tool.put(stray, b"that nothing names")
    days_pass(DAYS + 1)
    assert f"would delete {stray}" in backup_tool.run("run", "--dry-run")[1]
    execute("INSERT INTO m VALUES ('2026-01-05 00:00:00')")
    status, log = backup_tool.run("run", "--dry-run")
    assert (status, "would export 202601" in log, "would delete" in log) == (0, True, False)
    assert backup_tool.run("run")[0] == 0
    assert backup_tool.verifies()


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
    monkeypatch.setattr("store.bucket.Bucket.time", lambda _bucket: 0.0)
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
    assert "the newest 3 are kept" in tool.get(LAYOUT.index).decode()
    with tool.unchanged():
        assert tool.run("run")[0] == 0
