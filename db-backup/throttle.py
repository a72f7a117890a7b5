"""Being kind to the database and the network, and showing progress to whoever waits."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TextIO

from backup_config import Config
from ooni_common.database import Database
from ooni_common.errors import TryAgainLater

log = logging.getLogger("ooni.db_backup")

POLL = 5  # seconds
LONGEST_REST = 300  # seconds
BAR = "{desc}: {percentage:3.0f} % of {total_fmt}{unit}{postfix}, {rate_fmt}, {remaining} left"
BAR_WITHOUT_TOTAL = "{desc}: {n_fmt}{unit}{postfix}, {rate_fmt}"
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Throttle:
    """Lets chunks begin only while no server is too busy, and rest in between.

    Several threads can share one. What they read counts as well: so more of them begin only while
    all that runs is less than the limit.

    Args:
        databases: gives the connections to the servers.
        config: has the limits.
        clock: gives seconds.
        sleep: waits for some.

    Attributes:
        asking: is held while these connections are asked, which one thread can do at a time.
    """

    def __init__(
        self,
        databases: Callable[[], Sequence[Database]],
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._databases = databases
        self._limit = config.max_running_queries
        self._longest = config.max_wait
        self._rest = config.rest
        self._clock = clock
        self._sleep = sleep
        self.asking = threading.Lock()
        self._one_waits = threading.Lock()
        self._own = self._ends = 0  # queries of ours that are at work, and that have ended
        self._own_ended = threading.Condition()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Wait as `wait` does; for as long as the block runs, a query of ours is at work."""
        with self._one_waits:
            self.wait()
            with self._own_ended:
                self._own += 1
        try:
            yield
        finally:
            with self._own_ended:
                self._own -= 1
                self._ends += 1
                self._own_ended.notify_all()

    def wait(self) -> None:
        """Wait until fewer queries run than the limit allows.

        Raises:
            TryAgainLater: that took too long, while none of them was ours.
        """
        started = self._clock()
        warned = False
        while True:
            own, ends = self._own, self._ends
            if (running := self._running()) < self._limit:
                return
            if own:  # of what was counted, some was ours
                self._wait_for_own(ends)
                started = self._clock()
                continue
            if self._clock() - started >= self._longest:
                raise TryAgainLater(
                    f"database: {running} queries have been running for {self._longest:g} s, and"
                    f" max_running_queries is {self._limit}"
                )
            if not warned:
                log.warning("waiting: %d queries are running on the server", running)
                warned = True
            self._sleep(min(POLL, max(self._longest, 0.1)))

    def _wait_for_own(self, ends: int) -> None:
        """Wait for a while, or until more queries of ours have ended than these."""
        with self._own_ended:
            self._own_ended.wait_for(lambda: self._ends != ends, POLL)

    def rest(self, duration: float) -> None:
        """Rest in proportion to the time, in seconds, that a chunk took."""
        self.sleep(self.rest_after(duration))

    def rest_after(self, duration: float) -> float:
        """Return how long whoever has read a chunk for so many seconds rests after it."""
        return min(self._rest * duration, LONGEST_REST)

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        self._sleep(seconds)

    def _running(self) -> int:
        """Count the queries of others, on the server that has most."""
        sql = "SELECT count() FROM system.processes WHERE query_id != queryID()"
        with self.asking:
            return max(int(database.query(sql)[0][0]) for database in self._databases())


class Bandwidth:
    """Keeps what goes over the network below a limit, however many threads send or read it.

    Args:
        limit: bytes per second; 0 for none.
    """

    def __init__(
        self,
        limit: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._sleep = sleep
        self._due = clock()
        self._lock = threading.Lock()

    def spend(self, size: int) -> None:
        """Wait until so many bytes may follow those before."""
        if not self._limit:
            return
        with self._lock:
            now = self._clock()
            due = self._due = max(self._due, now) + size / self._limit
        if due > now:
            self._sleep(due - now)


class Progress(Protocol):
    """The progress of one chunk."""

    def show(self, done: int, note: str = "") -> None:
        """Show how much is done by now."""


class Unseen:
    """Progress that nobody looks at."""

    def show(self, done: int, note: str = "") -> None:
        """Show nothing."""


class Together:
    """Shows the progress of several chunks, which threads of their own export, as one.

    Args:
        shown: of all of them.
        chunks: how many they are.
    """

    def __init__(self, shown: Progress, chunks: int) -> None:
        self._shown = shown
        self._chunks = chunks
        self._ended = self._rows = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def of_one(self) -> Iterator[Progress]:
        """Give what shows the progress of one chunk; one that fails has done nothing."""
        together, rows = self, 0

        class One:
            def show(self, done: int, note: str = "") -> None:
                nonlocal rows
                together.add(done - rows)
                rows = done

        try:
            yield One()
        except BaseException:
            self.add(-rows)
            raise
        self.add(0, ended=1)

    def add(self, rows: int, *, ended: int = 0) -> None:
        """Count more rows, and chunks that have ended."""
        with self._lock:
            self._rows += rows
            self._ended += ended
            self._shown.show(self._rows, f"{self._ended} of {self._chunks} chunks")


@contextlib.contextmanager
def progress(
    name: str, total: int, unit: str, stream: TextIO | None = sys.stderr
) -> Iterator[Progress]:
    """Show the progress of a chunk while the block runs, if somebody sits there.

    Args:
        name: of the chunk.
        total: what will be done; 0: nobody knows.
        unit: of that: "rows" or "B".
        stream: shows it, if it is a terminal; None: it was closed.
    """
    if stream is None or not stream.isatty():
        yield Unseen()
        return
    from tqdm import tqdm  # noqa: PLC0415 (a service has no use for it)
    from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415

    tqdm.set_lock(threading.RLock())  # its own is for processes, and needs a file in /dev/shm
    with (
        logging_redirect_tqdm(),
        tqdm(
            desc=name,
            total=total or None,
            file=stream,
            leave=False,
            unit=unit if unit == "B" else f" {unit}",
            unit_scale=True,
            bar_format=BAR if total else BAR_WITHOUT_TOTAL,
            dynamic_ncols=True,
        ) as bar,
    ):

        class Bar:
            def show(self, done: int, note: str = "") -> None:
                bar.set_postfix_str(note, refresh=False)
                bar.update(done - bar.n)

        yield Bar()


def in_units(size: float) -> str:
    """Return a number of bytes for people: three digits and a unit."""
    for unit in UNITS:
        if size < 999.5 or unit == UNITS[-1]:
            break
        size /= 1000
    digits = 0 if unit == UNITS[0] or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {unit}"
