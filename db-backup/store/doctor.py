"""Examining what a store lets us do, by doing it, with objects whose names begin in one way.

They are deleted again, if that is possible.
"""

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from documents import TEXT
from ooni_common.doctor import Check, Note
from ooni_common.errors import ConfigError, DataRefused, Unavailable
from store.bucket import Bucket, Origin
from store.errors import Denied
from store.uploads import LIFECYCLE_OF_UPLOADS, uploading

NO_ETAG = "the store names no ETag, without which ClickHouse can't read a backup: use another store"


@dataclass(frozen=True)
class StoreChecks:
    """The checks of a bucket.

    Attributes:
        bucket: is examined.
        probe: how the keys begin.
        for_backups: whether a server writes and reads there, which needs ETags, and to delete.
        uploads_below: how the keys begin of which interrupted uploads are mentioned; "" for none.
    """

    bucket: Bucket
    probe: str
    for_backups: bool
    uploads_below: str = ""

    def __iter__(self) -> Iterator[tuple[str, Check]]:
        """Yield them, with the last word of their names."""
        yield "write", self.write
        yield "uploads", self.uploads
        yield "delete", self.delete

    def write(self) -> str:
        """Write an object, look at it and read it."""
        bucket, token = self.bucket, uuid.uuid4().hex
        bucket.put(self.probe, token.encode(), TEXT, token)
        if bucket.get(self.probe) != token.encode():
            raise DataRefused(f"{bucket.url}/{self.probe}: it is not what was written")
        head = bucket.look(self.probe)
        if head is None:
            raise Unavailable(f"{bucket.url}/{self.probe}: a GET finds it, and a HEAD does not")
        if self.for_backups and not head.etag:
            raise ConfigError(f"{bucket.url}/{self.probe}: {NO_ETAG}")
        if head.token != token:
            decides = "ETag and checksum tell" if head.etag else "only its checksum tells"
            return Note(f"the store keeps no metadata; {decides} one upload from another")
        return f"{self.probe} was written and read back"

    def uploads(self) -> str:
        """Upload an object in parts; begin another one, look for it, and end it."""
        bucket, token = self.bucket, uuid.uuid4().hex
        key, content = f"{self.probe}.parts", token.encode()
        with uploading(bucket, key, TEXT, token) as upload:
            upload.begin()
            upload.write(content)
            upload.finish()
            upload.publish()
        sent = Origin(token, len(content), hashlib.sha256(content).hexdigest())
        if not bucket.is_from(key, sent):
            raise DataRefused(f"{bucket.url}/{key}: it is not what was uploaded")
        with bucket.errors(f"beginning to upload {key}"):
            begun = bucket.client.create_multipart_upload(
                **bucket.target(key), **bucket.creation(TEXT, token)
            )["UploadId"]
        unlisted, not_ended = self._unlisted(key, begun), self._not_ended(key, begun)
        if finding := "; ".join(filter(None, (unlisted, not_ended))):
            return Note(finding)
        if self.uploads_below and (left := bucket.unfinished_uploads(self.uploads_below)):
            return Note(f"{len(left)} of interrupted runs are left; the next run ends them")
        return "an object came in parts; an upload was seen and ended"

    def _unlisted(self, key: str, begun: str) -> str:
        """Say why a run can't find uploads that were interrupted; "" if it can."""
        try:
            uploads = self.bucket.unfinished_uploads(key)
        except Denied as error:
            return f"{error}; or {LIFECYCLE_OF_UPLOADS}"
        if (key, begun) not in uploads:
            return f"the store does not list uploads: {LIFECYCLE_OF_UPLOADS}"
        return ""

    def _not_ended(self, key: str, begun: str) -> str:
        """Say why an upload can't be ended; "" if it can."""
        try:
            self.bucket.abort_upload(key, begun)
        except Denied as error:
            return f"{error}; or {LIFECYCLE_OF_UPLOADS}"
        return ""

    def delete(self) -> str:
        """Delete one object, and several at once."""
        bucket = self.bucket
        others = [f"{self.probe}.parts", f"{self.probe}.none"]
        try:
            bucket.delete(self.probe)
            bucket.delete_keys(others)
        except Denied as error:
            if self.for_backups:
                raise
            return Note(f"{error}: prune can't work, a run can")
        for key in (self.probe, *others):
            if bucket.look(key):
                raise ConfigError(
                    f"{bucket.url}/{key}: it is there though it was deleted; is there a retention?"
                )
        if versions := bucket.versions_kept():
            return Note(versions)
        how = "one by one: the store refuses several" if bucket.deletes_one_by_one else "at once"
        return f"one was deleted, and several, {how}"
