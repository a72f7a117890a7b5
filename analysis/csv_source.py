"""CSV files from upstreams that nobody controls: bytes in, records with line numbers out."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

CONFLICT_MARKER = re.compile(r"^(?:<{7}|\|{7}|={7}|>{7})(?: .*)?\r?$", re.MULTILINE)
LINE_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Finding:
    """Something wrong in a file, for people: a warning, or the refusal of a row or of the file."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class BrokenFileError(Exception):
    """The file is not a CSV file with the columns that are needed."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason


@dataclass
class ParsedFile:
    """A file as it was read.

    Attributes:
        file: its name or path.
        rows: those to load, in the order of their table's columns.
        refusals: a finding for each row that is not to be loaded.
        warnings: findings that keep no row from being loaded.
        broken: why nothing of the file can be trusted, if so.
    """

    file: str
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    refusals: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    broken: Finding | None = None

    def refuse(self, line: int, record: Sequence[str], reason: object) -> None:
        """Note that a record is not to be loaded."""
        self.refusals.append(Finding(self.file, line, f"{reason}: {excerpt(record)}"))


def csv_text(content: bytes) -> tuple[str, bool]:
    """Return the text of a CSV file, and whether it started with a byte order mark.

    Raises:
        BrokenFileError: it is no text, or another kind of text.
    """
    start = content.lstrip()
    if start.startswith(b"version https://git-lfs.github.com/"):
        raise BrokenFileError(1, "a Git LFS pointer instead of CSV")
    if start.startswith(b"<") and not start.startswith(b"<<<<<<<"):
        raise BrokenFileError(1, "HTML instead of CSV")
    if b"\0" in content:
        raise BrokenFileError(_line_at(content, content.index(b"\0")), "a NUL byte")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BrokenFileError(_line_at(content, error.start), "not UTF-8") from None
    if marker := CONFLICT_MARKER.search(text):
        line = text.count("\n", 0, marker.start()) + 1
        raise BrokenFileError(line, "a merge conflict marker")
    return text.removeprefix("\ufeff"), text.startswith("\ufeff")


def records(text: str, most_line_breaks: int | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, cells) for each record that is not an empty line.

    Args:
        text: the file; line ends within cells are kept as they are.
        most_line_breaks: in one cell; more of them mean a quote that was never closed.

    Raises:
        BrokenFileError: the quotes do not match up.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for record in reader:
            if record:
                if most_line_breaks is not None and reader.line_num > line:
                    _check_line_breaks(line, record, most_line_breaks)
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        unbalanced = "unexpected end" in str(error) or "expected after" in str(error)
        raise BrokenFileError(line, "unbalanced quotes" if unbalanced else str(error)) from None


def check_header(line: int, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise BrokenFileError unless the header has each wanted column once."""
    if not header or any("://" in cell for cell in header):
        raise BrokenFileError(line, "no header")
    for name in wanted:
        if header.count(name) != 1:
            fault = "lacks" if name not in header else "repeats"
            raise BrokenFileError(line, f"the header {fault} the column {name!r}")


def excerpt(record: Sequence[str], length: int = 100) -> str:
    """Return a record for a log line: short, in one line, whatever it holds."""
    text = ",".join(record)
    return ascii(text if len(text) <= length else text[:length] + "…")


def _check_line_breaks(line: int, record: Sequence[str], most: int) -> None:
    if any(len(LINE_BREAK.findall(cell)) > most for cell in record):
        raise BrokenFileError(line, f"unbalanced quotes: a cell has more than {most} line breaks")


def _line_at(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1
