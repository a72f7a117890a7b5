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
with which table is in db-backup.conf (backup_config.py).

By hand: ooni_db_backup.py --dry-run --stdout, and `list`, `verify`, `restore`
"""

import argparse
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from backup_config import MOST_DAYS, Config, Side, TablePolicy
from backup_doctor import Doctor, checks_before_a_run
from backups.commands import (
    back_up_tables,
    private_bucket,
    prune_backups,
    stored_backups,
    vanished_tables,
    with_progress,
)
from backups.restore_command import backup_with, restore_backup
from backups.stored import Backup, good_backups
from backups.verify_command import verify_backups
from exports.clickhouse_http import ClickHouseHTTP
from exports.commands import (
    export_tables,
    prune_exports,
    public_bucket,
    restore_export,
    verify_exports,
)
from exports.manifest import ExportLayout, TableManifests, exported_tables, read_table_manifests
from inventory import all_table_names, check_names, read_table, table_names
from listing import (
    backup_as_table,
    backups_as_table,
    chunks_as_table,
    exports_as_table,
    stored_as_json,
)
from ooni_common.command_line import DOCTOR, Command, Script
from ooni_common.database import connected
from ooni_common.doctor import diagnose, preflight
from ooni_common.errors import ConfigError, DataRefused, ScriptError, UsageError
from ooni_common.files import locked, make_writable
from ooni_common.nodes import connected_nodes
from ooni_common.output import show
from ooni_common.run import Job, execute

log = logging.getLogger("ooni.db_backup")

DAY = 86_400  # seconds
EXPORTS = "exports"  # with --from, in the place of a backup's name


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command as the command line says; return the exit status."""
    commands: Mapping[str, Callable[[Job[Config]], None]] = {
        "run": run,
        "export": export,
        "backup": backup,
        "list": list_all,
        "verify": verify,
        "restore": restore,
        "schema": show_schema,
        "prune": prune,
        "doctor": examine,
    }
    return execute(SCRIPT, lambda job: commands[job.command](job), argv)


def run(job: Job[Config]) -> None:
    """Export the public tables, back up the private ones, and refuse those that nobody has listed.

    One that fails does not keep the others from being done.
    """
    config = job.config
    with connected_nodes(config, one_suffices=True) as nodes:
        preflight(checks_before_a_run(nodes))
        names = all_table_names(nodes)
        unlisted = config.unlisted(names)
        job.metrics.gauge("unlisted_tables", len(unlisted))
        public = _among(config, names, lambda policy: policy.exported)
        private = _among(config, names, lambda policy: policy.backed_up)
        failures: list[ScriptError] = []
        if _exports(config) and (public or config.public_bucket_name or not private):
            existing = None if nodes.absent else names
            failures += _failures(lambda: export_tables(job, nodes, public, existing))
        if _backs_up(config) and (private or config.action == "backup"):
            failures += _failures(lambda: back_up_tables(job, nodes, private))
        elif _backs_up(config) and config.private_bucket_name:
            failures += _failures(lambda: vanished_tables(job, nodes, private))
        if unlisted:
            failures.append(
                DataRefused(
                    "tables that are not listed in the configuration (public, private, both or"
                    f" none): {', '.join(map(repr, unlisted))}; the listed ones are done"
                )
            )
        if (missing := config.missing(names)) and not nodes.absent:
            failures.append(
                DataRefused(
                    f"tables that are listed, but not there: {', '.join(map(repr, missing))}; if"
                    ' they are gone for good, list them as "gone": what was saved of them stays'
                )
            )
    raise_first(failures)


def _exports(config: Config) -> bool:
    return config.action != "backup"


def _backs_up(config: Config) -> bool:
    return config.action != "export"


def _failures(work: Callable[[], Sequence[ScriptError]]) -> Sequence[ScriptError]:
    """Do a part of a run; return what has failed."""
    try:
        return work()
    except ScriptError as error:
        return (error,)


def raise_first(failures: Sequence[ScriptError]) -> None:
    """Raise the first failure, if there is one; log the others."""
    for failure in failures[1:]:
        log.error("%s", failure)
    if failures:
        raise failures[0]


def export(job: Job[Config]) -> None:
    """Export the public tables, or those of them that were named."""
    config = job.config
    with connected_nodes(config, one_suffices=True) as nodes:
        preflight(checks_before_a_run(nodes))
        names = all_table_names(nodes)
        public = _among(config, names, lambda policy: policy.exported)
        check_names(job.arguments.tables, names)
        for name in job.arguments.tables:
            if name not in public:
                raise ConfigError(
                    f"{name!r} is not public in the configuration; public are: {', '.join(public)}"
                )
        existing = None if job.arguments.tables or nodes.absent else names
        raise_first(export_tables(job, nodes, job.arguments.tables or public, existing))


def backup(job: Job[Config]) -> None:
    """Back up the private tables, all of them at once."""
    with connected_nodes(job.config, one_suffices=True) as nodes:
        preflight(checks_before_a_run(nodes))
        private = _among(job.config, all_table_names(nodes), lambda policy: policy.backed_up)
        raise_first(back_up_tables(job, nodes, private, full=job.arguments.full))


def _among(config: Config, names: Sequence[str], has: Callable[[TablePolicy], bool]) -> list[str]:
    """Return the tables whose policy has something."""
    policies = {name: config.policy_of(name) for name in names}
    return [name for name, policy in policies.items() if policy and has(policy)]


def list_all(job: Job[Config]) -> None:
    """Print what there is of exports and backups, in the order of their names."""
    exports, backups = _stored_exports(job), _listed_backups(job)
    manifests, damaged = exports.sound, exports.damaged
    by_name = {backup.name: backup for backup in backups}
    names = job.arguments.names
    check_names(names, [*manifests, *damaged, *by_name], "export or backup")
    if job.arguments.json:
        chosen = names or [*manifests, *damaged, *by_name]
        show(
            stored_as_json(
                {name: manifest for name, manifest in manifests.items() if name in chosen},
                {name: reason for name, reason in damaged.items() if name in chosen},
                [backup for backup in backups if backup.name in chosen],
            )
        )
        return
    sections = []
    layout, now = ExportLayout(job.config.public_prefix), datetime.now(UTC)
    for name in names:
        if name in manifests:
            sections.append(chunks_as_table(manifests[name], layout))
        if name in damaged:
            sections.append(exports_as_table({}, {name: damaged[name]}))
        if name in by_name:
            sections.append(backup_as_table(by_name[name], now))
    if not names and job.config.public_bucket_name:
        sections.append(exports_as_table(manifests, damaged))
    if not names and job.config.private_bucket_name:
        sections.append(backups_as_table(backups, now))
    show("\n\n".join(sections))


def _stored_exports(job: Job[Config]) -> TableManifests:
    if not _has(job.config, "public"):
        return TableManifests({}, {})
    return read_table_manifests(*public_bucket(job))


def _listed_backups(job: Job[Config]) -> list[Backup]:
    if not _has(job.config, "private"):
        return []
    bucket, layout = private_bucket(job)
    return with_progress(job, bucket, layout, stored_backups(job))


def _has(config: Config, side: Side) -> bool:
    """Tell whether there is a bucket of this side; the public one has to be, if there is no other.

    Raises:
        ConfigError: there is none at all.
    """
    if side == "private":
        return bool(config.private_bucket_name)
    if not config.private_bucket_name:
        config.store("public")
    return bool(config.public_bucket_name)


def verify(job: Job[Config]) -> None:
    """Check exports and backups.

    Raises:
        DataRefused: something is wrong with them.
    """
    job = dataclasses.replace(job, config=job.config.as_restoring)
    config, arguments = job.config, job.arguments
    if arguments.tables:
        check_names(arguments.tables, [*config.named_tables, *_stored_tables(job)])
    private = _has(config, "private") and arguments.source != EXPORTS
    exports = list(arguments.tables)
    if private and exports and _has(config, "public"):
        there = exported_tables(*public_bucket(job))
        exports = [name for name in exports if config.is_exported(name) or name in there]
    findings: list[str] = []
    if (
        _has(config, "public")
        and arguments.source in ("", EXPORTS)
        and (exports or not arguments.tables)
    ):
        findings += verify_exports(job, exports)
    if private:
        required = [name for name in arguments.tables if not config.is_exported(name)]
        findings += verify_backups(job, arguments.tables, set(required) - set(exports))
    for finding in findings:
        log.error("%s", finding)
    if findings:
        raise DataRefused(
            f"{len(findings)} findings; make anew what is damaged: export --force, backup --full"
        )


def restore(job: Job[Config]) -> None:
    """Restore a table from a backup or from its export, or all tables from a backup."""
    job = dataclasses.replace(job, config=job.config.as_restoring)
    arguments = job.arguments
    if arguments.everything and (arguments.name or arguments.source == EXPORTS):
        raise UsageError("--all cannot be combined with --as or --from exports")
    if not arguments.everything and (
        arguments.skip or arguments.schema_only or arguments.data_only
    ):
        raise UsageError("--skip, --schema-only and --data-only are for --all")
    backup = None
    if arguments.source != EXPORTS and (_has(job.config, "private") or arguments.everything):
        backup = backup_with(job, arguments.table)
    if backup:
        restore_backup(job, backup, arguments.table)
        return
    check_names([arguments.table], _stored_tables(job), "export or backup of a table")
    if arguments.replace or arguments.to_database:
        raise UsageError("no backup has it; from an export: only under a new name (--as)")
    restore_export(job, arguments.table)


def _stored_tables(job: Job[Config]) -> set[str]:
    """Return the names of the tables that have an export or are in a good backup."""
    stored: set[str] = set()
    if _has(job.config, "public"):
        stored |= exported_tables(*public_bucket(job))
    if _has(job.config, "private"):
        backups = stored_backups(job)
        stored.update(*(manifest.tables for manifest in good_backups(backups)))
    return stored


def show_schema(job: Job[Config]) -> None:
    """Print the statements that create the tables."""
    with connected(job.config) as database:
        names = table_names(database)
        check_names(job.arguments.tables, names)
        for name in job.arguments.tables or names:
            show(f"{read_table(database, name).create};\n")


def prune(job: Job[Config]) -> None:
    """Delete exports and backups that nobody needs, or show which these are."""
    config = job.config
    confirmed = job.arguments.confirm and not job.dry_run
    if confirmed:
        make_writable("state_dir", config.state_dir)
    with locked(config.state_dir / f"{SCRIPT.name}.lock") if confirmed else nullcontext():
        if confirmed:
            check_clocks(job)
        if _has(config, "public"):
            prune_exports(job, confirmed=confirmed)
        if _has(config, "private"):
            prune_backups(job, confirmed=confirmed)


def check_clocks(job: Job[Config]) -> None:
    """Refuse to delete by age where this machine, or the store, does not know what day it is.

    Raises:
        ConfigError: they are more than a day apart.
    """
    buckets = [public_bucket(job)[0]] if _has(job.config, "public") else []
    buckets += [private_bucket(job)[0]] if _has(job.config, "private") else []
    for bucket in buckets:
        days = (time.time() - bucket.time()) / DAY
        if abs(days) > 1:
            direction = "ahead of" if days > 0 else "behind"
            raise ConfigError(
                f"this machine is {abs(days):,.0f} days {direction} the clock of {bucket.url}:"
                " nothing is deleted by age; check its NTP"
            )


def examine(job: Job[Config]) -> None:
    """Print what is well and what is not.

    Raises:
        Unhealthy: something is not.
    """
    with connected_nodes(job.config, one_suffices=True) as nodes:
        http = ClickHouseHTTP(job.config, job.user_agent)
        diagnose(Doctor(job.config, nodes, http, job.user_agent).checks())


def _tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="only these")


def _source(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--from", dest="source", default="", metavar="BACKUP", help=text)


def _backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="begin a new chain")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="show the chunks of this table, or the tables of this backup",
    )
    parser.add_argument("--json", action="store_true", help="for scripts: all that is known")


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    _tables(parser)
    _source(
        parser, "this backup, 'all' of them, or only the 'exports'; default: the newest, and both"
    )
    parser.add_argument(
        "--quick", action="store_true", help="look whether all is there; read and restore no rows"
    )
    _trust(parser)


def _restore_arguments(parser: argparse.ArgumentParser) -> None:
    scope = parser.add_mutually_exclusive_group(required=True)
    scope.add_argument("table", nargs="?", default="", metavar="TABLE", help="the one to restore")
    scope.add_argument(
        "--all",
        dest="everything",
        action="store_true",
        help="all that a backup has, under its own names; what is there and the same stays",
    )
    _source(parser, "this one, or 'exports'; default: the newest backup, else the exports")
    parser.add_argument(
        "--as", dest="name", default="", metavar="NAME", help="default: TABLE_restored"
    )
    parser.add_argument(
        "--to-database", default="", metavar="DB", help="there, under its own name unless --as"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="in the place of the live table, which is kept as TABLE_replaced_TIME",
    )
    _trust(parser)
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="TABLE",
        help="with --all: leave this one out; can be given several times",
    )
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--schema-only", action="store_true", help="with --all: make tables, without rows"
    )
    parts.add_argument(
        "--data-only", action="store_true", help="with --all: fill tables that are there, and empty"
    )


def _trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-definitions",
        dest="trusted",
        action="store_true",
        help="execute the definitions of an unsigned backup or an export as they stand there",
    )


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep",
        type=_at_least_one,
        metavar="N",
        help="chains of backups; default: keep_chains of the configuration",
    )
    parser.add_argument(
        "--keep-days",
        type=_days,
        metavar="DAYS",
        help="and younger ones; default: keep_days of the configuration",
    )
    parser.add_argument(
        "--older-than",
        type=_days,
        default=90,
        metavar="DAYS",
        help="exports of rows that are gone from the database, and objects that no manifest names:"
        " since how long; default: 90",
    )
    parser.add_argument(
        "--damaged",
        action="store_true",
        help="damaged backups, too, that may have the last rows of a table",
    )
    parser.add_argument("--confirm", action="store_true", help="delete; without it, only show")


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {MOST_DAYS}")
    return days


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


SCRIPT = Script(
    name="db-backup",
    command="ooni-db-backup",
    description="Export the tables of the OONI database to S3 for everybody, and back them up.",
    config_type=Config,
    config_file=Path("/etc/ooni/db-backup.conf"),
    commands=(
        Command("run", "do what the configuration says of each table"),
        Command("export", "export the public tables, or only some of them", _tables),
        Command("backup", "back up the private tables", _backup_arguments),
        Command("list", "show exports and backups", _list_arguments, looks_only=True),
        Command("verify", "check exports and backups", _verify_arguments, looks_only=True),
        Command("restore", "restore tables", _restore_arguments, aside=True),
        Command("schema", "show the schema of the tables", _tables, looks_only=True),
        # It looks, unless --confirm is given: then it takes the lock of the job itself.
        Command("prune", "delete what nobody needs any more", _prune_arguments, looks_only=True),
        DOCTOR,
    ),
)


if __name__ == "__main__":
    sys.exit(main())
