"""Downloading the databases: from where, into which file, and which version it is.

They are unpacked while they arrive.
"""

import logging
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from installation import digest_of
from mmdb import DatabaseKind
from ooni_common.config import SecretUrl
from ooni_common.errors import DataRefused
from ooni_common.fetch import Fetcher, Validators, is_gzip

log = logging.getLogger("ooni.geoip")

GZIP_WINDOW = 16 + zlib.MAX_WBITS
UNPACKED_AT_ONCE = 256 * 1024  # bytes


class Loaded(msgspec.Struct, frozen=True):
    """Where an installed database came from, kept in the state directory.

    Attributes:
        url: what it is known by, see `SecretUrl.identity`.
        sha256: of the installed file.
        validators: what the server said of it.
        put_away: the SHA-256 of what was rolled back, which upstream may still have; "": none.
    """

    url: str = ""
    sha256: str = ""
    validators: Validators = Validators()
    put_away: str = ""


@dataclass(frozen=True)
class DatabaseSource:
    """A database to install: what it is, where it comes from, and what file it becomes."""

    kind: DatabaseKind
    url: SecretUrl
    file: str
    wanted_type: str

    @property
    def dated(self) -> bool:
        """Whether each month has an address of its own."""
        return "{month}" in self.url.reveal()

    def of(self, month: str) -> "DatabaseSource":
        """Return the source of a month, YYYY-MM."""
        year, _, number = month.partition("-")
        url = self.url.reveal().replace("{year}", year).replace("{month}", number)
        return replace(self, url=SecretUrl(url))


def download(
    fetcher: Fetcher, source: DatabaseSource, path: Path, at_hand: Loaded, *, max_size: int
) -> Loaded:
    """Download and unpack a database unless it is what the caller has, or has put away.

    Args:
        fetcher: downloads it.
        source: which.
        path: where to put it; nothing may be there.
        at_hand: what the caller has.
        max_size: of the unpacked database, in bytes.

    Returns:
        What is at hand afterwards. If its digest is that of `at_hand`, `path` was deleted.

    Raises:
        NotFound, Forbidden, Unavailable, DataRefused: as `Fetcher.fetch`; it can't be unpacked.
    """
    validators = at_hand.validators if at_hand.url == source.url.identity else None
    with path.open("xb") as file:
        unpacker = Unpacker(file, source.url, max_size)
        current = fetcher.fetch(source.url, unpacker, validators)
        if current is not None:
            unpacker.finish()
    if current is None:
        log.info("%s: not modified", source.url)
        path.unlink()
        return at_hand
    digest = digest_of(path)
    if digest in (at_hand.sha256, at_hand.put_away):
        same = digest == at_hand.sha256
        what = "the same bytes as before" if same else "the bytes that were rolled back"
        log.info("%s: %s", source.url, what)
        path.unlink()
        return msgspec.structs.replace(at_hand, url=source.url.identity, validators=current)
    log.info("fetched %s: %s bytes unpacked", source.url, f"{path.stat().st_size:,}")
    return Loaded(source.url.identity, digest, current)


class Unpacker:
    """Takes the bytes of a download, and writes into a file what was packed in them.

    It can be used like an empty file, as `Fetcher.fetch` does: a new try begins at the start.
    """

    def __init__(self, file: BinaryIO, url: SecretUrl, max_size: int) -> None:
        """Unpack into `file` at most `max_size` bytes, as `is_gzip` says of the `url`."""
        self._file = file
        self._url = str(url)
        self._compressed = is_gzip(url)
        self._max_size = max_size
        self._start()

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            DataRefused: they aren't gzip, or too many after decompression.
            OSError: the file can't be written.
        """
        if not self._compressed:
            self._put(data)
        while self._compressed and data:
            data = self._decompress(data)

    def seek(self, offset: int) -> None:
        """Go back to the start; no other offset is possible."""
        self._file.seek(offset)
        self._start()

    def truncate(self) -> None:
        """Forget what was written."""
        self._file.truncate()

    def finish(self) -> None:
        """Check that nothing is missing at the end.

        Raises:
            DataRefused: something is.
        """
        if self._compressed and not self._gzip.eof:
            raise DataRefused(f"{self._url}: the gzip data is cut off")
        self._file.flush()

    def _start(self) -> None:
        self._gzip = zlib.decompressobj(GZIP_WINDOW)
        self._size = 0

    def _decompress(self, data: bytes) -> bytes:
        """Decompress a piece; return what is left of `data`."""
        if self._gzip.eof:
            if not data.startswith(b"\x1f\x8b"[: len(data)]):
                raise DataRefused(f"{self._url}: something else follows the gzip data")
            self._gzip = zlib.decompressobj(GZIP_WINDOW)
        try:
            self._put(self._gzip.decompress(data, UNPACKED_AT_ONCE))
        except zlib.error as error:
            is_gzip = "incorrect header" not in str(error)
            fault = "unreadable gzip data" if is_gzip else "no gzip data"
            raise DataRefused(f"{self._url}: {fault} ({error})") from None
        return self._gzip.unused_data if self._gzip.eof else self._gzip.unconsumed_tail

    def _put(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._max_size:
            raise DataRefused(
                f"{self._url}: larger than max_size, {self._max_size:,} bytes, once unpacked"
            )
        self._file.write(data)
