#!/usr/bin/env python3
"""Load the CitizenLab test lists into the table `citizenlab`.

    https://github.com/citizenlab/test-lists, lists/*.csv
        → citizenlab (domain, url, cc, category_code)

The lists say which URLs OONI's probes test in which country. Anybody can propose a change to them,
so nothing that comes from there is trusted: the repository is read as data (citizenlab_git.py),
every row is validated (citizenlab_lists.py), and the table is replaced as a whole or not at all.

By hand: citizenlab_test_lists_updater.py --dry-run --stdout
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

import citizenlab_git
import citizenlab_lists
from citizenlab_git import Entry
from citizenlab_lists import TestList
from csv_source import BrokenFileError
from ooni_common.config import DatabaseConfig, SecretUrl, check_url
from ooni_common.database import Database, connected
from ooni_common.errors import DataRefused
from ooni_common.run import ROLLBACK, Job, Script, execute
from ooni_common.tables import LossLimit, Row, Table, Update
from table_updates import known_source, load, put_back, report_findings, versioned

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

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]


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
        """Refuse a repository that would need a password: git would show it in the process list."""
        super().__post_init__()
        check_url("git_url", self.git_url, ("https", "http", "file"), needs_host=False)
        if "@" in self.git_url:
            raise ValueError("git_url: the clone is unauthenticated; leave user and password out")


SCRIPT = Script(
    name="citizenlab_test_lists_updater",
    command="ooni-update-citizenlab",
    description="Load the CitizenLab test lists into the table `citizenlab`.",
    config_type=Config,
    config_file=Path("/etc/ooni/update-citizenlab.conf"),
    flags=ROLLBACK,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run once as the command line says; return the exit status."""
    return execute(SCRIPT, update, argv)


def update(job: Job[Config]) -> None:
    """Load the lists of the newest commit, unless the table has them already."""
    config = job.config
    with connected(config) as database:
        if "rollback" in job.flags:
            put_back(job, database, [TABLE])
            return
        git = citizenlab_git.Git(config.git_time_limit, ca_file=config.ca_file)
        commit = citizenlab_git.head_commit(git, config.git_url)
        if known_source(job, database, [TABLE]).items() >= source_of(config, commit).items():
            log.info("nothing to do: %s holds commit %s", TABLE.name, commit)
            return
        with job.metrics.timer("fetch_citizen_lab_lists"):
            commit, lists = fetch_lists(git, config.git_url)
        report_findings(job, lists)
        job.metrics.gauge("broken_files", sum(1 for test_list in lists if test_list.broken))
        refuse_bad_lists(config, lists)
        with job.metrics.timer("update_citizenlab_table"):
            load_rows(job, database, commit, rows_to_load(database, lists))


def source_of(config: Config, commit: str) -> dict[str, str]:
    """Return what the state file says of a load: a commit is one of its repository."""
    return {"commit": commit, "git_url": SecretUrl(config.git_url).identity}


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


def csv_files(entries: Sequence[Entry]) -> list[Entry]:
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
        categories = citizenlab_lists.read_categories(contents.get(citizenlab_lists.LEGEND, b""))
    except BrokenFileError as error:
        raise DataRefused(f"{citizenlab_lists.LEGEND}:{error.line}: {error.reason}") from None
    by_country: dict[str, TestList] = {}
    for file, content in sorted(contents.items()):
        cc = citizenlab_lists.country_of(file)
        if cc is None:
            if "/00-LEGEND-" not in file:
                log.info("%s: not loaded, %r is not a country", file, Path(file).stem)
        elif cc in by_country:
            raise DataRefused(f"{file}: a second list for {cc}, beside {by_country[cc].file}")
        else:
            by_country[cc] = citizenlab_lists.read_list(file, cc, content, categories)
    return list(by_country.values())


def refuse_bad_lists(config: Config, lists: Sequence[TestList]) -> None:
    """Raise DataRefused when the lists are too bad to be loaded."""
    broken = [test_list.broken for test_list in lists if test_list.broken]
    if broken and config.on_broken_file == "refuse":
        files = "1 file is broken" if len(broken) == 1 else f"{len(broken)} files are broken"
        raise DataRefused(
            f"{files}, first {broken[0]}; nothing is loaded until upstream mends it,"
            ' unless on_broken_file = "keep-previous"'
        )
    refused = sum(len(test_list.refused) for test_list in lists if not test_list.broken)
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


def load_rows(job: Job[Config], database: Database, commit: str, rows: Sequence[Row]) -> None:
    """Replace the table, or print what that would change."""
    config = job.config
    limits = (
        LossLimit(config.max_shrink),
        LossLimit(config.max_country_shrink, rows=TOLERATED_COUNTRY_LOSS, per="cc"),
    )
    bounds = (config.min_rows, config.max_rows)
    new_content = Update.of_rows(TABLE, rows, bounds, limits)
    for change in load(job, database, [new_content], versioned(source_of(config, commit))):
        job.metrics.gauge("citizenlab_test_list_len", change.live.rows)


if __name__ == "__main__":
    sys.exit(main())
