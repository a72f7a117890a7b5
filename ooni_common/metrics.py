"""Metrics, over statsd (UDP) and in a file, that can neither fail nor slow down a job."""

import contextlib
import enum
import queue
import threading
import time
from collections.abc import Callable, Iterator

from statsd import StatsClient

CLOSING_SECONDS = 0.5  # seconds that a job waits at its end for a name server that does not answer

Send = Callable[[StatsClient], None]


class MetricKind(enum.Enum):
    """A type of metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    TIMER = "timer"


Sent = tuple[MetricKind, str, float]  # one call: the name without prefix; a timer's value is in ms


class Metrics:
    """The metrics of one script, `<prefix>.<name>`.

    A thread of its own resolves the host name and sends, because a name server that does not answer
    would stop the job otherwise. What it could not send in time is dropped.

    Attributes:
        sent: every call, whether it has reached anybody or not.
    """

    def __init__(self, prefix: str, address: str) -> None:
        """Send to `address` (`host:port`; empty: to nobody)."""
        self.sent: list[Sent] = []
        self._prefix = prefix
        self._address = address
        self._queue: queue.SimpleQueue[Send | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="metrics", daemon=True)
        if address:
            self._thread.start()

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        self.sent.append((MetricKind.GAUGE, name, value))
        self._queue.put(lambda client: client.gauge(name, value))

    def count(self, name: str, value: int = 1) -> None:
        """Add to a counter."""
        self.sent.append((MetricKind.COUNTER, name, value))
        self._queue.put(lambda client: client.incr(name, value))

    @contextlib.contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Time the block, in milliseconds, also when it fails."""
        start = time.monotonic()
        try:
            yield
        finally:
            elapsed = (time.monotonic() - start) * 1000
            self.sent.append((MetricKind.TIMER, name, elapsed))
            self._queue.put(lambda client: client.timing(name, elapsed))

    def close(self) -> None:
        """Send what is queued; wait no longer than `CLOSING_SECONDS`."""
        self._queue.put(None)
        if self._address:
            self._thread.join(CLOSING_SECONDS)

    def _send_all(self) -> None:
        host, _, port = self._address.rpartition(":")
        host = host.strip("[]")
        try:
            client = StatsClient(host, int(port), prefix=self._prefix, ipv6=":" in host)
        except (OSError, UnicodeError, OverflowError):  # a host that has no address: nobody listens
            return
        while send := self._queue.get():
            with contextlib.suppress(UnicodeError):  # statsd knows only ASCII names
                send(client)
        client.close()
