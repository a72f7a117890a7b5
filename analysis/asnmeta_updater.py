#!/usr/bin/env python3
"""Load the history of the ASNs into the table `asnmeta`.

    https://archive.org/download/ip2country-as/all_as_org_map.json
        → asnmeta (asn, org_name, cc, changed, aut_name, source)

It names the networks in everything that OONI publishes. The document (asn_map.py) is read and
loaded piece by piece, and the table is replaced as a whole or not at all.

By hand: asnmeta_updater.py --dry-run --stdout
"""

import contextlib
import gc
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from asn_map import AsnMap
from ooni_common.config import DatabaseConfig, SecretUrl, check_url
from ooni_common.database import Database, connected
from ooni_common.fetch import Fetcher, Limits
from ooni_common.run import ROLLBACK, Job, Script, execute
from ooni_common.tables import LossLimit, Table, Update
from table_updates import Fetched, fetch_changed, known_source, load, note_unchanged, put_back

log = logging.getLogger("ooni.asnmeta")

TABLE = Table(
    name="asnmeta",
    shadow="asnmeta_tmp",
    columns={
        "asn": "UInt32",
        "org_name": "String",
        "cc": "String",
        "changed": "Date",
        "aut_name": "String",
        "source": "String",
    },
    engine="ENGINE = MergeTree ORDER BY (asn, changed)",
    identity=("asn", "changed"),
)
LIMITS = Limits(max_bytes=500 * 2**20)  # the file has 32 MB

Count = Annotated[int, Meta(ge=0)]


class Config(DatabaseConfig, frozen=True, kw_only=True):
    """The keys of update-asn-metadata.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/analysis")
    db_uri: SecretUrl = SecretUrl("clickhouse://api:api@localhost/default")
    url: SecretUrl = SecretUrl("https://archive.org/download/ip2country-as/all_as_org_map.json")
    ca_file: Path | None = None
    min_rows: Count = 100_000
    max_rows: Count = 1_000_000

    def __post_init__(self) -> None:
        """Refuse a URL that can't be fetched."""
        super().__post_init__()
        check_url("url", self.url.reveal(), ("https", "http", "file"), needs_host=False)


SCRIPT = Script(
    name="asnmeta_updater",
    command="ooni-update-asn-metadata",
    description="Load the history of the ASNs into the table `asnmeta`.",
    config_type=Config,
    config_file=Path("/etc/ooni/update-asn-metadata.conf"),
    flags=ROLLBACK,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run once as the command line says; return the exit status."""
    return execute(SCRIPT, update, argv)


def update(job: Job[Config]) -> None:
    """Load the map if it has changed since the last run."""
    with connected(job.config) as database, tempfile.TemporaryDirectory() as folder:
        if "rollback" in job.flags:
            put_back(job, database, [TABLE])
            return
        progress(job, 0)
        known = known_source(job, database, [TABLE])
        with job.metrics.timer("fetch_data"):
            fetched = fetch_map(job, known, Path(folder))
        if not fetched.files:
            note_unchanged(job, fetched.source)
        else:
            progress(job, 50)
            load_map(job, database, fetched)
        progress(job, 100)


def progress(job: Job[Config], percent: int) -> None:
    """Tell how far the run has come."""
    job.metrics.gauge("asnmeta_update_progress", percent)


def fetch_map(job: Job[Config], known: Mapping[str, str], folder: Path) -> Fetched:
    """Fetch the map unless it is what the table was loaded from."""
    config = job.config
    fetcher = Fetcher(job.user_agent, LIMITS, ca_file=config.ca_file)
    return fetch_changed(fetcher, {TABLE.name: config.url}, known, folder)


def load_map(job: Job[Config], database: Database, fetched: Fetched) -> None:
    """Replace the table, or print what that would change."""
    config = job.config
    with fetched.files[TABLE.name].open("rb") as file, garbage_left_alone():
        asn_map = AsnMap("all_as_org_map.json", file)
        bounds = (config.min_rows, config.max_rows)
        limits = (LossLimit(config.max_shrink),)
        try:
            changes = load(
                job, database, [Update(TABLE, asn_map.blocks(), bounds, limits)], fetched.source
            )
        finally:
            report_refused_rows(job, asn_map)
    for change in changes:
        job.metrics.gauge("asnmeta_tmp_len", change.live.rows)


@contextlib.contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Keep Python from searching a million new texts for cycles, of which they have none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def report_refused_rows(job: Job[Config], asn_map: AsnMap) -> None:
    """Log what was found in the map."""
    for finding in asn_map.findings:
        log.warning("%s; row refused", finding)
    if asn_map.refused > len(asn_map.findings):
        log.warning("%s rows are refused in all", f"{asn_map.refused:,}")
    job.metrics.gauge("rejected_rows", asn_map.refused)


if __name__ == "__main__":
    sys.exit(main())
