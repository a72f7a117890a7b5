#!/usr/bin/env python3
"""Load the blocking fingerprints into the tables `fingerprints_dns` and `fingerprints_http`.

    https://github.com/ooni/blocking-fingerprints, fingerprints_dns.csv and fingerprints_http.csv
        → fingerprints_dns, fingerprints_http

OONI's fastpath applies every pattern to every measurement: one bad regular expression or one empty
pattern would harm them all. So every row is validated (regular expressions by the database's own
engine), and both tables are replaced together or not at all.

Source of the format: README.md of that repository. The files are CSV with CRLF line ends; a pattern
can contain CRLF itself, and its bytes are kept as they are.

By hand: fingerprints_updater.py --dry-run --stdout
"""

import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from csv_source import BrokenFileError, Finding, ParsedFile, csv_text, records
from ooni_common.config import Count, DatabaseConfig, SecretUrl, check_url
from ooni_common.database import Database, StatementFailed
from ooni_common.errors import DataRefused
from ooni_common.fetch import Fetcher, Limits
from ooni_common.nodes import Nodes, connected_nodes
from ooni_common.run import DOCTOR, ROLLBACK, Command, Job, Script, execute
from ooni_common.swap.update import LossLimit, Table, Update
from table_updates import (
    Fetched,
    check_before_writing,
    examine_updater,
    fetch_changed,
    load,
    loaded_source,
    note_unchanged,
    report_findings,
    roll_back_tables,
    upstream_checks,
)

log = logging.getLogger("ooni.fingerprints")

UPSTREAM = "https://raw.githubusercontent.com/ooni/blocking-fingerprints/main"
LIMITS = Limits(max_bytes=50 * 2**20)  # of one file; the larger one has 0.3 MB
CANNOT_COMPILE_REGEXP = 427  # ClickHouse's error code

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
PATTERN_TYPES = {"full": 1, "prefix": 2, "contains": 3, "regexp": 4}
DNS_SCOPES = {"nat": 1, "isp": 2, "prod": 3, "inst": 4, "vbw": 5, "fp": 6}
HTTP_SCOPES = {**DNS_SCOPES, "injb": 7, "prov": 8}
CONFIDENCE = re.compile("[0-9]|10")
COUNTRIES = re.compile("(?:[A-Z]{2}(?:,[A-Z]{2})*)?")

NAME, SCOPE, PATTERN_TYPE, PATTERN, CONFIDENCE_NO_FP, EXPECTED_COUNTRIES = map(
    CSV_HEADER.index,
    ["name", "scope", "pattern_type", "pattern", "confidence_no_fp", "expected_countries"],
)


def table(name: str, scopes: Mapping[str, int]) -> Table:
    """Return a table of fingerprints; the two differ in their scopes alone."""
    types = dict.fromkeys(CSV_HEADER, "String") | {
        "scope": _enum(scopes),
        "pattern_type": _enum(PATTERN_TYPES),
        "confidence_no_fp": "UInt8",
    }
    engine = "ENGINE = EmbeddedRocksDB PRIMARY KEY(name)"
    return Table(name, f"{name}_tmp", types, engine, identity=("name",))


def _enum(values: Mapping[str, int]) -> str:
    return "Enum(" + ", ".join(f"'{name}' = {number}" for name, number in values.items()) + ")"


SCOPES = {"fingerprints_dns": DNS_SCOPES, "fingerprints_http": HTTP_SCOPES}
TABLES = {name: table(name, scopes) for name, scopes in SCOPES.items()}


class Config(DatabaseConfig, frozen=True, kw_only=True):
    """The keys of update-fingerprints.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/analysis")
    db_uri: SecretUrl = SecretUrl("clickhouse://api:api@localhost/default")
    dns_url: SecretUrl = SecretUrl(f"{UPSTREAM}/fingerprints_dns.csv")
    http_url: SecretUrl = SecretUrl(f"{UPSTREAM}/fingerprints_http.csv")
    ca_file: Path | None = None
    max_rejected_rows: Count = 10
    min_rows: Count = 100
    max_rows: Count = 50_000

    def __post_init__(self) -> None:
        """Refuse URLs that can't be fetched."""
        super().__post_init__()
        for key, url in (("dns_url", self.dns_url), ("http_url", self.http_url)):
            check_url(key, url.reveal(), ("https", "http", "file"), needs_host=False)


SCRIPT = Script(
    name="fingerprints_updater",
    command="ooni-update-fingerprints",
    description="Load the blocking fingerprints into `fingerprints_dns` and `fingerprints_http`.",
    config_type=Config,
    config_file=Path("/etc/ooni/update-fingerprints.conf"),
    flags=ROLLBACK,
    commands=(Command("run", "load the files that have changed"), DOCTOR),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run once as the command line says; return the exit status."""
    return execute(SCRIPT, lambda job: (examine if job.command == "doctor" else update)(job), argv)


def examine(job: Job[Config]) -> None:
    """Print whether a run can succeed."""
    config = job.config
    fetcher = Fetcher(job.user_agent, replace(LIMITS, retries=0), ca_file=config.ca_file)
    urls = {"upstream, DNS": config.dns_url, "upstream, HTTP": config.http_url}
    examine_updater(job, list(TABLES.values()), upstream_checks(fetcher, urls))


def update(job: Job[Config]) -> None:
    """Load the files that have changed since the last run."""
    tables = list(TABLES.values())
    with connected_nodes(job.config) as nodes, tempfile.TemporaryDirectory() as folder:
        check_before_writing(nodes, tables)
        if "rollback" in job.flags:
            roll_back_tables(job, nodes, tables)
            return
        report_progress(job, 0)
        loaded = loaded_source(job, nodes, tables)
        with job.metrics.timer("fetch_csv"):
            fetched = fetch_files(job, loaded, Path(folder))
        if not fetched.files:
            note_unchanged(job, nodes, tables, fetched.source)
            report_progress(job, 100)
            return
        report_progress(job, 30)
        files = read_files(nodes.first, fetched)
        report_findings(job, list(files.values()))
        check_files(job.config, list(files.values()))
        report_progress(job, 60)
        load_files(job, nodes, files, fetched.source)
        report_progress(job, 100)


def report_progress(job: Job[Config], percent: int) -> None:
    """Tell how far the run has come."""
    job.metrics.gauge("fingerprints_update_progress", percent)


def fetch_files(job: Job[Config], loaded: Mapping[str, str], folder: Path) -> Fetched:
    """Fetch the files that are not what the tables were loaded from."""
    config = job.config
    fetcher = Fetcher(job.user_agent, LIMITS, ca_file=config.ca_file)
    urls = {"fingerprints_dns": config.dns_url, "fingerprints_http": config.http_url}
    return fetch_changed(fetcher, urls, loaded, folder)


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


def read_files(database: Database, fetched: Fetched) -> dict[str, Fingerprints]:
    """Parse and validate the files; return them by table."""
    files = {}
    for name, path in fetched.files.items():
        file = read_fingerprints(f"{name}.csv", path.read_bytes(), SCOPES[name])
        if not file.broken:
            file.refuse_regexps(lambda regexps: wrong_regexps(database, regexps))
        files[name] = file
    return files


def read_fingerprints(file: str, content: bytes, scopes: Mapping[str, int]) -> Fingerprints:
    """Parse and validate a file; what is wrong is in the result.

    Regular expressions are not checked here: see `Fingerprints.refuse_regexps`.
    """
    result = Fingerprints(file)
    try:
        text, has_bom = csv_text(content)
        if has_bom:
            result.warnings.append(Finding(file, 1, "starts with a byte order mark"))
        lines = records(text)
        line, header = next(lines, (1, []))
        if header != CSV_HEADER:
            raise BrokenFileError(line, f"the header is not {','.join(CSV_HEADER)}")  # noqa: TRY301
        for line, row in lines:
            _read_row(result, line, row, scopes)
    except BrokenFileError as error:
        result.broken = Finding(file, error.line, error.reason)
    return result


def _read_row(result: Fingerprints, line: int, row: list[str], scopes: Mapping[str, int]) -> None:
    if reason := next(_refusals(row, scopes), ""):
        result.refuse(line, row, reason)
    elif result.lines.setdefault(row[NAME], line) != line:
        result.refuse(line, row, f"the name is in line {result.lines[row[NAME]]} already")
    else:
        confidence = int(row[CONFIDENCE_NO_FP])
        result.rows.append((*row[:CONFIDENCE_NO_FP], confidence, *row[CONFIDENCE_NO_FP + 1 :]))


def _refusals(row: Sequence[str], scopes: Mapping[str, int]) -> Iterator[str]:
    """Yield why a row is refused; the first reason is enough."""
    if len(row) != len(CSV_HEADER):
        yield f"{len(row)} columns instead of {len(CSV_HEADER)}"
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


def wrong_regexps(database: Database, regexps: Sequence[str]) -> dict[str, str]:
    """Ask the database which regular expressions its RE2 can't compile, and why.

    One question is enough for files in which all of them compile.
    """
    # Servers before 26 refuse (44) to search in a constant for what differs from row to row.
    question = "SELECT arrayMap(regexp -> match(materialize(''), regexp), %(regexps)s)"
    try:
        if regexps:
            database.query(question, {"regexps": list(regexps)})
    except StatementFailed as error:
        if error.code != CANNOT_COMPILE_REGEXP:
            raise
        if len(regexps) == 1:
            return {regexps[0]: re.sub(r".*error: |\. Look at .*", "", error.said)}
        half = len(regexps) // 2
        return wrong_regexps(database, regexps[:half]) | wrong_regexps(database, regexps[half:])
    return {}


def check_files(config: Config, files: Sequence[Fingerprints]) -> None:
    """Raise DataRefused when the files are too bad to be loaded."""
    for file in files:
        if file.broken:
            raise DataRefused(f"{file.broken}; neither table is loaded until upstream mends it")
    refused = sum(len(file.refusals) for file in files)
    if refused > config.max_rejected_rows:
        most = config.max_rejected_rows
        raise DataRefused(f"{refused} rows are refused, more than max_rejected_rows = {most}")


def load_files(
    job: Job[Config],
    nodes: Nodes,
    files: Mapping[str, Fingerprints],
    source: Mapping[str, str],
) -> None:
    """Replace the tables together, or print what that would change."""
    config = job.config
    updates = [
        Update.of_rows(
            TABLES[name],
            file.rows,
            (config.min_rows, config.max_rows),
            (LossLimit(config.max_shrink),),
        )
        for name, file in files.items()
    ]
    for change in load(job, nodes, updates, source):
        job.metrics.gauge(f"{change.table.shadow}_len", change.live.rows)


if __name__ == "__main__":
    sys.exit(main())
