"""The store's address and credentials, and boto3's client of it."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from ooni_common.config import Secret
from ooni_common.errors import ConfigError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Addressing = Literal["", "path", "virtual"]

SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MOST_CONNECTIONS = 100  # that are kept; more than there are jobs, or urllib3 warns of each
CHINA = "cn-"  # how regions begin that have a domain of their own
SENDS_MD5 = "before-call.s3.DeleteObjects"


@dataclass(frozen=True)
class Store:
    """Where a bucket is, and how objects are put there.

    Attributes:
        bucket: its name.
        endpoint: of another provider than AWS, or "".
        region: or "".
        addressing: whether the bucket is in the path of an address, or in the name of the host;
            "": the path, where there is an endpoint, else what the name of the bucket allows.
        key_id: with `key`; without them, boto3 looks where it always does.
        key: the secret one.
        session_token: of keys that are valid for some time only, or "".
        ca_file: of a private CA, in the place of the system's.
        options: storage class and encryption, as boto3 calls them.
    """

    bucket: str
    endpoint: str = ""
    region: str = ""
    addressing: Addressing = ""
    key_id: Secret = field(default_factory=lambda: Secret(""))
    key: Secret = field(default_factory=lambda: Secret(""))
    session_token: Secret = field(default_factory=lambda: Secret(""))
    ca_file: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def url_of(store: Store) -> str:
    """Return the address of a bucket, with a slash at its end, for the database's server."""
    endpoint, style = store.endpoint.rstrip("/"), store.addressing
    if not endpoint:
        region = f".{store.region}" if store.region else ""
        domain = "amazonaws.com.cn" if store.region.startswith(CHINA) else "amazonaws.com"
        endpoint = f"https://s3{region}.{domain}"
        # The certificate is for one name before the domain: one with dots does not fit.
        style = style or ("path" if "." in store.bucket else "virtual")
    if style != "virtual":
        return f"{endpoint}/{store.bucket}/"
    parts = urlsplit(endpoint)
    return parts._replace(netloc=f"{store.bucket}.{parts.netloc}").geturl() + "/"


def client_of(store: Store, user_agent: str) -> "S3Client":
    """Return a client; it connects at its first request.

    Raises:
        ConfigError: endpoint or region is none.
    """
    import boto3.session  # noqa: PLC0415 (--help must not wait for it)
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=store.endpoint or None,
            region_name=store.region or None,
            aws_access_key_id=store.key_id.reveal() or None,
            aws_secret_access_key=store.key.reveal() or None,
            aws_session_token=store.session_token.reveal() or None,
            verify=_certificates(store.ca_file),
            config=Config(
                user_agent_extra=user_agent.partition(" ")[0],
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=MOST_CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": 6},
                # Content-MD5 does the same, and other providers know it, too.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": store.addressing or ("path" if store.endpoint else "auto")},
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"s3://{store.bucket}: {error}") from None
    client.meta.events.register(SENDS_MD5, _with_md5)
    return client


def content_md5(data: bytes) -> str:
    """Return the header Content-MD5 of a request with this body."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _with_md5(params: dict[str, Any], **_others: object) -> None:
    """Send Content-MD5 in the place of the CRC that boto3 has, which only newer stores take."""
    params["context"].pop("checksum", None)
    params["headers"]["Content-MD5"] = content_md5(params["body"])


def _certificates(ca_file: Path | None) -> str | None:
    """Return the file of the CAs: the system's, not the ones that botocore comes with."""
    path = ca_file or SYSTEM_CERTIFICATES
    return str(path) if path.exists() else None
