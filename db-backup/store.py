"""A bucket of S3: objects that are complete or not there."""

import base64
import contextlib
import hashlib
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import msgspec

from ooni_common import __version__
from ooni_common.config import Secret
from ooni_common.errors import ConfigError, DataRefused, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger("ooni.db_backup")

TOOL = f"ooni-db-backup {__version__}"
JSON = "application/json"
SQL = "application/sql"
PART = 8 * 1024 * 1024  # bytes; of these, the first, the last and one between are in memory
MOST_PARTS = 10_000
MOST_AT_ONCE = 1000  # keys that one request can delete
PIECE = 1024 * 1024
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
TOKEN = "ooni-export"  # noqa: S105 (the name of the metadata that tells one upload from another)
CODES_OF_WRONG_CONFIG = {
    "403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "AuthorizationHeaderMalformed",
    "ExpiredToken", "InvalidAccessKeyId", "InvalidBucketName", "InvalidStorageClass",
    "InvalidToken", "NoSuchBucket", "PermanentRedirect",
    "SignatureDoesNotMatch",
}  # fmt: skip
CLOSING_TIME = 5  # seconds that an abort waits for what is on its way, and a stop for its end


@dataclass(frozen=True)
class Store:
    """Where a bucket is, and how objects are put there.

    Attributes:
        bucket: its name.
        endpoint: of another provider than AWS, or "".
        region: or "".
        key_id: with `key`; without them, boto3 looks where it always does.
        key: the secret one.
        ca_file: of a private CA, in the place of the system's.
        options: storage class and encryption, as boto3 calls them.
    """

    bucket: str
    endpoint: str = ""
    region: str = ""
    key_id: Secret = field(default_factory=lambda: Secret(""))
    key: Secret = field(default_factory=lambda: Secret(""))
    ca_file: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listed:
    """An object, as a listing shows it."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Found:
    """An object, as the store describes it.

    Attributes:
        size: in bytes.
        token: of the upload.
        encryption: with which it lies there, "AES256" or "aws:kms"; "" if the store does not say.
    """

    size: int
    token: str
    encryption: str = ""


@dataclass(frozen=True)
class Written:
    """What an upload has sent: the size in bytes and the SHA-256 of all of it."""

    size: int
    sha256: str


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

    Raises, each method: ConfigError where the store lets nobody in; Unavailable for other failures,
    after boto3's own retries.
    """

    def __init__(self, store: Store, user_agent: str) -> None:
        self._client = _client(store, user_agent)
        self._name = store.bucket
        self._options = dict(store.options)

    @property
    def url(self) -> str:
        """Name the bucket for people."""
        return f"s3://{self._name}"

    def get(self, key: str) -> bytes | None:
        """Return an object that fits into memory; None if there is none."""
        with contextlib.closing(self.stream(key)) as pieces:
            try:
                return b"".join(pieces)
            except NoSuchObject:
                return None

    def stream(self, key: str) -> Generator[bytes, None, None]:
        """Yield an object, piece by piece.

        Raises:
            NoSuchObject: there is none.
        """
        with self._errors(f"reading {key}"):
            try:
                body = self._client.get_object(Bucket=self._name, Key=key)["Body"]
            except self._client.exceptions.NoSuchKey:
                raise NoSuchObject(key) from None
            with contextlib.closing(body):
                yield from body.iter_chunks(PIECE)

    def token(self, key: str) -> str | None:
        """Return the token of the upload that an object is from; None: there is no object."""
        found = self.look(key)
        return found.token if found else None

    def look(self, key: str) -> "Found | None":
        """Return what the store says of an object; None: there is none."""
        with self._errors(f"looking at {key}"):
            try:
                found = self._client.head_object(Bucket=self._name, Key=key)
            except self._client.exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey"):
                    return None
                raise
            return Found(
                size=found["ContentLength"],
                token=found["Metadata"].get(TOKEN, ""),
                encryption=found.get("ServerSideEncryption", ""),
            )

    def put(self, key: str, content: bytes, content_type: str, token: str = "") -> None:
        """Write a small object."""
        with self._errors(f"writing {key}"):
            self._client.put_object(
                **self._target(key),
                **self._creation(content_type, token),
                Body=content,
                ContentMD5=_md5(content),
            )

    def listing(self, prefix: str) -> Iterator[Listed]:
        """Yield the objects whose keys start so."""
        with self._errors(f"listing {prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=prefix
            )
            for page in pages:
                for found in page.get("Contents", []):
                    yield Listed(found["Key"], found["Size"], found["LastModified"])

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the beginnings of keys up to the first `/` after the prefix, without it."""
        with self._errors(f"listing {prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                for found in page.get("CommonPrefixes", []):
                    yield found["Prefix"].removesuffix("/")

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        with self._errors(f"deleting {key}"):
            self._client.delete_object(**self._target(key))

    def delete_all(self, prefix: str) -> int:
        """Delete the objects whose keys start so; return how many there were."""
        count = 0
        keys = (listed.key for listed in self.listing(prefix))
        while batch := list(itertools.islice(keys, MOST_AT_ONCE)):
            with self._errors(f"deleting {prefix}"):
                answer = self._client.delete_objects(
                    Bucket=self._name,
                    Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True},
                )
                if refused := answer.get("Errors"):
                    details: Any = {"Error": refused[0]}
                    raise self._client.exceptions.ClientError(details, "DeleteObjects")
            count += len(batch)
        return count

    def time(self) -> float:
        """Return what time it is for the store, in Unix seconds."""
        with self._errors("asking for the time"):
            answer = self._client.list_objects_v2(Bucket=self._name, MaxKeys=1)
            stamp = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(stamp).timestamp()
        except ValueError:
            raise Unavailable(f"{self.url}: it does not say what time it is: {stamp!r}") from None

    def leftovers(self, prefix: str) -> list[tuple[str, str]]:
        """Return key and ID of the uploads that are not finished."""
        with self._errors("listing uploads that are not finished"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._name, Prefix=prefix
            )
            uploads = [upload for page in pages for upload in page.get("Uploads", [])]
            return [(upload["Key"], upload["UploadId"]) for upload in uploads]

    def abort_leftovers(self, prefix: str, *, exactly: bool = False) -> int:
        """End the uploads that nobody will finish; return how many there were.

        `exactly`: only those of the object whose key is the prefix.
        """
        leftovers = [each for each in self.leftovers(prefix) if not exactly or each[0] == prefix]
        with self._errors("ending uploads that were interrupted"):
            for key, upload_id in leftovers:
                self._client.abort_multipart_upload(**self._target(key), UploadId=upload_id)
        return len(leftovers)

    @contextlib.contextmanager
    def upload(self, key: str, content_type: str, token: str) -> Iterator["Upload"]:
        """Give an upload; unless it is published within the block, nothing is left of it."""
        upload = Upload(self, key, content_type, token)
        try:
            try:
                yield upload
            except Exception:
                upload.abort()
                raise
        except BaseException:  # a stop, at any instruction: it may have interrupted that abort
            upload.abort(CLOSING_TIME)
            raise

    def _target(self, key: str) -> Any:  # noqa: ANN401 (keyword arguments for boto3's typed methods)
        return {"Bucket": self._name, "Key": key}

    def _creation(self, content_type: str, token: str) -> Any:  # noqa: ANN401 (as above)
        metadata = {"Metadata": {TOKEN: token}} if token else {}
        return {"ContentType": content_type} | metadata | self._options

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        from botocore import exceptions  # noqa: PLC0415 (--help must not wait for it)
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        where = f"{self.url}: {action}"
        try:
            yield
        except exceptions.ClientError as error:
            details = error.response.get("Error", {})
            code = str(details.get("Code", "unknown error"))
            message = f"{where}: {code}: {details.get('Message', '')}".rstrip(": ")
            if code in CODES_OF_WRONG_CONFIG:
                raise ConfigError(message) from None
            raise Unavailable(message) from None
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
            raise ConfigError(f"{where}: no credentials are configured") from None
        except exceptions.ParamValidationError as error:
            reason = " ".join(str(error).partition("\n")[2].split())
            raise ConfigError(f"{where}: {reason}") from None
        except (exceptions.BotoCoreError, exceptions.HTTPClientError, HTTPError) as error:
            raise Unavailable(f"{where}: {type(error).__name__}") from None


def end_interrupted_uploads(bucket: Bucket, prefix: str) -> None:
    """End the uploads that nobody will finish, if it is allowed: the store charges for them."""
    try:
        ended = bucket.abort_leftovers(prefix)
    except ConfigError as error:
        log.warning("%s; grant s3:ListBucketMultipartUploads, or they stay for ever", error)
        return
    if ended:
        log.warning("%d uploads of runs that were interrupted are aborted", ended)


def encoded(manifest: msgspec.Struct, key: str) -> bytes:
    """Return a manifest as JSON that can be read back.

    Args:
        manifest: of any kind.
        key: under which it will be written.

    Raises:
        DataRefused: it can't, so that it must not be written.
    """
    content = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
    try:
        same = msgspec.json.decode(content, type=type(manifest)) == manifest
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataRefused(f"{key}: not written: it could not be read back: {error}") from None
    if not same:
        raise DataRefused(f"{key}: not written: it would be read back as another one")
    return content


class Upload:
    """One object that is being written: first sent, in parts, then published at once."""

    def __init__(self, bucket: Bucket, key: str, content_type: str, token: str) -> None:
        self._bucket = bucket
        self._creation = bucket._creation(content_type, token)  # noqa: SLF001 (its other half)
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
        while len(self._buffer) >= PART:
            self._send(bytes(memoryview(self._buffer)[:PART]))
            del self._buffer[:PART]

    def finish(self) -> Written:
        """Wait until all parts are there. Nobody sees an object yet."""
        if self._parts:
            if self._buffer:
                self._send(bytes(self._buffer))
                self._buffer.clear()
            with self._bucket._errors(self._action):  # noqa: SLF001
                self._parts.finish()
        return Written(self._size, self._hash.hexdigest())

    def publish(self) -> None:
        """Make the object visible, in the place of the one that was there."""
        if not self._parts:
            self._bucket.put(self.key, bytes(self._buffer), self._content_type, self._token)
            return
        with self._bucket._errors(self._action):  # noqa: SLF001
            try:
                self._parts.complete()
            except self._bucket._client.exceptions.NoSuchUpload:  # noqa: SLF001
                # An answer was lost, and boto3 has asked once more.
                if self._bucket.token(self.key) != self._token:
                    raise

    def abort(self, seconds: float | None = None) -> None:
        """Forget what was sent, within so many seconds if they are given."""
        if self._parts and not self._aborted:
            self._parts.end(seconds)
        self._aborted = True

    def begin(self) -> "_Parts":
        """Tell the store that parts will come; return what sends them."""
        self._parts = _Parts(self._bucket, self.key, self._creation)
        with self._bucket._errors(self._action):  # noqa: SLF001
            self._parts.begin()
        return self._parts

    def _send(self, part: bytes) -> None:
        parts = self._parts or self.begin()
        if parts.count >= MOST_PARTS - 2:
            limit = PART * MOST_PARTS // 10**9
            raise DataRefused(f"{self.key}: more than {limit} GB; use smaller chunks")
        with self._bucket._errors(self._action):  # noqa: SLF001
            parts.send(part)


class _Parts:
    """Begins an upload in parts and sends them, one after the other, while the next one is made.

    The store is asked in threads, because a signal interrupts the main thread, at any instruction:
    there, the ID of an upload could come and be lost before it is kept. The main thread waits for
    queues of the C implementation alone, as a signal leaves these and their locks in order.
    """

    def __init__(self, bucket: Bucket, key: str, creation: Any) -> None:  # noqa: ANN401 (for boto3)
        self._bucket = bucket
        self._client = bucket._client  # noqa: SLF001 (its other half)
        self._key = key
        self._target = bucket._target(key)  # noqa: SLF001
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

    def complete(self) -> None:
        """Make an object of the parts."""
        self._client.complete_multipart_upload(
            **self._target,
            UploadId=self._id,
            MultipartUpload={"Parts": cast("Any", self._sent)},
        )
        if self._unknown:
            self._end_unknown()

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
        self._sending.wait(CLOSING_TIME)
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
            ContentMD5=_md5(part),
        )
        self._sent.append({"ETag": sent["ETag"], "PartNumber": number})

    def _end(self) -> None:
        if self._id:
            with (
                contextlib.suppress(Unavailable, ConfigError),
                self._bucket._errors(f"ending the upload of {self._key}"),  # noqa: SLF001
            ):
                self._client.abort_multipart_upload(**self._target, UploadId=self._id)
                self._id = ""
        if self._unknown:
            self._end_unknown()

    def _end_unknown(self) -> None:
        """End all uploads of this object: under the lock, nobody else writes it."""
        with contextlib.suppress(Unavailable, ConfigError):
            self._bucket.abort_leftovers(self._key, exactly=True)
            self._unknown = False


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


def _client(store: Store, user_agent: str) -> "S3Client":
    import boto3.session  # noqa: PLC0415 (--help must not wait for it)
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=store.endpoint or None,
            region_name=store.region or None,
            aws_access_key_id=store.key_id.reveal() or None,
            aws_secret_access_key=store.key.reveal() or None,
            verify=_certificates(store.ca_file),
            config=Config(
                user_agent_extra=user_agent.partition(" ")[0],
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard", "total_max_attempts": 6},
                # Content-MD5 does the same, and other providers know it, too.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path" if store.endpoint else "auto"},
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"s3://{store.bucket}: {error}") from None


def _certificates(ca_file: Path | None) -> str | None:
    """Return the file of the CAs: the system's, not the ones that botocore comes with."""
    path = ca_file or SYSTEM_CERTIFICATES
    return str(path) if path.exists() else None


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
