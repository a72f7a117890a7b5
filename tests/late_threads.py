"""A plugin for pytest: threads begin late and sockets are late, now and then.

The servers that the tests run beside a tool have threads whose order holds on a quiet machine, and
breaks once in a hundred runs on a busy one. A test that counts on it fails with
`-p tests.late_threads` instead, in a few rounds.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LATE = 0.3  # seconds at most
OFTEN = 0.004  # of the calls of a socket
OFTEN_AT_BEGINNINGS = 0.5  # of a thread, and where a connection turns out to be over
PROCESSES = Path(__file__).parent / "late_processes"


def late(function: Callable[..., Any], often: float) -> Callable[..., Any]:
    """Return a function that waits now and then before it does the same."""

    def waiting(*arguments: Any, **options: Any) -> Any:
        if random.random() < often:
            time.sleep(random.uniform(0, LATE))
        return function(*arguments, **options)

    return waiting


def late_to_notice(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that waits now and then when it has received nothing any more."""

    def waiting(*arguments: Any, **options: Any) -> Any:
        received = function(*arguments, **options)
        if not received and random.random() < OFTEN_AT_BEGINNINGS:
            time.sleep(random.uniform(0, LATE))
        return received

    return waiting


def be_late() -> None:
    """Come between this process and its threads and sockets."""
    threading.Thread.run = late(threading.Thread.run, OFTEN_AT_BEGINNINGS)  # type: ignore[method-assign]
    for name in ("recv", "recv_into"):
        setattr(socket.socket, name, late_to_notice(getattr(socket.socket, name)))
    for name in ("accept", "close", "recv", "recv_into", "sendall", "shutdown"):
        setattr(socket.socket, name, late(getattr(socket.socket, name), OFTEN))


def pytest_configure() -> None:
    """Be late here, and in the processes that are started from here."""
    be_late()
    paths = [str(PROCESSES), str(PROCESSES.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
