"""The map of the ASNs: bytes in, blocks of rows and findings out, piece by piece.

Source of the format: https://archive.org/details/ip2country-as. It is one JSON object, ASN →
history, a row being organisation, country, date of change, AS name and source:

    {"1": [["Level 3 Communications, Inc.", "US", "20040604", "LVLT-1", "ARIN"]]}

Upstream's document has 120,000 ASNs and 420,000 rows in 32 MB. A piece of it is validated as a
whole; only where anything can be wrong with that is it gone through row by row, for the reasons.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, BinaryIO, TypeVar

from ooni_common.errors import DataRefused
from ooni_common.swap.content import Block, blocks_of

T = TypeVar("T")
Json = Any  # whatever upstream has written
AsnRow = tuple[int, str, str, date, str, str]  # asn, org_name, cc, changed, aut_name, source
Members = Sequence[tuple[str, Json]]  # (ASN, history)

# Bytes read at a time: what is made of so many stays in a processor's cache. 256 KiB take half as
# much time again.
READ_AT_ONCE = 32 * 2**10
MOST_READ_AT_ONCE = 4 * 2**20  # where a history is so long, it is not looked through so often
LONGEST_PIECE = 32 * 2**20  # bytes without the end of a history
FIELDS = 5
NUMBER = re.compile("0|[1-9][0-9]{0,9}")
LARGEST_ASN = 2**32 - 1
FIRST_DATE, LAST_DATE = date(1970, 1, 1), date(2149, 6, 6)  # of the database's type Date
TOLERATED_REFUSED_SHARE = 0.01
MOST_LOGGED = 20  # refusals that are kept for the log; the others are counted
EXCERPT = 100  # characters

OPENING = re.compile(rb"[ \t\r\n]*\{")
# Ends a member in any valid document; it can also stand in a text, and then the piece is not valid.
BOUNDARY = re.compile(rb'\][ \t\r\n]*(,)[ \t\r\n]*"')


class AsnMap:
    """The rows of a map, and what was found in it while they were read.

    Attributes:
        file: its name, for findings.
        read: how many rows have been read, refused ones included.
        refused_rows: how many of them were refused.
        refusals: why, for the first of them.
    """

    def __init__(self, file: str, content: BinaryIO) -> None:
        """Read from `content`, a file that can be read several times."""
        self.file = file
        self._content = content
        self._dates = _Dates()
        self._start()

    def _start(self) -> None:
        self.read = 0
        self.refused_rows = 0
        self.refusals: list[str] = []
        self._seen: set[int] = set()
        self._content.seek(0)

    def blocks(self) -> Iterator[Block]:
        """Yield each valid row once, in blocks; exact duplicates within a history collapse.

        Called once more, it reads all of it again.

        Raises:
            DataRefused: it isn't such a document; at its end also: too many rows are refused.
        """
        self._start()
        buffer = self._opening()
        ended = False
        while not ended:
            piece = self._content.read(min(max(READ_AT_ONCE, len(buffer)), MOST_READ_AT_ONCE))
            ended, buffer = not piece, buffer + piece
            end = len(buffer) if ended else _last_boundary(buffer)
            document = b"{" + buffer[:end] + (b"" if ended else b"}")
            members = _members(document) if end else None
            if members is None:
                self._check_extensible(buffer, ended=ended)
                continue
            buffer = buffer[end + 1 :]
            if block := self._block(members, may_have_nul=b"\\u0000" in document):
                yield block
            else:
                yield from blocks_of([row for member in members for row in self._rows(*member)])
        if self.refused_rows > self.read * TOLERATED_REFUSED_SHARE:
            raise DataRefused(
                f"{self.file}: {self.refused_rows:,} of {self.read:,} rows are refused, more than"
                f" {TOLERATED_REFUSED_SHARE:.0%}"
            )

    def _opening(self) -> bytes:
        start = self._content.read(READ_AT_ONCE)
        opening = OPENING.match(start)
        if not opening:
            raise DataRefused(f"{self.file}: no JSON object")
        return start[opening.end() :]

    def _check_extensible(self, buffer: bytes, *, ended: bool) -> None:
        """Raise unless reading on can make the buffer hold whole members."""
        if ended or len(buffer) > LONGEST_PIECE:
            reason = "cut off, or no JSON" if ended else "no end of an ASN's history"
            raise DataRefused(f"{self.file}: {reason}, after {len(self._seen):,} ASNs")

    def _block(self, members: Members, *, may_have_nul: bool) -> Block | None:
        """Return the rows of members as one block; None if anything can be wrong with them."""
        names, histories = zip(*members, strict=True) if members else ((), ())
        try:
            asns = list(map(int, names))
            rows = list(itertools.chain.from_iterable(histories))
            org, cc, changed, aut, source = columns = list(zip(*rows, strict=True))
            fine = (
                {*map(type, histories), *map(type, rows)} == {list}
                and tuple(map(str, asns)) == names
                and min(asns) >= 0
                and max(asns) <= LARGEST_ASN
                and len(set(asns)) == len(asns)
                and self._seen.isdisjoint(asns)
                and not may_have_nul
            )
            dates = list(map(self._dates.__getitem__, changed))
            lengths = list(map(len, histories))
            block = Block(
                [repeated(asns, lengths), org, cc, dates, aut, source],
                [repeated(names, lengths), *columns],
            )
            if not fine or len(set(block.hashes)) < len(rows):
                return None
        except (TypeError, ValueError):  # hashing refuses all but valid text
            return None
        self._seen.update(asns)
        self.read += len(rows)
        return block

    def _rows(self, name: str, history: Json) -> list[AsnRow]:
        """Validate a history row by row, and note what is wrong."""
        rows = history if isinstance(history, list) else [history]
        self.read += len(rows)
        try:
            asn = self._asn(name)
        except ValueError as error:
            self._refuse(len(rows), f"ASN {name!a}: {error}")
            return []
        valid: dict[AsnRow, None] = {}
        for number, row in enumerate(rows, start=1):
            try:
                valid[self._row(asn, row)] = None
            except ValueError as error:
                self._refuse(1, f"ASN {name}, row {number}: {error}: {ascii(row)[:EXCERPT]}")
        return list(valid)

    def _asn(self, name: str) -> int:
        if not NUMBER.fullmatch(name) or int(name) > LARGEST_ASN:
            raise ValueError(f"not a plain number from 0 to {LARGEST_ASN}")
        asn = int(name)
        if asn in self._seen:
            raise ValueError("here for the second time")
        self._seen.add(asn)
        return asn

    def _row(self, asn: int, row: Json) -> AsnRow:
        if not isinstance(row, list) or len(row) != FIELDS:
            fields = f"{len(row)} fields" if isinstance(row, list) else type(row).__name__
            raise ValueError(f"{fields} instead of {FIELDS} fields")
        for number, field in enumerate(row, start=1):
            _check_text(number, field)
        org, cc, changed, aut, source = row
        return (asn, org, cc, self._dates[changed], aut, source)

    def _refuse(self, rows: int, reason: str) -> None:
        self.refused_rows += rows
        if len(self.refusals) < MOST_LOGGED:
            self.refusals.append(f"{self.file}: {reason}")


def repeated(values: Sequence[T], times: Sequence[int]) -> list[T]:
    """Return the values, each so many times."""
    return list(itertools.chain.from_iterable(map(itertools.repeat, values, times)))


def _last_boundary(buffer: bytes) -> int:
    """Return where the comma behind the last whole member is; 0 if there is none."""
    width, start = READ_AT_ONCE // 16, len(buffer)
    while start > 0:
        start = max(len(buffer) - width, 0)
        if boundaries := [match.start(1) for match in BOUNDARY.finditer(buffer, start)]:
            return boundaries[-1]
        width *= 4
    return 0


def _members(document: bytes) -> Members | None:
    """Return the members with all their faults; None if it isn't a JSON object.

    Lone surrogates stay what they are here, and bytes that are not UTF-8 become such.
    """
    text = document.decode("utf-8", "surrogateescape")
    try:
        members: Members = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    return members


def _check_text(number: int, field: Json) -> None:
    if not isinstance(field, str):
        raise ValueError(f"field {number} is not text")  # noqa: TRY004 (a finding like the others)
    if "\0" in field:
        raise ValueError(f"field {number} has a NUL byte")
    try:
        field.encode()
    except UnicodeEncodeError:
        raise ValueError(f"field {number} has a lone surrogate, or is not UTF-8") from None


class _Dates(dict[str, date]):
    """YYYYMMDD → date, computed once for each."""

    def __missing__(self, text: str) -> date:
        """Raise ValueError for what is not a date that the database can hold."""
        try:
            if not (len(text) == 8 and text.isascii() and text.isdigit()):
                raise ValueError  # noqa: TRY301 (the same answer as below)
            day = date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a date like 20040604") from None
        if not FIRST_DATE <= day <= LAST_DATE:
            raise ValueError(f"{text!r} is not from {FIRST_DATE} to {LAST_DATE}")
        return self.setdefault(text, day)
