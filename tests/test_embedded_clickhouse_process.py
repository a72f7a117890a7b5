"""The embedded ClickHouse as a process: start, stop, data that stays, what it refuses."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import NetworkError, ServerException

from dev.embedded_clickhouse import EmbeddedClickHouse, StartError

COMMAND = [sys.executable, "-m", "dev.embedded_clickhouse"]
AMPLE = 60  # seconds; far more than what is waited for takes, for a machine under load


def execute(server: EmbeddedClickHouse, query: str, *arguments: object) -> Any:
    with Client.from_url(server.uri()) as client:
        return client.execute(query, *arguments)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """A server that tests may disturb but not stop."""
    with EmbeddedClickHouse(tmp_path_factory.mktemp("running")) as server:
        yield server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_by_hand_it_prints_its_ports_and_stops_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [*COMMAND, str(tmp_path), "--exit-with-parent"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = json.loads(process.stdout.readline())
        assert line["pid"] == process.pid
        for port in (line["tcp"], line["http"]):
            socket.create_connection(("127.0.0.1", port), AMPLE).close()
        process.send_signal(number)
        assert process.wait(AMPLE) == 0
        assert process.stdout.read() == ""
    assert not (tmp_path / "spool").exists()


def test_it_listens_on_loopback_alone(running: EmbeddedClickHouse) -> None:
    listening = {
        tuple(line.split()[1].split(":"))
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    for port in (running.tcp, running.http):
        assert [host for host, number in listening if int(number, 16) == port] == ["0100007F"]
    with Client("localhost", running.tcp) as client:
        assert client.execute("SELECT 1") == [(1,)]


def test_a_restart_keeps_the_data(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path)
    with server:
        execute(server, "CREATE DATABASE d ENGINE = Atomic")
        execute(server, "CREATE TABLE d.t (n UInt32) ENGINE = MergeTree ORDER BY n")
        execute(server, "CREATE TABLE k (n String) ENGINE = EmbeddedRocksDB PRIMARY KEY n")
        execute(server, "INSERT INTO d.t VALUES", [(1,), (2,)])
        execute(server, "INSERT INTO k VALUES", [("a",)])
    with server:
        assert execute(server, "SELECT * FROM d.t ORDER BY n") == [(1,), (2,)]
        assert execute(server, "SELECT * FROM k") == [("a",)]


def test_a_killed_server_keeps_what_it_had_acknowledged(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path).start()
    execute(server, "CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n")
    acknowledged = 0

    def insert() -> None:
        nonlocal acknowledged
        try:
            with Client.from_url(server.uri()) as client:
                while True:
                    client.execute("INSERT INTO t VALUES", [(n,) for n in range(5000)])
                    acknowledged += 5000
        except (OSError, EOFError, NetworkError):
            return

    thread = threading.Thread(target=insert)
    thread.start()
    while acknowledged < 20_000:
        time.sleep(0.01)
    assert server.kill() == -signal.SIGKILL
    thread.join()
    with server:
        count = execute(server, "SELECT count() FROM t")[0][0]
    assert count in {acknowledged, acknowledged + 5000}


def test_a_data_directory_in_use_is_refused_in_one_line(running: EmbeddedClickHouse) -> None:
    path = str(running.log.parent)
    done = subprocess.run(
        [*COMMAND, path], capture_output=True, text=True, check=False, timeout=AMPLE
    )
    assert done.returncode == 1
    assert done.stdout == ""
    message = f"embedded_clickhouse: {path}: another process uses this data directory\n"
    assert done.stderr == message
    assert execute(running, "SELECT 1") == [(1,)]


def test_a_port_in_use_is_refused_in_one_line(running: EmbeddedClickHouse, tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        EmbeddedClickHouse(tmp_path, tcp=running.tcp).start()
    message = f"embedded_clickhouse: port {running.tcp}: Address already in use"
    assert str(caught.value) == message


def test_it_stops_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from dev.embedded_clickhouse import EmbeddedClickHouse\n"
        "server = EmbeddedClickHouse(sys.argv[1]).start()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + AMPLE
    while Path(f"/proc/{pid}").exists() and is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Tell a process from one that has ended and whose parent has not asked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_stops_while_clients_are_busy(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path).start()

    def work() -> None:
        query = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"
        with pytest.raises((ServerException, NetworkError, EOFError, OSError)):
            execute(server, query)

    threads = [threading.Thread(target=work) for _ in range(3)]
    idle = Client.from_url(server.uri())
    idle.execute("SELECT 1")
    for thread in threads:
        thread.start()
    running = "SELECT count() FROM system.processes WHERE query LIKE '%(1000000000000)%'"
    while idle.execute(f"{running} AND query NOT LIKE '%processes%'") != [(3,)]:
        time.sleep(0.01)
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    idle.disconnect()


def test_users_given_are_the_only_ones(tmp_path: Path) -> None:
    users = ["reader:secret:readonly", "writer:with:colon"]

    def code(user: str, password: str, query: str) -> int:
        with (
            pytest.raises(ServerException) as caught,
            Client.from_url(server.uri(user, password)) as client,
        ):
            client.execute(query)
        return int(caught.value.code)

    with EmbeddedClickHouse(tmp_path, users) as server:
        create = "CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n"
        assert code("default", "", "SELECT 1") == 516
        assert code("reader", "", "SELECT 1") == 516
        assert code("reader", "secret", create) == 164
        assert code("reader", "secret", "SET readonly = 0") == 164
        with Client.from_url(server.uri("writer", "with:colon")) as client:
            client.execute(create)
            client.execute("INSERT INTO t VALUES", [(1,)])
        with Client.from_url(server.uri("reader", "secret")) as client:
            assert client.execute("SELECT * FROM t", settings={"max_threads": 1}) == [(1,)]
            client.execute("SET max_threads = 1")
            client.execute("CREATE TEMPORARY TABLE mine (n UInt8)")
            client.execute("INSERT INTO mine VALUES", [(5,)])
            assert client.execute("SELECT * FROM mine") == [(5,)]
            with pytest.raises(ServerException) as caught:
                client.execute("INSERT INTO t VALUES", [(1,)])
            assert caught.value.code == 164
            assert client.execute("SELECT count() FROM t") == [(1,)]


def test_the_server_has_a_zone_and_a_session_another_one(tmp_path: Path) -> None:
    def over_http(**parameters: str) -> tuple[bytes, str]:
        url = server.http_url(query="SELECT timezone(), toDateTime(0)", **parameters)
        with urlopen(url) as answer:
            return answer.read(), answer.headers["X-ClickHouse-Timezone"]

    with EmbeddedClickHouse(tmp_path, timezone="Asia/Kolkata") as server:
        zone, text = "SELECT timezone(), serverTimezone()", "SELECT toString(toDateTime(0))"
        assert execute(server, zone) == [("Asia/Kolkata", "Asia/Kolkata")]
        assert execute(server, text) == [("1970-01-01 05:30:00",)]
        with Client.from_url(server.uri(session_timezone="UTC")) as client:
            assert client.execute(zone) == [("UTC", "Asia/Kolkata")]
            assert client.execute(text) == [("1970-01-01 00:00:00",)]
            assert client.connection.server_info.timezone == "Asia/Kolkata"
            own = {"session_timezone": ""}
            assert client.execute(zone, settings=own) == [("Asia/Kolkata", "Asia/Kolkata")]
        kolkata = "Asia/Kolkata"
        assert over_http() == (b"Asia/Kolkata\t1970-01-01 05:30:00\n", kolkata)
        assert over_http(session_timezone="UTC") == (b"UTC\t1970-01-01 00:00:00\n", kolkata)


def test_a_user_can_be_without_settings(tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path, ["fixed:secret:readonly=1"]) as server:
        with Client.from_url(server.uri("fixed", "secret")) as client:
            assert client.execute("SELECT 1") == [(1,)]
            with pytest.raises(ServerException, match="readonly mode") as caught:
                client.execute("SELECT 1", settings={"session_timezone": "UTC"})
        assert caught.value.code == 164


def test_nothing_unexpected_is_in_the_log(running: EmbeddedClickHouse) -> None:
    execute(running, "SELECT 1")
    os.sync()
    assert running.log.read_text() == ""
