"""What goes wrong with a fetch: errors typed by what comes of them, and causes in words."""

import ssl
from http.client import HTTPException, IncompleteRead, RemoteDisconnected, responses

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from ooni_common.config import SecretUrl
from ooni_common.errors import Unavailable

RETRIED_STATUSES = (429, 500, 502, 503, 504)
LONGEST_RETRY_AFTER = 120  # seconds; a server that wants more is left to the next run

REASONS = (  # the first that fits; {} is the cause
    (ProxyError, "the proxy: {}"),
    (NameResolutionError, "the host's name can't be resolved"),
    (NewConnectionError, "can't connect: {}"),
    (ConnectTimeoutError, "can't connect: no answer in time"),
    (ReadTimeoutError, "the server sent nothing for too long"),
    (SSLError, "TLS: {}"),
    (ProtocolError, "the connection broke: {}"),
    (LocationValueError, "not a valid URL"),
    (IncompleteRead, "the body ended too early"),
    (RemoteDisconnected, "closed without an answer"),
    (HTTPException, "the answer is not HTTP"),
)


class NotFound(Unavailable):
    """The server has no such file (404 or 410)."""


class Forbidden(Unavailable):
    """The server answers 403: this client may not have the file, or there is none."""


class MayPass(Unavailable):
    """A failure that another try, after so many seconds, may not meet."""

    def __init__(self, message: str, retry_after: float = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def error_of_status(url: SecretUrl, response: urllib3.BaseHTTPResponse) -> Unavailable:
    """Return the error that a status means: permanent, or worth another try."""
    message = f"{url}: HTTP {response.status} {responses.get(response.status, '')}".rstrip()
    if response.status in (404, 410):
        return NotFound(message)
    if response.status == 403:
        return Forbidden(message)
    if response.status not in RETRIED_STATUSES:
        return Unavailable(message)
    try:
        retry_after = urllib3.Retry().get_retry_after(response) or 0
    except InvalidHeader:
        retry_after = 0
    if retry_after > LONGEST_RETRY_AFTER:
        message += f"; it asks to wait for {retry_after:.0f} s"
    return MayPass(message, retry_after)


def may_pass(error: HTTPError) -> bool:
    """Tell whether another try can help; it can't with a wrong URL or a wrong certificate."""
    wrong_certificate = isinstance(_cause(error), ssl.SSLCertVerificationError)
    return not wrong_certificate and not isinstance(error, LocationValueError)


def reason_of(error: BaseException) -> str:
    """Say what went wrong without urllib3's wrapping, which repeats the URL and its secrets."""
    cause = _cause(error)
    text = next((text for kind, text in REASONS if isinstance(error, kind)), "{}")
    return text.format(_in_words(error) if cause is error else reason_of(cause))


def _cause(error: BaseException) -> BaseException:
    """Return the error that urllib3 has wrapped, or else `error`."""
    wrapped = [part for part in error.args if isinstance(part, BaseException)]
    return error.__cause__ or (wrapped[-1] if wrapped else error)


def _in_words(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"the certificate is refused: {error.verify_message.rstrip('.')}"
        case ssl.SSLError(reason=str(reason)):
            return reason.lower().replace("_", " ")
        case OSError():
            return error.strerror or str(error)
    return type(error).__name__
