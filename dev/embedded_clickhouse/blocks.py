"""ClickHouse's wire primitives, and copying Native blocks whose length nobody says.

An uncompressed block on the wire is columns one after the other, without a length in front: where
it ends follows from the types of its columns alone. `BlockCopier` therefore reads a block by its
types and passes the bytes on to a file, without decoding a single value.
"""

import contextlib
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from dev.embedded_clickhouse.errors import Code, ConnectionLost, ServerError

RECV_SIZE = 256 * 1024
MAX_TAKE = 1 << 30
# Field 1 (is_overflows) = 0, field 2 (bucket_num) = -1, end.
BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"

_ADDITIONAL_KEYS = 1 << 9
_GLOBAL_DICTIONARY = 1 << 8
_JSON_AS_TEXT = 1
_KEY_SIZES = {0: 1, 1: 2, 2: 4, 3: 8}


def varint(value: int) -> bytes:
    """Encode an unsigned integer, seven bits to a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def binary(data: bytes) -> bytes:
    """Encode bytes with their length in front."""
    return varint(len(data)) + data


def text(value: str) -> bytes:
    """Encode a string with its length in front."""
    return binary(value.encode())


class WireReader:
    """A buffered reader of ClickHouse's primitives.

    Args:
        read: returns up to that many bytes, none at the end of the stream.

    Attributes:
        buffer: what has been read and not yet consumed, from `position` on.
        position: index of the first unconsumed byte.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.buffer = b""
        self.position = 0

    @property
    def buffered(self) -> bytes:
        """The bytes that are there already."""
        return self.buffer[self.position :]

    def fill(self) -> None:
        """Read more.

        Raises:
            ConnectionLost: the stream ended.
        """
        chunk = self._read(RECV_SIZE)
        if not chunk:
            raise ConnectionLost
        self.buffer = self.buffer[self.position :] + chunk if self.buffered else chunk
        self.position = 0

    def available(self, limit: int) -> bytes:
        """Take what is buffered, at least one byte and at most `limit`."""
        if self.position >= len(self.buffer):
            self.fill()
        part = self.buffer[self.position : self.position + limit]
        self.position += len(part)
        return part

    def take(self, size: int) -> bytes:
        """Take exactly `size` bytes."""
        if size > MAX_TAKE:
            raise ServerError(Code.INCORRECT_DATA, f"A value of {size} bytes is too large")
        end = self.position + size
        if end <= len(self.buffer):
            part = self.buffer[self.position : end]
            self.position = end
            return part
        parts = []
        while size:
            part = self.available(size)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def u8(self) -> int:
        """Take one byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """Take an unsigned integer of variable length."""
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ServerError(Code.INCORRECT_DATA, "Broken variable-length integer")

    def binary(self) -> bytes:
        """Take bytes with their length in front."""
        return self.take(self.varint())

    def text(self) -> str:
        """Take a string with its length in front."""
        return self.binary().decode(errors="replace")

    def skip_block_info(self) -> None:
        """Take the numbered fields in front of every block."""
        sizes = {1: 1, 2: 4}
        while field := self.varint():
            if field not in sizes:
                raise ServerError(Code.INCORRECT_DATA, f"Unknown field {field} of a block")
            self.take(sizes[field])


Columns = tuple[tuple[str, str], ...]
"""Name and type of each column."""


@dataclass(frozen=True)
class Header:
    """The shape of a block.

    Attributes:
        columns: name and type of each column; none in the block that ends the data.
        rows: number of rows.
    """

    columns: Columns
    rows: int

    def encode(self) -> bytes:
        """Return a block of these columns without rows, in Native format."""
        parts = [varint(len(self.columns)), varint(0)]
        for name, type_name in self.columns:
            parts += [text(name), text(type_name)]
        return b"".join(parts)


class BlockCopier:
    """Copies Native blocks from a stream to a sink, byte for byte.

    Args:
        reader: where the blocks come from; it stands behind the block after each copy.
        sink: where they go; anything with `write`.
        types: index of a column → the type to write for it instead of the one that stands there.
    """

    def __init__(
        self, reader: WireReader, sink: BinaryIO, types: Mapping[int, str] | None = None
    ) -> None:
        self._reader = reader
        self._sink = sink
        self._types = types or {}

    def copy(self) -> Header:
        """Copy one block; the empty block that ends the data is read and not copied.

        Raises:
            ServerError: a column's type is one whose length cannot be told.
            ConnectionLost: the stream ended within the block.
        """
        count, rows = self._reader.varint(), self._reader.varint()
        if count:
            self._sink.write(varint(count) + varint(rows))
        columns = []
        for index in range(count):
            name, type_name = self._reader.binary(), self._reader.text()
            type_name = self._types.get(index, type_name)
            self._sink.write(binary(name) + text(type_name))
            columns.append((name.decode(errors="replace"), type_name))
            if rows:
                layout = parse_layout(type_name)
                layout.copy_prefix(self)
                layout.copy_rows(self, rows)
        return Header(tuple(columns), rows)

    def fixed(self, size: int) -> None:
        """Copy `size` bytes."""
        while size:
            part = self._reader.available(size)
            self._sink.write(part)
            size -= len(part)

    def integers(self, count: int) -> int:
        """Copy `count` 64-bit integers and return the last one (0 when there is none)."""
        if not count:
            return 0
        self.fixed(8 * (count - 1))
        last = self._reader.take(8)
        self._sink.write(last)
        return int(struct.unpack("<Q", last)[0])

    def strings(self, count: int) -> None:
        """Copy `count` strings, each with its length in front."""
        while count:
            count = self._buffered_strings(count)

    def _buffered_strings(self, count: int) -> int:
        """Copy the strings that begin in the buffer; return how many are still to come."""
        reader = self._reader
        data, position = reader.buffer, reader.position
        begin = position
        left = count
        try:
            # The loop that all text goes through: plain indexing, no calls for short strings.
            for left in range(count, 0, -1):  # noqa: B007 - its value at the IndexError is what counts
                length = data[position]
                if length < 0x80:
                    position += 1 + length
                else:
                    position = _end_of_long_string(data, position)
            left = 0
        except IndexError:
            pass
        self._sink.write(data[begin:position])
        reader.position = min(position, len(data))
        if position > len(data):
            self.fixed(position - len(data))
        elif left:
            reader.fill()
        return left


def _end_of_long_string(data: bytes, position: int) -> int:
    """Return where the string ends whose length at `position` takes more than one byte."""
    length = shift = 0
    while True:
        byte = data[position]
        position += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return position + length
        shift += 7


class Layout(Protocol):
    """How the values of one type lie in a block."""

    def copy_prefix(self, copier: BlockCopier) -> None:
        """Copy what stands once in front of the column."""

    def copy_rows(self, copier: BlockCopier, rows: int) -> None:
        """Copy that many values."""


class _NoPrefix:
    def copy_prefix(self, copier: BlockCopier) -> None:
        """There is none."""


@dataclass(frozen=True)
class _Fixed(_NoPrefix):
    size: int

    def copy_rows(self, copier: BlockCopier, rows: int) -> None:
        copier.fixed(self.size * rows)


@dataclass(frozen=True)
class _Strings(_NoPrefix):
    def copy_rows(self, copier: BlockCopier, rows: int) -> None:
        copier.strings(rows)


@dataclass(frozen=True)
class _Tuple:
    items: tuple[Layout, ...]

    def copy_prefix(self, copier: BlockCopier) -> None:
        for item in self.items:
            item.copy_prefix(copier)

    def copy_rows(self, copier: BlockCopier, rows: int) -> None:
        for item in self.items:
            item.copy_rows(copier, rows)


@dataclass(frozen=True)
class _Array:
    item: Layout

    def copy_prefix(self, copier: BlockCopier) -> None:
        self.item.copy_prefix(copier)

    def copy_rows(self, copier: BlockCopier, rows: int) -> None:
        self.item.copy_rows(copier, copier.integers(rows))


@dataclass(frozen=True)
class _Nullable:
    item: Layout

    def copy_prefix(self, copier: BlockCopier) -> None:
        self.item.copy_prefix(copier)

    def copy_rows(self, copier: BlockCopier, rows: int) -> None:
        copier.fixed(rows)
        self.item.copy_rows(copier, rows)


@dataclass(frozen=True)
class _LowCardinality:
    keys: Layout

    def copy_prefix(self, copier: BlockCopier) -> None:
        copier.integers(1)

    def copy_rows(self, copier: BlockCopier, rows: int) -> None:
        if not rows:
            return
        flags = copier.integers(1)
        key_size = _KEY_SIZES.get(flags & 0xFF)
        if flags & _GLOBAL_DICTIONARY or not flags & _ADDITIONAL_KEYS or key_size is None:
            raise ServerError(Code.INCORRECT_DATA, "LowCardinality with an unknown dictionary")
        self.keys.copy_rows(copier, copier.integers(1))
        copier.fixed(copier.integers(1) * key_size)


@dataclass(frozen=True)
class _JsonText:
    def copy_prefix(self, copier: BlockCopier) -> None:
        if copier.integers(1) != _JSON_AS_TEXT:
            message = "The embedded server knows JSON in Native blocks only as text"
            raise ServerError(Code.NOT_IMPLEMENTED, message)

    def copy_rows(self, copier: BlockCopier, rows: int) -> None:
        copier.strings(rows)


_FIXED_SIZES = {
    "Nothing": 1,
    "Bool": 1,
    "Enum8": 1,
    "Enum16": 2,
    "Int8": 1,
    "Int16": 2,
    "Int32": 4,
    "Int64": 8,
    "Int128": 16,
    "Int256": 32,
    "UInt8": 1,
    "UInt16": 2,
    "UInt32": 4,
    "UInt64": 8,
    "UInt128": 16,
    "UInt256": 32,
    "BFloat16": 2,
    "Float32": 4,
    "Float64": 8,
    "Date": 2,
    "Date32": 4,
    "DateTime": 4,
    "DateTime64": 8,
    "Time": 4,
    "Time64": 8,
    "Decimal32": 4,
    "Decimal64": 8,
    "Decimal128": 16,
    "Decimal256": 32,
    "UUID": 16,
    "IPv4": 4,
    "IPv6": 16,
}
_GEO_TYPES = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "Polygon": "Array(Ring)",
    "MultiLineString": "Array(LineString)",
    "MultiPolygon": "Array(Polygon)",
}
_TYPE = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`", re.DOTALL)
_ELEMENT_NAME = re.compile(r"\s*(?:`(?:[^`\\]|\\.|``)*`|[^\W\d]\w*)\s+(?=[A-Z])", re.DOTALL)


def split_arguments(arguments: str) -> list[str]:
    """Split `a, b(c, d), 'e, f'` at its outer commas."""
    parts, depth, begin, position = [], 0, 0, 0
    while position < len(arguments):
        quoted = _QUOTED.match(arguments, position)
        if quoted:
            position = quoted.end()
            continue
        character = arguments[position]
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append(arguments[begin:position].strip())
            begin = position + 1
        position += 1
    parts.append(arguments[begin:].strip())
    return parts


def _decimal_size(precision: int) -> int:
    return next(size for size, limit in ((4, 9), (8, 18), (16, 38), (32, 76)) if precision <= limit)


def _tuple_layout(arguments: str) -> Layout:
    elements = split_arguments(arguments) if arguments.strip() else []
    return _Tuple(tuple(parse_layout(_ELEMENT_NAME.sub("", item, count=1)) for item in elements))


def _low_cardinality(inner: str) -> Layout:
    # The dictionary has a place for NULL and therefore no map of NULLs.
    match = _TYPE.fullmatch(inner)
    if match and match[1] == "Nullable":
        inner = match[2]
    return _LowCardinality(parse_layout(inner))


_PARAMETRIC: dict[str, Callable[[str], Layout]] = {
    "FixedString": lambda size: _Fixed(int(size)),
    "Decimal": lambda arguments: _Fixed(_decimal_size(int(split_arguments(arguments)[0]))),
    "Array": lambda inner: _Array(parse_layout(inner)),
    "Nullable": lambda inner: _Nullable(parse_layout(inner)),
    "LowCardinality": _low_cardinality,
    "Tuple": _tuple_layout,
    "Map": lambda arguments: _Array(_Tuple(tuple(map(parse_layout, split_arguments(arguments))))),
    "Nested": lambda arguments: _Array(_tuple_layout(arguments)),
    "SimpleAggregateFunction": lambda arguments: parse_layout(split_arguments(arguments)[1]),
}


def parse_layout(type_name: str) -> Layout:
    """Return how values of a type lie in a block.

    Raises:
        ServerError: with code 48, for a type whose values have no length that can be told
            (AggregateFunction, Dynamic, Variant …).
    """
    match = _TYPE.fullmatch(type_name)
    if match:
        name, arguments = match[1], match[2]
        if name in _GEO_TYPES:
            return parse_layout(_GEO_TYPES[name])
        if name == "String":
            return _Strings()
        if name == "JSON":
            return _JsonText()
        if name in _FIXED_SIZES or name.startswith("Interval"):
            return _Fixed(_FIXED_SIZES.get(name, 8))
        if name in _PARAMETRIC and arguments is not None:
            with contextlib.suppress(ValueError, IndexError, StopIteration):
                return _PARAMETRIC[name](arguments)
    message = f"The embedded server cannot read values of type {type_name} in Native blocks"
    raise ServerError(Code.NOT_IMPLEMENTED, message)


def check_insertable(type_name: str) -> None:
    """Refuse a type that no client can send in a way that is understood here.

    Raises:
        ServerError: with code 48.
    """
    parse_layout(type_name)
    if re.search(r"\bJSON\b", _QUOTED.sub("", type_name)):
        message = "The embedded server cannot read JSON in Native blocks; insert it as JSONEachRow"
        raise ServerError(Code.NOT_IMPLEMENTED, message)
