"""The embedded ClickHouse by HTTP, through urllib3."""

import gzip
import http.client
import itertools
import json
import re
import socket
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import lz4.frame
import pytest
import urllib3
import zstandard

from dev.embedded_clickhouse import EmbeddedClickHouse

if TYPE_CHECKING:
    from conftest import Database

MID_BODY = "SELECT throwIf(number = 9000000) FROM numbers(10000000)"


@pytest.fixture(scope="module")
def clickhouse_server(embedded_clickhouse: EmbeddedClickHouse) -> EmbeddedClickHouse:
    """These tests are about the embedded server, whatever the environment names."""
    return embedded_clickhouse


class Http:
    """Requests to a test's own database."""

    def __init__(self, database: "Database") -> None:
        self.database = database
        self.pool = urllib3.PoolManager(retries=False)

    def url(self, query: str | None = None, **parameters: object) -> str:
        """Return the address of a query."""
        base = self.database.server.http_url(database=self.database.name)
        named = {} if query is None else {"query": query}
        return "&".join(filter(None, (base, urlencode({**named, **parameters}))))

    def request(
        self,
        query: str | None,
        body: bytes | str | Iterable[bytes] | None = None,
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        stream: bool = False,
        **parameters: object,
    ) -> urllib3.BaseHTTPResponse:
        """Send a query and return the answer."""
        url = self.url(query, **parameters)
        options: dict[str, Any] = {"preload_content": not stream, "decode_content": False}
        return self.pool.request(method, url, body=body, headers=headers, **options)

    def text(self, query: str | None, *arguments: Any, **options: Any) -> str:
        """Return the body of an answer that must be good."""
        answer = self.request(query, *arguments, **options)
        assert answer.status == 200, answer.data
        return answer.data.decode()

    def failure(self, query: str | None, *arguments: Any, **options: Any) -> tuple[int, int]:
        """Return status and exception code of an answer that must be bad."""
        answer = self.request(query, *arguments, **options)
        code = answer.headers["X-ClickHouse-Exception-Code"]
        assert answer.data.startswith(f"Code: {code}. DB::Exception: ".encode())
        return answer.status, int(code)


@pytest.fixture
def http_client(database: "Database") -> Iterator[Http]:
    made = Http(database)
    yield made
    made.pool.clear()


@pytest.fixture
def table(http_client: Http) -> None:
    http_client.text("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n")


def exception_message(body: bytes, tag: str) -> str:
    """Return the message of the exception block that a body must end with."""
    marker = b"\r\n__exception__\r\n"
    pattern = marker + tag.encode() + b"\r\n(.*)\n([0-9]+) " + tag.encode() + marker + b"$"
    match = re.search(pattern, body, re.DOTALL)
    assert match, body[-500:]
    assert len(match[1]) == int(match[2])
    return match[1].decode()


def broken_body(answer: urllib3.BaseHTTPResponse) -> bytes:
    """Read a body that must end without its final chunk; not decoded."""
    body = b""
    with pytest.raises(urllib3.exceptions.ProtocolError):  # noqa: PT012 - raised by the iterator
        for part in answer.stream(1 << 20, decode_content=False):
            body += part
    return body


def decode(encoding: str, body: bytes) -> bytes:
    """Undo a content encoding; not urllib3, which needs another package for zstd."""
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return zlib.decompress(body, 16 + zlib.MAX_WBITS if encoding == "gzip" else zlib.MAX_WBITS)


# Queries


def test_ping(http_client: Http) -> None:
    base = http_client.url().partition("?")[0]
    assert http_client.pool.request("GET", base).data == b"Ok.\n"
    assert http_client.pool.request("GET", base + "ping").data == b"Ok.\n"
    assert http_client.pool.request("GET", base + "replicas_status").data == b"Ok.\n"
    assert http_client.pool.request("GET", base + "nowhere").status == 404


def test_a_query_in_the_url_or_in_the_body_or_in_both(http_client: Http) -> None:
    assert http_client.text("SELECT 1") == "1\n"
    assert http_client.text("SELECT 1", method="GET") == "1\n"
    assert http_client.text(None, "SELECT 1") == "1\n"
    assert http_client.text("SELECT", "1") == "1\n"
    assert http_client.text(None, [b"SEL", b"ECT ", b"1"]) == "1\n"


def test_headers(http_client: Http) -> None:
    answer = http_client.request("SELECT 1 FORMAT CSVWithNames", query_id="mine")
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert answer.headers["X-ClickHouse-Format"] == "CSVWithNames"
    assert answer.headers["X-ClickHouse-Timezone"]
    assert answer.headers["Content-Type"] == "text/csv; charset=UTF-8; header=present"
    assert re.fullmatch("[a-z]{16}", answer.headers["X-ClickHouse-Exception-Tag"])
    summary = json.loads(answer.headers["X-ClickHouse-Summary"])
    assert summary["read_rows"] == "1"
    assert summary["result_rows"] == "1"


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("SELECT 1 AS a, 'x' AS b FORMAT CSVWithNames", '"a","b"\n1,"x"\n'),
        ("SELECT 1 AS a WHERE 0 FORMAT CSVWithNames", '"a"\n'),
        ("SELECT 1 AS a FORMAT JSONEachRow SETTINGS max_threads = 1", '{"a":1}\n'),
        ("SELECT 1 AS a -- comment\n;", "1\n"),
        ("SELECT number % 2 AS k, count() FROM numbers(3) GROUP BY k WITH TOTALS ORDER BY k", None),
        ("SHOW TABLES", ""),
        ("EXISTS TABLE absent", "0\n"),
        ("EXPLAIN SYNTAX SELECT 1 FORMAT TSVRaw", "SELECT 1\nFROM system.one\n"),
    ],
)
def test_formats(http_client: Http, query: str, body: str | None) -> None:
    assert http_client.text(query) == (body if body is not None else "0\t2\n1\t1\n\n0\t3\n")


def test_one_document_whatever_the_size(http_client: Http) -> None:
    body = http_client.text("SELECT number AS n FROM numbers(300000) FORMAT JSON")
    document = json.loads(body)
    assert document["rows"] == 300_000
    assert document["data"][-1] == {"n": 299_999}
    body = http_client.text("SELECT number AS n FROM numbers(300000) FORMAT CSVWithNames")
    assert body.count('"n"') == 1
    assert body.count("\n") == 300_001


def test_parameters_settings_and_database(http_client: Http) -> None:
    query = "SELECT {n:UInt8} + 1, {s:String}"
    assert http_client.text(query, param_n=4, param_s="it's") == "5\tit\\'s\n"
    ask = "SELECT getSetting('max_threads'), getSetting('log_comment')"
    assert http_client.text(ask, max_threads=3, query_id="q") == "3\tq\n"
    assert http_client.text("SELECT currentDatabase()") == f"{http_client.database.name}\n"
    url = http_client.database.server.http_url(query="SELECT currentDatabase()")
    headers = {"X-ClickHouse-Database": "system"}
    assert http_client.pool.request("POST", url, headers=headers).data == b"system\n"


def test_a_session_keeps_its_temporary_tables(http_client: Http) -> None:
    http_client.text("CREATE TEMPORARY TABLE chosen (n UInt8)", session_id="s")
    http_client.text("INSERT INTO chosen VALUES (3)", session_id="s")
    http_client.text("SET max_block_size = 77", session_id="s")
    assert http_client.text(
        "SELECT n, getSetting('max_block_size') FROM chosen", session_id="s"
    ) == ("3\t77\n")
    assert http_client.failure("SELECT * FROM chosen") == (404, 60)
    assert http_client.failure("SELECT 1", session_id="absent", session_check=1) == (500, 372)


# Inserting


@pytest.mark.usefixtures("table")
def test_inserts(http_client: Http) -> None:
    http_client.text("INSERT INTO t FORMAT CSV", '1,"a"\n2,b\n')
    http_client.text("INSERT INTO t VALUES (3, 'c;')")
    http_client.text("INSERT INTO t VALUES", "(4, 'é')")
    http_client.text(None, "INSERT INTO t (n, s) FORMAT TSV\n5\t e\n")
    http_client.text("INSERT INTO t FORMAT JSONEachRow", '{"n": 6, "s": "f"}')
    http_client.text("INSERT INTO t SELECT 7, 'g'")
    http_client.text("INSERT INTO t SETTINGS max_threads = 1 FORMAT CSV", "8,h")
    http_client.text("INSERT INTO t FORMAT CSV SETTINGS max_threads = 1", "9,i")
    http_client.text("INSERT INTO t FORMAT CSV", "")
    rows = "1\ta\n2\tb\n3\tc;\n4\té\n5\t e\n6\tf\n7\tg\n8\th\n9\ti\n"
    assert http_client.text("SELECT * FROM t ORDER BY n") == rows


@pytest.mark.usefixtures("table")
def test_an_insert_takes_rows_through_a_select(http_client: Http) -> None:
    through = "INSERT INTO t (s, n) SELECT upper(b), a * 2 FROM input('a UInt8, b String')"
    answer = http_client.request(f"{through} WHERE a < 9 FORMAT CSVWithNames", "a,b\n1,x\n9,z\n")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "1"
    http_client.text(None, f"{through} FORMAT CSV\n2,y\n")
    assert http_client.text("SELECT * FROM t ORDER BY n") == "2\tX\n4\tY\n"


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
        ("lz4", lz4.frame.compress),
    ],
)
def test_compressed_inserts(http_client: Http, encoding: str, compress: Any) -> None:
    plain = b"".join(b"%d,%s\n" % (n, b"x" * (n % 99)) for n in range(50_000))
    whole = compress(plain[:1000]) + compress(plain[1000:])
    headers = {"Content-Encoding": encoding}
    http_client.text("INSERT INTO t FORMAT CSV", whole, headers=headers)
    assert http_client.text("SELECT count(), max(n) FROM t") == "50000\t49999\n"
    for damaged in (whole[:-5], b"not compressed"):
        _, code = http_client.failure("INSERT INTO t FORMAT CSV", damaged, headers=headers)
        assert code == 271
    assert http_client.text("SELECT count() FROM t") == "50000\n"


@pytest.mark.usefixtures("table")
def test_binary_rows_keep_their_bytes(http_client: Http) -> None:
    native = http_client.request("SELECT toUInt32(1) AS n, unhex('FF0027') AS s FORMAT Native").data
    http_client.text("INSERT INTO t FORMAT Native", native)
    http_client.text(None, b"INSERT INTO t FORMAT RowBinary\n" + b"\2\0\0\0\3\xff\0'")
    assert http_client.text("SELECT n, hex(s) FROM t ORDER BY n") == "1\tFF0027\n2\tFF0027\n"


@pytest.mark.usefixtures("table")
def test_a_large_insert_in_chunks(http_client: Http) -> None:
    body = (b"%d\tsome text\n" % n for n in range(400_000))
    parts = iter(lambda: b"".join(itertools.islice(body, 1000)), b"")
    http_client.text("INSERT INTO t FORMAT TSV", parts)
    assert http_client.text("SELECT count(), max(n) FROM t") == "400000\t399999\n"


@pytest.mark.usefixtures("table")
def test_a_bad_row_stores_nothing(http_client: Http) -> None:
    rows = "".join(f"{n},x\n" for n in range(1000)) + "oops,x\n"
    assert http_client.failure("INSERT INTO t FORMAT CSV", rows)[0] == 400
    assert http_client.text("SELECT count() FROM t") == "0\n"


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_dies_in_the_middle_of_an_insert_stores_nothing(
    http_client: Http, *, chunked: bool
) -> None:
    parts = urlsplit(http_client.url("INSERT INTO t FORMAT CSV"))
    connection = http.client.HTTPConnection(parts.netloc)
    connection.putrequest("POST", f"{parts.path}?{parts.query}")
    rows = b"1,a\n" * 100_000
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
        rows = b"%x\r\n%b\r\n" % (len(rows), rows)
    else:
        connection.putheader("Content-Length", str(10 * len(rows)))
    connection.endheaders()
    connection.send(rows)
    connection.close()
    time.sleep(0.3)
    assert http_client.text("SELECT count() FROM t") == "0\n"


# Results that are large, compressed, or fail


@pytest.mark.parametrize("encoding", ["zstd", "gzip", "deflate"])
def test_compressed_results(http_client: Http, encoding: str) -> None:
    headers = {"Accept-Encoding": encoding}
    query = "SELECT number FROM numbers(1000000)"
    answer = http_client.request(query, headers=headers, enable_http_compression=1)
    assert answer.headers["Content-Encoding"] == encoding
    assert decode(encoding, answer.data).count(b"\n") == 1_000_000
    plain = http_client.request("SELECT 1", headers=headers)
    assert "Content-Encoding" not in plain.headers


def test_clickhouses_own_frames(http_client: Http) -> None:
    http_client.text("CREATE TABLE t (n UInt32) ENGINE = Memory")
    frames = http_client.request("SELECT number FROM numbers(5) FORMAT TSV", compress=1).data
    http_client.text("INSERT INTO t FORMAT TSV", frames, decompress=1)
    assert http_client.text("SELECT sum(n) FROM t") == "10\n"


def test_a_failure_before_the_body_has_a_status(http_client: Http) -> None:
    assert http_client.failure("SELECT throwIf(number = 9) FROM numbers(10)") == (500, 395)
    assert http_client.failure(MID_BODY, wait_end_of_query=1) == (500, 395)


def test_a_failure_in_the_middle_of_the_body(http_client: Http) -> None:
    answer = http_client.request(MID_BODY, stream=True)
    assert answer.status == 200
    message = exception_message(broken_body(answer), answer.headers["X-ClickHouse-Exception-Tag"])
    assert message.startswith("Code: 395. DB::Exception: Value passed to 'throwIf'")
    assert http_client.text("SELECT 1") == "1\n"


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_a_failure_in_the_middle_of_a_compressed_body(http_client: Http, encoding: str) -> None:
    query = "SELECT throwIf(number = 900000), rand64() FROM numbers(1000000)"
    headers = {"Accept-Encoding": encoding}
    answer = http_client.request(query, headers=headers, stream=True, enable_http_compression=1)
    assert answer.headers["Content-Encoding"] == encoding
    body = decode(encoding, broken_body(answer))
    message = exception_message(body, answer.headers["X-ClickHouse-Exception-Tag"])
    assert "Code: 395." in message


@pytest.mark.parametrize(
    ("query", "failure"),
    [
        ("SELECT * FROM absent", (404, 60)),
        ("SELECT absent", (404, 47)),
        ("SELEC 1", (400, 62)),
        ("", (400, 62)),
        ("SELECT 1; SELECT 2", (400, 62)),
        ("SELECT toUInt8('x')", (400, 6)),
        ("SELECT 1 FORMAT Nope", (404, 73)),
        ("INSERT INTO absent FORMAT CSV", (404, 60)),
        ("SELECT 1 INTO OUTFILE 'x'", (501, 48)),
        ("INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV", (501, 48)),
        (
            "SELECT sum(sipHash64(number)) FROM numbers(1e13) SETTINGS max_execution_time = 0.2",
            (408, 159),
        ),
    ],
)
def test_statuses(http_client: Http, query: str, failure: tuple[int, int]) -> None:
    assert http_client.failure(query, "") == failure
    assert http_client.text("SELECT 1") == "1\n"


def test_unknown_settings_and_databases(http_client: Http) -> None:
    assert http_client.failure("SELECT 1", no_such_setting=1) == (404, 115)
    url = http_client.database.server.http_url(query="SELECT 1", database="absent")
    assert http_client.pool.request("POST", url).status == 404


def test_get_does_not_write(http_client: Http) -> None:
    create = "CREATE TABLE t (n UInt8) ENGINE = Memory"
    assert http_client.failure(create, method="GET") == (500, 164)
    assert http_client.failure(create, readonly=1) == (500, 164)
    assert http_client.text("EXISTS TABLE t") == "0\n"


# Users and connections


def test_ways_to_authenticate(http_client: Http) -> None:
    basic = urllib3.make_headers(basic_auth="api:api")
    ours = {"X-ClickHouse-User": "api", "X-ClickHouse-Key": "api"}
    assert http_client.text("SELECT 1", headers=basic) == "1\n"
    assert http_client.text("SELECT 1", headers=ours) == "1\n"
    assert http_client.text("SELECT 1", user="api", password="api") == "1\n"


def test_wrong_passwords(http_client: Http) -> None:
    basic = urllib3.make_headers(basic_auth="api:wrong")
    ours = {"X-ClickHouse-User": "api", "X-ClickHouse-Key": "wrong"}
    broken = {"Authorization": "Basic !!"}
    for headers in (basic, ours, broken):
        assert http_client.failure("SELECT 1", headers=headers) == (403, 516)
    assert http_client.failure("SELECT 1", user="api") == (403, 516)
    assert http_client.failure("INSERT INTO t FORMAT CSV", "1\n" * 9999, user="nobody") == (
        403,
        516,
    )


def test_a_connection_serves_many_requests(http_client: Http) -> None:
    parts = urlsplit(http_client.url())
    connection = http.client.HTTPConnection(parts.netloc)
    connection.connect()
    first = connection.sock
    for query in ("SELECT 1", "SELECT * FROM absent", "SELECT number FROM numbers(500000)"):
        connection.request("POST", "/", body=query)
        connection.getresponse().read()
        assert connection.sock is first
    connection.close()


def test_a_client_that_leaves_ends_its_query(http_client: Http) -> None:
    parts = urlsplit(http_client.url("SELECT number FROM numbers(3000000000000)"))
    connection = socket.create_connection((parts.hostname or "", parts.port or 0))
    request = f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    connection.sendall(request.encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    count = (
        "SELECT count() FROM system.processes WHERE query LIKE '%(3000000000000)%' "
        "AND query NOT LIKE '%processes%'"
    )
    assert http_client.text(count) == "1\n"
    connection.close()
    deadline = time.monotonic() + 60
    while http_client.text(count) != "0\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /?buffer_size=x HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"POST /?session_id=a&session_timeout=x HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_garbage_ends_that_connection_alone(http_client: Http, garbage: bytes) -> None:
    parts = urlsplit(http_client.url())
    with socket.create_connection(
        (parts.hostname or "", parts.port or 0), timeout=60
    ) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert http_client.text("SELECT 1") == "1\n"
