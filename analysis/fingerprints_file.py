"""The files of fingerprints: bytes in, rows and findings out.

Source of the format: README.md of https://github.com/ooni/blocking-fingerprints. The files are CSV
with CRLF line ends; a pattern can contain CRLF itself, and its bytes are kept as they are.

What only the database can tell is judged later: whether regular expressions compile, and what they
match.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from csv_source import BrokenFileError, Finding, Layout, ParsedFile, read_rows

CSV_HEADER = [
    "name",
    "scope",
    "other_names",
    "location_found",
    "pattern_type",
    "pattern",
    "confidence_no_fp",
    "expected_countries",
    "source",
    "exp_url",
    "notes",
]
LAYOUT = Layout(
    CSV_HEADER, exact=frozenset({"other_names", "pattern", "source", "exp_url", "notes"})
)
PATTERN_TYPES = {"full": 1, "prefix": 2, "contains": 3, "regexp": 4}
DNS_SCOPES = {"nat": 1, "isp": 2, "prod": 3, "inst": 4, "vbw": 5, "fp": 6}
HTTP_SCOPES = {**DNS_SCOPES, "injb": 7, "prov": 8}
CONFIDENCE = re.compile("[0-9]|10")
COUNTRY = re.compile("[A-Z]{2}")
EVERYWHERE = "ZZ"
SHORTEST_PART = 4  # characters of a pattern of the type contains or prefix
LONGEST_REGEXP = 10_000  # characters; the longest of upstream's has 150

NAME, SCOPE, LOCATION, PATTERN_TYPE, PATTERN, CONFIDENCE_NO_FP, EXPECTED_COUNTRIES = map(
    CSV_HEADER.index,
    [
        "name",
        "scope",
        "location_found",
        "pattern_type",
        "pattern",
        "confidence_no_fp",
        "expected_countries",
    ],
)


@dataclass(frozen=True)
class Kind:
    """What the fingerprints of a table can be: their scopes, and where measurements have them."""

    scopes: Mapping[str, int]
    locations: re.Pattern[str]
    locations_in_words: str


KINDS = {
    "fingerprints_dns": Kind(DNS_SCOPES, re.compile("dns"), "dns"),
    "fingerprints_http": Kind(
        HTTP_SCOPES,
        re.compile(r"body|header\.[a-z0-9!#$%&'*+.^_`|~-]+"),
        "body or header.NAME in lower case",
    ),
}


@dataclass
class Fingerprints(ParsedFile):
    """A file of fingerprints as it was read.

    Attributes:
        rows: those to load, in the order of their table's columns.
        lines: name → line, of the rows to load.
        refused: what the rows that are not to be loaded are known by from run to run.
    """

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def refuse(self, line: int, record: Sequence[str], reason: object) -> None:
        """Note that a record is not to be loaded."""
        super().refuse(line, record, reason)
        self.refused.add(row_digest(record))

    def refuse_rows(self, reasons: Mapping[str, str]) -> None:
        """Refuse rows that were read as good ones.

        Args:
            reasons: name → why its row is refused.
        """
        for row in self.rows:
            if reason := reasons.get(row[NAME]):
                self.refuse(self.lines[row[NAME]], [str(cell) for cell in row], reason)
        self.rows = [row for row in self.rows if row[NAME] not in reasons]


def read_fingerprints(file: str, content: bytes, kind: Kind) -> Fingerprints:
    """Parse and validate a file; what is wrong is in the result.

    What only the database can tell is not checked here: see `read_files`.
    """
    result = Fingerprints(file)
    try:
        for line, row in read_rows(result, content, LAYOUT):
            _read_row(result, line, row, kind)
    except BrokenFileError as error:
        result.broken = Finding(file, error.line, error.reason)
    return result


def _read_row(result: Fingerprints, line: int, row: list[str], kind: Kind) -> None:
    if reason := next(_refusals(row, kind), ""):
        result.refuse(line, row, reason)
    elif result.lines.setdefault(row[NAME], line) != line:
        result.refuse(line, row, f"the name is in line {result.lines[row[NAME]]} already")
    else:
        confidence = int(row[CONFIDENCE_NO_FP])
        result.rows.append((*row[:CONFIDENCE_NO_FP], confidence, *row[CONFIDENCE_NO_FP + 1 :]))


def _refusals(row: Sequence[str], kind: Kind) -> Iterator[str]:
    """Yield why a row is refused; the first reason is enough."""
    if not row[NAME]:
        yield "no name"
    if row[SCOPE] not in kind.scopes:
        yield f"scope {row[SCOPE]!r} is none of {', '.join(kind.scopes)}"
    if not kind.locations.fullmatch(row[LOCATION]):
        yield f"location_found {row[LOCATION]!r} is not {kind.locations_in_words}"
    if row[PATTERN_TYPE] not in PATTERN_TYPES:
        yield f"pattern type {row[PATTERN_TYPE]!r} is none of {', '.join(PATTERN_TYPES)}"
    if reason := _fault_of_length(row[PATTERN_TYPE], row[PATTERN]):
        yield reason
    if not CONFIDENCE.fullmatch(row[CONFIDENCE_NO_FP]):
        yield f"confidence {row[CONFIDENCE_NO_FP]!r} is not a whole number from 0 to 10"
    if not all(map(COUNTRY.fullmatch, _countries(row[EXPECTED_COUNTRIES]))):
        yield f"countries {row[EXPECTED_COUNTRIES]!r} are not two-letter codes"


def _fault_of_length(pattern_type: str, pattern: str) -> str:
    if not pattern:
        return "an empty pattern, which everything would match"
    if pattern_type in ("contains", "prefix") and len(pattern) < SHORTEST_PART:
        return f"{pattern_type} {pattern!a} is shorter than {SHORTEST_PART} characters"
    if pattern_type == "regexp" and len(pattern) > LONGEST_REGEXP:
        return f"a regular expression of more than {LONGEST_REGEXP:,} characters"
    return ""


def _countries(cell: str) -> list[str]:
    """Return the countries of a cell as the fastpath reads them."""
    codes = (code.strip().upper() for code in cell.split(","))
    return [code for code in codes if code not in ("", EVERYWHERE)]


def row_digest(record: Sequence[str]) -> str:
    """Return what a row is known by from run to run: half of its SHA-256, in hexadecimal."""
    return hashlib.sha256("\0".join(record).encode()).hexdigest()[:32]
