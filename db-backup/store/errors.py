"""What a store's error code means to the operator: the kind of error, and what to do."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ooni_common.errors import ConfigError, ScriptError, Unavailable

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

MOST_SKEW = 15 * 60  # seconds that a store lets a clock be wrong

GRANT = "grant it to these credentials"
LOGIN = "check the key ID and the secret key"
FRESH_TOKEN = "put a fresh session token in the configuration"  # noqa: S105 (not a secret)
REGION = "the bucket is elsewhere: set its region, and the endpoint if it has one of its own"
ADDRESSING = 'the store wants the bucket in the name of the host: addressing = "virtual"'
SLOWER = "the store asks for fewer requests; a later run goes on where this one stopped"
LACKING = "this store does not have such a request"


class Denied(ConfigError):
    """These credentials may not do it."""


class Unsupported(Denied):
    """Nobody may do it: the store does not have such a request."""


class Rule(NamedTuple):
    """What to do about codes.

    Attributes:
        kind: of the error.
        advice: a half sentence; "" where the code says it all.
        codes: of the store. A HEAD has no body, so that its status stands for a code.
    """

    kind: type[ScriptError]
    advice: str
    codes: tuple[str, ...]


RULES = (
    Rule(Denied, GRANT, ("403", "AccessDenied", "AllAccessDisabled", "AccountProblem")),
    Rule(ConfigError, LOGIN, ("InvalidAccessKeyId", "SignatureDoesNotMatch")),
    Rule(ConfigError, FRESH_TOKEN, ("ExpiredToken", "InvalidToken")),
    Rule(
        ConfigError,
        REGION,
        (
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "PermanentRedirect",
            "TemporaryRedirect",
            "301",
            "307",
        ),
    ),
    Rule(
        ConfigError,
        ADDRESSING,
        ("PathStyleDomainForbidden", "SecondLevelDomainForbidden", "VirtualHostDomainRequired"),
    ),
    Rule(ConfigError, "check its NTP", ("RequestTimeTooSkewed",)),
    Rule(ConfigError, "create it, or name another one", ("NoSuchBucket",)),
    Rule(ConfigError, "", ("InvalidBucketName", "InvalidStorageClass")),
    Rule(
        Unsupported,
        LACKING,
        ("NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "405", "501"),
    ),
    Rule(
        Unavailable,
        SLOWER,
        ("SlowDown", "Throttling", "TooManyRequests", "RequestLimitExceeded", "429"),
    ),
)
# What the server reports of these is a matter of configuration, too.
S3_CODES_OF_WRONG_CONFIG = {
    code
    for rule in RULES
    if rule.kind in (ConfigError, Denied)
    for code in rule.codes
    if code.isalpha()
} | {"403"}
CLOCK = "RequestTimeTooSkewed"
# So a store can also call a request that is too old or too new.
PERHAPS_THE_CLOCK = {CLOCK, "403", "AccessDenied", "SignatureDoesNotMatch", "RequestExpired"}


def meaning_of(response: Mapping[str, Any], where: str, now: float) -> ScriptError:
    """Return what an answer of the store means to the operator.

    Args:
        response: as boto3 has it in its ClientError.
        where: what was being done, with which bucket.
        now: the time of this machine, Unix seconds.
    """
    details = response.get("Error", {})
    code = str(details.get("Code", "unknown error"))
    message = f"{where}: {code}: {details.get('Message', '')}".rstrip(": ")
    seconds = _ahead(response, now) if code in PERHAPS_THE_CLOCK else 0
    if abs(seconds) > MOST_SKEW or (code == CLOCK and seconds):
        direction = "ahead of" if seconds > 0 else "behind"
        return ConfigError(
            f"{message}; this machine is {abs(seconds):,.0f} s {direction} the store's clock; check"
            " its NTP"
        )
    rule = next((rule for rule in RULES if code in rule.codes), Rule(Unavailable, "", ()))
    if rule.advice == REGION and (region := _region(response)):
        return ConfigError(f'{message}; the bucket is in another region: set it to "{region}"')
    return rule.kind(f"{message}; {rule.advice}" if rule.advice else message)


def is_refused(error: "ClientError") -> bool:
    """Tell whether the store won't take such a request, however often it is sent."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status == 501 or (400 <= status < 500 and status not in (408, 429))


def _ahead(response: Mapping[str, Any], now: float) -> float:
    """Return how many seconds this machine is ahead of the store; 0 where it does not say."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return now - parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return 0


def _region(response: Mapping[str, Any]) -> str:
    """Return the region that the store names; "" for none."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(response["Error"].get("Region") or headers.get("x-amz-bucket-region", ""))


@contextlib.contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turn what boto3 raises in the block into an error that says what was being done.

    Args:
        where: that, with which bucket.
    """
    from botocore import exceptions  # noqa: PLC0415 (--help must not wait for it)
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        yield
    except exceptions.ClientError as error:
        raise meaning_of(error.response, where, time.time()) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise ConfigError(f"{where}: no credentials are configured") from None
    except exceptions.ParamValidationError as error:
        reason = " ".join(str(error).partition("\n")[2].split())
        raise ConfigError(f"{where}: {reason}") from None
    except (exceptions.BotoCoreError, exceptions.HTTPClientError, HTTPError) as error:
        raise Unavailable(f"{where}: {type(error).__name__}{_address(error)}") from None


def _address(error: Exception) -> str:
    """Return which address an error is about; without its path, which may say more."""
    address = getattr(error, "kwargs", {}).get("endpoint_url")
    if not address:
        return ""
    parts = urlsplit(str(address))
    host = parts.netloc.rpartition("@")[2]
    return f": {parts.scheme}://{host} does not answer as a store does; check the endpoint"
