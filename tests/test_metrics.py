"""Metrics arrive as statsd expects them, and never fail or slow down a job."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dev.servers.statsd import StatsdListener
from ooni_common.metrics import CLOSING_SECONDS, Metrics

AMPLE = 60  # seconds; far more than what is measured takes, for a machine under load


@pytest.fixture
def statsd() -> Iterator[StatsdListener]:
    with StatsdListener() as listener:
        yield listener


@pytest.fixture
def metrics(statsd: StatsdListener) -> Metrics:
    return Metrics("tool", statsd.address)


def flush(metrics: Metrics) -> None:
    """Wait until all is sent, also where a loaded machine needs more than `close` waits."""
    metrics.close()
    metrics._thread.join(AMPLE)
    assert not metrics._thread.is_alive()


def send_some(metrics: Metrics) -> None:
    metrics.gauge("rows", 25_000)
    metrics.count("checkfail")
    with metrics.timer("run"):
        pass
    metrics.close()


def seconds(action: Callable[[], None]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def test_gauges_and_counters_arrive_in_order_under_the_prefix(
    statsd: StatsdListener, metrics: Metrics
) -> None:
    metrics.gauge("status", 1)
    metrics.count("checkfail")
    metrics.count("updated", 3)
    metrics.gauge("ratio", 0.25)
    metrics.gauge("status", 0)
    flush(metrics)
    assert statsd.received() == [
        "tool.status:1|g",
        "tool.checkfail:1|c",
        "tool.updated:3|c",
        "tool.ratio:0.25|g",
        "tool.status:0|g",
    ]


def test_a_timer_is_in_milliseconds(statsd: StatsdListener, metrics: Metrics) -> None:
    with metrics.timer("fetch"):
        time.sleep(0.05)
    flush(metrics)
    [(value, kind)] = statsd.metrics()["tool.fetch"]
    assert kind == "ms"
    assert 50 <= value < AMPLE * 1000


def test_a_timer_is_sent_also_when_its_block_fails(
    statsd: StatsdListener, metrics: Metrics
) -> None:
    with pytest.raises(ZeroDivisionError), metrics.timer("fetch"):
        _ = 1 / 0
    flush(metrics)
    assert len(statsd.metrics()["tool.fetch"]) == 1


def test_what_was_sent_before_the_end_of_the_job_arrives_without_waiting(
    statsd: StatsdListener, metrics: Metrics
) -> None:
    metrics.gauge("status", 1)
    assert statsd.wait_for("tool.status", AMPLE) == [(1, "g")]
    flush(metrics)


def test_ipv6_addresses_are_sent_to() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
        listener.settimeout(AMPLE)
        metrics = Metrics("tool", f"[::1]:{listener.getsockname()[1]}")
        metrics.gauge("rows", 5)
        flush(metrics)
        assert listener.recv(100) == b"tool.rows:5|g"


def test_a_name_that_statsd_cannot_carry_is_dropped_and_the_rest_is_sent(
    statsd: StatsdListener, metrics: Metrics
) -> None:
    metrics.gauge("table_größe", 1)
    metrics.gauge("rows", 5)
    flush(metrics)
    assert statsd.received() == ["tool.rows:5|g"]


def test_with_an_empty_address_nothing_is_started_or_sent() -> None:
    before = threading.active_count()
    metrics = Metrics("tool", "")
    send_some(metrics)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",  # nobody listens
        "no-such-host.invalid:8125",
        f"{'x' * 64}.example:8125",
        "127.0.0.1:99999",
        "[::1]:1",
        "[::zz]:8125",
    ],
)
def test_an_address_that_nobody_has_or_serves_does_not_fail_the_job(address: str) -> None:
    metrics = Metrics("tool", address)
    for _ in range(3):  # the system reports that nobody listens with the second datagram
        metrics.gauge("rows", 1)
    send_some(metrics)


def test_a_daemon_that_reads_nothing_costs_no_time() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # soon full
        daemon.bind(("127.0.0.1", 0))
        metrics = Metrics("tool", f"127.0.0.1:{daemon.getsockname()[1]}")

        def send_many() -> None:
            for number in range(1000):
                metrics.gauge("rows", number)
            flush(metrics)

        assert seconds(send_many) < AMPLE


def test_a_name_server_that_does_not_answer_costs_no_more_than_the_closing_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()

    def hang(*_arguments: object) -> list[object]:
        answer.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    metrics = Metrics("tool", "statsd.example.org:8125")

    def send_many() -> None:
        for number in range(1000):
            metrics.gauge("rows", number)

    thread = metrics._thread
    try:
        assert seconds(send_many) < AMPLE
        assert CLOSING_SECONDS <= seconds(metrics.close) < AMPLE
        assert thread.is_alive()
        assert thread.daemon, "it would hold up the end of the process"
    finally:
        answer.set()
        thread.join()
