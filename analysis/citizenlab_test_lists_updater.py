#!/usr/bin/env python3
"""Load the CitizenLab test lists into the table `citizenlab`.

    https://github.com/citizenlab/test-lists, lists/*.csv
        → citizenlab (domain, url, cc, category_code)

The lists say which URLs OONI's probes test in which country. Anybody can propose a change to them,
so nothing that comes from there is trusted: the repository is read as data (citizenlab_git.py),
every row is validated, and the table is replaced as a whole or not at all.

Source of the format: README.md of that repository. A list is a CSV file with a header; of its
columns `url` and `category_code` are used. Its name is its country's code.

By hand: citizenlab_test_lists_updater.py --dry-run --stdout
"""

import ipaddress
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import idna
from msgspec import Meta

import citizenlab_git
from citizenlab_git import TreeEntry
from csv_source import BrokenFileError, Finding, Layout, ParsedFile, read_rows
from findings import report_findings
from ooni_common.config import Count, DatabaseConfig, SecretUrl, Share, check_url
from ooni_common.database import Database
from ooni_common.errors import DataRefused
from ooni_common.nodes import Nodes, connected_nodes
from ooni_common.run import DOCTOR, ROLLBACK, Command, Job, Script, execute
from ooni_common.swap.agreement import agreed_database
from ooni_common.swap.content import Row
from ooni_common.swap.update import LossLimit, Table, Update
from table_updates import (
    check_before_writing,
    examine_updater,
    heal_nodes,
    load,
    loaded_source,
    roll_back_tables,
    versioned,
)

log = logging.getLogger("ooni.citizenlab")

TABLE = Table(
    name="citizenlab",
    shadow="citizenlab_flip",
    columns={
        "domain": "String",
        "url": "String",
        "cc": "FixedString(32)",
        "category_code": "String",
    },
    engine="ENGINE = ReplacingMergeTree ORDER BY (domain, url, cc, category_code)",
    identity=("url", "cc"),
)
TOLERATED_COUNTRY_LOSS = 20  # rows that any country may lose, however small it is

LEGEND = "lists/00-LEGEND-new_category_codes.csv"
LEGEND_COLUMN = "New Code"
GLOBAL_CC = "ZZ"  # what the table has for global.csv
MOST_LINE_BREAKS_IN_CELL = 2  # more of them mean a quote that was never closed
LAYOUT = Layout(["url", "category_code"], most_line_breaks=MOST_LINE_BREAKS_IN_CELL)
TOLERATED_REFUSED_SHARE = 0.10
TOLERATED_REFUSED_ROWS = 5

LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST = re.compile(rf"(?:{LABEL}\.)+{LABEL}")
# Nearly every URL is like this, and then this one expression is all its validation.
PLAIN_URL = re.compile(rf"https?://((?:{LABEL}\.)+[a-z]{{2,63}})(?:[/?#][!-\[\]-~]*)?")
LONGEST_HOST = 253
LABEL_SEPARATORS = re.compile("[.\u3002\uff0e\uff61]")  # RFC 3490, section 3.1
NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Config(DatabaseConfig, frozen=True, kw_only=True):
    """The keys of update-citizenlab.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/analysis")
    db_uri: SecretUrl = SecretUrl("clickhouse://citizenlab@localhost/default")
    git_url: str = "https://github.com/citizenlab/test-lists.git"
    ca_file: Path | None = None
    git_time_limit: Annotated[float, Meta(gt=0)] = 300
    on_broken_file: Literal["refuse", "keep-previous"] = "refuse"
    max_rejected_rows: Count = 200
    max_shrink: Share = 0.10
    max_country_shrink: Share = 0.50
    min_rows: Count = 20_000
    max_rows: Count = 1_000_000

    def __post_init__(self) -> None:
        """Refuse an address that can hold a secret: git would show it in the process list."""
        super().__post_init__()
        check_url("git_url", self.git_url, ("https", "http", "file"), needs_host=False)
        if re.search("[@?#]", self.git_url):
            raise ValueError(
                "git_url: the clone is unauthenticated; leave user, password and ?query out"
            )


SCRIPT = Script(
    name="citizenlab_test_lists_updater",
    command="ooni-update-citizenlab",
    description="Load the CitizenLab test lists into the table `citizenlab`.",
    config_type=Config,
    config_file=Path("/etc/ooni/update-citizenlab.conf"),
    flags=ROLLBACK,
    commands=(Command("run", "load the lists, unless the table has them already"), DOCTOR),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run once as the command line says; return the exit status."""
    return execute(SCRIPT, lambda job: (examine if job.command == "doctor" else update)(job), argv)


def examine(job: Job[Config]) -> None:
    """Print whether a run can succeed."""
    config = job.config

    def upstream() -> str:
        git = citizenlab_git.Git(config.git_time_limit, ca_file=config.ca_file)
        return f"{config.git_url} is at {citizenlab_git.head_commit(git, config.git_url)[:12]}"

    examine_updater(job, [TABLE], [("upstream", upstream)])


def update(job: Job[Config]) -> None:
    """Load the lists of the newest commit, unless the table has them already."""
    config = job.config
    with connected_nodes(config) as nodes:
        check_before_writing(nodes, [TABLE])
        if "rollback" in job.flags:
            roll_back_tables(job, nodes, [TABLE])
            return
        git = citizenlab_git.Git(
            config.git_time_limit, ca_file=config.ca_file, stops_deferred=job.signals.deferred
        )
        commit = citizenlab_git.head_commit(git, config.git_url)
        if loaded_source(job, nodes, [TABLE]).items() >= source_of(config, commit).items():
            log.info("nothing to do: %s holds commit %s", TABLE.name, commit)
            heal_nodes(job, nodes, [TABLE])
            return
        with job.metrics.timer("fetch_citizen_lab_lists"):
            commit, lists = fetch_lists(git, config.git_url)
        report_findings(lists)
        for broken in (test_list.broken for test_list in lists if test_list.broken):
            log.error("%s; file refused", broken)
        job.metrics.gauge("rejected_rows", sum(len(test_list.refusals) for test_list in lists))
        job.metrics.gauge("broken_files", sum(1 for test_list in lists if test_list.broken))
        check_lists(config, lists)
        with job.metrics.timer("update_citizenlab_table"):
            load_rows(job, nodes, commit, rows_to_load(agreed_database(nodes, TABLE), lists))


def source_of(config: Config, commit: str) -> dict[str, str]:
    """Return what the state file says of a load: a commit is one of its repository."""
    return {"commit": commit, "git_url": SecretUrl(config.git_url).identity}


@dataclass
class TestList(ParsedFile):
    """A list as it was read.

    Attributes:
        cc: its country in the table's spelling.
        rows: those to load: domain, url, cc, category_code.
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    cc: str = ""
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)


def fetch_lists(git: citizenlab_git.Git, url: str) -> tuple[str, list[TestList]]:
    """Clone the repository; return its commit and its lists, parsed and validated.

    Raises:
        DataRefused: it is no repository of test lists, or a hostile one.
        Unavailable, TryAgainLater: it can't be cloned now.
    """
    with citizenlab_git.cloned(git, url) as clone:
        log.info("cloned %s at commit %s", url, clone.commit)
        contents = clone.read(csv_files(clone.entries()))
    return clone.commit, read_lists(contents)


def csv_files(entries: Sequence[TreeEntry]) -> list[TreeEntry]:
    """Return the CSV files of the folder of lists; those in folders below it are not lists."""
    files = [
        entry
        for entry in entries
        if entry.path.startswith("lists/") and entry.path.endswith(".csv")
    ]
    below = [ascii(entry.path)[1:-1] for entry in files if entry.path.count("/") > 1]
    if below:
        others = f" and {len(below) - 1} more" if len(below) > 1 else ""
        log.info("in a folder below lists/, not loaded: %s%s", below[0], others)
    return [entry for entry in files if entry.path.count("/") == 1]


def read_lists(contents: Mapping[str, bytes]) -> list[TestList]:
    """Parse and validate the lists among the files.

    Args:
        contents: path → content of the CSV files in the folder of lists.

    Raises:
        DataRefused: the legend is missing or unusable, or two files are for one country.
    """
    try:
        categories = read_categories(contents.get(LEGEND, b""))
    except BrokenFileError as error:
        raise DataRefused(f"{LEGEND}:{error.line}: {error.reason}") from None
    by_country: dict[str, TestList] = {}
    for file, content in sorted(contents.items()):
        cc = country_of(file)
        if cc is None:
            if "/00-LEGEND-" not in file:
                log.info("%s: not loaded, %r is not a country", file, Path(file).stem)
        elif cc in by_country:
            raise DataRefused(f"{file}: a second list for {cc}, beside {by_country[cc].file}")
        else:
            by_country[cc] = read_list(file, cc, content, categories)
    return list(by_country.values())


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
    rows = read_rows(ParsedFile(LEGEND), content, Layout([LEGEND_COLUMN], ragged=True))
    codes = frozenset(code for _, (code,) in rows if code)
    if not codes:
        raise BrokenFileError(1, "no category codes")
    return codes


def read_list(file: str, cc: str, content: bytes, categories: frozenset[str]) -> TestList:
    """Parse and validate one list; what is wrong is in the result."""
    result = TestList(file, cc=cc)
    try:
        _read_rows(result, content, categories)
        _check_refused_share(result)
    except BrokenFileError as error:
        result.broken = Finding(file, error.line, error.reason)
    return result


def _read_rows(result: TestList, content: bytes, categories: frozenset[str]) -> None:
    seen: dict[str, int] = {}
    for line, cells in read_rows(result, content, LAYOUT):
        url, category = cells
        try:
            domain = domain_of(url)
            if category not in categories:
                raise ValueError(f"category code {category!r} is not in the legend")  # noqa: TRY301
            if seen.setdefault(url, line) != line:
                raise ValueError(f"the URL is in line {seen[url]} already")  # noqa: TRY301
            result.rows.append((domain, url, result.cc, category))
        except ValueError as error:
            result.refuse(line, cells, error)


def _check_refused_share(result: TestList) -> None:
    refused, rows = len(result.refusals), len(result.refusals) + len(result.rows)
    if refused > TOLERATED_REFUSED_ROWS and refused > rows * TOLERATED_REFUSED_SHARE:
        raise BrokenFileError(
            result.refusals[0].line,
            f"{refused} of {rows} rows are refused, from here on;"
            f" {TOLERATED_REFUSED_SHARE:.0%} is the most",
        )


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


def check_lists(config: Config, lists: Sequence[TestList]) -> None:
    """Raise DataRefused when the lists are too bad to be loaded."""
    broken = [test_list.broken for test_list in lists if test_list.broken]
    if broken and config.on_broken_file == "refuse":
        files = "1 file is broken" if len(broken) == 1 else f"{len(broken)} files are broken"
        raise DataRefused(
            f"{files}, first {broken[0]}; nothing is loaded until upstream mends it,"
            ' unless on_broken_file = "keep-previous"'
        )
    refused = sum(len(test_list.refusals) for test_list in lists if not test_list.broken)
    if refused > config.max_rejected_rows:
        most = config.max_rejected_rows
        raise DataRefused(f"{refused} rows are refused, more than max_rejected_rows = {most}")


def rows_to_load(database: Database, lists: Sequence[TestList]) -> Sequence[Row]:
    """Return the rows of the sound lists, and the live table's rows for the broken ones."""
    rows = [row for test_list in lists if not test_list.broken for row in test_list.rows]
    broken = [test_list.cc for test_list in lists if test_list.broken]
    if broken and database.exists(TABLE.name):
        kept = database.query(
            "SELECT domain, url, toStringCutToZero(cc) AS country, category_code"
            f" FROM {TABLE.name} WHERE country IN %(broken)s",
            {"broken": broken},
        )
        log.warning("keeping %s live rows of %s", f"{len(kept):,}", ", ".join(broken))
        rows += kept
    return rows


def load_rows(job: Job[Config], nodes: Nodes, commit: str, rows: Sequence[Row]) -> None:
    """Replace the table, or print what that would change."""
    config = job.config
    limits = (
        LossLimit(config.max_shrink),
        LossLimit(config.max_country_shrink, rows=TOLERATED_COUNTRY_LOSS, per="cc"),
    )
    bounds = (config.min_rows, config.max_rows)
    new_content = Update.of_rows(TABLE, rows, bounds, limits)
    for change in load(job, nodes, [new_content], versioned(source_of(config, commit))):
        job.metrics.gauge("citizenlab_test_list_len", change.live.rows)


if __name__ == "__main__":
    sys.exit(main())
