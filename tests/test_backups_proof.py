"""What proves backups on a schedule: `verify` and its metrics, and the heartbeat of a run."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from db_backup_harness import BACKUPS, CSV, BackupTool
from dev.servers.loopback import Exchange, LoopbackServer
from ooni_common.config import Secret

PROVEN = "ooni_db_backup_last_verified_timestamp_seconds"
FINDINGS = "ooni_db_backup_verify_findings"


@pytest.fixture
def tool(backup_tool: BackupTool, tmp_path: Path) -> BackupTool:
    """A table that is exported and backed up, and a folder for metrics."""
    backup_tool.database.execute("CREATE TABLE t (a UInt32, d Date) ENGINE = MergeTree ORDER BY a")
    backup_tool.database.execute(
        "INSERT INTO t SELECT number, toDate('2026-01-01') + number FROM numbers(60)"
    )
    months = {"policy": "both", "chunk_by": "month", "column": "d"}
    (tmp_path / "metrics").mkdir()
    backup_tool.keep_private(tables={"t": months}, textfile_dir=str(tmp_path / "metrics"))
    assert backup_tool.run("run")[0] == 0
    return backup_tool


def metrics_of(tool: BackupTool, name: str) -> dict[str, float]:
    """Return the samples of a file of metrics."""
    path = tool.folder / "metrics" / f"ooni_{name}.prom"
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {sample: float(value) for sample, value in pairs}


def test_a_verification_tells_when_the_newest_backup_was_proven(tool: BackupTool) -> None:
    of_run = metrics_of(tool, "db-backup")
    assert of_run["ooni_db_backup_backups"] == 1
    started = int(time.time())
    assert tool.run("verify", "--sample", "1")[0] == 0
    verified = metrics_of(tool, "db-backup-verify")
    assert started <= verified.pop(PROVEN) <= time.time()
    assert verified == {FINDINGS: 0}
    assert metrics_of(tool, "db-backup") == of_run  # of runs nothing is known that was not before


@pytest.mark.long
@pytest.mark.parametrize("arguments", [["--quick"], ["t"], ["--from", "exports"], ["--dry-run"]])
def test_what_restores_less_than_the_newest_backup_proves_none(
    tool: BackupTool, arguments: list[str]
) -> None:
    assert tool.run("verify", *arguments)[0] == 0
    assert PROVEN not in metrics_of(tool, "db-backup-verify")


def test_a_backup_that_is_damaged_is_told_and_what_was_proven_before_stays(
    tool: BackupTool,
) -> None:
    assert tool.run("verify")[0] == 0
    proven = metrics_of(tool, "db-backup-verify")[PROVEN]
    data = next(key for key in tool.kept() if "/incremental/" in key and key.endswith("data.bin"))
    size = len(tool.get_private(data))
    tool.client.put_object(Bucket=tool.private_bucket_name, Key=data, Body=b"\0" * size)
    assert tool.run("verify")[0] == 65
    assert metrics_of(tool, "db-backup-verify") == {PROVEN: proven, FINDINGS: 1}
    for key in tool.kept():
        if "/manifest/" in key:
            tool.client.delete_object(Bucket=tool.private_bucket_name, Key=key)
    assert tool.run("verify")[0] == 65
    assert metrics_of(tool, "db-backup-verify") == {PROVEN: proven, FINDINGS: 1}


def test_what_is_found_in_the_exports_is_told_whatever_the_backups_are(tool: BackupTool) -> None:
    tool.put(f"{CSV}t_202601.csv.zstd", b"damaged")
    tool.configure(private_named_collection="another")
    (backup,) = tool.backups()
    other = msgspec.structs.replace(backup, collection="of_before")
    key = BACKUPS.manifest(backup.name)
    tool.client.put_object(
        Bucket=tool.private_bucket_name, Key=key, Body=msgspec.json.encode(other)
    )
    status, log = tool.run("verify")
    assert (status, "set private_named_collection to it" in log) == (78, True)
    assert "t_202601.csv.zstd" in log
    assert metrics_of(tool, "db-backup-verify") == {FINDINGS: 1}


@pytest.mark.long
def test_one_backup_that_can_not_be_verified_here_keeps_no_other_one_from_it(
    tool: BackupTool,
) -> None:
    assert tool.run("backup", "--force", "--full")[0] == 0
    first, newest = tool.backups()
    key = BACKUPS.manifest(first.name)
    other = msgspec.structs.replace(first, collection="of_before")
    tool.client.put_object(
        Bucket=tool.private_bucket_name, Key=key, Body=msgspec.json.encode(other)
    )
    status, log = tool.run("verify", "--from", "all")
    assert (status, f"the backup {first.name} was made by" in log) == (78, True)
    assert f"the backup {newest.name} can be restored" in log


def test_of_a_sample_the_rows_are_read_and_all_objects_are_looked_at(tool: BackupTool) -> None:
    assert len(tool.exports()) == 3
    status, log = tool.run("verify", "--sample", "2", "--from", "exports")
    assert (status, log.count(": as exported")) == (0, 2)
    status, log = tool.run("verify", "--sample", "9", "--from", "exports")
    assert (status, log.count(": as exported")) == (0, 3)
    for name in tool.exports():
        tool.put(CSV + name, b"x")
    status, log = tool.run("verify", "--sample", "1", "--from", "exports")
    assert (status, log.count("bytes instead of")) == (65, 3)


# --- heartbeat ---


class Watcher(LoopbackServer):
    """A service that waits for heartbeats; it answers with `status`."""

    status = 200

    def answer(self, exchange: Exchange) -> None:
        """Answer."""
        exchange.answer(self.status)


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """A service that waits for heartbeats."""
    with Watcher() as watcher:
        yield watcher


UUID = "5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278"


def test_a_run_that_succeeds_is_told_and_no_other_one(tool: BackupTool, watcher: Watcher) -> None:
    url = f"{watcher.address}/ping/{UUID}"
    assert tool.run("run", "--dry-run", heartbeat_url=url)[0] == 0
    assert tool.run("export")[0] == 0
    assert not watcher.requests
    assert tool.run("run")[0] == 0
    assert [request.target for request in watcher.requests] == [f"/ping/{UUID}"]
    tool.database.execute("CREATE TABLE unlisted (a UInt8) ENGINE = MergeTree ORDER BY a")
    assert tool.run("run")[0] == 65
    assert len(watcher.requests) == 1


@pytest.mark.long
@pytest.mark.parametrize("status", [404, 500])
def test_a_heartbeat_that_fails_fails_no_run_and_its_address_is_not_logged(
    tool: BackupTool, watcher: Watcher, status: int
) -> None:
    watcher.status = status
    code, log = tool.run("run", "-v", heartbeat_url=f"{watcher.address}/ping/{UUID}")
    assert (code, "warning: heartbeat_url (127.0.0.1): " in log, UUID in log) == (0, True, False)
    assert re.search(str(status), log)


@pytest.mark.long
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/{}", "http://nowhere.invalid/{}"])
def test_a_watcher_that_is_away_fails_no_run(tool: BackupTool, url: str) -> None:
    code, log = tool.run("run", heartbeat_url=url.format(UUID))
    assert (code, "heartbeat_url (" in log, UUID in log) == (0, True, False)


def test_a_heartbeat_url_is_a_secret(tool: BackupTool) -> None:
    tool.configure(heartbeat_url=f"https://hc-ping.com/{UUID}")
    assert isinstance(tool.loaded().heartbeat_url, Secret)
    status, log = tool.run("--check-config")
    assert (status, UUID in log) == (0, False)
    status, log = tool.run("run", heartbeat_url=f"ftp://x/{UUID}")
    assert (status, "heartbeat_url: expected https://" in log, UUID in log) == (78, True, False)
