"""The data records of an MMDB file: whether each can be read, and at what cost.

A record is a map, in which pointers stand for what is elsewhere. So a file of a few kilobytes can
have records of millions of values: who looks an address up waits for all of them.
"""

import mmap

from maxminddb.decoder import Decoder

MOST_VALUES = 1000  # of a record: keys, values, elements; upstream's have about a hundred
MOST_TEXT = 64 * 1024  # characters of a record; upstream's have a thousand at most
# All records together, for each byte of the file.
MOST_VALUES_OF_ALL = 2
MOST_TEXT_OF_ALL = 64
LEAST = 64 * 1024  # bytes that a file is taken to have, at least


class Records:
    """Reads records, and adds up what they cost.

    Args:
        content: the file.
        start: of its data.
    """

    def __init__(self, content: mmap.mmap, start: int) -> None:
        self._decoder = Decoder(content, start)
        size = max(len(content), LEAST)
        self._values_left = MOST_VALUES_OF_ALL * size
        self._text_left = MOST_TEXT_OF_ALL * size

    def read(self, offset: int) -> None:
        """Read the record at an offset.

        Raises:
            ValueError: it is not a map, or larger than anybody should have to read.
            maxminddb.InvalidDatabaseError: it can't be read; also what else readers raise.
        """
        record, _ = self._decoder.decode(offset)
        if not isinstance(record, dict):
            raise ValueError(f"the record at {offset:,} is not a map")  # noqa: TRY004 (as others)
        values, text = cost_of(record)
        self._values_left -= values
        self._text_left -= text
        if values > MOST_VALUES or text > MOST_TEXT:
            raise ValueError(f"the record at {offset:,} has {values:,} values, {text:,} characters")
        if self._values_left < 0 or self._text_left < 0:
            raise ValueError("the records are many times larger than the file")


def cost_of(record: object) -> tuple[int, int]:
    """Return how many values a record has, and how many characters or bytes these."""
    values = text = 0
    stack = [record]
    while stack:
        value = stack.pop()
        values += 1
        if isinstance(value, dict):
            stack += value.keys()
            stack += value.values()
        elif isinstance(value, list):
            stack += value
        elif isinstance(value, str | bytes):
            text += len(value)
    return values, text
