"""Unpacking a download while it arrives: gzip, or as it is."""

import zlib
from typing import BinaryIO

from ooni_common.config import SecretUrl
from ooni_common.errors import DataRefused

GZIP_WINDOW = 16 + zlib.MAX_WBITS
PIECE = 256 * 1024  # bytes that are decompressed at a time


class Unpacker:
    """Takes the bytes of a download, and writes into a file what was packed in them.

    It can be used like an empty file, as `Fetcher.fetch` does: a new try begins at the start.
    """

    def __init__(self, file: BinaryIO, url: SecretUrl, max_size: int) -> None:
        """Unpack into `file` at most `max_size` bytes; a `url` that ends in "gz" has gzip."""
        self._file = file
        self._url = str(url)
        self._compressed = url.reveal().endswith("gz")
        self._max_size = max_size
        self._start()

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            DataRefused: they are no gzip, or too many after decompression.
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
