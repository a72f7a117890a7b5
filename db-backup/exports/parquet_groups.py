"""A row group of a Parquet file as a file of its own.

So a file is read a piece at a time, whatever its size. Of its footer, only the schema and where the
values are come along: no statistics, indexes or names of other files, which could decide what is
read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from exports.compact import I32, I64, LIST, STRUCT, CompactReader, DamagedFooter, varint
from exports.parquet_footer import MAGIC, MOST_ELEMENTS, SCHEMA, Footer

VERSION = 2  # of the format
ROW_GROUPS = 4  # a field of FileMetaData
COLUMNS, GROUP_ROWS = 1, 3  # fields of RowGroup
METADATA = 3  # a field of ColumnChunk
UNPACKED, PACKED, DATA, DICTIONARY = 6, 7, 9, 11  # fields of ColumnMetaData
# Fields of ColumnMetaData that are kept as they are: what the values are, and how they are packed.
KEPT = {1: I32, 2: LIST, 3: LIST, 4: I32, 5: I64, UNPACKED: I64, PACKED: I64}


@dataclass(frozen=True, slots=True)
class _Column:
    """The values of a column in a row group.

    Attributes:
        head: the fields of its metadata that are kept.
        data: where its values begin in the file.
        dictionary: where what they refer to begins; None: they refer to nothing.
        size: of both, in the file.
        unpacked: how large they are said to be.
    """

    head: bytes
    data: int
    dictionary: int | None
    size: int
    unpacked: int

    @property
    def start(self) -> int:
        """Where its first byte is in the file."""
        return self.data if self.dictionary is None else min(self.data, self.dictionary)


@dataclass(frozen=True)
class RowGroup:
    """A row group of a file.

    Attributes:
        schema: of the file, as it is written.
        rows: how many it promises.
        columns: its values.
        start: where its first byte is in the file.
        end: where its last byte is, and one more.
    """

    schema: bytes
    rows: int
    columns: tuple[_Column, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes of the file it has."""
        return self.end - self.start

    @property
    def ending(self) -> bytes:
        """What is behind its bytes in a file of its own, which begins with the magic."""
        columns = b"".join(self._chunk(column) for column in self.columns)
        unpacked = sum(column.unpacked for column in self.columns)
        group = b"".join(
            [
                _field(COLUMNS, 0, LIST, _list_of_structures(len(self.columns)) + columns),
                _field(2, COLUMNS, I64, _signed(unpacked)),
                _field(GROUP_ROWS, 2, I64, _signed(self.rows)),
            ]
        )
        content = b"".join(
            [
                _field(1, 0, I32, _signed(VERSION)),
                _field(SCHEMA, 1, LIST, self.schema),
                _field(3, SCHEMA, I64, _signed(self.rows)),
                _field(ROW_GROUPS, 3, LIST, _list_of_structures(1) + group + b"\0"),
            ]
        )
        return content + b"\0" + (len(content) + 1).to_bytes(4, "little") + MAGIC

    def _chunk(self, column: _Column) -> bytes:
        """Return a ColumnChunk."""
        moved = self.start - len(MAGIC)
        metadata = column.head + _field(DATA, PACKED, I64, _signed(column.data - moved))
        if column.dictionary is not None:
            metadata += _field(DICTIONARY, DATA, I64, _signed(column.dictionary - moved))
        return _field(2, 0, I64, _signed(0)) + _field(METADATA, 2, STRUCT, metadata + b"\0") + b"\0"


def row_groups(footer: Footer, size: int) -> Iterator[RowGroup]:
    """Yield the row groups of a file that have rows, in their order.

    Args:
        footer: of the file.
        size: of the file, in bytes.

    Raises:
        DamagedFooter: they are not what such a file has.
    """
    reader, schema = CompactReader(footer.content), b""
    rows, last = 0, len(MAGIC)
    for number, kind in reader.fields():
        if (number, kind) == (ROW_GROUPS, LIST):
            break
        start = reader.position
        reader.skip(kind)
        if (number, kind) == (SCHEMA, LIST):
            schema = footer.content[start : reader.position]
    else:
        reader.refuse()
    for _ in range(_structures(reader)):
        group = _row_group(reader, schema)
        rows += group.rows
        if not group.rows:
            continue
        if not last <= group.start <= group.end <= size - footer.size:
            raise DamagedFooter("its row groups are not where they can be")
        last = group.end
        yield group
    if rows != footer.rows:
        raise DamagedFooter(f"its row groups have {rows:,} rows, and its footer {footer.rows:,}")


def _row_group(reader: CompactReader, schema: bytes) -> RowGroup:
    columns, rows = list[_Column](), -1
    for number, kind in reader.fields():
        if (number, kind) == (COLUMNS, LIST):
            columns = [_column(reader) for _ in range(_structures(reader))]
        elif (number, kind) == (GROUP_ROWS, I64):
            rows = reader.integer()
        else:
            reader.skip(kind)
    if rows < 0 or (rows and not columns):
        reader.refuse()
    start = min((column.start for column in columns), default=0)
    end = max((column.start + column.size for column in columns), default=0)
    return RowGroup(schema, rows, tuple(columns), start, end)


def _column(reader: CompactReader) -> _Column:
    column = None
    for number, kind in reader.fields():
        if (number, kind) == (METADATA, STRUCT):
            column = _values_of(reader)
        else:
            reader.skip(kind)
    return column or reader.refuse()


def _values_of(reader: CompactReader) -> _Column:
    kept, numbers = dict[int, bytes](), dict[int, int]()
    for number, kind, start, end in reader.spans():
        if KEPT.get(number) == kind:
            kept[number] = reader.content[start:end]
        if kind == I64:
            numbers[number] = CompactReader(reader.content, start).integer()
    if kept.keys() != KEPT.keys() or DATA not in numbers:
        reader.refuse()
    if min(numbers[number] for number in (UNPACKED, PACKED, DATA)) < 0:
        reader.refuse()
    head, last = b"", 0
    for number, kind in KEPT.items():
        head += _field(number, last, kind, kept[number])
        last = number
    dictionary = numbers.get(DICTIONARY, 0)
    return _Column(
        head=head,
        data=numbers[DATA],
        dictionary=dictionary if dictionary > 0 else None,
        size=numbers[PACKED],
        unpacked=numbers[UNPACKED],
    )


def _structures(reader: CompactReader) -> int:
    """Read the head of a list; return how many structures it has."""
    count, kind = reader.list_head()
    if count and (kind != STRUCT or count > MOST_ELEMENTS):
        reader.refuse()
    return count


def _field(number: int, last: int, kind: int, value: bytes) -> bytes:
    """Return a field behind another one, of a number that is at most 15 lower."""
    return bytes([(number - last) << 4 | kind]) + value


def _signed(number: int) -> bytes:
    """Return a number of a type that could be negative, which it is not."""
    return varint(number << 1)


def _list_of_structures(count: int) -> bytes:
    """Return the head of such a list."""
    return bytes([count << 4 | STRUCT]) if count < 15 else bytes([0xF0 | STRUCT]) + varint(count)
