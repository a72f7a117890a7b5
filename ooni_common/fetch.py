"""Fetching a file over HTTP(S), or from a `file://` URL, whole or not at all."""

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from ooni_common.config import SecretUrl
from ooni_common.errors import ConfigError, DataRefused, Unavailable
from ooni_common.fetch_errors import (
    LONGEST_RETRY_AFTER,
    MayPass,
    NotFound,
    error_of_status,
    may_pass,
    reason_of,
)
from ooni_common.proxies import proxy_of
from ooni_common.tls import tls_context

log = logging.getLogger("ooni.fetch")

RECEIVED_AT_ONCE = 64 * 1024  # bytes read at a time
MOST_REDIRECTS = 5


class Sink(Protocol):
    """What a body is written into: an empty file opened for writing, or what can be used as one.

    Before another try it is taken back to its start and truncated.
    """

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""

    def seek(self, offset: int, /) -> object:
        """Go back to the start."""

    def truncate(self) -> object:
        """Forget what was written."""


class _Arrived(Exception):
    """The first bytes of a file have arrived."""


class _FirstBytes:
    """Takes the first bytes of a file, and no others."""

    def write(self, _data: bytes, /) -> None:
        """Stop the fetch."""
        raise _Arrived

    def seek(self, _offset: int, /) -> None:
        """Go back to the start, where it is."""

    def truncate(self) -> None:
        """Forget nothing."""


FIELD_VALUE = re.compile(r"[!-~\x80-\xff]([ -~\x80-\xff]*[!-~\x80-\xff])?")


class Validators(msgspec.Struct, frozen=True):
    """What a server said of the version of a file; sent back, it answers 304 if nothing changed."""

    etag: str = ""
    last_modified: str = ""

    def as_headers(self) -> dict[str, str]:
        """Return the headers of a conditional request, without what no header can have."""
        pairs = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in pairs.items() if FIELD_VALUE.fullmatch(value)}


@dataclass(frozen=True)
class Limits:
    """How much a fetch may take: bytes, and seconds.

    `total_time` bounds all tries together, `read_timeout` the silence of a server, `retries` the
    tries after the first; before the first of them `backoff` seconds pass, then twice as many.
    """

    max_bytes: int
    total_time: float = 600
    connect_timeout: float = 10
    read_timeout: float = 60
    retries: int = 4
    backoff: float = 1


class FetchKeys(Protocol):
    """The keys of a configuration that say how files are fetched."""

    @property
    def ca_file(self) -> Path | None:
        """A private CA, as a PEM file."""

    @property
    def total_time(self) -> float:
        """How many seconds all tries may take together."""

    @property
    def max_bytes(self) -> int:
        """How large a file may be."""


def configured_fetcher(user_agent: str, keys: FetchKeys, limits: Limits) -> "Fetcher":
    """Return a fetcher with the limits that a configuration has, and others where it has none.

    Raises:
        ConfigError: `ca_file` can't be used.
    """
    limits = replace(limits, max_bytes=keys.max_bytes, total_time=keys.total_time)
    return Fetcher(user_agent, limits, ca_file=keys.ca_file)


class Fetcher:
    """Fetches files as one user agent.

    `ca_file` adds a private CA to the system's. The proxy comes from the environment, see
    ooni_common/proxies.py.
    """

    def __init__(
        self,
        user_agent: str,
        limits: Limits,
        *,
        ca_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raise ConfigError when `ca_file` can't be used."""
        self._user_agent = user_agent
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._tls = tls_context(ca_file)

    def fetch(
        self, url: SecretUrl, into: Sink, validators: Validators | None = None
    ) -> Validators | None:
        """Write the file at `url` into `into`.

        Args:
            url: `https://`, `http://` or `file://`; user and password are sent as Basic auth.
            into: holds the whole body when this returns; rubbish when it raises.
            validators: of the version that the caller has.

        Returns:
            The validators of this version, or None: the caller's version is the current one.

        Raises:
            NotFound: 404 and 410.
            Forbidden: 403.
            Unavailable: any other failure of the server or the network, after the retries.
            DataRefused: the body is larger than allowed, or encoded though this was not asked for.
            ConfigError: the URL has another scheme, or the proxy in the environment is none.
            OSError: `into` can't be written.
        """
        scheme = urlsplit(url.reveal()).scheme
        if scheme == "file":
            return self._fetch_file(url, into, validators or Validators())
        if scheme in ("https", "http"):
            return self._fetch_http(url, into, validators or Validators())
        raise ConfigError(f"{url}: expected https://…, http://… or file://…")

    def reach(self, url: SecretUrl) -> None:
        """Ask for the file at `url`, and hang up when its first bytes arrive.

        Raises:
            NotFound, Unavailable, DataRefused, ConfigError: as `fetch`.
        """
        with contextlib.suppress(_Arrived):
            self.fetch(url, _FirstBytes())

    def _fetch_http(self, url: SecretUrl, into: Sink, validators: Validators) -> Validators | None:
        """Try until it works, the retries are used up or the time is over."""
        deadline = self._clock() + self._limits.total_time
        failures = 0
        while True:
            try:
                return self._try(url, into, validators, deadline)
            except MayPass as failure:
                wait = max(self._limits.backoff * 2**failures, failure.retry_after)
                failures += 1
                too_long = wait > LONGEST_RETRY_AFTER or self._clock() + wait > deadline
                if failures > self._limits.retries or too_long:
                    raise
                log.warning("%s; trying again in %g s", failure, wait)
            self._sleep(wait)
            into.seek(0)
            into.truncate()

    def _try(
        self, url: SecretUrl, into: Sink, validators: Validators, deadline: float
    ) -> Validators | None:
        """Make one request, and those to which it is redirected."""
        parts = urlsplit(url.reveal())
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        headers = self._headers(parts.username, parts.password, validators)
        try:
            for _ in range(MOST_REDIRECTS + 1):
                with self._requested(address, headers, deadline) as response:
                    location = response.get_redirect_location()
                    if not location:
                        return self._receive(url, response, into, validators, deadline)
                target = _redirected(url, address, location)
                if (target.scheme, target.netloc) != (address.scheme, address.netloc):
                    headers.pop("authorization", None)
                address = target
        except HTTPError as error:
            message = f"{url}: {reason_of(error)}"
            raise MayPass(message) if may_pass(error) else Unavailable(message) from None
        raise Unavailable(f"{url}: redirected more than {MOST_REDIRECTS} times")

    @contextlib.contextmanager
    def _requested(
        self, address: SplitResult, headers: dict[str, str], deadline: float
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        with self._pool(address) as pool:
            response = pool.request(
                "GET",
                address.geturl(),
                headers=headers,
                timeout=self._timeout(deadline),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            with contextlib.closing(response):
                yield response

    def _receive(
        self,
        url: SecretUrl,
        response: urllib3.BaseHTTPResponse,
        into: Sink,
        validators: Validators,
        deadline: float,
    ) -> Validators | None:
        if response.status == 304 and validators != Validators():
            return None
        if response.status != 200:
            raise error_of_status(url, response)
        headers = response.headers
        encoding = headers.get("Content-Encoding", "")
        if not _is_as_stored(encoding, url):
            raise DataRefused(
                f"{url}: sent with Content-Encoding {encoding!r}, which nobody asked for"
            )
        self._check_size(url, response.length_remaining or 0)
        received = 0
        # read1 returns what has arrived, so that a server that drips can't outlast the deadline.
        while piece := response.read1(RECEIVED_AT_ONCE, decode_content=False):
            received += len(piece)
            self._check_size(url, received)
            if self._clock() > deadline:
                raise Unavailable(f"{url}: took longer than {self._limits.total_time:g} s")
            into.write(piece)
        return Validators(headers.get("ETag", ""), headers.get("Last-Modified", ""))

    def _fetch_file(self, url: SecretUrl, into: Sink, validators: Validators) -> Validators | None:
        path = Path(unquote(urlsplit(url.reveal()).path))
        try:
            source = path.open("rb")
        except FileNotFoundError:
            raise NotFound(f"{url}: no such file") from None
        except OSError as error:
            raise Unavailable(f"{url}: {error.strerror}") from None
        with source:
            status = os.fstat(source.fileno())
            current = Validators(f'"{status.st_size}-{status.st_mtime_ns}"')
            if current == validators:
                return None
            received = 0
            while piece := source.read(RECEIVED_AT_ONCE):
                received += len(piece)
                self._check_size(url, received)
                into.write(piece)
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

    def _headers(
        self, user: str | None, password: str | None, validators: Validators
    ) -> dict[str, str]:
        headers = urllib3.make_headers(
            user_agent=self._user_agent,
            accept_encoding="identity",
            basic_auth=_basic_auth(user, password),
            basic_auth_encoding="utf-8",
        )
        return {**headers, **validators.as_headers()}

    def _pool(self, address: SplitResult) -> urllib3.PoolManager:
        proxy = proxy_of(address, os.environ)
        if proxy is None:
            return urllib3.PoolManager(ssl_context=self._tls)
        try:
            parts = urlsplit(proxy.url if "://" in proxy.url else f"http://{proxy.url}")
            headers = urllib3.make_headers(
                proxy_basic_auth=_basic_auth(parts.username, parts.password),
                proxy_basic_auth_encoding="utf-8",
            )
            return urllib3.ProxyManager(
                parts.geturl(), proxy_headers=headers, ssl_context=self._tls
            )
        except ValueError:
            raise ConfigError(
                f"{proxy.variable} in the environment: expected http://host:port"
            ) from None


def _basic_auth(user: str | None, password: str | None) -> str | None:
    return f"{unquote(user or '')}:{unquote(password or '')}" if user or password else None


def _redirected(url: SecretUrl, address: SplitResult, location: str) -> SplitResult:
    """Return where `address` redirects to; never from https to something that isn't."""
    try:
        target = urlsplit(urljoin(address.geturl(), location))
    except ValueError:
        raise Unavailable(f"{url}: redirected to something that isn't a URL") from None
    if target.scheme not in ("https", address.scheme):
        raise Unavailable(f"{url}: redirected from {address.scheme} to {target.scheme}")
    return target._replace(netloc=target.netloc.rpartition("@")[2])


def _is_as_stored(encoding: str, url: SecretUrl) -> bool:
    """Tell whether a body is the file itself; of a .gz file, a server may call that an encoding."""
    packed = ("gzip", "x-gzip") if is_gzip(url) else ()
    return encoding.lower() in ("", "identity", *packed)


def is_gzip(url: SecretUrl) -> bool:
    """Tell whether the file at a URL is gzip: the URL, or its path, ends in "gz"."""
    return url.reveal().endswith("gz") or urlsplit(url.reveal()).path.endswith("gz")
