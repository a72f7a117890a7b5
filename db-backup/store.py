"""The store: a bucket of S3, whose objects are complete or not there, and its manifests."""

import base64
import contextlib
import hashlib
import itertools
import logging
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta

from ooni_common import __version__
from ooni_common.config import Secret
from ooni_common.errors import ConfigError, DataRefused, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Digest = Annotated[str, Meta(pattern=r"^[0-9]{0,20}\Z")]  # of rows; "": there is none
AnyManifest = TypeVar("AnyManifest", bound=msgspec.Struct)

log = logging.getLogger("ooni.db_backup")

TOOL = f"ooni-db-backup {__version__}"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
SQL = "application/sql"
MOST_AT_ONCE = 1000  # keys that one request can delete
READ_SIZE = 1024 * 1024
LARGEST_DOCUMENT = 8 * 1024 * 1024  # bytes of a manifest, or of another object read as a whole
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
TOKEN = "ooni-export"  # noqa: S105 (the name of the metadata that tells one upload from another)
S3_CODES_OF_WRONG_CONFIG = {
    "403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "AuthorizationHeaderMalformed",
    "ExpiredToken", "InvalidAccessKeyId", "InvalidBucketName", "InvalidStorageClass",
    "InvalidToken", "NoSuchBucket", "PermanentRedirect",
    "SignatureDoesNotMatch",
}  # fmt: skip


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
        token: of the upload.
        encryption: with which it lies there, "AES256" or "aws:kms"; "" if the store does not say.
        etag: what it calls this version of the object.
        modified: when it was written, by the store's clock.
    """

    size: int
    token: str
    encryption: str = ""
    etag: str = ""
    modified: datetime | None = None


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

    Uploads in parts (uploads.py) use its `client`, and `target`, `creation` and `errors`.

    Raises, each method: ConfigError where the store lets nobody in; Unavailable for other failures,
    after boto3's own retries.
    """

    def __init__(self, store: Store, user_agent: str) -> None:
        self.client = _client(store, user_agent)
        self._name = store.bucket
        self._options = dict(store.options)

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

    def token(self, key: str) -> str | None:
        """Return the token of the upload that an object is from; None: there is no object."""
        head = self.look(key)
        return head.token if head else None

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
            return ObjectHead(
                size=answer["ContentLength"],
                token=answer["Metadata"].get(TOKEN, ""),
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

    def put_document(self, key: str, content: bytes, content_type: str) -> None:
        """Write an object that must be readable, and read it back.

        Raises:
            Unavailable: it is another one.
        """
        self.put(key, content, content_type)
        if self.get(key) != content:
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
        with self.errors(f"deleting {key}"):
            self.client.delete_object(**self.target(key))

    def delete_all(self, prefix: str) -> int:
        """Delete the objects whose keys start so; return how many there were."""
        count = 0
        keys = (listed.key for listed in self.listing(prefix))
        while batch := list(itertools.islice(keys, MOST_AT_ONCE)):
            with self.errors(f"deleting {prefix}"):
                answer = self.client.delete_objects(
                    Bucket=self._name,
                    Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True},
                )
                if refused := answer.get("Errors"):
                    details: Any = {"Error": refused[0]}
                    raise self.client.exceptions.ClientError(details, "DeleteObjects")
            count += len(batch)
        return count

    def time(self) -> float:
        """Return what time it is for the store, in Unix seconds."""
        with self.errors("asking for the time"):
            answer = self.client.list_objects_v2(Bucket=self._name, MaxKeys=1)
            stamp = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(stamp).timestamp()
        except ValueError:
            raise Unavailable(f"{self.url}: it does not say what time it is: {stamp!r}") from None

    def unfinished_uploads(self, prefix: str) -> list[tuple[str, str]]:
        """Return key and ID of the uploads that are not finished."""
        with self.errors("listing uploads that are not finished"):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._name, Prefix=prefix
            )
            uploads = [upload for page in pages for upload in page.get("Uploads", [])]
            return [(upload["Key"], upload["UploadId"]) for upload in uploads]

    def abort_uploads(self, prefix: str, *, exactly: bool = False) -> int:
        """End the uploads that nobody will finish; return how many there were.

        `exactly`: only those of the object whose key is the prefix.
        """
        uploads = [
            upload
            for upload in self.unfinished_uploads(prefix)
            if not exactly or upload[0] == prefix
        ]
        with self.errors("ending uploads that were interrupted"):
            for key, upload_id in uploads:
                self.client.abort_multipart_upload(**self.target(key), UploadId=upload_id)
        return len(uploads)

    def target(self, key: str) -> Any:  # noqa: ANN401 (keyword arguments for boto3's typed methods)
        """Return what names an object in a request."""
        return {"Bucket": self._name, "Key": key}

    def creation(self, content_type: str, token: str) -> Any:  # noqa: ANN401 (as above)
        """Return what is said of an object when it is made."""
        metadata = {"Metadata": {TOKEN: token}} if token else {}
        return {"ContentType": content_type} | metadata | self._options

    @contextlib.contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """Turn what boto3 raises in the block into an error that says what was being done."""
        from botocore import exceptions  # noqa: PLC0415 (--help must not wait for it)
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        where = f"{self.url}: {action}"
        try:
            yield
        except exceptions.ClientError as error:
            details = error.response.get("Error", {})
            code = str(details.get("Code", "unknown error"))
            message = f"{where}: {code}: {details.get('Message', '')}".rstrip(": ")
            if code in S3_CODES_OF_WRONG_CONFIG:
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
        ended = bucket.abort_uploads(prefix)
    except ConfigError as error:
        log.warning("%s; grant s3:ListBucketMultipartUploads, or they stay for ever", error)
        return
    if ended:
        log.warning("%d uploads of runs that were interrupted are aborted", ended)


def decoded_manifest(content: bytes, kind: type[AnyManifest], where: str) -> AnyManifest:
    """Return a manifest as it was read.

    Args:
        content: of the object.
        kind: of manifest.
        where: it was, for the message.

    Raises:
        DataRefused: it is damaged.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError:
        raise DataRefused(f"{where} damaged: it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataRefused(f"{where} damaged: {error}") from None


def encoded(manifest: msgspec.Struct, key: str) -> bytes:
    """Return a manifest as JSON that can be read back, laid out for people if that is not too much.

    Args:
        manifest: of any kind.
        key: under which it will be written.

    Raises:
        DataRefused: it can't, so that it must not be written.
    """
    content = msgspec.json.encode(manifest)
    laid_out = msgspec.json.format(content) + b"\n"
    content = laid_out if len(laid_out) <= LARGEST_DOCUMENT else content
    if len(content) > LARGEST_DOCUMENT:
        raise DataRefused(
            f"{key}: not written: it would have {len(content):,} bytes, more than the"
            f" {LARGEST_DOCUMENT:,} that are read back; divide the table into fewer chunks"
        )
    try:
        same = msgspec.json.decode(content, type=type(manifest)) == manifest
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataRefused(f"{key}: not written: it could not be read back: {error}") from None
    if not same:
        raise DataRefused(f"{key}: not written: it would be read back as another one")
    return content


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


def content_md5(data: bytes) -> str:
    """Return the header Content-MD5 of a request with this body."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
