"""The fault proxy of the tests breaks what it is told to break, and passes everything else."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import urllib3

from dev.servers.fault_proxy import (
    Fault,
    FaultProxy,
    Gate,
    after,
    answers,
    cut_answer,
    cut_request,
    end_with,
    flip_request,
    lose_answer,
    passed,
    since,
    stall_answer,
    without,
)
from dev.servers.loopback import Exchange, LoopbackServer, Request

MEGABYTE = 1024 * 1024
AMPLE = 60  # seconds
SOON = 1
POLL_SECONDS = 0.01
BROKEN = urllib3.exceptions.ProtocolError


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=AMPLE) as pool:
        yield pool


class Target(LoopbackServer):
    """Answers with what it was sent, ten times; a HEAD and what begins with /length have one."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    def answer(self, exchange: Exchange) -> None:
        content = b"".join(exchange.body())
        self.bodies.append(content)
        if exchange.request.method == "HEAD" or exchange.request.target.startswith("/length"):
            exchange.answer(201, content * 10, {"X-Tag": "a"})
            return
        exchange.send_head(201, {"X-Tag": "a", "Transfer-Encoding": "chunked"})
        exchange.send_all([content] * 10)
        exchange.end()


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as running:
        yield running


@pytest.fixture
def proxy(target: Target) -> Iterator[FaultProxy]:
    with FaultProxy(target.address) as running:
        yield running


def every(_request: Request) -> bool:
    return True


@pytest.mark.parametrize("path", ["/length?x=1", "/chunks"])
@pytest.mark.parametrize("chunked", [True, False])
def test_what_has_no_rule_passes_unchanged(
    target: Target, proxy: FaultProxy, client: urllib3.PoolManager, path: str, *, chunked: bool
) -> None:
    content = b"0123456789" * 20_000
    answer = client.request("POST", proxy.url + path, body=content, chunked=chunked)
    assert (answer.status, answer.data, answer.headers["X-Tag"]) == (201, content * 10, "a")
    assert ("Content-Length" in answer.headers) == path.startswith("/length")
    assert client.request("HEAD", proxy.url + path).status == 201
    assert client.request("PUT", proxy.url + path, headers={"Expect": "100-continue"}).status == 201
    assert target.bodies == [content, b"", b""]
    assert [(request.method, request.target) for request in target.requests] == [
        (method, path) for method in ("POST", "HEAD", "PUT")
    ]


@pytest.mark.parametrize("path", ["/length", "/chunks"])
@pytest.mark.parametrize(
    ("fault", "error", "reached"),
    [
        (cut_request(after=0), BROKEN, False),
        (cut_request(after=70_000), BROKEN, False),
        (lose_answer(), BROKEN, True),
        (cut_answer(after=0), BROKEN, True),
        (cut_answer(after=1_500_000), BROKEN, True),
        (end_with(b"sorry", after=10, cut=True), BROKEN, True),
        (stall_answer(after=10), urllib3.exceptions.ReadTimeoutError, True),
    ],
)
def test_a_fault_breaks_one_answer(  # noqa: PLR0917 (fixtures and parameters)
    target: Target,
    proxy: FaultProxy,
    client: urllib3.PoolManager,
    path: str,
    fault: Fault,
    error: type[Exception],
    reached: bool,
) -> None:
    content = b"0123456789" * 20_000
    proxy.fail(fault, every, times=1)
    timeout = SOON if error is not BROKEN else AMPLE
    with pytest.raises((error, ConnectionError)):
        client.request("POST", proxy.url + path, body=content, timeout=timeout)
    assert target.bodies == ([content] if reached else [])
    assert client.request("POST", proxy.url + path, body=content).data == content * 10


def test_an_answer_can_end_in_good_order_with_other_words(
    proxy: FaultProxy, client: urllib3.PoolManager
) -> None:
    proxy.fail(without("X-Tag", end_with(b" sorry", after=12)), every, times=1)
    answer = client.request("POST", f"{proxy.url}/chunks", body=b"0123456789")
    assert (answer.data, "X-Tag" in answer.headers) == (b"012345678901 sorry", False)


def test_a_bit_of_a_request_is_changed(
    client: urllib3.PoolManager, proxy: FaultProxy, target: Target
) -> None:
    proxy.fail(flip_request(0.5), lambda _request: True, times=1)
    for _ in range(2):
        assert client.request("PUT", proxy.url, body=b"abcd").status == 201
    assert target.bodies == [b"abbd", b"abcd"]


def test_the_proxy_can_answer_itself(
    target: Target, proxy: FaultProxy, client: urllib3.PoolManager
) -> None:
    proxy.fail(answers(403, b"no"), every)
    answer = client.request("PUT", proxy.url, body=b"x" * MEGABYTE)
    assert (answer.status, answer.data, target.requests) == (403, b"no", [])
    proxy.heal()
    assert client.request("PUT", proxy.url, body=b"x").status == 201


@pytest.mark.parametrize(
    ("condition", "codes"),
    [
        (lambda request: request.method == "PUT", [201, 500, 201, 500]),
        (since(lambda request: request.method == "PUT"), [201, 500, 500, 500]),
        (after(1, lambda request: request.method == "PUT"), [201, 201, 201, 500]),
    ],
)
def test_a_rule_is_for_the_requests_that_fulfil_its_condition(
    proxy: FaultProxy,
    client: urllib3.PoolManager,
    condition: Callable[[Request], bool],
    codes: list[int],
) -> None:
    proxy.fail(answers(500), condition)
    methods = ("GET", "PUT", "GET", "PUT")
    assert [client.request(method, proxy.url).status for method in methods] == codes


@pytest.mark.parametrize(("then", "code"), [(passed, 201), (answers(503), 503)])
def test_a_gate_holds_requests_back_until_it_is_opened(
    target: Target, proxy: FaultProxy, client: urllib3.PoolManager, then: Fault, code: int
) -> None:
    gate = Gate()
    proxy.fail(gate, every)
    answered: list[int] = []
    asking = threading.Thread(
        target=lambda: answered.append(client.request("GET", proxy.url).status)
    )
    asking.start()
    assert gate.reached.wait(AMPLE)
    assert (target.requests, answered) == ([], [])
    gate.open(then)
    asking.join()
    assert answered == [code]


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    ids=["length", "chunks"],
)
def test_a_client_that_leaves_in_the_middle_of_a_body_keeps_nobody_waiting(
    target: Target, head: bytes
) -> None:
    with FaultProxy(target.address) as proxy:  # which waits for its threads at the end
        address = urlsplit(proxy.url)
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(b"PUT /length HTTP/1.1\r\nHost: x\r\n" + head)
            end = time.monotonic() + AMPLE
            while not target.requests:
                assert time.monotonic() < end
                time.sleep(POLL_SECONDS)
    assert target.bodies == []
