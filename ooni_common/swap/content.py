"""What a table holds, as a number that the database and this side compute alike."""

import functools
import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import msgspec
from clickhouse_cityhash.cityhash import CityHash64

from ooni_common.database import Database, quoted

Row = Sequence[Any]
BLOCK_ROWS = 65_536


class Content(msgspec.Struct, frozen=True):
    """What a table holds, in any order: the number of its rows and the sum of their hashes."""

    rows: int = 0
    checksum: int = 0

    def __add__(self, other: "Content") -> "Content":
        """Return the content of both together."""
        return Content(self.rows + other.rows, (self.checksum + other.checksum) % 2**64)


class Block:
    """Rows, column by column, as the driver inserts them fastest; at least one.

    Attributes:
        columns: a sequence of values for each column of the table.
    """

    def __init__(
        self, columns: Sequence[Sequence[Any]], texts: Sequence[Iterable[str]] | None = None
    ) -> None:
        """Take the values, and their texts as the database writes them where they are at hand."""
        self.columns = columns
        self._texts = texts

    @functools.cached_property
    def hashes(self) -> list[int]:
        """The hash of each row, as `contents` has the database compute it."""
        texts = self._texts or list(map(_texts, self.columns))
        return list(map(CityHash64, map("\0".join, zip(*texts, strict=True))))

    @functools.cached_property
    def content(self) -> Content:
        """What the rows add up to."""
        return Content(len(self.hashes), sum(self.hashes) % 2**64)

    @classmethod
    def joined(cls, blocks: Sequence["Block"]) -> "Block":
        """Return the rows of several blocks, which are not hashed again, as one."""
        if len(blocks) == 1:
            return blocks[0]
        columns = zip(*(block.columns for block in blocks), strict=True)
        joined = cls([list(itertools.chain.from_iterable(column)) for column in columns])
        joined.content = sum((block.content for block in blocks), start=Content())
        return joined


def blocks_of(rows: Iterable[Row]) -> Iterator[Block]:
    """Yield the rows in blocks."""
    remaining = iter(rows)
    while block := list(itertools.islice(remaining, BLOCK_ROWS)):
        yield Block(list(zip(*block, strict=True)))


def gathered(blocks: Iterable[Block]) -> Iterator[Block]:
    """Join small blocks: an insert of one row costs a server nearly what one of 50,000 does."""
    few: list[Block] = []
    rows = 0
    for block in blocks:
        few.append(block)
        rows += block.content.rows
        if rows >= BLOCK_ROWS:
            yield Block.joined(few)
            few, rows = [], 0
    if few:
        yield Block.joined(few)


def content_of(database: Database, columns: Mapping[str, str], table: str) -> Content:
    """Return what a table holds.

    Args:
        database: where it is.
        columns: name → type.
        table: its name.
    """
    return Content(*database.query(f"SELECT {_figures(columns)} FROM {quoted(table)}")[0])


def contents_by(
    key: str, database: Database, columns: Mapping[str, str], table: str
) -> dict[str, Content]:
    """Return what a table holds for each value of its column `key`; for the rest see above."""
    rows = database.query(
        f"SELECT {as_text(key, columns[key])} AS key, {_figures(columns)} FROM {quoted(table)}"
        " GROUP BY key"
    )
    return {value: Content(*figures) for value, *figures in rows}


def _figures(columns: Mapping[str, str]) -> str:
    row_text = ", '\\0', ".join(_hashed_text(*column) for column in columns.items())
    return f"count(), sum(cityHash64(concat({row_text}, '')))"


def _texts(column: Sequence[Any]) -> Iterable[str]:
    """Return the values as `_hashed_text` has the database write them."""
    first = column[0]
    if isinstance(first, str):
        return column
    if isinstance(first, float):
        rows = len(column)
        return map(str, struct.unpack(f"<{rows}I", struct.pack(f"<{rows}f", *column)))
    if isinstance(first, datetime):
        return map(_text_of_time, column)
    return map(_text_of_date if isinstance(first, date) else str, column)


def _text_of_date(value: date) -> str:
    return f"{value:%Y%m%d}"


def _text_of_time(value: datetime) -> str:
    return str(int(value.timestamp()))


def _hashed_text(column: str, kind: str) -> str:
    if kind == "Date":  # as it stands in the upstream's file, so that a block has the text at hand
        return f"formatDateTime({quoted(column)}, '%Y%m%d')"
    if kind.startswith("DateTime"):  # whatever the time zone
        return f"toString(toUnixTimestamp({quoted(column)}))"
    if kind == "Float32":  # by its bits, because there are many ways to write a number
        return f"toString(reinterpretAsUInt32({quoted(column)}))"
    return as_text(column, kind)


def as_text(column: str, kind: str) -> str:
    """Return the SQL that makes a text of a column."""
    function = "toStringCutToZero" if kind.startswith("FixedString") else "toString"
    return f"{function}({quoted(column)})"
