"""The start and the end of a server's process."""

import os
import select
import signal
import socket
import sys
from abc import ABC, abstractmethod
from typing import NoReturn, Self

_PARENT_CHECK_SECONDS = 0.5


class Startable(ABC):
    """What a `with` starts, and stops at its end."""

    @abstractmethod
    def start(self) -> Self:
        """Start it."""

    @abstractmethod
    def stop(self) -> object:
        """End it; doing it twice is harmless."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()


def catch_signals() -> socket.socket:
    """Return a socket that becomes readable at a signal to stop.

    A handler would run in this thread alone, and a signal that goes to a thread of the engine does
    not wake it.
    """
    reader, writer = socket.socketpair()
    writer.settimeout(0)
    signal.set_wakeup_fd(writer.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reader


def wait_for_the_end(stop: socket.socket, parent: int = 0) -> None:
    """Return after a signal to stop, or when this parent (0 for any) is gone."""
    while not select.select([stop], [], [], _PARENT_CHECK_SECONDS)[0]:
        if parent and os.getppid() != parent:
            return


def leave(status: int) -> NoReturn:
    """Leave at once: the interpreter would wait for threads that are still in the engine."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
