"""The HTTP server and the statsd listener of the tests do what the tests rely on."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import statsd
import urllib3

from dev.servers.misbehaving import (
    Behaviour,
    Certificate,
    MisbehavingServer,
    body,
    cut,
    drip,
    gzip_bomb,
    gzipped,
    needs_user_agent,
    raw,
    redirect,
    sequence,
    short_body,
    silence,
    stall,
    status,
    truncated_gzip,
    undeclared_body,
    unfinished_chunks,
    zeros,
)
from dev.servers.statsd import StatsdListener

MEGABYTE = 1024 * 1024
CHANGED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=5) as pool:
        yield pool


@contextmanager
def no_thread_left_after() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


# --- HTTP ---


def test_an_unchanged_etag_is_answered_with_304(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    url = server.route("/x", body(b"data", etag='"v1"'))
    first = client.request("GET", url)
    again = client.request("GET", url, headers={"If-None-Match": first.headers["ETag"]})
    other = client.request("GET", url, headers={"If-None-Match": '"v0"'})
    assert [(r.status, r.data) for r in (first, again, other)] == [
        (200, b"data"),
        (304, b""),
        (200, b"data"),
    ]


def test_an_unchanged_date_is_answered_with_304(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    url = server.route("/x", body(b"data", last_modified=CHANGED))
    date = client.request("GET", url).headers["Last-Modified"]
    assert date == "Fri, 02 Jan 2026 03:04:05 GMT"
    assert client.request("GET", url, headers={"If-Modified-Since": date}).status == 304
    before = {"If-Modified-Since": "Fri, 02 Jan 2026 03:04:04 GMT"}
    assert client.request("GET", url, headers=before).status == 200


def test_an_etag_counts_more_than_a_date(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    url = server.route("/x", body(b"data", etag='"v2"', last_modified=CHANGED))
    headers = {"If-None-Match": '"v1"', "If-Modified-Since": "Fri, 02 Jan 2026 03:04:05 GMT"}
    assert client.request("GET", url, headers=headers).status == 200


def test_a_sequence_ends_in_its_last_behaviour(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    url = server.route(
        "/x", sequence(status(500), status(429, headers={"Retry-After": "1"}), body(b"data"))
    )
    answers = [client.request("GET", url) for _ in range(4)]
    assert [answer.status for answer in answers] == [500, 429, 200, 200]
    assert answers[1].headers["Retry-After"] == "1"


def test_urllib3_retries_until_the_sequence_succeeds(server: MisbehavingServer) -> None:
    url = server.route("/x", sequence(status(503), cut(), body(b"data")))
    retries = urllib3.Retry(3, status_forcelist=[503], backoff_factor=0)
    with urllib3.PoolManager(retries=retries) as pool:
        assert pool.request("GET", url).data == b"data"
    assert len(server.requests) == 3


def test_a_request_without_user_agent_is_refused(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    url = server.route("/x", needs_user_agent(body(b"data"), text="ooni"))
    agents = ["ooni-test/1", "python", urllib3.util.SKIP_HEADER]
    answers = [client.request("GET", url, headers={"User-Agent": agent}) for agent in agents]
    assert [answer.status for answer in answers] == [200, 403, 403]


def test_requests_are_logged_with_their_headers(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    client.request("GET", server.url("/nowhere?q=1"), headers={"X-One": "two"})
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/nowhere?q=1")
    assert request.headers["x-one"] == "two"
    server.clear()
    assert server.requests == []


def test_an_unrouted_path_is_answered_with_404(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    assert client.request("GET", server.url("/nowhere")).status == 404


def test_a_head_request_gets_the_headers_alone(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    url = server.route("/x", body(b"data"))
    answer = client.request("HEAD", url)
    assert (answer.headers["Content-Length"], answer.data) == ("4", b"")
    assert client.request("GET", url).data == b"data"


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (short_body(b"data", declared=100), urllib3.exceptions.ProtocolError),
        (unfinished_chunks(b"data"), urllib3.exceptions.ProtocolError),
        (cut(), urllib3.exceptions.ProtocolError),
        (cut(reset=True), urllib3.exceptions.ProtocolError),
        (raw(b"not HTTP at all\r\n\r\n"), urllib3.exceptions.ProtocolError),
    ],
    ids=["short body", "unfinished chunks", "cut", "reset", "no HTTP"],
)
def test_a_broken_answer_is_an_error_for_the_client(
    server: MisbehavingServer,
    client: urllib3.PoolManager,
    behaviour: Behaviour,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        client.request("GET", server.route("/x", behaviour))


def test_a_cut_with_reset_is_a_tcp_reset(server: MisbehavingServer) -> None:
    server.route("/x", cut(reset=True))
    port = int(server.url("").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_an_undeclared_body_ends_with_the_connection(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    assert client.request("GET", server.route("/x", undeclared_body(b"data"))).data == b"data"


def test_a_gzipped_body_is_decoded_by_the_client(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    answer = client.request("GET", server.route("/x", gzipped(b"data")))
    assert (answer.headers["Content-Encoding"], answer.data) == ("gzip", b"data")


def test_a_truncated_gzip_body_lacks_its_end(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    url = server.route("/x", truncated_gzip(b"data"))
    data = client.request("GET", url, decode_content=False).data
    with pytest.raises(EOFError):
        gzip.decompress(data)


@pytest.mark.parametrize("megabytes", [0, 1, 5])
def test_a_gzip_bomb_is_valid_and_a_thousand_times_smaller_than_its_content(
    server: MisbehavingServer, client: urllib3.PoolManager, megabytes: int
) -> None:
    url = server.route("/x", gzip_bomb(megabytes))
    data = client.request("GET", url, decode_content=False).data
    assert len(data) < 1200 * megabytes + 100
    assert gzip.decompress(data) == bytes(megabytes * MEGABYTE)


def test_a_client_can_leave_a_gzip_bomb_early(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    url = server.route("/x", gzip_bomb(1_000_000))
    answer = client.request("GET", url, preload_content=False)
    assert answer.read(10, decode_content=False)
    answer.close()
    # The connection is not kept: the fixture's end would wait for the rest of the bomb.
    assert client.request("GET", server.url("/nowhere")).status == 404


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_has_its_size(
    server: MisbehavingServer, client: urllib3.PoolManager, *, declared: bool
) -> None:
    url = server.route("/x", zeros(3 * MEGABYTE + 5, declared=declared))
    answer = client.request("GET", url)
    assert len(answer.data) == 3 * MEGABYTE + 5
    assert ("Content-Length" in answer.headers) == declared


def test_a_redirect_leads_to_another_path(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    server.route("/to", body(b"data"))
    url = server.route("/from", redirect("/to"))
    with urllib3.PoolManager() as following:
        assert following.request("GET", url).data == b"data"


def test_a_redirect_to_itself_is_a_loop(server: MisbehavingServer) -> None:
    url = server.route("/x", redirect("/x"))
    with urllib3.PoolManager() as following, pytest.raises(urllib3.exceptions.MaxRetryError):
        following.request("GET", url, retries=urllib3.Retry(redirect=3))
    assert len(server.requests) == 4


def test_a_stalled_body_times_out(server: MisbehavingServer, client: urllib3.PoolManager) -> None:
    url = server.route("/x", stall(b"data" * 100, after=10))
    answer = client.request("GET", url, preload_content=False, timeout=0.2)
    assert answer.read1(10) == b"datadatada"
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        answer.read()


def test_silence_times_out(server: MisbehavingServer, client: urllib3.PoolManager) -> None:
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        client.request("GET", server.route("/x", silence()), timeout=0.2)


def test_a_dripping_body_arrives_slowly_and_whole(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    start = time.monotonic()
    assert client.request("GET", server.route("/x", drip(b"data", interval=0.05))).data == b"data"
    assert time.monotonic() - start >= 0.15


def test_the_server_stops_while_clients_wait(client: urllib3.PoolManager) -> None:
    with no_thread_left_after(), MisbehavingServer() as server:
        for behaviour in (silence(), stall(b"data", after=2), drip(b"d" * 1000, interval=10)):
            with pytest.raises(urllib3.exceptions.ReadTimeoutError):
                client.request("GET", server.route("/x", behaviour), timeout=0.1)
        client.request("GET", server.url("/kept-alive"))
        start = time.monotonic()
    assert time.monotonic() - start < 1


def test_a_certificate_of_the_private_ca_is_trusted_with_its_file() -> None:
    with (
        MisbehavingServer(tls="private-ca") as server,
        urllib3.PoolManager(ca_certs=str(server.ca_file), retries=False) as trusting,
        urllib3.PoolManager(retries=False) as untrusting,
    ):
        url = server.route("/x", body(b"data"))
        assert url.startswith("https://127.0.0.1:")
        assert trusting.request("GET", url).data == b"data"
        assert trusting.request("GET", url).data == b"data"
        with pytest.raises(urllib3.exceptions.SSLError, match="verify failed"):
            untrusting.request("GET", url)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("self-signed", "self-signed|self signed"),
        ("expired", "expired"),
        ("wrong-host", "mismatch"),
    ],
)
def test_a_bad_certificate_is_refused_for_its_own_reason(kind: Certificate, reason: str) -> None:
    with (
        MisbehavingServer(tls=kind) as server,
        urllib3.PoolManager(ca_certs=str(server.ca_file), retries=False) as pool,
        pytest.raises(urllib3.exceptions.SSLError, match=reason),
    ):
        pool.request("GET", server.route("/x", body(b"data")))


def test_a_tls_server_stops_while_a_client_has_not_shaken_hands() -> None:
    with no_thread_left_after(), MisbehavingServer(tls="private-ca") as server:
        port = int(server.url("").rpartition(":")[2])
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        time.sleep(0.1)
    connection.close()


# --- statsd ---


def test_the_listener_has_what_a_client_has_sent() -> None:
    with StatsdListener() as listener:
        host, _, port = listener.address.partition(":")
        client = statsd.StatsClient(host, int(port), prefix="tool")
        client.gauge("rows", 25_000)
        client.incr("runs")
        client.timing("run", 12.5)
        client.gauge("rows", 3)
        client.close()
        assert listener.received()[0] == "tool.rows:25000|g"
        assert listener.metrics() == {
            "tool.rows": [(25_000, "g"), (3, "g")],
            "tool.runs": [(1, "c")],
            "tool.run": [(12.5, "ms")],
        }


def test_the_listener_splits_datagrams_and_leaves_out_what_is_no_statsd() -> None:
    with StatsdListener() as listener:
        send(listener, b"a:1|c|@0.5|#tag:x\nb:2|ms\nnonsense\nc:x|g\n")
        assert listener.metrics() == {"a": [(1, "c")], "b": [(2, "ms")]}
        assert "nonsense" in listener.received()


def test_waiting_for_a_metric_ends_when_it_comes() -> None:
    with StatsdListener() as listener:
        later = threading.Timer(0.1, send, (listener, b"a:1|g"))
        later.start()
        assert listener.wait_for("a", timeout=5) == [(1, "g")]
        later.join()


def test_waiting_for_a_metric_that_does_not_come_is_an_error() -> None:
    with StatsdListener() as listener, pytest.raises(TimeoutError, match="no metric a"):
        listener.wait_for("a", timeout=0.05)


def test_the_metrics_can_be_read_after_the_end() -> None:
    with no_thread_left_after(), StatsdListener() as listener:
        for number in range(100):
            send(listener, b"a:%d|g" % number)
    assert len(listener.metrics()["a"]) == 100


def test_a_cleared_listener_has_nothing() -> None:
    with StatsdListener() as listener:
        send(listener, b"a:1|g")
        listener.clear()
        assert listener.received() == []


def send(listener: StatsdListener, data: bytes) -> None:
    host, _, port = listener.address.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, (host, int(port)))
