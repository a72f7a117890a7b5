"""Answers that ClickHouse begins with headers of its progress, so that no proxy takes it for dead.

While a query has no rows yet, the server sends a header of its progress now and then. Of these
Python would take a hundred and refuse the answer; here they are dropped as they come.
"""

import http.client
from typing import IO, Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

SECONDS = 40  # between two headers; proxies cut after 50 or 60 seconds of silence
PROGRESS_SETTINGS = {
    "send_progress_in_http_headers": 1,
    "http_headers_progress_interval_ms": SECONDS * 1000,
}
PROGRESS = b"x-clickhouse-progress:"


class _WithoutProgress:
    """The lines of an answer's head, but for those of progress."""

    def __init__(self, lines: IO[bytes]) -> None:
        self._lines = lines

    def readline(self, size: int = -1) -> bytes:
        """Return the next line."""
        while True:
            line = self._lines.readline(size)
            if not line.lower().startswith(PROGRESS):
                return line

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (of several types)
        return getattr(self._lines, name)


class _Response(http.client.HTTPResponse):
    """An answer whose head can have any number of headers of progress."""

    def begin(self) -> None:
        """Read the head."""
        lines: Any = self.fp
        self.fp: Any = _WithoutProgress(lines)
        try:
            super().begin()
        finally:
            if isinstance(self.fp, _WithoutProgress):
                self.fp = lines


class _HTTPConnection(HTTPConnection):
    response_class = _Response


class _HTTPSConnection(HTTPSConnection):
    response_class = _Response


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def pool_manager(**keywords: Any) -> PoolManager:  # noqa: ANN401 (urllib3's own)
    """Return a pool of connections, made with urllib3's keywords, that takes such answers."""
    pool = PoolManager(**keywords)
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool
