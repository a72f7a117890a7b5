"""Exports over the native protocol: the same bytes as over HTTP, and nothing after a failure."""

import contextlib
import socket
import socketserver
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from conftest import Database as FreshDatabase
from db_backup_harness import BackupTool
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.servers.s3 import S3Server
from exports import row_source
from exports.clickhouse_http import PORTS, ClickHouseHTTP
from exports.clickhouse_native import ClickHouseNative
from exports.csv_rows import header_of
from exports.row_source import choose
from ooni_common.database import Database, StatementFailed, connected, quoted
from ooni_common.errors import Unavailable
from test_exports import ALL_TYPES, ALL_VALUES, HOSTILE

AMPLE = 120  # seconds; far more than what is waited for takes, for a machine under load
MEMORY = 16 * 1024 * 1024  # bytes
NATIVE = "rows come over the native protocol"
OLD = (99, 1)  # the first version with tags, for a server that has none


@pytest.fixture
def native_tool(backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch) -> BackupTool:
    """A tool that has no way to the database but the native protocol."""
    monkeypatch.setitem(PORTS, "clickhouse", ("http", 9))
    del backup_tool.config["http_url"]
    return backup_tool


@pytest.fixture
def database_of(backup_tool: BackupTool) -> Iterator[Database]:
    """The tool's connection."""
    with connected(backup_tool.loaded()) as database:
        yield database


class NativeProxy:
    """A way to the database's native port that breaks in mid-stream.

    Args:
        uri: of the database.
        after: bytes of the server's answers that pass, of one connection.
        breaks: called then.
    """

    def __init__(self, uri: str, after: int, breaks: Callable[[], object] = lambda: None) -> None:
        self._uri = uri
        self._after = after
        self._breaks = breaks

    @contextmanager
    def open(self) -> Iterator[str]:
        """Give the address to connect to."""
        proxy = self

        class Forward(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # its traceback would be in another test's log
                    proxy._forward(self.request)

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forward) as listener:
            listener.daemon_threads = True
            threading.Thread(target=listener.serve_forever, args=(0.02,)).start()
            parts = urlsplit(self._uri)
            login, at, _ = parts.netloc.rpartition("@")
            yield parts._replace(
                netloc=f"{login}{at}127.0.0.1:{listener.server_address[1]}"
            ).geturl()
            listener.shutdown()

    def _forward(self, client: socket.socket) -> None:
        target = urlsplit(self._uri)
        with socket.create_connection((target.hostname, target.port)) as server:
            threading.Thread(target=_copy, args=(client, server, 1 << 60), daemon=True).start()
            if _copy(server, client, self._after) >= self._after:
                self._breaks()
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket, most: int) -> int:
    """Pass on what comes, so many bytes at most; return how many were passed."""
    passed = 0
    with contextlib.suppress(OSError):
        while passed < most and (data := source.recv(min(65_536, most - passed))):
            target.sendall(data)
            passed += len(data)
    return passed


# --- the same bytes ---


def test_all_types_have_the_bytes_of_http(native_tool: BackupTool) -> None:
    native_tool.database.execute(ALL_TYPES)
    native_tool.query(ALL_VALUES)
    status, log = native_tool.run(tables={"everything": "public"})
    assert (status, log.count(NATIVE)) == (0, 1), log
    export = native_tool.manifest("everything").exports[0]
    assert native_tool.csv("everything.csv.zstd") == native_tool.query(
        f"{export.query} FORMAT CSVWithNames"
        " SETTINGS output_format_csv_serialize_tuple_into_separate_columns = 0"
    )
    assert export.rows == 500
    assert native_tool.verifies()


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("name", [*HOSTILE, 'a"b', '"', ",", "'", "\\N"])
def test_columns_of_all_names_have_the_header_of_http(
    backup_tool: BackupTool, database_of: Database, name: str, rows: int
) -> None:
    names = [name, "number"]
    select = f"SELECT toString(number) AS {quoted(name)}, number FROM numbers({rows})"
    native = ClickHouseNative((database_of,), backup_tool.loaded())
    with native.rows(select, names) as stream:
        content = b"".join(stream)
    assert content == backup_tool.query(f"{select} FORMAT CSVWithNames")
    assert (stream.counter.rows, stream.counter.complete) == (rows, True)
    assert content.startswith(header_of(names))


@pytest.mark.parametrize("compression", ["", "lz4"])
def test_rows_come_in_the_order_of_the_key_from_many_blocks(
    native_tool: BackupTool, compression: str
) -> None:
    native_tool.fill("fastpath", 5000, days=31)
    uri = f"{native_tool.database.uri}?max_block_size=100"
    uri += f"&compression={compression}" if compression else ""
    status, log = native_tool.run(tables={"fastpath": "public"}, clickhouse_url=uri)
    assert status == 0, log
    export = native_tool.manifest("fastpath").exports[0]
    content = native_tool.csv("fastpath_202301.csv.zstd")
    assert content == native_tool.query(f"{export.query} FORMAT CSVWithNames")
    assert (export.rows, native_tool.verifies()) == (5000, True)


def test_an_export_over_http_is_not_repeated_over_the_native_protocol(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_tool.fill("fastpath", 500, days=31)
    assert backup_tool.run(tables={"fastpath": "public"})[0] == 0
    monkeypatch.setattr(row_source, "FIRST_WITH_TAGS", OLD)
    with backup_tool.unchanged():
        status, log = backup_tool.run()
    assert (status, "nothing to do" in log) == (0, True), log
    before = backup_tool.csv("fastpath_202301.csv.zstd")
    status, log = backup_tool.run("export", "--force")
    assert (status, NATIVE in log) == (0, True), log
    assert backup_tool.csv("fastpath_202301.csv.zstd") == before


# --- which way ---


def test_http_is_taken_where_failures_are_certain(
    backup_tool: BackupTool, database_of: Database
) -> None:
    config = backup_tool.loaded()
    http = ClickHouseHTTP(config, "test")
    choice = choose(http.version(), config, database_of, http)
    assert choice.source is http
    assert choice.reason == f"rows come over HTTP, from {http.address}"


def test_an_old_server_is_asked_over_the_native_protocol_though_http_is_open(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_source, "FIRST_WITH_TAGS", OLD)
    backup_tool.fill("fastpath", 100, days=59)
    status, log = backup_tool.run(tables={"fastpath": "public"})
    assert (status, log.count(NATIVE)) == (0, 1), log
    assert "does not mark failures in mid-stream (99.1 does)" in log
    status, log = backup_tool.run("doctor")
    assert (status, f"ok      database, HTTP   {NATIVE}" in log) == (0, True), log
    assert backup_tool.run("restore", "fastpath")[0] == 0
    assert backup_tool.checksum("fastpath_restored") == backup_tool.checksum("fastpath")


def test_an_address_that_is_configured_and_does_not_answer_is_a_failure(
    backup_tool: BackupTool,
) -> None:
    backup_tool.fill("fastpath", 100, days=31)
    status, log = backup_tool.run(tables={"fastpath": "public"}, http_url="http://127.0.0.1:9/")
    assert (status, NATIVE in log, backup_tool.exports()) == (69, False, []), log


def test_the_doctor_says_what_http_is_needed_for(native_tool: BackupTool) -> None:
    status, log = native_tool.run("doctor")
    assert status == 0, log
    assert f"{NATIVE}; http://127.0.0.1:9/: database over HTTP: " in log
    assert "restoring an export needs HTTP" in log


def test_an_export_can_not_be_restored_without_http(native_tool: BackupTool) -> None:
    native_tool.fill("fastpath", 100, days=31)
    assert native_tool.run(tables={"fastpath": "public"})[0] == 0
    status, log = native_tool.run("restore", "fastpath")
    assert (status, "restoring an export needs the HTTP interface" in log) == (69, True), log
    assert native_tool.database.execute("SHOW TABLES") == [("fastpath",)]


# --- failures ---


@pytest.fixture
def exported(native_tool: BackupTool) -> BackupTool:
    """A month is exported, and has more rows since."""
    native_tool.fill("fastpath", 4000, days=31)
    assert native_tool.run(tables={"fastpath": "public"})[0] == 0
    native_tool.fill("fastpath", 6000, days=31)
    return native_tool


def check_nothing_changes(tool: BackupTool, uri: str, reason: str) -> None:
    """Check that a run fails, leaves the bucket as it was, and that the next one succeeds."""
    with tool.unchanged():
        status, log = tool.run(clickhouse_url=uri)
    assert (status, reason in log) == (69, True), log
    assert tool.uploads() == []


def test_a_failure_of_the_server_in_mid_stream_changes_nothing(exported: BackupTool) -> None:
    limits = "max_block_size=500&max_result_rows=3000&result_overflow_mode=throw"
    check_nothing_changes(exported, f"{exported.database.uri}?{limits}", "code 396")
    assert exported.run(clickhouse_url=exported.database.uri)[0] == 0
    assert exported.verifies()


@pytest.mark.long
@pytest.mark.parametrize("after", [20_000, 1_000_000])
def test_a_connection_that_breaks_in_mid_stream_changes_nothing(
    exported: BackupTool, after: int
) -> None:
    with NativeProxy(exported.database.uri, after).open() as uri:
        check_nothing_changes(exported, uri, "database: ")
    assert exported.run(clickhouse_url=exported.database.uri)[0] == 0
    assert exported.verifies()


@pytest.mark.long
def test_a_server_that_is_killed_in_mid_stream_changes_nothing(
    tmp_path: Path,
    s3: S3Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    quick_backups: None,
) -> None:
    monkeypatch.setattr(row_source, "FIRST_WITH_TAGS", OLD)
    s3.create_bucket("killed")
    with EmbeddedClickHouse(tmp_path / "db") as server:
        tool = BackupTool(tmp_path, FreshDatabase("default", server), s3, "killed", capsys)
        tool.fill("fastpath", 4000, days=31)
        assert tool.run(tables={"fastpath": "public"})[0] == 0
        tool.fill("fastpath", 6000, days=31)
        with NativeProxy(server.uri(), 1_000_000, server.kill).open() as uri:
            check_nothing_changes(tool, uri, "database: ")
        assert tool.verifies()


def test_a_failure_comes_before_the_end_of_the_rows(
    backup_tool: BackupTool, database_of: Database
) -> None:
    native = ClickHouseNative((database_of,), backup_tool.loaded())
    select = "SELECT throwIf(number = 3000000, 'no more rows') AS x FROM numbers(4000000)"
    with (
        native.rows(select, ["x"]) as stream,
        pytest.raises(StatementFailed, match="no more rows") as caught,
    ):
        for _ in stream:
            pass
    assert (caught.value.code, stream.counter.complete) == (395, False)
    assert 1_000_000 < stream.counter.rows <= 3_000_000
    assert database_of.query("SELECT 1") == [(1,)]


def test_rows_that_are_left_are_cancelled_and_the_connection_goes_on(
    backup_tool: BackupTool, database_of: Database
) -> None:
    native = ClickHouseNative((database_of,), backup_tool.loaded())

    def running() -> int:
        sql = "SELECT count() FROM system.processes WHERE query LIKE '%left\\_early%'"
        rows: list[tuple[int]] = backup_tool.database.execute(sql)
        return rows[0][0]

    select = "SELECT repeat('x', 1000) AS left_early FROM numbers(50000)"
    with native.rows(select, ["left_early"]) as stream:
        assert next(iter(stream)) == b'"left_early"\n'
        assert next(iter(stream)).startswith(b'"xxx')
        assert running() > 0
    until = time.monotonic() + AMPLE
    while running() and time.monotonic() < until:
        time.sleep(0.05)
    assert running() == 0
    assert database_of.query("SELECT 1") == [(1,)]


def test_another_type_than_text_is_refused(database_of: Database) -> None:
    for sql in ("SELECT 1", "SELECT 'a', 'b'"):
        with pytest.raises(Unavailable, match="instead of one of String"):
            list(database_of.texts(sql, {}))
    assert list(database_of.texts("SELECT 'a'", {})) == [(b"a", 1)]
    assert database_of.query("SELECT 'a', 1") == [("a", 1)]


def test_memory_is_bounded_whatever_the_size_of_blocks_and_rows(
    backup_tool: BackupTool, database_of: Database
) -> None:
    native = ClickHouseNative((database_of,), backup_tool.loaded())
    size = "if(number % 1000 < 500, 10, 100000)"
    select = f"SELECT repeat('x', {size}) AS x FROM numbers(1000)"
    tracemalloc.start()
    try:
        with native.rows(select, ["x"]) as stream:
            total = sum(len(piece) for piece in stream)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (total, stream.counter.rows) == (500 * (10 + 100000) + 1000 * 3 + 4, 1000)
    assert peak < MEMORY
