"""The exports when the database, the store or the process itself fails.

After each failure: no object is visible that is not complete, no manifest names one, what was there
is there, and the next run completes the work without repeating what was done.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.error import HTTPError

import pytest
import urllib3

from backup_config import Config
from conftest import Database
from db_backup_harness import AMPLE, CSV, LAYOUT, BackupTool, bucket_of, wait_until
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.servers.fault_proxy import (
    Condition,
    Exchange,
    Fault,
    FaultProxy,
    Gate,
    after,
    cut_answer,
    cut_request,
    end_with,
    lose_answer,
    passed,
    s3_error,
    stall_answer,
    without,
)
from dev.servers.loopback import Request
from dev.servers.misbehaving import server_tls
from dev.servers.s3 import KEY, KEY_ID, S3Server
from documents import encoded
from exports.clickhouse_http import TAG, ClickHouseHTTP, reported_failure
from ooni_common.database import Database as ToolsDatabase
from ooni_common.database import StatementFailed
from ooni_common.errors import Stopped, Unavailable
from ooni_common.stop_signals import StopSignals
from store import uploads as uploads_module
from store.bucket import Bucket
from store.upload_parts import Background
from store.uploads import uploading
from throttle import Bandwidth, Throttle

pytestmark = pytest.mark.long

PART_SIZE = 200_000  # bytes
TraceFunction = Callable[[FrameType, str, Any], Any]
KILLS = int(os.environ.get("OONI_TEST_KILLS", "5"))
OLD_EXCEPTION = b"Code: 241. DB::Exception: Memory limit exceeded: 1 GiB. (version 23.8.1)\n"
NEW_EXCEPTION = (
    b"\r\n__exception__\r\n{tag}\r\nCode: 241. DB::Exception: Memory limit exceeded\n39 {tag}\r\n"
    b"__exception__\r\n"
)
UNTAGGED_EXCEPTION = NEW_EXCEPTION.replace(b"{tag}", b"abcdefghijklmnop")
ROWS_LIKE_EXCEPTIONS = [
    b"x\r\n__exception__\r\nabcdefgh\r\nCode: 1. hello\n9 abcdefgh\r\n__exception__\r\n",
    UNTAGGED_EXCEPTION,
    UNTAGGED_EXCEPTION + b"\n",
    OLD_EXCEPTION,
    OLD_EXCEPTION.rstrip(),
    b"Code: 62. DB::Exception: Syntax error: failed at position 1. (SYNTAX_ERROR)",
    b'"\n' + OLD_EXCEPTION,
]


def exports_of(month: str) -> Condition:
    """The objects of a month."""
    return lambda request: f"_{month}.csv" in request.target


def is_part(request: Request) -> bool:
    return "partNumber=" in request.target


def is_last_part(request: Request) -> bool:
    return "partNumber=3" in request.target


def is_completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId=" in request.target


def is_creation(request: Request) -> bool:
    return request.method == "POST" and "?uploads" in request.target


def is_manifest(request: Request) -> bool:
    return request.method == "PUT" and "/manifest/" in request.target


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A store that takes small parts, too."""
    with S3Server(least_part=1) as server:
        yield server


@pytest.fixture
def database_proxy(backup_tool: BackupTool) -> Iterator[FaultProxy]:
    """The tool's way to the database, which can go wrong."""
    with FaultProxy(backup_tool.config["http_url"]) as proxy:
        backup_tool.config["http_url"] = proxy.url
        yield proxy


@pytest.fixture
def exported(backup_tool: BackupTool) -> BackupTool:
    """Two months are exported, of which the second one has changed since; a third one is new."""
    backup_tool.fill("fastpath", 400, days=59)
    assert backup_tool.run(tables={"fastpath": "public"})[0] == 0
    backup_tool.fill("fastpath", 600, days=90)
    return backup_tool


def from_chunk(number: int) -> Condition:
    """The queries from the n-th on, counted from 1."""
    seen = 0

    def condition(_request: Request) -> bool:
        nonlocal seen
        seen += 1
        return seen >= number

    return condition


# --- the database ---


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (cut_answer(after=0), "the connection broke"),
        (cut_answer(after=50_000), "the connection broke"),
        (stall_answer(after=50_000), "the server sent nothing for too long"),
        (end_with(NEW_EXCEPTION, after=50_000), "Memory limit exceeded"),
        (end_with(NEW_EXCEPTION, after=50_000, cut=True), "Memory limit exceeded"),
        (end_with(UNTAGGED_EXCEPTION, after=50_000), "rows arrived"),
        (end_with(OLD_EXCEPTION, after=50_000), "rows arrived"),
        (end_with(b"\n", after=50_000), "rows arrived"),
        (end_with(b'"half a row', after=10**9), "rows arrived"),
    ],
    ids=[
        "refused",
        "cut",
        "stalled",
        "exception",
        "exception-cut",
        "exception-of-another-tag",
        "exception-without-tag",
        "short",
        "more",
    ],
)
def test_a_database_that_fails_in_mid_stream_changes_nothing(
    exported: BackupTool, database_proxy: FaultProxy, fault: Fault, reason: str
) -> None:
    before = exported.hashes()
    database_proxy.fail(fault, from_chunk(2))
    with impatience(database_proxy) if "too long" in reason else nullcontext():
        status, log = exported.run()
    assert (status, reason in log) == (69, True), log
    after = exported.hashes()
    assert changed(before, after) == ["fastpath_202301.csv.zstd"]
    assert exported.uploads() == []
    status, log = exported.run("verify")
    assert (status, "the last run is not complete" in log) == (0, False)
    database_proxy.heal()
    status, log = exported.run()
    assert (status, "fastpath_202301" in log) == (0, False)
    assert exported.verifies()


@contextmanager
def impatience(proxy: FaultProxy) -> Iterator[None]:
    """Wait but a moment for all that comes after the first chunk, which may take its time."""
    timeout = urllib3.Timeout

    def limited(*, connect: float, read: float) -> urllib3.Timeout:
        return timeout(connect=connect, read=0.2 if proxy.requests else read)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exports.clickhouse_http.urllib3.Timeout", limited)
        yield


def test_a_database_that_dies_in_mid_stream_changes_nothing(
    tmp_path: Path, s3: S3Server, capsys: pytest.CaptureFixture[str], quick_backups: None
) -> None:
    bucket = f"test-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(bucket)
    with EmbeddedClickHouse(tmp_path / "db") as server:
        tool = BackupTool(tmp_path, Database("default", server), s3, bucket, capsys)
        tool.fill("fastpath", 4_000, days=31)
        status, log = tool.run(tables={"fastpath": "public"})
        assert status == 0, log
        tool.fill("fastpath", 6_000, days=31)

        def die(exchange: Exchange) -> None:
            with exchange.forwarded() as response:
                exchange.pass_head(response)
                exchange.send(response.read1(100_000))
                server.kill()
                exchange.cut()

        with FaultProxy(server.http_url()) as proxy, tool.unchanged():
            proxy.fail(die, lambda _request: True)
            status, log = tool.run("export", http_url=proxy.url)
        assert (status, "database" in log) == (69, True), log
        assert tool.verifies()
        server.start()
        tool.config |= {"clickhouse_url": server.uri(), "http_url": server.http_url()}
        status, log = tool.run()
        assert status == 0, log
        assert tool.verifies()


@pytest.mark.parametrize("line_end", [b"\n", b""])
@pytest.mark.parametrize(
    ("text", "tag"),
    [
        (b"Code: 159. DB::Exception: Timeout: elapsed 5 s. (TIMEOUT_EXCEEDED) (version 24.1)", ""),
        (b"Code: 241. DB::NetException: a\nb (version 22.8)", ""),
        (
            b"\r\n__exception__\r\nabcd\r\nCode: 1. DB::Exception: x\n25 abcd\r\n__exception__\r\n",
            "abcd",
        ),
    ],
)
def test_exceptions_at_the_end_of_a_result_are_seen(text: bytes, tag: str, line_end: bytes) -> None:
    for before in (b'"a","b"\n1,"x"\n', b'"a","b"\n1,"half a val', b"", OLD_EXCEPTION):
        assert reported_failure(before + text + line_end, tag)


@pytest.mark.parametrize("tag", ["", "ponmlkjihgfedcba"])
@pytest.mark.parametrize(
    "rows",
    [
        b"\\N\n",
        b"",
        b"1\r\n__exception__\r\nabcd\r\nCode: 1. DB::Exception: x\n25 abcd\r\n__exception__\r\n",
        *(b'1,"%b"\n' % row.replace(b'"', b'""') for row in ROWS_LIKE_EXCEPTIONS),
        *(b'1,"%b"\n2,""\n' % row.replace(b'"', b'""') for row in ROWS_LIKE_EXCEPTIONS),
    ],
)
def test_rows_that_tell_of_exceptions_are_none(rows: bytes, tag: str) -> None:
    assert reported_failure(rows, tag) is None


def test_the_code_of_a_row_at_which_the_connection_broke_decides_nothing() -> None:
    """As the answer ends there, it may be the server's; but what a code of grants means is not."""
    failure = reported_failure(b'1,"Code: 497. DB::Exception: not granted (x)', "")
    assert type(failure) is Unavailable


def test_rows_that_look_like_failures_of_the_server_are_data(backup_tool: BackupTool) -> None:
    """They come last, or before a last one."""
    tables = [f"t{number}" for number in range(len(ROWS_LIKE_EXCEPTIONS))]
    client = backup_tool.database.client(strings_as_bytes=True)
    for table, value in zip(tables, ROWS_LIKE_EXCEPTIONS, strict=True):
        client.execute(
            f"CREATE TABLE {table} (day Date, n UInt32, a String) ENGINE = MergeTree ORDER BY n"
        )
        january, february = date(2023, 1, 31), date(2023, 2, 1)
        rows = [(january, 1, value), (january, 2, value)]
        rows += [(february, 3, b"x"), (february, 4, value), (february, 5, b"x")]
        client.execute(f"INSERT INTO {table} VALUES", rows)
    policy = {"policy": "public", "chunk_by": "month", "column": "day"}
    assert backup_tool.run(tables=dict.fromkeys(tables, policy))[0] == 0
    assert len(backup_tool.exports()) == 2 * len(tables)
    assert backup_tool.verifies()
    for table in tables:
        assert backup_tool.run("restore", table)[0] == 0
        assert backup_tool.checksum(f"{table}_restored") == backup_tool.checksum(table)


@pytest.mark.parametrize("version", ["new", "old"])
def test_a_failure_of_the_server_itself_in_mid_stream_is_told_with_its_reason(
    backup_tool: BackupTool, database_proxy: FaultProxy, version: str
) -> None:
    if version == "old":
        message = b"Code: 395. DB::Exception: no more rows. (FUNCTION_THROW_IF) (version 24.8)\n"
        database_proxy.fail(without(TAG, end_with(message, after=10**6)), lambda _request: True)
    http = ClickHouseHTTP(backup_tool.loaded(), "test")
    select = "SELECT throwIf(number = 3000000, 'no more rows') FROM numbers(4000000)"
    read: deque[bytes] = deque()
    with (
        http.rows(select) as pieces,
        pytest.raises(StatementFailed, match="no more rows") as caught,
    ):
        read.extend(pieces)
    assert (caught.value.code, sum(map(len, read)) >= 10**6) == (395, True)


def test_a_failure_that_passes_is_tried_again(
    exported: BackupTool, database_proxy: FaultProxy
) -> None:
    database_proxy.fail(cut_answer(after=1000), lambda _request: True, times=2)
    status, log = exported.run(retries=2)
    assert (status, log.count("trying again")) == (0, 2)
    assert exported.verifies()


def test_ranges_are_complete_after_an_interrupted_split(
    backup_tool: BackupTool, database_proxy: FaultProxy
) -> None:
    policy = {"policy": "public", "chunk_by": "range", "rows_per_chunk": 1000}
    known: set[bytes] = set()
    for rows, first_failing in ((4000, 3), (6000, 2), (1, 1)):
        backup_tool.fill("jsonl", rows, days=rows // 100 + 1)
        database_proxy.fail(cut_answer(after=0), from_chunk(first_failing))
        assert backup_tool.run(tables={"jsonl": policy})[0] == 69
        assert known <= set(exported_rows(backup_tool)), "no row is lost meanwhile"
        database_proxy.heal()
        assert backup_tool.run()[0] == 0
        exported = exported_rows(backup_tool)
        rows_of_table = backup_tool.query("SELECT * FROM jsonl FORMAT CSV").splitlines()
        assert sorted(exported) == sorted(rows_of_table)
        known = set(exported)
    assert len(backup_tool.exports()) >= 8


def exported_rows(tool: BackupTool) -> list[bytes]:
    """Return the rows of all objects, without the headers."""
    return [row for name in tool.exports() for row in tool.csv(name).splitlines()[1:]]


# --- the store ---


@pytest.fixture
def large(backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch) -> BackupTool:
    """A table whose export has three parts is exported, and has changed since."""
    monkeypatch.setattr("store.uploads.PART_SIZE", PART_SIZE)
    backup_tool.database.execute(
        "CREATE TABLE t (n UInt32, a String) ENGINE = MergeTree ORDER BY n"
        " AS SELECT number, randomPrintableASCII(1000) FROM numbers(550)"
    )
    assert backup_tool.run(tables={"t": "public"})[0] == 0
    backup_tool.database.execute("INSERT INTO t VALUES (1, '')")
    return backup_tool


@pytest.mark.parametrize(
    ("fault", "condition"),
    [
        (s3_error(500, "InternalError"), is_part),
        (s3_error(503, "SlowDown"), is_part),
        (cut_request(after=100_000), is_part),
        (s3_error(500, "InternalError"), is_last_part),
        (s3_error(500, "InternalError"), is_completion),
        (s3_error(400, "InvalidPart"), is_completion),
        (s3_error(503, "SlowDown"), is_manifest),
        (s3_error(403, "AccessDenied"), is_part),
    ],
    ids=[
        "500",
        "503",
        "cut",
        "last-part",
        "completion-500",
        "completion-refused",
        "manifest",
        "denied",
    ],
)
def test_a_store_that_fails_for_good_changes_nothing(
    large: BackupTool,
    s3_proxy: FaultProxy,
    fault: Fault,
    condition: Condition,
) -> None:
    before = large.hashes()
    s3_proxy.fail(fault, condition)
    status, _ = large.run()
    assert status in (69, 78)
    s3_proxy.heal()
    after = large.hashes()
    assert changed(before, after) == []
    assert large.uploads() == []
    assert large.verifies()
    assert large.run()[0] == 0
    assert changed(before, large.hashes()) == ["t.csv.zstd"]
    assert large.verifies()


@pytest.mark.parametrize(
    ("fault", "condition"),
    [
        (s3_error(503, "SlowDown"), is_part),
        (cut_request(after=100_000), is_part),
        (s3_error(500, "InternalError"), is_completion),
        (lose_answer(), is_completion),
    ],
    ids=["503", "cut", "completion-500", "completion-unanswered"],
)
def test_a_store_that_fails_once_is_asked_again(
    large: BackupTool,
    s3_proxy: FaultProxy,
    fault: Fault,
    condition: Condition,
) -> None:
    s3_proxy.fail(fault, condition, times=1)
    assert large.run()[0] == 0
    assert large.uploads() == []
    assert large.verifies()


@pytest.mark.parametrize(("published", "expected"), [(True, 0), (False, 69)])
def test_an_upload_that_the_store_does_not_know_any_more(
    large: BackupTool,
    s3_proxy: FaultProxy,
    *,
    published: bool,
    expected: int,
) -> None:
    """So says S3 after a completion whose answer was lost, and when somebody has ended it."""
    if published:
        s3_proxy.fail(lose_answer(), is_completion, times=1)
    s3_proxy.fail(s3_error(404, "NoSuchUpload"), is_completion)
    assert large.run()[0] == expected
    s3_proxy.heal()
    assert large.verifies()
    assert large.run()[0] == 0


def test_what_was_published_before_the_answer_was_lost_is_taken_over(
    exported: BackupTool, s3_proxy: FaultProxy
) -> None:
    """An object that came into being, of which the tool has not heard."""
    month = exports_of("202302")
    s3_proxy.fail(lose_answer(), lambda request: request.method == "PUT" and month(request))
    status, log = exported.run()
    assert status == 69
    assert "fastpath_202302.csv.zstd: taken over from a run that was interrupted" in log
    s3_proxy.heal()
    assert exported.verifies()
    status, log = exported.run()
    assert (status, "fastpath_202302" in log) == (0, False)
    assert exported.verifies()


def test_uploads_that_nobody_finished_are_ended(exported: BackupTool) -> None:
    exported.client.create_multipart_upload(
        Bucket=exported.bucket_name, Key=f"{CSV}fastpath_202301.csv.zstd"
    )
    exported.client.create_multipart_upload(Bucket=exported.bucket_name, Key="of/somebody/else")
    status, log = exported.run()
    assert (status, "1 uploads of runs that were interrupted are aborted" in log) == (0, True)
    assert exported.uploads() == ["of/somebody/else"]


def test_the_right_to_list_uploads_can_be_missing(
    exported: BackupTool, s3_proxy: FaultProxy
) -> None:
    """The credentials that are deployed may not have it."""
    denied = s3_error(403, "AccessDenied")
    s3_proxy.fail(denied, lambda request: "?uploads" in request.target)
    status, log = exported.run()
    assert (status, "grant s3:ListBucketMultipartUploads" in log) == (0, True)


def test_nothing_of_an_upload_is_visible_before_it_is_published(large: BackupTool) -> None:
    key = f"{CSV}x"

    def upload_and_fail() -> None:
        with uploading(bucket_of(large), key, "text/plain", "token") as upload:
            for _ in range(5):
                upload.write(os.urandom(PART_SIZE // 2))
            assert upload.finish().size == 5 * PART_SIZE // 2
            assert key not in large.objects()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        upload_and_fail()
    assert key not in large.objects()
    assert large.uploads() == []


@pytest.mark.parametrize(
    "change", [{"public_bucket_name": "no-such-bucket"}, {"public_bucket_name": ""}]
)
def test_a_wrong_bucket_is_a_matter_of_the_configuration(
    exported: BackupTool, change: dict[str, str]
) -> None:
    assert exported.run(**change)[0] == 78


def test_a_store_that_is_down_is_unavailable(exported: BackupTool) -> None:
    status, log = exported.run(public_endpoint="http://127.0.0.1:9")
    assert (status, len(log.splitlines())) == (69, 1)


def test_database_and_store_can_have_a_private_ca(backup_tool: BackupTool, tmp_path: Path) -> None:
    backup_tool.database.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")
    ca_file = tmp_path / "ca.pem"
    tls = server_tls("private-ca", ca_file)
    with (
        FaultProxy(backup_tool.config["http_url"], tls) as database,
        FaultProxy(backup_tool.s3.endpoint, tls) as store,
    ):
        keys = {"http_url": database.url, "public_endpoint": store.url, "tables": {"t": "public"}}
        status, log = backup_tool.run(public_ca_file=str(ca_file), **keys)
        assert (status, "the certificate is refused" in log) == (69, True)
        del backup_tool.config["public_ca_file"]
        status, log = backup_tool.run(ca_file=str(ca_file))
        assert (status, "SSLError" in log) == (69, True)
        assert backup_tool.run(public_ca_file=str(ca_file))[0] == 0
        assert backup_tool.run("verify")[0] == 0


def test_no_secret_is_in_anything_that_is_printed(
    exported: BackupTool, s3_proxy: FaultProxy
) -> None:
    printed = "".join(exported.run(command, "-v")[1] for command in ("run", "doctor", "verify"))
    for code in ("SignatureDoesNotMatch", "InternalError"):
        s3_proxy.fail(s3_error(403, code), lambda _request: True)
        printed += exported.run("run", "-v")[1] + exported.run("list", "-v")[1]
        s3_proxy.heal()
    assert "SELECT version()" in printed
    assert "SignatureDoesNotMatch" in printed
    assert KEY not in printed
    assert KEY_ID not in printed


# --- the process ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_mid_stream_leaves_nothing(
    large: BackupTool, s3_proxy: FaultProxy, number: signal.Signals
) -> None:
    def stop(exchange: Exchange) -> None:
        os.kill(os.getpid(), number)
        passed(exchange)

    s3_proxy.fail(stop, is_part, times=1)
    with large.unchanged():
        status, log = large.run("export")
        assert (status, f"stopped by {number.name}" in log) == (75, True)
        assert large.uploads() == []
    assert large.verifies()
    assert large.run()[0] == 0


@pytest.fixture
def signals() -> Iterator[None]:
    """SIGTERM and SIGINT stop the test as they stop a run."""
    with StopSignals().installed():
        yield


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("answer", [passed, lose_answer()], ids=["late", "lost"])
def test_a_stop_before_the_store_has_begun_an_upload_leaves_nothing(
    backup_tool: BackupTool,
    s3_proxy: FaultProxy,
    signals: None,
    monkeypatch: pytest.MonkeyPatch,
    answer: Fault,
    number: signal.Signals,
) -> None:
    """The store does it when the signal has come; its answer comes, or is lost each time."""
    for module in ("store.uploads", "store.upload_parts"):
        monkeypatch.setattr(f"{module}.ABORT_TIME", AMPLE)
    gate, begun = Gate(), threading.Event()

    def begin(exchange: Exchange) -> None:
        answer(exchange)
        begun.set()

    def stop() -> None:
        assert gate.reached.wait(AMPLE)
        os.kill(os.getpid(), number)
        wait_until(lambda: signal.getsignal(number) is signal.SIG_DFL)
        gate.open(begin)

    s3_proxy.fail(gate, is_creation)
    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(Stopped, match=number.name):
        upload_something(bucket_of(backup_tool, s3_proxy.url))
    stopping.join()
    assert begun.wait(AMPLE)
    assert backup_tool.uploads() == []


def test_a_stop_while_the_store_does_not_say_that_an_upload_is_begun_leaves_nothing(
    backup_tool: BackupTool,
    s3_proxy: FaultProxy,
    signals: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # That it is begun is never said, and to end it takes as long as it takes.
    limits = iter([0.3, AMPLE])
    wait = Background.wait
    monkeypatch.setattr(Background, "wait", lambda work, _seconds: wait(work, next(limits)))
    gate = Gate()

    def begin(exchange: Exchange) -> None:
        with exchange.forwarded() as response:
            response.read()
        os.kill(os.getpid(), signal.SIGTERM)
        gate(exchange)

    s3_proxy.fail(begin, is_creation, times=1)
    others = [f"{CSV}x.of-another", f"{CSV}"]
    for key in others:
        backup_tool.client.create_multipart_upload(Bucket=backup_tool.bucket_name, Key=key)
    with pytest.raises(Stopped):
        upload_something(bucket_of(backup_tool, s3_proxy.url))
    assert sorted(backup_tool.uploads()) == sorted(others)


@pytest.mark.parametrize("publishes", [True, False], ids=["published", "failing"])
def test_a_stop_at_whatever_line_of_an_upload_leaves_nothing(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch, *, publishes: bool
) -> None:
    """Between any two lines of the main thread, also those that clear away after a failure."""
    monkeypatch.setattr("store.uploads.PART_SIZE", 1000)
    bucket = bucket_of(backup_tool)
    uploads = 0
    stopped = True
    while stopped:
        uploads += 1
        try:
            with stopped_after(uploads), contextlib.suppress(ZeroDivisionError):
                upload_something(bucket, publishes=publishes)
            stopped = False
        except Stopped:
            assert backup_tool.uploads() == [], f"after {uploads} lines"
    assert uploads > 80
    assert list(backup_tool.objects()) == [f"{CSV}x"] * publishes


TRACED = ("/store/bucket.py", "/store/uploads.py", "/store/upload_parts.py")


@contextmanager
def stopped_after(lines: int) -> Iterator[None]:
    """Raise Stopped when so many lines of the store and of uploads have run, as a signal would."""

    def trace(frame: FrameType, event: str, _argument: object) -> TraceFunction | None:
        nonlocal lines
        if not frame.f_code.co_filename.endswith(TRACED):
            return None
        lines -= event == "line"
        if lines == 0 and event == "line":
            raise Stopped("SIGTERM")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def upload_something(bucket: Bucket, *, publishes: bool = True) -> None:
    """Upload an object of one part, or fail after that."""
    with uploading(bucket, f"{CSV}x", "text/plain", "token") as upload:
        upload.write(bytes(uploads_module.PART_SIZE))
        upload.finish()
        if not publishes:
            raise ZeroDivisionError
        upload.publish()


@pytest.mark.parametrize(("times", "expected"), [(1, 0), (100, 69)])
def test_an_upload_is_ended_though_the_store_never_said_that_it_was_begun(
    large: BackupTool,
    s3_proxy: FaultProxy,
    times: int,
    expected: int,
) -> None:
    """The answer was lost, and boto3 has asked once more, or until it gave up."""
    s3_proxy.fail(lose_answer(), is_creation, times=times)
    assert large.run()[0] == expected
    assert large.uploads() == []
    assert large.verifies()


@pytest.mark.long
def test_a_kill_in_mid_stream_leaves_what_the_next_run_clears_away(
    large: BackupTool, s3_proxy: FaultProxy
) -> None:
    rows = "SELECT number, randomPrintableASCII(1000) FROM numbers(22000)"
    large.database.execute(f"INSERT INTO t {rows}")  # parts as the process makes them
    gate = Gate()
    s3_proxy.fail(gate, is_part)
    with large.unchanged():
        process = large.start("export")
        assert gate.reached.wait(AMPLE)
        process.kill()
        process.communicate()
        gate.open(then=cut_request(after=0))
        s3_proxy.heal()
    assert large.uploads() != []
    assert large.verifies()
    assert large.run()[0] == 0
    assert large.uploads() == []
    assert large.verifies()


def test_an_export_can_be_restored_after_a_run_was_interrupted(backup_tool: BackupTool) -> None:
    """A kill came after the object was replaced, and before its manifest was written again."""
    backup_tool.fill("fastpath", 500, days=31)
    backup_tool.run(tables={"fastpath": "public"})
    before = backup_tool.manifest("fastpath").chunks["202301"]
    backup_tool.fill("fastpath", 700, days=31)
    backup_tool.run()
    manifest = backup_tool.manifest("fastpath")
    manifest.pending = {"202301": manifest.chunks["202301"]}
    manifest.chunks = {"202301": before}
    manifest.generation = "interrupted"
    key = LAYOUT.manifest("fastpath")
    backup_tool.put(key, encoded(manifest, key))
    assert backup_tool.verifies()
    status, log = backup_tool.run("restore", "fastpath")
    assert (status, f"{manifest.pending['202301'].rows:,} rows" in log) == (0, True)


def test_kills_at_any_time_leave_a_bucket_that_is_whole(
    backup_tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    """Of KILLS runs; in between, rows come in."""
    dice = random.Random(6)
    backup_tool.fill("fastpath", 2_000, days=181)
    backup_tool.fill("jsonl", 2_000, days=59)
    policy = {"policy": "public", "chunk_by": "range", "rows_per_chunk": 600}
    backup_tool.configure(tables={"fastpath": "public", "jsonl": policy})
    assert backup_tool.run()[0] == 0
    requests, finished = len(s3_proxy.requests), 0
    processes: list[subprocess.Popen[str]] = []

    def kill(exchange: Exchange) -> None:
        processes[-1].kill()
        passed(exchange)

    for _ in range(KILLS):
        for table, days in (("fastpath", 181), ("jsonl", 59)):
            backup_tool.fill(table, dice.randrange(1, 300), days=days)
        s3_proxy.fail(kill, after(dice.randrange(requests), lambda _request: True), times=1)
        processes.append(backup_tool.start())
        log, _ = processes[-1].communicate(timeout=AMPLE)
        assert processes[-1].returncode in (0, -signal.SIGKILL), log
        finished += processes[-1].returncode == 0
        s3_proxy.heal()
        assert backup_tool.verifies(), "at every instant"
    assert finished < KILLS
    assert backup_tool.run()[0] == 0
    assert backup_tool.verifies()
    assert backup_tool.uploads() == []
    for table in ("fastpath", "jsonl"):
        rows = sum(export.rows for export in backup_tool.manifest(table).exports)
        assert [(rows,)] == backup_tool.database.execute(f"SELECT count() FROM {table}")
    assert "nothing to do: " in backup_tool.run()[1]


def test_a_second_run_waits_for_nobody(backup_tool: BackupTool, database_proxy: FaultProxy) -> None:
    backup_tool.fill("fastpath", 100, days=31)
    backup_tool.configure(tables={"fastpath": "public"})
    gate = Gate()
    database_proxy.fail(gate, lambda _request: True)
    process = backup_tool.start()
    assert gate.reached.wait(AMPLE)
    status, log = backup_tool.run()
    assert (status, f"another run (pid {process.pid})" in log) == (75, True)
    assert backup_tool.run("list")[0] == 0
    process.kill()
    process.communicate()


def test_no_file_is_written_outside_of_the_state_directory(backup_tool: BackupTool) -> None:
    """As strace sees it; what a run opens for writing has to be its lock or its state."""
    backup_tool.fill("fastpath", 30_000, days=31)
    backup_tool.configure(tables={"fastpath": "public"})
    trace = backup_tool.folder / "trace"
    script = Path(__file__).parents[1] / "db-backup" / "ooni_db_backup.py"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=open,openat,creat,memfd_create",
        "-o",
        str(trace),
    ]
    python = [sys.executable, "-B", str(script), "--config"]
    try:
        done = subprocess.run(
            [*command, *python, str(backup_tool.config_file)],
            env=dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    opened = re.findall(r'(?:openat\(\w+, |open\()"([^"]+)", ([A-Z_|]+)', trace.read_text())
    written = {path for path, flags in opened if re.search("WRONLY|RDWR|CREAT|TMPFILE", flags)}
    state = backup_tool.folder / "state"
    names = ("db-backup.lock", ".writer.json.new", ".rotation.json.new")
    assert written == {str(state / name) for name in names}
    assert "memfd_create" not in trace.read_text()
    assert not list((backup_tool.folder / "state").glob("*.tmp"))


def test_a_run_beside_a_verification_is_no_finding(
    exported: BackupTool, s3_proxy: FaultProxy
) -> None:
    """While the first object is verified, a run replaces the second one and adds a third."""

    def run_meanwhile(exchange: Exchange) -> None:
        log, _ = exported.start("run").communicate(timeout=AMPLE)
        assert "3 chunks exported" in log
        passed(exchange)

    is_first = exports_of("202301")
    exported.configure()
    s3_proxy.fail(
        run_meanwhile, lambda request: request.method == "GET" and is_first(request), times=1
    )
    status, log = exported.run("verify")
    assert (status, log.count("as exported\n"), "not complete" in log) == (0, 3, False)


def test_an_object_that_vanishes_while_it_is_verified_is_a_finding(
    exported: BackupTool, s3_proxy: FaultProxy
) -> None:
    is_first = exports_of("202301")

    def vanish(exchange: Exchange) -> None:
        exported.client.delete_object(
            Bucket=exported.bucket_name, Key=f"{CSV}fastpath_202301.csv.zstd"
        )
        passed(exchange)

    s3_proxy.fail(vanish, lambda request: request.method == "GET" and is_first(request))
    status, log = exported.run("verify")
    assert (status, "fastpath_202301.csv.zstd: missing" in log) == (65, True)
    assert log.count("as exported\n") == 1


# --- throttling ---


def test_no_chunk_starts_while_the_server_is_busy(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_tool.fill("fastpath", 2000, days=59)
    backup_tool.configure(tables={"fastpath": "public"}, max_running_queries=5)
    with ExitStack() as stack:
        stack.enter_context(busy(backup_tool, queries=20))
        status, log = backup_tool.run(max_wait=0.3)
        assert status == 75
        assert "queries have been running for 0.3 s" in log

        def become_idle(seconds: float) -> None:
            if seconds:
                assert backup_tool.objects() == {}
                stack.close()

        defaults = {"clock": time.monotonic, "sleep": become_idle}
        monkeypatch.setattr(Throttle.__init__, "__kwdefaults__", defaults)
        status, log = backup_tool.run(max_wait=AMPLE)
    assert (status, "waiting: " in log) == (0, True)
    assert len(backup_tool.exports()) == 2


def test_each_chunk_waits_for_the_server(
    backup_tool: BackupTool, database_proxy: FaultProxy
) -> None:
    backup_tool.fill("fastpath", 2000, days=59)
    with ExitStack() as stack:

        def become_busy(exchange: Exchange) -> None:
            stack.enter_context(busy(backup_tool, queries=10))
            passed(exchange)

        database_proxy.fail(become_busy, from_chunk(1), times=1)
        tables = {"fastpath": "public"}
        status, _ = backup_tool.run(tables=tables, max_running_queries=5, max_wait=0.3)
    assert status == 75
    assert backup_tool.exports() == ["fastpath_202301.csv.zstd"]
    assert backup_tool.verifies()


@contextmanager
def busy(tool: BackupTool, queries: int) -> Iterator[None]:
    """Let so many queries run on the server for as long as the block runs."""
    mark = uuid.uuid4().hex
    sql = (
        f"SELECT count() FROM numbers(300) WHERE sleepEachRow(1) = 0 AND '{mark}' != ''"
        " SETTINGS max_block_size = 1"
    )

    def run() -> None:
        with contextlib.suppress(HTTPError):  # it ends by being killed
            tool.query(sql)

    threads = [threading.Thread(target=run) for _ in range(queries)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: running_queries(tool) >= queries)
        yield
    finally:
        while any(thread.is_alive() for thread in threads):
            tool.database.execute(f"KILL QUERY WHERE query LIKE '%{mark}%' ASYNC")
            threads[0].join(0.1)
        for thread in threads:
            thread.join()


def running_queries(tool: BackupTool) -> int:
    sql = "SELECT count() FROM system.processes WHERE query_id != queryID()"
    count: int = tool.database.execute(sql)[0][0]
    return count


def test_the_bandwidth_holds(large: BackupTool) -> None:
    limit = 400_000
    started = time.monotonic()
    assert large.run(max_bandwidth=limit)[0] == 0
    seconds = time.monotonic() - started
    size = large.objects()[f"{CSV}t.csv.zstd"]
    assert size / seconds < limit * 1.1


class Time:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("piece", [1, 1000, 100_000])
def test_bandwidth_is_exact(piece: int) -> None:
    time_ = Time()
    bandwidth = Bandwidth(50_000, clock=time_.clock, sleep=time_.sleep)
    for _ in range(200):
        bandwidth.spend(piece)
        time_.now += 0.000_001
    assert time_.now == pytest.approx(200 * piece / 50_000, rel=0.1)


def test_rest_is_in_proportion() -> None:
    time_ = Time()
    throttle = Throttle(None, Config(rest=0.5), clock=time_.clock, sleep=time_.sleep)  # type: ignore[arg-type]
    throttle.rest(10)
    assert time_.now == 5


# --- helpers ---


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the names of the objects with rows that have changed."""
    return sorted(
        key.removeprefix(CSV)
        for key in before.keys() | after.keys()
        if key.startswith(CSV) and after.get(key) != before.get(key)
    )


def test_the_state_of_the_bucket_survives_the_loss_of_the_state_directory(
    exported: BackupTool,
) -> None:
    exported.run()
    for path in (exported.folder / "state").iterdir():
        path.unlink()
    assert "nothing to do" in exported.run()[1]
    assert LAYOUT.index in exported.objects()


def test_the_same_rows_inserted_twice_are_stored_twice(backup_tool: BackupTool) -> None:
    backup_tool.database.execute(
        "CREATE TABLE t (number UInt8) ENGINE = MergeTree ORDER BY number"
        " SETTINGS non_replicated_deduplication_window = 100"
    )
    http = ClickHouseHTTP(backup_tool.loaded(), "test")
    settings = ToolsDatabase(backup_tool.database.client()).insert_settings
    for _ in range(2):
        statement = "INSERT INTO t FORMAT CSVWithNames"
        assert http.insert(statement, [b"number\n1\n2\n"], "", settings=settings) == 2
    assert backup_tool.database.execute("SELECT count() FROM t") == [(4,)]
