"""Two hosts with one prefix of a bucket: the second one is refused, and touches nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from db_backup_harness import BACKUPS, CSV, LAYOUT, BackupTool, bucket_of
from dev.servers.fault_proxy import FaultProxy, Gate, flip_request, s3_error
from dev.servers.loopback import Request
from ooni_common.errors import TryAgainLater
from store import one_writer
from store.one_writer import only_writer, read_writer

AMPLE = 120  # seconds; far more than what is waited for takes, for a machine under load


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    backup_tool.database.execute("CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n")
    backup_tool.database.execute("INSERT INTO t SELECT number FROM numbers(10)")
    backup_tool.configure(tables={"t": "public"})
    return backup_tool


@pytest.fixture
def elsewhere(tool: BackupTool) -> Path:
    """The state directory of another host."""
    folder = tool.folder / "state of another host"
    folder.mkdir()
    return folder


def writes_the_mark(request: Request) -> bool:
    return request.method == "PUT" and LAYOUT.writer in request.target


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + AMPLE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_while_another_host_is_at_work_a_run_is_refused_and_ends_none_of_its_uploads(
    tool: BackupTool, elsewhere: Path
) -> None:
    with only_writer(bucket_of(tool), LAYOUT, elsewhere):
        tool.client.create_multipart_upload(Bucket=tool.bucket_name, Key=f"{CSV}t.csv.zstd")
        status, log = tool.run("export")
        assert (status, "is at work there" in log, tool.exports()) == (75, True, []), log
        assert len(tool.uploads()) == 1
        status, log = tool.run("prune", "--older-than", "0")
        assert status == 0, log
        status, log = tool.run("doctor")
        assert (status, "two hosts can't share it" in log) == (0, True), log
    status, log = tool.run("export")
    assert (status, "the last run was that of" in log, tool.exports()) == (0, True, ["t.csv.zstd"])
    assert tool.uploads() == []
    status, log = tool.run("export")
    assert (status, "the last run" in log, "nothing to do" in log) == (0, False, True), log


def test_backups_of_two_hosts_do_not_meet_either(tool: BackupTool, elsewhere: Path) -> None:
    tool.keep_private(tables={"t": "private"})
    tool.bucket_name, public = tool.private_bucket_name, tool.bucket_name
    bucket = bucket_of(tool)
    tool.bucket_name = public
    with only_writer(bucket, BACKUPS, elsewhere):
        status, log = tool.run("backup")
        assert (status, "is at work there" in log, tool.kept()) == (75, True, {}), log


def test_what_was_killed_on_this_host_is_not_waited_for(tool: BackupTool) -> None:
    killed = only_writer(bucket_of(tool), LAYOUT, tool.folder / "state")
    (tool.folder / "state").mkdir()
    killed.__enter__()
    status, log = tool.run("export")
    assert (status, "another" in log) == (0, False), log


def test_what_was_killed_on_another_host_is_waited_for_as_long_as_it_could_live(
    tool: BackupTool, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = only_writer(bucket_of(tool), LAYOUT, elsewhere)
    killed.__enter__()
    status, log = tool.run("export")
    assert (status, "30 minutes after its last sign" in log) == (75, True), log
    monkeypatch.setattr(one_writer, "SILENCE", -60)
    status, log = tool.run("export")
    assert (status, "the last run was that of" in log) == (0, True), log


@pytest.fixture
def proxy(tool: BackupTool) -> Iterator[FaultProxy]:
    with FaultProxy(tool.s3.endpoint) as proxy:
        yield proxy


def test_of_two_that_begin_at_once_one_goes_on(
    tool: BackupTool, elsewhere: Path, proxy: FaultProxy
) -> None:
    gate = Gate()
    proxy.fail(gate, writes_the_mark)
    refused: list[str] = []

    def begin() -> None:
        try:
            with only_writer(bucket_of(tool, proxy.url), LAYOUT, elsewhere):
                pass
        except TryAgainLater as error:
            refused.append(str(error))

    second = threading.Thread(target=begin)
    second.start()
    assert gate.reached.wait(AMPLE)
    (tool.folder / "state").mkdir()
    with only_writer(bucket_of(tool), LAYOUT, tool.folder / "state"):
        gate.open()
        second.join(AMPLE)
        assert "is at work there" in refused[0]
        mark = read_writer(bucket_of(tool), LAYOUT).mark
        assert mark is not None
        assert mark.writer == one_writer.name_of(tool.folder / "state")


def test_without_conditions_of_writing_the_first_one_stops_at_its_next_object(
    tool: BackupTool, elsewhere: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the second one, at once or at its next, if the first has renewed its mark meanwhile."""
    monkeypatch.setattr(one_writer, "RENEWAL", 0.05)

    def has_a_condition(request: Request) -> bool:
        return "If-None-Match" in request.headers or "If-Match" in request.headers

    gate = Gate()
    proxy.fail(s3_error(501, "NotImplemented"), has_a_condition)
    proxy.fail(gate, writes_the_mark, times=1)
    (tool.folder / "state").mkdir()
    ended, refused = threading.Event(), threading.Event()

    def begin() -> None:
        bucket = bucket_of(tool, proxy.url)
        try:
            with only_writer(bucket, LAYOUT, elsewhere):
                while not ended.wait(0.02):
                    bucket.put("two", b"", "text/plain")
        except TryAgainLater:
            refused.set()

    second = threading.Thread(target=begin)
    second.start()
    try:
        assert gate.reached.wait(AMPLE)
        bucket = bucket_of(tool)
        with only_writer(bucket, LAYOUT, tool.folder / "state"):
            bucket.put("one", b"", "text/plain")
            gate.open()

            def is_stopped() -> bool:
                try:
                    bucket.put("more", b"", "text/plain")
                except TryAgainLater as error:
                    return "writes there now, too" in str(error)
                return False

            wait_for(lambda: is_stopped() or refused.is_set())
    finally:
        ended.set()
        second.join(AMPLE)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 5000, b'{"writer": 1}', b" " * 20_000])
def test_a_mark_that_can_not_be_read_is_replaced(tool: BackupTool, content: bytes) -> None:
    tool.put(LAYOUT.writer, content)
    status, log = tool.run("export")
    assert (status, tool.exports()) == (0, ["t.csv.zstd"]), log
    assert read_writer(bucket_of(tool), LAYOUT).mark is not None


def test_a_mark_whose_name_was_damaged_on_the_way_keeps_nobody_out(
    tool: BackupTool, proxy: FaultProxy
) -> None:
    proxy.fail(flip_request(0.2), writes_the_mark)
    status, log = tool.run("export", public_endpoint=proxy.url)
    assert (status, tool.exports()) == (0, ["t.csv.zstd"]), log
    assert read_writer(bucket_of(tool), LAYOUT).mark is None
    status, log = tool.run("export")
    assert (status, "nothing to do" in log) == (0, True), log
