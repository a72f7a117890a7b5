"""What the updaters of this folder have in common: their findings, their loads, their rollbacks."""

import logging
from collections.abc import Mapping, Sequence

from csv_source import ParsedFile
from ooni_common import __version__
from ooni_common.config import DatabaseConfig
from ooni_common.database import Database
from ooni_common.run import Job
from ooni_common.tables import (
    Change,
    Table,
    Update,
    is_current,
    next_state,
    preview_tables,
    read_state,
    replace_tables,
    roll_back,
    write_state,
)

log = logging.getLogger("ooni.updates")


def versioned(source: Mapping[str, str]) -> dict[str, str]:
    """Return what the state file says of a load: another validation may load other rows."""
    return {**source, "version": __version__}


def report_findings(job: Job[DatabaseConfig], files: Sequence[ParsedFile]) -> None:
    """Log everything that was found, and send how many rows were refused."""
    for file in files:
        for finding in file.warnings:
            log.warning("%s", finding)
        for finding in file.refused:
            log.warning("%s; row refused", finding)
        if file.broken:
            log.error("%s; file refused", file.broken)
    job.metrics.gauge("rejected_rows", sum(len(file.refused) for file in files))


def load(
    job: Job[DatabaseConfig],
    database: Database,
    updates: Sequence[Update],
    source: Mapping[str, str],
) -> list[Change]:
    """Replace the tables, and note what they were loaded from; of a dry run, print the difference.

    Raises:
        DataRefused, Unavailable, ConfigError: as `replace_tables`; nothing was changed.
    """
    if job.dry_run:
        for line in preview_tables(database, updates, force=job.force):
            print(line)  # noqa: T201 (a dry run's output is for people)
        return []
    changes = replace_tables(database, updates, force=job.force, critical=job.signals.deferred)
    write_state(job.state_file, next_state(read_state(job.state_file), source, changes))
    for change in changes:
        log.info("%s", change)
    return changes


def put_back(job: Job[DatabaseConfig], database: Database, tables: Sequence[Table]) -> None:
    """Swap the content of before the last update in; it stays until upstream has something new.

    Raises:
        DataRefused: the shadow tables do not hold it.
    """
    state = read_state(job.state_file)
    if job.dry_run:
        for table in tables:
            log.info("would swap %s and %s", table.shadow, table.name)
        return
    changes = roll_back(database, tables, state, force=job.force, critical=job.signals.deferred)
    write_state(job.state_file, next_state(state, state.source, changes))
    for change in changes:
        log.info("rolled back: %s; what was replaced will not be loaded again", change)


def holds(
    job: Job[DatabaseConfig], database: Database, tables: Sequence[Table], source: Mapping[str, str]
) -> bool:
    """Tell whether there is nothing to do: the tables were loaded from this very source."""
    return not job.force and is_current(database, tables, read_state(job.state_file), source)
