"""A server of the files of a folder, as a well-behaved upstream is.

    with SampleUpstream(folder) as upstream:
        fetch(upstream.url("fingerprints_dns.csv"))
        upstream.requests[0].status

A file can change at any time, best by renaming another one over it.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from dev.servers.loopback import Exchange, LoopbackServer
from dev.servers.misbehaving import body


class SampleUpstream(LoopbackServer):
    """A server of files; anything else is not found.

    Files get a strong ETag, of their content, and Last-Modified; conditional requests for what is
    unchanged are answered with 304.

    Args:
        folder: The files; they are read for each request.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def url(self, name: str = "") -> str:
        """Give the URL of a file, by its path below the folder."""
        return f"{self.address}/{quote(name)}"

    def answer(self, exchange: Exchange) -> None:
        """Send the file, unless the client has it."""
        path = self._folder / unquote(urlsplit(exchange.request.target).path).lstrip("/")
        if not path.is_file():
            exchange.answer(404)
            return
        content = path.read_bytes()
        # Not of size and time: two changes in one tick of the clock would look like none.
        etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
        changed = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
        body(content, etag=etag, last_modified=changed)(exchange)
