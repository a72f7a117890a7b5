"""The test lists: bytes of files in, rows and findings out.

Source of the format: README.md of the repository. A list is a CSV file with a header; of its
columns `url` and `category_code` are used. Its name is its country's code.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import msgspec

from citizenlab.urls import domain_of
from csv_source import BrokenFileError, Finding, Layout, ParsedFile, read_rows
from ooni_common.errors import DataRefused
from ooni_common.swap.content import Block, Content

log = logging.getLogger("ooni.citizenlab")

COLUMNS = msgspec.msgpack.Decoder(list[list[str]])

FOLDER = "lists/"
GLOBAL_CC = "ZZ"  # what the table has for global.csv
MOST_LINE_BREAKS_IN_CELL = 2  # more of them mean a quote that was never closed
TOLERATED_REFUSED_SHARE = 0.10
TOLERATED_REFUSED_ROWS = 5


class Names(Protocol):
    """What upstream calls things, from the configuration: it can rename them at any time."""

    @property
    def legend_file(self) -> str:
        """The file with the category codes."""

    @property
    def legend_column(self) -> str:
        """Its column with them."""

    @property
    def url_column(self) -> str:
        """The column of a list with the URLs."""

    @property
    def category_column(self) -> str:
        """The one with their category codes."""

    @property
    def extra_category_codes(self) -> Sequence[str]:
        """Codes that count as if the legend had them."""


class Rows:
    """The rows of one country, packed: a fifth of what tuples of them take.

    Attributes:
        count: how many they are.
        content: what they add up to.
    """

    def __init__(self, cc: str, rows: Sequence[tuple[str, str, str]] = ()) -> None:
        """Take (domain, URL, category code) of each."""
        self.count = len(rows)
        self._cc = cc
        columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
        self._packed = msgspec.msgpack.encode(columns)
        self.content = self._block(columns).content if rows else Content()

    def block(self) -> Block:
        """Return them as the database takes them; there is at least one."""
        block = self._block(COLUMNS.decode(self._packed))
        block.content = self.content
        return block

    def hosts(self) -> frozenset[str]:
        """Return their hosts, see `host_of`."""
        return frozenset(map(host_of, COLUMNS.decode(self._packed)[0]))

    def _block(self, columns: Sequence[Sequence[str]]) -> Block:
        domains, urls, categories = columns
        return Block([domains, urls, [self._cc] * self.count, categories])


class TestList(ParsedFile):
    """A list as it was read.

    Attributes:
        cc: its country in the table's spelling.
        rows: those to load.
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    def __init__(self, file: str, cc: str) -> None:
        super().__init__(file)
        self.cc = cc
        self.rows = Rows(cc)


@dataclass(frozen=True)
class Format:
    """What the lists of a commit are read by: the names of their columns, the category codes."""

    url_column: str
    category_column: str
    categories: frozenset[str]


def host_of(domain: str) -> str:
    """Return what identifies the host of a domain: with and without `www.` it is the same."""
    return domain.removeprefix("www.")


def is_list(path: str) -> bool:
    """Tell whether a file can be a list: those in folders below are not."""
    return path.startswith(FOLDER) and path.count("/") == 1 and path.endswith(".csv")


def country_of(file: str) -> str | None:
    """Return the table's cc for the path of a list, or None where it is not a country's list."""
    stem = PurePosixPath(file).stem.lower()
    if stem == "global":
        return GLOBAL_CC
    return stem if re.fullmatch("[a-z]{2}", stem) else None


def file_of(cc: str) -> str:
    """Return the path of the list of a country."""
    return f"{FOLDER}{'global' if cc == GLOBAL_CC else cc}.csv"


def format_of(legend: bytes, names: Names) -> Format:
    """Return what the lists are read by.

    Args:
        legend: the content of `names.legend_file`.
        names: of files and columns.

    Raises:
        DataRefused: the legend is unusable.
    """
    try:
        categories = read_categories(legend, names.legend_column)
    except BrokenFileError as error:
        raise DataRefused(
            f"{names.legend_file}:{error.line}: {error.reason}; nothing is loaded without a"
            " legend, and legend_file and legend_column say where it is"
        ) from None
    codes = categories.union(names.extra_category_codes)
    return Format(names.url_column, names.category_column, codes)


def read_categories(content: bytes, column: str) -> frozenset[str]:
    """Return the category codes of the legend file.

    Raises:
        BrokenFileError: it is not CSV, or has no codes.
    """
    rows = read_rows(ParsedFile(""), content, Layout([column], ragged=True))
    codes = frozenset(code for _, (code,) in rows if code)
    if not codes:
        raise BrokenFileError(1, "no category codes")
    return codes


def read_lists(files: Iterable[tuple[str, bytes]], how: Format) -> list[TestList]:
    """Parse and validate the lists among the CSV files; what is wrong is in them.

    Args:
        files: path and content of each; one is held at a time.
        how: to read them.
    """
    by_country: dict[str, TestList] = {}
    for file, content in files:
        cc = country_of(file)
        if cc is None:
            if "/00-LEGEND-" not in file:
                log.info("%s: not loaded, %r is not a country", file, PurePosixPath(file).stem)
        elif cc in by_country:
            first = by_country[cc]
            first.broken = Finding(file, 1, f"a second list for {cc}, beside {first.file}")
        else:
            by_country[cc] = read_list(file, cc, content, how)
    return list(by_country.values())


def read_list(file: str, cc: str, content: bytes, how: Format) -> TestList:
    """Parse and validate one list; what is wrong is in the result."""
    result = TestList(file, cc)
    try:
        rows = _read_rows(result, content, how)
        _check_refused_share(result, len(rows))
        result.rows = Rows(cc, rows)
    except BrokenFileError as error:
        result.broken = Finding(file, error.line, error.reason)
    return result


def _read_rows(result: TestList, content: bytes, how: Format) -> list[tuple[str, str, str]]:
    columns = [how.url_column, how.category_column]
    layout = Layout(columns, most_line_breaks=MOST_LINE_BREAKS_IN_CELL)
    rows: list[tuple[str, str, str]] = []
    lines: dict[str, int] = {}
    for line, cells in read_rows(result, content, layout):
        url, category = cells
        try:
            domain = domain_of(url)
            if category not in how.categories:
                raise ValueError(f"category code {category!r} is not in the legend")  # noqa: TRY301
            if lines.setdefault(url, line) != line:
                raise ValueError(f"the URL is in line {lines[url]} already")  # noqa: TRY301
            rows.append((domain, url, category))
        except ValueError as error:
            result.refuse(line, cells, error)
    return rows


def _check_refused_share(result: TestList, good: int) -> None:
    refused, rows = len(result.refusals), len(result.refusals) + good
    if refused > TOLERATED_REFUSED_ROWS and refused > rows * TOLERATED_REFUSED_SHARE:
        ((cause, count),) = result.causes().most_common(1)
        raise BrokenFileError(
            result.refusals[0].line,
            f"{refused} of {rows} rows are refused, from here on;"
            f" {TOLERATED_REFUSED_SHARE:.0%} is the most; mostly ({count}): {cause}",
        )
