#!/usr/bin/env python3
"""Load the blocking fingerprints into the tables `fingerprints_dns` and `fingerprints_http`.

    https://github.com/ooni/blocking-fingerprints, fingerprints_dns.csv and fingerprints_http.csv
        → fingerprints_dns, fingerprints_http

OONI's fastpath applies every pattern to every measurement: one bad regular expression, or a pattern
that matches what every site sends, would harm them all. So every row is validated, regular
expressions by the database's own engine, and judged by what it would match (ordinary_answers.py).
Both tables are replaced together or not at all.

By hand: fingerprints_updater.py --dry-run --stdout
"""

import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from findings import report_findings
from fingerprints_file import (
    CSV_HEADER,
    KINDS,
    PATTERN_TYPES,
    Fingerprints,
    read_fingerprints,
    row_digest,
)
from ooni_common.command_line import DOCTOR, Command, Lock, Script, rollback_argument
from ooni_common.config import Bytes, Count, DatabaseConfig, Seconds, SecretUrl, check_url
from ooni_common.database import Database
from ooni_common.errors import DataRefused
from ooni_common.fetch import Limits, configured_fetcher
from ooni_common.nodes import Nodes, connected_nodes
from ooni_common.run import Clock, Job, execute
from ooni_common.swap.update import Change, LossLimit, Table, Update
from ordinary_answers import OrdinaryAnswers, read_ordinary_answers
from pattern_faults import harmful_patterns_of, wrong_regexps_of
from refusals import Refusals, RefusedForNow
from refused_rows import RefusedRows
from table_updates import (
    check_before_writing,
    database_to_read,
    examine_updater,
    heal_nodes,
    load,
    loaded_source,
    note_unchanged,
    roll_back_tables,
)
from update_state import live_contents
from upstream_files import Fetched, fetch_unless_refused, prove_next_time, upstream_checks

log = logging.getLogger("ooni.fingerprints")

UPSTREAM = "https://raw.githubusercontent.com/ooni/blocking-fingerprints/main"
LIMITS = Limits(max_bytes=50_000_000)  # of one file; the larger one has 0.3 MB


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


TABLES = {name: table(name, kind.scopes) for name, kind in KINDS.items()}


class Config(DatabaseConfig, frozen=True, kw_only=True):
    """The keys of update-fingerprints.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/analysis")
    db_uri: SecretUrl = SecretUrl("clickhouse://api:api@localhost/default")
    dns_url: SecretUrl = SecretUrl(f"{UPSTREAM}/fingerprints_dns.csv")
    http_url: SecretUrl = SecretUrl(f"{UPSTREAM}/fingerprints_http.csv")
    ca_file: Path | None = None
    total_time: Seconds = LIMITS.total_time
    max_bytes: Bytes = LIMITS.max_bytes
    ordinary_dir: Path | None = None
    max_rejected_rows: Count = 10
    hold_days: Count = 14
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
)


def main(argv: Sequence[str] | None = None, clock: Clock = time.time) -> int:
    """Run once as the command line says; return the exit status."""
    commands = {
        "run": Command(update, "load the files that have changed", rollback_argument, Lock.RUN),
        "doctor": Command(examine, DOCTOR),
    }
    return execute(SCRIPT, commands, argv, clock)


def examine(job: Job[Config]) -> None:
    """Print whether a run can succeed."""
    config = job.config
    fetcher = configured_fetcher(job.user_agent, config, replace(LIMITS, retries=0))
    urls = {"upstream, DNS": config.dns_url, "upstream, HTTP": config.http_url}

    def ordinary() -> str:
        answers = read_ordinary_answers(config.ordinary_dir)
        return f"{answers.count} are tried on every pattern"

    examine_updater(
        job,
        list(TABLES.values()),
        itertools.chain([("answers", ordinary)], upstream_checks(fetcher, urls)),
    )


def update(job: Job[Config]) -> None:
    """Load the files that have changed since the last run."""
    tables = list(TABLES.values())
    with connected_nodes(job.config) as nodes, tempfile.TemporaryDirectory() as folder:
        check_before_writing(nodes, tables)
        if job.arguments.rollback:
            report_rows(job, roll_back_tables(job, nodes, tables))
            return
        ordinary = read_ordinary_answers(job.config.ordinary_dir)
        report_progress(job, 0)
        loaded = loaded_source(job, nodes, tables)
        refusals = Refusals(job, lambda: live_contents(nodes, tables))
        with job.metrics.timer("fetch_csv"):
            fetched = fetch_files(job, loaded, refusals.source, Path(folder))
        if fetched.refused:
            heal_nodes(job, nodes, tables)
            raise refusals.again(fetched.source)
        with refusals.remembered(fetched.unproven_source):
            if fetched.files:
                report_progress(job, 30)
                judge_and_load(job, nodes, fetched, ordinary, job.clock())
            else:
                note_unchanged(job, nodes, tables, fetched.source)
        report_progress(job, 100)


def judge_and_load(
    job: Job[Config], nodes: Nodes, fetched: Fetched, ordinary: OrdinaryAnswers, now: float
) -> None:
    """Replace the tables by what is good in the files.

    Raises:
        DataRefused: too little is; neither table is changed.
    """
    files = read_files(nodes, fetched, ordinary)
    report_findings(list(files.values()))
    job.metrics.gauge("rejected_rows", sum(len(file.refusals) for file in files.values()))
    refused = RefusedRows(job.state_file, job.config.hold_days, now)
    try:
        check_files(job, nodes, files, refused)
        report_progress(job, 60)
        load_files(job, nodes, files, fetched.source)
        if any(file.refusals for file in files.values()):
            prove_next_time(job, fetched)
        refused.load_beside()
    finally:
        if not job.dry_run:
            refused.write()


def report_progress(job: Job[Config], percent: int) -> None:
    """Tell how far the run has come."""
    job.metrics.gauge("fingerprints_update_progress", percent)


def fetch_files(
    job: Job[Config], loaded: Mapping[str, str], refused: Mapping[str, str], folder: Path
) -> Fetched:
    """Fetch the files that are not what the tables were loaded from, or what was refused."""
    config = job.config
    fetcher = configured_fetcher(job.user_agent, config, LIMITS)
    urls = {"fingerprints_dns": config.dns_url, "fingerprints_http": config.http_url}
    return fetch_unless_refused(fetcher, urls, loaded, refused, folder)


def read_files(
    nodes: Nodes, fetched: Fetched, ordinary: OrdinaryAnswers
) -> dict[str, Fingerprints]:
    """Parse and validate the files; return them by table."""
    files = {}
    for name, path in fetched.files.items():
        file = read_fingerprints(f"{name}.csv", path.read_bytes(), KINDS[name])
        if not file.broken:
            refuse_bad_patterns(nodes, file, ordinary)
        files[name] = file
    return files


def refuse_bad_patterns(nodes: Nodes, file: Fingerprints, ordinary: OrdinaryAnswers) -> None:
    """Refuse the rows whose patterns do not compile, or match too much, as any node tells."""
    file.refuse_rows(nodes.on_one(lambda node: wrong_regexps_of(node.database, file.rows)))
    file.refuse_rows(
        nodes.on_one(lambda node: harmful_patterns_of(node.database, file.rows, ordinary))
    )


def check_files(
    job: Job[Config], nodes: Nodes, files: Mapping[str, Fingerprints], refused: RefusedRows
) -> None:
    """Raise DataRefused when the files are too bad to be loaded."""
    for file in files.values():
        if file.broken:
            raise DataRefused(f"{file.broken}; neither table is loaded until upstream mends it")

    def known(name: str) -> set[str]:
        return live_rows(database_to_read(job, nodes, TABLES[name]), name)

    refused.note(
        {
            name: file.refused - (known(name) if file.refused else set())
            for name, file in files.items()
        }
    )
    try:
        refused.check(job.config.max_rejected_rows)
    except RefusedForNow as error:
        if not job.force:
            day = f"{datetime.fromtimestamp(error.until, UTC):%Y-%m-%d}"
            raise RefusedForNow(
                f"{error}; the others are loaded on {day}, or by --force", error.until
            ) from None
        log.warning("%s; the others are loaded by --force", error)


def live_rows(database: Database, table_name: str) -> set[str]:
    """Return what the rows of a live table are known by, which an older version has validated."""
    if not database.exists(table_name):
        return set()
    rows = database.query(f"SELECT {', '.join(CSV_HEADER)} FROM {table_name}")
    return {row_digest([str(cell) for cell in row]) for row in rows}


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
    report_rows(job, load(job, nodes, updates, source))


def report_rows(job: Job[Config], changes: Sequence[Change]) -> None:
    """Tell how many rows the live tables have now."""
    for change in changes:
        job.metrics.gauge(f"{change.table.shadow}_len", change.live.rows)


if __name__ == "__main__":
    sys.exit(main())
