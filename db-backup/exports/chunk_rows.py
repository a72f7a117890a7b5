"""The rows of a chunk, on their way from the database into its object; and whether all came."""

from contextlib import AbstractContextManager

import zstandard

from exports.csv_rows import Counter, RowSource
from exports.reader import Chunk, Reader
from ooni_common.errors import Unavailable
from store.uploads import Upload
from tables.inventory import merges_rows
from throttle import Bandwidth, Progress, in_units

COMPRESSED_AT_ONCE = 4 * 1024 * 1024  # bytes, by a thread; several times as much is in memory
MOST_THREADS = 8  # more of them wait for rows


class RowsDiffer(Unavailable):
    """Other rows have come than the database counts, which is a matter of this table alone."""


class LineBreaksInValues(Exception):
    """The lines of a chunk are not as many as its rows."""


class ChunkRows:
    """Reads, compresses and uploads the rows of chunks of one table.

    Args:
        source: the rows come from there.
        reader: of the table.
        bandwidth: of all that are at work.
        level: of compression.
        threads: that compress.
    """

    def __init__(
        self, source: RowSource, reader: Reader, bandwidth: Bandwidth, level: int, threads: int
    ) -> None:
        self._compression_level = level
        self._threads = min(threads, MOST_THREADS)
        self._bandwidth = bandwidth
        self._source = source
        self._reader = reader

    def send(
        self,
        chunk: Chunk,
        upload: Upload,
        progress: AbstractContextManager[Progress],
        *,
        exact: bool,
    ) -> tuple[int, Counter]:
        """Read, compress and upload a chunk.

        Args:
            chunk: which rows.
            upload: gets them.
            progress: shows how far it is.
            exact: whether rows are counted, and not lines.

        Returns:
            The size of its CSV in bytes, and its rows.
        """
        compressor = compressor_of(self._compression_level, self._threads)
        size = 0

        def pass_on(data: bytes) -> None:
            if data:
                self._bandwidth.spend(len(data))
                upload.write(data)

        names = [column.name for column in self._reader.table.columns]
        with (
            progress as shown,
            self._source.rows(self._reader.select(chunk), names, exact=exact) as stream,
        ):
            for piece in stream:
                size += len(piece)
                pass_on(compressor.compress(piece))
                shown.show(stream.counter.rows, in_units(size))
        pass_on(compressor.flush())
        return size, stream.counter

    def check(self, chunk: Chunk, before: int, counter: Counter) -> None:
        """Check that all rows have arrived.

        Args:
            chunk: which rows.
            before: how many there were when it was planned.
            counter: of those that came.

        Raises:
            LineBreaksInValues: they have to be counted exactly.
            RowsDiffer: rows are missing, or there are too many.
        """
        if counter.complete and counter.rows == before:
            return
        if not counter.exact:
            raise LineBreaksInValues
        # Rows that came may have been merged with others since.
        merges = merges_rows(self._reader.table.engine)
        if counter.complete and merges and counter.rows > before:
            return
        least, most = sorted((before, self._reader.count(chunk.condition)))
        enough = counter.rows >= least and (merges or counter.rows <= most)
        if not (counter.complete and enough):
            raise RowsDiffer(
                f"{self._reader.table.name}: {chunk.name}: {counter.rows:,} rows arrived, and the"
                f" database counts {before:,}"
            )


def compressor_of(level: int, threads: int) -> "zstandard.ZstdCompressionObj":
    """Return a compressor with threads of its own, so that the next piece is read meanwhile.

    What comes out is the same with any number of them, as a thread takes bytes of the same number.
    """
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, threads=threads, job_size=COMPRESSED_AT_ONCE, write_checksum=1, write_content_size=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj()
