"""The sample upstream serves files as a well-behaved server does, and remembers what was asked."""

import os
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from dev.servers.upstream import PIECE_BYTES, Request, SampleUpstream

CHANGED = 1_767_323_045.75
"""Unix time, seconds: 2026-01-02 03:04:05.75 GMT."""
CHANGED_TEXT = "Fri, 02 Jan 2026 03:04:05 GMT"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = tmp_path / "files"
    (files / "more").mkdir(parents=True)
    (files / "a.csv").write_bytes(b"a,b\r\n1,2\r\n")
    os.utime(files / "a.csv", (CHANGED, CHANGED))
    (files / "more" / "b c%.bin").write_bytes(b"\0\xff")
    (tmp_path / "outside").write_bytes(b"secret")
    return files


@pytest.fixture
def upstream(folder: Path) -> Iterator[SampleUpstream]:
    with SampleUpstream(folder) as running:
        yield running


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=5) as pool:
        yield pool


def raw_status(upstream: SampleUpstream, target: str) -> int:
    """Ask for a target that a client would normalise."""
    connection = HTTPConnection("127.0.0.1", urlsplit(upstream.url()).port, timeout=5)
    try:
        connection.request("GET", target)
        return connection.getresponse().status
    finally:
        connection.close()


# --- files ---


def test_a_file_is_served_as_it_is(upstream: SampleUpstream, client: urllib3.PoolManager) -> None:
    answer = client.request("GET", upstream.url("a.csv"))
    assert (answer.status, answer.data) == (200, b"a,b\r\n1,2\r\n")
    assert answer.headers["Content-Length"] == "10"
    assert answer.headers["Last-Modified"] == CHANGED_TEXT
    assert "Content-Encoding" not in answer.headers


def test_names_with_folders_and_special_characters_work(
    upstream: SampleUpstream, client: urllib3.PoolManager
) -> None:
    answer = client.request("GET", upstream.url("more/b c%.bin") + "?query=1")
    assert answer.data == b"\0\xff"


def test_the_head_has_the_headers_and_no_body(
    upstream: SampleUpstream, client: urllib3.PoolManager
) -> None:
    full = client.request("GET", upstream.url("a.csv"))
    head = client.request("HEAD", upstream.url("a.csv"))
    assert (head.status, head.data) == (200, b"")
    for name in ("Content-Length", "ETag", "Last-Modified"):
        assert head.headers[name] == full.headers[name]


@pytest.mark.parametrize("name", ["absent.csv", "more", "more/", "", "a.csv/b"])
def test_what_is_no_file_is_not_found(
    upstream: SampleUpstream, client: urllib3.PoolManager, name: str
) -> None:
    answer = client.request("GET", upstream.url(name))
    assert (answer.status, answer.data) == (404, b"")


@pytest.mark.parametrize(
    "target",
    ["/../outside", "/%2e%2e/outside", "/more/../../outside", "//outside", "/link", "/a.csv%00"],
)
def test_nothing_outside_the_folder_is_served(
    folder: Path, upstream: SampleUpstream, target: str
) -> None:
    (folder / "link").symlink_to(folder.parent / "outside")
    assert raw_status(upstream, target) == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(
    folder: Path, upstream: SampleUpstream, client: urllib3.PoolManager, method: str
) -> None:
    answer = client.request(method, upstream.url("a.csv"), body=b"new")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert (folder / "a.csv").read_bytes() == b"a,b\r\n1,2\r\n"
    assert client.request("GET", upstream.url("a.csv")).status == 200


def test_a_big_file_is_sent_in_pieces_and_whole(
    folder: Path, upstream: SampleUpstream, client: urllib3.PoolManager
) -> None:
    content = os.urandom(PIECE_BYTES) * 20 + b"end"
    (folder / "big").write_bytes(content)
    assert client.request("GET", upstream.url("big")).data == content
    assert upstream.requests == [Request("GET", "/big", 200, len(content))]


# --- conditional requests ---


def test_the_etag_is_strong_and_follows_the_content(
    folder: Path, upstream: SampleUpstream, client: urllib3.PoolManager
) -> None:
    def etag() -> str:
        return client.request("GET", upstream.url("a.csv")).headers["ETag"]

    first = etag()
    assert first.startswith('"')
    # As many bytes and the same time.
    (folder / "a.csv").write_bytes(b"a,b\r\n1,3\r\n")
    os.utime(folder / "a.csv", (CHANGED, CHANGED))
    assert etag() != first
    (folder / "a.csv").write_bytes(b"a,b\r\n1,2\r\n")
    assert etag() == first


@pytest.mark.parametrize("tags", ["{}", '"other", {}', "W/{}", "*"])
def test_a_known_etag_is_answered_with_304(
    upstream: SampleUpstream, client: urllib3.PoolManager, tags: str
) -> None:
    etag = client.request("GET", upstream.url("a.csv")).headers["ETag"]
    headers = {"If-None-Match": tags.format(etag)}
    answer = client.request("GET", upstream.url("a.csv"), headers=headers)
    assert (answer.status, answer.data, answer.headers["ETag"]) == (304, b"", etag)


@pytest.mark.parametrize(
    ("since", "status"),
    [
        (CHANGED_TEXT, 304),
        ("Fri, 02 Jan 2026 03:04:06 GMT", 304),
        ("Fri, 02 Jan 2026 03:04:04 GMT", 200),
        ("Fri, 02 Jan 2026 03:04:05 -0000", 304),
        ("yesterday", 200),
    ],
)
def test_files_are_sent_only_when_modified_since(
    upstream: SampleUpstream, client: urllib3.PoolManager, since: str, status: int
) -> None:
    headers = {"If-Modified-Since": since}
    answer = client.request("GET", upstream.url("a.csv"), headers=headers)
    assert answer.status == status


def test_an_unknown_etag_counts_more_than_the_date(
    upstream: SampleUpstream, client: urllib3.PoolManager
) -> None:
    headers = {"If-None-Match": '"other"', "If-Modified-Since": CHANGED_TEXT}
    answer = client.request("GET", upstream.url("a.csv"), headers=headers)
    assert answer.status == 200


# --- what it remembers ---


def test_requests_are_remembered_with_what_was_sent(
    upstream: SampleUpstream, client: urllib3.PoolManager
) -> None:
    etag = client.request("GET", upstream.url("a.csv")).headers["ETag"]
    client.request("GET", upstream.url("a.csv"), headers={"If-None-Match": etag})
    client.request("HEAD", upstream.url("a.csv"))
    client.request("GET", upstream.url("absent") + "?x=1")
    assert upstream.requests == [
        Request("GET", "/a.csv", 200, 10),
        Request("GET", "/a.csv", 304, 0),
        Request("HEAD", "/a.csv", 200, 0),
        Request("GET", "/absent?x=1", 404, 0),
    ]
    upstream.clear()
    assert upstream.requests == []


def test_a_client_that_goes_away_is_not_counted_as_served(
    folder: Path, upstream: SampleUpstream
) -> None:
    # Sparse, and more than the sockets' buffers hold.
    with (folder / "big").open("wb") as file:
        file.truncate(64 * 2**20)
    with urllib3.PoolManager(retries=False, timeout=5) as client:
        answer = client.request("GET", upstream.url("big"), preload_content=False)
        assert answer.read(1000) == bytes(1000)
        answer.close()
    assert upstream.requests[0].status == 200
    assert upstream.requests[0].sent < 64 * 2**20


def test_a_file_that_becomes_shorter_while_it_is_sent_breaks_the_answer(
    folder: Path, upstream: SampleUpstream, client: urllib3.PoolManager
) -> None:
    with (folder / "big").open("wb") as file:
        file.truncate(64 * 2**20)
    answer = client.request("GET", upstream.url("big"), preload_content=False)
    answer.read(1000)
    os.truncate(folder / "big", 0)
    with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"):
        answer.read()


def test_it_stops_at_once_and_leaves_no_thread_while_clients_are_connected(folder: Path) -> None:
    before = set(threading.enumerate())
    with urllib3.PoolManager(retries=False, timeout=5) as client:
        with (folder / "big").open("wb") as file:
            file.truncate(64 * 2**20)
        with SampleUpstream(folder) as upstream:
            client.request("GET", upstream.url("a.csv"))
            unread = client.request("GET", upstream.url("big"), preload_content=False)
            start = time.monotonic()
        assert time.monotonic() - start < 2
        assert set(threading.enumerate()) <= before
        unread.close()
