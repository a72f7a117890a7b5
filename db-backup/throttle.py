"""Being kind to the database and the network."""

import logging
import time
from collections.abc import Callable

from backup_config import Config
from ooni_common.database import Database
from ooni_common.errors import TryAgainLater

log = logging.getLogger("ooni.db_backup")

POLL = 5  # seconds
LONGEST_REST = 300  # seconds


class Throttle:
    """Lets chunks begin only while the database is not too busy, and rest in between."""

    def __init__(
        self,
        database: Database,
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database = database
        self._limit = config.max_running_queries
        self._longest = config.max_wait
        self._rest = config.rest
        self._clock = clock
        self._sleep = sleep

    def wait(self) -> None:
        """Wait until fewer queries run than the limit allows.

        Raises:
            TryAgainLater: that took too long.
        """
        started = self._clock()
        warned = False
        while (running := self._running()) >= self._limit:
            if self._clock() - started >= self._longest:
                raise TryAgainLater(
                    f"database: {running} queries have been running for {self._longest:g} s, and"
                    f" max_running_queries is {self._limit}"
                )
            if not warned:
                log.warning("waiting: %d queries are running on the server", running)
                warned = True
            self._sleep(min(POLL, max(self._longest, 0.1)))

    def rest(self, duration: float) -> None:
        """Rest in proportion to the time, in seconds, that a chunk took."""
        self._sleep(min(self._rest * duration, LONGEST_REST))

    def pause(self, seconds: float) -> None:
        """Do nothing for some seconds."""
        self._sleep(seconds)

    def _running(self) -> int:
        """Count the queries of others."""
        ((running,),) = self._database.query(
            "SELECT count() FROM system.processes WHERE query_id != queryID()"
        )
        return int(running)


class Bandwidth:
    """Keeps a stream below a limit.

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

    def spend(self, size: int) -> None:
        """Wait until so many bytes may follow those before."""
        if not self._limit:
            return
        now = self._clock()
        self._due = max(self._due, now) + size / self._limit
        if self._due > now:
            self._sleep(self._due - now)
