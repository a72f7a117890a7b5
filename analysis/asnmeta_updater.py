#!/usr/bin/env python3
"""Load the history of the ASNs into the table `asnmeta`.

    https://archive.org/download/ip2country-as/all_as_org_map.json
        → asnmeta (asn, org_name, cc, changed, aut_name, source)

It names the networks in everything that OONI publishes. The document is read, validated and loaded
piece by piece (asn_map_file.py), and the table is replaced as a whole or not at all.

By hand: asnmeta_updater.py --dry-run --stdout
"""

import dataclasses
import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from asn_map_file import AsnMap
from ooni_common.command_line import DOCTOR, Command, Lock, Script, rollback_argument
from ooni_common.config import Bytes, Count, DatabaseConfig, Seconds, SecretUrl, check_url
from ooni_common.fetch import Limits, configured_fetcher
from ooni_common.garbage import without_garbage_collection
from ooni_common.nodes import Nodes, connected_nodes
from ooni_common.run import Clock, Job, execute
from ooni_common.state import read_state
from ooni_common.swap.content import Content
from ooni_common.swap.update import Change, LossLimit, Table, Update
from refusals import Refusals
from table_updates import (
    check_before_writing,
    examine_updater,
    heal_nodes,
    load,
    loaded_source,
    note_unchanged,
    roll_back_tables,
)
from update_state import UpdateState, live_contents
from upstream_files import Fetched, fetch_unless_refused, prove_next_time, upstream_checks

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
# The file has 32 MB: an hour lets a link of 10 kB/s have it. Tries are over after two minutes.
LIMITS = Limits(max_bytes=500_000_000, total_time=3600, retries=7)

DIGEST = f"{TABLE.name}.sha256"  # of the document, in the state file


class Config(DatabaseConfig, frozen=True, kw_only=True):
    """The keys of update-asn-metadata.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/analysis")
    db_uri: SecretUrl = SecretUrl("clickhouse://api:api@localhost/default")
    url: SecretUrl = SecretUrl("https://archive.org/download/ip2country-as/all_as_org_map.json")
    ca_file: Path | None = None
    total_time: Seconds = LIMITS.total_time
    max_bytes: Bytes = LIMITS.max_bytes
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
)


def main(argv: Sequence[str] | None = None, clock: Clock = time.time) -> int:
    """Run once as the command line says; return the exit status."""
    commands = {
        "run": Command(update, "load the map if it has changed", rollback_argument, Lock.RUN),
        "doctor": Command(examine, DOCTOR),
    }
    return execute(SCRIPT, commands, argv, clock)


def examine(job: Job[Config]) -> None:
    """Print whether a run can succeed."""
    limits = dataclasses.replace(LIMITS, retries=0)
    fetcher = configured_fetcher(job.user_agent, job.config, limits)
    examine_updater(job, [TABLE], upstream_checks(fetcher, {"upstream": job.config.url}))


def update(job: Job[Config]) -> None:
    """Load the map if it has changed since the last run."""
    with connected_nodes(job.config) as nodes, tempfile.TemporaryDirectory() as folder:
        check_before_writing(nodes, [TABLE])
        if job.arguments.rollback:
            report_rows(job, roll_back_tables(job, nodes, [TABLE]))
            return
        report_progress(job, 0)
        loaded = loaded_source(job, nodes, [TABLE])
        refusals = Refusals(job, lambda: live_contents(nodes, [TABLE]))
        with job.metrics.timer("fetch_data"):
            fetched = fetch_map(job, loaded, refusals.source, Path(folder))
        if fetched.refused:
            heal_nodes(job, nodes, [TABLE])
            raise refusals.again(fetched.source)
        with refusals.remembered(fetched.unproven_source):
            if fetched.files:
                report_progress(job, 50)
                load_map(job, nodes, fetched)
            else:
                note_unchanged(job, nodes, [TABLE], fetched.source)
        report_progress(job, 100)


def report_progress(job: Job[Config], percent: int) -> None:
    """Tell how far the run has come."""
    job.metrics.gauge("asnmeta_update_progress", percent)


def fetch_map(
    job: Job[Config], loaded: Mapping[str, str], refused: Mapping[str, str], folder: Path
) -> Fetched:
    """Fetch the map unless it is what the table was loaded from, or what was refused."""
    config = job.config
    fetcher = configured_fetcher(job.user_agent, config, LIMITS)
    return fetch_unless_refused(fetcher, {TABLE.name: config.url}, loaded, refused, folder)


def load_map(job: Job[Config], nodes: Nodes, fetched: Fetched) -> None:
    """Replace the table, or print what that would change."""
    config = job.config
    with fetched.files[TABLE.name].open("rb") as file, without_garbage_collection():
        asn_map = AsnMap("all_as_org_map.json", file)
        bounds = (config.min_rows, config.max_rows)
        limits = (LossLimit(config.max_shrink),)
        content = content_if_loaded(job, asn_map, fetched.source)
        try:
            update = Update(TABLE, asn_map.blocks(), bounds, limits, content)
            changes = load(job, nodes, [update], fetched.source)
        finally:
            report_refused_rows(job, asn_map)
        if asn_map.refused_rows:
            prove_next_time(job, fetched)
    report_rows(job, changes)


def report_rows(job: Job[Config], changes: Sequence[Change]) -> None:
    """Tell how many rows the live table has now."""
    for change in changes:
        job.metrics.gauge("asnmeta_tmp_len", change.live.rows)


def content_if_loaded(
    job: Job[Config], asn_map: AsnMap, source: Mapping[str, str]
) -> Content | None:
    """Return what the map adds up to if the table was loaded from the same bytes; else None.

    After an upgrade, and with `--force`, they are read once more. Rows that the table has must not
    be written into the shadow, which has those that the last update replaced.
    """
    loaded = read_state(job.state_file, UpdateState).source
    if loaded.get(DIGEST) != source[DIGEST]:
        return None
    return sum((block.content for block in asn_map.blocks()), start=Content())


def report_refused_rows(job: Job[Config], asn_map: AsnMap) -> None:
    """Log what was found in the map."""
    for refusal in asn_map.refusals:
        log.warning("%s; row refused", refusal)
    if asn_map.refused_rows > len(asn_map.refusals):
        log.warning("%s rows are refused in all", f"{asn_map.refused_rows:,}")
    job.metrics.gauge("rejected_rows", asn_map.refused_rows)


if __name__ == "__main__":
    sys.exit(main())
