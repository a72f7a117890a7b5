"""The store: a bucket of S3, whose objects are complete or not there."""

import base64
import contextlib
import hashlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from documents import LARGEST_DOCUMENT
from ooni_common.errors import DataRefused, ScriptError, Unavailable
from store.client import Store, client_of, content_md5
from store.errors import is_refused, store_errors

MOST_AT_ONCE = 1000  # keys that one request can delete
READ_SIZE = 1024 * 1024
TOKEN = "ooni-export"  # noqa: S105 (the name of the metadata that tells one upload from another)


@dataclass(frozen=True)
class Listed:
    """An object, as a listing shows it; `etag` is what the store calls this version of it."""

    key: str
    size: int
    modified: datetime
    etag: str


@dataclass(frozen=True)
class ObjectHead:
    """An object, as the store describes it.

    Attributes:
        size: in bytes.
        token: of the upload; "" if the store has no metadata of the object.
        encryption: with which it lies there, "AES256" or "aws:kms"; "" if the store does not say.
        etag: what the store calls this version of it; "" if it does not say.
        modified: when it was written, by the store's clock: also the same bytes, written again.
    """

    size: int
    token: str
    encryption: str = ""
    etag: str = ""
    modified: datetime | None = None


@dataclass(frozen=True)
class Fetched:
    """A small object as a whole.

    Attributes:
        content: its bytes; None where they are more than was wanted.
        seconds: since it was written, by the store's clock.
        etag: what the store calls this version of it; "" if it does not say.
    """

    content: bytes | None
    seconds: float
    etag: str


@dataclass(frozen=True)
class Origin:
    """What tells the object of one upload from others under the same key.

    Attributes:
        token: of the upload.
        size: in bytes.
        sha256: of the content.
        etag: what the store has called this version; "" if it has not said.
    """

    token: str
    size: int
    sha256: str
    etag: str = ""


@dataclass(frozen=True)
class Layout:
    """Where things are in a bucket, as far as exports and backups do the same."""

    prefix: str

    @property
    def manifests(self) -> str:
        """What the keys of the manifests of tables, or of backups, start with."""
        return f"{self.prefix}/manifest/"

    def manifest(self, name: str) -> str:
        """Return the key of the manifest of a table, or of a backup."""
        return f"{self.manifests}{escaped(name)}.json"

    @property
    def writer(self) -> str:
        """Return the key of what says which host writes below the prefix."""
        return f"{self.prefix}/writer.json"

    @property
    def probe(self) -> str:
        """What the keys of objects start with that are only written to see whether one can."""
        return f"{self.prefix}/doctor"


def escaped(name: str) -> str:
    """Return a name as a part of a key: letters, digits, `_.-~`, and the rest as %XX."""
    return quote(name, safe="")


class NoSuchObject(Exception):
    """There is no object with this key."""


class Bucket:
    """Reads and writes the objects of a bucket.

    Uploads in parts (uploads.py) use its `client`, and `target`, `creation` and `errors`.

    Attributes:
        guard: is called before anything is made or deleted, and raises where that must not be.
        deletes_one_by_one: whether the store has refused to delete several objects at once.
        keeps_versions: whether the store has said that what was deleted is still there.

    Raises, each method: ConfigError where the store lets nobody in; Unavailable for other failures,
    after boto3's own retries.
    """

    def __init__(self, store: Store, user_agent: str) -> None:
        self.client = client_of(store, user_agent)
        self._name = store.bucket
        self._options = dict(store.options)
        self.guard: Callable[[], None] = lambda: None
        self.deletes_one_by_one = False
        self.keeps_versions = False

    @property
    def url(self) -> str:
        """Name the bucket for people."""
        return f"s3://{self._name}"

    def get(self, key: str, largest: int = LARGEST_DOCUMENT) -> bytes | None:
        """Return an object that fits into memory; None if there is none.

        Raises:
            DataRefused: it has more than `largest` bytes.
        """
        content = bytearray()
        with contextlib.closing(self.stream(key)) as pieces:
            try:
                for piece in pieces:
                    content += piece
                    if len(content) > largest:
                        raise DataRefused(f"{self.url}/{key}: it has more than {largest:,} bytes")
            except NoSuchObject:
                return None
        return bytes(content)

    def fetch(self, key: str, largest: int) -> Fetched | None:
        """Return an object, and how old it is, with one request; None if there is none."""
        with self.errors(f"reading {key}"):
            try:
                answer = self.client.get_object(Bucket=self._name, Key=key)
            except self.client.exceptions.NoSuchKey:
                return None
            with contextlib.closing(answer["Body"]) as body:
                content = body.read(largest + 1)
        modified = answer.get("LastModified")
        age = self._time_of(answer) - modified.timestamp() if modified else 0.0
        return Fetched(content if len(content) <= largest else None, age, answer.get("ETag", ""))

    def stream(self, key: str) -> Generator[bytes, None, None]:
        """Yield an object, piece by piece.

        Raises:
            NoSuchObject: there is none.
        """
        with self.errors(f"reading {key}"):
            try:
                body = self.client.get_object(Bucket=self._name, Key=key)["Body"]
            except self.client.exceptions.NoSuchKey:
                raise NoSuchObject(key) from None
            with contextlib.closing(body):
                yield from body.iter_chunks(READ_SIZE)

    def is_from(self, key: str, origin: Origin) -> bool:
        """Tell whether an object is that of an upload.

        Where the store has no metadata of it, the name of its version decides, or else its content.
        """
        head = self.look(key)
        if head is None:
            return False
        if head.token:
            return head.token == origin.token
        if head.size != origin.size:
            return False
        return head.etag == origin.etag != "" or self.sha256(key) == origin.sha256

    def sha256(self, key: str) -> str | None:
        """Return the SHA-256 of an object, in hexadecimal digits; None if there is none."""
        digest = hashlib.sha256()
        try:
            for piece in self.stream(key):
                digest.update(piece)
        except NoSuchObject:
            return None
        return digest.hexdigest()

    def look(self, key: str) -> ObjectHead | None:
        """Return what the store says of an object; None: there is none."""
        with self.errors(f"looking at {key}"):
            try:
                answer = self.client.head_object(Bucket=self._name, Key=key)
            except self.client.exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey"):
                    return None
                raise
        # Some stores write the names of metadata their own way: Ooni-Export.
        metadata = {name.lower(): value for name, value in answer["Metadata"].items()}
        return ObjectHead(
            size=answer["ContentLength"],
            token=metadata.get(TOKEN, ""),
            encryption=answer.get("ServerSideEncryption", ""),
            etag=answer.get("ETag", ""),
            modified=answer.get("LastModified"),
        )

    def put(self, key: str, content: bytes, content_type: str, token: str = "") -> str:
        """Write a small object; return what the store calls this version of it (ETag)."""
        with self.errors(f"writing {key}"):
            written = self.client.put_object(
                **self.target(key),
                **self.creation(content_type, token),
                Body=content,
                ContentMD5=content_md5(content),
            )
        return written.get("ETag", "")

    def put_document(
        self, key: str, content: bytes, content_type: str, *, was_read: bool = False
    ) -> None:
        """Write an object that must be readable, and read it back.

        Args:
            key: of the object.
            content: of it.
            content_type: of it.
            was_read: whether this run has read what was there, so that what the store says of the
                content (ETag) is enough, where that is its MD5.

        Raises:
            Unavailable: it is another one.
        """
        etag = self.put(key, content, content_type)
        if was_read and etag.strip('"') == base64.b64decode(content_md5(content)).hex():
            return
        if self.get(key, max(len(content), LARGEST_DOCUMENT)) != content:
            raise Unavailable(f"{self.url}/{key}: it is not what was written")

    def listing(self, prefix: str) -> Iterator[Listed]:
        """Yield the objects whose keys start so."""
        with self.errors(f"listing {prefix}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=prefix
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    yield Listed(
                        entry["Key"],
                        entry["Size"],
                        entry["LastModified"],
                        entry.get("ETag", ""),
                    )

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the beginnings of keys up to the first `/` after the prefix, without it."""
        with self.errors(f"listing {prefix}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                for entry in page.get("CommonPrefixes", []):
                    yield entry["Prefix"].removesuffix("/")

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        self.guard()
        with self.errors(f"deleting {key}"):
            answer = self.client.delete_object(**self.target(key))
        self.keeps_versions |= answer.get("DeleteMarker", False)

    def delete_all(self, prefix: str) -> int:
        """Delete the objects whose keys start so; return how many there were."""
        return self.delete_keys(listed.key for listed in self.listing(prefix))

    def delete_keys(self, keys: Iterable[str]) -> int:
        """Delete objects; return how many. One by one, where the store has nothing better."""
        count, left = 0, iter(keys)
        while batch := list(itertools.islice(left, MOST_AT_ONCE)):
            for key in batch if self.deletes_one_by_one else self._delete_at_once(batch):
                self.delete(key)
            count += len(batch)
        return count

    def _delete_at_once(self, keys: list[str]) -> list[str]:
        """Delete objects with one request; return those that are left."""
        self.guard()
        with self.errors(f"deleting {len(keys)} objects"):
            try:
                answer = self.client.delete_objects(
                    Bucket=self._name, Delete={"Objects": [{"Key": key} for key in keys]}
                )
            except self.client.exceptions.ClientError as error:
                if not is_refused(error):
                    raise
                self.deletes_one_by_one = True
                return keys
        self.keeps_versions |= any(one.get("DeleteMarker") for one in answer.get("Deleted", ()))
        # Whatever was wrong with one of them, its own request says it, or mends it.
        return [error["Key"] for error in answer.get("Errors", ()) if "Key" in error]

    def versions_kept(self) -> str:
        """Return what is said of a bucket in which nothing is deleted for good; "" of others.

        Not every store tells it, or lets these credentials know.
        """
        if not self.keeps_versions:
            with contextlib.suppress(ScriptError), self.errors("asking for its versioning"):
                answer = self.client.get_bucket_versioning(Bucket=self._name)
                self.keeps_versions = answer.get("Status") == "Enabled"
        if not self.keeps_versions:
            return ""
        return (
            f"{self.url} keeps what is deleted as an old version, which frees nothing: give it a"
            " lifecycle rule NoncurrentVersionExpiration"
        )

    def time(self) -> float:
        """Return what time it is for the store, in Unix seconds."""
        with self.errors("asking for the time"):
            return self._time_of(self.client.list_objects_v2(Bucket=self._name, MaxKeys=1))

    def _time_of(self, answer: Any) -> float:  # noqa: ANN401 (of boto3's typed dictionaries, any)
        """Return when the store has given an answer, in Unix seconds."""
        stamp = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(stamp).timestamp()
        except ValueError:
            raise Unavailable(f"{self.url}: it does not say what time it is: {stamp!r}") from None

    def unfinished_uploads(self, prefix: str) -> list[tuple[str, str]]:
        """Return key and ID of the uploads that are not finished.

        Raises:
            Unsupported: the store does not list them.
        """
        with self.errors("listing uploads that are not finished"):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._name, Prefix=prefix
            )
            uploads = [upload for page in pages for upload in page.get("Uploads", [])]
            return [(upload["Key"], upload["UploadId"]) for upload in uploads]

    def abort_upload(self, key: str, upload_id: str) -> None:
        """End an upload that nobody will finish, if it is there."""
        with (
            self.errors("ending an upload that is not finished"),
            contextlib.suppress(self.client.exceptions.NoSuchUpload),
        ):
            self.client.abort_multipart_upload(**self.target(key), UploadId=upload_id)

    def target(self, key: str) -> Any:  # noqa: ANN401 (keyword arguments for boto3's typed methods)
        """Return what names an object in a request."""
        return {"Bucket": self._name, "Key": key}

    def creation(self, content_type: str, token: str) -> Any:  # noqa: ANN401 (as above)
        """Return what is said of an object when it is made."""
        self.guard()
        metadata = {"Metadata": {TOKEN: token}} if token else {}
        return {"ContentType": content_type} | metadata | self._options

    def errors(self, action: str) -> contextlib.AbstractContextManager[None]:
        """Turn what boto3 raises in the block into an error that says what was being done."""
        return store_errors(f"{self.url}: {action}")
