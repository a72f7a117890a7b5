"""Uploads: objects that are sent in parts, and become visible at once or not at all."""

import contextlib
import hashlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

from ooni_common.errors import DataRefused
from parallel import BytesInFlight
from store.bucket import Bucket, Origin
from store.errors import Denied, Unsupported
from store.upload_parts import ABORT_TIME, Parts, UploadEnded

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
    bucket: Bucket,
    key: str,
    content_type: str,
    token: str,
    expected: int = 0,
    in_flight: BytesInFlight | None = None,
) -> Iterator["Upload"]:
    """Give an upload; unless it is published within the block, nothing is left of it.

    Args:
        bucket: gets the object.
        key: of it.
        content_type: of it.
        token: is put into its metadata.
        expected: how many bytes it will have, about.
        in_flight: bounds what waits or is on its way, over the uploads of all threads; None: there
            is no other one.
    """
    upload = Upload(bucket, key, content_type, token, part_size(expected), in_flight)
    try:
        try:
            yield upload
        except Exception:
            upload.abort()
            raise
    except BaseException:  # a stop, at any instruction: it may have interrupted that abort
        upload.abort(ABORT_TIME)
        raise
    finally:
        upload.release()


class Upload:
    """One object that is being written: first sent, in parts, then published at once."""

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        content_type: str,
        token: str,
        size_of_parts: int,
        in_flight: BytesInFlight | None = None,
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
        self._parts: Parts | None = None
        self._in_flight = in_flight
        self._held = 0  # bytes in flight that are the whole object
        self._handed_over = self._aborted = False
        self._ended = False  # by another thread

    def write(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            DataRefused: they are more than one object can have.
            UploadEnded: by another thread.
        """
        self._check()
        self._hash.update(data)
        self._size += len(data)
        self._buffer += data
        while len(self._buffer) >= self._part_size:
            self._send(bytes(memoryview(self._buffer)[: self._part_size]))
            del self._buffer[: self._part_size]

    def hand_over(self) -> None:
        """Take what was written as all there is; it is sent while the caller does something else.

        Of an object without parts, its bytes are in flight from now on.
        """
        if self._handed_over:
            return
        self._handed_over = True
        if self._parts and self._buffer:
            self._send(bytes(self._buffer))
            self._buffer.clear()
        elif self._in_flight and not self._parts:
            self._in_flight.take(len(self._buffer))
            self._held = len(self._buffer)

    def finish(self) -> Written:
        """Wait until all parts are there. Nobody sees an object yet."""
        self._check()
        self.hand_over()
        if self._parts:
            with self._bucket.errors(self._action):
                self._parts.finish()
        return Written(self._size, self._hash.hexdigest())

    def publish(self) -> str:
        """Make the object visible, in the place of the one that was there.

        Returns:
            What the store calls this version of it (ETag); "" if it does not say.
        """
        self._check()
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

    def end(self) -> None:
        """Abort it from another thread; in the one that writes it, UploadEnded is raised."""
        self._ended = True
        self.abort(ABORT_TIME)

    def release(self) -> None:
        """Give back what is in flight no more: the object is there, or will not be."""
        if self._in_flight and self._held:
            self._in_flight.give(self._held)
            self._held = 0

    def _check(self) -> None:
        if self._ended:
            raise UploadEnded

    def begin(self) -> "Parts":
        """Tell the store that parts will come; return what sends them."""
        self._parts = Parts(self._bucket, self.key, self._creation, self._in_flight)
        # Either this thread sees that it is ended, or the one that ends it sees the parts.
        self._check()
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
