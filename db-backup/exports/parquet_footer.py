"""The footer of a Parquet file: how many rows it promises, and which columns are text.

It is the only part that is read here: structures of Thrift's compact protocol, at the end of the
file, behind the rows. Whoever can write to a bucket can write a footer, so all of it is bounded.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from exports.compact import (
    BINARY,
    I32,
    I64,
    LIST,
    STRUCT,
    CompactReader,
    DamagedFooter,
    varint,
)

MAGIC = b"PAR1"
LARGEST_FOOTER = 16 * 1024 * 1024  # bytes; of 20 million rows and 40 columns it has about 2 MiB
ENDING = 8  # bytes: the length of the footer, and the magic
MOST_ELEMENTS = 100_000  # of a schema: ten for each column that a table can have here
MOST_FIELDS = 32  # of an element; the format has 10
SCHEMA, ROWS, WRITTEN_BY = 2, 3, 6  # fields of FileMetaData
TYPE, NAME, CHILDREN, CONVERTED, LOGICAL = 1, 4, 5, 6, 10  # fields of SchemaElement
BYTE_ARRAY = 6  # a physical type


class LargeFooter(DamagedFooter):
    """The footer is larger than what is read."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element of the schema: a column, or a part of one.

    Attributes:
        name: as bytes.
        is_bytes: whether it has values of variable length: texts, or bytes.
        children: how many of the next ones are parts of it.
        start: where it begins in the footer.
        end: where it ends.
    """

    name: bytes
    is_bytes: bool
    children: int
    start: int
    end: int


@dataclass(frozen=True)
class Footer:
    """The footer of a file.

    Attributes:
        content: its bytes, without the length and the magic.
        rows: of the file.
        elements: of the schema; the first one is the root.
    """

    content: bytes
    rows: int
    elements: tuple[Element, ...]

    @property
    def written_by(self) -> str:
        """The program that has written the file, as it says; "" if it does not.

        Raises:
            DamagedFooter: a part of it can't be read.
        """
        return _Reader(self.content).written_by()

    @property
    def size(self) -> int:
        """Its size in the file, with the length and the magic."""
        return len(self.content) + ENDING

    def with_bytes(self, columns: Collection[str]) -> bytes:
        """Return the end of the file, in which the texts of some columns are said to be bytes.

        Args:
            columns: their names in the table.

        Raises:
            DamagedFooter: a part of the schema can't be read.
        """
        names = {name.encode() for name in columns}
        pieces, position = [], 0
        for element in self._below(names):
            pieces += [self.content[position : element.start], self._without_text(element)]
            position = element.end
        content = b"".join([*pieces, self.content[position:]])
        return content + len(content).to_bytes(4, "little") + MAGIC

    def _below(self, names: Collection[bytes]) -> Iterator[Element]:
        """Yield the elements with texts that belong to top-level columns of these names."""
        position = 1
        while position < len(self.elements):
            column, open_ones = self.elements[position], 1
            while open_ones and position < len(self.elements):
                element = self.elements[position]
                if column.name in names and element.is_bytes:
                    yield element
                open_ones += element.children - 1
                position += 1

    def _without_text(self, element: Element) -> bytes:
        """Return an element without what says that its values are text."""
        encoded, last = bytearray(), 0
        content = self.content[element.start : element.end]
        for number, kind, start, end in _Reader(content).spans():
            if number in (CONVERTED, LOGICAL):
                continue
            delta = number - last
            if 0 < delta < 16:
                encoded.append(delta << 4 | kind)
            else:
                encoded += bytes([kind]) + varint(number << 1)
            encoded += content[start:end]
            last = number
        return bytes(encoded) + b"\0"


def size_of_footer(tail: bytes) -> int:
    """Return how many bytes at the end of a file are its footer, given the last ones.

    Raises:
        DamagedFooter: the file does not end as a Parquet file does.
        LargeFooter: they are too many.
    """
    if tail[-len(MAGIC) :] != MAGIC or len(tail) < ENDING:
        raise DamagedFooter("it does not end as a Parquet file")
    size = int.from_bytes(tail[-ENDING : -len(MAGIC)], "little") + ENDING
    if size > LARGEST_FOOTER:
        raise LargeFooter(f"its footer has {size:,} bytes, more than {LARGEST_FOOTER:,}")
    return size


def footer_of(tail: bytes) -> Footer:
    """Return the footer of a file.

    Args:
        tail: the last bytes of the file: as many as the footer has at least.

    Raises:
        DamagedFooter: the file does not end as a Parquet file does.
    """
    content = _content_of(tail)
    elements = tuple(_Reader(content).schema())  # first: it may be refused before all is read
    return Footer(content, _Reader(content).rows(), elements)


def rows_of_footer(tail: bytes) -> int:
    """Return how many rows a footer promises; nothing is kept of its schema.

    Args:
        tail: as `footer_of` has it.

    Raises:
        DamagedFooter: the file does not end as a Parquet file does.
    """
    return _Reader(_content_of(tail)).rows()


def _content_of(tail: bytes) -> bytes:
    """Return the bytes of a footer, without the length and the magic."""
    size = size_of_footer(tail) - ENDING
    if not size or size > len(tail) - ENDING:
        raise DamagedFooter("its footer is cut")
    return tail[-ENDING - size : -ENDING]


class _Reader(CompactReader):
    """Reads a footer as far as it is needed."""

    def rows(self) -> int:
        """Read a footer up to the number of rows. The row groups follow: as many as it has."""
        for number, kind in self.fields():
            if (number, kind) == (ROWS, I64):
                rows = self.integer()
                return rows if rows >= 0 else self.refuse()
            self.skip(kind)
        return self.refuse()

    def written_by(self) -> str:
        """Read a footer up to the name of the program."""
        for number, kind in self.fields():
            if (number, kind) == (WRITTEN_BY, BINARY):
                return self.binary().decode(errors="replace")
            self.skip(kind)
        return ""

    def schema(self) -> Iterator[Element]:
        """Read a footer up to its schema; yield the elements."""
        for number, kind in self.fields():
            if (number, kind) == (SCHEMA, LIST):
                return self._elements()
            self.skip(kind)
        return self.refuse()

    def _elements(self) -> Iterator[Element]:
        count, kind = self.list_head()
        if kind != STRUCT or not 0 < count <= MOST_ELEMENTS:
            self.refuse()
        for _ in range(count):
            yield self._element()

    def _element(self) -> Element:
        start, count = self.position, 0
        name, is_bytes, children = b"", False, 0
        for number, kind in self.fields():
            count += 1
            if (number, kind) == (NAME, BINARY):
                name = self.binary()
            elif (number, kind) == (TYPE, I32):
                is_bytes = self.integer() == BYTE_ARRAY
            elif (number, kind) == (CHILDREN, I32):
                children = self.integer()
            else:
                self.skip(kind)
        if children < 0 or count > MOST_FIELDS:
            self.refuse()
        return Element(name, is_bytes, children, start, self.position)
