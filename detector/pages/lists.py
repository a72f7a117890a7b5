"""Long lists of incidents on several pages, of which the full ones never change again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

PER_PAGE = 100
FEWEST = 50  # on the first page, where there are so many


@dataclass(frozen=True)
class Number:
    """A page of a list, in the links to all of them.

    Attributes:
        page: its number in the path; 0: the first one, which has the newest.
        text: what the link says.
    """

    page: int
    text: str


def pages_of(newest_first: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """Yield the pages of a list: number in the path, and what is on it, the newest first.

    Page 1 has the oldest ones, so that what is new moves nothing on the others. The newest ones are
    on page 0.
    """
    full = max(0, (len(newest_first) - FEWEST) // PER_PAGE)
    first = len(newest_first) - full * PER_PAGE
    yield 0, newest_first[:first]
    for place in range(full):
        start = first + place * PER_PAGE
        yield full - place, newest_first[start : start + PER_PAGE]


def numbers_of(newest_first: Sequence[object], current: int) -> list[Number]:
    """Return the links to the other pages of a list; none where one page has all."""
    pages = [number for number, _ in pages_of(newest_first)]
    return [
        Number(number, f"Older, page {place}" if number else "Newest")
        for place, number in enumerate(pages)
        if number != current
    ]
