"""Several chunks at once: as with one job, whatever fails or stops, with bounded memory."""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, cast

import pytest

from backup_config import Config
from db_backup_harness import AMPLE, CSV, BackupTool, bucket_of
from dev.servers.fault_proxy import Exchange, FaultProxy, Gate, after, cut_request, passed, s3_error
from exports import chunk_export, manifest_file
from exports.lanes import Lane, LaneReplicas, Lanes
from ooni_common.errors import ConfigError, DataRefused, TryAgainLater
from ooni_common.nodes import Node
from parallel import BytesInFlight, as_they_end
from store import uploads as uploads_module
from store.bucket import Bucket
from store.one_writer import Turn
from store.upload_parts import UploadEnded
from store.uploads import Upload, uploading
from test_exports_faults import from_chunk, is_creation, is_part
from test_exports_pending import is_export, pending, puts
from throttle import Throttle, Together

DAYS = {"policy": "public", "chunk_by": "day", "column": "day"}
COUNT = 20
JOBS = 3


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens because a test takes long: neither a manifest, nor the end of patience."""
    monkeypatch.setattr(manifest_file, "INTERVAL", 10**9)
    for module in ("store.uploads", "store.upload_parts", "exports.flights"):
        monkeypatch.setattr(f"{module}.ABORT_TIME", AMPLE)


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """A table of some days, exported by several jobs."""
    backup_tool.database.execute(
        "CREATE TABLE events (day Date, id UInt64, s String) ENGINE = MergeTree ORDER BY (day, id)"
    )
    backup_tool.configure(tables={"events": DAYS}, jobs=JOBS)
    backup_tool.database.execute(
        f"INSERT INTO events SELECT toDate('2020-01-01') + number % {COUNT}, sipHash64(number),"
        f" 'of two\nlines' FROM numbers({3 * COUNT})"
    )
    return backup_tool


@pytest.fixture
def database_proxy(tool: BackupTool) -> Iterator[FaultProxy]:
    """The tool's way to the database, which can go wrong."""
    with FaultProxy(tool.config["http_url"]) as proxy:
        tool.config["http_url"] = proxy.url
        yield proxy


def said(log: str) -> list[str]:
    """Return what is said of chunks, without the time that they took, in an order of its own."""
    return sorted(re.sub(r", in .*", "", line) for line in log.splitlines() if "csv/" in line)


# --- as with one job ---


def test_with_several_jobs_all_is_as_with_one(tool: BackupTool) -> None:
    status, log = tool.run(jobs=1)
    assert status == 0, log
    objects = {name: tool.get(f"{CSV}{name}") for name in tool.exports()}
    before = tool.manifest("events").chunks
    status, again = tool.run("export", "--force", jobs=JOBS)
    assert status == 0, again
    assert {name: tool.get(f"{CSV}{name}") for name in tool.exports()} == objects
    chunks = tool.manifest("events").chunks
    assert list(chunks) == list(before) == sorted(chunks)
    assert [one.sha256 for one in chunks.values()] == [one.sha256 for one in before.values()]
    assert said(again.replace("again, by --force", "new")) == said(log)
    assert len(said(log)) == COUNT
    assert (pending(tool), tool.verifies()) == ([], True)


def test_while_the_store_takes_chunks_others_are_read(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    """It takes none before it was told of more than can be read at once."""
    told: list[str] = []
    enough = threading.Event()

    def wait(exchange: Exchange) -> None:
        told.append(exchange.request.target)
        if len(told) > JOBS:
            enough.set()
        assert enough.wait(AMPLE)
        passed(exchange)

    s3_proxy.fail(wait, is_export)
    status, log = tool.run()
    assert status == 0, log
    assert len(told) == COUNT
    assert tool.verifies()


def test_ranges_that_are_split_shrink_last(tool: BackupTool) -> None:
    policy = {"policy": "public", "chunk_by": "range", "rows_per_chunk": 20}
    assert tool.run(tables={"events": policy})[0] == 0
    tool.database.execute(
        "INSERT INTO events SELECT toDate('2020-01-01') + number % 40, number, '' FROM numbers(200)"
    )
    status, log = tool.run()
    assert status == 0, log
    order = re.findall(r"csv/events_(\d+)\S+: (new|changed)", log)
    kinds = [kind for _, kind in order]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"new", "changed"}
    assert sum(one.rows for one in tool.manifest("events").exports) == 200 + 3 * COUNT
    assert tool.verifies()


# --- the server's limit ---


def test_no_more_chunks_are_read_than_there_are_lanes() -> None:
    database = cast("Any", type("Idle", (), {"query": lambda *_: [(0,)]})())
    throttle = Throttle(lambda: [database], Config(rest=0))
    lanes = Lanes([Lane(cast("Any", None), cast("Any", None)) for _ in range(JOBS)], throttle)
    reading, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(JOBS)

    def read(_number: int) -> None:
        nonlocal reading, most
        with lanes.taken():
            with lock:
                reading += 1
                most = max(most, reading)
            together.wait(AMPLE)
            with lock:
                reading -= 1

    for _ in as_they_end(read, range(4 * JOBS), 4 * JOBS):
        pass
    assert most == JOBS


def test_a_lane_reads_from_the_nodes_that_are_chosen_over_connections_of_its_own() -> None:
    databases = {name: cast("Any", name.upper()) for name in ("a:1", "b:1", "c:1")}
    nodes = {name: Node(name, 1, database) for name, database in databases.items()}

    class Shared:
        def __init__(self) -> None:
            self.chosen = [nodes["a:1"], nodes["b:1"]]

        def choose(self) -> None:
            self.chosen = [nodes["a:1"], nodes["c:1"]]

    connected: list[str] = []

    def connect(node: Node) -> Any:
        connected.append(node.name)
        return f"own {node.name}"

    throttle = Throttle(list, Config())
    replicas = LaneReplicas(cast("Any", Shared()), throttle, connect)
    assert [*map(str, replicas.databases)] == ["own a:1", "own b:1"]
    replicas.choose()
    assert [*map(str, replicas.databases)] == ["own a:1", "own c:1"]
    assert connected == ["a:1", "b:1", "c:1"]


def test_where_one_query_may_run_chunks_are_read_one_by_one(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("throttle.POLL", 0.1)
    status, log = tool.run(max_running_queries=1, max_wait=AMPLE)
    assert status == 0, log
    assert len(tool.manifest("events").chunks) == COUNT


# --- failures ---


def test_a_sick_chunk_is_told_when_the_others_are_exported(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_manifest: object, _policy: object, chunk: Any, _rows: int) -> None:
        if chunk.name in ("20200103", "20200108"):
            raise DataRefused(f"{chunk.name}: refused")

    monkeypatch.setattr(chunk_export, "check_size", refuse)
    status, log = tool.run()
    assert (status, log.count(": refused")) == (65, 2), log
    assert len(tool.manifest("events").chunks) == COUNT - 2
    assert tool.verifies()


def test_after_a_failure_of_the_database_what_is_at_work_is_completed(
    tool: BackupTool, database_proxy: FaultProxy
) -> None:
    """And nothing of it is done again."""
    database_proxy.fail(cut_request(after=0), from_chunk(6), times=1)
    status, log = tool.run()
    assert status == 69, log
    done = len(tool.manifest("events").chunks)
    assert 0 < done < COUNT
    assert pending(tool) == []
    assert tool.verifies()
    status, log = tool.run()
    assert status == 0, log
    assert len(said(log)) == COUNT - done
    assert tool.verifies()


def test_after_a_refusal_of_the_store_what_is_at_work_is_completed(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    refused = after(1, is_export)
    s3_proxy.fail(s3_error(403, "AccessDenied"), refused, times=1)
    status, log = tool.run()
    assert status == 78, log
    assert len(tool.manifest("events").chunks) == len(tool.exports()) < COUNT
    assert (pending(tool), tool.verifies()) == ([], True)
    assert tool.run()[0] == 0
    assert len(tool.manifest("events").chunks) == COUNT


def test_an_object_whose_answer_is_lost_is_taken_alone(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    """The others, which are pending at the same time, stay so until they are there."""

    def lose(exchange: Exchange) -> None:
        with exchange.forwarded() as response:
            response.read()
        exchange.answer(409, b"", {})  # which boto3 does not ask about once more

    for number in (3, 9):
        s3_proxy.fail(lose, after(number, is_export), times=1)
    status, log = tool.run(retries=2)
    assert (status, log.count("taken over")) == (0, 2), log
    assert len(tool.manifest("events").chunks) == COUNT
    assert (pending(tool), tool.verifies()) == ([], True)


# --- stops ---


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_loses_nothing_and_nothing_that_came_is_done_again(
    tool: BackupTool, s3_proxy: FaultProxy, number: signal.Signals
) -> None:
    def stop(exchange: Exchange) -> None:
        os.kill(os.getpid(), number)
        passed(exchange)

    s3_proxy.fail(stop, after(4, is_export), times=1)
    status, log = tool.run()
    assert (status, f"stopped by {number.name}" in log) == (75, True), log
    here = len(tool.exports())
    assert (here < COUNT, tool.uploads(), tool.verifies()) == (True, [], True)
    s3_proxy.heal()
    status, log = tool.run()
    assert status == 0, log
    assert len(puts(s3_proxy)) == COUNT - here
    assert len(tool.manifest("events").chunks) == COUNT
    assert (pending(tool), tool.verifies()) == ([], True)


@pytest.mark.long
@pytest.mark.parametrize("when", [is_creation, is_part], ids=["begun", "sent"])
def test_a_stop_in_the_midst_of_several_large_uploads_leaves_none(
    backup_tool: BackupTool, s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, when: Any
) -> None:
    backup_tool.database.execute(
        "CREATE TABLE t (day Date, s String) ENGINE = MergeTree ORDER BY day"
    )
    backup_tool.database.execute(
        "INSERT INTO t SELECT toDate('2020-01-01') + number % 3,"
        " randomPrintableASCII(2000, number) FROM numbers(16500)"
    )
    gate, at_work, ending = Gate(), threading.Semaphore(0), threading.Event()
    end_upload = Upload.end

    def hold(exchange: Exchange) -> None:
        at_work.release()
        gate(exchange)

    def stop() -> None:
        for _ in range(2):
            assert at_work.acquire(timeout=AMPLE)
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.wait(AMPLE)
        gate.open(passed)

    def end(upload: Upload) -> None:
        ending.set()
        end_upload(upload)

    monkeypatch.setattr(Upload, "end", end)
    s3_proxy.fail(hold, when)
    stopping = threading.Thread(target=stop)
    stopping.start()
    tables = {"t": {"policy": "public", "chunk_by": "day", "column": "day"}}
    status, log = backup_tool.run(jobs=3, tables=tables)
    stopping.join()
    assert (status, "stopped by SIGTERM" in log) == (75, True), log
    assert (backup_tool.uploads(), backup_tool.exports()) == ([], [])
    s3_proxy.heal()
    assert backup_tool.run()[0] == 0
    assert backup_tool.verifies()


def test_who_has_lost_the_turn_ends_all_jobs(tool: BackupTool, s3_proxy: FaultProxy) -> None:
    lost = threading.Event()

    def check(_turn: Turn) -> None:
        if lost.is_set():
            raise TryAgainLater("another host writes there")

    def lose(exchange: Exchange) -> None:
        passed(exchange)
        lost.set()

    s3_proxy.fail(lose, after(2, is_export), times=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Turn, "check", check)
        status, log = tool.run()
    assert (status, "another host writes there" in log) == (75, True), log
    assert (tool.uploads(), tool.verifies()) == ([], True)
    s3_proxy.heal()
    assert tool.run()[0] == 0
    assert len(tool.manifest("events").chunks) == COUNT


def test_an_upload_that_another_thread_ends_is_never_published(backup_tool: BackupTool) -> None:
    bucket = bucket_of(backup_tool)
    for parts in (0, 1):
        with pytest.raises(UploadEnded):
            end_from_another_thread(bucket, parts * uploads_module.PART_SIZE + 1)
    assert (backup_tool.exports(), backup_tool.uploads()) == ([], [])


def end_from_another_thread(bucket: Bucket, size: int) -> None:
    """Upload so many bytes, while another thread ends that."""
    with uploading(bucket, f"{CSV}x", "text/plain", "token") as upload:
        upload.write(bytes(size))
        ending = threading.Thread(target=upload.end)
        ending.start()
        ending.join(AMPLE)
        upload.finish()
        upload.publish()


# --- memory ---


def test_bytes_in_flight_are_bounded_over_all_threads() -> None:
    in_flight = BytesInFlight(10)
    most, now, lock = 0, 0, threading.Lock()

    def send(number: int) -> None:
        nonlocal most, now
        size = 1 + number % 5
        in_flight.take(size)
        with lock:
            now += size
            most = max(most, now)
        time.sleep(0)
        with lock:
            now -= size
        in_flight.give(size)

    assert len(list(as_they_end(send, range(500), 16))) == 500
    assert most <= 10
    in_flight.take(100)  # alone


@pytest.mark.parametrize("fails", [False, True])
def test_what_an_upload_has_in_flight_is_given_back(
    backup_tool: BackupTool, s3_proxy: FaultProxy, *, fails: bool
) -> None:
    in_flight = BytesInFlight(3 * uploads_module.PART_SIZE)
    if fails:
        s3_proxy.fail(s3_error(403, "AccessDenied"), is_part)
    bucket = bucket_of(backup_tool, s3_proxy.url)
    for size in (1, 3 * uploads_module.PART_SIZE + 1):
        refused = fails and size > 1
        with pytest.raises(ConfigError) if refused else nullcontext():
            upload_in_flight(bucket, size, in_flight)
    assert in_flight._bytes == 0


def upload_in_flight(bucket: Bucket, size: int, in_flight: BytesInFlight) -> None:
    """Upload so many bytes as one of several at once."""
    with uploading(bucket, f"{CSV}x", "text/plain", "token", in_flight=in_flight) as upload:
        upload.write(bytes(size))
        upload.hand_over()
        upload.finish()
        upload.publish()


# --- progress ---


def test_the_progress_of_several_chunks_is_that_of_all() -> None:
    shown: list[tuple[int, str]] = []

    class Bar:
        def show(self, done: int, note: str = "") -> None:
            shown.append((done, note))

    together = Together(Bar(), 2)
    with together.of_one() as first, together.of_one() as second:
        first.show(3)
        second.show(5)
        first.show(4)
    with contextlib.suppress(ZeroDivisionError), together.of_one() as third:
        third.show(7)
        raise ZeroDivisionError
    assert [done for done, _ in shown] == [3, 8, 9, 9, 9, 16, 9]
    assert shown[-1][1] == "2 of 2 chunks"
