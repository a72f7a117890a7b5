"""Checking an object of an export as a whole: its checksum, its form, its rows."""

import hashlib
import io
from collections.abc import Iterator
from typing import IO, cast

import zstandard

from exports.compact import DamagedFooter
from exports.comparison import Records
from exports.csv_rows import RowCounter
from exports.manifest import Export, ParquetObject
from exports.parquet_footer import rows_of_footer
from exports.parquet_rows import End
from store.bucket import READ_SIZE

LARGEST_WINDOW = 128 * 1024 * 1024  # bytes that a decompressor keeps; level 22 has as many


def check_csv(
    pieces: Iterator[bytes], export: Export, records: Records | None = None
) -> Iterator[str]:
    """Yield what is wrong with an object of CSV.

    Args:
        pieces: of it.
        export: what its manifest says.
        records: get its text, too.
    """
    counter, size, fault = RowCounter(exact=True), 0, ""
    source = _HashedObject(pieces)
    # However little it is in the bucket: no more is taken at once, nor than there should be.
    reader = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).stream_reader(
        cast("IO[bytes]", source)
    )
    try:
        while size <= export.bytes and (rows := reader.read(READ_SIZE)):
            counter.add(rows)
            if records:
                records.write(rows)
            size += len(rows)
    except zstandard.ZstdError as error:
        fault = str(error)
    source.read_rest()
    if source.sha256 != export.sha256:
        yield f"{export.key}: SHA-256 {source.sha256} instead of {export.sha256}"
    if fault:
        yield f"{export.key}: it can't be decompressed: {fault}"
    elif size > export.bytes:
        yield f"{export.key}: more than the {export.bytes:,} bytes of CSV that were exported"
    elif size != export.bytes:
        yield f"{export.key}: {size:,} bytes of CSV instead of {export.bytes:,}"
    elif counter.rows != export.rows:
        yield f"{export.key}: {counter.rows:,} rows instead of {export.rows:,}"


class _HashedObject(io.RawIOBase):
    """An object as a file, which is hashed while it is read.

    Args:
        pieces: of it.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._digest = hashlib.sha256()
        self._rest = b""

    @property
    def sha256(self) -> str:
        """Of what was read up to now."""
        return self._digest.hexdigest()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most so many; none at the end."""
        if not self._rest:
            self._rest = next(self._pieces, b"")
            self._digest.update(self._rest)
        end = len(self._rest) if size < 0 else size
        piece, self._rest = self._rest[:end], self._rest[end:]
        return piece

    def read_rest(self) -> None:
        """Read up to the end."""
        self._rest = b""
        while self.read():
            pass


def check_parquet(
    pieces: Iterator[bytes], parquet: ParquetObject, rows: int, end: End
) -> Iterator[str]:
    """Yield what is wrong with a Parquet object, apart from its values.

    Args:
        pieces: of it.
        parquet: what its manifest says.
        rows: that it should have.
        end: gets its footer.
    """
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece)
        for _ in end.add(piece):
            pass
    if sha256.hexdigest() != parquet.sha256:
        yield f"{parquet.key}: SHA-256 {sha256.hexdigest()} instead of {parquet.sha256}"
    try:
        for _ in end.before_footer():
            pass
        found = rows_of_footer(end.content)
    except DamagedFooter as error:
        yield f"{parquet.key}: {error}"
        return
    if found != rows:
        yield f"{parquet.key}: {found:,} rows instead of {rows:,}"
