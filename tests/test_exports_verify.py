"""Verifying exports, several at once: the same findings, and one limit of the bandwidth."""

import threading
from collections.abc import Generator, Iterator
from typing import cast

import pytest

from db_backup_harness import CSV, BackupTool
from dev.servers.fault_proxy import Exchange, FaultProxy, passed, s3_error
from dev.servers.loopback import Request
from parallel import in_parallel
from throttle import Bandwidth

AMPLE = 120  # seconds; far more than what is waited for takes, for a machine under load
CHUNKS = 4
DAYS = {"policy": "public", "chunk_by": "day", "column": "day"}
NAMES = [f"events_2020010{number}.csv.zstd" for number in range(1, CHUNKS + 1)]


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """Exports of some days."""
    backup_tool.database.execute(
        "CREATE TABLE events (day Date, id UInt64) ENGINE = MergeTree ORDER BY (day, id)"
    )
    backup_tool.database.execute(
        f"INSERT INTO events SELECT toDate('2020-01-01') + number, number FROM numbers({CHUNKS})"
    )
    assert backup_tool.run(tables={"events": DAYS})[0] == 0
    return backup_tool


def reads_an_export(request: Request) -> bool:
    return request.method == "GET" and f"/{CSV}" in request.target


def test_as_many_objects_are_read_at_once_as_there_are_jobs(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    meeting = threading.Barrier(CHUNKS)

    def meet(exchange: Exchange) -> None:
        meeting.wait(AMPLE)  # broken, and no answer, if not all of them come
        passed(exchange)

    s3_proxy.fail(meet, reads_an_export)
    status, log = tool.run("verify", jobs=CHUNKS)
    assert (status, log.count("as exported")) == (0, CHUNKS + 1), log


def test_findings_are_the_same_and_in_the_same_order_whatever_the_number_of_jobs(
    tool: BackupTool,
) -> None:
    for name in NAMES[::2]:
        key = f"{CSV}{name}"
        content = bytearray(tool.get(key))
        content[-1] ^= 1
        metadata = tool.client.head_object(Bucket=tool.bucket_name, Key=key)["Metadata"]
        tool.put(key, bytes(content), Metadata=metadata)
    tool.client.delete_object(Bucket=tool.bucket_name, Key=f"{CSV}{NAMES[1]}")

    def findings(jobs: int) -> list[str]:
        status, log = tool.run("verify", jobs=jobs)
        assert status == 65, log
        return [line for line in log.splitlines() if "as exported" not in line]

    alone = findings(1)
    assert [name for line in alone for name in NAMES if name in line and "SHA" in line] == [
        NAMES[0],
        NAMES[2],
    ]
    assert findings(3) == alone


def test_a_store_that_fails_ends_all_jobs(tool: BackupTool, s3_proxy: FaultProxy) -> None:
    s3_proxy.fail(s3_error(403, "AccessDenied"), reads_an_export)
    status, log = tool.run("verify", jobs=3)
    assert (status, "Traceback" in log) == (78, False), log


def test_the_bandwidth_is_that_of_all_threads_together() -> None:
    """Ten threads spend a second's worth each: the last one waits for ten."""
    slept: list[float] = []
    bandwidth = Bandwidth(1000, clock=lambda: 0.0, sleep=slept.append)
    threads = [threading.Thread(target=bandwidth.spend, args=[1000]) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(AMPLE)
    assert sorted(slept) == list(range(1, 11))


def test_results_come_in_the_order_of_the_things() -> None:
    first = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert first.wait(AMPLE)
        else:
            first.set()
        return number * 10

    assert list(in_parallel(work, range(20), 3)) == list(range(0, 200, 10))


def test_one_job_needs_no_thread() -> None:
    threads = list(in_parallel(lambda _number: threading.current_thread(), range(3), 1))
    assert set(threads) == {threading.current_thread()}


def test_after_a_failure_nothing_more_is_begun() -> None:
    def work(number: int) -> int:
        if number == 1:
            raise ValueError(number)
        return number

    taken = []

    def numbers() -> Iterator[int]:
        for number in range(1_000):
            taken.append(number)
            yield number

    results = in_parallel(work, numbers(), 2)
    assert next(results) == 0
    with pytest.raises(ValueError, match="1"):
        next(results)
    assert len(taken) < 10


def test_whoever_stops_taking_ends_the_threads() -> None:
    threads: set[threading.Thread] = set()

    def work(number: int) -> int:
        threads.add(threading.current_thread())
        return number

    results = in_parallel(work, range(1_000), 2)
    assert next(results) == 0
    cast("Generator[int, None, None]", results).close()
    for thread in list(threads):
        thread.join(AMPLE)
        assert not thread.is_alive()
