"""Which chunks are on their way, so that a stop can end them together."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from parallel import in_parallel
from store.upload_parts import ABORT_TIME, UploadEnded
from store.uploads import Upload

POLL = 0.02  # seconds


@dataclass(eq=False)  # another one is never the same
class Flight:
    """A chunk on its way.

    Attributes:
        uploads: of its objects, as far as they are begun.
        announced: whether its objects may come at any time.
    """

    uploads: list[Upload] = field(default_factory=list)
    announced: bool = False


class Flights:
    """The chunks that are on their way, which a stop ends together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: list[Flight] = []
        self._over = False

    @contextlib.contextmanager
    def one(self) -> Iterator[Flight]:
        """Give a flight.

        Raises:
            UploadEnded: none may begin any more.
        """
        flight = Flight()
        with self._lock:
            self.check()
            self._flights.append(flight)
        try:
            yield flight
        finally:
            with self._lock:
                self._flights.remove(flight)

    def begin(self, flight: Flight, upload: Upload) -> None:
        """Let it have an upload; raise UploadEnded if it must not."""
        with self._lock:
            self.check()
            flight.uploads.append(upload)

    def announce(self, flight: Flight) -> None:
        """Let its object come from now on; raise UploadEnded if it must not."""
        with self._lock:
            self.check()
            flight.announced = True

    def end(self) -> None:
        """Abort what is not announced, and wait for a while until all have ended.

        Another thread than theirs does it.
        """
        with self._lock:
            self._over = True
            coming = [one for one in self._flights if not one.announced]
            uploads = [upload for one in coming for upload in one.uploads]
        for _ in in_parallel(Upload.end, uploads, max(len(uploads), 1)):
            pass
        deadline = time.monotonic() + ABORT_TIME
        while self._flights and time.monotonic() < deadline:
            time.sleep(POLL)

    def check(self) -> None:
        """Raise UploadEnded if they are over."""
        if self._over:
            raise UploadEnded
