"""ClickHouse behind proxies, and for users with settings profiles of their own."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import fresh_database
from db_backup_harness import BackupTool
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.servers.fault_proxy import Exchange, FaultProxy, answers, passed, without
from dev.servers.loopback import Request
from dev.servers.tcp_proxy import TcpProxy
from exports.clickhouse_http import PORTS, SUMMARY, TAG, ClickHouseHTTP, written_rows
from exports.progress_headers import _WithoutProgress
from failing_clickhouse import FailingClickHouse
from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.database import connected
from ooni_common.errors import Unavailable

HOURS = 3 * 3600  # seconds of silence
PATIENCE = 60  # seconds of silence that a proxy bears
LONGEST_TARGET = 8000  # characters
COLUMNS = 300


@pytest.fixture
def proxy(backup_tool: BackupTool) -> Iterator[FaultProxy]:
    """The tool's way to the database's HTTP interface, and a table."""
    execute = backup_tool.database.execute
    execute("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
    execute("INSERT INTO t SELECT number, 'text' FROM numbers(100)")
    with FaultProxy(backup_tool.config["http_url"]) as proxy:
        backup_tool.configure(http_url=proxy.url, tables={"t": "public"})
        yield proxy


def every(_request: Request) -> bool:
    return True


def impatient(exchange: Exchange) -> None:
    """Cut a connection on which nothing came for a minute, in an answer that begins after hours.

    The time is not spent: the server's headers of its progress come as it was told to send them.
    """
    settings = parse_qs(urlsplit(exchange.request.target).query)
    interval = int(settings.get("http_headers_progress_interval_ms", ["100"])[0]) / 1000
    if settings.get("send_progress_in_http_headers") != ["1"] or interval >= PATIENCE:
        for _ in exchange.body():
            pass
        exchange.cut()
        return
    progress = b'X-ClickHouse-Progress: {"read_rows":"1"}\r\n'
    with exchange.forwarded() as response:
        content = response.read()
        exchange.request.status = response.status
        head = b"HTTP/1.1 200 OK\r\n" + int(HOURS / interval) * progress
        for name in (TAG, SUMMARY, "X-ClickHouse-Exception-Code"):
            if value := response.headers.get(name):
                head += f"{name}: {value}\r\n".encode()
        head += b"Content-Length: %d\r\n\r\n" % len(content)
        exchange.handler.wfile.write(head + content)


def restores(tool: BackupTool) -> str:
    """Check that an export and its restore succeed; return what the latter has said."""
    status, log = tool.run()
    assert (status, tool.exports()) == (0, ["t.csv.zstd"]), log
    status, log = tool.run("restore", "t")
    assert status == 0, log
    assert tool.checksum("t_restored") == tool.checksum("t")
    return log


def test_an_answer_that_takes_hours_is_not_cut_for_its_silence(
    backup_tool: BackupTool, proxy: FaultProxy
) -> None:
    proxy.fail(impatient, every)
    restores(backup_tool)


def test_a_failure_behind_headers_of_progress_is_one(
    backup_tool: BackupTool, proxy: FaultProxy
) -> None:
    """The status is good, as it was sent before."""
    proxy.fail(impatient, every)
    http = ClickHouseHTTP(backup_tool.loaded(), "test")
    with (
        pytest.raises(Unavailable, match="no more rows"),
        http.rows("SELECT throwIf(1, 'no more rows')"),
    ):
        pass


def test_figures_that_a_proxy_keeps_back_are_counted(
    backup_tool: BackupTool, proxy: FaultProxy
) -> None:
    proxy.fail(without(SUMMARY, passed), every)
    assert "t.csv.zstd: 100 rows" in restores(backup_tool)


@pytest.mark.parametrize("summary", ["", "{", "[]", "{}", '{"written_rows": "many"}', "1"])
def test_a_summary_without_figures_is_none(summary: str) -> None:
    assert written_rows(summary) is None


def test_a_tag_that_a_proxy_keeps_back_is_missed(
    backup_tool: BackupTool, proxy: FaultProxy
) -> None:
    proxy.fail(without(TAG, passed), every)
    for command in ("export", "doctor"):
        status, log = backup_tool.run(command)
        assert (status, f"a proxy keeps back the header {TAG}" in log) == (78, True), log
    assert backup_tool.exports() == []


def test_without_a_tag_rows_come_over_the_native_protocol_where_no_address_is_given(
    backup_tool: BackupTool, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fail(without(TAG, passed), every)
    monkeypatch.setitem(PORTS, "clickhouse", ("http", urlsplit(proxy.url).port))
    for command in ("doctor", "export"):
        status, log = backup_tool.run(command, http_url="")
        assert (status, "rows come over the native protocol" in log, TAG in log) == (0, True, True)
    assert backup_tool.exports() == ["t.csv.zstd"]


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", b"", b'"n","x"\n1,2\n'])
def test_what_is_no_rows_is_not_published(
    backup_tool: BackupTool, proxy: FaultProxy, content: bytes
) -> None:
    """A proxy's own page, with a good status."""
    proxy.fail(answers(200, content, {TAG: "abcdefghijklmnop"}), every)
    status, log = backup_tool.run()
    assert (status, "no rows came, but" in log, backup_tool.exports()) == (69, True, []), log


def test_more_columns_than_an_address_can_name(backup_tool: BackupTool, proxy: FaultProxy) -> None:
    names = [f"a_column_with_a_long_name_{number:04}" for number in range(COLUMNS)]
    columns = ", ".join(f"{name} UInt8" for name in names)
    backup_tool.database.execute("DROP TABLE t SYNC")
    backup_tool.database.execute(
        f"CREATE TABLE t ({columns}) ENGINE = MergeTree ORDER BY {names[0]}"
    )
    backup_tool.database.execute("INSERT INTO t SELECT 1" + ", 2" * (COLUMNS - 1))
    proxy.fail(answers(414), lambda request: len(request.target) > LONGEST_TARGET)
    restores(backup_tool)


def test_lines_of_progress_are_dropped_and_others_stay() -> None:

    head = b"HTTP/1.1 200 OK\r\n" + 500 * b"X-ClickHouse-Progress: {}\r\n" + b"A: b\r\n\r\n"
    lines = _WithoutProgress(io.BytesIO(head))
    left = [lines.readline() for _ in range(4)]
    assert left == [b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", b"\r\n", b""]


def test_another_host_is_tried_where_a_proxy_has_no_server_behind_it(
    embedded_clickhouse: EmbeddedClickHouse,
) -> None:
    with TcpProxy(lambda: 0) as proxy:
        away = f"127.0.0.1:{proxy.port}"
        for others, succeeds in (
            (away, False),
            (f"{away},127.0.0.1:{embedded_clickhouse.tcp}", True),
        ):
            uri = SecretUrl(f"clickhouse://{away}/default?alt_hosts={others}")
            config = DatabaseConfig(state_dir=Path("/nowhere"), db_uri=uri)
            with (
                contextlib.nullcontext() if succeeds else pytest.raises(Unavailable, match="EOF"),
                connected(config) as database,
            ):
                assert database.query("SELECT 1") == [(1,)]


# --- settings profiles ---


@pytest.mark.long
def test_a_profile_neither_cuts_results_short_nor_adds_to_them(
    tmp_path: Path, backup_tool: BackupTool
) -> None:
    options = ("--profile", "limit = 5, offset = 1, extremes = 1")
    with (
        EmbeddedClickHouse(tmp_path / "server", options=options) as server,
        fresh_database(server) as database,
    ):
        database.execute("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
        database.execute("INSERT INTO t VALUES", [{"n": n, "s": "text"} for n in range(100)])
        assert len(database.execute("SELECT n FROM t")) == 5  # so it is in force
        http = server.http_url().partition("?")[0]
        backup_tool.database = database
        backup_tool.keep_private(clickhouse_url=database.uri, tables={"t": "both"})
        for url in (http, ""):
            for command in ("export", "backup", "verify", "doctor"):
                status, log = backup_tool.run(command, "--force", http_url=url)
                assert status == 0, log
        assert backup_tool.csv("t.csv.zstd").count(b"\n") == 101


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailingClickHouse]:
    with FailingClickHouse(tmp_path_factory.mktemp("failing")) as server:
        yield server


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        (
            164,
            "Cannot modify 'session_timezone' setting in readonly mode",
            "use a profile with readonly = 0 (2 is enough where nothing is written)",
        ),
        (164, "Cannot modify 'limit' setting in readonly mode", "with readonly = 0"),
        (452, "Setting limit shouldn't be greater than 5", "loosen the constraint"),
        (452, "Setting extremes should not be changed", "loosen the constraint"),
    ],
)
def test_a_setting_that_may_not_be_changed_is_named(
    failing: FailingClickHouse, backup_tool: BackupTool, code: int, message: str, advice: str
) -> None:
    backup_tool.keep_private(clickhouse_url=failing.uri(), tables={"t": "both"}, http_url="")
    with failing.failing("", code, message):
        for command in ("export", "backup", "doctor"):
            status, log = backup_tool.run(command)
            lines = [line for line in log.splitlines() if message in line]
            assert (status, "Traceback" in log) == (78, False), log
            assert any(advice in line for line in lines), log
