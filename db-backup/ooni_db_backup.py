#!/usr/bin/env python3
"""Publish the tables of the OONI database for everybody, and back up the private ones.

    ClickHouse, HTTP or native →  s3://<bucket>/clickhouse_export/csv/<table>_<chunk>.csv.zstd
    ClickHouse's own BACKUP    →  s3://<another bucket>/clickhouse_backup/data/<time>/…

Exports: the rows are compressed and uploaded while they are read, so that there is no temporary
file, and the memory does not grow with the table. A chunk (mostly a month) is only read when its
fingerprint has changed since the last run (exports/).

Backups: the server writes and reads them itself; this script says what is in them, watches, and
proves by restoring that they are good (backups/).

An object or a backup is there when it is complete: a manifest, written last, says so. What is done
with which table is in db-backup.conf (tables/policy.py).

By hand: ooni_db_backup.py --dry-run --stdout, and `list`, `verify`, `restore`
"""

import sys
from collections.abc import Sequence
from itertools import chain

from backup_command_line import (
    SCRIPT,
    backup_arguments,
    delete_arguments,
    forget_arguments,
    init_arguments,
    list_arguments,
    prune_arguments,
    restore_arguments,
    tables_arguments,
    verify_arguments,
)
from backup_config import Config
from backup_doctor import Doctor, checks_of_another
from commands.init import init, tell_whether_configured
from commands.prune import delete, forget, prune
from commands.run import backup, export, run
from commands.stored import list_all, print_config, restore, verify
from databases import by_names, each_in_turn, other_configs
from exports.clickhouse_http import ClickHouseHTTP
from memory import map_large_blocks
from ooni_common.command_line import DOCTOR, Command, Lock
from ooni_common.database import connected
from ooni_common.doctor import diagnose
from ooni_common.nodes import connected_nodes
from ooni_common.output import show
from ooni_common.run import Job, execute
from tables.inventory import check_names, read_table, table_names


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command as the command line says; return the exit status."""
    map_large_blocks()
    commands = {
        "run": Command(run, "do what the configuration says of each table", lock=Lock.RUN),
        "export": Command(
            export, "export the public tables, or only some of them", tables_arguments, Lock.RUN
        ),
        "backup": Command(backup, "back up the private tables", backup_arguments, Lock.RUN),
        "list": Command(list_all, "show exports and backups", list_arguments),
        "verify": Command(verify, "check exports and backups", verify_arguments, reports=True),
        "restore": Command(restore, "restore tables", restore_arguments, Lock.OWN),
        "print-config": Command(print_config, "show the configuration as TOML, and its sources"),
        "schema": Command(show_schema, "show the schema of the tables", tables_arguments),
        "prune": Command(prune, "delete what is no longer needed", prune_arguments, Lock.OF_RUNS),
        "delete": Command(delete, "delete backups, by name", delete_arguments, Lock.OF_RUNS),
        "forget": Command(forget, "let exports follow a deletion", forget_arguments, Lock.OF_RUNS),
        "doctor": Command(examine, DOCTOR),
        "init": Command(init, "write a first configuration file", init_arguments, configures=True),
        "is-configured": Command(
            tell_whether_configured, "print no where no timer should run it yet"
        ),
    }
    return execute(SCRIPT, commands, argv)


def show_schema(job: Job[Config]) -> None:
    """Print the statements that create the tables."""
    each_in_turn(by_names(job, "tables"), _show_schema_of_database)


def _show_schema_of_database(job: Job[Config]) -> None:
    with connected(job.config) as database:
        names = table_names(database)
        check_names(job.arguments.tables, names)
        for name in job.arguments.tables or names:
            show(f"{read_table(database, name).create};\n")


def examine(job: Job[Config]) -> None:
    """Print what is well and what is not.

    Raises:
        Unhealthy: something is not.
    """
    with connected_nodes(job.config, one_suffices=True) as nodes:
        http = ClickHouseHTTP(job.config, job.user_agent)
        own = Doctor(job.config, nodes, http, job.user_agent).checks()
        others = other_configs(job.config)
        diagnose(chain(own, *(checks_of_another(config, job.user_agent) for config in others)))


if __name__ == "__main__":
    sys.exit(main())
