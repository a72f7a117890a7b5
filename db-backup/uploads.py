"""Uploads: objects that are sent in parts, and become visible at once or not at all."""

import contextlib
import hashlib
import logging
import math
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from ooni_common.errors import ConfigError, DataRefused, Unavailable
from store import Bucket, Origin
from store_client import content_md5
from store_errors import Denied, Unsupported

log = logging.getLogger("ooni.db_backup")

MIB = 1024 * 1024
PART_SIZE = 8 * MIB  # at least; of these, the first, the last and one between are in memory
LARGEST_PART = 48 * MIB
MOST_PARTS = 10_000
SPARE = 5 / 4  # of the parts that should do
LIFECYCLE_OF_UPLOADS = (
    "give the bucket a lifecycle rule AbortIncompleteMultipartUpload, or what interrupted uploads"
    " have sent stays for ever"
)
ABORT_TIME = 5  # seconds that an abort waits for what is on its way, and a stop for its end


@dataclass(frozen=True)
class Written:
    """What an upload has sent: the size in bytes and the SHA-256 of all of it."""

    size: int
    sha256: str


def part_size(expected: int) -> int:
    """Return the size of the parts of an object of about so many bytes.

    All parts of one are of the same size, as some stores (R2) want it.
    """
    needed = expected * SPARE / MOST_PARTS
    if needed <= PART_SIZE:
        return PART_SIZE
    return min(math.ceil(needed / MIB) * MIB, LARGEST_PART)


@contextlib.contextmanager
def uploading(
    bucket: Bucket, key: str, content_type: str, token: str, expected: int = 0
) -> Iterator["Upload"]:
    """Give an upload; unless it is published within the block, nothing is left of it.

    Args:
        bucket: gets the object.
        key: of it.
        content_type: of it.
        token: is put into its metadata.
        expected: how many bytes it will have, about.
    """
    upload = Upload(bucket, key, content_type, token, part_size(expected))
    try:
        try:
            yield upload
        except Exception:
            upload.abort()
            raise
    except BaseException:  # a stop, at any instruction: it may have interrupted that abort
        upload.abort(ABORT_TIME)
        raise


class Upload:
    """One object that is being written: first sent, in parts, then published at once."""

    def __init__(
        self, bucket: Bucket, key: str, content_type: str, token: str, size_of_parts: int
    ) -> None:
        self._bucket = bucket
        self._part_size = size_of_parts
        self._creation = bucket.creation(content_type, token)
        self._action = f"uploading {key}"
        self._content_type = content_type
        self._token = token
        self.key = key
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self._size = 0
        self._parts: _Parts | None = None
        self._aborted = False

    def write(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            DataRefused: they are more than one object can have.
        """
        self._hash.update(data)
        self._size += len(data)
        self._buffer += data
        while len(self._buffer) >= self._part_size:
            self._send(bytes(memoryview(self._buffer)[: self._part_size]))
            del self._buffer[: self._part_size]

    def finish(self) -> Written:
        """Wait until all parts are there. Nobody sees an object yet."""
        if self._parts:
            if self._buffer:
                self._send(bytes(self._buffer))
                self._buffer.clear()
            with self._bucket.errors(self._action):
                self._parts.finish()
        return Written(self._size, self._hash.hexdigest())

    def publish(self) -> str:
        """Make the object visible, in the place of the one that was there.

        Returns:
            What the store calls this version of it (ETag); "" if it does not say.
        """
        if not self._parts:
            return self._bucket.put(self.key, bytes(self._buffer), self._content_type, self._token)
        with self._bucket.errors(self._action):
            try:
                return self._parts.complete()
            except self._bucket.client.exceptions.NoSuchUpload:
                # An answer was lost, and boto3 has asked once more.
                sent = Origin(self._token, self._size, self._hash.hexdigest())
                if not self._bucket.is_from(self.key, sent):
                    raise
                return ""

    def abort(self, seconds: float | None = None) -> None:
        """Forget what was sent, within so many seconds if they are given."""
        if self._parts and not self._aborted:
            self._parts.end(seconds)
        self._aborted = True

    def begin(self) -> "_Parts":
        """Tell the store that parts will come; return what sends them."""
        self._parts = _Parts(self._bucket, self.key, self._creation)
        with self._bucket.errors(self._action):
            self._parts.begin()
        return self._parts

    def _send(self, part: bytes) -> None:
        parts = self._parts or self.begin()
        if parts.count >= MOST_PARTS - 2:
            limit = self._part_size * MOST_PARTS // 10**9
            raise DataRefused(f"{self.key}: more than {limit} GB; use smaller chunks")
        with self._bucket.errors(self._action):
            parts.send(part)


class _Parts:
    """Begins an upload in parts and sends them, one after the other, while the next one is made.

    The store is asked in threads, because a signal interrupts the main thread, at any instruction:
    there, the ID of an upload could come and be lost before it is kept. The main thread waits for
    queues of the C implementation alone, as a signal leaves these and their locks in order.
    """

    def __init__(self, bucket: Bucket, key: str, creation: Any) -> None:  # noqa: ANN401 (for boto3)
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
        self._sending = _Background(self._run)

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
        """Hand over a part; wait while another one waits."""
        self._room.get()
        if self._error:
            raise self._error
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
        ending = _Background(self._end)
        ending.start()
        ending.wait(seconds)

    def _run(self) -> None:
        self._asked = True
        if self._stopped:
            return
        try:
            self._begin()
            self._answered.put(None)
            self._room.put(None)
            while (part := self._waiting.get()) is not None and not self._stopped:
                self._room.put(None)
                self._send(part)
        except Exception as error:  # noqa: BLE001 (raised in the thread that waits for it)
            self._error = error
        finally:
            self._answered.put(None)
            self._room.put(None)

    def _begin(self) -> None:
        self._unknown = True
        created = self._client.create_multipart_upload(**self._target, **self._creation)
        self._id = created["UploadId"]
        # The store may have done what an earlier attempt asked, and the answer was lost.
        self._unknown = created["ResponseMetadata"]["RetryAttempts"] > 0
        if self._stopped:  # perhaps so long ago that nobody waits for this ID any more
            self._end()

    def _send(self, part: bytes) -> None:
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


def end_interrupted_uploads(bucket: Bucket, prefix: str) -> None:
    """End the uploads that nobody will finish, if it is allowed: the store charges for them."""
    try:
        uploads = bucket.unfinished_uploads(prefix)
    except Unsupported as error:
        log.warning("%s; %s", error, LIFECYCLE_OF_UPLOADS)
        return
    except Denied as error:
        log.warning("%s; grant s3:ListBucketMultipartUploads, or they stay for ever", error)
        return
    try:
        for key, upload_id in uploads:
            bucket.abort_upload(key, upload_id)
    except Denied as error:
        log.warning("%s; grant s3:AbortMultipartUpload, or they stay for ever", error)
        return
    if uploads:
        log.warning("%d uploads of runs that were interrupted are aborted", len(uploads))


class _Background:
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
