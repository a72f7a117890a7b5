"""The embedded ClickHouse by its native protocol, through the unmodified driver."""

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import PartiallyConsumedQueryError, ServerException

from dev.embedded_clickhouse import EmbeddedClickHouse

if TYPE_CHECKING:
    from conftest import Database


def peak_memory(pid: int) -> int:
    """Return the largest resident size of a process so far, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def error_code(client: Client, query: str, *arguments: Any, **options: Any) -> int:
    """Run what must fail and return the code of the exception."""
    with pytest.raises(ServerException) as caught:
        client.execute(query, *arguments, **options)
    return int(caught.value.code)


@pytest.fixture(scope="module")
def clickhouse_server(embedded_clickhouse: EmbeddedClickHouse) -> EmbeddedClickHouse:
    """These tests are about the embedded server, whatever the environment names."""
    return embedded_clickhouse


@pytest.fixture(params=["plain", "lz4"])
def client(database: "Database", request: pytest.FixtureRequest) -> Client:
    """A client without compression and one with it."""
    return database.client(**({} if request.param == "plain" else {"compression": request.param}))


@pytest.fixture
def table(client: Client) -> str:
    """An empty table with two columns and a default."""
    client.execute(
        "CREATE TABLE t (n UInt32, s String, d UInt8 DEFAULT 7, m String MATERIALIZED upper(s)) "
        "ENGINE = MergeTree ORDER BY n"
    )
    return "t"


# Inserting


@pytest.mark.usefixtures("table")
def test_inserts_by_tuple_dict_column_and_generator(client: Client) -> None:
    assert client.execute("INSERT INTO t (n, s) VALUES", [(1, "tuple"), [2, "list"]]) == 2
    assert client.execute("INSERT INTO t (n, s) VALUES", [{"s": "dict", "n": 3}]) == 1
    assert client.execute("INSERT INTO t (n, s) VALUES", [[4, 5], ["c", "c"]], columnar=True) == 2
    rows = ((n, "generated") for n in range(6, 9))
    assert client.execute("INSERT INTO t (n, s) VALUES", rows) == 3
    assert client.execute("SELECT n, s, d, m FROM t ORDER BY n") == [
        (1, "tuple", 7, "TUPLE"),
        (2, "list", 7, "LIST"),
        (3, "dict", 7, "DICT"),
        (4, "c", 7, "C"),
        (5, "c", 7, "C"),
        *((n, "generated", 7, "GENERATED") for n in range(6, 9)),
    ]


@pytest.mark.usefixtures("table")
def test_an_insert_of_many_blocks_arrives_whole(client: Client) -> None:
    rows = ((n, f"row {n}" * (n % 50)) for n in range(100_000))
    settings = {"insert_block_size": 7_000}
    assert client.execute("INSERT INTO t (n, s) VALUES", rows, settings=settings) == 100_000
    facts = "count(), sum(n), sum(length(s)), uniqExact(n)"
    expected = sum(len(f"row {n}" * (n % 50)) for n in range(100_000))
    assert client.execute(f"SELECT {facts} FROM t") == [(100_000, 4999950000, expected, 100_000)]


@pytest.mark.usefixtures("table")
def test_rows_in_the_statement_itself(client: Client) -> None:
    client.execute("INSERT INTO t (n, s) VALUES (1, 'a;b'), (2, 'it''s')")
    client.execute("INSERT INTO t (n, s) SELECT number + 3, 'selected' FROM numbers(2)")
    assert client.execute("SELECT n, s FROM t ORDER BY n") == [
        (1, "a;b"),
        (2, "it's"),
        (3, "selected"),
        (4, "selected"),
    ]


def test_a_failed_insert_stores_nothing_and_the_connection_goes_on(client: Client) -> None:
    client.execute(
        "CREATE TABLE t (n UInt32, CONSTRAINT small CHECK n < 50000) ENGINE = MergeTree ORDER BY n"
    )
    rows = [(n,) for n in range(60_000)]
    assert error_code(client, "INSERT INTO t VALUES", rows) == 469
    assert client.execute("SELECT count() FROM t") == [(0,)]
    assert client.execute("INSERT INTO t VALUES", rows[:10]) == 10


@pytest.mark.usefixtures("table")
def test_wrong_inserts_are_refused_and_the_connection_goes_on(client: Client) -> None:
    assert error_code(client, "INSERT INTO absent VALUES", [(1,)]) == 60
    assert error_code(client, "INSERT INTO t (absent) VALUES", [(1,)]) == 16
    assert error_code(client, "INSERT INTO t (m) VALUES", [("x",)]) == 44
    assert error_code(client, "INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV") == 48
    from_input = "INSERT INTO t SELECT * FROM input('n UInt32, s String') FORMAT CSV 1,a"
    assert error_code(client, from_input) == 48
    assert client.execute("SELECT count() FROM t") == [(0,)]


@pytest.mark.parametrize("before", ["", "x"])
def test_a_message_that_is_cut_off_in_the_middle_of_a_letter_arrives(
    client: Client, before: str
) -> None:
    """The engine's message has the arguments of the function that failed, up to a length."""
    texts = [f"{before}{100 * 'я'}", "(?<=a)b"]
    match = "SELECT arrayMap(text -> match(materialize(''), text), %(texts)s)"
    assert error_code(client, match, {"texts": texts}) == 427
    assert client.execute("SELECT 1") == [(1,)]


# Selecting


def test_an_empty_result_has_its_columns(client: Client) -> None:
    empty = "SELECT toDateTime(0, 'Asia/Tokyo') AS a, '' AS b WHERE 0; -- nothing"
    rows, columns = client.execute(empty, with_column_types=True)
    assert rows == []
    assert columns == [("a", "DateTime('Asia/Tokyo')"), ("b", "String")]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("SHOW TABLES", "t"),
        ("DESCRIBE TABLE t", "n"),
        ("EXISTS TABLE t", 1),
        ("EXPLAIN SYNTAX SELECT 1", "SELECT 1\nFROM system.one"),
        ("WITH 5 AS x SELECT x", 5),
        ("(SELECT 1) UNION ALL (SELECT 1)", 1),
        ("FROM numbers(3) SELECT max(number)", 2),
        ("SELECT 3 FORMAT CSV", 3),
        ("SELECT format FROM (SELECT 4 AS format) ORDER BY format DESC", 4),
        ("SELECT 6 SETTINGS max_threads = 1;", 6),
    ],
)
def test_statements_with_a_result(database: "Database", query: str, first: object) -> None:
    client = database.client()
    client.execute("CREATE TABLE t (n UInt8) ENGINE = Memory")
    result = client.execute(query)
    assert result[0][0] == first


@pytest.mark.long
def test_ten_million_rows_stream_with_bounded_memory(tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path) as server:
        with Client.from_url(server.uri()) as client:
            client.execute("SELECT 1")
            idle = peak_memory(server.pid)
        script = (
            "import resource, sys, clickhouse_driver\n"
            "client = clickhouse_driver.Client.from_url(sys.argv[1])\n"
            "query = 'SELECT number, toString(number) FROM numbers(10000000)'\n"
            "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
            "before = used()\n"
            "rows = sum(len(part) for part in client.execute_iter(query, chunk_size=50000))\n"
            "print(rows, used() - before)"
        )
        command = [sys.executable, "-c", script, server.uri()]
        rows, grown = subprocess.check_output(command, text=True).split()
        assert int(rows) == 10_000_000
        assert int(grown) < 150
        assert peak_memory(server.pid) - idle < 300


def test_stopping_halfway_leaves_the_server_ready(database: "Database") -> None:
    client = database.client()
    rows = client.execute_iter("SELECT number FROM numbers(1000000000)")
    assert list(itertools.islice(rows, 3)) == [(0,), (1,), (2,)]
    with pytest.raises(PartiallyConsumedQueryError):
        client.execute("SELECT 1")
    assert client.execute("SELECT 2") == [(2,)]
    assert running_queries(database, "1000000000") == 0


def test_cancel_ends_a_query_without_any_output_yet(database: "Database") -> None:
    client = database.client()
    client.establish_connection({})
    client.connection.send_query("SELECT sum(sipHash64(number)) FROM numbers(1000000000000)")
    client.connection.send_external_tables([])
    client.cancel()
    client.disconnect()
    assert client.execute("SELECT 1") == [(1,)]
    assert running_queries(database, "1000000000000") == 0


def test_a_client_that_leaves_takes_its_query_along(database: "Database") -> None:
    client = database.client()
    client.establish_connection({})
    client.connection.send_query("SELECT sum(sipHash64(number)) FROM numbers(2000000000000)")
    client.connection.send_external_tables([])
    client.disconnect()
    assert running_queries(database, "2000000000000") == 0


def running_queries(database: "Database", fragment: str) -> int:
    """Return how many such queries still run, after the time that is ample for their end."""
    client = database.client()
    query = (
        "SELECT count() FROM system.processes "
        "WHERE position(query, %(what)s) > 0 AND position(query, 'system.processes') = 0"
    )
    for _ in range(600):
        count = int(client.execute(query, {"what": f"({fragment})"})[0][0])
        if not count:
            return 0
        time.sleep(0.1)
    return count


# Failures


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT * FROM absent", 60),
        ("SELECT * FROM absent.t", 81),
        ("SELECT absent", 47),
        ("SELEC 1", 62),
        ("selec", 62),
        ("SELECT absent()", 46),
        ("SELECT 1; SELECT 2", 62),
        ("SELECT toUInt8('x')", 6),
        ("SELECT throwIf(number = 5000000) FROM numbers(10000000)", 395),
        ("CREATE TABLE t (a Nope) ENGINE = Memory", 50),
        ("CREATE TABLE t ON CLUSTER absent (a UInt8) ENGINE = Memory", 701),
        ("SELECT 1 INTO OUTFILE 'x'", 48),
        ("SELECT number % 2 AS k, count() FROM numbers(9) GROUP BY k WITH TOTALS", 48),
        ("SELECT sum(sipHash64(number)) FROM numbers(1e13) SETTINGS max_execution_time = 0.2", 159),
    ],
)
def test_an_exception_has_its_code_and_the_connection_goes_on(
    database: "Database", query: str, code: int
) -> None:
    client = database.client()
    for _ in range(2):
        with pytest.raises(ServerException) as caught:
            client.execute(query)
        assert caught.value.code == code
        assert caught.value.message.startswith("DB::Exception: ")
        assert client.execute("SELECT 1") == [(1,)]


# Settings, sessions, users


def test_settings_hold_for_their_query_alone(client: Client) -> None:
    ask = "SELECT getSetting('max_block_size'), getSetting('log_comment')"
    (usual,) = client.execute(ask)
    settings = {"max_block_size": 1234, "log_comment": "it's"}
    assert client.execute(ask, settings=settings) == [(1234, "it's")]
    assert client.execute(ask) == [usual]
    assert client.execute(ask, query_id="mine") == [(usual[0], "mine")]


def test_set_holds_for_the_session(client: Client) -> None:
    client.execute("SET max_block_size = 777")
    ask = "SELECT getSetting('max_block_size')"
    assert client.execute(ask) == [(777,)]
    assert client.execute(ask, settings={"max_block_size": 5}) == [(5,)]
    assert client.execute(ask) == [(777,)]


def test_unknown_settings_are_ignored_unless_important(database: "Database") -> None:
    unknown = {"no_such_setting": 1, "max_block_size": 99}
    ask = "SELECT getSetting('max_block_size')"
    assert database.client().execute(ask, settings=unknown) == [(99,)]
    strict = database.client(settings_is_important=True)
    assert error_code(strict, ask, settings=unknown) == 115
    assert strict.execute("SELECT 1") == [(1,)]


def test_readonly_as_a_setting(client: Client) -> None:
    settings = {"readonly": 1}
    assert error_code(client, "CREATE TABLE t (a UInt8) ENGINE = Memory", settings=settings) == 164
    assert client.execute("SELECT 1", settings=settings) == [(1,)]
    client.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")


def test_temporary_tables_belong_to_their_connection(client: Client, database: "Database") -> None:
    client.execute("CREATE TEMPORARY TABLE chosen (n UInt32)")
    client.execute("INSERT INTO chosen VALUES", [(1,), (2,)])
    assert client.execute("SELECT sum(n) FROM chosen") == [(3,)]
    assert error_code(database.client(), "SELECT * FROM chosen") == 60


def test_external_tables(client: Client) -> None:
    tables = [
        {
            "name": "ext",
            "structure": [("n", "UInt32"), ("s", "String")],
            "data": [(1, "a"), (2, "b")],
        },
        {"name": "more", "structure": [("n", "UInt32")], "data": [{"n": 2}]},
    ]
    query = "SELECT s FROM ext WHERE n IN (SELECT n FROM more)"
    for _ in range(2):
        assert client.execute(query, external_tables=tables) == [("b",)]
    assert error_code(client, "SELECT * FROM ext") == 60
    assert error_code(client, "SELECT absent FROM ext", external_tables=tables) == 47
    assert client.execute("SELECT 1") == [(1,)]


def test_the_database_of_the_uri_and_use(client: Client, database: "Database") -> None:
    assert client.execute("SELECT currentDatabase()") == [(database.name,)]
    client.execute("USE system")
    assert client.execute("SELECT count() FROM one") == [(1,)]


def test_the_projects_own_users_are_let_in(clickhouse_server: EmbeddedClickHouse) -> None:
    for user, password in (("citizenlab", ""), ("api", "api"), ("detector", "detector")):
        with Client.from_url(clickhouse_server.uri(user, password)) as client:
            assert client.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize(("user", "password"), [("api", "wrong"), ("api", ""), ("nobody", "x")])
def test_a_wrong_password_is_refused(
    clickhouse_server: EmbeddedClickHouse, user: str, password: str
) -> None:
    with Client.from_url(clickhouse_server.uri(user, password)) as client:
        assert error_code(client, "SELECT 1") == 516


def test_an_unknown_database_is_refused(clickhouse_server: EmbeddedClickHouse) -> None:
    with Client.from_url(clickhouse_server.uri(database="absent")) as client:
        assert error_code(client, "SELECT 1") == 81


def test_an_old_revision_of_the_protocol(database: "Database") -> None:
    client = database.client(client_revision=54429)
    client.execute("CREATE TABLE t (n UInt8) ENGINE = Memory")
    client.execute("INSERT INTO t VALUES", [(1,)])
    assert client.execute("SELECT * FROM t", settings={"max_threads": 1}) == [(1,)]


# Several clients


def test_concurrent_clients(database: "Database") -> None:
    database.execute("CREATE TABLE t (c UInt8, n UInt32) ENGINE = MergeTree ORDER BY n")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with Client.from_url(database.uri) as client:
                for part in range(5):
                    rows = [(number, part * 1000 + n) for n in range(1000)]
                    client.execute("INSERT INTO t VALUES", rows)
                    assert client.execute("SELECT %(n)s", {"n": number}) == [(number,)]
                    counted = client.execute("SELECT count() FROM t WHERE c = %(n)s", {"n": number})
                    assert counted == [((part + 1) * 1000,)]
                    assert error_code(client, "SELECT * FROM absent") == 60
                query = "SELECT number FROM numbers(200000)"
                assert sum(1 for _ in client.execute_iter(query)) == 200_000
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert database.execute("SELECT count(), uniqExact(c) FROM t") == [(40_000, 8)]


def test_a_client_killed_in_the_middle_of_an_insert_leaves_nothing(database: "Database") -> None:
    database.execute("CREATE TABLE t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
    script = (
        "import sys, itertools, clickhouse_driver\n"
        "client = clickhouse_driver.Client.from_url(sys.argv[1])\n"
        "def rows():\n"
        "    for n in itertools.count():\n"
        "        if n == 300000: print('half', flush=True)\n"
        "        yield n, 'x' * 100\n"
        "client.execute('INSERT INTO t VALUES', rows(), settings={'insert_block_size': 10000})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, database.uri], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"half\n"
        process.kill()
    time.sleep(0.3)
    assert database.execute("SELECT count() FROM t") == [(0,)]
    assert database.execute("INSERT INTO t VALUES", [(1, "a")]) == 1


@pytest.fixture
def wire(database: "Database") -> Iterator[socket.socket]:
    """A bare connection to the native port."""
    parts = urlsplit(database.uri)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as made:
        yield made


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"\xff" * 100,
        b"\x00" + b"\xff" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x04test\x01\x01\xa0\xa9\x03\x00\x07default\x00" + b"\x01" + b"\xff" * 50,
        b"\x00\x04test\x01\x01\xa0\xa9\x03\x00\x07default\x00" + b"\x63",
    ],
)
def test_garbage_ends_that_connection_alone(
    database: "Database", wire: socket.socket, garbage: bytes
) -> None:
    wire.sendall(garbage)
    wire.shutdown(socket.SHUT_WR)
    while wire.recv(65536):
        pass
    assert database.execute("SELECT 1") == [(1,)]
