"""Ends the queries of clients that cancel or go away while the engine works for them."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dev.embedded_clickhouse.blocks import WireReader

# A kill that comes before the engine has begun with the query finds nothing: it is repeated.
_REPEAT_SECONDS = 0.2
_CANCEL = b"\x03"


@dataclass
class Watch:
    """A query under watch.

    Attributes:
        mark: the session's mark.
        fired: the client wants no more of it.
    """

    connection: socket.socket
    mark: str
    fired: bool = False


class Watcher:
    """One thread that watches the sockets of all running queries.

    Args:
        kill: ends the query of the session with the given mark.
    """

    def __init__(self, kill: Callable[[str], None]) -> None:
        self._kill = kill
        self._epoll = select.epoll()
        self._watches: dict[int, Watch] = {}
        self._guard = threading.Lock()
        threading.Thread(target=self._loop, name="watcher", daemon=True).start()

    @contextlib.contextmanager
    def watch(
        self, connection: socket.socket, mark: str, reader: WireReader | None = None
    ) -> Iterator[Watch]:
        """Watch a client for as long as its query runs.

        Args:
            connection: the client's socket.
            mark: the session that runs the query.
            reader: the native protocol's, where a cancel may already wait; None for HTTP, where
                only the end of the connection counts.
        """
        watch = Watch(connection, mark, fired=reader is not None and reader.buffered[:1] == _CANCEL)
        events = select.EPOLLRDHUP | select.EPOLLONESHOT
        if reader is not None:
            events |= select.EPOLLIN
        number = connection.fileno()
        with self._guard:
            self._watches[number] = watch
            self._epoll.register(number, events)
        try:
            yield watch
        finally:
            # Under the guard: a kill must not reach the session's next query.
            with self._guard:
                del self._watches[number]
                self._epoll.unregister(number)

    def _loop(self) -> None:
        while True:
            numbers = [number for number, _ in self._epoll.poll(_REPEAT_SECONDS)]
            with self._guard:
                for number in numbers:
                    if number in self._watches:
                        self._watches[number].fired = True
                for watch in self._watches.values():
                    if watch.fired:
                        self._kill(watch.mark)
