"""Receive statsd metrics over UDP, in a thread of this process.

with StatsdListener() as statsd:
run_a_script(statsd=statsd.address)
statsd.metrics()["rows"]  # [(25000.0, "g")]
"""

import socket
import threading
import time
from typing import Self

DATAGRAM_BYTES = 65_536
BUFFER_BYTES = 4 * 1024 * 1024
MARKER = b"\0read up to here "
AMPLE_SECONDS = 60
REPEAT_SECONDS = 0.5

Metrics = dict[str, list[tuple[float, str]]]


class StatsdListener:
    """Collects what statsd clients send to a port of 127.0.0.1.

    What a client has sent before a method is called is in the method's answer: nobody needs to
    wait for the thread.

    Args:
        port: UDP port; 0 takes a free one.
    """

    def __init__(self, *, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._socket.bind(("127.0.0.1", port))
        self._name: tuple[str, int] = self._socket.getsockname()
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._markers_sent = 0
        self._markers_seen = 0
        self._running = False
        self._thread = threading.Thread(target=self._receive, name="statsd-listener")

    def __enter__(self) -> Self:
        self._running = True
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._settle()
        with self._changed:
            self._running = False
        self._socket.sendto(MARKER, self._name)
        self._thread.join()
        self._socket.close()

    @property
    def address(self) -> str:
        """The address to send to, "127.0.0.1:PORT"."""
        return f"{self._name[0]}:{self._name[1]}"

    def received(self) -> list[str]:
        """Give the lines as they came, for example "update.rows:25000|g"."""
        self._settle()
        with self._changed:
            return list(self._lines)

    def metrics(self) -> Metrics:
        """Give the values and types ("c", "g", "ms", …) by metric, in the order they came in.

        Lines that aren't statsd are left out; timers are in milliseconds, as statsd has them.
        """
        metrics: Metrics = {}
        for line in self.received():
            if parsed := _parse(line):
                name, value, kind = parsed
                metrics.setdefault(name, []).append((value, kind))
        return metrics

    def wait_for(self, name: str, timeout: float = AMPLE_SECONDS) -> list[tuple[float, str]]:
        """Wait until a metric has come in, and give its values and types.

        Args:
            name: The metric, with its prefix.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: It has not come in.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._has(name), timeout):
                raise TimeoutError(f"no metric {name} after {timeout} s")
        return self.metrics()[name]

    def clear(self) -> None:
        """Forget what was received."""
        self._settle()
        with self._changed:
            self._lines.clear()

    def _has(self, name: str) -> bool:
        return any((parsed := _parse(line)) and parsed[0] == name for line in self._lines)

    def _receive(self) -> None:
        while True:
            data = self._socket.recv(DATAGRAM_BYTES)
            with self._changed:
                if data.startswith(MARKER):
                    self._markers_seen += 1
                else:
                    self._lines += data.decode(errors="replace").splitlines()
                self._changed.notify_all()
                if not self._running:
                    return

    def _settle(self) -> None:
        """Wait until the thread has read what is in the socket's buffer now.

        A datagram sent to oneself comes after all that others have sent before. Where the buffer
        is full the datagram is lost, hence the repetition.
        """
        with self._changed:
            if not self._running:
                return
            number = self._markers_sent + 1
            end = time.monotonic() + AMPLE_SECONDS
            while self._markers_seen < number and time.monotonic() < end:
                self._markers_sent += 1
                self._socket.sendto(MARKER, self._name)
                self._changed.wait_for(lambda: self._markers_seen >= number, REPEAT_SECONDS)


def _parse(line: str) -> tuple[str, float, str] | None:
    """Parse "name:value|type" and, with a sample rate or tags after it, the same."""
    name, colon, rest = line.partition(":")
    value, _, kind = rest.partition("|")
    try:
        return (name, float(value), kind.partition("|")[0]) if colon and kind else None
    except ValueError:
        return None
