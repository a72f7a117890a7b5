"""SIGTERM and SIGINT as an exception of the main thread, whatever it waits for."""

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

from ooni_common.errors import Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
WAKE_SIGNAL = signal.SIGURG  # is ignored where nothing handles it
WAKE_EVERY = 0.05  # seconds
PATIENCE = 30.0  # seconds, for a block and once more for its clearing up; systemd kills after 90


class StopSignals:
    """Turns SIGTERM and SIGINT into `Stopped`; a second one ends the process at once."""

    def __init__(self) -> None:
        self._deferring = False
        self._impatient = False
        self._pending = ""

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals within the block."""
        handlers = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        try:
            with self._woken():
                yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold the signals back within the block, which must be short and not be left half done.

        A block still at work PATIENCE after the signal is left: a database or a disk hangs. What it
        does then is left after as long again. It must survive both, as it has to survive a kill.
        """
        outer, self._deferring = self._deferring, True
        try:
            yield
        finally:
            self._deferring = outer
        if self._pending and not outer:
            raise Stopped(self._pending)

    @contextlib.contextmanager
    def _woken(self) -> Iterator[None]:
        """Wake the main thread within the block until it has handled a signal that has come.

        Its handler runs when the main thread executes Python again. A signal that another thread
        received, or that came just before the main thread began to wait, ends no wait.
        """
        woken = signal.signal(WAKE_SIGNAL, self._handle_wake)
        received, sent = socket.socketpair()
        sent.settimeout(0)
        outer = signal.set_wakeup_fd(sent.fileno(), warn_on_full_buffer=False)
        over = threading.Event()
        waking = threading.Thread(
            target=self._wake, args=(received, over), name="signals", daemon=True
        )
        waking.start()
        try:
            yield
        finally:
            over.set()
            signal.set_wakeup_fd(outer)
            sent.close()
            waking.join()
            received.close()
            signal.signal(WAKE_SIGNAL, woken)

    def _wake(self, received: socket.socket, over: threading.Event) -> None:
        main = threading.main_thread().ident or 0
        while number := received.recv(1):
            if number[0] not in STOP_SIGNALS:
                continue
            while not self._pending and not over.wait(WAKE_EVERY):
                signal.pthread_kill(main, WAKE_SIGNAL)
            while not over.wait(PATIENCE):
                self._impatient = self._deferring
                while self._impatient and self._deferring and not over.wait(WAKE_EVERY):
                    signal.pthread_kill(main, WAKE_SIGNAL)

    def _handle_wake(self, _number: int, _frame: FrameType | None) -> None:
        if self._deferring and self._impatient:
            self._impatient = False
            raise Stopped(self._pending)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        for stop_signal in STOP_SIGNALS:
            signal.signal(stop_signal, signal.SIG_DFL)
        self._pending = signal.Signals(number).name
        if not self._deferring:
            raise Stopped(self._pending)
