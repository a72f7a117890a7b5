"""The private backups when the store, the database or the tool itself fails.

Each time a good full backup is there, rows were added, and the incremental backup goes wrong. After
that: nothing that is not complete is listed as good, the first backup is as it was, and the next
run makes a good one on it.
"""

import json
import os
import random
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from conftest import ClickHouseServer, Database, fresh_database
from db_backup_harness import BACKUPS, BackupTool, wait_until
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.servers.fault_proxy import (
    Condition,
    Exchange,
    FaultProxy,
    Gate,
    after,
    cut_request,
    lose_answer,
    passed,
    s3_error,
    since,
)
from dev.servers.s3 import KEY, KEY_ID, S3Server
from ooni_common.files import locked

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_backups")]
KILLS = int(os.environ.get("OONI_TEST_KILLS", "4"))
UNAVAILABLE, TRY_AGAIN_LATER, WRONG_CONFIG = 69, 75, 78
SECONDS = 120  # that a test waits for something, at most
NO_PROCESS = 2**31 - 1


def puts(part: str, method: str = "PUT") -> Condition:
    """The requests that write an object with this in its key, or do something else with it."""
    return lambda request: request.method == method and part in request.target


DEFINITIONS, PARTS, ROWS = puts("/definitions/"), puts("/incremental/data/"), puts("/rows/")
DELETED_MANIFEST = puts("/manifest/", "DELETE")
SCHEMA = puts("/schema.sql")
SERVER_MANIFEST, MANIFEST = puts("/incremental/.backup"), puts("/manifest/")


@pytest.fixture
def store(s3: S3Server) -> Iterator[FaultProxy]:
    """The way of tool and database to the store, which can go wrong."""
    with FaultProxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shared_database(clickhouse_server: ClickHouseServer) -> Iterator[Database]:
    """A database for all tests, with tables; what a test adds to `events` is dropped after it."""
    with fresh_database(clickhouse_server) as database:
        make_tables(database)
        yield database


@pytest.fixture(scope="module")
def first_backup() -> dict[str, bytes]:
    """The objects of a full backup of that database; none before the first test has made it."""
    return {}


@pytest.fixture
def tool(
    tmp_path: Path,
    shared_database: Database,
    first_backup: dict[str, bytes],
    s3: S3Server,
    store: FaultProxy,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[BackupTool]:
    """A tool with a full backup; since that was made, rows have come."""
    tool = BackupTool(tmp_path, shared_database, s3, f"test-{uuid.uuid4().hex[:16]}", capsys)
    configure(tool, store)
    if not first_backup:
        assert tool.run("backup")[0] == 0
        first_backup |= {key: tool.get_private(key) for key in tool.kept()}
        store.heal()
    for key, content in first_backup.items():
        tool.client.put_object(Bucket=tool.private_bucket_name, Key=key, Body=content)
    add_rows(tool)
    yield tool
    shared_database.execute("ALTER TABLE events DROP PARTITION 1")


def configure(tool: BackupTool, store: FaultProxy) -> None:
    tool.keep_private(
        action="backup",
        public_bucket_name="",
        private_endpoint=store.url,
        tables={"*": "private"},
    )
    (tool.folder / "state").mkdir()


def make_tables(database: Database) -> None:
    """Make a table whose rows BACKUP saves, and one of the others."""
    database.execute(
        "CREATE TABLE events (added UInt8, t String)"
        " ENGINE = MergeTree PARTITION BY added ORDER BY t"
    )
    database.execute("INSERT INTO events SELECT 0, toString(number) FROM numbers(100)")
    database.execute("CREATE TABLE asns (asn UInt32) ENGINE = Join(ANY, LEFT, asn)")
    database.execute("INSERT INTO asns SELECT number FROM numbers(10)")


def add_rows(tool: BackupTool) -> None:
    """Add rows to each table."""
    tool.database.execute("INSERT INTO events SELECT 1, randomPrintableASCII(20) FROM numbers(100)")
    tool.database.execute("INSERT INTO asns SELECT rand() FROM numbers(10)")


# --- what has to be true after each fault ---


def states(tool: BackupTool) -> dict[str, str]:
    """Return the state of each backup, as `list` says."""
    _, printed = tool.run("list", "--json")
    listed, _ = json.JSONDecoder().raw_decode(printed)
    return {backup["name"]: backup["state"] for backup in listed["backups"]}


def check_only_the_first_is_good(tool: BackupTool) -> None:
    """Check that the backup that failed is none, and that the one before is as it was."""
    found = states(tool)
    first = tool.backups()[0].name
    assert found.pop(first) == "good"
    assert set(found.values()) <= {"unfinished", "in progress"}
    status, log = tool.run("verify", "--quick", "--from", "all")
    assert status == 0, log


def check_the_next_is_based_on_the_first(tool: BackupTool) -> str:
    """Check that a run without faults makes a good backup on the first one; return its log."""
    (first,) = tool.backups()
    status, log = tool.run("backup")
    assert status == 0, log
    first_again, second = tool.backups()
    assert first_again == first
    assert (second.kind, second.base) == ("incremental", first.name)
    check_the_newest_can_be_restored(tool)
    return log


def check_the_newest_can_be_restored(tool: BackupTool) -> None:
    """Check that the newest backup is good and can be restored; that needs its base, too."""
    status, log = tool.run("verify")
    assert (status, f"{tool.backups()[-1].name} can be restored" in log) == (0, True), log


# --- the store ---


@pytest.mark.parametrize(
    "moment",
    [DEFINITIONS, PARTS, ROWS, MANIFEST],
    ids=["definitions", "parts", "rows", "manifest"],
)
def test_a_store_that_goes_down_spoils_only_this_backup(
    tool: BackupTool, store: FaultProxy, moment: Condition
) -> None:
    store.fail(cut_request(after=0), since(moment))
    status, log = tool.run("backup")
    assert status == UNAVAILABLE, log
    store.heal()
    check_only_the_first_is_good(tool)
    check_the_next_is_based_on_the_first(tool)


def test_a_store_that_is_down_from_the_start_spoils_only_this_backup(
    tool: BackupTool, store: FaultProxy
) -> None:
    status, log = tool.run("backup", private_endpoint="http://127.0.0.1:9")
    assert (status, len(log.splitlines())) == (UNAVAILABLE, 1), log
    tool.configure(private_endpoint=store.url)
    check_only_the_first_is_good(tool)
    check_the_next_is_based_on_the_first(tool)


@pytest.mark.parametrize(
    ("status", "code", "written"), [(403, "QuotaExceeded", 2), (507, "InsufficientStorage", 8)]
)
def test_a_bucket_that_is_full_spoils_only_this_backup(
    tool: BackupTool, store: FaultProxy, status: int, code: str, written: int
) -> None:
    store.fail(s3_error(status, code), after(written, puts("")))
    exit_status, log = tool.run("backup")
    assert (exit_status, code in log) == (UNAVAILABLE, True), log
    store.heal()
    assert len(states(tool)) == 1
    check_only_the_first_is_good(tool)
    check_the_next_is_based_on_the_first(tool)


@pytest.mark.parametrize(
    "moment",
    [DEFINITIONS, SERVER_MANIFEST, SCHEMA],
    ids=["definitions", "server-manifest", "schema"],
)
def test_credentials_that_expire_are_a_matter_of_the_configuration(
    tool: BackupTool, store: FaultProxy, moment: Condition
) -> None:
    store.fail(s3_error(403, "ExpiredToken"), since(moment))
    status, log = tool.run("backup")
    assert status == WRONG_CONFIG, log
    assert "ExpiredToken" in log or "ACCESS_DENIED" in log  # a HEAD has no text in its answer
    store.heal()
    check_only_the_first_is_good(tool)
    check_the_next_is_based_on_the_first(tool)


def test_without_its_manifest_a_backup_is_none(tool: BackupTool, store: FaultProxy) -> None:
    store.fail(s3_error(500, "InternalError"), MANIFEST)
    status, log = tool.run("backup")
    assert status == UNAVAILABLE, log
    store.heal()
    assert len(states(tool)) == 1
    check_only_the_first_is_good(tool)
    check_the_next_is_based_on_the_first(tool)


def test_a_manifest_whose_answer_was_lost_once_is_written_again(
    tool: BackupTool, store: FaultProxy
) -> None:
    store.fail(lose_answer(), MANIFEST, times=1)
    status, log = tool.run("backup")
    assert status == 0, log
    assert list(states(tool).values()) == ["good", "good"]
    check_the_newest_can_be_restored(tool)


@pytest.mark.parametrize("deleted", [False, True])
def test_with_its_manifest_a_backup_is_complete_also_if_nobody_heard_of_it(
    tool: BackupTool, store: FaultProxy, *, deleted: bool
) -> None:
    """The manifest arrives, and the tool is told nothing: it deletes what it can."""
    store.fail(lose_answer(), MANIFEST)
    if not deleted:
        store.fail(s3_error(503, "SlowDown"), since(DELETED_MANIFEST))
    status, log = tool.run("backup")
    assert status == UNAVAILABLE, log
    store.heal()
    assert list(states(tool).values()) == ["good"] * (1 if deleted else 2)
    check_the_newest_can_be_restored(tool)
    add_rows(tool)
    status, log = tool.run("backup")
    assert status == 0, log
    check_the_newest_can_be_restored(tool)


def test_a_deletion_that_is_interrupted_leaves_no_backup_that_is_listed_as_good(
    tool: BackupTool, store: FaultProxy
) -> None:
    store.fail(lose_answer(), MANIFEST)
    store.fail(s3_error(503, "SlowDown"), lambda request: request.method == "POST")
    status, log = tool.run("backup")
    assert status == UNAVAILABLE, log
    store.heal()
    assert len(states(tool)) == 2
    check_only_the_first_is_good(tool)
    check_the_next_is_based_on_the_first(tool)


# --- the database ---


def test_a_database_that_dies_spoils_only_this_backup(
    tmp_path: Path, s3: S3Server, store: FaultProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = f"dying-{uuid.uuid4().hex[:16]}"
    with EmbeddedClickHouse(tmp_path / "db") as server:
        tool = BackupTool(tmp_path, Database("default", server), s3, bucket, capsys)
        configure(tool, store)
        make_tables(tool.database)
        assert tool.run("backup")[0] == 0
        add_rows(tool)

        def die(exchange: Exchange) -> None:
            server.kill()
            exchange.cut()

        store.fail(die, PARTS, times=1)
        status, log = tool.run("backup")
        assert (status, "database" in log) == (UNAVAILABLE, True), log
        check_only_the_first_is_good(tool)
        server.start()
        tool.configure(clickhouse_url=server.uri())
        check_only_the_first_is_good(tool)
        check_the_next_is_based_on_the_first(tool)


# --- the tool ---


@contextmanager
def held(
    tool: BackupTool, store: FaultProxy, moment: Condition
) -> Iterator[tuple[subprocess.Popen[str], Gate]]:
    """Start a backup, and hold the server back when it writes this."""
    gate = Gate()
    store.fail(gate, moment)
    tool.configure(private_retries=10)  # for as long as it is held back
    with tool.start("backup") as process:
        try:
            assert gate.reached.wait(SECONDS)
            yield process, gate
        finally:
            process.kill()
            gate.open(then=cut_request(after=0))  # nothing comes late
            store.heal()


def statuses(tool: BackupTool) -> list[str]:
    """Return what became of all that the server was asked to write, but for the first backup."""
    rows = tool.database.execute(
        "SELECT toString(status) FROM system.backups WHERE position(name, %(bucket)s) > 0"
        " AND position(id, %(first)s) = 0 AND position(toString(status), 'BACKUP') > 0"
        " ORDER BY toString(status)",
        {"bucket": tool.private_bucket_name, "first": tool.backups()[0].name},
    )
    return [status for (status,) in rows]


def is_being_cancelled(tool: BackupTool) -> bool:
    """Tell whether the server has heard that it is to end a backup."""
    sql = "SELECT max(is_cancelled) FROM system.processes WHERE query LIKE 'BACKUP %'"
    return bool(tool.database.execute(sql)[0][0])


def test_a_stop_cancels_what_the_server_is_at(tool: BackupTool, store: FaultProxy) -> None:
    before = tool.kept()
    with held(tool, store, PARTS) as (process, gate):
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_being_cancelled(tool))
        gate.open(then=cut_request(after=0))
        log, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, "stopped by SIGTERM" in log) == (TRY_AGAIN_LATER, True), log
    assert statuses(tool) == ["BACKUP_CANCELLED", "BACKUP_CREATED"]
    assert tool.kept() == before
    check_the_next_is_based_on_the_first(tool)


def test_what_the_server_goes_on_with_alone_is_no_backup(
    tool: BackupTool, store: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tool, store, PARTS) as (process, gate):
        process.kill()
        process.wait()
        monkeypatch.setattr("backups.commands.SILENCE", timedelta(0))
        before = tool.kept()
        status, log = tool.run("prune", "--confirm")
        assert (status, tool.kept()) == (0, before), log
        assert list(states(tool).values()) == ["good", "in progress"]
        gate.open()
        wait_until(lambda: "CREATING_BACKUP" not in statuses(tool))
    assert statuses(tool) == 2 * ["BACKUP_CREATED"]
    assert list(states(tool).values()) == ["good", "unfinished"]
    check_only_the_first_is_good(tool)
    check_the_next_is_based_on_the_first(tool)


def test_what_a_run_that_was_killed_has_left_is_pruned_when_nothing_is_added_any_more(
    tool: BackupTool, store: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tool, store, SCHEMA) as (process, _gate):
        process.kill()
        process.wait()
    before = tool.kept()
    status, log = tool.run("prune", "--confirm")
    assert (status, tool.kept()) == (0, before), log
    monkeypatch.setattr("backups.commands.SILENCE", timedelta(0))
    status, log = tool.run("prune", "--confirm")
    assert (status, "it has no manifest" in log) == (0, True), log
    assert list(states(tool).values()) == ["good"]
    check_the_next_is_based_on_the_first(tool)


def test_uploads_that_a_server_has_not_finished_are_pruned_with_their_backup(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No listing shows them, and the store charges for them."""
    monkeypatch.setattr("backups.commands.SILENCE", timedelta(0))
    bucket, path = (
        tool.private_bucket_name,
        BACKUPS.server_backup("20260101T000000Z", "incremental"),
    )
    tool.client.put_object(Bucket=bucket, Key=f"{path}.lock", Body=b"")
    tool.client.create_multipart_upload(Bucket=bucket, Key=f"{path}data/large.bin")
    tool.client.create_multipart_upload(Bucket=bucket, Key="of/somebody/else")
    assert tool.run("prune", "--confirm")[0] == 0
    uploads = tool.client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in uploads] == ["of/somebody/else"]


def test_a_backup_that_the_server_does_not_end_blocks_nobody(
    tool: BackupTool, store: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of a run that was killed, and the store does not answer."""
    monkeypatch.setattr("backups.server.ENDING_TIME", 0)
    monkeypatch.setattr("backups.commands.SILENCE", timedelta(0))
    gate, name = Gate(), "20260101T000000Z"
    store.fail(gate, lambda request: name in request.target and request.method == "PUT")
    path = f"{store.url}/{tool.private_bucket_name}/{BACKUPS.server_backup(name, 'incremental')}"
    tool.database.execute(
        f"BACKUP TABLE events TO S3('{path}', '{KEY_ID}', '{KEY}')"
        f" SETTINGS id = 'ooni-db-backup-{name}-incremental-0' ASYNC"
    )
    assert gate.reached.wait(SECONDS)
    assert "does not end" in check_the_next_is_based_on_the_first(tool)
    gate.open()
    wait_until(lambda: "CREATING_BACKUP" not in statuses(tool))
    assert "BACKUP_CANCELLED" in statuses(tool)
    assert tool.run("prune", "--confirm")[0] == 0
    assert list(states(tool).values()) == ["good", "good"]


def test_a_backup_of_another_configuration_is_not_ended(
    tool: BackupTool, store: FaultProxy
) -> None:
    with held(tool, store, PARTS) as (process, gate):
        status, log = tool.run(
            "backup",
            state_dir=str(tool.folder / "another"),
            private_prefix="another",
            private_endpoint=tool.s3.endpoint,
        )
        assert status == 0, log
        gate.open()
        log, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, log


def test_a_lock_of_a_process_that_is_gone_blocks_nobody(tool: BackupTool) -> None:
    (tool.folder / "state" / "db-backup.lock").write_text(f"{NO_PROCESS}\n")
    check_the_next_is_based_on_the_first(tool)


def test_a_lock_of_a_process_that_lives_is_respected(tool: BackupTool, store: FaultProxy) -> None:
    with locked(tool.folder / "state" / "db-backup.lock"):
        for command in (["backup"], ["prune", "--confirm"]):
            status, log = tool.run(*command)
            assert (status, f"another run (pid {os.getpid()})" in log) == (TRY_AGAIN_LATER, True)
        assert store.requests == []
        check_only_the_first_is_good(tool)


def test_kills_at_any_time_leave_no_backup_that_is_listed_as_good_and_is_not(
    tool: BackupTool, store: FaultProxy
) -> None:
    """Of KILLS runs; whatever the server has begun, it goes on with."""
    dice = random.Random(6)
    assert tool.run("backup")[0] == 0
    requests = len(store.requests)
    processes: list[subprocess.Popen[str]] = []

    def kill(exchange: Exchange) -> None:
        processes[-1].kill()
        passed(exchange)

    for _ in range(KILLS):
        add_rows(tool)
        store.heal()
        store.fail(kill, after(dice.randrange(requests), lambda _request: True), times=1)
        processes.append(tool.start("backup"))
        log, _ = processes[-1].communicate(timeout=SECONDS)
        assert processes[-1].returncode in (0, -signal.SIGKILL), log
        assert "damaged" not in states(tool).values()
        status, log = tool.run("verify", "--quick", "--from", "all")
        assert status == 0, log
    store.heal()
    add_rows(tool)
    status, log = tool.run("backup")
    assert status == 0, log
    assert list(states(tool).values())[-1] == "good"
    check_the_newest_can_be_restored(tool)
