"""The life of exports and backups with SeaweedFS, an S3 server that people run.

make stores-check
"""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from db_backup_harness import BACKUPS, CSV, LAYOUT, BackupTool, bucket_of
from dev.servers.seaweedfs import SeaweedFS, missing
from ooni_common.errors import TryAgainLater
from store import one_writer

pytestmark = [pytest.mark.stores, pytest.mark.timeout(900)]

AMPLE = 300  # seconds; far more than what is waited for takes, for a machine under load


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    if reason := missing():
        if os.environ.get("OONI_TEST_NEEDS_SEAWEEDFS"):
            pytest.fail(reason)
        pytest.skip(reason)
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """A tool with a table of 20 MB, of which an export has several parts, and a small one."""
    execute = backup_tool.database.execute
    execute("CREATE TABLE blobs (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
    execute("INSERT INTO blobs SELECT number, randomString(1000) FROM numbers(20000)")
    execute("CREATE TABLE small (n UInt32) ENGINE = MergeTree ORDER BY n")
    execute("INSERT INTO small SELECT number FROM numbers(10)")
    backup_tool.keep_private(tables={"blobs": "both", "small": "both"})
    return backup_tool


def succeeds(tool: BackupTool, *arguments: str) -> str:
    """Check that a command succeeds; return what it has said, and print it for the record."""
    status, log = tool.run(*arguments)
    assert status == 0, log
    assert "Traceback" not in log
    tool.say(f"$ ooni-db-backup {' '.join(arguments)}\n{log}")
    return log


def test_the_whole_life_of_an_export_and_of_a_backup(tool: BackupTool) -> None:
    doctor = succeeds(tool, "doctor")
    assert [line for line in doctor.splitlines() if not line.startswith("ok")] == []
    assert tool.objects() == tool.kept() == {}

    succeeds(tool, "run")
    assert sorted(tool.exports()) == ["blobs.csv.zstd", "small.csv.zstd"]
    assert tool.client.head_object(Bucket=tool.bucket_name, Key=f"{CSV}blobs.csv.zstd")[
        "ETag"
    ].endswith('-3"')
    assert "nothing to do" in succeeds(tool, "run")

    tool.database.execute("INSERT INTO small VALUES (100)")
    succeeds(tool, "run")
    assert [backup.kind for backup in tool.backups()] == ["full", "incremental"]
    succeeds(tool, "verify")
    succeeds(tool, "verify", "--quick")
    succeeds(tool, "list")

    for source in ("exports", tool.backups()[-1].name):
        for table in ("blobs", "small"):
            succeeds(tool, "restore", table, "--from", source, "--as", f"{table}_again")
            assert tool.checksum(f"{table}_again") == tool.checksum(table)
            tool.database.execute(f"DROP TABLE {table}_again SYNC")

    succeeds(tool, "backup", "--full", "--force")
    tool.configure(tables={"blobs": "both", "small": "private"})
    succeeds(tool, "prune", "--keep", "1", "--older-than", "0", "--confirm")
    assert tool.exports() == ["blobs.csv.zstd"]
    assert [backup.kind for backup in tool.backups()] == ["full"]
    data = [key for key in tool.kept() if key.startswith(BACKUPS.all_data)]
    assert all(tool.backups()[0].name in key for key in data)
    succeeds(tool, "verify")
    assert tool.uploads() == []


def test_an_export_that_was_killed_leaves_an_upload_that_the_next_run_ends(
    tool: BackupTool,
) -> None:
    tool.configure(action="export", max_bandwidth=2_000_000)
    process = tool.start("export")
    until = time.monotonic() + AMPLE
    while not tool.uploads():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert f"{CSV}blobs.csv.zstd" not in tool.objects()
    tool.configure(max_bandwidth=0)
    assert "1 uploads of runs that were interrupted are aborted" in succeeds(tool, "export")
    assert tool.uploads() == []
    succeeds(tool, "verify", "--from", "exports")


def test_what_is_deleted_from_a_bucket_with_versions_stays_and_that_is_said(
    tool: BackupTool,
) -> None:
    for bucket in (tool.bucket_name, tool.private_bucket_name):
        tool.client.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
        )
    assert "NoncurrentVersionExpiration" in succeeds(tool, "doctor")
    succeeds(tool, "export")
    tool.configure(tables={"blobs": "both", "small": "none"})
    log = succeeds(tool, "prune", "--older-than", "0", "--confirm")
    assert "NoncurrentVersionExpiration" in log
    assert tool.exports() == ["blobs.csv.zstd"]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"public_aws_secret_access_key": "wrong-wrong-wrong"}, "check the key ID and the secret"),
        ({"public_aws_access_key_id": "AKIAWRONGWRONG"}, "check the key ID and the secret key"),
    ],
)
def test_wrong_credentials_are_named(tool: BackupTool, keys: dict[str, str], reason: str) -> None:
    for command in ("export", "verify", "doctor"):
        status, log = tool.run(command, **keys)
        assert (status, reason in log) == (78, True), log


def test_a_bucket_that_is_not_there_is_named(tool: BackupTool) -> None:
    status, log = tool.run("export", public_bucket_name="not-there")
    assert (status, "create it, or name another one" in log) == (78, True), log


def test_of_two_hosts_the_second_is_refused(tool: BackupTool) -> None:
    folder = tool.folder / "of another host"
    folder.mkdir()
    with one_writer.only_writer(bucket_of(tool), LAYOUT, folder):
        status, log = tool.run("export")
        assert (status, "is at work there" in log) == (75, True), log
        turn = one_writer.Turn(bucket_of(tool), LAYOUT, "of a third host")
        turn._write(at_work=True, last=one_writer.LastWriter())  # as if it had seen nobody
        with pytest.raises(TryAgainLater):
            turn.take()
    succeeds(tool, "export")
