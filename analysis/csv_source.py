"""CSV files from upstreams that nobody controls: bytes in, cells by column and findings out.

What is only untidy is repaired, and is a warning: a byte order mark, blanks around a cell, empty
cells at the end of a header or a row, rows without a text. A row that can't be used is refused, and
a file that can't be is broken: who uses its rows decides what that means.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

CONFLICT_SIGNS = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
CONFLICT_MARKER = re.compile(r"^(?:<{7}|\|{7}|={7}|>{7})(?: .*)?\r?$", re.MULTILINE)
LINE_BREAK = re.compile(r"\r\n|\r|\n")
BLANKS = " \t\r\n\u00a0\u3000\ufeff"
MOST_CELLS = 1000  # of a row where their number is free
MOST_REFUSALS = 10_000  # of one file; with more of them it is broken, whatever its size
LONGEST_EXCERPT = 100  # characters


@dataclass(frozen=True)
class Finding:
    """Something wrong in a file, for people: a warning, or the refusal of a row or of the file.

    Attributes:
        file: its name or path.
        line: the first that it is about.
        reason: what is wrong.
        shown: an excerpt, of a refused row.
        lines: how many have it.
    """

    file: str
    line: int
    reason: str
    shown: str = ""
    lines: int = 1

    def __str__(self) -> str:
        shown = f": {self.shown}" if self.shown else ""
        more = f" (and {self.lines - 1:,} more lines)" if self.lines > 1 else ""
        return f"{self.file}:{self.line}: {self.reason}{shown}{more}"


class BrokenFileError(Exception):
    """The file is not a CSV file with the columns that are needed."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason


@dataclass
class ParsedFile:
    """What was found in a file.

    Attributes:
        file: its name or path.
        refusals: a finding for each row that is not to be loaded.
        broken: why nothing of the file can be trusted, if so.
    """

    file: str
    refusals: list[Finding] = field(default_factory=list)
    broken: Finding | None = None
    _warnings: dict[str, Finding] = field(default_factory=dict)

    @property
    def warnings(self) -> list[Finding]:
        """Findings that keep no row from being loaded, one for each kind."""
        return list(self._warnings.values())

    def warn(self, line: int, reason: str) -> None:
        """Note what was repaired."""
        first = self._warnings.get(reason)
        lines = first.lines + 1 if first else 1
        self._warnings[reason] = replace(first or Finding(self.file, line, reason), lines=lines)

    def refuse(self, line: int, record: Sequence[str], reason: object) -> None:
        """Note that a record is not to be loaded."""
        self.refusals.append(Finding(self.file, line, str(reason), excerpt(record)))

    def causes(self) -> Counter[str]:
        """Return how many rows were refused for which reason."""
        return Counter(refusal.reason for refusal in self.refusals)


@dataclass(frozen=True)
class Layout:
    """What is read of a file.

    Attributes:
        columns: the names of those that are needed, in the order that their cells are wanted in.
        exact: those of them whose cells are kept byte for byte; others lose blanks around them.
        most_line_breaks: in one cell; more of them mean a quote that was never closed. None: any.
        ragged: rows may have any number of cells, as long as the needed ones are among them.
    """

    columns: Sequence[str]
    exact: frozenset[str] = frozenset()
    most_line_breaks: int | None = None
    ragged: bool = False


def read_rows(
    result: ParsedFile, content: bytes, layout: Layout
) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, cells of the layout's columns) for each row of a file.

    What was repaired is a warning in `result`, and what has another number of columns than the
    header, or is the header again, is refused there.

    Raises:
        BrokenFileError: it isn't such a file, or the rest can't be read.
    """
    text, has_mark = csv_text(content)
    if has_mark:
        result.warn(1, "starts with a byte order mark")
    lines = records(text, layout.most_line_breaks, blanks_matter=bool(layout.exact))
    line, titles = next(lines, (1, []))
    header = _header(result, line, titles, layout.columns)
    columns = list(layout.columns)
    places = [header.index(name) for name in columns]
    blanks = ["" if name in layout.exact else BLANKS for name in columns]
    width, most = len(header), len(titles)
    if layout.ragged:
        width, most = max(places) + 1, MOST_CELLS
    for line, row in lines:
        if len(result.refusals) > MOST_REFUSALS:
            raise BrokenFileError(line, f"more than {MOST_REFUSALS:,} rows are refused up to here")
        if len(row) != width and not _fits(result, line, row, (width, most)):
            continue
        given = list(map(row.__getitem__, places))
        cells = list(map(str.strip, given, blanks))
        if cells == columns:
            result.refuse(line, row, "the header again")
        elif not any(cells) and not "".join(row).strip(BLANKS):
            result.warn(line, "an empty row")
        else:
            if cells != given:
                result.warn(line, "blanks around a cell")
            yield line, cells


def csv_text(content: bytes) -> tuple[str, bool]:
    """Return the text of a CSV file, and whether it started with a byte order mark.

    Raises:
        BrokenFileError: it is not text, or not CSV of this layout.
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
    # The expression is looked for where it can be: it takes ten times as long as a text.
    if any(sign in text for sign in CONFLICT_SIGNS) and (marker := CONFLICT_MARKER.search(text)):
        line = text.count("\n", 0, marker.start()) + 1
        raise BrokenFileError(line, "a merge conflict marker")
    return text.removeprefix("\ufeff"), text.startswith("\ufeff")


def records(
    text: str, most_line_breaks: int | None = None, *, blanks_matter: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, cells) for each record that is not an empty line.

    Args:
        text: the file; line ends within cells are kept as they are.
        most_line_breaks: in one cell; more of them mean a quote that was never closed.
        blanks_matter: where they don't, a quoted cell may come after some.

    Raises:
        BrokenFileError: the quotes do not match up.
    """
    skipped = not blanks_matter and _quoted_after_blanks(text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=skipped)
    line = 1
    try:
        for record in reader:
            if record:
                if most_line_breaks is not None and reader.line_num > line + most_line_breaks:
                    _check_line_breaks(line, record, most_line_breaks)
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        unbalanced = "unexpected end" in str(error) or "expected after" in str(error)
        raise BrokenFileError(line, "unbalanced quotes" if unbalanced else str(error)) from None


def excerpt(record: Sequence[str]) -> str:
    """Return a record for a log line: short, in one line, whatever it holds."""
    text = ",".join(record)
    return ascii(text if len(text) <= LONGEST_EXCERPT else text[:LONGEST_EXCERPT] + "…")


def _header(
    result: ParsedFile, line: int, titles: Sequence[str], wanted: Sequence[str]
) -> list[str]:
    """Return the names of the columns, without what is empty at their end."""
    names = [title.strip(BLANKS) for title in titles]
    if names != titles:
        result.warn(line, "blanks around the name of a column")
    while names and not names[-1]:
        names.pop()
    if len(names) < len(titles):
        result.warn(line, "empty extra cells at the end of the header")
    if not names or any("://" in name for name in names):
        raise BrokenFileError(line, "no header")
    for name in wanted:
        if names.count(name) != 1:
            fault = "lacks" if name not in names else "repeats"
            has = excerpt(names)
            raise BrokenFileError(line, f"the header {fault} the column {name!r}: it is {has}")
    return names


def _fits(result: ParsedFile, line: int, row: Sequence[str], widths: tuple[int, int]) -> bool:
    """Tell whether a row can be used that has not as many cells as the header has names.

    Args:
        result: takes a row that can't.
        line: of the row.
        row: its cells.
        widths: of the header, without and with what is empty at its end.
    """
    width, most = widths
    if len(row) >= width and not any(cell.strip(BLANKS) for cell in row[most:]):
        if len(row) > most:
            result.warn(line, "empty extra cells at the end")
        return True
    if not "".join(row).strip(BLANKS):
        result.warn(line, "an empty row")
        return False
    columns = "1 column" if len(row) == 1 else f"{len(row)} columns"
    result.refuse(line, row, f"{columns} instead of {width}")
    return False


def _quoted_after_blanks(text: str) -> bool:
    """Tell whether a cell begins with blanks and a quote.

    From quote to quote: an expression would stop at each comma, and takes eight times as long.
    """
    quote = text.find(' "') + 1
    while quote:
        start = quote
        while start and text[start - 1] == " ":
            start -= 1
        if not start or text[start - 1] in ",\n":
            return True
        quote = text.find(' "', quote) + 1
    return False


def _check_line_breaks(line: int, record: Sequence[str], most: int) -> None:
    if any(len(LINE_BREAK.findall(cell)) > most for cell in record):
        raise BrokenFileError(line, f"unbalanced quotes: a cell has more than {most} line breaks")


def _line_at(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1
