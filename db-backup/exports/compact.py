"""Thrift's compact protocol, in which the footer of a Parquet file is written.

Whoever can write to a bucket can write a footer, so all that is read is bounded.
"""

from collections.abc import Iterator
from typing import NoReturn

from ooni_common.errors import DataRefused

DEEPEST = 32  # structures within each other; Parquet needs 8
LONGEST_VARINT = 10  # bytes, of 64 bits
LARGEST_NUMBER = 2**15 - 1  # of a field
STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(13)
SIZES = {BYTE: 1, DOUBLE: 8}


class DamagedFooter(DataRefused):
    """The end of a file is not that of a Parquet file that is whole."""


class CompactReader:
    """Reads structures of Thrift's compact protocol.

    Args:
        content: all bytes.
        position: of the first one that is read.

    Attributes:
        content: all bytes.
        position: of the next byte.
    """

    def __init__(self, content: bytes, position: int = 0) -> None:
        self.content = content
        self.position = position

    def refuse(self) -> NoReturn:
        """Raise DamagedFooter."""
        raise DamagedFooter("its footer is damaged")

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of each field; whoever gets them has to read the value."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            if not 0 < number <= LARGEST_NUMBER:
                self.refuse()
            yield number, head & 15

    def spans(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield number and type of each field, and where its value starts and ends."""
        for number, kind in self.fields():
            start = self.position
            self.skip(kind)
            yield number, kind, start, self.position

    def skip(self, kind: int, depth: int = 0) -> None:
        """Read over a value."""
        if depth > DEEPEST:
            self.refuse()
        if kind in SIZES or kind == BINARY:
            self._bytes(SIZES.get(kind) or self.unsigned())
        elif kind in (I16, I32, I64):
            self.unsigned()
        elif kind in (LIST, SET):
            count, of_kind = self.list_head()
            for _ in range(count):
                self._skip_item(of_kind, depth)
        elif kind == MAP:
            self._skip_map(depth)
        elif kind == STRUCT:
            for _, of_kind in self.fields():
                self.skip(of_kind, depth + 1)
        elif kind not in (TRUE, FALSE):
            self.refuse()

    def _skip_map(self, depth: int) -> None:
        count = self.unsigned()
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._skip_item(kinds >> 4, depth)
            self._skip_item(kinds & 15, depth)

    def _skip_item(self, kind: int, depth: int) -> None:
        """Read over an item, of which a truth value has a byte of its own."""
        self.skip(BYTE if kind in (TRUE, FALSE) else kind, depth + 1)

    def list_head(self) -> tuple[int, int]:
        """Return the number of items of a list, and their type."""
        head = self._byte()
        count = self.unsigned() if head >> 4 == 15 else head >> 4
        if count > len(self.content) - self.position:  # each has a byte at least
            self.refuse()
        return count, head & 15

    def integer(self) -> int:
        """Return a number that can be negative."""
        number = self.unsigned()
        return number >> 1 ^ -(number & 1)

    def binary(self) -> bytes:
        """Return bytes whose number comes before them."""
        return self._bytes(self.unsigned())

    def unsigned(self) -> int:
        """Return a number that can't be negative."""
        number = 0
        for shift in range(LONGEST_VARINT):
            byte = self._byte()
            number |= (byte & 127) << 7 * shift
            if byte < 128:
                return number
        return self.refuse()

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, size: int) -> bytes:
        piece = self.content[self.position : self.position + size]
        if len(piece) < size:
            self.refuse()
        self.position += size
        return piece


def varint(number: int) -> bytes:
    """Return a number that can't be negative, as it is written."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
