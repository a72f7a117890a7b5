"""What is in the buckets: `list`, `verify` and `restore`."""

import dataclasses
import logging
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime

from backup_command_line import SCRIPT
from backup_config import Config, Side
from backups.commands import private_bucket, stored_backups, with_progress
from backups.restore_command import backup_with, restore_backup
from backups.stored import Backup, good_backups
from backups.verify_command import verify_backups
from commands.listing import (
    Stored,
    backup_as_table,
    backups_as_table,
    chunks_as_table,
    exports_as_table,
    stored_as_json,
)
from databases import (
    by_names,
    by_source,
    each_in_turn,
    failures_in,
    name_of_database,
    of_each_database,
    of_table,
    raise_first,
    split_name,
    with_arguments,
)
from exports.commands import public_bucket
from exports.restore_command import restore_export
from exports.stored import TableManifests, exported_tables, read_table_manifests
from exports.verify_command import verify_exports
from ooni_common.errors import DataRefused, UsageError
from ooni_common.output import show
from ooni_common.run import Job, configuration_shown
from tables.inventory import check_names, check_text

log = logging.getLogger("ooni.db_backup")

EXPORTS = "exports"  # with --from, in the place of a backup's name


def list_all(job: Job[Config]) -> None:
    """Print what there is of exports and backups, in the order of their names."""
    stored = Stored()
    for one in of_each_database(job):
        stored.add(one.config.qualifier, _stored_exports(one), _listed_backups(one))
    manifests, damaged, by_name = stored.exports, stored.damaged, stored.backups
    names = job.arguments.names
    check_names(names, [*manifests, *damaged, *by_name], "export or backup")
    if job.arguments.json:
        chosen = names or [*manifests, *damaged, *by_name]
        show(
            stored_as_json(
                {name: manifest for name, manifest in manifests.items() if name in chosen},
                {name: reason for name, reason in damaged.items() if name in chosen},
                {name: backup for name, backup in by_name.items() if name in chosen},
            )
        )
        return
    sections = []
    now = datetime.now(UTC)
    for name in names:
        if name in manifests:
            sections.append(chunks_as_table(manifests[name]))
        if name in damaged:
            sections.append(exports_as_table({}, {name: damaged[name]}))
        if name in by_name:
            sections.append(backup_as_table(name, by_name[name], now))
    if not names and job.config.public_bucket_name:
        sections.append(exports_as_table(manifests, damaged))
    if not names and job.config.private_bucket_name:
        sections.append(backups_as_table(by_name, now))
    show("\n\n".join(sections))


def print_config(job: Job[Config]) -> None:
    """Print the configuration in force as TOML, and where each value comes from."""
    show(configuration_shown(SCRIPT, job.config, job.arguments))


def _stored_exports(job: Job[Config]) -> TableManifests:
    if not has_bucket(job.config, "public"):
        return TableManifests({}, {})
    return read_table_manifests(*public_bucket(job))


def _listed_backups(job: Job[Config]) -> list[Backup]:
    if not has_bucket(job.config, "private"):
        return []
    bucket, layout = private_bucket(job)
    return with_progress(job, bucket, layout, stored_backups(job))


def has_bucket(config: Config, side: Side) -> bool:
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
    findings: list[str] = []

    def verify_database(one: Job[Config]) -> None:
        where = f"database {one.config.database}: " if one.config.qualifier else ""
        for finding in _verified(one):  # what was found is told whatever fails then
            log.error("%s%s", where, finding)
            findings.append(finding)

    job = dataclasses.replace(job, config=job.config.as_restoring)
    failures = failures_in(by_source(by_names(job, "tables"), job.config), verify_database)
    wrong = len(findings) + sum(isinstance(failure, DataRefused) for failure in failures)
    if (wrong or not failures) and not (job.arguments.tables or job.arguments.source):
        job.metrics.gauge("verify_findings", wrong)
    raise_first(failures)
    if findings:
        count = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
        raise DataRefused(f"{count}; replace what is damaged: export --force, backup --full")


def _verified(job: Job[Config]) -> Iterator[str]:
    """Check exports and backups of a database; yield what is wrong with them."""
    config, arguments = job.config, job.arguments
    if arguments.tables:
        check_names(arguments.tables, [*config.named_tables, *_stored_tables(job)])
    private = has_bucket(config, "private") and arguments.source != EXPORTS
    if private and (config.qualifier or config.databases) and not arguments.tables:
        # Of several databases, not each has to have backups.
        private = bool(config.backs_up_any or stored_backups(job))
    exports = list(arguments.tables)
    if private and exports and has_bucket(config, "public"):
        there = exported_tables(*public_bucket(job))
        exports = [name for name in exports if config.is_exported(name) or name in there]
    if (
        has_bucket(config, "public")
        and arguments.source in ("", EXPORTS)
        and (exports or not arguments.tables)
    ):
        yield from verify_exports(job, exports)
    if private:
        required = [name for name in arguments.tables if not config.is_exported(name)]
        yield from verify_backups(job, arguments.tables, set(required) - set(exports))


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
    if arguments.chunks and (arguments.everything or arguments.source not in ("", EXPORTS)):
        raise UsageError(
            "--chunk is for the export of one table; in a backup it has partitions: --partition"
        )
    if arguments.partitions:
        _check_partitions(arguments)
    check_text("--as", arguments.name)
    check_text("--to-database", arguments.to_database)
    if job.config.split(arguments.name)[0]:
        raise UsageError("--as takes the name of a table alone; for its database: --to-database")
    if arguments.everything:
        each_in_turn(_whole_databases(job), _restore_database)
        return
    each_in_turn(by_source([of_table(job)], job.config), _restore_table)


def _check_partitions(arguments: Namespace) -> None:
    """Raise UsageError where partitions can't be restored alone."""
    if arguments.everything or arguments.source == EXPORTS or arguments.chunks:
        raise UsageError("--partition is for one table of a backup; for its export: --chunk")
    if arguments.replace:
        raise UsageError(
            "--partition restores beside the live table (--as, --to-database), as --replace would"
            " take all its other rows away; the log has the statement that replaces the partition"
        )


def _whole_databases(job: Job[Config]) -> list[Job[Config]]:
    """Return the job for each database that is to be restored as a whole.

    Raises:
        UsageError: their tables would be mixed in one database.
    """
    jobs = by_source(of_each_database(job), job.config)
    if len(jobs) > 1:  # not each has to have backups
        jobs = [one for one in jobs if one.config.backs_up_any or stored_backups(one)] or jobs[:1]
    if len(jobs) > 1 and job.arguments.to_database:
        raise UsageError("--to-database: of which database? Name a backup of it with --from")
    skipped = [split_name(job.config, name) for name in job.arguments.skip]
    return [
        with_arguments(
            one, skip=[name for database, name in skipped if database == name_of_database(one)]
        )
        for one in jobs
    ]


def _restore_database(job: Job[Config]) -> None:
    backup = backup_with(job, "")
    if backup:
        restore_backup(job, backup, "")


def _restore_table(job: Job[Config]) -> None:
    arguments = job.arguments
    backup = None
    from_exports = arguments.source == EXPORTS or arguments.chunks
    if not from_exports and has_bucket(job.config, "private"):
        backup = backup_with(job, arguments.table)
    if backup:
        restore_backup(job, backup, arguments.table)
        return
    check_names([arguments.table], _stored_tables(job), "export or backup of a table")
    if arguments.partitions:
        raise UsageError(f"{arguments.table!r} is in no good backup; for its export: --chunk")
    if arguments.replace or arguments.to_database:
        raise UsageError("an export is only restored under a new name (--as)")
    restore_export(job, arguments.table)


def _stored_tables(job: Job[Config]) -> set[str]:
    """Return the names of the tables that have an export or are in a good backup."""
    stored: set[str] = set()
    if has_bucket(job.config, "public"):
        stored |= exported_tables(*public_bucket(job))
    if has_bucket(job.config, "private"):
        backups = stored_backups(job)
        stored.update(*(manifest.tables for manifest in good_backups(backups)))
    return stored
