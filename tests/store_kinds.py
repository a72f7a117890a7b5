"""Stores that differ from S3 in one thing each, and what the tool does with them.

All are the S3 server of the tests behind a proxy that answers some requests its own way. A command
succeeds and says nothing of it, unless `outcomes` has its exit status and what it says.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate

from dev.servers.fault_proxy import (
    Condition,
    Exchange,
    Fault,
    answers,
    passed,
    renaming,
    s3_error,
    without,
)
from dev.servers.loopback import Request

XML = {"Content-Type": "application/xml"}
METADATA = "x-amz-meta-ooni-export"
SESSION_TOKEN = "of-the-session"
REGION = "eu-south-1"
AHEAD = 3600  # seconds
NO_UPLOADS = (
    b'<?xml version="1.0"?><ListMultipartUploadsResult'
    b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket>'
    b"<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"
)
LIFECYCLE = "lifecycle rule AbortIncompleteMultipartUpload"
COMMANDS = ("doctor", "export", "backup", "verify", "prune")
Outcome = tuple[int, str]


@dataclass(frozen=True)
class Kind:
    """A kind of store.

    Attributes:
        name: what it does.
        rules: what is answered its own way, and when.
        outcomes: command → exit status and what it prints.
        config: keys of the configuration.
        versioned: whether its buckets keep versions.
    """

    name: str
    rules: tuple[tuple[Fault, Condition], ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    versioned: bool = False

    def outcome(self, command: str) -> Outcome:
        """Return the exit status of a command, and what it says."""
        return self.outcomes.get(command, (0, ""))

    @property
    def row(self) -> str:
        """The line of the table in the manual."""
        outcomes = [self.outcome(command) for command in COMMANDS]
        cells = [str(status or ("note" if text else "ok")) for status, text in outcomes]
        return f"{self.name:<42}{''.join(f'{cell:<8}' for cell in cells)}".rstrip()


def every(_request: Request) -> bool:
    return True


def is_batch(request: Request) -> bool:
    """Whether several objects are to be deleted at once."""
    return request.method == "POST" and request.target.endswith("?delete")


def is_listing_of_uploads(request: Request) -> bool:
    return request.method == "GET" and re.search(r"[?&]uploads\b", request.target) is not None


def is_completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId=" in request.target


def has_no_md5(request: Request) -> bool:
    return is_batch(request) and "Content-MD5" not in request.headers


def is_deletion(request: Request) -> bool:
    return is_batch(request) or (request.method == "DELETE" and "uploadId" not in request.target)


def is_abort(request: Request) -> bool:
    return request.method == "DELETE" and "uploadId" in request.target


def is_of_another_region(request: Request) -> bool:
    return f"/{REGION}/s3/" not in request.headers.get("Authorization", "")


def has_no_token(request: Request) -> bool:
    return request.headers.get("X-Amz-Security-Token") != SESSION_TOKEN


def without_etags(exchange: Exchange) -> None:
    """Name no version of anything, neither in headers nor in documents."""
    exchange.hidden += ["etag", "content-length"]
    with exchange.forwarded() as response:
        content = response.read()
        if "xml" in response.headers.get("Content-Type", ""):
            content = re.sub(rb"<ETag>.*?</ETag>", b"<ETag></ETag>", content)
        length = response.headers.get("Content-Length", "0")
        del response.headers["Content-Length"]
        size = length if exchange.request.method == "HEAD" else str(len(content))
        response.headers["content-length"] = size
        exchange.hidden.remove("content-length")
        exchange.pass_head(response)
        exchange.send(content)


def in_another_time(exchange: Exchange) -> None:
    """Refuse a request of a machine whose clock is an hour ahead."""
    headers = XML | {"Date": formatdate(time.time() - AHEAD, usegmt=True)}
    text = b"<Error><Code>RequestTimeTooSkewed</Code><Message>too far</Message></Error>"
    answers(403, text, headers)(exchange)


def now_and_then(fault: Fault) -> Fault:
    """Go wrong for two requests of three, so that few attempts are enough."""
    seen: list[None] = []

    def one(exchange: Exchange) -> None:
        seen.append(None)
        (passed if len(seen) % 3 == 0 else fault)(exchange)

    return one


def elsewhere(status: int, code: str) -> Fault:
    text = (
        f"<Error><Code>{code}</Code><Message>elsewhere</Message><Region>{REGION}</Region></Error>"
    )
    return answers(status, text.encode(), XML | {"x-amz-bucket-region": REGION})


def all_commands(status: int, text: str) -> dict[str, Outcome]:
    return dict.fromkeys(COMMANDS, (status, text))


NOT_LISTED = {
    "doctor": (0, LIFECYCLE),
    "export": (0, LIFECYCLE),
    "prune": (0, LIFECYCLE),
}
NOT_GRANTED = {
    "doctor": (0, LIFECYCLE),
    "export": (0, "grant s3:ListBucketMultipartUploads"),
    "prune": (0, "grant s3:ListBucketMultipartUploads"),
}
KINDS = (
    Kind("as S3 is"),
    Kind(
        "metadata names in another case",
        rules=((renaming(METADATA, "X-Amz-Meta-Ooni-Export"), every),),
    ),
    Kind(
        "no metadata",
        rules=((without(METADATA, passed), every),),
        outcomes={
            "doctor": (0, "the store keeps no metadata"),
            "verify": (0, "the store has no metadata of 2 objects"),
        },
    ),
    Kind("Content-MD5 is demanded", rules=((s3_error(400, "InvalidRequest"), has_no_md5),)),
    Kind(
        "DeleteObjects is refused",
        rules=((s3_error(403, "AccessDenied"), is_batch),),
    ),
    Kind(
        "DeleteObjects is not implemented",
        rules=((s3_error(501, "NotImplemented"), is_batch),),
    ),
    Kind(
        "deleting is refused",
        rules=((s3_error(403, "AccessDenied"), is_deletion),),
        outcomes={
            "doctor": (78, "grant it to these credentials: prune can't work, a run can"),
            "export": (0, "objects of pending exports stay"),
            "backup": (78, "the store says: ACCESS_DENIED"),
            "verify": (65, "no good backup exists"),
            "prune": (78, "AccessDenied"),
        },
    ),
    Kind(
        "uploads are not ended",
        rules=((s3_error(403, "AccessDenied"), is_abort),),
        outcomes={"doctor": (0, LIFECYCLE)},
    ),
    Kind(
        "uploads are not listed: not implemented",
        rules=((s3_error(501, "NotImplemented"), is_listing_of_uploads),),
        outcomes=NOT_LISTED,
    ),
    Kind(
        "uploads are not listed: not allowed",
        rules=((s3_error(403, "AccessDenied"), is_listing_of_uploads),),
        outcomes=NOT_GRANTED,
    ),
    Kind(
        "uploads are not listed: always empty",
        rules=((answers(200, NO_UPLOADS, XML), is_listing_of_uploads),),
        outcomes={"doctor": (0, "the store does not list uploads")},
    ),
    Kind(
        "old versions are kept",
        versioned=True,
        outcomes={
            "doctor": (0, "lifecycle rule NoncurrentVersionExpiration"),
            "prune": (0, "lifecycle rule NoncurrentVersionExpiration"),
        },
    ),
    Kind(
        "another region, which the store names",
        rules=((elsewhere(400, "AuthorizationHeaderMalformed"), is_of_another_region),),
    ),
    Kind(
        "another region, at another address",
        rules=((elsewhere(301, "PermanentRedirect"), every),),
        outcomes=all_commands(78, f'the bucket is in another region: set it to "{REGION}"'),
    ),
    Kind(
        "clocks an hour apart",
        rules=((in_another_time, every),),
        outcomes=all_commands(78, " s ahead of the store's clock; check its NTP"),
    ),
    Kind(
        "SlowDown now and then",
        rules=((now_and_then(s3_error(503, "SlowDown")), every),),
        config={"private_retries": 20},
    ),
    Kind(
        "SlowDown for ever",
        rules=((s3_error(503, "SlowDown"), every),),
        outcomes=all_commands(69, "the store asks for fewer requests"),
    ),
    Kind(
        "200 with an error inside",
        rules=((s3_error(200, "InternalError"), is_completion),),
        outcomes={
            "doctor": (69, "InternalError"),
            "export": (69, "InternalError"),
        },
    ),
    Kind(
        "200 with an error inside, once",
        rules=((now_and_then(s3_error(200, "InternalError")), is_completion),),
    ),
    Kind(
        "no ETags",
        rules=((without_etags, every),),
        outcomes={
            "doctor": (78, "the store names no ETag"),
            "backup": (78, "the store names no ETag"),
            "verify": (65, "no good backup exists"),
        },
    ),
    Kind(
        "the session token has expired",
        rules=((s3_error(400, "ExpiredToken"), has_no_token),),
        outcomes=all_commands(78, "ExpiredToken"),
    ),
)
