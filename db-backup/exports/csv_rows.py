"""Counting the rows of a CSV document as it passes by."""

LINE_BREAK, QUOTE = b"\n", b'"'
# All bytes but the two that matter.
OTHERS = bytes(byte for byte in range(256) if byte not in LINE_BREAK + QUOTE)


class RowCounter:
    """Counts the rows of a CSV document with a header, as ClickHouse writes it.

    Counting exactly takes as long as a good part of the compression, because line breaks within
    quotes are none. So usually the lines are counted. Where that gives the expected number, no
    value has a line break.
    """

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._lines = 0
        self._row_ends = 0
        self._quoted = False
        self._last = b""

    def add(self, block: bytes) -> None:
        """Take the next bytes of the document."""
        self._last = block[-1:] or self._last
        self._lines += block.count(LINE_BREAK)
        if not self._exact:
            self._row_ends = self._lines
            return
        # Quotes next to each other open and close nothing that has a line break.
        marks = block.translate(None, OTHERS).replace(QUOTE + QUOTE, b"")
        pieces = marks.split(QUOTE)
        self._row_ends += sum(piece.count(LINE_BREAK) for piece in pieces[self._quoted :: 2])
        self._quoted ^= len(pieces) % 2 == 0

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
