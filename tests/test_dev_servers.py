"""The servers of the tests break what they are told to break, and remember what a test asks for."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import statsd
import urllib3

from dev.servers.loopback import LoopbackServer
from dev.servers.misbehaving import (
    Behaviour,
    Certificate,
    MisbehavingServer,
    body,
    cut,
    drip,
    gzip_bomb,
    raw,
    sequence,
    short_body,
    silence,
    stall,
    unfinished_chunks,
    zeros,
)
from dev.servers.statsd import StatsdListener
from dev.servers.upstream import SampleUpstream

MEGABYTE = 1024 * 1024
CHANGED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AMPLE = 60  # seconds
SOON = 0.2
BROKEN = urllib3.exceptions.ProtocolError


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=AMPLE) as pool:
        yield pool


@contextmanager
def no_thread_left_after() -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= threads


def connected(server: LoopbackServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(server.address).port or 0), AMPLE)


# --- a server that misbehaves ---


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ({}, 200),
        ({"If-None-Match": '"v1"'}, 304),
        ({"If-None-Match": '"v0"'}, 200),
        ({"If-Modified-Since": "Fri, 02 Jan 2026 03:04:05 GMT"}, 304),
        ({"If-Modified-Since": "Fri, 02 Jan 2026 03:04:04 GMT"}, 200),
        (
            {
                "If-None-Match": '"v0"',
                "If-Modified-Since": "Fri, 02 Jan 2026 03:04:05 GMT",
            },
            200,
        ),
    ],
)
def test_only_what_is_unchanged_is_answered_with_304(
    server: MisbehavingServer, client: urllib3.PoolManager, condition: dict[str, str], code: int
) -> None:
    url = server.route("/x", body(b"data", etag='"v1"', last_modified=CHANGED))
    answer = client.request("GET", url, headers=condition)
    assert (answer.status, answer.data) == (code, b"data" if code == 200 else b"")
    assert [(request.status, request.sent) for request in server.requests] == [
        (code, len(answer.data))
    ]


@pytest.mark.parametrize(
    "behaviour",
    [
        short_body(b"data", declared=100),
        unfinished_chunks(b"data"),
        cut(),
        cut(reset=True),
        raw(b"not HTTP at all\r\n\r\n"),
    ],
    ids=["short body", "unfinished chunks", "cut", "reset", "no HTTP"],
)
def test_a_broken_answer_is_an_error_for_the_client(
    server: MisbehavingServer, client: urllib3.PoolManager, behaviour: Behaviour
) -> None:
    url = server.route("/x", sequence(behaviour, body(b"data")))
    with pytest.raises(BROKEN):
        client.request("GET", url)
    assert client.request("GET", url).data == b"data"


def test_a_cut_with_reset_is_a_tcp_reset(server: MisbehavingServer) -> None:
    server.route("/x", cut(reset=True))
    with connected(server) as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


@pytest.mark.parametrize("megabytes", [0, 5])
def test_a_gzip_bomb_is_valid_and_a_thousand_times_smaller_than_its_content(
    server: MisbehavingServer, client: urllib3.PoolManager, megabytes: int
) -> None:
    url = server.route("/x", gzip_bomb(megabytes))
    data = client.request("GET", url, decode_content=False).data
    assert len(data) < 1200 * megabytes + 100
    assert gzip.decompress(data) == bytes(megabytes * MEGABYTE)


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_has_its_size(
    server: MisbehavingServer, client: urllib3.PoolManager, *, declared: bool
) -> None:
    url = server.route("/x", zeros(3 * MEGABYTE + 5, declared=declared))
    answer = client.request("GET", url)
    assert len(answer.data) == 3 * MEGABYTE + 5
    assert ("Content-Length" in answer.headers) == declared


@pytest.mark.parametrize("behaviour", [silence(), stall(b"data", after=2)])
def test_what_hangs_times_out(
    server: MisbehavingServer, client: urllib3.PoolManager, behaviour: Behaviour
) -> None:
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        client.request("GET", server.route("/x", behaviour), timeout=SOON)


def test_a_dripping_body_arrives_slowly_and_whole(
    server: MisbehavingServer, client: urllib3.PoolManager
) -> None:
    start = time.monotonic()
    assert client.request("GET", server.route("/x", drip(b"data", interval=0.05))).data == b"data"
    assert time.monotonic() - start >= 0.15


def test_a_certificate_of_the_private_ca_is_trusted_with_its_file() -> None:
    with (
        MisbehavingServer(tls="private-ca") as server,
        urllib3.PoolManager(ca_certs=str(server.ca_file), retries=False) as trusting,
        urllib3.PoolManager(retries=False) as untrusting,
    ):
        url = server.route("/x", body(b"data"))
        assert url.startswith("https://127.0.0.1:")
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


@pytest.mark.parametrize("tls", [None, "private-ca"])
def test_a_server_stops_while_clients_wait(tls: Certificate | None) -> None:
    with (
        no_thread_left_after(),
        MisbehavingServer(tls=tls) as server,
        urllib3.PoolManager(
            ca_certs=str(server.ca_file) if tls else None, retries=False
        ) as trusting,
    ):
        for behaviour in (silence(), stall(b"data", after=2), drip(b"d" * 1000, interval=10)):
            with pytest.raises(urllib3.exceptions.ReadTimeoutError):
                trusting.request("GET", server.route("/x", behaviour), timeout=SOON)
        url = server.route("/x", gzip_bomb(1_000_000))
        bomb = trusting.request("GET", url, preload_content=False)
        trusting.request("GET", server.url("/kept-alive"))
        silent = connected(server)
        server.__exit__()
        silent.close()
        bomb.close()


# --- a sample upstream ---


def test_an_upstream_serves_the_files_as_they_are_now(
    tmp_path: Path, client: urllib3.PoolManager
) -> None:
    with SampleUpstream(tmp_path) as upstream:
        url = upstream.url("more/a b%.csv")
        assert client.request("GET", url).status == 404
        (tmp_path / "more").mkdir()
        etags = []
        for content in (b"a,b\r\n1,2\r\n", b"a,b\r\n1,3\r\n"):
            (tmp_path / "more" / "a b%.csv").write_bytes(content)
            answer = client.request("GET", f"{url}?query=1")
            assert (answer.status, answer.data) == (200, content)
            etags.append(answer.headers["ETag"])
        codes = [
            client.request("GET", url, headers={"If-None-Match": etag}).status for etag in etags
        ]
        assert codes == [200, 304]
        assert client.request("GET", upstream.url("more")).status == 404
        assert [(request.status, request.sent) for request in upstream.requests] == [
            (404, 0), (200, 10), (200, 10), (200, 10), (304, 0), (404, 0),
        ]  # fmt: skip


# --- statsd ---


def test_the_listener_has_what_was_sent_before_it_is_asked() -> None:
    with no_thread_left_after(), StatsdListener() as listener:
        host, _, port = listener.address.partition(":")
        client = statsd.StatsClient(host, int(port), prefix="tool")
        for number in range(100):
            client.gauge("rows", number)
        client.incr("runs")
        client.timing("run", 12.5)
        assert listener.received()[0] == "tool.rows:0|g"
        assert listener.metrics() == {
            "tool.rows": [(number, "g") for number in range(100)],
            "tool.runs": [(1, "c")],
            "tool.run": [(12.5, "ms")],
        }
        client.incr("late")
        client.close()
    assert listener.metrics()["tool.late"] == [(1, "c")]
