"""What is in the buckets: `list`, `verify` and `restore`."""

import dataclasses
import logging
from datetime import UTC, datetime

from backup_command_line import SCRIPT
from backup_config import Config, Side
from backups.commands import private_bucket, stored_backups, with_progress
from backups.restore_command import backup_with, restore_backup
from backups.stored import Backup, good_backups
from backups.verify_command import verify_backups
from exports.commands import public_bucket
from exports.manifest import ExportLayout
from exports.restore_command import restore_export
from exports.stored import TableManifests, exported_tables, read_table_manifests
from exports.verify_command import verify_exports
from inventory import check_names
from listing import (
    backup_as_table,
    backups_as_table,
    chunks_as_table,
    exports_as_table,
    stored_as_json,
)
from ooni_common.errors import DataRefused, UsageError
from ooni_common.output import show
from ooni_common.run import Job, configuration_shown

log = logging.getLogger("ooni.db_backup")

EXPORTS = "exports"  # with --from, in the place of a backup's name


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
    job = dataclasses.replace(job, config=job.config.as_restoring)
    findings = _findings(job)
    for finding in findings:
        log.error("%s", finding)
    if findings:
        count = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
        raise DataRefused(f"{count}; replace what is damaged: export --force, backup --full")


def _findings(job: Job[Config]) -> list[str]:
    """Return what is wrong with exports and backups, and send how much of all that is."""
    if job.arguments.tables or job.arguments.source:
        return _verified(job)
    try:
        findings = _verified(job)
    except DataRefused:
        job.metrics.gauge("verify_findings", 1)
        raise
    job.metrics.gauge("verify_findings", len(findings))
    return findings


def _verified(job: Job[Config]) -> list[str]:
    """Check exports and backups; return what is wrong with them."""
    config, arguments = job.config, job.arguments
    if arguments.tables:
        check_names(arguments.tables, [*config.named_tables, *_stored_tables(job)])
    private = has_bucket(config, "private") and arguments.source != EXPORTS
    exports = list(arguments.tables)
    if private and exports and has_bucket(config, "public"):
        there = exported_tables(*public_bucket(job))
        exports = [name for name in exports if config.is_exported(name) or name in there]
    findings: list[str] = []
    if (
        has_bucket(config, "public")
        and arguments.source in ("", EXPORTS)
        and (exports or not arguments.tables)
    ):
        findings += verify_exports(job, exports)
    if private:
        required = [name for name in arguments.tables if not config.is_exported(name)]
        findings += verify_backups(job, arguments.tables, set(required) - set(exports))
    return findings


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
        raise UsageError("--chunk is for the export of one table")
    backup = None
    from_exports = arguments.source == EXPORTS or arguments.chunks
    if not from_exports and (has_bucket(job.config, "private") or arguments.everything):
        backup = backup_with(job, arguments.table)
    if backup:
        restore_backup(job, backup, arguments.table)
        return
    check_names([arguments.table], _stored_tables(job), "export or backup of a table")
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
