"""The parts of one upload, sent by a thread of its own."""

import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable
from typing import Any, cast

from ooni_common.errors import ConfigError, Unavailable
from parallel import BytesInFlight
from store.bucket import Bucket
from store.client import content_md5

ABORT_TIME = 5  # seconds that an abort waits for what is on its way, and a stop for its end


class UploadEnded(Exception):
    """Another thread has ended this upload: its run is over."""


class Parts:
    """Begins an upload in parts and sends them, one after the other, while the next one is made.

    The store is asked in threads, because a signal interrupts the main thread, at any instruction:
    there, the ID of an upload could come and be lost before it is kept. The main thread waits for
    queues of the C implementation alone, as a signal leaves these and their locks in order.
    """

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        creation: Any,  # noqa: ANN401 (for boto3)
        in_flight: BytesInFlight | None,
    ) -> None:
        self._in_flight = in_flight
        self._bucket = bucket
        self._client = bucket.client
        self._key = key
        self._target = bucket.target(key)
        self._creation = creation
        self._id = ""
        self._sent: list[dict[str, Any]] = []
        self._answered: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()  # has one if no part waits
        self._asked = self._stopped = False
        self._unknown = False  # whether the store may have an upload whose ID never came
        self._error: BaseException | None = None
        self._sending = Background(self._run)

    @property
    def count(self) -> int:
        """How many parts have arrived."""
        return len(self._sent)

    def begin(self) -> None:
        """Wait until the store has given the upload an ID."""
        self._sending.start()
        self._answered.get()
        if self._error:
            raise self._error

    def send(self, part: bytes | None) -> None:
        """Hand over a part; wait while another one waits, or too many bytes are in flight."""
        self._room.get()
        if self._error:
            raise self._error
        if self._stopped:
            raise UploadEnded
        if self._in_flight and part:
            self._in_flight.take(len(part))
        self._waiting.put(part)

    def finish(self) -> None:
        """Wait until all parts have arrived."""
        self.send(None)
        self._sending.wait()
        if self._error:
            raise self._error

    def complete(self) -> str:
        """Make an object of the parts; return what the store calls it."""
        completed = self._client.complete_multipart_upload(
            **self._target,
            UploadId=self._id,
            MultipartUpload={"Parts": cast("Any", self._sent)},
        )
        if self._unknown:
            self._end_unknown()
        return completed.get("ETag", "")

    def end(self, seconds: float | None) -> None:
        """Send nothing more, and end the upload, also while it is being begun.

        What can't be ended now is ended by the next run; the failure that led here counts.

        Args:
            seconds: that the store has to end it; None: as long as it takes.
        """
        # Either this thread sees that the store was asked, or the other one that it must not be.
        self._stopped = True
        if not self._asked:
            return
        self._waiting.put(None)
        self._sending.wait(ABORT_TIME)
        if self._in_flight:
            self._drop_waiting(self._in_flight)
        ending = Background(self._end)
        ending.start()
        ending.wait(seconds)

    def _run(self) -> None:
        self._asked = True
        try:
            if self._stopped:
                return
            self._begin()
            self._answered.put(None)
            self._room.put(None)
            while (part := self._waiting.get()) is not None:
                self._room.put(None)
                try:
                    self._send(part)
                finally:
                    self._give_back(part)
        except Exception as error:  # noqa: BLE001 (raised in the thread that waits for it)
            self._error = error
        finally:
            self._answered.put(None)
            self._room.put(None)

    def _give_back(self, part: bytes) -> None:
        if self._in_flight:
            self._in_flight.give(len(part))

    def _drop_waiting(self, in_flight: BytesInFlight) -> None:
        """Forget the part that waits, if there is one: nobody sends it any more."""
        with contextlib.suppress(queue.Empty):
            while True:
                in_flight.give(len(self._waiting.get_nowait() or b""))
        self._waiting.put(None)

    def _begin(self) -> None:
        self._unknown = True
        created = self._client.create_multipart_upload(**self._target, **self._creation)
        self._id = created["UploadId"]
        # The store may have done what an earlier attempt asked, and the answer was lost.
        self._unknown = created["ResponseMetadata"]["RetryAttempts"] > 0
        if self._stopped:  # perhaps so long ago that nobody waits for this ID any more
            self._end()

    def _send(self, part: bytes) -> None:
        if self._stopped:
            return
        number = len(self._sent) + 1
        sent = self._client.upload_part(
            **self._target,
            UploadId=self._id,
            PartNumber=number,
            Body=part,
            ContentMD5=content_md5(part),
        )
        # A store that names no version takes S3's own name of it.
        etag = sent.get("ETag") or f'"{hashlib.md5(part, usedforsecurity=False).hexdigest()}"'
        self._sent.append({"ETag": etag, "PartNumber": number})

    def _end(self) -> None:
        if self._id:
            with (
                contextlib.suppress(Unavailable, ConfigError),
                self._bucket.errors(f"ending the upload of {self._key}"),
            ):
                self._client.abort_multipart_upload(**self._target, UploadId=self._id)
                self._id = ""
        if self._unknown:
            self._end_unknown()

    def _end_unknown(self) -> None:
        """End all uploads of this object: under the lock, nobody else writes it."""
        with contextlib.suppress(Unavailable, ConfigError):
            for key, upload_id in self._bucket.unfinished_uploads(self._key):
                if key == self._key:
                    self._bucket.abort_upload(key, upload_id)
            self._unknown = False


class Background:
    """Work in a thread, where no signal interrupts it.

    The thread is a daemon: a stop must not wait for a store that does not answer.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._ended = False
        self._end: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it is done, or for so many seconds; raise what it has raised by then.

        Thread.join can't be used: when a signal interrupts it, it takes the thread for ended.
        """
        if not self._ended:
            with contextlib.suppress(queue.Empty):
                self._end.get(timeout=seconds)
                self._end.put(None)  # for another thread that waits
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits for it)
            self._error = error
        finally:
            self._ended = True
            self._end.put(None)
