"""The TCP proxy that goes wrong after so many bytes."""

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from dev.servers.tcp_proxy import TcpProxy, calling, cut, flip, stall

AMPLE = 60  # seconds


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1000):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        with TcpProxy(lambda: int(server.server_address[1])) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


@pytest.fixture
def client(proxy: TcpProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), AMPLE) as client:
        yield client


def echoed(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(1000)


def test_what_is_not_disturbed_passes_and_is_counted(
    proxy: TcpProxy, client: socket.socket
) -> None:
    assert echoed(client, b"hello") == b"hello"
    assert (proxy.passed(answers=False), proxy.passed(answers=True)) == (5, 5)


def test_a_connection_is_cut_after_so_many_bytes(proxy: TcpProxy, client: socket.socket) -> None:
    proxy.fail(cut, after=5, answers=False)
    assert echoed(client, b"hello") == b"hello"
    assert echoed(client, b"again") == b""


def test_a_bit_is_flipped_once(proxy: TcpProxy, client: socket.socket) -> None:
    proxy.fail(flip, after=0, answers=True)
    assert echoed(client, b"hello") == b"hemlo"
    assert echoed(client, b"hello") == b"hello"


def test_a_fault_waits_for_its_piece(proxy: TcpProxy, client: socket.socket) -> None:
    proxy.fail(flip, after=0, answers=False, when=lambda data: b"rows" in data)
    assert echoed(client, b"SELECT") == b"SELECT"
    assert echoed(client, b"rows!") == b"rovs!"
    assert echoed(client, b"rows!") == b"rows!"


def test_what_stalls_goes_on_when_it_is_healed(proxy: TcpProxy, client: socket.socket) -> None:
    reached = threading.Event()

    def stall_noticeably(proxy: TcpProxy, data: bytes) -> bytes:
        reached.set()
        return stall(proxy, data)

    proxy.fail(stall_noticeably, after=0, answers=True)
    client.sendall(b"hello")
    assert reached.wait(AMPLE)
    client.settimeout(0)
    with pytest.raises(BlockingIOError):
        client.recv(1000)
    client.settimeout(AMPLE)
    proxy.heal()
    assert client.recv(1000) == b"hello"


def test_something_else_happens_at_a_byte(proxy: TcpProxy, client: socket.socket) -> None:
    called = threading.Event()
    proxy.fail(calling(called.set), after=3, answers=False)
    assert echoed(client, b"hello") == b"hello"
    assert called.is_set()


def test_without_a_server_the_connection_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = int(unused.getsockname()[1])
    with (
        TcpProxy(lambda: port) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), AMPLE) as client,
    ):
        assert client.recv(10) == b""
