"""The rows of an export as CSV: their format, where they come from, and how many they are."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

# Whatever the profile of the user says: this is the format of the public files.
OUTPUT_SETTINGS = {
    "format_csv_delimiter": ",",
    "format_csv_null_representation": "\\N",
    "output_format_csv_crlf_end_of_line": 0,
    # One column of the file for one of the table.
    "output_format_csv_serialize_tuple_into_separate_columns": 0,
    "date_time_output_format": "simple",
    "output_format_decimal_trailing_zeros": 0,
    "bool_true_representation": "true",
    "bool_false_representation": "false",
    # A column that is converted for its text has its own name: keys and conditions mean the column.
    "prefer_column_name_to_alias": 1,
}
LINE_BREAK, QUOTE = b"\n", b'"'
# All bytes but the two that matter.
BYTES_WITHOUT_MEANING = bytes(byte for byte in range(256) if byte not in LINE_BREAK + QUOTE)


class Counter(Protocol):
    """How many rows of a document have come."""

    @property
    def exact(self) -> bool:
        """Whether rows are counted, and not lines."""

    @property
    def rows(self) -> int:
        """The rows so far, without the header."""

    @property
    def line_breaks(self) -> bool:
        """Whether values have line breaks, as far as that is known."""

    @property
    def complete(self) -> bool:
        """Whether the document could end here."""


def header_of(names: Sequence[str]) -> bytes:
    """Return the first line of `FORMAT CSVWithNames`."""
    return ",".join('"' + name.replace('"', '""') + '"' for name in names).encode() + b"\n"


@dataclass(frozen=True)
class RowStream:
    """The rows of a query as CSV with a header, on their way.

    Attributes:
        pieces: of the document.
        counter: of the rows in those that were taken.
    """

    pieces: Iterator[bytes]
    counter: Counter

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces."""
        return self.pieces


class RowSource(Protocol):
    """Where the rows come from."""

    def rows(
        self, select: str, names: Sequence[str], *, exact: bool = False
    ) -> AbstractContextManager[RowStream]:
        """Run a query; when the block is left, it is ended.

        Args:
            select: the query.
            names: of the columns that it selects.
            exact: count rows, where lines are faster to count.

        Raises:
            Unavailable: the connection broke, or the server reported a failure, before the result
                or in the middle of it. The iterator raises that before its end.
            ConfigError: the server does not let this user in.
        """


class RowCounter:
    """Counts the rows of a CSV document with a header, as ClickHouse writes it.

    Counting exactly takes as long as a good part of the compression, because line breaks within
    quotes are none. So usually the lines are counted. Where that gives the expected number, no
    value has a line break.
    """

    def __init__(self, *, exact: bool) -> None:
        self.exact = exact
        self._lines = 0
        self._row_ends = 0
        self._quoted = False
        self._last = b""

    def add(self, piece: bytes) -> None:
        """Take the next bytes of the document."""
        self._last = piece[-1:] or self._last
        self._lines += piece.count(LINE_BREAK)
        if not self.exact:
            self._row_ends = self._lines
            return
        # Quotes next to each other open and close nothing that has a line break.
        marks = piece.translate(None, BYTES_WITHOUT_MEANING).replace(QUOTE + QUOTE, b"")
        texts = marks.split(QUOTE)
        self._row_ends += sum(text.count(LINE_BREAK) for text in texts[self._quoted :: 2])
        self._quoted ^= len(texts) % 2 == 0

    @property
    def rows(self) -> int:
        """The rows so far, without the header."""
        return max(self._row_ends - 1, 0)

    @property
    def line_breaks(self) -> bool:
        """Whether values have line breaks, as far as that is known."""
        return self._lines != self._row_ends

    @property
    def complete(self) -> bool:
        """Whether the document could end here."""
        return self._last == LINE_BREAK and not self._quoted

    def counting(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a document, each when it is counted."""
        for piece in pieces:
            self.add(piece)
            yield piece
