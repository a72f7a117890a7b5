"""Fetching a file over HTTP(S), or from a `file://` URL, whole or not at all."""

import logging
import os
import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import msgspec
import urllib3
from urllib3.exceptions import (
    HTTPError,
    IncompleteRead,
    MaxRetryError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from ooni_common.config import SecretUrl
from ooni_common.errors import ConfigError, DataRefused, Unavailable

log = logging.getLogger("ooni.fetch")

PIECE = 64 * 1024  # bytes read at a time
RETRIED_STATUSES = (429, 500, 502, 503, 504)
LONGEST_RETRY_AFTER = 120  # seconds; a server that wants more is tried again by the timer


class NotFound(Unavailable):
    """The server has no such file (404 or 410)."""


class Validators(msgspec.Struct, frozen=True):
    """What a server said of the version of a file; sent back, it answers 304 if nothing changed."""

    etag: str = ""
    last_modified: str = ""

    def as_headers(self) -> dict[str, str]:
        """Return the headers of a conditional request."""
        pairs = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in pairs.items() if value}


@dataclass(frozen=True)
class Limits:
    """How much a fetch may take: bytes, and seconds."""

    max_bytes: int
    total_time: float = 600
    connect_timeout: float = 10
    read_timeout: float = 60
    retries: int = 4
    backoff: float = 1


class Fetcher:
    """Fetches files as one user agent.

    `ca_file` adds a private CA to the system's. Proxies come from the environment, as with curl.
    """

    def __init__(
        self,
        user_agent: str,
        limits: Limits,
        *,
        ca_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raise ConfigError when `ca_file` can't be used."""
        self._user_agent = user_agent
        self._limits = limits
        self._clock = clock
        self._tls = _tls_context(ca_file)

    def fetch(
        self, url: SecretUrl, into: BinaryIO, validators: Validators | None = None
    ) -> Validators | None:
        """Write the file at `url` into `into`, an empty file opened for writing and seeking.

        Args:
            url: `https://`, `http://` or `file://`; user and password are sent as Basic auth.
            into: holds the whole body when this returns; rubbish when it raises.
            validators: of the version that the caller has.

        Returns:
            The validators of this version, or None: the caller's version is the current one.

        Raises:
            NotFound: 404 and 410.
            Unavailable: any other failure of the server or the network, after the retries.
            DataRefused: the body is larger than allowed, or encoded though this was not asked for.
        """
        validators = validators or Validators()
        if urlsplit(url.reveal()).scheme == "file":
            return self._fetch_file(url, into, validators)
        deadline = self._clock() + self._limits.total_time
        try:
            return self._fetch_http(url, into, validators, deadline)
        except (HTTPError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, TimeoutError | ssl.SSLError):
                raise  # the local disk, not the network
            raise Unavailable(f"{url}: {_reason(error)}") from None

    def _fetch_http(
        self, url: SecretUrl, into: BinaryIO, validators: Validators, deadline: float
    ) -> Validators | None:
        parts = urlsplit(url.reveal())
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        retries = self._retry_policy()
        with self._pool(parts.scheme, parts.hostname or "") as pool:
            while True:
                response = pool.request(
                    "GET",
                    address,
                    headers=self._headers(parts.username, parts.password, validators),
                    timeout=self._timeout(deadline),
                    retries=retries,
                    preload_content=False,
                )
                try:
                    return self._receive(url, response, into, deadline)
                except (ProtocolError, ReadTimeoutError) as error:
                    retries = (response.retries or retries).increment("GET", None, error=error)
                    log.warning("%s: %s; trying again", url, _reason(error))
                    retries.sleep()
                    into.seek(0)
                    into.truncate()
                finally:
                    response.close()

    def _receive(
        self,
        url: SecretUrl,
        response: urllib3.BaseHTTPResponse,
        into: BinaryIO,
        deadline: float,
    ) -> Validators | None:
        if response.status == 304:
            return None
        if response.status in (404, 410):
            raise NotFound(f"{url}: HTTP {response.status}")
        if response.status != 200:
            raise Unavailable(f"{url}: HTTP {response.status} {response.reason or ''}".rstrip())
        headers = response.headers
        if encoding := headers.get("Content-Encoding", "").replace("identity", ""):
            raise DataRefused(
                f"{url}: sent with Content-Encoding {encoding!r}, which nobody asked for"
            )
        received = 0
        # read1 returns what has arrived, so that a server that drips can't outlast the deadline.
        while piece := response.read1(PIECE, decode_content=False):
            received += len(piece)
            self._check_size(url, received)
            if self._clock() > deadline:
                raise Unavailable(f"{url}: took longer than {self._limits.total_time:g} s")
            into.write(piece)
        return Validators(headers.get("ETag", ""), headers.get("Last-Modified", ""))

    def _fetch_file(
        self, url: SecretUrl, into: BinaryIO, validators: Validators
    ) -> Validators | None:
        path = Path(unquote(urlsplit(url.reveal()).path))
        try:
            with path.open("rb") as source:
                status = os.fstat(source.fileno())
                current = Validators(f'"{status.st_size}-{status.st_mtime_ns}"')
                if current == validators:
                    return None
                self._check_size(url, status.st_size)
                while piece := source.read(PIECE):
                    into.write(piece)
        except FileNotFoundError:
            raise NotFound(f"{url}: no such file") from None
        except (PermissionError, IsADirectoryError) as error:
            raise Unavailable(f"{url}: {error.strerror}") from None
        return current

    def _check_size(self, url: SecretUrl, size: int) -> None:
        if size > self._limits.max_bytes:
            raise DataRefused(f"{url}: larger than {self._limits.max_bytes:,} bytes")

    def _timeout(self, deadline: float) -> urllib3.Timeout:
        left = max(deadline - self._clock(), 0.001)
        return urllib3.Timeout(
            connect=min(self._limits.connect_timeout, left),
            read=min(self._limits.read_timeout, left),
        )

    def _retry_policy(self) -> urllib3.Retry:
        return urllib3.Retry(
            total=self._limits.retries,
            redirect=5,
            backoff_factor=self._limits.backoff,
            backoff_jitter=self._limits.backoff / 4,
            status_forcelist=RETRIED_STATUSES,
            retry_after_max=LONGEST_RETRY_AFTER,
        )

    def _headers(
        self, user: str | None, password: str | None, validators: Validators
    ) -> Mapping[str, str]:
        headers = urllib3.make_headers(
            user_agent=self._user_agent,
            accept_encoding="identity",
            basic_auth=f"{unquote(user)}:{unquote(password or '')}" if user else None,
        )
        return {**headers, **validators.as_headers()}

    def _pool(self, scheme: str, host: str) -> urllib3.PoolManager:
        proxy = urllib.request.getproxies().get(scheme)
        if proxy and not urllib.request.proxy_bypass(host):
            return urllib3.ProxyManager(proxy, ssl_context=self._tls)
        return urllib3.PoolManager(ssl_context=self._tls)


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise ConfigError(f"ca_file {ca_file}: {error.strerror or error}") from None
    return context


def _reason(error: BaseException) -> str:
    """Say what went wrong without urllib3's wrapping, which repeats the URL and its secrets."""
    if isinstance(error, MaxRetryError) and error.reason:
        return _reason(error.reason)
    if isinstance(error, SSLError) and error.args and isinstance(error.args[0], Exception):
        return f"TLS: {error.args[0]}"
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return "the server sent nothing for too long"
    if isinstance(error, IncompleteRead) or isinstance(error.__cause__, IncompleteRead):
        return "the body ended too early"
    if isinstance(error, ProtocolError):
        return "the connection broke"
    return str(error).rpartition(": ")[2] or type(error).__name__
