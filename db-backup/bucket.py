"""A bucket of S3: objects that are complete or not there."""

import base64
import contextlib
import hashlib
import itertools
import logging
import queue
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ooni_common.config import Secret
from ooni_common.errors import ConfigError, DataRefused, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger("ooni.db_backup")

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
CLOSING_TIME = 5  # seconds that an abort waits for the part that is on its way


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
            return parsedate_to_datetime(stamp).timestamp()

    def leftovers(self, prefix: str) -> list[tuple[str, str]]:
        """Return key and ID of the uploads that are not finished."""
        with self._errors("listing uploads that are not finished"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._name, Prefix=prefix
            )
            uploads = [upload for page in pages for upload in page.get("Uploads", [])]
            return [(upload["Key"], upload["UploadId"]) for upload in uploads]

    def abort_leftovers(self, prefix: str) -> int:
        """End the uploads that nobody will finish; return how many there were."""
        leftovers = self.leftovers(prefix)
        with self._errors("ending uploads that were interrupted"):
            for key, upload_id in leftovers:
                self._client.abort_multipart_upload(**self._target(key), UploadId=upload_id)
        return len(leftovers)

    @contextlib.contextmanager
    def upload(self, key: str, content_type: str, token: str) -> Iterator["Upload"]:
        """Give an upload; unless it is published within the block, nothing is left of it."""
        upload = Upload(self, key, content_type, token)
        try:
            yield upload
        except BaseException:
            upload.abort()
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


class Upload:
    """One object that is being written: first sent, in parts, then published at once."""

    def __init__(self, bucket: Bucket, key: str, content_type: str, token: str) -> None:
        self._bucket = bucket
        self._client = bucket._client  # noqa: SLF001 (its other half)
        self._target = bucket._target(key)  # noqa: SLF001
        self._creation = bucket._creation(content_type, token)  # noqa: SLF001
        self._action = f"uploading {key}"
        self._content_type = content_type
        self._token = token
        self.key = key
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self._size = 0
        self._id = ""
        self._sender: _Sender | None = None

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
        if self._sender:
            if self._buffer:
                self._send(bytes(self._buffer))
                self._buffer.clear()
            with self._bucket._errors(self._action):  # noqa: SLF001
                self._sender.finish()
        return Written(self._size, self._hash.hexdigest())

    def publish(self) -> None:
        """Make the object visible, in the place of the one that was there."""
        if not self._sender:
            self._bucket.put(self.key, bytes(self._buffer), self._content_type, self._token)
            return
        with self._bucket._errors(self._action):  # noqa: SLF001
            try:
                self._client.complete_multipart_upload(
                    **self._target,
                    UploadId=self._id,
                    MultipartUpload={"Parts": cast("Any", self._sender.parts)},
                )
            except self._client.exceptions.NoSuchUpload:
                # An answer was lost, and boto3 has asked once more.
                if self._bucket.token(self.key) != self._token:
                    raise

    def abort(self) -> None:
        """Forget what was sent."""
        if not self._sender:
            return
        self._sender.stop()
        # What can't be ended now is ended by the next run; the failure that led here counts.
        with (
            contextlib.suppress(Unavailable, ConfigError),
            self._bucket._errors(self._action),  # noqa: SLF001
        ):
            self._client.abort_multipart_upload(**self._target, UploadId=self._id)

    def begin(self) -> "_Sender":
        """Tell the store that parts will come; return what sends them."""
        with self._bucket._errors(self._action):  # noqa: SLF001
            created = self._client.create_multipart_upload(**self._target, **self._creation)
            self._id = created["UploadId"]
        self._sender = _Sender(self._client, self._target, self._id)
        return self._sender

    def _send(self, part: bytes) -> None:
        sender = self._sender or self.begin()
        if len(sender.parts) >= MOST_PARTS - 2:
            limit = PART * MOST_PARTS // 10**9
            raise DataRefused(f"{self.key}: more than {limit} GB; use smaller chunks")
        with self._bucket._errors(self._action):  # noqa: SLF001
            sender.send(part)


class _Sender:
    """Sends the parts in a thread, one after the other, while the next one is made."""

    def __init__(self, client: "S3Client", target: Any, upload_id: str) -> None:  # noqa: ANN401
        self.parts: list[dict[str, Any]] = []
        self._client = client
        self._target = target
        self._id = upload_id
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        # A daemon: a stop must not wait for a store that does not answer.
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    def send(self, part: bytes | None) -> None:
        """Hand over a part; wait while another one waits."""
        self._queue.put(part)
        if self._error:
            raise self._error

    def finish(self) -> None:
        """Wait until all parts have arrived."""
        self.send(None)
        self._thread.join()
        if self._error:
            raise self._error

    def stop(self) -> None:
        """Send nothing more."""
        self._error = self._error or InterruptedError()
        with contextlib.suppress(queue.Empty):
            self._queue.get_nowait()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(CLOSING_TIME)

    def _run(self) -> None:
        while (part := self._queue.get()) is not None:
            if self._error:
                continue
            number = len(self.parts) + 1
            try:
                sent = self._client.upload_part(
                    **self._target,
                    UploadId=self._id,
                    PartNumber=number,
                    Body=part,
                    ContentMD5=_md5(part),
                )
            except Exception as error:  # noqa: BLE001 (raised in the thread that waits for it)
                self._error = error
            else:
                self.parts.append({"ETag": sent["ETag"], "PartNumber": number})


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
    if ca_file and not ca_file.is_file():
        raise ConfigError(f"public_ca_file {ca_file}: no such file")
    path = ca_file or SYSTEM_CERTIFICATES
    return str(path) if path.exists() else None


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
