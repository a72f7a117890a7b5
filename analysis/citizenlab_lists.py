"""The format of the CitizenLab test lists: bytes in, rows and findings out.

Source of the format: https://github.com/citizenlab/test-lists, README.md. A list is a CSV file with
a header; of its columns `url` and `category_code` are used. Its name is its country's code.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import idna

from csv_source import BrokenFileError, Finding, ParsedFile, check_header, decoded, records

LEGEND = "lists/00-LEGEND-new_category_codes.csv"
LEGEND_COLUMN = "New Code"
GLOBAL_CC = "ZZ"  # what the table has for global.csv
MOST_LINE_BREAKS_IN_CELL = 2  # more of them mean a quote that was never closed
TOLERATED_REFUSED_SHARE = 0.10
TOLERATED_REFUSED_ROWS = 5

LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST = re.compile(rf"(?:{LABEL}\.)+{LABEL}")
# Nearly every URL is like this, and then this one expression is all its validation.
PLAIN_URL = re.compile(rf"https?://((?:{LABEL}\.)+[a-z]{{2,63}})(?:[/?#][!-\[\]-~]*)?")
LONGEST_HOST = 253
LABEL_SEPARATORS = re.compile("[.\u3002\uff0e\uff61]")  # RFC 3490, section 3.1
NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass
class TestList(ParsedFile):
    """A list as it was read; its rows are (domain, url, cc, category_code).

    Attributes:
        cc: its country in the table's spelling.
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    cc: str = ""


def country_of(file: str) -> str | None:
    """Return the table's cc for the path of a list, or None where it is not a country's list."""
    stem = PurePosixPath(file).stem.lower()
    if stem == "global":
        return GLOBAL_CC
    return stem if re.fullmatch("[a-z]{2}", stem) else None


def read_categories(content: bytes) -> frozenset[str]:
    """Return the category codes of the legend file.

    Raises:
        BrokenFileError: it is not CSV, or has no codes.
    """
    text, _ = decoded(content)
    lines = records(text)
    line, header = next(lines, (1, []))
    check_header(line, header, [LEGEND_COLUMN])
    column = header.index(LEGEND_COLUMN)
    codes = frozenset(row[column] for _, row in lines if len(row) > column and row[column])
    if not codes:
        raise BrokenFileError(line, "no category codes")
    return codes


def read_list(file: str, cc: str, content: bytes, categories: frozenset[str]) -> TestList:
    """Parse and validate one list; what is wrong is in the result."""
    result = TestList(file, cc=cc)
    try:
        text, has_bom = decoded(content)
        if has_bom:
            result.warnings.append(Finding(file, 1, "starts with a byte order mark"))
        _read_rows(result, text, categories)
        _check_refused_share(result)
    except BrokenFileError as error:
        result.broken = Finding(file, error.line, error.reason)
    return result


def domain_of(url: str) -> str:
    """Return the host of a URL in the table's form: lower case, punycode, no port, no final dot.

    Raises:
        ValueError: says why the URL can't be tested.
    """
    plain = PLAIN_URL.fullmatch(url)
    if plain and len(plain[1]) <= LONGEST_HOST:
        return plain[1]
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise ValueError("the URL does not start with http:// or https://")
    if not url.isprintable() or " " in url:
        raise ValueError("the URL has a space or a control character")
    if "\\" in url:
        raise ValueError("the URL has a backslash")
    return _host_of(re.split("[/?#]", rest, maxsplit=1)[0])


def _host_of(authority: str) -> str:
    if "@" in authority:
        raise ValueError("the URL has user information before its host")
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](:?)(.*)", authority)
    host, colon, port = bracketed.groups() if bracketed else authority.partition(":")
    if colon and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise ValueError(f"bad port {port!r}")
    return _ip_address(host, version=6) if bracketed else _host_name(host)


def _ip_address(host: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(host)
        if address.version == version and "%" not in host:
            return host.lower()
    except ValueError:
        pass
    raise ValueError(f"bad host {host!r}: not an IPv{version} address")


def _host_name(host: str) -> str:
    """Return a domain name or IPv4 address in the table's form."""
    labels = LABEL_SEPARATORS.split(host)
    if len(labels) > 1 and not labels[-1]:
        labels.pop()
    try:
        name = ".".join(map(_ascii_label, labels))
    except idna.IDNAError as error:
        raise ValueError(f"bad host {host!r}: {error}") from None
    if NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        return _ip_address(name, version=4)
    if len(labels) == 1:
        raise ValueError(f"bad host {host!r}: it has only one label")
    if len(name) > LONGEST_HOST or not HOST.fullmatch(name):
        raise ValueError(f"bad host {host!r}")
    return name


def _ascii_label(label: str) -> str:
    return label.lower() if label.isascii() else idna.encode(label, uts46=True).decode("ascii")


def _read_rows(result: TestList, text: str, categories: frozenset[str]) -> None:
    lines = records(text, MOST_LINE_BREAKS_IN_CELL)
    line, header = next(lines, (1, []))
    check_header(line, header, ["url", "category_code"])
    url_at, category_at, width = header.index("url"), header.index("category_code"), len(header)
    seen: dict[str, int] = {}
    for line, row in lines:
        try:
            if len(row) != width:
                _check_width(result, line, row, width)
            url, category = row[url_at], row[category_at]
            if row == header:
                raise ValueError("the header again")  # noqa: TRY301 (as domain_of does)
            domain = domain_of(url)
            if category not in categories:
                raise ValueError(f"category code {category!r} is not in the legend")  # noqa: TRY301
            if seen.setdefault(url, line) != line:
                raise ValueError(f"the URL is in line {seen[url]} already")  # noqa: TRY301
            result.rows.append((domain, url, result.cc, category))
        except ValueError as error:
            result.refuse(line, row, error)


def _check_width(result: TestList, line: int, row: Sequence[str], width: int) -> None:
    if len(row) < width or any(row[width:]):
        raise ValueError(f"{len(row)} columns instead of {width}")
    result.warnings.append(Finding(result.file, line, "empty extra cells at the end"))


def _check_refused_share(result: TestList) -> None:
    refused, rows = len(result.refused), len(result.refused) + len(result.rows)
    if refused > TOLERATED_REFUSED_ROWS and refused > rows * TOLERATED_REFUSED_SHARE:
        raise BrokenFileError(
            result.refused[0].line,
            f"{refused} of {rows} rows are refused, from here on;"
            f" {TOLERATED_REFUSED_SHARE:.0%} is the most",
        )
