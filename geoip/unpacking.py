"""Unpacking a download while it arrives: gzip, a tar archive in gzip, or as it is."""

import hashlib
import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

from ooni_common.config import SecretUrl
from ooni_common.errors import DataRefused

GZIP_WINDOW = 16 + zlib.MAX_WBITS
PIECE = 256 * 1024  # bytes that are decompressed at a time
DIGEST = re.compile(rb"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{32}")


class Unpacker:
    """Takes the bytes of a download, and writes into a file what was packed in them.

    It can be used like an empty file, as `Fetcher.fetch` does: a new try begins at the start.
    """

    def __init__(self, file: BinaryIO, url: SecretUrl, max_size: int) -> None:
        """Unpack into `file` at most `max_size` bytes; a `url` that ends in "gz" has gzip."""
        self._file = file
        self._url = str(url)
        self._name = PurePosixPath(urlsplit(url.reveal()).path).name
        self._compressed = url.reveal().endswith("gz")
        self._max_size = max_size
        self._start()

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            DataRefused: they are no gzip, or too many after decompression.
            OSError: the file can't be written.
        """
        self._sha256.update(data)
        self._md5.update(data)
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

    def check_digest(self, sums: bytes) -> None:
        """Compare the download with a published checksum, SHA-256 or MD5.

        Args:
            sums: a digest alone, or lines as of `sha256sum`, of which one names the file.

        Raises:
            DataRefused: it differs, or there is none.
        """
        lines = [line.split() for line in sums.splitlines() if line.strip()]
        named = [line for line in lines if line[-1].lstrip(b"*") == self._name.encode()]
        digests = [line[0] for line in named or lines[:1] if DIGEST.fullmatch(line[0])]
        if not digests:
            raise DataRefused(f"{self._url}: its checksum file has no SHA-256 and no MD5 of it")
        wanted = digests[0].decode().lower()
        found = self._sha256 if len(wanted) == 64 else self._md5
        if found.hexdigest() != wanted:
            raise DataRefused(
                f"{self._url}: has the {found.name} {found.hexdigest()}, published is {wanted}"
            )

    def _start(self) -> None:
        self._gzip = zlib.decompressobj(GZIP_WINDOW)
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def _decompress(self, data: bytes) -> bytes:
        """Decompress a piece; return what is left of `data`."""
        if self._gzip.eof:
            if not data.startswith(b"\x1f\x8b"[: len(data)]):
                raise DataRefused(f"{self._url}: something else follows the gzip data")
            self._gzip = zlib.decompressobj(GZIP_WINDOW)
        try:
            self._put(self._gzip.decompress(data, PIECE))
        except zlib.error as error:
            what = "no gzip data" if "incorrect header" in str(error) else "damaged gzip data"
            raise DataRefused(f"{self._url}: {what} ({error})") from None
        return self._gzip.unused_data if self._gzip.eof else self._gzip.unconsumed_tail

    def _put(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._max_size:
            raise DataRefused(
                f"{self._url}: larger than max_size, {self._max_size:,} bytes, once unpacked"
            )
        self._file.write(data)


def is_archive(url: str) -> bool:
    """Tell whether a tar archive is at this URL."""
    return url.endswith(("tar.gz", "tgz"))


def take_from_archive(archive: Path, into: BinaryIO, url: str) -> None:
    """Write the one database of a tar archive into a file.

    Raises:
        DataRefused: it is no archive, or has none or several.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            found = [member for member in tar if member.isreg() and member.name.endswith(".mmdb")]
            content = tar.extractfile(found[0]) if len(found) == 1 else None
            if content is None:
                raise DataRefused(f"{url}: {len(found)} files end in .mmdb in it, instead of one")
            while piece := content.read(PIECE):
                into.write(piece)
    except tarfile.TarError as error:
        raise DataRefused(f"{url}: a damaged tar archive ({error})") from None
    into.flush()
