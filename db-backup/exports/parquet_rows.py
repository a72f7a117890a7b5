"""The rows of a chunk as Parquet, on their way from the database into their object.

The server writes the file as a stream, over HTTP, and the footer last: so a file that ends as one,
and whose footer has as many rows as the database counts, is whole, whichever version has written it
(servers before 25.11 tell failures in mid-stream for certain of no format).
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from exports.chunk_rows import RowsDiffer
from exports.clickhouse_http import ClickHouseHTTP
from exports.compact import DamagedFooter
from exports.node_http import NodeHTTP
from exports.parquet_footer import (
    ENDING,
    LARGEST_FOOTER,
    LargeFooter,
    footer_of,
    size_of_footer,
)
from exports.reader import NOT_AS_DEMANDED, Chunk, Reader
from ooni_common.database import ServerError, literal, quoted
from ooni_common.errors import ConfigError, DataRefused
from ooni_common.output import counted
from store.uploads import Upload
from tables.inventory import QUOTED, Column
from throttle import Bandwidth

# What a server does not know of them, it does anyway or can't do.
SETTINGS: Mapping[str, object] = {
    # With the server's own value, a million rows, 3 million took 1.1 to 1.5 GB of its memory.
    "output_format_parquet_row_group_size": 100_000,
    "output_format_parquet_row_group_size_bytes": 128 * 1024 * 1024,
    "output_format_parquet_compression_method": "zstd",
    "output_format_parquet_string_as_string": 1,
    "output_format_parquet_fixed_string_as_fixed_byte_array": 1,
    "output_format_parquet_datetime_as_uint32": 0,
    "output_format_parquet_date_as_uint16": 0,
    "output_format_parquet_geometadata": 0,  # points are structures, and no WKB that says it's text
}
# What servers without these settings write as numbers, which say nothing to others: another type.
OTHER_TYPES = {
    # Milliseconds of 24.8 can't be read by DuckDB where all of 100,000 rows have NULL: of these, it
    # writes the largest number there is as the smallest value.
    "output_format_parquet_datetime_as_uint32": (
        r"\bDateTime(64\([0-3](, '[^']*')?\)|\('[^']*'\)|(?![\w(]))",
        "DateTime64(6, 'UTC')",
    ),
    "output_format_parquet_date_as_uint16": (r"\bDate\b", "Date32"),
}
# Newer servers mark them as enumerations, which pandas reads as bytes.
ENUM = (r"\bEnum(8|16)\(([^()']|'([^'\\]|\\.)*')*\)", "String")
# Parquet counts nanoseconds then, which end in 2262: servers before 26 write other times.
NARROWED = re.compile(r"\bDateTime64\([78]\b")
REFUSED_TYPES = (36, 50)  # codes: an empty Tuple; a type that Parquet has no form of
TEXT = re.compile(r"\b(String|JSON|Enum8|Enum16)\b")
PLAIN_TEXT = re.compile(r"(LowCardinality\()?(Nullable\()?String\)*")
PARQUET = "application/vnd.apache.parquet"


class NotUTF8(DataRefused):
    """A chunk has texts that are not UTF-8, so nobody could read its Parquet object."""


@dataclass(frozen=True)
class ParquetFormat:
    """How a table's chunks become Parquet.

    Attributes:
        nodes: know the interface of the server that has the table.
        settings: of the query; those that this server knows.
    """

    nodes: NodeHTTP
    settings: Mapping[str, object]

    def check(self, reader: Reader) -> None:
        """Try whether a table can be written as Parquet, without reading any rows.

        Raises:
            ConfigError: it has columns of types that have no lossless form in it, or is read from
                several shards.
            Unavailable: the HTTP interface does not answer.
        """
        name, columns = reader.table.name, reader.table.columns
        check_binary_columns(reader)
        if len(reader.databases) > 1:
            raise ConfigError(
                f"{name}: no Parquet of a table on several shards: the rows of each would be a file"
                f" of its own; tables.{name}.formats = ['csv.zstd'] says that there is none"
            )
        if self._can_write(reader, columns):
            return
        refused = [column for column in columns if not self._can_write(reader, [column])]
        raise ConfigError(
            f"{name}: no Parquet, which has no lossless form of"
            f" {', '.join(f'{column.name} ({column.type})' for column in refused or columns)};"
            f" tables.{name}.formats = ['csv.zstd'] says that there is none"
        )

    def types(self, reader: Reader) -> dict[str, str]:
        """Return the types of the columns that are to have others; read back, they are the same."""
        missing = [pair for name, pair in OTHER_TYPES.items() if name not in self.settings]
        types = {column.name: reader.zoned_type(column.name) for column in reader.table.columns}
        for pattern, other in [*missing, ENUM]:
            types = {name: re.sub(pattern, other, kind) for name, kind in types.items()}
        return {name: kind for name, kind in types.items() if kind != reader.zoned_type(name)}

    def _can_write(self, reader: Reader, columns: Sequence[Column]) -> bool:
        if any(NARROWED.search(re.sub(QUOTED, "", column.type)) for column in columns):
            return False
        part = replace(reader, table=replace(reader.table, columns=tuple(columns)))
        query = part.select_unordered(self.types(part))
        try:
            http = self.nodes.of(reader)
            with http.result(f"{query} LIMIT 0 FORMAT Parquet", self.settings) as pieces:
                for _ in pieces:
                    pass
        except ServerError as error:
            if error.code not in REFUSED_TYPES:
                raise
            return False
        return True


def parquet_format(http: ClickHouseHTTP, reader: Reader) -> ParquetFormat:
    """Return how a table's chunks become Parquet; the server is asked which settings it knows."""
    names = ", ".join(map(literal, SETTINGS))
    rows = reader.database.query(f"SELECT name FROM system.settings WHERE name IN ({names})")
    return ParquetFormat(NodeHTTP(http), {name: SETTINGS[name] for (name,) in rows})


def check_binary_columns(reader: Reader) -> None:
    """Raise ConfigError for a column of bytes that the table has not."""
    names = {column.name for column in reader.table.columns}
    for name in sorted(set(reader.policy.binary_columns) - names):
        raise ConfigError(
            f"tables: {reader.table.name}: binary_columns: there is no column {name!r}"
        )


def binary_columns_of(reader: Reader) -> tuple[str, ...]:
    """Return the columns whose texts become bytes, sorted."""
    return tuple(sorted(set(reader.policy.binary_columns)))


class ParquetRows:
    """Reads chunks of one table as Parquet, and uploads them.

    Args:
        form: how they become Parquet.
        reader: of the table.
        bandwidth: of all that are at work.
    """

    def __init__(self, form: ParquetFormat, reader: Reader, bandwidth: Bandwidth) -> None:
        self._form = form
        self._reader = reader
        self._bandwidth = bandwidth
        self._texts = texts_of(reader)

    @property
    def binary_columns(self) -> tuple[str, ...]:
        """The columns whose texts become bytes, sorted."""
        return binary_columns_of(self._reader)

    def interface(self) -> ClickHouseHTTP:
        """Return what the next chunk is read from; on a cluster, that may be another node now.

        Raises:
            Unavailable: it isn't where it should be.
        """
        return self._form.nodes.of(self._reader)

    def send(self, chunk: Chunk, upload: Upload, http: ClickHouseHTTP) -> int:
        """Read and upload a chunk.

        Args:
            chunk: which rows.
            upload: gets them.
            http: has them.

        Returns:
            How many rows there are.

        Raises:
            Unavailable: the server has failed, or what came is not a whole file.
        """
        types = self._form.types(self._reader)
        query = f"{self._reader.select(chunk, self._demand, types)} FORMAT Parquet"
        end = End()
        with http.result(query, self._form.settings) as pieces:
            for piece in pieces:
                self._bandwidth.spend(len(piece))
                for passed in end.add(piece):
                    upload.write(passed)
        which = f"{self._reader.table.name}: {chunk.name or 'the whole table'}"
        try:
            for passed in end.before_footer():
                upload.write(passed)
            tail = end.content
            footer = footer_of(tail)
        except LargeFooter as error:
            raise DataRefused(
                f"{which}: no Parquet: {error}; smaller chunks have smaller ones"
            ) from None
        except DamagedFooter as error:
            raise RowsDiffer(f"{which}: no whole Parquet file came: {error}") from None
        upload.write(tail[: -footer.size])
        binary = self.binary_columns
        upload.write(footer.with_bytes(binary) if binary else tail[-footer.size :])
        return footer.rows

    @property
    def _demand(self) -> str:
        return " AND ".join(self._texts.values())

    def explained(self, error: ServerError, chunk: Chunk) -> DataRefused | ServerError:
        """Return a failure of the server; if it is that texts are none, which ones they are.

        Another thread than that which has sent the chunk can ask, once that has ended.
        """
        if error.code != NOT_AS_DEMANDED or not self._texts:
            return error
        wrong = [f"NOT ({valid})" for valid in self._texts.values()]
        counts = self._reader.counts_of(wrong, chunk)
        found = {name: count for name, count in zip(self._texts, counts, strict=True) if count}
        named = ", ".join(f"{name} ({counted(count, 'row')})" for name, count in found.items())
        table, columns = self._reader.table.name, [*self._reader.policy.binary_columns, *found]
        return NotUTF8(
            f"{table}: {chunk.name or 'the whole table'}: no Parquet: not UTF-8, which readers of"
            f" Parquet refuse: {named or 'rows that are gone now'};"
            f" tables.{table}.binary_columns = {columns} has bytes in its place"
        )


def texts_of(reader: Reader) -> dict[str, str]:
    """Return the columns that have texts in Parquet, and as SQL whether they are UTF-8."""
    texts = {}
    for column in reader.table.columns:
        kind = re.sub(QUOTED, "", column.type)
        if not TEXT.search(kind) or column.name in reader.policy.binary_columns:
            continue
        name = quoted(column.name)
        # In the text of an array or a map, strings stand between quotes: none completes another.
        text = name if PLAIN_TEXT.fullmatch(kind) else f"toString({name})"
        texts[column.name] = f"ifNull(isValidUTF8({text}), 1)"
    return texts


class End:
    """Holds the end of a file back while it comes, as its footer is known when all is there."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def add(self, piece: bytes) -> Iterator[bytes]:
        """Take the next bytes; yield those that can't belong to the footer any more."""
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size - len(self._pieces[0]) >= LARGEST_FOOTER:
            self._size -= len(self._pieces[0])
            yield self._pieces.popleft()

    def before_footer(self) -> Iterator[bytes]:
        """Yield what does not belong to the footer after all, when the file is there.

        Raises:
            DamagedFooter: it does not end as a Parquet file does.
        """
        size = size_of_footer(b"".join(piece[-ENDING:] for piece in self._pieces)[-ENDING:])
        while self._size - len(self._pieces[0]) >= size:
            self._size -= len(self._pieces[0])
            yield self._pieces.popleft()

    @property
    def content(self) -> bytes:
        """What was held back."""
        return b"".join(self._pieces)
