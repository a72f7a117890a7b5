"""What the updaters of this folder have in common: checks, loads and rollbacks."""

import itertools
import logging
from collections.abc import Mapping, Sequence

from ooni_common import __version__
from ooni_common.config import DatabaseConfig
from ooni_common.database import Database
from ooni_common.doctor import Checks, diagnose, machine_checks, preflight
from ooni_common.nodes import Nodes
from ooni_common.output import show
from ooni_common.run import Job
from ooni_common.state import read_state, write_state
from ooni_common.swap.agreement import agreed_database
from ooni_common.swap.preview import preview_tables
from ooni_common.swap.replace import replace_tables
from ooni_common.swap.update import Change, Table, Update
from ooni_common.table_checks import RunChecks, Tables, database_checks
from update_state import (
    UpdateState,
    heal_tables,
    is_current,
    kept_by_rollback,
    next_state,
    roll_back,
    rolled_back_state,
    to_roll_back,
)

log = logging.getLogger("ooni.updates")

SourceVersion = Mapping[str, str]


def versioned(source: SourceVersion) -> dict[str, str]:
    """Return what the state file says of a load: another validation may load other rows."""
    return {**source, "version": __version__}


def examine_updater(job: Job[DatabaseConfig], tables: Sequence[Table], upstream: Checks) -> None:
    """Print whether a run can succeed, and what to do where it can't.

    Raises:
        Unhealthy: it can't.
    """
    config = job.config
    diagnose(
        itertools.chain(
            machine_checks(config.state_dir, config.statsd),
            database_checks(config, Tables(tables)),
            upstream,
        )
    )


def check_before_writing(nodes: Nodes, tables: Sequence[Table]) -> None:
    """Make the checks that need the database, before anything is written.

    Raises:
        ConfigError, Unavailable: a run would fail.
    """
    preflight(RunChecks(nodes, Tables(tables)))


def loaded_source(
    job: Job[DatabaseConfig], nodes: Nodes, tables: Sequence[Table]
) -> Mapping[str, str]:
    """Return what the live tables were loaded from; nothing if they hold something else by now.

    Another version of the package may read the same source otherwise, and loads it; but not what
    was rolled back.
    """
    state = read_state(job.state_file, UpdateState)
    same = state.source.get("version") == __version__
    source = state.source if same else kept_by_rollback(state, tables)
    return source if source and not job.force and is_current(nodes, tables, state) else {}


def database_to_read(job: Job[DatabaseConfig], nodes: Nodes, table: Table) -> Database:
    """Return the connection to a node that has what is live; see `agreed_database`.

    Raises:
        Unavailable, ConfigError: no majority of the nodes is left.
    """
    left = read_state(job.state_file, UpdateState).live.get(table.name)
    return agreed_database(nodes, table, left)


def note_unchanged(
    job: Job[DatabaseConfig], nodes: Nodes, tables: Sequence[Table], source: SourceVersion
) -> None:
    """Say that there is nothing to do, and keep what the server said of the version.

    Raises:
        Unavailable: no majority of the nodes is left.
    """
    log.info("nothing to do: upstream has nothing new")
    heal_nodes(job, nodes, tables)
    if not job.dry_run:
        write_state(job.state_file, next_state(read_state(job.state_file, UpdateState), source, []))


def heal_nodes(job: Job[DatabaseConfig], nodes: Nodes, tables: Sequence[Table]) -> None:
    """Bring nodes that hold something else to what the others have.

    Raises:
        Unavailable: no majority of the nodes is left.
    """
    if not job.dry_run:
        heal_tables(nodes, tables)
    job.metrics.gauge("absent_nodes", len(nodes.absent))


def load(
    job: Job[DatabaseConfig], nodes: Nodes, updates: Sequence[Update], source: SourceVersion
) -> list[Change]:
    """Replace the tables, and note what they were loaded from; of a dry run, print the difference.

    Raises:
        DataRefused, Unavailable, ConfigError: as `replace_tables`; nothing was changed.
    """
    if job.dry_run:
        for line in preview_tables(nodes, updates, force=job.force):
            show(line)
        return []
    changes = replace_tables(nodes, updates, force=job.force, critical=job.signals.deferred)
    job.metrics.gauge("absent_nodes", len(nodes.absent))
    write_state(
        job.state_file, next_state(read_state(job.state_file, UpdateState), source, changes)
    )
    for change in changes:
        log.info("%s", change)
    return changes


def roll_back_tables(
    job: Job[DatabaseConfig], nodes: Nodes, tables: Sequence[Table]
) -> list[Change]:
    """Restore the content that the last update replaced. It stays until upstream changes.

    Raises:
        DataRefused: the shadow tables do not hold it; also of a dry run.
    """
    state = read_state(job.state_file, UpdateState)
    if job.dry_run:
        for one in to_roll_back(nodes, tables, state, force=job.force):
            table = one.change.table
            log.info("would swap %s and %s", table.shadow, table.name)
        return []
    changes = roll_back(nodes, tables, state, force=job.force, critical=job.signals.deferred)
    write_state(job.state_file, rolled_back_state(state, changes))
    for change in changes:
        log.info("rolled back: %s; what was replaced will not be loaded again", change)
    return changes
