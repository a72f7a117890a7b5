"""The format of the blocking fingerprints: bytes in, rows and findings out.

Source of the format: https://github.com/ooni/blocking-fingerprints, README.md. The files are CSV
with CRLF line ends; a pattern can contain CRLF itself, and its bytes are kept as they are.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from csv_source import BrokenFileError, Finding, ParsedFile, decoded, records

HEADER = [
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
PATTERN_TYPES = {"full": 1, "prefix": 2, "contains": 3, "regexp": 4}
DNS_SCOPES = {"nat": 1, "isp": 2, "prod": 3, "inst": 4, "vbw": 5, "fp": 6}
HTTP_SCOPES = {**DNS_SCOPES, "injb": 7, "prov": 8}
CONFIDENCE = re.compile("[0-9]|10")
COUNTRIES = re.compile("(?:[A-Z]{2}(?:,[A-Z]{2})*)?")

NAME, SCOPE, PATTERN_TYPE, PATTERN, CONFIDENCE_NO_FP, EXPECTED_COUNTRIES = map(
    HEADER.index,
    ["name", "scope", "pattern_type", "pattern", "confidence_no_fp", "expected_countries"],
)


@dataclass
class Fingerprints(ParsedFile):
    """A file of fingerprints as it was read; its rows have the columns of the header.

    Attributes:
        lines: name → line, of the rows to load.
    """

    lines: dict[str, int] = field(default_factory=dict)

    def refuse_regexps(self, error_of: Callable[[Sequence[str]], Mapping[str, str]]) -> None:
        """Refuse the rows whose regular expression does not compile.

        Args:
            error_of: given regular expressions, returns those that are wrong, and why.
        """
        regexps = [row for row in self.rows if row[PATTERN_TYPE] == "regexp"]
        errors = error_of([row[PATTERN] for row in regexps])
        for row in regexps:
            if row[PATTERN] in errors:
                reason = f"the regular expression does not compile: {errors[row[PATTERN]]}"
                self.refuse(self.lines[row[NAME]], [str(cell) for cell in row], reason)
                self.rows.remove(row)


def read_fingerprints(file: str, content: bytes, scopes: Mapping[str, int]) -> Fingerprints:
    """Parse and validate a file; what is wrong is in the result.

    Regular expressions are not checked here: see `Fingerprints.refuse_regexps`.
    """
    result = Fingerprints(file)
    try:
        text, has_bom = decoded(content)
        if has_bom:
            result.warnings.append(Finding(file, 1, "starts with a byte order mark"))
        lines = records(text)
        line, header = next(lines, (1, []))
        if header != HEADER:
            raise BrokenFileError(line, f"the header is not {','.join(HEADER)}")  # noqa: TRY301
        for line, row in lines:
            _read_row(result, line, row, scopes)
    except BrokenFileError as error:
        result.broken = Finding(file, error.line, error.reason)
    return result


def _read_row(result: Fingerprints, line: int, row: list[str], scopes: Mapping[str, int]) -> None:
    if reason := next(_problems(row, scopes), ""):
        result.refuse(line, row, reason)
    elif result.lines.setdefault(row[NAME], line) != line:
        result.refuse(line, row, f"the name is in line {result.lines[row[NAME]]} already")
    else:
        confidence = int(row[CONFIDENCE_NO_FP])
        result.rows.append((*row[:CONFIDENCE_NO_FP], confidence, *row[CONFIDENCE_NO_FP + 1 :]))


def _problems(row: Sequence[str], scopes: Mapping[str, int]) -> Iterator[str]:
    """Yield why a row is refused; the first reason is enough."""
    if len(row) != len(HEADER):
        yield f"{len(row)} columns instead of {len(HEADER)}"
    if not row[NAME]:
        yield "no name"
    if row[SCOPE] not in scopes:
        yield f"scope {row[SCOPE]!r} is none of {', '.join(scopes)}"
    if row[PATTERN_TYPE] not in PATTERN_TYPES:
        yield f"pattern type {row[PATTERN_TYPE]!r} is none of {', '.join(PATTERN_TYPES)}"
    if not row[PATTERN]:
        yield "an empty pattern, which everything would match"
    if not CONFIDENCE.fullmatch(row[CONFIDENCE_NO_FP]):
        yield f"confidence {row[CONFIDENCE_NO_FP]!r} is no whole number from 0 to 10"
    if not COUNTRIES.fullmatch(row[EXPECTED_COUNTRIES]):
        yield f"countries {row[EXPECTED_COUNTRIES]!r} are not two-letter codes"
